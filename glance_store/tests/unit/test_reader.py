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

"""``CooperativeReader(fd)``."""

import io
import sys
import tracemalloc

import eventlet

from glance_store.common import utils
from glance_store.tests.unit import base

DATA = bytes(range(256)) * 4


class TestKinds(base.TestCase):
    def test_neither_file_like_nor_iterable_at_the_call(self):
        for fd in (None, 5, 1.5, object(), len):
            exc = self.assertRaises(TypeError, utils.CooperativeReader, fd)
            self.assertIn(type(fd).__name__, str(exc))

    def test_fd_by_name(self):
        self.assertEqual(
            b'abc', utils.CooperativeReader(fd=io.BytesIO(b'abc')).read()
        )
        self.assertEqual(b'abc', utils.CooperativeReader(fd=[b'abc']).read())

    def test_nothing_is_read_before_it_is_asked_for(self):
        fd = base.Reading(DATA)
        iter(utils.CooperativeReader(fd))
        self.assertEqual([], fd.calls)
        fd = base.Fetching(b'abc')
        iter(utils.CooperativeReader(fd))
        self.assertEqual(0, fd.fetched)

    def test_is_an_iterator_of_itself(self):
        for fd in (io.BytesIO(b'abc'), [b'abc']):
            reader = utils.CooperativeReader(fd)
            self.assertEqual(b'abc', next(iter(reader)))
            self.assertEqual([], list(reader))


class TestOverFileLike(base.TestCase):
    def test_read_passes_its_arguments(self):
        fd = base.Answering(*range(4))
        reader = utils.CooperativeReader(fd)
        reader.read()
        reader.read(10)
        reader.read(None)
        reader.read(10, even='more')
        self.assertEqual(
            [((), {}), ((10,), {}), ((None,), {}), ((10,), {'even': 'more'})],
            fd.calls,
        )

    def test_length_is_for_others_to_set(self):
        for fd in (io.BytesIO(b'abc'), [b'abc']):
            reader = utils.CooperativeReader(fd)
            reader.len = 3
            self.assertEqual(3, reader.len)
            # Were there one, an empty image would count as none at all.
            self.assertFalse(hasattr(reader, '__len__'))
            self.assertTrue(reader)

    def test_read_by_way_of_the_class(self):
        # As the shipped tests call it, and a subclass through super().
        reader = utils.CooperativeReader(io.BytesIO(b'abcdef'))
        self.assertEqual(b'abc', utils.CooperativeReader.read(reader, 3))
        self.assertEqual(b'def', utils.CooperativeReader.read(reader))
        self.assertEqual(b'', utils.CooperativeReader.read(reader))

    def test_read_with_the_documented_name(self):
        reader = utils.CooperativeReader(io.BytesIO(b'abcdef'))
        self.assertEqual(b'abc', reader.read(length=3))
        self.assertEqual(b'def', reader.read(length=None))
        reader = utils.CooperativeReader([b'abcdef'])
        self.assertEqual(b'abc', reader.read(length=3))
        self.assertEqual(b'def', reader.read(length=None))

    def test_read_with_a_name_of_the_file(self):
        class Source(base.Reading):
            def read(self, *, size):
                return super().read(size)

        reader = utils.CooperativeReader(Source(b'abcdef'))
        self.assertEqual(b'abcd', reader.read(size=4))

    def test_read_returns_what_was_read(self):
        answers = [b'abc', b'', None, 'text', bytearray(b'x'), object()]
        reader = utils.CooperativeReader(base.Answering(*answers))
        for answer in answers:
            self.assertIs(answer, reader.read(5))

    def test_read_is_short_where_the_file_is(self):
        reader = utils.CooperativeReader(base.Reading(b'abcdef', 2))
        self.assertEqual(b'ab', reader.read(5))

    def test_iterates_by_chunks_not_by_lines(self):
        data = b'a\n' * 100000
        reader = utils.CooperativeReader(io.BytesIO(data))
        chunks = list(reader)
        self.assertEqual(
            [65536, 65536, 65536, 3392], [len(chunk) for chunk in chunks]
        )
        self.assertEqual(data, b''.join(chunks))

    def test_iterates_by_the_default_size(self):
        self.configure(default_chunk_size=1000)
        chunks = list(utils.CooperativeReader(io.BytesIO(bytes(2500))))
        self.assertEqual([1000, 1000, 500], [len(chunk) for chunk in chunks])

    def test_iterates_text(self):
        self.configure(default_chunk_size=3)
        chunks = list(utils.CooperativeReader(io.StringIO('a\né\nβ\n')))
        self.assertEqual(['a\né', '\nβ\n'], chunks)

    def test_iterates_what_does_not_iterate_itself(self):
        self.configure(default_chunk_size=300)
        chunks = list(utils.CooperativeReader(base.Reading(DATA)))
        self.assertEqual(DATA, b''.join(chunks))

    def test_one_position(self):
        self.configure(default_chunk_size=4)
        reader = utils.CooperativeReader(io.BytesIO(b'abcdefghijklm'))
        self.assertEqual(b'ab', reader.read(2))
        self.assertEqual(b'cdef', next(reader))
        self.assertEqual(b'g', reader.read(1))
        self.assertEqual([b'hijk', b'lm'], list(reader))
        self.assertEqual(b'', reader.read())

    def test_nothing_yet_is_not_the_end(self):
        reader = utils.CooperativeReader(base.Answering(b'a', None, b'b', b''))
        self.assertEqual(b'a', next(reader))
        self.assertRaises(BlockingIOError, next, reader)
        self.assertEqual([b'b'], list(reader))

    def test_close_closes_it(self):
        fd = base.Reading(DATA)
        reader = utils.CooperativeReader(fd)
        reader.read(5)
        self.assertEqual(0, fd.closed)
        reader.close()
        self.assertEqual(1, fd.closed)
        reader.close()
        self.assertEqual(1, fd.closed)

    def test_close_where_there_is_none(self):
        utils.CooperativeReader(base.Answering()).close()

    def test_read_that_stops_an_iteration_is_no_end(self):
        reader = utils.CooperativeReader(
            base.Answering(b'ab', StopIteration(), b'c', b'')
        )
        self.assertEqual(b'ab', next(reader))
        exc = self.assertRaises(RuntimeError, next, reader)
        self.assertEqual('fd.read raised StopIteration', str(exc))
        self.assertEqual([b'c'], list(reader))


