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

"""Upstream's filesystem driver on our helpers.

Real here: the driver of glance_store 4.8.2, 5.5.0 and 5.7.0, with files in a
folder of the test. Each stores and fetches eight images at once, on native
threads and on eventlet: whoever is still on it may have any of the three,
though the last one has no helpers of its own that yield.
"""

import json
import pathlib
import uuid

from glance_store.tests.functional import base

PROGRAM = pathlib.Path(__file__).with_name('filesystem_program.py')

COUNT = 8

# Only there to end a program that hangs, in seconds.
DEADLINE = 300


class TestFilesystemDriver(base.TestCase):
    def test_4_8_2_on_eventlet(self):
        self.check('4.8.2', 'eventlet')

    def test_4_8_2_on_native_threads(self):
        self.check('4.8.2', 'native')

    def test_5_5_0_on_eventlet(self):
        self.check('5.5.0', 'eventlet')

    def test_5_5_0_on_native_threads(self):
        self.check('5.5.0', 'native')

    def test_5_7_0_on_eventlet(self):
        self.check('5.7.0', 'eventlet')

    def test_5_7_0_on_native_threads(self):
        self.check('5.7.0', 'native')

    def check(self, release, scheduler):
        consumer = base.environment(f'glance_store_{release}')
        self.useFixture(base.DropIn(consumer))
        done = consumer.run(
            *(str(PROGRAM), str(self.folder), scheduler, str(COUNT)),
            cwd=self.folder,
            timeout=DEADLINE,
        )
        answer = json.loads(done.stdout)
        images = answer['made']
        self.assertEqual(COUNT, len({image['sha512'] for image in images}))
        # What the driver says of each, what came back and what is there.
        self.assertEqual(images, answer['added']['images'])
        self.assertEqual(images, answer['fetched']['images'])
        self.assertEqual(images, answer['stored'])
        self.assertEqual(
            [str(uuid.UUID(int=number)) for number in range(COUNT)],
            answer['files'],
        )
        self.assertEqual(COUNT, answer['added']['at_once'])
        self.assertEqual(COUNT, answer['fetched']['at_once'])
        # What the drivers import brings eventlet along. No thread is to have
        # a hub because of that.
        self.assertEqual(int(scheduler == 'eventlet'), answer['hubs'])
