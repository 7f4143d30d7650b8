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

"""Streams in the life of a process: forks, exits, and what is dropped."""

import gc
import io
import os
import textwrap
import tracemalloc
import weakref

import eventlet
import fixtures

from glance_store.common import utils
from glance_store.tests.unit import base


# How many streams are made and dropped to see what they leave behind.
DROPPED = 100_000 if base.STRESS else 20_000


class Source(base.Fetching):
    """As its base, and knows when it is dropped."""


class Switching(base.Reading):
    """A file-like that lets others run while it is read, as a socket does."""

    def read(self, size=None):
        eventlet.sleep(0)
        return super().read(size)


def stepping(read):
    """Return a function that gives the next 7 bytes."""
    return lambda: read(7)


def iterating(stream):
    return stream.__next__


class TestDropped(base.HubTestCase):
    """Streams that nobody uses any more."""

    MAKES = (
        lambda: utils.chunkiter(base.Reading(bytes(100)), 7),
        lambda: utils.cooperative_iter(base.Fetching(*[b'abc'] * 9)),
        lambda: utils.CooperativeReader(base.Reading(bytes(100))),
        lambda: utils.CooperativeReader(base.Fetching(*[b'abc'] * 9)),
    )

    # Of each kind: a source, and how the next piece of a stream over it comes.
    KINDS = (
        (
            lambda: Switching(bytes(30), 4),
            lambda source: iterating(utils.chunkiter(source, 7)),
        ),
        (
            lambda: base.Fetching(*[b'abc'] * 4),
            lambda source: iterating(utils.cooperative_iter(source)),
        ),
        (
            lambda: base.Reading(bytes(30)),
            lambda source: stepping(utils.cooperative_read(source)),
        ),
        (
            lambda: base.Reading(bytes(30)),
            lambda source: stepping(utils.CooperativeReader(source).read),
        ),
        (
            lambda: base.Fetching(*[b'abc'] * 9),
            lambda source: stepping(utils.CooperativeReader(source).read),
        ),
        (
            lambda: base.Fetching(*[b'abc'] * 4),
            lambda source: iterating(utils.CooperativeReader(source)),
        ),
    )

    def never_started(self, step):
        """Do nothing with the stream."""

    def begun(self, step):
        self.assertTrue(step())

    def finished(self, step):
        self.assertIn(len(list(base.calls(step, []))), (4, 5))

    def interrupted(self, step):
        """Throw something into the first switch of the second piece."""
        self.begun(step)
        base.Run(
            lambda: self.assertRaises(base.Interrupted, step),
            lambda number: base.Interrupted(),
        )

    LIVES = (never_started, begun, finished, interrupted)

    def lead(self, number):
        """Make and drop so many streams; return how many times one closed."""
        closed = 0
        for _ in range(number // (len(self.KINDS) * len(self.LIVES)) + 1):
            for make_source, make in self.KINDS:
                for live in self.LIVES:
                    source = make_source()
                    live(self, make(source))
                    closed += source.closed
        return closed

    def test_leave_nothing_behind(self):
        self.lead(500)
        self.addCleanup(tracemalloc.stop)
        tracemalloc.start()
        self.lead(500)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        with self.tally.case('process: streams made and dropped', DROPPED):
            self.assertEqual(0, self.lead(DROPPED))
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
            # Half a byte for each stream, or timers not yet cleared away.
            self.assertLess(grown, max(DROPPED / 2, 20_000))

    def test_close_no_file(self):
        file = self.useFixture(fixtures.TempDir()).join('image')
        with open(file, 'wb') as written:
            written.write(bytes(30))
        for make in (
            lambda source: iterating(utils.chunkiter(source, 7)),
            lambda source: iterating(utils.cooperative_iter(source)),
            lambda source: stepping(utils.cooperative_read(source)),
            lambda source: stepping(utils.CooperativeReader(source).read),
        ):
            for live in (type(self).never_started, type(self).begun):
                with open(file, 'rb') as source:
                    live(self, make(source))
                    gc.collect()
                    self.assertFalse(source.closed)
                    self.assertEqual(30, os.fstat(source.fileno()).st_size)

    def test_close_nothing(self):
        for make, source in (
            (utils.chunkiter, base.Reading(b'abc')),
            (utils.cooperative_iter, base.Fetching(b'a', b'b')),
            (utils.CooperativeReader, base.Reading(b'abc')),
            (utils.CooperativeReader, base.Fetching(b'a', b'b')),
        ):
            stream = make(source)
            next(stream)
            del stream
            self.assertEqual(0, source.closed)

    def test_source_is_let_go_of_at_once(self):
        # Not by the garbage collector, which may be long in coming while an
        # image is held.
        for make in (utils.cooperative_iter, utils.CooperativeReader):
            source = Source(b'a', b'b')
            dropped = weakref.ref(source)
            stream = make(source)
            next(stream)
            del source
            self.assertIsNotNone(dropped())
            del stream
            self.assertIsNone(dropped())

    def test_interrupted_leave_no_timer(self):
        before = self.hub.get_timers_count()
        for make in self.MAKES[1:]:
            for _ in range(50):
                stream = make()
                base.Run(
                    lambda stream=stream: self.assertRaises(
                        base.Interrupted, next, stream
                    ),
                    lambda number: base.Interrupted(),
                )
        for _ in range(3):
            eventlet.sleep(0)
        self.assertLess(self.hub.get_timers_count() - before, 20)


class TestProcess(base.TestCase):
    CODE = """
        import io
        import json
        import os

        import eventlet

        from glance_store.common import utils

        eventlet.hubs.get_hub()
        data = bytes(range(200))
        streams = [
            utils.CooperativeReader(io.BytesIO(data)),
            utils.CooperativeReader(data[n:n + 9] for n in range(0, 200, 9)),
        ]
        for stream in streams:
            assert stream.read(50) == data[:50]
        iterator = utils.cooperative_iter(iter(data))
        assert next(iterator) == 0
        """

    def test_child_of_a_fork_goes_on(self):
        fork = """
            reading, writing = os.pipe()
            pid = os.fork()
            rest = b''.join(stream.read(150) for stream in streams)
            good = rest == data[50:] * 2 and bytes(iterator) == data[1:]
            if pid == 0:
                os.write(writing, b'y' if good else b'n')
                os._exit(0)
            os.waitpid(pid, 0)
            print(json.dumps([good, os.read(reading, 1).decode()]))
            """
        code = textwrap.dedent(self.CODE) + textwrap.dedent(fork)
        self.assertEqual([True, 'y'], base.run_python(code))

    def test_exit_with_open_streams(self):
        # run_python fails for whatever is written to stderr.
        for patch in ('', 'eventlet.monkey_patch()\n'):
            code = textwrap.dedent(self.CODE).replace(
                'eventlet.hubs.get_hub()\n',
                f'{patch}eventlet.hubs.get_hub()\n',
            )
            code += (
                'eventlet.spawn(list, iterator)\n'
                'eventlet.sleep(0)\n'
                'print(json.dumps("open"))\n'
            )
            self.assertEqual('open', base.run_python(code))

    def test_many_streams_at_once(self):
        self.useFixture(base.Hub())
        data = bytes(1000)
        descriptors = len(os.listdir('/proc/self/fd'))

        def read():
            reader = utils.CooperativeReader(io.BytesIO(data))
            return sum(len(a) for a in base.calls(lambda: reader.read(50), []))

        threads = [eventlet.spawn(read) for _ in range(500)]
        self.assertEqual({1000}, {thread.wait() for thread in threads})
        self.assertEqual(descriptors, len(os.listdir('/proc/self/fd')))
