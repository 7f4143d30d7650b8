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

"""The memory that a stream of 10 GiB takes, which no disk holds."""

from collections.abc import Callable, Iterator
import functools
import multiprocessing
import resource
import tracemalloc
from typing import Any

import eventlet

from benchmarks.cases import KiB, MiB, size_name
from benchmarks import pairs
from glance_store.common import utils

PEAK = 'peak memory'
GROWTH = 'growth of the process'

_CHUNK = MiB


class _FileLike:
    """So many bytes, of which a read answers half of what it asks for."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int) -> bytes:
        size = min(self._left, max(size // 2, 1))
        self._left -= size
        return b'.' * size


def _iterable(size: int) -> Iterator[bytes]:
    for _ in range(size // _CHUNK):
        yield b'.' * _CHUNK


def _reading(size: int | None) -> Callable[[int], Iterator[Any]]:
    def way(total: int) -> Iterator[Any]:
        reader = utils.CooperativeReader(_iterable(total))
        return iter(functools.partial(reader.read, size), b'')

    return way


# What to stream with, and how many bytes are asked for at once in addition
# to the chunks of the source.
_WAYS: dict[str, tuple[Callable[[int], Iterator[Any]], int]] = {
    'cooperative_iter': (lambda n: utils.cooperative_iter(_iterable(n)), 0),
    'cooperative_read': (
        lambda n: iter(
            functools.partial(utils.cooperative_read(_FileLike(n)), _CHUNK),
            b'',
        ),
        0,
    ),
    'chunkiter': (lambda n: utils.chunkiter(_FileLike(n), _CHUNK), 0),
    'CooperativeReader, iterating': (
        lambda n: iter(utils.CooperativeReader(_iterable(n))),
        0,
    ),
    'CooperativeReader.read()': (_reading(None), 0),
    f'CooperativeReader.read({size_name(64 * KiB)})': (
        _reading(64 * KiB),
        64 * KiB,
    ),
    f'CooperativeReader.read({size_name(8 * MiB)})': (
        _reading(8 * MiB),
        8 * MiB,
    ),
}


def measure(where: str, folder: object, seconds: float) -> Iterator[pairs.Row]:
    """Stream 10 GiB each way, in a process of its own each time."""
    total = 10 * 1024 * MiB if seconds else 16 * MiB
    with multiprocessing.get_context('spawn').Pool(
        1, maxtasksperchild=1
    ) as pool:
        for name, (_, asked) in _WAYS.items():
            peak = pool.apply(_peak, (name, total)) - asked
            growth = pool.apply(_growth, (name, total))
            for case, value in ((PEAK, peak), (GROWTH, growth)):
                yield pairs.Row(
                    case=case,
                    where='hub',
                    what=name,
                    against=f'{total / (1024 * MiB):g} GiB',
                    unit='chunks of the source',
                    value=value / _CHUNK,
                    low=value / _CHUNK,
                    high=value / _CHUNK,
                )


def _on_hub(name: str, total: int) -> None:
    """Stream on a hub, and see that all of it comes."""

    def stream() -> int:
        # A map of lengths holds no chunk while the next one is fetched.
        return sum(map(len, _WAYS[name][0](total)))

    came = eventlet.spawn(stream).wait()
    if came != total:
        raise AssertionError(f'{name}: {came} bytes came of {total}')


def _peak(name: str, total: int) -> int:
    tracemalloc.start()
    _on_hub(name, 64 * MiB)
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    _on_hub(name, total)
    return tracemalloc.get_traced_memory()[1] - before


def _growth(name: str, total: int) -> int:
    _on_hub(name, 64 * MiB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _on_hub(name, total)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (after - before) * KiB
