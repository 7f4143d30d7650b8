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

"""What streaming images does to the rest of a service: glance-store-probe.

Several streams read image files at once, the way a service reads them, while
a heartbeat does what the rest of that service does: it wants its turn every
now and then, and notes how late it comes. That is repeated for each way of
streaming, which makes a row of the table.

How the figures come about:

*Lateness* has a fixed schedule, a beat every millisecond. A heartbeat that
was kept waiting over many beats counts each of them, by the time from when
that beat was due. Counting just the one late awakening would make a hub that
stands still for a second look like one bad sample among hundreds of good
ones. So a percentile is over moments in time: half of the requests that
arrive at random meanwhile wait for longer than the median. The heartbeat is
beating before the streams begin, and the beat that is under way when they end
is waited for and counts.

*Yields* are counted while the measured streams run, by greenlet's own tracing
of switches: whenever a stream is switched back to, it had been away. Nothing
is derived from sizes, and where nothing yields, nothing is counted. Tracing
costs a few tenths of a microsecond a yield, and nothing where there is none.

*Throughput* is over the bytes that were read, from when the streams were
started to when the last of them ended.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import functools
import importlib.metadata
import io
import json
import math
import os
import platform
import signal
import stat
import sys
import tempfile
import threading
import time
from typing import Any, BinaryIO, NoReturn, TextIO
import warnings

import greenlet
from oslo_config import cfg
from rich import box
from rich import console as rich_console
from rich import progress as rich_progress
from rich import table as rich_table

from glance_store.common import opts
from glance_store.common import utils

with warnings.catch_warnings():
    # Whoever runs the probe wants to know how their service does on eventlet,
    # not whether to begin a new project on it.
    warnings.filterwarnings('ignore', message=r'\s*Eventlet is deprecated')
    import eventlet
    from eventlet import hubs

PROGRAM = 'glance-store-probe'

MIB = 1024 * 1024

# The size of the image that is made where no file is named.
IMAGE_SIZE = 256 * MIB

# How much each stream reads at least, by reading its files more than once.
# A page cache gives 256 MiB away in 30 ms, and what is to be seen must stand
# out from the 30 ms by which a busy machine delays anybody.
STREAM_SIZE = 2048 * MIB
MOST_PASSES = 64

# From one beat of the heartbeat to the next, in seconds.
PERIOD = 0.001
BEATS_BEFORE = 3

# Wider than any row: nothing is cut in a pipe.
PIPE_WIDTH = 200

clock = time.monotonic


class Failure(Exception):
    """Why the probe cannot go on, as one line for whoever runs it."""


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    """Turn what the machine may refuse into a :class:`Failure`."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as exc:
        # After a signal things fail that are none of the machine's fault.
        _stop_if_asked()
        raise Failure(f'{what}: {str(exc) or "not enough memory"}') from exc


# -- What is measured ---------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Image:
    """A file to be streamed, of *size* bytes; made by the probe or named."""

    path: str
    size: int
    made: bool = False


@dataclasses.dataclass(frozen=True)
class Load:
    """What the streams read: *count* of them, each all of the images.

    :param passes: how often each stream reads them
    :param chunk_size: bytes that each read asks for
    """

    images: Sequence[Image]
    count: int
    chunk_size: int
    passes: int


@dataclasses.dataclass(frozen=True)
class Way:
    """A way of streaming, a row of the table.

    :param key: what ``--json`` calls it
    :param name: what the table calls it
    :param run: what runs the streams, on a hub or on native threads
    :param wrap: what makes of an open file that which is read from
    :param interval: ``cooperative_yield_interval`` meanwhile, in seconds
    :param offload: ``offload_file_reads`` meanwhile
    :param shorter: how many times fewer passes it makes, being so much slower
    """

    key: str
    name: str
    run: 'Callable[[Streams], Heart]'
    wrap: Callable[[BinaryIO], Any] = utils.CooperativeReader
    interval: float = 0.0
    offload: bool = False
    shorter: int = 1


@dataclasses.dataclass(frozen=True)
class Result:
    """What came out for one way; times are in seconds.

    :param lateness: of each beat, in ascending order
    """

    way: Way
    bytes_read: int
    seconds: float
    yields: int
    lateness: Sequence[float]

    @property
    def throughput(self) -> float:
        """MiB a second, of all streams together."""
        return self.bytes_read / MIB / self.seconds


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the least value that *percent* of the values do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


