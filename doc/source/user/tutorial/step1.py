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

"""Step 1: a store that reads images in chunks."""

import contextlib
import hashlib
import io
import os
import tempfile

import eventlet

from glance_store.common import utils

MIB = 1024 * 1024


class Store:
    """Images, each in a file of its own."""

    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def add(self, name, image):
        """Store an image, and return its size and its checksum."""
        size = 0
        checksum = hashlib.sha256()
        with open(self.path(name), 'wb') as file:
            for chunk in utils.chunkreadable(image):
                size += file.write(chunk)
                checksum.update(chunk)
        return size, checksum.hexdigest()

    def get(self, name):
        """Return an iterator over the chunks of an image."""
        with open(self.path(name), 'rb') as file:
            yield from utils.chunkiter(file)


class Others:
    """Whatever else runs on the hub, and how long it has to wait."""

    def __init__(self):
        self.turns = 0
        self.waiting = 0
        self.longest = 0

    def run(self):
        while True:
            self.turns += 1
            self.longest = max(self.longest, self.waiting)
            self.waiting = 0
            eventlet.sleep(0)


def download(store, name, others):
    for chunk in store.get(name):
        others.waiting += len(chunk)


def serve(store, *names):
    """Download all of these at once, and return what others had of it."""
    others = Others()
    green_thread = eventlet.spawn(others.run)
    eventlet.sleep(0)
    downloads = [eventlet.spawn(download, store, n, others) for n in names]
    for each in downloads:
        each.wait()
    eventlet.sleep(0)
    green_thread.kill()
    return others


@contextlib.contextmanager
def empty_folder():
    """Make a folder, and work there as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.mkdir('images')
        yield 'images'


def main():
    with empty_folder() as folder:
        store = Store(folder)
        for name in ('red', 'blue'):
            size, checksum = store.add(name, io.BytesIO(bytes(MIB)))
            print(f'stored {name}: {size} bytes, sha256 {checksum[:8]}...')
        sizes = [len(chunk) for chunk in store.get('red')]
        print(f'red comes in {len(sizes)} chunks of {max(sizes)} bytes')
        others = serve(store, 'red', 'blue')
        print(f'the others waited while {others.longest} bytes were read')


if __name__ == '__main__':
    main()
