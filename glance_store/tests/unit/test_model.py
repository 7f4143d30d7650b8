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

"""The streams against the obvious model: all bytes, each once and in order.

hypothesis makes up the chunks, the calls and the interruptions. All of it runs
on a real hub, and an interruption is thrown into whichever yield it falls on.

First a state machine, which knows of every source no more than which bytes it
gave: no two bytes of a source are alike, so that each tells where it belongs.
Then machines of less freedom, which know each answer beforehand.
"""

import collections
from collections.abc import Callable
import functools
import io
import itertools
import logging
import tempfile
import threading
import types
from typing import Any, NamedTuple

import eventlet
from eventlet import event
from eventlet import tpool
import fixtures
import hypothesis
from hypothesis import stateful
from hypothesis import strategies

from glance_store.common import cooperation
from glance_store.common import utils
from glance_store.tests.unit import base

# The same examples in each run: what fails once fails for everyone. The long
# profile looks further, and prints how to see again what it found.
PROFILE = hypothesis.settings(
    base.EXAMPLES,
    derandomize=not base.STRESS,
    max_examples=6000 if base.STRESS else 300,
    print_blob=True,
)

KINDS: dict[str, Callable[[bytes], Any]] = {
    'bytes': bytes,
    'bytearray': bytearray,
    'memoryview': memoryview,
    'slice': lambda data: memoryview(b'<' + bytes(data) + b'>')[1:-1],
}

chunkings = strategies.lists(
    strategies.tuples(
        strategies.integers(0, 12), strategies.sampled_from(sorted(KINDS))
    ),
    max_size=15,
)
lengths = strategies.one_of(
    strategies.none(),
    strategies.just(-1),
    strategies.just(0),
    strategies.integers(1, 40),
)
interruptions = strategies.lists(
    strategies.sampled_from(['', '', *base.INTERRUPTIONS]), max_size=40
)


def throwing(names):
    """Return what tells a run to throw these, one in each yield."""
    names = list(names)

    def interrupt(number):
        name = names[number - 1] if number <= len(names) else ''
        return base.INTERRUPTIONS[name]() if name else None

    return interrupt


def data_of(chunks):
    """Return the bytes of all chunks: no two alike next to each other."""
    return bytes(n % 251 for n in range(sum(size for size, _ in chunks)))


def pieces(chunks):
    data, at = data_of(chunks), 0
    for size, kind in chunks:
        yield KINDS[kind](data[at : at + size])
        at += size


def reusing(chunks):
    """As pieces, in one buffer that is overwritten when the next comes."""
    buffer = bytearray(b'?' * 12)
    for piece in pieces(chunks):
        buffer[:] = b'?' * 12
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]


# How many bytes a source has at most: each of them is another one.
MOST = 250


class SourceError(Exception):
    """What a source raises by itself."""


