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
import configparser
import doctest
import inspect
import io
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from wsgiref import handlers
from wsgiref import util

import eventlet
import fixtures

import glance_store.common
from glance_store.common import utils
from glance_store.tests.unit import base

FOLDER = os.path.dirname(glance_store.common.__file__)

ROOT = pathlib.Path(base.ROOT)
PAGES = ROOT / 'doc' / 'source'
TUTORIAL = PAGES / 'user' / 'tutorial'

# What a page shows after a command that no test can run, and why. Whatever
# begins otherwise is run, and has to print what the page says.
NOT_RUN = {
    r'git tag ': 'is for whoever releases',
    r'.*\bpip install ': 'installs; .ci/run does what the README says',
    r'python3 -m venv ': 'makes the environment that is installed into',
    r'.*/opt/|cd /$': 'is for a service; test_drop_in does it in a folder',
    r'tox\b': 'makes an environment, and takes minutes',
    r'glance-store-[\w-]+ ': 'measures; test_probe and test_drop_in run them',
}

# A time in the trace.
SECONDS = re.compile(r'\d+\.\d{6} s')

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


class TestTutorial(base.TestCase):
    """The programs print what the page shows."""

    def test_steps(self):
        page = (TUTORIAL / 'index.rst').read_text()
        steps = sorted(TUTORIAL.glob('step*.py'))
        self.assertEqual(4, len(steps))
        for step in steps:
            with self.tally.case('docs: programs of the tutorial'):
                self.assertEqual(
                    without_times(step.with_suffix('.out').read_text()),
                    without_times(run_step(step.stem)),
                )
                for name in (step.name, f'{step.stem}.out'):
                    self.assertIn(f'.. literalinclude:: {name}\n', page)
                self.assertIn(
                    f'$ .venv/bin/python -W ignore {step.relative_to(ROOT)}\n',
                    page,
                )


def run_step(name):
    lines = base.run_python(
        """
        import runpy
        import sys

        runpy.run_module(sys.argv[1], run_name='__main__')
        """,
        name,
        lines=True,
        PYTHONPATH=os.pathsep.join((base.ROOT, str(TUTORIAL))),
        PYTHONDONTWRITEBYTECODE='1',
    )
    return '\n'.join(lines).strip() + '\n'


def without_times(text):
    return SECONDS.sub('... s', text)


class TestCommands(base.TestCase):
    """Commands on the pages print what is shown, or there is a reason."""

    def setUp(self):
        super().setUp()
        self.commands = list(commands())

    def test_there_are_some(self):
        pages = {page for page, _, _ in self.commands}
        self.assertGreater(len(self.commands), 20)
        self.assertGreater(len(pages), 4)

    def test_each_is_run_or_has_a_reason(self):
        reasons = dict.fromkeys(NOT_RUN, 0)
        for page, command, shown in self.commands:
            reason = next((r for r in NOT_RUN if re.match(r, command)), None)
            if reason is not None:
                reasons[reason] += 1
                continue
            with self.tally.case('docs: commands on the pages'):
                printed = self.run_command(command)
                if shown:
                    self.assertEqual(shown, printed, f'{page}: {command}')
        # A reason that nothing needs is one that something may slip through.
        self.assertNotIn(0, reasons.values(), reasons)

    def run_command(self, command):
        words = shlex.split(command)
        self.assertEqual('.venv/bin/python', words[0], command)
        process = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=ROOT,
            env=base.environment(PYTHONDONTWRITEBYTECODE='1'),
            capture_output=True,
            text=True,
            timeout=base.HANGING,
        )
        self.assertEqual(('', 0), (process.stderr, process.returncode))
        return process.stdout

    def test_environments_of_tox(self):
        config = configparser.RawConfigParser()
        config.read(ROOT / 'tox.ini')
        for page in pages():
            for name in re.findall(r'\btox\s+-e\s+([\w-]+)', page.read_text()):
                self.assertIn(f'testenv:{name}', config.sections(), page)

    def test_options_of_the_programs(self):
        for program, module in (
            ('glance-store-probe', 'probe'),
            ('glance-store-drop-in', 'drop_in'),
        ):
            options = self.options_of(module)
            for _, command, _ in self.commands:
                _, found, arguments = command.partition(program)
                if found:
                    self.assertEqual(
                        set(), set(OPTION.findall(arguments)) - options
                    )

    def options_of(self, module):
        code = f"""
            import sys
            from glance_store.cmd import {module}
            sys.exit({module}.main(['--help']))
            """
        return set(
            OPTION.findall('\n'.join(base.run_python(code, lines=True)))
        )

    def test_python_on_the_pages(self):
        for page in pages():
            for block in blocks(page.read_text(), PYTHON):
                with self.tally.case('docs: Python on the pages'):
                    tree = ast.parse(block)
                    for node in ast.walk(tree):
                        self.check_name(node)

    def check_name(self, node):
        if isinstance(node, ast.Attribute) and isinstance(
            node.value, ast.Name
        ):
            if node.value.id in ('utils', 'store_utils'):
                self.assertTrue(hasattr(utils, node.attr), node.attr)


