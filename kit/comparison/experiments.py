"""Experiments that are compared with each other: brought onto the same folds and seeds, checked, trained in turn.

runs/<comparison>/
  comparison.json  comparison.csv  report.html      the runs stay in the folders of their experiments
"""

import dataclasses
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from kit.comparison.contest import Contest, Entry
from kit.comparison.views import View, view_of
from kit.competition.folds import FoldPlan, write_folds
from kit.competition.load import Competition, load_competition
from kit.core.errors import KitError, Say, some
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunKey
from kit.core.settings import Name, fingerprint
from kit.experiment.config import ExperimentConfig
from kit.experiment.fingerprint import labels_digest, stored_experiment
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.options import RunOptions

if TYPE_CHECKING:  # it brings torch, which comparing stored runs does not need
    from kit.experiment.runner import Runner

LONGEST = 80  # characters of a name


def alike(configs: Sequence[ExperimentConfig]) -> list[ExperimentConfig]:
    """Return the experiments with the seeds and folds of the first, each with its first policy alone.

    Raises
    ------
    KitError
        For a name that stands there twice, and where the sections `folds` differ.
    """
    first = configs[0]
    names = [config.name for config in configs]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise KitError(
            f"compare: {names.count(twice[0])} experiments are named {twice[0]}, which is one folder in runs/; "
            "give each a `name` of its own"
        )
    made = []
    for config in configs:
        _need_same_folds_section(config, first)
        policy = next(iter(config.policies))
        folds = config.folds.model_copy(update={"run": first.folds.run})
        seeds = _seeds_of(config, first)
        changed = {"policies": {policy: config.policies[policy]}, "seeds": seeds, "folds": folds}
        made.append(config.model_copy(update=changed))
    return made


def _seeds_of(config: ExperimentConfig, first: ExperimentConfig) -> tuple[int, ...]:
    """The seeds of the first; where nothing is drawn by a seed, one: its own if the first has that."""
    if config.trains:
        return first.seeds
    return config.seeds if set(config.seeds) <= set(first.seeds) else first.seeds[:1]


def _need_same_folds_section(config: ExperimentConfig, first: ExperimentConfig) -> None:
    here, there = config.folds.canonical(), first.folds.canonical()
    for key in dict.fromkeys([*there, *here]):
        if here.get(key) != there.get(key):
            raise KitError(
                f"folds.{key}: {there.get(key)} in {first.name}, {here.get(key)} in {config.name}; compared "
                f"experiments follow one fold plan: state the same in both, or for all with --set folds.{key}=…"
            )


def remarks_on(configs: Sequence[ExperimentConfig]) -> list[str]:
    """Return what of the first experiment counts for all although the others say something else.

    Parameters
    ----------
    configs : sequence of ExperimentConfig
        As the user gave them.
    """
    first, others = configs[0], configs[1:]
    lines = []
    for section, what in (("scoring", "metric and rules"), ("compare", "margin, level and devices")):
        apart = {"baseline", "tune", "equalise"}
        if any(
            getattr(each, section).model_dump(exclude=apart) != getattr(first, section).model_dump(exclude=apart)
            for each in others
        ):
            lines.append(f"The sections `{section}` differ; {what} are those of {first.name}, for all.")
    fixed = {each.name: _seeds_of(each, first) for each in configs if not each.trains}
    moved = any(fixed.get(each.name, each.seeds) != each.seeds for each in configs)
    if fixed and (len(first.seeds) > 1 or moved):
        paired = sorted({seed for seeds in fixed.values() for seed in seeds})
        lines.append(f"{some(fixed)}: the same for all seeds, so paired at seed {some(paired)} alone.")
    seeds = {each.name: first.seeds if each.name in fixed else each.seeds for each in configs}
    if any((seeds[each.name], each.folds.chosen) != (first.seeds, first.folds.chosen) for each in others):
        lines.append(f"Seeds and folds are those of {first.name}, for all.")
    if more := [each.name for each in configs if len(each.policies) > 1]:
        lines.append(f"Of {some(more)} the first policy takes part alone.")
    if same := [each.name for each in others if _differs_in_prediction_alone(each, first)]:
        lines.append(
            f"{some(same)}: the trainings of {first.name} once more, as only `prediction` differs, which decides "
            f"none; python -m kit views {first.name} compares views on the weights that are there."
        )
    return lines


def _differs_in_prediction_alone(config: ExperimentConfig, first: ExperimentConfig) -> bool:
    """Whether two experiments train the same weights, and predict with them in another way."""
    one, other = (next(iter(each.policies.items())) for each in (config, first))
    if config.prediction == first.prediction or one != other:
        return False
    apart = ("name", "policies", "seeds", "folds", "prediction", "scoring", "compare", "kernel", "budget", "code")
    return config.model_copy(update={key: getattr(first, key) for key in apart}) == first


