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

"""Step 4: how long the others wait, with one option and another."""

import io
import time

from oslo_config import cfg
import step1
import step3

from glance_store.common import utils


class SlowFile(io.FileIO):
    """A file on storage that takes 20 ms over each read."""

    def read(self, size=-1):
        time.sleep(0.02)  # of the native thread: no hub is told
        return super().read(size)


class SlowStore(step3.Store):
    """The same again, on slow storage."""

    def get(self, name):
        with SlowFile(self.path(name)) as file:
            yield from utils.CooperativeReader(file)


def serve(store, **options):
    """Download with these options instead of what they are by default."""
    for name, value in options.items():
        cfg.CONF.set_override(name, value, group='glance_store')
    others = step1.serve(store, 'red', 'blue')
    for name in options:
        cfg.CONF.clear_override(name, group='glance_store')
    return others


def main():
    with step1.empty_folder() as folder:
        store = step3.Store(folder)
        for name in ('red', 'blue'):
            store.add(name, io.BytesIO(bytes(step1.MIB)))

        usual = serve(store)
        print(f'by default: {usual.turns} turns, {usual.longest} bytes')
        small = serve(store, default_chunk_size=4096)
        print(f'small chunks: {small.turns} turns, {small.longest} bytes')
        rare = serve(store, cooperative_yield_interval=0.001)
        print(f'1 ms: fewer turns: {rare.turns < usual.turns}')

        slow = SlowStore(folder)
        waiting = serve(slow)
        print(f'slow storage: {waiting.turns} turns')
        offloaded = serve(slow, offload_file_reads=True)
        more = offloaded.turns > 10 * waiting.turns
        print(f'offloaded: more than ten times as many turns: {more}')


if __name__ == '__main__':
    main()
