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

"""What is shown on a terminal while something takes its time."""

from collections.abc import Iterator
import contextlib
import sys
from typing import TextIO

from rich import console as rich_console
from rich import progress as rich_progress

from glance_store.cmd.probe import signals


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


class Progress:
    """A bar on standard error with the time left, if that is a terminal.

    It is drawn between two steps only: a thread that kept it up to date would
    be measured as well.

    :param total: how many steps there will be, or how many seconds it will
        take; None where nobody knows
    """

    def __init__(self, total: float | None) -> None:
        self._bar = rich_progress.Progress(
            rich_progress.BarColumn(),
            rich_progress.TaskProgressColumn(),
            rich_progress.TextColumn('{task.fields[left]}'),
            rich_progress.TextColumn('{task.description}', markup=False),
            console=rich_console.Console(file=sys.stderr),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not is_terminal(sys.stderr),
        )
        self._task = self._bar.add_task('', total=total, left='')

    def __enter__(self) -> 'Progress':
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Older releases of rich end even a disabled bar with a line break.
        if not self._bar.disable:
            self._bar.stop()

    @contextlib.contextmanager
    def step(self, description: str, left: float | None) -> Iterator[None]:
        """Show what is being done, and that it is done.

        :param left: how many seconds it will be until the end of all steps,
            where that is known
        """
        self._show(description, left)
        yield
        signals.stop_if_asked()
        self._bar.update(self._task, advance=1, refresh=True)

    def at(self, seconds: float, description: str, left: float | None) -> None:
        """Show how many seconds have passed."""
        self._bar.update(self._task, completed=seconds)
        self._show(description, left)

    def _show(self, description: str, left: float | None) -> None:
        self._bar.update(
            self._task,
            description=description,
            left='' if left is None else _left(left),
            refresh=True,
        )


def _left(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes}:{rest:02} left'
