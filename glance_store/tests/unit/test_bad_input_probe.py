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

# mypy: no-check-untyped-defs

"""What the probe says of files, folders and disks that are not as they should.

Each is one line that names what it is about, an exit status, and nothing left
behind.
"""

import contextlib
import errno
import io
import json
import os
import resource
import socket
import stat

import fixtures

from glance_store.cmd import probe
from glance_store.cmd.probe import errors
from glance_store.cmd.probe import images
from glance_store.cmd.probe import plot
from glance_store.tests.unit import test_probe

KIND = test_probe.KIND

# A disk of 1 MiB for the temporary image. Where nobody may mount one, a limit
# on how large a file may grow.
SMALL_DISK = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
user, group = os.getuid(), os.getgid()
folder = os.environ['TMPDIR'].encode()
if libc.unshare(0x10020000) == 0:
    for name, line in (
        ('uid_map', f'0 {user} 1'),
        ('setgroups', 'deny'),
        ('gid_map', f'0 {group} 1'),
    ):
        with open(f'/proc/self/{name}', 'w') as file:
            file.write(line)
    libc.mount(b'small', folder, b'tmpfs', 0, b'size=1m')
if not os.path.ismount(folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, -1))
"""

# What happens to the file after it was read once.
MEANWHILE = """
def on_hub(streams, on_hub=measuring.on_hub):
    meanwhile()
    return on_hub(streams)
measuring.on_hub = on_hub
"""


class BadInputTestCase(test_probe.ProbeTestCase):
    def assertRefused(self, line, *args):
        """See that nothing is done, in this process."""
        with self.tally.case(KIND):
            with contextlib.redirect_stderr(io.StringIO()) as stderr:
                self.assertEqual(2, probe.main(args))
            self.assertEqual(
                f'glance-store-probe: error: {line}\n', stderr.getvalue()
            )
            self.assertNothingLeft()

    def assertFails(self, line, *args, prepare, status=1):
        """See that it ends, in a process of its own."""
        with self.tally.case(KIND):
            done = self.probe(*args, prepare=prepare)
            self.assertRegex(
                done.stderr, f'^glance-store-probe: error: {line}\n$'
            )
            self.assertEqual((status, ''), (done.returncode, done.stdout))
            self.assertNothingLeft()


class FolderTestCase(BadInputTestCase):
    def test_folder_of_images(self):
        for size, name in (1000, 'b'), (500, 'a'), (0, 'empty'):
            self.file(size, name)
        os.mkdir(os.path.join(self.folder, 'folder'))
        os.mkfifo(os.path.join(self.folder, 'pipe'))
        os.symlink('missing', os.path.join(self.folder, 'link'))
        self.assertEqual(
            [
                images.Image(os.path.join(self.folder, 'a'), 500),
                images.Image(os.path.join(self.folder, 'b'), 1000),
            ],
            images.named(self.folder),
        )

    def test_nothing_in_it(self):
        line = f"argument FILE: '{self.folder}' has no image in it"
        self.assertRefused(line, self.folder)
        self.file(0, 'empty')
        self.assertRefused(line, self.folder)

    def test_unreadable(self):
        os.chmod(self.folder, 0)
        self.addCleanup(os.chmod, self.folder, 0o700)
        # Nothing is unreadable to root.
        self.assertFails(
            f"argument FILE: '{self.folder}': Permission denied",
            self.folder,
            status=2,
            prepare="""
import atexit
if os.geteuid() == 0:
    os.seteuid(65534)
    atexit.register(os.seteuid, 0)
