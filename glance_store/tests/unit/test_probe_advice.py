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

# mypy: no-check-untyped-defs

"""Which settings the probe advises, and what it says of them."""

import os
import random

import fixtures
from oslo_config import cfg

from glance_store.cmd.probe import advice
from glance_store.cmd.probe import measuring
from glance_store.cmd.probe import report
from glance_store.common import opts
from glance_store.tests.unit import base

DEFAULT = advice.Setting()
LARGE = advice.Setting(chunk_size=1048576)
SMALL = advice.Setting(chunk_size=4096)
INTERVAL = advice.Setting(interval=0.001)
OFFLOAD = advice.Setting(offload=True)
LARGE_INTERVAL = advice.Setting(chunk_size=1048576, interval=0.001)

# What each round showed: worst lateness in ms, and throughput.
FAST = [(2, 100), (3, 110), (2, 90)]
FASTER = [(2, 106), (3, 117), (2, 95)]
AS_FAST = [(2, 104), (3, 120), (2, 99)]
SLOWER = [(2, 20), (3, 25), (2, 22)]
LATE = [(90, 100), (80, 110), (85, 90)]
LATER = [(200, 110), (170, 120), (190, 100)]
HARDLY_LATER = [(170, 200), (159, 200), (169, 200)]
LATE_ONCE = [(2, 100), (30, 110), (2, 90)]
LATE_TWICE = [(20, 100), (30, 110), (2, 90)]

# What was seen of which setting, which is advised, and in how many rounds
# that kept under the target.
CASES = {
    'one setting': ({LARGE: LATE}, LARGE, 0),
    'all alike': (
        {LARGE: FAST, INTERVAL: FAST, OFFLOAD: FAST, DEFAULT: FAST},
        DEFAULT,
        3,
    ),
    'faster in every round': ({DEFAULT: FAST, INTERVAL: FASTER}, INTERVAL, 3),
    'by 4 % in one round': ({DEFAULT: FAST, INTERVAL: AS_FAST}, DEFAULT, 3),
    'slower': ({DEFAULT: FAST, OFFLOAD: SLOWER}, DEFAULT, 3),
    'defaults too late': ({DEFAULT: LATE, OFFLOAD: SLOWER}, OFFLOAD, 3),
    'defaults too late but for one round': (
        {DEFAULT: LATE_TWICE, OFFLOAD: SLOWER},
        DEFAULT,
        1,
    ),
    'a machine that is busy for a round': (
        {DEFAULT: LATE_ONCE, OFFLOAD: SLOWER},
        DEFAULT,
        2,
    ),
    'a machine that is busy for another one': (
        {DEFAULT: LATE, OFFLOAD: LATE_ONCE},
        OFFLOAD,
        2,
    ),
    'faster but late': ({DEFAULT: FAST, LARGE: LATER}, DEFAULT, 3),
    'nobody in time': ({DEFAULT: LATER, INTERVAL: LATE}, INTERVAL, 0),
    'not twice as late': (
        {DEFAULT: HARDLY_LATER, INTERVAL: LATE},
        DEFAULT,
        0,
    ),
    'of two that are faster, the simpler': (
        {DEFAULT: FAST, LARGE_INTERVAL: FASTER, INTERVAL: FASTER},
        INTERVAL,
        3,
    ),
    'chunks rather than an interval': (
        {DEFAULT: FAST, INTERVAL: FASTER, LARGE: FASTER},
        LARGE,
        3,
    ),
    'an interval rather than offloading': (
        {DEFAULT: FAST, OFFLOAD: FASTER, INTERVAL: FASTER},
        INTERVAL,
        3,
    ),
    'the size next to the default': (
        {SMALL: FAST, advice.Setting(131072): FAST, LARGE: FAST},
        advice.Setting(131072),
        3,
    ),
    'the smaller of two at one distance': (
        {advice.Setting(131072): FAST, advice.Setting(32768): FAST},
        advice.Setting(32768),
        3,
    ),
    'exactly the target': ({DEFAULT: [(10, 1)], LARGE: [(9, 1)]}, DEFAULT, 1),
}


def seen(rounds):
    return [advice.Seen(worst / 1000, speed) for worst, speed in rounds]


