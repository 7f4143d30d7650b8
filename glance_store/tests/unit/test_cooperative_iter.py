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

"""``cooperative_iter(iter)``."""

import functools
import io
import logging
import threading

import eventlet
from eventlet import event
from eventlet import hubs
from eventlet import wsgi
import greenlet

from glance_store.common import utils
from glance_store.tests.unit import base


class TestWithoutHub(base.TestCase):
    def test_items_unchanged_whatever_they_are(self):
        items = [
            b'abc',
            b'',
            '',
            'text',
            None,
            0,
            False,
            bytearray(b'x'),
            memoryview(b'y'),
            object(),
            [],
            StopIteration,
            StopIteration(),
            ValueError('an item, not an error'),
            NotImplemented,
        ]
        got = list(utils.cooperative_iter(items))
        self.assertEqual(len(items), len(got))
        for item, same in zip(items, got, strict=True):
            self.assertIs(item, same)

    def test_is_an_iterator(self):
        iterator = utils.cooperative_iter(iter=[1, 2])
        self.assertIs(iterator, iter(iterator))
        self.assertEqual(1, next(iterator))
        self.assertEqual([2], list(iterator))
        self.assertRaises(StopIteration, next, iterator)
        self.assertRaises(StopIteration, next, iterator)

    def test_everything_that_iterates(self):
        class Sequence:
            def __getitem__(self, index):
                return b'abc'[index]

        for source in ((97, 98, 99), b'abc', Sequence(), io.BytesIO(b'abc')):
            self.assertEqual(
                list(source) if not hasattr(source, 'read') else [b'abc'],
                list(utils.cooperative_iter(source)),
            )

    def test_not_iterable_at_the_call(self):
        for source in (None, 5, 1.5, object(), len, int):
            exc = self.assertRaises(TypeError, utils.cooperative_iter, source)
            self.assertIn(type(source).__name__, str(exc))

    def test_one_item_at_a_time(self):
        source = base.Fetching(*range(5))
        iterator = utils.cooperative_iter(source)
        self.assertEqual(0, source.fetched)
        iter(iterator)
        self.assertEqual(0, source.fetched)
        for number in range(1, 6):
            next(iterator)
            self.assertEqual(number, source.fetched)

    def test_exception_logged_and_raised_as_the_same_object(self):
        for failure in (OSError('gone'), ValueError(), Exception('%s %d')):
            logger = self.capture_log(logging.INFO)
            self.logger = logger
            iterator = utils.cooperative_iter(base.Fetching(b'a', failure))
            self.assertEqual(b'a', next(iterator))
            self.assertIs(
                failure, self.assertRaises(type(failure), next, iterator)
            )
            self.assertEqual(1, len(self.lines('ERROR')), logger.output)
            self.assertIn('Fetching', logger.output)
            self.assertIn(type(failure).__name__, logger.output)

    def test_exception_that_cannot_be_shown(self):
        class Mute(Exception):
            def __str__(self):
                raise ValueError('mute')

            __repr__ = __str__

        failure = Mute()
        iterator = utils.cooperative_iter(base.Fetching(failure))
        self.assertIs(failure, self.assertRaises(Mute, next, iterator))
        (line,) = self.lines('ERROR')
        self.assertIn('Mute', line)

    def test_what_is_no_exception_is_no_error(self):
        for failure in (
            KeyboardInterrupt(),
            SystemExit(),
            greenlet.GreenletExit(),
            base.never(),
        ):
            iterator = utils.cooperative_iter(base.Fetching(failure))
            self.assertIs(
                failure, self.assertRaises(type(failure), next, iterator)
            )
        self.assertEqual('', self.logger.output)

    def test_end_is_no_error(self):
        list(utils.cooperative_iter([b'a']))
        self.assertEqual('', self.logger.output)

    def test_goes_on_after_an_exception_if_its_source_does(self):
        source = base.Fetching(b'a', OSError(), b'b')
        iterator = utils.cooperative_iter(source)
        self.assertEqual(b'a', next(iterator))
        self.assertRaises(OSError, next, iterator)
        self.assertEqual([b'b'], list(iterator))

    def test_exception_is_raised_whatever_the_log_does(self):
        class Broken(logging.Handler):
            def emit(self, record):
                raise RuntimeError('no space left')

        handler = Broken()
        logger = logging.getLogger('glance_store')
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        failure = OSError('gone')
        iterator = utils.cooperative_iter(base.Fetching(failure))
        self.assertIs(failure, self.assertRaises(OSError, next, iterator))


