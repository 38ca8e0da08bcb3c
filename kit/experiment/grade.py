"""The competition's metric of a submission, or precisely why it is invalid."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from kit.competition.assemble import one_row_an_id
from kit.competition.config import CompetitionConfig
from kit.competition.headers import column_named, plainly_named
from kit.competition.labels import Labels, MultiLabel, SingleLabel
from kit.competition.load import load_labels
from kit.competition.observations import Observations, need_one_label, observations_of
from kit.competition.spelling import plain, shown, stripped
from kit.competition.submission import WHOLE, id_column_of, submission_format
from kit.competition.tables import LabelLists, column_names, need_columns, need_unique, read_submission, read_table
from kit.competition.templates import fields_of
from kit.competition.train_labels import class_names, encode_labels
from kit.core.errors import KitError, some
from kit.core.notebook import ShownAsTables
from kit.experiment.config import ExperimentConfig
from kit.scoring.f1 import score


@dataclass(frozen=True)
class Grade(ShownAsTables):
    """The value of the competition's metric, and on how many rows.

    Attributes
    ----------
    metric : str
        Its name.
    value : float
        In [0, 1], but for a metric of the user's own.
    rows : int
        On how many it is.
    ignored : int
        Rows of the solution whose Usage is Ignored; they are not graded.
    notes : tuple of str
        Lines about labels and columns that are spelt otherwise.
    """

    metric: str
    value: float
    rows: int
    ignored: int = 0
    notes: tuple[str, ...] = ()

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the value in a row."""
        row = {"metric": self.metric, "value": self.value, "rows": self.rows}
        return {"": pd.DataFrame([row | ({"ignored": self.ignored} if self.ignored else {})])}

    def remarks(self) -> list[str]:
        """Return what is to be borne in mind."""
        return list(self.notes)


def grade(submission: str | Path, solution: str | Path, experiment: ExperimentConfig) -> Grade:
    """Score a submission against the test labels.

    Columns and classes are those of the competition's sample submission and train table where they are at hand,
    else the solution's.

    Parameters
    ----------
    submission : path
    solution : path
        A table with the id and label columns of the config, or of the sample submission, rows in any order. Those
        whose Usage is Ignored are not graded, and the submission need not hold them; other columns are passed
        over.
    experiment : ExperimentConfig
        Tells label format and metric.

    Raises
    ------
    KitError
        That says why the submission is invalid: columns, ids, empty or unknown labels.
    """
    config, submission, solution = experiment.competition, Path(submission), Path(solution)
    truth, notes = _solution(solution, config)
    units = _units(truth, config, str(solution))
    need_columns(truth, {"competition.id": config.id_column} if units is None else {}, solution)
    for column in _label_columns(config):
        need_columns(truth, {"competition.label": column}, solution)
    truth, ignored = _graded(truth, truth[config.id_column] if units is None else units, config, solution)
    if config.long_form and config.id_column in truth:
        truth = one_row_an_id(truth, config.id_column, str(config.label))
    labels, folder = _labels(config, truth, notes, solution), Path(config.path).expanduser()
    truth = truth if units is None else _one_row_each(truth, config, labels, str(solution))
    need_unique(truth[config.id_column], str(solution))
    if (
        not config.multilabel
        and (unlabelled := truth.loc[truth[config.label].map(stripped) == "", config.id_column]).size
    ):
        raise KitError(f"{solution}: no label for {len(unlabelled)} ids ({some(unlabelled, 5)})")
    experiment.scoring.check(config.multilabel, len(labels.classes))
    config = config.model_copy(update={"ordered": False})  # the solution may have another order than the sample
    names = class_names(folder, config, labels.classes)
    form = submission_format(config, _sample(config, truth), labels, names)
    given, probabilities = read_submission(submission, "submission"), None
    if form.id_column in given:
        given = given[~given[form.id_column].isin(ignored)]
    if experiment.scoring.of_probabilities:
        probabilities = form.read_probabilities(given, str(submission))
    predicted = form.read(given, str(submission))
    value = score(
        encode_labels(truth, config, labels, str(solution)), predicted, experiment.scoring, probabilities
    )
    notes += [f"{submission}: {line}" for line in form.remarks(given)]
    return Grade(experiment.scoring.title, value, len(truth), len(ignored), tuple(notes))


def _solution(path: Path, config: CompetitionConfig) -> tuple[pd.DataFrame, list[str]]:
    """The solution with columns named as in the train table, and what there is to tell of their names."""
    lists = LabelLists(config.label, config.cell_separator) if isinstance(config.label, str) else None
    truth = _under_the_tables_names(read_table(path, "solution", lists=lists), config)
    return plainly_named(truth, [config.id_column], str(path), _label_columns(config))


def _graded(
    truth: pd.DataFrame, units: pd.Series, config: CompetitionConfig, path: Path
) -> tuple[pd.DataFrame, set[str]]:
    """The rows that are graded, and what of `units` is Ignored by the Usage of all of its rows."""
    if truth.empty:
        raise KitError(f"{path} has no rows")
    usage = next(
        (name for name in truth if plain(str(name)).lower() == "usage" and name not in _label_columns(config)),
        None,
    )
    if usage is None:
        return truth, set()
    ignored = truth[usage].map(lambda cell: plain(cell).lower() == "ignored")
    if ignored.all():
        raise KitError(f"{path}: the Usage of all rows is Ignored; none is left to grade")
    return truth[~ignored].reset_index(drop=True), set(units[ignored]) - set(units[~ignored])


