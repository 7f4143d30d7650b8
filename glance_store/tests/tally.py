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

"""How many cases of each kind the tests tried, and how many of them failed.

One test often tries thousands of cases. Each worker of a run adds its figures
to the file that ``GLANCE_STORE_TALLY`` names, and ``python -m
glance_store.tests.tally`` prints the sums after the run.
"""

import collections
import contextlib
import os
import sys


class Tally:
    """The figures of one test, which it writes down when it is over."""

    def __init__(self):
        self.tried = collections.Counter()
        self.failed = collections.Counter()

    @contextlib.contextmanager
    def case(self, kind, number=1):
        """Count so many cases as tried, and as failed if this raises."""
        self.tried[kind] += number
        try:
            yield
        except BaseException:
            self.failed[kind] += number
            raise

    def write(self):
        path = os.environ.get('GLANCE_STORE_TALLY')
        if path and self.tried:
            with open(path, 'a') as file:
                for kind, tried in self.tried.items():
                    file.write(f'{tried}\t{self.failed[kind]}\t{kind}\n')


def main():
    path = os.environ['GLANCE_STORE_TALLY']
    if not os.path.exists(path):  # of tests that counted nothing
        return
    sums = {}
    with open(path) as file:
        for line in file:
            tried, failed, kind = line.rstrip('\n').split('\t')
            before = sums.get(kind, (0, 0))
            sums[kind] = (before[0] + int(tried), before[1] + int(failed))
    print(f'\n{"cases":>10} {"failed":>7}  of what')
    for kind, (tried, failed) in sorted(sums.items()):
        print(f'{tried:10,} {failed:7,}  {kind}')


if __name__ == '__main__':
    sys.exit(main())