class TestNotImported(TestWithoutHub):
    def setUp(self):
        super().setUp()
        self.useFixture(base.NotImported())

    def test_nothing_comes_after_close(self):
        source = base.Fetching(b'a', b'b')
        iterator = utils.cooperative_iter(source)
        self.assertEqual(b'a', next(iterator))
        iterator.close()
        self.assertEqual([], list(iterator))
        self.assertEqual(1, source.fetched)

    def test_generator_that_asks_itself(self):
        # Nobody else can be inside, so it does not queue up for itself.
        def source():
            yield next(iterator)

        for level in (logging.INFO, logging.DEBUG):
            self.capture_log(level)
            iterator = utils.cooperative_iter(source())
            exc = self.assertRaises(ValueError, next, iterator)
            self.assertIn('already executing', str(exc))

    def test_exception_that_was_not_raised_for_an_interruption(self):
        error = ValueError('storage went away')

        class Interrupting(logging.Handler):
            def emit(self, record):
                raise KeyboardInterrupt

        handler = Interrupting()
        logger = logging.getLogger('glance_store')
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        iterator = utils.cooperative_iter(base.Fetching(error, b'b'))
        self.assertRaises(KeyboardInterrupt, next, iterator)
        logger.removeHandler(handler)
        self.assertIs(error, self.assertRaises(ValueError, next, iterator))
        self.assertEqual([b'b'], list(iterator))


class TestClose(base.HubTestCase):
    def test_closes_the_source_once_or_often(self):
        for taken in range(3):
            source = base.Fetching(b'a', b'b')
            iterator = utils.cooperative_iter(source)
            for _ in range(taken):
                next(iterator)
            self.assertEqual(0, source.closed)
            iterator.close()
            self.assertEqual(1, source.closed)
            iterator.close()
            iterator.close()
            self.assertEqual(1, source.closed)

    def test_closes_after_the_end(self):
        source = base.Fetching(b'a')
        iterator = utils.cooperative_iter(source)
        list(iterator)
        self.assertEqual(0, source.closed)
        iterator.close()
        self.assertEqual(1, source.closed)

    def test_source_without_close(self):
        iterator = utils.cooperative_iter([b'a', b'b'])
        next(iterator)
        iterator.close()
        iterator.close()

    def test_generator_runs_its_finally(self):
        events = []

        def source():
            try:
                yield b'a'
                yield b'b'
            finally:
                events.append('finally')

        iterator = utils.cooperative_iter(source())
        next(iterator)
        self.assertEqual([], events)
        iterator.close()
        self.assertEqual(['finally'], events)
        iterator.close()
        self.assertEqual(['finally'], events)

    def test_generator_behind_an_iterable_runs_its_finally(self):
        events = []

        class Response:
            def __iter__(self):
                try:
                    yield b'a'
                    yield b'b'
                finally:
                    events.append('finally')

            def close(self):
                events.append('close')

        iterator = utils.cooperative_iter(Response())
        next(iterator)
        iterator.close()
        self.assertEqual({'finally', 'close'}, set(events))

    def test_nothing_comes_after_close(self):
        iterator = utils.cooperative_iter(base.Fetching(b'a', b'b'))
        next(iterator)
        iterator.close()
        self.assertEqual([], list(iterator))

    def test_after_an_interruption(self):
        source = base.Fetching(b'a', b'b')
        iterator = utils.cooperative_iter(source)

        def consume():
            try:
                next(iterator)
            except base.Interrupted:
                iterator.close()

        run = base.Run(consume, lambda _: base.Interrupted())
        self.assertEqual(1, len(run.thrown))
        self.assertEqual(1, source.closed)

    def test_error_of_close_is_raised(self):
        class Source(base.Fetching):
            def close(self):
                super().close()
                raise OSError('close')

        source = Source(b'a')
        iterator = utils.cooperative_iter(source)
        self.assertRaises(OSError, iterator.close)

    def test_iterator_that_is_not_iterable(self):
        class Items:
            def __init__(self):
                self.next = iter([b'a', b'b']).__next__
                self.closed = 0

            def __next__(self):
                return self.next()

            def close(self):
                self.closed += 1

        class Source:
            def __iter__(self):
                return items

        for kind in (utils.cooperative_iter, utils.CooperativeReader):
            items = Items()
            stream = kind(Source())
            self.assertEqual([b'a', b'b'], list(stream))
            stream.close()
            self.assertEqual(1, items.closed)

    def test_closed_while_an_error_is_logged(self):
        class Handler(logging.Handler):
            def emit(self, _):
                stream.close()

        handler = Handler()
        logger = logging.getLogger('glance_store')
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        for kind in (utils.cooperative_iter, utils.CooperativeReader):
            stream = kind(base.Fetching(OSError('once'), b'a'))
            self.assertRaises(OSError, next, stream)
            ends = (StopIteration, ValueError)
            self.assertRaises(ends, next, stream)

    def test_source_and_its_iterator_that_are_equal(self):
        # Two of them all the same: each is closed, the source when it can be.
        class Equal(base.Fetching):
            __hash__ = None

            def __eq__(self, other):
                return True

        class Source(Equal):
            def __iter__(self):
                return items

            def close(self):
                super().close()
                if self.closed == 1:
                    raise OSError('close')

        items = Equal(b'a')
        source = Source()
        iterator = utils.cooperative_iter(source)
        self.assertRaises(OSError, iterator.close)
        iterator.close()
        self.assertEqual((1, 2), (items.closed, source.closed))

    def test_interrupted_close_can_be_repeated(self):
        # The file or the connection would stay open otherwise.
        class Source(base.Fetching):
            def close(self):
                eventlet.sleep(0)
                super().close()

        source = Source(b'a')
        iterator = utils.cooperative_iter(source)
        caught = []
        base.Run(
            lambda: base.insist(iterator.close, caught),
            lambda number: base.never() if number == 1 else None,
        )
        self.assertEqual(1, len(caught))
        self.assertEqual(1, source.closed)

    def test_wsgi_client_that_goes_away(self):
        # A real server and a real client: what it does not read, the server
        # cannot send, until the connection is found to be closed.
        ended = eventlet.event.Event()

        def download():
            try:
                while True:
                    yield bytes(65536)
            finally:
                ended.send('finally')

        def application(_, start_response):
            start_response('200 OK', [])
            return utils.cooperative_iter(download())

        listening = eventlet.listen(('127.0.0.1', 0))
        address = listening.getsockname()
        server = eventlet.spawn(
            wsgi.server, listening, application, log=io.StringIO()
        )
        self.addCleanup(server.kill)
        client = eventlet.connect(address)
        client.sendall(b'GET / HTTP/1.0\r\n\r\n')
        client.recv(100000)
        client.close()
        with eventlet.Timeout(base.HANGING):
            self.assertEqual('finally', ended.wait())


