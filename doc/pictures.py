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

"""Draw the pictures of the documentation, and fill its tables of figures.

``python doc/pictures.py`` draws how streams yield, from a run of the library.
``python doc/pictures.py REPORT`` also draws the stall against the throughput,
and writes the tables of figures. REPORT is what ``tox -e bench -- --json
REPORT`` wrote. It needs matplotlib beside the library.
"""

from collections.abc import Callable, Iterator
import csv
import io
import json
import pathlib
import statistics
import sys
from typing import Any

import eventlet
import matplotlib
from matplotlib import axes
from matplotlib import pyplot

from glance_store.common import utils

FOLDER = pathlib.Path(__file__).parent / 'source' / 'user'

OTHERS = 'everything\nelse'
STREAMS = ('stream A', 'stream B', 'stream C')
COLOURS = ('#0072b2', '#009e73', '#e69f00', '#d55e00')
CHUNKS = 8

NUMBERS = (1, 8, 64, 256)
READ = 'read 64 KiB'
HASH = 'MD5 1 MiB'

# How a picture and a table name the ways, and where the report has them.
WAYS: dict[str, dict[str, Any]] = {
    'glance_store 4.8.2': {'interval_ms': 0, 'way': 'glance_store 4.8.2'},
    'every call': {'interval_ms': 0, 'way': 'ours'},
    '1 ms': {'interval_ms': 1, 'way': 'ours'},
    '10 ms': {'interval_ms': 10, 'way': 'ours'},
}

# A picture 400 pixels wide is read on a telephone without a loupe.
STYLE: dict[Any, Any] = {
    'axes.spines.right': False,
    'axes.spines.top': False,
    'figure.constrained_layout.use': True,
    'font.size': 9,
    'svg.fonttype': 'none',
    'svg.hashsalt': 'glance_store',
}


def record(wrap: Callable[[Any], Any]) -> list[str]:
    """Return which green thread ran, in order, while three streams ran."""
    events: list[str] = []

    def stream(name: str) -> None:
        read = wrap(io.BytesIO(bytes(CHUNKS)))
        while read(1):
            events.append(name)

    def others() -> None:
        while True:
            events.append(OTHERS)
            eventlet.sleep(0)

    waiting = eventlet.spawn(others)
    eventlet.sleep(0)
    running = [eventlet.spawn(stream, name) for name in STREAMS]
    for one in running:
        one.wait()
    eventlet.sleep(0)
    waiting.kill()
    return events


def draw_yields() -> None:
    """Draw the order of events without yields and with them."""
    runs = {
        'Without yields': record(lambda file: file.read),
        'With cooperative_read': record(utils.cooperative_read),
    }
    figure, panels = pyplot.subplots(2, 1, figsize=(4.2, 4.0), sharex=True)
    for panel, (title, events) in zip(panels, runs.items(), strict=True):
        _draw_run(panel, events)
        panel.set_title(title, loc='left', fontsize=10)
    panels[-1].set_xlabel('order of events')
    _save(figure, 'yields.svg')


def _draw_run(panel: axes.Axes, events: list[str]) -> None:
    rows = (OTHERS, *reversed(STREAMS))
    colours = dict(zip(rows, reversed(COLOURS), strict=True))
    for name in rows:
        places = [place for place, event in enumerate(events) if event == name]
        panel.broken_barh(
            [(place, 1) for place in places],
            (rows.index(name) - 0.35, 0.7),
            facecolor=colours[name],
            edgecolor='white',
            linewidth=0.5,
        )
    panel.set_yticks(range(len(rows)), rows)
    panel.set_xticks([])
    panel.tick_params(length=0)


class Report:
    """The figures of a run of the benchmarks."""

    def __init__(self, path: str) -> None:
        self._rows = json.loads(pathlib.Path(path).read_text())['rows']

    def value(self, figure: str, **case: Any) -> float | None:
        """Return the median of a figure in the row with that case."""
        for row in self._rows:
            known = figure in row['figures']
            if known and case.items() <= row['case'].items():
                return float(statistics.median(row['figures'][figure]))
        return None


