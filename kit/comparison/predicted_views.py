"""The held-out rows of runs, predicted once in each view that some choices of views are made of."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kit.core.errors import Say, some
from kit.core.paths import OutputDirs
from kit.core.progress import Progress
from kit.core.runs import RunDir, predictions
from kit.data.images import ImageSet, open_images
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.pixels import as_they_were_read
from kit.experiment.pooled_predictions import held_out_predictions
from kit.experiment.views import prediction_data, views_of
from kit.training.views import View, Views

if TYPE_CHECKING:
    from torch import Tensor

FEW = 0.02  # probabilities that differ more than that from the stored ones are told


@dataclass(frozen=True, eq=False)
class _Each(Views):
    """Predicts the logits of each view, [batch, views, classes], and measures how long each takes."""

    parts: tuple[View, ...] = ()
    seconds: dict[View, float] = field(default_factory=dict)
    several = False  # no clock gives them up

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.parts)

    @property
    def need_all(self) -> bool:
        return any(view.name.startswith(("corner", "tile")) for view in self.parts)

    def combined(self, outputs, activate, multilabel):  # type: ignore[no-untyped-def]
        """Return logits; those of classes without a row are so low that no probability is left."""
        import torch

        def measured(view: View) -> "Tensor":
            began = time.monotonic()
            made = outputs(view)
            if made.is_cuda:
                torch.cuda.synchronize()
            self.seconds[view] += time.monotonic() - began
            return made

        if not self.seconds:  # the first pass of a size starts things
            for side in {view.side: view for view in self.parts}.values():
                outputs(side)
            self.seconds.update(dict.fromkeys(self.parts, 0.0))
        return torch.stack([measured(view) for view in self.parts], dim=1).clamp(min=-1e4)


@dataclass
class PredictionsOfViews:
    """By candidate, what each run predicts; seconds of each view, and images that they were measured on."""

    frames: dict[str, list[pd.DataFrame]]
    seconds: dict[tuple[int, View], float]
    images: int
    notes: list[str]


@dataclass(frozen=True)
class PredictedViews:
    """Predicts the held-out rows of runs in all views of some candidates."""

    loaded: LoadedExperiment
    runs: Sequence[RunDir]
    candidates: Mapping[str, Views]
    dirs: OutputDirs
    say: Say

    def all(self) -> PredictionsOfViews:
        """Return the probabilities of each candidate, run by run."""
        from kit.data.loading import EvaluationLoader
        from kit.experiment.predict import predicting, saved_predictor

        config, made = self.loaded.config, PredictionsOfViews({name: [] for name in self.candidates}, {}, 0, [])
        sides = {views.side: self._of_side(views.side) for views in self.candidates.values()}
        images = {side: self._images(views) for side, views in sides.items()}
        accelerator = predicting(config.training, self.say)
        odd = []
        with (
            Progress("Predicting views", len(self.runs) * len(sides), unit="model") as progress,
            closing(EvaluationLoader()) as loader,
        ):
            for number, run in enumerate(self.runs):
                rows = self.loaded.folds.validation_rows(run.record.fold)
                logits: dict[tuple[int, View], Tensor] = {}
                for place, (side, views) in enumerate(sides.items()):
                    each = _Each(side, views.trained, parts=views.parts, seconds={})
                    predictor = saved_predictor(config, run, accelerator, loader, each, self.say)
                    logits |= _split(side, each, predictor.predict(images[side], rows))
                    for view, seconds in each.seconds.items():
                        made.seconds[side, view] = made.seconds.get((side, view), 0.0) + seconds
                    progress.update(number * len(sides) + place + 1)
                made.images += len(rows)
                odd += self._combine(run, rows, logits, made)
        if odd:
            made.notes.append(
                f"{some(odd, 3)}: the stored predictions of these views differ from what the weights predict here "
                f"by more than {FEW}, as on another device or by other versions"
            )
        return made

    def _of_side(self, side: int) -> _Each:
        """All views of the candidates with images of this size, the plain one first."""
        parts = dict.fromkeys(view for each in self.candidates.values() if each.side == side for view in each)
        return _Each(side, self.loaded.config.data.size, parts=tuple(parts))

    def _images(self, views: Views) -> ImageSet:
        competition, config = self.loaded.competition, self.loaded.config
        data = as_they_were_read(prediction_data(config, views), [run.record for run in self.runs])
        ids, sources, what = competition.ids, competition.train_images, f"decodes train images of {config.name}"
        return open_images(ids, sources, data, self.dirs.cache, say=self.say, what=what)

    def _combine(
        self, run: RunDir, rows: np.ndarray, logits: Mapping[tuple[int, View], "Tensor"], made: PredictionsOfViews
    ) -> list[str]:
        """Add what the run predicts in each candidate; return its name where that is not what it has stored."""
        competition, odd = self.loaded.competition, []
        several, ids = competition.label_format.multilabel, [competition.ids[row] for row in rows]
        stored = held_out_predictions(run, self.loaded.folds)[list(competition.classes)].loc[ids].to_numpy()
        for name, views in self.candidates.items():

            def activate(values: "Tensor") -> "Tensor":
                return values.sigmoid() if several else values.softmax(dim=1)

            def outputs(view: View, side: int = views.side) -> "Tensor":
                return logits[side, view]

            values = views.combined(outputs, activate, several).numpy()
            made.frames[name].append(predictions(ids, values, competition.classes))
            if views == views_of(run.record, self.loaded.config) and np.abs(values - stored).max() > FEW:
                odd.append(str(run.record.key))
        return odd


def _split(side: int, each: _Each, values: np.ndarray) -> dict[tuple[int, View], "Tensor"]:
    import torch

    return {(side, view): torch.from_numpy(values[:, place]) for place, view in enumerate(each.parts)}
