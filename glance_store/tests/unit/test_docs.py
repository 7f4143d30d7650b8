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


"""The examples run, and the signatures are those of the reference."""

import doctest
import inspect
import os
import pathlib
from typing import Any

from glance_store.common import utils
from glance_store.tests.unit import base

TUTORIAL = pathlib.Path(base.ROOT, 'doc', 'source', 'user', 'tutorial')

RUN = """
    import contextlib
    import io
    import json
    import runpy
    import sys

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(sys.argv[1], run_name='__main__')
    print(json.dumps(printed.getvalue()))
    """


class ExamplesTestCase(base.TestCase):
    def test_docstrings(self) -> None:
        results = doctest.testmod(utils)
        self.assertEqual(0, results.failed)
        self.assertGreater(results.attempted, 5)

    def test_tutorial(self) -> None:
        programs = sorted(TUTORIAL.glob('*.py'))
        self.assertNotEqual([], programs)
        for program in programs:
            printed = base.run_python(
                RUN,
                str(program),
                # Its programs may import each other.
                PYTHONPATH=os.pathsep.join((base.ROOT, str(TUTORIAL))),
                PYTHONDONTWRITEBYTECODE='1',
            )
            shown = program.with_suffix('.out').read_text()
            self.assertEqual(shown, printed, program.name)


class ReferenceTestCase(base.TestCase):
    SIGNATURES = {
        'CooperativeReader': '(fd)',
        'CooperativeReader.read': '(self, length=None)',
        'chunkiter': '(fp, chunk_size=65536)',
        'chunkreadable': '(iter, chunk_size=65536)',
        'cooperative_iter': '(iter)',
        'cooperative_read': '(fd)',
        'get_hasher': '(hash_algo, usedforsecurity=True)',
        'is_uuid_like': '(val)',
    }

    def test_signatures(self) -> None:
        for name, wanted in self.SIGNATURES.items():
            member: Any = utils
            for part in name.split('.'):
                member = getattr(member, part)
            self.assertEqual('glance_store.common.utils', member.__module__)
            self.assertTrue(inspect.getdoc(member), name)
            signature = inspect.signature(member)
            shown = signature.replace(
                parameters=[
                    parameter.replace(annotation=parameter.empty)
                    for parameter in signature.parameters.values()
                ],
                return_annotation=signature.empty,
            )
            self.assertEqual(wanted, str(shown))
