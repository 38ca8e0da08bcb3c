"""Whose turn it is: which run a process trains next, of those that it may share with other processes."""

import time
from collections.abc import Callable, Collection, Sequence

from kit.core.claims import Claim, Holder
from kit.core.errors import Say, some
from kit.core.runs import ExperimentDir, RunKey
from kit.experiment.shared_folder import claim_training, holder_of_run

MARGIN = 1.3  # a run may take this much longer than the slowest before it
TICK = 1.0  # seconds between two looks at what others do
LONGEST = 60.0  # seconds of waiting after which the processes of torchrun hear from the first one


def next_run(due: Sequence[RunKey], elsewhere: Collection[RunKey], ends: float, deadline: float) -> RunKey | None:
    """Return the run to begin now.

    Parameters
    ----------
    due : sequence of RunKey
        Those that nobody has finished and this process has not begun.
    elsewhere : collection of RunKey
        Those of them that other processes work on.
    ends : float
        When a run that begins now will have ended, in the seconds of `time.monotonic`.
    deadline : float
        When it has to.

    Returns
    -------
    RunKey or None
        The first that nobody works on; None where there is none, or the time does not suffice.
    """
    return None if ends > deadline else next((key for key in due if key not in elsewhere), None)


class Turns:
    """The runs that are due, as one after the other is asked for, and the wait for those that others work on.

    Parameters
    ----------
    keys : sequence of RunKey
        In the order in which they are to be trained.
    folder : ExperimentDir
        Where they lie.
    settled : callable
        Whether a run is finished, so that nobody has to train it.
    deadline : float
        Of `time.monotonic`, in seconds: no run is begun that would go beyond it, judged by the slowest so far; the
        first always is.
    say : callable
        Takes lines about what others do.
    """

    def __init__(
        self,
        keys: Sequence[RunKey],
        folder: ExperimentDir,
        settled: Callable[[RunKey], bool],
        deadline: float,
        say: Say,
    ):
        self.keys, self.folder, self.settled, self.deadline, self.say = keys, folder, settled, deadline, say
        self._begun: set[RunKey] = set()  # by this process
        self._refused: set[RunKey] = set()  # of these, those that another process had claimed before
        self._under_way: dict[RunKey, float] = {}  # of these, those that may be, and since when
        self._slowest = 0.0
        self._told = ""

    def __iter__(self) -> "Turns":
        return self

    def __next__(self) -> RunKey:
        """The next run that nobody works on; it ends where a further one would go beyond the deadline."""
        due = self._due()
        key = next_run(due, self._elsewhere(due), self._ends(), self.deadline)
        if key is None:
            raise StopIteration
        self._begun.add(key)
        self._under_way[key] = time.monotonic()
        return key

    def take(self) -> tuple[RunKey, Claim] | None:
        """Claim the next run for this process; None where there is none now."""
        for key in self:
            if mine := claim_training(self.folder.run(key), key, self.settled, self.say):
                return key, mine
            self.give_back(key)
        return None

    def give_back(self, key: RunKey) -> None:
        """Note that a run was not begun, as another process was faster."""
        self._refused.add(key)

    def tell(self) -> None:
        """Say which runs are under way elsewhere, if any."""
        if others := self._elsewhere(self._due()):
            told = [f"{key} by {holder.owner or 'a process'}" for key, holder in others.items()]
            self.say(f"under way elsewhere: {some(told, 5)}")

    def wait(self) -> bool:
        """Wait for the runs that other processes work on.

        Returns
        -------
        bool
            Whether to ask for a run again: one was given up, or its owner died (or a minute went by). False where
            none is left, or the time does not suffice for more.
        """
        self._ends()  # how long the last ones took
        self._under_way.clear()
        self._begun -= self._refused
        self._refused.clear()
        began = time.monotonic()
        while True:
            due, now = self._due(), time.monotonic()
            others = self._elsewhere(due)
            if next_run(due, others, self._ends(), self.deadline):
                return True
            if not others or now >= self.deadline:
                return False
            if now - began >= LONGEST:
                return True
            self._tell(next(iter(others.values())))
            time.sleep(min(TICK, self.deadline - now))

    def _tell(self, holder: Holder) -> None:
        if (line := f"waits for {holder}") != self._told:
            self._told = line
            self.say(line)

    def _due(self) -> list[RunKey]:
        return [key for key in self.keys if key not in self._begun and not self.settled(key)]

    def _elsewhere(self, due: Sequence[RunKey]) -> dict[RunKey, Holder]:
        each = ((key, holder_of_run(self.folder.run(key))) for key in due)
        return {key: holder for key, holder in each if holder}

    def _ends(self) -> float:
        """When a run that begins now will have ended; the first of this process is begun in any case."""
        now = time.monotonic()
        # One that is under way takes at least as long as it has taken already.
        self._slowest = max([self._slowest, *(now - then for then in self._under_way.values())])
        self._under_way = {key: then for key, then in self._under_way.items() if not self.settled(key)}
        return now + MARGIN * self._slowest if self._begun else float("-inf")
