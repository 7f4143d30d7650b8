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

"""How long a running service takes to answer, asked every so often.

A request is due every 10 ms, and one that is kept waiting over many of those
counts each of them, as :mod:`glance_store.cmd.probe.lateness` explains: the
figures are what somebody feels who asks at a random moment. One request is
under way at a time, so that the service has little more to do than before.
"""

import argparse
import base64
import collections
from collections.abc import Callable
import contextlib
import dataclasses
import http.client
import math
import socket
import ssl
import time
import urllib.parse

from glance_store.cmd.probe import errors
from glance_store.cmd.probe import lateness
from glance_store.cmd.probe import signals

# From one request to the next, in seconds.
PERIOD = 0.01

# How long an answer may take, in seconds.
TIMEOUT = 10.0

# How often progress may be shown, in seconds.
SHOWING = 0.5

_PIECE = 65536

clock = time.monotonic
sleep = time.sleep


class Unanswered(Exception):
    """Why a request has no answer that counts, in a few words."""


@dataclasses.dataclass(frozen=True)
class Target:
    """Where to ask.

    :param name: the address, without what may be secret in it
    """

    name: str
    secure: bool
    host: str
    port: int | None
    path: str
    headers: dict[str, str]

    def connect(self) -> http.client.HTTPConnection:
        kind = (
            http.client.HTTPSConnection
            if self.secure
            else http.client.HTTPConnection
        )
        return kind(self.host, self.port, timeout=TIMEOUT)


@dataclasses.dataclass(frozen=True)
class Watched:
    """What was seen; times are in seconds.

    :param target: what was asked
    :param seconds: for how long
    :param requests: how many were made
    :param failures: how many of them failed, by reason
    :param failed_at: when, from the beginning
    :param moments: for each time that a request was due, when that was, from
        the beginning, and how long it took from then to the answer
    """

    target: Target
    seconds: float
    requests: int
    failures: collections.Counter[str]
    failed_at: list[float]
    moments: list[tuple[float, float]]

    def percentile(self, percent: float) -> float:
        """Return the answer time that so many of the moments kept to."""
        ordered = sorted(late for _, late in self.moments)
        return lateness.percentile(ordered, percent)

    def share_late(self, target: float) -> float:
        """Return in which part of the moments the service stalled.

        That is where an answer took longer than the median, which is what it
        takes the service when nothing is in its way, by more than a target.
        """
        limit = self.percentile(50) + target
        late = sum(late > limit for _, late in self.moments)
        return late / len(self.moments)


def target(url: str) -> Target:
    """Turn an argument into where to ask."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ''
        host.encode('idna')
        answer = Target(
            name=public(url),
            secure=parts.scheme == 'https',
            host=host,
            port=parts.port,
            path=_path(parts),
            headers={'User-Agent': errors.PROGRAM, **_credentials(parts)},
        )
    except ValueError:
        # Of a UnicodeError, too. What is in the address is not repeated.
        raise argparse.ArgumentTypeError('this is no address') from None
    if parts.scheme not in ('http', 'https') or not host:
        raise argparse.ArgumentTypeError(
            'this is no http:// or https:// address'
        )
    return answer


def _path(parts: urllib.parse.SplitResult) -> str:
    path = urllib.parse.quote(parts.path or '/', safe="/%:@!$&'()*+,;=")
    query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=?")
    return f'{path}?{query}' if query else path


def _credentials(parts: urllib.parse.SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    user, password = (
        urllib.parse.unquote(part or '')
        for part in (parts.username, parts.password)
    )
    token = base64.b64encode(f'{user}:{password}'.encode()).decode()
    return {'Authorization': f'Basic {token}'}


def public(url: str) -> str:
    """Return an address without user, password, query and fragment."""
    parts = urllib.parse.urlsplit(url)
    place = parts.netloc
    if '@' in place:
        place = '***@' + place.rpartition('@')[2]
    query = '***' if parts.query or parts.fragment else ''
    return urllib.parse.urlunsplit(
        (parts.scheme, place, parts.path, query, '')
    )


class Asker:
    """A client that keeps its connection, as those of a service do."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._connection = target.connect()
        self._used = False

    def ask(self) -> None:
        """Ask once, and take the whole answer.

        :raises Unanswered: where there is none within the time, or another
            one than 200
        """
        try:
            try:
                self._ask()
            except ConnectionError:
                # Between two requests a server may close what it likes.
                if not self._used:
                    raise
                self.close()
                self._ask()
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            raise Unanswered(_reason(exc)) from exc
        except Unanswered:
            self.close()
            raise

    def _ask(self) -> None:
        end = clock() + TIMEOUT
        self._connection.request(
            'GET', self._target.path, headers=self._target.headers
        )
        # What the kernel holds back is not to be taken for the service's.
        self._connection.sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1
        )
        response = self._connection.getresponse()
        while response.read1(_PIECE):
            if clock() > end:
                raise TimeoutError
        # Of its own accord it ends with read() only.
        response.close()
        self._used = True
        if response.status != 200:
            raise Unanswered(_refusal(response))

    def close(self) -> None:
        """Hang up; the next request is over a new connection."""
        self._used = False
        self._connection.close()


