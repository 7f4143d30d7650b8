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

"""What the probe prints: tables, sentences and JSON documents."""

from collections.abc import Sequence
import contextlib
import importlib.metadata
import io
import json
import os
import platform
import sys
import textwrap

from eventlet import hubs
from rich import box
from rich import console as rich_console
from rich import table as rich_table
from rich import text as rich_text

from glance_store.cmd.probe import advice
from glance_store.cmd.probe import measuring
from glance_store.cmd.probe import progress
from glance_store.cmd.probe import watch

# Of the JSON documents: it changes where a field goes or means another thing,
# not where one is added.
VERSION = 1

# What a round has to take for its figures to mean something, in seconds.
TOO_SHORT = 0.05

# Wider than any row: nothing is cut in a pipe.
PIPE_WIDTH = 200
PARAGRAPH_WIDTH = 75


# -- Of image files -----------------------------------------------------------


def probe_as_text(
    load: measuring.Load,
    results: Sequence[measuring.Result],
    given: advice.Advice,
    cold: bool,
) -> str:
    """Return the table, and what follows from it."""
    with _Page() as page:
        page.line(_heading(load, results, cold))
        page.table(_table(results, given.target))
        for sentence in sentences(results, given):
            page.paragraph(sentence)
        page.line('')
        page.line(given.setting.section().rstrip(), 'green')
    return page.text


def _heading(
    load: measuring.Load, results: Sequence[measuring.Result], cold: bool
) -> str:
    sizes = [str(size) for size in _sizes(results)]
    size = sum(image.size for image in load.images)
    return (
        f'Streams: {load.count}, chunks: {", ".join(sizes)}, '
        f'files: {size} bytes{", cold" if cold else ""}, '
        f'passes: {load.passes}, rounds: {len(results[0].rounds)}'
    )


def _sizes(results: Sequence[measuring.Result]) -> list[int]:
    """Return the sizes of chunks, in the order of the table."""
    sizes = dict.fromkeys(result.case.chunk_size for result in results)
    return [size for size in sizes if size]


def _table(
    results: Sequence[measuring.Result], target: float
) -> rich_table.Table:
    several = len(_sizes(results)) > 1
    table = rich_table.Table(box=box.ROUNDED)
    table.add_column('Way of streaming')
    for title in (
        *(['Chunk\nbytes'] if several else []),
        'Through-\nput\nMiB/s',
        'Yields',
        'Median\nlateness\nms',
        '99th\npercentile\nms',
        'Worst\nlateness\nms',
    ):
        table.add_column(title, justify='right', overflow='fold')
    for result in results:
        size = str(result.case.chunk_size or '')
        table.add_row(
            result.case.name,
            *([size] if several else []),
            f'{result.throughput:.0f}',
            f'{result.yields}',
            *_lateness(result, target),
        )
    return table


def _lateness(
    seen: measuring.Result | watch.Watched, target: float
) -> list[rich_text.Text]:
    """Return the median, the 99th percentile and the worst, in ms."""
    values = [seen.percentile(percent) for percent in (50, 99, 100)]
    return [
        rich_text.Text(
            f'{value * 1000:.2f}', style='red' if value > target else 'green'
        )
        for value in values
    ]


def sentences(
    results: Sequence[measuring.Result], given: advice.Advice
) -> list[str]:
    """Return what was found, and what is advised for which reasons."""
    chosen = _row_of(given.setting, results)
    bare = next(
        result
        for result in results
        if result.case.key == 'no_cooperation'
        and result.case.chunk_size == given.setting.chunk_size
    )
    ratio = bare.worst / max(chosen.worst, 1e-6)
    found = (
        f'Without cooperation everything else waits for up to '
        f'{_ms(bare.worst)}; in {_name(chosen)} for up to '
        f'{_ms(chosen.worst)}, {ratio:.3g} times less.'
    )
    answer = [found, _reason(results, given, chosen)]
    longest = max(part.seconds for part in chosen.rounds)
    if longest < TOO_SHORT:
        answer.append(
            f'But its rounds were over in {_ms(longest)}, which is too short '
            'to tell much: name larger files.'
        )
    return answer


