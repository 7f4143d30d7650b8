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

"""Another glance_store, made up in a folder, gets our modules and loses them.

The Python that is asked about it is the one of the tests, which is told by
PYTHONPATH to see that folder first.
"""

import contextlib
import fcntl
import io
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import fixtures
import testtools

from glance_store.cmd import drop_in
from glance_store.common import utils

OURS = pathlib.Path(utils.__file__).parent
ADDED = ['cooperation', 'offload', 'opts']

# Only there to end a test that hangs.
DEADLINE = 120


def make_glance_store(folder, version='5.5.0'):
    common = folder / 'glance_store' / 'common'
    common.mkdir(parents=True)
    (folder / 'glance_store' / '__init__.py').touch()
    (common / '__init__.py').touch()
    (common / 'fs_mount.py').write_text('from . import utils\n')
    (common / 'utils.py').write_text('RELEASED = True\n')
    (common / 'utils.py').chmod(0o640)
    caches = common / '__pycache__'
    caches.mkdir()
    for name in ('fs_mount.cpython-38', 'utils.cpython-38', 'utils.other'):
        (caches / f'{name}.pyc').write_text(f'what {name} was compiled to')
    for number, path in enumerate(folder.rglob('*')):
        os.utime(path, ns=(10**18, 10**18 + number))
    release(folder, version)


def release(folder, version):
    for path in folder.glob('*.dist-info'):
        shutil.rmtree(path)
    path = folder / f'glance_store-{version}.dist-info'
    path.mkdir()
    metadata = f'Metadata-Version: 2.1\nName: glance_store\nVersion: {version}'
    (path / 'METADATA').write_text(f'{metadata}\n')


def contents(folder):
    """Return all that undoing is to bring back."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.is_dir() or (path.lstat().st_mtime_ns, path.read_bytes()),
        )
        for path in folder.rglob('*')
    }


class DropInTestCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.new_folder()
        make_glance_store(self.folder)
        self.common = self.folder / 'glance_store' / 'common'
        self.kept = self.folder / 'glance_store.drop-in'
        self.released = contents(self.folder)
        self.see(self.folder)
        # Only a machine that stops would show it, and it takes its time.
        self.patch(os, 'fsync', lambda _: None)

    def new_folder(self):
        return pathlib.Path(self.useFixture(fixtures.TempDir()).path)

    def see(self, *folders):
        """Have the Python of the tests look there first."""
        path = os.pathsep.join(map(str, folders))
        self.useFixture(fixtures.EnvironmentVariable('PYTHONPATH', path))

    def target(self):
        return drop_in.Target(
            self.folder / 'glance_store', '5.5.0', [*ADDED, 'utils']
        )

    def run_main(self, *arguments, python=sys.executable):
        """Return the exit status and what was printed."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = drop_in.main([*arguments, python])
            except SystemExit as exc:
                status = exc.code
        return status, out.getvalue(), err.getvalue()

    def succeed(self, *arguments):
        status, out, err = self.run_main(*arguments)
        self.assertEqual((0, ''), (status, err))
        return out

    def assertRefuses(self, reason, *arguments, python=sys.executable):
        line = (
            f'glance-store-drop-in: error: argument PYTHON: {python!r}: '
            f'{reason}\n'
        )
        self.assertEqual(
            (2, '', line), self.run_main(*arguments, python=python)
        )

    def assertReleased(self):
        self.assertEqual(self.released, contents(self.folder))

    def assertPut(self):
        for name in (*ADDED, 'utils'):
            self.assertEqual(
                (OURS / f'{name}.py').read_bytes(),
                (self.common / f'{name}.py').read_bytes(),
            )

    def assertWorks(self):
        """Either all is as released, or the new utils has what it needs."""
        released = (self.common / 'utils.py').read_bytes()
        if released != b'RELEASED = True\n':
            self.assertPut()


