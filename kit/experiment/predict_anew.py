"""Predictions of finished runs made anew with their weights: what is missing, damaged, or made in another way."""

from collections.abc import Callable, Iterable
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from kit.core.errors import KitError, Say
from kit.core.runs import RunDir, predictions, read_predictions, write_predictions
from kit.core.whole import digest
from kit.experiment.due import Due, due_of
from kit.experiment.features.head_run import predicted_by_head
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.pixels import test_pixels_digest
from kit.experiment.prepare import TrainingData
from kit.experiment.shared_folder import holding_run
from kit.experiment.timekeeping import Budget
from kit.experiment.train_run import nothing, test_predictions, told, trainer_of, unread_rows
from kit.experiment.views import asked_views, views_of
from kit.scoring.f1 import plain_score
from kit.training.device import agreed, make_accelerator, process_state
from kit.training.memory import END_OTHERS, advising_on_memory


def predict_anew(
    runs: Iterable[RunDir],
    loaded: LoadedExperiment,
    data: TrainingData,
    say: Say,
    with_test: bool = True,
    budget: Budget | None = None,
    views: bool = True,
) -> None:
    """Predict with the weights of finished runs what is missing, damaged, of other views, or of another test set.

    What differs in its views is predicted anew out of fold and on test rows alike, so that the decision rule meets
    what it was fitted on.

    Of several processes that want the same, one does it, a run at a time.

    Parameters
    ----------
    runs : iterable of RunDir
        Of `loaded`; those that are not finished are passed over.
    loaded : LoadedExperiment
    data : TrainingData
    say : callable
        Takes a line a run: why, and whether the bits are those that were there.
    with_test : bool
        Whether test predictions have to be of the test set that is there now.
    budget : Budget, optional
        A run whose turn does not come while it lasts stays as it is.
    views : bool
        Whether runs are brought to the views of the config (see `has_time_for_views`).

    Raises
    ------
    KitError
        Where the weights are damaged, too; the message begins with the run.
    """
    main = process_state(loaded.config.training).is_main_process
    for run in agreed(list(runs)):
        due = agreed(due_of(run, loaded, data.test, with_test, views))
        if not due:
            continue
        key, images = run.record.key, len(data.test) + (len(loaded.folds.validation_rows(run.record.fold)))
        if budget and not budget.allows(run.record, images, asked_views(loaded.config).passes):
            why = due.other or "predictions are damaged or missing"
            say(f"{key}: {why}; the time does not suffice to predict it anew, the next run does it")
            continue
        with holding_run(run, f"predicts with {key}", say) if main else nullcontext(nothing) as need:
            if due := agreed(due_of(run, loaded, data.test, with_test, views)):
                _predict(run, loaded, data, due, say, need)


def has_time_for_views(policies: Iterable[str], loaded: LoadedExperiment, test: int, budget: Budget) -> bool:
    """Return whether all runs can be brought to the views of the config: some alone would not be comparable.

    Parameters
    ----------
    policies : iterable of str
    loaded : LoadedExperiment
    test : int
        Test images.
    budget : Budget
    """
    asked = asked_views(loaded.config)
    lacking = [
        run.record
        for name in policies
        for run in loaded.folder.finished(name)
        if views_of(run.record, loaded.config) != asked
    ]
    # Together: one after the other they would all seem to fit.
    images = {record.key: len(loaded.folds.validation_rows(record.fold)) + test for record in lacking}
    return all(budget.allows(record, sum(images.values()), asked.passes) for record in lacking)


def _predict(
    run: RunDir, loaded: LoadedExperiment, data: TrainingData, due: Due, say: Say, need: Callable[[], None]
) -> None:
    record, accelerator = run.record, make_accelerator(loaded.config.training)
    if loaded.config.features:
        both = due.whole or run.oof in due.lost, bool(due.other) or run.test in due.lost
        oof, test = predicted_by_head(record.key, loaded, data, say, *both)
        _tell(run, loaded, data, oof, test, due, say, need)
        return
    try:
        with (
            advising_on_memory(END_OTHERS),
            closing(trainer_of(record.key, loaded, data, run, accelerator, say=say)) as trainer,
        ):
            trainer.load_weights()
            trainer.predictor = replace(trainer.predictor, views=due.views)
            oof = trainer.evaluate() if due.whole or run.oof in due.lost else None
            wanted = due.other or run.test in due.lost
            test = trainer.predict(data.test, range(len(data.test))) if wanted else None
    except KitError as error:
        raise told(record.key, error) from error
    if accelerator.is_main_process:
        _tell(run, loaded, data, oof, test, due, say, need)
    accelerator.wait_for_everyone()


def _tell(
    run: RunDir,
    loaded: LoadedExperiment,
    data: TrainingData,
    oof: np.ndarray | None,
    test: np.ndarray | None,
    due: Due,
    say: Say,
    need: Callable[[], None],
) -> None:
    """Write what was predicted anew, and say why it was."""
    record = run.record
    need()
    _write(run, loaded, data, oof, test, due)
    if due.other:
        say(f"{record.key}: {due.other}; predicted it with the saved weights")
    for path in due.lost if not due.whole else ():
        if not due.other or path == run.oof:
            same = digest(path) == record.files[path.name]
            bits = "to the same bits" if same else "to other bits, as on another device or by other versions"
            say(f"{path} was damaged or missing; predicted anew with the saved weights, {bits}")


def _write(
    run: RunDir,
    loaded: LoadedExperiment,
    data: TrainingData,
    oof: np.ndarray | None,
    test: np.ndarray | None,
    due: Due,
) -> None:
    """Write predictions that were made anew, and what run.json says of them, where that has changed.

    run.json comes last: until then it has the digests of the files that were there, so that what a kill leaves
    between two files is taken for damaged, and both are predicted again.
    """
    competition, record, fields = loaded.competition, run.record, dict[str, Any]()
    if due.whole and not record.files:  # early versions noted none
        record = record.with_fields(files=run.digests())
        run.write(record)
    if oof is not None:
        rows = loaded.folds.validation_rows(record.fold)
        ids = [competition.ids[row] for row in rows]
        write_predictions(predictions(ids, oof, competition.classes), run.oof)
        if due.whole:
            score = plain_score(oof, competition.targets[rows], loaded.config.scoring)
            fields = {
                "views": "",
                "predicted": due.views.form(),
                "scores": record.scores | {loaded.config.scoring.key: score},
            }
    if test is not None:
        prior = read_predictions(run.oof).to_numpy().mean(axis=0)
        write_predictions(test_predictions(test, prior, competition, data.test), run.test)
        pixels, unread = test_pixels_digest(data.test), unread_rows(competition, data.test)
        fields |= {"test": loaded.test_digest, "test_pixels": pixels, "unread": unread}
    if record.files:
        fields["files"] = record.files | {path.name: digest(path) for path in (run.oof, run.test)}
    if (changed := record.with_fields(**fields)) != record:
        run.write(changed)
