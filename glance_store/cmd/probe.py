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

"""Measure what streaming images does to everything else."""

import argparse
from collections.abc import Callable, Iterator
import contextlib
import importlib
import importlib.metadata
import importlib.util
import operator
import os
import pathlib
import re
import signal
import sys
import tempfile
import time
from typing import Any, NoReturn

from glance_store.cmd import probe_streams
from glance_store.cmd.probe_streams import Failure

PROGRAM = 'glance-store-probe'
PACKAGES = ('matplotlib', 'requests', 'rich')  # the extra "probe"

MIB = 1024 * 1024
IMAGE_SIZE = 256 * MIB

# The ways of streaming take turns, so that a change of the machine's load
# meets all of them. So many turns make up the time of each.
TURNS = 5

# Seconds of a turn that comes first and is not measured, and the most that
# reading the files into the page cache may take.
WARM_UP = 0.05
READ_AHEAD = 10

STREAMS = """Stream image files in several ways, and measure the stall: how
long everything else has to wait. Then say what to set. "%(prog)s watch --help"
tells how to ask a running service instead."""
RULE = """The rule: within the target in the 99th percentile at every number
of streams (a fifth and the noise of the machine are allowed on top), then the
best throughput (within 5 %% is equal), then the fewest options."""
WATCH = """Ask a running service on a schedule, and measure each answer from
the moment it was due. The service stalls, and the exit status is 1, where the
99th percentile exceeds the fastest tenth by more than the target."""