class Heart:
    """What the rest of the service feels: a beat that is due every PERIOD.

    :param sleep: how to wait, which says on which scheduler it beats
    """

    def __init__(self, sleep: Callable[[float], object]) -> None:
        self._sleep = sleep
        self._beats: list[tuple[float, float]] = []
        self._last = math.inf

    def run(self) -> None:
        """Beat until a beat that was due after the call of :meth:`stop`."""
        due = clock() + PERIOD
        while True:
            self._sleep(max(0.0, due - clock()))
            woke = clock()
            self._beats.append((due, woke))
            if due > self._last:
                return
            due += PERIOD * (1 + _periods(due, woke))

    def wait(self) -> None:
        """Wait until it is beating."""
        while len(self._beats) < BEATS_BEFORE:
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
            max(0.0, woke - due - missed * PERIOD)
            for due, woke in self._beats
            for missed in range(1 + _periods(due, woke))
            if start <= due + missed * PERIOD <= end + PERIOD
        )


def _periods(due: float, woke: float) -> int:
    """Return how many more beats have become due until *woke*."""
    return max(0, int((woke - due) / PERIOD))


class Streams:
    """The streams of one measurement, and what they have in common.

    ``stopped`` ends them before their time, after the chunk they are at; so
    does a signal.
    """

    def __init__(
        self, load: Load, wrap: Callable[[BinaryIO], Any] = lambda file: file
    ) -> None:
        self.load = load
        self.stopped = False
        self.start = clock()
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
        images = self.load.images
        first = number % len(images)
        turn = [*images[first:], *images[:first]]
        try:
            self._sizes.extend(map(self._read, turn))
        except Exception as exc:
            self._error = exc
            self.stopped = True
        self._ends.append(clock())

    def _read(self, image: Image) -> int:
        """Read an image to its end, and again for each further pass.

        The reader stays the same, so that it can tell how long it has been
        running: to the hub, the passes are one image as long as all of them.
        """
        size = self.load.chunk_size
        total = 0
        file = open(image.path, 'rb')
        with contextlib.closing(self._wrap(file)) as reader:
            read = reader.read
            for _ in range(self.load.passes):
                if self.stopped or stopping.signals:
                    break
                file.seek(0)
                while chunk := read(size):
                    total += len(chunk)
                    if self.stopped or stopping.signals:
                        break
        return total

    def _count(self, event: str, switch: tuple[object, object]) -> None:
        _, target = switch
        if target in self._returns:
            self._returns[target] += 1

    def result(self, way: Way, heart: Heart) -> Result:
        """Say what came out, after the last of them ended.

        :raises Exception: what ended one of them too early
        """
        if self._error is not None:
            raise self._error
        end = max(self._ends)
        return Result(
            way,
            bytes_read=sum(self._sizes),
            seconds=end - self.start,
            yields=sum(self._returns.values()),
            lateness=heart.lateness(self.start, end),
        )


def on_hub(streams: Streams) -> Heart:
    """Run the streams, and a heartbeat, as green threads of this hub."""
    heart = Heart(eventlet.sleep)
    threads = [eventlet.spawn(heart.run)]
    tracing = greenlet.gettrace()
    try:
        heart.wait()
        streams.start = clock()
        threads += map(
            functools.partial(eventlet.spawn, streams.run),
            range(streams.load.count),
        )
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


def ways(interval: float) -> list[Way]:
    """Return the ways of streaming, in the order of the table.

    :param interval: of the one that yields now and then, in seconds
    """
    return [
        Way(
            'no_cooperation', 'no cooperation', on_hub, wrap=lambda file: file
        ),
        Way('every_chunk', 'after every chunk', on_hub),
        Way(
            'interval',
            f'every {interval * 1000:g} ms',
            on_hub,
            interval=interval,
        ),
        Way('offloaded', 'offloaded reads', on_hub, offload=True, shorter=8),
        Way('native_threads', 'native threads', on_threads),
    ]


