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

"""One part of the benchmark, in a process of its own: prints its rows.

Streams on native threads want a process into which nobody has imported
eventlet; streams on a hub want one that is monkey-patched, as a service is.
Nothing else is ready on that hub: a yield goes all the way through it and
comes straight back.
"""

import concurrent.futures
import dataclasses
import importlib
import json
import pathlib
import sys
import tempfile
from typing import Any

# The module that measures it, and on what kind of thread: of these two, or
# on the main thread, of whatever it makes itself.
PARTS = {
    'native': ('benchmarks.cases', 'native threads'),
    'hub': ('benchmarks.cases', 'hub'),
    'hub-1ms': ('benchmarks.cases', 'hub, 1 ms'),
    'layers': ('benchmarks.layers', 'native threads'),
    'layers-1ms': ('benchmarks.layers', 'hub, 1 ms'),
    'fairness': ('benchmarks.fairness', 'hub'),
    'memory': ('benchmarks.memory', ''),
    'slow': ('benchmarks.slow', ''),
}


def _measure(module: Any, where: str, seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix='bench') as folder:
        for row in module.measure(where, pathlib.Path(folder), seconds):
            print(json.dumps(dataclasses.asdict(row)), flush=True)


def main() -> None:
    """Measure a part, named on the command line, with seconds to spend."""
    name, where = PARTS[sys.argv[1]]
    seconds = float(sys.argv[2])
    if where.startswith('hub'):
        # Patched before anything else is imported.
        eventlet = importlib.import_module('eventlet')
        eventlet.monkey_patch()
        module = importlib.import_module(name)
        eventlet.spawn(_measure, module, where, seconds).wait()
        return
    module = importlib.import_module(name)
    if where:
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            thread.submit(_measure, module, where, seconds).result()
        if 'eventlet' in sys.modules:
            raise AssertionError('eventlet was imported')
    else:
        _measure(module, where, seconds)


if __name__ == '__main__':
    main()