class TestThereAndBack(DropInTestCase):
    def test_report(self):
        package = f"'{self.folder}/glance_store'"
        self.assertEqual(
            f'glance_store 5.5.0: {package}\n'
            'added common/cooperation.py\n'
            'added common/offload.py\n'
            'added common/opts.py\n'
            'replaced common/utils.py\n'
            f"kept for --undo: '{self.kept}'\n",
            self.succeed(),
        )
        self.assertPut()
        self.assertEqual(
            f'glance_store 5.5.0: {package}\n'
            'removed common/cooperation.py\n'
            'removed common/offload.py\n'
            'removed common/opts.py\n'
            'put back common/utils.py\n',
            self.succeed('--undo'),
        )
        self.assertReleased()

    def test_the_new_modules_work(self):
        self.succeed()
        code = (
            'import io\n'
            'from glance_store.common import fs_mount\n'
            'reader = fs_mount.utils.CooperativeReader(io.BytesIO(b"abc"))\n'
            'print(fs_mount.utils.__file__, reader.read())\n'
        )
        self.useFixture(
            fixtures.EnvironmentVariable('PYTHONDONTWRITEBYTECODE', None)
        )
        done = subprocess.run(
            [sys.executable, '-c', code],
            cwd=self.new_folder(),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        self.assertEqual('', done.stderr)
        self.assertEqual(f"{self.common}/utils.py b'abc'\n", done.stdout)
        # What Python has compiled of them meanwhile goes with them.
        tag = sys.implementation.cache_tag
        self.assertEqual(
            sorted(['__init__', 'fs_mount', 'utils', *ADDED]),
            sorted(
                path.name.partition('.')[0]
                for path in self.common.rglob(f'*.{tag}.pyc')
            ),
        )
        self.succeed('--undo')
        compiled = [*self.folder.rglob(f'*.{tag}.pyc')]
        self.assertEqual(
            ['__init__', '__init__', 'fs_mount'],
            sorted(path.name.partition('.')[0] for path in compiled),
        )
        for path in compiled:
            path.unlink()
        (self.folder / 'glance_store' / '__pycache__').rmdir()
        self.assertReleased()

    def test_folder_of_byte_code(self):
        # It was not there, so it is not left there either.
        caches = self.common / '__pycache__'
        shutil.rmtree(caches)
        released = contents(self.folder)
        self.succeed()
        caches.mkdir()
        (caches / 'opts.cpython-311.pyc').touch()
        self.succeed('--undo')
        self.assertEqual(released, contents(self.folder))

    def test_folder_of_byte_code_was_removed(self):
        self.succeed()
        caches = self.common / '__pycache__'
        (caches / 'fs_mount.cpython-38.pyc').rename(self.folder / 'saved')
        caches.rmdir()
        self.succeed('--undo')
        (self.folder / 'saved').rename(caches / 'fs_mount.cpython-38.pyc')
        self.assertReleased()

    def test_byte_code_is_stale(self):
        self.succeed()
        self.assertEqual(
            ['fs_mount.cpython-38.pyc'],
            os.listdir(self.common / '__pycache__'),
        )

    def test_mode(self):
        self.succeed()
        for name in (*ADDED, 'utils'):
            mode = (self.common / f'{name}.py').stat().st_mode
            self.assertEqual(0o640, mode & 0o7777)

    def test_symbolic_link(self):
        # Some installers make one to a file that others use as well.
        path = self.common / 'utils.py'
        elsewhere = self.new_folder() / 'utils.py'
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
        status = elsewhere.stat()
        self.succeed()
        self.assertFalse(path.is_symlink())
        self.assertEqual(b'RELEASED = True\n', elsewhere.read_bytes())
        self.succeed('--undo')
        self.assertEqual(str(elsewhere), os.readlink(path))
        self.assertEqual(status.st_mtime_ns, elsewhere.stat().st_mtime_ns)

    def test_twice(self):
        self.succeed()
        before = contents(self.folder)
        self.assertRefuses('has the modules already')
        self.assertEqual(before, contents(self.folder))
        self.succeed('--undo')
        self.assertRefuses('there is nothing to undo', '--undo')
        self.assertReleased()
        self.succeed()
        self.succeed('--undo')
        self.assertReleased()

    def test_releases(self):
        for version in ('4.8.0', '4.10.1', '5.0.0.0rc1', '5.7.99'):
            release(self.folder, version)
            self.assertIn(f'glance_store {version}: ', self.succeed())
            self.succeed('--undo')

    def test_as_a_program(self):
        for arguments, status in (
            (['--help'], 0),
            ([], 2),
            (['--undo', sys.executable], 2),
            ([sys.executable], 0),
            (['--undo', sys.executable], 0),
        ):
            done = subprocess.run(
                [sys.executable, '-m', 'glance_store.cmd.drop_in', *arguments],
                # From there it is ours in spite of PYTHONPATH.
                cwd=OURS.parents[1],
                capture_output=True,
                text=True,
                timeout=DEADLINE,
            )
            self.assertEqual(status, done.returncode, done.stderr)
            self.assertEqual(bool(status), len(done.stderr.splitlines()))
        self.assertReleased()


class TestRefusals(DropInTestCase):
    def test_no_glance_store(self):
        shutil.rmtree(self.folder / 'glance_store')
        shutil.rmtree(self.folder / 'glance_store-5.5.0.dist-info')
        facts = {'python': [3, 11], 'origin': None}
        self.patch(drop_in, '_ask', lambda _: facts)
        self.assertRefuses('has no glance_store')

    def test_no_metadata(self):
        for facts in ({}, {'version': '5.5.0', 'located': '/elsewhere'}):
            package = self.folder / 'glance_store'
            origin = str(package / '__init__.py')
            facts.update(python=[3, 11], origin=origin)
            self.patch(drop_in, '_ask', lambda _, facts=facts: facts)
            self.assertRefuses(f"'{package}' is not an installed release")

    def test_metadata_of_another(self):
        # As where a checkout comes before what is installed.
        other = self.new_folder()
        (other / 'glance_store').mkdir()
        (other / 'glance_store' / '__init__.py').touch()
        self.see(other, self.folder)
        self.assertRefuses(
            f"'{other}/glance_store' is not an installed release"
        )

    def test_other_releases(self):
        for version in ('4.7.9', '5.8.0', '6.0.0', '0.28.1', '2026'):
            release(self.folder, version)
            self.assertRefuses(f'has glance_store {version}, not 4.8 to 5.7')

    def test_old_python(self):
        facts = {**drop_in._ask(sys.executable), 'python': [3, 10]}
        self.patch(drop_in, '_ask', lambda _: facts)
        self.assertRefuses('is Python 3.10, and the modules need 3.11')

    def test_something_is_missing(self):
        (self.folder / 'oslo_log.py').write_text('raise ImportError("gone")')
        self.released = contents(self.folder)
        self.assertRefuses('cannot import the modules: ImportError: gone')
        self.assertReleased()

    def test_no_python(self):
        for python, reason in (
            ('/nowhere', 'cannot be run: No such file or directory'),
            ('/', 'cannot be run: Permission denied'),
            (
                shutil.which('true'),
                'is no Python that can be asked: no answer',
            ),
            (
                shutil.which('echo'),
                'is no Python that can be asked: no answer',
            ),
        ):
            self.assertRefuses(reason, python=python)

    def test_python_that_complains(self):
        python = self.new_folder() / 'python'
        python.write_text('#!/bin/sh\necho one >&2; echo two >&2; exit 1')
        python.chmod(0o755)
        self.assertRefuses(
            'is no Python that can be asked: two', python=str(python)
        )

    def test_python_that_hangs(self):
        self.patch(drop_in, 'PATIENCE', 0.001)
        self.assertRefuses('did not answer in 0.001 s')

    def test_modules_of_its_own(self):
        for path in (self.common / 'opts.py', self.common / 'offload'):
            path.mkdir()
            self.released = contents(self.folder)
            self.assertRefuses(
                f"has a module {path.stem!r} that is not in the release"
            )
            self.assertReleased()
            path.rmdir()

    def test_changed_since(self):
        self.succeed()
        changed = ['opts.py', 'utils.py']
        for name in changed:
            (self.common / name).write_text('something else\n')
        before = contents(self.folder)
        for arguments in ([], ['--undo']):
            self.assertRefuses(
                'changed since the modules were put there: opts.py, utils.py; '
                'install glance_store 5.5.0 anew, then undo',
                *arguments,
            )
        self.assertEqual(before, contents(self.folder))

    def test_installed_anew(self):
        self.succeed()
        path = self.common / 'utils.py'
        path.write_text('something else\n')
        path.write_text('RELEASED = True\n')
        self.succeed('--undo')
        self.assertReleased()

    def test_removed_since(self):
        self.succeed()
        (self.common / 'utils.py').unlink()
        self.assertRefuses(
            'changed since the modules were put there: utils.py; '
            'install glance_store 5.5.0 anew, then undo',
            '--undo',
        )

    def test_other_release_of_ours(self):
        self.succeed()
        ours = self.new_folder() / 'common'
        shutil.copytree(OURS, ours)
        with (ours / 'utils.py').open('a') as file:
            file.write('# newer\n')
        self.patch(drop_in, 'OURS', ours)
        self.assertRefuses(
            'has other releases of the modules: undo that first'
        )
        self.succeed('--undo')
        self.assertReleased()

    def test_broken_record(self):
        self.succeed()
        path = self.kept / 'record.json'
        for text in ('{', '[]', '{}', '{"modules": [{}]}'):
            path.write_text(text)
            self.assertRefuses(f"'{path}' makes no sense", '--undo')
        path.unlink()
        self.assertRefuses(f"'{path}' is missing")

    def test_two_at_once(self):
        descriptor = os.open(self.folder / 'glance_store', os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self.assertRefuses('another run is at work there')
        self.assertReleased()

    def test_one_line(self):
        python = '/no\nwhere'
        status, _, err = self.run_main(python=python)
        self.assertEqual((2, 1), (status, len(err.splitlines())))


class TestInterruptions(DropInTestCase):
    def fail(self, error, *, times, after=0):
        """Have each new module fail from the *after*-th on."""
        calls = itertools.count()
        copyfile = shutil.copyfile

        def failing(*args, **kwargs):
            if after <= next(calls) < after + times:
                raise error
            return copyfile(*args, **kwargs)

        self.patch(shutil, 'copyfile', failing)

    def test_error(self):
        # The first two copies are of what is kept, the rest is put.
        for after in range(7):
            with testtools.ExpectedException(OSError, 'full'):
                self.fail(OSError('full'), times=1, after=after)
                drop_in.put(self.target())
            shutil.rmtree(self.folder / drop_in.GARBAGE, ignore_errors=True)
            self.assertReleased()

    def test_error_is_told(self):
        self.fail(OSError(28, 'No space', 'there'), times=1, after=4)
        self.assertRefuses("[Errno 28] No space: 'there'")
        self.assertReleased()

    def test_error_while_going_back(self):
        self.fail(OSError(28, 'No space', 'there'), times=2, after=6)
        self.assertRefuses("[Errno 28] No space: 'there'")
        self.assertWorks()
        self.assertTrue(self.kept.exists())
        self.succeed()
        self.assertPut()
        self.succeed('--undo')
        self.assertReleased()

    def test_interrupt(self):
        self.fail(KeyboardInterrupt(), times=1, after=5)
        self.assertEqual((130, '', ''), self.run_main())
        self.assertReleased()

    def run_killed(self, func, step):
        """Run it in a process that dies before its *step*-th change.

        :returns: whether it came to that
        """
        changes = {
            'os.chmod',
            'os.chown',
            'os.mkdir',
            'os.remove',
            'os.rename',
            'os.rmdir',
            'os.utime',
        }
        steps = itertools.count()
        writing = os.O_WRONLY | os.O_RDWR

        def hook(event, args):
            if event in changes or (event == 'open' and args[2] & writing):
                if next(steps) == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        pid = os.fork()
        if pid == 0:
            try:
                signal.alarm(DEADLINE)
                sys.addaudithook(hook)
                func(self.target())
            finally:
                os._exit(0)
        return os.WIFSIGNALED(os.waitpid(pid, 0)[1])

    def check_kills(self, func, prepare, least):
        for step in itertools.count():
            for then in (drop_in.put, drop_in.undo):
                prepare()
                killed = self.run_killed(func, step)
                self.assertWorks()
                self.finish(then)
                if then is drop_in.put:
                    self.assertPut()
                    drop_in.undo(self.target())
                self.assertReleased()
            if not killed:
                break
        self.assertGreater(step, least)

    def finish(self, func):
        """Run it on what a killed run has left, which may be everything."""
        try:
            func(self.target())
        except drop_in.Refusal as exc:
            self.assertIn(
                str(exc),
                ['has the modules already', 'there is nothing to undo'],
            )

    def test_killed_on_the_way_there(self):
        self.check_kills(drop_in.put, lambda: None, 20)

    def test_killed_on_the_way_back(self):
        self.check_kills(drop_in.undo, lambda: drop_in.put(self.target()), 15)
