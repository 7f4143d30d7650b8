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

"""Streams in the life of a process: imports, native threads, fork, exit."""

from typing import Any

from glance_store.tests.unit import base

STREAMS = """
from functools import partial
import io
import json
import logging
import os
import sys
import threading

from glance_store.common import utils

DATA = bytes(range(9))


def calls():
    'Return what gives the next byte of DATA, for each kind of stream.'
    parts = [DATA[at:at + 1] for at in range(9)]
    reader = utils.CooperativeReader
    return [
        utils.cooperative_iter(parts).__next__,
        partial(utils.cooperative_read(io.BytesIO(DATA)), 1),
        partial(reader(io.BytesIO(DATA)).read, 1),
        partial(reader(parts).read, 1),
        reader(parts).__next__,
        utils.chunkiter(reader(parts), 1).__next__,
    ]


def take(call, number=None):
    'Return that many bytes, or all up to the end.'
    taken = b''
    try:
        while len(taken) != number and (piece := call()):
            taken += piece
    except StopIteration:
        pass
    return taken
"""

# The words name what happens before the streams run.
WITHOUT_HUB = """
words = sys.argv[1:]
if 'absent' in words:
    # So Python refuses the import, as where it is not installed.
    sys.modules['eventlet'] = sys.modules['greenlet'] = None
if 'imported' in words:
    import eventlet
    from eventlet import hubs, patcher
    threading = patcher.original('threading')
if 'patched' in words:
    eventlet.monkey_patch()
if 'hub' in words:
    hubs.get_hub()
lines = []
if 'traced' in words:
    logger = logging.getLogger('glance_store')
    logger.setLevel('DEBUG')
    handler = logging.Handler()
    handler.emit = lines.append
    logger.addHandler(handler)


def epolls():
    with os.scandir('/proc/self/fd') as entries:
        return sum('eventpoll' in os.readlink(entry) for entry in entries)


def note_sleeps(frame, event, arg):
    if event == 'c_call' and arg.__name__ == 'sleep':
        sleeps.append(str(arg))
    if event == 'call' and frame.f_code.co_name == 'sleep':
        sleeps.append(str(frame))


def run():
    before = epolls()
    sys.setprofile(note_sleeps)
    taken.extend(map(take, calls()))
    sys.setprofile(None)
    hubs_made.append(epolls() - before)


sleeps, taken, hubs_made = [], [], []
if 'thread' in words:
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
else:
    run()
print(json.dumps({
    'sleeps': sleeps,
    'hubs': hubs_made,
    'whole': set(taken) == {DATA} and len(taken),
    'eventlet': bool(sys.modules.get('eventlet')),
    'lines': len(lines),
}))
"""

FORK = """
import signal

import eventlet
from eventlet import hubs

signal.alarm(60)
# Some have begun, and all wait in the queue.
green_threads = [eventlet.spawn(take, call) for call in calls()]
for _ in range(9):
    eventlet.sleep(0)
green_threads += [eventlet.spawn(take, call) for call in calls()]
eventlet.sleep(0)
reader, writer = os.pipe()
child = os.fork()
if child == 0 and 'replace' in sys.argv:
    hubs.use_hub()
    green_threads = []
taken = [thread.wait() for thread in green_threads]
taken += [eventlet.spawn(take, call).wait() for call in calls()]
right = set(taken) == {DATA} and len(taken)
if child == 0:
    os.write(writer, bytes([right]))
    os._exit(0)
print(json.dumps([right, os.read(reader, 1)[0], os.waitpid(child, 0)[1]]))
"""

EXIT = """
import eventlet

words = sys.argv[1:]
if 'patched' in words:
    eventlet.monkey_patch()
kept = calls()
if 'main' in words:
    eventlet.sleep(0)
    for call in kept:
        assert take(call, 2) == DATA[:2]
if 'green' in words:
    for call in kept:
        eventlet.spawn(take, call)
    for _ in range(9):
        eventlet.sleep(0)
if 'native' in words:
    native = eventlet.patcher.original('threading')
    begun = native.Event()
    reader, writer = os.pipe()

    def run():
        for call in kept:
            take(call, 2)
        begun.set()
        # It is in the middle of this one when the process ends.
        utils.cooperative_read(open(reader, 'rb'))(1)

    native.Thread(target=run, daemon=True).start()
    begun.wait()
print(json.dumps('ended'))
"""


class ProcessTestCase(base.TestCase):
    def test_without_a_hub(self) -> None:
        for words in (
            '',
            'absent traced',
            'imported',
            'imported thread',
            'imported hub thread',
            'imported patched thread',
            'imported patched hub thread',
        ):
            facts = base.run_python(STREAMS + WITHOUT_HUB, *words.split())
            expected = {'sleeps': [], 'hubs': [0], 'whole': 6}
            expected['eventlet'] = 'imported' in words
            # Each stream has one at its begin and one at its end.
            expected['lines'] = 12 if 'traced' in words else 0
            self.assertEqual(expected, facts, words)

    def test_fork(self) -> None:
        for hub in 'epolls', 'poll', 'selects', 'asyncio':
            answer = base.run_python(STREAMS + FORK, EVENTLET_HUB=hub)
            self.assertEqual([18, 18, 0], answer, hub)
        answer = base.run_python(STREAMS + FORK, 'replace')
        self.assertEqual([18, 6, 0], answer)

    def test_exit_in_the_middle(self) -> None:
        for where in 'main', 'green', 'native':
            for how in (), ('patched',):
                answer = base.run_python(STREAMS + EXIT, where, *how)
                self.assertEqual('ended', answer)


class ThreadsTestCase(base.HubTestCase):
    """A stream may be made on one thread and used on another."""

    def test_used_on_another_thread(self) -> None:
        def on_another_hub(call: Any) -> int:
            with base.Ticker() as ticker:
                call()
                turns: int = ticker.turns
            base.end_hub()
            return turns

        streams: dict[str, Any] = {}
        exec(STREAMS, streams)
        for calls in (
            streams['calls'](),
            base.in_native_thread(streams['calls']),
        ):
            for call in calls:
                self.assertYields(1, call)
                # On a thread without a hub, ...
                self.assertYields(0, base.in_native_thread, call)
                self.assertYields(1, call)
                # ... and on one with another hub.
                turns = self.assertYields(
                    0, base.in_native_thread, on_another_hub, call
                )
                self.assertEqual(1, turns)
                self.assertYields(1, call)
