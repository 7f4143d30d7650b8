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
from collections.abc import Callable
import contextlib
import functools
import json
from multiprocessing.pool import ThreadPool
import operator
import re
import signal
import threading
import time
from typing import Any

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

clock = time.monotonic

# When a request was due, its wait from then, and why it failed.
Answer = tuple[float, float, str]


def shown(url: str) -> str:
    """Return an address without user, password, query and fragment."""
    return re.sub('(?<=//)[^/?#]*@|[?#].*', '', url)


def session_of(headers: dict[str, str]) -> requests.Session:
    session = requests.Session()
    session.headers.update(headers)
    for scheme in 'http://', 'https://':
        session.mount(scheme, adapters.HTTPAdapter(pool_maxsize=1000))
    return session


def failure_of(
    session: requests.Session,
    url: str,
    take: Callable[[requests.Response], object] = bool,
    timeout: float = TIMEOUT,
) -> str:
    """Take an answer, and return why that failed, '' where it did not.

    Messages of exceptions name the address, with all that is secret in it.
    """
    get = functools.partial(session.get, allow_redirects=False, stream=True)
    try:
        with get(url, timeout=timeout) as answer:
            take(answer)
    except requests.Timeout:
        return TIMED_OUT
    except (requests.RequestException, ValueError) as exc:
        return type(exc).__name__
    return f'status {answer.status_code}' if answer.status_code >= 400 else ''


def download(
    seconds: float, clients: int, headers: dict[str, str], url: str
) -> float:
    """Let clients download, and return how much came, in MB/s."""
    session = session_of(headers)
    sizes = []

    def take(answer: requests.Response) -> None:
        for chunk in answer.iter_content(1024 * 1024):
            sizes.append(len(chunk))

    def client() -> None:
        while True:
            time.sleep(0.1 * bool(failure_of(session, url, take)))

    for _ in range(clients):
        threading.Thread(target=client, daemon=True).start()
    time.sleep(seconds)
    return sum(sizes) / max(seconds, 1) / 1e6


def ask(headers: dict[str, str], url: str, count: int) -> list[Answer]:
    """Make requests on schedule, and return when each was due and answered."""
    session = session_of(headers)
    begun = clock()

    def request(due: float) -> Answer:
        left = max(0.001, begun + due + TIMEOUT - clock())
        content = operator.attrgetter('content')
        failure = failure_of(session, url, content, left)
        return due, clock() - begun - due, failure

    pool = ThreadPool(THREADS)  # of daemons, which do not hold up Ctrl-C
    answers = []
    # The bar is drawn once a second, for it takes time from the threads.
    for first in probe_report.track(range(0, count, RATE), 'asking'):
        for number in range(first, min(first + RATE, count)):
            due = number / RATE
            time.sleep(max(0, begun + due - clock()))
            answers.append(pool.apply_async(request, [due]))
    answered = [answer.get() for answer in answers]
    # To end a pool when the interpreter exits may wait for ever.
    pool.close()
    pool.join()
    return answered


def summary(
    answers: list[Answer], seconds: float, target: float
) -> dict[str, Any]:
    """Return what the answers say, with times in ms."""
    # A request without an answer in time has waited all the same.
    waits = [
        (wait * 1000, int(due))
        for due, wait, failure in answers
        if failure in ('', TIMED_OUT)
    ]
    if not waits:
        raise probe.Failure('no request was answered')
    ordered = sorted(wait for wait, _ in waits)
    fastest, median, p99 = (
        probe_report.percentile(ordered, percent) for percent in (10, 50, 99)
    )
    limit = fastest + target
    failures = collections.Counter(kind for *_, kind in answers if kind)
    return {
        'requests': len(answers),
        'answers_per_second': (len(answers) - failures.total()) / seconds,
        'failures': dict(failures.most_common()),
        'fastest_tenth_ms': fastest,
        'median_ms': median,
        'p99_ms': p99,
        'worst_ms': ordered[-1],
        # One that answers nothing in time stalls, too.
        'stalls': p99 > min(limit, TIMEOUT * 1000),
        'late_seconds': sorted({due for wait, due in waits if wait > limit}),
    }


def run(options: argparse.Namespace) -> int:
    """Ask the service, print what was seen, and return the exit status."""
    headers = dict(options.header)
    for url in filter(None, (options.url, options.download)):
        if failure := failure_of(session_of(headers), url):
            raise probe.Failure(f'{shown(url)}: {failure}')
    count = int(options.seconds * RATE)
    with contextlib.ExitStack() as stack:
        if options.download:
            worker = stack.enter_context(probe_streams.process())
            what = headers, options.download
            worker.apply(download, (0, 0, *what))  # it has started then
            job = options.seconds, options.clients, *what
            load = worker.apply_async(download, job)
        answers = ask(headers, options.url, count)
        seen = {
            'url': shown(options.url),
            'seconds': count / RATE,
            'target': options.target,
            **summary(answers, count / RATE, options.target),
        }
        if options.download:
            seen['download_mb_per_second'] = load.get()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if options.json:
        print(json.dumps({'version': 1, 'kind': 'watch', **seen}, indent=2))
    else:
        show(options, seen)
    return int(seen['stalls'])


def show(options: argparse.Namespace, seen: dict[str, Any]) -> None:
    out = console.Console(width=80, highlight=False, markup=False)
    out.print(
        f'{seen["url"]}: {seen["requests"]} requests, '
        f'{seen["answers_per_second"]:.1f} answers a second'
    )
    for label, name in (
        ('fastest tenth', 'fastest_tenth_ms'),
        ('median', 'median_ms'),
        ('99th percentile', 'p99_ms'),
        ('worst', 'worst_ms'),
    ):
        out.print(f'{label:>16} {probe_report.milliseconds(seen[name]):>8} ms')
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
