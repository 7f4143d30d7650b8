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


"""How much memory a stream holds, and what it copies."""

import collections
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import functools
import io
import tracemalloc
from typing import Any
import weakref

from glance_store.common import utils
from glance_store.tests.unit import base
from glance_store.tests.unit import test_names

KIB = 1024
CHUNK = 64 * KIB

# Objects and buffers of a few hundred bytes.
SLACK = 8 * KIB


def reader(number: int, size: int, kind: Any) -> utils.CooperativeReader[Any]:
    return utils.CooperativeReader(kind(size) for _ in range(number))


def peak(call: Callable[[], object]) -> int:
    """Return by how much memory grows during *call*, at most."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class MemoryTestCase(base.TestCase):
    def test_gathering_holds_the_bytes_and_one_chunk(self) -> None:
        size = 8 * KIB * KIB
        zeros = io.BytesIO(bytes(size))

        def gatherings(part: int, kind: Any) -> Iterator[Callable[[], Any]]:
            number = size // part
            for length in -1, size - 5:
                stream = reader(number, part, kind)
                yield functools.partial(stream.read, length)
            yield utils.chunkiter(reader(number, part, kind), size).__next__
            zeros.seek(0)
            short = test_names.Short(zeros, part)
            yield utils.chunkiter(short, size).__next__

        for kind in bytes, bytearray:
            for part in 512, CHUNK, 1024 * KIB:
                # A buffer may be an eighth larger than its contents. A
                # bytearray is the source's own, and the chunk is its copy.
                chunks = 1 + (kind is bytearray)
                most = size * 9 // 8 + chunks * part + SLACK
                for call in gatherings(part, kind):
                    self.assertLess(peak(call), most, (kind, part))

    def test_streaming_holds_two_chunks_and_the_bytes(self) -> None:
        for kind in bytes, bytearray:
            for size in None, 5 * KIB, CHUNK, CHUNK + 1, 3 * CHUNK:
                stream = reader(60, CHUNK, kind)
                # A bytearray is the source's own, and one of the two a copy.
                chunks = 2 + (kind is bytearray)
                most = (size or 0) * 9 // 8 + chunks * CHUNK + SLACK
                answers = iter(functools.partial(stream.read, size), b'')
                drop: Any = functools.partial(collections.deque, answers, 0)
                self.assertLess(peak(drop), most, (kind, size))

    def test_small_reads_of_a_large_chunk(self) -> None:
        stream = reader(1, 64 * CHUNK, bytes)
        stream.read(1)
        for _ in range(1000):
            grown = peak(functools.partial(stream.read, 4 * KIB))
            self.assertLess(grown, 4 * KIB + SLACK)

    def test_interrupted_gathering(self) -> None:
        def source() -> Iterator[Any]:
            for _ in range(64):
                yield from (bytes(CHUNK), OSError('again'))

        def repeat(step: Callable[[], object]) -> None:
            for _ in range(64):
                with contextlib.suppress(OSError):
                    step()

        size = 64 * CHUNK
        fp = test_names.Answering(*source())
        for step in (
            utils.chunkiter(fp, size).__next__,
            functools.partial(
                utils.CooperativeReader(test_names.answering(*source())).read,
                size,
            ),
        ):
            # What was gathered before is never copied.
            self.assertLess(
                peak(functools.partial(repeat, step)),
                size * 9 // 8 + 2 * CHUNK,
            )

    def test_no_memory_to_gather(self) -> None:
        """A call that ends for want of memory leaves no hole."""
        outcomes = base.run_python("""
            import itertools
            import json
            import resource

            from glance_store.common import utils

            MIB = 1024 * 1024
            NONE = resource.RLIM_INFINITY

            chunks = [bytes([number]) * (9 * MIB) for number in range(4)]
            image = b''.join(chunks)

            def outcome(kind, size, room, then):
                read = utils.CooperativeReader([*map(kind, chunks)]).read
                pages = int(open('/proc/self/statm').read().split()[0])
                limit = pages * resource.getpagesize() + room * MIB
                resource.setrlimit(resource.RLIMIT_AS, (limit, NONE))
                try:
                    read(size)
                except MemoryError:
                    pass
                else:
                    return 'enough memory'
                finally:
                    resource.setrlimit(resource.RLIMIT_AS, (NONE, NONE))
                try:
                    parts = [*iter(lambda: read(then) or None, None)]
                except ValueError:
                    return 'refused'
                if kind is bytes.decode:
                    parts = map(str.encode, parts)
                return 'whole' if b''.join(parts) == image else 'not whole'

            def outcomes(*kinds_and_sizes):
                cases = *kinds_and_sizes, (1, 18), (MIB, None)
                return [outcome(*case) for case in itertools.product(*cases)]

            print(json.dumps([
                outcomes((bytes, bytearray), [16 * MIB]),
                outcomes((bytes, bytearray, bytes.decode), [-1])
                + outcomes([bytes.decode], [16 * MIB]),
            ]))
        """)
        kept, lost = outcomes
        self.assertEqual({'whole'}, {*kept} - {'enough memory'})
        self.assertIn('refused', lost)
        self.assertNotIn('not whole', lost)

    def test_whole_chunks_are_not_copied(self) -> None:
        parts = [bytes(CHUNK), bytes(CHUNK)]
        for step in (
            utils.CooperativeReader(parts).read,
            utils.CooperativeReader(parts).__next__,
            functools.partial(utils.CooperativeReader(parts).read, CHUNK),
            utils.chunkiter(test_names.Answering(*parts), CHUNK).__next__,
        ):
            for part in parts:
                self.assertIs(part, step())

    def test_nothing_that_was_returned_is_held(self) -> None:
        class Item:
            pass

        for step in (
            utils.cooperative_iter(Item() for _ in '12').__next__,
            utils.cooperative_read(test_names.Answering(Item(), Item())),
        ):
            for _ in '12':
                self.assertIsNone(weakref.ref(step())())
