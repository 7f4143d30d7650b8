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

"""The pictures of the probe, and what it shows on a terminal."""

import os
import re
import subprocess
import sys

import fixtures

from glance_store.cmd.probe import errors
from glance_store.cmd.probe import measuring
from glance_store.cmd.probe import plot
from glance_store.cmd.probe import timeline
from glance_store.cmd.probe import watch
from glance_store.tests.unit import base
from glance_store.tests.unit import test_probe

PICTURES = [
    timeline.Timeline('one way', [[(0.0, 0.001)], [(0.001, 0.002)]], [0.003]),
    timeline.Timeline(
        'the other', [[(0.0, 0.001), (0.002, 0.003)], [(0.001, 0.002)]], [0]
    ),
]


def result(case):
    rounds = [measuring.Round(1 << 20, s, 7, [0, 0.5]) for s in (1, 2)]
    return measuring.Result(case, rounds)


class DrawingTestCase(base.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.useFixture(fixtures.TempDir()).path

    def draw(self, function, *args, name='picture.svg'):
        """Draw twice, see that both are the same, and return it."""
        path = os.path.join(self.folder, name)
        contents = []
        for _ in range(2):
            function(path, *args)
            with open(path, 'rb') as file:
                contents.append(file.read())
        self.assertEqual(*contents)
        return contents[0]

    def texts(self, content):
        return re.findall('<text[^>]*>([^<]+)<', content.decode())

    def test_rows(self):
        results = [
            result(case)
            for size in (4096, 65536)
            for case in measuring.cases(size, 0.002)
        ]
        results.append(result(measuring.alone()))
        texts = self.texts(self.draw(plot.rows, results, PICTURES, 0.01))
        for text in (
            'no cooperation, 4096',
            'every 2 ms, 65536',
            'native threads, 65536',
            'no streams',
            'target',
            'worst lateness, ms',
            'Who had a turn, one way',
            'Who had a turn, the other',
            'stream 2',
            'everything else',
        ):
            self.assertIn(text, texts)

    def test_rows_with_chunks_of_one_size(self):
        results = [
            *map(result, measuring.cases(4096, 0.002)),
            result(measuring.alone()),
        ]
        texts = self.texts(self.draw(plot.rows, results, PICTURES, 0.01))
        self.assertIn('no cooperation', texts)

    def test_no_date_and_no_font_in_it(self):
        content = self.draw(plot.timelines, PICTURES).decode()
        self.assertNotIn('date', content)
        self.assertNotIn('@font-face', content)
        self.assertIn('>everything else<', content)

    def test_bitmap(self):
        content = self.draw(plot.timelines, PICTURES, name='picture.png')
        self.assertTrue(content.startswith(b'\x89PNG\r\n'))
        self.assertNotIn(b'Software', content)

    def test_answers(self):
        seen = watch.Watched(
            watch.target('http://h/'),
            seconds=1.0,
            requests=2,
            failures={},
            failed_at=[0.5],
            moments=[(0.0, 0.0), (0.5, 0.1)],
        )
        texts = self.texts(self.draw(plot.answers, seen, 0.01))
        self.assertIn('answer time, ms', texts)


class TimelineTestCase(base.TestCase):
    """In a process that may have a hub."""

    def record(self, size, throughput=1000.0):
        path = os.path.join(self.useFixture(fixtures.TempDir()).path, 'image')
        with open(path, 'wb') as file:
            file.write(bytes(size))
        return base.run_python(
            """
            import json, sys

            from glance_store.cmd.probe import images
            from glance_store.cmd.probe import timeline

            image = images.Image(sys.argv[1], 0)
            print(json.dumps([
                [picture.title, picture.reads, picture.turns, picture.end]
                for picture in timeline.record(
                    image, 1000, float(sys.argv[2])
                )
            ]))
            """,
            path,
            str(throughput),
        )

    def test_who_runs_when(self):
        (bare, *bare_rest), (kind, *kind_rest) = self.record(100000)
        self.assertEqual(
            ('without cooperation', 'with a yield after every chunk'),
            (bare, kind),
        )
        for reads, turns, end in bare_rest, kind_rest:
            self.assertEqual([64] * 4, [len(times) for times in reads])
            self.assertEqual(end, max(times[-1][1] for times in reads))
            self.assertLess(turns[0], reads[0][0][0])
            self.assertGreater(turns[-1], end)
        # One after the other, and nothing in between.
        reads, turns, end = bare_rest
        for one, other in zip(reads, reads[1:], strict=False):
            self.assertLess(one[-1][1], other[0][0])
        self.assertFalse([t for t in turns if reads[0][0][0] < t < end])
        # In turns.
        reads, *_ = kind_rest
        for times in zip(*reads, strict=True):
            self.assertEqual(sorted(times), list(times))

    def test_begins_a_small_file_again(self):
        (_, reads, *_), _ = self.record(2500)
        self.assertEqual([64] * 4, [len(times) for times in reads])

    def test_few_chunks_of_slow_storage(self):
        (_, reads, *_), _ = self.record(100000, throughput=0.000001)
        self.assertEqual([2] * 4, [len(times) for times in reads])


class ProgramTestCase(test_probe.ProbeTestCase):
    def test_picture(self):
        path = os.path.join(self.folder, 'picture.svg')
        done = self.probe(self.file(1000), f'--plot={path}')
        self.assertEqual((0, ''), (done.returncode, done.stderr))
        with open(path) as file:
            picture = file.read()
        for text in 'every 1 ms', 'stream 4':
            self.assertIn(f'>{text}<', picture)

    def test_picture_without_matplotlib(self):
        # Before anything is measured.
        for option in '--plot=x.svg', '--timeline=x.png':
            done = self.probe(
                option,
                cwd=self.folder,
                env={**os.environ, 'PYTHONPATH': base.ROOT},
                prepare="sys.modules['matplotlib.figure'] = None\n"
                'program._probe = None',
            )
            self.assertEqual(
                (
                    1,
                    '',
                    'glance-store-probe: error: pictures need matplotlib, '
                    'which is not installed: pip install '
                    "'glance_store[plot]'\n",
                ),
                (done.returncode, done.stdout, done.stderr),
            )

    def test_matplotlib_is_not_imported_without_need(self):
        done = self.probe(
            '--help',
            prepare="import atexit; atexit.register(lambda: print("
            "'matplotlib' in sys.modules))",
        )
        self.assertTrue(done.stdout.endswith('False\n'))

    def test_interrupt_of_a_picture(self):
        path = os.path.join(self.folder, 'picture.svg')
        done = self.probe(
            self.file(1000),
            f'--timeline={path}',
            prepare="""
def read(self, size, read=timeline._Reads.read):
    os.kill(os.getpid(), signal.SIGINT)
    return read(self, size)
timeline._Reads.read = read
signal.signal(signal.SIGINT, signal.SIG_DFL)
""",
        )
        self.assertEqual(
            (130, test_probe.ENDED), (done.returncode, done.stderr)
        )
        self.assertFalse(os.path.exists(path))


class ColorTestCase(test_probe.TerminalTestCase):
    def shown(self):
        terminal = self.useFixture(
            test_probe.Terminal(self.file(1000), prepare='', stdout=None)
        )
        self.assertEqual((0, None), terminal.end())
        return terminal.shown

    def test_on_a_terminal(self):
        shown = self.shown()
        self.assertRegex(shown, r'\x1b\[3[12]m *\d+\.\d\d')
        self.assertIn('\x1b[32m[glance_store]', shown)

    def test_never_with_no_color(self):
        self.useFixture(fixtures.EnvironmentVariable('NO_COLOR', '1'))
        self.assertNotRegex(self.shown(), r'\x1b\[[0-9;]*3\dm')


class ImportTestCase(test_probe.ProbeTestCase):
    def test_interrupt_of_the_imports(self):
        # As early as there is anything of ours to be interrupted, and late.
        for module in 'glance_store.cmd.probe.program', 'rich', 'eventlet':
            done = subprocess.run(
                [
                    sys.executable,
                    '-c',
                    f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Finder:
    def find_spec(name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
from glance_store.cmd.probe import main
sys.exit(main())
""",
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=test_probe.DEADLINE,
            )
            self.assertEqual(
                (130, '', test_probe.ENDED),
                (done.returncode, done.stdout, done.stderr),
            )

    def test_little_is_imported_before_that(self):
        printed = base.run_python(
            """
            import json, sys

            from glance_store.cmd import probe

            print(json.dumps(sorted(sys.modules)))
            """
        )
        for name in 'eventlet', 'oslo_config', 'rich', 'typing':
            self.assertNotIn(name, printed)


class ReasonTestCase(base.TestCase):
    def test_of_each_kind(self):
        for exc, reason in (
            (OSError(28, 'No space left'), 'No space left'),
            (OSError(2, 'No such file', '/a'), "'/a': No such file"),
            (OSError('something'), 'something'),
            (MemoryError(), 'not enough memory'),
            (RuntimeError('something'), 'something'),
            (RuntimeError(), 'RuntimeError'),
        ):
            self.assertEqual(reason, errors.reason(exc))
