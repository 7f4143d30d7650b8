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

"""Reads of regular files, in place or in eventlet's thread pool.

A file notes the native thread of each read. Slow storage is a file whose reads
wait at a gate, and a test opens it from a green thread of the same hub. So a
hub that stands still meanwhile ends in the time limit. The pool has one
thread, which answers in the order of the calls.
"""

import codecs
import errno
from functools import partial
import io
import itertools
import logging
import os
import re
import socket
import tempfile
import threading
from typing import Any

import eventlet
from eventlet import event
from eventlet import greenio
from eventlet import hubs
from eventlet import patcher
from eventlet import tpool
import fixtures

from glance_store.common import utils
from glance_store.tests.unit import base

DATA = b'abcdefghij'
KIB = 1024
MIB = 1024 * KIB


def gated(method):
    def read(self, *args, **kwargs):
        self.threads.append(threading.get_ident())
        self.gate.wait()
        if self.errors:
            raise self.errors.pop()
        answer = method(self, *args, *kwargs.values())
        self.events.append('read')
        return answer

    return read


class Storage(io.FileIO):
    """A regular file whose reads wait at a gate and note their thread."""

    def __init__(self, file, mode='r+b'):
        super().__init__(file, mode)
        self.gate = threading.Event()
        self.gate.set()
        self.threads, self.errors, self.events = [], [], []

    read = gated(io.FileIO.read)
    readinto = gated(io.FileIO.readinto)
    readall = gated(io.FileIO.readall)

    def close(self):
        self.events.append('closed')
        super().close()

    def places(self):
        """Return where the reads since the last question were made."""
        here = threading.get_ident()
        places = ['here' if t == here else 'pool' for t in self.threads]
        self.threads.clear()
        return places


def in_memory():
    """Return a file whose page cache cannot be asked, as on tmpfs."""
    storage = Storage(os.memfd_create('image'))
    storage.write(DATA)
    storage.seek(0)
    return storage


def can_be_asked(folder):
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        file.write(b'a')
        try:
            return os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except OSError:
            return False


def drop(storage):
    """Take a file out of the page cache, and end reading ahead."""
    for advice in os.POSIX_FADV_DONTNEED, os.POSIX_FADV_RANDOM:
        os.posix_fadvise(storage.fileno(), 0, 0, advice)


def raw(storage):
    return storage


def text(storage):
    return io.TextIOWrapper(io.BufferedReader(storage), 'utf-8')


KINDS = raw, io.BufferedReader, text


def reading(kind, storage):
    return utils.cooperative_read(kind(storage))


def stepping(stream):
    """Return what takes the next chunk, whatever size is asked for."""
    return lambda _: next(stream, b'')


STEPS = {
    'reader': lambda file: stepping(utils.CooperativeReader(file)),
    'chunks': lambda file: stepping(utils.chunkiter(file, 3)),
    'yields': lambda file: stepping(
        utils.cooperative_iter(utils.chunkiter(file))
    ),
}
CALLS = {kind: partial(reading, kind) for kind in KINDS} | STEPS


def outcome(call, *args):
    try:
        return call(*args)
    except BaseException as exc:
        return exc


def pool_threads():
    running = patcher.original('threading').enumerate()
    return [t.name for t in running if t.name.startswith('tpool')]


def by_the_hub(call, *args):
    """Return what a call returns in the hub's own green thread."""
    done = event.Event()
    hub = hubs.get_hub()
    hub.schedule_call_global(0, lambda: done.send(outcome(call, *args)))
    return done.wait()


def with_a_hub(call, *args):
    hubs.get_hub()
    answer = call(*args)
    base.end_hub()
    return answer


by_another_hub = partial(base.in_native_thread, with_a_hub)


def read_rest(reader):
    return reader.read(20), reader.fd.places()[-1]


