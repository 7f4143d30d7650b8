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

"""The log shows no data and no secret, and breaks no stream.

Whatever a source is called and however it fails, what goes to the log is one
line of printable characters. And whatever a handler of the log does, a stream
loses no byte by it.
"""

import array
import logging
import pathlib
import socket

import eventlet
from eventlet import event
from eventlet.green import socket as green_socket
import fixtures
import greenlet
import hypothesis
from hypothesis import strategies

from glance_store.common import utils
from glance_store.tests.unit import base

CHUNKS = [b'QFI\xfb', b'the', b'contents', b'of', b'an', b'image']
DATA = b''.join(CHUNKS)

# Secrets are in Greek and nothing around them is, so that the least part of
# one is seen. What takes an address apart is in them, too.
GREEK = 'αβγδεζηθικλμνξοπρστυφχψω'
secrets = strategies.text(GREEK + '@:/?#&=%;', min_size=1, max_size=20)
names = strategies.text('abc019._-', min_size=1, max_size=20)
flags = strategies.booleans()


@strategies.composite
def urls(draw, secrets):
    """Return a URL, and what is left of it without its secrets."""
    scheme = draw(strategies.sampled_from(['http', 'https', 'glance+https']))
    address = '/'.join(draw(strategies.lists(names, min_size=1, max_size=4)))
    user = f'{draw(secrets)}:{draw(secrets)}@' if draw(flags) else ''
    query = f'?sig={draw(secrets)}' if draw(flags) else ''
    fragment = f'#{draw(secrets)}' if draw(flags) else ''
    shown = f'{scheme}://{address}'
    return f'{scheme}://{user}{address}{query}{fragment}', shown


texts = strategies.one_of(
    strategies.text(),
    strategies.text(strategies.characters(categories=['C', 'Z'])),
    strategies.text(min_size=250, max_size=500),
)


def hostile(*args, **kwargs):
    raise base.Interrupted


class HostileText(str):
    """A text of which nobody can make anything."""

    __repr__ = __str__ = __format__ = __getitem__ = __contains__ = hostile
    __len__ = __iter__ = __eq__ = __hash__ = hostile
    encode = partition = split = find = rfind = isprintable = hostile


class Printed:
    """Every line that a handler of the log prints."""

    def setUp(self):
        super().setUp()
        self.printed = []
        self.handle(lambda line: self.printed.append(line), logging.DEBUG)

    def handle(self, emit, level):
        """Have each line of the log go to *emit*, and nowhere else."""
        handler = logging.Handler()
        handler.emit = lambda record: emit(handler.format(record))
        self.useFixture(
            fixtures.LogHandler(handler, name='glance_store', level=level)
        )

    def assertLines(self, number):
        """Return so many lines, each of them fit to be printed as one."""
        printed, self.printed[:] = list(self.printed), []
        self.assertEqual(number, len(printed), printed)
        for line in printed:
            self.assertEqual([line], line.splitlines())
            self.assertTrue(line.isprintable(), ascii(line))
            # A type, a name and a message, each escaped, and figures.
            self.assertLess(len(line), 3 * 10 * 200 + 200)
        return printed


