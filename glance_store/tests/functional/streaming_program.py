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

"""What test_streaming runs where requests and boto3 are.

It uploads images from all kinds of sources, through our helpers, and prints
what it uploaded, as a line of JSON each.
"""

import argparse
import contextlib
import hashlib
import importlib
import json
import tempfile
from typing import Any
import uuid

import sources  # type: ignore[import-not-found]

PART = 5 << 20
SIZES = 0, 1, 65536, 3 * 65536 + 1, 3_000_000
LARGE = 2 * PART + 1

GROUP = 'glance_store'
BUCKET = 'images'
CREDENTIALS = {
    'aws_access_key_id': 'functional',
    'aws_secret_access_key': 'testing',
    'region_name': 'us-east-1',
}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Uploads:
    """Upload images, each under its name, to a server."""

    def __init__(self, url: str) -> None:
        # Not before eventlet patched what they import.
        self.utils = importlib.import_module('glance_store.common.utils')
        self.conf = importlib.import_module('oslo_config.cfg').CONF
        self.url = url

    def tasks(self) -> list[tuple[Any, ...]]:
        """Return the arguments of all the calls of :meth:`upload`."""
        raise NotImplementedError

    def upload(self, *task: Any) -> dict[str, Any]:
        """Upload one image, and tell what there is to know of it."""
        raise NotImplementedError


class Requests(Uploads):
    """Upload with requests, with and without a length."""

    def tasks(self) -> list[tuple[Any, ...]]:
        kinds = {
            'file': (self.file, True),
            'offloaded': (self.offloaded_file, True),
            'iterable': (self.iterable, True),
            'socket': (self.socket, True),
            'iterator': (self.iterator, False),
            'parts': (self.parts, False),
        }
        return [
            (kind, source, size, known)
            for kind, (source, may_be_known) in kinds.items()
            for size in SIZES
            for known in (False, True)[: 1 + may_be_known]
        ]

    def upload(self, *task: Any) -> dict[str, Any]:
        kind, source, size, known = task
        requests = importlib.import_module('requests')
        content = sources.image(size, size)
        name = f'{kind}-{size}-{known}'
        with source(content) as body:
            if known:
                body.len = size
            answer = requests.put(f'{self.url}/{name}', data=body, timeout=30)
        answer.raise_for_status()
        return {
            'name': name,
            'kind': kind,
            'size': size,
            'known': known,
            'digest': digest(content),
        }

    @contextlib.contextmanager
    def file(self, content: bytes, offload: bool = False) -> Any:
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.seek(0)
            # No other green thread runs before the reader is made.
            self.conf.set_override('offload_file_reads', offload, GROUP)
            yield self.utils.CooperativeReader(file)

    def offloaded_file(self, content: bytes) -> Any:
        return self.file(content, offload=True)

    @contextlib.contextmanager
    def iterable(self, content: bytes) -> Any:
        yield self.utils.CooperativeReader(sources.uneven_chunks(content))

    @contextlib.contextmanager
    def socket(self, content: bytes) -> Any:
        with sources.short_reads(content) as file:
            yield self.utils.CooperativeReader(file)

    @contextlib.contextmanager
    def iterator(self, content: bytes) -> Any:
        yield self.utils.cooperative_iter(sources.uneven_chunks(content))

    @contextlib.contextmanager
    def parts(self, content: bytes) -> Any:
        with sources.short_reads(content) as file:
            yield self.utils.chunkreadable(file)


class S3(Uploads):
    """Upload in parts with boto3."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        boto3 = importlib.import_module('boto3')
        self.client = boto3.client('s3', endpoint_url=url, **CREDENTIALS)
        self.client.create_bucket(Bucket=BUCKET)

    def tasks(self) -> list[tuple[Any, ...]]:
        return [(f'image-{number}',) for number in range(3)]

    def upload(self, *task: Any) -> dict[str, Any]:
        (name,) = task
        content = sources.image(LARGE, name)
        self.transfer(name, sources.uneven_chunks(content))
        stored = self.client.get_object(Bucket=BUCKET, Key=name)['Body'].read()
        return {
            'name': name,
            'size': LARGE,
            'parts': self.parts_of(name),
            'stored': digest(stored),
            'digest': digest(content),
        }

    def parts_of(self, name: str) -> list[int]:
        """Return the sizes of what the server made an object of."""
        asked = {'Bucket': BUCKET, 'Key': name}
        first = self.client.head_object(PartNumber=1, **asked)
        others = [
            self.client.head_object(PartNumber=number, **asked)
            for number in range(2, first['PartsCount'] + 1)
        ]
        return [part['ContentLength'] for part in (first, *others)]

    def transfer(self, name: str, chunks: Any) -> None:
        transfer = importlib.import_module('boto3.s3.transfer')
        self.client.upload_fileobj(
            self.utils.CooperativeReader(chunks),
            BUCKET,
            name,
            Config=transfer.TransferConfig(
                multipart_threshold=PART, multipart_chunksize=PART
            ),
        )


class Driver(S3):
    """Upload with upstream's driver for S3, and fetch with it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.backend = importlib.import_module('glance_store.backend')
        self.backend.register_opts(self.conf)
        self.conf([])
        options = {
            'stores': ['s3'],
            'default_store': 's3',
            's3_store_host': url,
            's3_store_access_key': CREDENTIALS['aws_access_key_id'],
            's3_store_secret_key': CREDENTIALS['aws_secret_access_key'],
            's3_store_region_name': CREDENTIALS['region_name'],
            's3_store_bucket': BUCKET,
            's3_store_bucket_url_format': 'path',
            's3_store_large_object_size': LARGE >> 20,
            's3_store_large_object_chunk_size': PART >> 20,
        }
        for name, value in options.items():
            self.conf.set_override(name, value, GROUP)
        self.backend.create_stores(self.conf)

    def tasks(self) -> list[tuple[Any, ...]]:
        return [(number,) for number in range(1, 4)]

    def upload(self, *task: Any) -> dict[str, Any]:
        (number,) = task
        name = str(uuid.UUID(int=number))
        content = sources.image(LARGE, number)
        with sources.short_reads(content) as file:
            uri, stored, *told, _ = self.backend.add_to_backend_with_multihash(
                self.conf,
                name,
                self.utils.CooperativeReader(file),
                LARGE,
                'sha256',
            )
        body, size = self.backend.get_from_backend(uri)
        fetched = b''.join(self.utils.cooperative_iter(body))
        return {
            'name': name,
            'size': LARGE,
            'parts': self.parts_of(name),
            'stored': digest(fetched),
            'digest': digest(content),
            'told': [stored, *told, int(size)],
            'md5': hashlib.md5(content).hexdigest(),
        }


def main() -> None:
    kinds = {'requests': Requests, 's3': S3, 'driver': Driver}
    parser = argparse.ArgumentParser()
    parser.add_argument('kind', choices=kinds)
    parser.add_argument('scheduler', choices=('eventlet', 'threads'))
    parser.add_argument('url')
    arguments = parser.parse_args()

    sources.patch(arguments.scheduler)
    uploads = kinds[arguments.kind](arguments.url)
    for done in sources.at_once(
        arguments.scheduler, uploads.upload, uploads.tasks()
    ):
        print(json.dumps(done))


if __name__ == '__main__':
    main()
