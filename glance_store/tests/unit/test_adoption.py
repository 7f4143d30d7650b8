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

"""The helpers are put into a Glance, or the Glance stays as it was.

This Glance is a stand-in with the names and signatures of the releases, and
so is the glance_store around our modules: the real ones need an environment
of their own, which the functional tests make. Each test runs in a process of
its own, in which nothing is adopted yet.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import fixtures

from glance_store.tests.unit import base

FILES = {
    'glance/__init__.py': '',
    'glance/common/__init__.py': '',
    'glance/common/utils.py': """
def chunkiter(fp, chunk_size=65536): pass
def chunkreadable(iter, chunk_size=65536): pass
def cooperative_iter(iter): pass
def cooperative_read(fd): pass
class CooperativeReader:
    def __init__(self, fd): pass
""",
    'glance/common/config.py': """
def load_paste_app(app_name, flavor=None, conf_file=None):
    return 'the application'
""",
    'glance/common/wsgi_app.py': """
from glance.common import config
def init_app():
    return config.load_paste_app('glance-api')
""",
    'glance/common/scripts/utils.py': """
def get_image_data_iter(uri):
    return open(uri, 'rb')
""",
    'glance/location.py': """
class ImageProxy:
    def __init__(self, data):
        self.data = data
    def get_data(self, offset=0, chunk_size=None):
        return self.data
""",
    'glance/wsgi/api.py': """
from glance.common import wsgi_app
application = wsgi_app.init_app()
""",
    'glance/cmd/api.py': """
import sys
ours = [name for name in sys.modules if name.startswith('glance_store')]
import eventlet
eventlet.patcher.monkey_patch()
def main():
    import json
    from glance.common import utils
    from glance_store.common import utils as helpers
    adopted = utils.CooperativeReader is helpers.CooperativeReader
    print(json.dumps([ours, adopted, sys.argv, sys.warnoptions]))
""",
    'glance_store/__init__.py': '',
    'glance_store/_drivers/__init__.py': '',
    'glance_store/_drivers/filesystem.py': """
class ChunkedFile:
    def __init__(self, filepath, offset=0, chunk_size=4096,
                 partial_length=None):
        self.fp = open(filepath, 'rb')
        self.chunk_size = chunk_size
    def __iter__(self):
        try:
            while chunk := self.fp.read(self.chunk_size):
                yield chunk
        finally:
            self.close()
    def close(self):
        self.fp.close()
""",
}

# What each test begins with. With the argument "eventlet", it is a service
# whose standard library is patched.
BEGIN = """
import io, json, os, sys
import eventlet
if 'eventlet' in sys.argv:
    eventlet.monkey_patch()
from glance.common import config, utils as copies
from glance import location
from glance_store._drivers import filesystem
from glance_store.common import adoption, utils
from oslo_config import cfg

ROUNDS = []

def rounds_of(iterable):
    'Iterate, and return how many rounds of the hub each step took.'
    def tick():
        while True:
            ROUNDS.append(None)
            eventlet.sleep(0)
    ticker = eventlet.spawn(tick)
    eventlet.sleep(0)
    rounds, items = [], []
    iterator = iter(iterable)
    while True:
        before = len(ROUNDS)
        item = next(iterator, None)
        if item is None:
            ticker.kill()
            return rounds, items
        items.append(item.decode())
        rounds.append(len(ROUNDS) - before)
"""


class TestAdoption(base.TestCase):
    def setUp(self):
        super().setUp()
        self.site = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        for name, text in FILES.items():
            path = self.site / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        common = pathlib.Path(base.ROOT, 'glance_store', 'common')
        (self.site / 'glance_store' / 'common').symlink_to(common)
        self.image = self.site / 'image'
        self.image.write_bytes(b'abcdefg')

    def run_in_glance(self, code, *args):
        return base.run_python(
            BEGIN + code, str(self.image), *args, PYTHONPATH=str(self.site)
        )

    def test_names(self):
        """The copies are replaced, and a second time changes nothing."""
        found = self.run_in_glance("""
adoption.adopt()
get_data = location.ImageProxy.get_data
adoption.adopt()
names = ['chunkreadable', 'cooperative_iter', 'cooperative_read',
         'CooperativeReader']
print(json.dumps([
    [getattr(copies, name) is getattr(utils, name) for name in names],
    b' '.join(copies.chunkiter(io.BytesIO(b'abc'), 2)).decode(),
    get_data is location.ImageProxy.get_data,
]))
""")
        self.assertEqual([[True] * 4, 'ab c', True], found)

    def test_data(self):
        """A download keeps what its data have: read, close, attributes."""
        found = self.run_in_glance("""
class Data:
    info = 'kept'
    def __iter__(self):
        try:
            yield from (b'a', b'b')
        finally:
            self.closed = True

class File:
    info = 'kept'
    def read(self, size=None):
        return b'c'
    def close(self):
        self.closed = True

def get(data):
    return location.ImageProxy(data).get_data(offset=1)

adoption.adopt()
sources = Data(), File()
data, file = map(get, sources)
ours = utils.CooperativeReader([])
answers = [
    [get('text'), get(ours) is ours],
    [next(data).decode(), file.read().decode()],
    [hasattr(data, 'read'), data.info, file.info],
]
for answer in data, file:
    answer.close()
print(json.dumps([*answers, [source.closed for source in sources]]))
""")
        self.assertEqual(
            [
                ['text', True],
                ['a', 'c'],
                [False, 'kept', 'kept'],
                [True, True],
            ],
            found,
        )

    def test_yields(self):
        """On eventlet, each way to image data yields once a chunk."""
        found = self.run_in_glance(
            """
from glance.common.scripts import utils as scripts

def get(source):
    return location.ImageProxy(source).get_data()

