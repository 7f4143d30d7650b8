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

"""The filesystem driver of glance_store 4.8.2, 5.5.0 and 5.7.0 on our helpers.

It stores eight images at once in a folder of the test, and fetches them again
at once.
"""

import json
import pathlib

from glance_store.tests.functional import base

PROGRAM = pathlib.Path(__file__).with_name('filesystem_program.py')

COUNT = 8


class TestFilesystemDriver(base.TestCase):
    def test_on_eventlet(self):
        self.check('eventlet')

    def test_on_native_threads(self):
        self.check('threads')

    def check(self, scheduler):
        for release in '4.8.2', '5.5.0', '5.7.0':
            consumer = base.environment(f'glance_store_{release}')
            with base.DropIn(consumer):
                done = consumer.run(
                    *(str(PROGRAM), str(self.tempdir())),
                    *(scheduler, str(COUNT)),
                    cwd=self.folder,
                    timeout=3 * base.DEADLINE,
                )
            answer = json.loads(done.stdout)
            for digests in answer['digests']:
                # Made, told by add(), and fetched.
                self.assertEqual([digests[0]] * 3, digests)
            self.assertEqual(COUNT, len(answer['digests']))
            # Green threads are there at once because the helpers yield.
            self.assertEqual([COUNT, COUNT], answer['at_once'])
            # What the drivers import brings eventlet along, but no hub.
            self.assertEqual(int(scheduler == 'eventlet'), answer['hubs'])
