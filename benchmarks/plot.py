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

"""Draw lateness against throughput, from a report of the benchmark.

tox -e bench -- --json report.json
tox -e bench-plot -- report.json doc/source/user/lateness.svg
"""

import json
import pathlib
import sys
from typing import Any

import matplotlib
from matplotlib import pyplot

from benchmarks import fairness

_MARKERS = {'streams: 1': 'o', 'streams: 8': 's', 'streams: 64': '^'}


def draw(report: dict[str, Any], path: str) -> None:
    """Write the picture, each way in a colour, each load with a marker."""
    # Text stays text, and the same report gives the same picture.
    matplotlib.rcParams.update({'svg.fonttype': 'none', 'svg.hashsalt': 'x'})
    rows = {
        (row['case'], row['what'], row['against']): row
        for row in report['rows']
    }
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout='constrained')
    names = dict.fromkeys(
        name for case, _, name in rows if case == fairness.LATENESS
    )
    for number, name in enumerate(names):
        for what, marker in _MARKERS.items():
            late = rows[fairness.LATENESS, what, name]
            speed = rows[fairness.SPEED, what, name]
            axes.plot(
                speed['value'],
                late['value'],
                marker,
                color=f'C{number}',
                label=f'{name}, {what.replace("streams: ", "")}',
            )
    axes.set_yscale('log')
    axes.set_xlim(left=0)
    axes.set_xlabel('throughput, of the bare loops')
    axes.set_ylabel(
        'lateness, 99th percentile, in the time\n'
        'that all streams take to read a chunk each'
    )
    axes.grid(alpha=0.3)
    figure.legend(loc='outside right center', title='way, streams')
    figure.savefig(path, metadata={'Date': None})


def main() -> None:
    """Take the report's name and the picture's from the command line."""
    report, picture = sys.argv[1:]
    draw(json.loads(pathlib.Path(report).read_text()), picture)


if __name__ == '__main__':
    main()
