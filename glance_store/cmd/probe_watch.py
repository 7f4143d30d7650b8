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

from argparse import Namespace
import collections
import queue
import signal
import threading
import time
from typing import Any

import requests
from requests import adapters, Session
from rich import console

from glance_store.cmd import probe, probe_streams
from glance_store.cmd.probe_streams import clock

RATE = 50  # requests that are due in a second
THREADS = 100  # enough for a service that answers each after two seconds
WARM_UP = 1  # second, whose answers do not count
TIMEOUT = 10.0  # seconds that an answer may take
TIMED_OUT = f'no answer within {TIMEOUT:g} s'

ANSWERS = """\
{requests} requests, {answers_per_second:.1f} answers a second
   fastest tenth {fastest_tenth_ms:8.1f} ms
          median {median_ms:8.1f} ms
 99th percentile {p99_ms:8.1f} ms
           worst {worst_ms:8.1f} ms"""
VERDICT = 'Limit of the 99th percentile: fastest tenth + {target:g} ms.'
LOAD = '{clients} clients downloaded {download_mb_per_second:.0f} MB/s.'
HINT = """
A service stalls under load only. Have clients download images meanwhile, or
add --download IMAGE_URL."""

# The second in which a request was due, its wait in ms, and why it failed.
Answer = tuple[int, float, str]


def failure_of(
    session: Session, url: str, take: Any = bool, timeout: float = TIMEOUT
) -> str:
    """Take an answer, and return why that failed, '' where it did not."""
    form: Any = {'allow_redirects': False, 'stream': True}
    end = clock() + timeout
    try:
        with session.get(url, timeout=timeout, **form) as answer:
            take(answer)
    except requests.Timeout:
        return TIMED_OUT
    except Exception as exc:
        if clock() >= end:  # the answer began, and did not end
            return TIMED_OUT
        return type(exc).__name__  # its message tells what is secret in a URL
    return f'status {answer.status_code}' if answer.status_code >= 400 else ''


def download(
    pipe: Any, session: Session, url: str, clients: int, seconds: float
) -> None:
    """Let clients download, and tell how much came, in MB/s."""
    sizes = []

    def take(answer: requests.Response) -> None:
        for chunk in answer.iter_content(1024 * 1024):
            sizes.append(len(chunk))

    def client() -> None:
        while True:
            time.sleep(0.1 * bool(failure_of(session, url, take)))

    for _ in range(clients):
        threading.Thread(target=client, daemon=True).start()
    # The end of the probe makes the pipe readable.
    pipe.poll(seconds) or pipe.send(sum(sizes) / seconds / 1e6)


def ask(session: Session, url: str, seconds: float) -> list[Answer]:
    """Make requests on schedule, and return the answers after the warm-up."""
    begun = clock() + WARM_UP
    numbers = range(-WARM_UP * RATE, int(seconds * RATE))
    left, answers = iter(numbers), queue.SimpleQueue[Answer]()

    def client() -> None:
        for number in left:
            due = begun + number / RATE
            time.sleep(max(0, due - clock()))
            time_left = max(0.001, due + TIMEOUT - clock())
            failure = failure_of(session, url, lambda x: x.content, time_left)
            answers.put((number // RATE, 1000 * (clock() - due), failure))

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    for _ in range(THREADS):  # Ctrl-C meanwhile would be a RuntimeError
        threading.Thread(target=client, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    # The bar is drawn once a second, for it takes time from the threads.
    parts = [numbers[at : at + RATE] for at in range(0, len(numbers), RATE)]
    bar = probe_streams.track(parts, 'asking')
    return [a for part in bar for _ in part if (a := answers.get())[0] >= 0]


def summary(answers: list[Answer], options: Namespace) -> dict[str, Any]:
    """Return what the answers say, with times in ms."""
    # A request without an answer in time has waited all the same.
    waited = [answer for answer in answers if answer[2] in ('', TIMED_OUT)]
    if not waited:
        raise probe.Failure('no request was answered')
    waits = sorted(wait for _, wait, _ in waited)
    ranks = (len(waits) * part // 100 for part in (10, 50, 99))
    fastest, median, p99 = (waits[rank] for rank in ranks)
    limit = fastest + options.target
    # The last answer may come long after the last request.
    taken = max(options.seconds, *(at + wait / 1000 for at, wait, _ in waited))
    failures = collections.Counter(kind for *_, kind in answers if kind)
    return {
        'requests': len(answers),
        'answers_per_second': (len(answers) - failures.total()) / taken,
        'failures': dict(failures),
        'fastest_tenth_ms': fastest,
        'median_ms': median,
        'p99_ms': p99,
        'worst_ms': waits[-1],
        'stalls': p99 > min(limit, TIMEOUT * 1000),  # or nothing in time
        'late_seconds': sorted({at for at, wait, _ in waited if wait > limit}),
    }


def run(options: Namespace) -> dict[str, Any]:
    """Ask the service, and return what was seen."""
    session = Session()
    session.headers.update(line.groups() for line in options.header)
    for scheme in 'http://', 'https://':
        session.mount(scheme, adapters.HTTPAdapter(pool_maxsize=1000))
    for url in filter(None, (options.url, options.download)):
        if failure := failure_of(session, url):
            name = 'URL' if url == options.url else '--download'
            raise probe.Failure(f'{name}: {failure}')
    clients = options.clients if options.download else 0
    job = session, options.download, clients, options.seconds
    with probe_streams.process(download, *job) as load:
        answers = ask(session, options.url, options.seconds)
        return {
            'seconds': options.seconds,
            'target': options.target,
            **summary(answers, options),
            'clients': clients,
            'download_mb_per_second': load.recv(),
        }


def show(seen: dict[str, Any]) -> None:
    out = console.Console(width=80, highlight=False)
    out.print(ANSWERS.format(**seen))
    for kind, number in seen['failures'].items():
        out.print(f'Failed: {number} with {kind}')
    verdict = 'It stalls.' if seen['stalls'] else 'It does not stall.'
    out.print(verdict, VERDICT.format(**seen), style='bold')
    if seen['late_seconds']:
        out.print('Answers above that: in the seconds', *seen['late_seconds'])
    out.print((LOAD if seen['clients'] else HINT).format(**seen))
