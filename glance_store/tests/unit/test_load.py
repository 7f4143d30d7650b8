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

"""Many streams at once: all arrive whole, none starves, nothing stays behind.

Each load has a process of its own, to see what it leaves there. A process
runs one round after another, as long as it is asked to: in a round all the
streams are begun, then all go on to their end, each over a source of its own.

How long a stream on a hub waits is counted in chunks: those that the others
get between two of its own. That is the same in each run, on any machine, but
for the reads in the pool, of which the system decides when they end. Native
threads are the system's as a whole: of them it is seen how long they take
from the common start to their ends. That takes long for all where the machine
is busy, and long for one only if that one waits for something.
"""

from glance_store.tests.unit import base

GREEN_STREAMS = 2000 if base.STRESS else 500
NATIVE_STREAMS = 200 if base.STRESS else 100

# How long one process goes on, and how many of them there are. The ordinary
# one runs two rounds.
SECONDS, PROCESSES = (60, 5) if base.STRESS else (0, 1)

# No stream waits longer than so many times the median.
PATIENCE = 20

# What may be left of all rounds but the first. Measured: 15 kB of Python's own
# after a minute, which are the figures to be printed, and 4 MB that the
# allocator keeps.
PYTHON_BYTES = 100_000
RESIDENT_BYTES = 16 * 1024 * 1024

PRELUDE = """
import gc
import hashlib
import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
import tracemalloc

import eventlet
from eventlet import hubs
from oslo_config import cfg

from glance_store.common import utils

SIZE = 4096
# Larger than the answers of the load that this is for.
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
cfg.CONF.set_override('default_chunk_size', SIZE, 'glance_store')


class Image:
    'Random bytes in a file; no two images are of the same length.'

    def __init__(self, folder, number):
        self.path = os.path.join(folder, str(number))
        self.data = os.urandom(CHUNKS * SIZE + number * 100)
        self.digest = hashlib.sha256(self.data).digest()
        with open(self.path, 'wb') as file:
            file.write(self.data)

    def pieces(self):
        'Give it by chunks of which no two in a row have the same length.'
        at = number = 0
        while at < len(self.data):
            size = SIZE - 500 + number % 3 * 500
            yield self.data[at:at + size]
            at += size
            number += 1


def reads(read):
    while chunk := read(SIZE):
        yield chunk


def iterated_chunks(image, file):
    return utils.cooperative_iter(utils.chunkiter(file, SIZE))


def iterated_pieces(image, file):
    return utils.cooperative_iter(image.pieces())


def file_reads(image, file):
    return reads(utils.cooperative_read(file))


def file_reader(image, file):
    return reads(utils.CooperativeReader(file).read)


def iterated_file_reader(image, file):
    return utils.CooperativeReader(file)


def pieces_reader(image, file):
    return reads(utils.CooperativeReader(image.pieces()).read)


def offloaded(make):
    def make_offloaded(image, file):
        cfg.CONF.set_override('offload_file_reads', True, 'glance_store')
        try:
            return make(image, file)
        finally:
            cfg.CONF.clear_override('offload_file_reads', 'glance_store')

    return make_offloaded


def chunks(image, file):
    return utils.chunkiter(file, SIZE)


KINDS = (
    iterated_chunks,
    iterated_pieces,
    file_reads,
    file_reader,
    iterated_file_reader,
    pieces_reader,
    offloaded(chunks),
    offloaded(file_reads),
    offloaded(file_reader),
)


def links(folder):
    'What is open, or which tasks there are; not the folder itself.'
    names = []
    for name in os.listdir(folder):
        try:
            names.append(os.readlink(os.path.join(folder, name)))
        except FileNotFoundError:
            continue
    return sorted(name for name in names if '/proc/' not in name)


def held():
    'What this process holds: open files by name, threads, native tasks.'
    gc.collect()
    return [
        links('/proc/self/fd'),
        threading.active_count(),
        len(os.listdir('/proc/self/task')),
    ]


def settled(before):
    'Return what is held, once the system is done with threads that ended.'
    for _ in range(10000):
        if len(os.listdir('/proc/self/task')) == before[-1]:
            break
        os.sched_yield()
    return held()


def memory():
    'What Python holds, and what the process does.'
    gc.collect()
    with open('/proc/self/statm') as file:
        pages = int(file.read().split()[1])
    return tracemalloc.get_traced_memory()[0], pages * resource.getpagesize()


def answer(before, rounds, finish=lambda: None):
    'Run rounds as long as asked to, but two at least, and tell of them.'
    end = time.monotonic() + float(sys.argv[1])
    tracemalloc.start()
    facts = [rounds()]
    python_before, resident_before = memory()
    while len(facts) < 2 or time.monotonic() < end:
        facts.append(rounds())
    python_bytes, resident_bytes = memory()
    tracemalloc.stop()
    finish()
    print(json.dumps({
        'rounds': facts,
        'before': before,
        'after': settled(before),
        'python_bytes': python_bytes - python_before,
        'resident_bytes': resident_bytes - resident_before,
    }))
"""