def measure(way: Way, load: Load) -> Result:
    """Stream in one way, and say what came out.

    :raises Exception: what a stream failed with
    """
    passes = max(1, load.passes // way.shorter)
    streams = Streams(dataclasses.replace(load, passes=passes), way.wrap)
    options = {
        'cooperative_yield_interval': way.interval,
        'offload_file_reads': way.offload,
    }
    with _options(options), _asking_first():
        heart = way.run(streams)
    return streams.result(way, heart)


@contextlib.contextmanager
def _options(values: Mapping[str, object]) -> Iterator[None]:
    for name, value in values.items():
        cfg.CONF.set_override(name, value, group=opts.GROUP)
    try:
        yield
    finally:
        for name in values:
            cfg.CONF.clear_override(name, group=opts.GROUP)


# -- Files --------------------------------------------------------------------


@contextlib.contextmanager
def made_image() -> Iterator[Image]:
    """Make an image in a temporary folder, and remove both afterwards.

    A signal that would end the process has to wait while the folder is made
    and while it is removed. Whenever else it comes, the folder goes: by the
    latest when the process ends, for which TemporaryDirectory cares.
    """
    what = 'making an image failed (name a FILE, or another folder by TMPDIR)'
    with _signals_held(), _failing(what):
        folder = tempfile.TemporaryDirectory(prefix=f'{PROGRAM}-')
    try:
        path = os.path.join(folder.name, 'image')
        with _failing(what):
            _write_image(path)
        yield Image(path, IMAGE_SIZE, made=True)
    finally:
        with _signals_held():
            folder.cleanup()


def _write_image(path: str) -> None:
    block = os.urandom(MIB)
    with open(path, 'wb') as file:
        for start in range(0, IMAGE_SIZE, MIB):
            file.write(block[: IMAGE_SIZE - start])


def warm(image: Image) -> None:
    """Bring an image into the page cache."""
    buffer = bytearray(MIB)
    with open(image.path, 'rb', buffering=0) as file:
        while file.readinto(buffer):
            pass


# -- Signals ------------------------------------------------------------------

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Stopped(SystemExit):
    """A signal asked for the end; the exit status is 128 and its number."""


@dataclasses.dataclass
class Stopping:
    """What is known of the signals that came.

    :param signals: their numbers
    :param ask: whether the first of them raises nothing
    """

    signals: list[int] = dataclasses.field(default_factory=list)
    ask: bool = False


stopping = Stopping()


def _stop(number: int, _: object) -> None:
    stopping.signals.append(number)
    if not stopping.ask or len(stopping.signals) > 1:
        raise Stopped(128 + number)


def _stop_if_asked() -> None:
    if stopping.signals:
        raise Stopped(128 + stopping.signals[0])


@contextlib.contextmanager
def _asking_first() -> Iterator[None]:
    """Let the first signal only ask for the end, which streams look for.

    An exception that comes from nowhere may break a hub or the queues of a
    pool, and is dropped where Python cannot raise it, so that the process
    would not end. Every stream looks after each chunk, which is as soon as a
    read could have been interrupted. Where a read takes too long for
    somebody, a second signal raises at once.
    """
    stopping.ask = True
    try:
        yield
    finally:
        stopping.ask = False


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Let the signals that end a process raise an exception instead.

    So everything is put away behind it. One that is ignored stays ignored:
    that is how ``nohup`` and a shell's ``&`` ask for it.
    """
    stopping.signals.clear()
    before = {
        number: signal.signal(number, _stop)
        for number in SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    except Stopped:
        # A second Ctrl-C must not disturb the end that the first asked for.
        before = dict.fromkeys(before, signal.SIG_IGN)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -- The command line ---------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with status 2 after one line, where argparse writes several."""
        _complain(message)
        sys.exit(2)


def _complain(message: str) -> None:
    line = ''.join(
        char if char.isprintable() else ascii(char)[1:-1] for char in message
    )
    if sys.stderr is not None:
        print(f'{PROGRAM}: error: {line}', file=sys.stderr)


def _number(
    kind: type[int] | type[float], least: float, most: float
) -> Callable[[str], float]:
    """Return what turns an argument into a number of a kind and range."""
    what = 'whole number' if kind is int else 'number'

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f'{text!r} is not a {what} from {least} to {most}'
            )
        return value

    return parse


