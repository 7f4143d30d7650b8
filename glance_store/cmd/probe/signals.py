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

"""How the probe ends on a signal: with one line, and nothing left behind."""

from collections.abc import Iterator
import contextlib
import signal

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Stopped(SystemExit):
    """A signal asked for the end; the exit status is 128 and its number.

    It is a SystemExit because a hub lets that through, and little else.
    """

    def __init__(self, number: int) -> None:
        self.status = 128 + number
        self.name = signal.Signals(number).name
        super().__init__(self.status)


# The numbers of those that came.
received: list[int] = []

# Whether the first of them raises nothing, and whether only that one raises.
_asks = False
_once = False


def _stop(number: int, _: object) -> None:
    received.append(number)
    first = len(received) == 1
    if _once and not first and number == signal.SIGINT:
        return
    if not _asks or not first:
        raise Stopped(number)


def stop_if_asked() -> None:
    """Raise what a signal did not raise when it came."""
    if received:
        raise Stopped(received[0])


@contextlib.contextmanager
def asking_first() -> Iterator[None]:
    """Let the first signal only ask for the end, which streams look for.

    An exception that comes from nowhere may break a hub or the queues of a
    pool, and is dropped where Python cannot raise it, so that the process
    would not end. Every stream looks after each chunk, which is as soon as a
    read could have been interrupted. Where a read takes too long for
    somebody, a second signal raises at once.
    """
    global _asks
    _asks = True
    try:
        yield
    finally:
        _asks = False


@contextlib.contextmanager
def interrupted_once() -> Iterator[None]:
    """Let the first Ctrl-C raise, and any further one do nothing.

    That is for what goes on to say what it has seen until then. ``timeout -s
    INT``, for one, sends two.
    """
    global _once
    _once = True
    try:
        yield
    finally:
        _once = False


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Let the signals that end a process raise an exception instead.

    So everything is put away behind it. One that is ignored stays ignored:
    that is how ``nohup`` and a shell's ``&`` ask for it.
    """
    received.clear()
    before = {
        number: signal.signal(number, _stop)
        for number in SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    except Stopped:
        # A second Ctrl-C must not disturb the end that the first asked for.
        before = dict.fromkeys(before, signal.SIG_IGN)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Let signals wait."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