class Clock:
    """The time that the intervals of streams are measured by."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Source:
    """Bytes, and what happens while they are fetched.

    *events* has a word of that for one fetch after the other:

    - ``short``: a file-like answers less than it was asked for
    - ``none``: a file-like has nothing yet
    - ``late``: the clock goes on meanwhile
    - ``switch``: it waits for something, and other green threads run
    - ``raise``: it fails, and goes on when it is asked again
    - ``dead``: it fails, now and whenever it is asked again
    - ``wrong``: the chunk is no image data, but others that are come after it
    """

    def __init__(self, data: Any, events: list[str], clock: Clock) -> None:
        self.data = data
        self.position = 0
        self.inside = 0
        self.closed = 0
        self.nones = 0
        # What it raised and nobody has seen yet.
        self.raised: list[BaseException] = []
        # Why nothing more is to be handed out, where that is so.
        self.ended = ''
        # Whether it gave its end, as a file-like does.
        self.empty = False
        # How many bytes are to be handed out, as far as is known.
        self.limit = len(data)
        self._events = iter(events)
        self._clock = clock

    def end(self, why: str) -> None:
        if not self.ended:
            self.ended = why
            self.limit = self.position

    @property
    def over(self) -> bool:
        return self.position == self.limit

    def event(self) -> str:
        """Let happen what comes next, and return its name."""
        if self.inside:
            raise AssertionError('entered twice')
        dead = self.ended == 'dead'
        event = 'dead' if dead else next(self._events, '')
        if event in ('dead', 'wrong'):
            self.end(event)
        if event in ('dead', 'raise'):
            self.raised.append(SourceError(event, self.position))
            raise self.raised[-1]
        if event == 'late':
            self._clock.now += 1
        if event == 'switch' and cooperation.current_hub() is not None:
            self.inside += 1
            try:
                eventlet.sleep(0)
            finally:
                self.inside -= 1
        return event

    def cut(self, size: int) -> Any:
        start = self.position
        self.position += size
        return self.data[start : self.position]


class File(Source):
    """A file-like."""

    def read(self, size: int | None = None) -> Any:
        if self.closed:
            raise ValueError('closed')
        event = self.event()
        if event == 'none':
            self.nones += 1
            return None
        left = len(self.data) - self.position
        self.empty = not left
        if size is None or not 0 <= size <= left:
            size = left
        return self.cut((size + 1) // 2 if event == 'short' else size)

    def close(self) -> None:
        self.closed += 1


class Items(Source):
    """An iterator over chunks, which goes on after it raised."""

    def __init__(self, data: Any, events: Any, clock: Clock, cuts: Any):
        super().__init__(data, events, clock)
        self._cuts = collections.deque(cuts)
        # What nobody got yet.
        self.items: list[Any] = []

    @property
    def over(self) -> bool:
        return bool(self.ended) or not self._cuts

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        if not self._cuts and self.ended != 'dead':
            raise StopIteration
        if self.event() == 'wrong':
            return 'text'
        size, kind = self._cuts.popleft()
        self.items.append(KINDS[kind](self.cut(size)))
        return self.items[-1]

    def close(self) -> None:
        if not self.ended and not self.inside:
            self.event()
        self.closed += 1


class Reusing(Items):
    """An iterator with one buffer for all of its chunks."""

    def __next__(self) -> Any:
        if self.items:
            self.items[0][:] = b'\xff' * len(self.items[0])
            self.items.clear()
        chunk = super().__next__()
        if isinstance(chunk, str):
            return chunk
        self.items = [memoryview(bytearray(chunk))]
        return self.items[0]


class Generated(Items):
    """A generator, which ends when anything is raised in it."""

    def __iter__(self) -> Any:
        try:
            while self._cuts:
                yield super().__next__()
        finally:
            self.end('generator')
            self.closed += 1


class Storage(io.FileIO):
    """A regular file to which the same happens as to a source."""

    def __init__(self, path: str, source: Source) -> None:
        super().__init__(path)
        self.source = source

    def read(self, size: int | None = None) -> Any:
        event = '' if self.closed else self.source.event()
        if event == 'none':
            self.source.nones += 1
            return None
        if event == 'short':
            size = 1 if size is None or size < 0 else (size + 1) // 2
        answer = super().read(-1 if size is None else size)
        self.source.position += len(answer)
        self.source.empty = not answer
        return answer

    def close(self) -> None:
        self.source.closed += 1
        super().close()


class Kind(NamedTuple):
    """A kind of stream, and what is promised of it."""

    make: Callable[..., Any]
    file: bool = False
    # Which calls there are.
    iterates: bool = True
    reads: bool = True
    closes: bool = True
    # Whether read(n) is exact, and refused while another read is under way.
    exact: bool = False
    # Whether its chunks are of one size, and it is never shared.
    chunks: bool = False
    # Whether an error keeps back what came before it, but too little of it.
    holds: bool = False
    # Whether the items are the very ones of the source.
    items: bool = False
    # Whether its source is a stream that refuses what it would let wait.
    nested: bool = False


def _read(fd):
    return types.SimpleNamespace(read=utils.cooperative_read(fd))


_CHUNKS = Kind(
    utils.chunkiter, reads=False, closes=False, chunks=True, holds=True
)
ALL_KINDS = {
    'reader of a file': Kind(utils.CooperativeReader, file=True),
    'read': Kind(_read, file=True, iterates=False, closes=False),
    'chunks': _CHUNKS._replace(file=True),
    'chunks of a reader of a file': _CHUNKS._replace(
        make=lambda fd, *size: utils.chunkreadable(
            utils.CooperativeReader(fd), *size
        ),
        file=True,
    ),
    'iterator over a reader of a file': Kind(
        lambda fd: utils.cooperative_iter(utils.CooperativeReader(fd)),
        file=True,
        reads=False,
    ),
    'iterator': Kind(utils.cooperative_iter, reads=False, items=True),
    'reader': Kind(utils.CooperativeReader, exact=True),
    'reader of an iterator': Kind(
        lambda items: utils.CooperativeReader(utils.cooperative_iter(items)),
        exact=True,
    ),
    'read of a reader': Kind(
        lambda items: _read(utils.CooperativeReader(items)),
        iterates=False,
        closes=False,
        holds=True,
        nested=True,
    ),
    'chunks of a reader': _CHUNKS._replace(
        make=lambda items, *size: utils.chunkreadable(
            utils.CooperativeReader(items), *size
        )
    ),
}
FILE_KINDS = {name: kind for name, kind in ALL_KINDS.items() if kind.file}


class Call:
    """A call on a stream, in a green thread of its own."""

    def __init__(self, name: str, size: int | None, func: Any) -> None:
        self.name = name
        self.size = size
        self.func = func
        # Whether no other call was under way at any time of it.
        self.alone = True
        self.thrown: list[BaseException] = []
        self.timeout: Any = None
        self.answer: Any = None
        self.error: BaseException | None = None
        self.returned = False
        self.judged = event.Event()

    def begin(self, returned: list['Call'], strayed: list['Call']) -> None:
        def run() -> None:
            self.run()
            returned.append(self)
            # What an interrupted yield left on the hub would end this wait.
            if self.judged.wait() is not self:
                strayed.append(self)

        self.green_thread = eventlet.spawn(run)
        eventlet.sleep(0)

    def run(self) -> None:
        # Out of a green thread nothing may be raised: see base.Run.
        try:
            self.answer = self.func()
        except BaseException as exc:
            self.error = exc
        self.returned = True

    def throw(self, exc: BaseException) -> None:
        self.thrown.append(exc)
        eventlet.kill(self.green_thread, exc)

    @property
    def interrupted(self) -> bool:
        expected = [*self.thrown, self.timeout]
        return self.error is not None and any(
            self.error is exc for exc in expected
        )


class Plan(NamedTuple):
    """What hypothesis makes up of a stream and its source."""

    kind: int
    source: int
    text: bool
    cuts: list[tuple[int, str]]
    events: list[str]
    last: str
    size: int | None
    options: dict[str, Any]
    traced: bool


def often_long(elements):
    return strategies.one_of(
        strategies.lists(elements, max_size=20),
        strategies.lists(elements, min_size=8, max_size=40),
    )


plans = strategies.builds(
    Plan,
    kind=strategies.integers(0, len(ALL_KINDS) - 1),
    source=strategies.integers(0, 3),
    text=strategies.booleans(),
    cuts=often_long(
        strategies.tuples(
            strategies.one_of(
                strategies.integers(0, 12), strategies.integers(0, 60)
            ),
            strategies.sampled_from(sorted(KINDS)),
        ),
    ),
    events=often_long(
        strategies.sampled_from(
            ['', '', 'short', 'none', 'late', 'switch', 'raise']
        ),
    ),
    last=strategies.sampled_from(['', '', '', 'dead', 'wrong']),
    size=strategies.one_of(strategies.none(), strategies.integers(1, 60)),
    options=strategies.fixed_dictionaries(
        {
            'default_chunk_size': strategies.integers(1, 40),
            'cooperative_yield_interval': strategies.sampled_from([0, 0, 1]),
        }
    ),
    traced=strategies.booleans(),
)

# What is asked of a stream: a size to read, or the next chunk. Where a stream
# has no such call, the nearest that it has is made.
asked = strategies.one_of(
    strategies.just('next'),
    strategies.none(),
    strategies.integers(-1, 40),
    strategies.sampled_from([0, 1, 100, 300]),
)
interrupting = strategies.sampled_from(['', '', *base.INTERRUPTIONS])
turns = strategies.sampled_from([0, 0, 0, 0, 1, 2, 5])


def step(**arguments):
    """Make a rule of a method: each time, it counts as a step."""

    def rule(func):
        @functools.wraps(func)
        def counted(self, **drawn):
            self.failed = True
            with self.test.tally.case('model: steps'):
                func(self, **drawn)
                self.judge()
            self.failed = False

        return stateful.rule(**arguments)(counted)

    return rule


class Streams(stateful.RuleBasedStateMachine):
    """One stream after the other, called and interrupted as it comes."""

    # Set by the test that runs it.
    test: Any
    kinds = ALL_KINDS
    fd: Any = None
    failed = False

    def __init__(self):
        super().__init__()
        self.clock = self.test.clock
        self.under_way = []
        self.returned = []
        # Whose green threads were woken up by what was not for them.
        self.strayed = []

    # What can happen

    @stateful.initialize(plan=plans)
    def begin(self, plan):
        self.open(plan)

    @step(
        plan=plans,
        closes=strategies.booleans(),
        number=turns,
        interruption=interrupting,
    )
    def go_on_with_another_stream(self, plan, closes, number, interruption):
        if closes and self.kind.closes:
            self.close(number, interruption)
        self.drain()
        self.open(plan)

    @step(
        calls=strategies.lists(
            strategies.tuples(asked, turns, interrupting),
            min_size=1,
            max_size=4,
        )
    )
    def call(self, calls):
        for asks, number, interruption in calls:
            self.begin_call(self.call_for(asks))
            self.take_turns(number)
            if interruption:
                self.throw(-1, interruption)

    @step(asks=asked, number=turns, interruption=interrupting)
    def call_alone(self, asks, number, interruption):
        self.finish()
        self.begin_call(self.call_for(asks))
        self.take_turns(number)
        if interruption:
            self.throw(-1, interruption)

    @step(asks=asked)
    def call_with_a_timeout(self, asks):
        # It passes at once, which the hub hears when it has its next turn.
        call = self.call_for(asks)
        func = call.func

        def run():
            with eventlet.Timeout(0) as call.timeout:
                return func()

        call.func = run
        self.begin_call(call)

    @step(
        pairs=strategies.lists(
            strategies.tuples(asked, asked), min_size=4, max_size=8
        )
    )
    def calls_in_the_middle_of_others(self, pairs):
        for first, second in pairs:
            self.finish()
            self.call_in_the_middle_of_another(first, second)
        self.finish()

    @step(number=turns)
    def others_run(self, number):
        self.take_turns(number)

    @step(
        which=strategies.integers(0, 5),
        interruption=strategies.sampled_from(sorted(base.INTERRUPTIONS)),
    )
    def interrupt(self, which, interruption):
        self.throw(which, interruption)

    @step()
    def all_return(self):
        self.finish()

    @step(asks=asked, alone=strategies.booleans())
    def call_on_a_native_thread(self, asks, alone):
        # Inside of a source there must not be two at the same instant.
        inside = self.source.inside or self.kind.nested
        if alone or inside or self.kinds is FILE_KINDS:
            self.finish()
        self.on_a_native_thread(self.call_for(asks), Call.run)

    @step(asks=asked, names=interruptions)
    def call_on_a_native_thread_with_a_hub(self, asks, names):
        def run(call):
            call.thrown = base.Run(call.run, throwing(names)).thrown
            base.end_hub()

        self.finish()
        self.on_a_native_thread(self.call_for(asks), run)

    @step()
    def time_passes(self):
        self.clock.now += 1

    def teardown(self):
        self.test.forget_log()
        if not self.failed:
            self.drain()
        for call in self.under_way:
            eventlet.kill(call.green_thread)

    # How it happens

    def open(self, plan):
        self.kind = list(self.kinds.values())[plan.kind % len(self.kinds)]
        self.test.configure(**plan.options)
        logging.getLogger('glance_store').setLevel(
            logging.DEBUG if plan.traced else logging.INFO
        )
        self.source, self.fd = self.source_for(plan)
        size = [plan.size] if plan.size and self.kind.chunks else []
        self.chunk_size = (*size, plan.options['default_chunk_size'])[0]
        self.stream = self.kind.make(self.fd, *size)
        self.given = set()
        self.closing = False

    def source_for(self, plan):
        ends = itertools.accumulate(size for size, _ in plan.cuts)
        number = sum(end <= MOST for end in ends)
        cuts = plan.cuts[:number]
        data = data_of(cuts)
        events = list(plan.events)
        if plan.last == 'dead' or not (self.kind.file or self.kind.items):
            events.append(plan.last)
        if self.kind.file:
            data = data.decode('latin-1') if plan.text else data
            source = File(data, events, self.clock)
            return source, source
        kinds = [Items, Generated, Items if self.kind.items else Reusing]
        source = kinds[plan.source % 3](data, events, self.clock, cuts)
        return source, iter(source)

    def call_for(self, asks):
        if self.kind.iterates and (asks == 'next' or not self.kind.reads):
            return Call('next', None, functools.partial(next, self.stream))
        size = 7 if asks == 'next' else asks
        arguments = () if size is None else (size,)
        return Call(
            'read', size, functools.partial(self.stream.read, *arguments)
        )

    def call_in_the_middle_of_another(self, first, second):
        call = self.call_for(first)
        self.begin_call(call)
        other = self.call_for(second)
        if call.returned or not self.excludes(call, other):
            return
        # As if it had not been made: the first one is still alone.
        position = self.source.position
        with self.test.tally.case('model: overlapping reads refused'):
            other.run()
            self.test.assertIsInstance(other.error, RuntimeError)
            self.test.assertEqual(position, self.source.position)

    def excludes(self, call, other):
        """Tell whether a call refuses another one in the middle of it."""
        has_size = call.size is not None or other.size is not None
        return self.kind.chunks or self.kind.exact and has_size

    def close(self, number, interruption):
        """Close the stream, whatever is under way, and once more after it."""
        self.closing = True
        self.begin_call(Call('close', None, self.stream.close))
        self.take_turns(number)
        if interruption:
            self.throw(-1, interruption)
        self.begin_call(self.call_for('next'))
        self.finish()
        self.begin_call(Call('close', None, self.stream.close))
        self.finish()
        self.begin_call(self.call_for('next'))
        self.finish()

    def begin_call(self, call):
        self.meet(call)
        self.under_way.append(call)
        call.begin(self.returned, self.strayed)

    def meet(self, call):
        self.judge()
        for other in self.under_way:
            other.alone = call.alone = False

    def on_a_native_thread(self, call, run):
        self.meet(call)
        base.in_native_thread(run, call)
        self.judge_call(call)

    def take_turns(self, number=1):
        for _ in range(number):
            eventlet.sleep(0)

    def throw(self, which, interruption):
        waiting = [call for call in self.under_way if not call.returned]
        if waiting:
            call = waiting[which % len(waiting)]
            with self.test.tally.case('model: interruptions'):
                call.throw(base.INTERRUPTIONS[interruption]())

    def finish(self):
        """Give turns until no call is under way any more."""
        for _ in range(5000):
            self.judge()
            if not self.under_way:
                return
            self.wait_for_others()
        raise AssertionError('a call hangs')

    def wait_for_others(self):
        self.take_turns()

    def drain(self):
        """Have the stream give all that it still has."""
        self.finish()
        if self.closing:
            return
        for _ in range(MOST + 100):
            call = self.call_for('next')
            self.begin_call(call)
            self.finish()
            if self.is_last(call):
                break
        if not self.is_held(call):
            self.test.assertEqual([], self.left())
        self.test.assertEqual([], self.source.raised)
        # Whatever the source still has, nothing comes after its end.
        self.begin_call(self.call_for('next'))
        self.finish()
        self.take_turns()
        self.judge()

    def is_last(self, call):
        if call.error is None:
            return call.name == 'read' and call.answer in (b'', '')
        if isinstance(call.error, StopIteration):
            return True
        return not self.left() or self.is_held(call)

    def is_held(self, call):
        """Tell whether what is left is too little for a call.

        It is kept for one that asks for less: nothing comes after it but the
        error.
        """
        if self.source.ended not in ('dead', 'wrong'):
            return False
        if not (self.kind.exact or self.kind.holds or self.kind.file):
            return False
        if call.name == 'read' and not self.kind.exact:
            wanted = self.wanted(call, MOST + 1)
        else:
            wanted = self.wanted(call, self.chunk_size * self.kind.file)
        return len(self.left()) < wanted

    def wanted(self, call, otherwise):
        """Return how many bytes a call asks for."""
        size = self.chunk_size if self.kind.chunks else call.size
        if size is None:
            return otherwise
        return size if size >= 0 else MOST + 1

    # What has to be true of it

    def left(self):
        """Return where the bytes are that were not handed out."""
        return [at for at in range(self.source.limit) if at not in self.given]

    def judge(self):
        """Judge the calls that returned, in the order in which they did."""
        while self.returned:
            call = self.returned.pop(0)
            self.under_way.remove(call)
            call.judged.send(call)
            self.judge_call(call)
        self.test.assertEqual([], self.strayed)

    def judge_call(self, call):
        error = call.error
        if call.thrown and not call.interrupted:
            raise AssertionError('an interruption did not come out') from error
        if error is None:
            self.judge_answer(call)
        elif isinstance(error, StopIteration):
            self.judge_end(call)
        elif isinstance(error, BlockingIOError):
            self.judge_none()
        elif any(error is raised for raised in self.source.raised):
            self.source.raised.remove(error)
        elif not call.interrupted and not self.documented(call, error):
            raise error

    def documented(self, call, error):
        if isinstance(error, RuntimeError):  # another read is under way
            return not call.alone and (self.kind.exact or self.kind.chunks)
        if isinstance(error, TypeError):  # of a chunk
            if self.source.ended != 'wrong':
                return False
            return not call.alone or not self.left() or self.is_held(call)
        return isinstance(error, ValueError) and self.closing

    def judge_none(self):
        self.source.nones -= 1
        self.test.assertLessEqual(0, self.source.nones)

    def judge_end(self, call):
        if self.closing:
            return
        self.test.assertTrue(self.source.over)
        self.test.assertIn(self.source.ended, self.ends())
        if call.alone:
            self.test.assertEqual([], self.left())
            self.test.assertEqual([], self.source.raised)

    def ends(self):
        """Return the ways to end in which the end is reported as such."""
        if isinstance(self.source, Generated):
            return ('', 'generator', 'dead')
        # It may have failed only after it had come to its end.
        return ('', 'dead') if self.source.empty else ('',)

    def judge_answer(self, call):
        answer = call.answer
        if call.name == 'close':
            self.judge_close(call)
        elif answer is None:
            self.judge_none()
        elif self.kind.items:
            self.judge_item(call, answer)
        elif answer:
            self.judge_data(call, answer)
        else:
            self.test.assertEqual('read', call.name)
            if call.size != 0:
                self.judge_end(call)

    def judge_close(self, call):
        started = not isinstance(self.source, Generated) or self.given
        if call.alone and started:
            self.test.assertNotEqual(0, self.source.closed)

    def judge_item(self, call, item):
        items = self.source.items
        (at,) = [at for at, other in enumerate(items) if other is item]
        if call.alone:
            self.test.assertEqual(0, at)
        del items[at]
        self.judge_data(call, item)

    def judge_data(self, call, data):
        if isinstance(data, str):
            places = list(map(ord, data))
        else:
            places = list(bytes(data))
        left = self.left()
        if call.alone:
            self.test.assertEqual(left[: len(places)], places)
        self.test.assertEqual(sorted(set(places).intersection(left)), places)
        self.given.update(places)
        self.judge_size(call, len(data))

    def judge_size(self, call, size):
        wanted = self.wanted(call, MOST)
        self.test.assertLessEqual(size, wanted)
        exact = self.kind.chunks or self.kind.exact and call.size is not None
        if exact and size < wanted and not self.source.nones:
            # As at the end.
            self.test.assertTrue(self.source.over)
            if call.alone and not self.closing:
                self.test.assertEqual([], self.left())


class OffloadedStreams(Streams):
    """Streams of regular files, of which the thread pool makes the reads.

    The pool has one thread, and that is kept busy unless a read is to be
    let through: so the same happens each time.
    """

    kinds = FILE_KINDS

    def __init__(self):
        super().__init__()
        self.hold()

    @step()
    def reads_end(self):
        self.let_through()

    def hold(self):
        """Keep the thread busy, once it made all reads that came before."""
        tpool.setup()
        held = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

        def wait(go_on=self.go_on):
            held.release()
            go_on.acquire()

        eventlet.spawn(tpool.execute, wait)
        eventlet.sleep(0)
        if not held.acquire(timeout=base.HANGING):
            raise AssertionError('a read hangs')

    def let_through(self):
        self.go_on.release()
        self.hold()

    def wait_for_others(self):
        self.let_through()
        super().wait_for_others()

    def on_a_native_thread(self, call, run):
        self.go_on.release()
        super().on_a_native_thread(call, run)
        self.hold()

    def teardown(self):
        super().teardown()
        self.fd.close()
        self.go_on.release()

    def source_for(self, plan):
        if self.fd is not None:
            self.fd.close()
        number = sum(size for size, _ in plan.cuts) % MOST
        data = data_of([(number, '')])
        text = data.decode('latin-1')
        raw = plan.source == 0 and not plan.text
        events = [*plan.events, 'dead'][
            : len(plan.events) + (plan.last == 'dead')
        ]
        source = Source(
            text if plan.text else data, events if raw else [], self.clock
        )
        with tempfile.NamedTemporaryFile() as file:
            file.write(text.encode() if plan.text else data)
            file.flush()
            return source, self.opened(file.name, source, plan)

    def opened(self, path, source, plan):
        if plan.source == 0 and not plan.text:
            return Storage(path, source)
        # A buffer reads ahead, so where it is says nothing.
        source.position = len(source.data)
        if plan.text:
            return open(path, encoding='utf-8', newline='')
        if plan.source == 1:
            # Which is what a temporary file is, from outside.
            return tempfile._TemporaryFileWrapper(
                open(path, 'rb'), path, delete=False
            )
        return open(path, 'rb')

    def judge_close(self, call):
        if call.alone:
            self.test.assertTrue(self.fd.closed)


class TestStreams(base.HubTestCase):
    """What is handed out is the source's: each byte once and in order."""

    def explore(self, machine, steps):
        """Have a machine make at least so many steps."""
        self.clock = Clock()
        self.useFixture(
            fixtures.MonkeyPatch(
                'glance_store.common.cooperation.time', self.clock
            )
        )
        stateful.run_state_machine_as_test(
            type(machine.__name__, (machine,), {'test': self}),
            settings=hypothesis.settings(
                PROFILE, max_examples=steps // 25, stateful_step_count=50
            ),
        )
        self.assertLessEqual(steps, self.tally.tried['model: steps'])

    def test_streams(self):
        self.explore(Streams, 100_000 if base.STRESS else 5_000)

    def test_offloaded(self):
        # In a process of its own: a pool answers one hub of a process only.
        code = """
        import json
        import sys

        import testtools

        from glance_store.tests.unit import test_model

        test = test_model.TestStreams('run_offloaded')
        result = testtools.TestResult()
        test.steps = int(sys.argv[1])
        test.run(result)
        print(json.dumps({
            'tried': test.tally.tried,
            'problems': [text for _, text in result.errors + result.failures],
        }))
        """
        facts = base.run_python(
            code,
            str(5_000 if base.STRESS else 500),
            EVENTLET_THREADPOOL_SIZE='1',
            GLANCE_STORE_STRESS='1' if base.STRESS else '',
        )
        for kind, number in facts['tried'].items():
            with self.tally.case(f'{kind}, offloaded', number):
                self.assertEqual([], facts['problems'])
        self.assertEqual([], facts['problems'])

    def run_offloaded(self):
        # While there still is the hub that it answers.
        self.addCleanup(tpool.killall)
        self.configure(offload_file_reads=True)
        self.explore(OffloadedStreams, self.steps)


