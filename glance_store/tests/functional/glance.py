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

"""Glance API servers, their clients, and figures of both.

A server is one process on the loopback, with a SQLite database, a filesystem
store and no Keystone. Its images are in the page cache unless a test drops
them, and its clients are curl processes that write to /dev/null.
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
import statistics
import threading
import time
from typing import Any

import fixtures

from glance_store.tests.functional import base

# Seconds between two questions for /versions.
EVERY = 0.01

# Priorities above all else that runs: a client never keeps the server waiting,
# and a question is asked when it is due.
SERVER, CLIENTS, QUESTIONS = 1, 2, 3

ADOPTED = 'glance_store.common.glance_wsgi'


def glance_api(consumer: base.Consumer, port: int, adopted: bool) -> list[str]:
    """Return the command of a Glance that serves by itself, on eventlet."""
    if adopted:
        return [consumer.python, '-m', 'glance_store.common.adoption']
    return [str(consumer.scripts / 'glance-api')]


def gunicorn(consumer: base.Consumer, port: int, adopted: bool) -> list[str]:
    return [
        *(str(consumer.scripts / 'gunicorn'), '--worker-class', 'gthread'),
        *('--threads', '8', '--bind', f'{base.LOOPBACK}:{port}'),
        ADOPTED if adopted else 'glance.wsgi.api',
    ]


def uwsgi(consumer: base.Consumer, port: int, adopted: bool) -> list[str]:
    return [
        *(str(consumer.scripts / 'uwsgi'), '--master', '--die-on-term'),
        *('--need-app', '--lazy-apps', '--enable-threads', '--threads', '8'),
        *('--http-socket', f'{base.LOOPBACK}:{port}', '--disable-logging'),
        *('--module', ADOPTED if adopted else 'glance.wsgi.api'),
    ]


class Glance(fixtures.Fixture):
    """A Glance API server, and what a client does with it.

    :param name: what the figures call it
    :param command: one of the functions above
    :param release: 30 or 33
    :param adopted: True for one on our helpers
    :param flavor: of its pipeline, such as ``caching``
    :param options: those of group ``[glance_store]``
    """

    def __init__(
        self,
        name: str,
        command: Any,
        release: int,
        adopted: bool,
        flavor: str = '',
        **options: Any,
    ) -> None:
        super().__init__()
        self.name = name
        self._command = command
        self._adopted = adopted
        self._flavor = flavor
        self._options = options
        self._consumer = base.environment(f'glance_{release}')

    def _setUp(self):
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.port = base.free_port()
        config = self._configure()
        variables = self._consumer.environ(
            # Where it looks for its configuration.
            HOME=str(self.folder),
            OS_GLANCE_CONFIG_DIR=str(self.folder),
            PYTHONWARNINGS='ignore',
        )
        manage = str(self._consumer.scripts / 'glance-manage')
        base.run([manage, *config, 'db', 'sync'], env=variables)
        command = self._command(self._consumer, self.port, self._adopted)
        if self._command is glance_api:
            command += config
        self.process = base.Process(
            self.name, command, self.port, env=variables, cwd=self.folder
        )
        ours = base.DropIn(self._consumer)
        # A service keeps the modules that it has imported.
        with ours if self._adopted else contextlib.nullcontext():
            self.useFixture(self.process)
            self.request('GET', '/v2/images')

    def _configure(self) -> list[str]:
        def made(name: str) -> dict[str, Any]:
            (self.folder / name).mkdir()
            return {'filesystem_store_datadir': self.folder / name}

        policy = self.folder / 'policy.yaml'
        policy.write_text('cache_image: ""\n')
        path = self.folder / 'glance-api.conf'
        etc = self._consumer.folder / 'etc' / 'glance'
        config = configparser.RawConfigParser()
        config.read_dict(
            {
                'DEFAULT': {
                    'bind_host': base.LOOPBACK,
                    'bind_port': self.port,
                    'workers': 0,
                    'enabled_backends': 'store:file',
                    'image_cache_dir': self.folder / 'cache',
                    'image_cache_driver': 'sqlite',
                },
                'database': {
                    'connection': f'sqlite:///{self.folder}/glance.sqlite'
                },
                'glance_store': {'default_backend': 'store', **self._options},
                'store': made('store'),
                'os_glance_staging_store': made('staging'),
                'os_glance_tasks_store': made('tasks'),
                'oslo_concurrency': {'lock_path': self.folder},
                'oslo_policy': {
                    'enforce_scope': 'false',
                    'enforce_new_defaults': 'false',
                    'policy_file': policy,
                },
                'paste_deploy': {
                    'flavor': self._flavor,
                    'config_file': etc / 'glance-api-paste.ini',
                },
            }
        )
        with path.open('w') as file:
            config.write(file)
        return ['--config-file', str(path)]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(
            base.LOOPBACK, self.port, timeout=base.DEADLINE
        )

    def request(self, method: str, path: str, document: Any = None) -> Any:
        """Send a request with JSON, and return what its answer holds."""
        with contextlib.closing(self.connect()) as connection:
            body = None if document is None else json.dumps(document)
            headers = {'Content-Type': 'application/json'}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = response.read()
        if response.status >= 300:
            raise AssertionError(f'{method} {path}: {response.status}')
        return json.loads(answer) if answer else None

    def create(self) -> str:
        """Return the id of a new image without data."""
        document = {'disk_format': 'raw', 'container_format': 'bare'}
        return str(self.request('POST', '/v2/images', document)['id'])

    def uploaded(self, path: pathlib.Path, *more: str) -> str:
        """Return the id of a new image with the contents of a file."""
        id = self.create()
        at_once([self.uploading(id, path, *more)])
        return id

    def uploading(self, id: str, path: pathlib.Path, *more: str) -> list[str]:
        """Return the command that uploads what *path* holds."""
        kind = 'Content-Type: application/octet-stream'
        return self._curl(
            *('--header', kind, '--upload-file', str(path), *more), id=id
        )

    def downloading(self, id: str, times: int = 1) -> list[str]:
        """Return the command that downloads an image, again and again."""
        return self._curl('--output', os.devnull, id=id, query=f'?[1-{times}]')

    def _curl(self, *arguments: str, id: str, query: str = '') -> list[str]:
        return [
            # First, so that no configuration of the user is read.
            *(base.tool('curl'), '--disable', '--noproxy', '*'),
            *('--silent', '--show-error', '--fail', *arguments),
            f'http://{base.LOOPBACK}:{self.port}/v2/images/{id}/file{query}',
        ]

    def digest(self, id: str) -> str:
        """Return the SHA-256 of what a download sends."""
        with contextlib.closing(self.connect()) as connection:
            connection.request('GET', f'/v2/images/{id}/file')
            answer = connection.getresponse()
            return hashlib.file_digest(answer, 'sha256').hexdigest()

    def stored(self, id: str) -> pathlib.Path:
        return pathlib.Path(self.folder, 'store', id)


def source(path: pathlib.Path, size: int) -> tuple[pathlib.Path, str]:
    """Write a file of random bytes, and return it with its SHA-256."""
    with path.open('wb') as file:
        while left := size - file.tell():
            file.write(os.urandom(min(left, 1 << 20)))
    with path.open('rb') as file:
        return path, hashlib.file_digest(file, 'sha256').hexdigest()


def at_once(commands: Iterable[list[str]]) -> float:
    """Run commands at the same time, and return how long it took, seconds."""
    commands = list(commands)
    begun = time.monotonic()
    with futures.ThreadPoolExecutor(len(commands)) as pool:
        list(pool.map(base.run, commands))
    return time.monotonic() - begun


@contextlib.contextmanager
def priority(number: int, pid: int = 0) -> Iterator[None]:
    """Give a thread, by default the calling one, a priority, if allowed to."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(number))
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


