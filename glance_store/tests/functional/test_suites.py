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

"""The unit tests of glance_store and of Glance, on our helpers.

glance_store 4.8.2, 5.5.0 and 5.7.0 and Glance 33.0.0 are installed from their
source distributions. Each test that fails on our helpers has to fail as
released, too. The driver of the tutorial runs in each of these glance_stores.
"""

import hashlib
import io

import subunit
import testtools
from testtools import content

from glance_store.tests.functional import base

# Some tests of glance_store 4.8.2 and 5.5.0 upload parts from threads to a
# stub that wants them in order, which they are not on a busy machine.
ATTEMPTS = 3

# Of the tutorial, with what it prints beside it.
DRIVER = base.ROOT / 'doc/source/user/tutorial/driver/folder_driver.py'

ADOPT = 'from glance_store.common import adoption; adoption.adopt()'


class TestSuites(base.TestCase):
    def test_glance_store_4_8_2(self):
        self.check('glance_store_4.8.2', 'glance_store/tests/unit', 800)

    def test_glance_store_5_5_0(self):
        self.check('glance_store_5.5.0', 'glance_store/tests/unit', 800)

    def test_glance_store_5_7_0(self):
        self.check('glance_store_5.7.0', 'glance_store/tests/unit', 800)

    def test_driver_of_the_tutorial(self):
        printed = DRIVER.with_suffix('.out').read_text()
        for release in '4.8.2', '5.5.0', '5.7.0':
            consumer = base.environment(f'glance_store_{release}')
            with base.DropIn(consumer):
                done = consumer.run(
                    *('-W', 'ignore', str(DRIVER)), cwd=consumer.folder
                )
            self.assertEqual((printed, ''), (done.stdout, done.stderr))

    def test_glance_33(self):
        consumer = base.environment('glance_33')
        # Where its tests look for files of the source distribution.
        etc = consumer.packages / 'etc'
        etc.unlink(missing_ok=True)
        etc.symlink_to(consumer.folder / 'etc' / 'glance')
        self.addCleanup(etc.unlink)
        site = self.tempdir()
        (site / 'sitecustomize.py').write_text(ADOPT)
        self.variables['PYTHONPATH'] = str(site)
        self.check('glance_33', 'glance/tests/unit', 2400)

    def setUp(self):
        super().setUp()
        self.variables = {'PYTHONWARNINGS': 'ignore'}

    def check(self, name, path, many):
        consumer = base.environment(name)
        files = self.files(consumer)
        with base.DropIn(consumer):
            self.assertNotEqual(files, self.files(consumer))
            tests = self.run_suite(consumer, path)
            self.assertGreater(len(tests), many)
            failed = self.failed(tests)
            for _ in range(ATTEMPTS):
                tests |= self.run_suite(consumer, path, failed)
                failed = self.failed({name: tests[name] for name in failed})
        self.assertEqual(files, self.files(consumer))
        self.variables.pop('PYTHONPATH', None)
        as_released = self.failed(self.run_suite(consumer, path, failed))
        self.show(
            f'{name}: {len(tests)} tests, and these fail as released, too: '
            f'{as_released}'
        )
        broken = sorted(set(failed) - set(as_released))
        for name in broken:
            self.addDetail(name, self.report(tests[name]))
        self.assertEqual([], broken)

    def failed(self, tests):
        good = ('success', 'skip', 'xfail')
        return [name for name in tests if tests[name]['status'] not in good]

    def run_suite(self, consumer, path, names=None):
        """Run its tests, or some of them, and return each by its id."""
        if names == []:
            return {}
        folder = self.tempdir()
        chosen = folder / 'names'
        chosen.write_text('\n'.join(names or ()))
        stestr = (
            *('-m', 'stestr', '--repo-url', str(folder)),
            *('--test-path', path, '--top-dir', '.'),
        )
        some = ('--load-list', str(chosen)) if names else ()
        for arguments in ('run', '--concurrency', '2', *some), ('last',):
            done = consumer.run(
                *(*stestr, *arguments, '--subunit'),
                cwd=consumer.packages,
                variables=self.variables | {'TMPDIR': str(folder)},
                timeout=base.LONG_DEADLINE,
                statuses=(0, 1),  # 1 where tests fail
                text=False,
            )
        tests = {}
        result = testtools.StreamToDict(
            lambda test: tests.update({test['id']: test})
        )
        result.startTestRun()
        stream = subunit.ByteStreamToStreamResult(io.BytesIO(done.stdout))
        stream.run(result)
        result.stopTestRun()
        return tests

    def report(self, test):
        return content.text_content(
            '\n'.join(
                detail.as_text()
                for name, detail in test['details'].items()
                if 'traceback' in name
            )
        )

    def files(self, consumer):
        """Return what is as released once more when the drop-in is undone."""
        return {
            str(path): (
                status.st_mode,
                status.st_uid,
                status.st_mtime_ns,
                hashlib.sha256(path.read_bytes()).hexdigest(),
            )
            for path in consumer.packages.glob('glance_store*/**/*')
            if path.is_file() and path.suffix != '.pyc'
            for status in [path.stat()]
        }
