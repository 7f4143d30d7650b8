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

"""What the probe says of trouble: one line on standard error."""

from collections.abc import Iterator
import contextlib
import os
import re
import sys
from typing import TextIO

from glance_store.cmd.probe import signals

PROGRAM = 'glance-store-probe'

# What is before the @ of an address may be a password.
_CREDENTIALS = re.compile(r'://\S*@')


class Failure(Exception):
    """Why the probe cannot go on, as one line for whoever runs it.

    :param status: what the process ends with
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class BadArgument(Failure):
    """An argument that makes no sense."""

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(f'argument {argument}: {message}', status=2)


def reason(exc: BaseException) -> str:
    """Return what happened, and to which file where that is known."""
    if isinstance(exc, OSError) and exc.strerror:
        if exc.filename is None:
            return exc.strerror
        return f'{exc.filename!r}: {exc.strerror}'
    if isinstance(exc, MemoryError):
        return 'not enough memory'
    return str(exc) or type(exc).__name__


@contextlib.contextmanager
def failing(what: str) -> Iterator[None]:
    """Turn what the machine may refuse into a :class:`Failure`."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as exc:
        # After a signal things fail that are none of the machine's fault.
        signals.stop_if_asked()
        raise Failure(f'{what}: {reason(exc)}') from exc


def plain(text: str) -> str:
    """Return *text* as one line that no terminal takes for a command.

    Nor is there a password in it, where an address has one.
    """
    line = ''.join(
        char if char.isprintable() else ascii(char)[1:-1] for char in text
    )
    return _CREDENTIALS.sub('://***@', line)


def say(message: str) -> None:
    """Print a line on standard error, where there is one."""
    if sys.stderr is None:
        return
    try:
        print(f'{PROGRAM}: {plain(message)}', file=sys.stderr, flush=True)
    except OSError:  # and there is nowhere to say that
        drop(sys.stderr)


def drop(stream: TextIO) -> None:
    """Let nothing come of what could not be written to a stream.

    Python would try it again at its end, and fail again.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def complain(message: str) -> None:
    """Print why it ends, on standard error."""
    say(f'error: {message}')
