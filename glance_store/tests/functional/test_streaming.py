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

"""The streaming uploads of requests and of boto3, from our helpers.

For requests the tests start an HTTP server of the standard library on the
loopback, which decodes what arrives; for boto3, and for the driver of
glance_store 4.8.2 that is built on it, they start moto's S3 server, which like
any other refuses an object whose parts, except for the last, are too small.
"""

import dataclasses
import hashlib
from http import server
import json
import pathlib
import threading
from typing import Any

import fixtures

from glance_store.tests.functional import base

PROGRAM = pathlib.Path(__file__).with_name('streaming_program.py')

CHUNK = 65536
PART = 5 << 20


@dataclasses.dataclass(frozen=True)
class Arrival:
    """What a request brought."""

    coding: str | None
    length: str | None
    # Of each chunk of the transfer, of which there is one where it has none.
    sizes: list[int]
    digest: str


class _Handler(server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_PUT(self):  # noqa: N802
        coding = self.headers['Transfer-Encoding']
        length = self.headers['Content-Length']
        digest = hashlib.sha256()
        sizes = []
        for chunk in self._chunks() if coding else self._whole(length):
            sizes.append(len(chunk))
            digest.update(chunk)
        self.server.arrivals[self.path] = Arrival(
            coding, length, sizes, digest.hexdigest()
        )
        self.send_response(201)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def _whole(self, length):
        yield self.rfile.read(int(length))

    def _chunks(self):
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            if self.rfile.readline() != b'\r\n':
                raise ValueError('a chunk is longer than it said')
        self.rfile.readline()

    def log_message(self, *args):
        pass


class _Server(server.ThreadingHTTPServer):
    # As many uploads as there are begin at once.
    request_queue_size = 128
    # Closing the server waits for the threads of all requests.
    daemon_threads = False


class Receiver(fixtures.Fixture):
    """An HTTP server that keeps account of what was uploaded to it."""

    def _setUp(self):
        self.server = _Server((base.LOOPBACK, 0), _Handler)
        self.server.arrivals = self.arrivals = {}
        self.addCleanup(self.server.server_close)
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.shutdown)
        self.url = f'http://{base.LOOPBACK}:{self.server.server_port}'


class TestStreaming(base.TestCase):
    def setUp(self):
        super().setUp()
        self.consumer = base.environment('streaming')
        self.useFixture(base.DropIn(self.consumer))

    def upload(
        self, kind: str, scheduler: str, url: str
    ) -> list[dict[str, Any]]:
        nowhere = str(self.folder / 'nowhere')
        output = self.consumer.run(
            *(str(PROGRAM), kind, scheduler, url),
            cwd=self.folder,
            variables={
                'AWS_CONFIG_FILE': nowhere,
                'AWS_SHARED_CREDENTIALS_FILE': nowhere,
                'NO_PROXY': base.LOOPBACK,
                'no_proxy': base.LOOPBACK,
            },
            timeout=3 * base.DEADLINE,
        ).stdout
        return [json.loads(line) for line in output.splitlines()]


class TestRequests(TestStreaming):
    def check(self, scheduler: str) -> None:
        receiver = self.useFixture(Receiver())
        images = self.upload('requests', scheduler, receiver.url)
        self.assertEqual(len(images), len(receiver.arrivals))
        for image in images:
            arrival = receiver.arrivals[f'/{image["name"]}']
            size = image['size']
            self.assertEqual(
                (size, image['digest']), (sum(arrival.sizes), arrival.digest)
            )
            # An empty body has no length, as far as requests can tell.
            known = image['known'] and size
            self.assertEqual(
                (None, str(size)) if known else ('chunked', None),
                (arrival.coding, arrival.length),
            )
            if image['kind'] == 'parts':
                whole, rest = divmod(size, CHUNK)
                expected = whole * [CHUNK] + [rest] * bool(rest)
                self.assertEqual(expected, arrival.sizes)

    def test_on_eventlet(self):
        self.check('eventlet')

    def test_on_native_threads(self):
        self.check('threads')


class TestS3(TestStreaming):
    def setUp(self):
        super().setUp()
        self.port = base.free_port()
        program = str(self.consumer.scripts / 'moto_server')
        self.useFixture(
            base.Process(
                'moto',
                [program, '-H', base.LOOPBACK, '-p', str(self.port)],
                port=self.port,
                cwd=self.folder,
                env=self.consumer.environ(),
            )
        )

    def check(self, kind: str, scheduler: str) -> list[dict[str, Any]]:
        url = f'http://{base.LOOPBACK}:{self.port}'
        images = self.upload(kind, scheduler, url)
        self.assertEqual(3, len(images))
        for image in images:
            *parts, last = image['parts']
            self.assertEqual(2, len(parts))
            self.assertEqual({PART}, set(parts))
            self.assertEqual(image['size'], sum(parts) + last)
            self.assertEqual(image['digest'], image['stored'])
        return images

    def check_driver(self, scheduler: str) -> None:
        for image in self.check('driver', scheduler):
            size = image['size']
            self.assertEqual(
                [size, image['md5'], image['digest'], size], image['told']
            )

    def test_on_eventlet(self):
        self.check('s3', 'eventlet')

    def test_on_native_threads(self):
        self.check('s3', 'threads')

    def test_driver_on_eventlet(self):
        self.check_driver('eventlet')

    def test_driver_on_native_threads(self):
        self.check_driver('threads')
