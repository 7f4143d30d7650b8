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
_WINDOW = 4 * 1024 * 1024

# A read of more has no size, or one of its own making.
_MOST = sys.maxsize // 2

# The position is looked at again after so many bytes.
_STRIDE = 256 * 1024

# What a page cache is asked for, where it can be asked without a wait. Wanted:
# tell before each read whether it would wait. Promised: a no where storage
# would have to be waited for, save for pages that are dropped in the middle of
# a range; next to no time where all is cached. Plan: ask for two bytes of a
# range, and trust the range while the position stays within it. Each yes makes
# the next range twice as long, each no starts anew. The kernel reads a page
# that it is asked for in vain, so that the last page of a range may be there
# by an earlier question: the first page tells.


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
        # How long the range was; None where the cache cannot be asked.
        can_ask = hasattr(os, 'RWF_NOWAIT') and not hasattr(fd, 'buffer')
        self._length = 0 if can_ask else None

    def holds(self, size: int) -> bool:
        """Tell whether the next *size* bytes can be read at once: a hint."""
        if size > self._trusted:
            if self._length is None or size > _MOST:
                return False
            first = self._fd.tell()
            known = self._known
            if first < known.start or first + size > known.stop:
                known = self._known = self._ask(first, size, self._length)
            self._trusted = min(max(size, _STRIDE), known.stop - first)
            if size > self._trusted:
                self._trusted = 0
                return False
        self._trusted -= size
        return True

    def _ask(self, first: int, size: int, length: int) -> range:
        descriptor = self._fd.fileno()
        end = os.fstat(descriptor).st_size
        # Past the end the kernel answers at once, cached or not.
        if first >= end:
            return range(first, first + size)
        self._length = 0
        try:
            if _has(descriptor, first):
                for ahead in (max(size, min(2 * length, _WINDOW)), size):
                    if _has(descriptor, min(first + ahead, end) - 1):
                        self._length = ahead
                        return range(first, first + ahead)
        except OSError:  # EOPNOTSUPP, of tmpfs, NFS or FUSE
            self._length = None
        return range(0)


def _has(descriptor: int, at: int) -> bool:
    try:
        return os.preadv(descriptor, [bytearray(1)], at, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
