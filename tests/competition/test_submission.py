import numpy as np
import pandas as pd
import pytest

from kit.competition.config import CompetitionConfig
from kit.competition.labels import SingleLabel
from kit.competition.submission import SubmissionFormat, id_column_of, submission_format, write_submission
from kit.competition.tables import read_table
from kit.core.errors import KitError

FORMAT = SingleLabel(("3", "4", "10"))
IDS = ["b", "007", "7"]


def _frame(ids=IDS, labels=("3", "4", "10"), columns=("id", "label")) -> pd.DataFrame:
    return pd.DataFrame(dict(zip(columns, (ids, labels), strict=True)), dtype=str)


def _format(sample: pd.DataFrame | None = None, labels=FORMAT, **options) -> SubmissionFormat:
    return submission_format(
        CompetitionConfig(path="x", **options), _frame() if sample is None else sample, labels
    )


def _refusal(submission: pd.DataFrame, **options) -> str:
    message = _refusals(submission, **options)
    assert len(message.splitlines()) == 1, message
    return message


def _refusals(submission: pd.DataFrame, **options) -> str:
    with pytest.raises(KitError) as caught:
        _format(**options).validate(submission, "mine.csv")
    return str(caught.value)


@pytest.mark.parametrize("columns", [["image", "class"], ["class", "image"]])
def test_a_submission_keeps_the_samples_columns_ids_and_order(columns):
    sample = pd.DataFrame({"image": IDS, "class": ["0"] * 3})[columns]
    submission = _format(sample, id="image").make(np.array([2, 0, 1]), np.zeros((3, 3)))
    assert list(submission.columns) == columns
    assert submission["image"].tolist() == ["b", "007", "7"]
    assert submission["class"].tolist() == ["10", "3", "4"]
    assert sample["class"].tolist() == ["0"] * 3


@pytest.mark.parametrize(
    ("columns", "expected"), [(["id", "x"], "id"), (["x", "id"], "id"), (["image", "x"], "image")]
)
def test_the_id_column_of_a_sample_is_the_one_of_the_config_or_the_first(columns, expected):
    assert id_column_of(columns, "id") == expected


def test_a_submission_may_have_no_rows():
    format = _format(_frame([], []))
    submission = format.make(np.zeros(0, dtype=int), np.zeros((0, 3)))
    format.validate(submission, "mine.csv")
    assert (len(submission), list(submission.columns)) == (0, ["id", "label"])


@pytest.mark.parametrize(
    "submission",
    [
        _frame(),
        _frame(["7", "b", "007"]),
        _frame(labels=["3.0", "04", "1e1"]),
        _frame(labels=["3", "3", "3"]),
    ],
    ids=["plain", "other order", "numbers spelt otherwise", "one class"],
)
def test_a_valid_submission_passes(submission):
    assert _format().validate(submission, "mine.csv") is None


def test_the_order_counts_where_the_config_says_so():
    _format(ordered=True).validate(_frame(), "mine.csv")
    assert _refusal(_frame(["b", "7", "007"]), ordered=True) == (
        "mine.csv: the ids stand in another order than in the sample submission (first in row 2: 7 for 007)"
    )


def test_a_valid_submission_is_read_in_the_order_of_the_sample():
    assert _format().read(_frame(["7", "b", "007"], ["3", "4.0", "10"]), "mine.csv").tolist() == [1, 2, 0]


@pytest.mark.parametrize("columns", [("id", "Label"), ("label", "id"), ("ID", "label")])
def test_wrong_columns_are_named(columns):
    order = " (the same in another order)" if columns == ("label", "id") else ""
    assert _refusal(_frame(columns=columns)) == (
        f"mine.csv: the columns are {', '.join(columns)}; expected id, label{order}"
    )


def test_an_additional_column_is_refused():
    message = _refusal(_frame().assign(Usage="Public"))
    assert message == "mine.csv: the columns are id, label, Usage; expected id, label"


def test_missing_ids_are_named():
    assert _refusal(_frame(["b"], ["3"])) == "mine.csv: 2 of 3 ids are missing (007, 7)"


def test_extra_ids_are_named():
    message = _refusal(_frame([*IDS, "07"], ["3"] * 4))
    assert message == "mine.csv: 1 ids are not in the test set (07)"


def test_an_id_that_lost_its_zeros_is_refused():
    assert _refusals(_frame(["b", "7", "7"])).splitlines() == [
        "mine.csv: 1 ids stand there twice (7); ids must be unique",
        "mine.csv: 1 of 3 ids are missing (007)",
    ]


def test_an_empty_id_is_named_by_its_line():
    assert _refusals(_frame(["b", "", "7"])).splitlines() == [
        "mine.csv: no id in 1 rows (row 2); every row needs one",
        "mine.csv: 1 of 3 ids are missing (007)",
    ]


def test_an_empty_label_is_named_by_its_id():
    assert _refusal(_frame(labels=["3", "", ""])) == "mine.csv: no label for 2 ids (007, 7); pandas writes NaN so"


def test_an_unknown_label_is_named():
    assert _refusal(_frame(labels=["3", "5", "3.5"])) == (
        "mine.csv: '5', '3.5' are no class (in 2 rows); the classes are 3, 4, 10"
    )


def test_a_written_submission_reads_back_as_it_was(tmp_path):
    path = tmp_path / "submissions" / "mine.csv"
    submission = _frame(labels=["NA", "a,b", "3.0"])
    write_submission(submission, path)
    assert path.read_bytes() == b'id,label\nb,NA\n007,"a,b"\n7,3.0\n'
    pd.testing.assert_frame_equal(read_table(path, "k"), submission)
