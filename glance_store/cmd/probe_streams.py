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

A heartbeat asks at random moments while the streams read. A fixed period
would fall into step with the slices of the streams, and would see too little.

A stall is how much later than due the heartbeat ran. A hub that blocks for
100 ms meets about 100 moments, and each counts with its own wait, as each
request would that arrived then. No moment is omitted for being late.
"""

from collections.abc import Iterator
import contextlib
import importlib
import itertools
import multiprocessing
from multiprocessing import pool
from multiprocessing import resource_tracker
import operator
import os
import pathlib
import random
import signal
import tempfile
import threading
import time
from typing import Any
import warnings

from glance_store.cmd.probe import Failure

MIB = 1024 * 1024
READ_AHEAD = 10  # seconds, at most
GAP = 0.001  # mean time between two moments, in seconds

clock = time.monotonic

# What a turn gave: bytes, seconds, and each stall in seconds.
Turn = tuple[int, float, list[float]]


def files_in(name: str) -> list[str]:
    """Return the path of an image, or those of the images in a folder."""
    path = pathlib.Path(name)
    path.stat()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [file for file in files if file.is_file() and file.stat().st_size]
    if not found:
        raise Failure(f'{name!r} has no image in it')
    return [str(file) for file in found]


@contextlib.contextmanager
def images(names: list[str]) -> Iterator[list[str]]:
    """Give the paths of the images, or of one that is made."""
    # It has no name, so that nothing of it is left however the probe ends.
    with tempfile.TemporaryFile() as file:
        if not names:
            file.writelines([os.urandom(MIB)] * 256)
            file.flush()
            names = [f'/proc/{os.getpid()}/fd/{file.fileno()}']
        yield [path for name in names for path in files_in(name)]


def prepare(paths: list[str], cold: bool) -> None:
    """Read files into the page cache, or drop them from it."""
    end = clock() + READ_AHEAD
    mounts = pathlib.Path('/proc/self/mountinfo').read_text().splitlines()
    for path in paths:
        with open(path, 'rb') as file:
            while not cold and clock() < end and file.read(MIB):
                pass
            device = os.fstat(file.fileno()).st_dev
            name = f' {os.major(device)}:{os.minor(device)} '
            if cold and any(name in m and ' - tmpfs ' in m for m in mounts):
                raise Failure(f'--cold: {path!r} is in memory, on a tmpfs')
            if cold:
                os.fsync(file.fileno())  # only what is written can be dropped
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def process() -> Iterator[pool.Pool]:
    """Give a process that ends with ours, and leaves Ctrl-C to it."""
    # Starting its tracker would let the signal through.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with multiprocessing.get_context('spawn').Pool(1) as worker:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield worker
        worker.close()
        worker.join()


def set_up(way: str, options: dict[str, Any]) -> None:
    warnings.simplefilter('ignore')  # eventlet warns against new uses of it
    if way != 'native_threads':
        importlib.import_module('eventlet').monkey_patch()
    conf = importlib.import_module('glance_store.common.utils').cfg.CONF
    for name, value in options.items():
        conf.set_override(name, value, 'glance_store')


def stream(
    way: str, number: int, size: int, paths: list[str], cold: bool
) -> Iterator[int]:
    """Read all files again and again, and only one that is *cold*."""
    utils = importlib.import_module('glance_store.common.utils')
    read_of = utils.cooperative_read
    if way == 'no_yields':
        read_of = operator.attrgetter('read')
    if way == 'no_streams':
        # Busy with giving way, so that the stalls of the machine show.
        paths, cold = ['/dev/null'], False
    files = itertools.islice(itertools.cycle(paths), number, None)
    for path in itertools.islice(files, 1 if cold else None):
        with open(path, 'rb') as file:
            read = read_of(file)
            while chunk := read(size):
                yield len(chunk)
        if way != 'native_threads':
            time.sleep(0)  # a request ends, and its green thread waits
        yield 0


def turn(
    way: str,
    options: dict[str, Any],
    streams: int,
    seconds: float,
    limit: float,
    *job: Any,
) -> Turn:
    """Run streams in this process, and a heartbeat beside them.

    They run for some seconds, and until the heartbeat runs after them. The
    limit ends the streams where it does not.
    """
    set_up(way, options)
    begin = threading.Event()
    begun = end = float('inf')
    sizes: list[int] = []
    stalls: list[float] = []
    errors: list[OSError] = []

    def read(number: int) -> None:
        begin.wait()
        chunks = stream(way, number, *job)
        try:
            until = itertools.takewhile(lambda _: clock() < end, chunks)
            sizes.append(sum(until))
        except OSError as exc:
            errors.append(exc)

    def beat() -> None:
        nonlocal end
        begin.wait()
        due = now = begun
        while True:
            due += random.expovariate(1 / GAP)
            if due > now:  # all moments until now are counted
                if now > min(end, begun + seconds):
                    end = 0
                    return
                time.sleep(due - now)
                now = clock()
            stalls.append(now - due)

    heart = threading.Thread(target=beat)
    readers = [threading.Thread(target=read, args=[n]) for n in range(streams)]
    for thread in (heart, *readers):
        thread.start()
    begun = clock()
    end = begun + limit
    begin.set()
    for thread in readers:
        thread.join()
    taken = clock() - begun
    end = 0
    heart.join()
    for exc in errors:
        raise exc
    return sum(sizes), taken, stalls