class TestOnHub(base.HubTestCase):
    def test_fetches_then_yields_then_returns(self):
        events = []

        def source():
            for item in (b'a', b'b'):
                events.append(f'fetched {item}')
                yield item

        def others():
            while True:
                events.append('others')
                eventlet.sleep(0)

        other = eventlet.spawn(others)
        self.addCleanup(other.kill)
        for item in utils.cooperative_iter(source()):
            events.append(f'returned {item}')
        self.assertEqual(
            [
                "fetched b'a'",
                'others',
                "returned b'a'",
                "fetched b'b'",
                'others',
                "returned b'b'",
            ],
            events,
        )

    def test_yields_after_each_item_whatever_it_is(self):
        items = [b'a', b'', None, object(), 'text', 0]
        iterator = utils.cooperative_iter(items)
        for item in items:
            self.assertIs(item, self.assertYields(1, next, iterator))

    def test_exception_logged_once_and_the_same_object(self):
        failure = OSError('gone')
        iterator = utils.cooperative_iter(base.Fetching(b'a', failure))
        next(iterator)
        self.assertIs(failure, self.assertRaises(OSError, next, iterator))
        self.assertEqual(1, len(self.lines('ERROR')))

    def test_interruption_is_no_error_of_the_source(self):
        iterator = utils.cooperative_iter([b'a', b'b'])
        caught = []
        base.Run(
            lambda: list(base.calls(lambda: next(iterator), caught)),
            lambda _: base.Interrupted(),
        )
        self.assertEqual(2, len(caught))
        self.assertEqual('', self.logger.output)

    def test_holds_no_more_than_one_item(self):
        alive = []

        class Item:
            def __init__(self):
                alive.append(1)

            def __del__(self):
                alive.pop()

        most = 0
        for _ in utils.cooperative_iter(Item() for _ in range(100)):
            most = max(most, len(alive))
        self.assertLessEqual(most, 2)


class Entered(base.Fetching):
    """Switches by itself, where it can, and counts who is inside at once."""

    inside = most = 0

    def __next__(self):
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            if hasattr(hubs._threadlocal, 'hub'):
                eventlet.sleep(0)
                eventlet.sleep(0)
            return super().__next__()
        finally:
            self.inside -= 1


