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

# One answer of the page cache stands for this many bytes.
_WINDOW = 1024 * 1024

# A size above any file's, for a read without one.
_ALL = sys.maxsize // 2


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
        self,
        fd: Any,
        read: Callable[..., Any],
        checkpoint: Callable[[], object],
    ) -> None:
        self._fd = fd
        self._read = read
        self._checkpoint = checkpoint
        # Bytes ahead in the page cache; None where it cannot be asked.
        can_ask = hasattr(os, 'RWF_NOWAIT') and not hasattr(fd, 'buffer')
        self._cached = 0 if can_ask else None
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
            self._buffer = buffers.Buffer(self.fetch, 'fd')
        answer = self._buffer.take(size)
        if not self._buffer.may_hold():
            self._buffer = None
        return answer

    def fetch(self, size: int) -> Any:
        """Read in the pool what would wait; the checkpoint comes after it."""
        size = -1 if size > _ALL // 2 else size
        if self._job is None:
            if self._is_cached(size) or not pool.answers_here():
                self._checkpoint()
                return self._read(size)
            self._job = pool.Job(self._read, size)
        self._job.wait()
        self._checkpoint()
        job, self._job = self._job, None
        return job.answer()

    def close(self) -> None:
        """Wait for the read under way, and drop what was read."""
        if self._job is not None:
            self._job.wait()
        self._job = self._buffer = None

    def _is_cached(self, size: int) -> bool:
        """Tell whether the page cache holds the next *size* bytes: a hint."""
        if self._cached is None or not 0 <= size < _ALL // 2:
            return False
        if self._cached < size:
            self._cached = self._ask(size)
            if not self._cached:
                return False
        self._cached -= size
        return True

    def _ask(self, size: int) -> int | None:
        """Ask for the last byte of a window, or else of the next read."""
        descriptor = self._fd.fileno()
        position = self._fd.tell()
        for ahead in (max(size, _WINDOW), size):
            # Past the end the kernel answers at once, cached or not.
            end = min(position + ahead, os.fstat(descriptor).st_size)
            try:
                if end <= position or os.preadv(
                    descriptor, [bytearray(1)], end - 1, os.RWF_NOWAIT
                ):
                    return ahead
            except BlockingIOError:
                pass
            except OSError:  # EOPNOTSUPP, of tmpfs, NFS or FUSE
                return None
        return 0


def _size_asked(args: tuple[Any, ...]) -> int:
    try:
        size = operator.index(args[0]) if args and args[0] is not None else -1
    except TypeError:
        return 0  # for the file to refuse
    return size if size >= 0 else _ALL
