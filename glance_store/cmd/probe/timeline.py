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

"""Which stream was reading when, and when everybody else had a turn.

A few streams read a few chunks each, once without cooperation and once with a
yield after every chunk. That is for a picture, and apart from what is
measured: to note each read takes time itself.
"""

from collections.abc import Callable
import dataclasses
import time
from typing import Any, BinaryIO

import eventlet

from glance_store.cmd.probe import errors
from glance_store.cmd.probe import images
from glance_store.cmd.probe import signals
from glance_store.common import utils

# What a picture has room for.
STREAMS = 4
CHUNKS = 64

# How long all of that may take where reads are slow, in seconds.
SECONDS = 2.0

# How long everybody else waits between two turns, in seconds.
PAUSE = 0.00025

clock = time.monotonic


@dataclasses.dataclass(frozen=True)
class Timeline:
    """What there is to be seen of one run; times are in seconds.

    :param title: what it shows
    :param reads: when each read of each stream began and ended
    :param turns: when everybody else had a turn
    """

    title: str
    reads: list[list[tuple[float, float]]]
    turns: list[float]

    @property
    def end(self) -> float:
        return max(end for reads in self.reads for _, end in reads)


class _Reads:
    """A file-like that notes when it was read, and ends after some chunks.

    It begins the file again as often as that takes.
    """

    def __init__(self, file: BinaryIO, most: int, start: float) -> None:
        self._file = file
        self._most = most
        self._start = start
        self.times: list[tuple[float, float]] = []

    def read(self, size: int) -> bytes:
        if len(self.times) >= self._most or signals.received:
            return b''
        begun = clock() - self._start
        chunk = self._file.read(size)
        if not chunk:
            self._file.seek(0)
            chunk = self._file.read(size)
        self.times.append((begun, clock() - self._start))
        return chunk


def record(
    image: images.Image, chunk_size: int, throughput: float
) -> list[Timeline]:
    """Return what is seen without cooperation, and what with it.

    :param throughput: MiB a second that may be expected
    :raises Failure: where the image cannot be read
    """
    chunks_a_second = throughput * images.MIB / chunk_size
    most = int(chunks_a_second * SECONDS / STREAMS)
    chunks = max(2, min(CHUNKS, most))
    with errors.failing('drawing the timeline'), signals.asking_first():
        return [
            _record(title, wrap, image, chunk_size, chunks)
            for title, wrap in (
                ('without cooperation', lambda file: file),
                ('with a yield after every chunk', utils.CooperativeReader),
            )
        ]


def _record(
    title: str,
    wrap: Callable[[Any], Any],
    image: images.Image,
    chunk_size: int,
    chunks: int,
) -> Timeline:
    turns: list[float] = []
    failures: list[Exception] = []
    start = clock()

    def beat() -> None:
        while True:
            turns.append(clock() - start)
            eventlet.sleep(PAUSE)

    def stream() -> list[tuple[float, float]]:
        try:
            with open(image.path, 'rb') as file:
                reads = _Reads(file, chunks, start)
                reader = wrap(reads)
                while reader.read(chunk_size):
                    pass
            return reads.times
        except Exception as exc:
            # Out of a green thread the hub would print it.
            failures.append(exc)
            return []

    heart = eventlet.spawn(beat)
    streams = [eventlet.spawn(stream) for _ in range(STREAMS)]
    try:
        reads = [thread.wait() for thread in streams]
        # Its turn has come: what it was kept waiting for is over.
        eventlet.sleep(PAUSE)
    finally:
        for thread in (heart, *streams):
            thread.kill()
    signals.stop_if_asked()
    if failures:
        raise failures[0]
    return Timeline(title, reads, turns)