class TestOverIterable(base.TestCase):
    def reader(self, *chunks):
        return utils.CooperativeReader(iter(chunks))

    def test_read_without_length_is_the_next_chunk(self):
        for length in ((), (None,)):
            reader = self.reader(b'abc', b'defgh', b'i')
            self.assertEqual(
                [b'abc', b'defgh', b'i', b'', b''],
                [reader.read(*length) for _ in range(5)],
            )

    def test_read_without_length_skips_empty_chunks(self):
        reader = self.reader(
            b'', b'', b'abc', b'', bytearray(), memoryview(b''), b'd', b''
        )
        self.assertEqual(
            [b'abc', b'd', b'', b''], [reader.read() for _ in range(4)]
        )

    def test_read_without_length_is_what_is_left_of_a_begun_chunk(self):
        reader = self.reader(b'abcdef', b'ghi')
        self.assertEqual(b'ab', reader.read(2))
        self.assertEqual(b'cdef', reader.read())
        self.assertEqual(b'g', reader.read(1))
        self.assertEqual(b'h', reader.read(1))
        self.assertEqual(b'i', reader.read())
        self.assertEqual(b'', reader.read())

    def test_read_with_length_is_exact_until_the_end(self):
        data = b'abcdefghijklmnopqrstuvwxyz'
        chunks = [b'', b'abc', b'd', b'', b'efghijkl', data[12:], b'']
        for length in range(1, 30):
            reader = self.reader(*chunks)
            answers = []
            while answer := reader.read(length):
                answers.append(answer)
            self.assertEqual(
                [data[at : at + length] for at in range(0, len(data), length)],
                answers,
            )
            self.assertEqual(b'', reader.read(length))
            self.assertEqual(b'', reader.read())

    def test_read_zero(self):
        fd = base.Fetching(b'abc')
        reader = utils.CooperativeReader(fd)
        self.assertEqual(b'', reader.read(0))
        self.assertEqual(0, fd.fetched)
        self.assertEqual(b'a', reader.read(1))
        self.assertEqual(b'', reader.read(0))
        self.assertEqual(b'bc', reader.read())
        self.assertEqual(b'', reader.read(0))

    def test_read_minus_one_is_all_that_is_left(self):
        self.assertEqual(b'abcde', self.reader(b'abc', b'', b'de').read(-1))
        reader = self.reader(b'abc', b'', b'de')
        reader.read(2)
        self.assertEqual(b'cde', reader.read(-1))
        self.assertEqual(b'', reader.read(-1))
        self.assertEqual(b'', self.reader().read(-1))

    def test_read_of_the_wrong_type(self):
        fd = base.Fetching(b'abc')
        reader = utils.CooperativeReader(fd)
        for length in ('1', 1.0, [], b'1'):
            exc = self.assertRaises(TypeError, reader.read, length)
            self.assertIn(type(length).__name__, str(exc))
        self.assertEqual(0, fd.fetched)

    def test_read_longer_than_memory(self):
        for length in (10**6, sys.maxsize, sys.maxsize + 1, 10**30):
            self.assertEqual(b'abc', self.reader(b'ab', b'c').read(length))

    def test_always_bytes(self):
        class Bytes(bytes):
            pass

        for chunk in (
            b'abcd',
            bytearray(b'abcd'),
            memoryview(b'abcd'),
            memoryview(bytearray(b'xxabcdxx'))[2:6],
            memoryview(b'a.b.c.d.')[::2],
            memoryview(b'abcd').cast('H'),
            memoryview(b'abcd').cast('B', (2, 2)),
        ):
            for args, answers in (
                ((), [b'abcd', b'']),
                ((2,), [b'ab', b'cd', b'']),
                ((4,), [b'abcd', b'']),
                ((5,), [b'abcd', b'']),
                ((-1,), [b'abcd', b'']),
            ):
                reader = self.reader(chunk)
                got = [reader.read(*args) for _ in answers]
                self.assertEqual(answers, got, repr(chunk))
                self.assertEqual({bytes}, set(map(type, got)))
            self.assertEqual([b'abcd'], list(self.reader(chunk)))
            self.assertEqual([bytes], list(map(type, self.reader(chunk))))

    def test_source_may_reuse_its_buffer(self):
        def source(view):
            buffer = bytearray(4)
            for text in (b'abcd', b'efgh', b'ijkl'):
                buffer[:] = text
                yield memoryview(buffer) if view else buffer

        for view in (False, True):
            for read in (
                lambda reader: [reader.read() for _ in range(3)],
                list,
                lambda reader: [reader.read(6) for _ in range(2)],
                lambda reader: [reader.read(-1)],
                lambda reader: [reader.read(1), reader.read(), reader.read(9)],
            ):
                reader = utils.CooperativeReader(source(view))
                self.assertEqual(b'abcdefghijkl', b''.join(read(reader)))

    def test_source_may_resize_its_buffer(self):
        # A bytearray of which a view is held cannot change its size.
        def source():
            buffer = bytearray()
            for length in (5, 1, 9):
                buffer.clear()
                buffer += b'x' * length
                yield buffer

        reader = utils.CooperativeReader(source())
        self.assertEqual(b'xx', reader.read(2))
        self.assertEqual(b'x' * 8, reader.read(8))
        self.assertEqual(b'x' * 5, reader.read(8))

    def test_chunk_of_another_type_is_named(self):
        for chunk, name in (
            ('text', 'str'),
            (None, 'NoneType'),
            (5, 'int'),
            ([b'a'], 'list'),
            ('', 'str'),
            (0, 'int'),
        ):
            for args in ((), (1,), (100,), (-1,)):
                reader = self.reader(chunk)
                exc = self.assertRaises(TypeError, reader.read, *args)
                self.assertIn(name, str(exc))
            exc = self.assertRaises(TypeError, next, self.reader(chunk))
            self.assertIn(name, str(exc))

    def test_chunk_of_another_type_hides_nothing(self):
        # What came before it is not lost, and what comes after it is not
        # taken for its place.
        reader = self.reader(b'ab', 'secret', b'cd')
        exc = self.assertRaises(TypeError, reader.read, 4)
        self.assertNotIn('secret', str(exc))
        self.assertEqual(b'ab', reader.read(2))
        self.assertRaises(TypeError, reader.read, 2)

    def test_text_is_not_an_image(self):
        self.assertRaises(TypeError, utils.CooperativeReader('abc').read)

    def test_iterates_by_the_chunks_as_they_come(self):
        self.assertEqual(
            [b'abc', b'd' * 100000, b'e'],
            list(self.reader(b'abc', b'', b'd' * 100000, b'e')),
        )

    def test_one_position(self):
        chunks = (b'abcd', b'', b'efgh', b'ijkl', b'mnop')
        reader = self.reader(*chunks)
        self.assertEqual(b'ab', reader.read(2))
        self.assertEqual(b'cd', next(reader))
        self.assertEqual(b'efgh', reader.read())
        self.assertEqual(b'ijk', reader.read(3))
        self.assertEqual(b'lm', reader.read(2))
        self.assertEqual([b'nop'], list(reader))
        self.assertEqual(b'', reader.read())
        self.assertRaises(StopIteration, next, reader)

    def test_one_pass(self):
        fd = base.Fetching(b'a', b'b')
        reader = utils.CooperativeReader(fd)
        self.assertEqual(b'a', next(iter(reader)))
        self.assertEqual([b'b'], list(reader))
        self.assertEqual([], list(reader))

    def test_exception_of_the_source_loses_nothing(self):
        failure = OSError('flaky')
        reader = utils.CooperativeReader(
            base.Fetching(b'abc', failure, b'def')
        )
        self.assertIs(failure, self.assertRaises(OSError, reader.read, 5))
        self.assertEqual(b'abcde', reader.read(5))
        self.assertEqual(b'f', reader.read(5))

    def test_close_closes_it(self):
        fd = base.Fetching(b'abc', b'def')
        reader = utils.CooperativeReader(fd)
        reader.read(2)
        self.assertEqual(0, fd.closed)
        reader.close()
        self.assertEqual(1, fd.closed)
        reader.close()
        self.assertEqual(1, fd.closed)

    def test_close_runs_the_finally_of_a_generator(self):
        events = []

        def source():
            try:
                yield b'abc'
            finally:
                events.append('finally')

        reader = utils.CooperativeReader(source())
        reader.read(2)
        reader.close()
        self.assertEqual(['finally'], events)

    def test_close_where_there_is_none(self):
        reader = utils.CooperativeReader([b'abc'])
        reader.close()
        reader.close()

    def test_read_of_a_closed_reader_is_not_the_end_of_an_image(self):
        for args in ((), (5,), (-1,)):
            reader = self.reader(b'abc', b'def')
            reader.read(2)
            reader.close()
            self.assertRaises(ValueError, reader.read, *args)


