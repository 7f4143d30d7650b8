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

"""Nothing is lost, whatever interrupts a stream, and wherever.

Each kind of stream runs to its end once for each of its waits, with an
exception thrown into that one. Its caller goes on after each exception.
"""

from collections.abc import Callable, Iterator
from functools import partial
import itertools
import operator
from typing import Any

import eventlet
from eventlet import event
import greenlet

from glance_store.common import utils
from glance_store.tests.unit import base

DATA = bytes(range(32))
Call = Callable[[], Any]


class Source:
    """Gives 7 bytes of DATA a fetch; *happen* is called before that."""

    def __init__(self, happen: Call = lambda: None) -> None:
        self.happen = happen
        self.position = 0

    def fetch(self) -> bytes:
        # An exception before the end is another matter.
        if self.position < len(DATA):
            self.happen()
        start = self.position
        self.position = min(start + 7, len(DATA))
        return DATA[start : self.position]


class File(Source):
    def read(self, size: int = 7) -> bytes:
        return self.fetch()


class Items(Source):
    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if chunk := self.fetch():
            return chunk
        raise StopIteration


def wait() -> None:
    eventlet.sleep(0)


def read(source: Any, *size: int) -> Call:
    return partial(utils.CooperativeReader(source).read, *size)


def stack(*makes: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what puts a stream on a source, and a stream on that one."""

    def make(source: Any) -> Any:
        for make in makes:
            source = make(source)
        return source

    return make


def changing(source: Any) -> Call:
    """Return a read whose size is another one at each call."""
    read = utils.CooperativeReader(source).read
    sizes = itertools.cycle((12, 5, None, 16, 1))
    return lambda: read(next(sizes))


iterator = utils.cooperative_iter
reader = utils.CooperativeReader
step = operator.attrgetter('__next__')
chunks = partial(utils.chunkreadable, chunk_size=12)

# Of each kind: its source, its next call, and the size of all answers but the
# last. That is 0 for those that hold nothing of the source between two calls,
# and 1 where the size changes.
KINDS: dict[str, tuple[type[Source], Callable[[Any], Call], int]] = {
    'read': (File, utils.cooperative_read, 0),
    'iterator': (Items, stack(iterator, step), 0),
    'file': (File, read, 0),
    'file, iterated': (File, stack(reader, step), 0),
    'reader': (Items, read, 0),
    'reader, exact': (Items, lambda i: read(i, 12), 12),
    'reader, all': (Items, lambda i: read(i, -1), 32),
    'reader, changing': (Items, changing, 1),
    'reader, iterated': (Items, stack(reader, step), 0),
    'chunks': (File, stack(chunks, step), 12),
    'chunks of a file': (File, stack(reader, chunks, step), 12),
    'chunks of a reader': (Items, stack(reader, chunks, step), 12),
    'iterator over a file': (File, stack(reader, iterator, step), 0),
    'iterator over an iterator': (Items, stack(iterator, iterator, step), 0),
    'reader of an iterator': (Items, lambda i: read(iterator(i), 12), 12),
}
GATHERING = (
    *('reader', 'reader, exact', 'reader, all', 'reader, iterated'),
    'reader, changing',
    *('chunks', 'chunks of a file', 'chunks of a reader'),
)


class InterruptionsTestCase(base.HubTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.pieces: list[bytes] = []

    def drain(self, call: Call) -> list[BaseException]:
        """Call 100 times, or to the end; return all that was raised."""
        raised: list[BaseException] = []
        for _ in range(100):
            try:
                piece = call()
            except StopIteration:
                break
            except BaseException as exc:
                raised.append(exc)
                continue
            if not piece:
                break
            self.pieces.append(piece)
        return raised

    def run_with(
        self,
        kind: str,
        at: int = 0,
        exc: BaseException | None = None,
        happen: Call = lambda: None,
        others: int = 0,
    ) -> int:
        """Run a stream, and throw into one wait; return how many it has.

        All of DATA comes out once and in order, and what was thrown. *others*
        are green threads that share the stream.
        """
        make, call_of, size = KINDS[kind]
        source = make(happen)
        call = call_of(source)
        self.pieces = []
        green_threads = [
            eventlet.spawn(self.drain, call) for _ in range(1 + others)
        ]
        waits = 0
        eventlet.sleep(0)
        while not green_threads[0].dead:
            waits += 1
            if size == 0:  # nothing is held while others run
                returned = b''.join(self.pieces)
                self.assertEqual(source.position, len(returned), kind)
            if waits == at:
                eventlet.kill(green_threads[0], exc)
            else:
                eventlet.sleep(0)
        raised = [thread.wait() for thread in green_threads]
        self.assertEqual([[exc] if at else []] + [[]] * others, raised, kind)
        self.check(kind)
        return waits

    def check(self, kind: str) -> None:
        size = KINDS[kind][2]
        self.assertEqual(DATA, b''.join(self.pieces), kind)
        for piece in self.pieces[:-1]:
            self.assertIn(size, (0, 1, len(piece)), kind)

    def test_thrown_into_each_wait(self) -> None:
        # Where the source waits, that may be in the middle of gathering.
        for happen in (lambda: None), wait:
            for kind in KINDS:
                waits = self.run_with(kind, happen=happen)
                for make in base.INTERRUPTIONS.values():
                    for at in range(1, waits + 1):
                        self.run_with(kind, at, make(), happen)

    def test_thrown_into_one_of_three_that_share(self) -> None:
        for kind in 'read', 'iterator', 'file', 'file, iterated':
            waits = self.run_with(kind, others=2)
            for make in base.INTERRUPTIONS.values():
                for at in range(1, waits + 1):
                    self.run_with(kind, at, make(), others=2)

    def test_every_wait_times_out(self) -> None:
        for kind, (make, call_of, _) in KINDS.items():
            call = call_of(make())

            def timed(call: Call = call) -> Any:
                with eventlet.Timeout(0):
                    return call()

            self.pieces = []
            raised = self.drain(timed)
            self.check(kind)
            self.assertEqual(kind != 'chunks', bool(raised))
            for exc in raised:
                self.assertIsInstance(exc, eventlet.Timeout)

    def test_raised_by_the_source(self) -> None:
        for kind, (make, call_of, _) in KINDS.items():
            for throw in base.INTERRUPTIONS.values():
                for at in range(5):
                    errors = [None] * at + [exc := throw()]

                    def happen(errors: list[Any] = errors) -> None:
                        if errors and (error := errors.pop(0)):
                            raise error

                    self.pieces = []
                    raised = self.drain(call_of(make(happen)))
                    self.assertEqual([exc], raised, kind)
                    self.check(kind)

    def test_failed_never_looks_complete(self) -> None:
        def generator(happen: Call) -> Iterator[bytes]:
            yield DATA[:12]
            happen()
            yield DATA[12:]

        def fail() -> None:
            raise exc

        def wait_in_vain() -> None:
            throw = greenlet.getcurrent().throw
            self.hub.schedule_call_global(0, throw, exc)
            eventlet.sleep(1)

        for kind, (source, call_of, _) in KINDS.items():
            for make in base.INTERRUPTIONS.values():
                for happen in fail, wait_in_vain:
                    if source is Items:
                        exc = make()
                        self.pieces = []
                        raised = self.drain(call_of(generator(happen)))
                        self.assertIs(exc, raised.pop(0), kind)
                        for error in raised:
                            self.assertIsInstance(error, RuntimeError)
                            self.assertIs(exc, error.__cause__)
                        self.assertEqual(99, len(raised + self.pieces))
                        self.assertIn(b''.join(self.pieces), (b'', DATA[:12]))

    def test_second_call_in_the_middle_of_gathering(self) -> None:
        for kind in GATHERING:
            for make in base.INTERRUPTIONS.values():
                gate = event.Event()
                source = KINDS[kind][0](gate.wait)
                call = KINDS[kind][1](source)
                exc = make()
                self.pieces = []
                first = eventlet.spawn(self.drain, call)
                for thrown in exc, None:
                    for _ in '123':  # up to the gate
                        eventlet.sleep(0)
                    self.assertRaises(RuntimeError, call)
                    self.assertEqual(0, source.position)
                    if thrown:
                        eventlet.kill(first, thrown)
                gate.send()
                self.assertEqual([exc], first.wait())
                self.check(kind)
