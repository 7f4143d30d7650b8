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

import contextlib
import gc
import io
import os
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
        # Not assertIn: a matcher of testtools leaves something behind.
        self.assertTrue(len(list(base.calls(step, []))) in (4, 5))

    def interrupted(self, step):
        """Throw something into the first switch of the second piece."""
        self.begun(step)

        def give_up():
            with contextlib.suppress(base.Interrupted):
                step()
                self.fail('nothing was thrown')

        base.Run(give_up, lambda number: base.Interrupted())

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


# Streams of each kind, open at each stage: where *interrupted* leaves a chunk
# that no caller has, and in the middle of one. What the rest of each must be
# is told by where it stands.
STREAMS = """
import errno
import gc
import io
import json
import logging
import os
import sys
import tempfile

import eventlet
from eventlet import patcher
from oslo_config import cfg

from glance_store.common import utils

native = patcher.original('threading')
DATA = bytes(range(200))


# Lines on standard error are failures, and a lost read is logged.
logging.basicConfig(stream=open(os.devnull, 'w'))


class Interrupted(BaseException):
    'Thrown into a green thread that waits, and no error, as a timeout is.'


class Pipe(io.BytesIO):
    'Gives 5 bytes a read, and others a turn meanwhile, as a socket does.'

    def read(self, size=-1):
        eventlet.sleep(0)
        return super().read(min(size, 5))


class Storage(io.FileIO):
    'A regular file; each read waits until it is let through.'

    def __init__(self, path):
        super().__init__(path)
        self.gate = native.Semaphore(0)
        self.begun = native.Event()

    def read(self, *args):
        self.begun.set()
        assert self.gate.acquire(timeout=200), 'nobody let this read through'
        return super().read(*args)


def interrupted(step):
    'Begin a call, and throw something into the first wait of it.'
    thrown = []

    def run():
        try:
            step()
        except Interrupted as exc:
            thrown.append(exc)

    thread = eventlet.spawn(run)
    eventlet.sleep(0)
    eventlet.kill(thread, Interrupted())
    assert thrown, 'there was no wait'


def pieces():
    'Bytes of every type, none of them as long as a read.'
    kinds = bytes, bytearray, memoryview
    for number, at in enumerate(range(0, 200, 9)):
        yield kinds[number % 3](DATA[at:at + 9])


def reading(read):
    return lambda: read(7)


folder = tempfile.TemporaryDirectory()
path = os.path.join(folder.name, 'image')
with open(path, 'wb') as f:
    f.write(DATA)

# How the next piece of a stream comes, and the file that a fork would share.
KINDS = {
    'chunks': lambda f: utils.chunkiter(Pipe(DATA), 7).__next__,
    'iterator': lambda f: utils.cooperative_iter(pieces()).__next__,
    'file iterator': lambda f: utils.cooperative_iter(
        utils.chunkiter(f, 7)
    ).__next__,
    'read': lambda f: reading(utils.cooperative_read(f)),
    'file reader': lambda f: reading(utils.CooperativeReader(f).read),
    'reader': lambda f: reading(utils.CooperativeReader(pieces()).read),
    'long reader': lambda f: (
        lambda read=utils.CooperativeReader(pieces()).read: read(50)
    ),
    'next': lambda f: utils.CooperativeReader(pieces()).__next__,
}
STAGES = {
    'new': lambda step: b'',
    'begun': lambda step: step() + step(),
    'interrupted': lambda step: (interrupted(step), b'')[1],
    'begun and interrupted': lambda step: (step(), interrupted(step))[0],
}


def open_streams():
    'Return a name, a file, what it gave and the next step of each stream.'
    streams = {}
    for kind in KINDS:
        for stage, bring in STAGES.items():
            file = open(path, 'rb', buffering=0)
            step = KINDS[kind](file)
            had = bytes(bring(step))
            streams[f'{kind}, {stage}'] = file, had, step
    return streams


def rest_of(step):
    'Take what is left.'
    try:
        while piece := step():
            yield bytes(piece)
    except StopIteration:
        return


def goes_wrong(had, step):
    'Go on with a stream, and tell what becomes of it if not all of it comes.'
    try:
        right = had + b''.join(rest_of(step)) == DATA
    except OSError as exc:
        return errno.errorcode[exc.errno]
    return '' if right else 'wrong'


def wrong(streams):
    found = {
        name: goes_wrong(had, step) for name, (_, had, step) in streams.items()
    }
    return {name: how for name, how in found.items() if how}
"""

