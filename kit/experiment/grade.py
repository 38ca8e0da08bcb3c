"""The competition's metric of a submission, or precisely why it is invalid."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit.competition.config import CompetitionConfig
from kit.competition.labels import Labels, MultiLabel, SingleLabel
from kit.competition.load import class_names, encode_labels, load_labels
from kit.competition.submission import WHOLE, id_column_of, submission_format
from kit.competition.tables import column_names, need_columns, need_unique, read_table
from kit.core.errors import KitError, some
from kit.core.notebook import ShownAsTables
from kit.experiment.config import ExperimentConfig
from kit.scoring.f1 import score


@dataclass(frozen=True)
class Grade(ShownAsTables):
    """The value of the competition's metric, and on how many rows."""

    metric: str
    value: float
    rows: int

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the value in a row."""
        return {"": pd.DataFrame([{"metric": self.metric, "value": self.value, "rows": self.rows}])}


def grade(submission: str | Path, solution: str | Path, experiment: ExperimentConfig) -> Grade:
    """Score a submission against the test labels.

    Columns and classes are those of the competition's sample submission and train table where they are at hand,
    else the solution's.

    Parameters
    ----------
    submission : path
    solution : path
        A CSV with the id and label columns of the config, or of the sample submission, rows in any order; other
        columns, like Kaggle's Usage, are passed over.
    experiment : ExperimentConfig
        Tells label format and metric.

    Raises
    ------
    KitError
        That says why the submission is invalid: columns, ids, empty or unknown labels.
    """
    config, submission, solution = experiment.competition, Path(submission), Path(solution)
    truth = read_table(solution, "solution")
    truth = _under_the_tables_names(truth, config)
    need_columns(truth, {"competition.id": config.id_column}, solution)
    for column in _label_columns(config):
        need_columns(truth, {"competition.label": column}, solution)
    need_unique(truth[config.id_column], str(solution))
    if truth.empty:
        raise KitError(f"{solution} has no rows")
    if not config.multilabel and (unlabelled := truth.loc[truth[config.label] == "", config.id_column]).size:
        raise KitError(f"{solution}: no label for {len(unlabelled)} ids ({some(unlabelled, 5)})")
    labels, folder = _labels(config, truth), Path(config.path).expanduser()
    experiment.scoring.check(config.multilabel, len(labels.classes))
    config = config.model_copy(update={"ordered": False})  # the solution may have another order than the sample
    names = class_names(folder, config, labels.classes)
    form = submission_format(config, _sample(config, truth), labels, names)
    table, probabilities = read_table(submission, "submission"), None
    if experiment.scoring.of_probabilities:
        probabilities = form.read_probabilities(table, str(submission))
    predicted = form.read(table, str(submission))
    value = score(
        encode_labels(truth, config, labels, str(solution)), predicted, experiment.scoring, probabilities
    )
    return Grade(experiment.scoring.title, value, len(truth))


def _under_the_tables_names(truth: pd.DataFrame, config: CompetitionConfig) -> pd.DataFrame:
    """With the columns of the train table, where the solution has those of the sample submission."""
    path = Path(config.path).expanduser() / config.sample_submission
    if not path.is_file() or isinstance(config.label, tuple):
        return truth
    columns = column_names(path, "competition.sample_submission", config.tables)
    sample_id = id_column_of(columns, config.id)
    labels = [name for name in columns if name != sample_id]
    told = {sample_id: config.id_column} | ({labels[0]: config.label} if len(labels) == 1 else {})
    return truth.rename(columns={theirs: ours for theirs, ours in told.items() if ours not in truth.columns})


def _label_columns(config: CompetitionConfig) -> tuple[str, ...]:
    return config.label if isinstance(config.label, tuple) else (config.label,)


def _labels(config: CompetitionConfig, truth: pd.DataFrame) -> Labels:
    """The classes of the train table, where it is at hand, and what else the solution has."""
    known = load_labels(config) if Path(config.path).expanduser().is_dir() else None
    if isinstance(config.label, tuple):
        return known[0] if known else MultiLabel(config.label)
    cells = truth[config.label]
    stated = MultiLabel.of(cells, config.separator) if config.separator else SingleLabel.of(cells)
    if known is None:
        return stated
    new = known[0].unknown(stated.classes)
    return known[0].with_classes([*known[0].classes, *new]) if new else known[0]


def _sample(config: CompetitionConfig, truth: pd.DataFrame) -> pd.DataFrame:
    """A sample submission of the ids in the solution, with the columns of the competition's, where that is at
    hand, and cells that tell as its do whether probabilities are asked for."""
    path = Path(config.path).expanduser() / config.sample_submission
    columns, cells = [config.id_column, *_label_columns(config)], pd.DataFrame()
    if path.is_file():
        cells = read_table(path, "competition.sample_submission", reader=config.tables)
        columns = list(cells.columns)
    sample = pd.DataFrame(index=range(len(truth)))
    for name in columns:
        sample[name] = next((cell for cell in cells.get(name, ()) if cell not in WHOLE), "0")
    return sample.assign(**{id_column_of(columns, config.id): truth[config.id_column].to_numpy()})
