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

"""Bad input gets a clear error at once, and nothing is lost by it.

The error names the parameter and the type of the value, or the value where
that is out of range. What a source itself raises comes out as it is.
"""

import decimal
import fractions
import inspect
import io
import math
import os
import sys
import tempfile

import fixtures
import hypothesis
from hypothesis import strategies
from oslo_config import cfg

from glance_store.common import opts
from glance_store.common import utils
from glance_store.tests.unit import base

HUGE = 10**5000  # more digits than Python writes out


class Index:
    """An integer as numpy's are: of a type of its own."""

    def __init__(self, answer):
        self.answer = answer

    def __index__(self):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class IntLike:
    """What int() takes, and operator.index() does not."""

    def __int__(self):
        return 5

    __float__ = __trunc__ = __int__


def raising(error):
    """Return a property that raises."""

    def get(self):
        raise error

    return property(get)


def with_attributes(**attributes):
    """Return an instance of a class that has these and nothing else."""
    return type('Source', (), attributes)()


def will_not(self):
    raise TypeError('will not')


def pretending(kind):
    """Return what says that it is of a class which it is not."""
    return with_attributes(__class__=kind)


class Hostile:
    """Raises whatever is asked of it."""

    def _refuse(self, *args, **kwargs):
        raise base.Interrupted

    __str__ = __repr__ = __len__ = __eq__ = __bool__ = __format__ = _refuse
    __hash__ = __bytes__ = __ge__ = __lt__ = _refuse


NO_INTEGERS = {
    'text': '65536',
    'empty': '',
    'bytes': b'1',
    'bool': True,
    'false': False,
    'float': 65536.0,
    'nan': math.nan,
    'inf': math.inf,
    'complex': 3 + 0j,
    'decimal': decimal.Decimal(1),
    'fraction': fractions.Fraction(4, 2),
    'list': [1],
    'dict': {1: 1},
    'range': range(5),
    'slice': slice(5),
    'class': int,
    'function': len,
    'int-like': IntLike(),
    'index that is text': Index('5'),
    'index that is a float': Index(5.0),
    'index that is none': Index(None),
    'index that will not': Index(TypeError('will not')),
    'no index': with_attributes(__index__=None),
    'pretended': pretending(int),
    'hostile': Hostile(),
    'ellipsis': ...,
}

# What neither reads nor iterates.
NOTHING = {
    'none': None,
    'bool': True,
    'int': 5,
    'descriptor': 0,
    'huge': HUGE,
    'float': 1.5,
    'nan': math.nan,
    'object': object(),
    'class': object,
    'generator function': lambda: (yield),
    'function': len,
    'module': sys,
    'hostile': Hostile(),
    'read that is none': with_attributes(read=None),
    'read that is data': with_attributes(read=b'abc'),
    'read that is not there': with_attributes(read=raising(AttributeError())),
    'iter that is none': with_attributes(__iter__=None, __getitem__=len),
    'iter that is no iterator': with_attributes(__iter__=lambda self: [1]),
    'iter that takes nothing': with_attributes(__iter__=lambda: iter([])),
    'iter that will not': with_attributes(__iter__=will_not),
    'iterator without iter': with_attributes(__next__=lambda self: b'a'),
    'pretended': pretending(list),
    'pretended file': pretending(io.BytesIO),
    'file that is a class': io.BytesIO,
    'source that is a class': base.Reading,
    'type with an odd name': type('a\nb', (), {})(),
}


