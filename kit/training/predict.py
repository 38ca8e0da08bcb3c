"""Probabilities of images under a trained model."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from kit.core.errors import KitError, Say, ignore
from kit.data.config import DataConfig
from kit.data.device.ahead import ahead
from kit.data.device.batches import plain_batches_there
from kit.data.images import ImageSet
from kit.data.loading import EvaluationLoader, worker_count
from kit.data.workers import Workers
from kit.model.modes import evaluating
from kit.model.sizes import at_size
from kit.training.config import PredictionConfig, TrainingConfig
from kit.training.device import free_memory
from kit.training.memory import END_OTHERS, advising_on_memory, lacks_memory_of
from kit.training.views import View, Views

ONE_IMAGE = "the device's memory is too small to predict one image"


@dataclass(frozen=True)
class Normalise:
    """Turn uint8 pixels [batch, side, side, channels] into the network's input, float32 in channels-last order.

    The pixels travel to the device as bytes, a quarter of the floats they become there.

    Attributes
    ----------
    mean, std : Tensor
        [1, channels, 1, 1], in units of a pixel from 0 to 255.
    """

    mean: torch.Tensor
    std: torch.Tensor

    @classmethod
    def of(cls, mean: Sequence[float], std: Sequence[float], device: torch.device) -> "Normalise":
        """Make one from a mean and a standard deviation a channel, in units of a pixel from 0 to 1."""
        shaped = (255 * torch.tensor([mean, std], device=device)).view(2, 1, -1, 1, 1)
        return cls(shaped[0], shaped[1])

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the input of the network, float32 [batch, channels, side, side], on the device."""
        images = pixels.to(self.mean.device, non_blocking=True).permute(0, 3, 1, 2)
        return images.float().sub_(self.mean).div_(self.std)


@dataclass
class BatchLimit:
    """How many images of a batch the device's memory has room for, as far as is known.

    Attributes
    ----------
    most : int or None
        None: nothing has failed yet.
    """

    most: int | None = None

    def of(self, wanted: int) -> int:
        """Return how many images to predict at a time."""
        return wanted if self.most is None else min(wanted, self.most)


