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

"""What the figures are to reach.

Each goal picks the rows of the report that it speaks about, and holds where
all of them do.
"""

from collections.abc import Iterator
import dataclasses
from typing import Any

from benchmarks import cases
from benchmarks import fairness
from benchmarks import memory
from benchmarks import pairs
from benchmarks import peers
from benchmarks import slow


@dataclasses.dataclass
class Goal:
    """A bound for all rows that have these values."""

    text: str
    at_least: float | None = None
    at_most: float | None = None
    # The figure of a row that is meant.
    figure: str = 'value'
    # Which rows: fields of Row, and the values that each may have.
    rows: dict[str, set[str]] = dataclasses.field(default_factory=dict)

    def picks(self, row: pairs.Row) -> bool:
        return all(getattr(row, k) in v for k, v in self.rows.items())

    def holds(self, row: pairs.Row) -> bool:
        value = getattr(row, self.figure)
        if self.at_least is not None:
            return bool(value >= self.at_least)
        return self.at_most is None or bool(value <= self.at_most)

    def worst(self, rows: list[pairs.Row]) -> pairs.Row | None:
        """Return the row that is the furthest from the goal."""
        picked = sorted(
            filter(self.picks, rows), key=lambda row: getattr(row, self.figure)
        )
        if not picked:
            return None
        return picked[0] if self.at_least is not None else picked[-1]


def _goal(text: str, **given: Any) -> Goal:
    names = {field.name for field in dataclasses.fields(Goal)}
    bounds = {k: given.pop(k) for k in names & given.keys()}
    rows = {k: v if isinstance(v, set) else {v} for k, v in given.items()}
    return Goal(text, rows=rows, **bounds)


_STREAMING = {cases.READ, cases.ITERATE}
_LARGE = {'64 KiB', '1 MiB'}

GOALS = [
    _goal(
        'native threads, 64 KiB and more: 0.95 of the bare loop',
        case=_STREAMING,
        where=cases.NATIVE,
        what=_LARGE,
        against=peers.BARE,
        at_least=0.95,
    ),
    _goal(
        'native threads, 64 KiB: 8 times glance 33.0.0',
        case=_STREAMING,
        where=cases.NATIVE,
        what='64 KiB',
        against=peers.GLANCE,
        at_least=8,
    ),
    _goal(
        'native threads, 4 KiB: 0.65 of the bare loop',
        case=_STREAMING,
        where=cases.NATIVE,
        what='4 KiB',
        against=peers.BARE,
        at_least=0.65,
    ),
    _goal(
        'native threads, 4 KiB: 50 times glance 33.0.0',
        case=_STREAMING,
        where=cases.NATIVE,
        what='4 KiB',
        against=peers.GLANCE,
        at_least=50,
    ),
    _goal(
        'hub, 4 KiB and 64 KiB: 1.0 times glance_store 4.8.2',
        case=_STREAMING,
        where=cases.HUB,
        what={'4 KiB', '64 KiB'},
        against=peers.STORE_4,
        at_least=1,
    ),
    _goal(
        'hub, 1 ms, 64 KiB and more: 0.95 of the bare loop',
        case=_STREAMING,
        where=cases.HUB_1_MS,
        what=_LARGE,
        against=peers.BARE,
        at_least=0.95,
    ),
    _goal(
        'hub, 1 ms, 4 KiB: 0.65 of the bare loop',
        case=_STREAMING,
        where=cases.HUB_1_MS,
        what='4 KiB',
        against=peers.BARE,
        at_least=0.65,
    ),
    _goal(
        'hub, 1 ms, 4 KiB: 4 times glance_store 4.8.2',
        case=_STREAMING,
        where=cases.HUB_1_MS,
        what='4 KiB',
        against=peers.STORE_4,
        at_least=4,
    ),
    _goal(
        'iterating over a CooperativeReader: 0.9 of reading it',
        case=cases.READER,
        against=cases.OWN_READ,
        at_least=0.9,
    ),
    _goal(
        'iterating over a CooperativeReader: 60 times glance_store 4.8.2',
        case=cases.READER,
        against=peers.STORE_4,
        at_least=60,
    ),
    _goal(
        'read(n), native threads, 64 KiB or more of 64 KiB: '
        '15 times glance 33.0.0',
        case=cases.READ_N,
        where=cases.NATIVE,
        what={
            '64 KiB chunks, 8 MiB reads',
            '64 KiB chunks, 64 KiB reads',
        },
        against=peers.GLANCE,
        at_least=15,
    ),
    _goal(
        'read(n): never slower than glance 33.0.0',
        case=cases.READ_N,
        against=peers.GLANCE,
        at_least=1,
    ),
    _goal('is_uuid_like: 4 times', case=cases.UUID, at_least=4),
    _goal(
        'trace off: costs a hundredth of a 64 KiB read',
        case=cases.TRACE,
        at_least=0.99,
    ),
    _goal(
        'heartbeat, 64 streams, a yield after every chunk: worst 3 times '
        'what 64 chunks take',
        case=fairness.LATENESS,
        what='streams: 64',
        against=fairness.OURS,
        figure='high',
        at_most=3,
    ),
    # Small objects come on top of the two chunks.
    _goal(
        'memory: no growth beyond two chunks',
        case={memory.PEAK, memory.GROWTH},
        at_most=2.1,
    ),
    _goal(
        'slow storage, offloaded: heartbeat 10 ms late at worst',
        case=slow.LATENESS,
        against=slow.OFFLOADED,
        figure='high',
        at_most=10,
    ),
    _goal(
        'slow storage, not offloaded: heartbeat as late as a read takes',
        case=slow.LATENESS,
        what='streams: 1',
        against=slow.NOT_OFFLOADED,
        figure='high',
        at_least=180,
    ),
]


def judged(rows: list[pairs.Row]) -> Iterator[tuple[Goal, pairs.Row]]:
    """Return each goal that the rows speak of, with the worst of its rows."""
    for goal in GOALS:
        row = goal.worst(rows)
        if row is not None:
            yield goal, row
