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

"""The reader against the obvious model: all bytes joined, then sliced.

hypothesis makes up the chunks, the reads and the interruptions. All of it runs
on a real hub, and an interruption is thrown into whichever yield it falls on.
"""

import io

import eventlet
import hypothesis
from hypothesis import strategies

from glance_store.common import utils
from glance_store.tests.unit import base

# The same examples in each run: what fails once fails for everyone.
PROFILE = hypothesis.settings(
    database=None,
    deadline=None,
    derandomize=True,
    max_examples=300,
    suppress_health_check=list(hypothesis.HealthCheck),
)

KINDS = {
    'bytes': bytes,
    'bytearray': bytearray,
    'memoryview': memoryview,
    'slice': lambda data: memoryview(b'<' + bytes(data) + b'>')[1:-1],
}

chunkings = strategies.lists(
    strategies.tuples(
        strategies.integers(0, 12), strategies.sampled_from(sorted(KINDS))
    ),
    max_size=15,
)
lengths = strategies.one_of(
    strategies.none(),
    strategies.just(-1),
    strategies.just(0),
    strategies.integers(1, 40),
)
interruptions = strategies.lists(
    strategies.sampled_from(['', '', *base.INTERRUPTIONS]), max_size=40
)


def data_of(chunks):
    """Return the bytes of all chunks: no two alike next to each other."""
    return bytes(n % 251 for n in range(sum(size for size, _ in chunks)))


def pieces(chunks):
    data, at = data_of(chunks), 0
    for size, kind in chunks:
        yield KINDS[kind](data[at : at + size])
        at += size


def reusing(chunks):
    """As pieces, in one buffer that is overwritten when the next comes."""
    buffer = bytearray(b'?' * 12)
    for piece in pieces(chunks):
        buffer[:] = b'?' * 12
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]


class Joined:
    """The model of a reader: joined bytes, and where each chunk ends."""

    def __init__(self, chunks):
        self.data = data_of(chunks)
        self.position = 0
        self.ends = []
        end = 0
        for size, _ in chunks:
            end += size
            self.ends.append(end)

    def read(self, length):
        if length is None:
            later = [end for end in self.ends if end > self.position]
            end = later[0] if later else len(self.data)
        elif length < 0:
            end = len(self.data)
        else:
            end = self.position + length
        answer = self.data[self.position : end]
        self.position += len(answer)
        return answer


class Model(base.HubTestCase):
    def throwing(self, names):
        names = list(names)

        def interrupt(number):
            name = names[number - 1] if number <= len(names) else ''
            return base.INTERRUPTIONS[name]() if name else None

        return interrupt

    def same(self, reader, steps, names, expected):
        """Compare answers, each call repeated until it is not interrupted."""
        caught = []

        def consume():
            answers = []
            for step in steps:
                if step == 'iterate':
                    answers.append(
                        base.insist(lambda: next(reader, b''), caught)
                    )
                else:
                    answers.append(
                        base.insist(
                            lambda length=step: reader.read(length), caught
                        )
                    )
            return answers

        run = base.Run(consume, self.throwing(names))
        self.assertEqual(expected, run.answer)
        self.assertEqual(len(run.thrown), len(caught))