class TestNames(Printed, base.TestCase):
    """What the trace and an error call a source."""

    def named(self, name):
        source = base.Fetching(b'abc', base.Interrupted())
        source.name = name
        iterator = utils.cooperative_iter(source)
        self.assertEqual(b'abc', next(iterator))
        self.assertRaises(base.Interrupted, next, iterator)
        iterator.close()
        return self.assertLines(3)

    def assertNamed(self, shown, name):
        with self.tally.case('log: names'):
            lines = self.named(name)
            for line, after in zip(
                lines, (': 1 chunks', ' failed: ', ': 1 chunks'), strict=True
            ):
                line = line.removeprefix('iterating ')
                self.assertEqual(
                    'Fetching' + (f' {shown}' if shown else ''),
                    line.partition(after)[0],
                )

    def test_names_by_hand(self):
        for name, shown in (
            ('image', "'image'"),
            ('a\nERROR b', r"'a\nERROR b'"),
            ('a\r\x85\v\f\0b', r"'a\r\x85\x0b\x0c\x00b'"),
            ('a\u2028\u2029b', r"'a\u2028\u2029b'"),
            ('\x1b[2J\x9b31m', r"'\x1b[2J\x9b31m'"),
            ('\u202egpj', r"'\u202egpj'"),
            ('a\udcffb', r"'a\udcffb'"),
            ('Bild-ä-図', "'Bild-ä-図'"),
            ("it's", '"it\'s"'),
            ('x' * 10**6, f"'{'x' * 200}'"),
            ('\n' * 10**6, "'" + r'\n' * 200 + "'"),
            (b'/images/\xff\n', r"'/images/\udcff\n'"),
            (pathlib.PurePosixPath('/images/a\nb'), r"'/images/a\nb'"),
            ('', "''"),
        ):
            self.assertNamed(shown, name)
        self.assertNamed("'image'", type('Text', (str,), {})('image'))
        self.assertNamed("'image'", HostileText('image'))

    def test_what_is_no_name(self):
        class Path:
            def __init__(self, path):
                self.path = path

            def __fspath__(self):
                if isinstance(self.path, Exception):
                    raise self.path
                return self.path

        for name in (
            *(None, 5, True, 1.5, DATA.decode('latin-1').split(), [DATA]),
            *({'name': DATA}, bytearray(DATA), memoryview(DATA), object, {}),
            *(Path(5), Path(None), Path(base.Interrupted()), Path([DATA])),
            *(Path(UnicodeDecodeError('utf-8', DATA, 0, 1, 'no text')),),
        ):
            self.assertNamed('', name)

    def test_names_that_fail_or_switch(self):
        self.useFixture(base.Hub())

        class Named(base.Fetching):
            @property
            def name(self):
                eventlet.sleep(0)
                if isinstance(self.answer, Exception):
                    raise self.answer
                return self.answer

        for answer, shown in (
            (AttributeError(), 'Named'),
            (ValueError(DATA), 'Named'),
            (RecursionError(), 'Named'),
            ('image', "Named 'image'"),
        ):
            with self.tally.case('log: names'):
                failure = base.Interrupted()
                source = Named(b'abc', failure)
                source.answer = answer
                iterator = utils.cooperative_iter(source)
                self.assertEqual(b'abc', next(iterator))
                self.assertRaises(base.Interrupted, next, iterator)
                for line in self.assertLines(2):
                    self.assertRegex(line, f'^(iterating )?{shown}(:| failed)')

    def test_interrupted_name_loses_no_error(self):
        # A generator has ended once it raised.
        self.useFixture(base.Hub())

        class Named:
            def __iter__(self):
                yield b'abc'
                raise failure

            @property
            def name(self):
                eventlet.sleep(0)
                return 'image'

        failure = ValueError('half of it')
        self.handle(self.printed.append, logging.ERROR)
        iterator = utils.cooperative_iter(Named())
        next(iterator)
        raised = []

        def consume():
            self.assertRaises(eventlet.Timeout, next, iterator)
            raised.append(self.assertRaises(ValueError, next, iterator))

        base.Run(consume, lambda n: base.never() if n == 1 else None)
        self.assertEqual([failure], raised)

    def test_type_names(self):
        for name, shown in (
            ('Ä', 'Ä'),
            ('a\nERROR b', r"'a\nERROR b'"),
            ('\x1b[2J', r"'\x1b[2J'"),
            ('a: 5 chunks', "'a: 5 chunks'"),
            ('', "''"),
            ('x' * 200, 'x' * 200),
            ('x' * 1000, f"'{'x' * 200}'"),
            (HostileText('a b'), "'a b'"),
        ):
            with self.tally.case('log: type names'):
                kind = type('Source', (base.Fetching,), {})
                kind.__name__ = name
                error = type('Error', (base.Interrupted,), {})
                error.__name__ = name
                source = kind(b'abc', error())
                iterator = utils.cooperative_iter(source)
                next(iterator)
                self.assertRaises(error, next, iterator)
                traced, failed = self.assertLines(2)
                self.assertTrue(traced.startswith(f'{shown}: 1 '), traced)
                self.assertEqual(f'iterating {shown} failed: {shown}', failed)

    def test_type_that_will_not_be_named(self):
        class Kind(type):
            @property
            def __name__(cls):
                raise base.Interrupted

        class Source(base.Fetching, metaclass=Kind):
            pass

        class Error(Exception, metaclass=Kind):
            pass

        failure = Error()
        with self.tally.case('log: type names'):
            iterator = utils.cooperative_iter(Source(b'abc', failure))
            next(iterator)
            self.assertIs(failure, self.assertRaises(Error, next, iterator))
            self.assertEqual(
                'iterating Source failed: Error', self.assertLines(2)[1]
            )

    @base.EXAMPLES
    @hypothesis.given(
        strategies.one_of(texts, strategies.binary()),
        strategies.text(
            strategies.characters(codec='utf-8', exclude_characters='\0')
        ),
    )
    def test_any_names(self, name, kind):
        with self.tally.case('log: names made up'):
            source = type(kind, (base.Reading,), {})(DATA, 5)
            source.name = name
            list(utils.CooperativeReader(source))
            self.assertLines(2)