class Stopped(BaseException):
    """A signal ends the probe, with this exit status."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Failure(message)


def number(kind: Any, least: float, most: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        with contextlib.suppress(ValueError):
            if least <= (value := kind(text)) <= most:
                return value
        wanted = f'expected a number from {least:g} to {most:g}'
        raise argparse.ArgumentTypeError(wanted)

    return parse


def matching(
    pattern: str, wanted: str, convert: Callable[[re.Match[str]], Any]
) -> Callable[[str], Any]:
    # What does not match may be secret, and is not repeated.
    def parse(text: str) -> Any:
        if match := re.fullmatch(pattern, text, re.ASCII | re.IGNORECASE):
            return convert(match)
        raise argparse.ArgumentTypeError(f'expected {wanted}')

    return parse


TEXT = operator.itemgetter(0)
count, seconds = number(int, 1, 1000), number(float, 0.1, 86400)
size = matching(
    '([1-9][0-9]{0,8})([km]?)',
    'a size such as 65536, 64k or 1M',
    lambda it: int(it[1]) * 1024 ** ['', 'k', 'm'].index(it[2].lower()),
)
url = matching('https?://[!-~]+', 'an http:// or https:// address', TEXT)
header = matching('([!-9;-~]+): *([ -~]+)', 'NAME: VALUE', re.Match.groups)
picture = matching(r'.+\.(pdf|png|svg)', 'a .pdf, .png or .svg', TEXT)


def parser_of(watch: bool) -> Parser:
    parser = Parser(
        f'{PROGRAM} watch' if watch else PROGRAM,
        allow_abbrev=False,
        description=WATCH if watch else STREAMS,
        epilog=None if watch else RULE,
    )

    def add(name: str, kind: Any, help: str, **how: Any) -> None:
        if kind:
            metavar = name.lstrip('-').upper()
            how = {'type': kind, 'metavar': metavar, **how}
        parser.add_argument(name, help=help, **how)

    version = importlib.metadata.version('glance_store')
    add('--version', None, 'print it', action='version', version=version)
    add('--json', None, 'print one JSON document', action='store_true')
    add('--target', number(float, 1, 1000), 'limit of the stall, in ms (10)')
    parser.set_defaults(target=10.0)
    if watch:
        parser.set_defaults(seconds=10.0, clients=3, header=[])
        add('url', url, 'what to ask: cheap to answer, as /versions is')
        add('--seconds', seconds, 'how long to ask (10)')
        text = 'NAME:VALUE, sent along; repeatable'
        add('--header', header, text, action='append')
        add('--download', url, 'an image that clients download meanwhile')
        add('--clients', count, 'how many download it (3)')
        return parser
    parser.set_defaults(chunk_size=probe_streams.CHUNK_SIZE)
    text = 'an image, or a folder of them (a temporary image)'
    add('files', str, text, nargs='*', metavar='FILE|DIR')
    text = 'how many run at once; repeatable (1, 8 and 64)'
    add('--streams', count, text, action='append')
    add('--chunk-size', size, 'bytes of a read, such as 64k or 1M (64k)')
    add('--seconds', seconds, 'time of a way with a number of streams (1)')
    text = 'read from storage: drop files from the page cache before'
    add('--cold', None, text, action='store_true')
    add('--plot', picture, 'draw the stall against the throughput')
    return parser


def files_in(name: str) -> list[str]:
    """Return the path of an image, or those of the images in a folder."""
    path = pathlib.Path(name).absolute()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [file for file in files if file.is_file() and file.stat().st_size]
    for file in found or [path]:
        os.close(os.open(file, os.O_RDONLY | os.O_NONBLOCK))  # it is readable
    if not found:
        raise Failure(f'{name!r} has no image in it')
    return [str(file) for file in found]


@contextlib.contextmanager
def images(names: list[str]) -> Iterator[list[str]]:
    """Give the paths of the images, or of one that is made."""
    if names:
        yield [path for name in names for path in files_in(name)]
        return
    # It has no name, so that nothing of it is left however the probe ends.
    with tempfile.TemporaryFile() as file:
        block = os.urandom(MIB)
        for _ in range(IMAGE_SIZE // MIB):
            file.write(block)
        file.flush()
        yield [f'/proc/{os.getpid()}/fd/{file.fileno()}']


def prepare(paths: list[str], cold: bool) -> None:
    """Read files into the page cache, or drop them from it."""
    end = time.monotonic() + READ_AHEAD
    mounts = pathlib.Path('/proc/self/mountinfo').read_text().splitlines()
    for path in paths:
        with open(path, 'rb') as file:
            while not cold and time.monotonic() < end and file.read(MIB):
                pass
            device = os.fstat(file.fileno()).st_dev
            name = f' {os.major(device)}:{os.minor(device)} '
            if cold and any(name in m and ' - tmpfs ' in m for m in mounts):
                raise Failure(f'--cold: {path!r} is in memory, on a tmpfs')
            if cold:
                os.fsync(file.fileno())  # only what is written can be dropped
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def probe(options: argparse.Namespace) -> int:
    """Stream the files, and print what to set."""
    folder = os.path.dirname(options.plot or '') or '.'
    if options.plot and not os.access(folder, os.W_OK):
        raise Failure(f'--plot: {options.plot!r} cannot be written')
    report = importlib.import_module('glance_store.cmd.probe_report')
    # Several intervals fit into each turn.
    options.seconds = options.seconds or max(1, options.target / 10)
    ways = probe_streams.ways_of(options.target)
    rows = [report.Row(way, []) for way in ways]
    with images(options.files) as paths:
        prepare(paths, options.cold)
        for streams in sorted(set(options.streams or [1, 8, 64])):
            cells = measure(options, ways, streams, paths)
            for row, cell in zip(rows, cells, strict=True):
                row.cells.append(cell)
    return int(report.show(options, rows))


def measure(
    options: argparse.Namespace,
    ways: list[probe_streams.Way],
    streams: int,
    paths: list[str],
) -> list[Any]:
    """Return the cells of all ways with one number of streams."""
    report = importlib.import_module('glance_store.cmd.probe_report')
    job = streams, paths, options.chunk_size, options.cold
    with contextlib.ExitStack() as stack:
        runs = []
        for way in ways:
            run = stack.enter_context(probe_streams.streaming(way, *job))
            turns: list[probe_streams.Seen] = []
            runs.append((run, turns))
        for run, _ in runs:
            run(WARM_UP, WARM_UP)
        for run, turns in report.track(runs * TURNS, f'streams: {streams}'):
            if sum(turn.seconds for turn in turns) < options.seconds * 0.9:
                if options.cold:
                    prepare(paths, cold=True)
                turns.append(run(options.seconds / TURNS, options.seconds))
    return [
        report.cell_of(way.key, streams, turns)
        for way, (_, turns) in zip(ways, runs, strict=True)
    ]


def stop(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough
    raise Stopped(128 + number)


def need(*packages: str) -> None:
    missing = [name for name in packages if not importlib.util.find_spec(name)]
    if missing:
        raise Failure(
            f'{" and ".join(missing)} missing: pip install '
            f'{" ".join(PACKAGES)} (or, in a checkout of this library, '
            "pip install '.[probe]')"
        )


def main(argv: list[str] | None = None) -> int:
    """Be the program, and return its exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    arguments = sys.argv[1:] if argv is None else argv
    watch = arguments[:1] == ['watch']
    try:
        options = parser_of(watch).parse_args(arguments[watch:])
        if watch:
            need('requests', 'rich')
            module = importlib.import_module('glance_store.cmd.probe_watch')
            return int(module.watch(options))
        need('rich', *['matplotlib'] * bool(options.plot))
        return probe(options)
    except Stopped as stopped:
        return int(stopped.args[0])
    except (Failure, OSError) as exc:
        print(f'{PROGRAM}: error: {exc}', file=sys.stderr)
        return 2
