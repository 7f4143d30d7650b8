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
import importlib
from importlib import metadata
import os
import signal
import sys
from typing import Any, NoReturn

PROGRAM = 'glance-store-probe'
PACKAGES = 'matplotlib requests rich'  # the extra "probe"

STREAMS = """Stream image files in several ways, and measure the stall: how
long everything else has to wait. Then say what to set. "%(prog)s watch --help"
tells how to ask a running service instead."""
RULE = """The rule: within the target in the 99th percentile at every number
of streams (a fifth and the noise of the machine are allowed on top), then the
best throughput (within 5 % is equal), then the fewest options."""
WATCH = """Ask a running service on a schedule, and measure each answer from
the moment it was due. The service stalls, and the exit status is 1, where the
99th percentile exceeds the fastest tenth by more than the target."""


class Failure(Exception):
    """The line that the probe ends with, at status 2."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Failure(message)


def number(
    least: float,
    most: float,
    convert: Callable[[str], float] = float,
    wanted: str = 'a number from {:g} to {:g}',
) -> Callable[[str], float]:
    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if least <= (value := convert(text)) <= most:
                return value
        expected = f'expected {wanted.format(least, most)}'
        raise argparse.ArgumentTypeError(expected)

    return parse


def in_bytes(text: str) -> int:
    unit = {'k': 1024, 'm': 1024**2}.get(text[-1:].lower(), 1)
    return int(text[:-1] if unit > 1 else text) * unit


def header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(':')
    if not (name and colon and text.isascii()):
        # The text may be secret, and is not repeated.
        raise argparse.ArgumentTypeError('expected NAME:VALUE')
    return name, value.strip()


def picture(text: str) -> str:
    if os.path.splitext(text)[1] not in ('.pdf', '.png', '.svg'):
        raise argparse.ArgumentTypeError('expected a .pdf, .png or .svg')
    if not os.access(os.path.dirname(text) or '.', os.W_OK):
        raise argparse.ArgumentTypeError(f'{text!r} cannot be written')
    return text


MS = number(1, 1000)
SECONDS = number(0.1, 86400)
COUNT = number(1, 1000, int)
SIZE = number(1, 1 << 30, in_bytes, 'a size such as 65536, 64k or 1M')

# Option, its value and type, default (a list: repeatable), and help.
OF_STREAMS: list[tuple[str, str, Callable[[str], Any], Any, str]] = [
    ('--target', 'MS', MS, 10.0, 'limit of the stall, in ms (default: 10)'),
    ('--seconds', 'S', SECONDS, None, 'time for each cell (default: 1)'),
    ('--streams', 'N', COUNT, [], 'how many at once (default: 1, 8 and 64)'),
    ('--chunk-size', 'SIZE', SIZE, 65536, 'bytes of a read (default: 64k)'),
    ('--plot', 'PICTURE', picture, None, 'draw the stall and throughput'),
]
OF_WATCH = [
    ('--target', 'MS', MS, 10.0, 'limit above the fastest (default: 10)'),
    ('--seconds', 'S', SECONDS, 10.0, 'how long to ask (default: 10)'),
    ('--header', 'NAME:VALUE', header, [], 'sent with each request'),
    ('--download', 'URL', str, None, 'an image to download meanwhile'),
    ('--clients', 'N', COUNT, 3, 'that download (default: 3)'),
]


def parse(arguments: list[str]) -> argparse.Namespace:
    watch = arguments[:1] == ['watch']
    parser = Parser(
        f'{PROGRAM} watch' if watch else PROGRAM,
        allow_abbrev=False,
        description=WATCH if watch else STREAMS,
        epilog=None if watch else RULE,
    )
    add = parser.add_argument
    release = metadata.version('glance_store')
    add('--version', action='version', version=release)
    add('--json', action='store_true', help='print one JSON document')
    for name, value, convert, default, text in (
        OF_WATCH if watch else OF_STREAMS
    ):
        action = 'append' if default == [] else 'store'
        form: dict[str, Any] = {
            'metavar': value,
            'type': convert,
            'default': default,
        }
        add(name, action=action, help=text, **form)
    if watch:
        add('url', metavar='URL', help='cheap to answer, as /versions is')
    else:
        text = 'an image, or a folder of them (default: a temporary image)'
        add('files', metavar='FILE|DIR', nargs='*', help=text)
        text = 'drop the files from the page cache before each turn'
        add('--cold', action='store_true', help=text)
    parser.set_defaults(module='probe_watch' if watch else 'probe_report')
    return parser.parse_args(arguments[watch:])


def main() -> int:
    """Be the program, and return its exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        options = parse(sys.argv[1:])
        name = f'glance_store.cmd.{options.module}'
        return int(importlib.import_module(name).run(options))
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as exc:
        checkout = "in a checkout of this library, pip install '.[probe]'"
        line = f'{exc.name} missing: pip install {PACKAGES} (or, {checkout})'
    except (Failure, OSError) as exc:
        line = str(exc)
    print(f'{PROGRAM}: error: {line}', file=sys.stderr)
    return 2