""",
        )

    def test_file_in_it_that_is_unreadable(self):
        path = self.file(1000)
        self.useFixture(fixtures.MonkeyPatch('builtins.open', self.deny))
        with self.tally.case(KIND):
            failure = self.assertRaises(
                errors.BadArgument, images.named, self.folder
            )
        self.assertEqual(
            f"argument FILE: '{path}': Permission denied", str(failure)
        )

    def deny(self, path, *_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


class FileTestCase(BadInputTestCase):
    def test_neither_file_nor_folder(self):
        pipe = os.path.join(self.folder, 'pipe')
        os.mkfifo(pipe)
        place = os.path.join(self.folder, 'socket')
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(place)
        for path in pipe, place, '/dev/zero':
            self.assertRefused(
                f"argument FILE: '{path}' is no file, directory or block "
                'device',
                path,
            )

    def test_name_that_is_not_utf8(self):
        self.assertRefused(
            r"argument FILE: '/missing-\udcff': No such file or directory",
            '/missing-\udcff',
        )
        path = self.file(1000, 'image-\udcff')
        # Where names are no UTF-8, either.
        for name, value in (
            ('LC_ALL', 'C'),
            ('PYTHONCOERCECLOCALE', '0'),
            ('PYTHONUTF8', '0'),
        ):
            self.useFixture(fixtures.EnvironmentVariable(name, value))
        with self.tally.case(KIND):
            self.assertEqual(path, self.json(path)['files'][0]['path'])

    def test_name_that_is_too_long(self):
        path = '/' + 'x' * 300
        self.assertRefused(
            f"argument FILE: '{path}': File name too long", path
        )

    def test_name_of_nothing(self):
        self.assertRefused("argument FILE: '': No such file or directory", '')

    def test_block_device(self):
        # What is none, but looks so and has a size.
        path = self.file(1000)
        self.useFixture(fixtures.MonkeyPatch('stat.S_ISREG', lambda _: False))
        self.useFixture(fixtures.MonkeyPatch('stat.S_ISBLK', stat.S_IFMT))
        self.assertEqual([images.Image(path, 1000)], images.named(path))

    def test_vanishes(self):
        path = self.file(1000)
        self.assertFails(
            f"streaming: no cooperation: '{path}': No such file or directory",
            path,
            prepare=f'meanwhile = lambda: os.unlink({path!r})\n{MEANWHILE}',
        )

    def test_shrinks(self):
        path = self.file(1000)
        self.assertFails(
            f"'{path}' has changed: 10 bytes were read, and 1000 were there "
            'before',
            path,
            prepare=f'meanwhile = lambda: os.truncate({path!r}, 10)\n'
            + MEANWHILE,
        )

    def test_grows(self):
        path = self.file(1000)
        self.assertFails(
            f"'{path}' has changed: 1010 bytes were read, and 1000 were there "
            'before',
            path,
            prepare=f"""
def meanwhile():
    with open({path!r}, 'ab') as file:
        file.write(bytes(10))
{MEANWHILE}""",
        )

    def test_turns_unreadable(self):
        path = self.file(1000)
        # This file opens, but nothing is mapped at its beginning.
        self.assertFails(
            f"streaming: no cooperation: '{path}': Input/output error",
            path,
            prepare=f"""
def meanwhile():
    os.unlink({path!r})
    os.symlink('/proc/self/mem', {path!r})
{MEANWHILE}""",
        )

    def test_turns_unreadable_in_the_pool_and_on_threads(self):
        path = self.file(1000)
        for key, name in (
            ('offloaded', 'offloaded reads'),
            ('native_threads', 'native threads'),
        ):
            self.assertFails(
                f"streaming: {name}: '{path}': Input/output error",
                path,
                prepare=f"""
def measure(case, load, measure=measuring.measure):
    if case.key == {key!r}:
        os.unlink({path!r})
        os.symlink('/proc/self/mem', {path!r})
    return measure(case, load)
measuring.measure = measure
""",
            )
            os.unlink(path)
            self.file(1000)

    def test_turns_unreadable_while_it_is_drawn(self):
        path = self.file(1000)
        picture = os.path.join(self.folder, 'picture.svg')
        done = self.probe(
            path,
            f'--timeline={picture}',
            prepare=f"""
def record(*args, record=timeline.record):
    os.unlink({path!r})
    return record(*args)
timeline.record = record
""",
        )
        with self.tally.case(KIND):
            self.assertEqual(1, done.returncode)
            self.assertIn('after every chunk', done.stdout)
            self.assertEqual(
                'glance-store-probe: error: drawing the timeline: '
                f"'{path}': No such file or directory\n",
                done.stderr,
            )
            self.assertEqual([], os.listdir(self.folder))


class DiskTestCase(BadInputTestCase):
    def test_full_under_the_image(self):
        self.assertFails(
            r'making an image failed \(name a FILE, or another folder by '
            r'TMPDIR\): (No space left on device|File too large)',
            prepare=SMALL_DISK,
        )

    def test_full_under_a_picture(self):
        picture = os.path.join(self.folder, 'picture.svg')
        os.symlink('/dev/full', picture)
        done = self.probe(self.file(50), f'--timeline={picture}')
        with self.tally.case(KIND):
            self.assertEqual(1, done.returncode)
            self.assertIn('after every chunk', done.stdout)
            self.assertEqual(
                'glance-store-probe: error: cannot write the picture: '
                f"'{picture}': No space left on device\n",
                done.stderr,
            )

    def test_full_in_the_middle_of_a_picture(self):
        picture = os.path.join(self.folder, 'picture.svg')
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
        try:
            with self.tally.case(KIND):
                failure = self.assertRaises(
                    errors.Failure, plot._write, picture, bytes(1000)
                )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        self.assertEqual(
            f"cannot write the picture: '{picture}': File too large",
            str(failure),
        )
        self.assertEqual([], os.listdir(self.folder))

    def test_place_for_a_picture(self):
        for path, why in (
            ('picture.jpg', 'ends neither in .png nor in .svg'),
            ('svg', 'ends neither in .png nor in .svg'),
            ('missing/picture.png', 'cannot be written'),
            ('folder.svg', 'cannot be written'),
        ):
            path = os.path.join(self.folder, path)
            os.makedirs(os.path.join(self.folder, 'folder.svg'), exist_ok=True)
            for option in '--plot', '--timeline':
                self.assertRefused(
                    f"argument {option}: '{path}' {why}", option, path
                )


class ColdTestCase(BadInputTestCase):
    def test_is_forgotten_before_each_row_and_round(self):
        path = self.file(1000)
        report = json.loads(
            self.probe(
                '--json',
                '--cold',
                path,
                rounds=2,
                prepare="""
