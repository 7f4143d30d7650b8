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

"""What test_glance_api runs: a Glance API server that streams through us.

Nothing of Glance is changed where it is installed. Before the server starts,
our names take the place of the copies that Glance keeps of them, and what it
answers a download with goes through cooperative_iter.
"""

import importlib
from typing import Any

NAMES = (
    'CooperativeReader',
    'chunkiter',
    'chunkreadable',
    'cooperative_iter',
    'cooperative_read',
)


def main() -> None:
    # First of all: it patches the standard library when it is imported.
    api = importlib.import_module('glance.cmd.api')
    copies = importlib.import_module('glance.common.utils')
    image_data: Any = importlib.import_module('glance.api.v2.image_data')
    ours = importlib.import_module('glance_store.common.utils')
    for name in NAMES:
        if not hasattr(copies, name):
            raise AttributeError(f'Glance has no {name} of its own')
        setattr(copies, name, getattr(ours, name))
    # Of all that module, only the download calls iter: on the image data, for
    # webob to send. To write cooperative_iter there comes to the same.
    image_data.iter = ours.cooperative_iter
    api.main()


if __name__ == '__main__':
    main()