@contextlib.contextmanager
def slow_disk(server: Glance, rate: int) -> Iterator[bool]:
    """Let a server read *rate* bytes a second from its disk; tell if it works.

    That takes the right to make a group of the controller ``blkio``.
    """
    groups = pathlib.Path('/sys/fs/cgroup/blkio')
    pid = str(server.process.pid)
    group = groups / f'glance-store-test-{pid}'
    device = server.folder.stat().st_dev
    limit = f'{os.major(device)}:{os.minor(device)} {rate}'
    with contextlib.ExitStack() as stack:
        try:
            group.mkdir()
            stack.callback(group.rmdir)
            (group / 'blkio.throttle.read_bps_device').write_text(limit)
            (group / 'cgroup.procs').write_text(pid)
            stack.callback((groups / 'cgroup.procs').write_text, pid)
        except OSError:
            yield False
        else:
            yield True


class Asking:
    """A client that asks for /versions all the time, on one connection.

    A question is due every 10 ms, and its answer counts from then on. The
    questions that fall due before an answer count as answered with it, as if
    each had a connection of its own.
    """

    def __init__(self, server: Glance) -> None:
        self._server = server
        self._stop = threading.Event()
        self.times: list[float] = []

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
        if not answer['versions']:
            raise AssertionError(f'/versions: {response.status}')

    def _run(self) -> None:
        with priority(QUESTIONS):
            due = time.monotonic()
            while not self._stop.is_set():
                self._ask()
                now = time.monotonic()
                while due < now:
                    self.times.append(now - due)
                    due += EVERY
                self._stop.wait(due - now)


class Figures:
    """What was measured, once a round, of several servers."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], list[float]] = {}
        self._lines: list[str] = []
        self.missed: list[str] = []

    def add(self, what: str, server: str, value: float) -> None:
        self._seen.setdefault((what, server), []).append(value)

    def add_answers(self, what: str, server: str, asking: Asking) -> None:
        times = sorted(1000 * value for value in asking.times)
        for name, part in ('median', 0.5), ('p99', 0.99), ('worst', 1):
            index = min(int(part * len(times)), len(times) - 1)
            self.add(f'{what}: {name}, ms', server, times[index])

    def compare(
        self, what: str, server: str, other: str, goal: float | None = None
    ) -> None:
        """Compare the medians of two servers, and note a missed goal.

        On a machine that others share, a third of the goal is enough.
        """
        ours = statistics.median(self._seen[what, server])
        theirs = statistics.median(self._seen[what, other])
        times = ours / theirs if what.endswith('MB/s') else theirs / ours
        line = f'{what}: {server}, {times:.3g} times as good as {other}'
        if goal is not None:
            line += f', the goal being {goal:g}'
            if times < goal / 3:
                self.missed.append(line)
        self._lines.append(line)

    def __str__(self) -> str:
        models = (
            line.partition(':')[2].strip()
            for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines()
            if line.startswith('model name')
        )
        cpus = len(os.sched_getaffinity(0))
        model = next(models, platform.machine())
        lines = [f'Python {platform.python_version()}, {cpus} CPUs, {model}']
        for (what, server), values in self._seen.items():
            rounds = ', '.join(f'{value:.4g}' for value in values)
            lines.append(f'{what}, {server}: {rounds}')
        return '\n'.join([*lines, *self._lines])