class TestCopying(base.TestCase):
    """What is copied is counted in memory, as time would be no measure."""

    CHUNK = 65536

    def peak(self, func, *args):
        tracemalloc.start()
        try:
            answer = func(*args)
            return answer, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def source(self, number, size=CHUNK):
        for _ in range(number):
            yield bytes(size)

    def test_whole_chunks_are_not_copied(self):
        chunks = [bytes(100), bytes(100), bytes(100)]
        for read in (
            lambda reader: reader.read(),
            lambda reader: reader.read(100),
            next,
        ):
            reader = utils.CooperativeReader(iter(chunks))
            for chunk in chunks:
                self.assertIs(chunk, read(reader))

    def test_small_reads_of_a_large_chunk(self):
        size = 4 * 2**20
        reader = utils.CooperativeReader([bytes(size)])
        _, peak = self.peak(reader.read, 1)
        self.assertLess(peak, 10000)
        _, peak = self.peak(
            lambda: [len(reader.read(4096)) for _ in range(1000)]
        )
        self.assertLess(peak, 100000)

    def test_rest_of_a_large_chunk_is_copied_once(self):
        size = 2**20
        reader = utils.CooperativeReader([bytes(size)])
        reader.read(1)
        _, peak = self.peak(reader.read)
        self.assertLess(peak, 1.1 * size)

    def test_large_read_over_small_chunks(self):
        # The buffer may be an eighth larger than its contents, of which the
        # system gives no page that is not written to.
        number = 256
        for size in (number * self.CHUNK, number * self.CHUNK - 5):
            reader = utils.CooperativeReader(self.source(number + 10))
            reader.read(10)
            answer, peak = self.peak(reader.read, size)
            self.assertEqual(size, len(answer))
            self.assertLess(peak, size * 9 / 8 + 5 * self.CHUNK)

    def test_large_read_in_resident_memory(self):
        # "Never more than about two chunks and the asked-for bytes", as the
        # system counts it.
        for chunk in (4096, self.CHUNK, 2**20):
            size, grown = base.run_python(
                """
                import json
                import resource
                import sys

                from glance_store.common import utils

                def most():
                    usage = resource.getrusage(resource.RUSAGE_SELF)
                    return usage.ru_maxrss * 1024

                size = int(sys.argv[1])
                number = 64 * 2**20 // size
                source = (b'x' * size for _ in range(number + 5))
                reader = utils.CooperativeReader(source)
                reader.read(10)
                before = most()
                answer = reader.read(number * size)
                print(json.dumps([len(answer), most() - before]))
                """,
                str(chunk),
            )
            self.assertEqual(64 * 2**20, size)
            self.assertLess(grown, size + 3 * chunk + 2**21, chunk)

    def test_holds_two_chunks_at_most(self):
        for length in ((), (self.CHUNK,), (self.CHUNK - 1000,)):
            reader = utils.CooperativeReader(self.source(20))
            asked = length[0] if length else 0
            reader.read(*length)
            tracemalloc.start()
            while reader.read(*length):
                pass
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            self.assertLess(peak, asked + 3 * self.CHUNK, length)

    def test_does_not_grow_over_10000_chunks(self):
        for length in ((), (1000,), (1500,), (100,)):
            reader = utils.CooperativeReader(self.source(10000, 1000))
            reader.read(*length)
            tracemalloc.start()
            while reader.read(*length):
                pass
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            self.assertLess(peak, 12000, length)