def _sample_file(config: CompetitionConfig) -> Path | None:
    """The sample submission, where it is at hand."""
    if config.sample_submission is None:
        return None
    path = Path(config.path).expanduser() / config.sample_submission
    return path if path.is_file() else None


def _under_the_tables_names(truth: pd.DataFrame, config: CompetitionConfig) -> pd.DataFrame:
    """With the columns of the train table, where the solution has those of the submission."""
    path = _sample_file(config)
    columns = list(config.stated_columns or ())
    if path:
        columns = column_names(path, "competition.sample_submission", config.tables)
    if not columns or isinstance(config.label, tuple):
        return truth
    sample_id = id_column_of(columns, config.submitted_id)
    labels = [name for name in columns if name != sample_id]
    told = {sample_id: config.id_column} | ({labels[0]: config.label} if len(labels) == 1 else {})
    columns = list(truth.columns)
    renamed = {
        column_named(columns, theirs): ours for theirs, ours in told.items() if not column_named(columns, ours)
    }
    return truth.rename(columns=renamed)


def _observed(truth: pd.DataFrame, config: CompetitionConfig, where: str) -> Observations | None:
    """Which rows make up one prediction, where the solution tells it; ids are made up where it has none."""
    by = config.predict_by
    if by is None or not {*(fields_of(by.rows)[0] if by.column is None else [by.column])} <= {*truth.columns}:
        return None
    if config.id_column not in truth:
        truth = truth.assign(**{config.id_column: [str(row) for row in range(len(truth))]})
    return observations_of(truth, config, where)


def _units(truth: pd.DataFrame, config: CompetitionConfig, where: str) -> pd.Series | None:
    """The observation of each row of the solution; None where a row is graded for itself."""
    observations = _observed(truth, config, where)
    return None if observations is None else pd.Series(observations.of, index=truth.index, dtype=object)


def _one_row_each(truth: pd.DataFrame, config: CompetitionConfig, labels: Labels, where: str) -> pd.DataFrame:
    """With a row an observation, its name as the id; KitError where its rows have different labels."""
    observations = _observed(truth, config, where)
    assert observations is not None, "only to be asked where the solution tells observations"
    targets = encode_labels(truth, config, labels, where)
    need_one_label(observations, targets, labels.decode(targets))
    return truth.assign(**{config.id_column: observations.of}).drop_duplicates(config.id_column)


def _label_columns(config: CompetitionConfig) -> tuple[str, ...]:
    return config.label if isinstance(config.label, tuple) else (config.label,)


def _labels(config: CompetitionConfig, truth: pd.DataFrame, notes: list[str], path: Path) -> Labels:
    """The classes of the train table, where it is at hand, and what else the solution has; `notes` takes that."""
    known = load_labels(config) if Path(config.path).expanduser().is_dir() else None
    if isinstance(config.label, tuple):
        return known.label_format if known else MultiLabel(config.label)
    cells = truth[config.label]
    separator = config.cell_separator
    stated = MultiLabel.of(cells, separator) if separator else SingleLabel.of(cells)
    if known is None:
        return replace(stated, separator=config.separator or " ") if isinstance(stated, MultiLabel) else stated
    form = known.label_format
    new = [label for label in form.unknown(stated.classes) if stripped(label)]
    if not new:
        return form
    folded = {plain(name).casefold() for name in form.classes}
    by_case = [label for label in new if plain(label).casefold() in folded]
    hint = f"; the case of letters alone differs in {some(map(repr, by_case), 5)}" if by_case else ""
    if len(new) == len(stated.classes):
        raise KitError(
            f"{path}: none of its labels ({some(map(repr, new), 5)}) is a class of the train table "
            f"({some(shown(form.classes), 5)}); a submission could only be wrong{hint}"
        )
    notes.append(
        f"{path}: {some(map(repr, new), 5)} {'is' if len(new) == 1 else 'are'} no class of the train table, so "
        f"that no submission is right there{hint}"
    )
    return form.with_classes([*form.classes, *new])


def _columns_of(truth: pd.DataFrame, config: CompetitionConfig) -> tuple[str, ...]:
    """The columns of a submission where no sample tells them: as the solution's, without what else it has."""
    by = config.predict_by
    name = by.column if by and by.column and by.column in truth else config.id_column
    return (name, *_label_columns(config))


def _sample(config: CompetitionConfig, truth: pd.DataFrame) -> pd.DataFrame:
    """A sample submission of the ids in the solution, with the columns of the competition's, where that is at
    hand, and cells that tell as its do what is asked for."""
    path = _sample_file(config)
    columns, cells = list(config.stated_columns or _columns_of(truth, config)), pd.DataFrame()
    if path:
        cells = read_table(path, "competition.sample_submission", reader=config.tables)
        columns = list(cells.columns)
    # Each cell once, those first that ask for more than 0 and 1, over and over.
    shown = {name: sorted(dict.fromkeys(cells.get(name, ())), key=WHOLE.__contains__) or ["0"] for name in columns}
    sample = pd.DataFrame(
        {name: [texts[row % len(texts)] for row in range(len(truth))] for name, texts in shown.items()}
    )
    return sample.assign(**{id_column_of(columns, config.submitted_id): truth[config.id_column].to_numpy()})
