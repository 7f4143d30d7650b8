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

"""One way of streaming, measured in a process of its own.

Two heartbeats ask at random moments while the streams read: one by timers,
and one by a pipe that the probe writes to. A fixed period would fall into
step with the slices of the streams, and would see too little.

A stall is how much later than due a heartbeat ran. A hub that blocks for
100 ms meets about 130 moments, and each counts with its own wait, as each
request would that arrived then. No moment is omitted for being late.
"""

import array
from collections.abc import Callable, Iterator
import contextlib
import importlib
import itertools
import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing import resource_tracker
import operator
import os
import pathlib
import random
import signal
import struct
import tempfile
import threading
import time
from typing import Any, NamedTuple
import warnings

from glance_store.cmd.probe import Failure

MIB = 1024 * 1024
IMAGE_SIZE = 256 * MIB
READ_AHEAD = 10  # seconds, at most

# Mean time between two moments, in seconds: of the timers, and of the pipe.
TIMER_GAP = 0.001
PIPE_GAP = 0.003

clock = time.monotonic
context = multiprocessing.get_context('spawn')


class Way(NamedTuple):
    """A row of the table: its name in JSON and there, and its options."""

    key: str
    label: str
    options: dict[str, Any]


def ways_of(target: float) -> list[Way]:
    """Return all ways, with an interval of *target* milliseconds."""
    interval = {'cooperative_yield_interval': target / 1000}
    offloaded = {**interval, 'offload_file_reads': True}
    return [
        Way('no_yields', 'no yields', {}),
        Way('every_call', 'every call', {'cooperative_yield_interval': 0}),
        Way('interval', f'every {target:g} ms', interval),
        Way('offloaded', '  offloaded', offloaded),
        Way('native_threads', 'native threads', {}),
        Way('no_streams', 'no streams', {}),
    ]


class Seen(NamedTuple):
    """What a turn gave; *limited* where the time limit ended it."""

    size: int
    seconds: float
    stalls: list[float]
    limited: bool


def files_in(name: str) -> list[str]:
    """Return the path of an image, or those of the images in a folder."""
    path = pathlib.Path(name).absolute()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [file for file in files if file.is_file() and file.stat().st_size]
    for file in found or [path]:
        os.close(os.open(file, os.O_RDONLY | os.O_NONBLOCK))  # it is readable
    if not found:
        raise Failure(f'{name!r} has no image in it')
    return [str(file) for file in found]


@contextlib.contextmanager
def images(names: list[str]) -> Iterator[list[str]]:
    """Give the paths of the images, or of one that is made."""
    if names:
        yield [path for name in names for path in files_in(name)]
        return
    # It has no name, so that nothing of it is left however the probe ends.
    with tempfile.TemporaryFile() as file:
        block = os.urandom(MIB)
        for _ in range(IMAGE_SIZE // MIB):
            file.write(block)
        file.flush()
        yield [f'/proc/{os.getpid()}/fd/{file.fileno()}']


def prepare(paths: list[str], cold: bool) -> None:
    """Read files into the page cache, or drop them from it."""
    end = time.monotonic() + READ_AHEAD
    mounts = pathlib.Path('/proc/self/mountinfo').read_text().splitlines()
    for path in paths:
        with open(path, 'rb') as file:
            while not cold and time.monotonic() < end and file.read(MIB):
                pass
            device = os.fstat(file.fileno()).st_dev
            name = f' {os.major(device)}:{os.minor(device)} '
            if cold and any(name in m and ' - tmpfs ' in m for m in mounts):
                raise Failure(f'--cold: {path!r} is in memory, on a tmpfs')
            if cold:
                os.fsync(file.fileno())  # only what is written can be dropped
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def child(target: Any, *args: Any) -> Iterator[Connection]:
    """Run ``target(connection, *args)`` in a process that ends with ours."""
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *args), daemon=True)
    # Ctrl-C is for the probe, which then kills this process. Starting its
    # tracker would let the signal through.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    process.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    try:
        yield ours
    except BaseException:
        process.kill()
        raise
    finally:
        ours.close()
        process.join()


