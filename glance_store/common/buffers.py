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

"""The buffer of each call that gathers bytes before it returns."""

from collections.abc import Callable
import io
from typing import Any

# The most bytes of room that a buffer takes in advance. Growth step by step
# often touches new pages of memory, which cost ten times the copying.
_MOST_ROOM = 16 * 1024 * 1024

# A call takes exactly n bytes over any number of chunks, or the rest of one
# chunk. After an exception of the source, the next call goes on from there.
#
# To take n bytes costs O(n), for any size and number of chunks. It holds those
# n bytes and one chunk in memory. A whole chunk passes through uncopied.
#
# A begun chunk stays whole, and an offset marks the part that is left. The
# gathered bytes grow in an ``io`` buffer, which outlives the call. One that
# finds no memory to grow is gone, and refuses each later call.


class Buffer:
    """Exact reads over chunks of any size, for one caller at a time.

    :param fetch: a function that returns a chunk of any size, empty at EOF;
        its argument is the number of missing bytes, or None
    :param source: the name of the chunks in errors
    :param kind: bytes or str; None to take it from the first chunk
    """

    __slots__ = (
        '_at',
        '_busy',
        '_fetch',
        '_gathered',
        '_kind',
        '_rest',
        '_source',
    )

    def __init__(
        self,
        fetch: Callable[[Any], Any],
        source: str,
        kind: type[bytes] | type[str] | None = None,
    ) -> None:
        self._fetch = fetch
        self._source = source
        self._kind = kind
        self._busy = False
        # A chunk of which the part from the offset on is left, or None.
        self._rest: Any = None
        self._at = 0
        # The bytes that the last call has gathered, unless it has returned.
        self._gathered: Any = None

    def take(self, size: int | None) -> Any:
        """Remove exactly *size* bytes, fewer at EOF only.

        None removes the gathered bytes if there are some, else the rest of a
        chunk, else the next chunk.
        """
        if self._busy:
            raise RuntimeError(f'{self._source}: another read is under way')
        self._busy = True
        try:
            if self._gathered is None:
                piece = self._piece(size)
                if size is None or len(piece) == size or not piece:
                    return piece
                # The piece stays there if there is no memory to copy it.
                self._rest, self._at = piece, 0
                self._gathered = _begun(piece, size)
                self._rest = piece = None
            return self._gather(size)
        except MemoryError:
            # CPython leaves it broken, and may crash at the next call.
            if isinstance(self._gathered, io.StringIO):
                self._gathered.close()
            raise
        finally:
            self._busy = False

    def may_hold(self) -> bool:
        """Tell whether the next call may need no fetch."""
        return self._rest is not None or self._gathered is not None

    def checked(self, item: Any) -> Any:
        """Return *item* as bytes or str; refuse any other, now and later."""
        try:
            return self._as_data(item)
        except BaseException:
            fetch = self._fetch

            def fetch_again(missing: int | None) -> Any:
                self._fetch = fetch
                return item

            # A later call that skipped it would lose a part of the image.
            self._fetch = fetch_again
            raise

    def _as_data(self, item: Any) -> Any:
        chunk = item
        if isinstance(item, bytearray | memoryview):
            chunk = bytes(item)  # the source may reuse its buffer
        if isinstance(chunk, bytes | str):
            if not chunk:
                return chunk if self._kind is None else self._kind()
            kind = str if isinstance(chunk, str) else bytes
            if self._kind in (None, kind):
                self._kind = kind
                return chunk
        wanted = self._kind.__name__ if self._kind else 'bytes or str'
        raise TypeError(
            f'{self._source} must be {wanted}, not {type(item).__name__}'
        )

    def _gather(self, size: int | None) -> Any:
        gathered = self._gathered
        if size is None or size < gathered.tell():
            gathered.truncate()
            begun = gathered.getvalue()
            if self._rest is not None:  # there was no memory for a part of it
                begun += self._rest[self._at :]
            self._rest, self._at = begun, 0
            self._gathered = None
            return self._piece(size)
        while (missing := size - gathered.tell()) > 0:
            piece = self._piece(missing)
            if not piece:
                break
            gathered.write(piece)
            del piece
        gathered.truncate()
        answer = gathered.getvalue()
        self._gathered = None
        return answer

    def _piece(self, missing: int | None) -> Any:
        """Remove at most *missing* bytes of one chunk; empty at EOF."""
        if missing == 0:
            return b'' if self._kind is None else self._kind()
        if self._rest is None:
            chunk = self._fetch(missing)
            if type(chunk) is not self._kind:
                chunk = self.checked(chunk)
            if missing is None or len(chunk) <= missing:
                return chunk
            self._rest, self._at = chunk, 0
        at = self._at
        end = len(self._rest) if missing is None else at + missing
        piece = self._rest[at:end]
        self._at = end
        if end >= len(self._rest):
            self._rest = None
        return piece


def _begun(piece: Any, size: int) -> Any:
    """Return an ``io`` buffer after *piece*, with room for *size* bytes."""
    if isinstance(piece, str):
        gathered: Any = io.StringIO()
    else:
        # Memory that is only cleared takes no time until it is written to.
        gathered = io.BytesIO(bytes(size) if size <= _MOST_ROOM else b'')
    gathered.write(piece)
    return gathered


def is_filled(chunk: Any) -> bool:
    """Tell whether a chunk has data, or is to be refused."""
    kinds = (bytes, bytearray, memoryview, str)
    try:
        return not isinstance(chunk, kinds) or len(chunk) > 0
    except (TypeError, ValueError):  # a memoryview without a length
        return True