class RuleTestCase(base.TestCase):
    def test_each_case(self):
        for name, (rows, setting, under) in CASES.items():
            with self.tally.case('probe: advice'):
                given = advice.advise(
                    {key: seen(rounds) for key, rounds in rows.items()}
                )
                self.assertEqual(
                    (setting, under), (given.setting, given.under), name
                )
                self.assertEqual(
                    min(rows, key=advice.Setting.complexity),
                    given.simplest,
                    name,
                )

    def test_target(self):
        rows = {DEFAULT: seen(LATE), OFFLOAD: seen(SLOWER)}
        self.assertEqual(DEFAULT, advice.advise(rows, 0.2).setting)
        self.assertEqual(3, advice.advise(rows, 0.2).under)
        self.assertEqual(0.2, advice.advise(rows, 0.2).target)

    def test_reaches_it_in_most_of_the_rounds(self):
        for under, rounds, reaches in (
            (3, 5, True),
            (2, 5, False),
            (1, 2, False),
            (1, 1, True),
        ):
            given = advice.Advice(DEFAULT, DEFAULT, under, rounds, 0.01)
            self.assertIs(reaches, given.reaches_target)

    def test_order_does_not_matter(self):
        source = random.Random(1)
        for name, (rows, setting, _) in CASES.items():
            for _ in range(5):
                with self.tally.case('probe: advice'):
                    shuffled = source.sample(list(rows), len(rows))
                    given = advice.advise(
                        {key: seen(rows[key]) for key in shuffled}
                    )
                    self.assertEqual(setting, given.setting, name)

    def test_there_is_always_one(self):
        # Whatever the figures: nothing can be beaten in a circle.
        source = random.Random(2)
        settings = [DEFAULT, LARGE, SMALL, INTERVAL, OFFLOAD]
        for _ in range(10000 if base.STRESS else 1000):
            rows = {
                setting: [
                    advice.Seen(
                        source.choice((0.001, 0.009, 0.011, 0.03, 0.1)),
                        source.choice((90, 100, 104, 106, 120)),
                    )
                    for _ in range(2)
                ]
                for setting in settings
            }
            with self.tally.case('probe: advice'):
                self.assertIn(advice.advise(rows).setting, settings)

    def test_a_machine_that_is_late_at_random_changes_nothing(self):
        # Every second round of everything is late by ten times the target.
        source = random.Random(3)
        advised = 0
        for _ in range(1000):
            rows = {
                setting: [
                    advice.Seen(source.choice((0.003, 0.1)), speed)
                    for _ in range(5)
                ]
                for setting, speed in ((DEFAULT, 100), (OFFLOAD, 15))
            }
            with self.tally.case('probe: advice'):
                advised += advice.advise(rows).setting == OFFLOAD
        # All of its rounds against all of the defaults': once in 4 ** 5.
        self.assertLess(advised, 10)


class SectionTestCase(base.TestCase):
    def test_of_the_defaults(self):
        self.assertEqual(
            '[glance_store]\n'
            'default_chunk_size = 65536\n'
            'cooperative_yield_interval = 0\n'
            'offload_file_reads = false\n',
            DEFAULT.section(),
        )

    def test_can_be_pasted(self):
        path = os.path.join(self.useFixture(fixtures.TempDir()).path, 'conf')
        for setting in DEFAULT, LARGE_INTERVAL, OFFLOAD:
            with open(path, 'w') as file:
                file.write(setting.section())
            conf = cfg.ConfigOpts()
            opts.register_opts(conf)
            conf(['--config-file', path])
            group = conf.glance_store
            self.assertEqual(
                (setting.chunk_size, setting.interval, setting.offload),
                (
                    group.default_chunk_size,
                    group.cooperative_yield_interval,
                    group.offload_file_reads,
                ),
            )


def result(case, rounds, seconds):
    return measuring.Result(
        case,
        [
            measuring.Round(
                bytes_read=int(speed * 1048576 * seconds),
                seconds=seconds,
                yields=0,
                lateness=[0.0, worst / 1000],
            )
            for worst, speed in rounds
        ],
    )


class SentencesTestCase(base.TestCase):
    def sentences(self, target=0.01, seconds=1.0, **rows):
        results = [
            result(case, rows.get(case.key, LATE), seconds)
            for case in [*measuring.cases(65536, 0.001), measuring.alone()]
        ]
        given = report.advice_on(results, target)
        return report.sentences(results, given)

    def test_defaults(self):
        self.assertEqual(
            [
                'Without cooperation everything else waits for up to 90.00 '
                "ms; in row 'after every chunk' (65536 bytes a chunk) for up "
                'to 3.00 ms, 30 times less.',
                "Advice: row 'after every chunk' (65536 bytes a chunk), which "
                'is what the defaults do. The worst lateness kept within 10 '
                'ms in 3 of 3 rounds, at 100 MiB/s, and no other setting was '
                'better in every round.',
            ],
            self.sentences(every_chunk=FAST),
        )

    def test_too_short(self):
        self.assertEqual(
            [
                'But its rounds were over in 49.00 ms, which is too short to '
                'tell much: name larger files.'
            ],
            self.sentences(seconds=0.049)[2:],
        )
        self.assertEqual([], self.sentences(seconds=0.05)[2:])

    def test_something_else(self):
        self.assertEqual(
            "Advice: row 'offloaded reads' (65536 bytes a chunk). The worst "
            'lateness kept within 10 ms in 3 of 3 rounds, at 22 MiB/s, and '
            "no other setting was better in every round. In row 'after every "
            "chunk' (65536 bytes a chunk) it did so in 0 of 3 rounds, at 100 "
            'MiB/s.',
            self.sentences(offloaded=SLOWER)[1],
        )

    def test_target_out_of_reach(self):
        self.assertEqual(
            "Advice: row 'after every chunk' (65536 bytes a chunk), which is "
            'what the defaults do; but no setting surely keeps the worst '
            'lateness within 0.5 ms. This one did so in 0 of 3 rounds, and no '
            'other setting was better in every round. With no streams the '
            'worst lateness was 30.00 ms: no setting mends that. Try again '
            'while nothing else runs on this machine, with smaller chunks, or '
            'with another --target-lateness.',
            self.sentences(0.0005, every_chunk=FAST, no_streams=LATE_ONCE)[1],
        )