class TestCloseInterrupted(base.HubTestCase):
    def test_can_be_repeated(self):
        class File(base.Reading):
            def close(self):
                eventlet.sleep(0)
                super().close()

        class Iterator(base.Fetching):
            def close(self):
                eventlet.sleep(0)
                super().close()

        for fd in (File(DATA), Iterator(DATA)):
            reader = utils.CooperativeReader(fd)
            base.Run(
                lambda reader=reader: base.insist(reader.close, []),
                lambda number: base.never() if number == 1 else None,
            )
            self.assertEqual(1, fd.closed)


class TestOnHub(base.HubTestCase):
    def test_yields_after_each_read_of_a_file(self):
        reader = utils.CooperativeReader(io.BytesIO(DATA))
        for _ in range(3):
            self.assertYields(1, reader.read, 10)
        self.assertYields(1, reader.read)

    def test_yields_after_each_chunk_iterated_of_a_file(self):
        self.configure(default_chunk_size=256)
        reader = utils.CooperativeReader(io.BytesIO(DATA))
        for _ in range(4):
            self.assertYields(1, next, reader)

    def test_yields_after_each_chunk_of_an_iterable(self):
        for read in (lambda reader: reader.read(), next):
            reader = utils.CooperativeReader([b'abc'] * 4)
            for _ in range(4):
                self.assertYields(1, read, reader)

    def test_yields_after_each_chunk_within_one_read(self):
        reader = utils.CooperativeReader([b'abc'] * 10)
        self.assertYields(1, reader.read, 1)
        self.assertYields(0, reader.read, 1)
        self.assertYields(0, reader.read, 1)
        self.assertYields(2, reader.read, 6)
        self.assertYields(2, reader.read, 4)
        self.assertYields(5, reader.read, -1)

    def test_interrupted_exact_read(self):
        # What it had gathered is there for whatever is asked for next.
        for then in ([8, 1], [2, None, None], [None, None], [6, 3], [7, 2]):
            reader = utils.CooperativeReader([b'abc', b'def', b'ghi'])
            base.Run(
                lambda reader=reader: self.assertRaises(
                    base.Interrupted, reader.read, 8
                ),
                lambda number: base.Interrupted() if number == 3 else None,
            )
            got = [reader.read(length) for length in then]
            self.assertEqual(b'abcdefghi', b''.join(got))
            for length, answer in zip(then, got, strict=True):
                self.assertIn(length, (None, len(answer)))

    def test_nothing_is_left_of_a_closed_file(self):
        for after in (None, 2):
            reader = utils.CooperativeReader(io.BytesIO(b'abcdef'))
            base.Run(
                lambda reader=reader: self.assertRaises(
                    base.Interrupted, reader.read, 4
                ),
                lambda _: base.Interrupted(),
            )
            if after:
                self.assertEqual(b'ab', reader.read(after))
            reader.close()
            for _ in '12':
                self.assertRaises(ValueError, reader.read, 4)

    def test_what_cannot_be_closed_goes_on(self):
        fd = base.Answering(b'abcd', b'efgh')
        reader = utils.CooperativeReader(fd)

        def interrupted():
            base.Run(
                lambda: self.assertRaises(base.Interrupted, reader.read, 4),
                lambda _: base.Interrupted(),
            )

        interrupted()
        self.assertEqual(b'ab', reader.read(2))
        reader.close()
        interrupted()
        self.assertEqual([b'efg', b'h'], [reader.read(3), reader.read(1)])

    def test_interrupted_with_one_byte(self):
        reader = utils.CooperativeReader([b'a', b'bcd'])
        base.Run(
            lambda: self.assertRaises(base.Interrupted, reader.read, 3),
            lambda number: base.Interrupted() if number == 2 else None,
        )
        self.assertEqual([b'a', b'bcd', b''], [reader.read() for _ in '123'])

    def test_yields_after_each_empty_chunk(self):
        reader = utils.CooperativeReader([b''] * 5 + [b'abc'])
        self.assertEqual(b'abc', self.assertYields(6, reader.read))