FORK = """
import signal
import traceback

eventlet.sleep(0)  # makes the hub
cfg.CONF.set_override('default_chunk_size', 7, 'glance_store')
offloads, fresh_hub, child_first = (word == 'yes' for word in sys.argv[1:])
cfg.CONF.set_override('offload_file_reads', offloads, 'glance_store')
streams = open_streams()
# What a read under way has read is only known to the process that began it.
under_way = [
    f'{kind}, {stage}'
    for kind in ('file iterator', 'read', 'file reader')
    for stage in ('interrupted', 'begun and interrupted')
    if offloads
]
# Of a file that was open before, both processes have one position.
positions = {
    file: file.tell()
    for name, (file, _, _) in streams.items() if name not in under_way
}
storage = Storage(path)
if offloads:
    waiting = eventlet.spawn(reading(utils.cooperative_read(storage)))
    eventlet.sleep(0)
    assert storage.begun.wait(60)


def rewind():
    for file, position in positions.items():
        file.seek(position)


def child():
    signal.alarm(60)
    if fresh_hub:
        eventlet.hubs.use_hub()
    if not child_first:
        os.read(from_parent, 1)
        rewind()
    found = wrong(streams), wrong(open_streams())
    for file, _, _ in streams.values():
        file.close()
    streams.clear()
    gc.collect()
    return found


from_child, answering = os.pipe()
from_parent, going = os.pipe()
pid = os.fork()
if pid == 0:
    try:
        answer = child()
    except BaseException:
        answer = traceback.format_exc()
    os.write(answering, json.dumps(answer).encode())
    os._exit(0)
os.close(answering)
if child_first:
    os.waitpid(pid, 0)
    rewind()
found = wrong(streams), wrong(open_streams())
os.write(going, b'.')
storage.gate.release()
print(json.dumps({
    'parent': found,
    'child': json.loads(os.read(from_child, 60000)),
    'waited': not offloads or waiting.wait() == DATA[:7],
    'under way': dict.fromkeys(under_way, 'ECANCELED'),
    'streams': 2 * len(streams),
}))
"""

DROP = """
import tracemalloc

from eventlet import tpool

eventlet.sleep(0)  # makes the hub
cfg.CONF.set_override('default_chunk_size', 7, 'glance_store')
cfg.CONF.set_override('offload_file_reads', True, 'glance_store')
number = int(sys.argv[1])
file = open(path, 'rb', buffering=0)
threads = native.active_count()


def lead(number):
    for _ in range(number):
        for kind in ('file iterator', 'read', 'file reader'):
            file.seek(0)
            interrupted(KINDS[kind](file))
    # The reads go on with nobody to wait for them: let them end.
    while not tpool._reqq.empty():
        eventlet.sleep(0)
    for _ in range(100):
        tpool.execute(len, b'')
    gc.collect()


lead(number)
tracemalloc.start()
lead(number // 10)
before = tracemalloc.get_traced_memory()[0]
lead(number)
print(json.dumps({
    'grown': tracemalloc.get_traced_memory()[0] - before,
    'closed': file.closed,
    'offloaded': native.active_count() > threads,
}))
"""

