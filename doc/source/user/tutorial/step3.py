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

"""Step 3: a store of which the log tells what its streams did."""

import io
import logging
import sys

import step1
import step2

from glance_store.common import utils


class Store(step2.Store):
    """The same, and the log knows each stream by the name of its file."""

    def get(self, name):
        with open(self.path(name), 'rb') as file:
            yield from utils.CooperativeReader(file)


def main():
    logging.basicConfig(stream=sys.stdout, format='%(levelname)s %(message)s')
    with step1.empty_folder() as folder:
        for kind in (step2.Store, Store):
            store = kind(folder)
            store.add('red', io.BytesIO(bytes(150000)))
            # As debug = true does it in the configuration of a service.
            logging.getLogger('glance_store').setLevel(logging.DEBUG)
            step1.serve(store, 'red')
            logging.getLogger('glance_store').setLevel(logging.INFO)
            print()


if __name__ == '__main__':
    main()
