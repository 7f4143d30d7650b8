# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

# mypy: no-check-untyped-defs

"""A stock Glance 33.0 on native threads, as released and on our helpers."""

import shutil

from glance_store.tests.functional import base
from glance_store.tests.functional import glance

ROUNDS = 3
SIZE = 256 << 20


class TestNativeThreads(base.TestCase):
    def test_gunicorn(self):
        self.check(glance.gunicorn)

    def test_uwsgi(self):
        self.check(glance.uwsgi)

    def check(self, command):
        """Uploads are faster, and what comes back is what was sent."""
        source, digest = glance.source(self.folder / 'source', SIZE)
        servers = [
            self.useFixture(glance.Glance(name, command, 33, adopted))
            for name, adopted in (('released', False), ('adopted', True))
        ]
        figures = glance.Figures()
        for turn in range(ROUNDS):
            for server in servers[:: -1 if turn % 2 else 1]:
                for uploads in 1, 3:
                    ids = [server.create() for _ in range(uploads)]
                    seconds = sum(
                        glance.at_once([server.uploading(id, source)])
                        for id in ids
                    )
                    what = f'{uploads} uploads to {command.__name__}: MB/s'
                    speed = uploads * SIZE / seconds / 1e6
                    figures.add(what, server.name, speed)
                    self.assertEqual(digest, server.digest(ids[-1]))
                    for id in ids:
                        server.request('DELETE', f'/v2/images/{id}')
        for uploads in 1, 3:
            what = f'{uploads} uploads to {command.__name__}: MB/s'
            figures.compare(what, 'adopted', 'released', 1.15)
        self.show(str(figures))
        self.assertEqual([], figures.missed)


class TestRefusal(base.TestCase):
    """A Glance without a name that is known stays as it was released."""

    def setUp(self):
        super().setUp()
        self.consumer = base.environment('glance_33')
        self.useFixture(base.DropIn(self.consumer))
        other = self.folder / 'glance'
        tests = shutil.ignore_patterns('tests')
        shutil.copytree(self.consumer.packages / 'glance', other, ignore=tests)
        utils = other / 'common' / 'utils.py'
        text = utils.read_text()
        utils.write_text(text.replace('chunkiter(fp,', 'chunkiter(file, fp,'))

    def run_glance(self, *arguments):
        done = self.consumer.run(
            *('-W', 'ignore', *arguments),
            cwd=self.folder,
            variables={'PYTHONPATH': str(self.folder)},
            statuses=(1,),
        )
        line = done.stderr.splitlines()[-1]
        self.assertIn('chunkiter(fp, chunk_size=65536)', line)
        self.assertIn('chunkiter(file, fp, chunk_size=65536)', line)
        self.assertIn('known are Glance 28 to 33', line)
        return done.stderr.splitlines()

    def test_glance_api(self):
        self.assertEqual(
            1, len(self.run_glance('-m', 'glance_store.common.adoption'))
        )

    def test_wsgi(self):
        self.run_glance('-c', f'import {glance.ADOPTED}')
