"""What a training of each compared experiment took: seconds, parameters, updates."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from kit.comparison.views import View
from kit.core.runs import RunRecord

COST_COLUMNS = ("experiment", "runs", "updates", "training", "beside", "an image", "images/s", "parameters")
COSTS = (
    "Means over runs: seconds of training, and beside it (predictions, opening, writing); milliseconds to predict "
    "an image in one view; images a second while training. Seconds depend on the device, and on how many runs "
    "went side by side."
)


class CostLine(BaseModel):
    """What a run of an experiment took, on average over its finished runs; None where they do not say.

    Attributes
    ----------
    experiment : str
    runs : int
    updates : float
        Of a training.
    training : float
        Seconds of a training.
    prediction : float
        Seconds of a run beside training: held-out and test rows predicted, images opened, files written.
    image : float
        Seconds of an image that is predicted in one view.
    images_per_second : float
        While training.
    parameters : int
        Of the network.
    """

    model_config = ConfigDict(extra="allow")

    experiment: str
    runs: int
    updates: float | None = None
    training: float | None = None
    prediction: float | None = None
    image: float | None = None
    images_per_second: float | None = None
    parameters: int | None = None


def costs_of(view: View) -> list[dict[str, Any]]:
    """Return what a run of each took, for comparison.json."""
    return [
        _line(name, [run.record for run in runs.values() if run.finished])
        for name, runs in (*view.runs.items(), *view.diverged.items())
    ]


def cost_cells(line: CostLine) -> list[str]:
    """Return a line as text, a cell for each of COST_COLUMNS."""
    image = None if line.image is None else 1000 * line.image
    return [
        line.experiment,
        str(line.runs),
        _number(line.updates, "{:,.0f}"),
        _number(line.training, "{:,.1f} s"),
        _number(line.prediction, "{:,.1f} s"),
        _number(image, "{:,.2f} ms"),
        _number(line.images_per_second, "{:,.0f}"),
        _number(line.parameters, "{:,d}"),
    ]


def _number(value: float | None, form: str) -> str:
    return "—" if value is None else form.format(value)


def _line(name: str, records: Sequence[RunRecord]) -> dict[str, Any]:
    parameters = {sum(record.groups.values()) for record in records if record.groups}
    return {
        "experiment": name,
        "runs": len(records),
        "updates": _mean(records, lambda record: record.steps),
        "training": _mean(records, lambda record: record.seconds.get("training")),
        "prediction": _mean(records, _beside),
        "image": _mean(records, lambda record: record.seconds.get("image")),
        "images_per_second": _mean(records, lambda record: record.images_per_second),
        "parameters": max(parameters, default=None),
    }


def _beside(record: RunRecord) -> float | None:
    """Seconds of a run that are not its training."""
    took = record.seconds
    return max(0.0, took["whole"] - took["training"]) if {"whole", "training"} <= set(took) else None


def _mean(records: Iterable[RunRecord], of: Callable[[RunRecord], float | None]) -> float | None:
    values = [value for record in records if (value := of(record)) is not None]
    return float(np.mean(values)) if values else None
