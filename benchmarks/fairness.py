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
import functools
import itertools
import pathlib
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


def measure(
    where: str, folder: pathlib.Path, seconds: float
) -> Iterator[pairs.Row]:
    """Measure each way with 1, 8 and 64 streams, in turns.

    The figures are in units of what all the streams take to read one chunk
    each, with nothing between the reads.
    """
    path = folder / 'fairness'
    path.write_bytes(bytes(MiB if not seconds else 16 * MiB))
    rounds = 5 if seconds else 1
    for streams in (1, 8, 64):
        late: dict[str, list[list[float]]] = {name: [] for name in ways()}
        speed: dict[str, list[float]] = {name: [] for name in ways()}
        units = []
        for _ in range(rounds):
            for name in late:
                units.append(_one_chunk_each(path, streams))
                lateness, rate = _round(name, path, streams, seconds / 2)
                late[name].append(lateness)
                speed[name].append(rate)
        unit = statistics.median(units)
        for name, beats in late.items():
            yield _lateness(name, where, streams, beats, unit)
            ratios = [
                one / bare
                for one, bare in zip(
                    speed[name], speed[peers.BARE], strict=True
                )
            ]
            yield pairs.Row(
                case=SPEED,
                where=where,
                what=f'streams: {streams}',
                against=name,
                unit='of the bare loops',
                count=rounds,
                absolute={'MiB/s': statistics.median(speed[name])},
                **pairs.summary(ratios),
            )


def _lateness(
    name: str, where: str, streams: int, rounds: list[list[float]], unit: float
) -> pairs.Row:
    beats = sorted(itertools.chain.from_iterable(rounds))
    percentile = {
        'median': beats[len(beats) // 2],
        '99th': beats[len(beats) * 99 // 100],
        'worst': beats[-1],
    }
    absolute = {f'{k}, ms': 1000 * v for k, v in percentile.items()}
    absolute['worst of each round, median, ms'] = 1000 * statistics.median(
        map(max, rounds)
    )
    absolute['one chunk of each stream, ms'] = 1000 * unit
    return pairs.Row(
        case=LATENESS,
        where=where,
        what=f'streams: {streams}',
        against=name,
        unit='chunks of all streams',
        count=len(beats),
        low=percentile['median'] / unit,
        value=percentile['99th'] / unit,
        high=percentile['worst'] / unit,
        absolute=absolute,
    )


def _one_chunk_each(path: pathlib.Path, streams: int) -> float:
    """Return how long it takes to read a chunk of each of so many files."""
    files = [path.open('rb') for _ in range(streams)]
    took: list[float] = []
    with pairs.no_collector():
        for _ in range(16):
            start = pyperf.perf_counter()
            for fp in files:
                fp.read(_CHUNK)
            took.append(pyperf.perf_counter() - start)
    return statistics.median(took)


def _round(
    name: str, path: pathlib.Path, streams: int, seconds: float
) -> tuple[list[float], float]:
    """Return how late each beat was, and MiB/s of all streams together."""
    interval = 0.001 if name == OURS_1_MS else 0
    cfg.CONF.set_override(
        'cooperative_yield_interval', interval, 'glance_store'
    )
    way = ways()[name]
    begun = pyperf.perf_counter()
    until = begun + max(seconds, 0.05)
    late: list[float] = []
    count = 0

    def download() -> None:
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
        while not late or pyperf.perf_counter() < until:
            due = pyperf.perf_counter() + _BEAT
            eventlet.sleep(_BEAT)
            late.append(pyperf.perf_counter() - due)

    with pairs.no_collector():
        everyone = [eventlet.spawn(heartbeat)]
        everyone += [eventlet.spawn(download) for _ in range(streams)]
        for one in everyone:
            one.wait()
    return late, count / MiB / (pyperf.perf_counter() - begun)
