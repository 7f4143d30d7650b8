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

"""Options, group ``[glance_store]``."""

import importlib.metadata
import inspect
import io
import os
import subprocess
import sys

import fixtures
from oslo_config import cfg

from glance_store.common import opts
from glance_store.common import utils
from glance_store.tests.unit import base


class TestOptions(base.TestCase):
    def test_names_and_defaults(self):
        group = cfg.CONF.glance_store
        self.assertEqual(65536, group.default_chunk_size)
        self.assertIs(int, type(group.default_chunk_size))
        self.assertEqual(0, group.cooperative_yield_interval)
        self.assertIs(False, group.offload_file_reads)

    def refused(self, **options):
        self.assertRaises(ValueError, self.configure, **options)

    def test_out_of_range_is_refused(self):
        for value in (0, -1, -65536):
            self.refused(default_chunk_size=value)
        for value in (-1, -0.001, float('-inf'), float('nan'), 'nan'):
            self.refused(cooperative_yield_interval=value)

    def test_wrong_type_is_refused(self):
        for value in ('many', '1.5', '64k'):
            self.refused(default_chunk_size=value)
        for value in ('often', '1ms'):
            self.refused(cooperative_yield_interval=value)

    def test_edges_are_taken(self):
        self.configure(default_chunk_size=1)
        self.assertEqual(1, cfg.CONF.glance_store.default_chunk_size)
        self.configure(cooperative_yield_interval=0)
        self.assertEqual(0, cfg.CONF.glance_store.cooperative_yield_interval)
        self.configure(cooperative_yield_interval=0.001)
        self.assertEqual(
            0.001, cfg.CONF.glance_store.cooperative_yield_interval
        )

    def config_file(self, text):
        path = self.useFixture(fixtures.TempDir()).join('glance.conf')
        with open(path, 'w') as out:
            out.write(text)
        return path

    CODE = """
        import json
        import sys

        from oslo_config import cfg

        from glance_store.common import utils

        before = len(next(iter(utils.chunkiter(open('/dev/zero', 'rb')))))
        cfg.CONF(['--config-file', sys.argv[1]], project='glance')
        after = len(next(iter(utils.chunkiter(open('/dev/zero', 'rb')))))
        interval = cfg.CONF.glance_store.cooperative_yield_interval
        print(json.dumps([before, after, interval]))
        """

    def test_from_a_file_and_before_it_is_read(self):
        path = self.config_file(
            '[glance_store]\n'
            'default_chunk_size = 1000\n'
            'cooperative_yield_interval = 0.25\n'
        )
        self.assertEqual(
            [65536, 1000, 0.25],
            base.run_python(
                self.CODE, path, options=('-W', 'ignore::ResourceWarning')
            ),
        )

    def test_changed_while_a_service_runs(self):
        text = (
            '[glance_store]\n'
            'default_chunk_size = {}\n'
            'cooperative_yield_interval = {}\n'
            'offload_file_reads = {}\n'
        )
        path = self.config_file(text.format(1000, 0.25, 'no'))
        conf = cfg.ConfigOpts()
        opts.register_opts(conf)
        conf(['--config-file', path], project='glance')
        with open(path, 'w') as out:
            out.write(text.format(2000, 0.5, 'yes'))
        conf.mutate_config_files()
        group = conf.glance_store
        self.assertEqual(2000, group.default_chunk_size)
        self.assertEqual(0.5, group.cooperative_yield_interval)
        self.assertIs(True, group.offload_file_reads)

    def test_out_of_range_in_a_file_is_refused(self):
        for line in (
            'default_chunk_size = 0',
            'cooperative_yield_interval = -1',
        ):
            path = self.config_file(f'[glance_store]\n{line}\n')
            exc = self.assertRaises(
                AssertionError, base.run_python, self.CODE, path
            )
            self.assertIn('ConfigFileValueError', str(exc))
            self.assertIn(line.partition(' ')[0], str(exc))

    def test_work_before_the_configuration_is_called(self):
        self.assertEqual(
            [[65536, 1], [65536, 1], 2],
            base.run_python(
                """
                import io
                import json

                from glance_store.common import utils

                data = bytes(65537)
                print(json.dumps([
                    [len(c) for c in utils.chunkiter(io.BytesIO(data))],
                    [len(c) for c in utils.CooperativeReader(
                        io.BytesIO(data))],
                    len(list(utils.cooperative_iter([b'a', b'b']))),
                ]))
                """
            ),
        )

    def test_registering_again_is_no_error(self):
        opts.register_opts(cfg.CONF)
        conf = cfg.ConfigOpts()
        opts.register_opts(conf)
        opts.register_opts(conf)
        conf([])
        self.assertEqual(65536, conf.glance_store.default_chunk_size)


