"""Where a training stops, or saves itself, because that was asked for."""

from collections.abc import Callable
from typing import NoReturn

import torch
from accelerate import Accelerator

from kit.core import stopping
from kit.core.stopping import OUT_OF_TIME, Stopped
from kit.training.checkpoint import Checkpoints

GOES_ON = "the same command goes on from there"


class Stops:
    """Looks after each update whether the training is to stop or to be saved, and does that.

    Parameters
    ----------
    checkpoints : Checkpoints
    accelerator : Accelerator
        Several processes stop after the same update: they ask each other where they wait for each other anyway.
    total : int
        Updates of the training.
    check : callable
        Takes two numbers of updates, and raises where the losses between them are not finite.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        accelerator: Accelerator,
        total: int,
        check: Callable[[int, int], object],
    ):
        self.checkpoints, self.accelerator, self.total, self.check = checkpoints, accelerator, total, check
        self.alone = accelerator.num_processes == 1
        self.title, self.expired = "the training", lambda: False

    def begin(self, title: str, expired: Callable[[], bool]) -> None:
        """Say what the training is called, and what tells that its time is over."""
        self.title, self.expired = title, expired

    def look(self, done: int, logged: int, together: bool) -> None:
        """Stop or write a checkpoint where that was asked for.

        Parameters
        ----------
        done, logged : int
            Updates made, and of these logged.
        together : bool
            Whether the processes wait for each other here.

        Raises
        ------
        Stopped
            The checkpoint is written.
        """
        if not (self.alone or together):
            return
        code = stopping.asked() or (OUT_OF_TIME if self.expired() else 0)
        save: int = stopping.save_asked()
        if not self.alone:
            wishes = torch.tensor([code, save], device=self.accelerator.device)
            torch.distributed.all_reduce(wishes, torch.distributed.ReduceOp.MAX)
            code, save = wishes.tolist()
        if code:
            self.stop(done, logged, code)
        if save and done:
            self._save(done, logged)
            written = self.checkpoints.step == done or not self.checkpoints.accelerator.is_main_process
            what = "checkpoint written" if written else "no checkpoint of weights that are not finite"
            self.checkpoints.say(f"{what} after update {done} of {self.total}")

    def stop(self, done: int, logged: int, code: int) -> NoReturn:
        """Write a checkpoint, unless there is one of this update, and raise Stopped."""
        over = "the time is over: " if code == OUT_OF_TIME else ""
        if not done:
            where = f"before the first update of {self.title}; the same command begins it"
            raise Stopped(f"{over}stopped {where}", code)
        self._save(done, logged)
        raise Stopped(
            f"{over}stopped at update {done} of {self.total} of {self.title}; {self._goes_on(done)}", code
        )

    def predicting(self) -> bool:
        """Whether what is being predicted is to be given up, between two batches."""
        return self.alone and stopping.asked() > 0  # several would have to ask each other

    def give_up(self) -> NoReturn:
        """Write what is held of a training that has made its last update, and raise Stopped."""
        self.checkpoints.finish()
        on = self._goes_on(self.total)
        raise Stopped(f"stopped after the last update of {self.title}; {on}", stopping.asked())

    def _goes_on(self, done: int) -> str:
        """How the same command goes on, by the checkpoint that is there."""
        kept = self.checkpoints.step
        if kept == done or not self.accelerator.is_main_process:
            return GOES_ON
        where = f"from the checkpoint after update {kept}" if kept else "from the beginning"
        return f"its weights are not finite and were not saved; the same command goes on {where}"

    def _save(self, done: int, logged: int) -> None:
        if logged < done:
            self.check(logged, done)
        if self.checkpoints.step != done:
            self.checkpoints.take(done, logged)
        self.checkpoints.finish()
