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

# mypy: no-check-untyped-defs

"""How the probe watches a service: servers on the loopback, of all sorts."""

import contextlib
import functools
import importlib
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
from typing import Any

import fixtures

from glance_store.cmd import probe
from glance_store.cmd.probe import errors
from glance_store.cmd.probe import report
from glance_store.cmd.probe import watch
from glance_store.tests.unit import base
from glance_store.tests.unit import test_probe

KIND = test_probe.KIND

# By itself: parts of eventlet leave one of their own where "from http" looks.
server: Any = importlib.import_module('http.server')


class Handler(server.BaseHTTPRequestHandler):
    """Answers as the server says, which also counts what was asked."""

    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        number = len(self.server.requests)
        self.server.requests.append((self.path, dict(self.headers)))
        self.server.answer(self, number)

    def log_message(self, *_):
        pass


def answer(handler, status=200, body=b'{}', **headers):
    handler.send_response(status)
    handler.send_header('Content-Length', str(len(body)))
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


class Server(fixtures.Fixture):
    """A server on the loopback.

    :param answer: what is called with a handler, and the number of the
        request
    """

    def __init__(self, answer=lambda handler, _: answer(handler)):
        super().__init__()
        self._answer = answer

    def _setUp(self):
        self.server = server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.answer = self._answer
        self.server.requests = []
        # Some clients are gone before they are answered.
        self.server.handle_error = lambda *_: None
        self.addCleanup(self.server.server_close)
        thread = threading.Thread(
            target=self.server.serve_forever, args=[0.01]
        )
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.shutdown)
        self.place = f'127.0.0.1:{self.server.server_port}'
        self.url = f'http://{self.place}/versions'

    @property
    def requests(self):
        return self.server.requests


class Clock:
    """Time that passes only while somebody sleeps or answers."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Asker:
    """Takes so much of the clock's time for each request, or fails."""

    def __init__(self, clock, answers):
        self._clock = clock
        self._answers = iter(answers)

    def ask(self):
        seconds, *failure = next(self._answers)
        self._clock.now += seconds
        if failure:
            raise failure[0]

    def close(self):
        pass