class TestChunkSize(base.TestCase):
    def sizes(self, *args, **kwargs):
        fp = io.BytesIO(bytes(150000))
        of_iter = [len(c) for c in utils.chunkiter(fp, *args, **kwargs)]
        fp.seek(0)
        of_readable = [
            len(c) for c in utils.chunkreadable(fp, *args, **kwargs)
        ]
        self.assertEqual(of_iter, of_readable)
        return of_iter

    def test_call_that_names_no_size_follows_the_option(self):
        self.configure(default_chunk_size=100000)
        self.assertEqual([100000, 50000], self.sizes())

    def test_caller_who_passes_65536_gets_65536(self):
        self.configure(default_chunk_size=100000)
        for size in (65536, int('65536'), 2**16):
            self.assertEqual([65536, 65536, 18928], self.sizes(size))
            self.assertEqual(
                [65536, 65536, 18928], self.sizes(chunk_size=size)
            )

    def test_caller_who_passes_a_size_gets_it(self):
        self.configure(default_chunk_size=1000)
        self.assertEqual([149999, 1], self.sizes(149999))

    def test_signatures_show_65536(self):
        for func, first in (
            (utils.chunkiter, 'fp'),
            (utils.chunkreadable, 'iter'),
        ):
            signature = inspect.signature(func)
            self.assertEqual([first, 'chunk_size'], list(signature.parameters))
            parameter = signature.parameters['chunk_size']
            self.assertEqual(65536, parameter.default)
            self.assertEqual('65536', repr(parameter.default))
            self.assertEqual(
                'chunk_size=65536',
                str(parameter.replace(annotation=parameter.empty)),
            )

    def test_read_when_a_stream_is_made(self):
        self.configure(default_chunk_size=10)
        chunks = utils.chunkiter(io.BytesIO(bytes(100)))
        readable = utils.chunkreadable(io.BytesIO(bytes(100)))
        reader = utils.CooperativeReader(io.BytesIO(bytes(100)))
        self.configure(default_chunk_size=50)
        for stream in (chunks, readable, reader):
            self.assertEqual(10, len(next(stream)))
        self.configure(default_chunk_size=70)
        for stream in (chunks, readable, reader):
            self.assertEqual(10, len(next(stream)))
        self.assertEqual(70, len(next(utils.chunkiter(io.BytesIO(b'x' * 99)))))


