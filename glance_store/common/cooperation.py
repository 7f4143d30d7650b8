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

"""Which scheduler the calling thread has, when a stream yields, the trace.

All that differs between green threads and native ones is in this module. It
never imports eventlet: where nobody else has, there is no hub to yield to.
"""

import contextlib
import functools
import importlib
import os
import re
import sys
import time
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging

from glance_store.common import opts

LOG = logging.getLogger(__name__)

opts.register_opts(cfg.CONF)


class _Wakeup(functools.partial[Any]):
    """What a hub needs of a timer, to switch back to a green thread.

    eventlet's own ``Timer`` is made, called and cancelled by functions written
    in Python. With this one, a stream that yields after every chunk of 4 KiB
    is a tenth faster, which is all that the rest of it costs there.
    """

    seconds = 0
    # Whether the hub is to pass over it: it is called once and gone otherwise.
    called = False

    def __lt__(self, other: object) -> bool:
        return id(self) < id(other)


class Shared:
    """What green threads may share, one of them being inside at a time.

    A source may switch by itself, while it waits for a socket say, and not
    every source likes to be entered again meanwhile: a generator refuses. As
    long as that does not happen, entering costs a mark; only once it did,
    there is a door, with a queue before it, which then stays. To enter::

        if self.busy:
            self.wait_for_entry()
        self.busy = True

    and to leave::

        if self.door is None:
            self.busy = False
        else:
            self.leave()

    Written out at each place: two calls for each chunk would be a third of
    what a stream within an interval costs.
    """

    def __init__(self) -> None:
        # Whether somebody is inside, or might be: with a door it stays true.
        self.busy = False
        self.door: Any = None

    def wait_for_entry(self) -> None:
        """Queue up, except on a native thread: it has nobody to wait with."""
        if 'eventlet.hubs' not in sys.modules:  # then there are no others
            return
        if self.door is None:
            # Whoever is inside releases it, not having seen it when entering.
            semaphore = importlib.import_module('eventlet.semaphore')
            self.door = semaphore.Semaphore(0)
        hub = current_hub()
        if hub is None:
            self.door.counter -= 1
            return
        waits = hub.greenlet.getcurrent() != hub.greenlet
        if not self.door.acquire(blocking=waits):
            raise RuntimeError('the hub itself cannot wait for a source')

    def leave(self) -> None:
        """Let in who is first in the queue."""
        if current_hub() is not None:
            self.door.release()
        else:  # which would make a hub for whoever waits on another
            self.door.counter += 1


# What goes into a log line is quoted, so that a line break in it begins no
# line of its own, and cut to this many characters.
_LENGTH = 200

# What a message holds where it shows bytes, or what could not be decoded.
_SHOWN_BYTES = re.compile(r'\bb[\'"]|\ufffd')


def type_name(value: object) -> str:
    """Return what to call the type of *value*, quoted unless it is plain."""
    # A class can have a name that is no name, its own class even a property.
    name = str.__str__(type.__dict__['__name__'].__get__(type(value)))
    if name.isidentifier() and name.isprintable() and len(name) <= _LENGTH:
        return name
    return repr(name[:_LENGTH])


def name_of(source: Any) -> str:
    """Return what the log calls *source*: its type, and a file's name.

    Anything else about *source* may be image data. A name that contains
    ``://`` is a URL and may let whoever reads it in, so it is shown without
    user and password (all that is before its last ``@``) and without query
    and fragment (all from its first ``?`` or ``#`` on). Its path is shown.
    """
    kind = type_name(source)
    try:
        name = str.__str__(os.fsdecode(source.name))
    except Exception:
        return kind
    if '://' in name:
        name = _without_secrets(name)
    return f'{kind} {name[:_LENGTH]!r}'


def description_of(error: Exception) -> str:
    """Return what the log says of an error: its type, and its message.

    Each word of the message is shown as :func:`name_of` shows a URL, as many
    a message quotes one, whole or in part. There is no message where it may
    hold image data: where it shows bytes or characters that are no text,
    where the error is one of a codec, or was made of anything but text,
    numbers and other such errors.
    """
    kind = type_name(error)
    try:
        message = str.__str__(str(error)) if _of_text(error) else ''
    except Exception:
        return kind
    words = message.split()
    if _SHOWN_BYTES.search(message) or not ''.join(words).isprintable():
        return kind
    shown = ' '.join(map(_without_secrets, words))
    return f'{kind}: {shown[:_LENGTH]!r}' if shown else kind


def _without_secrets(url: str) -> str:
    # Of a password with any of these characters in it, nothing is left.
    scheme = re.match('[A-Za-z][A-Za-z0-9+.-]*://', url)
    start = scheme.end() if scheme else 0
    shown = re.split('[?#]', url, maxsplit=1)[0]
    return shown[:start] + shown[max(start, url.rfind('@') + 1) :]


def _of_text(error: BaseException) -> bool:
    """Tell whether nothing but text, numbers and such errors made *error*."""
    return not isinstance(error, UnicodeError) and all(
        _of_text(arg)
        if isinstance(arg, BaseException)
        else isinstance(arg, str | int | float | None)
        for arg in error.args
    )