class FiguresTestCase(base.TestCase):
    """What the figures are, in a time that only the test lets pass."""

    def watch(self, answers, seconds, show=None):
        clock = Clock()
        where = 'glance_store.cmd.probe.watch'
        for name, value in (
            ('clock', clock),
            ('sleep', clock.sleep),
            ('Asker', lambda target: Asker(clock, [(0,), *answers])),
        ):
            self.useFixture(fixtures.MonkeyPatch(f'{where}.{name}', value))
        if show is None:
            show = self.show
        target = watch.target('http://localhost/')
        return watch.watch(target, seconds, functools.partial(show, clock))

    def show(self, *_):
        self.fail('that was too early')

    def late(self, seen):
        return [round(late * 1000, 3) for _, late in seen.moments]

    def test_a_request_every_period(self):
        seen = self.watch([(0.001,), (0.002,), (0.003,)], 0.03)
        self.assertEqual([1, 2, 3], self.late(seen))
        self.assertEqual(
            [0, 10, 20], [round(when * 1000, 3) for when, _ in seen.moments]
        )
        self.assertEqual(3, seen.requests)
        self.assertEqual(23, round(seen.seconds * 1000, 3))

    def test_each_that_was_due_meanwhile_counts(self):
        seen = self.watch([(0.001,), (0.0345,), (0.001,)], 0.051)
        self.assertEqual([1, 34.5, 24.5, 14.5, 4.5, 1], self.late(seen))
        self.assertEqual(3, seen.requests)
        self.assertEqual(34.5, round(seen.percentile(100) * 1000, 3))
        self.assertEqual(4.5, round(seen.percentile(50) * 1000, 3))
        self.assertEqual(2 / 6, seen.share_late(0.01))

    def test_failures_count_and_are_counted(self):
        slow = watch.Unanswered('no answer within 10 s')
        gone = watch.Unanswered('Connection refused')
        seen = self.watch(
            [(0.001,), (0.015, slow), (0.001, gone), (0.001, slow)], 0.049
        )
        self.assertEqual([1, 15, 5, 1, 1], self.late(seen))
        self.assertEqual({str(slow): 2, str(gone): 1}, seen.failures)
        self.assertEqual(
            [10, 30, 40], [round(when * 1000) for when in seen.failed_at]
        )

    def test_what_showing_takes_does_not_count(self):
        shown = []

        def show(clock, passed, requests):
            shown.append((round(passed, 3), requests))
            clock.now += 0.3

        seen = self.watch([(0.001,)] * 82, 1.1, show)
        self.assertEqual({1.0}, set(self.late(seen)))
        self.assertEqual([(0.501, 51)], shown)

    def test_public_address(self):
        for url, public in (
            ('http://h:1/a', 'http://h:1/a'),
            ('http://user:pass@h/a//b@c', 'http://***@h/a//b@c'),
            ('https://u:p@p@[::1]:80/', 'https://***@[::1]:80/'),
            ('http://h/?token=1', 'http://h/?***'),
            ('http://h/#fragment', 'http://h/?***'),
            ('/elsewhere', '/elsewhere'),
        ):
            with self.tally.case(KIND):
                self.assertEqual(public, watch.public(url))

    def test_what_is_asked(self):
        target = watch.target('https://a%40b:p%C3%A4@host:8/ä?x=ö y')
        self.assertEqual(
            (True, 'host', 8, '/%C3%A4?x=%C3%B6%20y'),
            (target.secure, target.host, target.port, target.path),
        )
        self.assertEqual('Basic YUBiOnDDpA==', target.headers['Authorization'])
        self.assertEqual('/', watch.target('http://host').path)
        self.assertNotIn('Authorization', watch.target('http://h').headers)

    def test_verdict(self):
        seen = self.watch([(0.001,), (0.0345,), (0.001,)], 0.051)
        self.assertEqual(
            'It stalls: in 33.33% of the time an answer took longer than the '
            'median of 4.50 ms by more than 10 ms, and up to 34.50 ms.',
            report.verdict(seen, 0.01),
        )
        self.assertEqual(
            'It does not stall: no answer took longer than the median of 4.50 '
            'ms by more than 40 ms.',
            report.verdict(seen, 0.04),
        )