class TestShared(base.HubTestCase):
    """Green threads that share one iterator."""

    def share(self, iterator, number=2):
        got = [[] for _ in range(number)]

        def run(mine):
            for item in iterator:
                mine.append(item)
                eventlet.sleep(0)

        for thread in [eventlet.spawn(run, mine) for mine in got]:
            thread.wait()
        return got

    def test_each_item_goes_to_one(self):
        items = [bytes([n]) for n in range(100)]
        for number in (2, 3, 10):
            source = base.Fetching(*items)
            got = self.share(utils.cooperative_iter(source), number)
            self.assertEqual(items, sorted(sum(got, [])))

    def test_every_one_gets_some(self):
        got = self.share(utils.cooperative_iter(iter(range(100))))
        self.assertNotIn([], got)

    def test_source_that_switches_itself(self):
        class Source(base.Fetching):
            def __next__(self):
                item = super().__next__()
                eventlet.sleep(0)
                return item

        items = [bytes([n]) for n in range(50)]
        got = self.share(utils.cooperative_iter(Source(*items)), 3)
        self.assertEqual(items, sorted(sum(got, [])))

    def left_behind(self, make, interval=0):
        """Interrupt one of two while the other is inside the source.

        The first is not heard of again; what it had must come to the second,
        and before that which was fetched later.
        """
        self.configure(cooperative_yield_interval=interval)
        gate = event.Event()
        step, passing = make(gate)
        got = []

        def run():
            got.extend(base.calls(step, []))

        first = eventlet.spawn(step)
        second = eventlet.spawn(run)
        eventlet.sleep(0)
        first.kill()
        passing(gate)
        second.wait()
        return got

    def test_left_behind_at_the_end(self):
        def make(gate):
            def source():
                yield b'a'
                gate.wait()

            stream = utils.cooperative_iter(source())
            return stream.__next__, lambda gate: gate.send(None)

        self.assertEqual([b'a'], self.left_behind(make))

    def test_left_behind_within_an_interval(self):
        # One that is over once, and then no more: the clock tells.
        clock = self.useFixture(base.Clock())

        class Source(base.Fetching):
            def __init__(self, gate):
                super().__init__(b'a', b'b', b'c')
                self.gate = gate

            def __next__(self):
                item = super().__next__()
                clock.now += 2 * (item == b'a')
                if item == b'b':
                    self.gate.wait()
                return item

            def read(self, _):
                return next(self, b'')

        def go_on(gate):
            gate.send(None)

        for make in (
            lambda gate: (
                utils.cooperative_iter(iter(Source(gate))).__next__,
                go_on,
            ),
            lambda gate: (
                functools.partial(utils.cooperative_read(Source(gate)), 1),
                go_on,
            ),
        ):
            clock.now = 0.0
            self.assertEqual(
                [b'a', b'b', b'c'], self.left_behind(make, interval=1)
            )

    def test_hub_itself_cannot_queue(self):
        gate = event.Event()

        def source():
            gate.wait()
            yield b'a'

        stream = utils.cooperative_iter(source())
        thread = eventlet.spawn(next, stream)
        eventlet.sleep(0)
        raised = event.Event()

        def call():
            try:
                next(stream)
            except RuntimeError as exc:
                raised.send(exc)

        self.hub.schedule_call_global(0, call)
        self.assertIn('hub', str(raised.wait()))
        gate.send(None)
        self.assertEqual(b'a', thread.wait())

    def test_native_thread_does_not_queue(self):
        # It would have nobody to wait with, and the queue is there for good.
        class Meeting:
            def __init__(self):
                self.barrier = threading.Barrier(2)

            def __iter__(self):
                return self

            def __next__(self):
                self.barrier.wait(base.HANGING)
                return hasattr(hubs._threadlocal, 'hub')

        iterator = utils.cooperative_iter(Meeting())
        iterator.door = eventlet.semaphore.Semaphore(1)
        got = base.in_native_threads(lambda: next(iterator), 2)
        self.assertEqual([False, False], got)

    def test_native_thread_leaves_the_queue_as_it_is(self):
        # One green thread is inside, one waits, or neither knows of a queue.
        def fetch():
            return next(iterator), hasattr(hubs._threadlocal, 'hub')

        for number in (1, 2):
            for turns in range(1, 5):
                source = Entered(*range(9))
                iterator = utils.cooperative_iter(source)
                threads = [
                    eventlet.spawn(next, iterator) for _ in range(number)
                ]
                for _ in range(turns):
                    eventlet.sleep(0)
                got, has_hub = base.in_native_thread(fetch)
                self.assertFalse(has_hub)
                # Beside the one inside, and no further one.
                source.most = 0
                threads += [eventlet.spawn(next, iterator) for _ in range(3)]
                got = [got, *(thread.wait() for thread in threads)]
                self.assertEqual(list(range(number + 4)), sorted(got))
                self.assertEqual(1, source.most)

    def test_generator_that_switches_itself(self):
        # As one does that reads a green socket.
        def source():
            for number in range(20):
                eventlet.sleep(0)
                yield number

        iterator = utils.cooperative_iter(source())
        self.assertEqual(
            list(range(20)), sorted(sum(self.share(iterator), []))
        )
        self.assertEqual('', self.logger.output)

    def test_queue_before_a_source_that_switches_itself(self):
        # Killed in the queue, killed in the source, and none of them: the
        # others go on, and what the source gave is not lost.
        items = list(range(1, 21))
        for killed in (None, 0, 1, 2, 3):
            for turns in range(1, 12):
                source = Entered(*items)
                iterator = utils.cooperative_iter(source)
                got = []

                def run(iterator=iterator, got=got):
                    for item in iterator:
                        got.append(item)

                threads = [eventlet.spawn(run) for _ in range(4)]
                for _ in range(turns):
                    eventlet.sleep(0)
                if killed is not None:
                    threads.pop(killed).kill()
                for thread in threads:
                    thread.wait()
                self.assertEqual(items, sorted(got), (killed, turns))
                self.assertEqual(1, source.most)

    def test_goes_on_without_a_hub(self):
        def source():
            for number in range(10):
                if hasattr(eventlet.hubs._threadlocal, 'hub'):
                    eventlet.sleep(0)
                yield number

        iterator = utils.cooperative_iter(source())
        got = []

        def run():
            for item in iterator:
                got.append(item)
                if len(got) >= 5:
                    return

        threads = [eventlet.spawn(run) for _ in range(3)]
        for thread in threads:
            thread.wait()

        def rest():
            items = list(iterator)
            return items, hasattr(eventlet.hubs._threadlocal, 'hub')

        items, has_hub = base.in_native_thread(rest)
        self.assertFalse(has_hub)
        self.assertNotEqual([], items)
        self.assertEqual(list(range(10)), sorted(got + items))

    def test_exception_is_for_the_one_that_fetched(self):
        failure = OSError('flaky')
        iterator = utils.cooperative_iter(
            base.Fetching(b'a', failure, b'b', b'c')
        )
        got = []

        def run():
            try:
                for item in iterator:
                    got.append(item)
            except OSError as exc:
                got.append(exc)

        for thread in [eventlet.spawn(run) for _ in range(2)]:
            thread.wait()
        self.assertEqual(1, got.count(failure))
        self.assertEqual(4, len(got))
        self.assertEqual({b'a', b'b', b'c', failure}, set(got))

    def test_closed_meanwhile(self):
        source = base.Fetching(b'a', b'b')
        iterator = utils.cooperative_iter(source)
        thread = eventlet.spawn(list, iterator)
        eventlet.sleep(0)
        iterator.close()
        self.assertEqual(1, source.closed)
        # Also while the other has not come back.
        self.assertRaises(StopIteration, next, iterator)
        self.assertIn(thread.wait(), ([], [b'a']))
        self.assertEqual(1, source.fetched)

    def test_interrupted_one_leaves_its_item_to_the_next_call(self):
        source = base.Fetching(b'a', b'b')
        iterator = utils.cooperative_iter(source)
        thread = eventlet.spawn(next, iterator)
        eventlet.sleep(0)
        thread.kill()
        self.assertEqual(b'a', next(iterator))
        # Without fetching what nobody asked for.
        self.assertEqual(1, source.fetched)

    def test_interrupted_one_leaves_its_item_to_the_other(self):
        items = list(range(10))
        iterator = utils.cooperative_iter(iter(items))
        got = []
        first = eventlet.spawn(next, iterator)
        second = eventlet.spawn(lambda: got.extend(iterator))
        eventlet.sleep(0)
        first.kill()
        second.wait()
        self.assertEqual(items, sorted(got))

    def test_interrupted_at_every_yield(self):
        items = list(range(1, 7))
        for at in range(1, 20):
            iterator = utils.cooperative_iter(iter(items))
            other = []
            caught = []
            thread = eventlet.spawn(other.extend, iterator)
            mine = base.Run(
                lambda iterator=iterator, caught=caught: list(
                    base.calls(lambda: next(iterator), caught)
                ),
                lambda number, at=at: base.never() if number == at else None,
            )
            thread.wait()
            self.assertEqual(items, sorted(mine.answer + other), at)
