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

"""What streaming images does to the rest of a service: glance-store-probe.

This module imports next to nothing, and sees to signals before it imports the
rest, so that whoever presses Ctrl-C in the first half second gets one line as
well.
"""

from collections.abc import Sequence
import importlib

from glance_store.cmd.probe import signals


def main(argv: Sequence[str] | None = None) -> int:
    """Be the program, and return its exit status.

    :param argv: the arguments, by default those of the process
    """
    try:
        with signals.stopping():
            program = importlib.import_module('glance_store.cmd.probe.program')
            status: int = program.run(argv)
            return status
    except signals.Stopped as stopped:
        errors = importlib.import_module('glance_store.cmd.probe.errors')
        errors.say(f'ended by {stopped.name}')
        return stopped.status
