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

"""When a stream yields.

Patching the standard library, choosing a hub, and eventlet not being there
concern the whole process, so these tests start one for each. A yield is told
by a green thread that counts its turns.
"""

import os
import sys
import textwrap

import eventlet
from eventlet import hubs
import fixtures

from glance_store.common import utils
from glance_store.tests.unit import base

STREAMS = """
import io

from glance_store.common import utils


def streams():
    # Each gives a function that takes one chunk of the stream.
    chunks = [b'abc'] * 5
    it = utils.cooperative_iter(iter(chunks))
    yield 'iter', lambda: next(it)
    read = utils.cooperative_read(io.BytesIO(b'abc' * 5))
    yield 'read', lambda: read(3)
    over_file = utils.CooperativeReader(io.BytesIO(b'abc' * 5))
    yield 'file', lambda: over_file.read(3)
    by_chunks = utils.CooperativeReader(io.BytesIO(b'x' * 65536 * 5))
    yield 'file iterated', lambda: next(by_chunks)
    over_iterable = utils.CooperativeReader(iter(chunks))
    yield 'iterable', lambda: over_iterable.read()
    exact = utils.CooperativeReader(iter(chunks))
    yield 'iterable exact', lambda: exact.read(3)
    iterated = utils.CooperativeReader(iter(chunks))
    yield 'iterable iterated', lambda: next(iterated)
    cut = utils.chunkiter(utils.CooperativeReader(iter(chunks)), 3)
    yield 'chunks', lambda: next(cut)
"""

NAMES = (
    'iter',
    'read',
    'file',
    'file iterated',
    'iterable',
    'iterable exact',
    'iterable iterated',
    'chunks',
)

ON_HUB = """
import json
import sys

import eventlet

from eventlet import hubs

if 'use_hub' in sys.argv:
    hubs.use_hub(sys.argv[1])
if 'patched' in sys.argv:
    eventlet.monkey_patch()

hub = hubs.get_hub()
turns = 0


def count():
    global turns
    while True:
        turns += 1
        eventlet.sleep(0)


def measure():
    measured = {}
    for name, step in streams():
        measured[name] = []
        for _ in range(5):
            before = turns
            assert step()
            measured[name].append(turns - before)
    return measured


eventlet.spawn(count)
eventlet.sleep(0)
print(json.dumps({
    'hub': type(hub).__module__,
    'main': measure(),
    'spawned': eventlet.spawn(measure).wait(),
    'same': hubs.get_hub() is hub,
    'patched': eventlet.patcher.is_monkey_patched('time'),
}))
"""


class TestOnHub(base.TestCase):
    """After each chunk, on a native thread that has a hub."""

    def check(self, hub, *args, **variables):
        answer = base.run_python(STREAMS + ON_HUB, hub, *args, **variables)
        once = dict.fromkeys(NAMES, [1, 1, 1, 1, 1])
        self.assertEqual(
            {
                'hub': f'eventlet.hubs.{hub}',
                'main': once,
                'spawned': once,
                'same': True,
                'patched': 'patched' in args,
            },
            answer,
        )

    def test_epolls(self):
        self.check('epolls', 'use_hub')

    def test_epolls_patched(self):
        self.check('epolls', 'patched', EVENTLET_HUB='epolls')

    def test_poll(self):
        self.check('poll', EVENTLET_HUB='poll')

    def test_poll_patched(self):
        self.check('poll', 'use_hub', 'patched')

    def test_selects(self):
        self.check('selects', 'use_hub')

    def test_selects_patched(self):
        self.check('selects', 'patched', EVENTLET_HUB='selects')

    def test_asyncio(self):
        self.check('asyncio', EVENTLET_HUB='asyncio')

    def test_asyncio_patched(self):
        self.check('asyncio', 'use_hub', 'patched')

    def test_patched_after_the_import(self):
        code = 'from glance_store.common import utils\n' + STREAMS + ON_HUB
        answer = base.run_python(code, 'epolls', 'patched')
        once = dict.fromkeys(NAMES, [1, 1, 1, 1, 1])
        self.assertEqual(once, answer['main'])
        self.assertEqual(once, answer['spawned'])

    def test_eventlet_imported_after_streams_were_made(self):
        answer = base.run_python(
            """
            import json

            from glance_store.common import utils

            reader = utils.CooperativeReader([b'a'] * 3)
            iterator = utils.cooperative_iter([b'a'] * 3)
            reader.read()
            next(iterator)

            import eventlet

            turns = 0

            def count():
                global turns
                while True:
                    turns += 1
                    eventlet.sleep(0)

            reader.read()
            eventlet.spawn(count)
            eventlet.sleep(0)
            seen = [turns]
            for step in (reader.read, lambda: next(iterator)):
                step()
                seen.append(turns)
            print(json.dumps(seen))
            """
        )
        self.assertEqual([1, 2, 3], answer)

    def test_clock_that_stands_still(self):
        # A coarse clock gives many green threads the same time to wake up
        # at, and the hub has to order what it cannot tell apart.
        class Hub(hubs.get_default_hub().Hub):
            def __init__(self):
                super().__init__(clock=lambda: 100.0)

        hubs.use_hub(Hub)
        self.useFixture(base.Hub())
        self.useFixture(base.Ticker())
        threads = [
            eventlet.spawn(list, utils.cooperative_iter(range(20)))
            for _ in range(20)
        ]
        for thread in threads:
            self.assertEqual(list(range(20)), thread.wait())

    def test_in_the_green_thread_of_the_hub(self):
        # Nothing can be yielded to from a callback of the hub, where
        # eventlet's own sleep fails.
        self.useFixture(base.Hub())
        got = []
        event = eventlet.event.Event()

        def callback():
            try:
                got.extend(utils.cooperative_iter([b'a', b'b']))
                got.append(utils.CooperativeReader([b'c', b'd']).read(2))
            finally:
                event.send()

        hubs.get_hub().schedule_call_global(0, callback)
        event.wait()
        self.assertEqual([b'a', b'b', b'cd'], got)