ON_A_HUB = """
eventlet.sleep(0)  # makes the hub
hub = hubs.get_hub()
folder = tempfile.TemporaryDirectory()
images = [Image(folder.name, number) for number in range(8)]
taken = 0


def stream(number, waits):
    'Take one stream; return whether all arrived, count others meanwhile.'
    global taken
    image = images[number % len(images)]
    digest = hashlib.sha256()
    with open(image.path, 'rb') as file:
        make = KINDS[number % len(KINDS)]
        before = taken
        for chunk in make(image, file):
            waits.append(taken - before)
            taken += 1
            before = taken
            digest.update(chunk)
    return digest.digest() == image.digest


def rounds():
    waits = []
    threads = [
        eventlet.spawn(stream, number, waits) for number in range(STREAMS)
    ]
    right = [thread.wait() for thread in threads]
    return {
        'right': sum(right),
        'median': statistics.median(waits),
        'longest': max(waits),
    }


def finish():
    from eventlet import tpool
    assert tpool._setup_already
    tpool.killall()
    assert hubs.get_hub() is hub


answer(held(), rounds, finish)
"""

ON_NATIVE_THREADS = """
eventlet.sleep(0)  # this thread has a hub, which is none of theirs
folder = tempfile.TemporaryDirectory()
images = [Image(folder.name, number) for number in range(8)]
# The options are those of the process.
streams_made = threading.Lock()


def stream(number, together, answers):
    image = images[number % len(images)]
    digest = hashlib.sha256()
    with open(image.path, 'rb') as file:
        with streams_made:
            chunks = KINDS[number % len(KINDS)](image, file)
        together.wait()
        for chunk in chunks:
            digest.update(chunk)
    ended = time.monotonic()
    hub = hasattr(hubs._threadlocal, 'hub')
    answers.append((digest.digest() == image.digest, ended, hub))


def rounds():
    answers = []
    begun = []
    together = threading.Barrier(
        STREAMS, lambda: begun.append(time.monotonic())
    )
    threads = [
        threading.Thread(target=stream, args=(number, together, answers))
        for number in range(STREAMS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    right, ended, found_hubs = zip(*answers)
    return {
        'right': sum(right),
        'median': statistics.median(ended) - begun[0],
        'longest': max(ended) - begun[0],
        'hubs': sum(found_hubs),
    }


answer(held(), rounds)
"""


class TestLoad(base.TestCase):
    def loads(self, code, streams, chunks, kind):
        """Run so many streams of so many chunks; check what loads share."""
        numbers = f'STREAMS = {streams}\nCHUNKS = {chunks}\n'
        for _ in range(PROCESSES):
            facts = base.run_python(numbers + PRELUDE + code, str(SECONDS))
            for figures in facts['rounds']:
                with self.tally.case(kind, streams):
                    self.assertEqual(streams, figures['right'])
                    self.assertLessEqual(
                        figures['longest'], PATIENCE * figures['median']
                    )
            self.assertEqual(facts['before'], facts['after'])
            self.assertLess(facts['python_bytes'], PYTHON_BYTES)
            self.assertLess(facts['resident_bytes'], RESIDENT_BYTES)
            yield from facts['rounds']

    def test_green_streams(self):
        kind = 'load: green streams, all at once on one hub'
        for figures in self.loads(ON_A_HUB, GREEN_STREAMS, 30, kind):
            # They did take turns: were there no yields, nobody would wait.
            self.assertGreater(figures['median'], GREEN_STREAMS / 2)

    def test_native_threads(self):
        kind = 'load: streams of native threads, all at once'
        for figures in self.loads(
            ON_NATIVE_THREADS, NATIVE_STREAMS, 300, kind
        ):
            self.assertEqual(0, figures['hubs'])
