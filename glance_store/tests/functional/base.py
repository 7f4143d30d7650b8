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

"""What the functional tests share: consumers, servers, folders.

A *consumer* is a program or a library of others that streams images through
our helpers. Each is installed from the package index into a virtual
environment of its own, with the releases that a file in ``requirements`` pins,
and kept for the next run. A test whose consumer cannot start fails.
"""

from collections.abc import Callable
from collections.abc import Container
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent import futures
import contextlib
import ctypes
import dataclasses
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


ROOT = pathlib.Path(__file__).resolve().parents[3]
REQUIREMENTS = pathlib.Path(__file__).with_name('requirements')

# Seconds after which a test that hangs fails.
DEADLINE = 60
LONG_DEADLINE = 900

LOOPBACK = '127.0.0.1'


def wait_for(
    condition: Callable[[], Any], what: str, deadline: float = DEADLINE
) -> Any:
    """Return the first true answer of *condition*, which is polled."""
    end = time.monotonic() + deadline
    while not (answer := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f'not within {deadline:g} s: {what}')
        time.sleep(0.02)
    return answer


_ports: set[int] = set()


def free_port() -> int:
    """Return a free port of the loopback, each one only once."""
    while True:
        with socket.create_server((LOOPBACK, 0)) as server:
            port = int(server.getsockname()[1])
        if port not in _ports:
            _ports.add(port)
            return port


def answers(port: int) -> bool:
    """Tell whether a server listens on a port of the loopback."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def tool(name: str) -> str:
    """Return the path of a program of the system."""
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f'{name} is not installed')
    return path


def foreign_environ(**variables: str) -> dict[str, str]:
    """Return the variables for a program that sees nothing of this checkout.

    They lack what points a Python to modules, and what tox tells pip.
    """
    ours = ('PYTHON', 'VIRTUAL_ENV', 'TOX', 'OS_', 'COVERAGE')
    pips = ('PIP_CONSTRAINT', 'PIP_BUILD_CONSTRAINT')
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours) and name not in pips
    }
    return {**kept, **variables}


def run(
    command: Sequence[str],
    timeout: float = DEADLINE,
    statuses: Container[int] = (0,),
    text: bool = True,
    **kwargs: Any,
) -> 'subprocess.CompletedProcess[Any]':
    """Run a program, with all that it starts, and return its output."""
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
        (packages,) = self.folder.glob('lib/python*/site-packages')
        return packages

    def environ(self, **variables: str) -> dict[str, str]:
        path = f'{self.scripts}{os.pathsep}{os.environ["PATH"]}'
        variables = {'PYTHONUNBUFFERED': '1', 'PATH': path, **variables}
        return foreign_environ(**variables)

    def run(
        self,
        *arguments: str,
        cwd: str | os.PathLike[str],
        variables: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> 'subprocess.CompletedProcess[Any]':
        """Run its Python in *cwd*, a folder without a glance_store."""
        env = self.environ(**variables or {})
        return run([self.python, *arguments], cwd=cwd, env=env, **kwargs)


def environment(name: str) -> Consumer:
    """Return the virtual environment *name*, made where there is none yet."""
    pins = REQUIREMENTS / f'{name}.txt'
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    consumers = pathlib.Path(os.environ['GLANCE_STORE_CONSUMERS'])
    consumer = Consumer(consumers / name)
    # Written last: an environment without it is incomplete.
    complete = consumer.folder / 'complete'
    if not complete.exists() or complete.read_text() != digest:
        shutil.rmtree(consumer.folder, ignore_errors=True)
        _install(consumer, pins)
        complete.write_text(digest)
    return consumer


def install_all() -> None:
    """Make the environment of each consumer, as many at once as processors."""
    names = sorted(path.stem for path in REQUIREMENTS.glob('*.txt'))
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(environment, names))


def _install(consumer: Consumer, pins: pathlib.Path) -> None:
    # The Python behind tox's environment: a link to tox's would lead back.
    base = getattr(sys, '_base_executable', sys.executable)
    venv = [base, '-m', 'venv', '--without-pip', str(consumer.folder)]
    run(venv, env=foreign_environ())
    pip = [sys.executable, '-m', 'pip', '--python', consumer.python]
    # For what builds a source distribution, by the age of pip.
    names = 'PIP_CONSTRAINT', 'PIP_BUILD_CONSTRAINT'
    env = consumer.environ(**dict.fromkeys(names, str(pins)))
    # Most modules are never imported, and need no compilation.
    install = ['install', '--quiet', '--no-deps', '--no-compile']
    install += ['--requirement', str(pins)]
    for arguments in install, ['check']:
        run([*pip, *arguments], timeout=LONG_DEADLINE, env=env)


class DropIn(fixtures.Fixture):
    """Our modules in a consumer's glance_store, by glance-store-drop-in."""

    def __init__(self, consumer: Consumer) -> None:
        super().__init__()
        self._consumer = consumer

    def _setUp(self):
        common = self._consumer.packages / 'glance_store' / 'common'
        if (common / 'utils.py.released').exists():
            self._run('--undo')  # after a run that was cut short
        self._run()
        self.addCleanup(self._run, '--undo')

    def _run(self, *arguments: str) -> None:
        script = pathlib.Path(sys.executable).with_name('glance-store-drop-in')
        command = [str(script), *arguments]
        command += ['--python', self._consumer.python]
        run(command, cwd=ROOT, env=foreign_environ())


