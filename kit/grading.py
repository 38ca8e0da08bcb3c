"""The competition's metric of a submission, or precisely why it is invalid."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit.competition.config import CompetitionConfig
from kit.competition.labels import SingleLabel
from kit.competition.load import sample_columns
from kit.competition.submission import validate_submission
from kit.competition.tables import need_columns, need_unique, read_table
from kit.config import Experiment
from kit.errors import KitError, some
from kit.scoring.f1 import score


@dataclass(frozen=True)
class Grade:
    metric: str
    value: float
    rows: int


def grade(submission: str | Path, solution: str | Path, experiment: Experiment) -> Grade:
    """Scores a submission against the test labels.

    solution  a CSV with the config's id and label columns; others, like Kaggle's Usage, are passed over

    Columns and classes are those of the competition's sample submission and train table where they are
    at hand, else the solution's. Raises KitError that says why the submission is invalid: columns, ids,
    empty or unknown labels.
    """
    config, submission, solution = experiment.competition, Path(submission), Path(solution)
    truth = read_table(solution, "solution")
    need_columns(truth, {"competition.id": config.id, "competition.label": config.label}, solution)
    need_unique(truth[config.id], str(solution))
    if truth.empty:
        raise KitError(f"{solution} has no rows")
    if (unlabelled := truth.loc[truth[config.label] == "", config.id]).size:
        raise KitError(f"{solution}: no label for {len(unlabelled)} ids ({some(unlabelled, 5)})")
    columns, format = _expected(config, truth[config.label])
    id_name, label_name = sample_columns(pd.DataFrame(columns=columns), config.id)

    given, ids = read_table(submission, "submission"), truth[config.id].tolist()
    validate_submission(given, columns, id_name, ids, format, str(submission))
    predicted = given.set_index(id_name).loc[ids, label_name].tolist()
    value = score(
        format.encode(truth[config.label].tolist(), str(solution)),
        format.encode(predicted, str(submission)),
        experiment.scoring,
    )
    return Grade(experiment.scoring.title, value, len(truth))


def _expected(config: CompetitionConfig, truth: pd.Series) -> tuple[list[str], SingleLabel]:
    """The columns of a submission, and the classes: the train table's and what else the solution has."""
    folder = Path(config.path).expanduser()
    sample, train = folder / config.sample_submission, folder / config.train
    columns, labels = [config.id, config.label], truth
    if sample.is_file():
        columns = list(read_table(sample, "competition.sample_submission").columns)
    if train.is_file():
        table = read_table(train, "competition.train")
        need_columns(table, {"competition.label": config.label}, train)
        known = SingleLabel.of(table[config.label])
        labels = pd.concat([table[config.label], truth[[not known.has(label) for label in truth]]])
    return columns, SingleLabel.of(labels)
