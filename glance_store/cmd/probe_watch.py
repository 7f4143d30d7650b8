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

"""Ask a running service on a schedule, and tell whether it stalls."""

import argparse
import collections
from collections.abc import Callable, Sequence
import contextlib
import functools
import json
from multiprocessing.connection import Connection
from multiprocessing.pool import ThreadPool
import operator
import re
import signal
import statistics
import threading
import time
from typing import Any, NamedTuple

import requests
from requests import adapters
from rich import console

from glance_store.cmd import probe, probe_report, probe_streams

# Requests that are due in a second, and those under way at most. A service
# that takes 600 ms for each answer still gets every request when it is due.
RATE = 50
THREADS = 32

# Seconds that an answer may take.
TIMEOUT = 10.0
TIMED_OUT = f'no answer within {TIMEOUT:g} s'

HINT = """
A service stalls under load only. Have clients download images meanwhile, or
add --download IMAGE_URL."""

CONTENT = operator.attrgetter('content')

clock = time.monotonic


class Answer(NamedTuple):
    """When a request was due, its wait from then, and why it failed."""

    due: float
    wait: float
    failure: str


def shown(url: str) -> str:
    """Return an address without user, password, query and fragment."""
    return re.sub('//[^/?#]*@', '//', re.split('[?#]', url)[0])


def session_of(headers: dict[str, str]) -> requests.Session:
    session = requests.Session()
    session.headers.update(headers)
    adapter = adapters.HTTPAdapter(pool_maxsize=THREADS)
    session.mount('http://', adapter)
    session.mount('https://', adapter)
    return session


def failure_of(
    session: requests.Session, url: str, take: Callable[[Any], object]
) -> str:
    """Take an answer, and return why that failed, '' where it did not.

    Messages of exceptions name the address, with all that is secret in it.
    """
    get = functools.partial(session.get, allow_redirects=False, stream=True)
    try:
        with get(url, timeout=TIMEOUT) as answer:
            take(answer)
    except requests.Timeout:
        return TIMED_OUT
    except requests.RequestException as exc:
        return type(exc).__name__
    return f'status {answer.status_code}' if answer.status_code >= 400 else ''


def download(connection: Connection, clients: int, *what: Any) -> None:
    """Download in a process of its own, until the probe asks what came."""
    sizes = []

    def take(answer: Any) -> None:
        for chunk in answer.iter_content(1024 * 1024):
            sizes.append(len(chunk))

    def client(headers: dict[str, str], url: str) -> None:
        with session_of(headers) as session:
            while True:
                if failure_of(session, url, take):
                    time.sleep(0.1)

    for _ in range(clients):
        threading.Thread(target=client, args=what, daemon=True).start()
    begun = clock()
    connection.send(None)
    connection.recv()
    connection.send(sum(sizes) / (clock() - begun) / 1e6)


def ask(session: requests.Session, url: str, count: int) -> list[Answer]:
    """Make requests on schedule, and return when each was due and answered."""
    begun = clock()

    def request(due: float) -> Answer:
        late = clock() - begun - due > TIMEOUT
        failure = TIMED_OUT if late else failure_of(session, url, CONTENT)
        return Answer(due, clock() - begun - due, failure)

    pool = ThreadPool(THREADS)  # of daemons, which do not hold up Ctrl-C
    answers = []
    for first in probe_report.track(range(0, count, RATE), 'asking'):
        for number in range(first, min(first + RATE, count)):
            due = number / RATE
            time.sleep(max(0, begun + due - clock()))
            answers.append(pool.apply_async(request, [due]))
    return [answer.get() for answer in answers]


def summary(
    answers: Sequence[Answer], seconds: float, target: float
) -> dict[str, Any]:
    """Return what the answers say, with times in ms."""
    # A request without an answer in time has waited all the same.
    heard = [each for each in answers if each.failure in ('', TIMED_OUT)]
    if len(heard) < 2:
        raise probe.Failure('too few requests were answered')
    waits = [answer.wait * 1000 for answer in heard]
    percentiles = statistics.quantiles(waits, n=100, method='inclusive')
    limit = percentiles[9] + target
    failures = collections.Counter(a.failure for a in answers if a.failure)
    late = {int(answer.due) for answer in heard if answer.wait * 1000 > limit}
    return {
        'requests': len(answers),
        'answers_per_second': (len(answers) - failures.total()) / seconds,
        'failures': dict(failures.most_common()),
        'fastest_tenth_ms': percentiles[9],
        'median_ms': percentiles[49],
        'p99_ms': percentiles[98],
        'worst_ms': max(waits),
        # One that answers nothing in time stalls, too.
        'stalls': percentiles[98] > min(limit, TIMEOUT * 1000),
        'late_seconds': sorted(late),
    }


def run(options: argparse.Namespace) -> int:
    """Ask the service, print what was seen, and return the exit status."""
    headers = dict(options.header)
    session = session_of(headers)
    for url, take in (options.url, CONTENT), (options.download, bool):
        if url and (failure := failure_of(session, url, take)):
            raise probe.Failure(f'{shown(url)}: {failure}')
    count = int((options.seconds or 10) * RATE)
    with contextlib.ExitStack() as stack:
        if options.download:
            job = download, options.clients, headers, options.download
            load = stack.enter_context(probe_streams.child(*job))
            load.recv()  # it has begun
        answers = ask(session, options.url, count)
        seen = summary(answers, count / RATE, options.target)
        if options.download:
            load.send(None)
            seen['download_mb_per_second'] = load.recv()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if options.json:
        about = {'version': 1, 'kind': 'watch', 'url': shown(options.url)}
        times = {'seconds': count / RATE, 'target': options.target}
        print(json.dumps({**about, **times, **seen}, indent=2))
    else:
        show(options, seen)
    return int(seen['stalls'])


def show(options: argparse.Namespace, seen: dict[str, Any]) -> None:
    out = console.Console(width=80, highlight=False, markup=False)
    out.print(
        f'{shown(options.url)}: {seen["requests"]} requests, '
        f'{seen["answers_per_second"]:.1f} answers a second'
    )
    times = {
        'fastest tenth': seen['fastest_tenth_ms'],
        'median': seen['median_ms'],
        '99th percentile': seen['p99_ms'],
        'worst': seen['worst_ms'],
    }
    for name, time_ms in times.items():
        out.print(f'{name:>16} {probe_report.milliseconds(time_ms):>8} ms')
    for kind, number in seen['failures'].items():
        out.print(f'Failed: {number} with {kind}')
    if options.download:
        speed = f'{seen["download_mb_per_second"]:,.0f} MB/s'
        out.print(
            f'Downloaded meanwhile: {speed} by {options.clients} clients'
        )
    out.print(
        f'It {"stalls" if seen["stalls"] else "does not stall"}: the 99th '
        f'percentile is {"" if seen["stalls"] else "no "}more than '
        f'{options.target:g} ms above the fastest tenth.',
        style='bold',
    )
    if late := seen['late_seconds']:
        out.print(f'Answers above that: in the seconds {str(late)[1:-1]}')
    if not options.download:
        out.print(HINT)
