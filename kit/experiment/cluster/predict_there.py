"""What one model predicts of the test set, on a node of a cluster."""

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit.competition.load import load_test
from kit.competition.sides import TestSet
from kit.core.devices import kind_in_words
from kit.core.errors import KitError, Say, ignore
from kit.core.files import write_bytes
from kit.core.owner import Owner
from kit.core.runs import RunDir, RunRecord
from kit.core.settings import fingerprint
from kit.core.whole import digest
from kit.data.config import DataConfig
from kit.data.images import ReadableImages, content_digest, open_readable
from kit.data.loading import EvaluationLoader
from kit.experiment.cluster.memory import memory_of
from kit.experiment.cluster.order import config_files, config_there
from kit.experiment.cluster.site import NodeReport, Site
from kit.experiment.config import ExperimentConfig
from kit.experiment.predict import predict_with, predicting, waiting_for
from kit.experiment.train_run import trained_on
from kit.experiment.view_clock import ViewClock

PRELOAD = (__name__,)
TEST = "test.txt"


@dataclass(frozen=True)
class Asked:
    """A model that a node is to predict with.

    Attributes
    ----------
    number : int
        Its place among the models.
    path : Path
        The run's folder, where the command runs.
    files : dict of str to bytes
        What predicting needs of it, where nodes do not see that; else nothing.
    weights : str
        The SHA-256 of its weights.
    data : DataConfig
        How images are read.
    workers : int
        Data workers.
    until : float
        When it has to be done, by the driver's clock.
    models : int
        How many a node has to predict with until then, this one included.
    """

    number: int
    path: Path
    files: dict[str, bytes]
    weights: str
    data: DataConfig
    workers: int
    until: float
    models: int

    def __str__(self) -> str:
        return f"{self.path.parent.name} {self.path.name}"


def asked_files(experiment: ExperimentConfig, test: TestSet, readable: ReadableImages) -> dict[str, bytes]:
    """Return the config and a digest of the test images that can be read, as files that travel."""
    return {**config_files(experiment), TEST: _test_digest(test, readable).encode()}


def asked(
    number: int, run: RunDir, data: DataConfig, workers: int, until: float, models: int, shared: Path | None
) -> Asked:
    """Return what a node is told of a run; `shared` is the folder that nodes see, if they see one."""
    seen = shared is not None and run.path.resolve().is_relative_to(shared.resolve())
    files = () if seen else (run.path / "run.json", run.checked(run.weights), run.checked(run.oof))
    content = {file.name: file.read_bytes() for file in files}
    return Asked(number, run.path.resolve(), content, digest(run.weights), data, workers, until, models)


def _test_digest(test: TestSet, readable: ReadableImages) -> str:
    rows = readable.rows
    return fingerprint(
        [[test.ids[row] for row in rows], content_digest([test.images[row] for row in rows], test.folder)]
    )


def look_at_test(site: Site, item: DataConfig) -> NodeReport:
    """Say whether this node has the test images, and on what it predicts; KitError where it has others."""
    mine = Owner.mine()
    named = dataclasses.replace(site, say=lambda line: site.say(f"{mine.host}: {line}"))
    config = config_there(named)
    _images(site, config, item, named.say)
    told = trained_on(config, predicting(config.training, ignore))
    kind = kind_in_words(RunRecord(policy="", seed=0, fold=0, **told))
    return NodeReport(mine.host, kind, told["device_name"], memory=memory_of(None))


def predict_there(site: Site, model: Asked) -> tuple[int, pd.DataFrame, bool]:
    """Return the number of a model, what it predicts, and whether that is in one view for want of time.

    A row an image; fewer where the time did not suffice.

    Raises
    ------
    KitError
        Where this node has other test images, or another model lies where the run is.
    """
    until = time.monotonic() + (model.until - site.now)
    config = config_there(dataclasses.replace(site, say=ignore))  # told as the node was looked at
    config = config.model_copy(update={"data": config.data.model_copy(update={"workers": model.workers})})
    readable = _images(site, config, model.data, ignore)
    with _run(model) as run, closing(EvaluationLoader()) as loader:
        accelerator = predicting(config.training, site.say)
        clock = ViewClock(model.models, len(readable.rows), until, site.say, waiting_for(accelerator))
        made = predict_with(config, run, readable, accelerator, loader, clock, site.say)
        if made is None:  # its time was over before it began
            made = run.read_oof().iloc[:0]
    return model.number, made, clock.reduced


def _images(site: Site, config: ExperimentConfig, data: DataConfig, say: Say) -> ReadableImages:
    test = load_test(config.competition)
    what = f"decodes test images of {config.name}"
    readable = open_readable(test.ids, test.images, data, site.cache, say=say, what=what)
    if _test_digest(test, readable) != (site.parcel / TEST).read_text(encoding="ascii"):
        raise KitError("it has other test images than this machine; bring the same there")
    return readable


@contextmanager
def _run(model: Asked) -> Iterator[RunDir]:
    """The run's folder: the driver's own, or what was sent of it."""
    if not model.files:
        if digest(model.path / "weights.safetensors") != model.weights:
            raise KitError(f"{model}: {model.path} has other weights on this node than where the command runs")
        yield RunDir(model.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder, *model.path.parts[-3:]))
        for name, content in model.files.items():
            write_bytes(run.path / name, content)
        yield run
