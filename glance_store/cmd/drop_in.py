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

"""Put these helpers into the glance_store that another Python has.

The modules of ``glance_store.common`` are copied into the folder of the same
name. A service may start at any moment: ``utils.py``, which alone imports the
others, is the last to be replaced, and the first to be put back.
"""

import argparse
from collections.abc import Iterator
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess  # noqa: S404

from glance_store import common

OURS = pathlib.Path(common.__path__[0])
ADDED = sorted(
    path.name
    for path in OURS.glob('*.py')
    if path.name not in ('__init__.py', 'utils.py')
)

# The packages that the modules import from.
PACKAGES = 'oslo.concurrency', 'oslo.config', 'oslo.log'

# For the other Python, with the packages as arguments.
QUESTION = """
from importlib import metadata, util
import json, sys
spec = util.find_spec('glance_store')
missing = [p for p in sys.argv[1:] if not util.find_spec(p.replace('.', '_'))]
print(json.dumps([
    sys.version_info[:2],
    spec and spec.origin, spec and metadata.version('glance_store'), missing,
]))
"""


class Refusal(Exception):
    """The reason why nothing is changed."""


def find(python: str, undoing: bool) -> pathlib.Path:
    """Return the folder ``common`` of the glance_store that *python* has."""
    path = shutil.which(python)
    if path is None:
        raise Refusal('there is no such program')
    command = [os.path.abspath(path), '-E', '-c', QUESTION, *PACKAGES]
    try:
        answer = subprocess.run(  # noqa: S603
            command, cwd='/', capture_output=True, text=True, check=True
        )
        version, origin, release, missing = json.loads(answer.stdout)
    except subprocess.CalledProcessError as exc:
        error = exc.stderr.strip().rpartition('\n')[2]
        raise Refusal(f'it cannot tell what it has: {error}') from exc
    except ValueError as exc:
        raise Refusal('it is no Python') from exc
    if version < [3, 11]:
        raise Refusal('it is older than Python 3.11')
    if origin is None:
        raise Refusal('it has no glance_store')
    folder = pathlib.Path(origin).parent / 'common'
    if undoing:  # which an upgrade does not prevent
        return folder
    numbers = [int(number) for number in re.findall(r'\d+', release)]
    if not [4, 8] <= numbers[:2] <= [5, 7]:
        raise Refusal(f'it has glance_store {release}, not 4.8 to 5.7')
    if missing:
        install = f'{python} -m pip install {" ".join(missing)}'
        raise Refusal(f'it lacks a package: {install}')
    return folder


def put(folder: pathlib.Path, changing: bool) -> Iterator[str]:
    """Put the modules into *folder*, or only report each step."""
    utils, backup = folder / 'utils.py', folder / 'utils.py.released'
    if _is_ours(utils):
        raise Refusal('it has the modules already (--undo removes them)')
    copies = [(utils, backup)]  # first, so that undo takes back any part
    copies += [(OURS / name, folder / name) for name in [*ADDED, 'utils.py']]
    for source, target in copies:
        if changing:
            _copy(source, target, utils)
        yield f'{"replace" if target == utils else "add"} {target}'


def undo(folder: pathlib.Path, changing: bool) -> Iterator[str]:
    """Take the modules out of *folder*, or only report each step."""
    utils, backup = folder / 'utils.py', folder / 'utils.py.released'
    if not backup.exists():
        raise Refusal(f'there is no {backup}')
    # An upgrade of glance_store brings a utils of its own.
    if _is_ours(utils):
        if changing:
            _copy(backup, utils, backup)
        yield f'put back {utils}'
    for path in [*(folder / name for name in ADDED), backup]:
        if changing:
            path.unlink(missing_ok=True)
        yield f'remove {path}'


def _is_ours(utils: pathlib.Path) -> bool:
    return b'glance_store.common import cooperation' in utils.read_bytes()


def _copy(
    source: pathlib.Path, target: pathlib.Path, like: pathlib.Path
) -> None:
    """Copy a file by a rename, with the owner and the mode of *like*."""
    part = target.with_name(f'.{target.name}.part')
    shutil.copy2(source, part)
    status = like.stat()
    os.chown(part, status.st_uid, status.st_gid)
    part.chmod(status.st_mode & 0o7777)
    for cache in target.parent.glob(f'__pycache__/{target.stem}.*.pyc'):
        cache.unlink()  # some installations never compare it with its module
    part.replace(target)


def main(argv: list[str] | None = None) -> int:
    """Run the program, and return its exit status."""
    parser = argparse.ArgumentParser(
        'glance-store-drop-in', allow_abbrev=False, description=__doc__
    )
    example = 'the Python of the service, such as /opt/glance/bin/python'
    parser.add_argument('--python', required=True, help=example)
    flag = functools.partial(parser.add_argument, action='store_true')
    flag('--undo', help='put back what was released')
    flag('--dry-run', help='only tell what would change')
    options = parser.parse_args(argv)
    act = undo if options.undo else put
    steps: list[str] = []
    error = ''
    try:
        # All steps come before the output, which may be closed at any line.
        folder = find(options.python, options.undo)
        steps.extend(act(folder, not options.dry_run))
    except (OSError, Refusal) as exc:
        error = f'{parser.prog}: {options.python}: {exc}\n'
    for step in steps:
        print(step)
    if error:
        parser.exit(2, error)
    return 0