def log(level: int, message: str, *args: object) -> None:
    """Log without ever failing: a broken handler must not break a stream."""
    with contextlib.suppress(Exception):
        LOG.log(level, message, *args)


# What a stream does after each chunk. Wanted: on a thread without a hub, or
# before the interval is over, as near to nothing as can be; a yield at the
# price of the switch; a trace that costs nothing while it is off. So a stream
# asks due() first, and only when that is true puts the chunk where an
# interruption cannot lose it and calls take(). Whether there is a trace is
# settled when the stream is made: an untraced stream counts nothing.


class Turns:
    """When one stream yields: after each chunk, or once an interval."""

    __slots__ = ('_interval', 'until')

    # Whether each chunk is to be told about, even where nothing yields.
    traced = False

    def __init__(self, interval: float) -> None:
        self._interval = interval
        # Nothing is due before that; 0 where there is no interval.
        self.until = time.monotonic() + interval if interval else 0.0

    def due(self) -> Any:
        """Return the hub that is to have a turn now, None where none is.

        eventlet's own ``get_hub`` would make a hub, which holds a descriptor
        for epoll until the thread ends. There is no public way to only look,
        so this looks where ``get_hub`` keeps it: in a thread-local of that
        module, named so since long before the oldest eventlet admitted here.
        Its ``__dict__`` is asked because a missing attribute of a
        thread-local costs ten times as much.
        """
        if self.until and time.monotonic() < self.until:
            return None
        if 'eventlet.hubs' not in sys.modules:
            return None
        try:
            return sys.modules['eventlet.hubs']._threadlocal.__dict__.get(
                'hub'
            )
        except AttributeError:  # in the middle of its import
            return None

    def take(self, hub: Any, chunk: object) -> None:
        """Let every other green thread that is ready run once: a yield.

        *chunk* is the one that was just taken. Whatever is thrown into the
        green thread meanwhile comes out here, so it must be in a safe place.

        This does what ``eventlet.sleep(0)`` does, less finding the hub again.
        In the hub's own green thread (a timer's callback, or a coroutine on
        the asyncio hub) nothing can be yielded to, and nothing happens.
        """
        current = hub.greenlet.getcurrent()
        if current is hub.greenlet:
            return
        wakeup = _Wakeup(current.switch, self)
        hub.add_timer(wakeup)
        woken = None
        try:
            woken = hub.switch()
        finally:
            # Not so where it was interrupted, or switched to by another.
            if woken is not self:
                wakeup.called = True
                hub.timer_canceled(wakeup)
            if self._interval:
                self.until = time.monotonic() + self._interval

    def end(self) -> None:
        """Hear that the stream has ended; once or often is the same."""


_ALWAYS = Turns(0)


def current_hub() -> Any:
    """Return the calling thread's hub, None where it has none; make none."""
    return _ALWAYS.due()


class TracedTurns(Turns):
    """Turns that tell the log, at DEBUG, about each yield and the end."""

    __slots__ = (
        '_away',
        '_bytes',
        '_chunks',
        '_ended',
        '_name',
        '_turns',
        '_yields',
    )

    traced = True

    def __init__(self, interval: float, source: object) -> None:
        # Without an interval of its own: it is to hear of every chunk.
        super().__init__(0)
        self._turns = Turns(interval)
        self._name = name_of(source)
        self._chunks = self._bytes = self._yields = 0
        self._away = 0.0
        self._ended = False

    def due(self) -> Any:
        return self

    def take(self, _: Any, chunk: object) -> None:
        size = _size_of(chunk)
        if size != 0:
            self._chunks += 1
            self._bytes += size or 0
        hub = self._turns.due()
        if hub is not None:
            self._yield(hub, chunk)
        elif size != 0 and self._chunks == 1 and current_hub() is None:
            self._log('does not yield: this thread has no hub')

    def _yield(self, hub: Any, chunk: object) -> None:
        left = time.monotonic()
        try:
            self._turns.take(hub, chunk)
        finally:
            away = time.monotonic() - left
            self._yields += 1
            self._away += away
            self._log('yielded, away for %.6f s', away)

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._log(
                'ended: yields: %d, away for %.6f s', self._yields, self._away
            )

    def _log(self, event: str, *args: object) -> None:
        log(
            logging.DEBUG,
            f'%s: %d chunks, %d bytes: {event}',
            self._name,
            self._chunks,
            self._bytes,
            *args,
        )


def _size_of(chunk: object) -> int | None:
    """Return how many bytes (of text: characters) *chunk* holds.

    None is for an item that is no image data: it counts as a chunk, but its
    bytes are not known.
    """
    if chunk is None:
        return 0
    if isinstance(chunk, memoryview):
        return chunk.nbytes
    if isinstance(chunk, bytes | bytearray | str):
        return len(chunk)
    return None


def turns(source: object) -> Turns:
    """Return the turns of a new stream over *source*."""
    interval = cfg.CONF.glance_store.cooperative_yield_interval
    if LOG.isEnabledFor(logging.DEBUG):
        return TracedTurns(interval, source)
    return Turns(interval)
