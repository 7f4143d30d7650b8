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

"""``cooperative_read(fd)``."""

import gc
import io
import tracemalloc

import eventlet
import fixtures

from glance_store.common import utils
from glance_store.tests.unit import base


class TestWithoutHub(base.TestCase):
    def test_passes_its_arguments(self):
        fd = base.Answering(*range(5))
        read = utils.cooperative_read(fd=fd)
        read()
        read(10)
        read(size=10)
        read(None)
        read(10, 'more', even='more')
        self.assertEqual(
            [
                ((), {}),
                ((10,), {}),
                ((), {'size': 10}),
                ((None,), {}),
                ((10, 'more'), {'even': 'more'}),
            ],
            fd.calls,
        )

    def test_returns_what_was_read(self):
        answers = [b'abc', b'', None, 'text', bytearray(b'x'), object(), 0]
        read = utils.cooperative_read(base.Answering(*answers))
        for answer in answers:
            self.assertIs(answer, read(5))

    def test_reads_once_a_call_and_nothing_before(self):
        fd = base.Reading(b'abcdefgh', 2)
        read = utils.cooperative_read(fd)
        self.assertEqual([], fd.calls)
        self.assertEqual(b'ab', read(5))
        self.assertEqual([(5,)], fd.calls)

    def test_reads_on_after_the_end(self):
        # A file may grow.
        read = utils.cooperative_read(base.Answering(b'', b'abc', b''))
        self.assertEqual([b'', b'abc', b''], [read(3) for _ in range(3)])

    def test_does_not_close(self):
        fd = base.Reading(b'abc')
        read = utils.cooperative_read(fd)
        read()
        read()
        del read
        self.assertEqual(0, fd.closed)

    def test_no_read_at_the_call(self):
        for fd in (None, 5, [b'a'], object()):
            exc = self.assertRaises(TypeError, utils.cooperative_read, fd)
            self.assertIn(type(fd).__name__, str(exc))

    def test_exception_of_the_source_as_it_is(self):
        failure = OSError('gone')
        read = utils.cooperative_read(base.Answering(b'a', failure, b'b'))
        self.assertEqual(b'a', read())
        self.assertIs(failure, self.assertRaises(OSError, read))
        self.assertEqual(b'b', read())


class TestNotImported(TestWithoutHub):
    def setUp(self):
        super().setUp()
        self.useFixture(base.NotImported())


class TestOnHub(base.HubTestCase):
    def test_reads_then_yields_then_returns(self):
        events = []

        class Source:
            def read(self):
                events.append('read')
                return b'a'

        def others():
            while True:
                events.append('others')
                eventlet.sleep(0)

        other = eventlet.spawn(others)
        self.addCleanup(other.kill)
        read = utils.cooperative_read(Source())
        for _ in range(2):
            read()
            events.append('returned')
        self.assertEqual(['read', 'others', 'returned'] * 2, events)

    def test_yields_after_each_read_whatever_it_answers(self):
        answers = [b'abc', b'', None, 'text', object()]
        read = utils.cooperative_read(base.Answering(*answers))
        for answer in answers:
            self.assertIs(answer, self.assertYields(1, read, 5))

    def test_passes_its_arguments(self):
        fd = base.Answering(*range(4))
        read = utils.cooperative_read(fd)
        read()
        read(10)
        read(size=10)
        read(10, 'more', even='more')
        self.assertEqual(
            [
                ((), {}),
                ((10,), {}),
                ((), {'size': 10}),
                ((10, 'more'), {'even': 'more'}),
            ],
            fd.calls,
        )

    def test_exception_of_the_source_as_it_is(self):
        failure = OSError('gone')
        read = utils.cooperative_read(base.Answering(b'a', failure, b'b'))
        read()
        self.assertIs(failure, self.assertRaises(OSError, read))
        self.assertEqual(b'b', read())


