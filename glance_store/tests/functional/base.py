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

"""What the functional tests share: consumers, servers, ports, folders.

A *consumer* is a program or a library that we did not write and that streams
images through our helpers. Each is installed from the package index into a
virtual environment of its own, with the exact releases that a file in the
folder ``requirements`` names, and kept for the next run.

Nothing here skips: a test that cannot start its real thing fails.
"""

from collections.abc import Callable
from collections.abc import Container
from collections.abc import Mapping
from collections.abc import Sequence
import ctypes
import dataclasses
import fcntl
import hashlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

import fixtures
import testtools
from testtools import content
from testtools import content_type

from glance_store.cmd import drop_in

ROOT = pathlib.Path(__file__).resolve().parents[3]
REQUIREMENTS = pathlib.Path(__file__).with_name('requirements')

# tox.ini says where the consumers are installed.
CONSUMERS = 'GLANCE_STORE_CONSUMERS'

# Only there to end a test that hangs, in seconds.
DEADLINE = 60
INSTALLATION = 900

# How often a condition is looked at.
INTERVAL = 0.02

LOOPBACK = '127.0.0.1'


def wait_for(
    condition: Callable[[], Any], what: str, deadline: float = DEADLINE
) -> Any:
    """Return the first true answer of *condition*, asked again and again."""
    end = time.monotonic() + deadline
    while not (answer := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f'not within {deadline:g} s: {what}')
        time.sleep(INTERVAL)
    return answer


_ports: set[int] = set()


def free_port() -> int:
    """Return a port of the loopback that nobody uses, each one only once."""
    while True:
        with socket.create_server((LOOPBACK, 0)) as server:
            port = int(server.getsockname()[1])
        if port not in _ports:
            _ports.add(port)
            return port