class Process(fixtures.Fixture):
    """A server in a process group of its own, which ends with the fixture.

    Its output is a detail of the test.

    :param port: the port of the loopback that it opens once it is ready
    :param kwargs: for :class:`subprocess.Popen`
    """

    # All of its output, once that is closed.
    _rest = b''

    def __init__(
        self, name: str, command: Sequence[str], port: int, **kwargs: Any
    ) -> None:
        super().__init__()
        self.name = name
        self.command = command
        self.port = port
        self._kwargs = kwargs

    def _setUp(self):
        # It has no name, and so cannot be left behind.
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
        wait_for(self._is_ready, f'{self.name} is ready')

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            output = self.output().decode(errors='replace')
            raise AssertionError(f'{self.name} ended\n{output}')
        return answers(self.port)

    def output(self) -> bytes:
        """Return all of its output so far."""
        if self._log.closed:
            return self._rest
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0)

    def _close_log(self) -> None:
        self._rest = self.output()
        self._log.close()

    def stop(self) -> None:
        """Ask it to stop, make it, and wait until the group is gone."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self._signal(signal.SIGKILL)
        self.process.wait()
        wait_for(self._is_gone, f'{self.name} is gone')

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _is_gone(self) -> bool:
        # Orphans of the group are children of this process: see below.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-self.pid, os.WNOHANG) != (0, 0):
                pass
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return True
        return False


def _adopt_orphans() -> None:
    """Become the parent of each descendant that loses its own."""
    set_child_subreaper = 36
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(set_child_subreaper, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), 'prctl')


def _children() -> Iterator[tuple[int, str]]:
    """Yield the process id and the command line of each child."""
    for folder in pathlib.Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The name in parentheses may hold anything.
            status = (folder / 'stat').read_text().rpartition(')')[2].split()
            if int(status[1]) == os.getpid():
                line = (folder / 'cmdline').read_text().replace('\0', ' ')
                yield int(folder.name), line


class TestCase(testtools.TestCase):
    """A test that leaves no process and no file behind.

    ``self.folder`` is an empty folder, which is removed with its contents.
    """

    def setUp(self):
        super().setUp()
        _adopt_orphans()
        before = dict(_children())
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        # For this process, and for each that it starts.
        self.useFixture(fixtures.NestedTempfile())
        temporary = tempfile.gettempdir()
        self.useFixture(fixtures.EnvironmentVariable('TMPDIR', temporary))
        # Other fixtures come later, and so are gone before these checks.
        self.addCleanup(self._check_files, temporary)
        self.addCleanup(self._check_children, before)

    def _check_files(self, folder: str) -> None:
        self.assertEqual([], os.listdir(folder))

    def _check_children(self, before: dict[int, str]) -> None:
        left = {pid: line for pid, line in _children() if pid not in before}
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.assertEqual({}, left)

    def tempdir(self) -> pathlib.Path:
        """Return one more empty folder, removed as the first one is."""
        return pathlib.Path(tempfile.mkdtemp(dir=self.folder))

    def show(self, figures: str) -> None:
        """Print *figures*, where the test passes, too."""
        # stestr prints what has this name.
        self.addDetail('stdout', content.text_content(figures))


if __name__ == '__main__':
    install_all()