def _reason(
    results: Sequence[measuring.Result],
    given: advice.Advice,
    chosen: measuring.Result,
) -> str:
    limit = f'{given.target * 1000:g} ms'
    often = _often(chosen, given.target)
    name = _name(chosen)
    if given.setting == advice.Setting():
        name += ', which is what the defaults do'
    if not given.reaches_target:
        return (
            f'Advice: {name}; but no setting surely keeps the worst lateness '
            f'within {limit}. This one did so {often}, and no other setting '
            'was better in every round. With no streams the worst lateness '
            f'was {_ms(results[-1].worst)}: no setting mends that. Try again '
            'while nothing else runs on this machine, with smaller chunks, or '
            'with another --target-lateness.'
        )
    reason = (
        f'Advice: {name}. The worst lateness kept within {limit} {often}, at '
        f'{chosen.throughput:.0f} MiB/s, and no other setting was better in '
        'every round.'
    )
    simplest = _row_of(given.simplest, results)
    if simplest is chosen:
        return reason
    return (
        f'{reason} In {_name(simplest)} it did so '
        f'{_often(simplest, given.target)}, at {simplest.throughput:.0f} '
        'MiB/s.'
    )


def _often(result: measuring.Result, target: float) -> str:
    under = sum(part.worst <= target for part in result.rounds)
    return f'in {under} of {len(result.rounds)} rounds'


def _name(result: measuring.Result) -> str:
    size = result.case.chunk_size
    return f"row '{result.case.name}' ({size} bytes a chunk)"


def _ms(seconds: float) -> str:
    return f'{seconds * 1000:.2f} ms'


def setting_of(case: measuring.Case) -> advice.Setting | None:
    """Return what makes a service stream like that, None where nothing."""
    if case.key not in ('every_chunk', 'interval', 'offloaded'):
        return None
    return advice.Setting(case.chunk_size, case.interval, case.offload)


def _row_of(
    setting: advice.Setting, results: Sequence[measuring.Result]
) -> measuring.Result:
    return next(
        result for result in results if setting_of(result.case) == setting
    )


def advice_on(
    results: Sequence[measuring.Result], target: float
) -> advice.Advice:
    """Return which of the settings that were measured is advised."""
    seen = {
        setting: [
            advice.Seen(part.worst, part.throughput) for part in result.rounds
        ]
        for result in results
        if (setting := setting_of(result.case)) is not None
    }
    return advice.advise(seen, target)


def probe_as_json(
    load: measuring.Load,
    results: Sequence[measuring.Result],
    given: advice.Advice,
    arguments: dict[str, object],
) -> str:
    """Return all that was measured, and under which circumstances."""
    return _json(
        {
            'version': VERSION,
            'kind': 'streams',
            'arguments': arguments,
            'files': [
                {
                    'path': None if image.made else image.path,
                    'size_bytes': image.size,
                }
                for image in load.images
            ],
            'passes': load.passes,
            'heartbeat_period_ms': measuring.PERIOD * 1000,
            'hub': hubs.get_hub().__module__,
            'cpus': len(os.sched_getaffinity(0)),
            'versions': {
                'python': platform.python_version(),
                **{
                    name: _version(name)
                    for name in ('glance_store', 'eventlet', 'greenlet')
                },
            },
            'rows': [_row_as_json(result) for result in results],
            'advice': {
                'default_chunk_size': given.setting.chunk_size,
                'cooperative_yield_interval': given.setting.interval,
                'offload_file_reads': given.setting.offload,
                'reaches_target': given.reaches_target,
                'text': sentences(results, given),
            },
        }
    )


def _json(document: dict[str, object]) -> str:
    return json.dumps(document, indent=2) + '\n'


