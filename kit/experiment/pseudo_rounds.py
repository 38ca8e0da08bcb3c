"""Rounds of pseudo-labels: which experiment labelled for which, by the same folds, and the config of the next."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kit.core.errors import KitError, some
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir
from kit.experiment.config import ExperimentConfig
from kit.experiment.fingerprint import stored_experiment
from kit.experiment.fold_plan import new_plan, read_plan
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.own_files import rebased


def stored_round(name: str, dirs: OutputDirs, option: str = "EXPERIMENT") -> ExperimentConfig:
    """Return the stored config of an experiment in runs/; KitError where there is none."""
    folder = ExperimentDir(dirs.runs / name)
    if not name or Path(name).name != name or (stored := stored_experiment(folder)) is None:
        there = some(path.parent.name for path in sorted(dirs.runs.glob("*/experiment.yaml"))) or "none"
        raise KitError(f"{option} {name}: {dirs.runs} holds no such experiment; it holds {there}")
    return stored


def sources_of(config: ExperimentConfig) -> list[str]:
    """Return the experiments whose models labelled what this one trains on fold by fold."""
    extra = config.competition.extra or ()
    return list(dict.fromkeys(each.source for each in extra if each.source and each.fold))


def rounds_of(experiment: str, after: Sequence[str], dirs: OutputDirs) -> list[str]:
    """Return the rounds up to the one whose models label, oldest first.

    Parameters
    ----------
    experiment : str
        In runs/. What it was itself labelled by comes before it.
    after : sequence of str
        The rounds that followed on it, each with the one before as the source of labels.
    dirs : OutputDirs

    Raises
    ------
    KitError
        Where one is not there, or has another source.
    """
    names = [experiment, *after]
    configs = [stored_round(name, dirs, "--after" if at else "EXPERIMENT") for at, name in enumerate(names)]
    for earlier, later, config in zip(names[:-1], after, configs[1:], strict=True):
        if earlier not in (sources := sources_of(config)):
            told = f"its labels come from {some(sources)}" if sources else "it trains on no pseudo-labels"
            raise KitError(
                f"--after {later}: follows {earlier} in the command, but {told}; name the rounds in order"
            )
    return [*_before(experiment, dirs, set(names)), *names]


def _before(name: str, dirs: OutputDirs, seen: set[str]) -> Iterator[str]:
    """The rounds before one, as far as they are here, oldest first."""
    config = stored_experiment(ExperimentDir(dirs.runs / name))
    for source in sources_of(config) if config else ():
        if source not in seen:
            seen.add(source)
            yield from _before(source, dirs, seen)
            yield source


def need_same_folds(rounds: Sequence[str], loaded: LoadedExperiment, dirs: OutputDirs) -> None:
    """Raise KitError where a round that is here followed another fold plan than the last, which is `loaded`.

    The models of a fold under one plan have seen rows that this fold holds out under another.
    """
    for name in rounds[:-1]:
        folder = ExperimentDir(dirs.runs / name)
        if (config := stored_experiment(folder)) is None:
            continue
        try:
            other = read_plan(config, folder, loaded.competition).digest != loaded.folds.digest
        except KitError:  # of other rows
            other = True
        if other:
            raise KitError(
                f"{name} and {loaded.config.name} followed other folds, so the models of a fold of the one have "
                f"seen rows that it holds out in the other; train {loaded.config.name} anew with --folds "
                f"{folder.folds}"
            )


def follows_its_config(loaded: LoadedExperiment, dirs: OutputDirs) -> bool:
    """Whether the fold plan is the one that the config gives by itself, without --folds."""
    try:
        return new_plan(loaded.config, loaded.competition, dirs).digest == loaded.folds.digest
    except KitError:
        return False


def next_name(rounds: Sequence[str]) -> str:
    """Return what the next round is called: <first>-pseudo, then <first>-pseudo2 and so on."""
    return f"{rounds[0]}-pseudo{len(rounds) if len(rounds) > 1 else ''}"


def place_of(table: Path, folder: Path | None, dirs: OutputDirs) -> tuple[str, str, str]:
    """Return `path`, `table` and `images` of the config for a table, and for the folder of its images.

    Of the test rows `path` is the table's folder, as a dataset of Kaggle's would have it. Of a folder it is what
    holds both: the output folder, else the one where the command runs, else the deepest, as an absolute path.
    """
    if folder is None:
        return table.parent.as_posix(), table.name, "test"
    whole = [os.path.abspath(file) for file in (table, folder)]
    held = (base for base in (dirs.root, Path()) if all(_holds(os.path.abspath(base), file) for file in whole))
    base = next(held, Path(os.path.commonpath([os.path.dirname(whole[0]), whole[1]])))
    name, images = [Path(os.path.relpath(file, base)).as_posix() for file in whole]
    images = images.replace("{", "{{").replace("}", "}}")
    return base.as_posix(), name, "{id}" if images == "." else images + "/{id}"


def _holds(folder: str, file: str) -> bool:
    return os.path.commonpath([folder, file]) == folder


def next_config(loaded: LoadedExperiment, name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Return the config of the next round: that of this one, with another name and these labels.

    That of a soup trains the seeds that it is the mean of.

    Parameters
    ----------
    loaded : LoadedExperiment
        Whose models labelled.
    name : str
    entry : dict of str to object
        One of `competition.extra`. It takes the place of the earlier labels of the same images.
    """
    content = loaded.config.model_dump(mode="json", exclude_defaults=True)
    if soup := content.pop("soup", None):  # its means label; what trains on that are networks again
        content["seeds"] = soup["seeds"]
    content.pop("code", None)  # files are named from another folder, and are what they are there
    content = {**rebased(content, loaded.folder.path, Path()), "name": name}
    stated = content["competition"].get("extra") or []
    kept = [each for each in ([stated] if isinstance(stated, dict) else stated) if not _replaced(each, entry)]
    content["competition"] = content["competition"] | {"extra": [*kept, entry]}
    return content


def _replaced(earlier: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Whether an entry holds labels of an earlier round for the same images."""
    if not (earlier.get("source") and earlier.get("fold")):
        return False
    if "test" in (earlier.get("images"), entry["images"]):
        return earlier.get("images") == entry["images"]
    return _folder_of(earlier) == _folder_of(entry)


def _folder_of(entry: dict[str, Any]) -> str:
    return os.path.abspath(os.path.join(entry.get("path") or ".", str(entry.get("images"))))
