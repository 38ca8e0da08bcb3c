"""What a training shows: a bar on a terminal, a line every few seconds elsewhere."""

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

QUIET_SECONDS = 5.0  # between two lines where the output is no terminal


class Progress:
    """The progress of one piece of work, shown while the context manager is open.

    Parameters
    ----------
    title : str
        What is going on, to stand before the numbers.
    total : int
        How many steps there are; 0 shows nothing.
    done : int
        How many of them were done before.
    unit : str
        What a step is called.
    shown : bool
        False shows nothing.
    """

    def __init__(self, title: str, total: int, done: int = 0, unit: str = "step", shown: bool = True):
        self.title, self.total, self.done, self.unit = title, total, done, unit
        self.shown = shown and total > 0
        self._first, self._started, self._printed, self._note = done, time.monotonic(), time.monotonic(), ""
        self._bar: Bar | None = None

    def __enter__(self) -> "Progress":
        if self.shown and sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.done, note="")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` of `total` steps are done; `note` stays until another one is given."""
        self.done, self._note = done, note or self._note
        if not self.shown:
            return
        if self._bar:
            self._bar.update(self._task, completed=done, note=self._note)
        elif time.monotonic() - self._printed >= QUIET_SECONDS:
            self._printed = time.monotonic()
            left = (self._printed - self._started) / max(1, done - self._first) * (self.total - done)
            note = f", {self._note}" if self._note else ""
            print(f"{self.title}: {self.unit} {done}/{self.total}, {left:.0f} s left{note}", flush=True)
