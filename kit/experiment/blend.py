"""Blending what experiments predicted: joined by id, refused where that would be wrong, handed in like a run.

runs/<blend>/
  blend.json     members with weights, the methods tried, the rule, the scores
  oof.parquet  test.parquet      blended, the test rows' the mean over folds; of a stack each row of oof.parquet
                                 by the one that was fitted on the other folds
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from kit.competition.folds import FoldPlan
from kit.competition.formulas import line_on_formulas
from kit.competition.load import Competition, load_competition
from kit.competition.submission import write_submission
from kit.core.errors import KitError, Say, ignore, some
from kit.core.files import need_writable, read_object, write_json
from kit.core.manifest import mend, need_listed, noting
from kit.core.notebook import ShownAsTables
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, average, predictions, write_predictions
from kit.core.settings import Name, fingerprint
from kit.experiment.blend_files import FilesMember
from kit.experiment.blend_members import BLEND, BlendMember, members_of, need_same_folds, shared_plan
from kit.experiment.config import ExperimentConfig, load_experiment
from kit.experiment.policy_scores import score_identity, stored_scores
from kit.experiment.pool import hand_in
from kit.experiment.pooled_predictions import PooledPredictions, held_out, pooled
from kit.scoring.blend import BlendChoice, choose_blend
from kit.scoring.config import ScoringConfig
from kit.scoring.decide import choose_rule

RECORD = BLEND
_LONGEST = 80  # of a name


@dataclass(frozen=True)
class BlendResult(ShownAsTables):
    """What `blend` made: the folder, the content of its blend.json, the submission."""

    folder: Path
    record: dict[str, Any]
    submission: Path

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return a row a member with its weight, and a row a method with its scores."""
        members, tried = pd.DataFrame(self.record["members"]), pd.DataFrame(self.record["candidates"])
        return {
            "members": members[["member", "oof", "weight"]],
            "methods, weights and rule chosen on the other folds": tried[
                ["method", "rule", "cross_fitted", "optimistic", "chosen"]
            ],
        }

    def remarks(self) -> list[str]:
        """Return the score and where the submission is."""
        return [f"Out-of-fold {self.record['metric']} {self.record['oof']:.4f}; submission {self.submission}"]


def blend(
    names: Sequence[str],
    output: str | Path = ".",
    name: str | None = None,
    *,
    method: str | None = None,
    overrides: Sequence[str] = (),
    say: Say = ignore,
) -> BlendResult:
    """Blend two members or more, and write the submission and what it rests on.

    Competition and metric are those of the first member.

    Parameters
    ----------
    names : sequence of str
        Experiments in runs/: `digits` is the policy it began with, `digits/cosine` another one; after the first, a
        folder with oof.csv and test.csv, too (see `kit.experiment.blend_files`).
    output : path
        The folder that holds runs/ and submissions/.
    name : str, optional
        Of the blend; left out: blend-<member>-<member>….
    method : str, optional
        single, mean, rank mean, greedy or stack; left out: the best, stack not being tried.
    overrides : sequence of str
        Of the first member's `scoring` and `competition`, like "scoring.average=micro".
    say : callable
        Takes lines about what happens.

    Raises
    ------
    KitError
        Before anything is written, where members are unknown, the same, or of other folds, rows, labels, classes
        or test rows than the first.
    """
    dirs = OutputDirs.at(output)
    members = members_of(names, dirs)
    of_runs = [member for member in members if isinstance(member, BlendMember)]
    experiment = _settings(of_runs[0], overrides)
    name = _checked_name(name or default_name(members), dirs)
    competition = load_competition(experiment.competition, trains=False)
    plan = shared_plan(of_runs, competition)
    members = [each.read(competition, plan) if isinstance(each, FilesMember) else each for each in members]
    need_same_folds(members)
    pools = [_pool(member, of_runs[0], competition, plan) for member in members]
    for path in (dirs.runs, dirs.submissions):
        need_writable(path)
    say(f"{name}: {len(members)} members, {len(pools[0].oof)} rows in {len(pools[0].test)} folds")
    choice = _choice(pools, experiment.scoring, competition, method)
    record = _record(name, members, pools, choice, experiment, competition, plan)
    made = _write(record, choice, pools, experiment.scoring, competition, dirs)
    if line := line_on_formulas({made.submission: [*competition.submission.ids, *competition.classes]}):
        say(line)
    return made


