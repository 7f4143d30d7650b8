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

"""The trace."""

import io
import logging

import eventlet
import re
import sys

import fixtures

from glance_store.common import utils
from glance_store.tests.unit import base

SECRET = b'the contents of an image'


class Logging:
    def setUp(self):
        super().setUp()
        self.logger = self.capture_log(logging.DEBUG)

    def new_lines(self):
        lines = self.lines('DEBUG')
        known, self.known = getattr(self, 'known', 0), len(lines)
        return lines[known:]

    def assertTotals(self, line, chunks, number):
        self.assertEqual(
            [str(chunks), str(number)],
            list(re.search(r'\b(\d+) chunks, (\d+) bytes', line).groups()),
            line,
        )

    def assertAway(self, line):
        seconds = re.search(r'away for (\d+\.\d+) s', line).group(1)
        self.assertLess(float(seconds), base.HANGING)


class TestOnHub(Logging, base.HubTestCase):
    """A line for each yield and one at the end."""

    def streams(self, chunks):
        data = b''.join(chunks)
        size = len(chunks[0])
        it = utils.cooperative_iter(iter(chunks))
        yield 'list_iterator', it.__next__
        read = utils.cooperative_read(base.Reading(data))
        yield 'Reading', lambda: read(size)
        over_file = utils.CooperativeReader(base.Reading(data))
        yield 'Reading', lambda: over_file.read(size)
        over_iterable = utils.CooperativeReader(iter(chunks))
        yield 'list_iterator', over_iterable.read
        iterated = utils.CooperativeReader(iter(chunks))
        yield 'list_iterator', iterated.__next__

    def test_line_for_each_yield(self):
        chunks = [SECRET] * 5
        for name, step in self.streams(chunks):
            self.assertEqual([], self.new_lines())
            for number in range(1, 6):
                self.assertYields(1, step)
                (line,) = self.new_lines()
                self.assertIn(name, line)
                self.assertIn('yield', line)
                self.assertTotals(line, number, number * len(SECRET))
                self.assertAway(line)
            self.end(step)

    def end(self, step):
        try:
            self.assertEqual(b'', step())
        except StopIteration:
            pass
        return self.new_lines()

    def test_line_at_the_end(self):
        chunks = [SECRET] * 3
        for name, step in self.streams(chunks):
            for _ in chunks:
                step()
            self.new_lines()
            before = self.ticker.turns
            lines = self.end(step)
            # A file is read once more, and yields once more, at its end.
            yields = self.ticker.turns - before
            self.assertEqual(1 + yields, len(lines), lines)
            line = lines[-1]
            self.assertIn(name, line)
            self.assertIn('ended', line)
            self.assertTotals(line, 3, 3 * len(SECRET))
            self.assertIn(f'yields: {3 + yields}', line)
            self.assertAway(line)
            for line in self.end(step):
                self.assertNotIn('ended', line)

    def test_line_at_the_end_only_once(self):
        for make in (utils.cooperative_iter, utils.CooperativeReader):
            stream = make(iter([SECRET]))
            list(stream)
            stream.close()
            stream.close()
            ends = [line for line in self.new_lines() if 'ended' in line]
            self.assertEqual(1, len(ends))

    def test_line_at_the_end_by_close(self):
        for make, source in (
            (utils.cooperative_iter, base.Fetching),
            (utils.CooperativeReader, base.Fetching),
            (utils.CooperativeReader, base.Reading),
        ):
            stream = make(source(SECRET))
            stream.close()
            (line,) = self.new_lines()
            self.assertIn('ended', line)
            self.assertTotals(line, 0, 0)

    def test_line_at_the_end_after_an_interruption_there(self):
        for name, step in self.streams([SECRET]):
            step()
            caught = []
            base.Run(
                lambda step=step, caught=caught: list(
                    base.calls(step, caught)
                ),
                lambda number: base.never() if number == 1 else None,
            )
            ends = [line for line in self.new_lines() if 'ended' in line]
            self.assertEqual(1, len(ends), name)

    def test_line_of_an_interrupted_yield(self):
        for _, step in self.streams([SECRET] * 2):
            self.new_lines()
            base.Run(
                lambda step=step: self.assertRaises(base.Interrupted, step),
                lambda number: base.Interrupted(),
            )
            (line,) = self.new_lines()
            self.assertTotals(line, 1, len(SECRET))
            # What was kept is not counted twice.
            self.assertEqual(SECRET, step())
            step()
            for line in self.new_lines():
                self.assertTotals(line, 2, 2 * len(SECRET))

    def test_yields_within_one_read(self):
        reader = utils.CooperativeReader([b'abc', b'', b'defg'])
        reader.read(7)
        lines = self.new_lines()
        self.assertEqual(3, len(lines))
        self.assertTotals(lines[0], 1, 3)
        self.assertTotals(lines[2], 2, 7)

    def test_rest_of_an_interrupted_read(self):
        read = utils.cooperative_read(base.Reading(b'abcdefgh'))
        base.Run(
            lambda: self.assertRaises(base.Interrupted, read, 3),
            lambda number: base.Interrupted(),
        )
        self.assertEqual(b'abcdefgh', read(8))
        self.assertTotals(self.new_lines()[-1], 2, 8)

    def test_bytes_of_every_kind_of_chunk(self):
        for chunk in (
            b'abcd',
            bytearray(b'abcd'),
            memoryview(b'abcd'),
            memoryview(b'abcd').cast('H'),
            'abcd',
        ):
            iterator = utils.cooperative_iter([chunk])
            next(iterator)
            (line,) = self.new_lines()
            self.assertTotals(line, 1, 4)

    def test_chunks_of_which_the_bytes_are_not_known(self):
        iterator = utils.cooperative_iter([object(), 5])
        next(iterator)
        next(iterator)
        self.assertTotals(self.new_lines()[-1], 2, 0)

    def test_nothing_yet(self):
        read = utils.cooperative_read(base.Answering(None, b'ab'))
        self.assertIsNone(read(2))
        self.assertEqual(b'ab', read(2))
        lines = self.new_lines()
        self.assertEqual(2, len(lines), lines)
        self.assertTotals(lines[1], 1, 2)

    def test_nothing_yet_without_a_yield(self):
        self.configure(cooperative_yield_interval=1000)
        read = utils.cooperative_read(base.Answering(None, b'ab'))
        self.assertIsNone(read(2))
        self.assertEqual(b'ab', read(2))
        self.assertEqual([], self.new_lines())

    def test_no_line_without_a_yield(self):
        self.configure(cooperative_yield_interval=1000)
        for _, step in self.streams([SECRET] * 3):
            for _ in range(3):
                self.assertYields(0, step)
            self.assertEqual([], self.new_lines())
            (line,) = self.end(step)
            self.assertIn('ended', line)
            self.assertIn('yields: 0', line)
            self.assertTotals(line, 3, 3 * len(SECRET))

    def test_time_away(self):
        # Not how long, but that it is the time away: another green thread
        # has the only turn of a clock that is under control.
        clock = self.useFixture(base.Clock())

        def others():
            while True:
                clock.now += 2.5
                base.eventlet.sleep(0)

        other = base.eventlet.spawn(others)
        self.addCleanup(other.kill)
        iterator = utils.cooperative_iter([b'a', b'b'])
        list(iterator)
        lines = self.new_lines()
        self.assertEqual(3, len(lines))
        for line, away in zip(lines, ('2.5', '2.5', '5.0'), strict=True):
            self.assertIn(f'away for {away}', line)

    def test_broken_handler_breaks_no_stream(self):
        class Broken(logging.Handler):
            def emit(self, record):
                raise RuntimeError('no space left')

        logger = logging.getLogger('glance_store')
        handler = Broken()
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        for _, step in self.streams([SECRET] * 3):
            for _ in range(3):
                self.assertEqual(SECRET, step())
            self.end(step)

    def test_interrupted_handler_loses_no_error(self):
        # A generator has ended once it raised: were its error lost, the next
        # call would take a cut image for a whole one.
        class Green(logging.Handler):
            def emit(self, record):
                eventlet.sleep(0)

        def source():
            yield SECRET
            raise failure

        failure = ValueError('half of it')
        logger = logging.getLogger('glance_store')
        handler = Green(logging.ERROR)
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        for make in (
            lambda: utils.cooperative_iter(source()).__next__,
            lambda: utils.CooperativeReader(source()).read,
        ):
            step = make()
            step()
            caught = []
            raised = []

            def consume(step=step, caught=caught, raised=raised):
                try:
                    base.insist(step, caught)
                except ValueError as exc:
                    raised.append(exc)

            base.Run(
                consume,
                lambda number: base.never() if number == 1 else None,
            )
            self.assertEqual([failure], raised)
            self.assertEqual(1, len(caught))


