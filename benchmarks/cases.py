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

"""Ways of streaming, each paired with the same in the libraries beside ours.

A way returns a stream to use up: a function to be called with a size until it
answers nothing, or something to iterate over. Ours and a peer's come from one
function wherever both have the names for it, so that nothing but the library
differs. Before a pair is timed, both are used up once and their content is
compared.
"""

from collections.abc import Callable, Iterator
import dataclasses
import functools
import io
import itertools
import os
import pathlib
from typing import Any

from oslo_config import cfg

from benchmarks import pairs
from benchmarks import peers
from glance_store.common import cooperation
from glance_store.common import utils

KiB = 1024
MiB = 1024 * KiB

NATIVE = 'native threads'
HUB = 'hub'
HUB_1_MS = 'hub, 1 ms'

READ = 'read a file'
ITERATE = 'iterate over a file'
READER = 'iterate over a CooperativeReader'
READ_N = 'read(n) over an iterable'
UUID = 'is_uuid_like'
MAKE = 'make a stream'
TRACE = 'trace off'
OFFLOAD = 'offload_file_reads, fast storage'

OWN_READ = 'its read'
NO_TRACE = 'no trace'
NOT_OFFLOADED = 'not offloaded'

# What is measured on each kind of thread. glance_store 4.8.2 and Swift import
# eventlet's sleep, which would give a native thread a hub. The others import
# the sleep of a monkey-patched time module where there is a hub.
_PEERS = {
    NATIVE: (peers.GLANCE, peers.STORE_5),
    HUB: (peers.STORE_4, peers.GLANCE),
    HUB_1_MS: (peers.STORE_4, peers.GLANCE),
}

# A stream, and the size to read it by, None to iterate over it.
Stream = tuple[Any, int | None]
Way = Callable[[], Stream]


@dataclasses.dataclass
class Case:
    """Two ways to measure beside each other."""

    name: str
    what: str
    ours: Way
    against: str
    theirs: Way


def measure(
    where: str, folder: pathlib.Path, seconds: float
) -> Iterator[pairs.Row]:
    """Measure every case on the calling thread; with no seconds, briefly."""
    interval = 0.001 if where == HUB_1_MS else 0
    cfg.CONF.set_override(
        'cooperative_yield_interval', interval, 'glance_store'
    )
    for case in cases(where, _Files(folder, small=not seconds)):
        if case.name != MAKE and _gather(case.ours) != _gather(case.theirs):
            raise AssertionError(f'{case} differ in content')
        yield pairs.Row(
            case=case.name,
            where=where,
            what=case.what,
            against=case.against,
            **pairs.ratio(
                functools.partial(_drain, case.ours),
                functools.partial(_drain, case.theirs),
                # A difference of one in a hundred takes longer to be sure of.
                seconds * (4 if case.name == TRACE else 1),
            ),
        )


def _drain(way: Way) -> None:
    stream, size = way()
    if size is None:
        for _ in stream:
            pass
    else:
        # Who reads has the chunk in hand until the next one is there, just as
        # who iterates: freed before that, it would be read into over and over.
        while _ := stream(size):
            pass


def _gather(way: Way) -> Any:
    stream, size = way()
    if size is not None:
        return b''.join(iter(lambda: stream(size), b''))
    items = list(stream)
    return b''.join(items) if isinstance(items[0], bytes) else items


class _Files:
    """Files of random bytes, in the page cache."""

    def __init__(self, folder: pathlib.Path, small: bool) -> None:
        self._folder = folder
        self.small = small

    def of(self, mebibytes: int) -> pathlib.Path:
        size = MiB if self.small else mebibytes * MiB
        path = self._folder / str(size)
        if not path.exists():
            path.write_bytes(os.urandom(size))
        return path


def size_name(size: int) -> str:
    """Return a number of bytes as it is written in the report."""
    for unit, name in ((MiB, 'MiB'), (KiB, 'KiB')):
        if size % unit == 0:
            return f'{size // unit} {name}'
    return f'{size} bytes'


def cases(where: str, files: _Files) -> Iterator[Case]:
    """Return what is measured on one kind of thread."""
    libraries = {name: peers.load(name) for name in _PEERS[where]}
    for chunk, mebibytes in ((4 * KiB, 8), (64 * KiB, 64), (MiB, 64)):
        path = files.of(mebibytes)
        yield from _reading(path, chunk, libraries)
        yield from _iterating(path, chunk, libraries)
        if where != NATIVE:
            yield _iterating_swift(path, chunk)
    yield from _iterating_reader(files, libraries)
    for chunk, size in (
        (16 * MiB, 8 * KiB),
        (64 * KiB, 8 * MiB),
        (64 * KiB, 64 * KiB),
        (64 * KiB, 10_000),
    ):
        total = 16 * MiB if files.small else 64 * MiB
        yield from _reading_n(total, chunk, size, libraries)
    yield from _uuids()
    yield from _making(files.of(1), libraries)
    yield _trace(files.of(16))
    if where != NATIVE:
        for chunk in (4 * KiB, 64 * KiB, MiB, 4 * MiB):
            yield _offloading(files.of(16), chunk)


def _bare(path: pathlib.Path, chunk: int) -> Stream:
    return path.open('rb').read, chunk


def _read(library: Any, path: pathlib.Path, chunk: int) -> Stream:
    return library.cooperative_read(path.open('rb')), chunk


def _reading(
    path: pathlib.Path, chunk: int, libraries: dict[str, Any]
) -> Iterator[Case]:
    size = size_name(chunk)
    ours = functools.partial(_read, utils, path, chunk)
    bare = functools.partial(_bare, path, chunk)
    yield Case(READ, size, ours, peers.BARE, bare)
    for name, library in libraries.items():
        theirs = functools.partial(_read, library, path, chunk)
        yield Case(READ, size, ours, name, theirs)


