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


"""Time ``offload_file_reads`` on warm, on slow and on cold storage.

Streams read files with the option on and off, in turns, beside a heartbeat.
The pool is made before the first round.
"""

from collections.abc import Iterator
import io
import os
import pathlib
import sys
import time
from typing import Any

import eventlet
from oslo_config import cfg
import psutil

from benchmarks import stall
from benchmarks.figures import KiB, MiB, Row
from glance_store.common import utils

_WARM, _COLD, _SLOW = 'warm', 'cold', '200 ms a read'
_SIZES = {'4 KiB': 4 * KiB, '64 KiB': 64 * KiB, '1 MiB': MiB}
_ROUNDS = {_WARM: 15, _COLD: 25, _SLOW: 1}


def cells(quick: bool) -> Iterator[dict[str, Any]]:
    """Return the arguments of measure(), each for a process of its own."""
    for storage, streams, chunk in (
        *((_WARM, 1, chunk) for chunk in _SIZES),
        (_SLOW, 1, '64 KiB'),
        (_COLD, 1, '64 KiB'),
        (_COLD, 8, '64 KiB'),
    ):
        yield {'storage': storage, 'streams': streams, 'chunk': chunk}


def measure(
    folder: pathlib.Path, seconds: float, **case: Any
) -> Iterator[Row]:
    """Measure one kind of storage; no seconds: once, and small."""
    storage, streams = case['storage'], case['streams']
    size, total = _SIZES[case['chunk']], (256 if seconds else 8) * MiB
    if storage == _SLOW:
        total = (10 if seconds else 2) * size
    paths = [folder / str(number) for number in range(streams)]
    for path in paths:
        path.write_bytes(os.urandom(total // streams))
    os.sync()  # only what is written can be dropped
    case['file system'] = _file_system(folder)
    if storage != _SLOW and not _can_ask(paths[0]):
        print(
            f'SKIPPED: {storage} storage: {case["file system"]} cannot say '
            'what is cached. Name a --folder on ext4, XFS or Btrfs.',
            file=sys.stderr,
        )
        return
    heart = stall.Heartbeat()

    def stream(path: pathlib.Path) -> None:
        with _SlowFile(path) if storage == _SLOW else path.open('rb') as fp:
            read = utils.cooperative_read(fp)
            while _ := read(size):
                pass

    def run(option: bool) -> stall.Round:
        cfg.CONF.set_override('offload_file_reads', option, 'glance_store')
        for path in paths:
            with path.open('rb') as fp:
                if storage != _WARM:
                    os.posix_fadvise(fp.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with heart.beating() as stalls:
            begun = time.monotonic()
            for one in [eventlet.spawn(stream, path) for path in paths]:
                one.wait()
            return total / (time.monotonic() - begun), stalls

    if storage == _WARM:
        # A yield for each chunk would hide what the option costs.
        name = 'cooperative_yield_interval'
        cfg.CONF.set_override(name, 0.01, 'glance_store')
    run(True)  # makes the pool
    runs = {'on': lambda: run(True), 'off': lambda: run(False)}
    rounds = _ROUNDS[storage] if seconds else 1
    for option, figures in stall.in_turns(rounds, runs, 'off').items():
        yield Row('storage', {**case, 'option': option}, figures)


def _file_system(folder: pathlib.Path) -> str:
    mounted = [
        (len(part.mountpoint), part.fstype)
        for part in psutil.disk_partitions(all=True)
        if folder.resolve().is_relative_to(part.mountpoint)
    ]
    return str(max(mounted)[1])


def _can_ask(path: pathlib.Path) -> bool:
    with path.open('rb') as fp:
        try:
            os.preadv(fp.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except OSError as exc:
            return isinstance(exc, BlockingIOError)
    return True


class _SlowFile(io.FileIO):
    """A file of which nothing is read ahead, and nothing stays cached."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__(path)
        os.posix_fadvise(self.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size) or b''
        if chunk:  # the end of a file is known without a look at it
            time.sleep(0.2)
        os.posix_fadvise(self.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return chunk
