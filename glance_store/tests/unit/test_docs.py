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

"""What the documentation says: signatures, examples, the drop-in rule."""

import ast
import doctest
import hashlib
import inspect
import os
import re
import shutil
import sys
import textwrap

import fixtures
from oslo_concurrency import lockutils

import glance_store.common
from glance_store.common import utils
from glance_store.tests.unit import base

FOLDER = os.path.dirname(glance_store.common.__file__)

# What glance_store 4.8 to 5.7 have in the folder, besides utils.
UPSTREAM = {'attachment_state_manager', 'cinder_utils', 'fs_mount'}

# What Glance installs: the oslo libraries, in whatever release.
OUTSIDE = {'oslo_concurrency', 'oslo_config', 'oslo_log', 'oslo_utils'}


class TestSignatures(base.TestCase):
    def parameters(self, func):
        return [
            str(parameter.replace(annotation=parameter.empty))
            for parameter in inspect.signature(func).parameters.values()
        ]

    def test_as_documented(self):
        for func, parameters in (
            (utils.CooperativeReader, ['fd']),
            (utils.CooperativeReader.read, ['self', 'length=None']),
            (utils.chunkiter, ['fp', 'chunk_size=65536']),
            (utils.chunkreadable, ['iter', 'chunk_size=65536']),
            (utils.cooperative_iter, ['iter']),
            (utils.cooperative_read, ['fd']),
            (utils.is_uuid_like, ['val']),
            (utils.get_hasher, ['hash_algo', 'usedforsecurity=True']),
        ):
            self.assertEqual(parameters, self.parameters(func))
            for parameter in inspect.signature(func).parameters.values():
                self.assertEqual(
                    inspect.Parameter.POSITIONAL_OR_KEYWORD, parameter.kind
                )

    def test_base_of_the_reader(self):
        self.assertEqual((object,), utils.CooperativeReader.__bases__)

    def test_module(self):
        self.assertTrue(inspect.isclass(utils.CooperativeReader))
        for name in (
            'CooperativeReader',
            'chunkiter',
            'chunkreadable',
            'cooperative_iter',
            'cooperative_read',
            'get_hasher',
            'is_uuid_like',
        ):
            member = getattr(utils, name)
            self.assertEqual('glance_store.common.utils', member.__module__)
            self.assertNotEqual('', (member.__doc__ or '').strip(), name)


class TestShippedDriversNeeds(base.TestCase):
    def test_get_hasher(self):
        for args in (('md5', False), ('sha256',), ('sha512', True)):
            hasher = utils.get_hasher(*args)
            hasher.update(b'abc')
            self.assertEqual(
                hashlib.new(
                    args[0], b'abc', usedforsecurity=False
                ).hexdigest(),
                hasher.hexdigest(),
            )

    def test_get_hasher_by_name(self):
        self.assertEqual(
            'md5',
            utils.get_hasher(hash_algo='md5', usedforsecurity=False).name,
        )

    def test_get_hasher_passes_its_use_on(self):
        # Whether the system refuses one depends on the system, so what is
        # passed to hashlib is looked at instead.
        asked = []
        self.useFixture(
            fixtures.MonkeyPatch(
                'hashlib.new', lambda *args, **kwargs: asked.append(kwargs)
            )
        )
        self.useFixture(fixtures.MonkeyPatch('hashlib.md5', hashlib.new))
        utils.get_hasher('sha256')
        utils.get_hasher('md5', False)
        utils.get_hasher('md5', usedforsecurity=True)
        self.assertEqual(
            [{'usedforsecurity': use} for use in (True, False, True)], asked
        )

    def test_get_hasher_of_another_type(self):
        # Drivers pass what an option says, translated or not.
        class Name:
            def __str__(self):
                return 'sha256'

        self.assertEqual('sha256', utils.get_hasher(Name()).name)

    def test_get_hasher_unknown(self):
        self.assertRaises(ValueError, utils.get_hasher, 'none such')

    def test_synchronized(self):
        held = []

        @utils.synchronized('a-lock')
        def locked():
            lock = lockutils.internal_lock('a-lock')
            held.append(lock.acquire(blocking=False))

        @utils.synchronized('a-lock')
        def free():
            return 'answer'

        locked()
        self.assertEqual([False], held)
        self.assertEqual('answer', free())

    def test_synchronized_between_processes(self):
        folder = self.useFixture(fixtures.TempDir()).path

        @utils.synchronized('a-lock', external=True, lock_path=folder)
        def locked():
            return os.listdir(folder)

        self.assertEqual(['glance_store-a-lock'], locked())


