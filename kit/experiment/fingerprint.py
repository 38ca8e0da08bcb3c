"""Whether a run, or an experiment's folder, is of this config and this data."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kit.competition.folds import FoldPlan
from kit.competition.load import Competition
from kit.core.errors import Damaged, KitError, some
from kit.core.files import sha256
from kit.core.manifest import need_listed
from kit.core.paths import weight_file
from kit.core.runs import ExperimentDir
from kit.core.settings import fingerprint
from kit.core.yaml import read_yaml
from kit.data.images import content_digest
from kit.experiment.config import STORED_REMEDY, ExperimentConfig, validate
from kit.experiment.extra import extra_digest
from kit.experiment.fold_plan import read_plan
from kit.experiment.own_files import code_of, files_named, pinned
from kit.lr.config import PolicyConfig

# What versions that counted `prediction` among what decides trainings wrote of it, and the views that it meant.
EARLY_VIEWS: Mapping[str, tuple[str, ...]] = {"none": (), "hflip": ("hflip",)}
WHERE_STATED = ("row weights", "extra")  # digests that are there only where the config names such things


def config_digest(experiment: ExperimentConfig, tta: str = "none") -> str:
    """Return a digest of what the config says about every run; the one that earlier versions gave a run that was
    predicted with this `tta`, which since then decides nothing."""
    apart = ("name", "policies", "seeds", "scoring", "code")
    shared = {name: value for name, value in experiment.canonical().items() if name not in apart}
    if experiment.features:
        shared["features"] = experiment.features.shared
    sections = [getattr(experiment, name) for name in shared]
    code = code_of(experiment, sections)
    shared["prediction"] = {"tta": tta}
    corrected = {"class_weights": "over an update"} if _was_weighted_in_parts(experiment) else {}
    return fingerprint(shared | corrected | ({"code": code} if code else {}))


def as_now(depends_on: Mapping[str, str], experiment: ExperimentConfig) -> dict[str, str]:
    """Return what a run depends on, with the digest of today in place of an earlier one of the same config."""
    config = depends_on.get("config")
    if config is not None and config == config_digest(experiment, "hflip"):
        config = config_digest(experiment)
    return {**depends_on, **({} if config is None else {"config": config})}


def early_views(depends_on: Mapping[str, str], experiment: ExperimentConfig) -> tuple[str, ...]:
    """Return in which views, beside the plain one, a run of an earlier version was predicted: its digest tells."""
    config = depends_on.get("config")
    return next((views for tta, views in EARLY_VIEWS.items() if config == config_digest(experiment, tta)), ())


def _was_weighted_in_parts(experiment: ExperimentConfig) -> bool:
    """Whether earlier versions weighed classes within each part of an update: their runs are others."""
    training = experiment.training
    weighs = training.class_weights != "none" and not (training.mixes or experiment.competition.multilabel)
    return weighs and training.loss is None and (training.accumulate > 1 or training.batch_size == 1)


def policy_digest(experiment: ExperimentConfig, policy: PolicyConfig) -> str:
    """Return a digest of what a policy says, and of the experiment's own code in it."""
    code = code_of(experiment, policy)
    return fingerprint(policy.canonical() | ({"code": code} if code else {}))


def run_digest(experiment: ExperimentConfig, name: str) -> str:
    """Return a digest of what a policy of the experiment says, or a head that stands in the place of one."""
    if experiment.features:
        return experiment.features.digest(name)
    return policy_digest(experiment, experiment.policies[name])


def digests(experiment: ExperimentConfig, competition: Competition, plan: FoldPlan) -> dict[str, str]:
    """Return a digest of each thing that all runs share: those of `shared_digests`, and that of the folds."""
    return shared_digests(experiment, competition) | {"folds": plan.digest}


def shared_digests(experiment: ExperimentConfig, competition: Competition) -> dict[str, str]:
    """Return the digests of config, labels, images and weights; under `folds` nothing yet, but in its place.

    The metric and the test set are not among it: they decide no training. A weight file that is not here is left
    out, so that it is not compared: runs may come from where it is.
    """
    shared = {
        "config": config_digest(experiment),
        "labels": labels_digest(competition),
        "images": content_digest(competition.train_images, competition.folder),
        "folds": "",
    }
    if competition.weights is not None:
        shared["row weights"] = fingerprint(
            sorted(zip(competition.ids, competition.weights.tolist(), strict=True))
        )
    if competition.extra:
        shared["extra"] = extra_digest(experiment, competition)
    weights = experiment.model.weights
    if weights in ("none", "hub"):
        shared["weights"] = weights
    elif (file := weight_file(weights)).is_file():
        shared["weights"] = sha256(file)
    return shared


