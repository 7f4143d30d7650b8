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

import io

import fixtures

from glance_store.common import utils
from glance_store.tests.unit import base


class OptionsTestCase(base.TestCase):
    def test_out_of_range(self) -> None:
        for name, values in (
            ('default_chunk_size', ('0', '-1', '1.5', '64k', 'many')),
            ('cooperative_yield_interval', ('-1', '-1e-9', '1ms', 'nan')),
            ('offload_file_reads', ('2', 'maybe')),
        ):
            for value in values:
                self.assertRaises(ValueError, self.configure, **{name: value})

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

    def test_empty_in_the_file(self) -> None:
        self.configure(default_chunk_size=None)
        chunk = next(utils.chunkiter(io.BytesIO(bytes(70000))))
        self.assertEqual(65536, len(chunk))

    def test_read_when_a_stream_is_made(self) -> None:
        self.configure(default_chunk_size=10)
        file = io.BytesIO(bytes(100))
        chunks = utils.chunkiter(file), utils.chunkreadable(file)
        for stream in *chunks, utils.CooperativeReader(file):
            for size in 20, 30:
                self.configure(default_chunk_size=size)
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
            [False, True],
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

                def offloads(option):
                    noting = Noting(image.name)
                    # A text file is offloaded whatever the page cache holds.
                    file = io.TextIOWrapper(io.BufferedReader(noting))
                    configure(option)
                    read = utils.cooperative_read(file)
                    configure(not option)
                    read(5)
                    return noting.thread != threading.get_ident()

                image = tempfile.NamedTemporaryFile()
                image.write(bytes(1000))
                image.flush()
                hubs.get_hub()
                print(json.dumps([offloads(False), offloads(True)]))
                """
            ),
        )
