"""What a training logs while it goes on: in memory, in history.jsonl, and with a tracker."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kit.core.runs import RunDir
from kit.training.config import TrackerName
from kit.training.rates import RateWriter
from kit.training.records import append_history, write_history
from kit.training.tracker import RunTracker


class History:
    """The log of one run.

    Parameters
    ----------
    run : RunDir
        Holds history.jsonl.
    writes : bool
        Whether this is the process that writes, of those that train together.
    rates : RateWriter
        What the tracker is told beside a loss.
    steps_per_epoch : int
    tracker : str or None
        Its name.

    Attributes
    ----------
    lines : list of dict
        `step` and `epoch` (updates and epochs done), and what was measured then.
    need : callable
        Raises where another process has taken the run over.
    """

    def __init__(
        self, run: RunDir, writes: bool, rates: RateWriter, steps_per_epoch: int, tracker: TrackerName | None
    ):
        self.run, self.writes, self.rates, self.steps_per_epoch = run, writes, rates, steps_per_epoch
        self.lines: list[dict[str, Any]] = []
        self.need: Callable[[], None] = lambda: None
        self._tracker = RunTracker(tracker if writes else None, run)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Begin the file with the lines that are there, as a checkpoint has them, and tell them the tracker."""
        if self.writes:
            write_history(self.run.history, self.lines)
        with self._tracker.following(self.lines, self.rates.by_group):
            yield

    def log(self, done: int, **values: float) -> None:
        """Add a line, after so many updates."""
        line = {"step": done, "epoch": done / self.steps_per_epoch, **values}
        self.lines.append(line)
        if self.writes:
            self.need()
            append_history(self.run.history, line)
        self._tracker.log(line, self.rates.by_group)

    def scored(self, done: int) -> bool:
        """Whether the held-out rows were scored after so many updates."""
        return any("valid_score" in line and line["step"] == done for line in self.lines)

    def write(self) -> None:
        """Write the file whole: another process, which took this one for dead, may have added to it."""
        if self.writes:
            self.need()
            write_history(self.run.history, self.lines)
