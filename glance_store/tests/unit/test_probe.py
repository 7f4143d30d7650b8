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

"""The probe is run as a program: it has a hub, signals and a terminal.

What a run cannot show at will, such as when which beat comes, is tested by
its parts. None of those may make a hub in the process of the tests.
"""

import collections
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile

import fixtures
from oslo_config import cfg
import testtools

from glance_store.cmd.probe import advice
from glance_store.cmd.probe import arguments
from glance_store.cmd.probe import errors
from glance_store.cmd.probe import images
from glance_store.cmd.probe import lateness
from glance_store.cmd.probe import measuring
from glance_store.cmd.probe import report
from glance_store.cmd.probe import signals
from glance_store.cmd.probe import watch
from glance_store.common import opts
from glance_store.tests import tally
from glance_store.tests.unit import base

NAMES = [
    'no cooperation',
    'after every chunk',
    'every 1 ms',
    'offloaded reads',
    'native threads',
    'no streams',
]
KEYS = [
    'no_cooperation',
    'every_chunk',
    'interval',
    'offloaded',
    'native_threads',
    'no_streams',
]

KIND = 'bad input: probe'

ENDED = 'glance-store-probe: ended by SIGINT\n'

# Only there to end a test that hangs.
DEADLINE = 120

# A row that lasts until somebody ends it, over a small image.
ENDLESS = """
images.IMAGE_SIZE = 1048576
measuring.STREAM_SIZE = measuring.MOST_PASSES = 1 << 60
arguments.SECONDS = measuring.ALONE = 1e9
"""


def command(prepare=''):
    """Return the command line, with code that is run beforehand."""
    code = f"""
import os, resource, signal, sys
from glance_store.cmd import probe
from glance_store.cmd.probe import (
    arguments, images, measuring, plot, program, signals, timeline, watch
)
arguments.SECONDS = 600
measuring.ALONE = 0.01
{prepare}
sys.exit(probe.main())
"""
    return [sys.executable, '-c', code]


class ProbeTestCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.tally = tally.Tally()
        self.addCleanup(self.tally.write)
        self.folder = self.useFixture(fixtures.TempDir()).path
        self.temporary = self.useFixture(fixtures.TempDir()).path
        self.useFixture(fixtures.EnvironmentVariable('TMPDIR', self.temporary))
        # What is buffered is tried once more as Python ends.
        self.useFixture(fixtures.EnvironmentVariable('PYTHONUNBUFFERED'))

    def file(self, size, name='image'):
        path = os.path.join(self.folder, name)
        with open(path, 'wb') as file:
            file.write(os.urandom(size))
        return path

    def probe(self, *args, prepare='', rounds=1, **kwargs):
        kwargs.setdefault('stdout', subprocess.PIPE)
        return subprocess.run(
            [*command(prepare), f'--rounds={rounds}', *args],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            **kwargs,
        )

    def json(self, *args, **kwargs):
        done = self.probe('--json', *args, **kwargs)
        self.assertEqual((0, ''), (done.returncode, done.stderr))
        return json.loads(done.stdout)

    def assertNothingLeft(self):
        self.assertEqual([], os.listdir(self.temporary))