def _choice(
    pools: Sequence[PooledPredictions], config: ScoringConfig, competition: Competition, method: str | None
) -> BlendChoice:
    """The best blend, or that by `method`."""
    pool = pools[0]
    return choose_blend(
        [each.oof.to_numpy() for each in pools],
        pool.truth,
        pool.folds,
        config,
        pool.groups,
        ranked=competition.submission.kind != "probabilities",  # ranks are none
        method=method,
    )


def read_blend(dirs: OutputDirs, name: str) -> dict[str, Any] | None:
    """The content of the blend's blend.json; None where there is no blend of this name."""
    file = dirs.runs / name / RECORD
    if not file.is_file():
        return None
    remedy = "python -m kit blend writes it anew"
    need_listed(file.parent, file, remedy)
    record = read_object(file, remedy)
    if lacking := [key for key in ("name", "competition", "oof") if key not in record]:
        raise KitError(f"{file} is damaged (it has no {some(lacking)}); {remedy}")
    return record


def default_name(members: Sequence[BlendMember | FilesMember]) -> str:
    """`blend-digits-digits.cosine`; of more members than fit a name, the first and a hash of all."""
    titles = [member.title.replace("/", ".") for member in members]
    whole = "-".join(["blend", *titles])
    if len(whole) <= _LONGEST:
        return whole
    return f"{whole[: _LONGEST - 9].rstrip('-.')}-{fingerprint(titles)[:8]}"


def _settings(member: BlendMember, overrides: Sequence[str]) -> ExperimentConfig:
    """The experiment whose competition and metric count."""
    if strange := [each for each in overrides if each.partition(".")[0].strip() not in ("scoring", "competition")]:
        raise KitError(f"--set {strange[0]}: a blend trains nothing; only scoring and competition can be set")
    return load_experiment(member.folder.config, overrides) if overrides else member.experiment


