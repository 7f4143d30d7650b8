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

"""What test_swift runs where upstream's swift driver is.

It stores images in a cluster and fetches them again, several at once, each
read by the driver from a CooperativeReader over an iterable of uneven chunks.
It prints what became of each, as a line of JSON.
"""

import argparse
from collections.abc import Iterable
import hashlib
import importlib
import json
import os
import pathlib
import signal
import time
from typing import Any
import uuid

import sources  # type: ignore[import-not-found]

# How much of an image arrives before a server is killed.
BEGINNING = 1 << 20

DEADLINE = 60


def in_the_middle(pids: Iterable[int]) -> int | None:
    """Return which of the object servers is sending an object just now.

    It has the file open until the last byte is on its way.
    """
    for pid in pids:
        for link in pathlib.Path(f'/proc/{pid}/fd').iterdir():
            try:
                if os.readlink(link).endswith('.data'):
                    return pid
            except FileNotFoundError:
                continue
    return None


def kill_one(pids: Iterable[int]) -> int:
    end = time.monotonic() + DEADLINE
    while (pid := in_the_middle(pids)) is None:
        if time.monotonic() > end:
            raise TimeoutError('no object server has an object open')
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    return pid


class Images:
    """Upstream's driver, behind the functions that Glance calls."""

    def __init__(self, config: str) -> None:
        # Not before eventlet patched what they import.
        self.backend = importlib.import_module('glance_store.backend')
        self.utils = importlib.import_module('glance_store.common.utils')
        self.swiftclient = importlib.import_module('swiftclient')
        self.conf = importlib.import_module('oslo_config.cfg').CONF
        self.backend.register_opts(self.conf)
        self.conf(['--config-file', config])
        self.backend.create_stores(self.conf)

    def objects_of(self, image_id: str) -> list[str]:
        """Return what the cluster's listing has of an image."""
        options = self.conf.glance_store
        connection = self.swiftclient.Connection(
            options.swift_store_auth_address,
            options.swift_store_user,
            options.swift_store_key,
        )
        try:
            _, listed = connection.get_container(
                options.swift_store_container, prefix=image_id
            )
        finally:
            connection.close()
        return [item['name'] for item in listed]

    def pass_through(
        self, number: int, size: int, known: bool, pids: list[int]
    ) -> dict[str, Any]:
        """Store one image, fetch it and delete it.

        Where there are *pids* of object servers, one of them is killed after
        the beginning of the image was fetched, and nothing deleted: the
        cluster's listings are not what they were then.
        """
        content = sources.image(size, number)
        expected = hashlib.sha256(content).hexdigest()
        checksum = hashlib.md5(content).hexdigest()
        image_id = str(uuid.UUID(int=number))
        chunks = sources.uneven_chunks(content, number)
        reader = self.utils.CooperativeReader(chunks)
        uri, stored, md5, multihash, _ = (
            self.backend.add_to_backend_with_multihash(
                self.conf,
                image_id,
                reader,
                size if known else 0,
                'sha256',
            )
        )
        told = multihash, md5, stored
        del content, reader

        objects = len(self.objects_of(image_id))
        body, length = self.backend.get_from_backend(uri)
        fetched = hashlib.sha256()
        received = 0
        killed = None
        for chunk in self.utils.cooperative_iter(body):
            fetched.update(chunk)
            received += len(chunk)
            if pids and killed is None and received >= BEGINNING:
                killed = kill_one(pids)
        if not pids:
            self.backend.delete_from_backend(uri)
            if left := self.objects_of(image_id):
                raise AssertionError(f'not deleted: {left}')
        return {
            'size': size,
            'expected': expected,
            'md5': checksum,
            'told': told,
            'objects': objects,
            'length': length,
            'received': received,
            'fetched': fetched.hexdigest(),
            'killed': killed,
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    parser.add_argument('scheduler', choices=('eventlet', 'threads'))
    parser.add_argument('--known', type=int, nargs='*', default=[])
    parser.add_argument('--unknown', type=int, nargs='*', default=[])
    parser.add_argument('--kill', type=int, nargs='*', default=[])
    arguments = parser.parse_args()

    sources.patch(arguments.scheduler)
    images = Images(arguments.config)
    sizes = [(size, True) for size in arguments.known]
    sizes += [(size, False) for size in arguments.unknown]
    tasks = [
        (number, size, known, arguments.kill)
        for number, (size, known) in enumerate(sizes, 1)
    ]
    for done in sources.at_once(
        arguments.scheduler, images.pass_through, tasks
    ):
        print(json.dumps(done))


if __name__ == '__main__':
    main()
