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

"""Nothing is lost: interruptions at every single yield of a stream.

Each kind of stream is run once to count its yields. Then it is run anew for
each of them, and something is thrown into that one yield; its caller catches
it and goes on. Last, something is thrown into every yield of one run. After
each run, every byte has come out once, in order.
"""

import functools
import io
import logging
import os
import threading
import unittest

import eventlet
from eventlet import event
from eventlet import timeout as eventlet_timeout
from eventlet import tpool
import fixtures
import greenlet

from glance_store.common import utils
from glance_store.tests.unit import base

DATA = bytes(range(200))

POINTS = 'interruption: points thrown at'


def pieces(data=DATA, size=7):
    """Cut data unevenly, with empty chunks and every type among them."""
    kinds = (bytes, bytearray, memoryview)
    at, number = 0, 0
    while at < len(data):
        length = size + number % 3 if number % 4 else 0
        yield kinds[number % 3](data[at : at + length])
        at += length
        number += 1


class Waiting(fixtures.Fixture):
    """A log handler that lets other green threads run at each line."""

    def _setUp(self):
        logger = logging.getLogger('glance_store')
        level = logger.level
        logger.setLevel(logging.DEBUG)
        self.addCleanup(logger.setLevel, level)
        # It has no lock: the hub's green threads are all that uses it.
        handler = logging.NullHandler()
        handler.handle = lambda record: eventlet.sleep(0)
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)


class Switching:
    """The source of a stream switches as well, before it gives anything."""

    def test_every_yield_of_one_run(self):
        # To go on for ever would be to get nowhere.
        run = self.run_with(
            lambda number: base.never() if number <= 20 else None
        )
        self.assertEqual(20, len(run.thrown))


class SwitchingFile(base.Reading):
    """A file-like that waits before each answer, as a green socket does."""

    def read(self, size=None):
        eventlet.sleep(0)
        return super().read(size)

    def close(self):
        eventlet.sleep(0)
        super().close()


class SwitchingItems(base.Fetching):
    """An iterator that waits before each item."""

    def __next__(self):
        eventlet.sleep(0)
        return super().__next__()

    def close(self):
        eventlet.sleep(0)
        super().close()


def switching_items():
    return SwitchingItems(*filter(len, pieces()))


def undaunted():
    """A generator that goes on whatever is thrown while it waits."""
    for chunk in filter(len, pieces()):
        caught = None
        try:
            eventlet.sleep(0)
        except BaseException as exc:
            caught = exc
        if caught is not None:
            # As an item, which no chunk is: for the caller to raise it.
            yield caught
        yield chunk


class Interruptions:
    """The tests of one kind of stream."""

    def stream(self):
        """Return a function that gives the stream's next piece."""
        raise NotImplementedError

    def expected(self):
        return DATA

    def run_with(self, interrupt):
        self.forget_log()
        step = self.stream()
        caught = []
        run = base.Run(
            lambda: list(base.calls(lambda: step(), caught)), interrupt
        )
        # Each that was thrown was also raised to the caller, as it was.
        self.assertEqual(set(map(id, run.thrown)), set(map(id, caught)))
        self.assertEqual(len(run.thrown), len(caught))
        empty = self.expected()[:0]
        self.assertEqual(self.expected(), empty.join(run.answer))
        return run

    def at_each(self, make):
        yields = self.run_with(lambda number: None).yields
        self.assertGreater(yields, 1)
        for at in range(1, yields + 1):
            with self.tally.case(POINTS):
                run = self.run_with(
                    lambda number, at=at: make() if number == at else None
                )
                self.assertEqual(1, len(run.thrown), at)

    def test_timeout(self):
        self.at_each(base.never)

    def test_kill(self):
        self.at_each(greenlet.GreenletExit)

    def test_exception(self):
        self.at_each(base.Interrupted)

    def test_keyboard_interrupt(self):
        self.at_each(KeyboardInterrupt)

    def test_every_yield_of_one_run(self):
        run = self.run_with(lambda number: base.never())
        self.assertEqual(run.yields, len(run.thrown))
        self.assertGreater(run.yields, 1)

    def test_every_other_yield_of_one_run(self):
        makes = list(base.INTERRUPTIONS.values())
        for first in range(2):
            run = self.run_with(
                lambda number, first=first: (
                    makes[number % 4]() if number % 2 == first else None
                )
            )
            self.assertLess(0, len(run.thrown))

    def test_interval(self):
        self.configure(cooperative_yield_interval=1e-9)
        for make in base.INTERRUPTIONS.values():
            self.at_each(make)

    def test_traced(self):
        self.logger = self.capture_log(logging.DEBUG)
        for make in base.INTERRUPTIONS.values():
            self.at_each(make)
        self.assertNotEqual([], self.lines('DEBUG'))

    def test_traced_into_a_log_that_switches(self):
        # A handler may wait for its socket: that is a point, too. What is an
        # Exception would be taken for a failure of the log, and ends there.
        self.useFixture(Waiting())
        for interval in (0, 1e-9):
            self.configure(cooperative_yield_interval=interval)
            self.at_each(base.never)
            self.at_each(greenlet.GreenletExit)
            self.at_each(KeyboardInterrupt)


