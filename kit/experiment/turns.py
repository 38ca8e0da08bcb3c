"""Whose turn it is: which run a process trains next, of those that it may share with other processes."""

import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from kit.core.claims import Claim, Holder
from kit.core.errors import Say, some
from kit.core.runs import ExperimentDir, RunKey
from kit.experiment.budget_plan import Plan
from kit.experiment.shared_folder import claim_training, holder_of_run

TICK = 1.0  # seconds between two looks at what others do
LONGEST = 60.0  # seconds of waiting after which the processes of torchrun hear from the first one


class Turns:
    """The runs that are due, as one after the other is asked for, and the wait for those that others work on.

    Without a budget a run is looked at when it may be the next one, and what is finished is not looked at again:
    of ten thousand runs each costs what it does of ten. Within a budget all that is left is looked at, as what
    fits into the time depends on it.

    Parameters
    ----------
    keys : sequence of RunKey
        In the order in which they are to be trained.
    folder : ExperimentDir
        Where they lie.
    settled : callable
        Whether a run is finished, so that nobody has to train it.
    plan : Plan
        Says which of them fits into the time.
    say : callable
        Takes lines about what others do, and of the plan.
    hand_in : callable, optional
        As `Plan.choose` takes it.
    """

    def __init__(
        self,
        keys: Sequence[RunKey],
        folder: ExperimentDir,
        settled: Callable[[RunKey], bool],
        plan: Plan,
        say: Say,
        hand_in: Callable[[], object] | None = None,
    ):
        self.keys, self.folder, self.settled, self.plan, self.say = keys, folder, settled, plan, say
        self.hand_in = hand_in
        self._order = plan.due if plan.budget.limited else keys
        # Neither begun by this process nor known to be finished. Of a dict, whose first entries are taken away one
        # by one, the first one that is left would have to be searched for.
        self._left = OrderedDict.fromkeys(self._order)
        self._refused: set[RunKey] = set()  # begun by this process, but another one had claimed them before
        self._told = ""

    def __iter__(self) -> "Turns":
        return self

    def __next__(self) -> RunKey:
        """The next run that nobody works on; it ends where a further one does not fit into the time."""
        if (key := self._next()) is None:
            raise StopIteration
        del self._left[key]
        self.plan.begin(key)
        return key

    def _next(self) -> RunKey | None:
        with closing(self._looks()) as looks:
            free = (key for key, holder in looks if not holder)
            if not self.plan.budget.limited:
                return next(free, None)
            return self.plan.choose(list(free), self.say, self.hand_in)

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
        self.plan.give_back(key)

    def tell(self) -> None:
        """Say which runs are under way elsewhere, if any."""
        if others := self._elsewhere():
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
        self._ask_again_for_refused()
        began = time.monotonic()
        while True:
            if self._next():
                return True
            others = self._elsewhere()
            if self.plan.budget.over:
                return False
            if not others:  # or one was given up just now
                return self._next() is not None
            if time.monotonic() - began >= LONGEST:
                return True
            self._tell(next(iter(others.values())))
            time.sleep(max(0.0, min(TICK, self.plan.budget.left)))

    def _tell(self, holder: Holder) -> None:
        if (line := f"waits for {holder}") != self._told:
            self._told = line
            self.say(line)

    def _ask_again_for_refused(self) -> None:
        """Let those that were given back be due again, each in its place."""
        if self._refused:
            left = self._refused.union(self._left)
            self._left = OrderedDict.fromkeys(key for key in self._order if key in left)
            self._refused.clear()

    def _elsewhere(self) -> dict[RunKey, Holder]:
        """Return those that are due and on which other processes work, and who these are."""
        return {key: holder for key, holder in self._looks() if holder}

    def _looks(self) -> Generator[tuple[RunKey, Holder | None], None, None]:
        """Yield what is due, and who works on it, each looked at when it is asked for; forget what is finished."""
        finished = []
        try:
            for key in self._left:
                if self.settled(key):
                    finished.append(key)
                else:
                    yield key, holder_of_run(self.folder.run(key))
        finally:
            for key in finished:
                del self._left[key]
