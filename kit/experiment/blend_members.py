"""The members of a blend: policies of experiments in runs/, and files that other tools have made."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kit.competition.folds import FoldPlan
from kit.competition.load import Competition
from kit.core.errors import KitError, some
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir, RunRecord
from kit.experiment.blend_files import FilesMember
from kit.experiment.config import ExperimentConfig
from kit.experiment.fingerprint import labels_digest, stored_experiment
from kit.experiment.fold_plan import read_plan

BLEND = "blend.json"


@dataclass(frozen=True)
class BlendMember:
    """One policy of an experiment in runs/.

    Attributes
    ----------
    title : str
        As it is named: the experiment, or experiment/policy where it did not begin with that policy.
    """

    title: str
    folder: ExperimentDir
    policy: str
    experiment: ExperimentConfig

    @cached_property
    def runs(self) -> list[RunDir]:
        """Its finished runs."""
        return self.folder.finished(self.policy)

    @cached_property
    def records(self) -> list[RunRecord]:
        """Their records."""
        return [run.record for run in self.runs]

    @property
    def folds(self) -> set[int]:
        """The folds that they held out."""
        return {record.fold for record in self.records}

    @property
    def source(self) -> dict[str, Any]:
        """What blend.json says of where the predictions came from."""
        return {"experiment": self.experiment.name, "policy": self.policy}


def members_of(names: Sequence[str], dirs: OutputDirs) -> list[BlendMember | FilesMember]:
    """Return the members of these names: policies of experiments in runs/, and folders with files of other tools.

    Raises
    ------
    KitError
        Where one is not there or stands there twice, where there are fewer than two, and where the first, whose
        competition and metric count, is no experiment.
    """
    members = [FilesMember.of(name) or member_of(name, dirs) for name in names]
    titles = [member.title for member in members]
    if twice := [title for title in dict.fromkeys(titles) if titles.count(title) > 1]:
        same = [member for member in members if member.title == twice[0]]
        if len({isinstance(member, FilesMember) for member in same}) > 1:
            raise KitError(f"blend: {twice[0]} names an experiment and a folder of files; rename the folder")
        raise KitError(f"blend: {some(twice)} stands there twice; name each member once (weights are found)")
    if len(members) < 2:
        raise KitError(
            "blend: needs two members or more, as EXPERIMENT or EXPERIMENT/POLICY; "
            f"runs/ holds {some(_there(dirs)) or 'none'}"
        )
    if isinstance(members[0], FilesMember):
        raise KitError(
            f"blend: {members[0].title} is a folder of files, which tell no competition and no metric; name an "
            "experiment of runs/ first"
        )
    return members


def member_of(name: str, dirs: OutputDirs, what: str = "blend") -> BlendMember:
    """Return a policy of an experiment in runs/, as EXPERIMENT or EXPERIMENT/POLICY names it; `what` asks for it.

    Raises
    ------
    KitError
        Where it is not there, or has no finished run.
    """
    title, _, policy = name.strip("/").partition("/")
    folder = ExperimentDir(dirs.runs / title)
    if (folder.path / BLEND).is_file():
        raise KitError(f"{what}: {title} is a blend itself; name its members, with the others, instead")
    if not title or (experiment := stored_experiment(folder)) is None:
        raise KitError(f"{what}: {_not_there(name, title, folder, dirs)}")
    first = next(iter(experiment.policies))
    if policy and policy not in experiment.policies:
        raise KitError(f"{what}: {title} has no policy {policy!r}; it has {some(experiment.policies)}")
    policy = policy or first
    member = BlendMember(title if policy == first else f"{title}/{policy}", folder, policy, experiment)
    if not member.runs:
        raise KitError(f"{what}: {member.title} has no finished run of {policy}; train it with python -m kit run")
    return member


def _not_there(name: str, title: str, folder: ExperimentDir, dirs: OutputDirs) -> str:
    """Say why a name is no member."""
    if folder.comparison.is_file():
        return f"{title} is a comparison, which holds no runs; name the experiments that it compares"
    there = some(_there(dirs)) or "none"
    if name and Path(name).is_dir():  # "" is this folder
        return f"{name} holds no oof.csv, and {dirs.runs} no experiment {title!r}; there are {there}"
    return f"{dirs.runs} holds no experiment {title!r}; it holds {there}"


def _there(dirs: OutputDirs) -> list[str]:
    """The members that there are."""
    found = []
    for config in sorted(dirs.runs.glob("*/experiment.yaml")):
        folder = ExperimentDir(config.parent)
        stored = stored_experiment(folder)
        later = list(stored.policies)[1:] if stored else []
        found += [folder.path.name, *(f"{folder.path.name}/{policy}" for policy in later)]
    return found


def shared_plan(members: Sequence[BlendMember], competition: Competition) -> FoldPlan:
    """Return the fold plan that all members were trained by; KitError where one was not, or on other labels."""
    first = members[0]
    plan = read_plan(first.experiment, first.folder, competition)
    labels = labels_digest(competition)
    for member in members:
        if member is not first:
            _need_same_folds(member, first, competition, plan)
        for run, record in zip(member.runs, member.records, strict=True):
            then, where = record.depends_on, run.path.relative_to(member.folder.path)
            if then.get("folds") != plan.digest:
                raise KitError(
                    f"blend: {member.title} was trained by other folds ({where}) than its folds.csv says; "
                    "train it anew"
                )
            if then.get("labels") != labels:
                raise KitError(
                    f"blend: {member.title} was trained on other labels ({where}) than those in "
                    f"{competition.folder}, by which {first.title} is scored; blend members of the same labels"
                )
    return plan


def _need_same_folds(member: BlendMember, first: BlendMember, competition: Competition, plan: FoldPlan) -> None:
    try:
        other = read_plan(member.experiment, member.folder, competition)
    except KitError as error:
        raise KitError(
            f"blend: {first.title} and {member.title} are of different training rows: {error}"
        ) from error
    if other.digest != plan.digest:
        raise KitError(
            f"blend: {first.title} and {member.title} have different folds, so a row may have been trained on by "
            f"one and held out by the other; train one anew with --folds {first.folder.folds}"
        )


def need_same_folds(members: Sequence[BlendMember | FilesMember]) -> None:
    """Raise KitError where a member has predicted a fold that another one has not."""
    every = set().union(*(member.folds for member in members))
    for member in members:
        if lacking := sorted(every - member.folds):
            other = next(each.title for each in members if lacking[0] in each.folds)
            what, remedy = "finished run", "train it with python -m kit run"
            if isinstance(member, FilesMember):
                what, remedy = "predictions", f"add them to its {member.oof.name} and {member.test.name}"
            raise KitError(
                f"blend: {member.title} has no {what} of fold {some(lacking)}, which {other} has; {remedy}"
            )
