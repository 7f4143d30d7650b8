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

"""How late something was that is due at fixed times.

A percentile is over moments in time, not over answers. Whatever was kept
waiting over many of its times counts each of them, by how long it was since
then. Counting just the one late answer would make a service that stands still
for a second look like one bad sample among hundreds of good ones. So half of
the requests that arrive at random wait for longer than the median.
"""

from collections.abc import Iterable, Sequence
import math


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the least value that *percent* of the values do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def missed(due: float, came: float, period: float) -> int:
    """Return how many more times have become due until it came."""
    return max(0, int((came - due) / period))


def moments(
    turns: Iterable[tuple[float, float]], period: float
) -> list[tuple[float, float]]:
    """Return each time that was due, and how late it was met.

    :param turns: when each turn was due and when it came; the times due
        between the two have no turns of their own
    """
    return [
        (due + number * period, max(0.0, came - due - number * period))
        for due, came in turns
        for number in range(1 + missed(due, came, period))
    ]
