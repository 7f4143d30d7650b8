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


"""The rows of the report, their goals, and the process of each cell."""

from collections.abc import Iterator
import csv
import dataclasses
import gc
import importlib
import pathlib
import statistics
from typing import Any

KiB = 1024
MiB = 1024 * KiB


@dataclasses.dataclass
class Row:
    """A case, and by name the values that each figure had in each round."""

    part: str
    case: dict[str, Any]
    figures: dict[str, list[float]]

    def value(self, name: str) -> float:
        """Return the median of a figure; of worst, the highest."""
        highest = name.startswith('worst')
        return (max if highest else statistics.median)(self.figures[name])


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Return the quotient of each pair."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def measure(
    part: str, folder: pathlib.Path, seconds: float, cell: dict[str, Any]
) -> list[Row]:
    """Return the rows of one cell; called in a process of its own."""
    if cell.get('thread', 'native') != 'native':
        # As a service does, before what it measures is imported.
        importlib.import_module('eventlet').monkey_patch()
        importlib.import_module('eventlet.hubs').get_hub()
    module = importlib.import_module(f'benchmarks.{part}')
    # Each round collects garbage before it begins.
    gc.disable()
    return list(module.measure(folder, seconds, **cell))


def judged(rows: list[Row]) -> Iterator[dict[str, Any]]:
    """Return each line of goals.csv, and the row that is furthest from it."""
    with pathlib.Path(__file__).with_name('goals.csv').open() as lines:
        for goal in csv.DictReader(lines):
            name, (sign, bound) = goal['figure'], goal['bound'].split()
            way = -1 if sign == '<=' else 1
            found = [
                (way * row.value(name), number)
                for number, row in enumerate(rows)
                if name in row.figures and _picks(goal['case'], row.case)
            ]
            if found:
                value, number = min(found)
                met = value >= way * float(bound)
                case = rows[number].case
                yield {**goal, 'value': way * value, 'met': met, 'case': case}


def _picks(wanted: str, case: dict[str, Any]) -> bool:
    return all(
        str(case.get(name)) in values.split('|')
        for name, _, values in (x.partition('=') for x in wanted.split('; '))
    )