class TestOverIterable(Model):
    @PROFILE
    @hypothesis.given(
        chunkings,
        strategies.lists(
            strategies.one_of(lengths, strategies.just('iterate')),
            max_size=12,
        ),
        interruptions,
        strategies.sampled_from([pieces, reusing]),
    )
    def test_same_answers(self, chunks, steps, names, source):
        model = Joined(chunks)
        expected = [
            model.read(None if step == 'iterate' else step) for step in steps
        ]
        reader = utils.CooperativeReader(source(chunks))
        self.same(reader, steps, names, expected)

    @PROFILE
    @hypothesis.given(
        chunkings,
        strategies.lists(lengths.filter(lambda x: x != 0), min_size=1),
        interruptions,
        strategies.sampled_from([pieces, reusing]),
    )
    def test_changing_the_mind_after_an_interruption(
        self, chunks, sizes, names, source
    ):
        # Each call asks for another length, the interrupted ones' too, so
        # only the whole is the same as the model's.
        reader = utils.CooperativeReader(source(chunks))
        number = 0

        def step():
            nonlocal number
            length = sizes[number % len(sizes)]
            number += 1
            answer = reader.read(length)
            if length is not None and length >= 0:
                self.assertLessEqual(len(answer), length)
            return answer

        run = base.Run(
            lambda: b''.join(base.calls(step, [])), self.throwing(names)
        )
        self.assertEqual(data_of(chunks), run.answer)

    @PROFILE
    @hypothesis.given(
        chunkings,
        strategies.integers(1, 40),
        interruptions,
        strategies.sampled_from([pieces, reusing]),
    )
    def test_chunks_of_the_reader(self, chunks, size, names, source):
        reader = utils.CooperativeReader(source(chunks))
        cut = utils.chunkreadable(reader, size)
        run = base.Run(
            lambda: list(base.calls(lambda: next(cut), [])),
            self.throwing(names),
        )
        data = data_of(chunks)
        self.assertEqual(
            [data[at : at + size] for at in range(0, len(data), size)],
            run.answer,
        )

    @PROFILE
    @hypothesis.given(
        chunkings,
        strategies.lists(
            strategies.one_of(lengths, strategies.just('iterate')),
            max_size=12,
        ),
    )
    def test_without_a_hub(self, chunks, steps):
        model = Joined(chunks)
        expected = [
            model.read(None if step == 'iterate' else step) for step in steps
        ]
        reader = utils.CooperativeReader(pieces(chunks))

        def consume():
            return [
                next(reader, b'') if step == 'iterate' else reader.read(step)
                for step in steps
            ]

        self.assertEqual(expected, base.in_native_thread(consume))


class TestOverFileLike(Model):
    @PROFILE
    @hypothesis.given(
        strategies.binary(max_size=100),
        strategies.lists(lengths, max_size=12),
        interruptions,
    )
    def test_same_answers(self, data, steps, names):
        model = io.BytesIO(data)
        self.same(
            utils.CooperativeReader(io.BytesIO(data)),
            steps,
            names,
            [model.read(step) for step in steps],
        )

    @PROFILE
    @hypothesis.given(
        strategies.text(max_size=100),
        strategies.lists(lengths.filter(lambda x: x != 0), min_size=1),
        interruptions,
        strategies.booleans(),
    )
    def test_changing_the_mind_after_an_interruption(
        self, text, sizes, names, binary
    ):
        data = text.encode('utf-8', 'surrogatepass') if binary else text
        read = utils.cooperative_read(base.Reading(data, 9))
        number = 0

        def step():
            nonlocal number
            length = sizes[number % len(sizes)]
            number += 1
            answer = read(length)
            if length is not None and length >= 0:
                self.assertLessEqual(len(answer), length)
            return answer

        run = base.Run(
            lambda: data[:0].join(base.calls(step, [])), self.throwing(names)
        )
        self.assertEqual(data, run.answer)


class TestIterator(Model):
    @PROFILE
    @hypothesis.given(
        strategies.lists(strategies.integers(1)),
        interruptions,
        strategies.integers(0, 3),
    )
    def test_each_item_once(self, items, names, others):
        iterator = utils.cooperative_iter(iter(items))
        got = []
        threads = [eventlet.spawn(got.extend, iterator) for _ in range(others)]
        run = base.Run(
            lambda: list(base.calls(lambda: next(iterator), [])),
            self.throwing(names),
        )
        for thread in threads:
            thread.wait()
        if not others:
            self.assertEqual(items, run.answer)
        self.assertEqual(sorted(items), sorted(run.answer + got))


class TestChunks(base.TestCase):
    @PROFILE
    @hypothesis.given(
        strategies.binary(max_size=200),
        strategies.lists(
            strategies.one_of(strategies.none(), strategies.integers(1, 20)),
            max_size=20,
        ),
        strategies.integers(1, 50),
    )
    def test_every_chunk_is_exact_between_two_waits(self, data, mosts, size):
        # A source that answers so many bytes at most, or has nothing yet.
        fp = io.BytesIO(data)
        plan = iter(mosts)

        class Source:
            def read(self, size):
                most = next(plan, size)
                return None if most is None else fp.read(min(size, most))

        chunks = utils.chunkiter(Source(), size)
        got, run = [], []
        while True:
            try:
                run.append(next(chunks))
            except BlockingIOError:
                got.append(run)
                run = []
            except StopIteration:
                got.append(run)
                break
        self.assertEqual(data, b''.join(sum(got, [])))
        for run in got:
            self.assertEqual([size] * len(run[:-1]), [*map(len, run[:-1])])
            for chunk in run:
                self.assertIn(len(chunk), range(1, size + 1))
