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

"""The streams that are measured, and the heartbeat that measures them.

Several streams read image files at once, the way a service reads them, while
a heartbeat does what the rest of that service does: it wants its turn every
now and then, and notes how late it comes. That is a round of a case, which is
a way of streaming with chunks of one size; a case has several rounds.

How the figures come about:

*Lateness* has a fixed schedule, a beat every millisecond, and a heartbeat
that was kept waiting over many beats counts each of them, as
:mod:`glance_store.cmd.probe.lateness` explains. The heartbeat is beating
before the streams begin, and the beat that is under way when they end is
waited for and counts.

*Yields* are counted while the measured streams run, by greenlet's own tracing
of switches: whenever a stream is switched back to, it had been away. Nothing
is derived from sizes, and where nothing yields, nothing is counted. Tracing
costs a few tenths of a microsecond a yield, and nothing where there is none.

*Throughput* is over the bytes that were read, from when the streams were
started to when the last of them ended.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import functools
import math
import statistics
import threading
import time
from typing import Any, BinaryIO
import warnings

import greenlet
from oslo_config import cfg

from glance_store.cmd.probe import errors
from glance_store.cmd.probe import images
from glance_store.cmd.probe import lateness
from glance_store.cmd.probe import signals
from glance_store.common import opts
from glance_store.common import utils

with warnings.catch_warnings():
    # Whoever runs the probe wants to know how their service does on eventlet,
    # not whether to begin a new project on it.
    warnings.filterwarnings('ignore', message=r'\s*Eventlet is deprecated')
    import eventlet

# How much each stream reads in a round, by reading its files more than once.
# A page cache gives 64 MiB away in 10 ms, and what is to be seen must stand
# out from the 10 ms by which a busy machine delays anybody.
STREAM_SIZE = 256 * images.MIB
MOST_PASSES = 64

# How long a round is in which nothing streams, in seconds.
ALONE = 0.25

# From one beat of the heartbeat to the next, in seconds.
PERIOD = 0.001
BEATS_BEFORE = 3

clock = time.monotonic


@dataclasses.dataclass(frozen=True)
class Load:
    """What the streams read: *count* of them, each all of the images.

    :param passes: how often each stream reads them in a round
    :param seconds: when a round ends at the latest, but for the chunks that
        are being read then
    """

    images: Sequence[images.Image]
    count: int
    passes: int
    seconds: float


def passes_over(files: Sequence[images.Image]) -> int:
    """Return how often each stream is to read the files in a round."""
    size = sum(image.size for image in files)
    return min(MOST_PASSES, math.ceil(STREAM_SIZE / size))


@dataclasses.dataclass(frozen=True)
class Case:
    """A way of streaming, a row of the table.

    :param key: what ``--json`` calls it
    :param name: what the table calls it
    :param chunk_size: bytes that each read asks for
    :param run: what runs the streams, on a hub or on native threads
    :param wrap: what makes of an open file that which is read from
    :param interval: ``cooperative_yield_interval`` meanwhile, in seconds
    :param offload: ``offload_file_reads`` meanwhile
    """

    key: str
    name: str
    chunk_size: int
    run: 'Callable[[Streams], Heart]'
    wrap: Callable[[BinaryIO], Any] = utils.CooperativeReader
    interval: float = 0.0
    offload: bool = False


@dataclasses.dataclass(frozen=True)
class Round:
    """What came out of one round; times are in seconds.

    :param lateness: of each beat, in ascending order
    """

    bytes_read: int
    seconds: float
    yields: int
    lateness: Sequence[float]

    @property
    def throughput(self) -> float:
        """MiB a second, of all streams together."""
        return self.bytes_read / images.MIB / self.seconds

    @property
    def worst(self) -> float:
        return self.lateness[-1]


@dataclasses.dataclass(frozen=True)
class Result:
    """What came out of all rounds of a case; lateness is over all beats."""

    case: Case
    rounds: Sequence[Round]

    @functools.cached_property
    def lateness(self) -> Sequence[float]:
        return sorted(late for part in self.rounds for late in part.lateness)

    def percentile(self, percent: float) -> float:
        """Return the lateness that so many of the beats do not exceed."""
        return lateness.percentile(self.lateness, percent)

    @property
    def worst(self) -> float:
        return self.lateness[-1]

    @property
    def throughput(self) -> float:
        """MiB a second in the median round, of all streams together."""
        return statistics.median(part.throughput for part in self.rounds)

    @property
    def bytes_read(self) -> int:
        return sum(part.bytes_read for part in self.rounds)

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.rounds)

    @property
    def yields(self) -> int:
        return sum(part.yields for part in self.rounds)


class Heart:
    """What the rest of the service feels: a beat that is due every PERIOD.

    :param sleep: how to wait, which says on which scheduler it beats
    """

    def __init__(self, sleep: Callable[[float], object]) -> None:
        self._sleep = sleep
        # When each was due, and when it came.
        self.beats: list[tuple[float, float]] = []
        self._last = math.inf

    def run(self) -> None:
        """Beat until a beat that was due after the call of :meth:`stop`."""
        due = clock() + PERIOD
        while True:
            self._sleep(max(0.0, due - clock()))
            woke = clock()
            self.beats.append((due, woke))
            if due > self._last:
                return
            due += PERIOD * (1 + lateness.missed(due, woke, PERIOD))

    def wait(self) -> None:
        """Wait until it is beating."""
        while len(self.beats) < BEATS_BEFORE:
            self._sleep(PERIOD)

    def stop(self) -> None:
        """Make the beat that is under way, or the next one, the last."""
        self._last = clock()

    def lateness(self, start: float, end: float) -> list[float]:
        """Return how late each beat of a time was, in ascending order.

        :param start: the first beat is one that was due then or later
        :param end: the last one is the first that was due later
        """
        return sorted(
            late
            for due, late in lateness.moments(self.beats, PERIOD)
            if start <= due <= end + PERIOD
        )


class Streams:
    """The streams of one round, and what they have in common.

    ``stopped`` ends them before their time, after the chunk they are at; so
    do a signal and the time that the load allows.
    """

    def __init__(
        self,
        load: Load,
        chunk_size: int,
        wrap: Callable[[BinaryIO], Any] = lambda file: file,
    ) -> None:
        self.load = load
        self.stopped = False
        self.start = clock()
        self._chunk_size = chunk_size
        self._wrap = wrap
        self._ends: list[float] = []
        self._sizes: list[int] = []
        self._error: Exception | None = None
        # By the greenlet of each stream. A native thread has one as well.
        self._returns: dict[object, int] = {}

    def run(self, number: int) -> None:
        """Be one of the streams, in whatever thread this is called.

        Each begins with another image, so that all are being read at once.
        """
        self._returns[greenlet.getcurrent()] = 0
        greenlet.settrace(self._count)
        files = self.load.images
        first = number % len(files)
        turn = [*files[first:], *files[:first]]
        try:
            for image in turn:
                self._read(image)
        except Exception as exc:
            self._error = exc
            self.stopped = True
        self._ends.append(clock())

    def _read(self, image: images.Image) -> None:
        """Read an image to its end, and again for each further pass.

        The reader stays the same, so that it can tell how long it has been
        running: to the hub, the passes are one image as long as all of them.
        """
        if self._over():
            return
        file = open(image.path, 'rb')
        with _naming(image), contextlib.closing(self._wrap(file)) as reader:
            for _ in range(self.load.passes):
                file.seek(0)
                size, complete = self._pass(reader.read)
                self._sizes.append(size)
                if not complete:
                    return
                if size != image.size:
                    raise errors.Failure(
                        f'{image.path!r} has changed: {size} bytes were '
                        f'read, and {image.size} were there before'
                    )

    def _pass(self, read: Callable[[int], bytes]) -> tuple[int, bool]:
        """Return how much was read, and whether that was all."""
        size = self._chunk_size
        total = 0
        while not self._over():
            chunk = read(size)
            if not chunk:
                return total, True
            total += len(chunk)
        return total, False

    def give_way(self) -> None:
        """Be busy with nothing, for a while."""
        end = self.start + min(ALONE, self.load.seconds)
        while clock() < end and not self._over():
            eventlet.sleep(0)
        self._ends.append(clock())

    def _over(self) -> bool:
        return (
            self.stopped
            or bool(signals.received)
            or clock() - self.start > self.load.seconds
        )

    def _count(self, event: str, switch: tuple[object, object]) -> None:
        _, target = switch
        if target in self._returns:
            self._returns[target] += 1

    def result(self, heart: Heart) -> Round:
        """Say what came out, after the last of them ended.

        :raises Exception: what ended one of them too early
        """
        if self._error is not None:
            raise self._error
        end = max(self._ends)
        return Round(
            bytes_read=sum(self._sizes),
            seconds=end - self.start,
            yields=sum(self._returns.values()),
            lateness=heart.lateness(self.start, end),
        )


@contextlib.contextmanager
def _naming(image: images.Image) -> Iterator[None]:
    """See that the error of a read says what was read."""
    try:
        yield
    except OSError as exc:
        exc.filename = image.path
        raise


def on_hub(streams: Streams) -> Heart:
    """Run the streams, and a heartbeat, as green threads of this hub."""
    count = streams.load.count
    return _on_hub(
        streams,
        [functools.partial(streams.run, number) for number in range(count)],
    )


def on_hub_alone(streams: Streams) -> Heart:
    """Run a heartbeat beside a green thread that only gives way."""
    return _on_hub(streams, [streams.give_way])


def _on_hub(streams: Streams, runs: Iterable[Callable[[], object]]) -> Heart:
    heart = Heart(eventlet.sleep)
    threads = [eventlet.spawn(heart.run)]
    tracing = greenlet.gettrace()
    try:
        heart.wait()
        streams.start = clock()
        threads += map(eventlet.spawn, runs)
        for thread in threads[1:]:
            thread.wait()
        heart.stop()
        threads[0].wait()
    finally:
        # Killing one lets the others run, so they have to know.
        streams.stopped = True
        for thread in threads:
            thread.kill()
        greenlet.settrace(tracing)
    return heart


def on_threads(streams: Streams) -> Heart:
    """Run the streams, and a heartbeat, on native threads of their own."""
    heart = Heart(time.sleep)
    beating = threading.Thread(target=heart.run, daemon=True)
    threads = [
        threading.Thread(target=streams.run, args=[number], daemon=True)
        for number in range(streams.load.count)
    ]
    try:
        beating.start()
        heart.wait()
        streams.start = clock()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        # They are daemons: one that a slow storage keeps waiting does not
        # keep the process.
        streams.stopped = True
        heart.stop()
    beating.join()
    return heart


def cases(chunk_size: int, interval: float) -> list[Case]:
    """Return the ways of streaming, in the order of the table.

    :param chunk_size: of all of them
    :param interval: of the one that yields now and then, in seconds
    """
    return [
        Case(
            'no_cooperation',
            'no cooperation',
            chunk_size,
            on_hub,
            wrap=lambda file: file,
        ),
        Case('every_chunk', 'after every chunk', chunk_size, on_hub),
        Case(
            'interval',
            f'every {interval * 1000:g} ms',
            chunk_size,
            on_hub,
            interval=interval,
        ),
        Case('offloaded', 'offloaded reads', chunk_size, on_hub, offload=True),
        Case('native_threads', 'native threads', chunk_size, on_threads),
    ]


def alone() -> Case:
    """Return the row that shows what this machine does by itself."""
    return Case('no_streams', 'no streams', 0, on_hub_alone)


def measure(case: Case, load: Load) -> Round:
    """Stream in one way, and say what came out.

    :raises Exception: what a stream failed with
    """
    streams = Streams(load, case.chunk_size, case.wrap)
    options = {
        'cooperative_yield_interval': case.interval,
        'offload_file_reads': case.offload,
    }
    with _options(options), signals.asking_first():
        heart = case.run(streams)
    return streams.result(heart)


@contextlib.contextmanager
def _options(values: Mapping[str, object]) -> Iterator[None]:
    for name, value in values.items():
        cfg.CONF.set_override(name, value, group=opts.GROUP)
    try:
        yield
    finally:
        for name in values:
            cfg.CONF.clear_override(name, group=opts.GROUP)
