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

"""Calls in eventlet's thread pool that a caller may stop to wait for."""

from collections.abc import Callable
import errno
import importlib
import os
import sys
from typing import Any

from glance_store.common import cooperation

_lost = False


def _lose_pool() -> None:
    global _lost
    _lost = 'eventlet.tpool' in sys.modules


os.register_at_fork(after_in_child=_lose_pool)


def answers_here() -> bool:
    """Tell whether the pool can answer the caller; make it for the first.

    A process has one pool. It answers the hub that was the first to use it,
    which only the private ``_coro`` tells, and its threads end with a fork.
    The green thread of a hub can wait for nothing.
    """
    hub = cooperation.current_hub()
    if hub is None or hub.greenlet.getcurrent() is hub.greenlet or _lost:
        return False
    tpool = importlib.import_module('eventlet.tpool')
    tpool.setup()
    return getattr(tpool._coro, 'parent', None) is hub.greenlet


class Job:
    """One call in the pool, which goes on when its caller stops waiting."""

    def __init__(self, call: Callable[[int], Any], size: int) -> None:
        self._process = os.getpid()
        self._outcome: tuple[Any, BaseException | None] = (None, None)
        # For a thread that the pool cannot answer: native, patched or not.
        patcher = sys.modules['eventlet.patcher']
        self._done = patcher.original('threading').Event()
        execute = sys.modules['eventlet.tpool'].execute
        spawn = sys.modules['eventlet'].spawn
        self._green_thread = spawn(execute, self._run, call, size)

    def _run(self, call: Callable[[int], Any], size: int) -> None:
        try:
            self._outcome = call(size), None
        except BaseException as exc:
            self._outcome = None, exc
        self._done.set()

    def wait(self) -> None:
        """Wait for the call to end; the wait may be interrupted."""
        if self._process != os.getpid():
            raise OSError(errno.ECANCELED, 'fd: a read was lost in a fork')
        (self._green_thread if answers_here() else self._done).wait()

    def answer(self) -> Any:
        """Return or raise what the call did."""
        answer, error = self._outcome
        if error is not None:
            raise error
        return answer
