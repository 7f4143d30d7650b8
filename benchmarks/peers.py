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


"""The libraries to compare with, as they were released.

Each is downloaded from the package index, and none is installed: two have one
name, and all have hundreds of dependencies. Of the one module that matters,
only the cooperative helpers run, with the import statements that these need,
so that each gets the ``sleep`` it asks for.
"""

import ast
import pathlib
import re
import subprocess  # noqa: S404
import sys
import types
from typing import Any
import zipfile

GLANCE = 'glance 33.0.0'
STORE_4 = 'glance_store 4.8.2'
STORE_5 = 'glance_store 5.5.0'

_WANTED = re.compile(
    r'def (chunkiter|cooperative_\w+|is_uuid_like)\b|class CooperativeRead|'
    r'MAX_COOP_READER_BUFFER_SIZE|(try:|from|import)[^.]* (sleep|uuid)\b'
).match
_FOLDER = pathlib.Path(sys.prefix, 'peers')


def load(name: str) -> Any:
    """Return the helpers of one peer as the attributes of an object."""
    project, release = name.split()
    (path,) = _FOLDER.glob(f'{project}-{release}-*.whl')
    with zipfile.ZipFile(path) as wheel:
        module = ast.parse(wheel.read(f'{project}/common/utils.py'))
    module.body = [node for node in module.body if _WANTED(ast.unparse(node))]
    helpers: dict[str, Any] = {'__name__': name}
    exec(compile(module, name, 'exec'), helpers)  # noqa: S102
    return types.SimpleNamespace(**helpers)


def fetch() -> None:
    """Download what is not there yet into the environment's folder."""
    pins = pathlib.Path(__file__).with_name('peers.txt').read_text()
    for pin in pins.splitlines():
        project, _, release = pin.split()[0].partition('==')
        if any(_FOLDER.glob(f'{project}-{release}-*.whl')):
            continue
        # pip takes hashes from a file only, and one release of a project.
        command = [sys.executable, '-m', 'pip', 'download', '--quiet']
        command += ['--no-deps', '--only-binary', ':all:', '--require-hashes']
        command += ['--dest', str(_FOLDER), '--requirement', '/dev/stdin']
        subprocess.run(command, input=pin, text=True, check=True)  # noqa: S603


if __name__ == '__main__':
    fetch()