EXIT = """
import atexit

trace, patch, where = sys.argv[1:]
if patch == 'yes':
    eventlet.monkey_patch()
if trace == 'yes':
    logging.basicConfig(level=logging.DEBUG, stream=open(os.devnull, 'w'))
cfg.CONF.set_override('default_chunk_size', 7, 'glance_store')
kept = []


def open_some(offloads=False):
    eventlet.sleep(0)
    cfg.CONF.set_override('offload_file_reads', offloads, 'glance_store')
    kept.append(open_streams())


def suspended():
    open_some()
    for _, _, step in kept[-1].values():
        eventlet.spawn(rest_of_all, step)
    eventlet.sleep(0)


def rest_of_all(step):
    return list(rest_of(step))


def on_a_native_thread():
    reader, writer = os.pipe()
    held = native.Event()

    def run():
        for step in (make(open(path, 'rb')) for make in KINDS.values()):
            kept.append((step(), step))
        held.set()
        with open(reader, 'rb', buffering=0) as pipe:
            utils.CooperativeReader(pipe).read(1)

    native.Thread(target=run, daemon=True).start()
    assert held.wait(60)


def read_under_way():
    open_some(offloads=True)
    storage = Storage(path)
    reader = utils.CooperativeReader(storage)
    eventlet.spawn(reader.read, 7)
    eventlet.sleep(0)
    assert storage.begun.wait(60)
    kept.append(reader)
    # eventlet lets its pool finish before Python ends. This comes first.
    atexit.register(storage.gate.release)


{
    'main green thread': open_some,
    'suspended green threads': suspended,
    'native thread': on_a_native_thread,
    'read under way': read_under_way,
}[where]()
print(json.dumps('open'), flush=True)
"""


class TestProcess(base.TestCase):
    def test_child_of_a_fork_goes_on(self):
        for offloads in ('no', 'yes'):
            for hub in ('no', 'yes'):
                self.fork(offloads, hub, child_first='yes')
        self.fork('no', 'no', child_first='no')
        # A child that keeps the hub hears of the pool's answers, and takes
        # them from a parent that waits, which then waits forever. Services
        # make a new hub after a fork.
        self.fork('yes', 'yes', child_first='no')

    def fork(self, offloads, fresh_hub, child_first):
        facts = base.run_python(
            STREAMS + FORK, offloads, fresh_hub, child_first
        )
        number = 2 * facts['streams']
        with self.tally.case('process: forked streams', number):
            self.assertEqual([{}, {}], facts['parent'])
            self.assertEqual([facts['under way'], {}], facts['child'])
            self.assertTrue(facts['waited'])

    def test_dropped_with_a_read_under_way(self):
        rounds = DROPPED // 20
        kind = 'process: streams dropped with a read under way'
        with self.tally.case(kind, 6 * rounds):
            facts = base.run_python(STREAMS + DROP, str(rounds))
            self.assertTrue(facts['offloaded'])
            self.assertFalse(facts['closed'])
            self.assertLess(facts['grown'], 50_000)

    def test_exit_with_open_streams(self):
        # run_python fails for whatever is written to stderr.
        for where in (
            'main green thread',
            'suspended green threads',
            'native thread',
            'read under way',
        ):
            for trace, patch in (('no', 'no'), ('yes', 'no'), ('no', 'yes')):
                with self.tally.case('process: exits with open streams'):
                    self.assertEqual(
                        'open',
                        base.run_python(STREAMS + EXIT, trace, patch, where),
                    )

    def test_many_streams_at_once(self):
        self.useFixture(base.Hub())
        data = bytes(1000)
        # Of another test's hub, say, which is gone but not yet collected.
        gc.collect()
        descriptors = len(os.listdir('/proc/self/fd'))

        def read():
            reader = utils.CooperativeReader(io.BytesIO(data))
            return sum(len(a) for a in base.calls(lambda: reader.read(50), []))

        threads = [eventlet.spawn(read) for _ in range(500)]
        self.assertEqual({1000}, {thread.wait() for thread in threads})
        self.assertEqual(descriptors, len(os.listdir('/proc/self/fd')))
