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
from typing import Any, NamedTuple, TypeVar

from rich import console, progress, table

from glance_store.cmd import probe_streams

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
"no streams" is noise, which the machine makes by itself. A stall with ≥ was
longer: the time limit ended the streams.
"""
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


def fits(target: float, cell: Cell, noise: Cell) -> bool:
    limit = target * (1 + MARGIN) + noise.stall_p99_ms
    return cell.stall_p99_ms <= limit and not cell.time_limit_reached


class Row(NamedTuple):
    """A way of streaming, and its cell for each number of streams."""

    way: str
    label: str
    options: dict[str, Any]
    cells: list[Cell]

    def worst(self) -> Cell:
        return max(self.cells, key=lambda cell: cell.stall_p99_ms)

    def speed(self) -> float:
        """Return a mean in which each number of streams weighs the same."""
        speeds = (max(cell.mb_per_second, 1e-6) for cell in self.cells)
        return statistics.geometric_mean(speeds)

    def fits(self, target: float, noise: 'Row') -> bool:
        pairs = zip(self.cells, noise.cells, strict=True)
        return all(fits(target, *pair) for pair in pairs)


def rows_of(target: float) -> list[Row]:
    """Return all ways, those with fewer options first, and no streams last."""
    interval = {'cooperative_yield_interval': target / 1000}
    offloaded = {**interval, 'offload_file_reads': True}
    return [
        Row('no_yields', 'no yields', {}, []),
        Row('every_call', 'every call', {'cooperative_yield_interval': 0}, []),
        Row('interval', f'every {target:g} ms', interval, []),
        Row('offloaded', '  offloaded', offloaded, []),
        Row('native_threads', 'native threads', {}, []),
        Row('no_streams', 'no streams', {}, []),
    ]


def percentile(ordered: list[float], percent: int) -> float:
    return ordered[len(ordered) * percent // 100]


def cell_of(
    way: str, streams: int, limit: float, turns: list[probe_streams.Turn]
) -> Cell:
    """Sum up the turns; what disturbs one of them shows in the worst stall."""
    median = statistics.median
    stalls = [sorted(seen) for _, _, seen in turns]
    return Cell(
        way,
        streams,
        median(size / taken for size, taken, _ in turns) / 1e6,
        median(percentile(seen, 50) for seen in stalls) * 1000,
        median(percentile(seen, 99) for seen in stalls) * 1000,
        max(seen[-1] for seen in stalls) * 1000,
        sum(map(len, stalls)),
        any(taken > limit for _, taken, _ in turns),
    )


def advice(rows: list[Row], target: float, size: int) -> dict[str, Any]:
    """Return what to set, for how many streams, and at what cost."""
    settings = [row for row in rows if row.options]
    fit = [row for row in settings if row.fits(target, rows[-1])]
    best = max(map(Row.speed, fit), default=0) * (1 - EQUAL)
    equal = [row for row in fit if row.speed() >= best]
    row = min(equal[:1] or settings, key=lambda row: row.worst().stall_p99_ms)
    options = dict(row.options)
    if size != 65536:
        options['default_chunk_size'] = size
    counts = enumerated(str(cell.streams) for cell in row.cells)
    kept = f'the stall at about {target:g} ms or less with {counts} streams'
    named = enumerated(lines_of(options))
    # The cost is in steps on which two runs of one load agree.
    steps = max(1, round(10 - 10 * row.speed() / rows[0].speed()))
    cost = f'about {steps * 10} %{" or less" if steps == 1 else ""}'
    worst = row.worst()
    sentences = [
        f'Set {named}: this keeps {kept}.',
        f'It costs {cost} of the throughput without yields.',
    ]
    if not equal:
        stall = milliseconds(worst.stall_p99_ms)
        sentences = [
            f'No setting keeps {kept}.',
            f'Closest is {named}: {stall} ms with {worst.streams} streams.',
        ]
    return {
        'options': options,
        'within_target': bool(equal),
        'advice': sentences,
    }


def lines_of(options: dict[str, Any]) -> list[str]:
    return [f'{k} = {str(v).lower()}' for k, v in options.items()]


def table_of(rows: list[Row], first: int, target: float) -> table.Table:
    """Return columns from the *first* number of streams on."""
    answer = table.Table(box=None, padding=(0, 0, 0, 1), pad_edge=False)
    answer.add_column()
    chosen = slice(first, first + ABREAST)
    for cell in rows[0].cells[chosen]:
        title = f'{cell.streams} stream{"s" * (cell.streams > 1)}'
        answer.add_column(f'{title:^21}\n  MB/s   99th   worst', no_wrap=True)
    for row in rows:
        pairs = zip(row.cells[chosen], rows[-1].cells[chosen], strict=True)
        fields = (field(target, *pair) for pair in pairs)
        answer.add_row(f'{row.label:14}', *fields)
    return answer


def field(target: float, cell: Cell, noise: Cell) -> str:
    style = 'green' if fits(target, cell, noise) else 'red'
    least = '≥' if cell.time_limit_reached else ''
    stall = least + milliseconds(cell.stall_p99_ms)
    worst = least + milliseconds(cell.stall_worst_ms)
    return f'{cell.mb_per_second:6,.0f} [{style}]{stall:>6} {worst:>7}[/]'


def draw(rows: list[Row], target: float, path: str) -> None:
    """Draw the stall against the throughput, a line for each way."""
    module = importlib.import_module('matplotlib.figure')
    figure = module.Figure(figsize=(8, 5), dpi=150, layout='constrained')
    axes = figure.subplots()
    for marker, row in zip('osD^v', rows, strict=False):
        x = [cell.mb_per_second for cell in row.cells]
        y = [cell.stall_p99_ms for cell in row.cells]
        axes.plot(x, y, marker=marker, label=row.label.strip())
        for cell in row.cells:
            least = '≥ ' if cell.time_limit_reached else ''
            point = cell.mb_per_second, cell.stall_p99_ms
            axes.annotate(f' {least}{cell.streams}', point, va='bottom')
    axes.axhline(target, color='grey', ls='--', label='target')
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
    """Print the report."""
    advised = advice(rows, options.target, options.chunk_size)
    if options.json:
        asked = ('files', 'chunk_size', 'cold', 'seconds', 'target')
        document = {
            'version': 1,
            'kind': 'streams',
            **{name: getattr(options, name) for name in asked},
            'rows': [cell._asdict() for row in rows for cell in row.cells],
            **advised,
        }
        print(json.dumps(document, indent=2))
        return
    out = console.Console(width=80, highlight=False)
    for first in range(0, len(rows[0].cells), ABREAST):
        out.print(table_of(rows, first, options.target))
    out.print(LEGEND)
    out.print(*advised['advice'], style='bold')
    lines = '[glance_store]', *lines_of(advised['options']), NOTE
    out.print('', *lines, sep='\n', markup=False)


def milliseconds(stall: float) -> str:
    """Return three digits of a stall, and all digits above 1000 ms."""
    digits = 2 if stall < 9.995 else 1 if stall < 99.95 else 0
    return f'{stall:,.{digits}f}'


def enumerated(items: Iterable[str]) -> str:
    *first, last = items
    return f'{", ".join(first)} and {last}' if first else last


def track(items: Sequence[T], label: str) -> Iterable[T]:
    """Give the items, and draw a bar between two of them on a terminal."""
    error = console.Console(stderr=True)
    if not error.is_terminal:
        return items  # rich before 14.3 would print an empty line
    return progress.track(
        items, label, console=error, transient=True, auto_refresh=False
    )


def measure(
    options: argparse.Namespace,
    rows: list[Row],
    streams: int,
    paths: list[str],
) -> None:
    """Add to each row its cell for a number of streams."""
    with contextlib.ExitStack() as stack:
        runs: list[tuple[Any, Row, list[probe_streams.Turn]]] = [
            (stack.enter_context(probe_streams.process()), row, [])
            for row in rows
        ]

        def turn(worker: Any, row: Row, *limits: float) -> Any:
            job = row.way, row.options, streams, *limits
            files = options.chunk_size, paths, options.cold
            return worker.apply(probe_streams.turn, (*job, *files))

        for worker, row, _ in runs:
            turn(worker, row, WARM_UP, WARM_UP)
        for worker, row, seen in track(runs * TURNS, f'streams: {streams}'):
            if sum(taken for _, taken, _ in seen) < options.seconds * 0.9:
                if options.cold:
                    probe_streams.prepare(paths, cold=True)
                limits = options.seconds / TURNS, options.seconds
                seen.append(turn(worker, row, *limits))
    for _, row, seen in runs:
        row.cells.append(cell_of(row.way, streams, options.seconds, seen))


def run(options: argparse.Namespace) -> int:
    """Stream the files, and print what to set."""
    # Several intervals fit into each turn.
    options.seconds = options.seconds or max(1, options.target / 10)
    if options.plot:
        importlib.import_module('matplotlib')  # or it is missing
    rows = rows_of(options.target)
    with probe_streams.images(options.files) as paths:
        probe_streams.prepare(paths, options.cold)
        for streams in sorted(set(options.streams or [1, 8, 64])):
            measure(options, rows, streams, paths)
    if options.plot:
        draw(rows, options.target, options.plot)
    # A reader such as head may leave early.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    show(options, rows)
    return 0