class TestCooperativeIter(Interruptions, base.HubTestCase):
    def stream(self):
        chunks = utils.cooperative_iter(c for c in pieces() if c)
        return lambda: next(chunks)


class TestCooperativeRead(Interruptions, base.HubTestCase):
    def stream(self):
        read = utils.cooperative_read(io.BytesIO(DATA))
        return lambda: read(9)


class TestCooperativeReadShort(Interruptions, base.HubTestCase):
    def stream(self):
        read = utils.cooperative_read(base.Reading(DATA, 7))
        return lambda: read(9)


class TestCooperativeReadAll(Interruptions, base.HubTestCase):
    def stream(self):
        return utils.cooperative_read(base.Reading(DATA))


class TestCooperativeReadText(Interruptions, base.HubTestCase):
    TEXT = 'aé\N{ROCKET}\r\n' * 20

    def expected(self):
        return self.TEXT

    def stream(self):
        read = utils.cooperative_read(io.StringIO(self.TEXT, newline=''))
        return lambda: read(9)


class ChangingSizes:
    """Asks for another size at each call, whatever became of the last."""

    SIZES = (10, 3, 100, 1, 17, 10, 10, 2)

    def changing(self, read):
        number = -1

        def step():
            nonlocal number
            number += 1
            size = self.SIZES[number % len(self.SIZES)]
            answer = read(size)
            self.assertLessEqual(len(answer), size)
            return answer

        return step


class TestCooperativeReadChanging(
    ChangingSizes, Interruptions, base.HubTestCase
):
    def stream(self):
        return self.changing(utils.cooperative_read(io.BytesIO(DATA)))


class TestCooperativeReadTextChanging(
    ChangingSizes, Interruptions, base.HubTestCase
):
    TEXT = 'aé\N{ROCKET}\r\n' * 40

    def expected(self):
        return self.TEXT

    def stream(self):
        fd = io.StringIO(self.TEXT, newline='')
        return self.changing(utils.cooperative_read(fd))


class TestFileReaderRead(Interruptions, base.HubTestCase):
    def stream(self):
        reader = utils.CooperativeReader(io.BytesIO(DATA))
        return lambda: reader.read(9)


class TestFileReaderReadChanging(
    ChangingSizes, Interruptions, base.HubTestCase
):
    def stream(self):
        return self.changing(utils.CooperativeReader(io.BytesIO(DATA)).read)


class TestFileReaderReadAll(Interruptions, base.HubTestCase):
    def stream(self):
        return utils.CooperativeReader(base.Reading(DATA)).read


class TestFileReaderIteration(Interruptions, base.HubTestCase):
    def stream(self):
        self.configure(default_chunk_size=9)
        reader = utils.CooperativeReader(io.BytesIO(DATA))
        return lambda: next(reader)


class TestFileReaderBoth(Interruptions, base.HubTestCase):
    def stream(self):
        self.configure(default_chunk_size=9)
        reader = utils.CooperativeReader(io.BytesIO(DATA))
        steps = [lambda: next(reader), lambda: reader.read(5)] * 100
        return lambda: steps.pop()()


class TestIterableReaderRead(Interruptions, base.HubTestCase):
    def stream(self):
        return utils.CooperativeReader(pieces()).read


class TestIterableReaderReadExact(Interruptions, base.HubTestCase):
    def stream(self):
        reader = utils.CooperativeReader(pieces())

        def step():
            answer = reader.read(25)
            self.assertIn(len(answer), (25, len(DATA) % 25))
            return answer

        return step


