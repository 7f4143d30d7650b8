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

"""Two ways of doing one thing, timed in turns.

A machine that others use too, or that changes its clock rate, is slow for
both halves of a pair, and their ratio hardly moves; a figure for one way,
taken minutes before the figure for the other, would. pyperf times one
function after the other, which is why this loop is here. The clock, the
summary and the facts about the machine are still pyperf's and the standard
library's.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import gc
import statistics
from typing import Any

import pyperf

_FEWEST = 15
_MOST = 2000


@dataclasses.dataclass
class Row:
    """One line of the report."""

    case: str
    # 'native threads', 'a hub', 'a hub, 1 ms'
    where: str
    what: str
    against: str
    # The median, and the quartiles or what else shows the spread.
    value: float
    low: float
    high: float
    unit: str = 'x'
    count: int = 1
    # Figures that mean something on one machine only.
    absolute: dict[str, float] = dataclasses.field(default_factory=dict)


def summary(values: list[float]) -> dict[str, float]:
    """Return the median and the quartiles, under their names in a Row."""
    if len(values) < 2:
        values = values * 2
    low, value, high = statistics.quantiles(values, method='inclusive')
    return {'value': value, 'low': low, 'high': high}


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    """Keep the garbage collector away from what is timed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def ratio(
    ours: Callable[[], Any], theirs: Callable[[], Any], seconds: float
) -> dict[str, Any]:
    """Return how many times as fast ours is, and how that was found.

    Whoever was second in one pair is first in the next one. With no seconds
    to spend there is one pair.
    """
    took: dict[Any, list[float]] = {ours: [], theirs: []}
    with no_collector():
        begun = pyperf.perf_counter()
        while True:
            in_turn = (ours, theirs) if len(took[ours]) % 2 else (theirs, ours)
            for function in in_turn:
                start = pyperf.perf_counter()
                function()
                took[function].append(pyperf.perf_counter() - start)
            pairs = len(took[ours])
            over = pyperf.perf_counter() - begun > seconds
            if not seconds or pairs >= _MOST or (over and pairs >= _FEWEST):
                break
    ratios = [b / a for a, b in zip(took[ours], took[theirs], strict=True)]
    return {
        **summary(ratios),
        'count': pairs,
        'absolute': {
            'ours, seconds': statistics.median(took[ours]),
            'theirs, seconds': statistics.median(took[theirs]),
        },
    }