class TestWithoutHub(Logging, base.TestCase):
    """One line at the first chunk that says so, and the line at the end."""

    def test_lines(self):
        data = SECRET * 3
        size = len(SECRET)
        for make in (
            lambda: utils.cooperative_iter(iter([SECRET] * 3)).__next__,
            lambda: utils.CooperativeReader(iter([SECRET] * 3)).__next__,
            lambda: utils.CooperativeReader(iter([b'', data])).read,
            lambda: utils.cooperative_read(base.Reading(data, size)),
            lambda: utils.CooperativeReader(base.Reading(data, size)).read,
        ):
            step = make()
            self.assertEqual([], self.new_lines())
            step()
            (line,) = self.new_lines()
            self.assertIn('no hub', line)
            self.assertIn('1 chunks', line)
            list(base.calls(step, []))
            (line,) = self.new_lines()
            self.assertIn('ended', line)
            self.assertIn('yields: 0', line)
            self.assertIn(f'{len(data)} bytes', line)

    def test_lines_where_nobody_imported_eventlet(self):
        self.useFixture(base.NotImported())
        self.test_lines()

    def test_said_once_whatever_the_size_of_a_chunk(self):
        it = utils.cooperative_iter([b'a', b'', b'b'])
        next(it)
        (line,) = self.new_lines()
        self.assertIn('no hub', line)
        self.assertEqual([b'', b'b'], list(it))
        (line,) = self.new_lines()
        self.assertIn('ended', line)

    def test_chunks_of_which_the_bytes_are_not_known(self):
        items = [object(), object()]
        self.assertEqual(items, list(utils.cooperative_iter(items)))
        first, last = self.new_lines()
        self.assertIn('1 chunks, 0 bytes: does not yield', first)
        self.assertIn('2 chunks, 0 bytes: ended', last)

    def test_hub_whose_interval_is_not_over(self):
        # A thread with a hub is none of those without.
        self.configure(cooperative_yield_interval=1000)
        with base.Hub():
            list(utils.cooperative_iter([b'a', b'b']))
        (line,) = self.new_lines()
        self.assertIn('ended', line)

    def test_empty_stream(self):
        for stream in (
            utils.cooperative_iter([]),
            utils.CooperativeReader([]),
            utils.CooperativeReader(io.BytesIO()),
        ):
            list(stream)
            (line,) = self.new_lines()
            self.assertIn('ended', line)

    def test_read_of_nothing_is_not_the_end(self):
        read = utils.cooperative_read(io.BytesIO(b'abc'))
        read(0)
        self.assertEqual([], self.new_lines())


