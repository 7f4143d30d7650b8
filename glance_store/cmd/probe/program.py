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

"""What the probe does from its arguments to its report."""

import argparse
from collections.abc import Sequence
import contextlib
import signal
import sys
import time

from glance_store.cmd.probe import arguments
from glance_store.cmd.probe import errors
from glance_store.cmd.probe import images
from glance_store.cmd.probe import measuring
from glance_store.cmd.probe import plot
from glance_store.cmd.probe import progress
from glance_store.cmd.probe import report
from glance_store.cmd.probe import signals
from glance_store.cmd.probe import timeline
from glance_store.cmd.probe import watch


def run(argv: Sequence[str] | None) -> int:
    """Do what the arguments say, and return the exit status."""
    try:
        return _run(argv)
    except errors.Failure as failure:
        errors.complain(str(failure))
        return failure.status


def _run(argv: Sequence[str] | None) -> int:
    asked = arguments.parse(argv)
    if sys.stdout is None:
        raise errors.Failure('standard output is closed')
    if asked.plot or asked.timeline:
        plot.check()
    if asked.url is not None:
        return _watch(asked)
    return _probe(asked)


def _print(text: str) -> int:
    """Print a report; a reader that has gone away is no reason to complain.

    The exit status is then what a program gets that SIGPIPE has ended.
    """
    try:
        print(text, end='', flush=True)
    except OSError as exc:
        errors.drop(sys.stdout)
        if isinstance(exc, BrokenPipeError):
            return 128 + signal.SIGPIPE
        raise errors.Failure(f'cannot print: {exc.strerror}') from exc
    return 0


# -- Image files --------------------------------------------------------------


def _probe(asked: argparse.Namespace) -> int:
    cases = [
        case
        for size in asked.chunk_sizes
        for case in measuring.cases(size, asked.interval)
    ]
    cases.append(measuring.alone())
    steps = 2 + asked.rounds * len(cases)
    with contextlib.ExitStack() as stack:
        with progress.Progress(steps) as bar:
            load = _load(asked, bar, stack)
            results = _measure(cases, load, asked, bar)
        status = _print(_report(asked, load, results))
        if asked.plot or asked.timeline:
            _draw(asked, load, results)
    return status


def _draw(
    asked: argparse.Namespace,
    load: measuring.Load,
    results: Sequence[measuring.Result],
) -> None:
    pictures = timeline.record(
        load.images[0], asked.chunk_sizes[0], results[0].throughput
    )
    if asked.plot:
        plot.rows(asked.plot, results, pictures, asked.target)
    if asked.timeline:
        plot.timelines(asked.timeline, pictures)


def _load(
    asked: argparse.Namespace,
    bar: progress.Progress,
    stack: contextlib.ExitStack,
) -> measuring.Load:
    """Return what is to be streamed, made where no file was named."""
    with bar.step('making an image', None):
        files = asked.files or [stack.enter_context(images.made())]
    if asked.cold:
        with bar.step('clearing the page cache', None):
            images.check_cold(files)
    else:
        with bar.step('reading into the page cache', None):
            images.warm(files, asked.seconds)
    return measuring.Load(
        files,
        count=asked.streams,
        # What was read once is not cold any more.
        passes=1 if asked.cold else measuring.passes_over(files),
        seconds=asked.seconds / asked.rounds,
    )


def _measure(
    cases: Sequence[measuring.Case],
    load: measuring.Load,
    asked: argparse.Namespace,
    bar: progress.Progress,
) -> list[measuring.Result]:
    """Measure all cases in turns: what changes meanwhile changes for all."""
    rounds: list[list[measuring.Round]] = [[] for _ in cases]
    start = time.monotonic()
    done = 0
    for number in range(1, asked.rounds + 1):
        for case, parts in zip(cases, rounds, strict=True):
            left = None
            if done:
                passed = time.monotonic() - start
                left = passed / done * (asked.rounds * len(cases) - done)
            what = f'streaming: {case.name}'
            with (
                bar.step(f'round {number}, {what}', left),
                errors.failing(what),
            ):
                if asked.cold:
                    images.cool(load.images)
                parts.append(measuring.measure(case, load))
            done += 1
    return [
        measuring.Result(case, parts)
        for case, parts in zip(cases, rounds, strict=True)
    ]


def _report(
    asked: argparse.Namespace,
    load: measuring.Load,
    results: Sequence[measuring.Result],
) -> str:
    given = report.advice_on(results, asked.target)
    if not asked.json:
        return report.probe_as_text(load, results, given, asked.cold)
    return report.probe_as_json(
        load,
        results,
        given,
        {
            'streams': asked.streams,
            'chunk_sizes_bytes': asked.chunk_sizes,
            'yield_interval_ms': asked.yield_interval,
            'cold': asked.cold,
            'rounds': asked.rounds,
            'seconds': asked.seconds,
            'target_lateness_ms': asked.target_lateness,
        },
    )


# -- A running service --------------------------------------------------------


def _watch(asked: argparse.Namespace) -> int:
    with signals.interrupted_once():
        seen = _watched(asked)
        text = report.watched_as_json if asked.json else report.watched_as_text
        status = _print(text(seen, asked.target))
        if asked.plot:
            plot.answers(asked.plot, seen, asked.target)
    return status


def _watched(asked: argparse.Namespace) -> watch.Watched:
    with progress.Progress(asked.seconds) as bar:

        def show(passed: float, requests: int) -> None:
            left = None
            if asked.seconds is not None:
                left = asked.seconds - passed
            bar.at(passed, f'{requests} requests, Ctrl-C ends it', left)

        return watch.watch(asked.url, asked.seconds, show)
