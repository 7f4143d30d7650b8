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

# What a call gathers from chunks of any size, bytes or text. Wanted: take
# exactly n bytes, over as many chunks as that needs; take what is left of a
# chunk; go on, after an exception of the source, where it was raised.
# Promised: n bytes cost O(n), however large the chunks are and however many;
# gathering n bytes holds those and one chunk; a chunk that is asked for whole
# is handed through. Plan: a begun chunk stays whole in an ``io`` buffer, whose
# position tells how much is gone; what is gathered grows in place in another
# one, which outlives the call.


class Buffer:
    """Exact reads over chunks of any size, for one caller at a time.

    :param fetch: a function of the number of missing bytes (or None, for any
        number), which returns a chunk of any size, or an empty one at EOF
    :param source: what errors call the origin of the chunks
    """

    __slots__ = ('_busy', '_fetch', '_gathered', '_kind', '_rest', '_source')

    def __init__(self, fetch: Callable[[Any], Any], source: str) -> None:
        self._fetch = fetch
        self._source = source
        # bytes or str, once a chunk has shown which.
        self._kind: type[bytes] | type[str] | None = None
        # None, or positioned behind what was gathered.
        self._gathered: Any = None
        # None, or positioned before what is left of a chunk.
        self._rest: Any = None
        self._busy = False

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
                self._gathered = self._new()
                self._gathered.write(piece)
            return self._gather(size)
        finally:
            self._busy = False

    def may_hold(self) -> bool:
        """Tell whether a call may be answered without a fetch."""
        return self._rest is not None or self._gathered is not None

    def checked(self, chunk: Any) -> Any:
        """Return *chunk* as bytes or str; refuse anything else for good."""
        if isinstance(chunk, bytearray | memoryview):
            chunk = bytes(chunk)  # the source may reuse its buffer
        if isinstance(chunk, bytes | str):
            if not chunk:
                return self._empty()
            kind = str if isinstance(chunk, str) else bytes
            if self._kind in (None, kind):
                self._kind = kind
                return chunk
        # A later call must not pass over a part of an image.
        self._fetch = lambda _: chunk
        wanted = self._kind.__name__ if self._kind else 'bytes or str'
        raise TypeError(
            f'{self._source} must be {wanted}, not {type(chunk).__name__}'
        )

    def _gather(self, size: int | None) -> Any:
        gathered = self._gathered
        if size is None or size < gathered.tell():
            # An exception in a fetch ended a longer call: no other rest of a
            # chunk is left then.
            gathered.seek(0)
            self._rest, self._gathered = gathered, None
            return self._piece(size)
        while (missing := size - gathered.tell()) > 0:
            piece = self._piece(missing)
            if not piece:
                break
            gathered.write(piece)
        self._gathered = None
        return gathered.getvalue()

    def _piece(self, missing: int | None) -> Any:
        """Remove at most *missing* bytes of one chunk; none at EOF only."""
        if missing == 0:
            return self._empty()
        if self._rest is not None:
            piece = self._rest.read(missing)
            if piece:
                return piece
            self._rest = None
        chunk = self._fetch(missing)
        if type(chunk) is not self._kind:
            chunk = self.checked(chunk)
        if missing is None or len(chunk) <= missing:
            return chunk
        self._rest = self._new(chunk)
        return self._rest.read(missing)

    def _empty(self) -> bytes | str:
        return b'' if self._kind is None else self._kind()

    def _new(self, *chunk: Any) -> Any:
        return io.StringIO(*chunk) if self._kind is str else io.BytesIO(*chunk)
