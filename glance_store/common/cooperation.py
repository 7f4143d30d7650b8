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

"""When a stream yields, which stream goes next, and the trace.

``utils`` and ``offload`` call the checkpoint. This module finds the hub of a
native thread. It uses eventlet where the program has imported it, and works
without it.
"""

import collections
from collections.abc import Callable
import contextlib
import os
import re
import sys
import time
from typing import Any, ParamSpec, TypeVar

from oslo_config import cfg
from oslo_log import log as logging

from glance_store.common import opts

LOG = logging.getLogger(__name__)

P = ParamSpec('P')
T = TypeVar('T')

# Many streams on a hub divide the interval down to this, in seconds. A slice
# far below the work of another green thread would starve the streams.
LEAST_SLICE = 0.001

opts.register_opts(cfg.CONF)


# The hub of each native thread, once the program has imported eventlet.
_hubs: Any = None


def current_hub() -> Any:
    """Return the hub of the calling native thread, None where it has none.

    ``eventlet.hubs.get_hub()`` would make a hub. Its epoll descriptor stays
    open until the thread ends. So this function reads the thread-local of
    eventlet, which is private. The ``__dict__`` answers ten times faster than
    an attribute that is missing.
    """
    global _hubs
    if _hubs is None:
        # The thread-local is missing while eventlet is being imported.
        module = sys.modules.get('eventlet.hubs')
        _hubs = getattr(module, '_threadlocal', None)
    return None if _hubs is None else _hubs.__dict__.get('hub')


# The streams of one hub that wait for their yield to end.
#
# A stream joins at the end of the queue. Each round of the hub lets in the
# first one. So everything else on the hub waits for one slice and its last
# chunk, for any number of streams. Both steps cost O(1). An interrupted yield
# leaves from anywhere in the queue, which costs O(n).
#
# The queue is a deque of green threads. A timer of 0 seconds switches to the
# first of them. A hub runs a timer that another timer sets in its next round,
# after a look at its sockets. So the queue sets the timer again when a slice
# ends. An earlier timer would overtake the timers that fell due in the slice.
#
# An exception may arrive between any two steps. So a stream always removes its
# entry, and each stream that joins ensures the timer.


class Queue:
    """The waiting streams of one hub, and the deadline of the others."""

    __slots__ = ('_hub', '_loop', '_spare', '_timer', '_waiting', 'deadline')

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._waiting: collections.deque[Any] = collections.deque()
        # The last timer and the one before it, in turns. A new timer for each
        # yield would cost an eighth of the yield.
        self._timer: Any = None
        self._spare: Any = None
        # The green thread of the hub when the timer was set. hub.abort() ends
        # that green thread and drops all timers.
        self._loop: Any = None
        # Streams with an interval skip their yields until this moment of
        # time.monotonic().
        self.deadline = 0.0

    def wait(self, green_thread: Any, interval: float) -> None:
        """Let the hub run everything else, and return in queue order."""
        try:
            try:
                self._waiting.append(green_thread)
                self._ensure_timer()
                let_in = self._hub.switch() is self
            finally:
                self._leave(green_thread)
        except BaseException:
            self._leave(green_thread)  # the finally may not have begun
            raise
        if let_in:
            self.deadline = interval and self._end_of_slice(interval)

    def _leave(self, green_thread: Any) -> None:
        if green_thread in self._waiting:
            self._waiting.remove(green_thread)

    def _end_of_slice(self, interval: float) -> float:
        share = interval / (1 + len(self._waiting))
        return time.monotonic() + min(interval, max(share, LEAST_SLICE))

    def _ensure_timer(self) -> None:
        timer, spare = self._timer, self._spare
        loop = self._hub.greenlet
        if timer is not None and not timer.called:
            if loop is self._loop and not loop.dead:
                return
            timer.cancel()
            spare = None  # if cancelled as well, the hub may still hold it
        self._loop = loop
        if spare is None:
            new = self._hub.schedule_call_global(0, self._let_in_one)
        else:
            new = spare
            # A timer drops its function when it is called.
            new.tpl = self._let_in_one, (), {}
            self._hub.add_timer(new)
        self._timer, self._spare = new, timer
        new.called = False

    def _let_in_one(self) -> None:
        waiting = self._waiting
        try:
            try:
                if waiting:
                    waiting[0].switch(self)
            finally:
                if waiting and self._timer.called:
                    self._ensure_timer()
        except BaseException:
            self._ensure_timer()  # the finally may not have begun
            raise


