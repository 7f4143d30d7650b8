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

"""What test_filesystem runs where upstream's filesystem driver is.

It stores images in a folder and fetches them again, all at once, and prints
as JSON what became of each.
"""

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import pathlib
import threading
from typing import Any
import uuid

import sources  # type: ignore[import-not-found]

BACKEND = 'files'
MIB = 1 << 20


class Images:
    """Images on their way into a store and out of it, by their numbers."""

    def __init__(self, folder: pathlib.Path, scheduler: str, count: int):
        self.scheduler = scheduler
        self.numbers = range(count)
        self.folder = folder / 'stored'
        self._sources = folder / 'sources'
        self._sources.mkdir()
        # Whoever imports these modules has to be patched before.
        self._utils = importlib.import_module('glance_store.common.utils')
        self._store = open_store(self.folder)
        # Native threads wait for each other. Green threads are to run at once
        # because the helpers yield, and for no other reason.
        self._barrier = None
        if scheduler == 'native':
            self._barrier = threading.Barrier(count)
        self._under_way = 0
        self.at_once = 0
        self.hubs = 0

    def run(self, function: Any) -> Any:
        """Call it for all images, and note how many are under way."""

        def counting(number: int) -> Any:
            self._under_way += 1
            self.at_once = max(self.at_once, self._under_way)
            if self._barrier is not None:
                self._barrier.wait()
            try:
                return function(number)
            finally:
                self._under_way -= 1
                self.hubs = max(self.hubs, hubs())

        self.at_once = 0
        tasks = [(number,) for number in self.numbers]
        results = sources.at_once(self.scheduler, counting, tasks)
        return {'images': results, 'at_once': self.at_once}

    def make(self, number: int) -> dict[str, Any]:
        content = sources.image(2 * number * MIB + 4099, number)
        (self._sources / str(number)).write_bytes(content)
        return digests(len(content), content)

    def add(self, number: int) -> dict[str, Any]:
        path = self._sources / str(number)
        # Half of them come as files, half as iterables, and half with a size.
        as_file = number % 2
        size = path.stat().st_size if number % 4 < 2 else 0
        with path.open('rb') as file:
            reader = self._utils.CooperativeReader(
                file if as_file else sources.uneven_chunks(file.read(), number)
            )
            _, size, checksum, multihash, _ = self._store.add(
                str(uuid.UUID(int=number)), reader, size, 'sha512'
            )
        return {'size': size, 'md5': checksum, 'sha512': multihash}

    def get(self, number: int) -> dict[str, Any]:
        location = importlib.import_module('glance_store.location')
        where = location.get_location_from_uri_and_backend(
            f'file://{self._stored(number)}', BACKEND
        )
        chunks, size = self._store.get(where)
        return digests(size, *self._utils.cooperative_iter(chunks))

    def look(self, number: int) -> dict[str, Any]:
        path = self._stored(number)
        return digests(path.stat().st_size, path.read_bytes())

    def _stored(self, number: int) -> pathlib.Path:
        return self.folder / str(uuid.UUID(int=number))


def digests(size: int, *chunks: bytes) -> dict[str, Any]:
    result: dict[str, Any] = {'size': size}
    for name in ('md5', 'sha512'):
        hasher = hashlib.new(name)
        for chunk in chunks:
            hasher.update(chunk)
        result[name] = hasher.hexdigest()
    return result


def hubs() -> int:
    """Return how many hubs there are, by the descriptor that each holds."""
    found = 0
    for descriptor in os.listdir('/proc/self/fd'):
        with contextlib.suppress(FileNotFoundError):
            found += 'eventpoll' in os.readlink(f'/proc/self/fd/{descriptor}')
    return found


def open_store(folder: pathlib.Path) -> Any:
    """Return a filesystem driver, configured as Glance does it."""
    glance_store = importlib.import_module('glance_store')
    cfg = importlib.import_module('oslo_config.cfg')
    conf = cfg.CONF
    conf.register_opts([cfg.DictOpt('enabled_backends')])
    conf([], project='glance', default_config_files=[])
    conf.set_override('enabled_backends', {BACKEND: 'file'})
    glance_store.register_store_opts(conf)
    conf.set_override('default_backend', BACKEND, group='glance_store')
    conf.set_override('filesystem_store_datadir', str(folder), group=BACKEND)
    glance_store.create_multi_stores(conf)
    return glance_store.get_store_from_store_identifier(BACKEND)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('folder', type=pathlib.Path)
    parser.add_argument('scheduler', choices=('eventlet', 'native'))
    parser.add_argument('count', type=int)
    arguments = parser.parse_args()
    sources.patch(arguments.scheduler)
    images = Images(arguments.folder, arguments.scheduler, arguments.count)
    answer: dict[str, Any] = {
        'made': [images.make(number) for number in images.numbers],
        'added': images.run(images.add),
        'fetched': images.run(images.get),
        'stored': [images.look(number) for number in images.numbers],
    }
    answer['files'] = sorted(path.name for path in images.folder.iterdir())
    answer['hubs'] = images.hubs
    print(json.dumps(answer))


if __name__ == '__main__':
    main()
