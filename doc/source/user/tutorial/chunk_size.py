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

"""Print how many bytes are read while everything else on the hub waits."""

import io

import eventlet

from glance_store.common import utils

KIB = 1024
IMAGE = bytes(4 * 1024 * KIB)


class Others:
    """Everything else on the hub, with the bytes that it waits for."""

    def __init__(self):
        self.bytes = self.most = 0

    def run(self):
        while True:
            self.most = max(self.most, self.bytes)
            self.bytes = 0
            eventlet.sleep(0)


def download(chunks, others):
    for chunk in chunks:
        others.bytes += len(chunk)


def serve(streams, chunks_of):
    """Download several images at once, and return the longest wait."""
    others = Others()
    waiting = eventlet.spawn(others.run)
    eventlet.sleep(0)
    pool = eventlet.GreenPool()
    for _ in range(streams):
        pool.spawn(download, chunks_of(io.BytesIO(IMAGE)), others)
    pool.waitall()
    eventlet.sleep(0)
    waiting.kill()
    return others.most


def without_yields(size):
    return lambda image: utils.chunkiter(image, size)


def with_yields(size):
    return lambda image: utils.cooperative_iter(utils.chunkiter(image, size))


def row(name, chunks_of):
    waits = [serve(streams, chunks_of) // KIB for streams in (1, 8)]
    print('{:16}{:>7} KiB{:>7} KiB'.format(name, *waits))


def main():
    print('                   1 stream  8 streams')
    row('no yields', without_yields(64 * KIB))
    for size in (1024, 256, 64):
        row(f'{size} KiB chunks', with_yields(size * KIB))


if __name__ == '__main__':
    main()
