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
from collections.abc import Iterator
import contextlib
import os


class Tally:
    """The figures of one test, which it writes down when it is over."""

    def __init__(self) -> None:
        self.tried: collections.Counter[str] = collections.Counter()
        self.failed: collections.Counter[str] = collections.Counter()

    @contextlib.contextmanager
    def case(self, kind: str, number: int = 1) -> Iterator[None]:
        """Count so many cases as tried, and as failed if this raises."""
        self.tried[kind] += number
        try:
            yield
        except BaseException:
            self.failed[kind] += number
            raise

    def write(self) -> None:
        path = os.environ.get('GLANCE_STORE_TALLY')
        if path and self.tried:
            with open(path, 'a') as file:
                for kind, tried in self.tried.items():
                    file.write(f'{tried}\t{self.failed[kind]}\t{kind}\n')


def main() -> None:
    path = os.environ['GLANCE_STORE_TALLY']
    if not os.path.exists(path):  # of tests that counted nothing
        return
    sums: dict[str, tuple[int, int]] = {}
    with open(path) as file:
        for line in file:
            *figures, kind = line.rstrip('\n').split('\t')
            tried, failed = map(int, figures)
            before = sums.get(kind, (0, 0))
            sums[kind] = (before[0] + tried, before[1] + failed)
    print(f'\n{"cases":>10} {"failed":>7}  of what')
    for kind, (tried, failed) in sorted(sums.items()):
        print(f'{tried:10,} {failed:7,}  {kind}')


if __name__ == '__main__':
    main()
