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

"""Reads of regular files in eventlet's native thread pool.

Storage that takes its time over a read stops the hub for as long: a regular
file always counts as ready, so there is nothing a hub could wait for. A
thread of the pool can wait instead, and the green thread waits for that one.
"""

from collections.abc import Callable
import errno
import importlib
import io
import os
import stat
import sys
import tempfile
from typing import Any

from oslo_config import cfg

from glance_store.common import cooperation


def wanted(source: Any) -> bool:
    """Tell whether reads of a new stream over *source* are to be offloaded."""
    return cfg.CONF.glance_store.offload_file_reads and _suits(source)


def _suits(source: Any) -> bool:
    """Tell whether *source* is a regular file, read as the system does it.

    A socket or a pipe must stay on its hub. So must eventlet's files, and
    what only wraps a file: in another thread its reading might want a hub
    there. That leaves the classes of the io module, and what is derived from
    them.
    """
    try:
        if isinstance(source, tempfile._TemporaryFileWrapper):
            source = source.file
        if not isinstance(source, _FILES):
            return False
        green = type(_innermost(source)).__module__.startswith('eventlet.')
        return not green and is_regular(source)
    except Exception:  # of a class derived from them, or said to be so
        return False


def is_regular(source: Any) -> bool:
    """Tell whether a regular file is behind *source*, which has a fileno."""
    return stat.S_ISREG(os.fstat(source.fileno()).st_mode)


_FILES = (io.RawIOBase, io.BufferedIOBase, io.TextIOBase)


def _innermost(source: Any) -> Any:
    """Return what is below the text and buffer layers of the io module."""
    for layer in ('buffer', 'raw'):
        source = getattr(source, layer, source)
    return source


def possible() -> bool:
    """Tell whether the calling thread has a hub that the pool answers."""
    return _pool() is not None


def _pool() -> Any:
    """Return eventlet's pool, as a module, None where it is of no use.

    There is one pool in a process. It answers the hub that was the first to
    use it, and no other, and its threads do not outlive a fork. Nor can the
    hub's own green thread wait for anything.
    """
    hub = cooperation.current_hub()
    if hub is None or _pool_was_lost:
        return None
    if hub.greenlet.getcurrent() is hub.greenlet:
        return None
    # Where there is a hub, eventlet is there. This part of it may not be.
    pool = importlib.import_module('eventlet.tpool')
    pool.setup()
    # The pool has no such thing where it could not be made.
    parent = getattr(pool._coro, 'parent', None)
    return pool if pool._nthreads and parent is hub.greenlet else None


_pool_was_lost = False


def _after_fork() -> None:
    global _pool_was_lost
    pool = sys.modules.get('eventlet.tpool')
    _pool_was_lost = getattr(pool, '_setup_already', False)


os.register_at_fork(after_in_child=_after_fork)


class Job:
    """One read in the pool, which goes on whoever stops waiting for it."""

    def __init__(
        self, read: Callable[..., Any], args: Any, kwargs: Any
    ) -> None:
        self.asked = args, kwargs
        self._read = read
        self._process = os.getpid()
        # What the hub hears of the pool, and what is there for everybody
        # else. The latter is native, monkey-patched or not.
        self._answered: Any = None
        patcher = sys.modules['eventlet.patcher']
        self._done = patcher.original('threading').Event()
        self._answer: Any = None
        self._error: BaseException | None = None

    def lost(self) -> bool:
        """Tell whether only a parent process will ever know the answer."""
        return self._process != os.getpid()

    def wait(self) -> None:
        """Wait for the answer; the first to wait sets the read going.

        As many as like may wait and stop waiting: that takes no thread of the
        pool. Where the pool is of no use, the thread waits as a whole.
        """
        if self.lost():
            self._error = OSError(errno.ECANCELED, 'lost in a fork: fd.read')
            return
        if self._done.is_set():
            return
        pool = _pool()
        if self._answered is None:
            if pool is None:
                self._run()
                return
            # As tpool.execute does it, which would have one waiter only.
            self._answered = pool.event.Event()
            pool._reqq.put((self._answered, self._run, (), {}))
        if pool is None:
            self._done.wait()
        else:
            self._answered.wait()

    def _run(self) -> None:
        try:
            args, kwargs = self.asked
            self._answer = self._read(*args, **kwargs)
        except BaseException as exc:
            self._error = exc
        finally:
            self._done.set()

    def result(self) -> Any:
        """Return what was read, or raise what was raised."""
        error, self._error = self._error, None
        if error is None:
            return self._answer
        try:
            raise error
        finally:
            del error