class TestSizes(base.TestCase):
    """``chunk_size`` and ``length``."""

    def refusals(self, error, size, name):
        """Return the messages of whatever takes such a size."""
        for call in (utils.chunkiter, utils.chunkreadable):
            for args, kwargs in (([size], {}), ([], {'chunk_size': size})):
                fp = base.Reading(b'abc')
                with self.tally.case('bad input: sizes'):
                    exc = self.assertRaises(error, call, fp, *args, **kwargs)
                    self.assertEqual([], fp.calls, name)
                    self.assertIn('chunk_size', str(exc))
                yield str(exc)

    def test_of_the_wrong_type(self):
        for name, size in {**NO_INTEGERS, 'none': None}.items():
            for message in self.refusals(TypeError, size, name):
                self.assertIn(type(size).__name__, message)

    def test_length_of_the_wrong_type(self):
        for name, length in NO_INTEGERS.items():
            source = base.Fetching(b'abc')
            reader = utils.CooperativeReader(source)
            for args, kwargs in (([length], {}), ([], {'length': length})):
                with self.tally.case('bad input: sizes'):
                    exc = self.assertRaises(
                        TypeError, reader.read, *args, **kwargs
                    )
                    self.assertIn('length', str(exc), name)
                    self.assertIn(type(length).__name__, str(exc), name)
                    self.assertEqual(0, source.fetched)
            self.assertEqual(b'abc', reader.read(5))

    def test_length_of_the_wrong_type_in_the_middle(self):
        for name, length in NO_INTEGERS.items():
            with self.tally.case('bad input: sizes'):
                reader = utils.CooperativeReader([b'abc', b'def'])
                self.assertEqual(b'a', reader.read(1))
                self.assertRaises(TypeError, reader.read, length)
                self.assertEqual(b'bcde', reader.read(4), name)
                self.assertRaises(TypeError, reader.read, length)
                self.assertEqual(b'f', reader.read(), name)

    def test_below_1(self):
        least = -sys.maxsize
        for size in (0, -1, -65536, least, least - 1, -(2**64), Index(-3)):
            for message in self.refusals(ValueError, size, size):
                number = getattr(size, 'answer', size)
                shown = number if number >= least else f'below {least}'
                self.assertEqual(
                    f'chunk_size must be at least 1, not {shown}', message
                )
        for message in self.refusals(ValueError, -HUGE, 'huge'):
            self.assertIn('at least 1', message)

    def test_what_is_an_integer(self):
        class Number(int):
            __index__ = __lt__ = __gt__ = __eq__ = Hostile._refuse
            __sub__ = __str__ = __repr__ = __hash__ = Hostile._refuse

        for size in (5, Index(5), Number(5)):
            with self.tally.case('bad input: sizes that are none'):
                self.assertEqual(
                    [b'abcde', b'f'],
                    list(utils.chunkiter(io.BytesIO(b'abcdef'), size)),
                )
                reader = utils.CooperativeReader([b'abc', b'def'])
                self.assertEqual(b'abcde', reader.read(size))
        for size in (2**31, 2**64, HUGE):
            with self.tally.case('bad input: sizes that are none'):
                fp = base.Reading(b'abcdef', 2)
                self.assertEqual([b'abcdef'], list(utils.chunkiter(fp, size)))
                for length in (size, -size):
                    reader = utils.CooperativeReader([b'abc', b'def'])
                    self.assertEqual(b'abcdef', reader.read(length))

    def test_size_that_fails_by_itself(self):
        for error in (base.Interrupted(), ZeroDivisionError(), SystemExit()):
            with self.tally.case('bad input: errors of their own'):
                fp = base.Reading(b'abc')
                for call in (
                    lambda fp=fp, e=error: utils.chunkiter(fp, Index(e)),
                    lambda fp=fp, e=error: utils.chunkreadable(fp, Index(e)),
                    lambda e=error: utils.CooperativeReader([]).read(Index(e)),
                ):
                    self.assertIs(error, self.assertRaises(type(error), call))
                self.assertEqual([], fp.calls)

    def test_reason_is_kept(self):
        error = TypeError('will not')
        exc = self.assertRaises(
            TypeError, utils.chunkiter, io.BytesIO(), Index(error)
        )
        self.assertIs(error, exc.__cause__)

    @base.EXAMPLES
    @hypothesis.given(
        strategies.from_type(object).filter(
            lambda value: not isinstance(value, int)
        )
    )
    def test_anything(self, size):
        hypothesis.assume(not hasattr(size, '__index__'))
        with self.tally.case('bad input: sizes made up'):
            exc = self.assertRaises(
                TypeError, utils.chunkiter, io.BytesIO(), size
            )
            self.assertIn('chunk_size must be an integer', str(exc))


