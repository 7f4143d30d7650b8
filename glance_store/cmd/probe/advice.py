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

"""Which settings suit this storage on this machine, by a fixed rule.

The rule, which is also in ``--help`` and in the documentation:

1. In one round, a setting is *better* than another one if it kept the worst
   lateness under the target and the other did not; if both did and its
   throughput was higher by more than 5 %; or if neither did and its worst
   lateness was less than half as long.

2. A setting *beats* another one if it was better in every round.

3. Of the settings that nothing beats, the simplest is advised: the one that
   changes the fewest options from their defaults, then one without
   ``offload_file_reads``, then one without ``cooperative_yield_interval``,
   then the ``default_chunk_size`` that is closest to its default.

4. It *reaches the target* if it kept under it in most of the rounds.

What a busy machine does to one round so decides nothing, and whoever is in
doubt stays with the defaults.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math

TARGET = 0.01
MARGIN = 1.05
FACTOR = 2

DEFAULT_CHUNK_SIZE = 65536


@dataclasses.dataclass(frozen=True)
class Setting:
    """Values for the options of ``[glance_store]``; times are in seconds."""

    chunk_size: int = DEFAULT_CHUNK_SIZE
    interval: float = 0.0
    offload: bool = False

    def complexity(self) -> tuple[float, ...]:
        """Return what is the less, the simpler the setting is."""
        resized = abs(math.log2(self.chunk_size / DEFAULT_CHUNK_SIZE))
        changed = [resized > 0, self.interval > 0, self.offload]
        return (
            sum(changed),
            self.offload,
            self.interval,
            resized,
            self.chunk_size,
        )

    def section(self) -> str:
        """Return what to paste into the configuration of a service."""
        return (
            '[glance_store]\n'
            f'default_chunk_size = {self.chunk_size}\n'
            f'cooperative_yield_interval = {self.interval:g}\n'
            f'offload_file_reads = {str(self.offload).lower()}\n'
        )


@dataclasses.dataclass(frozen=True)
class Seen:
    """What one round showed of a setting.

    :param worst: lateness, in seconds
    :param throughput: in any unit
    """

    worst: float
    throughput: float


@dataclasses.dataclass(frozen=True)
class Advice:
    """What to set, and how that did.

    :param simplest: of the settings that there were to choose from
    :param under: in how many rounds it kept under the target
    :param rounds: of how many
    :param target: lateness that is to be kept under, in seconds
    """

    setting: Setting
    simplest: Setting
    under: int
    rounds: int
    target: float

    @property
    def reaches_target(self) -> bool:
        return 2 * self.under > self.rounds


def advise(
    seen: Mapping[Setting, Sequence[Seen]], target: float = TARGET
) -> Advice:
    """Choose one of the settings.

    :param seen: what each round showed of each of them, in the same order
    :param target: lateness that is to be kept under, in seconds
    """
    unbeaten = [
        setting
        for setting, rounds in seen.items()
        if not any(_beats(other, rounds, target) for other in seen.values())
    ]
    setting = min(unbeaten, key=Setting.complexity)
    rounds = seen[setting]
    return Advice(
        setting,
        simplest=min(seen, key=Setting.complexity),
        under=sum(part.worst <= target for part in rounds),
        rounds=len(rounds),
        target=target,
    )


def _beats(
    rounds: Sequence[Seen], others: Sequence[Seen], target: float
) -> bool:
    return all(
        _better(one, other, target)
        for one, other in zip(rounds, others, strict=True)
    )


def _better(one: Seen, other: Seen, target: float) -> bool:
    under = one.worst <= target
    if under != (other.worst <= target):
        return under
    if under:
        return one.throughput > MARGIN * other.throughput
    return FACTOR * one.worst < other.worst
