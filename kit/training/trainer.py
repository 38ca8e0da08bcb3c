"""The training loop: one policy, one fold, one seed."""

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from kit.core.errors import Diverged, Say, ignore
from kit.core.progress import Progress
from kit.core.runs import RunDir
from kit.core.seeds import derive
from kit.core.stopping import Stopped
from kit.data.device.augment import augments_on_device
from kit.data.images import ImageSet
from kit.data.loading import plain_batches, worker_count
from kit.data.workers import Workers
from kit.model.build import weights_digest
from kit.model.groups import DepthGroup
from kit.scoring.f1 import plain_score
from kit.training.averaging import LastWeights, Settling, build_average
from kit.training.batches import Batch, FoldBatches, batches_of
from kit.training.checkpoint import Checkpoints
from kit.training.compiled import Compiled, telling_what_fails
from kit.training.device import seed_device
from kit.training.fold_data import FoldData, Recipe
from kit.training.history import History
from kit.training.nonfinite import Skipper, advice, first_broken, sound
from kit.training.norm_sync import synchronise, together
from kit.training.objective import Objective
from kit.training.optimizer import build_optimizer
from kit.training.predict import Normalise, Predictor
from kit.training.probes import Probes
from kit.training.rates import RatePolicy, RateWriter
from kit.training.sampler import Sampler
from kit.training.saved_weights import load_weights
from kit.training.signals import SignalMeter
from kit.training.stops import Stops


@dataclass(frozen=True)
class TrainResult:
    """What a training gives.

    Attributes
    ----------
    model : Module
        With the weights that count: those of the last step, or an average of them.
    probabilities : ndarray
        Of the held-out rows, float32 [valid_rows, classes].
    score : float
        Of these by the plain rule (the most likely class, or all from .5 on), before a rule is fitted.
    steps : int
        Updates of the whole training.
    seconds : float
        That the updates made in this process took, without scoring the held-out rows.
    images_per_second : float
        Trained in these seconds.
    """

    model: nn.Module
    probabilities: np.ndarray
    score: float
    steps: int
    seconds: float
    images_per_second: float


