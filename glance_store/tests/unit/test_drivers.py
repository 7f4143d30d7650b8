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


"""What the shipped drivers take from the module, and how it gets to them."""

import ast
from collections.abc import Iterator
import hashlib
import os
import pathlib
import shutil
import sys
from typing import Any

import fixtures
from oslo_concurrency import lockutils

import glance_store.common
from glance_store.common import utils
from glance_store.tests.unit import base

FOLDER = pathlib.Path(glance_store.common.__file__).parent

# What upstream has in the folder besides utils, and what Glance installs.
UPSTREAM = {'attachment_state_manager', 'cinder_utils', 'fs_mount'}
OUTSIDE = {'oslo_concurrency', 'oslo_config', 'oslo_log', 'oslo_utils'}


class HasherTestCase(base.TestCase):
    def test_digests(self) -> None:
        class Name:
            def __str__(self) -> str:
                return 'sha256'

        for args, name in (
            *((('md5', False), 'md5'), (('sha256',), 'sha256')),
            *((('sha512', True), 'sha512'), ((Name(),), 'sha256')),
        ):
            hasher = utils.get_hasher(*args)
            hasher.update(b'abc')
            wanted = hashlib.new(name, b'abc', usedforsecurity=False)
            self.assertEqual(wanted.hexdigest(), hasher.hexdigest())

    def test_purpose_is_passed_on(self) -> None:
        # Only a system in FIPS mode would refuse MD5, so hashlib is replaced.
        asked: list[Any] = []
        for name in 'hashlib.md5', 'hashlib.new':
            self.useFixture(
                fixtures.MonkeyPatch(
                    name,
                    lambda *_, via=name, **kwargs: asked.append((via, kwargs)),
                )
            )
        for name in 'md5', 'sha256':
            utils.get_hasher(name)
            utils.get_hasher(hash_algo=name, usedforsecurity=False)
        wanted = [
            (via, {'usedforsecurity': use})
            for via in ('hashlib.md5', 'hashlib.new')
            for use in (True, False)
        ]
        self.assertEqual(wanted, asked)

    def test_unknown(self) -> None:
        for name in '', 'md55', 'MD5 ', 'x' * 10000:
            self.assertRaises(ValueError, utils.get_hasher, name)


class SynchronizedTestCase(base.TestCase):
    def test_one_at_a_time(self) -> None:
        @utils.synchronized('images')
        def locked(size: int) -> bool:
            lock = lockutils.internal_lock('images')
            return size == 5 and not lock.acquire(blocking=False)

        self.assertTrue(locked(5))

    def test_prefix_of_the_file(self) -> None:
        folder = self.useFixture(fixtures.TempDir()).path

        @utils.synchronized('images', external=True, lock_path=folder)
        def locked() -> list[str]:
            return os.listdir(folder)

        self.assertEqual(['glance_store-images'], locked())


class DropInTestCase(base.TestCase):
    """The modules work in the folder of another release of glance_store."""

    CODE = """
        import json
        import sys

        from glance_store.common import utils

        got = utils.CooperativeReader([b'a', b'bc']).read(3).decode()
        print(json.dumps([utils.__file__, got, sorted(sys.modules)]))
        """

    def modules(self, loaded: list[str]) -> set[str]:
        prefix = 'glance_store.common.'
        return {
            name.removeprefix(prefix)
            for name in loaded
            if name.startswith(prefix)
        }

    def imports(self, path: pathlib.Path) -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                yield node.module or '.'
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)

    def test_modules_alone(self) -> None:
        package = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        common = package / 'glance_store' / 'common'
        common.mkdir(parents=True)
        for folder in common, common.parent:
            (folder / '__init__.py').touch()
        modules = self.modules(base.run_python(self.CODE)[-1])
        self.assertEqual(set(), UPSTREAM & modules)
        for name in modules:
            shutil.copy(FOLDER / f'{name}.py', common)
            for imported in self.imports(FOLDER / f'{name}.py'):
                if imported != 'glance_store.common':
                    top = imported.partition('.')[0]
                    self.assertIn(top, OUTSIDE | sys.stdlib_module_names)
        file, got, loaded = base.run_python(self.CODE, PYTHONPATH=str(package))
        self.assertEqual([str(common / 'utils.py'), 'abc'], [file, got])
        self.assertEqual(modules, self.modules(loaded))
        self.assertNotIn('eventlet', loaded)