class TestOffload(base.HubTestCase):
    def setUp(self):
        super().setUp()
        # A pool answers one hub, and each test has a hub of its own.
        tpool.set_num_threads(1)
        self.addCleanup(tpool.killall)
        self.configure(offload_file_reads=True, default_chunk_size=3)

    def storage(self):
        storage = in_memory()
        self.addCleanup(storage.gate.set)
        return storage

    def file(self, size, cached, kind=Storage):
        """Return a file whose first bytes are cached; below 0, the others."""
        folders = [tempfile.gettempdir(), base.ROOT]
        folder = next(filter(can_be_asked, folders), None)
        if folder is None:
            self.skipTest(f'no page cache can be asked in any of {folders}')
        path = self.useFixture(fixtures.TempDir(folder)).join('image')
        with open(path, 'wb') as out:
            out.write(bytes(size))
            out.flush()
            os.fsync(out.fileno())
        storage = kind(path)
        self.addCleanup(storage.close)
        drop(storage)
        os.pread(storage.fileno(), abs(cached), max(-cached, 0))
        return storage

    def assertPlaces(self, wanted, run, *args):
        """A busy machine may keep pages that are to be dropped: ask again."""
        for _ in range(300):
            if (places := run(*args)) == wanted:
                return
        self.assertEqual(wanted, places, str(args))

    def begin(self, storage, call, *args, in_pool=True):
        """Return a green thread that waits for a read."""
        storage.gate.clear()
        storage.threads.clear()
        green_thread = eventlet.spawn(outcome, call, *args)
        eventlet.sleep(0)
        while in_pool and not storage.threads:
            eventlet.sleep(0)
        return green_thread

    def interrupt(self, storage, moment, call, *args):
        """Throw into a call; return its answers, where that came too late.

        :param moment: 0 for the time before the pool begins to read, 1 while
            it reads, and from 2 on so many rounds after its answer
        """
        green_thread = self.begin(storage, call, *args, in_pool=moment > 0)
        if moment > 1:
            storage.gate.set()
            tpool.execute(bool)
            for _ in range(moment - 2):
                eventlet.sleep(0)
        exc = list(base.INTERRUPTIONS.values())[moment % 4]()
        eventlet.kill(green_thread, exc)
        answer = green_thread.wait()
        storage.gate.set()
        return [] if answer is exc else [answer]

    def test_page_cache_decides(self):
        def places(cached, kind, *calls):
            storage = self.file(128 * KIB, cached * KIB)
            read = reading(kind, storage)
            for size in calls:  # or where to seek to
                storage.seek(size) if isinstance(size, int) else read(*size)
            return storage.places()

        cases: list[Any] = [
            ('here here here here', 128, raw, (9,), (KIB,), (MIB,), (9,)),
            ('here', 128, io.BufferedReader, (KIB,)),
            ('here here here here', 64, raw, *[(16 * KIB,)] * 4),
            ('pool pool here', 0, raw, (KIB,), 64 * KIB, (KIB,), (0,)),
            ('pool', -64, raw, (128 * KIB,)),
            ('pool', 64, raw, (128 * KIB,)),
            ('pool', 0, raw, (KIB,)),
            # The end says nothing of what comes before it.
            ('here pool', 0, raw, MIB, (KIB,), 0, (KIB,)),
            ('pool', 0, raw, (1,)),
            # Nothing is left to wait for at the end of a file.
            ('pool here', 0, raw, (MIB,)),
            ('pool', 0, io.BufferedReader, (KIB,)),
            ('pool', 128, text, (3,)),
            ('pool pool pool', 128, raw, (), (-1,)),
            ('pool pool', 128, raw, (None,)),
        ]
        for wanted, *case in cases:
            self.assertPlaces(wanted.split(), places, *case)

    def test_chunks_of_a_cached_file(self):
        storage = self.file(9, 9)
        next(utils.chunkiter(storage, 3))
        self.assertEqual((['here'], 3), (storage.places(), storage.tell()))

    def test_platform_whose_page_cache_cannot_be_asked(self):
        storage = self.file(3, 3)
        # Linux has the flag, so that only a patch takes it away.
        self.addCleanup(setattr, os, 'RWF_NOWAIT', os.RWF_NOWAIT)
        del os.RWF_NOWAIT
        reading(raw, storage)(3)
        self.assertEqual(['pool'], storage.places())

    def test_seek_asks_anew(self):
        """What is known at one position stands for 256 KiB at others."""

        def places(start, size=64 * KIB):
            storage = self.file(8 * MIB, 4 * MIB)
            read = reading(raw, storage)
            for _ in range(16):
                read(size)
            drop(storage)
            storage.seek(start)
            for _ in range(12):
                read(size)
                storage.seek(3 * size, os.SEEK_CUR)
            places = storage.places()
            return places[:16] + places[20:]

        for start in 4 * MIB, 0:
            self.assertPlaces(['here'] * 16 + ['pool'] * 8, places, start)

    def test_questions_in_the_pool(self):
        """They leave the position alone, and their errors lose no data."""

        class Lost(Storage):
            def tell(self):
                if threading.get_ident() in self.threads:
                    self.events.append('tell in the pool')
                return super().tell()

            def fileno(self):
                if threading.get_ident() in self.threads:
                    raise OSError
                return super().fileno()

        storage = self.file(128 * KIB, 0, Lost)
        self.assertEqual(bytes(8 * KIB), reading(raw, storage)(8 * KIB))
        self.assertEqual(['read'], storage.events)

    def test_sources_that_make_a_pool(self):
        path = self.useFixture(fixtures.TempDir()).join('image')
        with open(path, 'wb') as out:
            out.write(DATA)
        left, right = socket.socketpair()
        reading, writing = os.pipe()
        closed = open(path)
        for opened in left, closed, open(writing, 'wb'):
            opened.close()
        for makes, source in (
            (False, right.makefile('rb')),
            (False, open(reading, 'rb')),
            (False, io.BytesIO(DATA)),
            (False, greenio.GreenPipe(open(path, 'rb'))),
            (False, tempfile.SpooledTemporaryFile()),
            (False, codecs.getreader('utf-8')(open(path, 'rb'))),
            (False, closed),
            (True, open(path, 'rb', buffering=0)),
            (True, open(path, 'r+b')),
            (True, open(path)),
            (True, tempfile.NamedTemporaryFile()),
            (True, tempfile.NamedTemporaryFile('w+')),
        ):
            for option in False, True:
                self.configure(offload_file_reads=option)
                read = utils.cooperative_read(source)
                # Made with the stream, before a client waits.
                made = pool_threads()
                self.assertIs(option and makes, bool(made), str(source))
                outcome(read, 3)
                self.assertEqual(made, pool_threads())
                tpool.killall()
            source.close()
        right.close()

    def test_private_part_of_eventlet(self):
        """The pool's green thread tells which hub the pool answers.

        Its name is private: an eventlet that changes it fails here.
        """
        tpool.setup()
        self.assertIs(self.hub.greenlet, tpool._coro.parent)

    def test_interrupted_wait(self):
        """The next call waits for that read, and returns what it asks for."""
        met = set()
        for name, (first, *then), moments in itertools.product(
            CALLS,
            ([6, 6], [6, 2], [6, 20], [6, -1], [-1, 4], [-1, None], [6, 0, 1]),
            ([0], [1], [2], [3], [4], [0, 0], [1, 0]),
        ):
            storage = self.storage()
            call = CALLS[name](storage)
            model: Any = io.BytesIO(DATA)
            if name is text:
                model = io.StringIO(DATA.decode())
            # Another read of a buffered file would not reach storage.
            asked = [3] if name is raw or name in STEPS else []
            answers = [call(size) for size in asked]
            for moment in moments:
                if len(answers) == len(asked):
                    answers += self.interrupt(storage, moment, call, first)
            if len(answers) == len(asked):
                met.update(moments)
            else:
                asked.append(first)
            answers += map(call, [*then, 3, 3, 3])
            asked += [*then, 3, 3, 3]
            wanted = [model.read(3 if name in STEPS else n) for n in asked]
            case = f'{name} {first} {then} {moments}'
            self.assertEqual(wanted, answers, case)
        # Waits for the pool were met, and that for the queue.
        self.assertLess({0, 1}, met)

    def test_answers_are_those_of_the_file(self):
        operations = {
            'grow': lambda file: os.pwrite(file.fileno(), b'more', len(DATA)),
            'empty': lambda file: os.ftruncate(file.fileno(), 0),
            'begin': lambda file: file.seek(0),
            'close': lambda file: file.close(),
        }
        scripts = (
            ((0,), (3,), (0,), (2,), (None,), (0,), (1,), (-1,), ()),
            ((20,), (5,), (), 'grow', (20,), ()),
            ((1,), ()),
            ('empty', (20,), (), (5,)),
            ((3,), 'begin', (2,), (), 'begin', (5,)),
            ((1, 2), ('x',), (1.5,), 'close', (1,)),
        )

        def run(file, read, script):
            for step in script:
                if step in operations:
                    operations[step](file)
                    continue
                answer = outcome(read, *step)
                failed = isinstance(answer, Exception)
                yield type(answer) if failed else answer

        for make, kind, script in itertools.product(
            (self.storage, partial(self.file, 10, 10)), KINDS, scripts
        ):
            plain, file = kind(make()), kind(make())
            wanted = list(run(plain, plain.read, script))
            answers = list(run(file, reading(raw, file), script))
            self.assertEqual(wanted, answers, f'{make} {kind} {script}')

    def test_wrong_arguments(self):
        """They are refused as by a file, also after an interruption."""
        for interrupted in False, True:
            storage = self.storage()
            read = utils.CooperativeReader(storage).read
            if interrupted:
                self.interrupt(storage, 1, read, 3)
            for args, names in (
                *(((), {'n': 3}), ((None, 3), {}), ((3, 3), {})),
                *((('3',), {}), ((3,), {'length': 3})),
            ):
                self.assertRaises(TypeError, read, *args, **names)
            answers = [read(length=3), read(length=None), read(length=3)]
            self.assertEqual([DATA[:3], DATA[3:], b''], answers)

    def test_error_comes_once(self):
        for moment, (name, error, raised) in itertools.product(
            (0, 1, None),
            (
                (raw, OSError(), OSError),
                (raw, SystemExit(), SystemExit),
                (text, OSError(), OSError),
                ('reader', StopIteration(), RuntimeError),
                ('chunks', StopIteration(), RuntimeError),
            ),
        ):
            storage = self.storage()
            call = CALLS[name](storage)
            storage.errors.append(error)
            if moment is not None:
                self.interrupt(storage, moment, call, 3)
            exc = self.assertRaises(raised, call, 3)
            self.assertIn(error, (exc, exc.__cause__))
            self.assertIn(call(3), (DATA[:3], 'abc'))

    def test_callers_that_no_pool_answers(self):
        """They read in place, and wait for a pending read natively."""
        for moment, caller, errors in itertools.product(
            (None, 0, 1),
            (base.in_native_thread, by_the_hub, by_another_hub),
            ([], [OSError()]),
        ):
            storage = self.storage()
            storage.errors += errors
            if moment is not None:
                reader = utils.CooperativeReader(storage)
                self.interrupt(storage, moment, reader.read, 6)
            elif caller is by_another_hub:
                continue  # the first to use a pool is answered
            else:
                reader = caller(utils.CooperativeReader, storage)
                self.assertEqual([], pool_threads())
            for error in errors:
                self.assertIs(error, caller(outcome, reader.read))
            self.assertEqual(DATA[:2], caller(reader.read, 2))
            rest = caller(read_rest, reader)
            self.assertEqual((DATA[2:], 'here'), rest, f'{moment} {caller}')

    def test_close_waits(self):
        """A read is closed before the pool begins, and in the middle."""
        for closer, in_pool in (
            (eventlet.spawn, True),
            (eventlet.spawn, False),
            (by_the_hub, False),
            (base.in_native_thread, False),
        ):
            storage = self.storage()
            reader = utils.CooperativeReader(storage)
            reading = self.begin(storage, reader.read, 3, in_pool=in_pool)
            if closer is not eventlet.spawn:
                storage.gate.set()  # these wait natively
            closer(reader.close)
            eventlet.sleep(0)
            storage.gate.set()
            self.assertEqual(DATA[:3], reading.wait())
            reader.close()
            self.assertEqual(['read', 'closed'], storage.events, str(closer))
        # A close that is interrupted closes nothing.
        storage = self.storage()
        reader = utils.CooperativeReader(storage)
        eventlet.kill(self.begin(storage, reader.read, 3))
        eventlet.kill(self.begin(storage, reader.close, in_pool=False))
        storage.gate.set()
        self.assertEqual(DATA[:3], reader.read(3))
        reader.close()
        self.assertEqual(['read', 'closed'], storage.events)
        storage = self.storage()
        reader = utils.CooperativeReader(storage)
        self.interrupt(storage, 0, reader.read, 3)
        reader.close()
        self.assertEqual(['read', 'closed'], storage.events)
        self.assertRaises(ValueError, reader.read, 3)

    def test_close_by_the_hub_before_the_pool_begins(self):
        for errors in [], [OSError()]:
            storage = self.storage()
            storage.errors += errors
            reader = utils.CooperativeReader(storage)
            self.hub.schedule_call_global(0, reader.close)
            answer = outcome(reader.read, 3)
            self.assertIn(answer, errors or [DATA[:3]])
            self.assertEqual(['here'], storage.places())
            self.assertTrue(storage.closed)

    def test_close_by_the_hub_of_a_file_on_a_disk(self):
        """The hub makes the read, and asks for what the page cache holds."""

        def places():
            storage = self.file(MIB, -64 * KIB)
            reader = utils.CooperativeReader(storage)
            self.hub.schedule_call_global(0, reader.close)
            answer = outcome(reader.read, 64 * KIB)
            return answer, storage.places()

        self.assertPlaces((bytes(64 * KIB), ['here']), places)

    def test_in_the_middle_of_a_read(self):
        """A second read is refused; a switch from elsewhere ends no wait."""
        for call_of in CALLS.values():
            storage = self.storage()
            call = call_of(storage)
            green_thread = self.begin(storage, call, 3)
            exc = self.assertRaises(RuntimeError, call, 3)
            self.assertRegex(str(exc), '^f[dp]\\b')
            self.hub.schedule_call_global(0, green_thread.switch)
            eventlet.sleep(0)
            self.assertFalse(green_thread.dead)
            storage.gate.set()
            answers = green_thread.wait(), call(3)
            self.assertIn(answers, [(b'abc', b'def'), ('abc', 'def')])

    def test_trace(self):
        log = self.capture_log(logging.DEBUG)
        for storage in self.storage(), self.file(10, 10):
            read = reading(raw, storage)
            while read(5):
                pass
        found = re.findall(r' (\d+ chunks, \d+ bytes: \w+)', log.output)
        wanted = [f'{n} chunks, {5 * n} bytes: yielded' for n in range(3)]
        self.assertEqual(2 * [*wanted, '2 chunks, 10 bytes: ended'], found)