class Trainer:
    """Trains one model under one policy on one fold.

    One update, from beginning to end (`_update`):

    1. Seed what is drawn on the device (dropout, drop path, mixing) from the seed and the step alone.
    2. Ask the policy for the rates of this step, and write them into the optimizer.
    3. For each micro-batch: normalise and mix, forward, loss, backward; gradients add up.
    4. Clip the gradients; where the policy has a controller, let it correct the rates.
    5. Record the rates as they stand in the optimizer, take its step, and confirm that it used them.
    6. Let the average of the weights follow.

    Nothing of that waits for the device. Every `log_every` updates, and at the end of each epoch, the losses are
    read from it: they are checked, logged, and realised rates are compared with the policy's. Between updates the
    held-out rows are scored (a diagnostic), and a checkpoint is saved.

    Randomness depends on (seed, epoch, sample) and (seed, step) alone, so a run that is killed and started again
    from its checkpoint ends with the same bits.

    Parameters
    ----------
    model : Module
        On any device; its weights are the initial ones.
    groups : sequence of DepthGroup
        Its depth groups, stem first.
    policy : RatePolicy
        Says the rates of every update.
    fold : FoldData
        The rows that train and those held out.
    recipe : Recipe
        How to train.
    seed : int
        Of the run.
    accelerator : Accelerator
        A fresh one for this training.
    run : RunDir
        Where the files of the run go.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[DepthGroup],
        policy: RatePolicy,
        fold: FoldData,
        recipe: Recipe,
        seed: int,
        accelerator: Accelerator,
        run: RunDir,
    ):
        config, device = recipe.training, accelerator.device
        self.fold, self.recipe, self.config, self.seed, self.dir = fold, recipe, config, seed, run
        self.accelerator, self.device = accelerator, device
        self.groups, self.initial_weights = groups, weights_digest(model)
        sampler = Sampler(config.sampler, fold.targets[fold.train_rows], fold.multilabel)
        plan = batches_of(config, len(fold.train_rows), seed, accelerator)
        self.plan = dataclasses.replace(plan, drawing=sampler.drawing)
        total, per_epoch = self.plan.total_steps, self.plan.steps_per_epoch

        self.normalise = Normalise.of(recipe.normalisation.mean, recipe.normalisation.std, device)
        self.batches = FoldBatches(fold, recipe.data, self.plan, device)
        self.objective = Objective.of(config, fold, sampler, self.plan, device)

        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # stubs lag
        if config.sync_batch_norm and accelerator.num_processes > 1:
            synchronise(self.model)
        self.ema = build_average(config, self.model, total)
        self.final_model: nn.Module = self.ema.module if self.ema else self.model
        optimizer = build_optimizer(config.optimizer, model, groups, device, policy.peak)
        self.compiled = Compiled(self.model, config.compile == "graphs") if config.compile else None
        # Not the model: accelerate would put autocast into its `forward`, for all that look into it.
        self.optimizer = accelerator.prepare_optimizer(optimizer)
        self.network: nn.Module = self.model  # what a batch goes through: where processes train together, DDP
        self.settling = Settling(
            *(self.model, self.final_model, optimizer, accelerator, config.norm_batches, self._some_inputs),
            self.ema if isinstance(self.ema, LastWeights) else None,
        )
        self.predictor = self._predictor()

        self.rates = RateWriter(policy, groups, total, per_epoch)
        controller, decay = policy.controller, config.optimizer.weight_decay
        self.signal_meter = SignalMeter.of(controller, model, groups, decay, per_epoch) if controller else None
        self.probes: Probes | None = None
        main = accelerator.is_main_process
        if config.probes and main:
            self.probes = Probes(config.probes, self.model, total, seed)
        self.losses = torch.zeros(total, device=device)  # stays there until it is logged
        self.logged = 0  # updates whose losses have been logged
        self.history = History(run, main, self.rates, per_epoch, config.tracker)
        self.made = 0  # updates
        self.say: Say = ignore
        skips = config.on_nonfinite == "skip"
        self.skipper = Skipper(self.model, accelerator, self.rates, per_epoch) if skips else None
        self.checkpoints = self._kept_in(run)
        self.stops = Stops(self.checkpoints, accelerator, total, self._checked_losses)

    def train(
        self,
        title: str = "training",
        on_step: Callable[[int], None] | None = None,
        expired: Callable[[], bool] = lambda: False,
    ) -> TrainResult:
        """Train to the last step, going on from the run's checkpoint where there is one.

        Parameters
        ----------
        title : str
            Of the progress bar, and in what is said of where it stopped.
        on_step : callable, optional
            Called with the number of each update after it.
        expired : callable
            Asked after each update (of several processes: at each look at the losses); once it is true, a
            checkpoint is written and the training stops.

        Raises
        ------
        Stopped
            Where that was asked for by a signal (`kit.core.stopping`) or by `expired`; a checkpoint is written.
        KitError
            For a loss that is not finite, and for realised rates that are not the policy's.
        """
        self.stops.begin(title, expired)
        first, self.logged = self.checkpoints.restore()
        try:
            with self.history.following(), telling_what_fails(self.compiled):
                return self._train(first, title, on_step)
        except BaseException:
            self.checkpoints.close()  # what is being written is worth having
            raise

    def _train(self, first: int, title: str, on_step: Callable[[int], None] | None) -> TrainResult:
        total, per_epoch = self.plan.total_steps, self.plan.steps_per_epoch
        started = time.monotonic()
        evaluating = 0.0  # seconds
        if self.compiled and (notice := self.compiled.notice()):
            self.say(notice)
        self._measure_butterfly(first)
        main, images = self.accelerator.is_main_process, self.plan.samples_per_update
        with (
            Progress(title, total, first, shown=main, images=images) as progress,
            closing(self.updates(first)) as updates,
        ):
            self.stops.look(first, self.logged, together=True)
            if first and self._evaluates_at(first) and not self.history.scored(first):  # where that was given up
                self._begin(first)
                evaluating += self._score(first)
            for step in updates:
                done = step + 1
                progress.update(done)
                self._measure_butterfly(done)
                logs = done % per_epoch == 0 or done - self.logged >= self.config.log_every
                if logs:
                    progress.update(done, f"loss {self._log_losses(self.logged, done):.3f}")
                    self.logged = done
                    if self.compiled and (news := self.compiled.news(done)):
                        self.say(news)
                self.stops.look(done, self.logged, together=logs)
                if self._evaluates_at(done):
                    evaluating += self._score(done)
                if logs:
                    self.checkpoints.offer(done, done, done % per_epoch == 0)
                if on_step:
                    on_step(step)
        seconds = time.monotonic() - started - evaluating
        self.checkpoints.hold(total, total)
        self.settling.settle()
        probabilities = self.evaluate()
        final_score = self._log_score(probabilities, total)
        self._save_records()
        speed = (total - first) * self.plan.samples_per_update / max(seconds, 1e-9)
        return TrainResult(self.final_model, probabilities, final_score, total, seconds, speed)

    def _begin(self, first: int) -> None:
        """Bring model and optimizer into the state of learning, before update number `first`."""
        self.model.train()
        self.settling.begin()
        if first:
            self.rates.write(first - 1, self.optimizer)  # what was frozen last is frozen for what comes before it
        self._distribute()

    def _score(self, done: int) -> float:
        """Score the held-out rows and log that; return the seconds that it took."""
        began = time.monotonic()
        try:
            with self.settling.settled():
                probabilities = self.glance()
        except Stopped as stopped:
            self.stops.stop(done, self.logged, stopped.code)
        self._log_score(probabilities, done)
        return time.monotonic() - began

    def updates(self, first: int = 0) -> Generator[int, None, None]:
        """Make one update after the other, from number `first` on, and yield the number of each afterwards."""
        self._begin(first)
        self.made = first
        with closing(self.batches.after(first, self._workers())) as batches:
            for step in range(first, self.plan.total_steps):
                self._update(step, batches)
                self.made = step + 1
                yield step

    def remaining_updates(self) -> tuple[int, Generator[int, None, None]]:
        """Take up the checkpoint, and return how many updates it holds, and what makes the others."""
        self.checkpoints.say = ignore
        first, self.logged = self.checkpoints.restore()
        return first, self.updates(first)

    def _predictor(self) -> Predictor:
        """What predicts with the weights that count."""
        return Predictor(
            self.final_model,
            self.normalise,
            self.accelerator,
            self.recipe.data,
            self.config,
            self.recipe.prediction,
            self.fold.multilabel,
            never=self.fold.without_rows,
        )

    def evaluate(self) -> np.ndarray:
        """Return the probabilities of the held-out rows under the weights that count, float32 [rows, classes]."""
        return self.predict(self.fold.predicted_images, self.fold.valid_rows)

    def glance(self) -> np.ndarray:
        """Return those of the plain view, of images as they are trained on: a diagnostic while it trains."""
        return self.predict(self.fold.images, self.fold.valid_rows, self.predictor.plainly)

    def predict(
        self, images: ImageSet, rows: Sequence[int] | np.ndarray, predictor: Predictor | None = None
    ) -> np.ndarray:
        """Return the probabilities of some rows of `images` under the weights that count, float32 [rows, classes].

        `predictor` is another than the training's.

        Raises
        ------
        Diverged
            Where they are not finite.
        Stopped
            Between two batches, where that was asked for; what is held of the training is written.
        """
        if self.accelerator.num_processes > 1:  # each process has batch-norm statistics of its own samples
            for buffer in self.final_model.buffers():
                torch.distributed.broadcast(buffer, src=0)
        probabilities = (predictor or self.predictor).predict(images, rows, self.stops.predicting)
        if len(probabilities) < len(rows):
            self.stops.give_up()
        if not np.isfinite(probabilities).all():
            error = Diverged("the trained model predicts values that are not finite; " + advice(self.accelerator))
            error.step = self.made
            raise error
        return probabilities

    def load_weights(self) -> None:
        """Take the weights that the run saved when it was finished; Damaged where they are not those."""
        load_weights(self.dir, self.final_model)

    def take(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take weights that no update made, as the mean of several models', and estimate batch norms for them."""
        self.final_model.load_state_dict(weights)
        self._begin(self.plan.total_steps)
        self.settling.estimate_norms()

    def close(self) -> None:
        """End the processes that prepare batches for evaluations, and let a checkpoint be written to its end."""
        self.predictor.loader.close()
        self.checkpoints.close()

    # One update.

    def _update(self, step: int, batches: Iterator[Batch]) -> None:
        """Make one optimizer update.

        Nothing in here waits for the device but a controller's signals (and the scaler of fp16, where the
        optimizer has no fused form).
        """
        self._seed(step)
        if self.rates.write(step, self.optimizer):
            self._distribute()
        mean_weight, left_out = self.objective.mean_weight(step), False
        if self.skipper:
            self.skipper.begin()
        for part in range(self.config.accumulate):
            pixels, targets = next(batches)
            inputs, targets = self.normalise(pixels), targets.to(self.device, non_blocking=True)
            inputs, targets, weights = self.objective.samples(step, part, inputs, targets)
            with self.accelerator.accumulate(self.network):
                with self.accelerator.autocast(), self._watch_activations(step, part), together():
                    loss = self.objective.value(self.network(inputs).float(), targets, weights) / mean_weight
                self.accelerator.backward(loss)
                self.losses[step] += loss.detach() / self.config.accumulate
                if self.accelerator.sync_gradients:  # all parts are there
                    left_out = self._leaves_out(step)
                    if not left_out:
                        self._before_step(step)
                if not left_out:
                    self.optimizer.step()  # by accelerate, nothing before all parts are there
                self.optimizer.zero_grad()
        self.rates.confirm(step, self.optimizer)
        if left_out:
            return
        if self.signal_meter:
            self.signal_meter.after_update(self.rates.lr[step])
        if self.probes:
            self.probes.after_update(step, self.optimizer)
        if self.ema:
            self.ema.update(self.model, step=step)

    def _leaves_out(self, step: int) -> bool:
        """Say whether this update is left out (training.on_nonfinite: skip)."""
        if not (self.skipper and self.skipper.leaves_out(step, self.losses[step], self.optimizer)):
            return False
        if self.probes:
            self.probes.leave_out(step)
        return True

    def _before_step(self, step: int) -> None:
        """Do what has to be done between the gradients of the whole update and the optimizer's step."""
        if self.config.clip_grad:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip_grad)
        if self.signal_meter:
            if self.accelerator.scaler and not self.config.clip_grad:  # clipping takes fp16's scale out
                self.accelerator.unscale_gradients(self.optimizer)
            self.rates.control(step, self.optimizer, self.signal_meter.measure(step))
        self.rates.record(step, self.optimizer)
        if self.probes and self.probes.due(step):
            self.probes.before_update(self._gradient_scale())

    def _watch_activations(self, step: int, part: int) -> AbstractContextManager[None]:
        """Let probes look at the first of the forward passes of an update."""
        return self.probes.watching(step) if self.probes and part == 0 else nullcontext()

    def _gradient_scale(self) -> float | torch.Tensor:
        """Return what fp16's gradients are still multiplied by; `get_scale()` would wait for the device."""
        scaler = self.accelerator.scaler
        if not scaler or self.config.clip_grad or self.signal_meter:
            return 1.0
        return scaler.scale(torch.ones((), device=self.device))

    def _workers(self) -> Workers:
        """Return the processes that prepare batches."""
        on_gpu, processes = self.device.type == "cuda", self.accelerator.num_processes
        return Workers(worker_count(self.recipe.data.workers, on_gpu, processes), on_gpu, processes, self.say)

    def _some_inputs(self, count: int) -> Iterator[torch.Tensor]:
        """Yield the network's inputs of the first batches of the training, on which norms are estimated."""
        return (self.normalise(pixels) for pixels, _ in self.batches.first_ones(count))

    def _seed(self, step: int) -> None:
        """Make dropout, drop path and mixing of this step depend on the seed and the step alone."""
        value = derive("step", self.seed, step, self.plan.rank)
        seed_device(value, self.device)
        if self.objective.mix:
            np.random.seed(value % 2**32)

    def _distribute(self) -> None:
        """Let the processes share their gradients, of those parameters that have one now.

        DistributedDataParallel waits for the gradients of all parameters that had one when it was made.
        """
        if self.accelerator.num_processes > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            self.network = self.model  # the one before goes first
            self.network = nn.parallel.DistributedDataParallel(self.model, device_ids=devices)

    # Looking: what waits for the device, between updates.

    def _measure_butterfly(self, done: int) -> None:
        if not (self.probes and self.probes.butterfly_due(done)):
            return
        rows = self.fold.valid_rows[: self.probes.config.images].tolist()
        images, size = self.fold.images, self.recipe.data.size
        pixels = next(iter(plain_batches(images, rows, size, len(rows))))
        self.probes.measure_butterfly(done, self.normalise(pixels), self.fold.multilabel)

    def _log_losses(self, first: int, done: int) -> float:
        """Check the rates and losses of steps `first` to `done`, log their mean loss and return it."""
        losses = self._checked_losses(first, done)
        if not len(losses):  # all were left out
            return float("nan")
        mean = float(losses.mean())
        self.history.log(done, loss=mean)
        return mean

    def _checked_losses(self, first: int, done: int) -> np.ndarray:
        """Check the rates and losses of steps `first` to `done`, and return the losses of those not left out."""
        self.rates.audit(range(first, done))
        if self.probes:
            self.probes.collect()
        losses = self.accelerator.reduce(self.losses[first:done].clone(), "mean").cpu().numpy()
        if (step := first_broken(losses, first, self.rates.skipped)) is not None:
            error = Diverged(
                f"the loss is {losses[step - first]} at step {step} of {self.plan.total_steps} "
                f"(epoch {step / self.plan.steps_per_epoch:.1f}), where the highest rate was "
                f"{self.rates.lr[step].max():.3g}; {advice(self.accelerator)}"
            )
            error.step = step
            raise error
        return losses[[step not in self.rates.skipped for step in range(first, done)]]

    def _evaluates_at(self, done: int) -> bool:
        """Say whether to score: at the end of every n-th epoch but the last, which is scored after the loop."""
        steps = self.config.evaluate_every * self.plan.steps_per_epoch
        return bool(steps) and done % steps == 0 and done < self.plan.total_steps

    def _log_score(self, probabilities: np.ndarray, done: int) -> float:
        """Log the score of the held-out rows and return it: by the plain rule, whatever rule is fitted later."""
        truth = self.fold.labels[self.fold.valid_rows]
        if self.fold.multilabel:
            likelihood = np.where(truth, probabilities, 1 - probabilities)
        else:
            likelihood = probabilities[np.arange(len(truth)), truth]
        value = plain_score(probabilities, truth, self.recipe.scoring)
        loss = float(-np.log(likelihood.astype(np.float64).clip(1e-15)).mean())
        self.history.log(done, valid_score=value, valid_loss=loss)
        return value

    # Saving.

    def _kept_in(self, run: RunDir) -> Checkpoints:
        """What keeps the state of this training."""
        state = {
            "model": self.model,
            "ema": self.ema.averaged if isinstance(self.ema, LastWeights) else self.ema and self.ema.module,
            "optimizer": self.optimizer,
            "scaler": self.accelerator.scaler,
            "rates": self.rates,
            "signals": self.signal_meter,
            "probes": self.probes,
        }
        minutes = self.config.checkpoint_minutes
        checkpoints = Checkpoints(run, minutes, self.accelerator, state, self.losses, self.history.lines)
        checkpoints.sound = self._is_sound
        checkpoints.augments = augments_on_device(self.recipe.data, self.device)
        return checkpoints

    def _is_sound(self, done: int) -> bool:
        """Whether a checkpoint after so many updates is worth its name; where not, the next losses say why."""
        return sound(self.model, self.optimizer, self.losses[:done], self.rates.skipped)

    def _save_records(self) -> None:
        """Compare all realised rates with the policy's, and write them and what the probes saw."""
        self.rates.audit(range(self.plan.total_steps))
        self.history.write()
        if self.accelerator.is_main_process:
            self.rates.save(self.dir.rates, self.optimizer)
        if self.probes:
            self.probes.save(self.dir.activations, self.dir.learning)
