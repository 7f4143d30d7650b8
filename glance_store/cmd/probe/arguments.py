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

"""The command line of the probe."""

import argparse
from collections.abc import Callable, Sequence
import itertools
import math
import os
from typing import NoReturn

from glance_store.cmd.probe import advice
from glance_store.cmd.probe import errors
from glance_store.cmd.probe import images
from glance_store.cmd.probe import plot
from glance_store.cmd.probe import watch

# How long each row may take where --seconds does not say so.
SECONDS = 5.0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with status 2 after one line, where argparse writes several."""
        raise errors.Failure(message, status=2)


def _number(
    kind: type[int] | type[float], least: float, most: float
) -> Callable[[str], float]:
    """Return what turns an argument into a number of a kind and range."""
    what = 'whole number' if kind is int else 'number'

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f'{text!r} is not a {what} from {least} to {most}'
            )
        return value

    return parse


def _picture(path: str) -> str:
    """Turn an argument into a path that a picture can be written to."""
    kind = os.path.splitext(path)[1]
    if kind not in ('.png', '.svg'):
        raise argparse.ArgumentTypeError(
            f'{path!r} ends neither in .png nor in .svg'
        )
    folder = os.path.dirname(path) or '.'
    place = path if os.path.exists(path) else folder
    if os.path.isdir(path) or not os.access(place, os.W_OK):
        raise argparse.ArgumentTypeError(f'{path!r} cannot be written')
    return path


def parser() -> argparse.ArgumentParser:
    """Return what reads the arguments, and explains them for ``--help``."""
    answer = _Parser(
        errors.PROGRAM,
        allow_abbrev=False,
        description='Stream image files the way a service does, several at '
        'a time, and measure what everything else in that service feels '
        'meanwhile: how late a heartbeat wakes up that is due every '
        'millisecond. Each row of the table is a way of streaming: as green '
        'threads on an eventlet hub without cooperation, with a yield after '
        'every chunk, with a yield every so many milliseconds, and with reads '
        'in the thread pool of the hub; and on native threads. Then say which '
        'options of [glance_store] suit this storage on this machine. With '
        '--url, ask a service that is running instead, and measure how late '
        'it answers.',
        epilog='How the options are chosen: all rows are measured in turns, '
        'once a round. In one round, a setting is better than another one if '
        'it kept the worst lateness under the target and the other did not; '
        'if both did and its throughput was higher by more than 5 %%; or if '
        'neither did and its worst lateness was less than half as long. Of '
        'the settings that no other was better than in every round, the '
        'simplest is advised: the one with the fewest options changed from '
        'their defaults. '
        'Files are read once before anything is measured, so that those '
        'which fit into memory come from the page cache; not so with --cold. '
        'The exit status is 2 where an argument makes no sense, 1 where '
        'streaming, printing or the service failed, and 128 and the number '
        'of the signal where one ended it: 130 for Ctrl-C.',
    )
    _add_what(answer)
    _add_how(answer)
    _add_reports(answer)
    return answer


def _add_what(group: argparse.ArgumentParser) -> None:
    group.add_argument(
        'files',
        metavar='FILE',
        nargs='*',
        help='an image to stream, a block device, or a folder whose files '
        'are images; without one, an image of 256 MiB is made in a temporary '
        'folder and removed afterwards',
    )
    group.add_argument(
        '--url',
        type=watch.target,
        help='ask this address of a running service every 10 ms, until '
        'Ctrl-C or for --seconds, and show how long the answers took',
    )


def _add_how(group: argparse.ArgumentParser) -> None:
    group.add_argument(
        '--streams',
        metavar='N',
        type=_number(int, 1, 1000),
        default=8,
        help='how many streams run at once (default: %(default)s)',
    )
    group.add_argument(
        '--chunk-size',
        metavar='BYTES',
        type=_number(int, 1, 1024 * images.MIB),
        action='append',
        help='how many bytes each read asks for; may be given several times, '
        f'to compare (default: {advice.DEFAULT_CHUNK_SIZE})',
    )
    group.add_argument(
        '--yield-interval',
        metavar='MILLISECONDS',
        type=_number(float, 0.001, 60000),
        default=1.0,
        help='how long a stream may run between two yields, where it does '
        'not yield after every chunk (default: %(default)g)',
    )
    group.add_argument(
        '--cold',
        action='store_true',
        help='have the page cache forget the files before each row and '
        'round, so that the storage is read',
    )
    group.add_argument(
        '--rounds',
        metavar='N',
        type=_number(int, 1, 100),
        default=5,
        help='how often each row is measured (default: %(default)s)',
    )
    group.add_argument(
        '--seconds',
        metavar='SECONDS',
        type=_number(float, 0.1, 86400),
        help='how long each row may take, all rounds together (default: '
        f'{SECONDS:g}); with --url, how long to ask (default: until Ctrl-C)',
    )
    group.add_argument(
        '--target-lateness',
        metavar='MILLISECONDS',
        type=_number(float, 0.001, 60000),
        default=advice.TARGET * 1000,
        help='how late everything else may be at worst (default: %(default)g)',
    )


def _add_reports(group: argparse.ArgumentParser) -> None:
    group.add_argument(
        '--json',
        action='store_true',
        help='print one JSON document instead of the table',
    )
    group.add_argument(
        '--plot',
        metavar='FILE',
        type=_picture,
        help='draw lateness against throughput for each row, and which '
        'stream ran when, into a .png or .svg file; with --url, how long the '
        f'answers took over time; needs {plot.EXTRA}',
    )
    group.add_argument(
        '--timeline',
        metavar='FILE',
        type=_picture,
        help='draw only which stream ran when, into a file of its own',
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return what the arguments say, as the rest of the probe wants it.

    ``files`` are images, ``chunk_sizes`` has no size twice, and times are in
    seconds.

    :raises Failure: where they make no sense, or a file cannot be read
    """
    reader = parser()
    arguments = reader.parse_args(argv)
    if arguments.url is not None:
        _check_url(reader, arguments)
    elif arguments.seconds is None:
        arguments.seconds = SECONDS
    arguments.files = list(
        itertools.chain.from_iterable(map(images.named, arguments.files))
    )
    arguments.chunk_sizes = list(
        dict.fromkeys(arguments.chunk_size or [advice.DEFAULT_CHUNK_SIZE])
    )
    arguments.interval = arguments.yield_interval / 1000
    arguments.target = arguments.target_lateness / 1000
    return arguments


def _check_url(
    reader: argparse.ArgumentParser, arguments: argparse.Namespace
) -> None:
    """Refuse what asking a service has no use for."""
    if arguments.files:
        raise errors.BadArgument('FILE', 'not allowed with argument --url')
    for name in (
        'streams',
        'chunk_size',
        'yield_interval',
        'cold',
        'rounds',
        'timeline',
    ):
        if getattr(arguments, name) != reader.get_default(name):
            option = f'--{name.replace("_", "-")}'
            raise errors.BadArgument(option, 'not allowed with argument --url')