OPTION = re.compile(r'(?<!\S)--[a-z-]+')

PYTHON = r'\.\. code-block:: python'

# Or any other literal block that begins with a prompt.
CONSOLE = r'(?:\.\. code-block:: console|(?:.*[^:])?::)'


def pages():
    """Return the files that are written by hand."""
    written = [
        page
        for page in PAGES.rglob('*.rst')
        if PAGES / 'reference' / 'api' not in page.parents
    ]
    return sorted([*written, *ROOT.glob('*.rst')])


def blocks(text, beginning):
    """Give what is indented below each line that matches *beginning*."""
    for match in re.finditer(
        rf'^( *){beginning}\n((?:\1 +.*\n|\n)+)', text, re.M
    ):
        yield textwrap.dedent(match.group(2)).strip() + '\n'


def commands():
    """Give each command, on which page it is, and what is shown below it."""
    for page in pages():
        for block in blocks(page.read_text(), CONSOLE):
            if not block.startswith('$ '):
                continue
            for part in re.split(r'^\$ ', block, flags=re.M)[1:]:
                command, _, shown = part.partition('\n')
                yield page, command, shown


class TestReadme(base.TestCase):
    def test_command_lines(self):
        # .ci/run takes one of them from there, and so do readers.
        lines = (ROOT / 'README.rst').read_text().splitlines()
        self.assertRegex(
            lines[20], r'^    python3 .* && \.venv/bin/glance-store-probe$'
        )
        self.assertRegex(
            lines[24], r'^    python3 .* && \.venv/bin/tox -e py3$'
        )

    def test_files(self):
        text = (ROOT / 'README.rst').read_text()
        named = re.findall(r'\bdoc/source/[\w/.-]+\.\w+', text)
        self.assertGreater(len(named), 3)
        for name in named:
            self.assertTrue((ROOT / name).exists(), name)


class TestTroubleshooting(base.HubTestCase):
    """Each message that the page has is one that the helpers give."""

    def messages(self):
        yield TypeError, lambda: utils.CooperativeReader(None)
        yield TypeError, lambda: utils.chunkiter([])
        yield ValueError, lambda: utils.chunkiter(io.BytesIO(), 0)
        for chunk in ('text', 5):
            reader = utils.CooperativeReader([chunk])
            yield TypeError, reader.read
        yield TypeError, utils.chunkiter(base.Answering(5)).__next__
        nothing = base.Answering(None, None)
        yield BlockingIOError, utils.chunkiter(nothing).__next__
        yield BlockingIOError, utils.CooperativeReader(nothing).__next__
        reader = utils.CooperativeReader([])
        reader.close()
        yield ValueError, reader.read
        file = io.BytesIO()
        reader = utils.CooperativeReader(file)
        reader.close()
        yield ValueError, reader.read
        reader = utils.CooperativeReader(self.waiting())
        yield RuntimeError, lambda: self.during(reader.read, 3)
        chunks = utils.chunkiter(utils.CooperativeReader(self.waiting()))
        yield RuntimeError, lambda: self.during(chunks.__next__)
        iterator = utils.cooperative_iter(self.waiting())
        yield RuntimeError, lambda: self.in_hub_during(iterator.__next__)

    def waiting(self):
        """Wait for a first chunk, as on a socket."""
        yield eventlet.sleep(base.HANGING)

    def during(self, call, *args, by=None):
        """Make a call while a green thread is in the middle of another."""
        green_thread = eventlet.spawn(call, *args)
        eventlet.sleep(0)
        try:
            return (by or call)(*args)
        finally:
            green_thread.kill()

    def in_hub_during(self, call):
        failed = []

        def callback():
            failed.append(self.assertRaises(RuntimeError, call))

        def ask_hub():
            self.hub.schedule_call_global(0, callback)
            eventlet.sleep(0)
            raise failed[0]

        self.during(call, by=ask_hub)

    def test_messages(self):
        text = (PAGES / 'user' / 'troubleshooting.rst').read_text()
        page = re.sub(r'\s+', ' ', text)
        for kind, call in self.messages():
            with self.tally.case('docs: messages on the pages'):
                exc = self.assertRaises(kind, call)
                message = exc.strerror if isinstance(exc, OSError) else exc
                # What is refused differs, and so does what is said of it.
                known, _, _ = str(message).rstrip('.').partition(', not ')
                self.assertIn(known, page)


