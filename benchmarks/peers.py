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

"""The libraries that ours is measured beside.

Each is downloaded from the package index as it was released, pinned and
hashed in peers.txt, and none is installed: they carry one name between them
and hundreds of dependencies that have nothing to do with streaming. From the
one module that matters only the cooperative helpers are run, with the import
statements that these need, so each gets the ``sleep`` that it asks for.
"""

import ast
from collections.abc import Iterator
import functools
import hashlib
import pathlib
import re
import subprocess  # noqa: S404
import sys
import types
from typing import Any
import zipfile

BARE = 'a bare loop'
GLANCE = 'glance 33.0.0'
STORE_4 = 'glance_store 4.8.2'
STORE_5 = 'glance_store 5.5.0'
SWIFT = 'swift 2.37.4'

# The module that has the helpers, and what to run of it.
_HELPERS = {
    'chunkiter',
    'chunkreadable',
    'cooperative_iter',
    'cooperative_read',
    'is_uuid_like',
    'CooperativeReader',
    'MAX_COOP_READER_BUFFER_SIZE',
}
_WANTED = {
    GLANCE: ('glance/common/utils.py', _HELPERS),
    STORE_4: ('glance_store/common/utils.py', _HELPERS),
    STORE_5: ('glance_store/common/utils.py', _HELPERS),
    SWIFT: (
        'swift/common/utils/__init__.py',
        {'ClosingIterator', 'CooperativeIterator', 'close_if_possible'},
    ),
}
_IMPORTS = {'sleep', 'uuid'}

_FOLDER = pathlib.Path(sys.prefix, 'peers')
_PINS = pathlib.Path(__file__).with_name('peers.txt')


@functools.cache
def load(name: str) -> Any:
    """Return the helpers of one peer as the attributes of an object."""
    if name == BARE:
        return _bare()
    project, _, release = name.partition(' ')
    path, names = _WANTED[name]
    wheels = sorted(_FOLDER.glob(f'{project}-{release}-*.whl'))
    if not wheels:
        raise SystemExit(f'{name} is missing: python -m benchmarks.peers')
    with zipfile.ZipFile(wheels[0]) as wheel:
        module = ast.parse(wheel.read(path))
    module.body = [
        node
        for node in module.body
        if not names.isdisjoint(_defines(node))
        or not _IMPORTS.isdisjoint(_imports(node))
    ]
    helpers: dict[str, Any] = {'__name__': name}
    exec(compile(module, f'{name} {path}', 'exec'), helpers)  # noqa: S102
    return types.SimpleNamespace(**helpers)


def _defines(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (t.id for t in node.targets if isinstance(t, ast.Name))


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Try):
        for part in ast.walk(node):
            if isinstance(part, ast.alias):
                yield part.asname or part.name


def _bare() -> Any:
    """Return the limit: what is left where nobody cooperates."""
    return types.SimpleNamespace(
        chunkreadable=lambda fp, size: iter(lambda: fp.read(size), b''),
        cooperative_iter=iter,
        cooperative_read=lambda fp: fp.read,
    )


def fetch() -> None:
    """Download what is not there yet, each release by itself."""
    _FOLDER.mkdir(exist_ok=True)
    have = {_digest(wheel) for wheel in _FOLDER.glob('*.whl')}
    for line in _PINS.read_text().splitlines():
        pin = re.search('sha256:([0-9a-f]{64})', line)
        if pin is not None and pin[1] not in have:
            # pip takes hashes from a file only, and one release of a project
            # at a time.
            subprocess.run(  # noqa: S603
                [
                    *(sys.executable, '-m', 'pip', 'download', '--quiet'),
                    *('--no-deps', '--only-binary', ':all:'),
                    *('--require-hashes', '--dest', str(_FOLDER)),
                    *('--requirement', '/dev/stdin'),
                ],
                input=line,
                text=True,
                check=True,
            )


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == '__main__':
    fetch()