@contextlib.contextmanager
def streaming(*job: Any) -> Iterator[Callable[[float, float], Seen]]:
    """Start the process of a way, and give what runs a turn there.

    A turn lasts for some seconds, and until a heartbeat runs after them. A
    time limit, the second number, ends the streams where none does.
    """
    heard, asked = context.Pipe(duplex=False)
    os.set_blocking(asked.fileno(), False)

    def turn(*seconds: float) -> Seen:
        answers.send(seconds)
        while not answers.poll(random.expovariate(1 / PIPE_GAP)):
            with contextlib.suppress(BlockingIOError):  # full after 20 s
                os.write(asked.fileno(), struct.pack('d', clock()))
        seen: Seen | OSError = answers.recv()
        if isinstance(seen, OSError):
            raise seen
        return seen

    with asked, heard, child(serve, heard, *job) as answers:
        yield turn


# The rest runs in the process of a way. Its ``threading``, ``time.sleep`` and
# ``os.read`` are eventlet's, except for native threads.


class Turn:
    """The streams and the heartbeats that run at the same time."""

    def __init__(self, seconds: float, limit: float) -> None:
        self._seconds = seconds
        self._limit = limit
        self._begin = threading.Event()
        self._begun = float('inf')
        self._over = False
        self._stalls: list[float] = []
        # Of each stream the bytes that it read, or why it could not.
        self._results: list[int | OSError] = []

    def run(self, streams: list[Iterator[int]]) -> Seen | OSError:
        heart = threading.Thread(target=self._beat)
        readers = [
            threading.Thread(target=self._read, args=[s]) for s in streams
        ]
        for thread in (heart, *readers):
            thread.start()
        self._begun = clock()
        self._begin.set()
        for thread in readers:
            thread.join()
        seconds = clock() - self._begun
        self._over = True
        heart.join()
        time.sleep(0.001)  # the pipe may still hold moments
        for result in self._results:
            if isinstance(result, OSError):
                return result
        size = sum(self._results)  # type: ignore[arg-type]
        return Seen(size, seconds, self._stalls, seconds > self._limit)

    def _read(self, sizes: Iterator[int]) -> None:
        self._begin.wait()
        total = 0
        try:
            for size in sizes:
                total += size
                if self._over or clock() > self._begun + self._limit:
                    break
            self._results.append(total)
        except OSError as exc:
            self._results.append(exc)

    def _beat(self) -> None:
        self._begin.wait()
        due = now = self._begun
        while True:
            due += random.expovariate(1 / TIMER_GAP)
            if due > now:  # all moments until now are counted
                self._over |= now > self._begun + self._seconds
                time.sleep(due - now)
                now = clock()
            if self._over:
                return
            self._stalls.append(now - due)

    def hear(self, moments: bytes) -> None:
        now = clock()
        dues = array.array('d', moments)
        self._stalls += [now - due for due in dues if due >= self._begun]


def serve(
    connection: Connection,
    heard: Connection,
    way: Way,
    streams: int,
    paths: list[str],
    size: int,
    cold: bool,
) -> None:
    """Run a turn for each message, until the probe ends.

    A stream reads all files again and again, and only one that is *cold*.
    """
    native = way.key == 'native_threads'
    warnings.simplefilter('ignore')  # eventlet warns against new uses of it
    if not native:
        importlib.import_module('eventlet').monkey_patch()
    utils = importlib.import_module('glance_store.common.utils')
    for name, value in way.options.items():
        utils.cfg.CONF.set_override(name, value, 'glance_store')
    read_of = utils.cooperative_read
    if way.key == 'no_yields':
        read_of = operator.attrgetter('read')
    if way.key == 'no_streams':
        # Busy with giving way, so that the stalls of the machine show.
        paths, cold = ['/dev/null'], False

    def stream(number: int) -> Iterator[int]:
        files = itertools.islice(itertools.cycle(paths), number, None)
        for path in itertools.islice(files, 1 if cold else None):
            with open(path, 'rb') as file:
                read = read_of(file)
                while chunk := read(size):
                    yield len(chunk)
            if not native:
                time.sleep(0)  # a request ends, and its green thread waits
            yield 0

    def listen() -> None:
        while moments := os.read(heard.fileno(), 65536):
            turn.hear(moments)

    turn = Turn(0, 0)
    os.set_blocking(heard.fileno(), native)
    threading.Thread(target=listen, daemon=True).start()
    with contextlib.suppress(EOFError):
        while True:
            turn = Turn(*connection.recv())
            connection.send(turn.run([stream(n) for n in range(streams)]))
