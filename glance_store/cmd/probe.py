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
import contextlib
import importlib
import json
import os
import re
import signal
import sys
from typing import Any, NoReturn

PROGRAM = 'glance-store-probe'
MISSING = """{} missing: pip install matplotlib requests rich \
(or, in a checkout of this library, pip install '.[probe]')"""

STREAMS = """Stream image files in several ways, and measure the stall: how
long everything else has to wait. Then say what to set. The rule: within the
target in the 99th percentile at every number of streams (a fifth and the noise
of the machine are allowed on top), then offloaded reads if they shorten the
longest stall by a quarter of the target, then the best throughput (within 5 %
is equal), then the fewest options. The command "glance-store-probe watch
--help" tells how to ask a running service instead."""
WATCH = """Ask a running service on a schedule, and measure each answer from
the moment it was due. The service stalls, and the exit status is 1, where the
99th percentile exceeds the fastest tenth by more than the target. A person
notices a delay of 100 ms, the default."""


class Failure(Exception):
    """The line that the probe ends with, at status 2."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Failure(message)


def checked(expected: str, convert: Any, is_valid: Any) -> Any:
    """Return a type of argparse that does not repeat what may be secret."""

    def parse(text: str) -> Any:
        with contextlib.suppress(ValueError):
            if is_valid(value := convert(text)):
                return value
        raise argparse.ArgumentTypeError(f'expected {expected}')

    return parse


def number(least: float, most: float, convert: Any = float) -> Any:
    expected = f'a number from {least:g} to {most:g}'
    return checked(expected, convert, lambda value: least <= value <= most)


def size(text: str) -> int:
    unit = {'k': 1024, 'm': 1024**2}.get(text[-1:].lower(), 1)
    return int(text[:-1] if unit > 1 else text) * unit


def is_picture(path: str) -> bool:
    can_be_written = os.access(os.path.dirname(path) or '.', os.W_OK)
    return can_be_written and path.endswith(('.pdf', '.png', '.svg'))


MS = number(1, 1000)
SECONDS = number(0.1, 86400)
COUNT = number(1, 1000, int)
SIZE = checked('a size such as 64k or 1M', size, lambda n: 0 < n <= 1 << 30)
PICTURE = checked('a .pdf, .png or .svg that can be written', str, is_picture)
HEADER_LINE = re.compile('([!-9;-~]+): *([ -~]+)')
HEADER = checked('NAME:VALUE', HEADER_LINE.fullmatch, bool)

# Option, its value and type, default (a list: repeatable), and help.
OF_STREAMS: list[Any] = [
    ('--target', 'MS', MS, 10.0, 'limit of the stall, in ms (default: 10)'),
    ('--seconds', 'S', SECONDS, None, 'time for each cell (default: 1)'),
    ('--streams', 'N', COUNT, [], 'how many at once (default: 1, 8 and 64)'),
    ('--chunk-size', 'SIZE', SIZE, 65536, 'bytes of a read (default: 64k)'),
    ('--plot', 'PICTURE', PICTURE, None, 'draw the stall and throughput'),
]
OF_WATCH: list[Any] = [
    ('--target', 'MS', MS, 100.0, 'limit above the fastest (default: 100)'),
    ('--seconds', 'S', SECONDS, 10.0, 'how long to ask (default: 10)'),
    ('--header', 'NAME:VALUE', HEADER, [], 'sent with each request'),
    ('--download', 'URL', str, None, 'an image to download meanwhile'),
    ('--clients', 'N', COUNT, 3, 'that download (default: 3)'),
]


def parse(arguments: list[str]) -> argparse.Namespace:
    watch = arguments[:1] == ['watch']
    text, table = (WATCH, OF_WATCH) if watch else (STREAMS, OF_STREAMS)
    program = f'{PROGRAM} watch' if watch else PROGRAM
    parser = Parser(program, allow_abbrev=False, description=text)
    add: Any = parser.add_argument
    # Imported here, where Ctrl-C shows no traceback any more.
    version = importlib.import_module('importlib.metadata').version
    add('--version', action='version', version=version('glance_store'))
    add('--json', action='store_true', help='print one JSON document')
    for name, value, convert, default, text in table:
        action = 'append' if default == [] else 'store'
        form = {'metavar': value, 'type': convert, 'default': default}
        add(name, action=action, help=text, **form)
    if watch:
        add('url', metavar='URL', help='cheap to answer, as /versions is')
    else:
        text = 'an image, or a folder of them (default: a temporary image)'
        add('files', metavar='FILE|DIR', nargs='*', help=text)
        text = 'drop the files from the page cache before each turn'
        add('--cold', action='store_true', help=text)
    parser.set_defaults(module='probe_watch' if watch else 'probe_streams')
    return parser.parse_args(arguments[watch:])


def main() -> int:
    """Be the program, and return its exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        options = parse(sys.argv[1:])
        module = importlib.import_module(f'glance_store.cmd.{options.module}')
        seen = module.run(options)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # head leaves early
        if options.json:
            print(json.dumps({'version': 1, **seen}, indent=2, default=vars))
        else:
            module.show(seen)
        return int(seen.get('stalls', False))
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as exc:
        line = MISSING.format(exc.name)
    except (EOFError, ConnectionError) as exc:
        line = f'a process was lost, for lack of memory perhaps: {exc!r}'
    except (Failure, OSError) as exc:
        line = str(exc)
    print(f'{PROGRAM}: error: {line}', file=sys.stderr)
    return 2
