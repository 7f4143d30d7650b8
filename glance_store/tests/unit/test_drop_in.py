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

"""Another glance_store, in a virtual environment, gets our modules.

The environment is a real one. Its glance_store is a stand-in: the package and
its release, with a module ``utils`` that tells itself from ours.
"""

import contextlib
import io
import itertools
import os
import pathlib
import subprocess
import sysconfig
from typing import Any
import venv

import fixtures

from glance_store.cmd import drop_in
from glance_store.common import utils
from glance_store.tests.unit import base

OURS = pathlib.Path(utils.__file__).parent
PRINT = """
from glance_store.common import utils
print('ours' if hasattr(utils, 'CooperativeReader') else utils.RELEASE)
"""


class TestDropIn(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        # It would lead the other Python to this glance_store.
        self.useFixture(fixtures.EnvironmentVariable('PYTHONPATH'))
        folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        venv.create(folder, symlinks=True)
        self.python = str(folder / 'bin' / 'python')
        (self.packages,) = folder.glob('lib/*/site-packages')
        self.package = self.packages / 'glance_store'
        self.common = self.package / 'common'
        self.common.mkdir(parents=True)
        for path in self.package, self.common:
            (path / '__init__.py').touch()
        self.utils = self.common / 'utils.py'
        self.release('5.5.0')
        self.utils.chmod(0o640)
        os.utime(self.utils, ns=(10**18, 10**18))
        self.released = self.contents()
        # The packages that our modules need are those of this environment.
        self.needed = self.packages / 'needed.pth'
        self.needed.write_text(sysconfig.get_path('purelib'))

    def release(self, version: str) -> None:
        self.utils.write_text(f'RELEASE = {version!r}\n')
        info = self.packages / 'glance_store.dist-info'
        info.mkdir(exist_ok=True)
        (info / 'METADATA').write_text(
            f'Metadata-Version: 2.1\nName: glance_store\nVersion: {version}\n'
        )

    def contents(self) -> dict[str, Any]:
        return {
            path.name: (status.st_mode, status.st_mtime_ns, path.read_bytes())
            for path in self.common.glob('*.*')
            for status in [path.stat()]
        }

    def imported(self) -> str:
        """Return which helpers a service imports that starts now."""
        command = [self.python, '-B', '-c', PRINT]
        return subprocess.check_output(command, cwd='/', text=True).strip()

    def run_main(self, *arguments: str) -> tuple[Any, list[str], str]:
        """Return the exit status and what was printed."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status: Any = drop_in.main(
                    ['--python', self.python, *arguments]
                )
            except SystemExit as exc:
                status = exc.code
        return status, out.getvalue().splitlines(), err.getvalue()

    def assertRefuses(self, words: str, *arguments: str) -> None:
        before = self.contents()
        status, out, err = self.run_main(*arguments)
        self.assertEqual((2, []), (status, out))
        self.assertRegex(err, f'^glance-store-drop-in: [^\\n]*{words}.*\\n$')
        self.assertEqual(before, self.contents())

    def test_there_and_back(self) -> None:
        _, plan, _ = self.run_main('--dry-run')
        self.assertEqual(self.released, self.contents())
        self.assertEqual((0, plan, ''), self.run_main())
        self.assertEqual('ours', self.imported())
        contents = self.contents()
        for path in OURS.glob('*.py'):
            if path.name != '__init__.py':
                mode, _, content = contents[path.name]
                self.assertEqual(path.read_bytes(), content)
                # The service may read what it could read before.
                self.assertEqual(0o640, mode & 0o777)
                verb = 'replace' if path.name == 'utils.py' else 'add'
                self.assertIn(f'{verb} {self.common / path.name}', plan)
        self.assertRefuses('has the modules already')

        _, plan, _ = self.run_main('--undo', '--dry-run')
        self.assertEqual(contents, self.contents())
        self.assertEqual((0, plan, ''), self.run_main('--undo'))
        self.assertEqual(self.released, self.contents())
        self.assertRefuses('there is no .*utils.py.released', '--undo')

    def test_at_any_moment(self) -> None:
        """A run ends anywhere: services start, and another run goes on."""
        put, undo = drop_in.put, drop_in.undo
        for number in range(1, len(self.run_main('--dry-run')[1])):
            for begin, *arguments in (put, '--undo'), (put,), (undo, '--undo'):
                steps = begin(self.common, changing=True)
                for _ in itertools.islice(steps, number):
                    self.assertEqual('5.5.0', self.imported())
                self.assertEqual(0, self.run_main(*arguments)[0])
                released = self.contents() == self.released
                self.assertEqual('--undo' in arguments, released)

    def test_output_that_cannot_be_written(self) -> None:
        for arguments, expected in ([], 'ours'), (['--undo'], '5.5.0'):
            full = open('/dev/full', 'w', buffering=1)
            with contextlib.redirect_stdout(full):
                with contextlib.suppress(OSError):
                    drop_in.main(['--python', self.python, *arguments])
            self.assertRaises(OSError, full.close)
            self.assertEqual(expected, self.imported())

    def test_step_that_fails(self) -> None:
        """The steps before it are printed, and the next run goes on."""
        in_the_way = self.common / 'opts.py'
        in_the_way.mkdir()
        status, steps, error = self.run_main()
        self.assertEqual(2, status)
        self.assertIn('opts.py', error)
        self.assertIn(f'add {self.common / "offload.py"}', steps)
        self.assertEqual('5.5.0', self.imported())
        in_the_way.rmdir()
        self.run_main()
        self.assertEqual('ours', self.imported())

    def test_byte_code_that_is_not_checked(self) -> None:
        compiling = [
            *(self.python, '-m', 'compileall', '-q', str(self.utils)),
            '--invalidation-mode=unchecked-hash',
        ]
        for arguments, expected in ([], 'ours'), (['--undo'], '5.5.0'):
            subprocess.check_call(compiling)
            self.run_main(*arguments)
            self.assertEqual(expected, self.imported())

    def test_upgrade(self) -> None:
        """A newer glance_store over our modules gets them, or loses them."""
        self.run_main()
        self.release('5.6.0')
        self.run_main()
        self.assertEqual('ours', self.imported())
        self.run_main('--undo')
        self.assertEqual('5.6.0', self.imported())
        self.run_main()
        self.release('5.8.0')
        self.needed.unlink()
        self.run_main('--undo')
        self.assertEqual('5.8.0', self.imported())
        self.assertEqual(set(self.released), set(self.contents()))

    def test_refusals(self) -> None:
        for version in '4.7.1', '5.8.0', '6.0':
            self.release(version)
            self.assertRefuses(f'has glance_store {version}, not 4.8 to 5.7')
        for version in '4.8.0', '4.9.1', '5.7.2':
            self.release(version)
            self.assertEqual(0, self.run_main('--dry-run')[0])
        self.needed.unlink()
        packages = 'oslo.concurrency oslo.config oslo.log'
        self.assertRefuses(f'{self.python} -m pip install {packages}')
        (self.package / '__init__.py').rename(self.package / 'other.py')
        self.assertRefuses('has no glance_store')

    def test_no_python(self) -> None:
        for program, words in (
            ('/nowhere/python', 'there is no such program'),
            ('true', 'it is no Python'),
            ('false', 'it cannot tell'),
        ):
            self.python = program
            self.assertRefuses(words)

    def test_old_python(self) -> None:
        program = self.packages / 'python3.10'
        program.write_text('#!/bin/sh\necho "[[3, 10], null, null, []]"\n')
        program.chmod(0o755)
        self.python = str(program)
        self.assertRefuses('older than Python 3.11')
