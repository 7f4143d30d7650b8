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

"""What the shipped drivers use of the module, which its page does not name."""

import hashlib
import os

import fixtures
from oslo_concurrency import lockutils

from glance_store.common import utils
from glance_store.tests.unit import base


class TestNeedsOfDrivers(base.TestCase):
    def test_get_hasher(self):
        for args in (('md5', False), ('sha256',), ('sha512', True)):
            hasher = utils.get_hasher(*args)
            hasher.update(b'abc')
            self.assertEqual(
                hashlib.new(
                    args[0], b'abc', usedforsecurity=False
                ).hexdigest(),
                hasher.hexdigest(),
            )

    def test_get_hasher_by_name(self):
        self.assertEqual(
            'md5',
            utils.get_hasher(hash_algo='md5', usedforsecurity=False).name,
        )

    def test_get_hasher_passes_its_use_on(self):
        # Whether the system refuses one depends on the system, so what is
        # passed to hashlib is looked at instead.
        asked = []
        self.useFixture(
            fixtures.MonkeyPatch(
                'hashlib.new', lambda *args, **kwargs: asked.append(kwargs)
            )
        )
        self.useFixture(fixtures.MonkeyPatch('hashlib.md5', hashlib.new))
        utils.get_hasher('sha256')
        utils.get_hasher('md5', False)
        utils.get_hasher('md5', usedforsecurity=True)
        self.assertEqual(
            [{'usedforsecurity': use} for use in (True, False, True)], asked
        )

    def test_get_hasher_takes_the_md5_that_is_there(self):
        # What the shipped tests put in its place, however it is spelt.
        self.useFixture(
            fixtures.MonkeyPatch('hashlib.md5', lambda **_: 'in its place')
        )
        for name in ('md5', 'md5 '.strip()):
            self.assertEqual('in its place', utils.get_hasher(name))

    def test_get_hasher_of_another_type(self):
        # Drivers pass what an option says, translated or not.
        class Name:
            def __str__(self):
                return 'sha256'

        self.assertEqual('sha256', utils.get_hasher(Name()).name)

    def test_get_hasher_unknown(self):
        self.assertRaises(ValueError, utils.get_hasher, 'none such')

    def test_synchronized(self):
        held = []

        @utils.synchronized('a-lock')
        def locked():
            lock = lockutils.internal_lock('a-lock')
            held.append(lock.acquire(blocking=False))

        @utils.synchronized('a-lock')
        def free():
            return 'answer'

        locked()
        self.assertEqual([False], held)
        self.assertEqual('answer', free())

    def test_synchronized_between_processes(self):
        folder = self.useFixture(fixtures.TempDir()).path

        @utils.synchronized('a-lock', external=True, lock_path=folder)
        def locked():
            return os.listdir(folder)

        self.assertEqual(['glance_store-a-lock'], locked())
