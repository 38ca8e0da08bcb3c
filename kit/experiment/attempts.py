"""A training that is tried again where it can be mended here: with smaller micro-batches, or lower rates."""

import math
import tempfile
from collections.abc import Callable, Collection, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from accelerate import Accelerator, PartialState

from kit.core.errors import Diverged, KitError, Say
from kit.core.runs import RunDir, RunKey, RunRecord
from kit.core.stopping import asked
from kit.experiment.prepare import TrainingData
from kit.lr import Policy
from kit.training.config import TrainingConfig
from kit.training.device import free_memory, make_accelerator
from kit.training.micro_batch import TooLarge, with_micro_batch
from kit.training.nonfinite import LOWER, RESTARTS, Lowered, discard_broken, largest_update
from kit.training.rates import RatePolicy
from kit.training.trainer import Trainer

Made = TypeVar("Made")


@dataclass(frozen=True)
class Attempt:
    """What a training does otherwise than its config says.

    Attributes
    ----------
    micro_batch : int or None
        Images of a forward pass; None: as the config says.
    restarts : tuple of dict
        As `RunRecord.nonfinite` has them.
    """

    micro_batch: int | None = None
    restarts: tuple[dict, ...] = ()

    @classmethod
    def of(cls, run: RunDir, fingerprint: str | None) -> "Attempt":
        """Return how a run is to go on that was begun before.

        A checkpoint goes on with the micro-batches that it was made with. Rates that were lowered stay lowered.
        """
        before = run.record if run.begun else None
        if before is None or before.fingerprint != fingerprint or before.status == "finished":
            return cls()
        restarts = tuple(each for each in before.nonfinite if "factor" in each)
        return cls(before.micro_batch if run.resumable else None, restarts)

    @property
    def factor(self) -> float:
        """What all rates are multiplied by."""
        return self.restarts[-1]["factor"] if self.restarts else 1.0

    def training(self, config: TrainingConfig) -> TrainingConfig:
        """Return the section of the config, with this micro-batch."""
        return with_micro_batch(config, self.micro_batch)

    def data(self, data: TrainingData) -> TrainingData:
        """Return the data, with this micro-batch in its recipe."""
        return replace(data, recipe=replace(data.recipe, training=self.training(data.recipe.training)))

    def policy(self, stated: Policy) -> RatePolicy:
        """Return the policy, with these rates."""
        return Lowered(stated, self.factor) if self.restarts else stated

    def noted(self, record: RunRecord, skipped: Iterable[int] = ()) -> RunRecord:
        """Return the record with what is done otherwise, and the updates that were left out."""
        done = [*self.restarts, *({"skipped": step} for step in sorted(skipped))]
        fields: dict[str, object] = {"micro_batch": self.micro_batch} if self.micro_batch else {}
        return record.with_fields(**fields, **({"nonfinite": done} if done else {}))

    def lower(self, error: Diverged) -> "Attempt | None":
        """Return the attempt that follows one that diverged: at lower rates, or none after three."""
        if len(self.restarts) >= RESTARTS:
            return None
        made = {"factor": self.factor * LOWER, "step": error.step, "error": str(error)}
        return replace(self, restarts=(*self.restarts, made))


MakeTrainer = Callable[[Attempt, Accelerator, RunDir], Trainer]


