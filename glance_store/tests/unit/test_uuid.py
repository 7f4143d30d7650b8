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

"""``is_uuid_like(val)``."""

import sys
import uuid

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies

from glance_store.common import utils
from glance_store.tests.unit import base

CANONICAL = 'b6dc0ed4-8b3f-4e4c-a9a5-3f4b3d7d4a1e'


class Hostile:
    """Raises whatever is asked of it."""

    def _refuse(self, *args, **kwargs):
        raise AssertionError('is_uuid_like asked')

    __str__ = __repr__ = __len__ = __eq__ = __bool__ = __iter__ = _refuse
    __hash__ = __format__ = __bytes__ = __index__ = __getattr__ = _refuse


class TestIsUuidLike(base.TestCase):
    def test_true_for_canonical_form(self):
        for val in (
            CANONICAL,
            str(uuid.uuid1()),
            str(uuid.uuid4()),
            str(uuid.UUID(int=0)),
            str(uuid.UUID(int=2**128 - 1)),
        ):
            self.assertIs(True, utils.is_uuid_like(val), val)

    def test_false_for_every_other_form(self):
        for val in (
            '',
            CANONICAL.upper(),
            CANONICAL.replace('b', 'B', 1),
            CANONICAL.replace('-', ''),
            CANONICAL.replace('-', '_'),
            CANONICAL.replace('-', '', 1),
            f'{{{CANONICAL}}}',
            f'urn:uuid:{CANONICAL}',
            f' {CANONICAL}',
            f'{CANONICAL} ',
            f'{CANONICAL}\n',
            f'\n{CANONICAL}',
            f'{CANONICAL}\0',
            f'{CANONICAL}{CANONICAL}',
            CANONICAL[:-1],
            CANONICAL[1:],
            CANONICAL + '0',
            CANONICAL.replace('b', 'g', 1),
            CANONICAL.replace('b6dc0ed4-8b3f', 'b6dc0ed-48b3f'),
            # Digits and hyphens to Unicode, but not to a UUID.
            CANONICAL.replace('4', '\N{FULLWIDTH DIGIT FOUR}'),
            CANONICAL.replace('4', '\N{ARABIC-INDIC DIGIT FOUR}'),
            CANONICAL.replace('-', '\N{HYPHEN}'),
            '\udc80' + CANONICAL[1:],
            '-' * 36,
            '0' * 36,
            CANONICAL * 100000,
        ):
            self.assertIs(False, utils.is_uuid_like(val), ascii(val)[:80])

    def test_false_for_every_other_type(self):
        for val in (
            None,
            True,
            0,
            uuid.UUID(CANONICAL).int,
            1.5,
            float('nan'),
            b'',
            CANONICAL.encode(),
            bytearray(CANONICAL.encode()),
            memoryview(CANONICAL.encode()),
            uuid.UUID(CANONICAL),
            [CANONICAL],
            (CANONICAL,),
            {CANONICAL: CANONICAL},
            {CANONICAL},
            object(),
            str,
            NotImplemented,
            Ellipsis,
            utils,
            iter(CANONICAL),
        ):
            self.assertIs(False, utils.is_uuid_like(val), repr(val))

    def test_never_raises(self):
        self.assertIs(False, utils.is_uuid_like(Hostile()))

    @settings(derandomize=True, deadline=None, database=None)
    @given(strategies.one_of(strategies.text(), strategies.binary()))
    def test_false_for_anything_at_random(self, val):
        self.assertIs(False, utils.is_uuid_like(val))

    @settings(derandomize=True, deadline=None, database=None)
    @given(strategies.uuids(), strategies.data())
    def test_same_as_rebuilding_the_uuid(self, value, data):
        val = str(value)
        self.assertIs(True, utils.is_uuid_like(val))
        place = data.draw(strategies.integers(0, 35))
        other = data.draw(strategies.characters())
        val = val[:place] + other + val[place + 1 :]
        try:
            canonical = str(uuid.UUID(val)) == val
        except ValueError:
            canonical = False
        self.assertIs(canonical, utils.is_uuid_like(val))

    def test_does_half_the_work_of_building_a_uuid(self):
        # Speed itself is a matter for the benchmarks. What can be counted is
        # how many functions, of Python and of C, each of the two enters.
        def entered(func, val):
            events = []
            sys.setprofile(lambda _, event, arg: events.append((event, arg)))
            try:
                func(val)
            finally:
                sys.setprofile(None)
            # The last one is setprofile itself.
            return [e for e in events if 'call' in e[0]][:-1]

        self.assertLessEqual(
            2 * len(entered(utils.is_uuid_like, CANONICAL)),
            len(entered(uuid.UUID, CANONICAL)),
        )


class TestLiars(base.TestCase):
    def test_class_that_cannot_be_asked_for(self):
        class Liar:
            @property  # type: ignore[misc]
            def __class__(self):
                raise RuntimeError('none of your business')

        self.assertIs(False, utils.is_uuid_like(Liar()))
