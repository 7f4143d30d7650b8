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

A stream reads the options from ``cfg.CONF`` when it is made. All of them are
mutable, and a change applies to later streams.
"""

from collections.abc import Sequence
import math
from typing import Any

from oslo_config import cfg
from oslo_config import types

GROUP = 'glance_store'


class _Seconds(types.Float):
    """A time; the bounds of a plain float let NaN through."""

    def __call__(self, value: Any) -> float | None:
        seconds = super().__call__(value)
        if seconds is not None and math.isnan(seconds):
            raise ValueError('not a number of seconds')
        return seconds


OPTS = [
    cfg.IntOpt(
        'default_chunk_size',
        min=1,
        default=65536,
        mutable=True,
        help="""
Bytes that a chunk holds where the caller names no ``chunk_size``.

A stream yields between two chunks. Larger chunks cost less for each byte, and
everything else on the hub waits longer for each.
""",
    ),
    cfg.Opt(
        'cooperative_yield_interval',
        type=_Seconds(min=0),
        default=0,
        mutable=True,
        help="""
Longest time that streams run between two cooperative yields, in seconds.

0 yields at every chunk. With 0.01, one stream on a hub runs for 10
milliseconds, and ten or more run for 1 millisecond each. The hub runs
everything else after each of them. So everything else waits for the interval
and one chunk at most, with any number of streams. A service with many clients
sets an interval, because each yield costs a look at all their sockets. Threads
without a hub never yield.
""",
    ),
    cfg.BoolOpt(
        'offload_file_reads',
        default=False,
        mutable=True,
        help="""
Read regular files in eventlet's native thread pool where storage is slow.

Each read asks the page cache first. What the page cache holds is read in
place, at almost the speed of a direct read. Everything else is read in the
pool, so that slow storage keeps one stream waiting and not the whole hub.
Sockets and pipes are never offloaded.
""",
    ),
]


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """Return the options and their group, for ``oslo-config-generator``."""
    return [(GROUP, OPTS)]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options with *conf*; idempotent."""
    conf.register_opts(OPTS, group=GROUP)