class Attempts:
    """Makes a training, and makes it again where device memory is too small for it, or its rates too high.

    Parameters
    ----------
    key : RunKey
    run : RunDir
        Where it writes.
    config : TrainingConfig
        As it is stated.
    record : RunRecord
        Of the run, as it begins.
    trainer : callable
        Takes an attempt, a fresh accelerator and the folder of a run, and gives the Trainer.
    say : callable
        Takes a line for each attempt after the first.
    need : callable
        Asked before anything is written or removed: raises where the run is another process's by now.
    expired : callable
        Whether the time is over, so that nothing is made again only to say what broke a training.
    """

    def __init__(
        self,
        key: RunKey,
        run: RunDir,
        config: TrainingConfig,
        record: RunRecord,
        trainer: MakeTrainer,
        say: Say,
        need: Callable[[], None] = lambda: None,
        expired: Callable[[], bool] = lambda: False,
    ):
        self.key, self.run, self.config, self.trainer, self.say = key, run, config, trainer, say
        self.need, self.expired = need, expired
        self._record, self.now = record, Attempt.of(run, record.fingerprint)
        self._skipped: Collection[int] = ()

    @property
    def record(self) -> RunRecord:
        """The run's, with what is done otherwise than its config says."""
        return self.now.noted(self._record, self._skipped)

    def make(self, train: Callable[[Trainer], Made], look_for_cause: bool = True) -> tuple[Trainer, Made]:
        """Return the last attempt's trainer, closed, and what `train` gave.

        Parameters
        ----------
        train : callable
            Takes a Trainer.
        look_for_cause : bool
            Whether the updates since the last checkpoint are made again where a loss is not finite, to say what
            broke it.

        Raises
        ------
        Diverged
            Where a loss is not finite, and nothing more is tried.
        """
        while True:
            accelerator = self._begin()
            following: Attempt | None = None
            try:
                with closing(self.trainer(self.now, accelerator, self.run)) as trainer:
                    self._skipped = trainer.rates.skipped
                    return trainer, train(trainer)
            except TooLarge as error:
                following, text, step = replace(self.now, micro_batch=error.fits), str(error), None
            except Diverged as error:
                if error.step and accelerator.is_main_process:
                    self.need()
                    discard_broken(self.run, error.step)
                restarts = self.config.on_nonfinite == "restart_lower"
                following = self.now.lower(error) if restarts else None
                # With skip the weights hold what every update made of them, not what the last one did.
                looks = error.step and look_for_cause and self.config.on_nonfinite != "skip"
                if following is None and not looks:
                    raise
                text, step = str(error), error.step
            # Behind the handlers nothing holds the error any more, whose frames hold the model.
            trainer = accelerator = None  # type: ignore[assignment]
            free_memory()
            if following is None:
                raise Diverged(text + self._cause(step))
            self._follow(following, text)

    def _begin(self) -> Accelerator:
        accelerator = make_accelerator(self.now.training(self.config))
        self._skipped = ()
        if accelerator.is_main_process:
            self.need()
            self.run.write(self.record)
        accelerator.wait_for_everyone()
        return accelerator

    def _follow(self, following: Attempt, text: str) -> None:
        """Turn to the next attempt."""
        if len(following.restarts) > len(self.now.restarts):
            # In this order: a kill in between leaves a run that begins anew and comes here again.
            if PartialState().is_main_process:
                self.need()
                for path in self.run.path.glob("checkpoint*"):
                    path.unlink()
            place = f"restart {len(following.restarts)} of {RESTARTS}"
            text += f"; begins anew with all rates × {following.factor:.3g} ({place})"
        elif self.run.resumable:
            text += "; goes on from its last checkpoint"
        self.now = following
        self.say(f"{self.key}: {text}")

    @property
    def _ends(self) -> bool:
        """Whether the command is to end, so that nothing more is to be found out."""
        return asked() > 0 or self.expired()

    def _cause(self, step: int | None) -> str:
        """Say which depth group the update before that loss moved most; nothing where that cannot be found."""
        if self._ends:
            return ""
        self.say(f"{self.key}: the loss is not finite; makes the updates before it again, to see what broke it")
        with tempfile.TemporaryDirectory() as scratch:
            for path in self.run.path.glob("checkpoint*"):  # whose history stays as it is
                (Path(scratch) / path.name).symlink_to(path.resolve())
            try:
                accelerator = make_accelerator(self.now.training(self.config))
                with closing(self.trainer(self.now, accelerator, RunDir(Path(scratch)))) as trainer:
                    found = largest_update(trainer, step - 1, lambda: self._ends) if step else None
            except (KitError, RuntimeError):
                return ""
        if found is None:
            return ""
        label, ratio = found
        size = f"by {ratio:.2g} times their norm" if math.isfinite(ratio) else "to values that are not finite"
        return f" (the update before moved the weights of depth group {label} most, {size})"