class TestNames(Logging, base.HubTestCase):
    """A stream is named by its type, and by the name of a file."""

    def line(self, source):
        stream = utils.CooperativeReader(source)
        list(stream)
        return self.new_lines()[-1]

    def test_name_of_a_file(self):
        path = self.useFixture(fixtures.TempDir()).join('image')
        with open(path, 'wb') as out:
            out.write(SECRET)
        with open(path, 'rb') as fd:
            line = self.line(fd)
        self.assertIn('BufferedReader', line)
        self.assertIn(path, line)

    def test_name_in_bytes(self):
        source = base.Reading(SECRET)
        source.name = b'/images/\xff'
        self.assertIn('/images/', self.line(source))

    def test_name_that_is_none(self):
        for name in (5, None, object(), [SECRET], b'\0' * 3):
            source = base.Reading(SECRET)
            source.name = name
            line = self.line(source)
            self.assertIn('Reading', line)
            self.assertNotIn('object at', line)
            self.assertNotIn(SECRET.decode(), line)

    def test_name_that_fails(self):
        class Nameless(base.Reading):
            @property
            def name(self):
                raise ValueError('closed')

        self.assertIn('Nameless', self.line(Nameless(SECRET)))

    def test_name_cannot_begin_a_line(self):
        source = base.Reading(SECRET)
        for end in ('\n', '\r', '\x85', '\N{LINE SEPARATOR}', '\x1b[2J'):
            source.name = f'/images/x{end}ERROR all is lost'
            source.position = 0
            self.line(source)
            self.assertNotIn(end + 'ERROR', self.logger.output)

    def test_name_with_format_characters(self):
        source = base.Reading(SECRET)
        source.name = '/images/%s%d%(x)s{}'
        self.assertIn('/images/%s%d%(x)s{}', self.line(source))

    def test_never_by_repr(self):
        class Source(base.Reading):
            def __repr__(self):
                raise AssertionError('asked for its repr')

            __str__ = __repr__

        for make in (utils.CooperativeReader, utils.cooperative_read):
            read = make(Source(SECRET))
            read = getattr(read, 'read', read)
            list(base.calls(read, []))
        failing = base.Fetching(b'a', OSError())
        type(failing).__repr__ = None
        self.addCleanup(delattr, type(failing), '__repr__')
        self.assertRaises(OSError, list, utils.cooperative_iter(failing))

    def test_never_image_data(self):
        text = SECRET.decode()
        for source in (
            [SECRET] * 3,
            (SECRET,),
            {SECRET: 1},
            [bytearray(SECRET)],
            io.BytesIO(SECRET),
            base.Reading(SECRET, 5),
        ):
            self.line(source)
            if hasattr(source, '__iter__'):
                list(utils.cooperative_iter(source))
        list(utils.cooperative_iter([text]))
        list(utils.cooperative_iter(text))
        list(utils.CooperativeReader(io.StringIO(text)))
        self.assertRaises(
            TypeError, list, utils.CooperativeReader([SECRET, text])
        )
        self.assertNotEqual('', self.logger.output)
        for part in (text, text[:10], text[-10:], '5, 116, 104'):
            self.assertNotIn(part, self.logger.output)

    def test_no_image_data_of_an_error(self):
        # A codec's error holds what it was to decode, and its repr shows it.
        for failure in (
            UnicodeDecodeError('utf-8', SECRET, 0, 1, 'no text'),
            ValueError(SECRET),
            KeyError(bytearray(SECRET)),
        ):
            for make in (utils.cooperative_iter, utils.CooperativeReader):
                self.assertRaises(
                    type(failure), list, make(base.Fetching(failure))
                )
        self.assertEqual(6, len(self.lines('ERROR')))
        self.assertNotIn(SECRET.decode(), self.logger.output)


