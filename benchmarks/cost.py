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


"""Time streams beside a bare loop and beside the peers.

Ours, the bare loop and each peer read the same file in turns. The bare loop
holds its last chunk until the next one is there, as a consumer does.
"""

from collections.abc import Callable, Iterator
import functools
import gc
import itertools
import os
import pathlib
import time
from typing import Any

from oslo_config import cfg

from benchmarks import peers
from benchmarks.figures import KiB, MiB, ratios, Row
from glance_store.common import utils

_NATIVE = 'native'
# glance_store 4.8.2 imports eventlet's sleep, which would make a hub on a
# native thread. The others import the sleep of the time module, monkey-patched
# where there is a hub.
_PEERS = {
    _NATIVE: (peers.GLANCE, peers.STORE_5),
    'hub, every call': (peers.STORE_4, peers.GLANCE),
    'hub, 10 ms': (peers.STORE_4, peers.GLANCE),
}
# glance_store has no exact reads, and glance no is_uuid_like.
_MISSING = {('read(n)', peers.STORE_5), ('is_uuid_like', peers.GLANCE)}
_CALLS = ('cooperative_read', 'CooperativeReader.read', 'cooperative_iter')
# A function and the size to call it with until EOF; or an iterable and None.
Stream = tuple[Any, int | None]
# A name, its argument, and a function that makes a stream with the names of a
# library; None makes the bare loop.
Case = tuple[str, str, Callable[[Any], Stream]]
Ways = dict[str, Callable[[], Stream]]


def cells(quick: bool) -> Iterator[dict[str, Any]]:
    """Return the arguments of measure(), each for a process of its own."""
    return ({'thread': thread} for thread in _PEERS)


def measure(
    folder: pathlib.Path, seconds: float, thread: str
) -> Iterator[Row]:
    """Measure each name on one kind of thread; no seconds: once."""
    interval = 0.01 if thread == 'hub, 10 ms' else 0
    cfg.CONF.set_override(
        'cooperative_yield_interval', interval, 'glance_store'
    )
    cases = list(_reading(folder, small=not seconds))
    if thread == _NATIVE:
        cases += _gathering_and_asking()
    libraries = {name: peers.load(name) for name in _PEERS[thread]}
    for call, of, way in cases:
        ways: Ways = {'ours': functools.partial(way, utils)}
        if call in _CALLS:
            ways['a bare loop'] = functools.partial(way, None)
        for name, library in libraries.items():
            if (call, name) not in _MISSING:
                ways[name] = functools.partial(way, library)
        for name, figures in _compared(ways, seconds):
            case = {'thread': thread, 'call': call, 'of': of, 'beside': name}
            yield Row('cost', case, figures)


def _compared(
    ways: Ways, seconds: float
) -> Iterator[tuple[str, dict[str, list[float]]]]:
    contents = [_content(*way()) for way in ways.values()]
    if any(content != contents[0] for content in contents):
        raise AssertionError(f'{list(ways)} differ in content')
    took = _timed(ways, seconds)
    ours = took.pop('ours')
    for name, theirs in took.items():
        figures = {'times as fast': ratios(theirs, ours), 'ours ms': ours}
        yield name, {**figures, 'beside ms': theirs}


def _timed(ways: Ways, seconds: float) -> dict[str, list[float]]:
    """Return the times of each way, in ms; no seconds: once.

    A machine that is shared, or that changes its clock rate, slows both
    halves of a pair, and their ratio hardly moves. pyperf times one function
    after another, which is why this loop is here.
    """
    took: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    until = time.perf_counter() + seconds
    for rounds in range(1, 500 if seconds else 2):
        gc.collect()
        for name in order:
            start = time.perf_counter()
            _drain(ways[name])
            took[name].append(1000 * (time.perf_counter() - start))
        order.append(order.pop(0))  # another way is the first
        if rounds >= 15 and time.perf_counter() > until:
            break
    return took


def _content(stream: Any, size: int | None) -> Any:
    if size is not None:
        return b''.join(iter(functools.partial(stream, size), b''))
    items = list(stream)
    return b''.join(items) if isinstance(items[0], bytes) else items


def _drain(way: Callable[[], Stream]) -> None:
    stream, size = way()
    if size is None:
        for _ in stream:
            pass
    else:
        while _ := stream(size):
            pass


def _reading(folder: pathlib.Path, small: bool) -> Iterator[Case]:
    def way(call: str, path: pathlib.Path, size: int, library: Any) -> Stream:
        fp = path.open('rb')
        if library is None:
            return fp.read, size
        if call == 'cooperative_read':
            return library.cooperative_read(fp), size
        if call == 'CooperativeReader.read':
            return library.CooperativeReader(fp).read, size
        return library.cooperative_iter(library.chunkiter(fp, size)), None

    for of, size, total in (
        ('4 KiB', 4 * KiB, 8 * MiB),
        ('64 KiB', 64 * KiB, 64 * MiB),
        ('1 MiB', MiB, 64 * MiB),
    ):
        path = folder / of
        path.write_bytes(os.urandom(MiB if small else total))
        for call in _CALLS:
            yield call, of, functools.partial(way, call, path, size)


def _gathering_and_asking() -> Iterator[Case]:
    chunk = os.urandom(64 * KiB)
    name = 'b6dc0ed4-8b3f-4e4c-a9a5-3f4b3d7d4a1e'

    def gather(size: int, library: Any) -> Stream:
        chunks = itertools.repeat(chunk, 1024)
        return library.CooperativeReader(chunks).read, size

    def ask(value: object, library: Any) -> Stream:
        return map(library.is_uuid_like, [value] * 1000), None

    yield 'read(n)', '64 KiB', functools.partial(gather, 64 * KiB)
    yield 'read(n)', '8 MiB', functools.partial(gather, 8 * MiB)
    for value in (name, name.upper(), 'cirros-0.6.2-x86_64-disk', None):
        yield 'is_uuid_like', str(value), functools.partial(ask, value)
