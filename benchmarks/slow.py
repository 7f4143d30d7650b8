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

"""Storage that takes 200 ms for a read, and a heartbeat beside it.

The file is a real one, and slow below Python: on a FUSE file system, or where
that is not to be had, through a read(2) of our own that is loaded before the
C library's. Streams of it run in a process of their own.
"""

from collections.abc import Callable, Iterator
import contextlib
import functools
import itertools
import json
import os
import pathlib
import shutil
import subprocess  # noqa: S404
import sys
from typing import Any

import eventlet
from oslo_config import cfg
import pyperf

from benchmarks.cases import KiB
from benchmarks import fuse
from benchmarks import pairs
from glance_store.common import utils

LATENESS = 'lateness of a heartbeat, reads of 200 ms'
OFFLOADED = 'offload_file_reads'
NOT_OFFLOADED = 'reads on the hub'

_CHUNK = 64 * KiB
_BEAT = 0.001


def measure(
    where: str, folder: pathlib.Path, seconds: float
) -> Iterator[pairs.Row]:
    """Stream from slow storage with the option and without it."""
    seconds = 0.2 if seconds else 0.02
    with contextlib.ExitStack() as stack:
        try:
            path, kind = _by_fuse(folder, seconds, stack), 'FUSE'
            environment: dict[str, str] = {}
        except OSError as exc:
            print(f'no FUSE file system: {exc}', file=sys.stderr)
            path, kind = folder / 'slow', 'LD_PRELOAD'
            environment = _by_preload(path, seconds)
        for streams in (1, 3):
            for offloaded in (True, False):
                late = _lateness(path, environment, streams, offloaded)
                yield pairs.Row(
                    case=LATENESS,
                    where=f'hub, {kind}',
                    what=f'streams: {streams}',
                    against=OFFLOADED if offloaded else NOT_OFFLOADED,
                    unit='ms',
                    count=len(late),
                    low=1000 * late[len(late) // 2],
                    value=1000 * late[len(late) * 99 // 100],
                    high=1000 * late[-1],
                )


def _by_fuse(
    folder: pathlib.Path, seconds: float, stack: contextlib.ExitStack
) -> pathlib.Path:
    folder = folder / 'mnt'
    folder.mkdir()
    fd = fuse.mount(str(folder))
    server = subprocess.Popen(  # noqa: S603
        [
            *(sys.executable, '-m', 'benchmarks.fuse'),
            *(str(fd), str(seconds)),
        ],
        pass_fds=[fd],
    )
    stack.callback(fuse.unmount, str(folder))
    stack.callback(server.wait)
    stack.callback(server.kill)
    os.close(fd)
    return folder / fuse.NAME


def _by_preload(path: pathlib.Path, seconds: float) -> dict[str, str]:
    compiler = shutil.which('cc') or shutil.which('gcc')
    if compiler is None:
        raise SystemExit('slow storage needs FUSE or a C compiler')
    source = pathlib.Path(__file__).with_name('slowread.c')
    library = path.with_name('slowread.so')
    subprocess.run(  # noqa: S603
        [
            compiler,
            '-shared',
            '-fPIC',
            '-o',
            str(library),
            str(source),
            '-ldl',
        ],
        check=True,
    )
    path.write_bytes(fuse.CONTENT)
    return {
        'LD_PRELOAD': str(library),
        'SLOW_INODE': str(path.stat().st_ino),
        'SLOW_SECONDS': str(seconds),
    }


def _lateness(
    path: pathlib.Path,
    environment: dict[str, str],
    streams: int,
    offloaded: bool,
) -> list[float]:
    done = subprocess.run(  # noqa: S603
        [
            *(sys.executable, '-m', 'benchmarks.slow'),
            *(str(path), str(streams), str(int(offloaded))),
        ],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        check=True,
    )
    return sorted(json.loads(done.stdout))


def _streams(path: str) -> Iterator[Callable[[], Iterator[bytes]]]:
    """Return the ways to read a file, each once."""

    def reading(wrap: Callable[[Any], Callable[..., Any]]) -> Iterator[bytes]:
        with open(path, 'rb') as fp:
            yield from iter(functools.partial(wrap(fp), _CHUNK), b'')

    def iterating(wrap: Callable[[Any], Any]) -> Iterator[bytes]:
        with open(path, 'rb') as fp:
            yield from wrap(fp)

    yield functools.partial(reading, utils.cooperative_read)
    yield functools.partial(iterating, utils.CooperativeReader)
    yield functools.partial(
        iterating, lambda fp: utils.cooperative_iter(utils.chunkreadable(fp))
    )


def main() -> None:
    """Print how late each beat was.

    Beside streams of a file: PATH, how many, 1 where they are offloaded.
    """
    path, count, offloaded = sys.argv[1:]
    cfg.CONF.set_override(
        'offload_file_reads', bool(int(offloaded)), 'glance_store'
    )
    late: list[float] = []

    def heartbeat() -> None:
        while not all(stream.dead for stream in streams):
            due = pyperf.perf_counter() + _BEAT
            eventlet.sleep(_BEAT)
            late.append(pyperf.perf_counter() - due)

    def download(way: Callable[[], Iterator[bytes]]) -> bool:
        return b''.join(way()) == fuse.CONTENT

    ways = itertools.islice(_streams(path), int(count))
    streams = [eventlet.spawn(download, way) for way in ways]
    with pairs.no_collector():
        eventlet.spawn(heartbeat).wait()
    if not all(stream.wait() for stream in streams):
        raise AssertionError('something else came than is in the file')
    json.dump(late, sys.stdout)


if __name__ == '__main__':
    main()
