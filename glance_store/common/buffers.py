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

"""The buffer behind each call that gathers bytes before it returns."""

from collections.abc import Callable
import io
from typing import Any

DATA = (bytes, bytearray, memoryview, str)

# Room for so many bytes is made at once. A buffer that grows step by step
# often comes to new pages of memory, which cost ten times the copying.
_MOST_ROOM = 16 * 1024 * 1024

# What a call gathers from chunks of any size, bytes or text. Wanted: take
# exactly n bytes, over as many chunks as that needs; take what is left of a
# chunk; go on, after an exception of the source, where it was raised.
# Promised: n bytes cost O(n), however large the chunks are and however many;
# gathering n bytes holds those and one chunk; a chunk that is asked for whole
# is handed through. Plan: a begun chunk stays whole, with an offset that tells
# how much is gone; what is gathered grows in place in an ``io`` buffer, which
# outlives the call.


class Buffer:
    """Exact reads over chunks of any size, for one caller at a time.

    :param fetch: a function of the number of missing bytes (or None, for any
        number), which returns a chunk of any size, or an empty one at EOF
    :param source: what errors call the origin of the chunks
    :param kind: bytes or str; None to learn it from the first chunk
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
        # What is left of a chunk begins at the offset; None for nothing.
        self._rest: Any = None
        self._at = 0
        # What a call has gathered so far; None where no call was interrupted.
        self._gathered: Any = None

    def take(self, size: int | None) -> Any:
        """Remove exactly *size* bytes, fewer at EOF only.

        For None it is what was gathered, the rest of a chunk, or the next
        chunk: the first of these that there is.
        """
        if self._busy:
            raise RuntimeError(f'{self._source}: another read is under way')
        self._busy = True
        try:
            if self._gathered is None:
                piece = self._piece(size)
                if size is None or len(piece) == size or not piece:
                    return piece
                self._gathered = _begun(piece, size)
                del piece
            return self._gather(size)
        finally:
            self._busy = False

    def may_hold(self) -> bool:
        """Tell whether a call may be answered without a fetch."""
        return self._rest is not None or self._gathered is not None

    def checked(self, item: Any) -> Any:
        """Return *item* as bytes or str; refuse anything else for good."""
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
        # A later call must not pass over a part of an image.
        self._fetch = lambda _: item
        wanted = self._kind.__name__ if self._kind else 'bytes or str'
        raise TypeError(
            f'{self._source} must be {wanted}, not {type(item).__name__}'
        )

    def _gather(self, size: int | None) -> Any:
        gathered = self._gathered
        if size is None or size < gathered.tell():
            # An exception in a fetch ended a longer call: no other rest of a
            # chunk is left then.
            gathered.truncate()
            self._rest, self._at = gathered.getvalue(), 0
            self._gathered = None
            return self._piece(size)
        while (missing := size - gathered.tell()) > 0:
            piece = self._piece(missing)
            if not piece:
                break
            gathered.write(piece)
        self._gathered = None
        gathered.truncate()
        return gathered.getvalue()

    def _piece(self, missing: int | None) -> Any:
        """Remove at most *missing* bytes of one chunk; none at EOF only."""
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
        gathered = io.BytesIO()
        if size <= _MOST_ROOM:
            gathered.seek(size - 1)
            gathered.write(b'\0')
            gathered.seek(0)
    gathered.write(piece)
    return gathered
