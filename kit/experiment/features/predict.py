"""Test images predicted by finished heads alone: what an infer kernel does."""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from accelerate import Accelerator

from kit.core.errors import KitError, Say
from kit.core.runs import RunDir, predictions
from kit.data.images import ReadableImages
from kit.experiment.config import ExperimentConfig
from kit.experiment.features.extract import Body
from kit.experiment.features.head_run import chances, head_of, need_same_body, read_head
from kit.model.features import block_named
from kit.training.memory import END_OTHERS, advising_on_memory


def predictions_of_heads(
    experiment: ExperimentConfig,
    runs: Sequence[RunDir],
    readable: ReadableImages,
    accelerator: Accelerator,
    expired: Callable[[], bool],
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
    expired : callable
        Once it is true no further feature is computed: each head predicts the images that were reached.
    say : callable

    Raises
    ------
    KitError
        Where the body is not the one that the heads were fitted on.
    """
    began, name = time.monotonic(), next(iter(experiment.policies))
    classes = list(runs[0].read_oof().columns)
    body = Body.of(experiment, len(classes), accelerator, say)
    for run in runs:
        need_same_body(run, body)
    assert experiment.features
    block = block_named(body.model, experiment.features.taken_of(name))
    with advising_on_memory(END_OTHERS):
        title = f"Features of test images ({block})"
        features = body.features(readable.images, [block], readable.rows, expired, title)[block]
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