class TestSources(base.TestCase):
    """``fp``, ``fd`` and ``iter``."""

    def assertRefused(self, call, parameter, source, name):
        with self.tally.case('bad input: sources'):
            exc = self.assertRaises(TypeError, call, source)
            self.assertTrue(str(exc).startswith(f'{parameter} must '), name)
            self.assertTrue(str(exc).isprintable(), name)
            kind = type(source).__name__
            self.assertIn(
                kind if kind.isidentifier() else repr(kind), str(exc)
            )

    def test_neither_file_like_nor_iterable(self):
        self.capture_log(0)  # the trace must not take part in it
        for offload in (False, True):
            self.configure(offload_file_reads=offload)
            for name, source in NOTHING.items():
                self.assertRefused(utils.chunkiter, 'fp', source, name)
                self.assertRefused(utils.cooperative_read, 'fd', source, name)
                self.assertRefused(
                    utils.cooperative_iter, 'iter', source, name
                )
                self.assertRefused(utils.CooperativeReader, 'fd', source, name)

    def test_chunkreadable(self):
        for name, source in NOTHING.items():
            if hasattr(source, 'read'):
                self.assertRefused(utils.chunkreadable, 'iter', source, name)
                continue
            with self.tally.case('bad input: sources'):
                self.assertIs(source, utils.chunkreadable(source), name)
                self.assertIs(source, utils.chunkreadable(source, 0), name)

    def test_iterable_that_does_not_read(self):
        for source in ([b'a'], b'abc', 'path', {}, (c for c in b'a'), '/'):
            self.assertRefused(utils.chunkiter, 'fp', source, source)
            self.assertRefused(utils.cooperative_read, 'fd', source, source)

    def test_missing_and_further_arguments(self):
        for call in (
            *(utils.chunkiter, utils.chunkreadable, utils.cooperative_iter),
            *(utils.cooperative_read, utils.CooperativeReader),
            *(utils.is_uuid_like, utils.get_hasher),
        ):
            with self.tally.case('bad input: arguments'):
                first = next(iter(inspect.signature(call).parameters))
                exc = self.assertRaises(TypeError, call)
                self.assertIn(first, str(exc))
                self.assertRaises(TypeError, call, [], 1, 2, 3)
                self.assertRaises(TypeError, call, **{first: [], 'odd': 1})

    def test_class_that_reads_by_itself(self):
        class Kind(type):
            def read(cls, size=-1):
                return b''

        class Static:
            @staticmethod
            def read(size=-1):
                return b''

        class Class:
            @classmethod
            def read(cls, size=-1):
                return b''

        class Given:
            read = io.BytesIO().read

        for source in (Kind('Source', (), {}), Static, Class, Given):
            with self.tally.case('bad input: sources that are none'):
                self.assertEqual([], list(utils.chunkiter(source, 5)))
                self.assertEqual(b'', utils.cooperative_read(source)(5))
                self.assertEqual(b'', utils.CooperativeReader(source).read(5))

    def test_errors_of_their_own(self):
        for error in (
            base.Interrupted(),
            OSError('gone'),
            KeyboardInterrupt(),
        ):

            def fail(*args, error=error):
                raise error

            reads = (
                with_attributes(read=raising(error)),
                with_attributes(__getattr__=fail),
                with_attributes(__getattribute__=fail),
            )
            iterates = with_attributes(__iter__=fail)
            for call, sources in (
                (utils.chunkiter, reads),
                (utils.chunkreadable, reads),
                (utils.cooperative_read, reads),
                (utils.cooperative_iter, (iterates,)),
                (utils.CooperativeReader, (*reads, iterates)),
            ):
                for source in sources:
                    with self.tally.case('bad input: errors of their own'):
                        self.assertIs(
                            error,
                            self.assertRaises(type(error), call, source),
                        )

    def test_class_that_cannot_be_asked_for(self):
        source = with_attributes(
            __class__=raising(base.Interrupted()),
            read=lambda self, size=-1: b'',
        )
        for kind in (tempfile._TemporaryFileWrapper, io.BufferedReader):
            liar = with_attributes(
                __class__=kind, read=lambda self, size=-1: b''
            )
            for fd in (source, liar):
                for offload in (False, True):
                    with self.tally.case('bad input: sources that are none'):
                        self.configure(offload_file_reads=offload)
                        self.assertEqual([], list(utils.chunkiter(fd)))
                        self.assertEqual(b'', utils.cooperative_read(fd)())
                        self.assertEqual(
                            b'', utils.CooperativeReader(fd).read()
                        )

    @base.EXAMPLES
    @hypothesis.given(strategies.from_type(object))
    def test_anything(self, source):
        hypothesis.assume(not hasattr(source, 'read'))
        for call, parameter in (
            (utils.chunkiter, 'fp'),
            (utils.cooperative_read, 'fd'),
        ):
            with self.tally.case('bad input: sources made up'):
                exc = self.assertRaises(TypeError, call, source)
                self.assertTrue(str(exc).startswith(f'{parameter} must '))
        for call, parameter in (
            (utils.cooperative_iter, 'iter'),
            (utils.CooperativeReader, 'fd'),
        ):
            with self.tally.case('bad input: sources made up'):
                try:
                    iter(source)
                except TypeError:
                    exc = self.assertRaises(TypeError, call, source)
                    self.assertTrue(str(exc).startswith(f'{parameter} must '))
                else:
                    call(source)