class TestInterrupted(base.HubTestCase):
    """What comes after an interruption that the caller goes on from."""

    def interrupted(self, fd, *args, **kwargs):
        """Return a read function whose first call was interrupted."""
        read = utils.cooperative_read(fd)
        run = base.Run(
            lambda: self.assertRaises(base.Interrupted, read, *args, **kwargs),
            lambda _: base.Interrupted(),
        )
        self.assertEqual(1, len(run.thrown))
        return read

    def test_same_size(self):
        fd = base.Reading(b'abcdefghij')
        read = self.interrupted(fd, 4)
        self.assertEqual(b'abcd', read(4))
        self.assertEqual(1, len(fd.calls))
        self.assertEqual(b'efgh', read(4))

    def test_same_answer_as_the_same_object(self):
        for answer in (b'abc', b'', 'text', '', bytearray(b'x'), object(), 0):
            read = self.interrupted(base.Answering(answer, b'next'), 4)
            self.assertIs(answer, read(4))
            self.assertEqual(b'next', read(4))

    def test_what_is_no_data_whatever_is_asked(self):
        for answer in (object(), 5, ['a', 'b']):
            read = self.interrupted(base.Answering(answer, b'next'), 4)
            self.assertIs(answer, read(5))
            self.assertEqual(b'next', read(5))

    def test_nothing_yet(self):
        read = self.interrupted(base.Answering(None, b'a', b'b'), 4)
        self.assertIn(read(4), (None, b'a'))
        self.assertIn(read(4), (b'a', b'b'))

    def test_less(self):
        fd = base.Reading(b'abcdefghij')
        read = self.interrupted(fd, 5)
        self.assertEqual(
            [b'ab', b'cd', b'', b'e'], [read(2), read(2), read(0), read(1)]
        )
        self.assertEqual(1, len(fd.calls))
        self.assertEqual(b'fg', read(2))
        self.assertEqual(b'hij', read())

    def test_less_then_more(self):
        fd = base.Reading(b'abcdefghijklmnop')
        read = self.interrupted(fd, 5)
        self.assertEqual(b'ab', read(2))
        self.assertEqual(b'cdefghi', read(7))
        self.assertEqual([(5,), (4,)], fd.calls)
        self.assertEqual(b'jklm', read(4))

    def test_zero(self):
        read = self.interrupted(base.Reading(b'abcdefghij'), 5)
        self.assertEqual(b'', read(0))
        self.assertEqual(b'abcde', read(5))

    def test_more(self):
        fd = base.Reading(b'abcdefghij')
        read = self.interrupted(fd, 3)
        self.assertEqual(b'abcdefg', read(7))
        # Nor is anything read that nobody asked for.
        self.assertEqual([(3,), (4,)], fd.calls)
        self.assertEqual(b'hij', read(7))

    def test_more_never_answers_more_than_asked(self):
        fd = base.Reading(b'abcdefghij')
        read = self.interrupted(fd, 3)
        self.assertEqual(7, len(read(7)))

    def test_more_at_the_end(self):
        read = self.interrupted(base.Reading(b'abc'), 3)
        self.assertEqual(b'abc', read(7))
        self.assertEqual(b'', read(7))

    def test_everything(self):
        for args in ((), (-1,), (None,)):
            read = self.interrupted(base.Reading(b'abcdefghij'), 3)
            self.assertEqual(b'abcdefghij', read(*args))
            self.assertEqual(b'', read(*args))

    def test_everything_was_asked_for(self):
        for args in ((), (-1,), (None,)):
            read = self.interrupted(base.Reading(b'abcdefghij'), *args)
            self.assertEqual(
                [b'abc', b'def', b'ghij', b''],
                [read(3), read(3), read(6), read(6)],
            )

    def test_by_name(self):
        class Source(base.Reading):
            def read(self, *, size=None):
                return super().read(size)

        for asked, then in ((3, 7), (7, 3), (3, 3), (3, 6)):
            fd = Source(b'abcdefghij')
            read = self.interrupted(fd, size=asked)
            self.assertEqual(b'abcdefghij'[:then], read(size=then))
            self.assertEqual(max(asked, then), fd.position)
            self.assertEqual(b'abcdefghij'[then:], read())

    def test_more_of_what_is_not_short(self):
        read = self.interrupted(base.Reading(bytes(9000)), 1000)
        self.assertEqual([3000, 6000], [len(read(3000)), len(read())])

    def test_waits_for_no_more_while_there_is_some(self):
        # A socket answers with what it has, and may have no more for long.
        for asks in ([10, 100], [0, 100], [40], [100], [20, 98]):
            fd = base.Answering(bytes(30))
            read = self.interrupted(fd, 100)
            got = [len(read(size)) for size in asks]
            self.assertEqual(30, sum(got))
            self.assertEqual([], fd.answers)
        read = self.interrupted(base.Answering(b'a'), 3)
        self.assertEqual(b'a', read(2))

    def test_waits_for_no_more_than_others_left(self):
        fd = base.Answering(bytes(30), bytes(30))
        read = utils.cooperative_read(fd)
        threads = [eventlet.spawn(read, 100) for _ in range(2)]
        for thread in threads:
            # Before any of the two comes back.
            self.hub.schedule_call_global(0, thread.throw)
        eventlet.sleep(0)
        self.assertEqual([], fd.answers)
        self.assertEqual(60, len(read(100)))

    def test_waits_for_no_more_than_it_left_itself(self):
        class Source(base.Answering):
            def read(self, size):
                eventlet.sleep(0)
                return super().read(size)

        # The second gets what was the first one's, and leaves its own.
        fd = Source(bytes(100), bytes(30))
        read = utils.cooperative_read(fd)
        threads = [eventlet.spawn(read, 100) for _ in range(2)]
        while fd.answers:
            eventlet.sleep(0)
            if len(fd.answers) == 1:
                eventlet.kill(threads[0])
        self.assertEqual(100, len(threads[1].wait()))
        self.assertEqual(30, len(read(100)))

    def test_text(self):
        for asked, then in ((3, 7), (7, 3), (3, 3), (1, 2)):
            read = self.interrupted(io.StringIO('aé\r\nβ\rxyz'), asked)
            self.assertEqual('aé\r\nβ\rxyz'[:then], read(then))
            self.assertEqual('aé\r\nβ\rxyz'[then:], read())
            self.assertEqual('', read())

    def test_text_never_answers_bytes(self):
        read = self.interrupted(io.StringIO('abc'), 3)
        self.assertEqual('', read(0))
        self.assertEqual('abc', read(3))
        read = self.interrupted(io.StringIO(''), 3)
        self.assertEqual('', read(5))

    def test_read_that_fails_loses_nothing(self):
        failure = OSError('flaky')
        read = self.interrupted(base.Answering(b'abc', failure, b'de'), 3)
        self.assertIs(failure, self.assertRaises(OSError, read, 5))
        self.assertEqual(b'abcde', read(5))

    def test_nothing_more_yet(self):
        read = self.interrupted(base.Answering(b'abc', None, b'de'), 3)
        self.assertEqual(b'abc', read(5))
        self.assertEqual(b'de', read(5))

    def test_more_on_a_thread_without_a_hub(self):
        read = self.interrupted(base.Reading(b'abcdefghij'), 3)
        self.assertEqual(b'abcdefg', base.in_native_thread(read, 7))
        self.assertEqual(b'hij', base.in_native_thread(read, 7))

    def test_rest_that_another_green_thread_takes(self):
        read = self.interrupted(base.Reading(b'abcdefghij'), 3)
        thread = eventlet.spawn(read, 7)
        eventlet.sleep(0)
        got = [read(7), thread.wait()]
        self.assertEqual(b'abcdefghij', b''.join(sorted(got)))

    def test_file(self):
        path = self.useFixture(fixtures.TempDir()).join('image')
        with open(path, 'wb') as out:
            out.write(b'abcdefghij')
        with open(path, 'rb') as fd:
            read = self.interrupted(fd, 5)
            self.assertEqual(b'abc', read(3))
            self.assertEqual(b'defghij', read())

    def test_pieces_of_text_without_quadratic_copying(self):
        # Counted in the memory that is asked for, for want of a way to count
        # what is copied: a rest that was copied is there beside the other.
        text = 'x' * 1000000
        read = self.interrupted(io.StringIO(text))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.assertEqual('x', read(1))
        self.assertLess(tracemalloc.get_traced_memory()[1], 100000)


