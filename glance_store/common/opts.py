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

"""The options of group ``[glance_store]``.

Streams read them from ``cfg.CONF`` when they are made, so a change (they are
mutable) is seen by the next stream and by none that is already under way.
"""

from collections.abc import Sequence
from typing import Any

from oslo_config import cfg
from oslo_config import types


class Size(types.Integer):
    """A number of bytes; unlike any other integer it is never empty."""

    def __call__(self, value: Any) -> Any:
        # Not bool, which is an int, nor a float, which would lose its point.
        fits = type(value) in (str, int)
        size = super().__call__(value) if fits else None
        if size is None:
            raise ValueError(f'{value!r} is not a number of bytes')
        return size


class Seconds(types.Float):
    """A time; unlike any other float it is a number, NaN is none."""

    def __call__(self, value: Any) -> Any:
        seconds = super().__call__(value)
        if seconds is None or seconds != seconds:
            raise ValueError(f'{value!r} is not a number of seconds')
        return seconds


GROUP = 'glance_store'

OPTS = [
    cfg.Opt(
        'default_chunk_size',
        type=Size(min=1),
        default=65536,
        mutable=True,
        help="""
How many bytes a chunk holds where the caller names no ``chunk_size``.

Small chunks make a stream yield often and cost more for each byte; large
ones are cheaper, and keep everything else on the hub waiting for longer.
""",
    ),
    cfg.Opt(
        'cooperative_yield_interval',
        type=Seconds(min=0),
        default=0,
        mutable=True,
        help="""
How long a stream may run between two cooperative yields, in seconds.

0 yields after every chunk, which is the fairest. With 0.001 a stream keeps
the hub for up to a millisecond and saves most of what yielding costs. The
interval is each stream's own: with many streams at once, a green thread may
wait for as many intervals as there are streams. Threads without a hub do not
yield, whatever this option says.
""",
    ),
    cfg.BoolOpt(
        'offload_file_reads',
        default=False,
        mutable=True,
        help="""
Read regular files in eventlet's native thread pool.

Slow storage, such as a busy network file system, then keeps only the stream
that reads from it waiting, and not everything else on the hub. On fast
storage each read costs much more than it would without. Sockets and pipes
are never read this way, and threads without a hub read as they always do.
""",
    ),
]


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """Return the options and their group, for the sample generator."""
    return [(GROUP, OPTS)]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Make the options known to *conf*; once or often is the same."""
    conf.register_opts(OPTS, group=GROUP)