class Stream:
    """The yields over one source, by the options of the moment it is made."""

    __slots__ = ('_interrupted', '_interval')

    def __init__(self) -> None:
        options = cfg.CONF.glance_store
        self._interval: float = options.cooperative_yield_interval or 0
        self._interrupted = False

    def checkpoint(self) -> bool:
        """Yield if a yield is due, and tell whether it was.

        An interrupted yield raises, and counts as made. The next checkpoint
        then returns at once. So a caller makes progress even where each of
        its waits times out.
        """
        # This is current_hub() inline, since it runs for every chunk.
        if _hubs is None and 'eventlet.hubs' not in sys.modules:
            return False
        hub = current_hub() if _hubs is None else _hubs.__dict__.get('hub')
        if hub is None:
            return False
        try:
            queue = hub.glance_store_queue
        except AttributeError:
            queue = hub.glance_store_queue = Queue(hub)
        if self._interrupted:
            self._interrupted = False
            return False
        if self._interval and time.monotonic() < queue.deadline:
            return False
        loop = hub.greenlet
        green_thread = loop.getcurrent()
        if green_thread is loop:
            return False  # the hub cannot yield to itself
        try:
            queue.wait(green_thread, self._interval)
        except BaseException:
            self._interrupted = True
            raise
        return True

    def counted(
        self, fetch: Callable[P, T], of_items: bool = False
    ) -> Callable[P, T]:
        """Return *fetch*, or a wrapper that counts its answers."""
        return fetch

    def close(self) -> None:
        """Note the end of the stream; idempotent."""


class TracedStream(Stream):
    """A stream that logs its yields and its end at DEBUG."""

    __slots__ = (
        '_away',
        '_begun',
        '_bytes',
        '_chunks',
        '_ended',
        '_name',
        '_yields',
    )

    def __init__(self, source: object) -> None:
        super().__init__()
        self._name = name_of(source)
        self._chunks = self._bytes = self._yields = 0
        self._away = 0.0
        self._begun = self._ended = False

    def checkpoint(self) -> bool:
        if not self._begun:
            self._begun = True
            if current_hub() is None:
                self._log('runs on a thread without a hub, never yields')
        left = time.monotonic()
        yielded = True  # also where the yield is interrupted
        try:
            yielded = super().checkpoint()
        finally:
            if yielded:
                away = time.monotonic() - left
                self._yields += 1
                self._away += away
                self._log('yielded, away for %.6f s', away)
        return yielded

    def counted(
        self, fetch: Callable[P, T], of_items: bool = False
    ) -> Callable[P, T]:
        def counting(*args: P.args, **kwargs: P.kwargs) -> T:
            answer = fetch(*args, **kwargs)
            # An answer without a length or a truth value breaks nothing.
            with contextlib.suppress(Exception):
                if of_items or answer:
                    self._chunks += 1
                    self._bytes += _bytes_of(answer)
                elif answer is not None and not _asks_for_0(args, kwargs):
                    self.close()
            return answer

        return counting

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._log(
                'ended: %d yields, away for %.6f s', self._yields, self._away
            )

    def _log(self, event: str, *args: object) -> None:
        # A handler that raises must not break the stream.
        with contextlib.suppress(Exception):
            LOG.debug(
                f'%s: %d chunks, %d bytes: {event}',  # noqa: G004
                self._name,
                self._chunks,
                self._bytes,
                *args,
            )


def _asks_for_0(args: Any, kwargs: Any) -> bool:
    """Tell whether a size of 0 is among the arguments of a read."""
    return any(type(x) is int and x == 0 for x in (*args, *kwargs.values()))


def _bytes_of(item: object) -> int:
    if isinstance(item, memoryview):
        return item.nbytes
    return len(item) if isinstance(item, bytes | bytearray | str) else 0


def stream_over(source: object) -> Stream:
    """Return a new stream, traced where the log is at DEBUG now."""
    debug = LOG.isEnabledFor(logging.DEBUG)
    return TracedStream(source) if debug else Stream()


def name_of(source: Any) -> str:
    """Return the name of *source* in the log: its type, and its file name.

    The file name is quoted and cut. A URL keeps its scheme, host and path.
    """
    kind = type(source).__name__[:200]
    try:
        name = os.fsdecode(source.name)
    except Exception:  # the name is missing, or no text
        return kind
    if '://' in name:
        scheme, _, rest = name.partition('://')
        shown = re.split('[?#]', rest)[0]
        if '@' in rest[len(shown) :]:
            shown = ''  # the path may be a part of a password
        name = f'{scheme}://{shown.rpartition("@")[2]}'
    return f'{kind} {name[:200]!r}'