class ServiceTestCase(base.TestCase):
    """Requests to real servers, in this process."""

    def watch(self, url, seconds=0.05):
        return watch.watch(watch.target(url), seconds, lambda *_: None)

    def assertFails(self, url, reason):
        with self.tally.case(KIND):
            failure = self.assertRaises(errors.Failure, self.watch, url)
            name = watch.target(url).name
            self.assertEqual(
                (f"argument --url: '{name}': {reason}", 1),
                (str(failure), failure.status),
            )

    def test_asks_over_one_connection(self):
        places = set()

        def note(handler, _):
            places.add(handler.client_address)
            answer(handler, body=bytes(100000))

        service = self.useFixture(Server(note))
        place = service.url.replace('//', '//me:secret@')
        seen = self.watch(f'{place}?a=b')
        self.assertEqual({}, seen.failures)
        # The first request is not among the figures.
        self.assertEqual(seen.requests + 1, len(service.requests))
        self.assertEqual(1, len(places))
        for path, headers in service.requests:
            self.assertEqual('/versions?a=b', path)
            self.assertEqual('Basic bWU6c2VjcmV0', headers['Authorization'])
            self.assertEqual('glance-store-probe', headers['User-Agent'])

    def test_server_that_closes_every_connection(self):
        def hang_up(handler, _):
            answer(handler, Connection='close')

        seen = self.watch(self.useFixture(Server(hang_up)).url)
        self.assertEqual({}, seen.failures)

    def test_server_that_closes_without_a_word(self):
        # As it may between two requests: that is tried again at once.
        def hang_up(handler, _):
            answer(handler)
            handler.close_connection = True

        service = self.useFixture(Server(hang_up))
        seen = self.watch(service.url)
        self.assertEqual({}, seen.failures)
        self.assertEqual(seen.requests + 1, len(service.requests))

    def test_nobody_there(self):
        with socket.create_server(('127.0.0.1', 0)) as free:
            port = free.getsockname()[1]
        self.assertFails(f'http://127.0.0.1:{port}/', 'Connection refused')

    def test_unknown_name(self):
        # RFC 6761 has nobody ask the network for it.
        with self.tally.case(KIND):
            failure = self.assertRaises(
                errors.Failure, self.watch, 'http://name.invalid/'
            )
            self.assertIn('the name of the host is not known', str(failure))

    def test_other_answers_than_200(self):
        for status, reason in (
            (204, 'No Content'),
            (300, 'Multiple Choices'),
            (401, 'Unauthorized'),
            (404, 'Not Found'),
            (503, 'Service Unavailable'),
        ):

            def refuse(handler, _, status=status):
                answer(handler, status, body=b'')

            service = self.useFixture(Server(refuse))
            self.assertFails(service.url, f'answered {status} {reason}')

    def test_redirect(self):
        def elsewhere(handler, _):
            answer(handler, 302, Location='http://me:secret@h/x?token=1')

        service = self.useFixture(Server(elsewhere))
        self.assertFails(
            service.url,
            "answered 302 Found: a redirect to 'http://***@h/x?***', ask that",
        )

    def test_redirect_to_nowhere(self):
        def nowhere(handler, _):
            answer(handler, 302, Location='http://me:secret@[')

        service = self.useFixture(Server(nowhere))
        self.assertFails(service.url, 'answered 302 Found')

    def test_no_http(self):
        service = self.useFixture(
            Server(lambda handler, _: handler.wfile.write(b'220 hello\n'))
        )
        self.assertFails(service.url, 'the answer is not HTTP: BadStatusLine')

    def test_hangs_up(self):
        def hang_up(handler, _):
            handler.close_connection = True

        service = self.useFixture(Server(hang_up))
        self.assertFails(service.url, 'hung up without an answer')

    def test_takes_too_long(self):
        self.useFixture(
            fixtures.MonkeyPatch('glance_store.cmd.probe.watch.TIMEOUT', 0.05)
        )
        done = threading.Event()
        self.addCleanup(done.set)
        service = self.useFixture(Server(lambda *_: done.wait(base.HANGING)))
        self.assertFails(service.url, 'no answer within 0.05 s')
        done.set()

    def test_answer_without_an_end(self):
        self.useFixture(
            fixtures.MonkeyPatch('glance_store.cmd.probe.watch.TIMEOUT', 0.05)
        )

        def drip(handler, _):
            handler.send_response(200)
            handler.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    handler.wfile.write(bytes(1000))

        service = self.useFixture(Server(drip))
        self.assertFails(service.url, 'no answer within 0.05 s')

    def test_secure_server_that_is_none(self):
        url = self.useFixture(Server()).url.replace('http:', 'https:')
        with self.tally.case(KIND):
            failure = self.assertRaises(errors.Failure, self.watch, url)
            self.assertIn('SSL', str(failure))

    def test_certificate_that_does_not_hold(self):
        exc = ssl.SSLCertVerificationError(1, 'failed')
        exc.verify_message = 'self-signed certificate'
        self.assertEqual(
            'the certificate does not hold: self-signed certificate',
            watch._reason(exc),
        )

    def test_some_requests_fail(self):
        def now_and_then(handler, number):
            answer(handler, 503 if number == 2 else 200)

        service = self.useFixture(Server(now_and_then))
        seen = self.watch(service.url, seconds=0.1)
        self.assertEqual(
            {'answered 503 Service Unavailable': 1}, seen.failures
        )
        self.assertLess(2, seen.requests)


