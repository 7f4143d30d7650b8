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


"""``CooperativeReader`` over a file-like and over an iterable."""

from collections.abc import Callable
from collections.abc import Iterator
import functools
import io
import tempfile
from typing import Any

from eventlet import wsgi
import fixtures

from glance_store.common import utils
from glance_store.tests.unit import base
from glance_store.tests.unit import test_names

LINES = b'a line\nof seven \nand more' * 40
SIZE = 64

Answering = test_names.Answering


class Wrapper(test_names.Closing):
    """A file-like over an iterator: its ``read`` cannot work."""

    def read(self, size: int = -1) -> bytes:
        raise AttributeError('an iterator has no read')


class FileTestCase(base.TestCase):
    def test_length_by_name_and_by_way_of_the_class(self) -> None:
        for fd in io.BytesIO(b'abcdef'), [b'abcdef']:
            reader = utils.CooperativeReader(fd)
            self.assertEqual(b'a', reader.read(length=1))
            self.assertEqual(b'b', utils.CooperativeReader.read(reader, 1))
            self.assertEqual(
                b'c', utils.CooperativeReader.read(reader, length=1)
            )
            self.assertEqual(b'def', utils.CooperativeReader.read(reader))
            self.assertEqual(b'', reader.read(length=None))
        odd = Answering()
        utils.CooperativeReader.read(utils.CooperativeReader(odd))
        self.assertEqual([((), {})], odd.calls)  # None may be no size

    def files(self) -> Iterator[Any]:
        """Return each kind of file over LINES."""
        path = self.useFixture(fixtures.TempDir()).join('image')
        with open(path, 'wb') as out:
            out.write(LINES)
        for mode, buffering in ('rb', -1), ('rb', 0), ('r', -1), ('r+b', -1):
            with open(path, mode, buffering) as file:
                yield file
        yield io.BytesIO(LINES)
        yield io.StringIO(LINES.decode())
        for temporary in (
            tempfile.NamedTemporaryFile(),
            tempfile.SpooledTemporaryFile(),
            tempfile.SpooledTemporaryFile(max_size=1),
        ):
            with temporary:
                temporary.write(LINES)
                temporary.seek(0)
                yield temporary
        yield wsgi.Input(io.BytesIO(LINES), len(LINES), None)
        # It has no lines, and cannot be iterated at all.
        yield test_names.Short(io.BytesIO(LINES), SIZE)

    def test_iterates_by_chunks(self) -> None:
        self.configure(default_chunk_size=SIZE)
        for file in self.files():
            chunks = list(utils.CooperativeReader[Any](file))
            text = isinstance(chunks[0], str)
            data = LINES.decode() if text else LINES
            self.assertEqual(test_names.slices(data, SIZE), chunks, file)

    def test_iterates_as_it_stands(self) -> None:
        items = [b'a', b'', None, 'text', object()]
        source = Wrapper(*items)
        reader = utils.CooperativeReader[Any](source)
        self.assertEqual(items[0], next(reader))
        self.assertRaises(AttributeError, reader.read)
        self.assertEqual(items[1:], list(reader))
        reader.close()
        reader.close()
        self.assertEqual(['iterator', 'source'], source.closed)

    def test_one_position(self) -> None:
        self.configure(default_chunk_size=4)
        reader = utils.CooperativeReader(io.BytesIO(b'abcdefghi'))
        self.assertEqual([b'a', b'bcde'], [reader.read(1), next(iter(reader))])
        self.assertEqual([b'f', b'ghi'], [reader.read(1), *reader])
        self.assertEqual(b'', reader.read())

    def test_iterating_one_that_answers_oddly(self) -> None:
        fd = Answering(b'a', None, StopIteration(), OSError('gone'), b'b')
        reader = utils.CooperativeReader[bytes](fd)
        self.assertEqual(b'a', next(reader))
        for error in BlockingIOError, RuntimeError, OSError:
            exc = self.assertRaises(error, next, reader)
            if error is not OSError:
                self.assertIn('fd', str(exc))
        self.assertEqual([b'b'], list(reader))

    def test_close(self) -> None:
        for fd in self.files():
            reader = utils.CooperativeReader[Any](fd)
            reader.close()
            reader.close()
            if hasattr(fd, 'close'):
                self.assertRaises(ValueError, reader.read)


