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

"""Put the helpers into a Glance service at its start, and run glance-api.

``python -m glance_store.common.adoption ARGS`` takes the place of
``glance-api ARGS`` where Glance runs on eventlet. Under a WSGI server,
``glance_store.common.glance_wsgi`` takes the place of ``glance.wsgi.api``.
No file of Glance changes: its copies of the helpers are replaced in memory.
"""

from collections.abc import Callable
from collections.abc import Iterator
import functools
import inspect
import os
import pkgutil
import sys
import sysconfig
from typing import Any
from typing import NoReturn

from oslo_config import cfg
from oslo_log import log as logging

from glance_store.common import offload
from glance_store.common import opts
from glance_store.common import utils

LOG = logging.getLogger(__name__)

# The names to replace, with their signatures in the known releases.
KNOWN = 'known are Glance 28 to 33 with glance_store 4.8 to 5.7'
COPIES = [
    'glance.common.utils:chunkiter(fp, chunk_size=65536)',
    'glance.common.utils:chunkreadable(iter, chunk_size=65536)',
    'glance.common.utils:cooperative_iter(iter)',
    'glance.common.utils:cooperative_read(fd)',
    'glance.common.utils:CooperativeReader(fd)',
    'glance.common.config:load_paste_app(app_name, flavor=None, '
    'conf_file=None)',
    'glance.location:ImageProxy.get_data(self, offset=0, chunk_size=None)',
]
COPIES_ON_EVENTLET = [
    'glance.common.scripts.utils:get_image_data_iter(uri)',
    'glance_store._drivers.filesystem:ChunkedFile(filepath, offset=0, '
    'chunk_size=4096, partial_length=None)',
]

# A program for a new interpreter. There, glance.cmd.api patches the standard
# library by eventlet before the first import of glance_store.
PROGRAM = """import sys; del sys.argv[0]; import glance.cmd.api; \
from glance_store.common import adoption; adoption.serve()"""


class Refusal(RuntimeError):
    """The reason for which a Glance stays as released."""


class _Yielding:
    """Image data that yields to the hub by itself."""


class _Data(_Yielding):
    """Image data behind a cooperative stream, with all its attributes."""

    def __init__(self, data: Any) -> None:
        self._data = data
        if hasattr(data, 'read'):
            self._stream: Any = utils.CooperativeReader(data)
        else:
            self._stream = utils.cooperative_iter(data)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stream)

    def __next__(self) -> Any:
        return next(self._stream)

    def __getattr__(self, name: str) -> Any:
        source = self._stream if name in ('read', 'close') else self._data
        return getattr(source, name)


def _cooperative(get: Any) -> Any:
    """Return *get*, with a yield before each chunk of its answer."""

    @functools.wraps(get)
    def cooperative_get(*args: Any, **kwargs: Any) -> Any:
        data = get(*args, **kwargs)
        as_it_is = (_Yielding, utils.CooperativeReader, str)
        return data if isinstance(data, as_it_is) else _Data(data)

    return cooperative_get


def _chunked_file(released: Any) -> Any:
    """Return a ChunkedFile that yields, and that can offload its reads."""

    class ChunkedFile(released, _Yielding):  # type: ignore[misc]
        fp: Any

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            # The iteration makes the yields, and the reads make none.
            reads = offload.reads_of(self.fp, self.fp.read, lambda: None)
            self.fp = reads or self.fp

        # Glance iterates prefetched and copied images without get_data.
        def __iter__(self) -> Iterator[bytes]:
            return utils.cooperative_iter(super().__iter__())

    return ChunkedFile


def _logged(load_paste_app: Any) -> Any:
    """Return *load_paste_app*, with a line in the log at its call.

    Glance calls it when the log is ready.
    """

    @functools.wraps(load_paste_app)
    def load(*args: Any, **kwargs: Any) -> Any:
        options = cfg.CONF.glance_store
        LOG.info(
            'Glance streams through glance_store.common.utils on %s: %s',
            'eventlet' if _is_on_eventlet() else 'native threads',
            ', '.join(f'{opt.name}={options[opt.name]}' for opt in opts.OPTS),
        )
        return load_paste_app(*args, **kwargs)

    return load


# The names that wrap the released object. A namesake in utils replaces all
# others.
MADE: dict[str, Callable[[Any], Any]] = {
    'ChunkedFile': _chunked_file,
    # Glance streams a cached image through this alone.
    'chunkiter': lambda _: _cooperative(utils.chunkiter),
    'get_data': _cooperative,
    'get_image_data_iter': _cooperative,
    'load_paste_app': _logged,
}


def adopt() -> None:
    """Replace Glance's copies of the helpers, all or none; idempotent.

    The call belongs after ``eventlet.monkey_patch()``, and before Glance loads
    its application.

    :raises Refusal: if Glance lacks a name, or has it with another signature;
        if an upgrade of glance_store replaced the helpers
    """
    if not hasattr(utils, 'cooperation'):
        # An upgrade replaces that module, and leaves this one.
        raise Refusal(
            f'{utils.__file__} is not ours: run glance-store-drop-in again'
        )
    copies: Any = sys.modules.get('glance.common.utils')
    if getattr(copies, 'chunkreadable', None) is utils.chunkreadable:
        return
    names = COPIES + COPIES_ON_EVENTLET if _is_on_eventlet() else COPIES
    for owner, name, released in [_released(copy) for copy in names]:
        made = MADE[name](released) if name in MADE else getattr(utils, name)
        setattr(owner, name, made)


def _released(copy: str) -> tuple[Any, str, Any]:
    module, _, path = copy.partition('(')[0].partition(':')
    parent, _, name = path.rpartition('.')
    try:
        owner = pkgutil.resolve_name(f'{module}:{parent}')
        released = getattr(owner, name)
        signature = str(inspect.signature(released))
        if name == 'ChunkedFile':
            released.__iter__.__code__.co_names.index('fp')
    except (AttributeError, ImportError, TypeError, ValueError) as exc:
        raise Refusal(f'found no {copy}: {exc}; {KNOWN}') from exc
    if not copy.endswith(f'{name}{signature}'):
        raise Refusal(f'found no {copy}, but {name}{signature}; {KNOWN}')
    return owner, name, released


def _is_on_eventlet() -> bool:
    patcher: Any = sys.modules.get('eventlet.patcher')
    return patcher is not None and bool(patcher.is_monkey_patched('socket'))


def serve() -> NoReturn:
    """Adopt, then run ``glance-api``."""
    try:
        adopt()
    except Refusal as exc:
        sys.exit(f'{sys.argv[0]}: error: {exc}')
    sys.exit(pkgutil.resolve_name('glance.cmd.api:main')())


def main() -> NoReturn:
    """Become a ``glance-api`` that adopts, with the same arguments."""
    given = sys.orig_argv
    flags = given[1 : given.index('-m')] if '-m' in given else []
    # Glance finds its configuration files by the name of the script.
    script = os.path.join(sysconfig.get_path('scripts'), 'glance-api')
    command = [sys.executable, *flags, '-P', '-c', PROGRAM, script]
    os.execv(sys.executable, [*command, *sys.argv[1:]])  # noqa: S606


if __name__ == '__main__':
    main()
