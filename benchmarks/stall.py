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


"""Time how long everything else on a hub waits for its streams.

Streams on one hub read one image after another from the page cache. A loop
without yields and a peer do the same in turns with them. Two heartbeats ask at
random moments, one by timers, one by a socket that another process writes to.
With a fixed period they would fall into step with the slices. A stall counts
for all moments that are due in it.
"""

from collections.abc import Callable, Iterator
import contextlib
import functools
import gc
import hashlib
import itertools
import math
import os
import pathlib
import random
import select
import socket
import struct
import time
from typing import Any, BinaryIO, NoReturn

import eventlet
from eventlet import greenio
from oslo_config import cfg

from benchmarks import peers
from benchmarks.figures import KiB, MiB, ratios, Row
from glance_store.common import utils

_BESIDE_WORK = 'read 64 KiB, beside 5 ms of work'
# The size of a chunk, and whether it is hashed.
_WORKS = {
    'read 64 KiB': (64 * KiB, False),
    'MD5 64 KiB': (64 * KiB, True),
    'MD5 1 MiB': (MiB, True),
    _BESIDE_WORK: (64 * KiB, False),
}
_ROUNDS = 9
# Together they are larger than the caches of a processor.
_IMAGES = 8
# Seconds between two moments of a heartbeat, on average.
_BEAT = 0.005
_MOMENT = struct.Struct('d')

Way = Callable[[BinaryIO], Callable[[int], bytes]]
# Bytes in a second, and the stalls in seconds.
Round = tuple[float, list[float]]
Runs = dict[str, Callable[[], Round]]


def cells(quick: bool) -> Iterator[dict[str, Any]]:
    """Return the arguments of measure(), each for a process of its own."""
    for interval, work, streams in itertools.product(
        (0, 10) if quick else (0, 1, 10),
        list(_WORKS)[:3],
        (64,) if quick else (1, 8, 64, 256),
    ):
        yield {'streams': streams, 'interval_ms': interval, 'work': work}
    yield {'streams': 64, 'interval_ms': 10, 'work': _BESIDE_WORK}


def measure(
    folder: pathlib.Path, seconds: float, **case: Any
) -> Iterator[Row]:
    """Measure one cell: no yields, ours, and a peer where each call yields."""
    interval = case['interval_ms'] / 1000
    cfg.CONF.set_override(
        'cooperative_yield_interval', interval, 'glance_store'
    )
    hub = _Hub(folder, seconds or 0.05, *_WORKS[case['work']])
    ours = functools.partial(hub.run, utils.cooperative_read, case['streams'])
    base, runs = 'no yields', Runs({'no yields': hub.run_bare, 'ours': ours})
    if case['work'] == _BESIDE_WORK:
        base = 'alone'
        runs = {base: ours, 'ours': functools.partial(ours, beside=True)}
    elif not interval:
        way = peers.load(peers.STORE_4).cooperative_read
        runs[peers.STORE_4] = functools.partial(hub.run, way, case['streams'])
    figures = in_turns(_ROUNDS if seconds else 1, runs, base)
    p99 = figures['ours']['p99 ms']
    # The time of a chunk with its work, in ms, without a yield.
    chunks = [hub.size / 1000 / rate for rate in figures[base]['MB/s']]
    figures['ours']['p99 in chunks'] = ratios(p99, chunks)
    if peers.STORE_4 in runs:
        theirs = figures[peers.STORE_4]['p99 ms']
        figures['ours']['p99 of 4.8.2'] = ratios(p99, theirs)
    for way in runs:
        yield Row('stall', {**case, 'way': way}, figures[way])