calls = []
def cool(files, cool=images.cool):
    cool(files)
    calls.append(files)
def measure(case, load, measure=measuring.measure):
    assert len(calls) == 1, calls
    calls.clear()
    return measure(case, load)
images.cool, measuring.measure = cool, measure
images.check_cold = lambda files: None
""",
            ).stdout
        )
        self.assertTrue(report['arguments']['cold'])
        # What was read once is not cold any more.
        self.assertEqual(1, report['passes'])
        for row in report['rows'][:-1]:
            self.assertEqual(2 * 8 * 1000, row['bytes_read'])

    def test_says_so(self):
        done = self.probe(
            '--cold',
            self.file(1000),
            prepare='images.check_cold = images.cool',
        )
        self.assertIn('files: 1000 bytes, cold, ', done.stdout)

    def look(self, answer):
        """See what becomes of what the kernel says of the last byte."""

        forgotten = []

        def forget(*args, original=os.posix_fadvise):
            forgotten.append(args[1:])
            original(*args)

        def preadv(descriptor, buffers, offset, flags):
            self.assertEqual([(0, 0, os.POSIX_FADV_DONTNEED)], forgotten)
            self.assertEqual((999, os.RWF_NOWAIT), (offset, flags))
            if isinstance(answer, int):
                raise OSError(answer, os.strerror(answer))
            return len(answer)

        self.useFixture(fixtures.MonkeyPatch('os.posix_fadvise', forget))
        self.useFixture(fixtures.MonkeyPatch('os.preadv', preadv))
        # Wherever the tests have their files.
        self.useFixture(
            fixtures.MonkeyPatch('glance_store.cmd.probe.images.IN_MEMORY', ())
        )
        images.check_cold([images.Image(self.file(1000), 1000)])

    def test_what_is_not_in_memory(self):
        self.look(errno.EAGAIN)

    def test_what_nobody_can_tell(self):
        self.look(errno.EOPNOTSUPP)

    def test_what_stays_in_memory(self):
        with self.tally.case(KIND):
            failure = self.assertRaises(errors.BadArgument, self.look, b'x')
        self.assert_in_memory(failure)

    def test_what_is_nowhere_else(self):
        # That of /proc stands for one that cannot be told to be there.
        for kinds, answer in (('ramfs',), False), (('proc',), True):
            self.useFixture(
                fixtures.MonkeyPatch(
                    'glance_store.cmd.probe.images.IN_MEMORY', kinds
                )
            )
            with self.tally.case(KIND), open('/proc/self/status') as file:
                self.assertIs(answer, images._lives_in_memory(file.fileno()))

    def assert_in_memory(self, failure):
        path = os.path.join(self.folder, 'image')
        self.assertEqual(
            (
                f"argument --cold: '{path}' stays in memory: it is in use, "
                'or its file system has no other storage',
                2,
            ),
            (str(failure), failure.status),
        )

    def test_what_cannot_be_read(self):
        with self.tally.case(KIND):
            failure = self.assertRaises(
                errors.BadArgument, self.look, errno.EIO
            )
        path = os.path.join(self.folder, 'image')
        self.assertEqual(
            f"argument FILE: '{path}': Input/output error", str(failure)
        )

    def test_vanishes(self):
        path = self.file(1000)
        self.assertFails(
            f"argument FILE: '{path}': No such file or directory",
            '--cold',
            path,
            status=2,
            prepare=f"""
def check_cold(files, check_cold=images.check_cold):
    os.unlink({path!r})
    check_cold(files)
images.check_cold = check_cold
""",
        )


class TimeTestCase(test_probe.ProbeTestCase):
    def test_ends_what_would_not_end(self):
        # With more passes than anybody can wait for.
        report = self.json(
            '--seconds=0.2',
            self.file(1000),
            rounds=2,
            prepare='measuring.STREAM_SIZE = measuring.MOST_PASSES = 1 << 60',
        )
        for row in report['rows'][:-1]:
            self.assertLess(0, row['bytes_read'])

    def test_of_reading_into_memory(self):
        # A look at the clock after each read: the first is the last.
        path = self.file(images.MIB + 1)
        times = iter([0.0, 5.0])
        self.useFixture(
            fixtures.MonkeyPatch(
                'glance_store.cmd.probe.images.clock', lambda: next(times)
            )
        )
        images.warm([images.Image(path, images.MIB + 1)], 4)