class TestOff(base.HubTestCase):
    def streams(self):
        it = utils.cooperative_iter([b'abc'] * 9)
        read = utils.cooperative_read(io.BytesIO(b'abc' * 9))
        over_iterable = utils.CooperativeReader([b'abc'] * 9)
        return it.__next__, lambda: read(3), over_iterable.read

    def test_logs_nothing(self):
        for step in self.streams():
            list(base.calls(step, []))
        self.assertEqual('', self.logger.output)

    def entered(self, step):
        """Return the functions of logging that *step* enters."""
        entered = []

        def profile(frame, event, arg):
            module = frame.f_globals.get('__name__', '')
            if event == 'call' and 'log' in module:
                entered.append(frame.f_code.co_name)

        sys.setprofile(profile)
        try:
            step()
        finally:
            sys.setprofile(None)
        return entered

    def test_asks_the_log_nothing_after_a_stream_is_made(self):
        # Less than one part in a hundred of a read is for the benchmarks;
        # what can be told here is that there is nothing to be paid.
        for step in self.streams():
            for _ in range(3):
                self.assertEqual([], self.entered(step))

    def test_through_oslo_log(self):
        # With its debug option, in a process that logs as a service does.
        logged = base.run_python(
            """
            import json
            import sys

            from oslo_config import cfg
            from oslo_log import log

            from glance_store.common import utils

            log.register_options(cfg.CONF)
            cfg.CONF(['--debug'])
            log.setup(cfg.CONF, 'glance')
            stderr, sys.stderr = sys.stderr, sys.stdout
            log.setup(cfg.CONF, 'glance')
            list(utils.cooperative_iter([b'abc', b'de']))
            print()
            print(json.dumps('done'))
            """,
            lines=True,
        )
        traced = [line for line in logged if 'glance_store' in line]
        self.assertEqual(2, len(traced), logged)
        for line in traced:
            self.assertIn(' DEBUG ', line)
