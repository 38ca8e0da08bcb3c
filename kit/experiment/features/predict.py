"""Test images predicted by finished heads alone: what an infer kernel does."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from accelerate import Accelerator

from kit.core.errors import KitError, Say
from kit.core.runs import RunDir, predictions
from kit.data.images import ReadableImages
from kit.experiment.config import ExperimentConfig
from kit.experiment.features.extract import Body
from kit.experiment.features.head_run import chances, head_of, need_same_body, read_head
from kit.experiment.view_clock import ViewClock
from kit.experiment.views import views_of_heads
from kit.model.features import block_named
from kit.training.memory import END_OTHERS, advising_on_memory


def predictions_of_heads(
    experiment: ExperimentConfig,
    runs: Sequence[RunDir],
    readable: ReadableImages,
    accelerator: Accelerator,
    clock: ViewClock,
    say: Say,
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield the fold of each head, and what it predicts; the features are computed once for all.

    Parameters
    ----------
    experiment : ExperimentConfig
    runs : sequence of RunDir
        Of one head.
    readable : ReadableImages
    accelerator : Accelerator
    clock : ViewClock
        To it, the features are one model. Once its time is over no further feature is computed: each head predicts
        the images that were reached.
    say : callable

    Raises
    ------
    KitError
        Where the body is not the one that the heads were fitted on.
    """
    if not runs:
        return
    began, name = time.monotonic(), next(iter(experiment.policies))
    classes = list(runs[0].read_oof().columns)
    body = Body.of(experiment, len(classes), accelerator, say)
    for run in runs:
        need_same_body(run, body)
    assert experiment.features
    block = block_named(body.model, experiment.features.taken_of(name))
    features = _in_time(body, block, readable, clock)
    say(f"features of {len(features)} test images: {time.monotonic() - began:.1f} s")
    if not len(features):
        return
    if not np.isfinite(features).all():
        raise KitError("features are not finite here; predict with --set training.device=cpu")
    ids = [readable.images.ids[row] for row in readable.rows[: len(features)]]
    for run in runs:
        never = [classes.index(label) for label in run.record.never]
        made = chances(head_of(experiment, name), read_head(run), features, never)
        yield run.record.fold, predictions(ids, made, classes)


def _in_time(body: Body, block: str, readable: ReadableImages, clock: ViewClock) -> np.ndarray:
    """Return the features of test images: the mean over all views, or those of one where time is short.

    Of all images alike, and of the first ones alone where the time does not suffice for one view either.
    """
    views, title = views_of_heads(body.config), f"Features of test images ({block})"
    told = replace(body, batch_done=clock.batch_done)
    clock.begin(views)  # where time is over already, nothing is reached
    with advising_on_memory(END_OTHERS):
        found = told.features(readable.images, [block], readable.rows, clock.expired, title)[block]
        if clock.again and len(found) < len(readable.rows):
            clock.begin(views)
            found = told.plainly.features(readable.images, [block], readable.rows, clock.expired, title)[block]
    return found