class TestAddresses(Printed, base.TestCase):
    """No user, password, token or signature of a URL."""

    def line(self, name):
        source = base.Reading(DATA)
        source.name = name
        list(utils.CooperativeReader(source))
        lines = self.assertLines(2)
        return lines[1].partition(': 1 chunks')[0].partition(' ')[2]

    def test_addresses_by_hand(self):
        for name, shown in (
            ('https://host/v1/c/o', 'https://host/v1/c/o'),
            ('https://host:443/o', 'https://host:443/o'),
            ('https://user:secret@host/p?temp_url_sig=1', 'https://host/p'),
            ('https://token@host/p', 'https://host/p'),
            ('https://host/p?X-Amz-Signature=1&b=2', 'https://host/p'),
            ('https://host/p#access_token=1', 'https://host/p'),
            ('https://host?sig=1', 'https://host'),
            ('https://user:a@b@host/p', 'https://host/p'),
            ('https://user:a/b@host/p', 'https://host/p'),
            # Nobody can tell where such a password ends.
            ('https://user:a?b@host/p', 'https://'),
            ('https://user:a#b@host/p', 'https://'),
            ('https://host/p?mail=a@b&sig=1', 'https://'),
            ('rbd://pool:secret@mon/image', 'rbd://mon/image'),
            ('/p?sig=1&next=https://host', '/p'),
            (b'https://user:secret@host/p?sig=1', 'https://host/p'),
            # What looks alike and is the name of a file.
            ('/images/what?.img', '/images/what?.img'),
            ('/images/a@b#c?d', '/images/a@b#c?d'),
            ('/images/https:/a?b', '/images/https:/a?b'),
        ):
            with self.tally.case('log: URLs'):
                self.assertEqual(repr(shown), self.line(name))

    def test_secret_beyond_what_is_shown(self):
        # What is cut off is looked at, too.
        secret = 'β' * 500
        for name in (f'https://{secret}@host/', f'https://u:{secret}?a@host/'):
            with self.tally.case('log: URLs'):
                self.assertNotIn('β', self.line(name))

    @base.EXAMPLES
    @hypothesis.given(urls(secrets))
    def test_no_secret_whatever_is_in_it(self, url):
        with self.tally.case('log: URLs made up'):
            self.assertFalse(set(GREEK) & set(self.line(url[0])))

    @base.EXAMPLES
    @hypothesis.given(urls(strategies.text(GREEK, min_size=1)))
    def test_all_but_the_secret(self, url):
        with self.tally.case('log: URLs made up'):
            self.assertEqual(repr(url[1]), self.line(url[0]))