def answers(port: int) -> bool:
    """Tell whether somebody listens on *port* of the loopback."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def tool(name: str) -> str:
    """Return the path of a program of the system, which has to be there."""
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f'{name} is not installed')
    return path


# -- Consumers ----------------------------------------------------------------


def foreign_environ(**variables: str) -> dict[str, str]:
    """Return the variables for a program that is to see nothing of ours.

    What tells a Python where its modules are is left out, and so is what tox
    tells pip for this repository's own environments.
    """
    ours = ('PYTHON', 'VIRTUAL_ENV', 'TOX', 'OS_', 'COVERAGE')
    pips = ('PIP_CONSTRAINT', 'PIP_BUILD_CONSTRAINT')
    return {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(ours) and name not in pips
        },
        **variables,
    }


@dataclasses.dataclass(frozen=True)
class Consumer:
    """A virtual environment with a consumer in it."""

    folder: pathlib.Path

    @property
    def scripts(self) -> pathlib.Path:
        return self.folder / 'bin'

    @property
    def python(self) -> str:
        return str(self.scripts / 'python')

    @property
    def packages(self) -> pathlib.Path:
        """Its ``site-packages``."""
        version = f'python{sys.version_info.major}.{sys.version_info.minor}'
        return self.folder / 'lib' / version / 'site-packages'

    def environ(self, **variables: str) -> dict[str, str]:
        path = f'{self.scripts}{os.pathsep}{os.environ["PATH"]}'
        return foreign_environ(
            **{'PATH': path, 'PYTHONUNBUFFERED': '1', **variables}
        )

    def run(
        self,
        *arguments: str,
        cwd: str | os.PathLike[str],
        variables: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> 'subprocess.CompletedProcess[Any]':
        """Run its Python in *cwd*, which is to be none with a glance_store."""
        return run(
            [self.python, *arguments],
            cwd=cwd,
            env=self.environ(**variables or {}),
            **kwargs,
        )


def run(
    command: Sequence[str],
    timeout: float = DEADLINE,
    statuses: Container[int] = (0,),
    text: bool = True,
    **kwargs: Any,
) -> 'subprocess.CompletedProcess[Any]':
    """Run a program to its end, which has to be a good one, for its output.

    :param timeout: in seconds; whatever it has started dies with it
    :param statuses: with which it may exit
    :param text: False where its output is wanted as bytes
    :param kwargs: for :class:`subprocess.Popen`, *env* and *cwd* say
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=text,
        start_new_session=True,
        **kwargs,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode not in statuses:
        raise AssertionError(
            f'{command}: exit status {process.returncode}\n{out}\n{err}'
        )
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def environment(name: str, requirements: str | None = None) -> Consumer:
    """Return the virtual environment *name*, made where there is none yet.

    :param name: what its folder is called
    :param requirements: the file of the folder ``requirements``, without its
        ``.txt``, that pins all it holds; by default the one of that name
    """
    pins = REQUIREMENTS / f'{requirements or name}.txt'
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    consumers = pathlib.Path(os.environ[CONSUMERS])
    consumers.mkdir(parents=True, exist_ok=True)
    folder = consumers / name
    # Written last: an environment without it is only half there.
    complete = folder / 'complete'
    with (consumers / f'{name}.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists() or complete.read_text() != digest:
            shutil.rmtree(folder, ignore_errors=True)
            _install(Consumer(folder), pins)
            complete.write_text(digest)
    return Consumer(folder)


def _install(consumer: Consumer, pins: pathlib.Path) -> None:
    # A source distribution is built with what is pinned, too. Which of the
    # two variables pip heeds there depends on how old it is.
    constraints = {
        'PIP_CONSTRAINT': str(pins),
        'PIP_BUILD_CONSTRAINT': str(pins),
    }
    # Not the Python of tox's environment but the one behind it: from there a
    # link would lead back to it.
    base = getattr(sys, '_base_executable', sys.executable)
    run(
        [base, '-m', 'venv', str(consumer.folder)],
        timeout=INSTALLATION,
        env=foreign_environ(),
    )
    consumer.run(
        *('-m', 'pip', 'install', '--quiet', '--no-deps'),
        *('--requirement', str(pins)),
        cwd=consumer.folder,
        variables=constraints,
        timeout=INSTALLATION,
    )
    consumer.run('-m', 'pip', 'check', cwd=consumer.folder)


class DropIn(fixtures.Fixture):
    """Our modules in a consumer's glance_store, as long as the fixture is.

    They are put there and taken out again by glance-store-drop-in.
    """

    def __init__(self, consumer: Consumer) -> None:
        super().__init__()
        self._consumer = consumer

    def _setUp(self):
        if (self._consumer.packages / drop_in.KEPT).exists():
            # From a run that was cut short.
            self._run('--undo')
        self._run()
        self.addCleanup(self._run, '--undo')

    def _run(self, *arguments: str) -> None:
        module = ('-m', drop_in.__name__)
        run(
            [sys.executable, *module, *arguments, self._consumer.python],
            cwd=ROOT,
            env=foreign_environ(),
        )


# -- Servers ------------------------------------------------------------------


class Process(fixtures.Fixture):
    """A server in a process group of its own, up as long as the fixture is.

    Its output is a detail of the test. Once it is ready it is not to end by
    itself: where it did, or where something else went wrong in stopping it,
    the test fails.

    :param name: what the detail is called
    :param command: what to run
    :param port: the port of the loopback on which it is to answer
    :param ready: or else what tells, asked again and again, that it is ready
    :param deadline: how long it may take for that, and for stopping, seconds
    :param kwargs: for :class:`subprocess.Popen`, *env* and *cwd* say
    """

    # What it had written when its output was closed.
    _rest = b''

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        port: int | None = None,
        ready: Callable[[], Any] | None = None,
        deadline: float = DEADLINE,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.name = name
        self.command = command
        self.port = port
        self._ready = ready
        self._deadline = deadline
        self._kwargs = kwargs

    def _setUp(self):
        # No file that could be left behind: it has no name.
        self._log = tempfile.TemporaryFile()
        self.addCleanup(self._close_log)
        self.addDetail(
            self.name,
            content.Content(content_type.UTF8_TEXT, lambda: [self.output()]),
        )
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **self._kwargs,
        )
        self.pid = self.process.pid
        self.addCleanup(self.stop)
        wait_for(self._is_ready, f'{self.name} is ready', self._deadline)

    def _is_ready(self) -> Any:
        if self.process.poll() is not None:
            raise AssertionError(
                f'{self.name} ended: {self.process.returncode}\n'
                f'{self.output().decode(errors="replace")}'
            )
        if self._ready is not None:
            return self._ready()
        return self.port is None or answers(self.port)

    def output(self) -> bytes:
        """Return all that it has written so far."""
        if self._log.closed:
            return self._rest
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0)

    def _close_log(self) -> None:
        self._rest = self.output()
        self._log.close()

    def signal(self, number: int) -> None:
        """Send a signal to each process of the group that is still there."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    def kill(self) -> None:
        """Be the accident that ends it at once."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Ask it to stop, make it, and wait until the whole group is gone."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                pass
        self.kill()
        wait_for(self._is_gone, f'{self.name} is gone', self._deadline)

    def _is_gone(self) -> bool:
        # Whoever of the group has lost its parent is a child of ours, and
        # stays a zombie until somebody asks for it.
        try:
            while os.waitpid(-self.pid, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            pass
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return True
        return False


# -- Tests --------------------------------------------------------------------


def _adopt_orphans() -> None:
    """Become the parent of each descendant that loses its own."""
    set_child_subreaper = 36
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(set_child_subreaper, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), 'prctl')


def children() -> dict[int, str]:
    """Return the command lines of the children of this process."""
    found = {}
    for folder in pathlib.Path('/proc').glob('[0-9]*'):
        try:
            # The name in parentheses may hold anything.
            status = (folder / 'stat').read_text().rpartition(')')[2].split()
            if int(status[1]) == os.getpid():
                line = (folder / 'cmdline').read_text().replace('\0', ' ')
                found[int(folder.name)] = f'{status[0]} {line}'
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


class TestCase(testtools.TestCase):
    """A test that leaves no process and no file behind.

    ``self.folder`` is an empty folder, which is removed with all that is in
    it. What the test and what it starts put where temporary files go they
    have to remove themselves.
    """

    def setUp(self):
        super().setUp()
        _adopt_orphans()
        before = set(children())
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        # For what is started, and for this process itself.
        self.useFixture(fixtures.NestedTempfile())
        self.useFixture(
            fixtures.EnvironmentVariable('TMPDIR', tempfile.gettempdir())
        )
        # Fixtures are used after this, and so are gone before these checks.
        self.addCleanup(self._check_files, tempfile.gettempdir())
        self.addCleanup(self._check_children, before)

    def _check_files(self, folder: str) -> None:
        self.assertEqual([], os.listdir(folder))

    def _check_children(self, before: set[int]) -> None:
        left = {
            pid: line for pid, line in children().items() if pid not in before
        }
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.assertEqual({}, left)

    def tempdir(self) -> pathlib.Path:
        """Return one more empty folder, removed as the first one is."""
        return pathlib.Path(tempfile.mkdtemp(dir=self.folder))
