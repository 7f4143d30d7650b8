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

"""Many streams on one hub, and a heartbeat that is late because of them."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
import os
import pathlib
import resource
import statistics
from typing import Any

import eventlet
from oslo_config import cfg
import pyperf

from benchmarks.cases import KiB, MiB
from benchmarks import pairs
from benchmarks import peers
from glance_store.common import utils

LATENESS = 'lateness of a heartbeat'
SPEED = 'throughput beside it'
OURS = 'ours'
OURS_1_MS = 'ours, 1 ms'

_CHUNK = 64 * KiB
_BEAT = 0.001
_BEGIN = 0.02


def _reads(library: Any, fp: Any) -> Callable[[], Any]:
    return functools.partial(library.cooperative_read(fp), _CHUNK)


def _swift(fp: Any) -> Callable[[], Any]:
    chunks = iter(functools.partial(fp.read, _CHUNK), b'')
    items = peers.load(peers.SWIFT).CooperativeIterator(chunks)
    return functools.partial(next, items, b'')


def ways() -> dict[str, Callable[[Any], Callable[[], Any]]]:
    """Return the ways of streaming: of a file, a function for a chunk."""
    return {
        OURS: functools.partial(_reads, utils),
        OURS_1_MS: functools.partial(_reads, utils),
        peers.STORE_4: functools.partial(_reads, peers.load(peers.STORE_4)),
        peers.SWIFT: _swift,
        peers.BARE: lambda fp: functools.partial(fp.read, _CHUNK),
    }


@dataclasses.dataclass
class _Round:
    """What became of one way while it ran."""

    late: list[float] = dataclasses.field(default_factory=list)
    # Beats during which the kernel took the processor away: how late these
    # are says nothing about the streams.
    disturbed: list[float] = dataclasses.field(default_factory=list)
    rate: float = 0


def measure(
    where: str, folder: pathlib.Path, seconds: float
) -> Iterator[pairs.Row]:
    """Measure each way with 1, 8 and 64 streams, in turns.

    The figures are in units of what all the streams take to read one chunk
    each, with nothing between the reads.
    """
    paths = [folder / str(number) for number in range(64)]
    for number, path in enumerate(paths):
        # Of many sizes, so that no two streams end in one round.
        path.write_bytes(bytes((32 + number) * _CHUNK if seconds else _CHUNK))
    # Not while the streams run.
    os.sync()
    for streams in (1, 8, 64):
        used = paths[:streams]
        units = []
        rounds: dict[str, list[_Round]] = {name: [] for name in ways()}
        for first in range(5 if seconds else 1):
            # Another one begins each time.
            for name in [*rounds][first:] + [*rounds][:first]:
                units.append(_one_chunk_each(used))
                rounds[name].append(_round(name, used, seconds / 2))
        for name in rounds:
            yield pairs.Row(
                case=LATENESS,
                where=where,
                what=f'streams: {streams}',
                against=name,
                unit='chunks of all streams',
                **_lateness(rounds[name], statistics.median(units)),
            )
            ratios = [
                one.rate / bare.rate
                for one, bare in zip(
                    rounds[name], rounds[peers.BARE], strict=True
                )
            ]
            rate = statistics.median(one.rate for one in rounds[name])
            yield pairs.Row(
                case=SPEED,
                where=where,
                what=f'streams: {streams}',
                against=name,
                unit='of the bare loops',
                count=len(ratios),
                absolute={'MiB/s': rate},
                **pairs.summary(ratios),
            )


def _lateness(rounds: list[_Round], unit: float) -> dict[str, Any]:
    """Return the median as low, the 99th percentile, the worst as high."""
    late = sorted(x for one in rounds for x in one.late)
    disturbed = [x for one in rounds for x in one.disturbed]
    late = late or sorted(disturbed)
    median, high = late[len(late) // 2], late[-1]
    percentile = late[len(late) * 99 // 100]
    return {
        'count': len(late),
        'low': median / unit,
        'value': percentile / unit,
        'high': high / unit,
        'absolute': {
            'median, ms': 1000 * median,
            '99th percentile, ms': 1000 * percentile,
            'worst, ms': 1000 * high,
            'one chunk of each stream, ms': 1000 * unit,
            'beats when the processor was taken away': len(disturbed),
            'worst of those, ms': 1000 * max(disturbed, default=0),
        },
    }


def _one_chunk_each(paths: list[pathlib.Path]) -> float:
    """Return how long it takes to read a chunk of each file.

    Each is held until the next one of its file is there, as by a stream.
    """
    files = [path.open('rb') for path in paths]
    chunks = [b''] * len(files)
    took: list[float] = []
    with pairs.no_collector():
        for _ in range(16):
            start = pyperf.perf_counter()
            for number, fp in enumerate(files):
                chunks[number] = fp.read(_CHUNK)
            took.append(pyperf.perf_counter() - start)
            if not files[0].peek(1):
                break
    for fp in files:
        fp.close()
    return statistics.median(took)


def _preemptions() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def _round(name: str, paths: list[pathlib.Path], seconds: float) -> _Round:
    """Stream each file again and again until the time is over."""
    interval = 0.001 if name == OURS_1_MS else 0
    cfg.CONF.set_override(
        'cooperative_yield_interval', interval, 'glance_store'
    )
    way = ways()[name]
    result = _Round()
    begun = pyperf.perf_counter()
    until = begun + max(seconds, 0.05)
    count = 0

    def download(path: pathlib.Path) -> None:
        nonlocal count
        size = path.stat().st_size
        while True:
            with path.open('rb') as fp:
                fetch = way(fp)
                came = 0
                while chunk := fetch():
                    came += len(chunk)
            if came != size:
                raise AssertionError(f'{name}: {came} bytes came of {size}')
            count += came
            if pyperf.perf_counter() >= until:
                return
            # Whoever asks for the next image lets the others run too.
            eventlet.sleep(0)

    def heartbeat() -> None:
        # Not while they all begin at once.
        eventlet.sleep(_BEGIN)
        while True:
            preemptions = _preemptions()
            due = pyperf.perf_counter() + _BEAT
            eventlet.sleep(_BEAT)
            late = pyperf.perf_counter() - due
            if preemptions == _preemptions():
                result.late.append(late)
            else:
                result.disturbed.append(late)
            if pyperf.perf_counter() >= until:
                return

    with pairs.no_collector():
        everyone = [eventlet.spawn(heartbeat)]
        everyone += [eventlet.spawn(download, path) for path in paths]
        for one in everyone:
            one.wait()
    result.rate = count / MiB / (pyperf.perf_counter() - begun)
    return result