class TestIterableReaderReadChanging(
    ChangingSizes, Interruptions, base.HubTestCase
):
    def stream(self):
        return self.changing(utils.CooperativeReader(pieces()).read)


class TestIterableReaderReadAll(Interruptions, base.HubTestCase):
    def stream(self):
        reader = utils.CooperativeReader(pieces())
        return lambda: reader.read(-1)


class TestIterableReaderIteration(Interruptions, base.HubTestCase):
    def stream(self):
        reader = utils.CooperativeReader(pieces())
        return lambda: next(reader)


class TestIterableReaderBoth(Interruptions, base.HubTestCase):
    def stream(self):
        reader = utils.CooperativeReader(pieces())
        steps = [
            lambda: next(reader),
            lambda: reader.read(5),
            reader.read,
            lambda: reader.read(30),
        ] * 50
        return lambda: steps.pop()()


class TestIterableReaderOneBuffer(Interruptions, base.HubTestCase):
    def stream(self):
        def source():
            buffer = bytearray()
            for chunk in pieces():
                buffer[:] = chunk
                yield buffer

        steps = [None, 25, 3] * 50
        reader = utils.CooperativeReader(source())
        return lambda: reader.read(steps.pop())


class TestChunksOfFileReader(Interruptions, base.HubTestCase):
    def stream(self):
        fd = utils.CooperativeReader(base.Reading(DATA, 7))
        chunks = utils.chunkiter(fd, 25)

        def step():
            chunk = next(chunks)
            self.assertIn(len(chunk), (25, len(DATA) % 25))
            return chunk

        return step


class TestChunksOfIterableReader(Interruptions, base.HubTestCase):
    def stream(self):
        chunks = utils.chunkreadable(utils.CooperativeReader(pieces()), 33)

        def step():
            chunk = next(chunks)
            self.assertIn(len(chunk), (33, len(DATA) % 33))
            return chunk

        return step


class TestChunksOfCooperativeRead(Interruptions, base.HubTestCase):
    def stream(self):
        class Source:
            read = staticmethod(utils.cooperative_read(base.Reading(DATA, 7)))

        chunks = utils.chunkreadable(Source(), 25)
        return lambda: next(chunks)


class TestReaderOfCooperativeIter(Interruptions, base.HubTestCase):
    """Two streams, one in the other: each of them yields."""

    def stream(self):
        reader = utils.CooperativeReader(utils.cooperative_iter(pieces()))
        return lambda: reader.read(25)


class TestCooperativeIterOfReader(Interruptions, base.HubTestCase):
    def stream(self):
        self.configure(default_chunk_size=9)
        chunks = utils.cooperative_iter(
            utils.CooperativeReader(io.BytesIO(DATA))
        )
        return lambda: next(chunks)


class TestReaderOfReader(Interruptions, base.HubTestCase):
    def stream(self):
        reader = utils.CooperativeReader(utils.CooperativeReader(pieces()))
        return lambda: reader.read(25)


class TestSwitchingFileRead(Switching, Interruptions, base.HubTestCase):
    def stream(self):
        read = utils.cooperative_read(SwitchingFile(DATA, 7))
        return lambda: read(9)


class TestSwitchingFileReaderChanging(
    ChangingSizes, Switching, Interruptions, base.HubTestCase
):
    def stream(self):
        return self.changing(utils.CooperativeReader(SwitchingFile(DATA)).read)


class TestSwitchingFileIteration(Switching, Interruptions, base.HubTestCase):
    def stream(self):
        self.configure(default_chunk_size=9)
        return utils.CooperativeReader(SwitchingFile(DATA)).__next__


class TestSwitchingFileReadAll(Switching, Interruptions, base.HubTestCase):
    def stream(self):
        reader = utils.CooperativeReader(SwitchingFile(DATA))
        return lambda: reader.read(-1)


class TestSwitchingFileChunks(Switching, Interruptions, base.HubTestCase):
    def test_traced(self):
        # It has no trace: it does not yield by itself.
        self.logger = self.capture_log(logging.DEBUG)
        self.at_each(base.never)
        self.assertEqual([], self.lines('DEBUG'))

    def stream(self):
        return utils.chunkiter(SwitchingFile(DATA, 7), 25).__next__