class TestInterruptedOddly(base.HubTestCase):
    """Answers that are no part of the data, or not by the byte."""

    def interrupt(self, call, *args):
        caught = []

        def run():
            try:
                call(*args)
            except base.Interrupted as exc:
                caught.append(exc)

        base.Run(
            run, lambda number: base.Interrupted() if number == 1 else None
        )
        self.assertEqual(1, len(caught))

    def test_read_of_nothing_is_not_the_end(self):
        for make in (utils.cooperative_read, utils.CooperativeReader):
            for size in (3, -1):
                stream = make(io.BytesIO(b'abcdef'))
                read = getattr(stream, 'read', stream)
                self.interrupt(read, 0)
                wanted = b'abcdef' if size < 0 else b'abc'
                self.assertEqual(wanted, read(size))
                self.assertEqual(b'abcdef'[len(wanted) :], read())
        reader = utils.CooperativeReader(io.BytesIO(b'abcdef'))
        self.interrupt(reader.read, 0)
        self.assertEqual([b'abcdef'], list(reader))

    def test_end_in_spite_of_interruptions_and_other_sizes(self):
        read = utils.cooperative_read(io.BytesIO(b'abc'))
        self.assertEqual(b'abc', read(10))
        for size in (10, 3):
            self.interrupt(read, size)
            self.assertEqual(b'', read(size + 1))

    def test_memory_of_larger_items(self):
        data = bytes(range(80))
        read = utils.cooperative_read(
            base.Answering(memoryview(data).cast('I'), *[b''] * 30)
        )
        self.interrupt(read, 80)
        pieces = [read(8) for _ in range(11)]
        self.assertEqual(data, b''.join(pieces))
        self.assertEqual({8, 0}, set(map(len, pieces)))

    def test_flags_are_no_sizes(self):
        class Response(base.Reading):
            def read(self, amt=None, decode_content=None):
                return super().read(amt)

        for kwargs in ({'decode_content': True}, {'decode_content': False}):
            read = utils.cooperative_read(Response(bytes(50)))
            self.interrupt(read, 10)
            self.assertEqual(50, len(read(**kwargs)))
            read = utils.cooperative_read(Response(bytes(50)))
            self.interrupt(read, 10)
            self.assertEqual(20, len(read(**kwargs, amt=20)))

    def test_other_arguments_are_passed_on(self):
        fd = base.Answering(b'abc', b'de')
        read = utils.cooperative_read(fd)
        self.interrupt(read, 3, True)
        self.assertEqual(b'abcde', read(5, True))
        self.assertEqual([((3, True), {}), ((2, True), {})], fd.calls)

    def test_sizes_of_other_types(self):
        class Size:
            def __index__(self):
                return 5

            def __ge__(self, other):
                return other <= 5

            def __sub__(self, other):
                return 5 - other

            def __gt__(self, other):
                return other < 5

        read = utils.cooperative_read(io.BytesIO(bytes(50)))
        self.interrupt(read, 10)
        self.assertEqual(5, len(read(Size())))

    def test_nothing_is_held_afterwards(self):
        dropped = []

        class Answer(bytes):
            def __del__(self):
                dropped.append(len(self))

        read = utils.cooperative_read(base.Answering(Answer(bytes(100))))
        self.interrupt(read, 100)
        self.assertEqual(100, len(read(100)))
        gc.collect()
        self.assertEqual([100], dropped)


