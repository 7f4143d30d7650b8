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

"""Reads that would wait for storage, made in eventlet's thread pool.

A regular file always counts as ready, so that slow storage stops a hub. Here
a thread of the pool waits for the storage, and one green thread for that. A
read that the page cache can answer is made in place.
"""

from collections.abc import Callable
import io
import operator
import os
import stat
import sys
import tempfile
from typing import Any

from oslo_config import cfg

from glance_store.common import buffers
from glance_store.common import pool

# One question to the page cache is about this many bytes, at most.
_WINDOW = 4 * 1024 * 1024

# The size of a read without one; the rest of it is still above half.
_ALL = sys.maxsize


def reads_of(
    fd: Any, read: Callable[..., Any], checkpoint: Callable[[], object]
) -> 'Reads | None':
    """Return what offloads the reads of *fd*, None where that is not wanted.

    Sockets, pipes and eventlet's own files need the hub of their thread.
    """
    if not cfg.CONF.glance_store.offload_file_reads or not _is_regular(fd):
        return None
    pool.answers_here()  # the first stream makes it, in 12 to 45 ms
    return Reads(fd, read, checkpoint)


def _is_regular(fd: Any) -> bool:
    kinds = (io.RawIOBase, io.BufferedIOBase, io.TextIOBase)
    if not isinstance(fd, (*kinds, tempfile._TemporaryFileWrapper)):
        return False
    buffer = getattr(fd, 'buffer', fd)
    if not isinstance(getattr(buffer, 'raw', buffer), io.FileIO):
        return False
    return not fd.closed and stat.S_ISREG(os.fstat(fd.fileno()).st_mode)


class Reads:
    """The reads of one regular file, in place or in the pool."""

    def __init__(
        self, fd: Any, read: Callable[..., Any], checkpoint: Callable[[], Any]
    ) -> None:
        self._fd = fd
        self._read = read
        self._checkpoint = checkpoint
        # Bytes ahead that the page cache holds, and how many the last question
        # was about; None where it cannot be asked.
        self._cached = 0
        can_ask = hasattr(os, 'RWF_NOWAIT') and not hasattr(fd, 'buffer')
        self._asked = 0 if can_ask else None
        # The read under way; it keeps its answer until fetch() returns that.
        self._job: pool.Job | None = None
        # From a read in the pool on, until all that it gave is returned.
        self._buffer: buffers.Buffer | None = None

    def read(self, *args: Any) -> Any:
        """Read as the file does, with one checkpoint."""
        size = _size_asked(args)
        if self._buffer is None:
            if self._is_cached(size) or not pool.answers_here():
                self._checkpoint()
                return self._read(*args)
            kind = str if hasattr(self._fd, 'buffer') else bytes
            self._buffer = buffers.Buffer(self.fetch, 'fd', kind)
            self._start(size)
        answer = self._buffer.take(size)
        if self._job is None and not self._buffer.may_hold():
            self._buffer = None
        return answer

    def fetch(self, size: int) -> Any:
        """Read in the pool what would wait; the checkpoint comes after it."""
        if self._job is None:
            if self._is_cached(size) or not pool.answers_here():
                self._checkpoint()
                return self._read(size)
            self._start(size)
        job: Any = self._job
        job.wait()
        self._checkpoint()
        self._job = None
        return job.answer()

    def close(self) -> None:
        """Wait for the read under way, and drop what was read."""
        if self._job is not None:
            self._job.wait()
        self._job = self._buffer = None

    def _start(self, size: int) -> None:
        self._job = pool.Job(self._read, -1 if size > _ALL // 2 else size)

    def _is_cached(self, size: int) -> bool:
        """Tell whether the page cache holds the next *size* bytes: a hint."""
        if size > self._cached:
            self._cached = self._ask(size)
            if not self._cached:
                return False
        self._cached -= size
        return True

    def _ask(self, size: int) -> int:
        """Return how many bytes ahead the page cache holds, 0 if not *size*.

        Each yes makes the next question one about twice as many bytes. The
        kernel reads a page that it was asked for in vain, so that the last
        page may be there by an earlier question; the first page tells.
        """
        if self._asked is None or size > _ALL // 2:
            return 0
        descriptor = self._fd.fileno()
        first, end = self._fd.tell(), os.fstat(descriptor).st_size
        try:
            # Past the end the kernel answers at once, cached or not.
            if first >= end or _holds(descriptor, first):
                for ahead in (max(size, min(2 * self._asked, _WINDOW)), size):
                    if _holds(descriptor, min(first + ahead, end) - 1):
                        self._asked = ahead
                        return ahead
            self._asked = 0
        except OSError:  # EOPNOTSUPP, of tmpfs, NFS or FUSE
            self._asked = None
        return 0


def _holds(descriptor: int, at: int) -> bool:
    try:
        return os.preadv(descriptor, [bytearray(1)], at, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False


def _size_asked(args: tuple[Any, ...]) -> int:
    if not args or args[0] is None:
        return _ALL
    size = operator.index(args[0])
    return size if size >= 0 else _ALL