WITHOUT_HUB = """
import json
import os
import sys
import threading

for name in sys.argv[1:]:
    __import__(name)


def descriptors():
    links = []
    for name in os.listdir('/proc/self/fd'):
        try:
            links.append(os.readlink('/proc/self/fd/' + name))
        except FileNotFoundError:
            pass
    return sorted(link for link in links if 'event' in link)


calls = []


def profile(frame, event, arg):
    if event == 'c_call' and getattr(arg, '__name__', '') == 'sleep':
        calls.append(repr(arg))


def has_hub():
    hubs = sys.modules.get('eventlet.hubs')
    return hubs is not None and hasattr(hubs._threadlocal, 'hub')


before = descriptors()
sys.setprofile(profile)
for name, step in streams():
    for _ in range(5):
        assert step(), name
sys.setprofile(None)
print(json.dumps({
    'eventlet': 'eventlet' in sys.modules,
    'hub': has_hub(),
    'descriptors': descriptors() == before,
    'sleeps': calls,
}))
"""


class TestWithoutHub(base.TestCase):
    """Nothing happens on a native thread with no hub."""

    NOTHING = {
        'eventlet': False,
        'hub': False,
        'descriptors': True,
        'sleeps': [],
    }

    def test_eventlet_not_imported(self):
        self.assertEqual(self.NOTHING, base.run_python(STREAMS + WITHOUT_HUB))

    def test_eventlet_imported(self):
        self.assertEqual(
            {**self.NOTHING, 'eventlet': True},
            base.run_python(STREAMS + WITHOUT_HUB, 'eventlet'),
        )

    def test_eventlet_imported_with_its_hubs(self):
        self.assertEqual(
            {**self.NOTHING, 'eventlet': True},
            base.run_python(STREAMS + WITHOUT_HUB, 'eventlet.hubs.asyncio'),
        )

    def test_eventlet_only_begun_to_be_imported(self):
        # What other threads see of a module while it is being imported.
        code = """
            import sys
            import types

            sys.modules['eventlet'] = types.ModuleType('eventlet')
            sys.modules['eventlet.hubs'] = types.ModuleType('eventlet.hubs')
            from glance_store.common import utils

            print(len(list(utils.cooperative_iter([b'a', b'b']))))
            """
        self.assertEqual(2, base.run_python(code))

    def test_eventlet_not_installed(self):
        # The same packages, less eventlet and what only it needs.
        packages = self.useFixture(fixtures.TempDir()).path
        for path in sys.path:
            if os.path.basename(path) not in (
                'site-packages',
                'dist-packages',
            ):
                continue
            for name in os.listdir(path):
                link = os.path.join(packages, name)
                if not name.startswith(('eventlet', 'greenlet', '_')) and (
                    not os.path.lexists(link)
                ):
                    os.symlink(os.path.join(path, name), link)
        code = """
            for name in ('eventlet', 'greenlet'):
                try:
                    __import__(name)
                except ImportError:
                    continue
                raise AssertionError(name)
            """
        code = textwrap.dedent(code)
        answer = base.run_python(
            code + STREAMS + WITHOUT_HUB,
            # Without its site module, Python adds no package by itself.
            options=('-S',),
            PYTHONPATH=os.pathsep.join((base.ROOT, packages)),
        )
        self.assertEqual(self.NOTHING, answer)

    def test_import_does_not_import_eventlet(self):
        imported = base.run_python(
            """
            import json
            import sys

            from glance_store.common import utils

            print(json.dumps(sorted(sys.modules)))
            """
        )
        self.assertIn('glance_store.common.utils', imported)
        self.assertEqual(
            [],
            [
                name
                for name in imported
                # Not greenlet, which whoever measures coverage imports.
                if name.partition('.')[0] == 'eventlet'
            ],
        )

    def descriptors(self):
        # One to list the folder is in every list.
        return sorted(
            os.readlink(f'/proc/self/fd/{name}')
            for name in os.listdir('/proc/self/fd')
            if os.path.lexists(f'/proc/self/fd/{name}')
        )

    def test_native_thread_beside_one_with_a_hub(self):
        self.useFixture(base.Hub())
        ticker = self.useFixture(base.Ticker())
        namespace = {}
        exec(STREAMS, namespace)  # noqa: S102
        sleeps = []

        def profile(frame, event, arg):
            if event == 'c_call' and getattr(arg, '__name__', '') == 'sleep':
                sleeps.append(arg)

        def consume():
            before = self.descriptors()
            sys.setprofile(profile)
            for _, step in namespace['streams']():
                for _ in range(5):
                    assert step()
            sys.setprofile(None)
            return (
                hasattr(hubs._threadlocal, 'hub'),
                [link for link in self.descriptors() if link not in before],
            )

        self.assertEqual((False, []), base.in_native_thread(consume))
        self.assertEqual([], sleeps)
        self.assertEqual(0, ticker.turns)