class TestFork(base.TestCase):
    def test_children(self):
        """A child has a pool where its parent made none, else none."""
        answers = base.run_python("""
            import json
            import os
            import signal
            import sys

            import eventlet
            from eventlet import patcher
            from oslo_config import cfg

            from glance_store.common import utils

            def answers_of(child):
                reading, writing = os.pipe()
                if not os.fork():
                    signal.alarm(60)  # for a close that hangs
                    os.write(writing, json.dumps(child()).encode())
                    os._exit(0)
                os.wait()
                os.close(writing)
                return json.loads(os.read(reading, 9999))

            def worker():
                eventlet.sleep(0)  # makes the hub
                answer = utils.cooperative_read(open(utils.__file__))(3)
                return answer, patcher.original('threading').active_count() > 1

            cfg.CONF.set_override('offload_file_reads', True, 'glance_store')
            utils.cooperative_read(open(utils.__file__))
            answers = ['eventlet.tpool' in sys.modules, *answers_of(worker)]
            # A driver of glance_store imports it before Glance forks.
            from eventlet import tpool
            answers += answers_of(worker)

            from glance_store.tests.unit import test_offload

            def begin(kind):
                'Return a reader with a read under way, and its file.'
                storage = test_offload.in_memory()
                reader = utils.CooperativeReader(kind(storage))
                storage.gate.clear()
                green_thread = eventlet.spawn(reader.read, 6)
                while not storage.threads:
                    eventlet.sleep(0)
                green_thread.kill()
                return reader, storage

            def child():
                for reader, storage in pending:
                    for _ in range(2):
                        try:
                            reader.read(3)
                        except OSError as exc:
                            yield exc.errno
                    # A thread that is no more may hold a lock of the file.
                    reader.close()
                    yield storage.closed
                for reader in idle, utils.CooperativeReader(file):
                    yield reader.read(3).decode()
                    yield reader.fd.places()

            eventlet.sleep(0)
            pending = [begin(kind) for kind in test_offload.KINDS]
            file = test_offload.in_memory()
            idle = utils.CooperativeReader(test_offload.in_memory())
            answers += answers_of(lambda: [*child()])
            for reader, storage in pending:
                storage.gate.set()
                data = reader.read(20)
                answers.append(data if data == 'abcdefghij' else data.decode())
            print(json.dumps(answers))
        """)
        lost, read = [errno.ECANCELED] * 2 + [True], ['abc', ['here']]
        self.assertEqual([False, *['# L', True] * 2], answers[:5])
        self.assertEqual([*lost * 3, *read, *read], answers[5:-3])
        self.assertEqual([DATA.decode()] * 3, answers[-3:])
