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

"""The swift driver of glance_store 4.8.2 on our helpers.

Each test starts a Swift cluster on the loopback: a proxy server, an account
server, a container server and three object servers, with three replicas of
each object. Object servers keep extended attributes: the file system of
temporary files has to have these.
"""

import configparser
import dataclasses
from http import server
import json
import os
import pathlib
import pwd
import re
import signal
import threading
from typing import Any

import fixtures

from glance_store.tests.functional import base

PROGRAM = pathlib.Path(__file__).with_name('swift_program.py')

# What the driver calls a megabyte, in which it counts.
MEGABYTE = 1_024_000

REPLICAS = 3

# An object server's line about a request for the end of the first segment.
REST = re.compile(rb'"GET [^"]*-00001" 206 ')

# For a fsync or an update of a container on a machine that has a lot to do:
# it costs time, and not a replica.
PATIENCE = 60


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one replica is: a device of a server."""

    zone: int
    port: int

    @property
    def device(self) -> str:
        return f'd{self.zone}'


def write_config(
    path: pathlib.Path, sections: dict[str, dict[str, Any]]
) -> str:
    config = configparser.ConfigParser(interpolation=None)
    config.read_dict(sections)
    with path.open('w') as file:
        config.write(file)
    return str(path)


class Cluster(fixtures.Fixture):
    """A Swift cluster, in a folder of its own.

    There is one account server and one container server, each with a device
    for each replica. The object servers have one device each, so that one of
    them takes one replica with it when it is killed.
    """

    def __init__(self, consumer: base.Consumer, folder: pathlib.Path) -> None:
        super().__init__()
        self._consumer = consumer
        self._folder = folder
        self._user = pwd.getpwuid(os.geteuid()).pw_name
        self.objects: list[base.Process] = []

    def _setUp(self):
        self._write(
            'swift.conf',
            {
                'swift-hash': {'swift_hash_path_suffix': 'functional'},
                'storage-policy:0': {'name': 'gold', 'default': 'yes'},
            },
        )
        for kind in 'account', 'container':
            port = base.free_port()
            places = [Place(zone, port) for zone in range(1, REPLICAS + 1)]
            self._build_ring(kind, places)
            self._start_storage(kind, places)
        places = [
            Place(zone, base.free_port()) for zone in range(1, REPLICAS + 1)
        ]
        self._build_ring('object', places)
        for place in places:
            self.objects.append(self._start_storage('object', [place]))
        self.port = base.free_port()
        self._start_proxy()
        self._start_authentication()

    def _write(self, name: str, sections: dict[str, dict[str, Any]]) -> str:
        return write_config(self._folder / name, sections)

    def _build_ring(self, kind: str, places: list[Place]) -> None:
        builder = f'{kind}.builder'
        added = []
        for place in places:
            where = f'{base.LOOPBACK}:{place.port}/{place.device}'
            added += [f'r1z{place.zone}-{where}', '1']
        # 2 to the power of 4 partitions, which may move again at once.
        for arguments in (
            ['create', '4', str(REPLICAS), '0'],
            ['add', *added],
            ['rebalance'],
        ):
            base.run(
                [
                    str(self._consumer.scripts / 'swift-ring-builder'),
                    builder,
                    *arguments,
                ],
                cwd=self._folder,
                env=self._consumer.environ(),
            )

    def _common(self, port: int) -> dict[str, Any]:
        return {
            'bind_ip': base.LOOPBACK,
            'bind_port': port,
            'workers': 0,
            'swift_dir': self._folder,
            'user': self._user,
        }

    def _start_storage(self, kind: str, places: list[Place]) -> base.Process:
        """Start one server that has the devices of *places*."""
        port = places[0].port
        devices = self._folder / f'{kind}-{port}'
        for place in places:
            (devices / place.device).mkdir(parents=True)
        config = self._write(
            f'{kind}-{port}.conf',
            {
                'DEFAULT': {
                    **self._common(port),
                    'devices': devices,
                    'mount_check': 'false',
                    'disable_fallocate': 'true',
                    'fallocate_reserve': 0,
                    'container_update_timeout': PATIENCE,
                    'conn_timeout': PATIENCE,
                    'node_timeout': PATIENCE,
                },
                'pipeline:main': {'pipeline': f'{kind}-server'},
                f'app:{kind}-server': {'use': f'egg:swift#{kind}'},
            },
        )
        return self._start(f'{kind}-server', config, port)

    def _start_proxy(self) -> None:
        config = self._write(
            'proxy.conf',
            {
                'DEFAULT': self._common(self.port),
                'pipeline:main': {
                    'pipeline': 'catch_errors gatekeeper dlo proxy-server'
                },
                'app:proxy-server': {
                    'use': 'egg:swift#proxy',
                    'account_autocreate': 'true',
                    'node_timeout': PATIENCE,
                    'recoverable_node_timeout': PATIENCE,
                    # An answer after two replicas would make lists too short.
                    'post_quorum_timeout': PATIENCE,
                },
                'filter:catch_errors': {'use': 'egg:swift#catch_errors'},
                'filter:gatekeeper': {'use': 'egg:swift#gatekeeper'},
                # By default the segments after the tenth come one a second.
                'filter:dlo': {
                    'use': 'egg:swift#dlo',
                    'rate_limit_after_segment': 1000,
                },
            },
        )
        self._start('proxy-server', config, self.port)

    def _start_authentication(self) -> None:
        """Start a server that lets each user in; the proxy asks no one."""
        storage = f'http://{base.LOOPBACK}:{self.port}/v1/AUTH_test'

        class Handler(server.BaseHTTPRequestHandler):
            def do_GET(self):  # noqa: N802
                self.send_response(200)
                self.send_header('X-Storage-Url', storage)
                self.send_header('X-Auth-Token', 'token')
                self.send_header('Content-Length', '0')
                self.end_headers()

            def log_message(self, *args):
                pass

        self.auth = server.ThreadingHTTPServer((base.LOOPBACK, 0), Handler)
        self.addCleanup(self.auth.server_close)
        thread = threading.Thread(target=self.auth.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.auth.shutdown)

    def _start(self, program: str, config: str, port: int) -> base.Process:
        return self.useFixture(
            base.Process(
                f'{program}-{port}',
                [
                    str(self._consumer.scripts / f'swift-{program}'),
                    config,
                    '-v',
                ],
                port=port,
                cwd=self._folder,
                env=self._consumer.environ(),
            )
        )


class TestSwift(base.TestCase):
    def setUp(self):
        super().setUp()
        self.consumer = base.environment('swift')
        self.cluster = self.useFixture(Cluster(self.consumer, self.tempdir()))
        self.useFixture(base.DropIn(self.consumer))

    def pass_through(
        self,
        scheduler: str,
        images: dict[str, list[int]],
        segment: int = 1,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Run the program, and check what it says of its images.

        :param images: options of the program, with their numbers
        :param segment: the most of an image that is in one object, megabytes
        :param options: more options of the driver
        """
        port = self.cluster.auth.server_port
        url = f'http://{base.LOOPBACK}:{port}/auth/v1.0'
        config = {
            'stores': 'swift',
            'default_store': 'swift',
            'swift_store_auth_version': 1,
            'swift_store_auth_address': url,
            'swift_store_user': 'test:tester',
            'swift_store_key': 'testing',
            'swift_store_create_container_on_put': True,
            'swift_store_large_object_size': segment,
            'swift_store_large_object_chunk_size': segment,
            **options,
        }
        arguments = []
        for name, numbers in images.items():
            arguments += [f'--{name}', *map(str, numbers)]
        output = self.consumer.run(
            str(PROGRAM),
            write_config(self.tempdir() / 'conf', {'glance_store': config}),
            scheduler,
            *arguments,
            cwd=self.folder,
            variables={'NO_PROXY': base.LOOPBACK, 'no_proxy': base.LOOPBACK},
            timeout=5 * base.DEADLINE,
        ).stdout
        lines = [json.loads(line) for line in output.splitlines()]
        for image in lines:
            self.assertEqual(
                [image['expected'], image['md5'], image['size']], image['told']
            )
            self.assertEqual(
                [image['size'], image['size'], image['expected']],
                [image['length'], image['received'], image['fetched']],
            )
        return lines

    def check_images(self, scheduler: str, **options: Any) -> None:
        whole = 4 * MEGABYTE
        sizes = [whole - 1, whole, whole + 1]
        images = self.pass_through(
            scheduler,
            {'known': [1, MEGABYTE - 1, *sizes], 'unknown': [1, *sizes]},
            **options,
        )
        objects = [image['objects'] for image in images]
        # A manifest comes on top, except for what is known to be small.
        self.assertEqual([1, 1, 5, 5, 6, 2, 5, 5, 6], objects)

    def test_on_eventlet(self):
        self.check_images('eventlet')

    def test_on_native_threads(self):
        self.check_images('threads')

    def test_segments_buffered_in_files(self):
        self.check_images(
            'eventlet',
            swift_buffer_on_upload=True,
            swift_upload_buffer_dir=self.tempdir(),
        )

    def test_a_lost_object_server(self):
        # Segments so large that they do not fit into all the buffers on the
        # way: a server is still sending one when its beginning arrives.
        self.pass_through(
            'eventlet',
            {
                'known': [60 * MEGABYTE],
                'kill': [process.pid for process in self.cluster.objects],
            },
            segment=40,
        )
        killed = [
            process.port
            for process in self.cluster.objects
            if process.process.poll() == -signal.SIGKILL
        ]
        self.assertEqual(1, len(killed))
        # The rest of the segment it was sending came from another replica.
        answers = [
            answer
            for process in self.cluster.objects
            for answer in REST.findall(process.output())
        ]
        self.assertEqual(1, len(answers))