class TestAskedAtEachChunk(base.TestCase):
    """A reader may be made on one thread and used on another."""

    def streams(self):
        namespace = {}
        exec(STREAMS, namespace)  # noqa: S102
        return namespace['streams']()

    def test_made_on_a_hub_and_used_without(self):
        self.useFixture(base.Hub())
        self.ticker = self.useFixture(base.Ticker())
        for name, step in self.streams():
            before = self.ticker.turns
            step()
            self.assertEqual(1, self.ticker.turns - before, name)
            base.in_native_thread(step)
            self.assertEqual(1, self.ticker.turns - before, name)
            step()
            self.assertEqual(2, self.ticker.turns - before, name)

    def test_made_without_and_used_on_a_hub(self):
        streams = base.in_native_thread(lambda: list(self.streams()))
        self.useFixture(base.Hub())
        self.ticker = self.useFixture(base.Ticker())
        for name, step in streams:
            base.in_native_thread(step)
            before = self.ticker.turns
            step()
            self.assertEqual(1, self.ticker.turns - before, name)

    def test_yields_to_the_hub_of_the_calling_thread(self):
        self.useFixture(base.Hub())
        mine = self.useFixture(base.Ticker())

        def elsewhere(step):
            with base.Hub(), base.Ticker() as theirs:
                step()
                return theirs.turns

        for name, step in self.streams():
            before = mine.turns
            self.assertEqual(1, base.in_native_thread(elsewhere, step), name)
            self.assertEqual(0, mine.turns - before, name)
            step()
            self.assertEqual(1, mine.turns - before, name)

    def test_hub_that_comes_and_goes(self):
        for _, step in self.streams():
            step()
            with base.Hub(), base.Ticker() as ticker:
                step()
                self.assertEqual(1, ticker.turns)
            step()
            self.assertFalse(hasattr(hubs._threadlocal, 'hub'))

    def test_interrupted_on_a_hub_and_continued_without(self):
        self.useFixture(base.Hub())
        for make in (
            lambda: iter(utils.cooperative_iter([b'abc', b'def'])).__next__,
            utils.CooperativeReader([b'abc', b'def']).read,
            lambda: utils.CooperativeReader([b'abc', b'def']).__next__,
        ):
            step = make() if make.__name__ == '<lambda>' else make
            base.Run(
                lambda step=step: self.assertRaises(base.Interrupted, step),
                lambda number: base.Interrupted(),
            )
            self.assertEqual(b'abc', base.in_native_thread(step))
            self.assertEqual(b'def', base.in_native_thread(step))

    def test_two_native_threads_at_once(self):
        # One asks for an item while the other is in the middle of getting
        # one. Neither has a hub to wait with, and none is made.
        class Source(base.Fetching):
            iterator = None

            def __next__(self):
                item = super().__next__()
                if item == b'a':
                    got.append(base.in_native_thread(other, self.iterator))
                return item

        def other(iterator):
            item = next(iterator)
            return item, hasattr(hubs._threadlocal, 'hub')

        got = []
        source = Source(b'a', b'b', b'c')
        source.iterator = utils.cooperative_iter(source)
        self.assertEqual(b'a', next(source.iterator))
        self.assertEqual([(b'b', False)], got)
        self.assertFalse(hasattr(hubs._threadlocal, 'hub'))
        self.assertEqual([b'c'], list(source.iterator))

    def test_in_many_native_threads(self):
        # Each with a stream of its own, and no hub.
        def consume():
            return [
                len(list(base.calls(step, []))) for _, step in self.streams()
            ]

        for counts in base.in_native_threads(consume, 8):
            self.assertEqual([5] * len(NAMES), counts)