class TestShared(base.HubTestCase):
    """Green threads that share one reader."""

    CHUNKS = [bytes([n]) * 3 for n in range(60)]

    def share(self, *reads):
        got = []

        def run(read):
            while True:
                try:
                    answer = read()
                except StopIteration:
                    return
                if not answer:
                    return
                got.append(answer)
                eventlet.sleep(0)

        for thread in [eventlet.spawn(run, read) for read in reads]:
            thread.wait()
        return got

    def test_file_like(self):
        self.configure(default_chunk_size=7)
        for kinds in ('rr', 'ri', 'ii', 'rsi'):
            reader = utils.CooperativeReader(base.Reading(DATA))
            read = {
                'r': lambda reader=reader: reader.read(10),
                's': lambda reader=reader: reader.read(4),
                'i': lambda reader=reader: next(reader),
            }
            got = self.share(*(read[kind] for kind in kinds))
            self.assertEqual(sorted(DATA), sorted(b''.join(got)), kinds)

    def test_iterable(self):
        for kinds in ('rr', 'ri', 'ii', 'rii'):
            reader = utils.CooperativeReader(iter(self.CHUNKS))
            read = {
                'r': lambda reader=reader: reader.read(),
                'i': lambda reader=reader: next(reader),
            }
            got = self.share(*(read[kind] for kind in kinds))
            self.assertEqual(self.CHUNKS, sorted(got), kinds)

    def test_every_one_gets_some(self):
        for fd in (base.Reading(DATA), iter(self.CHUNKS)):
            self.configure(default_chunk_size=7)
            reader = utils.CooperativeReader(fd)
            got = [[], [], []]

            def run(mine, reader=reader):
                for chunk in reader:
                    mine.append(chunk)
                    eventlet.sleep(0)

            for thread in [eventlet.spawn(run, mine) for mine in got]:
                thread.wait()
            self.assertNotIn([], got)

    def test_generator_that_switches_itself(self):
        def source():
            for chunk in self.CHUNKS:
                eventlet.sleep(0)
                yield chunk

        reader = utils.CooperativeReader(source())
        got = self.share(*[reader.read] * 3)
        self.assertEqual(self.CHUNKS, sorted(got))

    def test_iterable_that_reuses_its_buffer(self):
        def source():
            buffer = bytearray(3)
            for chunk in self.CHUNKS:
                buffer[:] = chunk
                yield buffer

        reader = utils.CooperativeReader(source())
        got = self.share(*[reader.read] * 3)
        self.assertEqual(self.CHUNKS, sorted(got))

    def refused(self, first, second, args=(b'abc', b'def', b'ghi')):
        """Begin one read and try another; return the first one's answer."""
        fd = base.Fetching(*args)
        reader = utils.CooperativeReader(fd)
        thread = eventlet.spawn(first, reader)
        eventlet.sleep(0)
        fetched = fd.fetched
        self.assertRaises(RuntimeError, second, reader)
        self.assertEqual(fetched, fd.fetched)
        answer = thread.wait()
        return answer, reader.read(-1)

    def test_exact_read_finds_another_one(self):
        for length in (1, 5, 100, -1):
            self.assertEqual(
                (b'abcdefgh', b'i'),
                self.refused(
                    lambda reader: reader.read(8),
                    lambda reader, length=length: reader.read(length),
                ),
            )

    def test_exact_read_finds_one_of_everything(self):
        self.assertEqual(
            (b'abcdefghi', b''),
            self.refused(
                lambda reader: reader.read(-1), lambda reader: reader.read(2)
            ),
        )

    def test_exact_read_finds_a_read_of_a_chunk(self):
        for first in (lambda reader: reader.read(), next):
            self.assertEqual(
                (b'abc', b'defghi'),
                self.refused(first, lambda reader: reader.read(2)),
            )

    def test_read_of_a_chunk_finds_an_exact_read(self):
        for second in (lambda reader: reader.read(), next):
            self.assertEqual(
                (b'abcdefgh', b'i'),
                self.refused(lambda reader: reader.read(8), second),
            )

    def test_exact_read_after_the_other_is_done(self):
        reader = utils.CooperativeReader([b'abc', b'def'])
        thread = eventlet.spawn(reader.read, 2)
        eventlet.sleep(0)
        self.assertRaises(RuntimeError, reader.read, 2)
        self.assertEqual(b'ab', thread.wait())
        self.assertEqual(b'cd', reader.read(2))

    def test_exact_read_after_the_other_was_killed(self):
        for first in ((8,), (), (-1,)):
            reader = utils.CooperativeReader([b'abc', b'def', b'ghi'])
            thread = eventlet.spawn(reader.read, *first)
            eventlet.sleep(0)
            thread.kill()
            self.assertEqual(b'abcdefgh', reader.read(8))
            self.assertEqual(b'i', reader.read(8))

    def test_exact_read_after_the_other_failed(self):
        reader = utils.CooperativeReader(
            base.Fetching(b'abc', OSError(), b'def')
        )
        self.assertRaises(OSError, reader.read, 5)
        self.assertEqual(b'abcde', reader.read(5))

    def test_readers_of_their_own_know_nothing_of_each_other(self):
        first = utils.CooperativeReader([b'abc', b'def'])
        second = utils.CooperativeReader([b'ghi', b'jkl'])
        thread = eventlet.spawn(first.read, 5)
        eventlet.sleep(0)
        self.assertEqual(b'ghijk', second.read(5))
        self.assertEqual(b'abcde', thread.wait())

    def test_interrupted_at_every_yield(self):
        for kinds in ('rr', 'ri', 'ii'):
            for at in range(1, 20):
                reader = utils.CooperativeReader(iter(self.CHUNKS[:8]))
                read = {'r': reader.read, 'i': lambda r=reader: next(r)}
                other, caught = [], []
                thread = eventlet.spawn(
                    lambda step=read[kinds[1]], other=other: other.extend(
                        base.calls(step, [])
                    )
                )
                mine = base.Run(
                    lambda step=read[kinds[0]], caught=caught: list(
                        base.calls(step, caught)
                    ),
                    lambda number, at=at: (
                        base.never() if number == at else None
                    ),
                )
                thread.wait()
                self.assertEqual(
                    self.CHUNKS[:8], sorted(mine.answer + other), (kinds, at)
                )
