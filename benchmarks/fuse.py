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

"""A file system in this process, of one file whose reads take their time.

It speaks the kernel's FUSE protocol by itself, as far as one file needs it:
a library for that would have to be on the machine, and the kernel always is.
The numbers are those of <linux/fuse.h>.
"""

import contextlib
import ctypes
import errno
import os
import stat
import struct
import sys
import threading
import time
from typing import Any

NAME = 'slow'
CONTENT = bytes(range(256)) * 2048

_MS_NOSUID_NODEV = 2 | 4
_MNT_DETACH = 2
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000

_LOOKUP, _GETATTR, _OPEN, _READ, _INIT = 1, 3, 14, 15, 26
_FORGET, _BATCH_FORGET, _INTERRUPT = 2, 42, 36
_RELEASE, _FLUSH = 18, 25

# So that each read(2) becomes one request, with no page cache in between.
_FOPEN_DIRECT_IO = 1

_IN = struct.Struct('<IIQQIIIHH')
_OUT = struct.Struct('<IiQ')


def mount(folder: str) -> int:
    """Mount a file system that nobody else sees; return its descriptor.

    It is there for this process and its children, and goes with them. That
    needs no privilege where users may have namespaces of their own, and
    where it is not to be had there is an OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    _call(libc.unshare, _CLONE_NEWUSER | _CLONE_NEWNS)
    for name, line in (
        ('uid_map', f'0 {user} 1'),
        ('setgroups', 'deny'),
        ('gid_map', f'0 {group} 1'),
    ):
        with open(f'/proc/self/{name}', 'w') as fp:
            fp.write(line)
    fd = os.open('/dev/fuse', os.O_RDWR)
    data = f'fd={fd},rootmode=40000,user_id=0,group_id=0'
    _call(
        libc.mount,
        b'slow',
        os.fsencode(folder),
        b'fuse',
        _MS_NOSUID_NODEV,
        data.encode(),
    )
    return fd


def unmount(folder: str) -> None:
    """Take it away, whoever still has a file open there."""
    libc = ctypes.CDLL(None, use_errno=True)
    _call(libc.umount2, os.fsencode(folder), _MNT_DETACH)


def _call(function: Any, *args: object) -> None:
    if function(*args):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), function.__name__)


class FileSystem:
    """Answers the kernel: a folder with one file in it."""

    def __init__(self, fd: int, seconds: float) -> None:
        self._fd = fd
        self._seconds = seconds

    def serve(self) -> None:
        """Answer until the file system is unmounted."""
        with contextlib.suppress(OSError):
            while request := os.read(self._fd, 1 << 18):
                # One slow read must not make the next one wait.
                threading.Thread(
                    target=self._answer, args=(request,), daemon=True
                ).start()

    def _answer(self, request: bytes) -> None:
        _, operation, unique, node, *_ = _IN.unpack_from(request)
        body = request[_IN.size :]
        if operation in (_FORGET, _BATCH_FORGET, _INTERRUPT):
            return
        number, answer = 0, b''
        if operation == _INIT:
            answer = struct.pack(
                '<4I2H11I', 7, 31, 0, 0, 12, 9, 1 << 17, *[0] * 10
            )
        elif operation == _GETATTR:
            answer = struct.pack('<QII', 60, 0, 0) + self._attributes(node)
        elif operation == _LOOKUP and body.rstrip(b'\0') == NAME.encode():
            answer = struct.pack('<4QII', 2, 0, 60, 60, 0, 0)
            answer += self._attributes(2)
        elif operation == _OPEN:
            answer = struct.pack('<QII', 0, _FOPEN_DIRECT_IO, 0)
        elif operation == _READ:
            time.sleep(self._seconds)
            _, offset, size = struct.unpack_from('<QQI', body)
            answer = CONTENT[offset : offset + size]
        elif operation == _LOOKUP:
            number = errno.ENOENT
        elif operation not in (_RELEASE, _FLUSH):
            number = errno.ENOSYS
        head = _OUT.pack(_OUT.size + len(answer), -number, unique)
        with contextlib.suppress(OSError):
            os.write(self._fd, head + answer)

    def _attributes(self, node: int) -> bytes:
        if node == 1:
            mode, size = stat.S_IFDIR | 0o555, 0
        else:
            mode, size = stat.S_IFREG | 0o444, len(CONTENT)
        return struct.pack(
            '<6Q10I', node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, *[0] * 5
        )


def main() -> None:
    """Serve a file system: FD, seconds a read takes."""
    fd, seconds = sys.argv[1:]
    FileSystem(int(fd), float(seconds)).serve()


if __name__ == '__main__':
    main()
