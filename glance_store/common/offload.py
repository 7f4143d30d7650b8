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
import importlib
import os
import stat
import sys
from typing import Any

from oslo_config import cfg

from glance_store.common import cooperation


def wanted(source: Any) -> bool:
    """Tell whether reads of a new stream over *source* are to be offloaded."""
    return cfg.CONF.glance_store.offload_file_reads and _suits(source)


def _suits(source: Any) -> bool:
    """Tell whether *source* is a regular file, read as the system does it.

    A socket or a pipe must stay on its hub. So must whatever eventlet itself
    made of a file: to read that in another thread would want a hub there.
    """
    if type(_innermost(source)).__module__.startswith('eventlet.'):
        return False
    try:
        return stat.S_ISREG(os.fstat(source.fileno()).st_mode)
    except (AttributeError, OSError, TypeError, ValueError):
        return False


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
    use it, and no other; its threads do not outlive a fork.
    """
    hub = cooperation.current_hub()
    if hub is None or _pool_was_lost:
        return None
    # Where there is a hub, eventlet is there. This part of it may not be.
    pool = importlib.import_module('eventlet.tpool')
    pool.setup()
    return pool if pool._coro.parent is hub.greenlet else None


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
        self._started = False
        # A native event, monkey-patched or not: a pool's thread sets it, and
        # the stream may have moved to a thread without a hub meanwhile.
        patcher = sys.modules['eventlet.patcher']
        self._done = patcher.original('threading').Event()
        self._answer: Any = None
        self._error: BaseException | None = None

    def wait(self) -> None:
        """Wait for the answer; the first to wait sets the read going.

        Where the pool is of no use, the thread waits as a whole.
        """
        pool = _pool()
        if self._started:
            do = self._done.wait
        else:
            self._started = True
            do = self._run
        if pool is None:
            do()
        else:
            pool.execute(do)

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
        if self._error is not None:
            raise self._error
        return self._answer
