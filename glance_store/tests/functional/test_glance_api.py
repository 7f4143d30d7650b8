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

"""A Glance API server on our helpers.

Each test starts ``glance-api`` of glance 30.1.0, the last line made for
eventlet: one process on the loopback, with a SQLite database, the filesystem
store of glance_store 4.9.1 and no Keystone. What it reads from is its own
file in the page cache, and who reads from it is curl. One server is as it was
released. The other streams through our helpers: they are dropped into its
glance_store, they replace the copies of them that Glance keeps, and there is
a cooperative_iter around what a download sends.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from concurrent import futures
import configparser
import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import platform
import socket
import statistics
import threading
import time
from typing import Any

import fixtures
from testtools import content

from glance_store.tests.functional import base

PROGRAM = pathlib.Path(__file__).with_name('glance_api_program.py')

CHUNK = 65536

# What the two servers are called.
RELEASED = 'as released'
OURS = 'with ours'

# What each image holds that is measured with, and how many clients there are.
SIZE = 512 << 20
CLIENTS = 3

# How often both servers are measured, in turns: the fewest times and, where a
# figure is not good enough yet, the most.
ROUNDS = 3
MOST_ROUNDS = 6

# While something is measured, whoever has a higher priority comes first.
LOW, MIDDLE, HIGH = 1, 2, 3

# How often /versions is asked for, in seconds, and when that ends at last.
EVERY = 0.01
MOST = 100_000

# How long the source of a download may stay open whose client is gone.
CLOSED_WITHIN = 1


class Server(fixtures.Fixture):
    """A Glance API server, and what a client does with it.

    :param consumer: where it is installed
    :param folder: for all that it writes
    :param command: its program, to which its configuration is added
    """

    def __init__(
        self,
        name: str,
        consumer: base.Consumer,
        folder: pathlib.Path,
        command: Iterable[str],
    ) -> None:
        super().__init__()
        self.name = name
        self._consumer = consumer
        self._folder = folder
        self._command = command

    def _setUp(self):
        self.port = base.free_port()
        self.store = self._made('store')
        config = self._configure()
        # Without these it would look for more of both in other places.
        variables = self._consumer.environ(
            HOME=str(self._folder), PYTHONWARNINGS='ignore'
        )
        manage = str(self._consumer.scripts / 'glance-manage')
        base.run([manage, *config, 'db', 'sync'], env=variables)
        process = base.Process(
            self.name,
            [*self._command, *config],
            port=self.port,
            env=variables,
            cwd=self._folder,
        )
        self.pid = self.useFixture(process).pid

    def _made(self, name: str) -> pathlib.Path:
        folder = self._folder / name
        folder.mkdir()
        return folder

    def _configure(self) -> list[str]:
        config = configparser.RawConfigParser()
        config.read_dict(
            {
                'DEFAULT': {
                    'bind_host': base.LOOPBACK,
                    'bind_port': self.port,
                    'workers': 0,
                    'enabled_backends': 'filesystem:file',
                    'image_cache_dir': self._made('cache'),
                },
                'database': {
                    'connection': f'sqlite:///{self._folder}/glance.sqlite'
                },
                'glance_store': {'default_backend': 'filesystem'},
                'filesystem': {'filesystem_store_datadir': self.store},
                'os_glance_staging_store': {
                    'filesystem_store_datadir': self._made('staging')
                },
                'os_glance_tasks_store': {
                    'filesystem_store_datadir': self._made('tasks')
                },
                'oslo_concurrency': {'lock_path': self._made('locks')},
                'oslo_policy': {
                    'enforce_scope': 'false',
                    'enforce_new_defaults': 'false',
                },
                'paste_deploy': {
                    'flavor': '',
                    'config_file': self._consumer.folder
                    / 'etc/glance/glance-api-paste.ini',
                },
            }
        )
        path = self._folder / 'glance-api.conf'
        with path.open('w') as file:
            config.write(file)
        return ['--config-file', str(path)]

    def request(
        self, method: str, path: str, document: Any = None
    ) -> dict[str, Any]:
        """Send a request with JSON, and return what its answer holds."""
        with contextlib.closing(self.connect()) as connection:
            body = None if document is None else json.dumps(document)
            headers = {'Content-Type': 'application/json'}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = response.read()
        if response.status >= 300:
            raise AssertionError(f'{method} {path}: {response.status}')
        return json.loads(answer) if answer else {}

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(
            base.LOOPBACK, self.port, timeout=base.DEADLINE
        )

    def create(self) -> str:
        """Return the id of a new image that has no data yet."""
        document = {'disk_format': 'raw', 'container_format': 'bare'}
        return str(self.request('POST', '/v2/images', document)['id'])

    def image(self, id: str) -> dict[str, Any]:
        return self.request('GET', f'/v2/images/{id}')

    def delete(self, id: str) -> None:
        self.request('DELETE', f'/v2/images/{id}')

    def uploading(self, id: str, path: pathlib.Path, *more: str) -> list[str]:
        """Return the command that uploads what *path* holds."""
        kind = 'Content-Type: application/octet-stream'
        return self._curl(
            *('--header', kind, '--upload-file', str(path), *more), id=id
        )

    def downloading(self, id: str, path: Any, *more: str) -> list[str]:
        """Return the command that downloads an image."""
        return self._curl('--output', str(path), *more, id=id)

    def _curl(self, *arguments: str, id: str) -> list[str]:
        return [
            # First, so that no configuration of the user's is read.
            *(base.tool('curl'), '--disable', '--noproxy', '*'),
            *('--silent', '--show-error', '--fail', *arguments),
            f'http://{base.LOOPBACK}:{self.port}/v2/images/{id}/file',
        ]

    def digest(self, id: str) -> str:
        """Return the SHA-256 of what a download sends."""
        with contextlib.closing(self.connect()) as connection:
            connection.request('GET', f'/v2/images/{id}/file')
            answer = connection.getresponse()
            return hashlib.file_digest(answer, 'sha256').hexdigest()

    def reading(self, id: str, size: int) -> socket.socket:
        """Return a connection on which so much of a download was read."""
        client = self._begin('GET', id)
        while size > 0:
            data = client.recv(min(size, CHUNK))
            if not data:
                raise AssertionError('the server hung up')
            size -= len(data)
        return client

    def writing(self, id: str, size: int) -> socket.socket:
        """Return a connection for an upload of so much."""
        return self._begin(
            'PUT',
            id,
            'Content-Type: application/octet-stream',
            f'Content-Length: {size}',
        )

    def _begin(self, method: str, id: str, *headers: str) -> socket.socket:
        address = (base.LOOPBACK, self.port)
        client = socket.create_connection(address, timeout=base.DEADLINE)
        line = f'{method} /v2/images/{id}/file HTTP/1.1'
        lines = [line, 'Host: glance', *headers, '', '']
        client.sendall('\r\n'.join(lines).encode())
        return client

    def open_files(self) -> list[str]:
        """Return what the server has open, of sockets only that they are."""
        found = []
        for link in pathlib.Path(f'/proc/{self.pid}/fd').iterdir():
            with contextlib.suppress(FileNotFoundError):
                target = os.readlink(link)
                found.append(target.partition(':[')[0])
        return sorted(found)


def at_once(commands: Iterable[list[str]]) -> float:
    """Run commands at the same time, and return how long it took, seconds."""
    commands = list(commands)
    begun = time.monotonic()
    with futures.ThreadPoolExecutor(len(commands)) as pool:
        list(pool.map(base.run, commands))
    return time.monotonic() - begun


def digest(path: pathlib.Path, name: str = 'sha256') -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, name).hexdigest()


@contextlib.contextmanager
def real_time(priority: int, pid: int = 0) -> Iterator[None]:
    """Let nothing else that runs here come before a thread, if allowed to.

    :param pid: whose thread; by default it is the calling one, and what it
        starts
    """
    try:
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(priority))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


class Asking:
    """A client that asks for /versions, again and again, on one connection.

    The time of an answer counts from when the question was due. While an
    answer keeps the client waiting, the questions that fall due meanwhile
    cannot be asked: they count as answered when that one is, as they would
    have been on connections of their own.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self.times: list[float] = []
        self.answers = 0

    def __enter__(self) -> 'Asking':
        self._connection = self._server.connect()
        self._ask()
        self._pool = futures.ThreadPoolExecutor(1)
        self._done = self._pool.submit(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        self._connection.close()
        self._done.result()

    def _ask(self) -> None:
        self._connection.request('GET', '/versions')
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200 or not answer['versions']:
            raise AssertionError(f'/versions: {response.status}')

    def _run(self) -> None:
        with real_time(HIGH):
            self._ask_again_and_again()

    def _ask_again_and_again(self) -> None:
        due = time.monotonic()
        while len(self.times) < MOST and not self._stop.is_set():
            self._ask()
            self.answers += 1
            now = time.monotonic()
            while due < now:
                self.times.append(now - due)
                due += EVERY
            self._stop.wait(due - now)

    @property
    def worst(self) -> float:
        return max(self.times)


class Figure:
    """What was measured of both servers, once a round.

    :param what: what it is of
    :param unit: its unit, and how many of these one is
    :param less: whether it is a time, and less is better
    :param goal: how many times better it is to be with our helpers, None
        where it is only shown
    """

    def __init__(
        self,
        what: str,
        unit: str,
        scale: float,
        less: bool,
        goal: float | None = None,
    ) -> None:
        self.what = what
        self.goal = goal
        self._unit = unit
        self._scale = scale
        self._less = less
        self._seen: dict[str, list[float]] = {}

    def add(self, server: str, value: float) -> None:
        self._seen.setdefault(server, []).append(value * self._scale)

    def times_better(self) -> float:
        """Return how many times better it is with our helpers.

        The medians of all rounds are compared. What else runs on the machine
        spoils a round for either of the two, the released server's too: its
        clients are then slower than it is, it waits for them, and answers
        others meanwhile.
        """
        released = statistics.median(self._seen[RELEASED])
        ours = statistics.median(self._seen[OURS])
        return released / ours if self._less else ours / released

    def missed(self) -> bool:
        """Tell whether it is not even a third of its goal.

        A machine that others share is noisy, so the goal itself is for those
        who read the figures.
        """
        return self.goal is not None and self.times_better() < self.goal / 3

    def __str__(self) -> str:
        lines = [f'{self.what}, {self._unit}']
        for server in (RELEASED, OURS):
            rounds = ', '.join(f'{x:.4g}' for x in self._seen[server])
            lines.append(f'    {server}: {rounds}')
        goal = '' if self.goal is None else f', the goal being {self.goal:g}'
        lines.append(f'    {self.times_better():.4g} times better{goal}')
        return '\n'.join(lines)


class Figures:
    """All that is measured, round by round."""

    def __init__(self) -> None:
        self.upload = Figure('speed of an upload', 'MB/s', 1e-6, False, 1)
        self.downloads = Figure(
            f'speed of {CLIENTS} downloads', 'MB/s', 1e-6, False, 0.9
        )
        self.answer = Figure(
            f'worst answer while {CLIENTS} download', 'ms', 1e3, True, 30
        )
        # No goals: who answers more has less time for downloads.
        self.answers = Figure('answers meanwhile', 'a second', 1, False)
        self.asked = Figure('speed of these downloads', 'MB/s', 1e-6, False)

    def missed(self) -> list[str]:
        every: list[Figure] = list(vars(self).values())
        return [figure.what for figure in every if figure.missed()]

    def __str__(self) -> str:
        return '\n'.join([this_machine(), *map(str, vars(self).values())])


def this_machine() -> str:
    """Say on which machine the figures were seen."""
    names = (
        line.partition(':')[2].strip()
        for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines()
        if line.startswith('model name')
    )
    return (
        f'Python {platform.python_version()}, '
        f'{len(os.sched_getaffinity(0))} CPUs, '
        f'{next(names, platform.machine())}'
    )


class TestGlanceAPI(base.TestCase):
    ours: Server

    def setUp(self):
        super().setUp()
        # An environment of its own: the other one stays as it was released.
        consumer = base.environment('glance_api_ours', 'glance_api')
        self.useFixture(base.DropIn(consumer))
        command = [consumer.python, '-P', str(PROGRAM)]
        self.ours = self.useFixture(
            Server(OURS, consumer, self.tempdir(), command)
        )

    def _released(self) -> Server:
        consumer = base.environment('glance_api')
        command = [str(consumer.scripts / 'glance-api')]
        return self.useFixture(
            Server(RELEASED, consumer, self.tempdir(), command)
        )

    def _source(self, size: int) -> pathlib.Path:
        """Return a file of so many bytes, no two parts of which are alike."""
        path = self.tempdir() / 'source'
        with path.open('wb') as file:
            while left := size - file.tell():
                file.write(os.urandom(min(left, 1 << 20)))
        return path

    def test_figures(self):
        """Downloads let others in, and nothing becomes slower by that."""
        servers = [self._released(), self.ours]
        source = self._source(SIZE)
        expected = digest(source)
        figures = Figures()
        for turn in range(MOST_ROUNDS):
            if turn >= ROUNDS and not figures.missed():
                break
            for server in servers[:: -1 if turn % 2 else 1]:
                id = server.create()
                self._measure(server, id, source, figures)
                self.assertEqual(expected, server.digest(id))
                server.delete(id)
        # stestr prints what has this name even where all is well.
        self.addDetail('stdout', content.text_content(str(figures)))
        self.assertEqual([], figures.missed())

    def _measure(
        self, server: Server, id: str, source: pathlib.Path, figures: Figures
    ) -> None:
        downloads = [server.downloading(id, os.devnull)] * CLIENTS
        # What is to be seen here is how fast the server can be.
        with real_time(MIDDLE, server.pid), real_time(LOW):
            seconds = at_once([server.uploading(id, source)])
            figures.upload.add(server.name, SIZE / seconds)
            seconds = at_once(downloads)
            figures.downloads.add(server.name, CLIENTS * SIZE / seconds)
        # And here, what it does for others while no client keeps it waiting.
        with real_time(LOW, server.pid), real_time(MIDDLE):
            with Asking(server) as asking:
                seconds = at_once(downloads)
        figures.answer.add(server.name, asking.worst)
        figures.answers.add(server.name, asking.answers / seconds)
        figures.asked.add(server.name, CLIENTS * SIZE / seconds)

    def test_content(self):
        """What comes back is what was sent, with several at once."""
        sizes = [(16 << 20) + n * (CHUNK + 1) for n in range(CLIENTS)]
        sources = [self._source(size) for size in sizes]
        ids = [self.ours.create() for _ in sources]
        at_once(map(self.ours.uploading, ids, sources))
        self._check_images(ids, sources)

    def test_content_of_unknown_length(self):
        chunked = ('--header', 'Transfer-Encoding: chunked')
        source = self._source((16 << 20) + 1)
        id = self.ours.create()
        at_once([self.ours.uploading(id, source, *chunked)])
        self._check_images([id], [source])

    def _check_images(
        self, ids: list[str], sources: list[pathlib.Path]
    ) -> None:
        copies = [self.tempdir() / 'copy' for _ in ids]
        at_once(map(self.ours.downloading, ids, copies))
        for id, source, copy in zip(ids, sources, copies, strict=True):
            image = self.ours.image(id)
            self.assertEqual('active', image['status'])
            self.assertEqual(source.stat().st_size, image['size'])
            self.assertEqual(digest(source, 'sha512'), image['os_hash_value'])
            self.assertEqual(digest(source), digest(copy))

    def test_range(self):
        source = self._source(3 * CHUNK)
        id = self.ours.create()
        at_once([self.ours.uploading(id, source)])
        copy = self.folder / 'copy'
        for first, last in [(0, 0), (1, CHUNK), (CHUNK, 3 * CHUNK - 1)]:
            at_once(
                [self.ours.downloading(id, copy, '--range', f'{first}-{last}')]
            )
            expected = source.read_bytes()[first : last + 1]
            self.assertEqual(expected, copy.read_bytes())

    def test_hang_up(self):
        """Whoever hangs up in a download leaves nothing open in the server.

        One of the clients has not read anything by then, one a little, and
        one much more than sockets hold.
        """
        id = self.ours.create()
        at_once([self.ours.uploading(id, self._source(64 << 20))])
        image = str(self.ours.store / id)
        before = self._open_when_idle()
        with contextlib.ExitStack() as clients:
            for size in (0, CHUNK, 32 << 20):
                clients.enter_context(self.ours.reading(id, size))
            base.wait_for(
                lambda: self.ours.open_files().count(image) == 3,
                'the image is open for each client',
            )
        base.wait_for(
            lambda: image not in self.ours.open_files(),
            'the image is closed',
            CLOSED_WITHIN,
        )
        self.assertEqual(before, self._open_when_idle())

    def test_hang_up_in_an_upload(self):
        """Half an image is none, and leaves nothing open or stored."""
        id = self.ours.create()
        before = self._open_when_idle()
        with self.ours.writing(id, SIZE) as client:
            for _ in range(256):
                client.sendall(bytes(CHUNK))
            base.wait_for(
                lambda: str(self.ours.store / id) in self.ours.open_files(),
                'the image is open',
            )
        base.wait_for(
            lambda: not os.listdir(self.ours.store),
            'what came of the image is removed',
        )
        self.assertEqual(before, self._open_when_idle())
        base.wait_for(
            lambda: self.ours.image(id)['status'] == 'queued',
            'the image waits for data again',
        )

    def _open_when_idle(self) -> list[str]:
        """Return what is open when the only socket is the one to listen."""
        # Opens what then stays open: connections to the database.
        self.ours.image(self.ours.create())
        base.wait_for(
            lambda: self.ours.open_files().count('socket') == 1,
            'nobody is connected',
        )
        return self.ours.open_files()