class TestSwitchingFileChunkreadable(TestSwitchingFileChunks):
    def stream(self):
        self.configure(default_chunk_size=25)
        return utils.chunkreadable(SwitchingFile(DATA, 7)).__next__


class TestSwitchingItems(Switching, Interruptions, base.HubTestCase):
    def stream(self):
        return utils.cooperative_iter(switching_items()).__next__


class TestSwitchingItemsRead(Switching, Interruptions, base.HubTestCase):
    def stream(self):
        return utils.CooperativeReader(switching_items()).read


class TestSwitchingItemsReadExact(Switching, Interruptions, base.HubTestCase):
    def stream(self):
        reader = utils.CooperativeReader(switching_items())
        return lambda: reader.read(25)


class TestSwitchingItemsReadAll(Switching, Interruptions, base.HubTestCase):
    def stream(self):
        reader = utils.CooperativeReader(switching_items())
        return lambda: reader.read(-1)


class TestSwitchingItemsIteration(Switching, Interruptions, base.HubTestCase):
    def stream(self):
        return utils.CooperativeReader(switching_items()).__next__


class TestUndauntedGenerator(Switching, Interruptions, base.HubTestCase):
    def stream(self):
        chunks = utils.cooperative_iter(undaunted())

        def step():
            chunk = next(chunks)
            if isinstance(chunk, BaseException):
                raise chunk
            return chunk

        return step


class TestGenerators(base.HubTestCase):
    """Generators that use a stream, and what is done to them."""

    def begun(self, stream, number):
        """Return a generator over a stream that gave so many chunks."""
        generator = (chunk for chunk in stream)
        return generator, [next(generator) for _ in range(number)]

    def streams(self):
        self.configure(default_chunk_size=9)
        yield lambda: utils.cooperative_iter(filter(len, pieces()))
        yield lambda: utils.CooperativeReader(pieces())
        yield lambda: utils.CooperativeReader(base.Reading(DATA))
        yield lambda: utils.chunkiter(base.Reading(DATA))
        yield lambda: utils.chunkreadable(utils.CooperativeReader(pieces()))

    def leave_at_each_chunk(self, leave):
        for make in self.streams():
            for number in range(len(list(make())) + 1):
                with self.tally.case(POINTS):
                    stream = make()
                    generator, got = self.begun(stream, number)
                    leave(generator)
                    got += stream
                    self.assertEqual(DATA, b''.join(got))

    def test_closed(self):
        self.leave_at_each_chunk(lambda generator: generator.close())

    def test_thrown_into(self):
        for make in base.INTERRUPTIONS.values():
            exc = make()

            def leave(generator, exc=exc):
                self.assertIs(
                    exc, self.assertRaises(type(exc), generator.throw, exc)
                )

            self.leave_at_each_chunk(leave)


class TestClose(base.HubTestCase):
    """A close that is interrupted closes nothing twice, and all in the end."""

    def close_at_each(self, make_stream, make):
        source, stream = make_stream()
        yields = base.Run(stream.close, lambda number: None).yields
        self.assertLess(0, yields)
        for at in range(1, yields + 1):
            with self.tally.case(POINTS):
                source, stream = make_stream()
                caught = []
                run = base.Run(
                    functools.partial(base.insist, stream.close, caught),
                    lambda number, at=at: make() if number == at else None,
                )
                self.assertEqual(run.thrown, caught)
                self.assertNotEqual(0, source.closed)

    def over_file(self):
        source = SwitchingFile(DATA)
        return source, utils.CooperativeReader(source)

    def over(self, stream):
        def make():
            source = SwitchingItems(*pieces())
            return source, stream(source)

        return make

    def test_at_each_point(self):
        for traced in (False, True):
            if traced:
                self.useFixture(Waiting())
            for make in (base.never, greenlet.GreenletExit, KeyboardInterrupt):
                self.close_at_each(self.over_file, make)
                self.close_at_each(self.over(utils.cooperative_iter), make)
                self.close_at_each(self.over(utils.CooperativeReader), make)


