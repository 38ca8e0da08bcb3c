"""The clock of predictions with saved models: where time is short, views are given up before models are."""

import time
from collections.abc import Callable

from kit.core.errors import Say, ignore
from kit.experiment.budget import MARGIN
from kit.training.views import Views


def nothing() -> None:
    """Wait for nothing."""


class ViewClock:
    """Measures models that predict one after the other, and says in which views the next one does, and until when.

    Once what is left does not fit in all views, all of it is predicted in one; models that were done stay. The
    first model begins again in one view only where that reaches more images.

    Parameters
    ----------
    models : int
        How many predict.
    rows : int
        Images that each predicts.
    deadline : float
        By `time.monotonic`; infinite where there is none.
    say : callable
        Takes a line where views are given up.
    wait : callable
        Waits until the device has done what it was given: what is measured before that is too little.
    what : str
        What predicts, as the line has it; left out: so many models.

    Attributes
    ----------
    gave_up : bool
        Whether views were given up.
    reduced : bool
        Whether the model that was begun last predicts in one view, although its own are several.
    """

    def __init__(
        self,
        models: int,
        rows: int,
        deadline: float,
        say: Say = ignore,
        wait: Callable[[], None] = nothing,
        what: str = "",
    ):
        self._models, self._rows, self._deadline, self._say, self._wait = models, rows, deadline, say, wait
        self._what = what or f"{models} model{'s' * (models > 1)}"
        self.gave_up = self.reduced = False
        self._done, self._slowest = 0, 0.0  # models, and seconds of the slowest in the views of those to come
        self._views: Views | None = None
        self._began = self._first = 0.0  # when the model was begun, and its first batch was there
        self._rows_of_first, self._looks = 0, 1

    @property
    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def begin(self, views: Views) -> Views | None:
        """Begin with a model; return in which of its `views` it predicts, None where there is no time for it."""
        to_come = self._slowest * (self._models - self._done)
        if self._done and not self.gave_up and views.several and MARGIN * to_come > self._left:
            self._give_up(views)
        if self._slowest > self._left:
            return None
        self._began, self._rows_of_first, self._looks = time.monotonic(), 0, 1
        self._views = views.one if self.gave_up else views
        self.reduced = self.gave_up and views.several
        return self._views

    def batch_done(self, rows: int) -> None:
        """Take note that so many images of the model are predicted; project, from its second batch on."""
        if self._left == float("inf") or self._views is None or not self._views.several:
            return
        if not self._rows_of_first:  # starting takes long: it counts once a model
            self._wait()
            self._first, self._rows_of_first = time.monotonic(), rows
            return
        self._looks += 1
        if self.gave_up or self._looks & (self._looks - 1) or rows <= self._rows_of_first:
            return
        self._wait()
        row = (time.monotonic() - self._first) / (rows - self._rows_of_first)
        whole = (self._first - self._began) + row * (self._rows - self._rows_of_first)
        to_come = row * (self._rows - rows) + whole * (self._models - self._done - 1)
        if MARGIN * to_come > self._left and (self._done or self._one_reaches_more(rows, row)):
            self._give_up(self._views)

    def _one_reaches_more(self, rows: int, row: float) -> bool:
        """Whether a model that begins again in one view does all images, or more than all views do until the end.

        `rows` are done, `row` seconds each.
        """
        assert self._views
        left, share = self._left, self._views.one.passes / self._views.passes
        start = max(0.0, self._first - self._began - row * self._rows_of_first)
        return start + share * min(row * self._rows, row * rows + left) < left

    def expired(self) -> bool:
        """Whether the model is to stop: as time is over, or as views were given up, and it has to begin again."""
        return self._left < 0 or self.again

    @property
    def again(self) -> bool:
        """Whether views were given up while the model predicted in them."""
        return self.gave_up and self._views is not None and self._views.several

    def end(self) -> float:
        """Take note that a model has predicted all rows; return how many seconds that took."""
        seconds = took = time.monotonic() - self._began
        if self.again and self._views:  # given up with its last images: those to come are in one view
            took *= self._views.one.passes / self._views.passes
        self._done, self._slowest = self._done + 1, max(self._slowest, took)
        return seconds

    def _give_up(self, views: Views) -> None:
        self.gave_up = True
        self._slowest *= views.one.passes / views.passes
        done = f", {self._done} are done in all views" if self._done else ""
        self._say(
            f"the time does not suffice for {self._what} in {views}: views are given up, and those left "
            f"predict one view{done}; the decision rule was chosen on out-of-fold predictions in {views}"
        )