def not_compared(configs: Sequence[ExperimentConfig]) -> list[str]:
    """Return why views are missing that a config asks for."""
    asked = [
        f"{key} of {config.name}"
        for config in configs
        for key, value in (("tune", config.compare.tune), ("equalise", config.compare.equalise))
        if value
    ]
    if not asked:
        return []
    return [
        f"Not compared tuned or equalised ({some(asked)}): experiments are compared with the rates they state."
    ]


def comparison_folder(name: str | None, configs: Sequence[ExperimentConfig], dirs: OutputDirs) -> ExperimentDir:
    """Return where a comparison of experiments lies: runs/compare-<a>-<b>…, or runs/<name>.

    Raises
    ------
    KitError
        For what is no name, and where an experiment or a blend lies there.
    """
    name = name or default_name([config.name for config in configs])
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise KitError(
            f"--name {name!r}: letters, digits, dots, dashes and underscores only, {LONGEST} at most"
        ) from error
    folder = ExperimentDir(dirs.runs / name)
    is_experiment = folder.config.exists() or folder.runs() or name in [config.name for config in configs]
    if is_experiment or (folder.path / "blend.json").exists():
        what = "an experiment" if is_experiment else "a blend"
        raise KitError(f"{folder.path} is {what}; give the comparison another name with --name NAME")
    return folder


def default_name(names: Sequence[str]) -> str:
    """`compare-a-b`; where that is too long, its beginning and a hash of all."""
    whole = "-".join(["compare", *names])
    if len(whole) <= LONGEST:
        return whole
    return f"{whole[: LONGEST - 9].rstrip('-.')}-{fingerprint(list(names))[:8]}"


def need_same_rows(configs: Sequence[ExperimentConfig]) -> None:
    """KitError where experiments are of other training rows, labels, classes or test rows than the first."""
    first, *others = configs
    base = load_competition(first.competition)
    for config in others:
        if config.competition == first.competition:
            continue
        other = load_competition(config.competition)
        for what, here, there in _parts(other, base):
            if odd := set(here) ^ set(there):
                raise KitError(
                    f"compare: {config.name} has other {what} than {first.name} (not both have "
                    f"{some(sorted(odd), 3)}); compare experiments of one competition"
                )
        if labels_digest(other) != labels_digest(base) or other.classes != base.classes:
            raise KitError(
                f"compare: {config.name} has other labels than {first.name}; compare experiments of one "
                "competition"
            )
        if config.competition.predict_by != first.competition.predict_by:
            raise KitError(
                f"competition.predict_by: {config.name} and {first.name} pool other rows; state the same in both"
            )


def _parts(other: Competition, base: Competition) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
    yield "training rows", other.ids, base.ids
    yield "classes", other.classes, base.classes
    yield "test rows", other.test_ids, base.test_ids


def open_stored(configs: Sequence[ExperimentConfig], dirs: OutputDirs, say: Say) -> dict[str, Entry]:
    """Return the experiments of which runs are there, by name; KitError where they are of other folds or data."""
    entries: dict[str, Entry] = {}
    for config in configs:
        folder = ExperimentDir(dirs.runs / config.name)
        if stored_experiment(folder) is None:
            raise KitError(f"{folder.path} holds no experiment; leave out --stored to train it")
        loaded = LoadedExperiment.open(config, folder, dirs, say=say)
        if entries:
            base = next(iter(entries.values())).loaded
            if loaded.folds.digest != base.folds.digest:
                raise KitError(_other_plan(loaded.folder, base.folder))
        entries[config.name] = Entry(next(iter(config.policies)), loaded)
    return entries


def _other_plan(folder: ExperimentDir, first: ExperimentDir) -> str:
    return (
        f"{folder.path} follows another fold plan than {first.path}, so their runs are no pairs; train one of "
        f"them by the other's: python -m kit run CONFIG --folds {first.folds} --replace, or start "
        f"{folder.path.name} anew with --replace here"
    )


def check_all(configs: Sequence[ExperimentConfig], options: RunOptions, say: Say) -> None:
    """Find, before anything is trained, what cannot work in any of the experiments.

    Raises
    ------
    KitError
    """
    from kit.experiment.prepare import check
    from kit.training.device import process_state

    dirs, first = options.dirs, ExperimentDir(options.dirs.runs / configs[0].name)
    state = process_state(configs[0].training)
    for config in configs:
        options.need_able(config, state.num_processes)
    replace = options.replace and state.is_main_process
    with state.main_process_first(), tempfile.TemporaryDirectory() as scratch:
        plan = check(configs[0], first, dirs, replace, say, options.fold_file).loaded.folds
        given = Path(scratch) / "folds.csv"
        write_folds(plan, given)
        for config in configs[1:]:
            folder = ExperimentDir(dirs.runs / config.name)
            _need_plan(folder, plan, first, replace)
            check(config, folder, dirs, replace, say, given)
    if options.on is None and not configs[0].compare.mixed_devices:
        _need_one_kind_now(configs)


