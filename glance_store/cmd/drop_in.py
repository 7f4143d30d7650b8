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

"""Put these helpers into another glance_store: glance-store-drop-in.

The modules are copied over the folder ``common`` of a glance_store that is
installed somewhere else, and the module ``utils`` there is replaced. What was
there is kept in a folder beside the package, and ``--undo`` puts it back.

How a run may be interrupted at any moment, and a service be started meanwhile:

*The record comes first.* All that is to be kept, and a list of what is there
and of what will be there, is complete on the disk under its name before the
first module is touched. Whoever finds it can go on, or back.

*The old module goes last*, and comes back first. The others are new names
that only the new ``utils`` imports, so whatever is imported in between works.

*No file is written in place.* Each is written under another name and renamed,
so that nobody ever finds a part of one.
"""

import argparse
from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess  # noqa: S404
import sys
from typing import Any, NoReturn

from glance_store import common

PROGRAM = 'glance-store-drop-in'

OURS = pathlib.Path(common.__path__[0])

# The releases of glance_store whose drivers take these modules for their own.
OLDEST = (4, 8)
NEWEST = (5, 7)

# What these modules are written for.
OLDEST_PYTHON = (3, 11)

# The module that is there already, and imports the others.
REPLACED = 'utils'

# What is kept of the package is in a folder of this name beside it. A folder
# with the second name is on its way there, or gone already.
KEPT = 'glance_store.drop-in'
GARBAGE = f'{KEPT}.tmp'
RECORD = 'record.json'

# How long the other Python may take to import glance_store, in seconds.
PATIENCE = 300

# What the other Python is asked, the folder of our modules being its argument.
# It imports its own glance_store, then ours from where we are, and so tells
# which modules that takes and whether it has all that they need.
QUESTION = """
import sys
sys.path = [path for path in sys.path if path]
import importlib
import importlib.metadata
import importlib.util
import json

spec = importlib.util.find_spec('glance_store')
facts = {'python': sys.version_info[:2], 'origin': spec and spec.origin}
try:
    distribution = importlib.metadata.distribution('glance_store')
    facts['version'] = distribution.version
    facts['located'] = str(distribution.locate_file('glance_store'))
    common = importlib.import_module('glance_store.common')
    common.__path__ = [sys.argv[1]]
    before = [name for name in sys.modules if name.startswith(common.__name__)]
    for name in before[1:]:
        del sys.modules[name]
    importlib.import_module('glance_store.common.' + sys.argv[2])
    facts['modules'] = [
        name.rpartition('.')[2]
        for name in sys.modules
        if name.startswith('glance_store.common.')
    ]
except Exception as exc:
    facts['error'] = f'{type(exc).__name__}: {exc}'
print()
print(json.dumps(facts))
"""


class Refusal(Exception):
    """Why nothing is done, as one line for whoever wanted it."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A glance_store that is installed somewhere else.

    :param package: its folder
    :param version: its release
    :param modules: those of ours that belong into it, :data:`REPLACED` last
    """

    package: pathlib.Path
    version: str
    modules: Sequence[str]

    @property
    def common(self) -> pathlib.Path:
        return self.package / 'common'

    @property
    def caches(self) -> pathlib.Path:
        return self.common / '__pycache__'

    @property
    def kept(self) -> pathlib.Path:
        return self.package.with_name(KEPT)

    @property
    def garbage(self) -> pathlib.Path:
        return self.package.with_name(GARBAGE)


@dataclasses.dataclass(frozen=True)
class Module:
    """One entry of the record, with SHA-256 digests in hexadecimal.

    :param put: of what belongs there now
    :param replaced: of what was there, None where nothing was
    """

    name: str
    put: str
    replaced: str | None

    @property
    def file(self) -> str:
        return f'{self.name}.py'


@dataclasses.dataclass(frozen=True)
class Record:
    """What the kept folder is about.

    :param version: of the glance_store that the files were kept of
    :param caches: the names of the byte code files that are kept
    """

    version: str
    modules: Sequence[Module]
    caches: Sequence[str]


# -- The other glance_store ---------------------------------------------------


def find(python: str) -> Target:
    """Return the glance_store of another Python.

    :param python: the program, by its path or as the shell would find it
    :raises Refusal: where it is none that these modules belong into
    """
    facts = _ask(python)
    if facts['origin'] is None:
        raise Refusal('has no glance_store')
    package = pathlib.Path(facts['origin']).resolve().parent
    version = facts.get('version')
    if version is None or pathlib.Path(facts['located']).resolve() != package:
        raise Refusal(f'{str(package)!r} is not an installed release')
    numbers = re.match(r'(\d+)\.(\d+)', version)
    if numbers is None or not (
        OLDEST <= (int(numbers[1]), int(numbers[2])) <= NEWEST
    ):
        raise Refusal(
            f'has glance_store {version}, not {_dotted(OLDEST)} to '
            f'{_dotted(NEWEST)}'
        )
    if tuple(facts['python']) < OLDEST_PYTHON:
        raise Refusal(
            f'is Python {_dotted(facts["python"])}, and the modules need '
            f'{_dotted(OLDEST_PYTHON)}'
        )
    if 'error' in facts:
        raise Refusal(f'cannot import the modules: {facts["error"]}')
    added = sorted(set(facts['modules']) - {REPLACED})
    return Target(package, version, [*added, REPLACED])


