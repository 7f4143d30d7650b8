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

"""When a stream yields, and which stream goes next.

A ticker has one turn in each round of the hub. The tests note each chunk with
the round in which it was returned.
"""

import collections
from collections.abc import Iterator
import contextlib
from functools import partial
import gc
import io
import itertools
import socket
import sys
from typing import Any
import unittest
import weakref

import eventlet
from eventlet import debug
from eventlet import event
from eventlet import hubs
import greenlet
from oslo_config import cfg
import testtools

from glance_store.common import cooperation
from glance_store.common import utils
from glance_store.tests.unit import base

# What a chunk takes, in seconds. A float holds its multiples exactly.
COST = 2**-12


class QueueTestCase(base.HubTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.log: list[tuple[int, Any]] = []

    def note(self, name: Any) -> None:
        self.log.append((self.ticker.turns, name))

    def take(self, name: Any, number: int = 2) -> None:
        """Note *name* for each of *number* chunks of a stream."""
        for _ in utils.cooperative_iter(range(number)):
            self.note(name)

    def spawn(self, number: int) -> list[Any]:
        return [eventlet.spawn(self.take, name) for name in range(number)]

    def wait(self, green_threads: list[Any]) -> list[Any]:
        """Wait for all; return the names that were noted."""
        for green_thread in green_threads:
            green_thread.wait()
        return [name for _, name in self.log]

    def assertOneARound(self, names: list[Any]) -> None:
        """Assert that these came, each in the round after the one before."""
        turns = [turn for turn, _ in self.log]
        self.assertEqual(names, [name for _, name in self.log])
        self.assertEqual([*range(turns[0], turns[-1] + 1)], turns)
        self.log.clear()

    def test_first_in_first_out(self) -> None:
        for number in 1, 64, 256:
            self.wait(self.spawn(number))
            self.assertOneARound([*range(number)] * 2)

    def test_timers_of_a_slice_come_before_the_next_stream(self) -> None:
        def source(name: int) -> Iterator[int]:
            for _ in '12':
                self.hub.schedule_call_global(0, self.note, 'timer')
                yield name

        def take(name: int) -> None:
            collections.deque(
                map(self.note, utils.cooperative_iter(source(name)))
            )

        names = self.wait([eventlet.spawn(take, name) for name in range(3)])
        self.assertEqual([0, 'timer', 1, 'timer', 2, 'timer'] * 2, names)

    def sockets(self) -> list[socket.socket]:
        pair = socket.socketpair()
        for end in pair:
            self.addCleanup(end.close)
        return list(pair)

    def test_sockets_come_between_two_streams(self) -> None:
        reader, writer = self.sockets()

        def serve() -> None:
            while True:
                writer.send(b'x')
                hubs.trampoline(reader, read=True)
                reader.recv(1)
                self.note('.')

        server = eventlet.spawn(serve)
        eventlet.sleep(0)
        names = ''.join(map(str, self.wait(self.spawn(8))))
        self.assertEqual('.'.join('01234567' * 2), names.strip('.'))
        server.kill()

    def test_stream_that_a_socket_wakes_goes_on_in_that_round(self) -> None:
        pairs = [self.sockets() for _ in range(8)]

        def source(reader: socket.socket) -> Iterator[bytes]:
            hubs.trampoline(reader, read=True)
            yield reader.recv(1)

        def take(reader: socket.socket) -> None:
            self.note(next(utils.cooperative_iter(source(reader))))

        green_threads = [eventlet.spawn(take, pair[0]) for pair in pairs]
        for _ in range(20):
            eventlet.sleep(0)
        self.assertEqual([], self.log)
        for _, writer in pairs:
            writer.send(b'x')
        self.wait(green_threads)
        self.assertEqual(1, len({turn for turn, _ in self.log}))

    def test_leaving_the_queue(self) -> None:
        woken = event.Event()

        def leave() -> Any:
            try:
                self.take('interrupted')
            except BaseException:
                return woken.wait()

        for make in base.INTERRUPTIONS.values():
            for at in range(4):
                woken = event.Event()
                green_threads = self.spawn(at)
                left = eventlet.spawn(leave)
                green_threads += self.spawn(3)
                killed = eventlet.spawn(self.take, 'killed')
                eventlet.sleep(0)
                self.note('now')
                eventlet.kill(left, make())
                killed.kill()
                self.wait(green_threads)
                self.assertOneARound(['now', *([*range(at), *range(3)] * 2)])
                # Nothing but the event wakes it.
                woken.send('sent')
                self.assertEqual('sent', left.wait())

    def test_woken_by_another(self) -> None:
        green_threads = self.spawn(3)
        eventlet.sleep(0)
        self.hub.schedule_call_global(0, greenlet.getcurrent().switch)
        green_threads[1].switch()
        self.wait(green_threads)
        # It fetched at once, and waited again behind the others.
        self.assertEqual(1, self.log.pop(0)[1])
        self.assertOneARound([0, 2, 1, 0, 2])

    def test_hub_itself_has_nothing_to_yield_to(self) -> None:
        def callback() -> None:
            self.take('hub')
            self.note(utils.CooperativeReader([b'a', b'bc']).read(3))

        green_threads = self.spawn(2)
        eventlet.sleep(0)
        self.hub.schedule_call_global(0, callback)
        names = self.wait(green_threads)
        self.assertEqual([0, 'hub', 'hub', b'abc', 1, 0, 1], names)

    def test_aborted_hub(self) -> None:
        def from_a_slice() -> Iterator[int]:
            self.hub.abort()
            yield 0

        # Of the hub that runs then, a stream is the first user, or it is not.
        for number, rounds in (0, 0), (3, 0), (3, 1):
            green_threads = self.spawn(number)
            eventlet.sleep(0)
            self.hub.abort(wait=True)
            for _ in range(rounds):
                eventlet.sleep(0)
            self.assertEqual([0, 1], list(utils.cooperative_iter(range(2))))
            stream = utils.cooperative_iter(from_a_slice())
            green_threads += [eventlet.spawn(next, stream), *self.spawn(1)]
            # The main green thread goes on where the hub has stopped.
            self.hub.switch()
            self.assertFalse(self.hub.running)
            self.take('later')
            self.wait(green_threads)

    def test_interrupt_that_ends_the_hub(self) -> None:
        def source(exc: BaseException) -> Iterator[int]:
            yield 0
            raise exc

        for exc in KeyboardInterrupt(), SystemExit():
            green_threads = self.spawn(2)
            stream = utils.cooperative_iter(source(exc))
            eventlet.spawn(list, stream)
            green_threads += self.spawn(2)
            # The hub lets it out to the main green thread.
            out = self.assertRaises(type(exc), green_threads[-1].wait)
            self.assertIs(exc, out)
            self.take('later')
            names = collections.Counter(self.wait(green_threads))
            self.assertEqual({0: 4, 1: 4, 'later': 2}, names)
            self.log.clear()

    def test_replaced_hub(self) -> None:
        def replace() -> Any:
            waiting = eventlet.spawn(self.take, 'old')
            eventlet.sleep(0)
            hubs.use_hub('poll')
            with base.Ticker() as ticker:
                list(utils.cooperative_iter(range(4)))
                turns = ticker.turns
            base.end_hub()
            return turns, waiting.dead

        # What waits on the old hub stays there, as its sleepers do.
        self.assertEqual((5, False), base.in_native_thread(replace))
        self.assertEqual([], self.log)

    def test_gone_with_the_hub(self) -> None:
        stream = utils.cooperative_iter(range(9))

        def use() -> Any:
            hub = weakref.ref(hubs.get_hub())
            next(stream)
            base.end_hub()
            return hub

        hub = base.in_native_thread(use)
        gc.collect()
        self.assertIsNone(hub())

    def test_checkpoints(self) -> None:
        """There is one before each fetch, and none where a buffer answers."""

        def file() -> Any:
            return io.BytesIO(b'abcdef')

        def reader() -> Any:
            return utils.CooperativeReader([b'abc', b'', b'def'])

        self.configure(default_chunk_size=3)
        cases: tuple[tuple[Any, list[int]], ...] = (
            (utils.cooperative_iter([b'', None]).__next__, [1, 1, 1, 1]),
            (partial(utils.cooperative_read(file()), 4), [1, 1, 1]),
            (partial(utils.CooperativeReader(file()).read, 4), [1, 1, 1]),
            (utils.CooperativeReader(file()).__next__, [1, 1, 1]),
            (reader().__next__, [1, 2, 1, 1]),
            (reader().read, [1, 2, 1, 1]),
            (partial(reader().read, 2), [1, 2, 0, 1, 1]),
            (partial(reader().read, 5), [3, 1, 1]),
            (partial(reader().read, -1), [4, 1]),
            (partial(reader().read, 0), [0, 0]),
            (utils.chunkiter(file(), 3).__next__, [0, 0, 0]),
        )
        for call, yields in cases:
            for number in yields:
                with contextlib.suppress(StopIteration):
                    before = self.ticker.turns
                    call()
                self.assertEqual(number, self.ticker.turns - before, str(call))


class SliceTestCase(base.HubTestCase):
    """How many chunks go by between two turns of everything else."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = self.useFixture(base.Clock())

    def slices(
        self, intervals: list[float], most: int, length: int, work: float
    ) -> list[int]:
        """Return the numbers of chunks between two turns, of *most* chunks.

        A green thread for each of *intervals* takes streams of *length*
        chunks. *work* is what everything else takes in each round.
        """
        turns: list[int] = []
        self.clock.now += 1  # no slice is left from before

        def source() -> Iterator[int]:
            for number in range(length):
                self.clock.now += COST
                yield number

        def take(interval: float) -> None:
            while len(turns) < most:
                self.configure(cooperative_yield_interval=interval)
                for _ in utils.cooperative_iter(source()):
                    if len(turns) == most:
                        return
                    turns.append(self.ticker.turns)

        def leave() -> None:
            for green_thread in leaving:
                green_thread.kill()

        def others() -> None:
            while True:
                self.clock.now += work
                eventlet.sleep(0)

        green_threads = [eventlet.spawn(take, i) for i in intervals]
        # Those that leave the queue before its first turn do not count.
        leaving = [eventlet.spawn(take, intervals[0]) for _ in '123']
        self.hub.schedule_call_global(0, leave)
        busy = eventlet.spawn(others)
        for green_thread in green_threads:
            green_thread.wait()
        busy.kill()
        if length > 1:  # the end of a stream has a round of its own
            self.assertEqual(len(set(turns)), turns[-1] - turns[0] + 1)
        return list(collections.Counter(turns).values())

    def test_chunks_between_two_turns(self) -> None:
        cases: tuple[tuple[list[float], list[int]], ...] = (
            # For each, interval / (1 + n) in chunks, but 1 ms at least, ...
            ([2**-6], [64]),
            ([2**-6] * 4, [16]),
            ([2**-6] * 64, [5]),
            ([2**-6] * 256, [5]),
            # ... and no more than the interval, or one chunk.
            ([2**-11] * 64, [2]),
            ([2**-13] * 64, [1]),
            ([0], [1]),
            # The interval is that of the stream whose turn it is.
            ([2**-6, 2**-8], [32, 8]),
        )
        for intervals, chunks in cases:
            for length, work in itertools.product((1, 999), (0, 5 * 2**-10)):
                expected = chunks * 4
                self.assertEqual(
                    expected,
                    self.slices(intervals, sum(expected), length, work),
                )

    def test_deadline_belongs_to_the_hub(self) -> None:
        def elsewhere() -> int:
            with base.Ticker() as ticker:
                next(first)
                turns: int = ticker.turns
            base.end_hub()
            return turns

        self.configure(cooperative_yield_interval=1)
        first = utils.cooperative_iter(range(9))
        second = utils.CooperativeReader(io.BytesIO(bytes(9)))
        self.assertYields(1, next, first)
        self.assertYields(0, next, first)
        self.assertYields(0, second.read, 1)
        self.assertEqual(1, base.in_native_thread(elsewhere))
        self.assertYields(0, next, first)
        self.clock.now += 1
        self.assertYields(1, second.read, 1)
        self.assertYields(0, next, first)
        # A slice of no length ends the one before it.
        self.configure(cooperative_yield_interval=0)
        third = utils.cooperative_iter(range(9))
        self.assertYields(1, next, third)
        self.assertYields(1, next, first)

    def test_only_a_turn_sets_the_deadline(self) -> None:
        self.configure(cooperative_yield_interval=1)
        stream = utils.cooperative_iter(range(99))
        other = utils.cooperative_iter(range(99))
        for make in base.INTERRUPTIONS.values():
            exc = make()
            self.assertIs(exc, base.interrupt(stream.__next__, exc))
            # It counts as made, for this stream.
            self.assertYields(0, next, stream)
            self.assertYields(1, next, other)
            self.assertYields(0, next, stream)
            self.clock.now += 1
        woken = eventlet.spawn(next, stream)
        eventlet.sleep(0)
        self.hub.schedule_call_global(0, greenlet.getcurrent().switch)
        woken.switch()
        self.assertYields(1, next, other)


def hit_at(step: int, exc: BaseException) -> str:
    """Raise *exc* at a step of the queue; return what became of the streams.

    A step is a line, a call or a return. Three streams wait then, and one
    comes later. No answer means that there are fewer steps.
    """
    left = step
    woken = event.Event()
    ended: list[str] = []

    def trace(frame: Any, kind: str, arg: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != cooperation.__file__:
            return None
        left -= 1
        if left == 0:
            raise exc  # which ends the tracing as well
        return trace

    def take(traced: bool) -> None:
        # A green thread has a trace function of its own.
        sys.settrace(trace if traced else None)
        try:
            ended.append(f'got {len([*utils.cooperative_iter(range(2))])}')
        except BaseException as error:
            ended.append('hit' if error is exc else repr(error))
        sys.settrace(None)
        # An entry that is left in the queue would end this wait.
        if woken.wait() != 'sent':
            ended.append('woken')

    def run_others() -> None:
        for _ in range(20):
            try:
                eventlet.sleep(0)
            except KeyboardInterrupt:
                ended.append('hub hit')

    hub = hubs.get_hub()
    hub.schedule_call_global(0, sys.settrace, trace)
    for traced in True, True, True:
        eventlet.spawn(take, traced)
    run_others()
    hub.schedule_call_global(0, sys.settrace, None)
    eventlet.spawn(take, False)
    run_others()
    woken.send('sent')
    run_others()
    return '' if left > 0 else ', '.join(sorted(ended))


def hit_each_step() -> dict[str, int]:
    """Return how often the streams came to what, for all steps."""
    debug.hub_exceptions(False)
    # An interval that is over at once: its lines are steps as well.
    cfg.CONF.set_override('cooperative_yield_interval', 1e-9, 'glance_store')
    outcomes = collections.Counter[str]()
    for make in base.Interrupted, KeyboardInterrupt:
        for step in itertools.count(1):
            outcome = hit_at(step, make())
            if not outcome:
                break
            outcomes[outcome] += 1
    return outcomes


def run_on_this_hub() -> Any:
    result = testtools.TestResult()
    for case in QueueTestCase, SliceTestCase:
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return {
        'hub': type(hubs.get_hub()).__module__,
        'passed': result.wasSuccessful() and result.testsRun > 10,
        'problems': [text for _, text in result.errors + result.failures],
    }


class HubsTestCase(base.TestCase):
    """Each hub that eventlet offers, in a process of its own."""

    HUBS = ('epolls', 'poll', 'selects', 'asyncio')

    def call(self, function: str, **variables: str) -> Any:
        return base.run_python(
            f"""
            import json

            from glance_store.tests.unit import test_queue

            print(json.dumps(test_queue.{function}()))
            """,
            **variables,
        )

    def test_each_hub(self) -> None:
        for hub in self.HUBS:
            facts = self.call('run_on_this_hub', EVENTLET_HUB=hub)
            self.assertEqual([], facts['problems'])
            self.assertTrue(facts['passed'])
            self.assertEqual(f'eventlet.hubs.{hub}', facts['hub'])

    def test_exception_between_any_two_steps(self) -> None:
        # Coverage would need the trace function.
        coverage = ('COVERAGE_PROCESS_CONFIG', 'COVERAGE_PROCESS_START')
        for hub in self.HUBS:
            outcomes = self.call(
                'hit_each_step',
                EVENTLET_HUB=hub,
                **dict.fromkeys(coverage, ''),
            )
            expected = {
                'got 2, got 2, got 2, hit',
                'got 2, got 2, got 2, got 2',
                'got 2, got 2, got 2, got 2, hub hit',
            }
            self.assertEqual(expected, set(outcomes))
            self.assertGreater(sum(outcomes.values()), 500)
