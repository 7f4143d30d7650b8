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

"""Run the benchmark and report it.

python -m benchmarks.peers, once, fetches what ours is measured beside. With
--quick every case is run once, small, and its content checked; the figures
mean nothing then, and no goal is asked for.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess  # noqa: S404
import sys
import tempfile
from typing import Any

from rich import console
from rich import table

from benchmarks import goals
from benchmarks import pairs
from benchmarks import part

# How long each comparison goes on.
_SECONDS = 2.0

_MACHINE = (
    'python_version',
    'python_implementation',
    'cpu_model_name',
    'cpu_count',
    'platform',
    'load_avg_1min',
)


def _machine() -> dict[str, Any]:
    """Return what pyperf has to say about the machine, and the kernel."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, 'machine.json')
        subprocess.run(  # noqa: S603
            [
                *(sys.executable, '-m', 'pyperf', 'collect_metadata'),
                *('--output', str(path)),
            ],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return dict(json.loads(path.read_text())['metadata'])


def _rows(name: str, seconds: float) -> list[pairs.Row]:
    done = subprocess.run(  # noqa: S603
        [
            *(sys.executable, '-m', 'benchmarks.part'),
            *(name, str(seconds)),
        ],
        # eventlet says that it is deprecated, in each process.
        env={**os.environ, 'PYTHONWARNINGS': 'ignore'},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [pairs.Row(**json.loads(x)) for x in done.stdout.splitlines()]


def _figure(value: float) -> str:
    return f'{value:.3g}' if value < 100 else f'{value:,.0f}'


def _details(rows: list[pairs.Row]) -> table.Table:
    details = table.Table(
        title='All figures',
        caption='low and high are the quartiles; of a lateness, low is the '
        'median, the middle the 99th percentile, and high the worst',
    )
    for name in ('case', 'on', 'of', 'beside'):
        details.add_column(name)
    for name in ('median', 'low', 'high'):
        details.add_column(name, justify='right')
    details.add_column('unit')
    details.add_column('count', justify='right')
    for row in rows:
        details.add_row(
            *(row.case, row.where, row.what, row.against),
            *map(_figure, (row.value, row.low, row.high)),
            *(row.unit, str(row.count)),
        )
    return details


def _goals(rows: list[pairs.Row]) -> table.Table:
    summary = table.Table(title='The goals, each with its worst row')
    summary.add_column('goal')
    summary.add_column('worst row')
    summary.add_column('figure', justify='right')
    summary.add_column('spread', justify='right')
    summary.add_column('holds')
    for goal, row in goals.judged(rows):
        summary.add_row(
            goal.text,
            f'{row.case}, {row.where}, {row.what}',
            _figure(getattr(row, goal.figure)),
            f'{_figure(row.low)} to {_figure(row.high)}',
            'yes' if goal.holds(row) else 'NO',
        )
    return summary


def _as_json(machine: dict[str, Any], rows: list[pairs.Row]) -> str:
    judged = [
        {
            'goal': goal.text,
            'at_least': goal.at_least,
            'at_most': goal.at_most,
            'figure': getattr(row, goal.figure),
            'holds': goal.holds(row),
            'worst': dataclasses.asdict(row),
        }
        for goal, row in goals.judged(rows)
    ]
    report = {
        'machine': machine,
        'goals': judged,
        'rows': [dataclasses.asdict(row) for row in rows],
    }
    return json.dumps(report, indent=2)


def main() -> int:
    """Return 0 where every goal that was asked for holds."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks')
    parser.add_argument(
        '--quick',
        action='store_true',
        help='run each case once, small, and judge nothing',
    )
    parser.add_argument(
        '--json', metavar='FILE', help='write the report there; - is stdout'
    )
    parser.add_argument(
        '--only',
        metavar='PART',
        nargs='+',
        choices=part.PARTS,
        default=list(part.PARTS),
        help=f'run just these of {", ".join(part.PARTS)}',
    )
    asked = parser.parse_args()
    out = console.Console(
        stderr=asked.json == '-',
        width=None if sys.stdout.isatty() else 150,
    )
    machine = _machine()
    rows = []
    for name in asked.only:
        rows += _rows(name, 0 if asked.quick else _SECONDS)
        out.print(f'{name}: {len(rows)} rows so far')
    if asked.quick:
        out.print('every case ran, and its content was right')
        return 0
    report = _as_json(machine, rows)
    if asked.json == '-':
        print(report)
    elif asked.json:
        pathlib.Path(asked.json).write_text(report + '\n')
    out.print(_details(rows))
    out.print(_goals(rows))
    for name in _MACHINE:
        out.print(f'{name}: {machine.get(name, "unknown")}')
    return 0 if all(g.holds(row) for g, row in goals.judged(rows)) else 1


if __name__ == '__main__':
    sys.exit(main())
