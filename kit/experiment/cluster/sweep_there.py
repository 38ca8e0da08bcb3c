"""A curve of the range test on a node of a cluster."""

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kit.core.runs import RunKey
from kit.experiment.cluster.order import open_order
from kit.experiment.cluster.site import Site
from kit.experiment.cluster.train_there import with_workers
from kit.experiment.find_lr import swept
from kit.training.range_test import RangeTestResult, Sweep

PRELOAD = (__name__,)


@dataclass(frozen=True)
class Curve:
    """A curve that a node is to measure.

    Attributes
    ----------
    title : str
    sweep : Sweep
    key : RunKey
        The run whose first updates it takes.
    epochs : int
        That hold as many updates.
    workers : int
        Data workers.
    """

    title: str
    sweep: Sweep
    key: RunKey
    epochs: int
    workers: int

    def __str__(self) -> str:
        return f"find-lr {self.title}"


def sweep_there(site: Site, curve: Curve) -> tuple[str, RangeTestResult]:
    """Return the title of a curve and what the range test saw.

    Raises
    ------
    KitError
        As `swept`.
    """
    loaded, data = open_order(site)
    data = with_workers(data, curve.workers)
    training = data.recipe.training.model_copy(update={"epochs": curve.epochs})
    data = dataclasses.replace(data, recipe=dataclasses.replace(data.recipe, training=training))
    with tempfile.TemporaryDirectory() as scratch:
        return curve.title, swept(curve.title, curve.sweep, curve.key, loaded, data, Path(scratch))