class Joined:
    """The model of a reader: joined bytes, and where each chunk ends."""

    def __init__(self, chunks):
        self.data = data_of(chunks)
        self.position = 0
        self.ends = []
        end = 0
        for size, _ in chunks:
            end += size
            self.ends.append(end)

    def read(self, length):
        if length is None:
            later = [end for end in self.ends if end > self.position]
            end = later[0] if later else len(self.data)
        elif length < 0:
            end = len(self.data)
        else:
            end = self.position + length
        answer = self.data[self.position : end]
        self.position += len(answer)
        return answer


class Model(base.HubTestCase):
    def same(self, reader, steps, names, expected):
        """Compare answers, each call repeated until it is not interrupted."""
        caught = []

        def consume():
            answers = []
            for step in steps:
                if step == 'iterate':
                    answers.append(
                        base.insist(lambda: next(reader, b''), caught)
                    )
                else:
                    answers.append(
                        base.insist(
                            lambda length=step: reader.read(length), caught
                        )
                    )
            return answers

        run = base.Run(consume, throwing(names))
        self.assertEqual(expected, run.answer)
        self.assertEqual(len(run.thrown), len(caught))


class TestOverIterable(Model):
    @PROFILE
    @hypothesis.given(
        chunkings,
        strategies.lists(
            strategies.one_of(lengths, strategies.just('iterate')),
            max_size=12,
        ),
        interruptions,
        strategies.sampled_from([pieces, reusing]),
    )
    def test_same_answers(self, chunks, steps, names, source):
        model = Joined(chunks)
        expected = [
            model.read(None if step == 'iterate' else step) for step in steps
        ]
        reader = utils.CooperativeReader(source(chunks))
        self.same(reader, steps, names, expected)

    @PROFILE
    @hypothesis.given(
        chunkings,
        strategies.lists(lengths.filter(lambda x: x != 0), min_size=1),
        interruptions,
        strategies.sampled_from([pieces, reusing]),
    )
    def test_changing_the_mind_after_an_interruption(
        self, chunks, sizes, names, source
    ):
        # Each call asks for another length, the interrupted ones' too, so
        # only the whole is the same as the model's.
        reader = utils.CooperativeReader(source(chunks))
        number = 0

        def step():
            nonlocal number
            length = sizes[number % len(sizes)]
            number += 1
            answer = reader.read(length)
            if length is not None and length >= 0:
                self.assertLessEqual(len(answer), length)
            return answer

        run = base.Run(lambda: b''.join(base.calls(step, [])), throwing(names))
        self.assertEqual(data_of(chunks), run.answer)

    @PROFILE
    @hypothesis.given(
        chunkings,
        strategies.integers(1, 40),
        interruptions,
        strategies.sampled_from([pieces, reusing]),
    )
    def test_chunks_of_the_reader(self, chunks, size, names, source):
        reader = utils.CooperativeReader(source(chunks))
        cut = utils.chunkreadable(reader, size)
        run = base.Run(
            lambda: list(base.calls(lambda: next(cut), [])),
            throwing(names),
        )
        data = data_of(chunks)
        self.assertEqual(
            [data[at : at + size] for at in range(0, len(data), size)],
            run.answer,
        )

    @PROFILE
    @hypothesis.given(
        chunkings,
        strategies.lists(
            strategies.one_of(lengths, strategies.just('iterate')),
            max_size=12,
        ),
    )
    def test_without_a_hub(self, chunks, steps):
        model = Joined(chunks)
        expected = [
            model.read(None if step == 'iterate' else step) for step in steps
        ]
        reader = utils.CooperativeReader(pieces(chunks))

        def consume():
            return [
                next(reader, b'') if step == 'iterate' else reader.read(step)
                for step in steps
            ]

        self.assertEqual(expected, base.in_native_thread(consume))


