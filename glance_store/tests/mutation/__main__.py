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

"""Whether the unit tests notice each small change to the helpers.

Cosmic Ray makes the changes, which are called mutants, one at a time in a copy
of this tree; there is a copy for each core. The tests are to fail for every
mutant. One that does what the original does is listed in ``equivalent.toml``,
with the reason; any other that passes all tests is a test that is missing.
"""

import argparse
import ast
import collections
from collections.abc import Iterator
from concurrent import futures
import contextlib
import faulthandler
import importlib
import os
import pathlib
import resource
import shutil
import signal
import sys
import time
import tomllib
from typing import Any
import unittest

from cosmic_ray import commands
from cosmic_ray import mutating
from cosmic_ray import plugins
from cosmic_ray import work_db
from cosmic_ray import work_item

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]

SETTINGS = tomllib.loads((HERE / 'settings.toml').read_text())

# Loaded once, and not again for each mutant.
PRELOADED = (
    'eventlet.hubs',
    'fixtures',
    'hypothesis.stateful',
    'oslo_concurrency.lockutils',
    'oslo_config.fixture',
    'oslo_log.log',
    'testtools',
)


class Tree:
    """A copy of this tree, in which one mutant at a time is tried."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.common = folder / SETTINGS['folder']
        self.log = folder / 'log'

    def make(self) -> None:
        for name in SETTINGS['folders']:
            shutil.copytree(
                ROOT / name,
                self.folder / name,
                ignore=shutil.ignore_patterns('__pycache__'),
            )
        # Two mutants of one second and one size have the same time stamp. As
        # there is no such folder, no compiled mutant is taken for another.
        (self.common / '__pycache__').touch()

    def modules(self) -> list[pathlib.Path]:
        return sorted(self.common.glob('*.py'))

    def result_of(self, mutation: Any, quick: bool) -> Any:
        path = self.common / mutation.module_path.name
        operator = plugins.get_operator(mutation.operator_name)()
        with mutating.use_mutation(path, operator, mutation.occurrence) as (
            before,
            after,
        ):
            if after is None:
                raise RuntimeError(f'no such mutant: {mutation}')
            name = _name_of(path.stem, mutation, before, after)
            killed_by = self.run_tests(name, quick and name in equivalents())
        outcome = 'killed' if killed_by else 'survived'
        return _result('normal', outcome, killed_by, name)

    def run_tests(self, mutant: str, quick: bool) -> str:
        """Return which test failed, '' if none did."""
        pid = os.fork()
        if not pid:
            try:
                tests = _Tests(self.folder, self.log)
                os._exit(0 if tests.pass_with(mutant, quick) else 1)
            finally:
                os._exit(1)
        try:
            status = os.waitpid(pid, 0)[1]
        finally:
            # What a test that did not come to its end leaves behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        last = self.log.read_text(errors='replace')
        lines = [line for line in last.splitlines() if line.startswith('> ')]
        timeout = ', timeout' if 'Timeout (' in last else ''
        return f'{lines[-1][2:]}{timeout}' if status else ''


class Session:
    """The mutants and what became of them, in a folder that is kept."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.path = folder / 'session.sqlite'
        self.folder = folder / 'trees'
        self.trees = [
            Tree(self.folder / str(number))
            for number in range(os.cpu_count() or 1)
        ]

    def begin(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for tree in self.trees:
            tree.make()
        self.path.unlink(missing_ok=True)
        modules = self.trees[0].modules()
        annotations = {module: _annotations(module) for module in modules}
        with work_db.use_db(self.path) as db:
            commands.init(modules, db, {})
            for item in list(db.work_items):
                mutation = item.mutations[0]
                place = (*mutation.start_pos, *mutation.end_pos)
                if _within(place, annotations[mutation.module_path]):
                    db.set_result(item.job_id, _result('skipped'))

    def go_on(self, until: float, quick: bool) -> bool:
        """Try the mutants that are left; tell whether there was the time."""
        with (
            work_db.use_db(self.path) as db,
            futures.ThreadPoolExecutor(len(self.trees)) as pool,
        ):
            # The modules from the last to the first: utils is first.
            pending = sorted(
                db.pending_work_items,
                key=lambda item: item.mutations[0].module_path,
            )
            idle = [*self.trees]
            busy: dict[Any, Any] = {}
            while busy or (pending and time.monotonic() < until):
                while idle and pending and time.monotonic() < until:
                    item, tree = pending.pop(), idle.pop()
                    mutation = item.mutations[0]
                    future = pool.submit(tree.result_of, mutation, quick)
                    busy[future] = item.job_id, tree
                for future in futures.wait(busy, None, 'FIRST_COMPLETED').done:
                    job_id, tree = busy.pop(future)
                    idle.append(tree)
                    db.set_result(job_id, future.result())
        if pending:
            print(f'{len(pending)} mutants are left')
        return not pending

    def results(self) -> Iterator[tuple[str, Any]]:
        with work_db.use_db(self.path) as db:
            for _, result in db.results:
                if result.worker_outcome == 'normal':
                    yield result.diff, result


class _Tests:
    """Run tests in a process that nobody goes on with."""

    def __init__(self, tree: pathlib.Path, log: pathlib.Path) -> None:
        os.setpgid(0, 0)
        self.file = log.open('w')
        for descriptor in (1, 2):
            os.dup2(self.file.fileno(), descriptor)
        resource.setrlimit(resource.RLIMIT_AS, (SETTINGS['memory'],) * 2)
        os.environ.pop('GLANCE_STORE_TALLY', None)
        os.chdir(tree)
        # Of this package, all that is imported now is to come from there.
        sys.path.insert(0, str(tree))
        for name in [*sys.modules]:
            if name.partition('.')[0] == 'glance_store':
                del sys.modules[name]

    def pass_with(self, mutant: str, quick: bool) -> bool:
        return all(
            self._passes(name, seconds, late)
            for late in ([False] if quick else [False, True])
            for name, seconds in _tests_for(mutant, quick)
        )

    def _passes(self, name: str, seconds: int, late: bool) -> bool:
        print('>', name, file=self.file, flush=True)
        self._hurry(seconds)
        tests = unittest.defaultTestLoader.loadTestsFromName(
            f'glance_store.tests.unit.{name}'
        )
        return all(
            self._succeeds(test, seconds)
            for test in _each(tests)
            if test.id().endswith(tuple(SETTINGS['late'])) is late
        )

    def _succeeds(self, test: Any, seconds: int) -> bool:
        print('>', test.id(), file=self.file, flush=True)
        self._hurry(seconds)
        result = unittest.TestResult()
        test.run(result)
        for _, text in result.errors + result.failures:
            print(text, file=self.file, flush=True)
        return result.wasSuccessful()

    def _hurry(self, seconds: int) -> None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=self.file)


