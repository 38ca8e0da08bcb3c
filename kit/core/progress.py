"""What a training shows: a bar on a terminal and in a notebook, a line every few seconds elsewhere."""

import html
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from kit.core.stopping import look

QUIET_SECONDS = 5.0  # between two lines where the output is no terminal
NOTEBOOK_SECONDS = 0.2  # between two changes of the bar in a notebook, each of which is a message
WARM_UP = 3  # steps before the pace counts at least: the first ones compile, fill caches and start workers
REPORT_SECONDS = 0.5  # between two reports to what shows the progress of several processes

Report = Callable[[str, int, int, str, float], object]  # title, done, total, note, images a second (0: not known)

_notes: list[Callable[[], str]] = []  # what stands beside every bar
_reports: list[Report] = []  # the last of them gets what would be shown here


@contextmanager
def beside(note: Callable[[], str]) -> Iterator[None]:
    """Show what `note` returns beside all progress within, like how far the whole is of which it is a part."""
    _notes.append(note)
    try:
        yield
    finally:
        _notes.remove(note)


@contextmanager
def reporting_to(report: Report) -> Iterator[None]:
    """Report all progress within to a callable, instead of showing it: another process shows that of several.

    Parameters
    ----------
    report : callable
        Takes the title, how many steps are done, of how many, the note, and images a second (0 where steps are no
        images, or none is done yet). It is called at the beginning and the end of each piece of work, and in
        between each half second at most.
    """
    _reports.append(report)
    try:
        yield
    finally:
        _reports.remove(report)


def _beside() -> str:
    return "; ".join(filter(None, (note() for note in _notes)))


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
    images : int
        Of a step; 0 where a step is no work on images.
    """

    def __init__(
        self, title: str, total: int, done: int = 0, unit: str = "step", shown: bool = True, images: int = 0
    ):
        self.title, self.total, self.done, self.unit, self.images = title, total, done, unit, images
        self.note, self.shown = "", shown and total > 0
        self._first, self._started = done, time.monotonic()
        self._warm: tuple[int, float] | None = None  # the step after which the pace counts, and when that was
        self._view: _View | None = None

    def __enter__(self) -> "Progress":
        if self.shown:
            self._view = _view_here()
            self._view.begin(self)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._view:
            self._view.end(self)

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` of `total` steps are done; `note` stays until another one is given."""
        look()
        self.done, self.note = done, note or self.note
        # With a note a result was looked at: beside a GPU, steps without one were only asked for.
        if self._warm is None and note and done - self._first >= WARM_UP:
            self._warm = done, time.monotonic()
        if self._view:
            self._view.update(self)

    @property
    def notes(self) -> str:
        """The note, and what stands beside all bars."""
        return ", ".join(filter(None, (self.note, _beside())))

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._started

    @property
    def speed(self) -> float:
        """Images a second since it began; 0 where that is not known."""
        return (self.done - self._first) * self.images / max(self.seconds, 1e-9)

    @property
    def line(self) -> str:
        """How far it is, in words, and how long the rest takes; of images that is not told before some steps."""
        if self.images and self.done < min(self.total, self._first + WARM_UP):
            return f"{self.title}: {self.unit} {self.done}/{self.total}{self._noted}"
        since, began = self._warm if self._warm and self.done > self._warm[0] else (self._first, self._started)
        left = (time.monotonic() - began) / max(1, self.done - since) * (self.total - self.done)
        time_left = f", {left:.0f} s left" if self.done < self.total else f", {self.seconds:.1f} s"
        return f"{self.title}: {self.unit} {self.done}/{self.total}{time_left}{self._noted}"

    @property
    def _noted(self) -> str:
        return f", {notes}" if (notes := self.notes) else ""


class _View(Protocol):
    """Where progress is shown."""

    def begin(self, progress: Progress) -> None: ...
    def update(self, progress: Progress) -> None: ...
    def end(self, progress: Progress) -> None: ...


def _view_here() -> _View:
    if _reports:
        return _Reporting(_reports[-1])
    if _in_notebook():
        return _NotebookBar()
    return _TerminalBar() if on_terminal() else _Lines()


def on_terminal() -> bool:
    """Whether what is printed reaches a terminal, where it can be drawn over."""
    return sys.stdout.isatty() and not _in_notebook()


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, whose cells show what is displayed."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


class _Reporting:
    """Elsewhere, by what a callable makes of it."""

    def __init__(self, report: Report):
        self._report, self._reported = report, 0.0

    def begin(self, progress: Progress) -> None:
        self.end(progress)

    def update(self, progress: Progress) -> None:
        if time.monotonic() - self._reported >= REPORT_SECONDS:
            self.end(progress)

    def end(self, progress: Progress) -> None:
        self._reported = time.monotonic()
        self._report(progress.title, progress.done, progress.total, progress.note, progress.speed)


class _TerminalBar:
    """A bar of rich."""

    def begin(self, progress: Progress) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar: RichProgress = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bar.start()
        self._task = self._bar.add_task(progress.title, total=progress.total, completed=progress.done, note="")

    def update(self, progress: Progress) -> None:
        self._bar.update(self._task, completed=progress.done, note=progress.notes)

    def end(self, progress: Progress) -> None:
        self._bar.stop()


class _NotebookBar:
    """One output of the cell, which changes; rich's own bar would need ipywidgets."""

    def begin(self, progress: Progress) -> None:
        from IPython.display import display

        self._handle: Any = display(_bar_of(progress), raw=True, display_id=True)
        self._changed = time.monotonic()

    def update(self, progress: Progress) -> None:
        if time.monotonic() - self._changed >= NOTEBOOK_SECONDS:
            self.end(progress)
            self._changed = time.monotonic()

    def end(self, progress: Progress) -> None:
        self._handle.update(_bar_of(progress), raw=True)


def _bar_of(progress: Progress) -> dict[str, str]:
    """Return the bar as a notebook takes it, and as a line for what shows no HTML."""
    bar = f'<progress value="{progress.done}" max="{progress.total}"></progress>'
    return {"text/plain": progress.line, "text/html": f"{bar} {html.escape(progress.line)}"}


class _Lines:
    """A line every few seconds, for logs."""

    def begin(self, progress: Progress) -> None:
        self._printed = time.monotonic()

    def update(self, progress: Progress) -> None:
        if time.monotonic() - self._printed >= QUIET_SECONDS:
            self._printed = time.monotonic()
            print(progress.line, flush=True)

    def end(self, progress: Progress) -> None:
        """Print nothing: what comes of it is told by others."""