def _image(path: str) -> Image:
    """Turn an argument into an image that can be read and has content."""
    try:
        status = os.stat(path)
        # Not before it is known to be one: opening a FIFO would wait.
        if stat.S_ISREG(status.st_mode):
            open(path, 'rb').close()
    except OSError as exc:
        raise argparse.ArgumentTypeError(f'{path!r}: {exc.strerror}') from exc
    if stat.S_ISDIR(status.st_mode):
        raise argparse.ArgumentTypeError(f'{path!r} is a directory')
    if not stat.S_ISREG(status.st_mode):
        raise argparse.ArgumentTypeError(f'{path!r} is not a regular file')
    if not status.st_size:
        raise argparse.ArgumentTypeError(f'{path!r} is empty')
    return Image(path, status.st_size)


def _parser() -> _Parser:
    parser = _Parser(
        PROGRAM,
        allow_abbrev=False,
        description='Stream image files the way a service does, several at '
        'a time, and measure what everything else in that service feels '
        'meanwhile: how late a heartbeat wakes up that is due every '
        'millisecond. Each row of the table is a way of streaming: as green '
        'threads on an eventlet hub without cooperation, with a yield after '
        'every chunk, with a yield every so many milliseconds, and with reads '
        'in the thread pool of the hub; and on native threads.',
        epilog='Files are read once before anything is measured, so that '
        'those which fit into memory come from the page cache. Each stream '
        'then reads all of them, small ones repeatedly. The exit status is 2 '
        'where an argument makes no sense, 1 where streaming failed, and 128 '
        'and the number of the signal where one ended it: 130 for Ctrl-C.',
    )
    parser.add_argument(
        'files',
        metavar='FILE',
        nargs='*',
        type=_image,
        help='an image to stream; without one, an image of 256 MiB is made '
        'in a temporary folder and removed afterwards',
    )
    parser.add_argument(
        '--streams',
        metavar='N',
        type=_number(int, 1, 1000),
        default=8,
        help='how many streams run at once (default: %(default)s)',
    )
    parser.add_argument(
        '--chunk-size',
        metavar='BYTES',
        type=_number(int, 1, 1024 * MIB),
        default=65536,
        help='how many bytes each read asks for (default: %(default)s)',
    )
    parser.add_argument(
        '--yield-interval',
        metavar='MILLISECONDS',
        type=_number(float, 0.001, 60000),
        default=1.0,
        help='how long a stream may run between two yields, where it does '
        'not yield after every chunk (default: %(default)g)',
    )
    parser.add_argument(
        '--json',
        action='store_true',
        help='print one JSON document instead of the table',
    )
    return parser


# -- Reports ------------------------------------------------------------------


def as_json(load: Load, interval: float, results: Sequence[Result]) -> str:
    """Return all that was measured, and under which circumstances."""
    report = {
        'arguments': {
            'streams': load.count,
            'chunk_size_bytes': load.chunk_size,
            'yield_interval_ms': interval * 1000,
        },
        'files': [
            {
                'path': None if image.made else image.path,
                'size_bytes': image.size,
            }
            for image in load.images
        ],
        'passes': load.passes,
        'heartbeat_period_ms': PERIOD * 1000,
        'hub': hubs.get_hub().__module__,
        'cpus': len(os.sched_getaffinity(0)),
        'versions': {
            'python': platform.python_version(),
            **{
                name: _version(name)
                for name in ('glance_store', 'eventlet', 'greenlet')
            },
        },
        'rows': [_row_as_json(result) for result in results],
    }
    return json.dumps(report, indent=2) + '\n'