def draw_stall(report: Report) -> None:
    """Draw the stall against the throughput, a line for each way."""
    figure, panel = pyplot.subplots(figsize=(4.2, 4.2))
    for (name, case), colour in zip(
        WAYS.items(), reversed(COLOURS), strict=True
    ):
        points = [
            [
                report.value(figure, streams=number, work=READ, **case)
                for figure in ('of no yields', 'p99 ms')
            ]
            for number in NUMBERS
        ]
        across, up = zip(*points, strict=True)
        panel.plot(across, up, 'o-', color=colour, label=name, markersize=14)
        for number, x, y in zip(NUMBERS, across, up, strict=True):
            panel.annotate(
                str(number),
                (x, y),
                color='white',
                fontsize=7,
                ha='center',
                va='center_baseline',
            )
    panel.set_yscale('log')
    panel.set_xlabel('throughput, of a loop without yields')
    panel.set_ylabel('stall, 99th percentile, ms')
    panel.yaxis.set_major_formatter('{x:g}')
    panel.margins(0.08)
    figure.legend(
        loc='outside upper left', ncols=2, frameon=False, markerscale=0.5
    )
    _save(figure, 'stall.svg')


def _save(figure: Any, name: str) -> None:
    path = FOLDER / name
    figure.savefig(path, metadata={'Date': None})
    # The checks of the repository want no blanks at the end of a line.
    lines = [line.rstrip() for line in path.read_text().splitlines()]
    path.write_text('\n'.join(lines) + '\n')
    pyplot.close(figure)


def write_tables(report: Report) -> None:
    """Write the tables of figures that the page on performance shows."""
    for name, figure, work in (
        ('stall-read', 'p99 ms', READ),
        ('stall-hash', 'p99 ms', HASH),
        ('throughput', 'of no yields', READ),
    ):
        _write(name, ('streams', *NUMBERS), _stall_rows(report, figure, work))
    _write('storage', ('', 'off', 'on'), _storage_rows(report))
    _write('native', ('', '4 KiB', '64 KiB'), _native_rows(report))


def _stall_rows(
    report: Report, figure: str, work: str
) -> Iterator[tuple[str, ...]]:
    for way, case in WAYS.items():
        values = (
            report.value(figure, streams=number, work=work, **case)
            for number in NUMBERS
        )
        yield way, *map(_text, values)


def _storage_rows(report: Report) -> Iterator[tuple[str, ...]]:
    cases: dict[str, dict[str, Any]] = {
        'cached, 1 stream': {'storage': 'warm', 'chunk': '64 KiB'},
        'not cached, 1 stream': {'storage': 'cold', 'streams': 1},
        'not cached, 8 streams': {'storage': 'cold', 'streams': 8},
        '200 ms a read': {'storage': '200 ms a read'},
    }
    for name, case in cases.items():
        for figure, shown in (('p99 ms', 'stall, ms'), ('MB/s', 'MB/s')):
            values = (
                report.value(figure, option=option, **case)
                for option in ('off', 'on')
            )
            yield f'{name}: {shown}', *map(_text, values)


def _native_rows(report: Report) -> Iterator[tuple[str, ...]]:
    for beside in ('a bare loop', 'glance_store 5.5.0', 'glance 33.0.0'):
        values = (
            report.value(
                'times as fast',
                thread='native',
                call='CooperativeReader.read',
                of=size,
                beside=beside,
            )
            for size in ('4 KiB', '64 KiB')
        )
        yield f'times {beside}', *map(_text, values)


def _text(value: float | None) -> str:
    if value is None:
        return ''
    return f'{value:.2g}' if value < 100 else f'{value:,.0f}'


def _write(name: str, header: Any, rows: Iterator[tuple[str, ...]]) -> None:
    with (FOLDER / f'{name}.csv').open('w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(header)
        writer.writerows(rows)


def main() -> None:
    matplotlib.rcParams.update(STYLE)
    draw_yields()
    for path in sys.argv[1:]:
        report = Report(path)
        draw_stall(report)
        write_tables(report)


if __name__ == '__main__':
    main()
