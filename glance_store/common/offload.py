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

"""Reads of slow storage, made in eventlet's thread pool.

A regular file always counts as ready, so a read of slow storage stops a hub.
Here, a native thread of the pool waits for the storage, and one green thread
waits for the pool. Cached data are read in place.
"""

from collections.abc import Callable
import errno
import io
import operator
import os
import stat
import sys
import tempfile
from typing import Any

from oslo_config import cfg

from glance_store.common import buffers
from glance_store.common import pagecache
from glance_store.common import pool

# The size of a read to EOF. A remainder of it still exceeds pagecache.MOST.
_ALL = sys.maxsize


def reads_of(
    fd: Any, read: Callable[..., Any], checkpoint: Callable[[], object]
) -> 'Reads | None':
    """Return the ``Reads`` of a regular file, if the option is on, else None.

    Sockets, pipes and eventlet's own files need the hub of their thread.
    """
    if not cfg.CONF.glance_store.offload_file_reads or not _is_regular(fd):
        return None
    pool.answers_here()  # the first stream makes the pool, in 12 to 45 ms
    return Reads(fd, read, checkpoint)


def _is_regular(fd: Any) -> bool:
    kinds = (io.RawIOBase, io.BufferedIOBase, io.TextIOBase)
    if not isinstance(fd, (*kinds, tempfile._TemporaryFileWrapper)):
        return False
    if not isinstance(_raw(fd), io.FileIO):
        return False
    return not fd.closed and stat.S_ISREG(os.fstat(fd.fileno()).st_mode)


def _raw(fd: Any) -> Any:
    """Return the file below the buffers of *fd*."""
    buffer = getattr(fd, 'buffer', fd)
    return getattr(buffer, 'raw', buffer)


class Reads:
    """The reads of one regular file, in place or in the pool."""

    def __init__(
        self, fd: Any, read: Callable[..., Any], checkpoint: Callable[[], Any]
    ) -> None:
        self._fd = fd
        self._read = read
        self._checkpoint = checkpoint
        self._page_cache = pagecache.PageCache(fd)
        self._kind = str if hasattr(fd, 'buffer') else bytes
        # The pending read. It keeps its answer until fetch() returns it.
        self._job: pool.Job | None = None
        # The answers of the pool, until a caller has all of them.
        self._buffer: buffers.Buffer | None = None

    def read(self, length: int | None = None) -> Any:
        """Read as the file does, with one checkpoint for each fetch."""
        size = _ALL if length is None else operator.index(length)
        if size < 0:
            size = _ALL
        if self._buffer is None and self._goes_in_place(size):
            self._checkpoint()
            return self._read(_size_passed(size))
        return self._read_by_pool(size)

    def _read_by_pool(self, size: int) -> Any:
        buffer = self._buffer
        if buffer is None:
            buffer = buffers.Buffer(self.fetch, 'fd', self._kind)
            self._buffer = buffer
            self._start(size)
        answer = buffer.take(size)
        if self._job is None and not buffer.may_hold():
            self._buffer = None
        return answer

    def fetch(self, size: int) -> Any:
        """Read in place or in the pool, with one checkpoint.

        A read in the pool comes before its checkpoint.
        """
        if self._job is None:
            if self._goes_in_place(size):
                self._checkpoint()
                return self._read(_size_passed(size))
            self._start(size)
        job: Any = self._job
        if job.is_lost():
            raise OSError(errno.ECANCELED, 'fd: a read was lost in a fork')
        job.wait()
        self._checkpoint()
        self._job = None
        return job.answer()

    def close(self) -> None:
        """Wait for the pending read, and close the file."""
        file = self._fd
        if self._job is not None:
            if self._job.is_lost():
                file = _raw(file)  # a lost thread may have locked the buffer
            else:
                self._job.wait()
        self._job = self._buffer = None
        file.close()

    def _start(self, size: int) -> None:
        self._job = pool.Job(self._read_and_ask, _size_passed(size))

    def _read_and_ask(self, size: int) -> Any:
        answer = self._read(size)
        self._page_cache.ask_on(answer)
        return answer

    def _goes_in_place(self, size: int) -> bool:
        """Tell whether the data are cached, or the pool cannot answer here."""
        return self._page_cache.holds(size) or not pool.answers_here()


def _size_passed(size: int) -> int:
    return size if size <= pagecache.MOST else -1