class TestErrors(Printed, base.TestCase):
    """What the log says of the error of a source."""

    def line(self, failure):
        iterator = utils.cooperative_iter(base.Fetching(failure))
        self.assertIs(
            failure, self.assertRaises(type(failure), next, iterator)
        )
        (line,) = self.assertLines(1)
        return line.removeprefix('iterating Fetching failed: ')

    def test_messages_by_hand(self):
        for failure, shown in (
            (OSError(5, 'Input/output error'), '[Errno 5] Input/output error'),
            (ValueError('a\nb\x85c \t d'), 'a b c d'),
            (ValueError('100 %s %d {}'), '100 %s %d {}'),
            (ValueError('zu groß: 図'), 'zu groß: 図'),
            (ValueError('x' * 10**6), 'x' * 200),
            (ValueError(1, 2.5, None), '(1, 2.5, None)'),
            (OSError(ValueError('a'), 'b'), "[Errno a] b"),
            (
                ConnectionError(
                    "HTTPSConnectionPool(host='h', port=443): Max retries "
                    'exceeded with url: /o?temp_url_sig=1&expires=2 (Caused'
                    ' by it)'
                ),
                "HTTPSConnectionPool(host='h', port=443): Max retries "
                'exceeded with url: /o (Caused by it)',
            ),
            (
                OSError(2, 'No such file', 'https://u:p@host/p?sig=1'),
                "[Errno 2] No such file: host/p",
            ),
            (ValueError("nonnumeric port: 'secret@host'"), None),
            (ValueError('GET https://host/p?sig=1: 403'), None),
        ):
            with self.tally.case('log: messages'):
                line = self.line(failure)
                self.assertNotIn('secret', line)
                self.assertNotIn('sig', line)
                if shown is not None:
                    self.assertEqual(
                        f'{type(failure).__name__}: {shown!r}', line
                    )

    def test_no_message(self):
        class Failing(Exception):
            def __str__(self):
                raise self

        class NoText(Exception):
            def __str__(self):
                return 5

        class NoArgs(Exception):
            @property
            def args(self):
                raise base.Interrupted

        circle = ValueError()
        circle.args = (circle,)
        for failure in (ValueError(), Failing(), NoText(), NoArgs(), circle):
            with self.tally.case('log: messages'):
                self.assertEqual(type(failure).__name__, self.line(failure))

    def test_message_that_is_hostile(self):
        class Failing(Exception):
            def __str__(self):
                return HostileText('a b')

        with self.tally.case('log: messages'):
            self.assertEqual("Failing: 'a b'", self.line(Failing()))

    def with_data(self, data):
        """Return errors of all kinds that have image data about them."""
        text = data.decode('latin-1')
        yield ValueError(data)
        yield KeyError(bytearray(data))
        yield ValueError('wrong', memoryview(data))
        yield ValueError([data])
        yield ValueError(('wrong', {'chunk': data}))
        yield ValueError(array.array('B', data))
        yield ValueError(list(data))
        yield OSError(5, data)
        yield OSError(5, 'wrong', data)
        yield OSError(ValueError(data))
        yield OSError(OSError('wrong', ValueError([data])))
        yield ValueError(f'wrong: {data!r}')
        yield ValueError(str([bytearray(data)]))
        yield ValueError(text)
        yield ValueError('wrong: ' + data.decode('utf-8', 'replace'))
        yield ValueError('wrong: ' + data.decode('utf-8', 'surrogateescape'))
        yield UnicodeDecodeError('utf-8', data, 0, 1, 'wrong')
        yield UnicodeEncodeError('ascii', text, 3, 4, 'wrong')
        yield UnicodeTranslateError(text, 3, 4, 'wrong')

    @base.EXAMPLES
    @hypothesis.given(strategies.binary())
    def test_no_data(self, data):
        # As it may begin: a QCOW2.
        for failure in self.with_data(b'QFI\xfb\0\0\0\3' + data):
            with self.tally.case('log: messages with data'):
                self.assertEqual(type(failure).__name__, self.line(failure))

    @base.EXAMPLES
    @hypothesis.given(texts)
    def test_any_message(self, message):
        with self.tally.case('log: messages made up'):
            self.line(ValueError(message))
            self.line(OSError(5, message, message))

    @base.EXAMPLES
    @hypothesis.given(
        urls(secrets), strategies.sampled_from(['{}', '({})', '"{}"', "'{}'"])
    )
    def test_no_secret(self, url, quoted):
        for address in (url[0], url[0].partition('://')[2]):
            # Without a scheme, a fragment is of no more use than its path.
            with self.tally.case('log: messages with URLs'):
                message = f'GET {quoted.format(address)} failed'
                line = self.line(ConnectionError(message))
                self.assertFalse(set(GREEK) & set(line), line)
                line = self.line(OSError(ConnectionError(message)))
                self.assertFalse(set(GREEK) & set(line), line)


