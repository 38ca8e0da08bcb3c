"""A submission from trained runs alone: no train table, no training. What an infer kernel does."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from kit.competition.labels import Labels, MultiLabel, SingleLabel
from kit.competition.load import load_labels, load_test, need_an_image
from kit.competition.observations import gets_the_prior
from kit.competition.sides import TestSet
from kit.competition.submission import SubmissionFormat, submission_format
from kit.competition.train_labels import class_names
from kit.core.errors import KitError, Say, ignore, some
from kit.core.files import need_output
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir, average, predictions
from kit.core.stopping import telling
from kit.data.config import DataConfig
from kit.data.images import ReadableImages, open_readable
from kit.data.loading import EvaluationLoader
from kit.experiment.config import ExperimentConfig
from kit.experiment.features.predict import predictions_of_heads
from kit.experiment.find_runs import find_runs, usual_sources
from kit.experiment.options import RunOptions, seconds_of
from kit.experiment.pixels import as_they_were_read, tell_noticed
from kit.experiment.policy_scores import stored_rule
from kit.experiment.pool import hand_in
from kit.experiment.pooled_predictions import by_fold
from kit.experiment.view_clock import ViewClock, nothing
from kit.experiment.views import prediction_data, views_of, views_of_runs
from kit.model.build import build_model, normalisation
from kit.scoring.decide import Rule, choose_rule, plain_rule
from kit.scoring.rules import Argmax
from kit.training.config import TrainingConfig
from kit.training.device import make_accelerator, process_state, resolve_precision
from kit.training.memory import END_OTHERS, advising_on_memory
from kit.training.predict import Normalise, Predictor
from kit.training.saved_weights import load_weights
from kit.training.views import Views


@dataclass(frozen=True)
class PredictResult:
    """What `predict_test` made.

    Attributes
    ----------
    submission : Path
    rows : int
        In the submission.
    models, of : int
        Whose mean it is, of so many that there are.
    unreadable : list of str
        Ids of test rows whose image is missing or broken: they got the prior, or no part in their observation.
    late : list of str
        Ids of those that not even the first model reached in time, likewise.
    views : str
        In which views the models predicted: those of their out-of-fold predictions.
    in_one_view : int
        Models that predicted one view alone, as the time did not suffice for all.
    """

    submission: Path
    rows: int
    models: int
    of: int
    unreadable: list[str]
    late: list[str]
    views: str = ""
    in_one_view: int = 0


@dataclass(frozen=True)
class Made:
    """Images that can be read, and what models predict of them: the fold and the frame of each."""

    readable: ReadableImages
    frames: list[tuple[int, pd.DataFrame]]
    in_one_view: int = 0


@telling("while the test set was predicted; the submission is as it was, the same command begins again")
def predict_test(
    experiment: ExperimentConfig,
    sources: Sequence[str | Path] = (),
    submission: str | Path = "submission.csv",
    output: RunOptions | str | Path = ".",
    cache: str | Path | None = None,
    budget: float | str | None = None,
    say: Say = ignore,
) -> PredictResult:
    """Predict the test set that is there with the runs of the experiment's first policy; the mean of all.

    Rows whose image is missing or broken get the prior, the mean out-of-fold prediction; so does an observation
    (competition.predict_by) without any other image. Models predict in the views of their out-of-fold predictions.

    Parameters
    ----------
    experiment : ExperimentConfig
    sources : sequence of path
        Folders that hold finished runs, at any depth; left out: output/runs, and what a kernel has attached.
    submission : path
        The file to write; a valid one of the most common class is there from the beginning.
    output, cache : path
        Hold runs/ and cache/; decoded images. `RunOptions` in place of both name a cluster that predicts.
    budget : float or str, optional
        Seconds, or text like 8h30m, after which nothing is decoded or predicted. Views are given up first, then
        models: the mean of those that are done is handed in; where there is none, the rows that the first reached.
    say : callable
        Takes lines about what happens.

    Raises
    ------
    KitError
        Where no run of this experiment is found, where runs were trained under another config, where test table
        and sample submission disagree, and where not one of the test images is there.
    """
    state, began = process_state(experiment.training), time.monotonic()
    deadline = began + (seconds_of(budget, state.num_processes) or float("inf"))
    main, say = (True, say) if state.is_main_process else (False, ignore)
    need_output("--submission", str(submission), (".csv",))
    options = _options(experiment, output, cache, state.num_processes)
    submission, dirs = Path(submission), options.dirs
    policy, test = next(iter(experiment.policies)), load_test(experiment.competition)
    need_an_image(test, experiment.competition)
    runs = find_runs(experiment, policy, sources or usual_sources(experiment, dirs))
    views = views_of_runs(runs, experiment, say)
    oof = _out_of_fold(runs, experiment, test)
    write = _writer(experiment, test, oof, submission)
    if main:  # before what may take long
        write(plain_rule(oof.to_numpy(), experiment.competition.multilabel, experiment.scoring), {})
    rule = _rule(experiment, runs, oof, dirs, say)
    asked = f"{experiment.name}: {len(test.ids)} test rows, {len(runs)} model{'s' * (len(runs) > 1)} of {policy}"
    say(f"{asked}; until they are done {submission} has the most common class everywhere")
    made = _decode_and_predict(experiment, runs, test, options, deadline, say)
    priors = _rows_with_prior(test, made.readable, made.frames, say)
    if main:
        write(rule, _pooled(made.frames, test))
    counts = len(test.sample), len(made.frames), len(runs)
    return PredictResult(submission, *counts, *priors, str(views), made.in_one_view)


def _options(
    experiment: ExperimentConfig, output: RunOptions | str | Path, cache: str | Path | None, processes: int
) -> RunOptions:
    """The options, checked: KitError for a cluster that cannot predict."""
    options = output if isinstance(output, RunOptions) else RunOptions(output, cache)
    options.need_cluster(processes)
    if experiment.features and options.on is not None:
        raise KitError("--on: heads over features predict on this machine; leave it out")
    return options


def _writer(
    experiment: ExperimentConfig, test: TestSet, oof: pd.DataFrame, submission: Path
) -> Callable[[Rule, dict[int, pd.DataFrame]], None]:
    """What writes the submission, by a rule and the predictions of each fold; rows without one get the prior."""
    scoring = experiment.scoring
    scoring.check(experiment.competition.multilabel, len(oof.columns))
    label_format, prior = _format(experiment, test, list(oof.columns)), oof.mean().to_numpy()

    def write(rule: Rule, frames: dict[int, pd.DataFrame]) -> None:
        hand_in(label_format, rule, frames, scoring.transfer, submission, prior=prior)

    return write


def _out_of_fold(runs: Sequence[RunDir], experiment: ExperimentConfig, test: TestSet) -> pd.DataFrame:
    """The out-of-fold predictions, of observations where these are predicted and the train table tells them."""
    oof = average(run.read_oof() for run in runs)
    labels = load_labels(experiment.competition) if test.observations else None
    return labels.observations.pooled(oof) if labels and labels.observations else oof


def _pooled(made: Sequence[tuple[int, pd.DataFrame]], test: TestSet) -> dict[int, pd.DataFrame]:
    """By fold, the predictions of what a submission has a row of."""
    frames = by_fold(made)
    if test.observations is None:
        return frames
    return {fold: test.observations.pooled(frame) for fold, frame in frames.items()}


def _decode_and_predict(
    experiment: ExperimentConfig,
    runs: Sequence[RunDir],
    test: TestSet,
    options: RunOptions,
    deadline: float,
    say: Say,
) -> Made:
    """The test images that can be read, and the fold and the predictions of each model that is done in time."""
    # The test set may be larger than any before: a cache where there is room for it, even if told to have one.
    sized = prediction_data(experiment, views_of(runs[0].record, experiment))
    data = as_they_were_read(sized, [run.record for run in runs])
    data = data.model_copy(update={"cache": data.cache and "auto"})
    what = f"decodes test images of {experiment.name}"
    with process_state(experiment.training).main_process_first():
        readable = open_readable(
            test.ids, test.images, data, options.dirs.cache, say=say, what=what, expired=_after(deadline)
        )
    tell_noticed("test", readable.images, say)
    in_time = time.monotonic() <= deadline  # else nodes would be compared with what was decoded until then
    asked = runs if readable.rows and in_time else []
    try:
        if options.on is not None and asked:
            return _on_cluster(experiment, asked, test, readable, data, options, deadline, say)
        return predict_all(experiment, asked, readable, deadline, say)
    finally:
        if len(readable.rows) < len(test.ids) and readable.images.cache:  # with gaps: of no use to another
            readable.images.cache.remove()


def _on_cluster(
    experiment: ExperimentConfig,
    runs: Sequence[RunDir],
    test: TestSet,
    readable: ReadableImages,
    data: DataConfig,
    options: RunOptions,
    deadline: float,
    say: Say,
) -> Made:
    """What nodes of a cluster predict."""
    from kit.experiment.cluster.predict_there import asked, asked_files, look_at_test, predict_there
    from kit.experiment.cluster.runs import ClusterRuns
    from kit.experiment.predict_side_by_side import in_order

    with ClusterRuns(experiment, options, say) as cluster:
        cluster.look(asked_files(experiment, test, readable), look_at_test, data)
        workers, shared, room = cluster.workers(experiment), cluster.shared, max(1, cluster.room)
        models = (
            asked(number, run, data, workers, deadline, -(-(len(runs) - number) // room), shared)
            for number, run in enumerate(runs)
        )
        made = in_order(list(cluster.results(predict_there, models, str, None, len(runs))), len(readable.rows))
    ids = [readable.images.ids[row] for row in readable.rows]
    for number, frame, _ in made:
        if list(frame.index) != ids[: len(frame)] or list(frame.columns) != list(runs[number].read_oof().columns):
            raise KitError(f"{runs[number].path}: what a node predicted is of other rows or classes")
    if 0 < len(made) < len(runs):
        say(f"the time allows no more than {len(made)} of {len(runs)} models")
    frames = [(runs[number].record.fold, frame) for number, frame, _ in made]
    return Made(readable, frames, sum(in_one_view for *_, in_one_view in made))


def _rows_with_prior(
    test: TestSet, readable: ReadableImages, made: Sequence[tuple[int, pd.DataFrame]], say: Say
) -> tuple[list[str], list[str]]:
    """The ids whose image cannot be read, and those that no model reached in time; both are told."""
    unreadable = [test.ids[row] for row in readable.broken]
    if unreadable:
        say(
            f"{len(unreadable)} of {len(test.ids)} images cannot be read ({some(unreadable, 5)}): "
            f"{gets_the_prior(test.observations is not None)}"
        )
    settled = {*unreadable, *(made[0][1].index if made else ())}
    late = [name for name in test.ids if name not in settled]
    if late:
        rest = "get the prior"
        if test.observations:
            rest = f"are not predicted: {gets_the_prior(True)}"
        say(f"the time does not allow one model: {len(late)} of {len(test.ids)} rows ({some(late, 5)}) {rest}")
    return unreadable, late


def _after(deadline: float) -> Callable[[], bool]:
    return lambda: time.monotonic() > deadline


def predict_all(
    experiment: ExperimentConfig, runs: Sequence[RunDir], readable: ReadableImages, deadline: float, say: Say
) -> Made:
    """Return what models predict before the deadline: the first one the rows that it reached, others all or none.

    Each predicts in the views of its out-of-fold predictions; where time is short, in one.
    """
    accelerator, rows = predicting(experiment.training, say), len(readable.rows)
    wait = waiting_for(accelerator)
    if experiment.features:  # one body is what takes time, for all heads
        heads = f"{len(runs)} head{'s' * (len(runs) > 1)} over features"
        clock = ViewClock(1, rows, deadline, say, wait, heads)
        made = list(predictions_of_heads(experiment, runs, readable, accelerator, clock, say))
        return Made(readable, made, len(made) * clock.reduced)
    from kit.experiment.predict_side_by_side import gpus_for, predict_side_by_side

    if (gpus := gpus_for(accelerator, len(runs), rows, say)) > 1:
        return predict_side_by_side(experiment, runs, readable, gpus, deadline, say)
    made, in_one_view = [], 0
    clock = ViewClock(len(runs), rows, deadline, say, wait)
    with closing(EvaluationLoader()) as loader:  # all models see the same images
        for run in runs:
            frame = predict_with(experiment, run, readable, accelerator, loader, clock, say)
            if frame is None or (len(frame) < rows and (made or not len(frame))):
                break
            made.append((run.record.fold, frame))
            in_one_view += clock.reduced
            if len(frame) < rows:
                return Made(readable, made, in_one_view)
            say(f"{run.path.parent.name} {run.path.name}: {clock.end():.1f} s")
    if 0 < len(made) < len(runs):
        say(f"the time allows no more than {len(made)} of {len(runs)} models")
    return Made(readable, made, in_one_view)


def waiting_for(accelerator: Accelerator) -> Callable[[], None]:
    """Return what waits for the device."""
    return torch.cuda.synchronize if accelerator.device.type == "cuda" else nothing


def predicting(training: TrainingConfig, say: Say) -> Accelerator:
    """Return an Accelerator to predict with: for fp32 where this device cannot compute in the precision that the
    runs were trained in, which is told."""
    cpu = training.device == "cpu"
    try:
        resolve_precision(training.precision, cpu)
    except KitError as error:
        say(f"{error}; predicting in fp32")
        training = training.model_copy(update={"precision": "fp32"})
    return make_accelerator(training)


def predict_with(
    experiment: ExperimentConfig,
    run: RunDir,
    readable: ReadableImages,
    accelerator: Accelerator,
    loader: EvaluationLoader,
    clock: ViewClock,
    say: Say,
) -> pd.DataFrame | None:
    """Return what one run's model predicts: a row an image, the first ones where the time did not suffice for all.

    It predicts in the views of its out-of-fold predictions, as long as `clock` has time for them; None where there
    is none for the model.

    Raises
    ------
    KitError
        Where its weights cannot be used, or where it predicts what is not finite.
    """
    if (views := clock.begin(views_of(run.record, experiment))) is None:
        return None
    predictor = replace(
        saved_predictor(experiment, run, accelerator, loader, views, say), batch_done=clock.batch_done
    )
    images, rows = readable.images, readable.rows
    probabilities = predictor.predict(images, rows, clock.expired)
    if clock.again and len(probabilities) < len(rows):
        predictor = replace(predictor, views=clock.begin(views) or views.one)
        probabilities = predictor.predict(images, rows, clock.expired)
    if not np.isfinite(probabilities).all():
        precision = "bf16" if accelerator.mixed_precision == "bf16" else "fp32"  # fp16 was tried again in fp32
        raise KitError(
            f"{run.path} predicts values that are not finite in {precision}; predict on the kind of device that "
            "trained it, or with --set training.device=cpu"
        )
    ids = [images.ids[row] for row in rows[: len(probabilities)]]
    return predictions(ids, probabilities, list(run.read_oof().columns))


def saved_predictor(
    experiment: ExperimentConfig,
    run: RunDir,
    accelerator: Accelerator,
    loader: EvaluationLoader,
    views: Views,
    say: Say,
) -> Predictor:
    """Return what predicts with a run's weights; KitError where they cannot be used."""
    data, classes = experiment.data, list(run.read_oof().columns)
    name = f"{run.path.parent.name} {run.path.name}"
    scratch = experiment.model.model_copy(update={"weights": "none"})
    model = build_model(scratch, len(classes), data.channels, data.size, seed=0)
    load_weights(run, model)
    with advising_on_memory(END_OTHERS):
        model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # it takes it
    usual = normalisation(experiment.model.name, data.channels, model)
    return Predictor(
        model,
        Normalise.of(data.mean or usual.mean, data.std or usual.std, accelerator.device),
        accelerator,
        data,
        experiment.training,
        experiment.prediction,
        experiment.competition.multilabel,
        say=lambda line: say(f"{name}: {line}"),
        never=[classes.index(name) for name in run.record.never],
        loader=loader,
        views=views,
    )


