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


"""The trace: what the log says of a stream at DEBUG."""

from collections.abc import Callable
from collections.abc import Iterator
import io
import logging
import re
import tempfile
from typing import Any

import eventlet

from glance_store.common import utils
from glance_store.tests.unit import base
from glance_store.tests.unit import test_names

DATA = b'the data of an image'

LINE = re.compile(r'DEBUG (.*): (\d+) chunks, (\d+) bytes: (\w+)')


class Handler(logging.Handler):
    """A handler that calls a function for each line."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__()
        self.call = call

    def emit(self, record: logging.LogRecord) -> None:
        self.call()


class Traced(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.logger = self.capture_log(logging.DEBUG)
        self.seen = 0

    def new_lines(self) -> list[str]:
        lines = self.logger.output.splitlines()
        seen, self.seen = self.seen, len(lines)
        return lines[seen:]

    def new_events(self) -> list[Any]:
        """Return chunks, bytes and event of each line since the last call."""
        return [
            (int(match[2]), int(match[3]), match[4])
            for line in self.new_lines()
            if (match := LINE.match(line))
        ]

    def handle(self, call: Callable[[], object]) -> None:
        logger = logging.getLogger('glance_store')
        handler = Handler(call)
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)

    def streams(self) -> Iterator[Callable[[], Any]]:
        """Return steps of each kind of stream over three chunks."""
        self.configure(default_chunk_size=len(DATA))
        yield utils.cooperative_iter([DATA] * 3).__next__
        yield utils.CooperativeReader([DATA] * 3).read
        yield utils.CooperativeReader([DATA] * 3).__next__
        yield utils.CooperativeReader(io.BytesIO(DATA * 3)).__next__
        wrapper = test_names.Answering(*[DATA] * 3)
        yield utils.CooperativeReader(wrapper).read
        wrapper = test_names.Answering(*[DATA] * 3)
        yield utils.cooperative_read(wrapper)


def end(step: Callable[[], Any]) -> None:
    try:
        if step():
            raise AssertionError('there is more')
    except StopIteration:
        pass


class HubTestCase(base.HubTestCase, Traced):
    def test_a_line_for_each_yield_and_one_at_the_end(self) -> None:
        size = len(DATA)
        for step in self.streams():
            for number in range(3):
                self.assertYields(1, step)
                wanted: list[Any] = [(number, number * size, 'yielded')]
                self.assertEqual(wanted, self.new_events())
            end(step)
            wanted = [(3, 3 * size, 'yielded'), (3, 3 * size, 'ended')]
            self.assertEqual(wanted, self.new_events())
            end(step)
            self.assertEqual(wanted[:1], self.new_events())

    def test_no_line_without_a_yield(self) -> None:
        self.configure(cooperative_yield_interval=1000)
        next(utils.cooperative_iter([b'']))
        self.new_lines()
        for step in self.streams():
            for _ in '123':
                step()
            end(step)
            (line,) = self.new_lines()
            self.assertIn('ended: 0 yields', line)

    def test_no_yield_of_the_hub_itself(self) -> None:
        stream = utils.cooperative_iter([DATA])
        self.hub.schedule_call_global(0, next, stream)
        eventlet.sleep(0)
        stream.close()
        self.assertEqual([(1, len(DATA), 'ended')], self.new_events())

    def test_interrupted_yield(self) -> None:
        for step in self.streams():
            green_thread = eventlet.spawn(step)
            eventlet.sleep(0)
            green_thread.kill()
            self.assertEqual([(0, 0, 'yielded')], self.new_events())
            # The call after it fetches at once.
            self.assertEqual(DATA, step())
            self.assertEqual([], self.new_events())

    def test_bytes_are_those_returned(self) -> None:
        reader = utils.CooperativeReader([b'abc', b'', b'def'])
        reader.read(5)
        self.assertEqual([(0, 0, 'yielded')] * 3, self.new_events())
        self.assertEqual(b'f', reader.read(-1))
        reader.read()
        self.assertEqual(
            [(1, 5, 'yielded'), (2, 6, 'yielded'), (2, 6, 'ended')],
            self.new_events(),
        )

    def test_time_away(self) -> None:
        def work() -> None:
            clock.now += 0.25

        clock = self.useFixture(base.Clock())
        stream = utils.cooperative_iter([b'a'])
        for _ in '12':
            eventlet.spawn(work)
            next(stream, None)
        away = [line.partition('bytes: ')[2] for line in self.new_lines()]
        wanted = ['yielded, away for 0.250000 s'] * 2
        wanted += ['ended: 2 yields, away for 0.500000 s']
        self.assertEqual(wanted, away)

    def test_handler_that_switches(self) -> None:
        self.handle(lambda: eventlet.sleep(0))
        for step in self.streams():
            green_thread = eventlet.spawn(step)
            # In its yield, then in the handler: nothing was taken in either.
            eventlet.sleep(0)
            eventlet.sleep(0)
            self.assertEqual([(0, 0, 'yielded')], self.new_events())
            green_thread.kill()
            self.assertEqual([DATA] * 3, [step() for _ in '123'])
            end(step)
            self.new_lines()


class TraceTestCase(Traced):
    """On a thread without a hub."""

    def test_one_line_at_the_first_call_and_one_at_the_end(self) -> None:
        size = len(DATA)
        for step in self.streams():
            for _ in '123':
                step()
            (line,) = self.new_lines()
            self.assertIn('0 bytes: runs on a thread without a hub', line)
            for wanted in [(3, 3 * size, 'ended')], []:
                end(step)
                self.assertEqual(wanted, self.new_events())

    def test_handler_that_raises(self) -> None:
        self.handle(lambda: 1 // 0)
        for step in self.streams():
            self.assertEqual([DATA] * 3, [step() for _ in '123'])
            end(step)
            self.assertEqual(2, len(self.new_lines()))

    def test_close_is_an_end(self) -> None:
        for make in utils.cooperative_iter, utils.CooperativeReader:
            for source in [b'ab', b'c'], io.BytesIO(b'abc'):
                stream = make(source)
                next(stream)
                stream.close()
                stream.close()
                self.assertEqual(1, len(self.new_events()[1:]))

    def test_what_is_no_end(self) -> None:
        fd = test_names.Answering(b'', b'', None, b'ab')
        read = utils.cooperative_read(fd)
        self.assertFalse(read(0) or read(size=0) or read(5))
        self.assertEqual({'size': 0}, fd.calls[1][1])
        self.assertEqual([(0, 0, 'runs')], self.new_events())
        read(5, decode_content=False)
        read(5, decode_content=False)
        self.assertEqual((1, 2, 'ended'), self.new_events()[-1])
        # An item, whatever it is, is no end.
        for item in b'', None, 0:
            next(utils.cooperative_iter([item]))
            self.assertEqual([(0, 0, 'runs')], self.new_events())

    def test_bytes_of_each_kind_of_item(self) -> None:
        for item, size in (
            *((b'abcd', 4), ('abcd', 4), (bytearray(4), 4)),
            *((memoryview(b'abcd').cast('H'), 4), (object(), 0), ([1], 0)),
        ):
            list(utils.cooperative_iter([item]))
            self.assertEqual((1, size, 'ended'), self.new_events()[-1])

    def test_answers_that_cannot_be_counted(self) -> None:
        class Odd(list[int]):
            __len__ = None  # type: ignore

        view = memoryview(b'ab')
        view.release()
        for odd in Odd(), view:
            fd = test_names.Answering(odd, b'ab')
            read = utils.cooperative_read(fd)
            self.assertIs(odd, read(2))
            self.assertIs(odd, next(utils.cooperative_iter([odd])))
            self.assertEqual(b'ab', read(2))

    def test_settled_when_the_stream_is_made(self) -> None:
        logger = logging.getLogger('glance_store')
        logger.setLevel(logging.INFO)
        steps = list(self.streams())
        logger.setLevel(logging.DEBUG)
        for step in steps:
            step()
        self.assertEqual('', self.logger.output)


class NameTestCase(Traced):
    """A stream is named by its type, and by the name of a file."""

    def named(self, source: Any) -> str:
        utils.CooperativeReader(source).close()
        (line,) = self.new_lines()
        self.assertTrue(line.isprintable(), ascii(line))
        match = LINE.match(line)
        return match[1] if match else line

    def test_type(self) -> None:
        for source in [DATA], io.BytesIO(DATA), {DATA: DATA}, DATA.decode():
            self.assertEqual(type(source).__name__, self.named(source))

    def test_file(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            shown = f'_TemporaryFileWrapper {file.name!r}'
            self.assertEqual(shown, self.named(file))

    def test_name(self) -> None:
        for name, shown in (
            ('/images/%s%d%(x)s{}', '/images/%s%d%(x)s{}'),
            ('/a@b#c?d', '/a@b#c?d'),
            ('/a\nERROR lost\x1b[2J\x85', '/a\nERROR lost\x1b[2J\x85'),
            (b'/a\xff', '/a\udcff'),
            ('x' * 10**6, 'x' * 200),
            ('https://host:443/p', 'https://host:443/p'),
            ('https://user:secret@host/p', 'https://host/p'),
            ('https://token@host/p', 'https://host/p'),
            ('https://user:a@b@host/p', 'https://host/p'),
            ('https://host/p?sig=1&next=http://x', 'https://host/p'),
            ('https://host#access_token=1', 'https://host'),
            (b'rbd://pool:secret@mon/image?x', 'rbd://mon/image'),
            ('https://user:/secret@host/p', 'https://host/p'),
            (f'https://user:{"secret" * 100}@host/p', 'https://host/p'),
            # The end of a password cannot be told from that of a host.
            ('https://user:#secret@host/p', 'https://'),
            ('https://user:?secret@host/p', 'https://'),
            (f'https://user:a?{"secret" * 100}@host/p', 'https://'),
        ):
            source = test_names.Attribute(name=name, read=len)
            self.assertEqual(f'Attribute {shown!r}', self.named(source))

    def test_what_is_no_name(self) -> None:
        for name in 5, None, object(), [DATA], '':
            source = test_names.Attribute(name=name, read=len)
            wanted = "Attribute ''" if name == '' else 'Attribute'
            self.assertEqual(wanted, self.named(source))

    def test_neither_repr_nor_data(self) -> None:
        class Source(list[bytes]):
            def __repr__(self) -> str:
                raise AssertionError('asked for its repr')

            @property
            def name(self) -> str:
                raise ValueError('closed')

        for make in utils.cooperative_iter, utils.CooperativeReader:
            list(make(Source([DATA])))
            list(make({DATA: DATA}))
        utils.cooperative_read(io.BytesIO(DATA))()
        text: Any = [DATA, DATA.decode()]
        self.assertRaises(TypeError, list, utils.CooperativeReader(text))
        for shown, times in ('Source: 1 chunks', 2), ('BytesIO: 0 chunks', 1):
            self.assertEqual(times, self.logger.output.count(shown))
        self.assertNotIn(DATA.decode()[:8], self.logger.output)
