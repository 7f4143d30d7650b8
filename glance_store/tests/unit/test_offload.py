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

"""Reads of regular files in the hub's thread pool.

A pool answers one hub of a process only, so each test has a process of its
own. Slow storage is a real file whose reads wait for a native lock: the test
decides when a read ends, and no time has to pass.
"""

import errno
import sys
import textwrap

import fixtures

from glance_store.common import offload
from glance_store.common import opts
from glance_store.tests.unit import base

PRELUDE = """
import io
import json
import os
import sys
import tempfile
import threading

import eventlet
from eventlet import patcher
from eventlet import tpool
from oslo_config import cfg

from glance_store.common import utils

cfg.CONF.set_override('offload_file_reads', True, 'glance_store')
native = patcher.original('threading')
eventlet.sleep(0)  # makes the hub
DATA = bytes(range(256)) * 16
path = os.path.join(tempfile.mkdtemp(), 'image')
with open(path, 'wb') as f:
    f.write(DATA)


class Storage(io.FileIO):
    'A regular file; each read waits until it is let through.'

    def __init__(self, path=path):
        super().__init__(path)
        self.gate = native.Semaphore(0)
        self.begun = native.Semaphore(0)
        self.threads = []
        self.events = []

    def read(self, *args):
        self.threads.append(native.get_ident())
        self.begun.release()
        assert self.gate.acquire(timeout=60), 'nobody let this read through'
        answer = super().read(*args)
        self.events.append('read')
        return answer

    def let(self, number=1):
        for _ in range(number):
            self.gate.release()

    def close(self):
        if not self.closed:
            self.events.append('closed')
        super().close()


def interrupted(call, *args):
    'Begin a call whose read waits, interrupt it, and leave it like that.'
    caught = []

    def run():
        try:
            call(*args)
        except BaseException as exc:
            caught.append(exc)

    thread = eventlet.spawn(run)
    eventlet.sleep(0)
    exc = eventlet.Timeout(300)
    exc.cancel()
    eventlet.kill(thread, exc)
    return caught == [exc]


def let_soon(storage, number=1):
    'Let reads through, from a green thread: only a running hub does that.'
    eventlet.spawn(storage.let, number)


def answer(**facts):
    os.unlink(path)
    os.rmdir(os.path.dirname(path))
    print(json.dumps(facts))
"""


