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

"""A stock Glance 30.1 on eventlet, as released and on our helpers."""

import contextlib
import os
import pathlib
import socket

from glance_store.tests.functional import base
from glance_store.tests.functional import glance

RELEASED = 'released'
ADOPTED = 'adopted'
INTERVAL = 'adopted, 10 ms'
OFFLOADED = 'adopted, 10 ms, offloaded'

ROUNDS = 3
SIZE = 512 << 20
CHUNK = 65536
# Bytes a second of a slow disk.
SLOW = 100_000_000


class TestEventlet(base.TestCase):
    def server(self, name, **options):
        adopted = name != RELEASED
        if 'ms' in name:
            options['cooperative_yield_interval'] = 0.01
        return self.useFixture(
            glance.Glance(name, glance.glance_api, 30, adopted, **options)
        )

    def source(self, size):
        return glance.source(self.tempdir() / 'source', size)

    def measure(self, figures, what, server, commands, size):
        """Ask for /versions while commands move *size* bytes together."""
        with glance.Asking(server) as asking:
            seconds = glance.at_once(commands)
        figures.add_answers(what, server.name, asking)
        figures.add(f'{what}: MB/s', server.name, size / seconds / 1e6)

    def measure_above_all(self, figures, what, server, commands, size):
        """Measure with clients that never keep the server waiting."""
        with (
            glance.priority(glance.SERVER, server.process.pid),
            glance.priority(glance.CLIENTS),
        ):
            self.measure(figures, what, server, commands, size)

    def finish(self, figures):
        self.show(str(figures))
        self.assertEqual([], figures.missed)

    def test_downloads(self):
        """Downloads let others in, every chunk or every 10 ms."""
        source, digest = self.source(SIZE)
        images = [
            (server, server.uploaded(source))
            for server in map(self.server, [RELEASED, ADOPTED, INTERVAL])
        ]
        figures = glance.Figures()
        for turn in range(ROUNDS):
            for server, id in images[:: -1 if turn % 2 else 1]:
                for clients, times in (3, 2), (16, 1):
                    what = f'{clients} downloads'
                    commands = [server.downloading(id, times)] * clients
                    size = clients * times * SIZE
                    self.measure_above_all(
                        figures, what, server, commands, size
                    )
        for server, id in images:
            self.assertEqual(digest, server.digest(id))
        for what, server, goal in (
            ('3 downloads: worst, ms', ADOPTED, 30),
            ('16 downloads: median, ms', INTERVAL, 20),
            ('16 downloads: p99, ms', INTERVAL, 10),
            ('16 downloads: MB/s', INTERVAL, 0.75),
        ):
            figures.compare(what, server, RELEASED, goal)
        self.finish(figures)

    def test_cached_images(self):
        """What the cache of Glance answers lets others in, too."""
        source, digest = self.source(SIZE)
        figures = glance.Figures()
        for name in RELEASED, ADOPTED:
            server = self.server(name, flavor='caching')
            id = server.uploaded(source)
            self.assertEqual(digest, server.digest(id))
            # It is in the cache from now on.
            os.truncate(server.stored(id), 0)
            self.assertEqual(digest, server.digest(id))
            commands = [server.downloading(id)] * 3
            for _ in range(ROUNDS):
                what = '3 cached downloads'
                self.measure_above_all(
                    figures, what, server, commands, 3 * SIZE
                )
        figures.compare('3 cached downloads: p99, ms', ADOPTED, RELEASED, 30)
        self.finish(figures)

    def test_prefetched_images(self):
        """What Glance fetches into its cache lets others in, too."""
        source, _ = self.source(SIZE)
        figures = glance.Figures()
        for name in RELEASED, ADOPTED:
            server = self.server(name, flavor='cachemanagement')
            id = server.uploaded(source)
            cached = server.folder / 'cache' / id
            with glance.Asking(server) as asking:
                server.request('PUT', f'/v2/cache/{id}')
                base.wait_for(cached.exists, 'the image is in the cache')
            figures.add_answers('prefetching', name, asking)
        figures.compare('prefetching: worst, ms', ADOPTED, RELEASED, 10)
        self.finish(figures)

    def test_cold_images(self):
        """Images that have left the page cache are read by the pool."""
        size = SIZE // 8
        source, digest = self.source(size)
        figures = glance.Figures()
        for name in INTERVAL, OFFLOADED:
            server = self.server(name, offload_file_reads='off' in name)
            ids = [server.uploaded(source) for _ in range(3)]
            # The first read by the pool makes its threads.
            drop_from_page_cache(server.stored(ids[0]))
            self.assertEqual(digest, server.digest(ids[0]))
            for _ in range(ROUNDS):
                for id in ids:
                    drop_from_page_cache(server.stored(id))
                commands = list(map(server.downloading, ids))
                with glance.slow_disk(server, SLOW) as is_slow:
                    what = f'3 {"slow" if is_slow else "cold"} downloads'
                    self.measure(figures, what, server, commands, 3 * size)
            drop_from_page_cache(server.stored(ids[0]))
            self.assertEqual(digest, server.digest(ids[0]))
        goal = 10 if is_slow else None
        figures.compare(f'{what}: p99, ms', OFFLOADED, INTERVAL, goal)
        self.finish(figures)

    def test_content(self):
        """What comes back is what was sent: a part of it, or all."""
        server = self.server(ADOPTED)
        source, digest = self.source((16 << 20) + 1)
        for header in 'X-Known: length', 'Transfer-Encoding: chunked':
            id = server.uploaded(source, '--header', header)
            self.assertEqual(digest, server.digest(id))
            with contextlib.closing(server.connect()) as connection:
                range_ = {'Range': f'bytes=1-{CHUNK}'}
                connection.request(
                    'GET', f'/v2/images/{id}/file', headers=range_
                )
                part = connection.getresponse().read()
            self.assertEqual(source.read_bytes()[1 : CHUNK + 1], part)

    def test_hang_up(self):
        self.check_hang_up(self.server(ADOPTED))

    def test_hang_up_where_reads_are_offloaded(self):
        self.check_hang_up(self.server(OFFLOADED, offload_file_reads=True))

    def check_hang_up(self, server):
        """A client that hangs up leaves nothing open within a second.

        One has read nothing, one a chunk, and one more than sockets hold.
        """
        id = server.uploaded(self.source(64 << 20)[0])
        with contextlib.ExitStack() as clients:
            for size in (0, CHUNK, 32 << 20):
                clients.enter_context(reading(server, id, size))
            base.wait_for(
                lambda: open_files(server).count(server.stored(id)) == 3,
                'the image is open for each client',
            )
        base.wait_for(
            lambda: server.stored(id) not in open_files(server),
            'the image is closed',
            deadline=1,
        )


def reading(server, id, size):
    """Return a connection that has read *size* bytes of a download."""
    client = socket.create_connection((base.LOOPBACK, server.port))
    request = f'GET /v2/images/{id}/file HTTP/1.1\r\nHost: glance\r\n\r\n'
    client.sendall(request.encode())
    while size > 0:
        size -= len(client.recv(min(size, CHUNK)))
    return client


def open_files(server):
    """Return the files that a server has open."""
    found = []
    for link in pathlib.Path(f'/proc/{server.process.pid}/fd').iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(link.readlink())
    return found


def drop_from_page_cache(path):
    with path.open('rb') as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
