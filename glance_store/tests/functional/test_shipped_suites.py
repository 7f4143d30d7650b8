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

"""The unit tests that glance_store ships, on its own helpers and on ours.

Real here: glance_store 4.8.2, 5.5.0 and 5.7.0, installed from their source
distributions together with the clients that their drivers use; and
glance-store-drop-in, which has to leave no trace of itself.
"""

import collections
import hashlib
import io

import subunit
import testtools
from testtools import content

from glance_store.tests.functional import base

# Only there to end a suite that hangs, in seconds.
DEADLINE = 900

# Each release has over 800 tests. Fewer would mean that most were not found.
MANY = 800

# How often a test that failed is run by itself, to see whether it always does.
AGAIN = 3


class TestShippedSuites(base.TestCase):
    def test_4_8_2(self):
        self.check('4.8.2')

    def test_5_5_0(self):
        self.check('5.5.0')

    def test_5_7_0(self):
        self.check('5.7.0')

    def check(self, release):
        consumer = base.environment(f'glance_store_{release}')
        released = self.run_suite(consumer, 'released')
        passed = [
            name
            for name, test in released.items()
            if test['status'] == 'success'
        ]
        self.assertGreater(len(passed), MANY)
        files = self.files(consumer)
        with base.DropIn(consumer):
            self.assertNotEqual(files, self.files(consumer))
            ours = self.run_suite(consumer, 'ours')
            broken = self.broken(passed, ours)
            for number in range(AGAIN):
                # Some of them upload parts from threads to a stub that wants
                # the parts in order, which they are not on a busy machine.
                if broken:
                    ours |= self.run_suite(consumer, f'again {number}', broken)
                    broken = self.broken(broken, ours)
        self.assertEqual(files, self.files(consumer))
        for name in broken:
            if name in ours:
                self.addDetail(name, self.report(ours[name]))
        self.assertEqual([], broken)

    def broken(self, passed, ours):
        return [
            name
            for name in passed
            if name not in ours or ours[name]['status'] != 'success'
        ]

    def run_suite(self, consumer, what, names=()):
        """Run the tests that are installed with it, or some of them.

        :returns: what became of each, by its id
        """
        folder = self.tempdir()
        chosen = folder / 'names'
        chosen.write_text(''.join(f'{name}\n' for name in names))
        some = ('--load-list', str(chosen)) if names else ()
        stestr = (
            *('-m', 'stestr', '--repo-url', str(folder)),
            *('--test-path', 'glance_store/tests/unit', '--top-dir', '.'),
        )
        # Some of the tests look for their files from there.
        cwd = consumer.packages
        consumer.run(
            *(*stestr, 'run', '--concurrency', '2', *some),
            cwd=cwd,
            variables={'TMPDIR': str(folder)},
            timeout=DEADLINE,
            # 1 where tests fail, which is for the caller to judge.
            statuses=(0, 1),
        )
        done = consumer.run(
            *(*stestr, 'last', '--subunit'), cwd=cwd, text=False
        )
        tests = {}
        result = testtools.StreamToDict(
            lambda test: tests.update({test['id']: test})
        )
        result.startTestRun()
        stream = subunit.ByteStreamToStreamResult(io.BytesIO(done.stdout))
        stream.run(result)
        result.stopTestRun()
        counts = collections.Counter(test['status'] for test in tests.values())
        self.addDetail(what, content.text_content(repr(counts)))
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
        """Return what is to be as released when the drop-in is undone.

        Byte code that Python has made meanwhile is no part of it.
        """
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