def _rule(
    experiment: ExperimentConfig, runs: Sequence[RunDir], oof: pd.DataFrame, dirs: OutputDirs, say: Say
) -> Rule:
    """The decision rule that the pooled runs chose; where that is not at hand, one fitted on the out-of-fold
    predictions and the train table; without that, the plain one."""
    policy, config = next(iter(experiment.policies)), experiment.scoring
    classes, multilabel = list(oof.columns), experiment.competition.multilabel
    scores = ExperimentDir(dirs.runs / experiment.name).policy(policy) / "scores.json"
    stored = stored_rule(scores, config, experiment.competition)
    if stored and stored.is_of(runs, classes):
        return stored.rule
    if config.rule == "argmax" or config.rules(multilabel) == ("argmax",):
        return Argmax()
    if stored:
        say("the pooled scores at hand are of other runs than these, so their decision rule is not taken")
    labels = load_labels(experiment.competition)
    if labels is None:
        rule = plain_rule(oof.to_numpy(), multilabel, config)
        say(f"no scores of these runs and no train table to fit a decision rule on: {rule.sentence(classes)}")
        return rule
    targets, observations = labels.targets, labels.observations
    names = observations.of if observations else labels.ids
    place = {name: row for row, name in enumerate(names)}
    rows = np.array([place.get(name, -1) for name in oof.index], dtype=np.int64)
    if (rows < 0).any() or list(labels.label_format.classes) != classes:
        raise KitError("the runs were trained on other rows or classes than the train table has")
    fold_of = {name: run.record.fold for run in runs for name in run.read_oof().index}
    if observations:
        fold_of = {
            observation: fold_of[name]
            for name, observation in zip(observations.ids, names, strict=True)
            if name in fold_of
        }
    folds = np.array([fold_of[name] for name in oof.index])
    rule = choose_rule(oof.to_numpy(), targets[rows], folds, config).rule
    say(f"decision rule, fitted on {len(oof)} out-of-fold rows: {rule.sentence(classes)}")
    return rule


def _format(experiment: ExperimentConfig, test: TestSet, classes: list[str]) -> SubmissionFormat:
    config = experiment.competition
    labels: Labels = SingleLabel(tuple(classes))
    if config.multilabel:
        labels = MultiLabel(tuple(classes), config.separator or " ")
    names = class_names(test.folder, config, labels.classes)
    return submission_format(config, test.sample, labels, names)