class TestFiles(base.TestCase):
    """Files that cannot be read: their own error, and never an end."""

    def unreadable(self):
        folder = self.useFixture(fixtures.TempDir())
        closed = open(folder.join('closed'), 'w+b')
        closed.write(b'abc')
        closed.close()
        yield closed
        writing = open(folder.join('writing'), 'wb')
        self.addCleanup(writing.close)
        yield writing
        bytes_io = io.BytesIO(b'abc')
        bytes_io.close()
        yield bytes_io
        text = io.StringIO('abc')
        text.close()
        yield text

    def test_unreadable(self):
        for offload in (False, True):
            self.configure(offload_file_reads=offload)
            for file in self.unreadable():
                for step in (
                    utils.chunkiter(file).__next__,
                    utils.chunkreadable(file, 5).__next__,
                    utils.cooperative_read(file),
                    utils.CooperativeReader(file).read,
                    utils.CooperativeReader(file).__next__,
                ):
                    for _ in range(2):
                        with self.tally.case('bad input: unreadable files'):
                            self.assertRaises(ValueError, step)
        for source in self.unreadable():
            with self.tally.case('bad input: unreadable files'):
                self.assertRaises(
                    ValueError,
                    lambda source=source: next(utils.cooperative_iter(source)),
                )

    def test_directory(self):
        fd = os.open(self.useFixture(fixtures.TempDir()).path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        source = with_attributes(
            read=lambda self, size=-1: os.read(fd, max(size, 5))
        )
        for step in (
            utils.chunkiter(source, 5).__next__,
            utils.cooperative_read(source),
            utils.CooperativeReader(source).read,
        ):
            with self.tally.case('bad input: unreadable files'):
                self.assertRaises(IsADirectoryError, step)

    def test_arguments_are_the_file_s_own(self):
        for args in (['5'], [1.5], [b'5'], [[]], [1, 2]):
            for make in (utils.cooperative_read, utils.CooperativeReader):
                with self.tally.case('bad input: arguments'):
                    file = io.BytesIO(b'abcdef')
                    read = make(file)
                    read = getattr(read, 'read', read)
                    self.assertEqual(b'ab', read(2))
                    exc = self.assertRaises(TypeError, read, *args)
                    own = self.assertRaises(TypeError, file.read, *args)
                    self.assertEqual(str(own), str(exc))
                    self.assertEqual(b'cdef', read(5))

    def test_text_and_paths_are_no_images(self):
        for source in ('/etc/hostname', b'abc', {'a': 1}, [None], [5]):
            with self.tally.case('bad input: chunks'):
                reader = utils.CooperativeReader(source)
                for read in (reader.read, lambda r=reader: r.read(5)):
                    exc = self.assertRaises(TypeError, read)
                    self.assertIn('a chunk of fd must be bytes', str(exc))
                    item = next(iter(source))
                    self.assertIn(type(item).__name__, str(exc))

    def test_generator_that_is_over(self):
        for make in (utils.cooperative_iter, utils.CooperativeReader):
            with self.tally.case('bad input: sources that are none'):
                source = (chunk for chunk in [b'abc'])
                source.close()
                self.assertEqual([], list(make(source)))


class TestParts(base.HubTestCase):
    """What ``fp.read`` answers: an image must not go on without a part."""

    def streams(self, *answers):
        fp = base.Answering(*answers)
        yield 'fp', fp, utils.chunkiter(fp, 4)
        fp = base.Answering(*answers)
        yield 'iter', fp, utils.chunkreadable(fp, 4)

    def test_no_data(self):
        for part in (5, [b'a'], object(), {}, 1.5, Hostile(), (), False):
            for parameter, fp, chunks in self.streams(b'ab', part, b'cd'):
                for _ in range(3):
                    with self.tally.case('bad input: parts'):
                        exc = self.assertRaises(TypeError, next, chunks)
                        self.assertEqual(
                            f'{parameter}.read must return bytes, '
                            f'not {type(part).__name__}',
                            str(exc),
                        )
                self.assertEqual([b'cd'], fp.answers)
            for parameter, _, chunks in self.streams(part):
                with self.tally.case('bad input: parts'):
                    exc = self.assertRaises(TypeError, next, chunks)
                    self.assertIn(
                        f'{parameter}.read must return bytes or str, not',
                        str(exc),
                    )

    def test_text_among_bytes(self):
        for wanted, *answers in (
            ('bytes', b'ab', 'cd', b'ef'),
            ('bytes', bytearray(b'ab'), 'cd', b'ef'),
            ('str', 'ab', b'cd', 'ef'),
            ('str', 'ab', memoryview(b'cd'), 'ef'),
            ('bytes', b'abcd', 'ef', b'gh'),
            ('str', 'abcd', b'efgh', 'ij'),
        ):
            for parameter, fp, chunks in self.streams(*answers):
                if len(answers[0]) == 4:
                    self.assertEqual(answers[0], next(chunks))
                for _ in range(3):
                    with self.tally.case('bad input: parts'):
                        exc = self.assertRaises(TypeError, next, chunks)
                        self.assertEqual(
                            f'{parameter}.read must return {wanted}, '
                            f'not {type(answers[1]).__name__}',
                            str(exc),
                        )
                self.assertEqual(answers[2:], fp.answers)

    def test_kinds_of_bytes_may_change(self):
        answers = b'ab', bytearray(b'cd'), memoryview(b'ef'), b''
        for _, _, chunks in self.streams(*answers):
            with self.tally.case('bad input: parts that are none'):
                self.assertEqual([b'abcd', b'ef'], list(chunks))

    def test_end_of_another_kind(self):
        for answers in (b'ab', ''), ('ab', b''), ('ab', bytearray()):
            for _, _, chunks in self.streams(*answers):
                with self.tally.case('bad input: parts that are none'):
                    self.assertEqual([answers[0]], list(chunks))

    def test_parameter_is_named(self):
        for parameter, _, chunks in self.streams(None):
            exc = self.assertRaises(BlockingIOError, next, chunks)
            self.assertIn(f'{parameter} has nothing', str(exc))

        class Entering:
            def read(self, size):
                next(self.chunks)

        for parameter, make in (
            ('fp', utils.chunkiter),
            ('iter', utils.chunkreadable),
        ):
            fp = Entering()
            fp.chunks = make(fp)
            exc = self.assertRaises(RuntimeError, next, fp.chunks)
            self.assertIn(f'{parameter}: another read', str(exc))


class TestClose(base.TestCase):
    def test_close_that_is_none(self):
        for close in (None, 5, '', [], True):
            for source in (base.Reading(b'abc'), base.Fetching(b'abc')):
                with self.tally.case('bad input: closes'):
                    source.close = close
                    reader = utils.CooperativeReader(source)
                    reader.close()
                    reader.close()

    def test_error_of_its_own(self):
        for error in (
            base.Interrupted(),
            OSError('gone'),
            KeyboardInterrupt(),
        ):
            for kind in (base.Reading, base.Fetching):
                with self.tally.case('bad input: errors of their own'):
                    source = type('Kind', (kind,), {'close': raising(error)})
                    reader = utils.CooperativeReader(source(b'abc'))
                    for _ in range(2):
                        self.assertIs(
                            error,
                            self.assertRaises(type(error), reader.close),
                        )

    def test_arguments(self):
        for source in (base.Reading(b'abc'), base.Fetching(b'abc')):
            with self.tally.case('bad input: arguments'):
                reader = utils.CooperativeReader(source)
                self.assertRaises(TypeError, reader.close, 1)
                self.assertEqual(0, source.closed)


class TestOthers(base.TestCase):
    """``is_uuid_like`` and ``get_hasher``."""

    def test_hash_that_is_not_to_be_had(self):
        for name, algo in {
            **NOTHING,
            'empty': '',
            'unknown': 'md55',
            'bytes': b'md5',
            'null': 'md5\0',
            'surrogate': '\udc80',
            'line': 'md5\n',
            'long': 'x' * 100000,
            'list': ['md5'],
        }.items():
            if name in ('hostile', 'huge'):  # whose own errors come out
                self.assertRaises(
                    (base.Interrupted, ValueError), utils.get_hasher, algo
                )
                continue
            for secure in (True, False):
                with self.tally.case('bad input: hashes'):
                    exc = self.assertRaises(
                        ValueError, utils.get_hasher, algo, secure
                    )
                    self.assertIn('hash_algo', str(exc))
                    self.assertIn(repr(str(algo)[:100]), str(exc))
                    self.assertIsNotNone(exc.__cause__)

    def test_uuid(self):
        liar = with_attributes(__class__=raising(base.Interrupted()))
        values = {**NOTHING, **NO_INTEGERS, 'liar': liar}
        for name, val in values.items():
            with self.tally.case('bad input: UUIDs'):
                self.assertIs(False, utils.is_uuid_like(val), name)
                self.assertIs(False, utils.is_uuid_like(val=val), name)

    @base.EXAMPLES
    @hypothesis.given(strategies.from_type(object))
    def test_anything(self, val):
        with self.tally.case('bad input: UUIDs made up'):
            self.assertIs(False, utils.is_uuid_like(val))

    @base.EXAMPLES
    @hypothesis.given(strategies.text())
    def test_any_hash(self, name):
        with self.tally.case('bad input: hashes made up'):
            try:
                utils.get_hasher(name)
            except ValueError as exc:
                self.assertIn('hash_algo', str(exc))


class TestOptions(base.TestCase):
    """Out of range, of the wrong type, or empty."""

    REFUSED = {
        'default_chunk_size': (
            *('', ' ', '0', '-1', 'many', '64k', '1.5', '1e3', '0x10', 'nan'),
            *('inf', 'True', '1 000', '9' * 5000),
        ),
        'cooperative_yield_interval': (
            *('', ' ', '-1', '-1e-9', 'nan', 'NaN', '-inf', 'often', '1ms'),
            *('0x10', 'True', '1,5', '--1'),
        ),
        'offload_file_reads': ('', 'maybe', '2', '-1', 'yess', '1.0', '64k'),
    }
    TAKEN = {
        'default_chunk_size': {'1': 1, ' 5 ': 5, '+7': 7, str(2**64): 2**64},
        'cooperative_yield_interval': {
            **{'0': 0, '1e-3': 0.001, '.5': 0.5, '5': 5, '1e999': math.inf},
            **{'inf': math.inf, '-0': 0},
        },
        'offload_file_reads': {
            **{'yes': True, 'on': True, '1': True, 'TRUE': True},
            **{'no': False, 'off': False, '0': False, 'False': False},
        },
    }

    def from_file(self, name, value):
        path = self.useFixture(fixtures.TempDir()).join('glance.conf')
        with open(path, 'w') as out:
            out.write(f'[glance_store]\n{name} = {value}\n')
        conf = cfg.ConfigOpts()
        opts.register_opts(conf)
        conf(['--config-file', path], project='glance')
        return getattr(conf.glance_store, name)

    def test_refused_in_a_file(self):
        for name, values in self.REFUSED.items():
            for value in values:
                with self.tally.case('bad input: options in a file'):
                    exc = self.assertRaises(
                        cfg.ConfigFileValueError, self.from_file, name, value
                    )
                    self.assertIn(name, str(exc))

    def test_refused_where_set(self):
        for name, values in self.REFUSED.items():
            for value in values:
                with self.tally.case('bad input: options that are set'):
                    before = getattr(cfg.CONF.glance_store, name)
                    self.assertRaises(
                        ValueError, self.configure, **{name: value}
                    )
                    self.assertEqual(
                        before, getattr(cfg.CONF.glance_store, name)
                    )

    def test_size_of_the_wrong_type(self):
        for name, value in NO_INTEGERS.items():
            if name == 'text' or isinstance(value, Hostile):
                continue
            with self.tally.case('bad input: options that are set'):
                exc = self.assertRaises(
                    ValueError, self.configure, default_chunk_size=value
                )
                self.assertIn('is not a number of bytes', str(exc))

    def test_taken(self):
        for name, values in self.TAKEN.items():
            for value, meant in values.items():
                with self.tally.case('bad input: options that are none'):
                    self.assertEqual(meant, self.from_file(name, value))
                    self.configure(**{name: value})
                    self.assertEqual(
                        meant, getattr(cfg.CONF.glance_store, name)
                    )

    def test_none_is_as_if_it_were_not_set(self):
        self.configure(
            default_chunk_size=None,
            cooperative_yield_interval=None,
            offload_file_reads=None,
        )
        with self.tally.case('bad input: options that are none', 3):
            for make in (
                utils.chunkiter,
                utils.chunkreadable,
                utils.CooperativeReader,
            ):
                self.assertEqual(
                    [65536, 4464],
                    [len(c) for c in make(io.BytesIO(bytes(70000)))],
                )
        self.useFixture(base.Hub())
        ticker = self.useFixture(base.Ticker())
        list(utils.cooperative_iter([b'a', b'b']))
        self.assertEqual(2, ticker.turns)

    @base.EXAMPLES
    @hypothesis.given(
        strategies.sampled_from(sorted(REFUSED)),
        strategies.text(strategies.characters(codec='utf-8')),
    )
    def test_any_text(self, name, value):
        with self.tally.case('bad input: options made up'):
            try:
                self.configure(**{name: value})
            except ValueError:
                return
            answer = getattr(cfg.CONF.glance_store, name)
            self.assertGreaterEqual(answer, name == 'default_chunk_size')
