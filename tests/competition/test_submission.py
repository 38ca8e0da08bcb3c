import pandas as pd
import pytest

from kit.competition.labels import SingleLabel
from kit.competition.submission import make_submission, validate_submission, write_submission
from kit.competition.tables import read_table
from kit.errors import KitError

FORMAT = SingleLabel(("3", "4", "10"))
IDS = ["b", "007", "7"]


def _frame(ids=IDS, labels=("3", "4", "10"), columns=("id", "label")) -> pd.DataFrame:
    return pd.DataFrame(dict(zip(columns, (ids, labels), strict=True)), dtype=str)


def _refusal(submission: pd.DataFrame, columns=("id", "label")) -> str:
    with pytest.raises(KitError) as caught:
        validate_submission(submission, list(columns), "id", IDS, FORMAT, "mine.csv")
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message


@pytest.mark.parametrize("columns", [["image", "class"], ["class", "image"]])
def test_a_submission_keeps_the_samples_columns_ids_and_order(columns):
    sample = pd.DataFrame({"image": IDS, "class": ["0"] * 3})[columns]
    labels = pd.Series({"7": "ten", "b": "three", "007": "four", "more": "x"})
    submission = make_submission(labels, sample, "image")
    assert list(submission.columns) == columns
    assert submission["image"].tolist() == ["b", "007", "7"]
    assert submission["class"].tolist() == ["three", "four", "ten"]
    assert sample["class"].tolist() == ["0"] * 3


def test_a_submission_may_have_no_rows():
    submission = make_submission(pd.Series([], index=[], dtype=object), _frame([], []), "id")
    validate_submission(submission, ["id", "label"], "id", [], FORMAT, "mine.csv")
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
    assert validate_submission(submission, ["id", "label"], "id", IDS, FORMAT, "mine.csv") is None


@pytest.mark.parametrize("columns", [("id", "Label"), ("label", "id"), ("ID", "label")])
def test_wrong_columns_are_named(columns):
    assert _refusal(_frame(columns=columns)) == (
        f"mine.csv: the columns are {', '.join(columns)}; expected id, label"
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
    assert _refusal(_frame(["b", "7", "7"])) == "mine.csv: 1 ids stand there twice (7); ids must be unique"


def test_an_empty_id_is_named_by_its_line():
    assert _refusal(_frame(["b", "", "7"])) == "mine.csv: no id in 1 rows (row 2); every row needs one"


def test_an_empty_label_is_named_by_its_id():
    assert _refusal(_frame(labels=["3", "", ""])) == "mine.csv: no label for 2 ids (007, 7)"


def test_an_unknown_label_is_named():
    assert _refusal(_frame(labels=["3", "5", "3.5"])) == (
        "mine.csv: '5', '3.5' are no class; the classes are 3, 4, 10"
    )


def test_a_written_submission_reads_back_as_it_was(tmp_path):
    path = tmp_path / "submissions" / "mine.csv"
    submission = _frame(labels=["NA", "a,b", "3.0"])
    write_submission(submission, path)
    assert path.read_bytes() == b'id,label\nb,NA\n007,"a,b"\n7,3.0\n'
    pd.testing.assert_frame_equal(read_table(path, "k"), submission)
