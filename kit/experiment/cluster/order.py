"""An experiment as it travels to the nodes of a cluster, and as it is opened there.

What travels is what decides and is small: the config, own code, the fold plan, and a digest of all else. Data and
pretrained weights are named by their digests and never sent.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.competition.config import ExtraConfig
from kit.competition.extra_tables import extra_folder
from kit.competition.folds import OtherRows, folds_text
from kit.core.errors import KitError, ignore
from kit.core.paths import OutputDirs, competition_folder, weight_file
from kit.core.runs import ExperimentDir
from kit.core.yaml import read_yaml
from kit.experiment.check_training import recipe_of
from kit.experiment.cluster.site import Site
from kit.experiment.config import ExperimentConfig, validate
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.own_files import files_of_code, pinned
from kit.experiment.prepare import Checked, TrainingData, check, decode
from kit.model.build import Normalisation

CONFIG, FOLDS, ORDER = "experiment.yaml", "folds.csv", "order.json"
IN_WORDS = {
    "extra": "extra rows",
    "config": "config, as another version of the kit reads it",
    "images": "training images",
    "pixels": "pixels, as other versions of the libraries decode them",
    "weights": "pretrained weights",
}


@dataclass(frozen=True)
class Order:
    """What a node compares with what it has, and what it need not find out again.

    Attributes
    ----------
    depends_on : dict of str to str
        As in `LoadedExperiment`.
    test : str
        The digest of the test set.
    folder : str
        The experiment's folder, below that of the runs.
    unused : int or None
        A fold whose rows nothing may see.
    mean, std : tuple of float
        By which pixels are normalised.
    """

    depends_on: dict[str, str]
    test: str
    folder: str
    unused: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


def config_files(config: ExperimentConfig) -> dict[str, bytes]:
    """Return a config and its own code as files that travel; paths of data and weights become absolute."""
    competition, weights = config.competition, config.model.weights
    path = competition_folder(competition.path, competition.slug).resolve()
    here: dict[str, Any] = {"path": str(path)}
    if competition.extra:
        folders = [extra_folder(each, path).resolve() if each.path else None for each in competition.extra]
        here["extra"] = _lying_in(competition.extra, folders)
    changed: dict[str, Any] = {"competition": competition.model_copy(update=here)}
    if weights not in ("none", "hub"):
        file = os.path.abspath(weight_file(weights))
        changed["model"] = config.model.model_copy(update={"weights": file})
    text = config.model_copy(update=changed).to_yaml()
    return {**files_of_code(config, tolerant=True), CONFIG: text.encode()}


def config_there(site: Site) -> ExperimentConfig:
    """Return the config that travelled, with the places of data and weights on this node.

    Raises
    ------
    KitError
        Where they are not there; the message says what this node lacks.
    """
    file = site.parcel / CONFIG
    config = pinned(validate(read_yaml(file, written=True), CONFIG, site.parcel, stored=True))
    competition, weights = config.competition, config.model.weights
    folder = _place(competition.path, site)
    if folder is None and not competition.embedded:
        raise KitError(f"it does not have {_looked_for(competition.path, site.data_root)}")
    there: dict[str, Any] = {"path": str(folder or competition.path)}
    if competition.extra:
        folders = [_place(each.path, site) if each.path else None for each in competition.extra]
        for each, place in zip(competition.extra, folders, strict=True):
            if each.path and place is None:
                raise KitError(f"it does not have the extra rows {_looked_for(each.path, site.data_root)}")
        there["extra"] = _lying_in(competition.extra, folders)
    changed: dict[str, Any] = {"competition": competition.model_copy(update=there)}
    if weights not in ("none", "hub"):
        place = _place(weights, site)
        if place is None:
            raise KitError(f"it does not have the weights {_looked_for(weights, site.data_root)}")
        changed["model"] = config.model.model_copy(update={"weights": str(place)})
    return config.model_copy(update=changed)


def _lying_in(extra: Sequence[ExtraConfig], folders: Sequence[Path | None]) -> tuple[ExtraConfig, ...]:
    """Return extra tables with their folders; None: that of the competition."""
    paths = [None if folder is None else str(folder) for folder in folders]
    return tuple(each.model_copy(update={"path": path}) for each, path in zip(extra, paths, strict=True))


def _place(path: str, site: Site) -> Path | None:
    """Where a file or folder of the driver lies on this node: below the data root, or at the same path.

    None where it is not there. ~ and $VARIABLES in the root are this node's.
    """
    name, root = Path(path).name, site.data_root
    below = [Path(os.path.expandvars(root)).expanduser()] if root else []
    places = [*(each / name for each in below), *below, Path(path)]
    found = next((place for place in places if place.name == name and place.exists()), None)
    if root and found == Path(path):
        site.say(f"there is no {name} in {below[0]} (--data-root); takes {path}")
    return found


def _looked_for(path: str, root: str | None) -> str:
    if root:
        return f"{Path(path).name} in {root} (--data-root), nor {path}; data and weights are not sent"
    return f"{path}; data and weights are not sent: bring them, or say with --data-root where they lie on nodes"


def order_files(loaded: LoadedExperiment, data: TrainingData, runs: Path) -> dict[str, bytes]:
    """Return an experiment that is ready to train as files that travel.

    Parameters
    ----------
    loaded : LoadedExperiment
    data : TrainingData
    runs : Path
        The folder of experiments, which holds the experiment's.
    """
    usual = data.recipe.normalisation
    order = Order(
        loaded.depends_on,
        loaded.test_digest,
        loaded.folder.path.relative_to(runs).as_posix(),
        loaded.folds.unused,
        tuple(usual.mean),
        tuple(usual.std),
    )
    return {
        **config_files(loaded.config),
        FOLDS: folds_text(loaded.folds).encode(),
        ORDER: json.dumps(dataclasses.asdict(order)).encode(),
    }


def open_order(site: Site, whole: bool = False) -> tuple[LoadedExperiment, TrainingData]:
    """Open the experiment that travelled, with this node's data.

    Parameters
    ----------
    site : Site
    whole : bool
        Check all that `prepare` checks, the model with them; else what may differ from node to node alone.

    Raises
    ------
    KitError
        Where this node has other data, other weights, or decodes images to other pixels than the driver.
    """
    content = json.loads((site.parcel / ORDER).read_bytes())
    order = Order(**content | {name: tuple(content[name]) for name in ("mean", "std")})
    told = site if whole else dataclasses.replace(site, say=ignore)  # once a node, not with every run
    config, dirs = config_there(told), OutputDirs.at(site.output, site.cache)
    nothing, folds = ExperimentDir(site.parcel / "runs"), site.parcel / FOLDS  # runs are the driver's matter
    try:
        if whole:
            checked = check(config, nothing, dirs, say=told.say, folds=folds, keys=())
        else:
            loaded = LoadedExperiment.open(config, nothing, dirs, folds=folds)
            checked = Checked(loaded, recipe_of(loaded, Normalisation(order.mean, order.std)))
    except OtherRows as error:
        raise KitError("it has other training rows than this machine; bring the same there") from error
    loaded, data = decode(checked, dirs, say=told.say, shown=False)
    _need_same(loaded, data, order)
    plan = dataclasses.replace(loaded.folds, unused=order.unused)
    loaded = dataclasses.replace(
        loaded,
        folder=ExperimentDir(dirs.runs / order.folder),
        folds=plan,
        depends_on=order.depends_on,
        differs=None,
    )
    return loaded, data


def _need_same(loaded: LoadedExperiment, data: TrainingData, order: Order) -> None:
    """Raise KitError where something that decides results is another here than where the command runs."""
    here, there = loaded.depends_on | {"test": loaded.test_digest}, order.depends_on | {"test": order.test}
    if order.unused is not None:  # what is seen of the plan was asked of the plan itself
        here["folds"] = dataclasses.replace(loaded.folds, unused=order.unused).digest
    odd = [name for name in {**there, **here} if here.get(name) != there.get(name)]
    usual = data.recipe.normalisation
    if (tuple(usual.mean), tuple(usual.std)) != (order.mean, order.std):
        odd.append("normalisation")
    if odd:
        names = {"test": "test set", **IN_WORDS}
        what = " and ".join(names.get(name, name) for name in odd)
        raise KitError(f"it has other {what} than this machine; bring the same there")