class TestTraceOfAService(base.TestCase):
    """The configurations on the page turn the trace on, and off."""

    def test_configurations(self):
        text = (PAGES / 'user' / 'troubleshooting.rst').read_text()
        folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        traced = []
        for config in blocks(text, r'\.\. code-block:: ini'):
            path = folder / 'service.conf'
            path.write_text(f'{config}log_file = {folder}/log\n')
            with self.tally.case('docs: configurations on the pages'):
                base.run_python(SERVICE, str(path), lines=True)
                log = (folder / 'log').read_text()
                self.assertEqual('debug' in config, 'of the service' in log)
                traced.append('BytesIO: 1 chunks, 3 bytes: ended' in log)
            (folder / 'log').unlink()
        self.assertEqual([True, False], traced)


SERVICE = """
    import io
    import logging
    import sys

    from oslo_config import cfg
    from oslo_log import log

    from glance_store.common import utils

    log.register_options(cfg.CONF)
    cfg.CONF(['--config-file', sys.argv[1]], project='glance')
    log.setup(cfg.CONF, 'glance')
    list(utils.CooperativeReader(io.BytesIO(b'abc')))
    logging.getLogger('glance').debug('of the service')
    logging.getLogger('glance').info('started')
    """


class TestMigration(base.HubTestCase):
    """What the page says of whatever the standard library has."""

    def serve(self, wrap):
        """Return how much a WSGI server sends of a file, and that file."""
        file = io.BytesIO(bytes(100000))
        sent = io.BytesIO()

        def application(_, start_response):
            start_response('200 OK', [('Content-Type', 'x/y')])
            return wrap(file)

        server = handlers.SimpleHandler(
            io.BytesIO(),
            sent,
            io.StringIO(),
            {'REQUEST_METHOD': 'GET', 'SERVER_PROTOCOL': 'HTTP/1.0'},
        )
        server.run(application)
        return len(sent.getvalue().partition(b'\r\n\r\n')[2]), file

    def test_file_wrapper(self):
        for wrap, size in (
            (util.FileWrapper, 8192),
            (utils.CooperativeReader, 65536),
            (self.chunks, 9000),
        ):
            sent, file = self.serve(wrap)
            self.assertEqual((100000, True), (sent, file.closed))
            chunks = wrap(io.BytesIO(bytes(100000)))
            self.assertEqual(size, len(next(iter(chunks))))

    def chunks(self, file):
        """Return what the function on the page does."""
        text = (PAGES / 'user' / 'migration.rst').read_text()
        (code,) = blocks(text, PYTHON)
        names = {'utils': utils}
        exec(code, names)
        return names['chunks'](file, 9000)

    def test_file_that_stays_open(self):
        sent, file = self.serve(
            lambda file: utils.cooperative_iter(utils.chunkiter(file, 8192))
        )
        self.assertEqual((100000, False), (sent, file.closed))

    def test_short_reads_and_none(self):
        short = (b'ab', b'c', b'd', b'')
        self.assertEqual(
            [b'ab', b'c', b'd'],
            list(util.FileWrapper(base.Answering(*short), 3)),
        )
        self.assertEqual(
            [b'abc', b'd'], list(utils.chunkiter(base.Answering(*short), 3))
        )
        self.assertEqual(
            [b'ab', b'c', b'd'],
            list(utils.CooperativeReader(base.Answering(*short))),
        )
        self.assertEqual([], list(util.FileWrapper(base.Answering(None))))
        self.assertRaises(
            BlockingIOError,
            list,
            utils.CooperativeReader(base.Answering(None)),
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