def _each(tests: Any) -> Iterator[Any]:
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from _each(test)
        else:
            yield test


def _tests_for(mutant: str, quick: bool) -> list[tuple[str, int]]:
    groups = SETTINGS['tests']
    tests = {
        name: group['seconds'] for group in groups for name in group['modules']
    }
    first = [
        name
        for place, names in SETTINGS['first'].items()
        for name in names
        if mutant.startswith(place)
    ]
    then = groups[0]['modules'] if quick else tests
    return [(name, tests[name]) for name in dict.fromkeys([*first, *then])]


def _result(
    worker: str, outcome: Any = None, output: Any = None, name: Any = None
) -> Any:
    return work_item.WorkResult(
        worker_outcome=worker,
        output=output,
        test_outcome=outcome,
        diff=name,
    )


# Where a node is: lines counted from 1, columns from 0, the end excluded.
_Place = tuple[int, int, int, int]


def _place(node: Any) -> _Place:
    return (
        node.lineno,
        node.col_offset,
        node.end_lineno,
        node.end_col_offset,
    )


def _within(place: _Place, others: list[_Place]) -> bool:
    return any(
        other[:2] <= place[:2] and place[2:] <= other[2:] for other in others
    )


def _annotations(path: pathlib.Path) -> list[_Place]:
    """Return where the annotations are, of which nothing is run."""
    return [
        _place(note)
        for node in ast.walk(ast.parse(path.read_text()))
        for name in ('annotation', 'returns')
        if (note := getattr(node, name, None)) is not None
    ]


def _definition(source: str, place: _Place) -> str:
    """Return the name of what a place is in the middle of."""
    names = [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and _within(place, [_place(node)])
    ]
    return '.'.join(names)


def _name_of(module: str, mutation: Any, before: str, after: str) -> str:
    """Return what to call a mutant, wherever in its file it may move."""
    place = (*mutation.start_pos, *mutation.end_pos)
    old, new = before.splitlines(), after.splitlines()
    while old and new and old[0] == new[0]:
        del old[0], new[0]
    while old and new and old[-1] == new[-1]:
        del old[-1], new[-1]
    texts = [' '.join(map(str.strip, lines)) for lines in (old, new)]
    definition = _definition(before, place)
    return f'{module} {definition}: {texts[0]} -> {texts[1]}'


def equivalents() -> dict[str, str]:
    """Return the mutants that nothing can tell apart, with the reason."""
    listed = tomllib.loads((HERE / 'equivalent.toml').read_text())
    return {
        mutant: group['reason']
        for group in listed['equivalent']
        for mutant in group['mutants']
    }


def report(session: Session, complete: bool) -> bool:
    """Print what became of the mutants; tell whether all is well."""
    listed = equivalents()
    figures: collections.Counter[str] = collections.Counter()
    names: dict[bool, set[str]] = {True: set(), False: set()}
    for name, result in session.results():
        names[result.is_killed].add(name)
        figures['mutants tried'] += 1
        figures['killed'] += result.is_killed
        figures['of these by a time limit'] += 'timeout' in result.output
        figures['survived'] += not result.is_killed
        figures['of these equivalent'] += (
            not result.is_killed and name in listed
        )
    survived = names[False]
    wrong = {
        'survived, and is not listed': survived - set(listed),
        'listed, and was killed': (names[True] - survived) & set(listed),
    }
    if complete:
        unknown = set(listed).difference(*names.values())
        wrong['listed, and is no mutant'] = unknown
    for what, mutants in wrong.items():
        for name in sorted(mutants):
            print(f'{what}: {name!r}')
    for kind, number in figures.items():
        print(f'{number:6} {kind}')
    return not any(wrong.values())


def main() -> int:
    parser = argparse.ArgumentParser(prog='mutation')
    parser.add_argument('folder', type=pathlib.Path)
    parser.add_argument(
        '--go-on', action='store_true', help='go on where a run was ended'
    )
    parser.add_argument(
        '--minutes', type=float, default=float('inf'), help='stop after these'
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='leave out the slow tests of mutants that are listed',
    )
    args = parser.parse_args()
    until = time.monotonic() + 60 * args.minutes
    for module in PRELOADED:
        importlib.import_module(module)
    session = Session(args.folder.resolve())
    if not args.go_on:
        session.begin()
        if failed := session.trees[0].run_tests('', quick=False):
            print('without any mutant, this fails:', failed)
            return 1
    complete = session.go_on(until, args.quick)
    return 0 if report(session, complete) and complete else 1


if __name__ == '__main__':
    sys.exit(main())