def _refusal(response: http.client.HTTPResponse) -> str:
    answer = f'answered {response.status} {response.reason}'.rstrip()
    place = response.getheader('Location')
    if response.status // 100 == 3 and place is not None:
        with contextlib.suppress(ValueError):
            return f'{answer}: a redirect to {public(place)!r}, ask that'
    return answer


def _reason(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return f'no answer within {TIMEOUT:g} s'
    if isinstance(exc, socket.gaierror):
        return f'the name of the host is not known: {exc.strerror}'
    if isinstance(exc, http.client.RemoteDisconnected):
        return 'hung up without an answer'
    if isinstance(exc, http.client.HTTPException):
        return f'the answer is not HTTP: {type(exc).__name__}'
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f'the certificate does not hold: {exc.verify_message}'
    return errors.reason(exc)


def watch(
    target: Target,
    seconds: float | None,
    show: Callable[[float, int], object],
) -> Watched:
    """Ask until Ctrl-C or for some time, and say what was seen.

    :param show: is told now and then how many seconds have passed, and how
        many requests were made
    :raises Failure: where the first request is not answered
    """
    asker = Asker(target)
    with contextlib.closing(asker):
        try:
            asker.ask()
        except Unanswered as exc:
            raise errors.Failure(
                f'argument --url: {target.name!r}: {exc}'
            ) from exc
        watching = _Watching(asker, show)
        try:
            watching.run(math.inf if seconds is None else seconds)
        except signals.Stopped as stopped:
            if stopped.name != 'SIGINT' or not watching.turns:
                raise  # any other way than it is meant to end
    return watching.watched(target)


class _Watching:
    def __init__(
        self, asker: Asker, show: Callable[[float, int], object]
    ) -> None:
        self._asker = asker
        self._show = show
        self._start = clock()
        self._failures: collections.Counter[str] = collections.Counter()
        self._failed_at: list[float] = []
        # When each request was due, and when it was answered.
        self.turns: list[tuple[float, float]] = []

    def run(self, seconds: float) -> None:
        end = self._start + seconds
        shown = due = self._start
        while due < end:
            sleep(max(0.0, due - clock()))
            answered = self._turn(due)
            due += PERIOD * (1 + lateness.missed(due, answered, PERIOD))
            if clock() - shown > SHOWING:
                self._show(clock() - self._start, len(self.turns))
                # What that takes is not the service's fault.
                shown = due = max(due, clock())

    def _turn(self, due: float) -> float:
        """Ask; what is under way when a signal comes counts as far."""
        try:
            self._asker.ask()
        except Unanswered as exc:
            self._failures[str(exc)] += 1
            self._failed_at.append(due - self._start)
        finally:
            answered = clock()
            self.turns.append((due, answered))
        return answered

    def watched(self, target: Target) -> Watched:
        """Say what was seen."""
        return Watched(
            target,
            seconds=self.turns[-1][1] - self._start,
            requests=len(self.turns),
            failures=self._failures,
            failed_at=self._failed_at,
            moments=[
                (due - self._start, late)
                for due, late in lateness.moments(self.turns, PERIOD)
            ],
        )