class TestInterval(base.HubTestCase):
    """How long a stream may run between two yields.

    The lengths are such that no clock matters: none passes, or each does.
    """

    def streams(self, number=20):
        data = [b'abc'] * number
        it = utils.cooperative_iter(iter(data))
        read = utils.cooperative_read(io.BytesIO(b''.join(data)))
        over_file = utils.CooperativeReader(io.BytesIO(b''.join(data)))
        over_iterable = utils.CooperativeReader(iter(data))
        return (
            it.__next__,
            lambda: read(3),
            lambda: over_file.read(3),
            over_iterable.read,
        )

    def test_0_yields_after_every_chunk(self):
        self.configure(cooperative_yield_interval=0)
        for step in self.streams():
            for _ in range(20):
                self.assertYields(1, step)

    def test_shorter_than_a_chunk_yields_after_every_chunk(self):
        self.configure(cooperative_yield_interval=1e-9)
        for step in self.streams():
            for _ in range(20):
                self.assertYields(1, step)

    def test_longer_than_the_stream_never_yields(self):
        for interval in (1000, float('inf')):
            self.configure(cooperative_yield_interval=interval)
            for step in self.streams():
                for _ in range(20):
                    self.assertYields(0, step)

    def test_between_two_yields(self):
        # A clock that is under control is the only way to tell after which
        # chunk an interval is over. The hub keeps its own.
        clock = self.useFixture(base.Clock())
        self.configure(cooperative_yield_interval=1)
        for kind in range(4):
            step = self.streams()[kind]
            for lapse, yields in (
                (0, 0),
                (0.5, 0),
                (0.25, 0),
                (0.25, 1),
                (0, 0),
                (0.75, 0),
                (5, 1),
                (0.5, 0),
                (0.5, 1),
            ):
                clock.now += lapse
                self.assertYields(yields, step)

    def test_each_stream_has_its_own(self):
        clock = self.useFixture(base.Clock())
        self.configure(cooperative_yield_interval=1)
        streams = self.streams()
        clock.now += 2
        for step in streams:
            self.assertYields(1, step)
            self.assertYields(0, step)

    def test_interrupted_yield_counts_as_one(self):
        clock = self.useFixture(base.Clock())
        self.configure(cooperative_yield_interval=1)
        for step in self.streams():
            clock.now += 2
            base.Run(
                lambda step=step: self.assertRaises(base.Interrupted, step),
                lambda number: base.Interrupted(),
            )
            for _ in range(3):
                self.assertYields(0, step)

    def test_read_when_a_stream_is_made(self):
        self.configure(cooperative_yield_interval=1000)
        never = self.streams()
        self.configure(cooperative_yield_interval=0)
        always = self.streams()
        self.configure(cooperative_yield_interval=1000)
        for _ in range(5):
            for step in never:
                self.assertYields(0, step)
            for step in always:
                self.assertYields(1, step)


class TestListed(base.TestCase):
    def installed(self):
        try:
            importlib.metadata.distribution('glance_store')
        except importlib.metadata.PackageNotFoundError:
            self.skipTest('an entry point is there once installed, as by tox')

    def test_list_opts(self):
        listed = dict(opts.list_opts())
        self.assertEqual(['glance_store'], list(listed))
        names = {opt.name for opt in listed['glance_store']}
        self.assertLessEqual(
            {'default_chunk_size', 'cooperative_yield_interval'}, names
        )
        for opt in listed['glance_store']:
            self.assertNotEqual('', (opt.help or '').strip(), opt.name)

    def test_entry_point(self):
        self.installed()
        points = importlib.metadata.entry_points(
            group='oslo.config.opts', name='glance_store'
        )
        self.assertEqual(1, len(points))
        (point,) = points
        self.assertEqual(opts.list_opts(), point.load()())

    def test_generator_writes_them_into_a_sample(self):
        self.installed()
        path = self.useFixture(fixtures.TempDir()).join('sample')
        process = subprocess.run(
            [
                os.path.join(
                    os.path.dirname(sys.executable), 'oslo-config-generator'
                ),
                '--namespace',
                'glance_store',
                '--output-file',
                path,
            ],
            env=base.environment(),
            capture_output=True,
            text=True,
            timeout=base.HANGING,
        )
        self.assertEqual(0, process.returncode, process.stderr)
        with open(path) as sample:
            lines = sample.read().splitlines()
        self.assertIn('[glance_store]', lines)
        at = lines.index('#default_chunk_size = 65536')
        self.assertIn('# Minimum value: 1', lines[at - 3 : at])
        at = lines.index('#cooperative_yield_interval = 0')
        self.assertIn('# Minimum value: 0', lines[at - 3 : at])
