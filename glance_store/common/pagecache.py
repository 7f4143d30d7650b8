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

import os
import sys
from typing import Any

# One question is about this many bytes, at most.
_WINDOW = 8 * 1024 * 1024

# A read of more has no size, or one of its own making.
_MOST = sys.maxsize // 2

# The position is looked at again after so many bytes, or four reads.
_STRIDE = 256 * 1024

# What a page cache is asked for, where it can be asked without a wait. Wanted:
# tell before each read whether it would wait. Promised: a no where storage
# would have to be waited for, save for pages that are dropped in the middle of
# a range; next to no time where all is cached. Plan: ask for the last byte of
# a range, and trust the range while the position stays within it. Each yes
# makes the next range twice as long, each no starts anew. The kernel reads a
# page that it is asked for in vain, so that the last page of a range may be
# there by an earlier question. So the first page is asked for as well, unless
# the range before ended there.


class PageCache:
    """What the page cache holds of one file, ahead of its position.

    :param fd: a regular file with ``fileno`` and ``tell``; a text file, whose
        position is no number of bytes, is never said to be cached
    """

    def __init__(self, fd: Any) -> None:
        self._fd = fd
        # The range of the last yes, and what is left of it until the position
        # is looked at again.
        self._known = range(0)
        self._trusted = 0
        # The size of the file, when it was last needed.
        self._end = 0
        self._can_ask = hasattr(os, 'RWF_NOWAIT') and not hasattr(fd, 'buffer')

    def holds(self, size: int) -> bool:
        """Tell whether the next *size* bytes can be read at once: a hint."""
        if size > self._trusted:
            if not self._can_ask or size > _MOST:
                return False
            first = self._fd.tell()
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
        """Return a range that begins at *first* and is cached, or is empty."""
        known = self._known
        longest = max(size, min(2 * len(known), _WINDOW))
        descriptor = self._fd.fileno()
        if first + longest > self._end:
            self._end = os.fstat(descriptor).st_size
        # Past the end the kernel answers at once, cached or not.
        if first >= self._end:
            return range(first, first + size)
        try:
            follows = known and first == known.stop
            if follows or _has(descriptor, first):
                for length in (longest, size):
                    if _has(descriptor, min(first + length, self._end) - 1):
                        return range(first, first + length)
        except OSError:  # EOPNOTSUPP, of tmpfs, NFS or FUSE
            self._can_ask = False
        return range(0)


def _has(descriptor: int, at: int) -> bool:
    try:
        return os.preadv(descriptor, [bytearray(1)], at, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