def _iterate(library: Any, path: pathlib.Path, chunk: int) -> Stream:
    chunks = library.chunkreadable(path.open('rb'), chunk)
    return library.cooperative_iter(chunks), None


def _iterating(
    path: pathlib.Path, chunk: int, libraries: dict[str, Any]
) -> Iterator[Case]:
    size = size_name(chunk)
    ours = functools.partial(_iterate, utils, path, chunk)
    bare = functools.partial(_bare, path, chunk)
    yield Case(ITERATE, size, ours, peers.BARE, bare)
    for name, library in libraries.items():
        theirs = functools.partial(_iterate, library, path, chunk)
        yield Case(ITERATE, size, ours, name, theirs)


def _iterating_swift(path: pathlib.Path, chunk: int) -> Case:
    # As Swift uses it, with a yield after every fifth chunk.
    swift = peers.load(peers.SWIFT)

    def theirs() -> Stream:
        chunks = iter(functools.partial(path.open('rb').read, chunk), b'')
        return swift.CooperativeIterator(chunks), None

    ours = functools.partial(_iterate, utils, path, chunk)
    return Case(ITERATE, size_name(chunk), ours, peers.SWIFT, theirs)


def _iterating_reader(
    files: _Files, libraries: dict[str, Any]
) -> Iterator[Case]:
    def reader(library: Any, path: pathlib.Path) -> Stream:
        return library.CooperativeReader(path.open('rb')), None

    def reads() -> Stream:
        return utils.CooperativeReader(path.open('rb')).read, 64 * KiB

    path = files.of(64)
    size = size_name(64 * KiB)
    ours = functools.partial(reader, utils, path)
    yield Case(READER, size, ours, OWN_READ, reads)
    bare = functools.partial(_bare, path, 64 * KiB)
    yield Case(READER, size, ours, peers.BARE, bare)
    # A smaller file: the others iterate by lines, some 256 random bytes each.
    path_of_lines = files.of(2)
    ours = functools.partial(reader, utils, path_of_lines)
    for name, library in libraries.items():
        theirs = functools.partial(reader, library, path_of_lines)
        yield Case(READER, size, ours, name, theirs)


def _reading_n(
    total: int, chunk: int, size: int, libraries: dict[str, Any]
) -> Iterator[Case]:
    content = os.urandom(chunk)
    times = total // chunk

    def reader(library: Any) -> Stream:
        chunks = itertools.repeat(content, times)
        return library.CooperativeReader(chunks).read, size

    whole = content * times
    what = f'{size_name(chunk)} chunks, {size_name(size)} reads'
    ours = functools.partial(reader, utils)
    yield Case(
        READ_N, what, ours, peers.BARE, lambda: (io.BytesIO(whole).read, size)
    )
    # That of glance_store does not heed the size.
    theirs = functools.partial(reader, libraries[peers.GLANCE])
    yield Case(READ_N, what, ours, peers.GLANCE, theirs)


def _uuids() -> Iterator[Case]:
    def asked(library: Any, value: object) -> Stream:
        return map(library.is_uuid_like, [value] * 1000), None

    canonical = 'b6dc0ed4-8b3f-4e4c-a9a5-3f4b3d7d4a1e'
    for what, value in (
        ('one', canonical),
        ('upper case', canonical.upper()),
        ('a name', 'cirros-0.6.2-x86_64-disk'),
        ('None', None),
    ):
        yield Case(
            UUID,
            what,
            functools.partial(asked, utils, value),
            peers.STORE_5,
            functools.partial(asked, peers.load(peers.STORE_5), value),
        )


def _making(path: pathlib.Path, libraries: dict[str, Any]) -> Iterator[Case]:
    def made(library: Any, name: str, source: Any) -> Stream:
        return map(getattr(library, name), [source] * 1000), None

    fp = path.open('rb')
    for what, source in (
        ('cooperative_read', fp),
        ('cooperative_iter', ()),
        ('CooperativeReader', fp),
        ('CooperativeReader', ()),
        ('chunkiter', fp),
    ):
        of = 'a file' if source else 'an iterable'
        for name, library in libraries.items():
            yield Case(
                MAKE,
                f'{what} of {of}',
                functools.partial(made, utils, what, source),
                name,
                functools.partial(made, library, what, source),
            )


def _trace(path: pathlib.Path) -> Case:
    """Pair a whole stream with one that was never asked about the log."""
    asks = cooperation.turns

    def asks_not(_: Any) -> cooperation.Turns:
        interval = cfg.CONF.glance_store.cooperative_yield_interval
        return cooperation.Turns(interval)

    def way(turns: Any) -> Stream:
        cooperation.turns = turns
        try:
            return _read(utils, path, 64 * KiB)
        finally:
            cooperation.turns = asks

    return Case(
        TRACE,
        size_name(64 * KiB),
        functools.partial(way, asks),
        NO_TRACE,
        functools.partial(way, asks_not),
    )


def _offloading(path: pathlib.Path, chunk: int) -> Case:
    def way(offloaded: bool) -> Stream:
        cfg.CONF.set_override('offload_file_reads', offloaded, 'glance_store')
        try:
            return _read(utils, path, chunk)
        finally:
            cfg.CONF.clear_override('offload_file_reads', 'glance_store')

    return Case(
        OFFLOAD,
        size_name(chunk),
        functools.partial(way, True),
        NOT_OFFLOADED,
        functools.partial(way, False),
    )
