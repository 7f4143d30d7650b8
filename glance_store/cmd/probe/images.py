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

"""The image files that the probe streams: named ones, or one of its own."""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import errno
import os
import stat
import tempfile
import time

from glance_store.cmd.probe import errors
from glance_store.cmd.probe import signals

MIB = 1024 * 1024

# The size of the image that is made where no file is named.
IMAGE_SIZE = 256 * MIB

# File systems that are nowhere but in memory.
IN_MEMORY = ('ramfs', 'tmpfs')

clock = time.monotonic


@dataclasses.dataclass(frozen=True)
class Image:
    """What is streamed, of *size* bytes; made by the probe or named."""

    path: str
    size: int
    made: bool = False


def named(path: str) -> list[Image]:
    """Return what a FILE argument stands for: its images, at least one.

    :raises BadArgument: where it cannot be read or has no content
    """
    try:
        return _named(path)
    except OSError as exc:
        name = path if exc.filename is None else exc.filename
        raise errors.BadArgument('FILE', f'{name!r}: {exc.strerror}') from exc


def _named(path: str) -> list[Image]:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        return _of_folder(path)
    # Not before it is known to be one: opening a FIFO would wait.
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise errors.BadArgument(
            'FILE', f'{path!r} is no file, directory or block device'
        )
    image = _image(path)
    if not image.size:
        raise errors.BadArgument('FILE', f'{path!r} is empty')
    return [image]


def _of_folder(path: str) -> list[Image]:
    """Return the files of a folder that have content, not those below it."""
    with os.scandir(path) as entries:
        paths = sorted(entry.path for entry in entries if entry.is_file())
    images = [image for image in map(_image, paths) if image.size]
    if not images:
        raise errors.BadArgument('FILE', f'{path!r} has no image in it')
    return images


def _image(path: str) -> Image:
    with open(path, 'rb') as file:
        # A block device has a size only there.
        return Image(path, file.seek(0, os.SEEK_END))


@contextlib.contextmanager
def made() -> Iterator[Image]:
    """Make an image in a temporary folder, and remove both afterwards.

    A signal that would end the process has to wait while the folder is made
    and while it is removed. Whenever else it comes, the folder goes: by the
    latest when the process ends, for which TemporaryDirectory cares.
    """
    what = 'making an image failed (name a FILE, or another folder by TMPDIR)'
    with signals.held(), errors.failing(what):
        folder = tempfile.TemporaryDirectory(prefix=f'{errors.PROGRAM}-')
    try:
        path = os.path.join(folder.name, 'image')
        with errors.failing(what):
            _write(path)
        yield Image(path, IMAGE_SIZE, made=True)
    finally:
        with signals.held():
            folder.cleanup()


def _write(path: str) -> None:
    block = os.urandom(MIB)
    with open(path, 'wb') as file:
        for start in range(0, IMAGE_SIZE, MIB):
            file.write(block[: IMAGE_SIZE - start])


def warm(images: Sequence[Image], seconds: float) -> None:
    """Bring images into the page cache, as far as that goes in a time.

    :raises BadArgument: where one cannot be read
    """
    end = clock() + seconds
    buffer = bytearray(MIB)
    for image in images:
        with _reading(image), open(image.path, 'rb', buffering=0) as file:
            while file.readinto(buffer) and clock() < end:
                pass


def cool(images: Sequence[Image]) -> None:
    """Have the page cache forget images, so that storage is read.

    :raises BadArgument: where one cannot be read
    """
    for image in images:
        with _opened(image) as descriptor:
            _forget(descriptor)


def check_cold(images: Sequence[Image]) -> None:
    """Refuse images that the page cache does not forget.

    :raises BadArgument: where the end of one is in memory after :func:`cool`
    """
    cool(images)
    for image in images:
        with _opened(image) as descriptor:
            if _lives_in_memory(descriptor) or _in_memory(
                descriptor, image.size - 1
            ):
                raise errors.BadArgument(
                    '--cold',
                    f'{image.path!r} stays in memory: it is in use, or its '
                    'file system has no other storage',
                )


@contextlib.contextmanager
def _reading(image: Image) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise errors.BadArgument(
            'FILE', f'{image.path!r}: {exc.strerror}'
        ) from exc


@contextlib.contextmanager
def _opened(image: Image) -> Iterator[int]:
    with _reading(image), open(image.path, 'rb', buffering=0) as file:
        yield file.fileno()


def _forget(descriptor: int) -> None:
    # Only what is on the storage can be forgotten. Where there is nothing to
    # be written, a file system may know no way to do so.
    with contextlib.suppress(OSError):
        os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _lives_in_memory(descriptor: int) -> bool:
    """Tell whether the file system has no storage but memory."""
    device = os.fstat(descriptor).st_dev
    number = f'{os.major(device)}:{os.minor(device)}'
    with open('/proc/self/mountinfo', 'rb') as mounts:
        fields = [os.fsdecode(line).split() for line in mounts]
    return any(
        mount[2] == number and mount[mount.index('-') + 1] in IN_MEMORY
        for mount in fields
    )


def _in_memory(descriptor: int, offset: int) -> bool:
    try:
        os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
    except OSError as exc:
        # Either it is not, or the file system cannot tell.
        if exc.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
            return False
        raise
    return True
