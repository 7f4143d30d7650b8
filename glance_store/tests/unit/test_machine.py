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

"""Streams of every kind against the obvious model, by hypothesis.

No two bytes of a source are alike. So the next answer of a stream can only be
what follows on all the answers before it, whatever happens in between.
"""

from collections.abc import Callable, Iterator
import dataclasses
from functools import partial
import tempfile
import threading
from types import SimpleNamespace
from typing import Any, NamedTuple

import eventlet
import hypothesis
from hypothesis import stateful
from hypothesis import strategies as st

from glance_store.common import utils
from glance_store.tests.unit import base
from glance_store.tests.unit import test_interruptions

SIZE = 200
BYTES = bytes(range(SIZE))
TEXT = ''.join(map(chr, range(300, 300 + SIZE)))


class Source:
    """Gives *data*; a word of *events* tells what happens at each fetch.

    - short: a file-like answers less than it was asked for
    - none: a file-like has nothing yet
    - late: the clock goes on
    - wait: other green threads run meanwhile
    - raise: the source raises, and goes on after that
    """

    def __init__(self, data: Any, events: list[str], clock: Any) -> None:
        self.data = data
        self.position = 0
        self.nones = 0
        # What it raised and no caller has seen yet.
        self.raised: list[BaseException] = []
        # All that it raised since it gave something.
        self.failures: list[BaseException] = []
        self.events = iter(events)
        self.clock = clock
        self.inside = False

    def happen(self) -> str:
        try:
            if self.inside:
                raise OSError('another call is under way')
            word = next(self.events, '')
            if word == 'raise':
                raise OSError(self.position)
            if word == 'wait':
                self.wait()
        except BaseException as exc:
            self.failures.append(exc)
            self.raised.append(exc)
            raise
        self.clock.now += word == 'late'
        return word

    def wait(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.inside = True
            try:
                eventlet.sleep(0)
            finally:
                self.inside = False

    def cut(self, size: int) -> Any:
        self.failures.clear()
        start = self.position
        self.position = min(start + size, SIZE)
        return self.data[start : self.position]


class File(Source):
    def read(self, size: int | None = None) -> Any:
        word = self.happen()
        if word == 'none':
            self.nones += 1
            return None
        size = SIZE if size is None or size < 0 else size
        return self.cut((size + 1) // 2 if word == 'short' else size)


class Items(Source):
    """An iterator over pieces of every type, which reuses what it can."""

    def __init__(self, sizes: list[int], *args: Any) -> None:
        super().__init__(*args)
        self.sizes = [*sizes, SIZE]
        self.item: Any = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.happen()
        if isinstance(self.item, bytearray):
            self.item[:] = b'\xff' * len(self.item)
        if self.position == SIZE:
            raise StopIteration
        make = (bytes, bytearray, memoryview)[self.position % 3]
        self.item = self.cut(self.sizes.pop(0))
        if isinstance(self.item, bytes):
            self.item = make(self.item)
        return self.item


class Kind(NamedTuple):
    """A kind of stream, and what is promised of it."""

    make: Callable[..., Any]
    file: bool = False
    iterates: bool = True
    reads: bool = True
    # read(n) over an iterable is exact, and so is each chunk of chunkiter.
    exact: bool = False
    chunks: bool = False


def reading(fd: Any) -> Any:
    return SimpleNamespace(read=utils.cooperative_read(fd))


iterator = utils.cooperative_iter
reader = utils.CooperativeReader
stack = test_interruptions.stack

CHUNKS = Kind(utils.chunkiter, True, reads=False, exact=True, chunks=True)
ITEMS = Kind(iterator, reads=False)
KINDS = (
    Kind(reading, True, iterates=False),
    Kind(reader, True),
    Kind(stack(reader, iterator), True, reads=False),
    CHUNKS,
    CHUNKS._replace(make=stack(reader, utils.chunkreadable)),
    CHUNKS._replace(make=stack(reader, utils.chunkreadable), file=False),
    ITEMS,
    Kind(reader, exact=True),
    Kind(stack(iterator, reader), exact=True),
    Kind(stack(reader, reading), iterates=False, exact=True),
)


@dataclasses.dataclass(eq=False)
class Call:
    """A call of *func*, for *size* bytes where that is known."""

    func: Callable[[], Any]
    size: int | None
    # Whether no other call was under way at any time of it.
    alone: bool = True
    thrown: BaseException | None = None
    green_thread: Any = None


SIZES = st.one_of(st.just('next'), st.none(), st.just(-1), st.integers(0, 60))
EVENTS = ['', '', 'short', 'none', 'late', 'wait', 'raise']
PLANS = st.builds(
    SimpleNamespace,
    kind=st.sampled_from(KINDS),
    data=st.sampled_from([BYTES, TEXT]),
    form=st.sampled_from(['raw', 'buffered', 'scripted', 'scripted']),
    sizes=st.lists(st.integers(0, 60), max_size=12),
    events=st.lists(st.sampled_from(EVENTS), max_size=30),
    interval=st.sampled_from([0, 0, 1]),
    chunk_size=st.integers(1, 60),
)


class Streams(stateful.RuleBasedStateMachine):
    """One stream, called by two green threads and interrupted."""

    test: 'MachineTestCase'

    @stateful.initialize(plan=PLANS)
    def begin(self, plan: Any) -> None:
        self.kind = plan.kind
        self.chunk_size = plan.chunk_size
        self.calls: list[Call] = []
        self.problems: list[BaseException] = []
        # How many bytes were returned.
        self.given = 0
        # How many calls came to a clean end, and to one that is an error.
        self.ends = self.failures = 0
        self.test.configure(
            default_chunk_size=plan.chunk_size,
            cooperative_yield_interval=plan.interval,
        )
        self.source, self.fd = self.source_for(plan)
        self.stream = plan.kind.make(self.fd)

    def source_for(self, plan: Any) -> tuple[Any, Any]:
        arguments = plan.data, plan.events, self.test.clock
        if not plan.kind.file:
            items = Items(plan.sizes, *arguments)
            # A generator gives nothing more once it has raised.
            generator = plan.form != 'scripted'
            return items, (item for item in items) if generator else items
        file = File(*arguments)
        if plan.form == 'scripted':
            return file, file
        file.position = SIZE  # it stands for a real one
        real: Any = tempfile.TemporaryFile(
            buffering=-1 if plan.form == 'buffered' else 0
        )
        if plan.data is TEXT:
            real = tempfile.TemporaryFile('w+', encoding='utf-8', newline='')
        real.write(plan.data)
        real.seek(0)
        return file, real

    def call_for(self, size: Any) -> Call:
        if self.kind.iterates and (size == 'next' or not self.kind.reads):
            cut = self.kind.chunks or self.kind.file
            return Call(
                partial(next, self.stream), self.chunk_size if cut else None
            )
        size = 7 if size == 'next' else size
        args = () if size is None else (size,)
        return Call(partial(self.stream.read, *args), size)

    def begin_call(self, call: Call) -> None:
        for other in self.calls:
            other.alone = call.alone = False
        self.calls.append(call)
        call.green_thread = eventlet.spawn(self.run, call)
        self.others_run()

    def run(self, call: Call) -> None:
        # Raised out of a green thread, an exception would end the hub.
        try:
            try:
                answer = call.func()
            except BaseException as exc:
                self.judge_error(call, exc)
            else:
                self.judge(call, answer)
        except BaseException as exc:
            self.problems.append(exc)

    def judge(self, call: Call, answer: Any) -> None:
        equal = self.test.assertEqual
        self.test.assertIsNone(call.thrown)
        if answer is None:
            self.source.nones -= 1
            return
        if self.kind is ITEMS:
            self.test.assertIs(self.source.item, answer)
        data = answer if isinstance(answer, str) else bytes(answer)
        end = self.given + len(data)
        if data:  # before that, an empty answer is of neither type
            equal(self.source.data[self.given : end], data)
        self.given = end
        if not data and call.size != 0 and self.kind is not ITEMS:
            self.judge_end(call)
            return
        equal(0, self.ends if data else 0)
        if call.size is not None:
            self.judge_size(len(data), call.size if call.size >= 0 else SIZE)

    def judge_size(self, size: int, wanted: int) -> None:
        self.test.assertLessEqual(size, wanted)
        if self.kind.exact and size < wanted:
            self.test.assertEqual(SIZE, self.given)

    def judge_end(self, call: Call) -> None:
        self.test.assertEqual(SIZE, self.given)
        if call.alone and not self.kind.file:
            self.test.assertEqual([], self.source.failures)
        self.ends += 1

    def judge_error(self, call: Call, exc: BaseException) -> None:
        source = self.source
        if call.thrown is not None:
            self.test.assertIs(call.thrown, exc)
        if exc in source.raised:
            source.raised.remove(exc)
        elif isinstance(exc, StopIteration):
            self.judge_end(call)
        elif isinstance(exc, BlockingIOError):
            source.nones -= 1
        elif exc.__cause__ in source.failures:
            # The source ended right after it raised, maybe to two callers.
            self.test.assertIsInstance(exc, RuntimeError)
            self.test.assertFalse(self.kind.file)
            self.failures += 1
        elif isinstance(exc, ValueError) and not call.alone:
            source.failures.append(exc)  # a generator that is executing
        elif call.thrown is None:
            refused = isinstance(exc, RuntimeError) and self.kind.exact
            if call.alone or not refused:
                raise exc

    @stateful.rule(size=SIZES)
    def call(self, size: Any) -> None:
        if len(self.calls) == 2:
            self.finish()
        self.begin_call(self.call_for(size))

    @stateful.rule(size=SIZES)
    def call_on_a_thread_without_a_hub(self, size: Any) -> None:
        self.finish()
        base.in_native_thread(self.run, self.call_for(size))

    @stateful.rule()
    def others_run(self) -> None:
        eventlet.sleep(0)
        self.calls = [c for c in self.calls if not c.green_thread.dead]

    @stateful.rule(
        which=st.integers(0, 1),
        make=st.sampled_from([*base.INTERRUPTIONS.values()]),
    )
    def interrupt(self, which: int, make: Callable[[], BaseException]) -> None:
        if which < len(self.calls):
            call = self.calls[which]
            call.thrown = make()
            eventlet.kill(call.green_thread, call.thrown)
            self.test.assertTrue(call.green_thread.dead)
            self.others_run()

    @stateful.rule()
    def time_passes(self) -> None:
        self.test.clock.now += 1

    @stateful.invariant()
    def all_is_well(self) -> None:
        for problem in self.problems:
            raise problem
        self.test.assertLessEqual(0, self.source.nones)

    def finish(self) -> None:
        for _ in range(200):
            if not self.calls:
                return
            self.others_run()
        raise AssertionError('a call hangs')

    def teardown(self) -> None:
        """Take all that is left; then the end stays the end."""
        if not hasattr(self, 'stream') or self.problems:
            return
        self.finish()
        self.failures = 0
        for _ in range(2 * SIZE):
            if self.ends + self.failures > 3:
                break
            self.begin_call(self.call_for(None))
            self.finish()
        else:
            raise AssertionError('no end')
        self.all_is_well()
        self.test.assertEqual([], self.source.raised)
        if not (self.kind.chunks and self.source.failures):
            self.test.assertEqual(self.source.position, self.given)
        if hasattr(self.fd, 'close'):
            self.fd.close()


class MachineTestCase(base.HubTestCase):
    def test_each_byte_once_and_in_order(self) -> None:
        self.clock = self.useFixture(base.Clock())
        stateful.run_state_machine_as_test(
            type('Machine', (Streams,), {'test': self}),
            settings=hypothesis.settings(
                database=None,
                deadline=None,
                derandomize=True,
                # To explain a failure takes longer than to shrink it.
                phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
                max_examples=400,
                stateful_step_count=30,
                suppress_health_check=list(hypothesis.HealthCheck),
            ),
        )
