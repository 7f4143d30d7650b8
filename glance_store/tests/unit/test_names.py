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


"""The documented names, except ``CooperativeReader``."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import errno
import io
import os
import re
from typing import Any
import uuid

import eventlet
import fixtures
import greenlet

from glance_store.common import utils
from glance_store.tests.unit import base

DATA = bytes(range(256)) * 4
TEXT = ''.join(map(chr, range(200, 1200)))


class Answering:
    """A file-like that gives prepared answers, raises the exceptions, ends."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[Any] = []

    def read(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        return _give(self.answers.pop(0)) if self.answers else b''


class Short:
    """A file-like whose answers are short, as those of a slow socket."""

    def __init__(self, file: Any, most: int) -> None:
        self.file = file
        self.most = most

    def read(self, size: int) -> Any:
        return self.file.read(min(size, self.most))


def _give(answer: Any) -> Any:
    if isinstance(answer, BaseException):
        raise answer
    return answer


def answering(*answers: Any) -> Iterator[Any]:
    """Return an iterator that goes on after it raised."""
    return map(_give, answers)


def slices(data: Any, size: int) -> list[Any]:
    return [data[at : at + size] for at in range(0, len(data), size)]


class IsUuidLikeTestCase(base.TestCase):
    UUID = 'b6dc0ed4-8b3f-4e4c-a9a5-3f4b3d7d4a1e'

    def test_canonical_form(self) -> None:
        for val in (self.UUID, str(uuid.uuid1()), str(uuid.UUID(int=0))):
            self.assertIs(True, utils.is_uuid_like(val), val)

    def test_each_place(self) -> None:
        for place in range(len(self.UUID)):
            for other in '0fgF-_ \n\N{FULLWIDTH DIGIT FOUR}':
                val = self.UUID[:place] + other + self.UUID[place + 1 :]
                canonical = re.sub('[0-9a-f]', '0', val) == str(
                    uuid.UUID(int=0)
                )
                self.assertIs(canonical, utils.is_uuid_like(val), val)

    def test_everything_else(self) -> None:
        values: tuple[Any, ...] = (
            *('', self.UUID[1:], self.UUID + '0', self.UUID + '\n'),
            *(f' {self.UUID}', f'{{{self.UUID}}}', f'urn:uuid:{self.UUID}'),
            *(self.UUID.upper(), self.UUID.replace('-', ''), self.UUID * 2),
            *(None, True, 0, 1.5, [self.UUID], {self.UUID}, object(), str),
            *(self.UUID.encode(), uuid.UUID(self.UUID), iter(self.UUID)),
        )
        for val in values:
            self.assertIs(False, utils.is_uuid_like(val), val)


class ChunkiterTestCase(base.TestCase):
    def test_exact_over_short_reads(self) -> None:
        for file, data in (io.BytesIO(DATA), DATA), (io.StringIO(TEXT), TEXT):
            for most in 1, 3, 7, 100:
                for size in 1, 5, 100, 101, len(data), len(data) // 2, 10**6:
                    file.seek(0)
                    chunks = utils.chunkiter(Short(file, most), size)
                    self.assertEqual(slices(data, size), list(chunks))

    def test_exact_over_any_answers(self) -> None:
        for answers in (
            [b'abcdefgh', b'ij', ''],
            [b'a', b'bcdefghij', bytearray()],
            [bytearray(b'ab'), memoryview(b'cdefgh').cast('H'), b'ij'],
        ):
            chunks = utils.chunkiter(Answering(*answers), 4)
            self.assertEqual([b'abcd', b'efgh', b'ij'], list(chunks))

    def test_one_chunk_at_a_time(self) -> None:
        fp = Answering(b'ab', b'cd', b'efgh')
        chunks = utils.chunkiter(fp=fp, chunk_size=3)
        self.assertIs(chunks, iter(chunks))
        self.assertEqual([], fp.calls)
        self.assertEqual(b'abc', next(chunks))
        # Never more than is missing, so that the rest stays in the source.
        self.assertEqual([((3,), {}), ((1,), {})], fp.calls)

    def test_none_is_not_the_end(self) -> None:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        with open(reading, 'rb', buffering=0) as fp:
            chunks = utils.chunkiter(fp, 4)
            with open(writing, 'wb', buffering=0) as out:
                for data in b'', b'abcdef', b'g':
                    out.write(data)
                    if len(data) >= 4:
                        self.assertEqual(b'abcd', next(chunks))
                    exc = self.assertRaises(BlockingIOError, next, chunks)
                    self.assertEqual(errno.EAGAIN, exc.errno)
                    self.assertIn('fp.read() ', str(exc))
                out.write(b'h')
            self.assertEqual([b'efgh'], list(chunks))

    def test_goes_on_after_an_exception(self) -> None:
        for error in OSError('flaky'), KeyboardInterrupt(), GeneratorExit():
            fp = Answering(b'ab', error, b'c', error, b'd', error)
            chunks = utils.chunkiter(fp, 3)
            self.assertIs(error, self.assertRaises(type(error), next, chunks))
            self.assertEqual(b'abc', next(chunks))
            for _ in '12':
                self.assertRaises(type(error), next, chunks)
            self.assertEqual([b'd'], list(chunks))

    def test_stop_iteration_inside_read_is_not_the_end(self) -> None:
        chunks = utils.chunkiter(Answering(b'ab', StopIteration(), b'cd'), 3)
        exc = self.assertRaises(RuntimeError, next, chunks)
        self.assertIn('fp.read', str(exc))
        self.assertEqual([b'abc', b'd'], list(chunks))

    def test_answer_of_another_type(self) -> None:
        cases: list[tuple[Any, Any]] = [('ab', b'cd'), ('ab', 0)]
        others: list[Any] = [5, [b'a'], (), False, {}, 'cd']
        cases += [(b'ab', other) for other in others]
        for first, other in cases:
            for make, parameter in (
                (utils.chunkiter, 'fp'),
                (utils.chunkreadable, 'iter'),
            ):
                chunks = make(Answering(first, other, first, first), 4)
                # No later call passes over it.
                for _ in '123':
                    exc = self.assertRaises(TypeError, next, chunks)
                    self.assertIn(type(other).__name__, str(exc))
                    self.assertIn(parameter, str(exc))

    def test_end_is_the_end(self) -> None:
        path = self.useFixture(fixtures.TempDir()).join('image')
        for data in b'abcdef', b'abcde', b'':
            with open(path, 'w+b') as fp, open(path, 'ab') as out:
                fp.write(data)
                fp.seek(0)
                chunks = utils.chunkiter(fp, 3)
                self.assertEqual(slices(data, 3), list(chunks))
                out.write(b'more')
                out.flush()
                self.assertEqual([], list(chunks))

    def test_fp_is_not_closed(self) -> None:
        fp = io.BytesIO(DATA)
        list(utils.chunkiter(fp, 100))
        self.assertFalse(fp.closed)


class ChunkreadableTestCase(base.TestCase):
    def test_file_like_goes_by_chunks(self) -> None:
        chunks = utils.chunkreadable(iter=io.BytesIO(b'a\nb\nc'), chunk_size=4)
        self.assertEqual([b'a\nb\n', b'c'], list(chunks))

    def test_anything_else_is_the_very_same_object(self) -> None:
        for val in [b'a'], b'abc', 'abc', {}, iter([]), None, 5, object():
            self.assertIs(val, utils.chunkreadable(val))
            self.assertIs(val, utils.chunkreadable(val, 0))


class Closing:
    """An iterable with an iterator of its own; both count their closes."""

    def __init__(self, *items: Any) -> None:
        self.items = answering(*items)
        self.closed: list[str] = []

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.items
        finally:
            self.closed.append('iterator')

    def close(self) -> None:
        self.closed.append('source')


class CooperativeIterTestCase(base.TestCase):
    def test_items_unchanged(self) -> None:
        items = [b'a', b'', '', None, 0, False, [], object(), NotImplemented]
        items += [bytearray(b'x'), StopIteration, StopIteration(), OSError()]
        for wanted in items, []:
            got = list(utils.cooperative_iter(iter=wanted))
            self.assertEqual(list(map(id, wanted)), list(map(id, got)))

    def test_one_item_at_a_time(self) -> None:
        fetched: list[int] = []
        stream = utils.cooperative_iter(map(fetched.append, range(3)))
        for number in range(3):
            self.assertEqual(number, len(fetched))
            next(stream)

    def test_exception_passes(self) -> None:
        for error in (
            *(OSError('gone'), ValueError(b'data'), KeyboardInterrupt()),
            *(greenlet.GreenletExit(), GeneratorExit()),
        ):
            stream = utils.cooperative_iter(answering(b'a', error, b'b'))
            self.assertEqual(b'a', next(stream))
            self.assertIs(error, self.assertRaises(type(error), next, stream))
            # The source went on, so its end is clean.
            self.assertEqual([b'b'], list(stream))
        # Whatever handles it logs it: a handler could switch with it in hand.
        self.assertEqual('', self.logger.output)

    def test_failed_never_looks_complete(self) -> None:
        for error in OSError('gone'), greenlet.GreenletExit():
            source = answering(b'a', error)
            for step in (
                utils.cooperative_iter(part for part in source).__next__,
                utils.CooperativeReader(Closing(b'a', error)).__next__,
                utils.CooperativeReader(Closing(b'a', error)).read,
            ):
                self.assertEqual(b'a', step())
                self.assertRaises(type(error), step)
                for _ in '123':
                    exc = self.assertRaises(RuntimeError, step)
                    self.assertIs(error, exc.__cause__)

    def test_stream_over_a_stream(self) -> None:
        # The inner one tells whether its source went on.
        chunks = utils.chunkiter(Answering(b'ab', None), 2)
        stream = utils.cooperative_iter(chunks)
        self.assertEqual(b'ab', next(stream))
        self.assertRaises(BlockingIOError, next, stream)
        self.assertEqual([], list(stream))
        for make in utils.cooperative_iter, utils.CooperativeReader:
            stream = utils.cooperative_iter(make(Closing(b'a', OSError())))
            self.assertEqual(b'a', next(stream))
            for error in OSError, RuntimeError, RuntimeError:
                self.assertRaises(error, next, stream)

    def test_close_closes_the_source_and_its_iterator(self) -> None:
        for make in utils.cooperative_iter, utils.CooperativeReader:
            for taken in range(4):
                source = Closing(b'a', b'b')
                stream = make(source)
                for _ in range(taken):
                    next(stream, None)
                stream.close()
                closed = sorted(source.closed)
                self.assertIn('source', closed)
                self.assertEqual(bool(taken), 'iterator' in closed)
                stream.close()
                self.assertEqual(closed, sorted(source.closed))
                # A part of an image does not end here.
                self.assertRaises(ValueError, next, stream)

    def test_close_in_the_middle_of_a_fetch(self) -> None:
        """A close that raises is no end either."""

        class Source(Closing):
            def __iter__(self) -> Iterator[Any]:
                return self

            def __next__(self) -> Any:
                with contextlib.suppress(OSError):
                    stream.close()
                raise StopIteration

        for make in utils.cooperative_iter, utils.CooperativeReader:
            for outcome in None, OSError('busy'):
                source = Source()
                source.close = answering(outcome).__next__  # type: ignore
                stream = make(source)
                for _ in '12':
                    self.assertRaises(ValueError, next, stream)

    def test_close_where_there_is_none(self) -> None:
        for make in utils.cooperative_iter, utils.CooperativeReader:
            make([b'a']).close()
            make(answering(b'a')).close()

    def test_close_that_raises_can_be_repeated(self) -> None:
        for make in utils.cooperative_iter, utils.CooperativeReader:
            closes = answering(OSError('busy'), KeyboardInterrupt(), None)
            source = Closing(b'a')
            source.close = closes.__next__  # type: ignore
            stream = make(source)
            self.assertRaises(OSError, stream.close)
            self.assertRaises(KeyboardInterrupt, stream.close)
            stream.close()
            stream.close()

    def test_close_goes_on_to_the_source(self) -> None:
        class Source(Closing):
            def __iter__(self) -> Iterator[Any]:
                try:
                    yield b'a'
                finally:
                    raise OSError('busy')

        for make in utils.cooperative_iter, utils.CooperativeReader:
            source = Source()
            stream = make(source)
            next(stream)
            self.assertRaises(OSError, stream.close)
            self.assertEqual(['source'], source.closed)


class CooperativeReadTestCase(base.TestCase):
    def test_passes_its_arguments(self) -> None:
        answers = [b'abc', b'', None, 'text', object(), b'end']
        calls: list[Any] = [((), {}), ((10,), {}), ((None,), {})]
        calls += [((), {'size': 5}), ((-1,), {'more': 1}), (('5', 6), {})]
        for over in False, True:
            fd = Answering(*answers, OSError('gone'))
            read = utils.cooperative_read(fd=fd)
            if over:
                read = utils.CooperativeReader[Any](fd=fd).read
            for answer, (args, kwargs) in zip(answers, calls, strict=True):
                self.assertIs(answer, read(*args, **kwargs))
            self.assertRaises(OSError, read)
            self.assertEqual([*calls, ((), {})], fd.calls)


class SharedTestCase(base.HubTestCase):
    """Two green threads that share one stream."""

    def share(self, step: Callable[[], Any]) -> list[list[Any]]:
        """Return what each got, and the error that ended it."""
        got: list[list[Any]] = [[], []]

        def run(mine: list[Any]) -> None:
            try:
                while answer := step():
                    mine.append(answer)
            except Exception as exc:
                mine.append(exc)

        for thread in [eventlet.spawn(run, mine) for mine in got]:
            thread.wait()
        return got

    def test_each_gets_whole_answers(self) -> None:
        parts = slices(DATA, 4)
        read = utils.cooperative_read(io.BytesIO(DATA))
        stream = utils.cooperative_iter(iter(parts))
        for step in lambda: read(4), lambda: next(stream, None):
            first, second = self.share(step)
            self.assertEqual(sorted(parts), sorted(first + second))
            self.assertEqual(len(first), len(second))

    def test_source_that_switches_has_its_own_error(self) -> None:
        def source() -> Iterator[bytes]:
            eventlet.sleep(0)
            eventlet.sleep(0)
            yield b'abc'

        first, second = self.share(utils.cooperative_iter(source()).__next__)
        self.assertEqual(b'abc', first[0])
        self.assertIn('already executing', str(second[0]))

    def test_gathering_refuses_another_call(self) -> None:
        class Switching(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                eventlet.sleep(0)
                return super().read(2)

        def read(*args: int) -> Callable[[], Any]:
            reader = utils.CooperativeReader(slices(DATA[:16], 2))
            return lambda: reader.read(*args)

        for step in (
            utils.chunkiter(Switching(DATA[:16]), 8).__next__,
            utils.CooperativeReader(slices(DATA[:16], 2)).__next__,
            *(read(), read(8), read(-1)),
        ):
            first, second = self.share(step)
            self.assertIsInstance(second.pop(), RuntimeError)
            self.assertEqual([], second)
            # The refused call touched nothing.
            if isinstance(first[-1], StopIteration):
                first.pop()
            self.assertEqual(DATA[:16], b''.join(first))


class Attribute:
    """An object that has this attribute, and nothing else."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


NEITHER: tuple[Any, ...] = (
    None,
    True,
    5,
    1.5,
    object(),
    len,
    Attribute(close=len),
)
NO_FILE: tuple[Any, ...] = (
    *NEITHER,
    [b'a'],
    b'abc',
    '/image',
    {},
    Attribute(read=b'abc'),
)
NO_SIZE = ('5', b'5', 5.0, 5j, True, False, [5], object())


class BadInputTestCase(base.TestCase):
    """Each bad value is refused at the call, by the name of its parameter."""

    def assertRefused(
        self, error: type[Exception], parameter: str, val: Any, call: Any
    ) -> None:
        exc = self.assertRaises(error, call)
        self.assertTrue(str(exc).startswith(f'{parameter} must '), str(exc))
        shown = type(val).__name__ if error is TypeError else str(val)
        self.assertIn(shown, str(exc))

    def test_sources(self) -> None:
        call: Callable[[Any], Any]
        for call, parameter, values in (
            (utils.chunkiter, 'fp', NO_FILE),
            (utils.chunkreadable, 'iter', NO_FILE[-1:]),
            (utils.cooperative_read, 'fd', NO_FILE),
            (utils.cooperative_iter, 'iter', NEITHER),
            (utils.CooperativeReader, 'fd', NEITHER),
        ):
            for val in values:
                self.assertRefused(
                    TypeError, parameter, val, lambda c=call, v=val: c(v)
                )

    def test_sizes(self) -> None:
        fp = Answering(b'abc')
        for error, values in (
            (TypeError, (*NO_SIZE, None)),
            (ValueError, (0, -1, -65536, -(2**64))),
        ):
            for val in values:
                for call in (
                    lambda v=val: utils.chunkiter(fp, v),
                    lambda v=val: utils.chunkiter(fp, chunk_size=v),
                    lambda v=val: utils.chunkreadable(fp, v),
                ):
                    self.assertRefused(error, 'chunk_size', val, call)
        self.assertEqual([], fp.calls)

    def test_lengths(self) -> None:
        reader = utils.CooperativeReader([b'abc', b'def'])
        for val in NO_SIZE:
            self.assertRefused(
                TypeError, 'length', val, lambda v=val: reader.read(v)
            )
        self.assertEqual(b'abcde', reader.read(5))