def in_turns(
    rounds: int, runs: Runs, base: str
) -> dict[str, dict[str, list[float]]]:
    """Return the figures of each run, compared with those of *base*."""
    done: dict[str, list[Round]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            gc.collect()
            done[name].append(run())
    rates = {name: [rate for rate, _ in done[name]] for name in runs}
    figures = {}
    for name in runs:
        figures[name] = {
            f'of {base}': ratios(rates[name], rates[base]),
            'MB/s': [rate / 1e6 for rate in rates[name]],
        }
        if ranked := [sorted(stalls) for _, stalls in done[name] if stalls]:
            late = [1000 * x[len(x) * 99 // 100] for x in ranked]
            figures[name]['p99 ms'] = late
            figures[name]['worst ms'] = [1000 * x[-1] for x in ranked]
    return figures


class _Hub:
    """Streams of images, and the heartbeat beside them."""

    def __init__(
        self, folder: pathlib.Path, seconds: float, size: int, hashes: bool
    ) -> None:
        self._seconds, self.size, self._hashes = seconds, size, hashes
        self._heart = Heartbeat()
        self._paths = [folder / str(number) for number in range(_IMAGES)]
        image = os.urandom((64 if seconds > 0.1 else 4) * MiB)
        for path in self._paths:
            if not path.exists():
                path.write_bytes(image)
        self._count = 0
        # Streams go on until then.
        self._until = math.inf

    def run_bare(self) -> Round:
        """Run a loop without yields."""
        self._count, begun = 0, time.monotonic()
        self._until = begun + self._seconds
        self._stream(lambda fp: fp.read, 0)
        return self._count / (time.monotonic() - begun), []

    def run(self, way: Way, streams: int, beside: bool = False) -> Round:
        """Run streams, and another green thread that works beside them."""
        self._until = math.inf
        spawn = functools.partial(eventlet.spawn, self._stream, way)
        running = list(map(spawn, range(streams)))
        if beside:
            running.append(eventlet.spawn(self._work))
        eventlet.sleep(0.05)  # until all have begun
        # The bare loop has no heartbeat beside it either.
        self._count, begun = 0, time.monotonic()
        eventlet.sleep(self._seconds / 2)
        rate = self._count / (time.monotonic() - begun)
        with self._heart.beating() as stalls:
            eventlet.sleep(self._seconds)
        self._until = 0
        for one in running:
            one.wait()
        return rate, stalls

    def _stream(self, way: Way, number: int) -> None:
        # All begin at different places: a chunk that one stream has read is
        # in the processor's cache for the next one.
        begin = number * 39 % 64 * MiB
        while time.monotonic() < self._until:
            with self._paths[number % _IMAGES].open('rb') as fp:
                fp.seek(begin)
                self._consume(way(fp))
            number, begin = number + 1, 0

    def _consume(self, read: Callable[[int], bytes]) -> None:
        md5 = hashlib.md5(usedforsecurity=False)
        # The chunk stays in hand until the next one is there.
        while (chunk := read(self.size)) and self._until:
            self._count += len(chunk)
            if self._hashes:
                md5.update(chunk)

    def _work(self) -> None:
        while self._until:
            until = time.monotonic() + 0.005
            while time.monotonic() < until:
                pass
            eventlet.sleep(0)


class Heartbeat:
    """Both heartbeats; made before there is a hub or a native thread."""

    def __init__(self) -> None:
        bell, far = socket.socketpair()
        if not os.fork():
            bell.close()
            _ring(far)
        far.close()
        self._bell: Any = greenio.GreenSocket(bell)
        self._beating = False

    @contextlib.contextmanager
    def beating(self) -> Iterator[list[float]]:
        """Beat until the block ends; note each stall, in seconds."""
        stalls: list[float] = []
        self._beating = True
        timers = eventlet.spawn(self._timers, stalls)
        answers = eventlet.spawn(self._answers, stalls)
        self._bell.sendall(b'+')
        yield stalls
        self._beating = False
        self._bell.sendall(b'-')
        timers.wait()
        answers.wait()

    def _timers(self, stalls: list[float]) -> None:
        now = time.monotonic()
        due = now + _pause()
        while self._beating:
            eventlet.sleep(due - now)
            now = time.monotonic()
            while due <= now:
                stalls.append(now - due)
                due += _pause()

    def _answers(self, stalls: list[float]) -> None:
        while moment := _MOMENT.unpack(self._bell.recv(_MOMENT.size))[0]:
            stalls.append(time.monotonic() - moment)


def _pause() -> float:
    return random.expovariate(1 / _BEAT)  # noqa: S311


def _ring(bell: socket.socket) -> NoReturn:
    """Send the time at random moments, from a + to a - of the other end."""
    with contextlib.suppress(OSError):
        while bell.recv(1):
            asked: list[socket.socket] = []
            while not asked:
                bell.sendall(_MOMENT.pack(time.monotonic()))
                asked, _, _ = select.select([bell], [], [], _pause())
            bell.recv(1)
            bell.sendall(_MOMENT.pack(0))
    os._exit(0)