def thrower(error, at):
    """Return a handler that raises instead of printing that line."""
    lines = []

    def emit(line):
        lines.append(line)
        if len(lines) == at:
            raise error

    return emit


class TestHandlers(Printed, base.HubTestCase):
    """No handler of the log breaks a stream, nor loses a byte of it."""

    def setUp(self):
        super().setUp()
        path = self.useFixture(fixtures.TempDir()).join('image')
        with open(path, 'wb') as out:
            out.write(DATA)
        self.file = open(path, 'rb', buffering=0)
        self.addCleanup(self.file.close)
        self.configure(default_chunk_size=5)

    def from_file(self, make):
        self.file.seek(0)
        return make(self.file)

    def streams(self):
        """Return what makes a function that takes a step of each stream."""
        return {
            'iter': lambda: utils.cooperative_iter(iter(CHUNKS)).__next__,
            'reader of chunks': lambda: utils.CooperativeReader(CHUNKS).read,
            'reader of bytes': lambda: self.sized(
                utils.CooperativeReader(iter(CHUNKS)).read
            ),
            'reader iterated': lambda: (
                utils.CooperativeReader(iter(CHUNKS)).__next__
            ),
            'read': lambda: self.sized(
                utils.cooperative_read(base.Reading(DATA))
            ),
            'reader of a file': lambda: self.sized(
                self.from_file(utils.CooperativeReader).read
            ),
            'file iterated': lambda: (
                self.from_file(utils.CooperativeReader).__next__
            ),
        }

    @staticmethod
    def sized(read):
        return lambda: read(5)

    def test_handler_that_raises_anything(self):
        for name, make in self.streams().items():
            self.printed.clear()
            self.handle(self.printed.append, logging.DEBUG)
            list(base.calls(make(), []))
            number = len(self.printed)
            self.assertGreater(number, 2, name)
            for kind, interruption in base.INTERRUPTIONS.items():
                for at in range(1, number + 1):
                    with self.tally.case('log: handlers that raise'):
                        error = interruption()
                        self.handle(thrower(error, at), logging.DEBUG)
                        caught = []
                        answer = b''.join(base.calls(make(), caught))
                        self.assertEqual(DATA, answer, (name, kind, at))
                        suppressed = isinstance(error, Exception)
                        self.assertEqual(not suppressed, caught == [error])

    def waiting_handlers(self):
        """Give what makes handlers that let others run while they print."""

        def sleeping():
            eventlet.sleep(0)

        def waiting():
            done = event.Event()
            eventlet.spawn(done.send)
            done.wait()

        here, there = green_socket.socketpair(
            socket.AF_UNIX, socket.SOCK_STREAM
        )
        self.addCleanup(here.close)
        self.addCleanup(there.close)

        def writing():
            # Until its other end has answered, and that is a green thread.
            answer = eventlet.spawn(there.recv, 1)
            here.sendall(b'.')
            answer.wait()

        return sleeping, waiting, writing

    def test_handler_that_lets_others_run(self):
        for name, make in self.streams().items():
            for wait in self.waiting_handlers():
                with self.tally.case('log: handlers that wait'):
                    self.handle(lambda line, wait=wait: wait(), logging.DEBUG)
                    answer = b''.join(base.calls(make(), []))
                    self.assertEqual(DATA, answer, (name, wait.__name__))

    def test_interrupted_anywhere_in_such_a_handler(self):
        for name, make in self.streams().items():
            for wait in self.waiting_handlers():
                self.handle(lambda line, wait=wait: wait(), logging.DEBUG)
                for kind in base.INTERRUPTIONS:
                    self.interrupt_everywhere(name, make, wait, kind)

    def interrupt_everywhere(self, name, make, wait, kind):
        interruption = base.INTERRUPTIONS[kind]
        last = 1
        at = 0
        while at < last:
            at += 1
            caught = []
            with self.tally.case('log: handlers interrupted'):
                run = base.Run(
                    lambda caught=caught: list(base.calls(make(), caught)),
                    lambda number, at=at: (
                        interruption() if number == at else None
                    ),
                )
                self.assertEqual(
                    DATA,
                    b''.join(run.answer),
                    (name, wait.__name__, kind, at),
                )
                self.assertEqual(1, len(run.thrown))
            last = max(last, min(run.yields, 60 if base.STRESS else 8))

    def test_shared_streams(self):
        for name, make in self.streams().items():
            if 'of bytes' in name:  # one at a time, with or without a log
                continue
            for wait in self.waiting_handlers():
                with self.tally.case('log: handlers of shared streams'):
                    self.handle(lambda line, wait=wait: wait(), logging.DEBUG)
                    step = make()
                    taken = []

                    def take(step=step, taken=taken):
                        for piece in base.calls(step, []):
                            taken.append(piece)

                    threads = [eventlet.spawn(take) for _ in range(3)]
                    for thread in threads:
                        thread.wait()
                    self.assertEqual(
                        sorted(DATA), sorted(b''.join(taken)), name
                    )

    def test_error_of_a_source(self):
        # A generator has ended once it raised: were its error lost, a cut
        # image would pass for a whole one.
        def source():
            yield from CHUNKS
            raise failure

        failure = ValueError('half of it')
        for make in (
            lambda: utils.cooperative_iter(source()).__next__,
            lambda: utils.CooperativeReader(source()).read,
            lambda: utils.CooperativeReader(source()).__next__,
        ):
            emits = [
                *(lambda _, w=wait: w() for wait in self.waiting_handlers()),
                *(thrower(new(), 1) for new in base.INTERRUPTIONS.values()),
            ]
            for emit in emits:
                with self.tally.case('log: handlers of an error'):
                    self.handle(emit, logging.ERROR)
                    self.assertFails(failure, make())

    def assertFails(self, failure, step):
        got = []

        def consume():
            got.extend(base.calls(step, []))

        # Whatever a handler raised was caught, and the call made again.
        self.assertIs(failure, self.assertRaises(ValueError, consume))
        self.assertEqual(CHUNKS, got)

    def test_closing(self):
        for raised in (base.Interrupted, greenlet.GreenletExit):
            for make in (utils.cooperative_iter, utils.CooperativeReader):
                with self.tally.case('log: handlers of a close'):
                    self.handle(thrower(raised(), 1), logging.DEBUG)
                    source = base.Fetching(b'abc')
                    stream = make(source)
                    base.insist(stream.close, [])
                    self.assertEqual(1, source.closed)