class ArgumentTestCase(base.TestCase):
    def assertRefused(self, line, *args):
        with self.tally.case(KIND):
            with contextlib.redirect_stderr(_Lines()) as lines:
                self.assertEqual(2, probe.main(args))
            self.assertEqual([f'glance-store-probe: error: {line}'], lines.all)

    def test_addresses(self):
        for url in (
            'http://[::1',
            'http://h:port/',
            'http://h:99999/',
            f'http://{"x" * 64}/',
            'http://a..b/',
            'http://h/\udcff',
            'http://me:se/cret@h/',
        ):
            self.assertRefused(
                'argument --url: this is no address', '--url', url
            )
        for url in 'ftp://me:secret@h/', 'host', '', 'http://', '/path':
            self.assertRefused(
                'argument --url: this is no http:// or https:// address',
                f'--url={url}',
            )

    def test_never_shows_a_password(self):
        self.assertRefused(
            'unrecognized arguments: --ulr=http://***@h/',
            '--ulr=http://me:se/cr@et@h/',
        )
        self.assertRefused(
            "argument FILE: 'http://***@h/': No such file or directory",
            'http://me:secret@h/',
        )

    def test_what_does_not_go_with_it(self):
        for option, *values in (
            ('--streams', '9'),
            ('--chunk-size', '1'),
            ('--yield-interval', '2'),
            ('--cold',),
            ('--rounds', '2'),
            ('--timeline', 'x.png'),
        ):
            self.assertRefused(
                f'argument {option}: not allowed with argument --url',
                '--url=http://localhost/',
                option,
                *values,
            )
        self.assertRefused(
            'argument FILE: not allowed with argument --url',
            '--url=http://localhost/',
            '/dev/null',
        )


class _Lines:
    """What was printed, line by line."""

    def __init__(self):
        self.text = ''

    @property
    def all(self):
        return self.text.splitlines()

    def write(self, text):
        self.text += text

    def flush(self):
        pass