def labels_digest(competition: Competition) -> str:
    """Return a digest of which row has which labels; of the classes, where one of them has no row.

    Without what rows count in the loss: predictions of the same rows are judged by the same labels.
    """
    targets, classes = competition.targets, competition.classes
    if competition.label_format.multilabel:
        labels: list[Any] = [[classes[index] for index in np.flatnonzero(row)] for row in targets]
    else:
        labels = competition.label_format.decode(targets)
    rows = sorted(zip(competition.ids, labels, strict=True))
    return fingerprint([rows, classes] if competition.without_rows else rows)


def test_digest(competition: Competition) -> str:
    """Return a digest of what the test predictions are of."""
    return fingerprint([competition.test_ids, content_digest(competition.test_images, competition.folder)])


def difference(
    experiment: ExperimentConfig,
    folder: ExperimentDir,
    competition: Competition,
    shared: Mapping[str, str],
    given: FoldPlan | None = None,
) -> str | None:
    """Say how the runs in the folder differ from this config and this data; None where they do not.

    Parameters
    ----------
    experiment : ExperimentConfig
    folder : ExperimentDir
    competition : Competition
    shared : mapping of str to str
        The digests of config and data (see `shared_digests`).
    given : FoldPlan, optional
        The plan to follow; left out: the one in the folder.

    Returns
    -------
    str or None
        In words that fit behind "was made from".
    """
    if changed := changed_keys(experiment, folder):
        return f"another config ({some(changed, 5)})"
    records = [(run, run.record) for run in folder.runs()]
    if not records:
        return None
    try:
        plan = given or read_plan(experiment, folder, competition)
    except Damaged:
        raise
    except KitError as error:
        return f"other training rows ({error})"
    now = {**shared, "folds": plan.digest}
    for run, record in records:
        then = as_now(record.depends_on, experiment)
        names = [*now, *(name for name in WHERE_STATED if name in then and name not in now)]
        if changed := [name for name in names if then.get(name) != now.get(name)]:
            return f"other {' and '.join(changed)} ({run.path.relative_to(folder.path)})"
    return None


def changed_keys(experiment: ExperimentConfig, folder: ExperimentDir) -> list[str]:
    """Return the keys in which the config differs from the one that made the folder.

    More policies, seeds or folds to train are no difference; heads over features and soups have one seed, and a
    soup one policy.
    """
    if (stored := stored_experiment(folder)) is None:
        return []
    now, then = experiment.canonical(), stored.canonical()
    for side in (now, then):
        side.pop("scoring")
        if experiment.trains:
            side.pop("seeds")
    shared = set(now["policies"]) & set(then["policies"])
    if experiment.soup:
        shared = {*now["policies"], *then["policies"]}
    # Files that a policy names which is not in both, or the metric alone, decide nothing that is here.
    code = set(now.get("code", {})) & set(then.get("code", {})) & (_deciding(experiment) | _deciding(stored))
    if "features" in now and "features" in then:
        for side in (now, then):
            heads = side["features"]["heads"]
            side["features"]["heads"] = {name: head for name, head in heads.items() if name in shared}
    for side in (now, then):
        side["code"] = {name: value for name, value in side.get("code", {}).items() if name in code}
        side["policies"] = {name: policy for name, policy in side["policies"].items() if name in shared}
    return list(_differences(then, now, ""))


def _deciding(experiment: ExperimentConfig) -> set[str]:
    """Return the files of own code that decide trainings."""
    return files_named([getattr(experiment, name) for name in type(experiment).model_fields if name != "scoring"])


def _differences(then: Any, now: Any, path: str) -> Iterator[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*then, *now]):
            yield from _differences(then.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif then != now:
        yield f"{path}: {then!r} there, {now!r} here"


def stored_experiment(folder: ExperimentDir) -> ExperimentConfig | None:
    """What made the folder: the config with all policies and seeds it was run with; None for a new one.

    Raises
    ------
    Damaged
        Where the file is not what was written.
    """
    if not folder.config.is_file():
        return None
    need_listed(folder.path, folder.config, STORED_REMEDY)
    return pinned(validate(read_yaml(folder.config, written=True), str(folder.config), folder.path, stored=True))


def with_what_was_run_before(experiment: ExperimentConfig, folder: ExperimentDir) -> ExperimentConfig:
    """The config to store: with the policies, seeds and folds that were trained under it before."""
    if (stored := stored_experiment(folder)) is None:
        return experiment
    folds = tuple(sorted({*stored.folds.chosen, *experiment.folds.chosen}))
    features = experiment.features
    if features and stored.features:
        features = features.model_copy(update={"heads": stored.features.heads | features.heads})
    return experiment.model_copy(
        update={
            "policies": stored.policies | experiment.policies,
            "seeds": tuple(dict.fromkeys(stored.seeds + experiment.seeds)),
            "code": stored.code | experiment.code,
            "features": features,
            "folds": experiment.folds.model_copy(
                update={"run": "all" if len(folds) == experiment.folds.k else folds}
            ),
        }
    )