@dataclass(frozen=True)
class Predictor:
    """A trained model and how it predicts.

    Attributes
    ----------
    model : Module
        On the accelerator's device.
    normalise : Normalise
        Turns pixels into the model's input.
    accelerator : Accelerator
        Says the device, the precision, and how many processes share the rows.
    data : DataConfig
        For the size of images and the number of workers.
    training : TrainingConfig
        For the batch size where `prediction` names none: twice the training's.
    prediction : PredictionConfig
        Views and batch size.
    multilabel : bool
        Whether a row may have several labels.
    say : callable
        Takes a line where the precision had to be another one.
    never : sequence of int
        Classes that no training row has, by their place: their probability is 0.
    loader : EvaluationLoader
        Its workers serve every prediction of the same images; to be closed after the last.
    limit : BatchLimit
        Where a batch was too large for the device, the size that the following ones have.
    all_views : callable
        Asked as a prediction begins; where it says no, each image is predicted in one view whatever `prediction`
        asks for.
    timed : callable
        Told how many forward passes of single images were made, counted by their area, and in how many seconds.
    views : Views, optional
        In place of those that `prediction` asks for.
    batch_done : callable
        Told after each batch how many rows are predicted.
    """

    model: nn.Module
    normalise: Normalise
    accelerator: Accelerator
    data: DataConfig
    training: TrainingConfig
    prediction: PredictionConfig
    multilabel: bool
    say: Say = ignore
    never: Sequence[int] = ()
    loader: EvaluationLoader = field(default_factory=EvaluationLoader)
    limit: BatchLimit = field(default_factory=BatchLimit)
    all_views: Callable[[], bool] = lambda: True
    timed: Callable[[float, float], None] = lambda passes, seconds: None
    views: Views | None = None
    batch_done: Callable[[int], None] = lambda rows: None

    @property
    def chosen(self) -> Views:
        """The views that are predicted unless there is no time for them."""
        return self.views or self.prediction.chosen(self.data.size)

    @property
    def plainly(self) -> "Predictor":
        """What predicts the plain view alone, of images as they are trained on."""
        return dataclasses.replace(self, views=Views.plain(self.data.size))

    def predict(
        self,
        images: ImageSet,
        rows: Sequence[int] | np.ndarray,
        expired: Callable[[], bool] = lambda: False,
    ) -> np.ndarray:
        """Return the probabilities of some rows of `images`.

        Several processes share the rows, and each gets all the probabilities. Afterwards every module is in the
        mode (training or not) that it was in before. Where fp16 overflows, all are predicted again in fp32.
        A batch that is too large for the device's memory is halved, and so are those after it.

        Parameters
        ----------
        images : ImageSet
            The images that `rows` count in, stored for the size of the views.
        rows : sequence of int
            Which of them.
        expired : callable
            Asked before each batch; once it is true (in the only process) the probabilities end with the batch
            before.

        Returns
        -------
        ndarray
            float32 [rows, classes], in the order of `rows`: by softmax, or, where a row may have several labels,
            of each class by itself (sigmoid); the mean over the views.

        Raises
        ------
        KitError
            Where memory is too small for one image.
        """
        views = self.chosen
        if views.several and not self.all_views():
            return dataclasses.replace(self, views=views.one).predict(images, rows, expired)
        began = time.monotonic()
        probabilities = self._predicted(images, rows, expired, self.accelerator.autocast())
        self.timed(len(probabilities) * views.passes, time.monotonic() - began)
        if self.accelerator.mixed_precision != "fp16" or np.isfinite(probabilities).all():
            return probabilities
        again = self._predicted(images, rows, expired, nullcontext())
        if np.isfinite(again).all():
            self.say("values overflow in fp16; predicted again in fp32")
        return again

    def _predicted(
        self,
        images: ImageSet,
        rows: Sequence[int] | np.ndarray,
        expired: Callable[[], bool],
        precision: AbstractContextManager[None],
    ) -> np.ndarray:
        processes = self.accelerator.num_processes
        mine = np.array_split(np.asarray(rows, dtype=np.int64), processes)[self.accelerator.process_index]
        with (
            advising_on_memory(f"lower prediction.batch_size (it was {self._batch_size})"),
            evaluating(self.model),
            torch.inference_mode(),
            precision,
        ):
            outputs = self._outputs(images, mine.tolist(), expired)
            part = torch.cat(outputs).cpu().numpy() if outputs else self._no_rows()
        return np.concatenate(gather_object([part])) if processes > 1 else part

    @property
    def _batch_size(self) -> int:
        return self.limit.of(self.prediction.batch_size or 2 * self.training.batch_size)

    def _outputs(self, images: ImageSet, rows: list[int], expired: Callable[[], bool]) -> list[torch.Tensor]:
        """Return the probabilities of each batch, on the device."""
        outputs: list[torch.Tensor] = []
        done, processes, on_gpu = 0, self.accelerator.num_processes, self.accelerator.device.type == "cuda"
        views, at_sides = self.chosen, self._at_sides()
        side = images.decoder.side if views.need_all else views.side
        while True:
            left, size = rows[done:], self._batch_size
            count = worker_count(self.data.workers, on_gpu, processes) if len(left) > size else 0
            workers = Workers(count, on_gpu, processes, self.say)
            try:
                for pixels in self._batches(images, left, side, size, workers):
                    if expired():
                        break
                    outputs.append(self._probabilities(self.normalise(pixels), views, at_sides))
                    done += len(pixels)
                    self.batch_done(done)
                return outputs
            except Exception as error:
                if not lacks_memory_of(self.accelerator.device, error):
                    raise
                if size == 1:
                    lower = "data.size" if views == Views.plain(self.data.size) else "prediction.size, fewer views"
                    raise KitError(f"{ONE_IMAGE}; lower {lower}, or {END_OTHERS}") from error
            self.limit.most = size // 2
            free_memory()  # here nothing holds the error any more, whose frames hold the batch
            self.say(
                f"the device's memory is too small to predict {size} images at a time; goes on with {size // 2}"
            )

    def _batches(
        self, images: ImageSet, rows: list[int], side: int, size: int, workers: Workers
    ) -> Iterator[torch.Tensor]:
        """Yield the pixels of each batch: from the device where they stay there, else from the loader."""
        device = self.accelerator.device
        there = plain_batches_there(device, images, rows, side, size, self.data)
        return there or ahead(self.loader.batches(images, rows, side, size, workers), device)

    def _at_sides(self) -> dict[int, nn.Module]:
        """Return the model as it takes images of each side that is seen."""
        return {side: at_size(self.model, side, self.data.size) for side in {view.side for view in self.chosen}}

    def _probabilities(
        self, stored: torch.Tensor, views: Views, at_sides: Mapping[int, nn.Module]
    ) -> torch.Tensor:
        def outputs(view: View) -> torch.Tensor:
            return self._possible(at_sides[view.side](view.of(stored, views.side)).float())

        return views.combined(outputs, self._activate, self.multilabel)

    def _possible(self, logits: torch.Tensor) -> torch.Tensor:
        """Return logits of which those of classes without a row are as low as can be."""
        if len(self.never):
            return logits.index_fill(1, torch.tensor(self.never, device=logits.device), -torch.inf)
        return logits

    def _activate(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid() if self.multilabel else logits.softmax(dim=1)

    def _no_rows(self) -> np.ndarray:
        return np.zeros((0, cast(int, self.model.num_classes)), np.float32)