class TestOffload(base.TestCase):
    def run_test(self, code, **variables):
        code = textwrap.dedent(PRELUDE) + textwrap.dedent(code)
        return base.run_python(code, **variables)

    def test_off_by_default(self):
        (opt,) = [o for o in opts.OPTS if o.name == 'offload_file_reads']
        self.assertIs(False, opt.default)

    def test_end_comes_though_each_turn_is_interrupted(self):
        # Each call asks for another size, so it is not the one interrupted.
        code = """
        from glance_store.tests.unit import base

        storage = Storage()
        storage.seek(0, os.SEEK_END)
        storage.let(20)
        read = utils.cooperative_read(storage)
        sizes = iter(range(1, 1_000_000))
        run = base.Run(
            lambda: base.insist(lambda: read(next(sizes)), []),
            lambda _: base.never() if len(storage.threads) < 10 else None,
        )
        answer(got=run.answer == b'', reads=len(storage.threads))
        """
        self.assertEqual({'got': True, 'reads': 2}, self.run_test(code))

    def test_hub_runs_while_a_read_waits(self):
        code = """
        storage = Storage()
        here = native.get_ident()
        kinds = {
            'read': lambda: utils.cooperative_read(storage)(9),
            'reader': lambda: utils.CooperativeReader(storage).read(length=9),
            'next': lambda: next(utils.CooperativeReader(storage)),
            'chunks': lambda: next(utils.chunkiter(storage, 9)),
            'readable': lambda: next(utils.chunkreadable(storage, 9)),
        }
        cfg.CONF.set_override('default_chunk_size', 9, 'glance_store')
        got = {}
        for name, kind in kinds.items():
            let_soon(storage)
            got[name] = kind() == DATA[:9]
            storage.seek(0)
        answer(got=got, elsewhere=here not in storage.threads)
        """
        for hub in ('epolls', 'poll', 'selects', 'asyncio'):
            facts = self.run_test(code, EVENTLET_HUB=hub)
            names = ('read', 'reader', 'next', 'chunks', 'readable')
            self.assertEqual(dict.fromkeys(names, True), facts['got'])
            self.assertTrue(facts['elsewhere'])

    def test_monkey_patched(self):
        facts = self.run_test("""
        eventlet.monkey_patch()
        storage = Storage()
        let_soon(storage, 2)
        read = utils.cooperative_read(storage)
        answer(same=[read(9), read(9)] == [DATA[:9], DATA[9:18]])
        """)
        self.assertTrue(facts['same'])

    def test_who_is_offloaded(self):
        facts = self.run_test("""
        from unittest import mock

        from eventlet import greenio
        from eventlet.green import socket

        def kind(source):
            return type(utils.cooperative_read(source).__self__).__name__

        def raising(*args):
            raise RuntimeError('not you')

        class Odd(io.FileIO):
            fileno = raising

        class OddText(io.TextIOBase):
            buffer = property(raising)

        class Proxy:
            'What wraps a file may do anything to read it.'

            def __getattr__(self, name):
                return getattr(whole, name)

        left, right = socket.socketpair()
        reading, writing = os.pipe()
        terminal, other = os.openpty()
        whole = open(path, 'rb')
        spooled = tempfile.SpooledTemporaryFile()
        closed = open(path, 'rb')
        closed.close()
        answer(
            offloaded={
                'file': kind(open(path, 'rb')),
                'unbuffered': kind(open(path, 'rb', buffering=0)),
                'both ways': kind(open(path, 'r+b')),
                'text': kind(open(path, encoding='latin-1')),
                'temporary': kind(tempfile.TemporaryFile()),
                'named': kind(tempfile.NamedTemporaryFile()),
            },
            others={
                'green socket': kind(right.makefile('rb')),
                'green file': kind(greenio.GreenPipe(open(path, 'rb'))),
                'pipe': kind(open(reading, 'rb', buffering=0)),
                'terminal': kind(open(other, 'rb', buffering=0)),
                'memory': kind(io.BytesIO(b'a')),
                'spooled': kind(spooled),
                'closed': kind(closed),
                'odd': kind(Odd(path)),
                'odd text': kind(OddText()),
                'proxy': kind(Proxy()),
                'mock': kind(mock.MagicMock()),
            },
            rolled=spooled._rolled,
        )
        """)
        self.assertEqual({'_OffloadedReads'}, set(facts['offloaded'].values()))
        self.assertEqual({'_Reads'}, set(facts['others'].values()), facts)
        self.assertFalse(facts['rolled'])

    def test_option_is_read_when_the_stream_is_made(self):
        facts = self.run_test("""
        on = Storage()
        off = Storage()
        streams = [utils.cooperative_read(on)]
        cfg.CONF.set_override('offload_file_reads', False, 'glance_store')
        streams.append(utils.cooperative_read(off))
        off.let()
        let_soon(on)
        for stream in streams:
            stream(1)
        here = native.get_ident()
        answer(on=here in on.threads, off=here in off.threads)
        """)
        self.assertEqual({'on': False, 'off': True}, facts)

    def test_no_pool_without_the_option(self):
        facts = self.run_test("""
        cfg.CONF.set_override('offload_file_reads', False, 'glance_store')
        eventlet.sleep(0)
        read = utils.cooperative_read(open(path, 'rb'))
        answer(same=read() == DATA, pool=tpool._setup_already)
        """)
        self.assertEqual({'same': True, 'pool': False}, facts)

    def test_nothing_on_a_thread_without_a_hub(self):
        facts = self.run_test("""
        from eventlet import hubs
        storage = Storage()
        storage.let()

        def run():
            utils.CooperativeReader(storage).read(1)
            where = storage.threads == [native.get_ident()]
            done.append([where, hasattr(hubs._threadlocal, 'hub')])

        done = []
        hubs.get_hub()
        thread = native.Thread(target=run)
        thread.start()
        thread.join()
        answer(done=done, pool=tpool._setup_already)
        """)
        self.assertEqual({'done': [[True, False]], 'pool': False}, facts)

    def test_hub_that_the_pool_does_not_answer(self):
        facts = self.run_test("""
        storage = Storage()
        let_soon(storage)
        utils.cooperative_read(storage)(1)

        def run():
            other = Storage()
            other.let()
            eventlet.sleep(0)
            utils.cooperative_read(other)(1)
            done.append(other.threads == [native.get_ident()])

        done = []
        thread = native.Thread(target=run)
        thread.start()
        thread.join()
        answer(done=done)
        """)
        self.assertEqual({'done': [True]}, facts)

    def test_read_of_nothing_takes_no_thread(self):
        facts = self.run_test("""
        storage = Storage()
        storage.let()
        nothing = utils.cooperative_read(storage)(0)
        here = storage.threads == [native.get_ident()]
        answer(nothing=nothing == b'', here=here)
        """)
        self.assertEqual({'nothing': True, 'here': True}, facts)

    def test_after_a_fork(self):
        # Its threads are gone in the child, and nobody would ever answer.
        facts = self.run_test("""
        storage = Storage()
        let_soon(storage, 3)
        reader = utils.CooperativeReader(storage)
        first = reader.read(10)
        child = os.fork()
        if not child:
            second = reader.read(10)
            same = second == DATA[10:20]
            here = storage.threads[-1] == native.get_ident()
            os._exit(0 if same and here else 1)
        _, status = os.waitpid(child, 0)
        answer(first=first == DATA[:10], status=status)
        """)
        self.assertEqual({'first': True, 'status': 0}, facts)

    def test_pool_that_could_not_be_made(self):
        # The next read is made here, and so are all others.
        facts = self.run_test("""
        storage = Storage()
        storage.let(5)
        setup = tpool.setup

        def failing():
            tpool._setup_already = True
            tpool.setup = setup
            raise OSError('too many open files')

        tpool.setup = failing
        reader = utils.CooperativeReader(storage)
        failed = False
        try:
            reader.read(9)
        except OSError:
            failed = True
        same = [reader.read(9), reader.read(9)] == [DATA[:9], DATA[9:18]]
        here = set(storage.threads) == {native.get_ident()}
        tpool._setup_already = False
        answer(failed=failed, same=same, here=here)
        """)
        self.assertEqual({'failed': True, 'same': True, 'here': True}, facts)

    def test_child_of_a_process_without_a_pool(self):
        # As an API worker is forked from one that has read nothing yet.
        code = """
        import json
        import os
        import sys

        import eventlet
        from oslo_config import cfg

        from glance_store.common import utils

        cfg.CONF.set_override('offload_file_reads', True, 'glance_store')
        before = 'eventlet.tpool' in sys.modules
        child = os.fork()
        if not child:
            eventlet.sleep(0)
            with open(sys.argv[1], 'rb') as file:
                same = utils.cooperative_read(file)(3) == b'abc'
            pool = sys.modules.get('eventlet.tpool')
            os._exit(0 if same and pool and pool._setup_already else 1)
        _, status = os.waitpid(child, 0)
        print(json.dumps([before, status]))
        """
        path = self.useFixture(fixtures.TempDir()).join('image')
        with open(path, 'wb') as file:
            file.write(b'abcdef')
        self.assertEqual([False, 0], base.run_python(code, path))

    def test_interrupted_wait_at_every_read(self):
        facts = self.run_test("""
        def bytes_of(kind, number):
            'Interrupt the wait for the read of this number; count them.'
            storage = Storage()
            storage.let(100)
            step = kind(storage)
            got, reads = [], 0
            while True:
                if reads == number:
                    assert interrupted(step)
                try:
                    chunk = step()
                except StopIteration:
                    break
                if not chunk:
                    break
                got.append(chunk)
                reads += 1
            return got, len(storage.threads)

        cfg.CONF.set_override('default_chunk_size', 1000, 'glance_store')
        kinds = {
            'read': lambda s: lambda r=utils.cooperative_read(s): r(1000),
            'reader': lambda s: lambda r=utils.CooperativeReader(s): (
                r.read(1000)
            ),
            'next': lambda s: lambda r=utils.CooperativeReader(s): next(r),
            'chunks': lambda s: lambda c=utils.chunkiter(s, 1000): next(c),
        }
        pieces = [DATA[n : n + 1000] for n in range(0, len(DATA), 1000)]
        wrong = []
        for name, kind in kinds.items():
            # The last chunk knows that it is the last: it read the end.
            end = len(pieces) + (name != 'chunks')
            for number in range(-1, end):
                got, reads = bytes_of(kind, number)
                if got != pieces or reads != len(pieces) + 1:
                    wrong.append([name, number, reads, [len(g) for g in got]])
        answer(wrong=wrong)
        """)
        self.assertEqual([], facts['wrong'])

    def test_another_size_after_an_interruption(self):
        facts = self.run_test("""
        wrong = []
        for sizes in ([10, 3], [10, 20], [10, -1], [-1, 5], [10, 10]):
            storage = Storage()
            read = utils.cooperative_read(storage)
            assert interrupted(read, sizes[0])
            let_soon(storage, 10)
            got = read(sizes[1])
            wanted = DATA[: sizes[1]] if sizes[1] >= 0 else DATA
            if got != wanted or got + read() != DATA:
                wrong.append(sizes)
        answer(wrong=wrong)
        """)
        self.assertEqual([], facts['wrong'])

    def test_nothing_more_yet_after_an_interruption(self):
        code = """
        class Waiting(io.FileIO):
            answers = [b'abc', None, b'd']

            def read(self, size):
                return self.answers.pop(0)

        read = utils.cooperative_read(Waiting(path))
        tpool.setup()
        ok = interrupted(read, 5)
        tpool.execute(bool)
        answer(ok=ok, got=[a.decode() for a in (read(7), read(7))])
        """
        facts = self.run_test(code, EVENTLET_THREADPOOL_SIZE='1')
        self.assertEqual({'ok': True, 'got': ['abc', 'd']}, facts)

    def test_interrupted_often_and_while_the_pool_is_made(self):
        facts = self.run_test("""
        storage = Storage()
        read = utils.cooperative_read(storage)
        times = [interrupted(read, 10) for _ in range(5)]
        let_soon(storage)
        got = read(10)
        answer(times=times, got=got == DATA[:10], reads=len(storage.threads))
        """)
        self.assertEqual({'times': [True] * 5, 'got': True, 'reads': 1}, facts)

    def test_close_waits_for_the_read_under_way(self):
        facts = self.run_test("""
        from eventlet import tpool
        tpool.setup()
        storage = Storage()
        reader = utils.CooperativeReader(storage)
        assert interrupted(reader.read, 10)
        tpool.execute(storage.begun.acquire)
        closing = interrupted(reader.close)
        before = list(storage.events)
        let_soon(storage)
        reader.close()
        reader.close()
        answer(closing=closing, before=before, events=storage.events)
        """)
        self.assertEqual(
            {'closing': True, 'before': [], 'events': ['read', 'closed']},
            facts,
        )

    def test_close_with_nothing_under_way(self):
        facts = self.run_test("""
        storage = Storage()
        let_soon(storage)
        reader = utils.CooperativeReader(storage)
        reader.read(1)
        reader.close()
        answer(events=storage.events)
        """)
        self.assertEqual(['read', 'closed'], facts['events'])

    def test_goes_on_on_a_thread_without_a_hub(self):
        facts = self.run_test("""
        storage = Storage()
        read = utils.cooperative_read(storage)
        assert interrupted(read, 10)
        got = []
        thread = native.Thread(target=lambda: got.append(read(10)))
        thread.start()
        storage.let()
        thread.join()
        answer(got=got == [DATA[:10]], reads=len(storage.threads))
        """)
        self.assertEqual({'got': True, 'reads': 1}, facts)

    def test_shared_by_green_threads(self):
        facts = self.run_test("""
        storage = Storage()
        read = utils.cooperative_read(storage)
        got = []

        def run():
            while chunk := read(100):
                got.append(chunk)

        storage.let(10000)
        for thread in [eventlet.spawn(run) for _ in range(5)]:
            thread.wait()
        pieces = [DATA[n : n + 100] for n in range(0, len(DATA), 100)]
        answer(same=sorted(got) == sorted(pieces))
        """)
        self.assertTrue(facts['same'])

    def test_error_is_the_same_object(self):
        facts = self.run_test("""
        error = OSError('the disk is on fire')

        class Failing(Storage):
            def read(self, *args):
                super().read(*args)
                raise error

        def raised(call, *args):
            try:
                call(*args)
            except OSError as exc:
                return exc is error

        storage = Failing()
        let_soon(storage)
        read = utils.cooperative_read(storage)
        at_once = raised(read, 1)
        assert interrupted(read, 1)
        let_soon(storage)
        later = raised(read, 1)
        let_soon(storage)
        again = raised(read, 1)
        answer(at_once=at_once, later=later, again=again,
               reads=len(storage.threads))
        """)
        self.assertEqual(
            {'at_once': True, 'later': True, 'again': True, 'reads': 3}, facts
        )

    def test_trace(self):
        facts = self.run_test("""
        import logging
        lines = []

        class Handler(logging.Handler):
            def emit(self, record):
                lines.append(record.getMessage())

        logger = logging.getLogger('glance_store')
        logger.setLevel(logging.DEBUG)
        logger.addHandler(Handler())
        storage = Storage()
        storage.let(3)
        reader = utils.CooperativeReader(storage)
        reader.read(4000)
        reader.read(4000)
        reader.read(4000)
        answer(lines=lines)
        """)
        counts = [line.split(': ')[1] for line in facts['lines']]
        self.assertEqual(
            ['1 chunks, 4000 bytes'] + ['2 chunks, 4096 bytes'] * 3, counts
        )
        self.assertIn('ended', facts['lines'][-1])

    def test_read_of_nothing_is_not_the_end(self):
        facts = self.run_test("""
        storage = Storage()
        storage.let(10)
        read = utils.cooperative_read(storage)
        interrupted(read, 0)
        got = read(0), read(10)
        answer(got=got == (b'', DATA[:10]))
        """)
        self.assertTrue(facts['got'])

    def test_waiting_takes_no_further_thread(self):
        # The pool has as many threads as this, and others want one, too.
        facts = self.run_test(
            """
        storage = Storage()
        read = utils.cooperative_read(storage)
        times = [interrupted(read, 10) for _ in range(6)]
        other = Storage()
        other.let()
        got = utils.cooperative_read(other)(10)
        let_soon(storage)
        answer(times=times, got=got == DATA[:10], same=read(10) == got)
        """,
            EVENTLET_THREADPOOL_SIZE='2',
        )
        self.assertEqual(
            {'times': [True] * 6, 'got': True, 'same': True}, facts
        )

    def test_pool_without_threads(self):
        facts = self.run_test(
            """
        import warnings
        warnings.simplefilter('ignore')
        storage = Storage()
        storage.let()
        utils.cooperative_read(storage)(10)
        answer(here=storage.threads == [native.get_ident()])
        """,
            EVENTLET_THREADPOOL_SIZE='0',
        )
        self.assertTrue(facts['here'])

    def test_in_the_green_thread_of_the_hub(self):
        # It cannot wait: what it reads, it reads itself.
        facts = self.run_test("""
        from eventlet import event, hubs
        storage = Storage()
        storage.let()
        done = event.Event()
        read = utils.cooperative_read(storage)
        hubs.get_hub().schedule_call_global(0, lambda: done.send(read(10)))
        got = done.wait()
        here = storage.threads == [native.get_ident()]
        answer(got=got == DATA[:10], here=here)
        """)
        self.assertEqual({'got': True, 'here': True}, facts)

    def test_close_while_others_read_on(self):
        facts = self.run_test("""
        storage = Storage()
        reader = utils.CooperativeReader(storage)
        ended = []

        def run():
            try:
                while reader.read(100):
                    pass
            except ValueError:
                ended.append('closed')

        threads = [eventlet.spawn(run) for _ in range(3)]
        storage.let(5)
        while len(storage.events) < 3:
            eventlet.sleep(0)
        storage.let(1000)
        reader.close()
        for thread in threads:
            thread.wait()
        answer(last=storage.events[-1], under_way=[
            1 for n, event in enumerate(storage.events) if event == 'closed'
        ] == [1], closed=storage.closed)
        """)
        self.assertEqual(
            {'last': 'closed', 'under_way': True, 'closed': True}, facts
        )

    def test_fork_with_a_read_under_way(self):
        # Whether it was made, and what it read, only the parent will know.
        facts = self.run_test("""
        import errno
        import signal
        storage = Storage()
        reader = utils.CooperativeReader(storage)
        assert interrupted(reader.read, 10)
        assert interrupted(reader.read, 10)
        child = os.fork()
        if not child:
            signal.alarm(60)
            lost = []
            for _ in range(2):
                try:
                    reader.read(10)
                except OSError as exc:
                    lost.append(exc.errno)
            reader.close()
            os._exit(lost != [errno.ECANCELED] * 2)
        _, status = os.waitpid(child, 0)
        let_soon(storage)
        answer(status=status, same=reader.read(10) == DATA[:10])
        """)
        self.assertEqual({'status': 0, 'same': True}, facts)

    def test_rest_is_read_on_a_thread_without_a_hub(self):
        facts = self.run_test("""
        storage = Storage()
        storage.let(5)
        read = utils.cooperative_read(storage)
        assert interrupted(read, 10)
        assert read(3) == DATA[:3]
        got = []
        thread = native.Thread(target=lambda: got.append(read(20)))
        thread.start()
        thread.join()
        answer(same=got == [DATA[3:23]], reads=len(storage.threads))
        """)
        self.assertEqual({'same': True, 'reads': 2}, facts)