def _version(distribution: str) -> str | None:
    """Return a version, None for what runs without being installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(distribution)
    return None


def _row_as_json(result: Result) -> dict[str, object]:
    return {
        'way': result.way.key,
        'name': result.way.name,
        'bytes_read': result.bytes_read,
        'seconds': result.seconds,
        'throughput_mib_per_second': result.throughput,
        'yields': result.yields,
        'beats': len(result.lateness),
        'lateness_median_ms': percentile(result.lateness, 50) * 1000,
        'lateness_p99_ms': percentile(result.lateness, 99) * 1000,
        'lateness_worst_ms': result.lateness[-1] * 1000,
    }


def as_table(load: Load, results: Sequence[Result]) -> str:
    """Return what is printed, as it suits standard output.

    A terminal gets it in its own width and with a bold heading. Anything else
    gets plain text, as wide as the table is.
    """
    terminal = _is_terminal(sys.stdout)
    # Not standard output itself: rich would write there, and end the process
    # where that fails. Its encoding decides which lines the table is made of.
    encoding = sys.stdout.encoding if sys.stdout is not None else None
    page = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = rich_console.Console(
        file=page,
        force_terminal=terminal,
        width=None if terminal else PIPE_WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
    )
    console.print(_heading(load), soft_wrap=True)
    console.print(_table(results))
    page.seek(0)
    return page.read()


def _heading(load: Load) -> str:
    size = sum(image.size for image in load.images)
    return (
        f'Streams: {load.count}, chunks: {load.chunk_size} bytes, '
        f'files: {size} bytes, passes: {load.passes}'
    )


def _table(results: Sequence[Result]) -> rich_table.Table:
    table = rich_table.Table(box=box.ROUNDED)
    table.add_column('Way of streaming')
    for title in (
        'Through-\nput\nMiB/s',
        'Yields',
        'Median\nlateness\nms',
        '99th\npercentile\nms',
        'Worst\nlateness\nms',
    ):
        table.add_column(title, justify='right', overflow='fold')
    for result in results:
        table.add_row(
            result.way.name,
            f'{result.throughput:.0f}',
            f'{result.yields}',
            f'{percentile(result.lateness, 50) * 1000:.2f}',
            f'{percentile(result.lateness, 99) * 1000:.2f}',
            f'{result.lateness[-1] * 1000:.2f}',
        )
    return table


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


class Progress:
    """A bar on standard error, where that is a terminal.

    It is drawn between two steps only: a thread that kept it up to date would
    be measured as well.

    :param steps: how many there will be
    """

    def __init__(self, steps: int) -> None:
        self._bar = rich_progress.Progress(
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn('{task.description}', markup=False),
            console=rich_console.Console(file=sys.stderr),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not _is_terminal(sys.stderr),
        )
        self._task = self._bar.add_task('', total=steps)

    def __enter__(self) -> 'Progress':
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Older releases of rich end even a disabled bar with a line break.
        if not self._bar.disable:
            self._bar.stop()

    @contextlib.contextmanager
    def step(self, description: str) -> Iterator[None]:
        """Show what is being done, and that it is done."""
        self._bar.update(self._task, description=description, refresh=True)
        yield
        _stop_if_asked()
        self._bar.update(self._task, advance=1, refresh=True)


# -- Running ------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Be the program, and return its exit status.

    :param argv: the arguments, by default those of the process
    """
    with stopping_on_signals():
        try:
            return _print(_probe(argv))
        except Failure as failure:
            _complain(str(failure))
            return 1


def _print(text: str) -> int:
    """Print a report; a reader that has gone away is no reason to complain.

    The exit status is then what a program gets that SIGPIPE has ended.
    """
    try:
        print(text, end='', flush=True)
    except OSError as exc:
        # What is left of it would be tried again as Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(exc, BrokenPipeError):
            return 128 + signal.SIGPIPE
        raise Failure(f'cannot print: {exc.strerror}') from exc
    return 0


def _probe(argv: Sequence[str] | None) -> str:
    """Do what the arguments say, and return the report."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    interval = arguments.yield_interval / 1000
    rows = ways(interval)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(steps=2 + len(rows)))
        with progress.step('making an image'):
            images = arguments.files or [stack.enter_context(made_image())]
        with progress.step('reading into the page cache'):
            _warm_all(images, parser)
        load = Load(
            images,
            count=arguments.streams,
            chunk_size=arguments.chunk_size,
            passes=_passes(images),
        )
        results = []
        for way in rows:
            what = f'streaming: {way.name}'
            with progress.step(what), _failing(what):
                results.append(measure(way, load))
    if arguments.json:
        return as_json(load, interval, results)
    return as_table(load, results)


def _warm_all(images: Sequence[Image], parser: _Parser) -> None:
    for image in images:
        try:
            warm(image)
        except OSError as exc:
            parser.error(f'argument FILE: {image.path!r}: {exc.strerror}')


def _passes(images: Sequence[Image]) -> int:
    size = sum(image.size for image in images)
    return min(MOST_PASSES, math.ceil(STREAM_SIZE / size))


if __name__ == '__main__':
    sys.exit(main())
