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


"""The options: what a stream takes from them, and when."""

from importlib import metadata
import inspect
import io

import fixtures
from oslo_config import cfg

from glance_store.common import utils
from glance_store.tests.unit import base


class OptionsTestCase(base.TestCase):
    def refused(self, name: str, value: str) -> str:
        """Return the error of a configuration file with that value."""
        path = self.useFixture(fixtures.TempDir()).join('glance.conf')
        with open(path, 'w') as out:
            out.write(f'[glance_store]\n{name} = {value}\n')
        (entry_point,) = metadata.entry_points(
            group='oslo.config.opts', name='glance_store'
        )
        conf = cfg.ConfigOpts()
        for group, options in entry_point.load()():
            conf.register_opts(options, group)
        exc = self.assertRaises(
            cfg.ConfigFileValueError,
            conf,
            ['--config-file', path],
            project='glance',
        )
        return str(exc)

    def test_defaults(self) -> None:
        group = cfg.CONF.glance_store
        self.assertEqual(65536, group.default_chunk_size)
        self.assertEqual(0, group.cooperative_yield_interval)
        self.assertIs(False, group.offload_file_reads)

    def test_out_of_range(self) -> None:
        for name, values in (
            ('default_chunk_size', ('0', '-1', '1.5', '64k', 'many')),
            ('cooperative_yield_interval', ('-1', '-1e-9', '1ms', 'nan')),
            ('offload_file_reads', ('2', 'maybe')),
        ):
            for value in values:
                self.assertIn(name, self.refused(name, value))
                self.assertRaises(ValueError, self.configure, **{name: value})

    def test_in_range(self) -> None:
        self.configure(default_chunk_size=1, cooperative_yield_interval=1e-9)
        self.assertEqual(
            [b'a', b'b'], list(utils.CooperativeReader(io.BytesIO(b'ab')))
        )

    def test_a_service_reads_and_changes_them(self) -> None:
        path = self.useFixture(fixtures.TempDir()).join('glance.conf')
        self.assertEqual(
            [65536, 1000, 1000, 2000, 65536],
            base.run_python(
                """
                import io
                import json
                import sys

                from oslo_config import cfg

                from glance_store.common import utils

                def stream():
                    return utils.chunkiter(io.BytesIO(bytes(10**6)))

                def configure(size):
                    with open(sys.argv[1], 'w') as out:
                        out.write('[glance_store]\\n')
                        out.write(f'default_chunk_size = {size}\\n')

                before = stream()
                configure(1000)
                cfg.CONF(['--config-file', sys.argv[1]], project='glance')
                called = stream()
                got = [next(before), next(called)]
                configure(2000)
                cfg.CONF.mutate_config_files()
                got += [next(called), next(stream()), next(before)]
                print(json.dumps([*map(len, got)]))
                """,
                path,
            ),
        )

    def test_sample(self) -> None:
        sample = base.run_python(
            """
            import contextlib
            import io
            import json

            from oslo_config import generator

            with contextlib.redirect_stdout(io.StringIO()) as sample:
                generator.main(['--namespace', 'glance_store'])
            print(json.dumps(sample.getvalue().splitlines()))
            """
        )
        for line in (
            '[glance_store]',
            '#default_chunk_size = 65536',
            '#cooperative_yield_interval = 0',
            '#offload_file_reads = false',
        ):
            self.assertIn(line, sample)


class ChunkSizeTestCase(base.TestCase):
    def test_named_or_not(self) -> None:
        self.configure(default_chunk_size=1000)
        data = bytes(200000)
        for make in utils.chunkiter, utils.chunkreadable:
            for args, size in (
                ((), 1000),
                ((65536,), 65536),
                ((2**16,), 65536),
                ((int('65536'),), 65536),
                ((999,), 999),
            ):
                chunk = next(make(io.BytesIO(data), *args))
                self.assertEqual(size, len(chunk))
            chunk = next(make(io.BytesIO(data), chunk_size=65536))
            self.assertEqual(65536, len(chunk))

    def test_signature(self) -> None:
        for func in utils.chunkiter, utils.chunkreadable:
            parameter = inspect.signature(func).parameters['chunk_size']
            self.assertEqual(65536, parameter.default)
            self.assertEqual('65536', repr(parameter.default))

    def test_read_when_a_stream_is_made(self) -> None:
        self.configure(default_chunk_size=10)
        streams = [
            make(io.BytesIO(bytes(100)))
            for make in (
                utils.chunkiter,
                utils.chunkreadable,
                utils.CooperativeReader,
            )
        ]
        for size in 20, 30:
            self.configure(default_chunk_size=size)
            for stream in streams:
                self.assertEqual(10, len(next(stream)))


class StreamOptionsTestCase(base.HubTestCase):
    def test_interval_is_read_when_a_stream_is_made(self) -> None:
        self.configure(default_chunk_size=1)
        for make in (
            lambda: utils.cooperative_iter([b'abc'] * 9).__next__,
            lambda: utils.CooperativeReader([b'abc'] * 9).read,
            lambda: utils.CooperativeReader(io.BytesIO(bytes(9))).__next__,
            lambda: utils.cooperative_read(io.BytesIO()),
        ):
            self.configure(cooperative_yield_interval=1000)
            rarely = make()
            self.configure(cooperative_yield_interval=0)
            always = make()
            self.configure(cooperative_yield_interval=1000)
            rarely()  # the first one yields
            for step, yields in (rarely, 0), (always, 1):
                for _ in '12':
                    self.assertYields(yields, step)


class OffloadTestCase(base.TestCase):
    def test_read_when_a_stream_is_made(self) -> None:
        # A process has one pool, which answers its first hub only.
        self.assertEqual(
            [[False, True]] * 3,
            base.run_python(
                """
                import io
                import json
                import tempfile
                import threading

                from eventlet import hubs
                from oslo_config import cfg

                from glance_store.common import utils

                class Noting(io.FileIO):
                    def readinto(self, buffer):
                        self.thread = threading.get_ident()
                        return super().readinto(buffer)

                def configure(option):
                    cfg.CONF.set_override(
                        'offload_file_reads', option, 'glance_store'
                    )

                def offloads(make, option):
                    noting = Noting(image.name)
                    # A text file is offloaded whatever the page cache holds.
                    file = io.TextIOWrapper(io.BufferedReader(noting))
                    configure(option)
                    step = make(file)
                    configure(not option)
                    step(*[5] * (make is utils.cooperative_read))
                    return noting.thread != threading.get_ident()

                image = tempfile.NamedTemporaryFile()
                image.write(bytes(1000))
                image.flush()
                hubs.get_hub()
                print(json.dumps([
                    [offloads(make, option) for option in (False, True)]
                    for make in (
                        lambda file: utils.chunkiter(file).__next__,
                        lambda file: utils.CooperativeReader(file).__next__,
                        utils.cooperative_read,
                    )
                ]))
                """
            ),
        )
