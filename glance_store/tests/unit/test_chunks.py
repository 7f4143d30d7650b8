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

"""``chunkiter(fp, chunk_size=65536)`` and ``chunkreadable``."""

import collections
import decimal
import errno
import io
import itertools
import os
import tracemalloc

import eventlet
from eventlet import greenio
import fixtures

from glance_store.common import utils
from glance_store.tests.unit import base

DATA = bytes(range(256)) * 40


class NothingAtFirst(io.FileIO):
    """A file whose reads are its own, the first of them with nothing yet."""

    asked = 0

    def readinto(self, buffer):
        self.asked += 1
        return None if self.asked == 1 else super().readinto(buffer)


class TestChunkiter(base.TestCase):
    def pipe(self, blocking=True):
        """Return both ends of a real pipe, unbuffered."""
        reading, writing = os.pipe()
        os.set_blocking(reading, blocking)
        fp = open(reading, 'rb', buffering=0)
        self.addCleanup(fp.close)
        out = open(writing, 'wb', buffering=0)
        self.addCleanup(out.close)
        return fp, out

    def file(self):
        """Return the path of a regular file that holds the data."""
        path = self.useFixture(fixtures.TempDir()).join('data')
        with open(path, 'wb') as out:
            out.write(DATA)
        return path

    def test_iterator_over_chunks(self):
        chunks = utils.chunkiter(io.BytesIO(b'abcdefgh'), 3)
        self.assertIs(chunks, iter(chunks))
        self.assertEqual([b'abc', b'def', b'gh'], list(chunks))

    def test_last_chunk_full(self):
        self.assertEqual(
            [b'abc', b'def'], list(utils.chunkiter(io.BytesIO(b'abcdef'), 3))
        )

    def test_nothing_at_all(self):
        self.assertEqual([], list(utils.chunkiter(io.BytesIO(), 3)))
        self.assertEqual([], list(utils.chunkiter(io.StringIO(), 3)))

    def test_chunk_size_by_name(self):
        self.assertEqual(
            [b'ab', b'c'],
            list(utils.chunkiter(fp=io.BytesIO(b'abc'), chunk_size=2)),
        )

    def test_default_chunk_size(self):
        chunks = utils.chunkiter(io.BytesIO(bytes(150000)))
        self.assertEqual([65536, 65536, 18928], [len(c) for c in chunks])

    def test_exact_however_short_the_reads_are(self):
        for most in (1, 2, 3, 7, 99, 100, 101, 1000):
            for size in (1, 2, 3, 50, 99, 100, 101, len(DATA), 10**6):
                fp = base.Reading(DATA, most)
                chunks = list(utils.chunkiter(fp, size))
                self.assertEqual(DATA, b''.join(chunks))
                self.assertEqual(
                    {size} if len(chunks) > 1 else set(),
                    {len(chunk) for chunk in chunks[:-1]},
                )
                self.assertLessEqual(len(chunks[-1]), size)

    def test_exact_though_the_file_grows(self):
        for begin, grown_after in itertools.product((0, 3000), range(4)):
            path = self.file()
            with open(path, 'rb') as fp, open(path, 'ab') as out:
                fp.seek(begin)
                chunks = utils.chunkiter(fp, 4000)
                got = list(itertools.islice(chunks, grown_after))
                out.write(DATA[:5000])
                out.flush()
                got += chunks
            # What comes after the end was seen is of no concern.
            ended = len(DATA) - begin < 4000 * grown_after
            more = b'' if ended else DATA[:5000]
            self.assertEqual(DATA[begin:] + more, b''.join(got))
            self.assertEqual({4000}, {len(chunk) for chunk in got[:-1]})

    def test_exact_from_a_file_with_a_read_of_its_own(self):
        with open(self.file(), 'rb') as fp:
            read = fp.read
            fp.read = lambda size: read(min(size, 300))
            chunks = list(utils.chunkiter(fp, 1000))
        self.assertEqual(DATA, b''.join(chunks))
        self.assertEqual({1000}, {len(chunk) for chunk in chunks[:-1]})

    def test_behind_the_end_of_a_file(self):
        with open(self.file(), 'rb') as fp:
            fp.seek(2 * len(DATA))
            self.assertEqual([], list(utils.chunkiter(fp, 7)))

    def test_read_that_stops_an_iteration_is_no_end(self):
        fp = base.Answering(b'ab', StopIteration(), b'c', b'd', b'')
        chunks = utils.chunkiter(fp, 3)
        exc = self.assertRaises(RuntimeError, next, chunks)
        self.assertEqual('fp.read raised StopIteration', str(exc))
        self.assertEqual([b'abc', b'd'], list(chunks))

    def test_exact_from_a_slow_pipe(self):
        fp, out = self.pipe()
        chunks = utils.chunkiter(fp, 4)
        self.useFixture(base.Hub())
        # A real reader that gets a byte or two at a time, and no more.
        green = greenio.GreenPipe(os.dup(fp.fileno()), 'rb', 0)
        self.addCleanup(green.close)

        def write():
            for part in (b'a', b'bc', b'defg', b'h', b'i'):
                out.write(part)
                eventlet.sleep(0)
            out.close()

        writer = eventlet.spawn(write)
        chunks = list(utils.chunkiter(green, 4))
        writer.wait()
        self.assertEqual([b'abcd', b'efgh', b'i'], chunks)

    def test_nothing(self):
        for nothing in (io.BytesIO(), io.StringIO()):
            for size in (1, 2, 1000):
                self.assertEqual([], list(utils.chunkiter(nothing, size)))

    def test_text(self):
        text = 'aé\N{GREEK SMALL LETTER BETA}\N{ROCKET}b\r\nc\rd\ne\0'
        for most in (1, 2, 100):
            fp = base.Reading(text, most)
            for size in (1, 3, 5, 100):
                fp.position = 0
                chunks = list(utils.chunkiter(fp, size))
                self.assertEqual(
                    [text[at : at + size] for at in range(0, len(text), size)],
                    chunks,
                )

    def test_text_file(self):
        path = self.useFixture(fixtures.TempDir()).join('text')
        with open(path, 'w', encoding='utf-8', newline='') as out:
            out.write('é\r\n' * 1000)
        with open(path, encoding='utf-8', newline='') as fp:
            chunks = list(utils.chunkiter(fp, 7))
        self.assertEqual('é\r\n' * 1000, ''.join(chunks))
        self.assertEqual({7}, {len(chunk) for chunk in chunks[:-1]})

    def test_regular_file(self):
        path = self.file()
        for size in (1000, len(DATA), 3 * len(DATA)):
            with open(path, 'rb') as fp:
                chunks = utils.chunkiter(fp, size)
                self.assertEqual(DATA[:size], next(chunks))
                self.assertEqual(min(size, len(DATA)), fp.tell())
                rest = list(chunks)
                self.assertFalse(fp.closed)
            self.assertEqual(DATA[size:], b''.join(rest))
            self.assertEqual(
                {size} if rest[1:] else set(), {*map(len, rest[:-1])}
            )
            # As of any other source, the end is the end.
            self.assertRaises(StopIteration, next, chunks)

    def test_regular_file_with_reads_of_its_own(self):
        path = self.file()
        fp = io.BufferedReader(NothingAtFirst(path))
        self.addCleanup(fp.close)
        chunks = utils.chunkiter(fp, 1000)
        self.assertRaises(BlockingIOError, next, chunks)
        self.assertEqual(DATA, b''.join(chunks))
        fp = open(path, 'rb')
        raw = fp.detach()
        self.addCleanup(raw.close)
        chunks = utils.chunkiter(fp, 1000)
        for _ in range(2):
            self.assertRaises(ValueError, next, chunks)

    def test_closed_file(self):
        fp = open(self.file(), 'rb')
        fp.close()
        chunks = utils.chunkiter(fp, 3)
        for _ in range(2):
            self.assertRaises(ValueError, next, chunks)

    def test_pipe_through_a_buffer_with_nothing_yet(self):
        raw, out = self.pipe(blocking=False)
        chunks = utils.chunkiter(io.BufferedReader(raw), 4)
        out.write(b'abcdef')
        self.assertEqual(b'abcd', next(chunks))
        self.assertEqual(b'ef', next(chunks))
        self.assertRaises(BlockingIOError, next, chunks)
        out.write(b'gh')
        out.close()
        self.assertEqual([b'gh'], list(chunks))

    def test_buffer_of_no_file_with_nothing_yet(self):
        class Nothing(io.RawIOBase):
            def readable(self):
                return True

            def readinto(self, buffer):
                return None

        chunks = utils.chunkiter(io.BufferedReader(Nothing()), 4)
        self.assertRaises(BlockingIOError, next, chunks)

    def test_source_that_answers_more_than_asked(self):
        fp = base.Answering(b'abcdefgh', b'ij', b'')
        self.assertEqual(
            [b'abc', b'def', b'ghi', b'j'], list(utils.chunkiter(fp, 3))
        )

    def test_lazily_one_chunk_at_a_time(self):
        fp = base.Reading(DATA)
        chunks = utils.chunkiter(fp, 100)
        self.assertEqual([], fp.calls)
        iter(chunks)
        self.assertEqual([], fp.calls)
        for number in range(1, 5):
            next(chunks)
            self.assertEqual(100 * number, fp.position)

    def test_never_asks_for_more_than_is_missing(self):
        fp = base.Reading(b'abcdefgh', 2)
        self.assertEqual(b'abcde', next(utils.chunkiter(fp, 5)))
        self.assertEqual([(5,), (3,), (1,)], fp.calls)

    def test_end_is_not_read_again(self):
        # At a terminal, a read after the end would wait for more.
        fp = base.Answering(b'abc', b'')
        chunks = utils.chunkiter(fp, 5)
        self.assertEqual([b'abc'], list(chunks))
        self.assertEqual([], list(chunks))
        self.assertEqual([], fp.answers)

    def test_size_below_1_at_the_call(self):
        for size in (0, -1, -65536, -(10**30)):
            fp = base.Reading(DATA)
            exc = self.assertRaises(ValueError, utils.chunkiter, fp, size)
            self.assertIn('chunk_size', str(exc))
            exc = self.assertRaises(ValueError, utils.chunkreadable, fp, size)
            self.assertIn('chunk_size', str(exc))
            self.assertEqual([], fp.calls)

    def test_size_of_the_wrong_type_at_the_call(self):
        for size in (
            None,
            True,
            '65536',
            b'1',
            65536.0,
            float('nan'),
            decimal.Decimal(1),
            [1],
            object(),
            int,
        ):
            fp = base.Reading(DATA)
            exc = self.assertRaises(TypeError, utils.chunkiter, fp, size)
            self.assertIn('chunk_size', str(exc))
            self.assertIn(type(size).__name__, str(exc))
            exc = self.assertRaises(TypeError, utils.chunkreadable, fp, size)
            self.assertIn('chunk_size', str(exc))
            self.assertEqual([], fp.calls)

    def test_read_of_the_wrong_type(self):
        for answer in ([b'a'], 5, object()):
            chunks = utils.chunkiter(base.Answering(answer), 5)
            exc = self.assertRaises(TypeError, next, chunks)
            self.assertIn(type(answer).__name__, str(exc))

    def test_not_a_file_like_at_the_call(self):
        for fp in (None, 5, [b'a'], object(), iter([b'a'])):
            exc = self.assertRaises(TypeError, utils.chunkiter, fp, 5)
            self.assertIn(type(fp).__name__, str(exc))

    def test_none_is_not_the_end(self):
        fp = base.Answering(b'ab', b'c', None, b'defgh', None, None, b'')
        chunks = utils.chunkiter(fp, 5)
        self.assertEqual(b'abc', next(chunks))
        exc = self.assertRaises(BlockingIOError, next, chunks)
        self.assertEqual(errno.EAGAIN, exc.errno)
        self.assertEqual(b'defgh', next(chunks))
        self.assertRaises(BlockingIOError, next, chunks)
        self.assertRaises(BlockingIOError, next, chunks)
        self.assertRaises(StopIteration, next, chunks)
        self.assertEqual([], fp.answers)

    def test_none_at_first(self):
        chunks = utils.chunkiter(base.Answering(None, b'a', b''), 5)
        self.assertRaises(BlockingIOError, next, chunks)
        self.assertEqual([b'a'], list(chunks))

    def test_non_blocking_pipe(self):
        fp, out = self.pipe(blocking=False)
        chunks = utils.chunkiter(fp, 4)
        self.assertRaises(BlockingIOError, next, chunks)
        out.write(b'abcdef')
        self.assertEqual(b'abcd', next(chunks))
        self.assertEqual(b'ef', next(chunks))
        self.assertRaises(BlockingIOError, next, chunks)
        out.write(b'gh')
        out.close()
        self.assertEqual(b'gh', next(chunks))
        self.assertRaises(StopIteration, next, chunks)

    def test_exception_of_the_source_loses_nothing(self):
        failure = OSError('flaky')
        fp = base.Answering(b'ab', failure, b'cd', b'')
        chunks = utils.chunkiter(fp, 3)
        self.assertIs(failure, self.assertRaises(OSError, next, chunks))
        self.assertEqual([b'abc', b'd'], list(chunks))

    def test_exception_between_the_parts_of_a_chunk(self):
        # After a chunk that was an answer as it stood.
        fp = base.Answering(b'abcd', b'ef', OSError(), b'ghij', b'')
        chunks = utils.chunkiter(fp, 4)
        self.assertEqual(b'abcd', next(chunks))
        self.assertRaises(OSError, next, chunks)
        self.assertEqual([b'efgh', b'ij'], list(chunks))

    def test_more_than_asked_beside_whole_chunks(self):
        for answers in (
            (b'abcd', b'efghij', b''),
            (b'abcdef', b'ghij', b''),
            (b'abcdefghij', b''),
        ):
            fp = base.Answering(*answers)
            self.assertEqual(
                [b'abcd', b'efgh', b'ij'], list(utils.chunkiter(fp, 4))
            )

    def test_source_is_not_closed(self):
        fp = base.Reading(DATA)
        chunks = utils.chunkiter(fp, 100)
        next(chunks)
        getattr(chunks, 'close', list)()
        del chunks
        self.assertEqual(0, fp.closed)
        fp = base.Reading(DATA)
        self.assertEqual(103, len(list(utils.chunkiter(fp, 100))))
        self.assertEqual(0, fp.closed)

    def test_source_of_one_buffer(self):
        class Source:
            def __init__(self, data, most):
                self.fp = io.BytesIO(data)
                self.buffer = bytearray(most)

            def read(self, size):
                view = memoryview(self.buffer)[:size]
                return view[: self.fp.readinto(view)]

        for size in (1, 5, 7, 10, 25):
            chunks = utils.chunkiter(Source(DATA[:50], 7), size)
            self.assertEqual(
                [DATA[at : min(at + size, 50)] for at in range(0, 50, size)],
                list(chunks),
            )

    def test_two_green_threads_get_everything_once(self):
        # Nothing is promised about sharing these, but an error: so none of
        # the two can go on with bytes of the other, or leave some out.
        self.useFixture(base.Hub())

        class Green(base.Reading):
            def read(self, size):
                answer = super().read(size)
                eventlet.sleep(0)
                return answer

        chunks = utils.chunkiter(Green(DATA, 10), 25)
        got, refused = [], []

        def run():
            while True:
                try:
                    got.append(next(chunks))
                except StopIteration:
                    return
                except RuntimeError as exc:
                    refused.append(exc)
                    eventlet.sleep(0)

        for thread in [eventlet.spawn(run) for _ in range(2)]:
            thread.wait()
        self.assertNotEqual([], refused)
        self.assertEqual(DATA, b''.join(got))

    def test_whole_chunks_are_not_copied(self):
        whole = [bytes(100), bytes(100)]
        fp = base.Answering(*whole, b'')
        for chunk, read in zip(utils.chunkiter(fp, 100), whole, strict=True):
            self.assertIs(read, chunk)

    def test_memory_of_a_stream_does_not_grow(self):
        class Zeros:
            left = 10000

            def read(self, size):
                self.left -= 1
                return bytes(size - self.left % 2) if self.left > 0 else b''

        chunks = utils.chunkiter(Zeros(), 4096)
        next(chunks)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in chunks:
            pass
        self.assertLess(tracemalloc.get_traced_memory()[1], 8 * 4096)

    def test_memory_of_one_chunk_of_many_reads(self):
        size = 2**20
        fp = base.Reading(memoryview(bytes(2 * size)), 1000)
        fp.data, fp.calls = bytes(fp.data), collections.deque(maxlen=1)
        chunks = utils.chunkiter(fp, size)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        next(chunks)
        self.assertLess(tracemalloc.get_traced_memory()[1], 1.25 * size)