class IterableTestCase(base.TestCase):
    def reader(self, *chunks: Any) -> utils.CooperativeReader[Any]:
        return utils.CooperativeReader(test_names.answering(*chunks))

    def test_read_of_the_next_chunk(self) -> None:
        for args in (), (None,):
            reader = self.reader(b'', b'abc', b'', bytearray(), b'defg', b'')
            got = [reader.read(*args) for _ in range(4)]
            # Empty at the end only.
            self.assertEqual([b'abc', b'defg', b'', b''], got)

    def test_exact_read(self) -> None:
        data = test_names.DATA
        chunks = [b'', data[:3], data[3:4], b'', data[4:500], data[500:], b'']
        for size in 1, 2, 3, 4, 7, 100, 499, 500, 501, 1023, 1024, 1025:
            reader = self.reader(*chunks)
            got = [*iter(functools.partial(reader.read, size), b'')]
            self.assertEqual(test_names.slices(data, size), got)
            self.assertEqual([b''] * 2, [reader.read(size), reader.read()])
        for size in -1, -5, 2**63, 2**64, 10**30:
            reader = self.reader(*chunks)
            reader.read(5)
            self.assertEqual(data[5:], reader.read(size))
            self.assertEqual(b'', reader.read(size))

    def test_read_zero(self) -> None:
        reader = self.reader(OSError('asked'), b'abc')
        self.assertEqual(b'', reader.read(0))
        self.assertRaises(OSError, reader.read)
        self.assertEqual(b'a', reader.read(1))
        self.assertEqual(b'', reader.read(0))
        self.assertEqual(b'bc', reader.read())

    def test_any_kind_of_bytes(self) -> None:
        for chunk in (
            bytearray(b'abcd'),
            memoryview(b'xabcdx')[1:5],
            memoryview(b'a.b.c.d.')[::2],
            memoryview(b'abcd').cast('H'),
            memoryview(b'abcd').cast('B', (2, 2)),
        ):
            for args, wanted in (
                ((), [b'abcd', b'']),
                ((3,), [b'abc', b'd', b'']),
                ((4,), [b'abcd', b'']),
                ((-1,), [b'abcd', b'']),
            ):
                reader = self.reader(chunk)
                got = [reader.read(*args) for _ in wanted]
                self.assertEqual(wanted, got)
                self.assertEqual({bytes}, set(map(type, got)))
            got = [*self.reader(b'', chunk, chunk)]
            self.assertEqual([b'abcd', b'abcd'], got)
            self.assertEqual([bytes, bytes], [*map(type, got)])

    def test_source_may_reuse_its_buffer(self) -> None:
        def source(view: bool) -> Iterator[Any]:
            buffer = bytearray()
            for size in 5, 1, 9:
                # Its size cannot change while a view of it is held.
                buffer = bytearray(9) if view else buffer
                buffer[:] = bytes(range(65, 65 + size))
                yield memoryview(buffer) if view else buffer
                buffer[:] = b'x' * len(buffer)

        data = b'ABCDEAABCDEFGHI'
        reads: list[Callable[[Any], list[bytes]]] = [
            list,
            lambda reader: [reader.read() for _ in '123'],
            lambda reader: [reader.read(7), reader.read(8)],
            lambda reader: [reader.read(-1)],
            lambda reader: [reader.read(1), reader.read(), reader.read(10)],
        ]
        for view in False, True:
            for read in reads:
                reader = utils.CooperativeReader[bytes](source(view))
                self.assertEqual(data, b''.join(read(reader)))

    def test_text(self) -> None:
        reader = self.reader('', 'äbc', '', 'd\r\n\r', '\N{ROCKET}f')
        self.assertEqual(['ä', 'bc'], [reader.read(1), reader.read()])
        self.assertEqual('d\r\n\r\N{ROCKET}', reader.read(5))
        self.assertEqual(['f'], list(reader))
        self.assertEqual(['', '', ''], [reader.read(n) for n in (None, 1, 0)])

    def test_chunk_of_another_type(self) -> None:
        others: list[Any] = [None, 0, 5, [b'a'], (), object()]
        cases: list[Any] = [(b'ab', other) for other in [*others, 'secret']]
        cases += [('ab', other) for other in [*others, b'secret']]
        for before, other in cases:
            reader = self.reader(before, other, before)
            self.assertRaises(TypeError, reader.read, 4)
            # What was gathered is there, and no later call passes over it.
            self.assertEqual(before, reader.read())
            for step in (reader.read, reader.__next__) * 2:
                exc = self.assertRaises(TypeError, step)
                kinds = type(before).__name__, type(other).__name__
                wanted = 'a chunk of fd must be {}, not {}'.format(*kinds)
                self.assertEqual(wanted, str(exc))
        for other in others:
            for args in (), (1,), (-1,):
                reader = self.reader(b'', other)
                for _ in '12':
                    exc = self.assertRaises(TypeError, reader.read, *args)
                    self.assertIn(' must be bytes or str, not ', str(exc))

    def test_released_memoryview(self) -> None:
        view = memoryview(b'secret')
        view.release()
        for step in utils.CooperativeReader.__next__, lambda r: r.read(3):
            reader = self.reader(b'a', view, b'b')
            self.assertEqual(b'a', reader.read())
            for _ in '123':
                self.assertRaises(ValueError, step, reader)

    def test_one_position(self) -> None:
        reader = self.reader(b'abcd', b'', b'efgh', b'ijkl', b'mnop')
        self.assertEqual([b'ab', b'cd'], [reader.read(2), next(reader)])
        self.assertEqual([b'efgh', b'ijk'], [reader.read(), reader.read(3)])
        self.assertEqual([b'lm', b'nop'], [reader.read(2), next(iter(reader))])
        self.assertEqual([], list(reader))
        self.assertEqual(b'', reader.read())

    def test_exception_loses_nothing(self) -> None:
        error = OSError('flaky')
        # What the next calls get of b'abc' and b'def', after a read(5) that
        # had gathered b'abc'.
        for sizes in [5, 1], [2, 2, 2], [None, None], [3, 3], [-1], [0, 6]:
            reader = self.reader(b'abc', error, b'def')
            self.assertIs(error, self.assertRaises(OSError, reader.read, 5))
            got = [reader.read(size) for size in sizes]
            self.assertEqual(b'abcdef', b''.join(got))
            for size, answer in zip(sizes, got, strict=True):
                self.assertIn(size, (None, -1, len(answer)))

    def test_part_of_a_chunk_that_finds_no_memory(self) -> None:
        def scarce(kind: Any) -> Any:
            class Scarce(kind):
                errors = [MemoryError()]

                def __getitem__(self, key: Any) -> Any:
                    if self.errors:
                        raise self.errors.pop()
                    return super().__getitem__(key)

            return Scarce

        reader = self.reader(b'abc', scarce(bytes)(b'defgh'))
        self.assertRaises(MemoryError, reader.read, 5)
        self.assertEqual([b'a', b'bcdefgh'], [reader.read(1), reader.read(-1)])
        # Text is refused from then on.
        reader = self.reader('abc', scarce(str)('defgh'))
        self.assertRaises(MemoryError, reader.read, 5)
        for size in 1, -1:
            self.assertRaises(ValueError, reader.read, size)

    def test_read_of_a_closed_reader(self) -> None:
        reader = self.reader(b'abc', b'def')
        reader.read(2)
        reader.close()
        reader.close()
        # Not the end of an image.
        for step in reader.read, lambda: reader.read(1), reader.__next__:
            exc = self.assertRaises(ValueError, step)
            self.assertIn('closed', str(exc))
