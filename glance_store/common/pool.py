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

"""Calls in eventlet's thread pool that outlive an interrupted wait."""

from collections.abc import Callable
import importlib
import os
import sys
from typing import Any

from glance_store.common import cooperation

_lost = False


def _lose_pool() -> None:
    global _lost
    tpool = sys.modules.get('eventlet.tpool')
    _lost = getattr(tpool, '_coro', None) is not None


os.register_at_fork(after_in_child=_lose_pool)


def answers_here() -> bool:
    """Tell whether the pool can answer the caller; the first call makes it.

    A process has one pool. The pool answers the hub that used it first, which
    the private ``_coro`` names. The threads of the pool end with a fork. The
    green thread of a hub cannot wait.
    """
    hub = cooperation.current_hub()
    if hub is None or hub.greenlet.getcurrent() is hub.greenlet or _lost:
        return False
    tpool = importlib.import_module('eventlet.tpool')
    tpool.setup()
    return getattr(tpool._coro, 'parent', None) is hub.greenlet


class Job:
    """One call in the pool, which outlives an interrupted wait."""

    def __init__(self, call: Callable[[int], Any], size: int) -> None:
        self._call = call
        self._size = size
        self._process = os.getpid()
        self._outcome: tuple[Any, BaseException | None] | None = None
        # A native lock, also after eventlet.monkey_patch().
        patcher = sys.modules['eventlet.patcher']
        self._lock = patcher.original('threading').Lock()
        execute = sys.modules['eventlet.tpool'].execute
        self._waiter = sys.modules['eventlet'].spawn(execute, self._run)

    def is_lost(self) -> bool:
        """Tell whether the call was made before a fork."""
        return self._process != os.getpid()

    def wait(self) -> None:
        """Wait for the call to end; the wait may be interrupted.

        Where the pool cannot answer, the native thread waits. It makes the
        call itself if the pool has not begun.
        """
        if not answers_here():
            self._run()
        while self._outcome is None:  # another switch may end one wait
            self._waiter.wait()

    def answer(self) -> Any:
        """Return the answer of the ended call, or raise its exception."""
        answer, error = self._outcome or (None, None)
        if error is not None:
            raise error
        return answer

    def _run(self) -> None:
        with self._lock:
            if self._outcome is None:
                try:
                    self._outcome = self._call(self._size), None
                except BaseException as exc:
                    self._outcome = None, exc
