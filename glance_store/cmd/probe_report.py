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

"""What the probe says of streams: a table, an advice, a picture."""

import argparse
from collections.abc import Iterable, Sequence
import contextlib
import importlib
import json
import signal
import statistics
from typing import NamedTuple, TypeVar

from rich import console, progress, table, text

from glance_store.cmd import probe, probe_streams

T = TypeVar('T')

# Two throughputs are equal within this part. A stall meets the target within
# the other one, on top of what the machine does by itself: streams that use
# their interval up still have a chunk to end, and the hub has work of its own.
EQUAL = 0.05
MARGIN = 0.2

# The ways take turns, so that a change of the machine's load meets all of
# them. So many turns make up the time of each, after a short one that does not
# count.
TURNS = 5
WARM_UP = 0.05  # seconds

ABREAST = 3  # numbers of streams that fit into 80 columns

LEGEND = """
MB/s is of all streams together. The stall is how long everything else waited,
in ms: the 99th percentile, and the worst. What does not exceed the stall of
"no streams" is noise, which the machine makes by itself."""
LIMITED = 'A stall with ≥ was longer: the time limit ended the streams.'
BUSY = 'By itself the machine stalls for {} ms. Measure when less runs on it.'
NOTE = """
A service reads this section only where these helpers are in place. The page
user/glance (doc/source/user/glance.rst) puts them there."""


class Cell(NamedTuple):
    """What one way with one number of streams came to."""

    way: str
    streams: int
    mb_per_second: float
    stall_median_ms: float
    stall_p99_ms: float
    stall_worst_ms: float
    moments: int
    time_limit_reached: bool


def cell_of(
    way: str, streams: int, turns: Sequence[probe_streams.Seen]
) -> Cell:
    """Sum up the turns; what disturbs one of them shows in the worst stall."""
    turns = [turn for turn in turns if len(turn.stalls) > 1]
    if not turns:
        raise probe.Failure('the files are too small to be measured')
    percentiles = [
        statistics.quantiles(turn.stalls, n=100, method='inclusive')
        for turn in turns
    ]
    return Cell(
        way,
        streams,
        statistics.median(turn.size / turn.seconds for turn in turns) / 1e6,
        statistics.median(each[49] for each in percentiles) * 1000,
        statistics.median(each[98] for each in percentiles) * 1000,
        max(max(turn.stalls) for turn in turns) * 1000,
        sum(len(turn.stalls) for turn in turns),
        any(turn.limited for turn in turns),
    )


class Row(NamedTuple):
    """A way of streaming, and its cell for each number of streams."""

    way: probe_streams.Way
    cells: list[Cell]

    def worst(self) -> Cell:
        return max(self.cells, key=lambda cell: cell.stall_p99_ms)

    def speed(self) -> float:
        """Return a mean in which each number of streams weighs the same."""
        speeds = (cell.mb_per_second for cell in self.cells)
        return statistics.geometric_mean(max(speed, 1e-6) for speed in speeds)

    def fits(self, target: float, noise: list[Cell]) -> bool:
        return not any(
            cell.time_limit_reached
            or cell.stall_p99_ms > target * (1 + MARGIN) + other.stall_p99_ms
            for cell, other in zip(self.cells, noise, strict=True)
        )


class Report:
    """The rows, and which of them to set."""

    def __init__(self, rows: list[Row], target: float, size: int) -> None:
        self._rows = rows
        self._noise = rows[-1].cells
        self._target = target
        # Those with fewer options come first.
        settings = [row for row in rows if row.way.options]
        fit = [row for row in settings if row.fits(target, self._noise)]
        best = max(map(Row.speed, fit), default=0) * (1 - EQUAL)
        equal = [row for row in fit if row.speed() >= best]
        self.fits = bool(equal)
        self._row = min(
            equal[:1] or settings, key=lambda row: row.worst().stall_p99_ms
        )
        self.options = dict(self._row.way.options)
        if size != probe.CHUNK_SIZE:
            self.options['default_chunk_size'] = size

    def lines(self) -> list[str]:
        return [f'{k} = {str(v).lower()}' for k, v in self.options.items()]

    def sentences(self) -> list[str]:
        """Return what to set, for how many streams, and at what cost."""
        counts = enumerated(cell.streams for cell in self._noise)
        kept = f'the stall at about {self._target:g} ms or less'
        kept += f' with {counts} streams'
        options = enumerated(self.lines())
        if not self.fits:
            worst = self._row.worst()
            stall = milliseconds(worst.stall_p99_ms)
            return [
                f'No setting keeps {kept}.',
                f'Closest is {options}: {stall} ms with '
                f'{worst.streams} streams.',
            ]
        # In steps on which two runs of one load agree.
        cost = 1 - self._row.speed() / self._rows[0].speed()
        steps = max(1, round(cost * 10))
        part = f'about {steps * 10} %{" or less" if steps == 1 else ""}'
        return [
            f'Set {options}: this keeps {kept}.',
            f'It costs {part} of the throughput without yields.',
        ]

    def table(self, first: int) -> table.Table:
        """Return columns from the *first* number of streams on."""
        answer = table.Table(box=None, padding=(0, 0, 0, 1), pad_edge=False)
        answer.add_column()
        names = f'{"MB/s":>6} {"99th":>6} {"worst":>7}'
        chosen = slice(first, first + ABREAST)
        for cell in self._noise[chosen]:
            title = f'{cell.streams} stream{"s" * (cell.streams > 1)}'
            answer.add_column(f'{title:^21}\n{names}', no_wrap=True)
        for way, cells in self._rows:
            pairs = zip(cells[chosen], self._noise[chosen], strict=True)
            fields = (self._fields(*pair) for pair in pairs)
            answer.add_row(f'{way.label:14}', *fields)
        return answer

    def _fields(self, cell: Cell, noise: Cell) -> text.Text:
        speed = f'{cell.mb_per_second:,.0f}' if cell.mb_per_second else '-'
        answer = text.Text(f'{speed:>6}')
        for width, name in (7, 'stall_p99_ms'), (8, 'stall_worst_ms'):
            stall = getattr(cell, name)
            by_itself = getattr(noise, name)
            limit = self._target * (1 + MARGIN) + by_itself
            style = 'green' if stall <= limit else 'red'
            style = 'dim' if stall <= by_itself else style
            least = '≥' if cell.time_limit_reached else ''
            answer.append(f'{least + milliseconds(stall):>{width}}', style)
        return answer

    def draw(self, path: str) -> None:
        """Draw the stall against the throughput, a line for each way."""
        module = importlib.import_module('matplotlib.figure')
        figure = module.Figure(figsize=(8, 5), dpi=150, layout='constrained')
        axes = figure.subplots()
        for marker, (way, cells) in zip('osD^v', self._rows, strict=False):
            x = [cell.mb_per_second for cell in cells]
            y = [cell.stall_p99_ms for cell in cells]
            axes.plot(x, y, marker=marker, label=way.label.strip())
            for cell in cells:
                least = '≥ ' if cell.time_limit_reached else ''
                point = cell.mb_per_second, cell.stall_p99_ms
                axes.annotate(f' {least}{cell.streams}', point, va='bottom')
        axes.axhline(self._target, color='grey', ls='--', label='target')
        axes.set(
            title='Numbers are streams at once: low and right is better',
            xlabel='throughput of all streams, MB/s',
            ylabel='stall of everything else, 99th percentile, ms',
            yscale='log',
            # Room for the last label.
            xlim=(0, 1.1 * axes.get_xlim()[1]),
        )
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path)


