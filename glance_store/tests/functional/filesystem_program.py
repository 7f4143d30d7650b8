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

"""Store images by upstream's filesystem driver, and fetch them again.

Run by test_filesystem. It prints, as JSON, the digests of each image as it
was made, as add() tells and as it was fetched.
"""

import contextlib
import hashlib
import importlib
import json
import os
import pathlib
import sys
import threading
from typing import Any
import uuid

import sources  # type: ignore[import-not-found]

BACKEND = 'files'


class Images:
    """Images on their way into a store and out of it, by their numbers."""

    def __init__(self, folder: pathlib.Path, scheduler: str, count: int):
        self._scheduler = scheduler
        self._count = count
        self._folder = folder / 'stored'
        # Imported once the standard library is patched.
        self._utils = importlib.import_module('glance_store.common.utils')
        self._store = open_store(self._folder)
        self._under_way = 0
        self.at_once: list[int] = []

    def run(self, function: Any) -> list[Any]:
        """Call it for all images, and note how many were under way."""
        # Native threads wait for each other; green threads have to yield.
        native = self._scheduler == 'threads'
        barrier = threading.Barrier(self._count) if native else None
        most = 0

        def counting(number: int) -> Any:
            nonlocal most
            self._under_way += 1
            most = max(most, self._under_way)
            if barrier is not None:
                barrier.wait()
            try:
                return function(number)
            finally:
                self._under_way -= 1

        tasks = [(number,) for number in range(self._count)]
        results = sources.at_once(self._scheduler, counting, tasks)
        self.at_once.append(most)
        return list(results)

    def add(self, number: int) -> str:
        content = made(number)
        # An iterable, of which half the sizes are known.
        reader = self._utils.CooperativeReader(
            sources.uneven_chunks(content, number)
        )
        size = len(content) if number % 2 else 0
        name = str(uuid.UUID(int=number))
        return str(self._store.add(name, reader, size, 'sha256')[3])

    def get(self, number: int) -> str:
        location = importlib.import_module('glance_store.location')
        where = location.get_location_from_uri_and_backend(
            f'file://{self._folder / str(uuid.UUID(int=number))}', BACKEND
        )
        digest = hashlib.sha256()
        for chunk in self._utils.cooperative_iter(self._store.get(where)[0]):
            digest.update(chunk)
        return digest.hexdigest()


def made(number: int) -> bytes:
    return bytes(sources.image((2 * number << 20) + 4099, number))


def hubs() -> int:
    """Return the number of hubs, by the descriptor that each holds."""
    found = 0
    for link in pathlib.Path('/proc/self/fd').iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += 'eventpoll' in os.readlink(link)
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


def main(folder: str, scheduler: str, count: str) -> None:
    sources.patch(scheduler)
    images = Images(pathlib.Path(folder), scheduler, int(count))
    originals = [
        hashlib.sha256(made(number)).hexdigest()
        for number in range(int(count))
    ]
    told = images.run(images.add)
    fetched = images.run(images.get)
    answer = {
        'digests': list(zip(originals, told, fetched, strict=True)),
        'at_once': images.at_once,
        'hubs': hubs(),
    }
    print(json.dumps(answer))


if __name__ == '__main__':
    main(*sys.argv[1:])
