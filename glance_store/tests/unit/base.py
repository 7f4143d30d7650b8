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

"""What the unit tests share: hubs, options, logs, processes, interruptions.

Nothing here waits for time to pass. What happens on a hub is told by the
order in which green threads run: a hub runs those that are ready in the order
in which they became so, and ``eventlet.sleep(0)`` makes its caller ready
again at once, so that a green thread which does nothing else has exactly one
turn for each yield of another.
"""

from collections.abc import Callable
from collections.abc import Iterator
from concurrent import futures
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
from typing import Any

import eventlet
from eventlet import hubs
import fixtures
import greenlet
import hypothesis
from oslo_config import fixture as config_fixture
import testtools

import glance_store
from glance_store.tests import tally

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(glance_store.__file__)))

# Long enough never to pass, as only a hanging test would let it.
HANGING = 300

# Whether to try as many cases as it takes an hour for (tox -e stress).
STRESS = bool(os.environ.get('GLANCE_STORE_STRESS'))

# The same examples in each run: what fails once fails for everyone.
EXAMPLES = hypothesis.settings(
    database=None,
    deadline=None,
    derandomize=True,
    max_examples=20000 if STRESS else 300,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def end_hub() -> None:
    """End the hub of the calling native thread, where it has one."""
    hub = getattr(hubs._threadlocal, 'hub', None)
    if hub is not None and hub.running:
        # If only dropped it would stay in the middle of its loop, and keep
        # its descriptor until the process ends.
        hub.abort(wait=True)
    # Choosing a hub drops the one that the thread has.
    hubs.use_hub()


class Hub(fixtures.Fixture):
    """A hub for the native thread that the test runs on, gone afterwards."""

    def _setUp(self):
        self.hub = hubs.get_hub()
        self.addCleanup(end_hub)


class NotImported(fixtures.Fixture):
    """A process into which nobody has imported eventlet's hubs."""

    def _setUp(self):
        module = sys.modules.pop('eventlet.hubs')
        self.addCleanup(sys.modules.__setitem__, 'eventlet.hubs', module)


class Ticker(fixtures.Fixture):
    """A green thread that counts its turns: one for each yield."""

    def _setUp(self):
        self.turns = 0
        self._green_thread = eventlet.spawn(self._run)
        self.addCleanup(self._green_thread.kill)
        eventlet.sleep(0)
        self.turns = 0

    def _run(self):
        while True:
            self.turns += 1
            eventlet.sleep(0)


class Clock(fixtures.Fixture):
    """A clock that is under control; a hub keeps its own."""

    def _setUp(self):
        self.now = 100.0
        self.useFixture(
            fixtures.MonkeyPatch('time.monotonic', lambda: self.now)
        )


class TestCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        # A test before may have left a hub: opening a file makes one, once
        # eventlet's own os is imported, and a pool that answers a hub which
        # is gone keeps its process from ending.
        end_hub()
        self.options = self.useFixture(config_fixture.Config())
        self.logger = self.capture_log(logging.INFO)
        self.tally = tally.Tally()
        self.addCleanup(self.tally.write)

    def configure(self, **options: Any) -> None:
        self.options.config(group='glance_store', **options)

    def capture_log(self, level: int) -> fixtures.FakeLogger:
        return self.useFixture(
            fixtures.FakeLogger(
                name='glance_store',
                level=level,
                format='%(levelname)s %(message)s',
            )
        )

    def forget_log(self) -> None:
        """Begin the log anew: of many runs it would be more than fits."""
        # Only the newest releases of fixtures have a method for this.
        stream = self.logger._output
        stream.seek(0)
        stream.truncate()

    def lines(self, level: str) -> list[str]:
        """Return the messages that were logged at *level*."""
        return [
            line.removeprefix(f'{level} ')
            for line in self.logger.output.splitlines()
            if line.startswith(f'{level} ')
        ]


class HubTestCase(TestCase):
    """Tests that run on a hub, with a ticker to count the yields."""

    def setUp(self):
        super().setUp()
        self.hub = self.useFixture(Hub()).hub
        self.ticker = self.useFixture(Ticker())

    def assertYields(
        self, number: int, func: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Call *func*, which yields *number* times, and return its answer."""
        before = self.ticker.turns
        answer = func(*args, **kwargs)
        self.assertEqual(number, self.ticker.turns - before)
        return answer


class Reading:
    """A binary file-like that answers no more than *most* bytes a read."""

    def __init__(self, data: Any, most: int | None = None) -> None:
        self.data = data
        self.most = most
        self.position = 0
        self.calls: list[tuple[Any, ...]] = []
        self.closed = 0

    def read(self, size: int | None = None) -> Any:
        self.calls.append((size,))
        end = len(self.data)
        if size is not None and size >= 0:
            end = min(end, self.position + size)
        if self.most is not None:
            end = min(end, self.position + self.most)
        answer = self.data[self.position : end]
        self.position += len(answer)
        return answer

    def close(self) -> None:
        self.closed += 1


class Answering:
    """A file-like that gives prepared answers, or raises them."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[Any, ...]] = []

    def read(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Fetching:
    """An iterator that counts what was fetched from it, and its closing."""

    def __init__(self, *items: Any) -> None:
        self.items = list(items)
        self.fetched = 0
        self.closed = 0

    def __iter__(self) -> 'Fetching':
        return self

    def __next__(self) -> Any:
        if self.fetched == len(self.items):
            raise StopIteration
        item = self.items[self.fetched]
        self.fetched += 1
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        self.closed += 1


class Interrupted(Exception):
    """What the tests throw where a plain exception is wanted."""


# A timeout that never passes by itself: it is thrown by hand.
def never() -> eventlet.Timeout:
    timeout = eventlet.Timeout(HANGING)
    timeout.cancel()
    return timeout


INTERRUPTIONS: dict[str, Callable[[], BaseException]] = {
    'timeout': never,
    'kill': greenlet.GreenletExit,
    'exception': Interrupted,
    'keyboard_interrupt': KeyboardInterrupt,
}


class Run:
    """One run of *consume* in a green thread, interrupted as asked.

    While *consume* runs, each of its yields gives the calling green thread
    one turn, and *interrupt* is asked for what to throw into that yield.
    """

    def __init__(
        self,
        consume: Callable[[], Any],
        interrupt: Callable[[int], BaseException | None],
    ) -> None:
        self.yields = 0
        self.thrown: list[BaseException] = []
        done: list[Any] = []
        failed: list[BaseException] = []

        def run() -> None:
            # Out of this green thread nothing may be raised: the hub's main
            # loop lets a KeyboardInterrupt through to the main greenlet.
            try:
                done.append(consume())
            except BaseException as exc:
                failed.append(exc)

        green_thread = eventlet.spawn(run)
        eventlet.sleep(0)
        while not done and not failed:
            self.yields += 1
            exc = interrupt(self.yields)
            if exc is None:
                eventlet.sleep(0)
            else:
                self.thrown.append(exc)
                # Its caller, too, goes on with the next turn.
                eventlet.kill(green_thread, exc)
        if failed:
            raise failed[0]
        self.answer = done[0]


def insist(call: Callable[[], Any], caught: list[BaseException]) -> Any:
    """Call until no interruption is raised, as who goes on after one does."""
    while True:
        try:
            return call()
        except (
            eventlet.Timeout,
            greenlet.GreenletExit,
            Interrupted,
            KeyboardInterrupt,
        ) as exc:
            caught.append(exc)


def calls(
    step: Callable[[], Any], caught: list[BaseException]
) -> Iterator[Any]:
    """Give the answers of *step*, to the end: b'', '' or StopIteration."""
    while True:
        try:
            answer = insist(step, caught)
        except StopIteration:
            return
        if not answer:
            return
        yield answer


def in_native_threads(func: Callable[..., Any], number: int) -> list[Any]:
    """Run *func* on so many native threads at once; return the answers."""
    with futures.ThreadPoolExecutor(number) as pool:
        barrier = threading.Barrier(number)

        def run() -> Any:
            barrier.wait()
            return func()

        return [f.result() for f in [pool.submit(run) for _ in range(number)]]


def in_native_thread(func: Callable[..., Any], *args: Any) -> Any:
    """Run *func* on a native thread of its own and return its answer."""
    return in_native_threads(lambda: func(*args), 1)[0]


def environment(**variables: str) -> dict[str, str]:
    """Return a clean environment in which this tree can be imported."""
    kept = ('PATH', 'HOME', 'TMPDIR', 'LD_LIBRARY_PATH')
    env = {
        name: value
        for name, value in os.environ.items()
        # What coverage needs to measure a process of its own.
        if name in kept or name.startswith('COVERAGE_')
    }
    # eventlet warns of itself, and everything else on stderr is an error.
    return {**env, 'PYTHONPATH': ROOT, 'PYTHONWARNINGS': 'ignore', **variables}


def run_python(
    code: str,
    *args: str,
    options: tuple[str, ...] = (),
    lines: bool = False,
    **variables: str,
) -> Any:
    """Run *code* in a Python process of its own.

    :returns: what the JSON in the last line that it printed says, or all the
        lines that it printed
    """
    # With -P, nothing is imported from the folder that it happens to be in.
    command = [sys.executable, '-P', *options, '-c', textwrap.dedent(code)]
    process = subprocess.run(
        [*command, *args],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=HANGING,
    )
    if process.returncode or process.stderr:
        raise AssertionError(
            f'exit status {process.returncode}\n{process.stderr}'
        )
    printed = process.stdout.splitlines()
    return printed if lines else json.loads(printed[-1])