def show(options: argparse.Namespace, rows: list[Row]) -> None:
    """Print the report, and draw the picture."""
    report = Report(rows, options.target, options.chunk_size)
    if options.plot:
        report.draw(options.plot)
    cells = [cell for row in rows for cell in row.cells]
    asked = ('files', 'chunk_size', 'cold', 'seconds', 'target')
    document = {
        'version': 1,
        'kind': 'streams',
        **{name: getattr(options, name) for name in asked},
        'rows': [cell._asdict() for cell in cells],
        'options': report.options,
        'within_target': report.fits,
        'advice': report.sentences(),
    }
    if options.json:
        print(json.dumps(document, indent=2))
        return
    out = console.Console(width=80, highlight=False, markup=False)
    for first in range(0, len(rows[0].cells), ABREAST):
        out.print(report.table(first))
    out.print(LEGEND)
    if any(cell.time_limit_reached for cell in cells):
        out.print(LIMITED)
    noise = rows[-1].worst().stall_p99_ms
    if noise > options.target:
        out.print(BUSY.format(milliseconds(noise)))
    out.print()
    out.print(*report.sentences(), style='bold')
    out.print('', '[glance_store]', *report.lines(), NOTE, sep='\n')


def milliseconds(stall: float) -> str:
    """Return three digits of a stall, and all digits above 1000 ms."""
    digits = 2 if stall < 9.995 else 1 if stall < 99.95 else 0
    return f'{stall:,.{digits}f}'


def enumerated(items: Iterable[object]) -> str:
    *first, last = map(str, items)
    return f'{", ".join(first)} and {last}' if first else last


def track(items: Sequence[T], label: str) -> Iterable[T]:
    """Give the items, and draw a bar between two of them on a terminal."""
    terminal = console.Console(stderr=True)
    if not terminal.is_terminal:
        return items  # rich before 14.3 would print an empty line
    return progress.track(
        items, label, console=terminal, transient=True, auto_refresh=False
    )


def measure(
    options: argparse.Namespace,
    rows: list[Row],
    streams: int,
    paths: list[str],
) -> None:
    """Add to each row its cell for a number of streams."""
    with contextlib.ExitStack() as stack:
        job = streams, paths, options.chunk_size, options.cold
        runs = []
        for row in rows:
            begun = probe_streams.streaming(row.way, *job)
            seen: list[probe_streams.Seen] = []
            runs.append((stack.enter_context(begun), seen))
        for turn, _ in runs:
            turn(WARM_UP, WARM_UP)
        for turn, seen in track(runs * TURNS, f'streams: {streams}'):
            if sum(each.seconds for each in seen) < options.seconds * 0.9:
                if options.cold:
                    probe_streams.prepare(paths, cold=True)
                seen.append(turn(options.seconds / TURNS, options.seconds))
    for row, (_, seen) in zip(rows, runs, strict=True):
        row.cells.append(cell_of(row.way.key, streams, seen))


def run(options: argparse.Namespace) -> int:
    """Stream the files, and print what to set."""
    # Several intervals fit into each turn.
    options.seconds = options.seconds or max(1, options.target / 10)
    rows = [Row(way, []) for way in probe_streams.ways_of(options.target)]
    with probe_streams.images(options.files) as paths:
        probe_streams.prepare(paths, options.cold)
        for streams in sorted(set(options.streams or [1, 8, 64])):
            measure(options, rows, streams, paths)
    # A reader such as head may leave early.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    show(options, rows)
    return 0