class TestOffloaded(base.TestCase):
    """The same with reads in eventlet's pool, which wants its own process."""

    CODE = """
        import json
        import logging
        import sys
        import tempfile

        import eventlet
        import greenlet
        from oslo_config import cfg

        from glance_store.common import utils

        def emit(record):
            global printed
            printed += 1
            eventlet.sleep(0)
            if printed == at:
                raise new()

        def never():
            return eventlet.Timeout(300, False)

        def consume(step):
            pieces = []
            while not pieces or pieces[-1]:
                try:
                    pieces.append(step())
                except (Exception, greenlet.GreenletExit, eventlet.Timeout):
                    caught.append(1)
            return b''.join(pieces)

        handler = logging.Handler()
        handler.emit = emit
        logging.getLogger('glance_store').addHandler(handler)
        logging.getLogger('glance_store').setLevel(logging.DEBUG)
        cfg.CONF.set_override('offload_file_reads', True, 'glance_store')
        eventlet.sleep(0)
        good, caught = [], []
        with tempfile.TemporaryFile() as file:
            file.write(b'contents of an image')
            for new in (ValueError, greenlet.GreenletExit, never):
                for make in (utils.cooperative_read, utils.CooperativeReader):
                    at = 0
                    printed = 0
                    while at <= printed:
                        at += 1
                        printed = 0
                        file.seek(0)
                        read = make(file)
                        read = getattr(read, 'read', read)
                        answer = consume(lambda: read(5))
                        good.append(answer == b'contents of an image')
        print(json.dumps([good, len(caught)]))
        """

    def test_handler_that_raises(self):
        with self.tally.case('log: handlers of offloaded reads', 36):
            good, caught = base.run_python(self.CODE)
            # Six lines for a stream, and for two of the three errors.
            self.assertEqual([True] * len(good), good)
            self.assertLessEqual(36, len(good))
            self.assertLessEqual(24, caught)


