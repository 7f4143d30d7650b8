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

"""The pictures of the probe, drawn by matplotlib where that is installed."""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import importlib
import io
import os
import statistics
from typing import Any

from glance_store.cmd.probe import errors
from glance_store.cmd.probe import measuring
from glance_store.cmd.probe import timeline
from glance_store.cmd.probe import watch

EXTRA = 'glance_store[plot]'

# Text stays text, and the same figures give the same file.
_STYLE = {
    'svg.fonttype': 'none',
    'svg.hashsalt': errors.PROGRAM,
    'axes.grid': True,
    'axes.axisbelow': True,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'grid.alpha': 0.3,
    'font.size': 9,
    'axes.titlesize': 10,
}

# Of the streams in a timeline, and of everybody else's turns.
_READ = 'tab:blue'
_TURN = 'tab:orange'

_MARKERS = 'os^Dvp*h'


def check() -> None:
    """See that pictures can be drawn.

    :raises Failure: where matplotlib is not installed
    """
    try:
        importlib.import_module('matplotlib.figure')
    except ImportError as exc:
        raise errors.Failure(
            'pictures need matplotlib, which is not installed: '
            f"pip install '{EXTRA}'"
        ) from exc


def rows(
    path: str,
    results: Sequence[measuring.Result],
    timelines: Sequence[timeline.Timeline],
    target: float,
) -> None:
    """Draw lateness against throughput, and the timelines below.

    :param target: lateness to draw a line at, in seconds
    """
    with _figure(path, 7.5, 7.5) as figure:
        above, below = figure.subfigures(2, 1, height_ratios=(1.1, 1))
        _draw_rows(above, results, target)
        _draw_timelines(below, timelines)


def timelines(path: str, pictures: Sequence[timeline.Timeline]) -> None:
    """Draw the timelines alone."""
    with _figure(path, 7.5, 3.6) as figure:
        _draw_timelines(figure, pictures)


def answers(path: str, seen: watch.Watched, target: float) -> None:
    """Draw how long a service took to answer, over time.

    :param target: how far above the median to draw a line, in seconds
    """
    with _figure(path, 7.5, 3.6) as figure:
        axes = figure.subplots()
        moments = seen.moments
        axes.plot(
            [when for when, _ in moments],
            [_shown(late) for _, late in moments],
            '.-',
            color=_READ,
            markersize=3,
            linewidth=0.6,
        )
        for when in seen.failed_at:
            axes.axvline(when, color='tab:red', alpha=0.4)
        _draw_target(axes, seen.percentile(50) + target)
        _use_milliseconds(axes)
        axes.set_xlabel('seconds')
        axes.set_ylabel('answer time, ms')


@contextlib.contextmanager
def _figure(path: str, width: float, height: float) -> Iterator[Any]:
    """Give a figure to draw in, and write it."""
    matplotlib = importlib.import_module('matplotlib')
    module = importlib.import_module('matplotlib.figure')
    with matplotlib.rc_context(_STYLE):
        figure = module.Figure(figsize=(width, height), layout='constrained')
        yield figure
        kind = path[-3:]
        name = {'svg': 'Date', 'png': 'Software'}[kind]
        picture = io.BytesIO()
        figure.savefig(picture, format=kind, dpi=150, metadata={name: None})
        _write(path, picture.getvalue())


def _write(path: str, content: bytes) -> None:
    """Write a file whole, or leave none."""
    try:
        with open(path, 'wb') as file:
            file.write(content)
    except OSError as exc:
        if os.path.isfile(path):
            os.unlink(path)
        raise errors.Failure(
            f'cannot write the picture: {path!r}: {exc.strerror}'
        ) from exc


def _shown(seconds: float) -> float:
    """Return milliseconds that have a place on a logarithmic axis."""
    return max(0.01, seconds * 1000)


def _draw_rows(
    figure: Any, results: Sequence[measuring.Result], target: float
) -> None:
    """Draw a mark for each row, and a dot for each of its rounds."""
    axes = figure.subplots()
    colors = _numbers(result.case.key for result in results)
    sizes = _numbers(
        result.case.chunk_size for result in results if result.case.chunk_size
    )
    for result in results:
        case = result.case
        several = len(sizes) > 1 and case.chunk_size
        speeds = [part.throughput for part in result.rounds]
        lates = [_shown(part.worst) for part in result.rounds]
        color = f'C{colors[case.key]}'
        axes.plot(speeds, lates, '.', color=color, alpha=0.5, markersize=4)
        axes.plot(
            statistics.median(speeds),
            statistics.median(lates),
            _MARKERS[sizes.get(case.chunk_size, 0) % len(_MARKERS)],
            color=color,
            markersize=8,
            label=f'{case.name}, {case.chunk_size}' if several else case.name,
            # Where nothing streams it is on the edge.
            clip_on=False,
        )
    _draw_target(axes, target)
    _use_milliseconds(axes)
    axes.set_xlim(left=0)
    axes.set_xlabel('throughput of all streams, MiB/s')
    axes.set_ylabel('worst lateness, ms')
    axes.set_title('What everything else had to wait (further down is better)')
    axes.legend(loc='center left', bbox_to_anchor=(1, 0.5), frameon=False)


def _numbers(values: Iterable[object]) -> dict[object, int]:
    """Return a number for each value, in their order."""
    return {value: n for n, value in enumerate(dict.fromkeys(values))}


def _use_milliseconds(axes: Any) -> None:
    """Let the axis go from hundredths of a millisecond to minutes."""
    axes.set_yscale('log')
    axes.yaxis.set_major_formatter('{x:g}')


def _draw_target(axes: Any, target: float) -> None:
    axes.axhline(
        _shown(target),
        color='black',
        linestyle='--',
        linewidth=1,
        label='target',
    )


def _draw_timelines(
    figure: Any, pictures: Sequence[timeline.Timeline]
) -> None:
    """Draw one above the other, over the same time."""
    end = max(picture.end for picture in pictures)
    all_axes = figure.subplots(len(pictures), 1, sharex=True)
    for axes, picture in zip(all_axes, pictures, strict=True):
        count = len(picture.reads)
        for number, reads in enumerate(picture.reads):
            axes.add_patch(_bars(reads, bottom=count - number - 0.4))
        turns = [turn * 1000 for turn in picture.turns if turn <= end]
        axes.plot(turns, [0] * len(turns), '|', color=_TURN, markersize=10)
        axes.set_xlim(0, end * 1000)
        axes.set_ylim(-0.6, count + 0.6)
        axes.set_yticks(
            range(count + 1),
            [
                'everything else',
                *(f'stream {count - number}' for number in range(count)),
            ],
        )
        axes.grid(visible=False, axis='y')
        axes.set_title(f'Who had a turn, {picture.title}')
    all_axes[-1].set_xlabel('ms')


def _bars(reads: Sequence[tuple[float, float]], bottom: float) -> Any:
    """Return a bar for each read, all of them in one path."""
    path = importlib.import_module('matplotlib.path').Path
    patches = importlib.import_module('matplotlib.patches')
    corners: list[tuple[float, float]] = []
    for start, end in reads:
        left, right = start * 1000, end * 1000
        corners += [
            (left, bottom),
            (left, bottom + 0.8),
            (right, bottom + 0.8),
            (right, bottom),
            (left, bottom),
        ]
    codes = [
        path.MOVETO,
        path.LINETO,
        path.LINETO,
        path.LINETO,
        path.CLOSEPOLY,
    ]
    return patches.PathPatch(
        path(corners, codes * len(reads)), facecolor=_READ, linewidth=0
    )
