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

"""A store driver for glance_store that keeps each image in a file."""

import contextlib
import io
import os
import tempfile

import glance_store
from glance_store import capabilities
from glance_store.common import utils
from glance_store import driver
from glance_store import exceptions
from glance_store import location
from oslo_config import cfg


class StoreLocation(location.StoreLocation):
    """The address of an image, such as folder:///srv/images/ID."""

    def process_specs(self):
        self.path = self.specs['path']

    def get_uri(self):
        return f'folder://{self.path}'

    def parse_uri(self, uri):
        self.path = uri.removeprefix('folder://')


class Store(driver.Store):
    """Images, each in a file of one folder."""

    OPTIONS = [cfg.StrOpt('folder_path')]
    _CAPABILITIES = (
        capabilities.BitMasks.RW_ACCESS | capabilities.BitMasks.DRIVER_REUSABLE
    )
    WRITE_CHUNKSIZE = 65536

    def get_schemes(self):
        return ('folder',)

    def get_store_location_class(self):
        return StoreLocation

    def _path(self, image_id):
        group = self.conf[self.backend_group or 'glance_store']
        return os.path.join(group.folder_path, image_id)

    @capabilities.check
    def get(self, location, offset=0, chunk_size=None, context=None):
        size = self.get_size(location)
        file = open(location.store_location.path, 'rb')
        return utils.CooperativeReader(file), size

    def get_size(self, location, context=None):
        try:
            return os.path.getsize(location.store_location.path)
        except FileNotFoundError as exc:
            raise exceptions.NotFound(image=location.image_id) from exc

    @driver.back_compat_add
    @capabilities.check
    def add(
        self,
        image_id,
        image_file,
        image_size,
        hashing_algo,
        context=None,
        verifier=None,
    ):
        path = self._path(image_id)
        if os.path.exists(path):
            raise exceptions.Duplicate(image=image_id)
        written, *digests = self._write(
            path, image_file, hashing_algo, verifier
        )
        if image_size not in (0, written):
            os.unlink(path)
            raise glance_store.Invalid(f'{written} of {image_size} bytes')
        # Glance with several stores reads this, to find the image again.
        metadata = {'store': self.backend_group} if self.backend_group else {}
        return f'folder://{path}', written, *digests, metadata

    def _write(self, path, image_file, hashing_algo, verifier):
        checksum = utils.get_hasher('md5', usedforsecurity=False)
        multihash = utils.get_hasher(hashing_algo, usedforsecurity=False)
        sinks = [checksum.update, multihash.update]
        if verifier:
            sinks.append(verifier.update)
        with contextlib.ExitStack() as undo:
            with open(path, 'wb') as file:
                undo.callback(os.unlink, path)
                sinks.append(file.write)
                for chunk in utils.chunkreadable(
                    image_file, self.WRITE_CHUNKSIZE
                ):
                    for sink in sinks:
                        sink(chunk)
                written = file.tell()
            undo.pop_all()  # the image is complete, and stays
        return written, checksum.hexdigest(), multihash.hexdigest()

    @capabilities.check
    def delete(self, location, context=None):
        self.get_size(location)  # raises NotFound
        os.unlink(location.store_location.path)


def main():
    """Store an image and read it, as Glance does."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(cfg.CONF)
        store.configure()
        cfg.CONF.set_override('folder_path', folder, 'glance_store')
        location.register_scheme_map(
            {
                'folder': {
                    'store': store,
                    'location_class': StoreLocation,
                    'store_entry': 'folder',
                }
            }
        )
        # Glance gives a driver a reader that yields.
        upload = utils.CooperativeReader(io.BytesIO(bytes(1000000)))
        uri, size, *_ = glance_store.add_to_backend_with_multihash(
            cfg.CONF, 'red', upload, 1000000, 'sha512', 'folder'
        )
        print(f'added {uri.replace(folder, "/srv/images")}: {size} bytes')
        image, size = glance_store.get_from_backend(uri)
        chunks = [len(chunk) for chunk in image]
        image.close()
        print(f'read {sum(chunks)} of {size} bytes')
        print(f'in {len(chunks)} chunks of at most {max(chunks)} bytes')
        glance_store.delete_from_backend(uri)


if __name__ == '__main__':
    main()