class TestRealTimeouts(base.HubTestCase):
    """Timeouts that pass by themselves: at once, so at the first yield."""

    def consume(self, step):
        got, passed = [], 0
        while True:
            try:
                with eventlet.Timeout(0):
                    piece = step()
            except eventlet_timeout.Timeout:
                passed += 1
                continue
            except StopIteration:
                break
            if not piece:
                break
            got.append(piece)
        self.assertLess(1, passed)
        self.assertEqual(DATA, b''.join(got))

    def test_cooperative_iter(self):
        chunks = utils.cooperative_iter(pieces())
        self.consume(lambda: next(chunks) or next(chunks))

    def test_cooperative_read(self):
        read = utils.cooperative_read(io.BytesIO(DATA))
        self.consume(lambda: read(9))

    def test_reader_of_a_file(self):
        reader = utils.CooperativeReader(io.BytesIO(DATA))
        self.consume(lambda: reader.read(9))

    def test_reader_of_an_iterable(self):
        reader = utils.CooperativeReader(pieces())
        self.consume(reader.read)
        reader = utils.CooperativeReader(pieces())
        self.consume(lambda: reader.read(60))
        reader = utils.CooperativeReader(pieces())
        self.consume(lambda: next(reader))

    def test_chunks_of_a_reader(self):
        chunks = utils.chunkreadable(utils.CooperativeReader(pieces()), 60)
        self.consume(lambda: next(chunks))


class Pool(fixtures.Fixture):
    """eventlet's pool, of one thread, which is kept busy between two reads.

    So it is known when a read is made, and its answer there for the hub.
    """

    def _setUp(self):
        tpool.setup()
        self.addCleanup(tpool.killall)
        self._hold()
        # Not that of the first time.
        self.addCleanup(lambda: self._go_on.release())

    def _hold(self):
        held = threading.Semaphore(0)
        self._go_on = threading.Semaphore(0)

        def wait(go_on=self._go_on):
            held.release()
            go_on.acquire()

        # As tpool.execute does it, but nobody waits for the answer.
        tpool._reqq.put((event.Event(), wait, (), {}))
        if not held.acquire(timeout=base.HANGING):
            raise AssertionError('a read hangs')

    def let_through(self):
        """Have all reads made for which anybody has asked the pool."""
        self._go_on.release()
        self._hold()


class Noting(io.FileIO):
    """A regular file that notes which native threads have read it."""

    def __init__(self, path):
        super().__init__(path)
        self.threads = set()

    def _note(self):
        self.threads.add(threading.get_ident())

    def read(self, *args):
        self._note()
        return super().read(*args)

    def readall(self):
        self._note()
        return super().readall()

    def readinto(self, buffer):
        self._note()
        return super().readinto(buffer)


class Offloading:
    """What runs in a process of its own: a pool answers one hub of it only.

    A read that is asked for is made two turns later, so that there are points
    before it is made, when its answer has come to the hub, and after that.
    """

    DATA = bytes(range(200 if base.STRESS else 40))

    def setUp(self):
        super().setUp()
        self.configure(offload_file_reads=True)
        self.pool = self.useFixture(Pool())
        folder = self.useFixture(fixtures.TempDir()).path
        self.path = os.path.join(folder, 'image')
        with open(self.path, 'wb') as file:
            file.write(self.DATA)
        self.raw = self.opened()
        self.addCleanup(self.see_who_read)

    def opened(self):
        file = Noting(self.path)
        self.addCleanup(file.close)
        return file

    def see_who_read(self):
        self.assertEqual(1, len(self.raw.threads))
        self.assertNotIn(threading.get_ident(), self.raw.threads)

    def letting(self, interrupt):
        def let_and_interrupt(number):
            if number % 2 == 0:
                self.pool.let_through()
            return interrupt(number)

        return let_and_interrupt


class OffloadedReads(Interruptions, Offloading):
    def expected(self):
        return self.DATA

    def file(self):
        """Return the file at its beginning, as bare as the system has it."""
        self.raw.seek(0)
        return self.raw

    def run_with(self, interrupt):
        return super().run_with(self.letting(interrupt))

    def stream(self):
        read = utils.cooperative_read(self.file())
        return lambda: read(9)


class OffloadedReadAll(OffloadedReads):
    def stream(self):
        read = utils.cooperative_read(self.file())
        return lambda: read(-1)


class OffloadedReadChanging(ChangingSizes, OffloadedReads):
    def stream(self):
        return self.changing(utils.cooperative_read(self.file()))


