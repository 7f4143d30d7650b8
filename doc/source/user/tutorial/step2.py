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

"""Step 2: a store that lets others run between two chunks."""

import io

import step1

from glance_store.common import utils


class Store(step1.Store):
    """Images, each in a file of its own, that go by without a stall."""

    def add(self, name, image):
        return super().add(name, utils.CooperativeReader(image))

    def get(self, name):
        return utils.cooperative_iter(super().get(name))


def main():
    with step1.empty_folder() as folder:
        store = Store(folder)
        for name in ('red', 'blue'):
            store.add(name, io.BytesIO(bytes(step1.MIB)))
        others = step1.serve(store, 'red', 'blue')
        print(f'the others waited while {others.longest} bytes were read')


if __name__ == '__main__':
    main()