class TestShared(base.HubTestCase):
    """Green threads that share one read function."""

    DATA = bytes(range(256))

    def share(self, read, *sizes):
        got = []

        def run(size):
            while answer := read(size):
                got.append(answer)
                eventlet.sleep(0)

        for thread in [eventlet.spawn(run, size) for size in sizes]:
            thread.wait()
        return got

    def test_each_byte_goes_to_one(self):
        for sizes in ((5, 5), (5, 5, 5), (1, 1), (256, 256)):
            read = utils.cooperative_read(base.Reading(self.DATA))
            got = self.share(read, *sizes)
            self.assertEqual(self.DATA, b''.join(sorted(got)))

    def test_different_sizes(self):
        for sizes in ((3, 5), (5, 3), (1, 7, 20), (7, 7, 5, 5), (100, -1)):
            read = utils.cooperative_read(base.Reading(self.DATA, 9))
            got = self.share(read, *sizes)
            self.assertEqual(sorted(self.DATA), sorted(b''.join(got)))
            self.assertLessEqual(
                max(map(len, got)), max(sizes) if min(sizes) > 0 else 256
            )

    def test_every_one_gets_some(self):
        for sizes in ((5, 5), (5, 3), (3, 5, 5)):
            read = utils.cooperative_read(base.Reading(self.DATA))
            got = [[] for _ in sizes]

            def run(size, mine, read=read):
                while answer := read(size):
                    mine.append(answer)
                    eventlet.sleep(0)

            for thread in [
                eventlet.spawn(run, size, mine)
                for size, mine in zip(sizes, got, strict=True)
            ]:
                thread.wait()
            self.assertNotIn([], got)

    def test_never_more_than_asked(self):
        # Even where one finds nothing yet while another is interrupted.
        read = utils.cooperative_read(
            base.Answering(b'abcdefghij', None, *[b''] * 9)
        )
        first = eventlet.spawn(read, 10)
        second = eventlet.spawn(read, 3)
        eventlet.sleep(0)
        first.kill()
        got = [second.wait() or b'']
        self.assertLessEqual(len(got[0]), 3)
        for _ in range(5):
            got.append(read(3) or b'')
            self.assertLessEqual(len(got[-1]), 3)
        self.assertEqual(b'abcdefghij', b''.join(got))

    def test_two_interrupted_with_different_sizes(self):
        for sizes in ((10, 3), (3, 10)):
            for then in (3, 5, 10, 20):
                read = utils.cooperative_read(base.Reading(self.DATA[:16]))
                threads = [eventlet.spawn(read, size) for size in sizes]
                # Both in their yields, before either of them is over.
                for thread in threads:
                    self.hub.schedule_call_global(0, thread.throw)
                eventlet.sleep(0)
                got = list(base.calls(lambda read=read, n=then: read(n), []))
                self.assertLessEqual(max(map(len, got)), then)
                self.assertEqual(self.DATA[:16], b''.join(got))

    def test_each_gets_what_was_read_for_it(self):
        read = utils.cooperative_read(base.Reading(self.DATA))
        for at in range(0, 60, 6):
            first = eventlet.spawn(read, 3)
            second = eventlet.spawn(read, 3)
            self.assertEqual(self.DATA[at : at + 3], first.wait())
            self.assertEqual(self.DATA[at + 3 : at + 6], second.wait())

    def test_one_comes_back_to_what_an_interrupted_one_left(self):
        read = utils.cooperative_read(base.Reading(self.DATA))
        first = eventlet.spawn(read, 10)
        second = eventlet.spawn(read, 3)
        self.hub.schedule_call_global(0, first.throw)
        self.assertEqual(self.DATA[:3], second.wait())
        self.assertEqual(self.DATA[3:13], read(10))

    def test_answer_that_another_one_got_in_the_meantime(self):
        # With what a third one left, and before the first comes back for it.
        read = utils.cooperative_read(base.Reading(self.DATA))
        first = eventlet.spawn(read, 3)
        left = eventlet.spawn(read, 3)
        self.hub.schedule_call_global(0, left.throw)
        other = eventlet.spawn(read, 6)
        self.assertEqual(self.DATA[:6], other.wait())
        self.assertEqual(self.DATA[6:9], first.wait())

    def test_source_that_does_not_like_to_be_shared(self):
        # As eventlet's sockets: two green threads that wait for one are an
        # error.
        class Source(base.Reading):
            inside = False

            def read(self, size):
                assert not self.inside
                self.inside = True
                try:
                    eventlet.sleep(0)
                    return super().read(size)
                finally:
                    self.inside = False

        read = utils.cooperative_read(Source(self.DATA))
        got = self.share(read, 5, 3, 8)
        self.assertEqual(sorted(self.DATA), sorted(b''.join(got)))

        # Likewise where an interrupted answer is there to begin with.
        read = utils.cooperative_read(Source(self.DATA))
        run = base.Run(
            lambda: self.assertRaises(base.Interrupted, read, 4),
            # Its first turn away is the source's own.
            lambda number: base.Interrupted() if number == 2 else None,
        )
        self.assertEqual(1, len(run.thrown))
        got = self.share(read, 9, 7, 8)
        self.assertEqual(sorted(self.DATA), sorted(b''.join(got)))

    def test_source_that_switches_itself(self):
        class Green(base.Reading):
            def read(self, size):
                answer = super().read(size)
                eventlet.sleep(0)
                return answer

        for sizes in ((5, 5), (3, 5, 8)):
            read = utils.cooperative_read(Green(self.DATA))
            got = self.share(read, *sizes)
            self.assertEqual(sorted(self.DATA), sorted(b''.join(got)))

    def test_interrupted_at_every_yield(self):
        for sizes in ((5, 5), (5, 3), (3, 5)):
            for at in range(1, 40):
                read = utils.cooperative_read(base.Reading(self.DATA[:50]))
                other = []
                caught = []

                def run(read=read, other=other, size=sizes[1]):
                    while answer := read(size):
                        other.append(answer)

                thread = eventlet.spawn(run)
                mine = base.Run(
                    lambda read=read, caught=caught, size=sizes[0]: list(
                        base.calls(lambda: read(size), caught)
                    ),
                    lambda number, at=at: (
                        base.never() if number == at else None
                    ),
                )
                thread.wait()
                self.assertEqual(
                    sorted(self.DATA[:50]),
                    sorted(b''.join(mine.answer + other)),
                    (sizes, at),
                )
