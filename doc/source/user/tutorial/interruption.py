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

"""Interrupt two downloads by a timeout, and count the chunks of each."""

import io

import eventlet

from glance_store.common import utils

IMAGE = bytes(16 * 65536)


def returns_a_reader(file):
    return utils.CooperativeReader(file)


def is_a_generator(file):
    yield from utils.CooperativeReader(file)  # wrong: it ends early


def download(image):
    """Download an image, in spite of one timeout on the way."""
    chunks = [next(image), next(image)]
    try:
        with eventlet.Timeout(0):
            chunks.append(next(image))
    except eventlet.Timeout:
        pass  # and go on
    return chunks + list(image)


def main():
    for get in (returns_a_reader, is_a_generator):
        chunks = download(get(io.BytesIO(IMAGE)))
        print(f'{get.__name__}: {len(chunks)} of 16 chunks')


if __name__ == '__main__':
    main()