def _need_plan(folder: ExperimentDir, plan: FoldPlan, first: ExperimentDir, replace: bool) -> None:
    if not replace and any(run.record.depends_on.get("folds") not in (plan.digest, None) for run in folder.runs()):
        raise KitError(_other_plan(folder, first))


def _need_one_kind_now(configs: Sequence[ExperimentConfig]) -> None:
    """KitError where the experiments would be trained on different kinds of device: in another precision."""
    from kit.core.devices import kind_in_words
    from kit.core.runs import RunRecord
    from kit.experiment.train_run import trained_on
    from kit.training.device import make_accelerator

    kinds = {}
    for config in configs:
        told = trained_on(config, make_accelerator(config.training))
        kinds[config.name] = kind_in_words(RunRecord(policy="", seed=0, fold=0, **told))
    base = kinds[configs[0].name]
    for name, kind in kinds.items():
        if kind != base:
            raise KitError(
                f"compare: {configs[0].name} would be trained on {base}, {name} on {kind}: what differs may be "
                "the device's. If that is what you compare, add --mixed-devices (compare.mixed_devices: true); "
                "else state the same training.device, training.precision and data.augment_on in both"
            )


@contextmanager
def runners(
    configs: Sequence[ExperimentConfig], options: RunOptions, say: Say
) -> Iterator[Iterator[tuple[ExperimentConfig, "Runner"]]]:
    """Yield the experiments one after the other, each set up to train, by the fold plan of the first.

    A budget is shared out: each gets an equal part of what is left when its turn comes.
    """
    from kit.experiment.prepare import run_keys
    from kit.experiment.runner import Runner

    first = ExperimentDir(options.dirs.runs / configs[0].name)
    budget = options.limit(configs[0].budget)

    def each() -> Iterator[tuple[ExperimentConfig, Runner]]:
        for place, config in enumerate(configs):
            mine = options if place == 0 else dataclasses.replace(options, folds=str(first.folds))
            if budget.limited:
                left = max(0.01, budget.since + budget.seconds - time.monotonic())
                share = left / (len(configs) - place)
                mine = dataclasses.replace(mine, budget=share, since=time.monotonic())
            with Runner.set_up(config, mine, say, run_keys(config)) as runner:
                yield config, runner

    turns = each()
    try:
        yield turns
    finally:
        turns.close()  # type: ignore[attr-defined]  # a generator, whose runner ends


def contest_of(name: str, configs: Sequence[ExperimentConfig], entries: dict[str, Entry]) -> Contest:
    """Return the contest of experiments, by the settings of the first, which is the baseline."""
    return Contest(name, configs[0], entries, configs[0].name, several=True)


def view_of_experiments(contest: Contest, note: str | None = None) -> View:
    """Return the one way to look at experiments: as they are.

    Raises
    ------
    KitError
        Where the baseline has no runs, or diverged.
    """
    settings, baseline = contest.settings, contest.baseline
    pairs = [(seed, fold) for seed in settings.seeds for fold in settings.folds.chosen]
    found = {
        (name, pair): entry.loaded.folder.run(RunKey(entry.policy, *pair))
        for name, entry in contest.entries.items()
        for pair in pairs
    }
    policies = {name: entry.policy for name, entry in contest.entries.items()}
    if len(set(policies.values())) == 1:
        about = f"Each experiment as its config states it, with the policy {policies[baseline]}."
    else:
        told = some([f"{name} {policy}" for name, policy in policies.items()], 20)
        about = f"Each experiment as its config states it, with its first policy: {told}."
    view = view_of("raw", about, found, note)
    if baseline in view.diverged:
        raise KitError(
            f"compare: the baseline {view.diverged_as_told(baseline)}; lower its lr, or name another "
            "experiment first"
        )
    for name in contest.entries:
        if name not in view.diverged and not view.runs[name]:
            raise KitError(f"compare: {name} has no finished runs; train it (leave out --stored)")
    return view


def once(say: Say) -> Say:
    """Return `say` for lines that are told once, however often they come."""
    told: set[str] = set()

    def say_once(line: str) -> None:
        if line not in told:
            told.add(line)
            say(line)

    return say_once
