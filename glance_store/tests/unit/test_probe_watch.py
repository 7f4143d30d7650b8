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

"""What glance-store-probe says of a running service.

The services are real ones on the loopback. One that stalls is blocked for a
second, and one that does not answers at once. No test relies on less than
half of that difference.
"""

from http import server
import json
import signal
import subprocess
import sys
import threading
from typing import Any

from glance_store.tests.unit import test_probe


class Handler(server.BaseHTTPRequestHandler):
    """Answer as the path says; each request is told to the service."""

    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True
    server: 'Service'

    def do_GET(self) -> None:
        service = self.server
        with service.counting:
            service.number += 1
            number = service.number
            service.under_way += 1
            most = max(service.most_under_way, service.under_way)
            service.most_under_way = most
        service.headers.append(dict(self.headers))
        try:
            service.answer(self, self.path.partition('?')[0], number)
        finally:
            with service.counting:
                service.under_way -= 1

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


class Service(server.ThreadingHTTPServer):
    daemon_threads = True
    # More than the probe has under way.
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.address = f'http://127.0.0.1:{self.server_port}'
        self.counting = threading.Lock()
        self.number = self.under_way = self.most_under_way = 0
        self.headers: list[dict[str, str]] = []
        self.blocked = threading.Lock()
        self.asked = threading.Event()
        self.ended = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing of a client that hangs up."""

    def answer(self, handler: Handler, path: str, number: int) -> None:
        if path == '/slow':
            self.ended.wait(0.06)  # as long for each, which is no stall
        if path == '/stall':
            with self.blocked:
                # A second of each two, after the one that warms it up.
                self.ended.wait(1 if number % 100 == 60 else 0)
        if path == '/serial':
            with self.blocked:
                self.ended.wait(0.05)
        hang = path == '/hang' and number > 1
        if hang and number % 2:
            self.asked.set()
            self.ended.wait()
        if path == '/closed' and number % 2 == 0:
            handler.close_connection = True
            return
        busy = path == '/busy' and number % 2 == 0
        gone = path == '/gone' and number > 1
        handler.send_response(503 if busy or gone else 200)
        body = bytes(16 * 1024 * 1024) if path == '/image' else b'ok'
        handler.send_header('Content-Length', str(len(body)))
        handler.end_headers()
        if hang:
            handler.wfile.write(body[:1])
            self.ended.wait()
        handler.wfile.write(body)


class WatchTestCase(test_probe.ProbeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.service = Service()
        serving = threading.Thread(target=self.service.serve_forever)
        serving.start()
        self.addCleanup(serving.join)
        self.addCleanup(self.service.server_close)
        self.addCleanup(self.service.shutdown)
        self.addCleanup(self.service.ended.set)

    def watch(
        self, path: str, *args: str, seconds: float = 2, status: int = 0
    ) -> dict[str, Any]:
        """Watch the service, and return the document."""
        url = self.service.address + path
        limits = ('--seconds', str(seconds), '--target', '1000')
        args = ('watch', url, '--json', *limits, *args)
        output, errors = self.probe(*args, status=status)
        self.assertEqual('', errors)
        document: dict[str, Any] = json.loads(output)
        return document

    def test_service_that_answers_at_once(self) -> None:
        document = self.watch('/')
        # One to see that it answers, and a second that warms it up.
        self.assertEqual(1 + 50 + 100, self.service.number)
        self.assertEqual([], document.pop('late_seconds'))
        times = [
            document.pop(f'{name}_ms')
            for name in ('fastest_tenth', 'median', 'p99', 'worst')
        ]
        self.assertEqual(sorted(times), times)
        self.assertEqual(
            {
                'version': 1,
                'seconds': 2,
                'target': 1000,
                'requests': 100,
                'answers_per_second': 50,
                'failures': {},
                'stalls': False,
                'clients': 0,
                'download_mb_per_second': 0,
            },
            document,
        )

    def test_service_that_is_always_slow_does_not_stall(self) -> None:
        document = self.watch('/slow')
        self.assertFalse(document['stalls'])
        self.assertGreaterEqual(document['fastest_tenth_ms'], 60)

    def test_service_that_stalls(self) -> None:
        document = self.watch('/stall', '--target', '500', status=1)
        self.assertTrue(document['stalls'])
        self.assertGreater(document['p99_ms'], 500)
        self.assertEqual([0], document['late_seconds'])
        # None is left out, and none waits for the one before.
        self.assertEqual(100, document['requests'])
        self.assertGreater(self.service.most_under_way, 5)

    def test_service_that_answers_nothing_in_time(self) -> None:
        """Half of the answers begin, and none ends."""
        document = self.watch('/hang', seconds=1, status=1)
        failures = {'no answer within 10 s': 50}
        self.assertEqual(failures, document['failures'])
        self.assertGreaterEqual(document['median_ms'], 10000)

    def test_service_that_comes_after_the_requests(self) -> None:
        document = self.watch('/serial', seconds=1, status=1)
        self.assertEqual({}, document['failures'])
        self.assertLess(document['answers_per_second'], 25)

    def test_failures(self) -> None:
        for path, kind in (
            ('/busy', 'status 503'),
            ('/closed', 'ConnectionError'),
        ):
            with self.subTest(path):
                self.service.number = 0
                document = self.watch(path, seconds=1)
                self.assertEqual({kind: 25}, document['failures'])
                self.assertEqual(25, document['answers_per_second'])

    def test_failures_only(self) -> None:
        args = ('watch', f'{self.service.address}/gone', '--seconds', '0.1')
        _, errors = self.probe(*args, status=2)
        self.assertIn('no request was answered', errors)

    def test_download(self) -> None:
        url = f'{self.service.address}/image'
        clients = ('--download', url, '--clients', '2')
        document = self.watch('/', *clients, '--header', 'X-Auth-Token: T')
        self.assertGreater(document['download_mb_per_second'], 1)
        tokens = {sent['X-Auth-Token'] for sent in self.service.headers}
        self.assertEqual({'T'}, tokens)

    def test_download_that_fails(self) -> None:
        url = f'{self.service.address}/gone'
        args = ('watch', self.service.address, '--download', url)
        output, errors = self.probe(*args, status=2)
        self.assertEqual('', output)
        self.assertIn('--download: status 503', errors)

    def test_report(self) -> None:
        host = self.service.address.removeprefix('http://')
        url = f'http://user:password@{host}/stall?secret=1'
        header = ('--header', 'X-Auth-Token: secret')
        args = ('watch', url, '--seconds', '2', '--target', '500', *header)
        output, errors = self.probe(*args, status=1)
        self.assertEqual('', errors)
        self.assertLessEqual(max(map(len, output.splitlines())), 80)
        self.assertIn('100 requests, 50.0 answers a second', output)
        limit = 'Limit of the 99th percentile: fastest tenth + 500 ms.'
        self.assertIn(f'It stalls. {limit}', output)
        self.assertIn('in the seconds 0', output)
        self.assertIn('add --download IMAGE_URL', output)
        self.assertNotIn('password', output)
        self.assertNotIn('secret', output)
        sent = self.service.headers[-1]
        self.assertEqual('secret', sent['X-Auth-Token'])
        self.assertTrue(sent['Authorization'].startswith('Basic '))

    def test_report_of_load(self) -> None:
        load = ('--download', f'{self.service.address}/image')
        args = ('watch', f'{self.service.address}/busy', '--seconds', '1')
        output, _ = self.probe(*args, *load, '--target', '1000')
        self.assertRegex(output, r'Failed: \d+ with status 503')
        self.assertRegex(output, r'3 clients downloaded \d+ MB/s')
        self.assertIn('It does not stall', output)
        self.assertNotIn('IMAGE_URL', output)

    def test_interrupt(self) -> None:
        process = subprocess.Popen(
            [
                *(sys.executable, '-Pc', test_probe.SCRIPT, 'watch'),
                *(f'{self.service.address}/hang', '--seconds', '1000'),
            ],
            env=test_probe.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(process.kill)
        self.service.asked.wait()
        process.send_signal(signal.SIGINT)
        self.assertEqual((b'', b''), process.communicate())
        self.assertEqual(130, process.returncode)