class OffloadedReadsOfText(OffloadedReads):
    def expected(self):
        return self.DATA.decode('latin-1')

    def stream(self):
        file = io.TextIOWrapper(
            io.BufferedReader(self.opened_again(), 8),
            encoding='latin-1',
            newline='',
        )
        read = utils.cooperative_read(file)
        return lambda: read(9)

    def opened_again(self):
        # The layers above it close it when they are gone.
        again = Noting(self.path)
        again.threads = self.raw.threads
        return again


class OffloadedReaderBoth(OffloadedReads):
    def stream(self):
        self.configure(default_chunk_size=9)
        reader = utils.CooperativeReader(self.file())
        steps = [lambda: next(reader), lambda: reader.read(5)] * 100
        return lambda: steps.pop()()


class OffloadedIteration(OffloadedReads):
    def stream(self):
        self.configure(default_chunk_size=9)
        reader = utils.CooperativeReader(self.file())
        return utils.cooperative_iter(reader).__next__


class OffloadedChunks(OffloadedReads):
    def test_traced(self):
        # It has no trace: it does not yield by itself.
        self.logger = self.capture_log(logging.DEBUG)
        self.at_each(base.never)
        self.assertEqual([], self.lines('DEBUG'))

    def stream(self):
        return utils.chunkreadable(self.file(), 25).__next__


class OffloadedClose(Offloading):
    """A close waits for the read that was left behind, interrupted or not."""

    def test_at_each_point(self):
        for make in base.INTERRUPTIONS.values():
            yields = self.close_with_a_throw_at(0, make).yields
            self.assertGreater(yields, 1)
            for at in range(1, yields + 1):
                with self.tally.case(POINTS):
                    run = self.close_with_a_throw_at(at, make)
                    self.assertEqual(1, len(run.thrown))

    def close_with_a_throw_at(self, at, make):
        self.raw = self.opened()
        reader = utils.CooperativeReader(self.raw)
        left = base.Run(
            lambda: self.assertRaises(base.Interrupted, reader.read, 9),
            lambda number: base.Interrupted(),
        )
        self.assertEqual(1, left.yields)
        self.assertEqual(set(), self.raw.threads)
        caught = []
        run = base.Run(
            functools.partial(base.insist, reader.close, caught),
            self.letting(lambda number: make() if number == at else None),
        )
        self.assertEqual(run.thrown, caught)
        self.assertTrue(self.raw.closed)
        self.see_who_read()
        return run


OFFLOADED = (
    OffloadedReads,
    OffloadedReadAll,
    OffloadedReadChanging,
    OffloadedReadsOfText,
    OffloadedReaderBoth,
    OffloadedIteration,
    OffloadedChunks,
    OffloadedClose,
)


class TestOffloaded(base.TestCase):
    def test_in_a_process_of_its_own(self):
        code = """
        import json

        import testtools

        from glance_store.tests.unit import test_interruptions

        result = testtools.TestResult()
        tried = test_interruptions.run_offloaded(result)
        print(json.dumps({
            'tests': result.testsRun,
            'tried': tried,
            'problems': [text for _, text in result.errors + result.failures],
        }))
        """
        facts = base.run_python(
            code,
            EVENTLET_THREADPOOL_SIZE='1',
            GLANCE_STORE_STRESS='1' if base.STRESS else '',
        )
        with self.tally.case(f'{POINTS}, offloaded', facts['tried']):
            self.assertEqual([], facts['problems'])
        self.assertGreater(facts['tests'], 50)
        self.assertGreater(facts['tried'], 1000)


def run_offloaded(result):
    """Run the tests of what is offloaded; return how many points there are."""
    tried = 0
    for tests in OFFLOADED:
        # Not before: what looks for tests in this module is to find none.
        case = type(tests.__name__, (tests, base.HubTestCase), {})
        for name in unittest.TestLoader().getTestCaseNames(case):
            test = case(name)
            test.run(result)
            tried += test.tally.tried[POINTS]
    return tried


class TestTimer(base.HubTestCase):
    def test_interrupted_yield_leaves_no_timer(self):
        # One that is left would wake the green thread up in the middle of
        # something else that it waits for.
        iterator = utils.cooperative_iter([b'a', b'b'])
        woken = []

        def consume():
            try:
                next(iterator)
            except base.Interrupted:
                event = eventlet.event.Event()
                eventlet.spawn(event.send, 'sent')
                woken.append(event.wait())

        base.Run(
            consume,
            lambda number: base.Interrupted() if number == 1 else None,
        )
        self.assertEqual(['sent'], woken)