def _checked_name(name: str, dirs: OutputDirs) -> str:
    """The name, which may be that of a blend, but of nothing else that is there."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise KitError(
            f"--name {name!r}: letters, digits, dots, dashes and underscores only, {_LONGEST} at most"
        ) from error
    folder = ExperimentDir(dirs.runs / name)
    if folder.config.exists() or folder.runs():
        raise KitError(f"{folder.path} is an experiment; give the blend another name with --name NAME")
    file = dirs.submissions / f"{name}.csv"
    if file.exists() and not (folder.path / RECORD).exists():
        raise KitError(f"{file} is there, and of no blend; give the blend another name with --name NAME")
    return name


def _pool(
    member: BlendMember | FilesMember, first: BlendMember, competition: Competition, plan: FoldPlan
) -> PooledPredictions:
    """A member's predictions, its rows and columns in the competition's order."""
    classes, test_rows = list(competition.classes), set(competition.test_ids)
    for run in member.runs:
        seen = set(run.read_test().index)
        if seen != test_rows:
            others = some(sorted(seen ^ test_rows), 3)
            raise KitError(
                f"blend: {member.title} predicted other test rows than {competition.folder} has now (not both "
                f"have {others}); python -m kit run predicts them anew with its weights"
            )
    pool = pooled(member.runs, competition, plan)
    if odd := sorted(set(pool.oof.columns) ^ set(classes)):
        raise KitError(
            f"blend: {member.title} has other classes than {first.title} (not both have {some(odd, 5)}); blend "
            "members of the same classes"
        )
    # float32 is what was predicted; means over seeds do not need more.
    ordered = lambda frame: frame[classes].astype(np.float32)  # noqa: E731
    rows = np.flatnonzero(np.isin(plan.fold, list(member.folds)))
    names = competition.observations.of if competition.observations else competition.ids
    wanted = list(dict.fromkeys(names[row] for row in rows))
    if list(pool.oof.index) != wanted:
        raise KitError(
            f"blend: {member.title} has predicted {len(pool.oof)} of the {len(wanted)} rows of its folds; "
            "train it anew"
        )
    test = {fold: ordered(frame) for fold, frame in pool.test.items()}
    return PooledPredictions(ordered(pool.oof), pool.truth, pool.folds, pool.groups, pool.each, test)


def _record(
    name: str,
    members: Sequence[BlendMember | FilesMember],
    pools: Sequence[PooledPredictions],
    choice: BlendChoice,
    experiment: ExperimentConfig,
    competition: Competition,
    plan: FoldPlan,
) -> dict[str, Any]:
    """The content of blend.json."""
    config, classes = experiment.scoring, list(competition.classes)
    return {
        "name": name,
        "metric": config.title,
        "method": choice.blend.method,
        "oof": choice.cross_fitted,
        "optimistic": choice.optimistic,
        "members": [
            {
                "member": member.title,
                **member.source,
                "weight": weight,
                "oof": _score_alone(member, pool, experiment),
                "runs": len(member.runs),
            }
            for member, pool, weight in zip(members, pools, choice.blend.weights, strict=True)
        ],
        **({"stack": choice.blend.stack.to_json()} if choice.blend.stack else {}),
        "candidates": choice.candidates,
        "rule": {"said": choice.rule.sentence(classes), **choice.rule.to_json()},
        "oof_rows": len(pools[0].oof),
        "train_rows": held_out(plan, competition),
        "folds": plan.digest,
        "classes": classes,
        "scoring": score_identity(config, experiment.competition),
        "competition": experiment.competition.record(exclude_defaults=True),
    }


def _score_alone(
    member: BlendMember | FilesMember, pool: PooledPredictions, experiment: ExperimentConfig
) -> float:
    """The member's own out-of-fold score: as `kit run` told it, where it is of this metric."""
    config = experiment.scoring
    if isinstance(member, BlendMember):
        file = member.folder.policy(member.policy) / "scores.json"
        scores = stored_scores(file, config, experiment.competition)
        if scores and scores.oof_rows == len(pool.oof):
            return scores.oof
    return choose_rule(pool.oof.to_numpy(), pool.truth, pool.folds, config, pool.groups).cross_fitted


def _write(
    record: dict[str, Any],
    choice: BlendChoice,
    pools: Sequence[PooledPredictions],
    config: ScoringConfig,
    competition: Competition,
    dirs: OutputDirs,
) -> BlendResult:
    """Decides the test rows, and writes the files of the blend."""
    folder, classes = dirs.runs / record["name"], competition.classes
    submission = dirs.submissions / f"{record['name']}.csv"
    ids, folds = pools[0].oof.index, pools[0].folds
    test_ids = next(iter(pools[0].test.values())).index.tolist()
    oof = choice.left_out  # a stack itself has seen the labels of these rows
    if oof is None:
        oof = choice.blend.combine_out_of_fold([pool.oof.to_numpy() for pool in pools], folds)
    values = {fold: _test_of(fold, choice, pools) for fold in pools[0].test}
    test = {
        fold: pd.DataFrame(each, index=pd.Index(test_ids, name="id"), columns=list(classes))
        for fold, each in values.items()
    }
    mean = average(predictions(test_ids, each, classes) for each in values.values())
    made = hand_in(
        competition.submission, choice.rule, test, config.transfer, submission, mean=mean, write=False
    )  # before anything is written, as it may be refused
    files = [folder / "oof.parquet", folder / "test.parquet", folder / RECORD]
    mend(folder, ignore)
    with noting(folder, *files):
        write_predictions(predictions(list(ids), oof, classes), files[0])
        write_predictions(mean.astype(np.float32), files[1])
        write_json(files[2], record)
    write_submission(made, submission)
    return BlendResult(folder, record, submission)


def _test_of(fold: int, choice: BlendChoice, pools: Sequence[PooledPredictions]) -> np.ndarray:
    """The blended predictions of the test rows by one fold's models."""
    rows = pools[0].folds == fold
    return choice.blend.combine(
        [pool.test[fold].to_numpy() for pool in pools], [pool.oof.to_numpy()[rows] for pool in pools]
    )
