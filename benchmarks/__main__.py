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


"""Measure the helpers, beside the peers that benchmarks.peers downloads.

``cost`` times streams beside a bare loop and the peers, ``stall`` the waits of
everything else on a hub, and ``storage`` the option ``offload_file_reads``.
Rounds of ours and of the others alternate. The figures need a quiet machine:
its load stands at the end of the report.

The JSON file::

    {"machine": {NAME: VALUE, ...},
     "rows": [{"part": "stall",
               "case": {"streams": 64, "interval_ms": 10,
                        "work": "read 64 KiB", "way": "ours"},
               "figures": {"p99 ms": [1.0, 1.1, 1.2], ...}}, ...],
     "goals": [{"goal": TEXT, "figure": "p99 ms", "bound": "<= 2",
                "value": 1.1, "met": true, "case": {...}}, ...]}

A figure has its value in each round; reports show the median (of worst, the
highest). The rows of a part have the same names in their cases. The file of
``--pyperf`` has all figures in ms, for ``pyperf compare_to``.
"""

import argparse
import dataclasses
import importlib
import json
import multiprocessing
import pathlib
import statistics
import sys
import tempfile
from typing import Any

import pyperf
from rich import console
from rich import progress
from rich import table

from benchmarks import figures

# Seconds for each comparison.
_PARTS = {'cost': 2.0, 'stall': 0.6, 'storage': 1.0}


def _measured(
    part: str, asked: Any, out: console.Console
) -> list[figures.Row]:
    """Measure each cell of a part in a process of its own."""
    module = importlib.import_module(f'benchmarks.{part}')
    cells = list(module.cells(asked.quick))
    seconds = 0 if asked.quick else _PARTS[part]
    rows = []
    with (
        tempfile.TemporaryDirectory(dir=asked.folder) as folder,
        multiprocessing.get_context('spawn').Pool(
            1, maxtasksperchild=1
        ) as pool,
    ):
        for cell in progress.track(cells, part, console=out):
            given = part, pathlib.Path(folder), seconds, cell
            rows += pool.apply(figures.measure, given)
    return rows


def _text(row: figures.Row, name: str) -> str:
    """Return a figure, and the quartiles of a ratio."""
    if name not in row.figures:
        return ''
    value, values = row.value(name), row.figures[name] * 2
    if value > 1000:
        return f'{value:,.0f}'
    if not name.startswith(('of ', 'times')):
        return f'{value:.3g}'
    low, _, high = statistics.quantiles(values, method='inclusive')
    return f'{value:.3g} ({low:.3g} to {high:.3g})'


def _table(part: str, rows: list[figures.Row]) -> table.Table:
    names = dict.fromkeys(name for row in rows for name in row.figures)
    shown = table.Table(*rows[0].case, title=part)
    for name in names:
        shown.add_column(name, justify='right')
    for row in rows:
        case = map(str, row.case.values())
        shown.add_row(*case, *(_text(row, name) for name in names))
    return shown


def _suite(rows: list[figures.Row]) -> pyperf.BenchmarkSuite:
    runs = [
        pyperf.Run(
            [x / 1000 for x in values],
            metadata={'name': f'{row.part} {row.case} {name}'},
            collect_metadata=False,
        )
        for row in rows
        for name, values in row.figures.items()
        if name.endswith(' ms')
    ]
    return pyperf.BenchmarkSuite([pyperf.Benchmark([run]) for run in runs])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='tox -e bench --')
    add = parser.add_argument
    add('parts', metavar='PART', nargs='*', help=f'of {", ".join(_PARTS)}')
    add('--quick', action='store_true', help='only see that each part runs')
    add('--json', metavar='FILE', type=pathlib.Path, help='write a report')
    add('--pyperf', metavar='FILE', help='write times for pyperf')
    add('--folder', default=sys.prefix, help='where files are made')
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(_PARTS):
        parser.error(f'no part {unknown.pop()}: {", ".join(_PARTS)}')
    return asked


def main() -> int:
    """Return 0 where every goal that was asked for is met."""
    asked = _arguments()
    out = console.Console(width=None if sys.stdout.isatty() else 200)
    rows = []
    for part in asked.parts or _PARTS:
        found = _measured(part, asked, out)
        if found and not asked.quick:
            out.print(_table(part, found))
        rows += found
    goals = list(figures.judged(rows))
    machine: dict[str, Any] = pyperf.Run([1]).get_metadata()
    if asked.json:
        listed = [dataclasses.asdict(row) for row in rows]
        report = {'machine': machine, 'rows': listed, 'goals': goals}
        asked.json.write_text(json.dumps(report) + '\n')
    if asked.pyperf:
        _suite(rows).dump(asked.pyperf, replace=True)
    if asked.quick:
        out.print(f'every part ran: {len(rows)} rows')
        return 0
    for goal in goals:
        case = ', '.join(map(str, goal['case'].values()))
        met = 'met    ' if goal['met'] else 'NOT MET'
        text = f'{goal["goal"]}, {goal["bound"]}: {goal["value"]:.3g}'
        out.print(f'{met} {text} ({case})', highlight=False)
    for name in ('cpu_model_name', 'cpu_count', 'platform', 'load_avg_1min'):
        out.print(f'{name}: {machine.get(name)}')
    return 0 if all(goal['met'] for goal in goals) else 1


if __name__ == '__main__':
    sys.exit(main())
