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


# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

"""The documented names under a caller's type checkers.

``tox -e pep8`` runs mypy and pyright over this file, and nothing imports it.
An ignore marks a call that both must refuse: both report a needless ignore.
"""

from collections.abc import Generator
from collections.abc import Iterator
import io
from typing import assert_type
from typing import BinaryIO
from typing import TextIO

from glance_store.common import utils


class Socket:
    """A file-like with a read of its own."""

    def read(self, size: int, timeout: float = 1) -> bytes:
        return bytes(size)


class Image:
    """A file-like that iterates by itself."""

    def read(self, size: int | None = None) -> bytes:
        return b''

    def __iter__(self) -> Iterator[bytes]:
        return iter([b''])


def parts() -> Generator[bytes, None, None]:
    yield b''


def mixed() -> Iterator[bytes | memoryview]:
    yield b''


def chunks(binary: BinaryIO, text: TextIO) -> None:
    assert_type(utils.chunkiter(binary), Iterator[bytes])
    assert_type(utils.chunkiter(io.BytesIO(), 4096), Iterator[bytes])
    assert_type(utils.chunkiter(fp=Socket(), chunk_size=1), Iterator[bytes])
    assert_type(utils.chunkiter(text), Iterator[str])
    utils.chunkiter([b''])  # type: ignore
    utils.chunkiter(binary, '4096')  # type: ignore


def readable(binary: BinaryIO, text: TextIO, items: list[bytes]) -> None:
    assert_type(utils.chunkreadable(binary), Iterator[bytes])
    assert_type(utils.chunkreadable(text, 4096), Iterator[str])
    assert_type(utils.chunkreadable(items), list[bytes])
    assert_type(
        utils.chunkreadable(iter=parts(), chunk_size=1),
        Generator[bytes, None, None],
    )


def iterate(items: list[int], images: dict[str, bytes]) -> None:
    stream = utils.cooperative_iter(items)
    assert_type(next(stream), int)
    for name in utils.cooperative_iter(images):
        assert_type(name, str)
    for part in utils.cooperative_iter(iter=parts()):
        assert_type(part, bytes)
    assert_type(stream.close(), None)
    utils.cooperative_iter(5)  # type: ignore


def read(binary: BinaryIO, text: TextIO) -> None:
    assert_type(utils.cooperative_read(binary)(4096), bytes)
    assert_type(utils.cooperative_read(text)(), str)
    assert_type(utils.cooperative_read(fd=Socket())(1, timeout=2.5), bytes)
    utils.cooperative_read(Socket())('1')  # type: ignore
    utils.cooperative_read([b''])  # type: ignore


def reader(binary: BinaryIO, text: TextIO) -> None:
    assert_type(utils.CooperativeReader(binary).read(), bytes)
    assert_type(utils.CooperativeReader(fd=Socket()).read(length=5), bytes)
    assert_type(utils.CooperativeReader(Image()).read(-1), bytes)
    assert_type(utils.CooperativeReader(parts()).read(None), bytes)
    assert_type(utils.CooperativeReader([bytearray(5)]).read(2), bytes)
    assert_type(utils.CooperativeReader(mixed()).read(), bytes)
    assert_type(utils.CooperativeReader(text).read(), str)
    assert_type(utils.CooperativeReader(['a']).read(1), str)
    for chunk in utils.CooperativeReader(binary):
        assert_type(chunk, bytes)
    for line in utils.CooperativeReader(text):
        assert_type(line, str)
    stream: utils.CooperativeReader[bytes] = utils.CooperativeReader(parts())
    assert_type(stream.close(), None)
    # One helper around another.
    assert_type(utils.chunkiter(stream, 4096), Iterator[bytes])
    assert_type(next(utils.cooperative_iter(stream)), bytes)
    utils.CooperativeReader(5)  # type: ignore
    utils.CooperativeReader([5])  # type: ignore


def others(val: object) -> None:
    if utils.is_uuid_like(val):
        assert_type(val, str)
    utils.get_hasher('sha256', usedforsecurity=False).update(b'')


@utils.synchronized('images')
def locked(size: int) -> bytes:
    return bytes(size)


assert_type(locked(5), bytes)