class ProgramTestCase(test_probe.ProbeTestCase):
    def start(self, service, *args, prepare=''):
        process = subprocess.Popen(
            [
                *test_probe.command(
                    'signal.signal(signal.SIGINT, signal.SIG_DFL)\n' + prepare
                ),
                f'--url={service.url}',
                *args,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def end(self, process):
        printed = process.communicate(timeout=test_probe.DEADLINE)
        return process.returncode, *printed

    def counting(self, number):
        """Return a server, and what is set once it was asked so often."""
        asked = threading.Event()

        def count(handler, n):
            if n == number:
                asked.set()
            answer(handler)

        return self.useFixture(Server(count)), asked

    def test_until_interrupted(self):
        service, asked = self.counting(5)
        process = self.start(service, '--json', '--target-lateness=60000')
        self.assertTrue(asked.wait(test_probe.DEADLINE))
        process.send_signal(signal.SIGINT)
        status, printed, complaints = self.end(process)
        self.assertEqual((0, ''), (status, complaints))
        document = json.loads(printed)
        self.assertEqual(
            {
                'version': 1,
                'kind': 'service',
                'url': service.url,
                'period_ms': 10.0,
                'failures': [],
                'target_lateness_ms': 60000.0,
                'share_late': 0.0,
            },
            {
                key: document.pop(key)
                for key in (
                    'version',
                    'kind',
                    'url',
                    'period_ms',
                    'failures',
                    'target_lateness_ms',
                    'share_late',
                )
            },
        )
        self.assertLessEqual(5, document['requests'])
        self.assertLessEqual(document['requests'], document['moments'])
        self.assertLessEqual(
            document['answer_median_ms'], document['answer_p99_ms']
        )
        self.assertLessEqual(
            document['answer_p99_ms'], document['answer_worst_ms']
        )

    def test_a_request_under_way_counts_when_it_is_interrupted(self):
        reached = threading.Event()
        done = threading.Event()
        self.addCleanup(done.set)

        def stall(handler, number):
            if number == 3:
                reached.set()
                done.wait(base.HANGING)
            answer(handler)

        service = self.useFixture(Server(stall))
        process = self.start(service, '--json')
        self.assertTrue(reached.wait(test_probe.DEADLINE))
        process.send_signal(signal.SIGINT)
        status, printed, _ = self.end(process)
        done.set()
        self.assertEqual((0, 3), (status, json.loads(printed)['requests']))

    def test_interrupts_after_the_first(self):
        # That of "timeout -s INT" comes twice.
        service, asked = self.counting(5)
        process = self.start(
            service,
            '--json',
            prepare="""
def late(*args, write=program.report.watched_as_json):
    os.kill(os.getpid(), signal.SIGINT)
    return write(*args)
program.report.watched_as_json = late
""",
        )
        self.assertTrue(asked.wait(test_probe.DEADLINE))
        process.send_signal(signal.SIGINT)
        status, printed, complaints = self.end(process)
        self.assertEqual((0, ''), (status, complaints))
        self.assertLessEqual(5, json.loads(printed)['requests'])

    def test_for_some_time(self):
        service, _ = self.counting(0)
        status, printed, complaints = self.end(
            self.start(service, '--seconds=0.1')
        )
        self.assertEqual((0, ''), (status, complaints))
        lines = printed.splitlines()
        self.assertRegex(
            lines[0], rf'^{service.url}, every 10 ms for 0\.\d s$'
        )
        self.assertIn('│ Requests │', lines[4])
        self.assertRegex(printed, r'\nIt (stalls|does not stall): ')

    def test_what_failed(self):
        def now_and_then(handler, number):
            answer(handler, 503 if number == 2 else 200)

        service = self.useFixture(Server(now_and_then))
        status, printed, _ = self.end(self.start(service, '--seconds=0.1'))
        self.assertEqual(0, status)
        self.assertRegex(
            printed.splitlines()[-1],
            r'^Failed: 1 of \d+: answered 503 Service Unavailable$',
        )

    def test_first_request_fails(self):
        service = self.useFixture(
            Server(lambda handler, _: answer(handler, 500))
        )
        self.assertEqual(
            (
                1,
                '',
                f"glance-store-probe: error: argument --url: '{service.url}': "
                'answered 500 Internal Server Error\n',
            ),
            self.end(self.start(service)),
        )

    def test_other_signals_end_it(self):
        service, asked = self.counting(5)
        process = self.start(service)
        self.assertTrue(asked.wait(test_probe.DEADLINE))
        process.terminate()
        self.assertEqual(
            (143, '', 'glance-store-probe: ended by SIGTERM\n'),
            self.end(process),
        )

    def test_interrupt_of_the_first_request(self):
        reached = threading.Event()
        done = threading.Event()
        self.addCleanup(done.set)

        def stall(handler, _):
            reached.set()
            done.wait(base.HANGING)

        service = self.useFixture(Server(stall))
        process = self.start(service)
        self.assertTrue(reached.wait(test_probe.DEADLINE))
        process.send_signal(signal.SIGINT)
        self.assertEqual((130, '', test_probe.ENDED), self.end(process))
        done.set()

    def test_picture(self):
        def now_and_then(handler, number):
            answer(handler, 503 if number == 2 else 200)

        service = self.useFixture(Server(now_and_then))
        path = os.path.join(self.folder, 'picture.svg')
        status, *_ = self.end(
            self.start(service, '--seconds=0.1', f'--plot={path}')
        )
        self.assertEqual(0, status)
        with open(path) as file:
            picture = file.read()
        for text in '>seconds<', '>answer time, ms<', '</svg>':
            self.assertIn(text, picture)

    def test_progress(self):
        for args, left in (('--seconds=1e3', True), ((), False)):
            service, asked = self.counting(200)
            terminal = self.useFixture(
                test_probe.Terminal(
                    f'--url={service.url}',
                    *([args] if args else []),
                    rounds=None,
                    prepare='watch.SHOWING = 0\n'
                    'signal.signal(signal.SIGINT, signal.SIG_DFL)',
                )
            )
            terminal.read_until('3 requests, Ctrl-C ends it')
            terminal.process.send_signal(signal.SIGINT)
            self.assertEqual(0, terminal.end()[0])
            self.assertEqual(left, ' left' in terminal.shown)