def _version(distribution: str) -> str | None:
    """Return a version, None for what runs without being installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(distribution)
    return None


def _row_as_json(result: measuring.Result) -> dict[str, object]:
    return {
        'way': result.case.key,
        'name': result.case.name,
        'chunk_size_bytes': result.case.chunk_size or None,
        'bytes_read': result.bytes_read,
        'seconds': result.seconds,
        'throughput_mib_per_second': result.throughput,
        'yields': result.yields,
        'beats': len(result.lateness),
        'lateness_median_ms': result.percentile(50) * 1000,
        'lateness_p99_ms': result.percentile(99) * 1000,
        'lateness_worst_ms': result.worst * 1000,
        'rounds': [
            {
                'bytes_read': part.bytes_read,
                'seconds': part.seconds,
                'throughput_mib_per_second': part.throughput,
                'lateness_worst_ms': part.worst * 1000,
            }
            for part in result.rounds
        ],
    }


# -- Of a running service -----------------------------------------------------


def watched_as_text(seen: watch.Watched, target: float) -> str:
    """Return the table, and whether the service stalls."""
    table = rich_table.Table(box=box.ROUNDED)
    for title in (
        'Requests',
        'Failed',
        'Median\nanswer time\nms',
        '99th\npercentile\nms',
        'Worst\nanswer time\nms',
    ):
        table.add_column(title, justify='right', overflow='fold')
    table.add_row(
        f'{seen.requests}',
        f'{seen.failures.total()}',
        *_lateness(seen, target),
    )
    with _Page() as page:
        page.line(
            f'{seen.target.name}, every {watch.PERIOD * 1000:g} ms for '
            f'{seen.seconds:.1f} s'
        )
        page.table(table)
        page.paragraph(verdict(seen, target))
        for reason, count in seen.failures.most_common():
            page.line(f'Failed: {count} of {seen.requests}: {reason}', 'red')
    return page.text


def verdict(seen: watch.Watched, target: float) -> str:
    """Return whether the service stalls."""
    median = _ms(seen.percentile(50))
    worst = _ms(seen.percentile(100))
    limit = f'{target * 1000:g} ms'
    share = seen.share_late(target)
    if not share:
        return (
            f'It does not stall: no answer took longer than the median of '
            f'{median} by more than {limit}.'
        )
    return (
        f'It stalls: in {share:.2%} of the time an answer took longer than '
        f'the median of {median} by more than {limit}, and up to {worst}.'
    )


def watched_as_json(seen: watch.Watched, target: float) -> str:
    """Return all that was seen."""
    return _json(
        {
            'version': VERSION,
            'kind': 'service',
            'url': seen.target.name,
            'period_ms': watch.PERIOD * 1000,
            'seconds': seen.seconds,
            'requests': seen.requests,
            'failures': [
                {'reason': reason, 'count': count}
                for reason, count in seen.failures.most_common()
            ],
            'moments': len(seen.moments),
            'answer_median_ms': seen.percentile(50) * 1000,
            'answer_p99_ms': seen.percentile(99) * 1000,
            'answer_worst_ms': seen.percentile(100) * 1000,
            'target_lateness_ms': target * 1000,
            'share_late': seen.share_late(target),
        }
    )


# -- Where it is printed ------------------------------------------------------


class _Page:
    """What is printed, as it suits standard output.

    A terminal gets it in its own width and in colours, unless ``NO_COLOR`` is
    set. Anything else gets plain text, as wide as the table is.
    """

    def __init__(self) -> None:
        terminal = progress.is_terminal(sys.stdout)
        # Not standard output itself: rich would write there, and end the
        # process where that fails. Its encoding decides which lines the table
        # is made of.
        self._file = io.TextIOWrapper(
            io.BytesIO(), encoding=sys.stdout.encoding, errors='replace'
        )
        self._console = rich_console.Console(
            file=self._file,
            force_terminal=terminal,
            width=None if terminal else PIPE_WIDTH,
            markup=False,
            emoji=False,
            highlight=False,
        )
        self._width = self._console.width if terminal else PARAGRAPH_WIDTH
        self.text = ''

    def __enter__(self) -> '_Page':
        return self

    def __exit__(self, *_: object) -> None:
        self._file.seek(0)
        self.text = self._file.read()

    def line(self, text: str, style: str = '') -> None:
        """Add what stays on its line, however long that is."""
        self._console.print(text, style=style, soft_wrap=True)

    def paragraph(self, text: str) -> None:
        """Add sentences."""
        self.line(textwrap.fill(text, self._width))

    def table(self, table: rich_table.Table) -> None:
        """Add a table."""
        self._console.print(table)