class TestExamples(base.TestCase):
    def test_of_the_module(self):
        results = doctest.testmod(utils)
        self.assertEqual(0, results.failed)
        self.assertGreater(results.attempted, 5)

    def test_of_the_readme(self):
        with open(os.path.join(base.ROOT, 'README.rst')) as readme:
            text = readme.read()
        match = re.search(
            r'\.\. code-block:: python\n\n((?: {4}.*\n|\n)+)', text
        )
        example = textwrap.dedent(match.group(1))
        printed = re.search(r'It prints::\n\n((?: {4}.*\n|\n)+)', text).group(
            1
        )
        self.assertEqual(
            textwrap.dedent(printed).strip().splitlines(),
            base.run_python(example, lines=True),
        )


class TestConfigurationPage(base.TestCase):
    def test_shows_the_options_from_the_code(self):
        path = os.path.join(
            base.ROOT, 'doc', 'source', 'configuration', 'index.rst'
        )
        with open(path) as page:
            self.assertIn('.. show-options:: glance_store\n', page.read())


class TestDropIn(base.TestCase):
    def imports(self):
        for name in sorted(os.listdir(FOLDER)):
            if not name.endswith('.py'):
                continue
            with open(os.path.join(FOLDER, name)) as source:
                tree = ast.parse(source.read())
            for node in ast.walk(tree):
                if isinstance(node, ast.Import):
                    for alias in node.names:
                        yield name, alias.name
                elif isinstance(node, ast.ImportFrom):
                    self.assertEqual(0, node.level)
                    for alias in node.names:
                        yield name, f'{node.module}.{alias.name}'

    def test_module_names_that_upstream_does_not_have(self):
        modules = {
            name.removesuffix('.py')
            for name in os.listdir(FOLDER)
            if name.endswith('.py')
        }
        self.assertIn('utils', modules)
        self.assertEqual(set(), modules & UPSTREAM)

    def test_imports(self):
        for name, imported in self.imports():
            top = imported.partition('.')[0]
            if top == 'glance_store':
                self.assertTrue(
                    imported.startswith('glance_store.common.'), name
                )
                path = imported.split('.')[2]
                self.assertTrue(
                    os.path.exists(os.path.join(FOLDER, f'{path}.py')), name
                )
            else:
                self.assertIn(top, OUTSIDE | sys.stdlib_module_names, name)

    def test_copied_over_another_release(self):
        # The folder alone, in a package that has nothing else of ours.
        package = self.useFixture(fixtures.TempDir()).path
        common = os.path.join(package, 'glance_store', 'common')
        os.makedirs(common)
        open(os.path.join(package, 'glance_store', '__init__.py'), 'w').close()
        for name in os.listdir(FOLDER):
            if name.endswith('.py'):
                shutil.copy(os.path.join(FOLDER, name), common)
        self.assertEqual(
            [os.path.join(common, 'utils.py'), 'abc'],
            base.run_python(
                """
                import json

                from glance_store.common import utils

                reader = utils.CooperativeReader([b'a', b'bc'])
                print(json.dumps([utils.__file__, reader.read(3).decode()]))
                """,
                PYTHONPATH=package,
            ),
        )
