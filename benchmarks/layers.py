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

"""Where the time of a cooperative read goes, layer by layer.

Each way has one thing more than the one before it, written as plainly as can
be: what is left between the last of them and ours is what else ours does. The
bare loop beside the peers says how far ahead of those anything can be.
"""

from collections.abc import Callable, Iterator
import functools
import pathlib
import time
from typing import Any, BinaryIO

from oslo_config import cfg

from benchmarks import cases
from benchmarks import pairs
from benchmarks import peers
from glance_store.common import utils

LAYER = 'a layer of a read'
CEILING = 'a bare loop'

Read = Callable[..., bytes]
Way = Callable[[BinaryIO], Read]


def _a_call(fp: BinaryIO) -> Read:
    source_read = fp.read

    class Stream:
        def read(self, *args: Any, **kwargs: Any) -> bytes:
            return source_read(*args, **kwargs)

    return Stream().read


def _an_owner(fp: BinaryIO) -> Read:
    source_read = fp.read

    class Stream:
        inside = False

        def read(self, *args: Any, **kwargs: Any) -> bytes:
            if self.inside:
                raise AssertionError
            self.inside = True
            try:
                return source_read(*args, **kwargs)
            finally:
                self.inside = False

    return Stream().read


def _a_clock(fp: BinaryIO) -> Read:
    source_read = fp.read

    class Stream:
        inside = False
        until = float('inf')

        def read(self, *args: Any, **kwargs: Any) -> bytes:
            if self.inside:
                raise AssertionError
            self.inside = True
            try:
                answer = source_read(*args, **kwargs)
            finally:
                self.inside = False
            if time.monotonic() < self.until:
                return answer
            raise AssertionError

    return Stream().read


WAYS = {
    '1. a method that passes all on': _a_call,
    '2. and knows who is inside': _an_owner,
    '3. and looks at the clock': _a_clock,
}


def measure(
    where: str, folder: pathlib.Path, seconds: float
) -> Iterator[pairs.Row]:
    """Measure the layers at two sizes of chunks, and ours after them."""
    interval = 0.001 if where == cases.HUB_1_MS else 0
    cfg.CONF.set_override(
        'cooperative_yield_interval', interval, 'glance_store'
    )
    ways = {**WAYS, '4. ours': utils.cooperative_read}
    for chunk, mebibytes in ((4 * cases.KiB, 8), (64 * cases.KiB, 64)):
        path = folder / str(chunk)
        path.write_bytes(bytes(mebibytes * cases.MiB if seconds else chunk))
        size = cases.size_name(chunk)
        bare = functools.partial(_drain, path, chunk, lambda fp: fp.read)
        for name, way in ways.items():
            ours = functools.partial(_drain, path, chunk, way)
            yield pairs.Row(
                case=LAYER,
                where=where,
                what=f'{size}, {name}',
                against=peers.BARE,
                **pairs.ratio(ours, bare, seconds),
            )
        for name in (peers.STORE_4, peers.GLANCE):
            if where == cases.NATIVE and name == peers.STORE_4:
                continue  # it would make a hub
            way = peers.load(name).cooperative_read
            theirs = functools.partial(_drain, path, chunk, way)
            yield pairs.Row(
                case=CEILING,
                where=where,
                what=size,
                against=name,
                **pairs.ratio(bare, theirs, seconds),
            )


def _drain(path: pathlib.Path, chunk: int, way: Way) -> None:
    with path.open('rb') as fp:
        read = way(fp)
        while _ := read(chunk):
            pass