def image():
    return filesystem.ChunkedFile(sys.argv[1], chunk_size=2)

adoption.adopt()
cfg.CONF.set_override('default_chunk_size', 2, 'glance_store')
print(json.dumps([
    rounds_of(ways) for ways in (
        get([b'ab', b'cd', b'ef', b'g']),
        get(image()),
        image(),
        copies.chunkiter(open(sys.argv[1], 'rb'), 2),
        scripts.get_image_data_iter(sys.argv[1]),
    )
]))
""",
            'eventlet',
        )
        self.assertEqual([[[1] * 4, ['ab', 'cd', 'ef', 'g']]] * 5, found)

    def test_offloaded_reads(self):
        """A ChunkedFile is read by the pool where its option is on.

        Each of its chunks, and its end, still has one yield.
        """
        found = self.run_in_glance(
            """
import logging
logging.basicConfig(stream=(log := io.StringIO()), level=logging.DEBUG)
adoption.adopt()
answers = []
for offload in False, True:
    cfg.CONF.set_override('offload_file_reads', offload, 'glance_store')
    data = filesystem.ChunkedFile(sys.argv[1], chunk_size=4)
    answers.append(b''.join(location.ImageProxy(data).get_data()).decode())
    answers.append('eventlet.tpool' in sys.modules)
    answers.append(log.getvalue().count(' yielded'))
print(json.dumps(answers))
""",
            'eventlet',
        )
        self.assertEqual(['abcdefg', False, 3, 'abcdefg', True, 6], found)

    def test_log(self):
        """One line at INFO, when Glance has set up its log."""
        lines = self.run_in_glance("""
import logging
logging.basicConfig(stream=(log := io.StringIO()), level=logging.INFO)
adoption.adopt()
cfg.CONF.set_override('cooperative_yield_interval', 0.5, 'glance_store')
before = log.getvalue()
config.load_paste_app('glance-api')
print(json.dumps([before, *log.getvalue().splitlines()]))
""")
        before, line = lines
        self.assertEqual('', before)
        self.assertIn('INFO:glance_store.common.adoption:', line)
        self.assertIn('native threads', line)
        self.assertIn('cooperative_yield_interval=0.5', line)

    def test_refusal(self):
        """An unknown name or signature is named, and nothing is replaced."""
        found = self.run_in_glance(
            """
class Unread(filesystem.ChunkedFile):
    def __iter__(self):
        return iter(())

def other(self):
    pass

answers = []
for owner, name, replacement in [
    (copies, 'chunkiter', None),
    (copies, 'cooperative_read', other),
    (location.ImageProxy, 'get_data', other),
    (filesystem, 'ChunkedFile', Unread),
    (filesystem, 'ChunkedFile', object()),
]:
    released = getattr(owner, name)
    delattr(owner, name)
    if replacement:
        setattr(owner, name, replacement)
    before = [dict(vars(place)) for place in (copies, config, filesystem)]
    try:
        adoption.adopt()
    except adoption.Refusal as exc:
        answers.append(str(exc))
    after = [dict(vars(place)) for place in (copies, config, filesystem)]
    assert before == after
    setattr(owner, name, released)
print(json.dumps(answers))
""",
            'eventlet',
        )
        for words, line in zip(
            [
                ['glance.common.utils:chunkiter(fp, chunk_size=65536)'],
                ['cooperative_read(fd)', 'cooperative_read(self)'],
                ['ImageProxy.get_data(self, offset', 'get_data(self);'],
                ['ChunkedFile'],
                ['ChunkedFile'],
            ],
            found,
            strict=True,
        ):
            self.assertNotIn('\n', line)
            for word in [*words, 'Glance 28 to 33', 'glance_store 4.8 to 5.7']:
                self.assertIn(word, line)

    def test_helpers_that_an_upgrade_replaced(self):
        found = self.run_in_glance("""
del utils.cooperation  # as in the module of a release
try:
    adoption.adopt()
except adoption.Refusal as exc:
    print(json.dumps([str(exc), hasattr(copies.chunkiter, '__wrapped__')]))
""")
        self.assertIn('run glance-store-drop-in again', found[0])
        self.assertFalse(found[1])

    def glance_api(self, *flags):
        module = ['-m', 'glance_store.common.adoption', '--help']
        return subprocess.run(
            [sys.executable, *flags, *module],
            env={**os.environ, 'PYTHONPATH': str(self.site)},
            capture_output=True,
            text=True,
        )

    def test_glance_api(self):
        """It runs as glance-api would, patched before all of glance_store."""
        done = self.glance_api('-Wignore')
        ours, adopted, arguments, options = json.loads(done.stdout)
        self.assertEqual(([], True, ''), (ours, adopted, done.stderr))
        self.assertEqual('glance-api', os.path.basename(arguments[0]))
        self.assertEqual(['--help'], arguments[1:])
        self.assertEqual(['ignore'], options)

    def test_glance_api_refuses(self):
        for text, word in ('', 'get_data'), ('import nowhere', 'nowhere'):
            (self.site / 'glance' / 'location.py').write_text(text)
            done = self.glance_api('-Wignore')
            self.assertEqual((1, ''), (done.returncode, done.stdout))
            self.assertIn(word, done.stderr)
            self.assertEqual(1, done.stderr.count('\n'))

    def test_wsgi_application(self):
        """uWSGI finds an application, in releases before glance.wsgi too."""
        code = """
from glance_store.common import glance_wsgi
adopted = copies.CooperativeReader is utils.CooperativeReader
print(json.dumps([vars(glance_wsgi)['application'], adopted]))
"""
        expected = ['the application', True]
        self.assertEqual(expected, self.run_in_glance(code))
        shutil.rmtree(self.site / 'glance' / 'wsgi')
        self.assertEqual(expected, self.run_in_glance(code))
