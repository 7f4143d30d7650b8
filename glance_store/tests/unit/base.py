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

"""What the unit tests share: hubs, options, the log, other processes.

Nothing here waits for time to pass. The order in which green threads run
tells what happens on a hub: a hub runs those that are ready in the order in
which they became so.
"""

from collections.abc import Callable
from concurrent import futures
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from typing import Any

import eventlet
from eventlet import hubs
import fixtures
import greenlet
from oslo_config import fixture as config_fixture
import testtools

import glance_store

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(glance_store.__file__)))

# Seconds that one test may take; tox.ini sets it for every environment.
TIMEOUT = int(os.environ.get('OS_TEST_TIMEOUT') or 0)


def end_hub() -> None:
    """End the hub of the calling native thread, where it has one."""
    hub = getattr(hubs._threadlocal, 'hub', None)
    try:
        if hub is not None and hub.running:
            # Only dropped, it would keep its descriptor.
            hub.abort(wait=True)
    finally:
        # Choosing a hub drops the one that the thread has.
        hubs.use_hub()


class Interrupted(Exception):
    """A plain exception that a test throws."""


# Timeouts that never pass by themselves: they are thrown by hand.
INTERRUPTIONS: dict[str, Callable[[], BaseException]] = {
    'timeout': eventlet.Timeout,
    'kill': greenlet.GreenletExit,
    'exception': Interrupted,
    'keyboard_interrupt': KeyboardInterrupt,
}


def interrupt(call: Callable[[], Any], exc: BaseException) -> BaseException:
    """Throw *exc* into the first wait of *call*; return what comes out."""
    raised: list[BaseException] = []

    def run() -> None:
        # Raised out of a green thread, it would end the hub.
        try:
            call()
        except BaseException as error:
            raised.append(error)

    green_thread = eventlet.spawn(run)
    eventlet.sleep(0)
    eventlet.kill(green_thread, exc)
    return raised.pop()


class TimeLimit(fixtures.Timeout):
    """A time limit that ends the test, whichever green thread runs then.

    Raised in a callback of the hub, the exception would be printed and lost.
    """

    def _setUp(self) -> None:
        self._green_thread = greenlet.getcurrent()
        super()._setUp()

    def signal_handler(self, signum: int, frame: Any) -> None:
        signal.alarm(5)  # once more, where the test catches the exception
        self._green_thread.throw(fixtures.TimeoutException())


class TestCase(testtools.TestCase):
    """A test on a native thread without a hub."""

    def setUp(self) -> None:
        super().setUp()
        if TIMEOUT:
            self.useFixture(TimeLimit(TIMEOUT, gentle=True))
        end_hub()
        self.addCleanup(end_hub)
        self.options = self.useFixture(config_fixture.Config())
        self.logger = self.capture_log(logging.INFO)

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


class Ticker(fixtures.Fixture):
    """A green thread that counts its turns: one in each round of the hub."""

    def _setUp(self) -> None:
        self.turns = 0
        self._green_thread = eventlet.spawn(self._run)
        self.addCleanup(self._green_thread.kill)
        eventlet.sleep(0)
        self.turns = 0

    def _run(self) -> None:
        while True:
            self.turns += 1
            eventlet.sleep(0)


class Clock(fixtures.Fixture):
    """The time by which streams measure their slices.

    It stands in for the real one, by which a slice would hold another number
    of chunks in each run. The hub keeps the clock that it was made with.
    """

    def _setUp(self) -> None:
        self.now = 128.0
        self.useFixture(
            fixtures.MonkeyPatch('time.monotonic', lambda: self.now)
        )


class HubTestCase(TestCase):
    """A test in a green thread, with a ticker that counts the rounds."""

    def setUp(self) -> None:
        super().setUp()
        self.hub = hubs.get_hub()
        self.ticker = self.useFixture(Ticker())

    def assertYields(
        self, number: int, func: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Call *func*, which yields *number* times, and return its answer."""
        before = self.ticker.turns
        answer = func(*args, **kwargs)
        self.assertEqual(number, self.ticker.turns - before)
        return answer


def in_native_thread(func: Callable[..., Any], *args: Any) -> Any:
    """Run *func* on a native thread of its own and return its answer."""
    with futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(func, *args).result()


def run_python(code: str, *args: str, **variables: str) -> Any:
    """Run *code* in a Python process of its own.

    :returns: what the JSON in the last line that it printed says
    """
    kept = ('PATH', 'HOME', 'TMPDIR', 'LD_LIBRARY_PATH')
    env = {
        name: value
        for name, value in os.environ.items()
        # What coverage and mutmut need in a process of its own.
        if name in kept or name.startswith(('COVERAGE_', 'MUTANT_'))
    }
    # eventlet warns of itself, and everything else on stderr is an error.
    env |= {'PYTHONPATH': ROOT, 'PYTHONWARNINGS': 'ignore', **variables}
    process = subprocess.run(
        [sys.executable, '-P', '-c', textwrap.dedent(code), *args],
        env=env,
        capture_output=True,
        text=True,
        timeout=TIMEOUT or None,
    )
    if process.returncode or process.stderr:
        raise AssertionError(
            f'exit status {process.returncode}\n{process.stderr}'
        )
    return json.loads(process.stdout.splitlines()[-1])
