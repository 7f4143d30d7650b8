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

"""Stream in several ways, each in a process of its own; say which to set.

A stall is how much later than due a heartbeat runs. It is due at random
moments, about one a ms: a fixed period would fall into step with the streams.
"""

from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures
import contextlib
import dataclasses
import importlib
import itertools
from multiprocessing import connection, get_context, Pipe, resource_tracker
import os
import pathlib
import random
import re
import signal
import statistics
import tempfile
import threading
import time
from typing import Any
import warnings

from rich import console, progress, table

from glance_store.cmd.probe import Failure

GAP = 0.001  # mean time between two moments, in seconds
TURNS = 5  # of each way: one after another, so that other load meets all
EQUAL = 0.05  # two throughputs are equal within this part
MARGIN = 0.2  # the part of the target that a stall may add, besides the noise
SAVED = 0.25  # the part of the target that offloaded reads have to save

LEGEND = """
MB/s is of all streams together. The stall is how long everything else waited,
in ms: 99th percentile and worst. A stall up to that of "no streams" is noise.
With ≥ the time limit ended the streams, and the true stall is longer.
"""
NOTE = """
A service reads this section only where these helpers are in place. The page
user/glance (doc/source/user/glance.rst) puts them there."""

clock = time.monotonic


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one way with a number of streams came to."""

    streams: int
    mb_per_second: float
    stall_median_ms: float
    stall_p99_ms: float
    stall_worst_ms: float
    time_limit_reached: bool

    def fits(self, target: float, noise: 'Cell') -> bool:
        limit = target * (1 + MARGIN) + noise.stall_p99_ms
        return self.stall_p99_ms <= limit and not self.time_limit_reached


@dataclasses.dataclass(frozen=True)
class Row:
    """A way of streaming, and its cell for each number of streams."""

    way: str
    label: str
    options: dict[str, Any]
    cells: list[Cell] = dataclasses.field(default_factory=list)

    def fits(self, target: float, noise: 'Row') -> bool:
        targets = itertools.repeat(target)
        return all(map(Cell.fits, self.cells, targets, noise.cells))

    def speed(self) -> float:
        """Return a mean in which each number of streams weighs the same."""
        speeds = (max(cell.mb_per_second, 1e-6) for cell in self.cells)
        return statistics.geometric_mean(speeds)

    def stall(self) -> float:
        return max(cell.stall_p99_ms for cell in self.cells)


def rows_of(target: float, size: int) -> list[Row]:
    """Return all ways, those with fewer options first, and no streams last."""
    chunk = {} if size == 65536 else {'default_chunk_size': size}
    every_call = {'cooperative_yield_interval': 0, **chunk}
    interval = {'cooperative_yield_interval': round(target / 1000, 9), **chunk}
    offloaded = {**interval, 'offload_file_reads': True}
    return [
        Row('no_yields', 'no yields', {}),
        Row('every_call', 'every call', every_call),
        Row('interval', f'every {target:g} ms', interval),
        Row('offloaded', '  offloaded', offloaded),
        Row('native_threads', 'native threads', {}),
        Row('no_streams', 'no streams', {}),
    ]


@contextlib.contextmanager
def images(names: list[str]) -> Iterator[list[str]]:
    """Give the paths of the images, or of one that is made."""
    # It has no name, so that nothing of it is left however the probe ends.
    with tempfile.TemporaryFile() as file:
        if not names:
            file.writelines([os.urandom(1 << 20)] * 256)
            file.flush()
            names = [f'/proc/{os.getpid()}/fd/{file.fileno()}']
        files: list[str] = []
        for path in map(pathlib.Path, names):
            path.stat()  # or it is missing
            here = sorted(path.iterdir()) if path.is_dir() else [path]
            files += [str(f) for f in here if f.is_file() and f.stat().st_size]
        if not files:
            raise Failure(f'no image in {" ".join(names)}')
        yield files


def prepare(paths: list[str], cold: bool) -> None:
    """Drop files from the page cache, or read them for some seconds."""
    end = clock() + 10  # a folder may hold more than memory does
    mounts = pathlib.Path('/proc/self/mountinfo').read_text()
    for path in paths:
        with open(path, 'rb') as file:
            while not cold and clock() < end and file.read(1 << 20):
                pass
            if cold:
                os.fsync(file.fileno())  # only what is written can be dropped
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            device = os.fstat(file.fileno()).st_dev
            mount = f' {os.major(device)}:{os.minor(device)} .* - tmpfs '
            if cold and re.search(mount, mounts):
                raise Failure(f'--cold: {path!r} is in memory, on a tmpfs')


@contextlib.contextmanager
def process(target: Any, *args: Any) -> Iterator[connection.Connection]:
    """Give a pipe to a process that ends with ours and never sees Ctrl-C."""
    # A pool has locks: Ctrl-C while one is given back ends in RuntimeError.
    resource_tracker.ensure_running()  # its start would let Ctrl-C through
    ours, theirs = Pipe()
    spawn = get_context('spawn')
    worker = spawn.Process(None, target, None, (theirs, *args), daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    worker.start()
    theirs.close()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with ours:
        yield ours
    worker.join()


def serve(pipe: connection.Connection, row: Row, *job: Any) -> None:
    """Run a turn for each number of streams that comes."""
    with contextlib.suppress(EOFError, BrokenPipeError):
        try:
            warnings.simplefilter('ignore')  # eventlet has one for new uses
            if row.way != 'native_threads':
                importlib.import_module('eventlet').monkey_patch()
            utils = importlib.import_module('glance_store.common.utils')
            for name, value in row.options.items():
                utils.cfg.CONF.set_override(name, value, 'glance_store')
            while True:
                pipe.send(turn(row.way, pipe.recv(), *job))
        except (ImportError, OSError) as exc:
            pipe.send(exc)
            pipe.recv()


def stream(
    way: str, number: int, size: int, paths: list[str], cold: bool
) -> Iterator[int]:
    """Read all files again and again, and only one that is *cold*."""
    utils = importlib.import_module('glance_store.common.utils')
    while way == 'no_streams':
        time.sleep(0)  # busy, so that the stalls of the machine show
        yield 0
    files = itertools.islice(itertools.cycle(paths), number, None)
    for path in itertools.islice(files, 1 if cold else None):
        with open(path, 'rb') as file:
            cooperative = way != 'no_yields'
            read = utils.cooperative_read(file) if cooperative else file.read
            while chunk := read(size):
                yield len(chunk)
        time.sleep(0)  # a request ends, and its green thread waits
        yield 0


def turn(way: str, streams: int, seconds: float, *job: Any) -> Cell:
    """Stream for a part of the seconds, and on until the heartbeat runs."""
    begin = threading.Event()
    end = 0.0
    stalls = []

    def read(number: int) -> tuple[int, float]:
        begin.wait()
        size = 0
        for chunk in stream(way, number, *job):
            size += chunk
            if clock() >= end:
                break
        return size, clock()

    with futures.ThreadPoolExecutor(streams) as threads:
        readers = [threads.submit(read, number) for number in range(streams)]
        due = now = begun = clock()
        enough, end = begun + seconds / TURNS, begun + seconds
        begin.set()
        while due <= now or now < enough:
            if due > now:  # all moments until now are counted
                time.sleep(due - now)
                now = clock()
            stalls.append(1000 * (now - due))
            due += random.expovariate(1 / GAP)
            if all(reader.done() for reader in readers):
                enough = 0.0
        end = 0.0
        sizes, ends = zip(*(r.result() for r in readers), strict=True)
    stalls.sort()
    median, p99 = (stalls[len(stalls) * part // 100] for part in (50, 99))
    speed = sum(sizes) / (max(ends) - begun) / 1e6
    late = now - begun >= seconds
    return Cell(streams, speed, median, p99, stalls[-1], late)


def merged(turns: list[Cell]) -> Cell:
    """Sum up turns; what disturbs one of them shows in the worst stall."""
    # The first four fields are measured, and medians; the last two add up.
    parts: Any = list(zip(*map(dataclasses.astuple, turns), strict=True))
    return Cell(*map(statistics.median_low, parts[:4]), *map(max, parts[4:]))


def measure(options: Namespace, rows: list[Row], paths: list[str]) -> None:
    """Add to each row its cell for each number of streams."""
    job = options.seconds, options.chunk_size, paths, options.cold
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(process(serve, r, *job)) for r in rows]
        for streams in options.streams:
            turns: list[list[Cell]] = [[] for _ in rows]
            jobs = list(zip(workers, turns, strict=True)) * TURNS
            for worker, seen in track(jobs, f'streams: {streams}'):
                if any(turn.time_limit_reached for turn in seen):
                    continue
                if options.cold:
                    prepare(paths, cold=True)
                worker.send(streams)
                if isinstance(answer := worker.recv(), Exception):
                    raise answer
                seen.append(answer)
            for row, seen in zip(rows, turns, strict=True):
                row.cells.append(merged(seen))


def track(items: Sequence[Any], label: str) -> Iterable[Any]:
    """Give the items, and draw a bar between two of them on a terminal."""
    error = console.Console(stderr=True)
    if not error.is_terminal:
        return items  # rich before 14.3 would print an empty line
    return progress.track(
        items, label, console=error, transient=True, auto_refresh=False
    )


def lines_of(options: dict[str, Any]) -> list[str]:
    return [f'{k} = {str(v).lower()}' for k, v in options.items()]


def advice(rows: list[Row], target: float) -> dict[str, Any]:
    """Return what to set, for how many streams, and at what cost."""
    no_yields, *settings, _, noise = rows
    fit = [row for row in settings if row.fits(target, noise)]
    *_, interval, offloaded = settings
    saved = interval.stall() - offloaded.stall() - noise.stall()
    if offloaded in fit and saved > SAVED * target:
        fit = [offloaded]
    best = max(map(Row.speed, fit), default=0) * (1 - EQUAL)
    equal = [row for row in fit if row.speed() >= best]
    row = min(equal[:1] or settings, key=Row.stall)
    named = ' and '.join(lines_of(row.options))
    counts = ', '.join(str(cell.streams) for cell in row.cells)
    counts = ' and '.join(counts.rsplit(', ', 1))
    kept = f'the stall at about {target:g} ms or less with {counts} streams'
    # The cost is in steps on which two runs of one load agree.
    steps = max(1, round(10 - 10 * row.speed() / no_yields.speed()))
    cost = f'about {steps * 10} %{" or less" if steps == 1 else ""}'
    said = [
        f'Set {named}: this keeps {kept}.'
        if fit
        else f'No setting keeps {kept}. Closest is {named}.',
        f'It costs {cost} of the throughput without yields.',
    ]
    return {'options': row.options, 'within_target': bool(fit), 'advice': said}


def table_of(rows: list[Row], target: float) -> table.Table:
    answer = table.Table(box=None, padding=(0, 0, 0, 1), pad_edge=False)
    answer.add_column('streams at once:', no_wrap=True)
    for cell in rows[0].cells:
        for title in f'{cell.streams}\nMB/s', '\n99th', '\nworst':
            answer.add_column(title, justify='right', no_wrap=True)
    for row in rows:
        fields = [row.label]
        for cell, noise in zip(row.cells, rows[-1].cells, strict=True):
            style = 'green' if cell.fits(target, noise) else 'red'
            stall = f'[{style}]{"≥" * cell.time_limit_reached}'
            fields.append(f'{cell.mb_per_second:.0f}'.removeprefix('0'))
            for ms in cell.stall_p99_ms, cell.stall_worst_ms:
                digits = 1 if ms < 100 else 0  # or three columns are too wide
                fields.append(f'{stall}{ms:.{digits}f}')
        answer.add_row(*fields)
    return answer


def draw(rows: list[Row], target: float, path: str) -> None:
    """Draw the stall against the throughput, a line for each way."""
    mpl = importlib.import_module('matplotlib.figure')
    axes = mpl.Figure(figsize=(8, 5), dpi=150, layout='constrained').subplots()
    for marker, row in zip('osD^v', rows, strict=False):
        x = [cell.mb_per_second for cell in row.cells]
        y = [cell.stall_p99_ms for cell in row.cells]
        axes.semilogy(x, y, marker=marker, label=row.label.strip())
        for cell in row.cells:
            text = f' {"≥ " * cell.time_limit_reached}{cell.streams}'
            axes.annotate(text, (cell.mb_per_second, cell.stall_p99_ms))
    axes.axhline(target, color='grey', ls='--', label='target')
    axes.set(
        title='Numbers are streams at once: low and right is better',
        xlabel='throughput of all streams, MB/s',
        ylabel='stall of everything else, 99th percentile, ms',
        xmargin=0.1,  # room for the last label
        xlim=(0, None),
    )
    axes.legend()
    axes.figure.savefig(path)


def show(seen: dict[str, Any]) -> None:
    out = console.Console(width=80, highlight=False)
    out.print(table_of(seen['rows'], seen['target']), LEGEND)
    out.print(*seen['advice'], style='bold')
    lines = '[glance_store]', *lines_of(seen['options']), NOTE
    out.print('', *lines, sep='\n', markup=False)


def run(options: Namespace) -> dict[str, Any]:
    """Stream the files, and return what was seen."""
    # Several intervals fit into each turn.
    options.seconds = options.seconds or max(1, options.target / 10)
    options.streams = sorted(set(options.streams or [1, 8, 64]))
    if len(options.streams) > 3:
        raise Failure('argument --streams: the table has room for three')
    if options.plot:
        importlib.import_module('matplotlib')  # or it is missing
    rows = rows_of(options.target, options.chunk_size)
    with images(options.files) as paths:
        prepare(paths, options.cold)
        measure(options, rows, paths)
    if options.plot:
        draw(rows, options.target, options.plot)
    asked = 'files', 'chunk_size', 'cold', 'seconds', 'target'
    seen = {name: getattr(options, name) for name in asked}
    return {**seen, 'rows': rows, **advice(rows, options.target)}
