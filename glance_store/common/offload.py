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
a thread of the pool waits for it, and only one green thread for that. What the
page cache holds is read in place.
"""

from collections.abc import Callable
import errno
import importlib
import io
import operator
import os
import stat
import sys
import tempfile
from typing import Any

from oslo_config import cfg

from glance_store.common import buffers
from glance_store.common import cooperation

# One answer of the page cache stands for this many bytes.
_WINDOW = 1024 * 1024

# The size of a read without one; what is missing of it is still above half.
_ALL = sys.maxsize


def reads_of(
    fd: Any, read: Callable[..., Any], checkpoint: Callable[[], object]
) -> 'Reads | None':
    """Return what offloads the reads of *fd*, None where *fd* stays put.

    Sockets, pipes and eventlet's own files need the hub of their thread.
    """
    fd = fd.file if isinstance(fd, tempfile._TemporaryFileWrapper) else fd
    classes = (io.RawIOBase, io.BufferedIOBase, io.TextIOBase)
    if not cfg.CONF.glance_store.offload_file_reads:
        return None
    if not isinstance(fd, classes) or type(fd).__module__.startswith(
        'eventlet.'
    ):
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd.fileno()).st_mode):
            return None
    except (OSError, ValueError):  # in memory only, or closed
        return None
    _pool()  # made with the first stream: it takes some 20 ms
    return Reads(fd, read, checkpoint)


def _pool() -> Any:
    """Return eventlet's pool, None where it cannot answer the caller.

    A process has one pool. It answers the hub that was the first to use it,
    which only the private ``_coro`` tells, and its threads end with a fork.
    """
    hub = cooperation.current_hub()
    if hub is None or hub.greenlet.getcurrent() is hub.greenlet or _lost:
        return None
    pool = importlib.import_module('eventlet.tpool')
    pool.setup()
    answers = getattr(pool._coro, 'parent', None) is hub.greenlet
    return pool if answers else None


_lost = False


def _lose_pool() -> None:
    global _lost
    _lost = 'eventlet.tpool' in sys.modules


os.register_at_fork(after_in_child=_lose_pool)


class _Job:
    """One read in the pool, which goes on when its caller stops waiting."""

    def __init__(self, pool: Any, read: Callable[..., Any], size: int) -> None:
        self._process = os.getpid()
        self._error: BaseException | None = None
        self._answer: Any = None
        # For a thread that the pool does not answer. Monkey-patched or not,
        # this one is native.
        patcher = sys.modules['eventlet.patcher']
        self._done = patcher.original('threading').Event()
        spawn = sys.modules['eventlet'].spawn
        self._green_thread = spawn(pool.execute, self._run, read, size)

    def _run(self, read: Callable[..., Any], size: int) -> None:
        try:
            self._answer = read(-1 if size > _ALL // 2 else size)
        except BaseException as exc:
            self._error = exc
        self._done.set()

    def wait(self) -> None:
        if self._process != os.getpid():
            raise OSError(errno.ECANCELED, 'fd: a read was lost in a fork')
        (self._green_thread if _pool() else self._done).wait()

    def answer(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._answer


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
        text = isinstance(fd, io.TextIOBase)
        can_ask = hasattr(os, 'RWF_NOWAIT') and not text
        self._cached = 0 if can_ask else None
        # The read under way; it keeps its answer until fetch() returns that.
        self._job: _Job | None = None
        # From a read in the pool on, until all that it gave is returned.
        self._buffer: buffers.Buffer | None = None

    def read(self, *args: Any, **kwargs: Any) -> Any:
        """Read as the file does, with one checkpoint."""
        size = _size_asked(args)
        if self._buffer is None:
            if self._is_cached(size) or _pool() is None:
                self._checkpoint()
                return self._read(*args, **kwargs)
            self._buffer = buffers.Buffer(self.fetch, 'fd')
        answer = self._buffer.take(size)
        if not self._buffer.may_hold():
            self._buffer = None
        return answer

    def fetch(self, size: int) -> Any:
        """Read in the pool what would wait; the checkpoint comes after it."""
        if self._job is None and not self._is_cached(size):
            pool = _pool()
            self._job = pool and _Job(pool, self._read, size)
        if self._job is None:
            self._checkpoint()
            return self._read(size)
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
        cached = self._cached
        if cached is None or size > _ALL // 2:
            return False
        if cached < size:
            cached = self._cached = self._ask(size)
            if cached is None or cached < size:
                return False
        self._cached = cached - size
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