class TestOverFileLike(Model):
    @PROFILE
    @hypothesis.given(
        strategies.binary(max_size=100),
        strategies.lists(lengths, max_size=12),
        interruptions,
    )
    def test_same_answers(self, data, steps, names):
        model = io.BytesIO(data)
        self.same(
            utils.CooperativeReader(io.BytesIO(data)),
            steps,
            names,
            [model.read(step) for step in steps],
        )

    @PROFILE
    @hypothesis.given(
        strategies.text(max_size=100),
        strategies.lists(lengths.filter(lambda x: x != 0), min_size=1),
        interruptions,
        strategies.booleans(),
    )
    def test_changing_the_mind_after_an_interruption(
        self, text, sizes, names, binary
    ):
        data = text.encode('utf-8', 'surrogatepass') if binary else text
        read = utils.cooperative_read(base.Reading(data, 9))
        number = 0

        def step():
            nonlocal number
            length = sizes[number % len(sizes)]
            number += 1
            answer = read(length)
            if length is not None and length >= 0:
                self.assertLessEqual(len(answer), length)
            return answer

        run = base.Run(
            lambda: data[:0].join(base.calls(step, [])), throwing(names)
        )
        self.assertEqual(data, run.answer)


class TestIterator(Model):
    @PROFILE
    @hypothesis.given(
        strategies.lists(strategies.integers(1)),
        interruptions,
        strategies.integers(0, 3),
    )
    def test_each_item_once(self, items, names, others):
        iterator = utils.cooperative_iter(iter(items))
        got = []
        threads = [eventlet.spawn(got.extend, iterator) for _ in range(others)]
        run = base.Run(
            lambda: list(base.calls(lambda: next(iterator), [])),
            throwing(names),
        )
        for thread in threads:
            thread.wait()
        if not others:
            self.assertEqual(items, run.answer)
        self.assertEqual(sorted(items), sorted(run.answer + got))


class TestChunks(base.TestCase):
    @PROFILE
    @hypothesis.given(
        strategies.binary(max_size=200),
        strategies.lists(
            strategies.one_of(strategies.none(), strategies.integers(1, 20)),
            max_size=20,
        ),
        strategies.integers(1, 50),
    )
    def test_every_chunk_is_exact_between_two_waits(self, data, mosts, size):
        # A source that answers so many bytes at most, or has nothing yet.
        fp = io.BytesIO(data)
        plan = iter(mosts)

        class Source:
            def read(self, size):
                most = next(plan, size)
                return None if most is None else fp.read(min(size, most))

        chunks = utils.chunkiter(Source(), size)
        got, run = [], []
        while True:
            try:
                run.append(next(chunks))
            except BlockingIOError:
                got.append(run)
                run = []
            except StopIteration:
                got.append(run)
                break
        self.assertEqual(data, b''.join(sum(got, [])))
        for run in got:
            self.assertEqual([size] * len(run[:-1]), [*map(len, run[:-1])])
            for chunk in run:
                self.assertIn(len(chunk), range(1, size + 1))