def _ask(python: str) -> Any:
    command = [python, '-B', '-c', QUESTION, str(OURS), REPLACED]
    try:
        answer = subprocess.run(  # noqa: S603
            command,
            # No folder in which there may be a glance_store.
            cwd='/',
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors='replace',
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired as exc:
        raise Refusal(f'did not answer in {PATIENCE} s') from exc
    except OSError as exc:
        raise Refusal(f'cannot be run: {exc.strerror}') from exc
    try:
        return json.loads(answer.stdout.splitlines()[-1])
    except (IndexError, ValueError) as exc:
        error = answer.stderr.strip().rpartition('\n')[2] or 'no answer'
        raise Refusal(f'is no Python that can be asked: {error}') from exc


def _dotted(numbers: Sequence[int]) -> str:
    return '.'.join(map(str, numbers))


@contextlib.contextmanager
def locked(target: Target) -> Iterator[None]:
    """Be the only one at work there, and clear away what others left."""
    descriptor = os.open(target.package, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Refusal('another run is at work there') from exc
        if target.garbage.exists():
            shutil.rmtree(target.garbage)
        yield
    finally:
        os.close(descriptor)


# -- There and back -----------------------------------------------------------


def put(target: Target) -> Record:
    """Copy the modules into another glance_store, all of them or none.

    :returns: what was put and what was replaced
    :raises Refusal: where it would not be known how to undo that
    """
    with locked(target):
        record = _read_record(target)
        if record is None:
            record = _keep(target)
        else:
            _check_unfinished(target, record)
        try:
            for module in record.modules:
                _put(target, module)
        except BaseException:
            # What cannot be undone now can be later: the record is there.
            with contextlib.suppress(OSError):
                _restore(target, record)
            raise
    return record


def undo(target: Target) -> Record:
    """Put back what :func:`put` has replaced, and remove what it has added.

    :returns: what was removed and what was put back
    :raises Refusal: where the files are others than those that were put
    """
    with locked(target):
        record = _read_record(target)
        if record is None:
            raise Refusal('there is nothing to undo')
        _check_unchanged(target, record)
        _restore(target, record)
    return record


def _read_record(target: Target) -> Record | None:
    path = target.kept / RECORD
    try:
        fields = json.loads(path.read_bytes())
        fields['modules'] = [Module(**module) for module in fields['modules']]
        return Record(**fields)
    except FileNotFoundError:
        if target.kept.exists():
            raise Refusal(f'{str(path)!r} is missing') from None
        return None
    except (KeyError, TypeError, ValueError) as exc:
        raise Refusal(f'{str(path)!r} makes no sense') from exc


def _check_unchanged(target: Target, record: Record) -> None:
    changed = [
        module.file
        for module in record.modules
        if _digest(target.common / module.file)
        not in (module.put, module.replaced)
    ]
    if changed:
        raise Refusal(
            f'changed since the modules were put there: {", ".join(changed)}; '
            f'install glance_store {record.version} anew, then undo'
        )


def _check_unfinished(target: Target, record: Record) -> None:
    """Refuse all but a run that was cut short and that this one can finish."""
    _check_unchanged(target, record)
    if [(module.name, module.put) for module in record.modules] != [
        (name, _sha256(_ours(name))) for name in target.modules
    ]:
        raise Refusal('has other releases of the modules: undo that first')
    if all(
        _digest(target.common / module.file) == module.put
        for module in record.modules
    ):
        raise Refusal('has the modules already')


def _keep(target: Target) -> Record:
    """Write down what is to be done, and keep what it will replace."""
    added = target.modules[:-1]
    for name in added:
        if any(
            os.path.lexists(path)
            for path in (target.common / name, _theirs(target, name))
        ):
            raise Refusal(f'has a module {name!r} that is not in the release')
    old = _theirs(target, REPLACED)
    modules = [
        *(Module(name, _sha256(_ours(name)), None) for name in added),
        Module(REPLACED, _sha256(_ours(REPLACED)), _sha256(old)),
    ]
    caches = _caches_of(target, REPLACED)
    record = Record(target.version, modules, [cache.name for cache in caches])
    target.garbage.mkdir()
    for path in (old, *caches):
        _copy(path, target.garbage / path.name)
    path = target.garbage / RECORD
    path.write_text(json.dumps(dataclasses.asdict(record), indent=2) + '\n')
    _sync(path)
    _sync(target.garbage)
    target.garbage.rename(target.kept)
    _sync(target.kept.parent)
    return record


def _put(target: Target, module: Module) -> None:
    path = target.common / module.file
    part = _part(path)
    shutil.copyfile(_ours(module.name), part)
    # Whoever may read the package is to be able to read the new modules.
    _imitate(_theirs(target, REPLACED), part)
    _sync(part)
    _remove_caches(target, module)
    part.replace(path)
    _sync(target.common)


def _restore(target: Target, record: Record) -> None:
    for module in reversed(record.modules):
        path = target.common / module.file
        part = _part(path)
        part.unlink(missing_ok=True)
        _remove_caches(target, module)
        if module.replaced is None:
            path.unlink(missing_ok=True)
        else:
            _copy(target.kept / module.file, part)
            part.replace(path)
    for name in record.caches:
        target.caches.mkdir(exist_ok=True)
        part = _part(target.caches / name)
        _copy(target.kept / name, part)
        part.replace(target.caches / name)
    with contextlib.suppress(OSError):  # not there, or not empty
        target.caches.rmdir()
    _sync(target.common)
    target.kept.rename(target.garbage)
    shutil.rmtree(target.garbage)


# -- Files --------------------------------------------------------------------


def _ours(name: str) -> pathlib.Path:
    return OURS / f'{name}.py'


def _theirs(target: Target, name: str) -> pathlib.Path:
    return target.common / f'{name}.py'


def _part(path: pathlib.Path) -> pathlib.Path:
    """Return where *path* is written until it is complete."""
    return path.with_name(f'.{path.name}.drop-in')


def _sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(path: pathlib.Path) -> str | None:
    try:
        return _sha256(path)
    except FileNotFoundError:
        return None


def _caches_of(target: Target, name: str) -> list[pathlib.Path]:
    """Return the byte code of a module, for whatever Pythons there is some.

    A Python may be told to take it without looking at the module.
    """
    return sorted(target.caches.glob(f'{name}.*.pyc'))


def _remove_caches(target: Target, module: Module) -> None:
    for cache in _caches_of(target, module.name):
        cache.unlink(missing_ok=True)


def _copy(source: pathlib.Path, copy: pathlib.Path) -> None:
    """Copy a file with its times, its mode and its owner, a link as a link."""
    shutil.copy2(source, copy, follow_symlinks=False)
    status = source.lstat()
    os.chown(copy, status.st_uid, status.st_gid, follow_symlinks=False)
    if not copy.is_symlink():
        _sync(copy)


def _imitate(model: pathlib.Path, path: pathlib.Path) -> None:
    status = model.stat()
    os.chown(path, status.st_uid, status.st_gid)
    path.chmod(status.st_mode & 0o7777)


def _sync(path: pathlib.Path) -> None:
    """Have what was written survive a machine that stops."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- Running ------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with status 2 after one line, where argparse writes several."""
        line = ''.join(
            char if char.isprintable() else ascii(char)[1:-1]
            for char in message
        )
        self.exit(2, f'{PROGRAM}: error: {line}\n')


def _parser() -> _Parser:
    parser = _Parser(
        PROGRAM,
        allow_abbrev=False,
        description='Put these helpers into the glance_store that is '
        'installed for another Python, from '
        f'{_dotted(OLDEST)} to {_dotted(NEWEST)}: its module '
        'glance_store.common.utils is replaced, and a few modules that the '
        'new one needs are put beside it. What was there is kept in a folder '
        f'{KEPT!r} beside the package.',
        epilog='All of that is done or nothing. A run that was ended in the '
        'middle is finished by another one, or undone. The exit status is 2, '
        'after one line on what is wrong, where nothing was done.',
    )
    parser.add_argument(
        'python',
        metavar='PYTHON',
        help='the Python of the environment that the glance_store is '
        'installed in, such as /opt/glance/bin/python',
    )
    parser.add_argument(
        '--undo',
        action='store_true',
        help='put everything back as it was',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Be the program, and return its exit status.

    :param argv: the arguments, by default those of the process
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        target = find(arguments.python)
        record = (undo if arguments.undo else put)(target)
    except (Refusal, OSError) as exc:
        parser.error(f'argument PYTHON: {arguments.python!r}: {exc}')
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(f'glance_store {record.version}: {str(target.package)!r}')
    words = ('replaced', 'added')
    if arguments.undo:
        words = ('put back', 'removed')
    for module in record.modules:
        print(f'{words[module.replaced is None]} common/{module.file}')
    if not arguments.undo:
        print(f'kept for --undo: {str(target.kept)!r}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
