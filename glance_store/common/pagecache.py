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

"""A question to the page cache: would a read wait for storage?"""

import contextlib
import os
import sys
import time
from typing import Any

# The longest range in bytes, unless a read is longer. The kernel reads less
# ahead at a time.
_WINDOW = 16 * 1024 * 1024

# A longer read is a read to EOF.
MOST = sys.maxsize // 2

# The position is checked after this many bytes or four reads, if more.
_STRIDE = 256 * 1024

# Each read is preceded by a question: would the read wait for storage? The
# answer costs next to nothing where all pages are cached. It is wrong where a
# page in the middle of a range was evicted.
#
# A question asks for the last byte of a range. The range then holds while the
# position stays inside it. After a yes, the next range is twice as long. After
# a no, it is one read long.
#
# A question for a missing page makes the kernel read that page. So the last
# page of a range may be cached by an earlier question. Hence a question also
# asks for the first page, unless the range before ended there.
#
# The kernel reads ahead of the last reads of a file, and a question counts as
# one. So a thread of the pool that has read asks on, up to a missing page. The
# kernel then reads the next pages while the stream uses the ones before.


class PageCache:
    """The page cache of one file, ahead of the position.

    :param fd: a regular file with ``fileno`` and ``tell``; a text file never
        counts as cached, since its position is no number of bytes
    """

    def __init__(self, fd: Any) -> None:
        self._fd = fd
        # What is cached, and the bytes until the next check of the position.
        self._known = range(0)
        self._trusted = 0
        # The position at the last check.
        self._first = 0
        # The length of the last range with a yes, 0 after a no.
        self._asked = 0
        # The size of the file at the last look.
        self._end = 0
        self._can_ask = hasattr(os, 'RWF_NOWAIT') and not hasattr(fd, 'buffer')

    def holds(self, size: int) -> bool:
        """Tell whether a read of *size* bytes would probably not wait."""
        if size > self._trusted:
            if not self._can_ask or size > MOST:
                return False
            first = self._first = self._fd.tell()
            known = self._known
            if first < known.start or first + size > known.stop:
                known = self._known = self._ask(first, size)
            self._trusted = min(max(4 * size, _STRIDE), known.stop - first)
            if size > self._trusted:
                self._trusted = 0
                return False
        self._trusted -= size
        return True

    def _ask(self, first: int, size: int) -> range:
        """Return a cached range from *first* on, or an empty range."""
        known = self._known
        longest = max(size, min(2 * self._asked, _WINDOW))
        self._asked = 0
        self._look_at_size(first + longest)
        # Past the end the kernel answers at once, cached or not.
        if first >= self._end:
            return range(first, first + size)
        lengths = [longest]
        if size < longest and first + size < self._end:
            lengths.append(size)  # it may end at another page
        follows = known and first == known.stop
        if follows or self._has(first):
            for length in lengths:
                if self._has(min(first + length, self._end) - 1):
                    self._asked = length
                    return range(first, first + length)
        return range(0)

    def ask_on(self, answer: Any) -> None:
        """Ask on after the *answer* of a read, up to a missing page.

        This runs in the pool for 1 ms at most, and never raises. The caller
        may use the file meanwhile, and ``tell`` of a buffered file has no
        lock.
        """
        with contextlib.suppress(Exception):
            if not self._can_ask:
                return
            first = at = self._first + len(answer)
            self._look_at_size(first + _WINDOW)
            stop = min(first + _WINDOW, self._end)
            late = time.monotonic() + 0.001
            while at < stop and time.monotonic() < late and self._has(at):
                self._known = range(first, at + 1)
                at += _STRIDE

    def _look_at_size(self, stop: int) -> None:
        if stop > self._end:
            self._end = os.fstat(self._fd.fileno()).st_size

    def _has(self, at: int) -> bool:
        fd = self._fd.fileno()
        try:
            return os.preadv(fd, [bytearray(1)], at, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            return False
        except OSError:  # EOPNOTSUPP, of tmpfs, NFS or FUSE
            self._can_ask = False
            return False
