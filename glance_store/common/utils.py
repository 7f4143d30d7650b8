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

"""Stream images chunk by chunk, and let other green threads run meanwhile.

A call on a cooperative stream yields to the hub, then fetches from its source
and returns. During the yield, the source keeps its data, and a buffer keeps
what the call has gathered. So an interruption, such as an ``eventlet.Timeout``
or a kill, loses nothing.

``glance_store.common.cooperation`` decides when a yield is due and which
stream goes next. A thread without a hub never yields.

A *file-like* has a ``read``. An *iterable* works with ``iter()`` and has no
``read``.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import errno
import hashlib
import operator
import re
import sys
import tempfile
from typing import Any, Generic, ParamSpec, Protocol, TypeGuard, TypeVar
from typing import overload

from oslo_concurrency import lockutils
from oslo_config import cfg

from glance_store.common import buffers
from glance_store.common import cooperation
from glance_store.common import offload

synchronized = lockutils.synchronized_with_prefix('glance_store-')

_P = ParamSpec('_P')
_T = TypeVar('_T')
_T_co = TypeVar('_T_co', covariant=True)
_Data = TypeVar('_Data', bytes, str)
_Data_co = TypeVar('_Data_co', bytes, str, covariant=True)


class _Readable(Protocol[_Data_co]):
    """A file-like whose ``read`` takes a size."""

    def read(self, size: int, /) -> _Data_co: ...


class _SupportsRead(Protocol[_P, _T_co]):
    """A file-like whose ``read`` takes any arguments."""

    def read(self, *args: _P.args, **kwargs: _P.kwargs) -> _T_co: ...


class _Unnamed(int):
    """The default size, which differs from an equal size of the caller."""


_UNNAMED = _Unnamed(65536)

_match_uuid = re.compile(
    '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'
).fullmatch


def is_uuid_like(val: object) -> TypeGuard[str]:
    """Check whether a value is a UUID in canonical form.

    The canonical form is a ``str`` of 32 lower-case hexadecimal digits.
    Hyphens join them in groups of 8, 4, 4, 4 and 12, as ``str(uuid.uuid4())``
    shows.

    >>> is_uuid_like('b6dc0ed4-8b3f-4e4c-a9a5-3f4b3d7d4a1e')
    True
    >>> is_uuid_like('B6DC0ED4-8B3F-4E4C-A9A5-3F4B3D7D4A1E')
    False

    :param val: a value of any type
    :returns: True for that form; False for upper case, braces, the prefix
        ``urn:uuid:``, a ``uuid.UUID`` and everything else
    """
    return isinstance(val, str) and _match_uuid(val) is not None


def get_hasher(hash_algo: object, usedforsecurity: bool = True) -> Any:
    """Make a hash object from the name of an algorithm.

    :param hash_algo: a name that :func:`hashlib.new` takes, or an object
        whose ``str()`` is one
    :param usedforsecurity: False for a checksum, so that FIPS mode admits MD5
    :raises ValueError: if there is no such algorithm
    """
    name = str(hash_algo)
    if name == 'md5':
        # The shipped tests replace hashlib.md5.
        return hashlib.md5(usedforsecurity=usedforsecurity)  # noqa: S324
    return hashlib.new(name, usedforsecurity=usedforsecurity)


def chunkiter(
    fp: _Readable[_Data], chunk_size: int = _UNNAMED
) -> Iterator[_Data]:
    """Cut a file-like into chunks of one size.

    Every chunk but the last holds exactly *chunk_size*, also where ``fp.read``
    returns less. So the parts of a multi-part upload keep their size when a
    socket is slow.

    >>> import io
    >>> list(chunkiter(io.BytesIO(b'abcdefgh'), 3))
    [b'abc', b'def', b'gh']

    The iterator reads one chunk at a time, and makes no yield of its own. An
    exception of ``fp.read`` passes through, and the next call goes on from
    there.

    :param fp: a file-like, binary or text; the caller closes it
    :param chunk_size: maximum size of a chunk in bytes (text: characters), at
        least 1; defaults to ``[glance_store] default_chunk_size``
    :returns: an iterator of ``bytes``, or of ``str`` where *fp* is text
    :raises TypeError: at the call, if *fp* has no ``read`` or *chunk_size* is
        no integer; from ``next()``, if *fp* answers anything but data
    :raises ValueError: at the call, if *chunk_size* is below 1
    :raises BlockingIOError: from ``next()``, if ``fp.read`` answers None
    :raises RuntimeError: from ``next()``, if another green thread is inside
        ``next()``, or ``fp.read`` raises ``StopIteration``
    """
    return _Chunks(fp, 'fp', chunk_size)


@overload
def chunkreadable(
    iter: _Readable[_Data], chunk_size: int = ...
) -> Iterator[_Data]: ...


@overload
def chunkreadable(iter: _T, chunk_size: int = ...) -> _T: ...


def chunkreadable(iter: Any, chunk_size: int = _UNNAMED) -> Any:
    """Cut a file-like into chunks of one size; pass anything else through.

    >>> chunks = [b'a', b'b']
    >>> chunkreadable(chunks) is chunks
    True

    :param iter: a file-like, or an iterable of chunks
    :param chunk_size: maximum size of a chunk of a file-like, as in
        :func:`chunkiter`
    :returns: an iterator of chunks for a file-like, else the same object
    :raises TypeError, ValueError: as :func:`chunkiter` does for a file-like
    """
    if hasattr(iter, 'read'):
        return _Chunks(iter, 'iter', chunk_size)
    return iter


class _ReadBuffer(buffers.Buffer):
    """A buffer over reads, where None means that nothing is there yet."""

    def checked(self, chunk: Any) -> Any:
        if chunk is None:
            raise _nothing_yet(self._source)
        return super().checked(chunk)


class _Chunks(Iterator[_Data]):
    """The chunks of a file-like, all of one size but the last."""

    def __init__(self, fp: Any, parameter: str, chunk_size: int) -> None:
        self._size = _checked_size(chunk_size)
        self._parameter = parameter
        read = _read_of(fp, parameter)
        # A cooperative stream over this iterator makes the yields.
        reads = offload.reads_of(fp, read, checkpoint=_do_nothing)
        fetch = read if reads is None else reads.fetch
        self._take = _ReadBuffer(fetch, f'{parameter}.read()').take

    def __next__(self) -> _Data:
        try:
            chunk: _Data = self._take(self._size)
        except StopIteration as exc:
            raise _unwanted_end(self._parameter) from exc
        if len(chunk) < self._size:
            self._size = 0  # the end, even where the file still grows
        if chunk:
            return chunk
        raise StopIteration


def _do_nothing() -> None:
    """Replace a checkpoint or a ``close`` that has nothing to do."""


def cooperative_iter(iter: Iterable[_T]) -> '_CooperativeIterator[_T]':
    """Iterate over any chunks, with a yield to the hub before each.

    Several images that a service streams at once take turns, so that none
    starves the rest of the hub. Each step yields if a yield is due. Then it
    returns the next item of *iter* unchanged.

    >>> list(cooperative_iter([b'abc', b'de']))
    [b'abc', b'de']

    An exception of *iter* passes through. A generator that raised then ends,
    and that end raises, too. So part of an image never looks complete.

    :param iter: an iterable of items of any type; wrap it once, since each
        wrapper yields
    :returns: an iterator with an idempotent ``close()``, which closes *iter*
        where it has a ``close``
    :raises TypeError: at the call, if *iter* is not iterable
    :raises RuntimeError: from ``next()``, if *iter* ends right after it raised
    :raises ValueError: from ``next()``, after ``close()``
    """
    return _CooperativeIterator(iter, 'iter', cooperation.stream_over(iter))


class _CooperativeIterator(Iterator[_T]):
    """An iterator that yields to the hub before it fetches an item."""

    def __init__(
        self,
        source: Iterable[_T],
        parameter: str,
        stream: cooperation.Stream,
        counts: bool = True,
    ) -> None:
        try:
            items = iter(source)
        except TypeError as exc:
            raise TypeError(
                f'{parameter} must be iterable, not {type(source).__name__}'
            ) from exc
        self._fetch = items.__next__
        if counts:
            self._fetch = stream.counted(self._fetch, of_items=True)
        self._checkpoint = stream.checkpoint
        # A reader over chunks may still hold data when its source ends.
        self._end = stream.close if counts else _do_nothing
        # The exception of the last fetch, if it raised. A stream of this
        # module goes on where it was.
        self._error: BaseException | None = None
        self._is_ours = isinstance(
            items, _CooperativeIterator | _Chunks | CooperativeReader
        )
        self._unclosed = [stream, items]
        if items is not source:
            self._unclosed.append(source)

    def __next__(self) -> _T:
        self._checkpoint()
        error = self._error
        try:
            item = self._fetch()
        except StopIteration:
            self._end()
            if self._fetch is _refuse:  # another green thread has closed it
                _refuse()
            if error is None:
                raise
            raise RuntimeError('the source ended after it raised') from error
        except BaseException as exc:
            if not self._is_ours:
                self._error = exc
            raise
        self._error = None
        return item

    def close(self) -> None:
        """Close the source where it has a ``close``; idempotent."""
        self._fetch = _refuse
        _close_all(self._unclosed)


def cooperative_read(fd: _SupportsRead[_P, _T]) -> Callable[_P, _T]:
    """Return the ``read`` of a file-like, with a yield before each call.

    Several images that a service streams at once take turns, so that none
    starves the rest of the hub.

    >>> import io
    >>> read = cooperative_read(io.BytesIO(b'abcde'))
    >>> read(3), read(3), read(3)
    (b'abc', b'de', b'')

    :param fd: a file-like
    :returns: a function with the arguments, answers and exceptions of
        ``fd.read``; RuntimeError while another call reads in the pool
    :raises TypeError: at the call, if *fd* has no ``read``
    """
    return _cooperative_read(fd, cooperation.stream_over(fd))[0]


def _cooperative_read(
    fd: Any, stream: cooperation.Stream, keyword: str = ''
) -> tuple[Callable[..., Any], offload.Reads | None]:
    """Return a cooperative ``fd.read``, and its ``Reads`` if it is offloaded.

    An offloaded read makes its own checkpoint. An argument named *keyword* is
    passed by position.
    """
    read = _read_of(fd, 'fd')
    reads = offload.reads_of(fd, read, stream.checkpoint)
    if reads is not None:
        return stream.counted(reads.read), reads
    checkpoint = stream.checkpoint
    read = stream.counted(read)

    def cooperative(*args: Any, **kwargs: Any) -> Any:
        checkpoint()
        if not kwargs:
            return read(*args)
        if keyword in kwargs:
            args = (kwargs.pop(keyword), *args)
        return read(*args, **kwargs)

    return cooperative, None


class CooperativeReader(Generic[_Data]):
    """Read or iterate an image, with a yield to the hub before each fetch.

    Several uploads and downloads take turns. That prevents starvation: every
    green thread that is ready runs between two turns.

    >>> reader = CooperativeReader(iter([b'abc', b'', b'defg']))
    >>> reader.read(2), reader.read(), reader.read(3), reader.read()
    (b'ab', b'c', b'def', b'g')

    Reading and iterating share one position, so every byte comes once.

    A file-like with a ``readline``, or without an iteration, gives chunks of
    ``[glance_store] default_chunk_size``. Any other file-like gives its own
    items. An iterable gives its chunks that hold data.

    Over an iterable, the reader holds at most two chunks and the bytes of one
    read in memory.

    :param fd: a file-like, or an iterable of chunks: all text (``str``), or
        all binary (``bytes``, ``bytearray`` or ``memoryview``); the iterable
        may reuse one buffer for all chunks
    :raises TypeError: at the call, if *fd* is neither
    :raises BlockingIOError: from ``next()``, if ``fd.read`` answers None
    :raises RuntimeError: over an iterable *fd*, if another read is under way,
        or if *fd* ends right after it raised, as in :func:`cooperative_iter`;
        from ``next()``, if ``fd.read`` raises StopIteration
    """

    @overload
    def __init__(
        self: 'CooperativeReader[bytes]',
        fd: Iterable[bytes | bytearray | memoryview],
    ) -> None: ...

    @overload
    def __init__(self, fd: _Readable[_Data] | Iterable[_Data]) -> None: ...

    def __init__(self, fd: Any) -> None:
        self.fd = fd
        self._take: Callable[..., _Data]
        # The size of a read when a file is iterated.
        self._chunk_size: int | None = None
        # The iteration of a file-like that iterates by itself.
        self._items: Iterator[Any] | None = None
        self._unclosed: list[Any]
        stream = cooperation.stream_over(fd)
        if not hasattr(fd, 'read'):
            chunks = _CooperativeIterator(fd, 'fd', stream, counts=False)
            filled = filter(buffers.is_filled, chunks)
            held = buffers.Buffer(lambda _: next(filled, b''), 'a chunk of fd')
            self._take = stream.counted(held.take)
            self._unclosed = [chunks]
            return
        self._take, reads = _cooperative_read(fd, stream, 'length')
        self.read = self._take  # type: ignore[method-assign]
        if _is_file(fd) or not isinstance(fd, Iterable):
            self._chunk_size = _checked_size(_UNNAMED)
            self._unclosed = [stream, reads or fd]
        else:
            self._items = _CooperativeIterator(fd, 'fd', stream)
            self._unclosed = [self._items]

    def read(self, length: int | None = None) -> _Data:
        """Read *length* bytes, or one chunk of an iterable.

        Over a file-like, this is :func:`cooperative_read` of it. Over an
        iterable, the following holds.

        :param length: number of bytes; -1 for the whole rest; None for what an
            earlier read has left, or else the next chunk with data
        :returns: ``bytes``, or ``str`` over text; shorter than *length* only
            at the end, and empty only at EOF or for a *length* of 0
        :raises TypeError: if *length* is no integer; if a chunk is neither
            bytes nor text, or differs in kind, and again at each later fetch
        :raises RuntimeError: if another green thread is inside a read; this
            call then takes nothing
        :raises ValueError: after :meth:`close`
        """
        if hasattr(self.fd, 'read'):  # called as CooperativeReader.read(self)
            return self._take() if length is None else self._take(length)
        if length is not None:
            length = _integer(length, 'length')
            length = length if length >= 0 else sys.maxsize
        return self._take(length)

    def __iter__(self) -> Iterator[_Data]:
        return self

    def __next__(self) -> _Data:
        if self._items is not None:
            return next(self._items)  # type: ignore[no-any-return]
        try:
            chunk = self.read(self._chunk_size)
        except StopIteration as exc:
            raise _unwanted_end('fd') from exc
        if chunk:
            return chunk
        if chunk is None:
            raise _nothing_yet('fd')
        raise StopIteration

    def close(self) -> None:
        """Close *fd* where it has a ``close``; idempotent."""
        self._take = _refuse
        _close_all(self._unclosed)


def _is_file(fd: Any) -> bool:
    """Tell whether *fd* iterates by lines, as files do."""
    wrapper = tempfile._TemporaryFileWrapper
    return hasattr(type(fd), 'readline') or isinstance(fd, wrapper)


def _refuse(*_: object) -> Any:
    raise ValueError('the stream is closed') from None


def _read_of(source: Any, parameter: str) -> Callable[..., Any]:
    read: Callable[..., Any] | None = getattr(source, 'read', None)
    if not callable(read):
        raise TypeError(
            f'{parameter} must have a read method, not {type(source).__name__}'
        )
    return read


def _unwanted_end(parameter: str) -> RuntimeError:
    # A StopIteration from next() would look like the end of the image.
    return RuntimeError(f'{parameter}.read raised StopIteration')


def _nothing_yet(parameter: str) -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, f'{parameter} has nothing yet')


def _close_all(sources: list[Any]) -> None:
    """Close each source; keep those that raise, and raise the last error."""
    left = []
    error = None
    while sources:
        source = sources.pop(0)
        try:
            getattr(source, 'close', _do_nothing)()
        except BaseException as exc:
            left.append(source)
            error = exc
    sources.extend(left)
    if error is not None:
        raise error


def _checked_size(chunk_size: int) -> int:
    if chunk_size is _UNNAMED:
        return cfg.CONF.glance_store.default_chunk_size or 65536
    size = _integer(chunk_size, 'chunk_size')
    if size < 1:
        raise ValueError(f'chunk_size must be at least 1, not {size}')
    return size


def _integer(value: Any, parameter: str) -> int:
    with contextlib.suppress(TypeError):
        if not isinstance(value, bool):
            return operator.index(value)
    raise TypeError(
        f'{parameter} must be an integer, not {type(value).__name__}'
    )