class TestJob(base.TestCase):
    """What a thread of the pool does, here by the thread that waits."""

    def test_answer(self):
        reads = []

        def read(size):
            reads.append(size)
            return bytes(size)

        job = offload.Job(read, (3,), {})
        job.wait()
        job.wait()
        self.assertEqual(bytes(3), job.result())
        self.assertEqual([3], reads)

    def test_thread_waits_as_a_whole(self):
        # For a read that a hub elsewhere has set going. That it ends is
        # tested above, in native threads, which coverage does not see; this
        # stands in for the event, to see that it is waited for.
        class Done:
            def is_set(self):
                return False

            def wait(self):
                waits.append(1)

        waits = []
        job = offload.Job(bytes, (), {})
        job._done = Done()
        job._answered = object()
        job.wait()
        self.assertEqual([1], waits)

    def test_error(self):
        error = OSError('no')

        def read():
            raise error

        job = offload.Job(read, (), {})
        job.wait()
        self.assertIs(error, self.assertRaises(OSError, job.result))

    def test_lost_in_a_fork(self):
        # Ids begin again from below: the child's is not always the higher.
        for process in (-1, sys.maxsize):
            reads = []
            job = offload.Job(reads.append, (1,), {})
            job._process = process
            job.wait()
            exc = self.assertRaises(OSError, job.result)
            self.assertEqual(errno.ECANCELED, exc.errno)
            self.assertEqual([], reads)
