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

"""Where the programs of the functional tests have their image data from.

A program imports this as a module beside it: its own glance_store is not the
one that this is a part of.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from concurrent import futures
import contextlib
import importlib
import io
import random
import socket
import threading
from typing import Any

LONGEST = 300_000


def image(size: int, seed: int | str) -> bytes:
    """Return the content of one image, the same for the same arguments."""
    return random.Random(seed).randbytes(size)


def uneven_chunks(content: bytes, seed: int = 0) -> Iterator[Any]:
    """Cut *content* into chunks of all sizes, 0 included, and of all types.

    Each ``bytearray`` is the same one, refilled: some sources work like that.
    """
    dice = random.Random(seed)
    buffer = bytearray()
    begin = 0
    while begin < len(content):
        size = dice.choice((0, 1, 7, 4096, 65536, 65537, LONGEST))
        chunk = content[begin : begin + size]
        begin += size
        match dice.randrange(3):
            case 0:
                yield chunk
            case 1:
                yield memoryview(chunk)
            case 2:
                buffer[:] = chunk
                yield buffer


@contextlib.contextmanager
def short_reads(content: bytes) -> Iterator[io.RawIOBase]:
    """Give *content* through a socket, whose reads answer what is there."""
    ours, theirs = socket.socketpair()
    writer = threading.Thread(target=_send, args=(theirs, content))
    writer.start()
    try:
        with ours, ours.makefile('rb', buffering=0) as file:
            yield file
    finally:
        writer.join()


def _send(connection: socket.socket, content: bytes) -> None:
    with connection, contextlib.suppress(ConnectionError):
        for chunk in uneven_chunks(content):
            connection.sendall(chunk)


def patch(scheduler: str) -> None:
    """Have eventlet, where it is the scheduler, patch the standard library.

    What is imported after this has to be: it may keep what it finds.
    """
    if scheduler == 'eventlet':
        importlib.import_module('eventlet').monkey_patch()


def at_once(
    scheduler: str, function: Callable[..., Any], tasks: Iterable[Any]
) -> list[Any]:
    """Call *function* with the arguments of each task, all at once."""
    if scheduler == 'eventlet':
        pool = importlib.import_module('eventlet').GreenPool()
        green = [pool.spawn(function, *task) for task in tasks]
        return [green_thread.wait() for green_thread in green]
    with futures.ThreadPoolExecutor(16) as executor:
        native = [executor.submit(function, *task) for task in tasks]
        return [future.result() for future in native]