class TableTestCase(ProbeTestCase):
    def rows(self, table):
        lines = table.splitlines()
        return [
            [cell.strip() for cell in line.split('│')[1:-1]]
            for line in lines
            if line.startswith('│')
        ]

    def test_rows_and_columns(self):
        done = self.probe(self.file(300000))
        self.assertEqual((0, ''), (done.returncode, done.stderr))
        rows = self.rows(done.stdout)
        heading = [
            ' '.join(cell).split()
            for cell in zip(*rows[: -len(NAMES)], strict=True)
        ]
        self.assertEqual(
            [
                ['Way', 'of', 'streaming'],
                ['Through-', 'put', 'MiB/s'],
                ['Yields'],
                ['Median', 'lateness', 'ms'],
                ['99th', 'percentile', 'ms'],
                ['Worst', 'lateness', 'ms'],
            ],
            heading,
        )
        rows = rows[-len(NAMES) :]
        self.assertEqual(NAMES, [row[0] for row in rows])
        for row in rows:
            self.assertTrue(row[1].isdigit() and row[2].isdigit(), row)
            median, most, worst = map(float, row[3:])
            self.assertTrue(0 <= median <= most <= worst, row)
        # Five chunks, and the read that finds the end.
        self.assertEqual(str(8 * 64 * 6), rows[1][2])
        self.assertEqual(['0', '0'], rows[-1][1:3])

    def test_says_what_was_streamed(self):
        path = self.file(1000)
        done = self.probe('--streams=3', '--chunk-size=700', path, path)
        self.assertEqual(
            'Streams: 3, chunks: 700, files: 2000 bytes, passes: 64, '
            'rounds: 1',
            done.stdout.splitlines()[0],
        )

    def test_is_whole_and_plain_in_a_pipe(self):
        self.useFixture(fixtures.EnvironmentVariable('COLUMNS', '20'))
        self.useFixture(fixtures.EnvironmentVariable('FORCE_COLOR', '1'))
        done = self.probe(self.file(1000))
        self.assertNotIn('\x1b', done.stdout)
        self.assertEqual(
            NAMES, [row[0] for row in self.rows(done.stdout)[-len(NAMES) :]]
        )
        self.assertEqual('', done.stderr)

    def test_fits_into_a_terminal(self):
        done = self.probe(self.file(1000))
        self.assertTrue(all(len(ln) <= 80 for ln in done.stdout.splitlines()))

    def test_without_unicode(self):
        self.useFixture(
            fixtures.EnvironmentVariable('PYTHONIOENCODING', 'ascii')
        )
        done = self.probe(self.file(1000))
        self.assertEqual((0, ''), (done.returncode, done.stderr))
        self.assertIn('| after every chunk |', done.stdout)

    def test_reader_has_gone_away(self):
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)
        done = self.probe(self.file(1000), stdout=writer)
        self.assertEqual((141, ''), (done.returncode, done.stderr))

    def test_no_space_for_the_output(self):
        with open('/dev/full', 'w') as full:
            done = self.probe(self.file(1000), stdout=full)
        self.assertEqual(1, done.returncode)
        self.assertEqual(
            'glance-store-probe: error: cannot print: No space left on '
            'device\n',
            done.stderr,
        )

    def test_closed_output(self):
        # Nobody should have to wait for what nobody will see.
        done = subprocess.run(
            ['sh', '-c', 'exec "$@" >&-', 'sh', *command('images.warm = 0')],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
        )
        self.assertEqual(
            (1, 'glance-store-probe: error: standard output is closed\n'),
            (done.returncode, done.stderr),
        )

    def test_nowhere_to_complain(self):
        done = self.probe(
            self.file(1000), prepare='sys.stdout = sys.stderr = None'
        )
        self.assertEqual((1, '', ''), (done.returncode, *self.output(done)))
        with open('/dev/full', 'w') as full:
            self.assertEqual(
                2, subprocess.run([*command(), '--x'], stderr=full).returncode
            )

    def test_closed_error_output(self):
        # The line must not come out where reports are expected.
        done = self.probe('--streams=0', prepare='sys.stderr = None')
        self.assertEqual((2, '', ''), (done.returncode, *self.output(done)))

    def test_only_error_output_is_closed(self):
        done = subprocess.run(
            ['sh', '-c', 'exec "$@" 2>&-', 'sh', *command(), self.file(1000)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
        )
        self.assertEqual(0, done.returncode)
        self.assertIn('every 1 ms', done.stdout)

    def output(self, done):
        return done.stdout, done.stderr


class JSONTestCase(ProbeTestCase):
    def test_document(self):
        path = self.file(100000)
        report = self.json(
            '--streams=2',
            '--chunk-size=4096',
            '--yield-interval=2.5',
            path,
            rounds=2,
        )
        rows = report.pop('rows')
        versions = report.pop('versions')
        self.assert_advice(report.pop('advice'), rows)
        self.assertEqual(
            {
                'version': 1,
                'kind': 'streams',
                'arguments': {
                    'streams': 2,
                    'chunk_sizes_bytes': [4096],
                    'yield_interval_ms': 2.5,
                    'cold': False,
                    'rounds': 2,
                    'seconds': 600.0,
                    'target_lateness_ms': 10.0,
                },
                'files': [{'path': path, 'size_bytes': 100000}],
                'passes': 64,
                'heartbeat_period_ms': 1.0,
                'hub': report['hub'],
                'cpus': len(os.sched_getaffinity(0)),
            },
            report,
        )
        self.assertTrue(report['hub'].startswith('eventlet.hubs.'))
        self.assertEqual(
            {'python', 'glance_store', 'eventlet', 'greenlet'}, set(versions)
        )
        self.assertEqual(KEYS, [row['way'] for row in rows])
        self.assertEqual(
            [*NAMES[:2], 'every 2.5 ms', *NAMES[3:]],
            [row['name'] for row in rows],
        )
        self.assertEqual(
            [4096] * 5, [row['chunk_size_bytes'] for row in rows[:-1]]
        )
        for row in rows[:-1]:
            self.assert_row(row, 2, bytes_read=2 * 2 * 64 * 100000)
        self.assertIsNone(rows[-1]['chunk_size_bytes'])
        self.assert_row(rows[-1], 2, bytes_read=0)

    def assert_advice(self, advice, rows):
        settings = {
            'every_chunk': (0.0, False),
            'interval': (0.0025, False),
            'offloaded': (0.0, True),
        }
        self.assertEqual(4096, advice['default_chunk_size'])
        self.assertIn(
            (
                advice['cooperative_yield_interval'],
                advice['offload_file_reads'],
            ),
            settings.values(),
        )
        self.assertIsInstance(advice['reaches_target'], bool)
        self.assertIn(len(advice['text']), (2, 3))

    def assert_row(self, row, rounds, bytes_read):
        self.assertEqual(rounds, len(row['rounds']))
        for field in 'bytes_read', 'seconds':
            self.assertAlmostEqual(
                row[field], sum(part[field] for part in row['rounds'])
            )
        self.assertEqual(
            row['lateness_worst_ms'],
            max(part['lateness_worst_ms'] for part in row['rounds']),
        )
        for part in row['rounds']:
            self.assertAlmostEqual(
                part['bytes_read'] / 1048576,
                part['throughput_mib_per_second'] * part['seconds'],
            )
        self.assertEqual(bytes_read, row['bytes_read'])
        # One for each millisecond, and the one that followed.
        more = row['beats'] - row['seconds'] * 1000
        self.assertTrue(-0.001 <= more <= rounds * 2.001, row)
        self.assertTrue(
            0
            <= row['lateness_median_ms']
            <= row['lateness_p99_ms']
            <= row['lateness_worst_ms'],
            row,
        )

    def test_yields(self):
        # 13 chunks, the last of them short, and the read that finds the end.
        report = self.json(
            '--streams=3',
            '--chunk-size=8000',
            '--yield-interval=60000',
            self.file(100000),
        )
        yields = {row['way']: row['yields'] for row in report['rows']}
        # Offloaded, there is a wait for each read as well, the first of which
        # has to wait for the pool to be made.
        self.assertLessEqual(2 * 3 * 64 * 14, yields.pop('offloaded'))
        self.assertEqual([0, 3 * 64 * 14, 0, 0, 0], list(yields.values()))

    def test_yields_of_a_stream_on_its_own(self):
        report = self.json(
            '--streams=1', '--chunk-size=50000', self.file(100000)
        )
        self.assertEqual(64 * 3, report['rows'][1]['yields'])

    def test_interval_is_kept_over_several_passes(self):
        # A pass on its own takes less than the interval. How often one is
        # over, nobody can tell; that it is, follows from the time it took.
        report = self.json(
            '--streams=1',
            '--chunk-size=1000',
            '--yield-interval=1',
            self.file(4000),
            prepare='''
measuring.MOST_PASSES = 5000
measuring.cases = lambda *args, cases=measuring.cases: cases(*args)[:3]
''',
        )
        row = report['rows'][2]
        self.assertTrue(0 < row['yields'] <= row['seconds'] * 1000, row)

    def test_shows_the_whole_of_a_stall(self):
        # The time is taken from within the only stream, and nothing else runs
        # before that has ended.
        report = self.json(
            '--streams=1',
            self.file(4000000),
            prepare="""
def run(streams, number, run=measuring.Streams.run):
    streams.start = measuring.clock()
    run(streams, number)
measuring.Streams.run = run
""",
        )
        row = report['rows'][0]
        stall = row['seconds'] * 1000
        self.assertGreaterEqual(row['lateness_worst_ms'], stall - 1.001)
        # The beats are spread over the stall, and half of them are due before
        # its middle.
        self.assertGreater(row['lateness_median_ms'], stall / 2 - 2.5)

    def test_streams_every_file(self):
        one = self.file(1000, 'one')
        other = self.file(500, 'other')
        report = self.json('--chunk-size=500', '--streams=3', one, other)
        self.assertEqual(
            [
                {'path': one, 'size_bytes': 1000},
                {'path': other, 'size_bytes': 500},
            ],
            report['files'],
        )
        self.assertEqual(3 * 64 * 5, report['rows'][1]['yields'])

    def test_reads_a_large_file_once_and_a_small_one_repeatedly(self):
        sizes = 'measuring.STREAM_SIZE, measuring.MOST_PASSES = 3000, 5'
        for size, passes in (2999, 2), (1, 5):
            report = self.json(self.file(size), prepare=sizes)
            self.assertEqual(passes, report['passes'])
            for row in report['rows'][:-1]:
                self.assertEqual(8 * passes * size, row['bytes_read'])

    def test_passes(self):
        for name, value in ('STREAM_SIZE', 3000), ('MOST_PASSES', 5):
            self.useFixture(
                fixtures.MonkeyPatch(
                    f'glance_store.cmd.probe.measuring.{name}', value
                )
            )
        for size, passes in (9000, 1), (3000, 1), (2999, 2), (700, 5), (1, 5):
            files = [images.Image('one', size)]
            self.assertEqual(passes, measuring.passes_over(files))
        files = [images.Image('one', 1000), images.Image('other', 400)]
        self.assertEqual(3, measuring.passes_over(files))

    def test_makes_an_image(self):
        report = self.json(
            prepare='measuring.STREAM_SIZE = images.IMAGE_SIZE = 1500000'
        )
        self.assertEqual(
            [{'path': None, 'size_bytes': 1500000}], report['files']
        )
        for row in report['rows'][:-1]:
            self.assertEqual(8 * 1500000, row['bytes_read'])
        self.assertNothingLeft()

    def test_size_of_the_image(self):
        self.assertEqual(256 * 1024 * 1024, images.IMAGE_SIZE)

    def test_image_has_no_holes(self):
        self.useFixture(
            fixtures.MonkeyPatch(
                'glance_store.cmd.probe.images.IMAGE_SIZE', 3 << 20
            )
        )
        self.useFixture(fixtures.NestedTempfile())
        folder = tempfile.gettempdir()
        with images.made() as image:
            self.assertTrue(image.path.startswith(folder))
            with open(image.path, 'rb') as file:
                content = file.read()
        self.assertEqual(3 << 20, len(content))
        self.assertNotIn(bytes(4096), content)
        self.assertEqual([], os.listdir(folder))


def fields(value, name=''):
    """Return what the documentation is to call each field of a document."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield from fields(member, f'{name}.{key}' if name else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for member in value:
            yield from fields(member, f'{name}[]')
    else:
        yield name


def documented_fields(title):
    """Return the fields that a section of the documentation names."""
    path = os.path.join(
        base.ROOT, 'doc', 'source', 'cli', 'glance-store-probe.rst'
    )
    with open(path) as page:
        text = page.read()
    section = text.split(f'\n{title}\n---')[1].split('\n---')[0]
    terms = re.findall('^``.*``$', section, re.MULTILINE)
    return [field for term in terms for field in re.findall('``(.+?)``', term)]


class DocumentedTestCase(ProbeTestCase):
    def test_fields_of_streams(self):
        report = self.json(self.file(1000))
        documented = documented_fields('Of streams')
        self.assertEqual(len(set(documented)), len(documented))
        self.assertEqual(set(fields(report)), set(documented))

    def test_fields_of_a_service(self):
        seen = watch.Watched(
            watch.target('http://h/'),
            seconds=1.0,
            requests=1,
            failures=collections.Counter(['reason']),
            failed_at=[0.5],
            moments=[(0.0, 0.0)],
        )
        document = json.loads(report.watched_as_json(seen, 0.01))
        documented = documented_fields('Of a service')
        self.assertEqual(len(set(documented)), len(documented))
        self.assertEqual(set(fields(document)), set(documented))

    def test_options(self):
        path = os.path.join(
            base.ROOT, 'doc', 'source', 'cli', 'glance-store-probe.rst'
        )
        with open(path) as page:
            text = page.read()
        section = text.split('\nOptions\n===')[1].split('\n===')[0]
        self.assertEqual(
            {
                action.option_strings[-1]
                for action in arguments.parser()._actions
                if action.option_strings
            },
            set(re.findall('^``(--[a-z-]+)', section, re.MULTILINE)),
        )


class RefusalTestCase(ProbeTestCase):
    def assertRefused(self, line, *args, status=2, prepare=''):
        with self.tally.case(KIND):
            done = self.probe(*args, prepare=prepare)
            self.assertEqual(
                (status, '', f'glance-store-probe: error: {line}\n'),
                (done.returncode, done.stdout, done.stderr),
            )
            self.assertNothingLeft()

    def test_numbers(self):
        self.assertRefused(
            "argument --streams: '0' is not a whole number from 1 to 1000",
            '--streams=0',
        )
        ranges = {
            '--streams': 'whole number from 1 to 1000',
            '--chunk-size': 'whole number from 1 to 1073741824',
            '--yield-interval': 'number from 0.001 to 60000',
            '--target-lateness': 'number from 0.001 to 60000',
            '--rounds': 'whole number from 1 to 100',
            '--seconds': 'number from 0.1 to 86400',
        }
        for option, what in ranges.items():
            for text in '0', '-1', 'many', '', 'nan', 'inf', '9' * 5000:
                self.assert_refused_at_once(
                    f'argument {option}: {text!r} is not a {what}',
                    f'{option}={text}',
                )

    def test_number_apart_from_its_option(self):
        self.assert_refused_at_once(
            "argument --streams: '-1' is not a whole number from 1 to 1000",
            '--streams',
            '-1',
        )

    def assert_refused_at_once(self, line, *args):
        """As assertRefused, by the parser and in this process."""
        with self.tally.case(KIND):
            failure = self.assertRaises(errors.Failure, arguments.parse, args)
            self.assertEqual((line, 2), (str(failure), failure.status))

    def test_largest_and_smallest_numbers(self):
        for streams, size, milliseconds, rounds, seconds in (
            (1, 1, 0.001, 1, 0.1),
            (1000, 1 << 30, 60000, 100, 86400),
        ):
            asked = arguments.parse(
                [
                    f'--streams={streams}',
                    f'--chunk-size={size}',
                    f'--yield-interval={milliseconds}',
                    f'--target-lateness={milliseconds}',
                    f'--rounds={rounds}',
                    f'--seconds={seconds}',
                ]
            )
            self.assertEqual(
                (streams, [size], rounds, seconds),
                (
                    asked.streams,
                    asked.chunk_sizes,
                    asked.rounds,
                    asked.seconds,
                ),
            )
            self.assertEqual(
                [milliseconds / 1000] * 2, [asked.interval, asked.target]
            )

    def test_sizes_that_are_named_twice(self):
        asked = arguments.parse([f'--chunk-size={size}' for size in (5, 3, 5)])
        self.assertEqual([5, 3], asked.chunk_sizes)

    def test_fraction(self):
        for option in '--streams', '--chunk-size', '--rounds':
            failure = self.assertRaises(
                errors.Failure, arguments.parse, [option, '1.5']
            )
            self.assertIn(f"argument {option}: '1.5' is", str(failure))

    def test_missing_file(self):
        path = os.path.join(self.folder, 'missing')
        self.assertRefused(
            f"argument FILE: '{path}': No such file or directory", path
        )

    def test_unreadable_file(self):
        path = self.file(1000)
        os.chmod(self.folder, 0o755)
        os.chmod(path, 0)
        # Nothing is unreadable to root. And nobody should have to wait for
        # other files to be read before they learn of this one.
        self.assertRefused(
            f"argument FILE: '{path}': Permission denied",
            path,
            prepare="""
import atexit
images.warm = None
if os.geteuid() == 0:
    os.seteuid(65534)
    atexit.register(os.seteuid, 0)
""",
        )

    def test_empty_file(self):
        path = self.file(0)
        self.assertRefused(f"argument FILE: '{path}' is empty", path)

    def test_folder(self):
        self.assertRefused(
            f"argument FILE: '{self.folder}' has no image in it", self.folder
        )

    def test_pipe(self):
        path = os.path.join(self.folder, 'pipe')
        os.mkfifo(path)
        self.assertRefused(
            f"argument FILE: '{path}' is no file, directory or block device",
            path,
        )

    def test_device(self):
        self.assertRefused(
            "argument FILE: '/dev/zero' is no file, directory or block device",
            '/dev/zero',
        )

    def test_one_of_many_files(self):
        path = os.path.join(self.folder, 'missing')
        self.assertRefused(
            f"argument FILE: '{path}': No such file or directory",
            self.file(1000),
            path,
        )

    def test_file_that_goes_before_it_is_read(self):
        path = self.file(1000)
        self.assertRefused(
            f"argument FILE: '{path}': No such file or directory",
            path,
            prepare=f"""
def warm(*args, warm=images.warm):
    os.unlink({path!r})
    warm(*args)
images.warm = warm
""",
        )

    def test_name_that_breaks_lines(self):
        self.assertRefused(
            r"argument FILE: '/missing\n\x1b[2J\udcff': No such file or "
            'directory',
            '/missing\n\x1b[2J\udcff',
        )

    def test_unknown_option(self):
        self.assertRefused(r'unrecognized arguments: --x\ny', '--x\ny')

    def test_abbreviated_option(self):
        self.assertRefused('unrecognized arguments: --stream=2', '--stream=2')

    def test_stream_that_fails(self):
        path = self.file(1000)
        self.assertRefused(
            f"streaming: after every chunk: '{path}': Too many open files",
            '--streams=1000',
            path,
            status=1,
            prepare='resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))',
        )

    def test_stream_that_fails_on_a_native_thread(self):
        path = self.file(1000)
        self.assertRefused(
            f"streaming: native threads: '{path}': No such file or directory",
            path,
            status=1,
            prepare=f"""
def on_threads(streams, on_threads=measuring.on_threads):
    os.unlink({path!r})
    return on_threads(streams)
measuring.on_threads = on_threads
""",
        )

    def test_no_space_for_the_image(self):
        self.assertRefused(
            'making an image failed (name a FILE, or another folder by '
            'TMPDIR): File too large',
            status=1,
            prepare='resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 21, -1))',
        )

    def test_not_enough_memory(self):
        with testtools.ExpectedException(
            errors.Failure, '^streaming: not enough memory$'
        ):
            with errors.failing('streaming'):
                raise MemoryError

    def test_help(self):
        done = self.probe('--help')
        self.assertEqual((0, ''), (done.returncode, done.stderr))
        for text in (
            'FILE',
            '256 MiB',
            '--streams N',
            '(default: 8)',
            '--chunk-size BYTES',
            '(default: 65536)',
            '--yield-interval MILLISECONDS',
            '(default: 1)',
            '--json',
            'page cache',
            'exit status',
        ):
            self.assertIn(text, ' '.join(done.stdout.split()))


class Terminal(fixtures.Fixture):
    """A probe with a pseudo-terminal for its standard error."""

    def __init__(self, *args, prepare, stdout=subprocess.PIPE, rounds=1):
        super().__init__()
        self._command = [*command(prepare), *args]
        if rounds is not None:
            self._command.append(f'--rounds={rounds}')
        self._stdout = stdout
        self.shown = ''

    def _setUp(self):
        self._master, slave = pty.openpty()
        self.addCleanup(os.close, self._master)
        stdout = slave if self._stdout is None else self._stdout
        self.process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=slave,
            text=True,
        )
        self.addCleanup(self.process.communicate)
        self.addCleanup(self.process.kill)
        os.close(slave)

    def read(self):
        """Return whether there was more to be read."""
        if not select.select([self._master], [], [], DEADLINE)[0]:
            raise TimeoutError(self.shown)
        try:
            data = os.read(self._master, 65536)
        except OSError:  # how Linux says that nobody has the other end
            data = b''
        self.shown += data.decode(errors='replace')
        return bool(data)

    def read_until(self, text):
        while text not in self.shown:
            if not self.read():
                raise EOFError(self.shown)

    def end(self):
        """Return the exit status and what was printed."""
        while self.read():
            pass
        printed, _ = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, printed


class TerminalTestCase(ProbeTestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.EnvironmentVariable('TERM', 'xterm'))
        self.useFixture(fixtures.EnvironmentVariable('COLUMNS', '80'))

    def test_progress(self):
        terminal = self.useFixture(
            Terminal('--json', self.file(1000), prepare='')
        )
        status, printed = terminal.end()
        self.assertEqual(0, status)
        self.assertEqual(
            KEYS, [row['way'] for row in json.loads(printed)['rows']]
        )
        place = 0
        for number, step in enumerate(
            [
                'making an image',
                'reading into the page cache',
                *(f'streaming: {name}' for name in NAMES),
            ]
        ):
            place = terminal.shown.index(step, place)
            done = 100 * number / (len(NAMES) + 2)
            self.assertIn(f' {done:.0f}%', terminal.shown[:place])
        self.assertIn('100%', terminal.shown[place:])
        # Known as soon as one row is.
        place = terminal.shown.index(NAMES[1])
        self.assertIn(':', terminal.shown[:place])
        self.assertRegex(terminal.shown[:place], r'\d:\d\d left')
        self.assertNotIn(
            'left', terminal.shown[: terminal.shown.index(NAMES[0])]
        )
        # The bar is gone and the cursor is back.
        self.assertTrue(terminal.shown.rstrip().endswith('\x1b[2K'))
        self.assertIn('\x1b[?25h', terminal.shown)

    def test_table(self):
        terminal = self.useFixture(
            Terminal(self.file(1000), prepare='', stdout=None)
        )
        self.assertEqual((0, None), terminal.end())
        self.assertIn('\x1b[1m', terminal.shown)
        self.assertIn('│ after every chunk │', terminal.shown)

    def test_no_thread_draws_while_streaming(self):
        terminal = self.useFixture(
            Terminal(
                '--json',
                self.file(1000),
                prepare="""
import threading
def on_hub(streams, on_hub=measuring.on_hub):
    assert threading.active_count() == 1, threading.enumerate()
    return on_hub(streams)
measuring.on_hub = on_hub
""",
            )
        )
        self.assertEqual(0, terminal.end()[0], terminal.shown)


class SignalTestCase(ProbeTestCase):
    def start(self, row):
        terminal = self.useFixture(
            Terminal(
                prepare=f"""
signal.signal(signal.SIGINT, signal.SIG_DFL)
{ENDLESS}
measuring.cases = lambda *args, cases=measuring.cases: cases(*args)[{row}:]
def run(streams, number, run=measuring.Streams.run):
    print('begun:', number, file=sys.stderr, flush=True)
    run(streams, number)
measuring.Streams.run = run
"""
            )
        )
        terminal.read_until(f'streaming: {NAMES[row]}')
        if row < len(NAMES) - 1:
            terminal.read_until('begun: 0')
        self.assertEqual(1, len(os.listdir(self.temporary)))
        return terminal

    def assertStopped(self, status, terminal):
        self.assertEqual((status, ''), terminal.end())
        name = signal.Signals(status - 128).name
        self.assertIn(f'glance-store-probe: ended by {name}', terminal.shown)
        self.assertNotIn('Traceback', terminal.shown)
        self.assertNotIn('rror', terminal.shown)
        self.assertNotIn('xception', terminal.shown)
        self.assertNothingLeft()

    def test_interrupt_in_each_row(self):
        for row in range(len(NAMES)):
            terminal = self.start(row)
            terminal.process.send_signal(signal.SIGINT)
            self.assertStopped(130, terminal)

    def test_interrupt_on_another_hub(self):
        self.useFixture(
            fixtures.EnvironmentVariable('EVENTLET_HUB', 'asyncio')
        )
        for row in 0, 1:
            terminal = self.start(row)
            terminal.process.send_signal(signal.SIGINT)
            self.assertStopped(130, terminal)

    def test_termination(self):
        terminal = self.start(0)
        terminal.process.terminate()
        self.assertStopped(143, terminal)

    def test_hangup(self):
        # Whoever runs the tests may have been told to ignore it.
        self.addCleanup(
            signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP)
        )
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        terminal = self.start(0)
        terminal.process.send_signal(signal.SIGHUP)
        self.assertStopped(129, terminal)

    def test_ignored_signal_stays_ignored(self):
        self.addCleanup(
            signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP)
        )
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with signals.stopping():
            self.assertIs(signal.SIG_IGN, signal.getsignal(signal.SIGHUP))

    def test_interrupt_while_the_image_is_made(self):
        process = subprocess.Popen(
            command('signal.signal(signal.SIGINT, signal.SIG_DFL)'),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        while not os.listdir(self.temporary):
            self.assertIsNone(process.poll())
        process.send_signal(signal.SIGINT)
        self.assertEqual(
            (b'', ENDED.encode()), process.communicate(timeout=DEADLINE)
        )
        self.assertEqual(130, process.returncode)
        self.assertNothingLeft()

    def test_interrupt_in_the_middle_of_making_the_folder(self):
        self.assert_interrupted_by("""
def mkdtemp(*args, original=tempfile.mkdtemp):
    folder = original(*args)
    os.kill(os.getpid(), signal.SIGINT)
    return folder
tempfile.mkdtemp = mkdtemp
""")

    def test_interrupt_in_the_middle_of_removing_the_folder(self):
        self.assert_interrupted_by("""
def rmtree(*args, original=shutil.rmtree, **kwargs):
    os.kill(os.getpid(), signal.SIGINT)
    original(*args, **kwargs)
shutil.rmtree = rmtree
""")

    def assert_interrupted_by(self, code):
        done = self.probe(
            prepare=f"""
import shutil, tempfile
{ENDLESS}
{code}
program._measure = None
signal.signal(signal.SIGINT, signal.SIG_DFL)
"""
        )
        self.assertEqual(
            (130, '', ENDED), (done.returncode, done.stdout, done.stderr)
        )
        self.assertNothingLeft()

    def test_failure_after_an_interrupt(self):
        done = self.probe(
            prepare=f"""
{ENDLESS}
def on_hub(streams):
    os.kill(os.getpid(), signal.SIGINT)
    raise RuntimeError
measuring.on_hub = on_hub
signal.signal(signal.SIGINT, signal.SIG_DFL)
"""
        )
        self.assertEqual(
            (130, '', ENDED), (done.returncode, done.stdout, done.stderr)
        )
        self.assertNothingLeft()

    def test_interrupt_where_nothing_can_be_raised(self):
        done = self.probe(
            prepare=f"""
import weakref
{ENDLESS}
def interrupt(_):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass
def run(streams, number, run=measuring.Streams.run):
    if not number:
        thing = type('Thing', (), {{}})()
        reference = weakref.ref(thing, interrupt)
        del thing
    run(streams, number)
measuring.Streams.run = run
signal.signal(signal.SIGINT, signal.SIG_DFL)
"""
        )
        self.assertEqual(
            (130, '', ENDED), (done.returncode, done.stdout, done.stderr)
        )
        self.assertNothingLeft()

    def test_second_interrupt_does_not_wait_for_a_read(self):
        path = os.path.join(self.folder, 'interrupted-once')
        process = subprocess.Popen(
            [
                *command(f"""
import time
def read(self, image):
    os.kill(os.getpid(), signal.SIGINT)
    assert signals.received == [signal.SIGINT]
    open({path!r}, 'w').close()
    while True:
        time.sleep(60)
measuring.Streams._read = read
signal.signal(signal.SIGINT, signal.SIG_DFL)
"""),
                self.file(1000),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        while not os.path.exists(path):
            self.assertIsNone(process.poll())
        process.send_signal(signal.SIGINT)
        self.assertEqual(
            (b'', ENDED.encode()), process.communicate(timeout=DEADLINE)
        )
        self.assertEqual(130, process.returncode)

    def test_second_interrupt(self):
        handlers = {
            number: signal.getsignal(number) for number in signals.SIGNALS
        }
        for number, handler in handlers.items():
            self.addCleanup(signal.signal, number, handler)
        self.addCleanup(signals.received.clear)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with testtools.ExpectedException(signals.Stopped, '^130$'):
            with signals.stopping():
                os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        self.assertIs(signal.SIG_IGN, signal.getsignal(signal.SIGINT))

    def test_handlers_are_put_back(self):
        before = [signal.getsignal(number) for number in signals.SIGNALS]
        with signals.stopping():
            pass
        self.assertEqual(
            before, [signal.getsignal(number) for number in signals.SIGNALS]
        )


class ModuleTestCase(ProbeTestCase):
    def test_runs_by_its_name(self):
        done = subprocess.run(
            [sys.executable, '-m', 'glance_store.cmd.probe', '--streams=0'],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        self.assertEqual((2, ''), (done.returncode, done.stdout))
        self.assertIn("argument --streams: '0'", done.stderr)


class WarningTestCase(ProbeTestCase):
    def test_only_that_of_eventlet_is_silenced(self):
        done = self.probe(
            self.file(1000), prepare="import warnings; warnings.warn('other')"
        )
        self.assertEqual(0, done.returncode)
        self.assertNotIn('ventlet', done.stderr)
        self.assertIn('UserWarning: other', done.stderr)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, stalls):
        self.now = 0.0
        # How much longer each sleep takes.
        self._stalls = iter(stalls)

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds + next(self._stalls)


class PartsTestCase(testtools.TestCase):
    def lateness(self, stalls, start, end):
        """Return the lateness in periods; so are the arguments."""
        period = measuring.PERIOD
        clock = Clock(stall * period for stall in stalls)
        self.useFixture(
            fixtures.MonkeyPatch(
                'glance_store.cmd.probe.measuring.clock', clock
            )
        )
        heart = measuring.Heart(clock.sleep)
        clock.now = end * period
        heart.stop()
        clock.now = 0.0
        heart.run()
        late = heart.lateness(start * period, end * period)
        return [round(value / period, 3) for value in late]

    def test_beats_in_time(self):
        self.assertEqual([0, 0, 0], self.lateness([0] * 9, 2.5, 4.5))

    def test_each_beat_that_is_missed_counts(self):
        # Due at 1, 2, 3 and so on. That of 3 comes at 7.5; 8 and 9, which
        # is the one after the end, are in time.
        self.assertEqual(
            [0, 0, 0, 0, 0.5, 1.5, 2.5, 3.5, 4.5],
            self.lateness([0, 0, 4.5, 0, 0, 0, 0], 0.5, 8.5),
        )

    def test_beats_outside_do_not_count(self):
        # That of 2 comes at 5.5: what was due before the start is left out.
        self.assertEqual(
            [0, 0.5, 1.5], self.lateness([0, 3.5, 0, 0, 0], 3.5, 5.2)
        )

    def test_beat_that_is_under_way_at_the_end_counts(self):
        # Due at 2, while the streams ran from 1.2 to 1.4.
        self.assertEqual([0.25], self.lateness([0, 0.25, 0], 1.2, 1.4))

    def test_never_earlier_than_due(self):
        self.assertEqual([0, 0], self.lateness([0, -0.25, 0, 0], 1.5, 2.5))

    def test_only_streams_count_as_coming_back(self):
        # The runs of the program show that it counts right; but greenlet
        # switches other tracers off meanwhile, and coverage cannot see it.
        stream = object()
        streams = measuring.Streams(measuring.Load([], 1, 1, 1), 1)
        streams._returns[stream] = 0
        streams._count('switch', (object(), stream))
        streams._count('throw', (object(), stream))
        streams._count('switch', (stream, object()))
        self.assertEqual({stream: 2}, streams._returns)

    def test_percentile(self):
        values = range(1, 201)
        self.assertEqual(100, lateness.percentile(values, 50))
        self.assertEqual(198, lateness.percentile(values, 99))
        self.assertEqual(200, lateness.percentile(values, 100))
        self.assertEqual(1, lateness.percentile(values, 0))
        self.assertEqual(7, lateness.percentile([7], 99))
        self.assertEqual(2, lateness.percentile([1, 2, 3], 50))

    def test_version(self):
        self.assertIsNone(report._version('not-to-be-found-anywhere'))
        self.assertRegex(str(report._version('eventlet')), r'^\d')

    def test_options_are_only_set_meanwhile(self):
        def values():
            group = cfg.CONF[opts.GROUP]
            return group.cooperative_yield_interval, group.offload_file_reads

        before = values()
        options = {
            'cooperative_yield_interval': 0.25,
            'offload_file_reads': True,
        }
        with testtools.ExpectedException(ZeroDivisionError):
            with measuring._options(options):
                self.assertEqual((0.25, True), values())
                raise ZeroDivisionError
        self.assertEqual(before, values())

    def test_setting_of_each_row(self):
        rows = measuring.cases(4096, 0.0025)
        self.assertEqual(
            [
                None,
                advice.Setting(4096),
                advice.Setting(4096, interval=0.0025),
                advice.Setting(4096, offload=True),
                None,
            ],
            [report.setting_of(case) for case in rows],
        )
        self.assertIsNone(report.setting_of(measuring.alone()))