class TestChunkreadable(base.TestCase):
    def test_file_like_goes_through_chunkiter(self):
        fp = base.Reading(b'abcdefgh', 2)
        chunks = utils.chunkreadable(fp, 3)
        self.assertEqual([], fp.calls)
        self.assertEqual([b'abc', b'def', b'gh'], list(chunks))
        self.assertEqual(0, fp.closed)

    def test_readable_file_that_iterates_by_lines(self):
        fp = io.BytesIO(b'a\nb\nc\n')
        self.assertEqual(
            [b'a\nb\n', b'c\n'],
            list(utils.chunkreadable(iter=fp, chunk_size=4)),
        )

    def test_default_chunk_size(self):
        chunks = utils.chunkreadable(io.BytesIO(bytes(150000)))
        self.assertEqual([65536, 65536, 18928], [len(c) for c in chunks])

    def test_anything_else_is_the_very_same_object(self):
        fetching = base.Fetching(b'a')
        for val in (
            [b'a'],
            (b'a',),
            b'abc',
            'abc',
            {},
            (c for c in b'abc'),
            fetching,
            None,
            5,
            object(),
        ):
            self.assertIs(val, utils.chunkreadable(val))
            self.assertIs(val, utils.chunkreadable(val, 2))
        self.assertEqual(0, fetching.fetched)
