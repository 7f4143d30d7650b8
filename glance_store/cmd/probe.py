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
from collections.abc import Callable
import contextlib
import functools
import importlib
import operator
import os
import re
import signal
import sys
from typing import Any, NoReturn

PROGRAM = 'glance-store-probe'
PACKAGES = ('matplotlib', 'requests', 'rich')  # the extra "probe"

CHUNK_SIZE = 65536  # the default of [glance_store] default_chunk_size

STREAMS = """Stream image files in several ways, and measure the stall: how
long everything else has to wait. Then say what to set. "%(prog)s watch --help"
tells how to ask a running service instead."""
RULE = """The rule: within the target in the 99th percentile at every number
of streams (a fifth and the noise of the machine are allowed on top), then the
best throughput (within 5 % is equal), then the fewest options."""
WATCH = """Ask a running service on a schedule, and measure each answer from
the moment it was due. The service stalls, and the exit status is 1, where the
99th percentile exceeds the fastest tenth by more than the target."""
SECONDS = 'time for each cell of the table (default: 1)'


class Failure(Exception):
    """The line that the probe ends with, at status 2."""


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

    add = parser.add_argument
    flag = functools.partial(add, action='store_true')
    flag('--version', help='print the release')
    flag('--json', help='print one JSON document')
    ms = number(float, 1, 1000)
    text = 'limit of the stall, in ms (default: 10)'
    add('--target', metavar='MS', type=ms, default=10.0, help=text)
    text = 'how long to ask (default: 10)' if watch else SECONDS
    time = number(float, 0.1, 86400)
    add('--seconds', metavar='S', type=time, help=text)
    count = functools.partial(add, metavar='N', type=number(int, 1, 1000))
    if watch:
        text = 'what to ask: cheap to answer, as /versions is'
        add('url', metavar='URL', type=url, help=text)
        text = 'sent with each request; repeatable'
        form = 'NAME:VALUE'
        parser.set_defaults(header=[])
        add('--header', metavar=form, type=header, action='append', help=text)
        text = 'an image that clients download meanwhile'
        add('--download', metavar='URL', type=url, help=text)
        count('--clients', default=3, help='that download (default: 3)')
        return parser
    text = 'an image, or a folder of images (default: a temporary image)'
    add('files', metavar='FILE|DIR', nargs='*', help=text)
    text = 'how many run at once; repeatable (default: 1, 8 and 64)'
    count('--streams', action='append', help=text)
    text = 'bytes of a read, such as 64k or 1M (default: 64k)'
    form = 'SIZE'
    add('--chunk-size', metavar=form, type=size, default=CHUNK_SIZE, help=text)
    flag('--cold', help='drop the files from the page cache before each turn')
    text = 'draw the stall against the throughput (.pdf, .png or .svg)'
    add('--plot', metavar='PICTURE', type=picture, help=text)
    return parser


def stop(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough
    raise Stopped(128 + number)


def need(*packages: str) -> None:
    find = importlib.import_module('importlib.util').find_spec
    if missing := [name for name in packages if not find(name)]:
        raise Failure(
            f'{" and ".join(missing)} missing: pip install '
            f'{" ".join(PACKAGES)} (or, in a checkout of this library, '
            "pip install '.[probe]')"
        )


def run(arguments: list[str]) -> int:
    if '--version' in arguments:
        metadata = importlib.import_module('importlib.metadata')
        print(metadata.version('glance_store'))
        return 0
    watch = arguments[:1] == ['watch']
    options = parser_of(watch).parse_args(arguments[watch:])
    need('rich', *['requests'] * watch)
    if not watch and options.plot:
        need('matplotlib')
        if not os.access(os.path.dirname(options.plot) or '.', os.W_OK):
            raise Failure(f'--plot: {options.plot!r} cannot be written')
    # A heavy import, and Ctrl-C is quiet from here on only.
    name = 'probe_watch' if watch else 'probe_report'
    return int(
        importlib.import_module(f'glance_store.cmd.{name}').run(options)
    )


def main(argv: list[str] | None = None) -> int:
    """Be the program, and return its exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        return run(sys.argv[1:] if argv is None else argv)
    except Stopped as stopped:
        return int(stopped.args[0])
    except (Failure, OSError) as exc:
        print(f'{PROGRAM}: error: {exc}', file=sys.stderr)
        return 2