class TestService(base.TestCase):
    """All of oslo.log, as a service sets it up, with a file."""

    CODE = """
        import json
        import sys

        import eventlet

        if sys.argv[2] == 'patched':
            eventlet.monkey_patch()

        from oslo_config import cfg
        from oslo_log import log

        from glance_store.common import utils

        class Image:
            name = 'https://user:secret@host/p?temp_url_sig=secret\\n'

            def __iter__(self):
                yield from [b'the secret'] * 3
                raise ValueError(f'{self.name}b\\n')

        log.register_options(cfg.CONF)
        cfg.CONF(['--debug', '--log-file', sys.argv[1]], project='glance')
        log.setup(cfg.CONF, 'glance')
        if sys.argv[2] != 'native':
            eventlet.sleep(0)
        got = []
        try:
            for chunk in utils.cooperative_iter(Image()):
                got.append(chunk.decode())
        except ValueError:
            got.append('failed')
        print(json.dumps(got))
        """

    def test_through_oslo_log(self):
        for kind, traced in (('patched', 3), ('green', 3), ('native', 1)):
            path = self.useFixture(fixtures.TempDir()).join('log')
            with self.tally.case('log: services'):
                got = base.run_python(self.CODE, path, kind)
                self.assertEqual(['the secret'] * 3 + ['failed'], got)
                with open(path) as file:
                    text = file.read()
                self.assertNotIn('secret', text)
                self.assertTrue(text.replace('\n', '').isprintable())
                lines = [
                    line
                    for line in text.splitlines()
                    if "Image 'https://host/p'" in line
                ]
                self.assertEqual(traced + 1, len(lines), text)
                self.assertEqual(len(lines), len(text.splitlines()), text)
                self.assertIn(
                    "ERROR glance_store.common.cooperation [-] iterating "
                    "Image 'https://host/p' failed: ValueError: "
                    "'https://host/p b'",
                    lines[-1],
                )
