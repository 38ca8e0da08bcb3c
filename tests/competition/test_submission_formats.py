"""Submissions of every kind: made as the sample says, valid, read back, and told exactly what is wrong."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.refusals import refusal_of

from kit.competition.config import CompetitionConfig
from kit.competition.labels import MultiLabel, SingleLabel
from kit.competition.submission import SubmissionFormat, submission_format, write_submission
from kit.competition.tables import read_table
from kit.core.errors import KitError, some

IDS = ("b", "007", "7")
ONE = SingleLabel(("cat", "dog", "ox"))
SEVERAL = MultiLabel(("cat", "dog", "ox"), " ")
NEVER_EMPTY = MultiLabel(("cat", "dog", "ox"), " ", may_be_empty=False)
BINARY = SingleLabel(("no", "yes"))
CHANCES = np.array([[0.7, 0.2, 0.1], [0.1, 0.123456789, 0.8], [0.0, 1.0, 0.25]])


def sample(columns: str = "id label", cell: str = "cat", ids=IDS) -> pd.DataFrame:
    first, *others = columns.split()
    return pd.DataFrame({first: list(ids), **{name: [cell] * len(ids) for name in others}}, dtype=object)


def format_of(labels, table: pd.DataFrame | None = None, names=None, **options) -> SubmissionFormat:
    config = CompetitionConfig(path="x", names=names, **options)
    return submission_format(config, sample() if table is None else table, labels, names)


def faults(format: SubmissionFormat, **columns) -> list[str]:
    """Of a submission with these columns, without the name of the file."""
    table = pd.DataFrame({name: list(cells) for name, cells in columns.items()}, dtype=object)
    with pytest.raises(KitError) as caught:
        format.validate(table, "mine.csv")
    lines = str(caught.value).splitlines()
    assert all(line.startswith("mine.csv: ") for line in lines), lines
    return [line.removeprefix("mine.csv: ") for line in lines]


class TestKinds:
    """The sample tells kind, columns and order."""

    def test_one_label(self):
        format = format_of(ONE)
        assert format.kind == "labels"
        assert format.make(np.array([2, 0, 1]), CHANCES).to_dict("list") == {
            "id": list(IDS),
            "label": ["ox", "cat", "dog"],
        }

    @pytest.mark.parametrize("separator", [" ", "|", ", "])
    def test_separated_labels(self, separator):
        format = format_of(MultiLabel(ONE.classes, separator), separator=separator)
        chosen = np.array([[True, False, True], [False] * 3, [False, True, False]])
        assert format.make(chosen, CHANCES)["label"].tolist() == [f"cat{separator}ox", "", "dog"]

    @pytest.mark.parametrize(("cell", "kind"), [("0", "columns"), ("1.0", "columns"), ("0.5", "probabilities")])
    @pytest.mark.parametrize("labels", [ONE, SEVERAL])
    def test_a_column_a_class_is_of_the_samples_kind_in_the_samples_order(self, cell, kind, labels):
        format = format_of(labels, sample("id ox cat dog", cell))
        assert (format.kind, format.class_of) == (kind, {"ox": 2, "cat": 0, "dog": 1})
        predicted = np.array([2, 0, 1]) if labels is ONE else np.array([[0, 0, 1], [1, 1, 0], [0, 0, 0]], bool)
        made = format.make(predicted, CHANCES)
        assert list(made.columns) == ["id", "ox", "cat", "dog"]
        if kind == "probabilities":
            assert made.iloc[:, 1:].to_numpy().tolist() == [
                ["0.1", "0.7", "0.2"],
                ["0.8", "0.1", "0.123457"],
                ["0.25", "0", "1"],
            ]
        elif labels is ONE:
            assert made.iloc[:, 1:].to_numpy().tolist() == [["1", "0", "0"], ["0", "1", "0"], ["0", "0", "1"]]
        else:
            assert made.iloc[:, 1:].to_numpy().tolist() == [["1", "0", "0"], ["0", "1", "1"], ["0", "0", "0"]]

    def test_the_config_tells_where_the_sample_does_not(self):
        assert format_of(ONE, sample("id cat dog ox", "0"), submission="probabilities").kind == "probabilities"
        assert format_of(ONE, sample("id cat dog ox", "0.3"), submission="columns").kind == "columns"

    def test_a_probability_of_the_second_of_two_classes(self):
        format = format_of(BINARY, sample("id target", "0.5"), submission="probabilities")
        made = format.make(np.array([0, 1, 1]), np.array([[0.75, 0.25], [0.5, 0.5], [0, 1]]))
        assert made["target"].tolist() == ["0.25", "0.5", "1"]
        assert format.read(made, "x").tolist() == [0, 1, 1]

    def test_0_or_1_for_the_second_of_two_classes(self):
        format = format_of(BINARY, sample("id target", "0"), submission="columns")
        made = format.make(np.array([0, 1, 1]), np.full((3, 2), 0.5))
        assert made["target"].tolist() == ["0", "1", "1"]
        format.validate(made, "x")
        assert format.read(made, "x").tolist() == [0, 1, 1]
        assert faults(format, id=IDS, target=["0.5", "1", "0"]) == [
            "column target: 1 values are not 0 or 1 (b: 0.5)"
        ]

    def test_a_binary_label_stays_a_label(self):
        format = format_of(BINARY, sample("id target", "no"))
        assert format.make(np.array([1, 0, 1]), CHANCES)["target"].tolist() == ["yes", "no", "yes"]

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ("id cat dog", "it lacks ox"),
            (
                "id cat dog ox cow",
                "it has cow, which is no class; where it has no training row, set "
                "competition.classes_without_rows=allowed",
            ),
            ("id cat dog emu", "it has emu, which is no class, and it lacks ox"),
        ],
    )
    def test_columns_that_are_not_the_classes_are_refused(self, columns, said):
        assert refusal_of(format_of, ONE, sample(columns, "0")) == (
            f"competition.sample_submission: with a column a class its columns have to be the classes: {said}"
        )

    def test_labels_in_several_columns_are_refused(self):
        assert refusal_of(lambda: format_of(ONE, sample("id cat dog ox", "0"), submission="labels")) == (
            "competition.submission: labels stand in one column, but the sample submission has 3 beside the ids: "
            "cat, dog, ox"
        )

    def test_a_sample_without_rows_still_tells_the_columns(self):
        format = format_of(SEVERAL, sample("id ox cat dog", ids=()))
        made = format.make(np.zeros((0, 3), bool), np.zeros((0, 3)))
        assert (list(made.columns), len(made)) == (["id", "ox", "cat", "dog"], 0)
        format.validate(made, "x")
        assert format.read(made, "x").shape == (0, 3)


class TestNames:
    """Label ids handed in as names."""

    NAMES = {"0": "tabby", "1": "collie", "2": "musk ox"}

    def test_stand_for_the_labels(self):
        labels = SingleLabel(("0", "1", "2"))
        format = format_of(labels, names=self.NAMES, submit_names=True)
        made = format.make(np.array([2, 0, 1]), CHANCES)
        assert made["label"].tolist() == ["musk ox", "tabby", "collie"]
        assert format.read(made, "x").tolist() == [2, 0, 1]
        assert "'0' is no class" in faults(format, id=IDS, label=["0", "tabby", "collie"])[0]

    def test_are_left_out_unless_asked_for(self):
        format = format_of(SingleLabel(("0", "1", "2")), names=self.NAMES)
        assert format.make(np.array([2, 0, 1]), CHANCES)["label"].tolist() == ["2", "0", "1"]

    def test_may_be_the_columns(self):
        table = sample("id collie tabby", "0").assign(**{"musk ox": "0"})
        format = format_of(SingleLabel(("0", "1", "2")), table, names=self.NAMES, submit_names=True)
        assert format.class_of == {"collie": 1, "tabby": 0, "musk ox": 2}

    def test_that_hold_the_separator_are_refused_before_anything_starts(self):
        labels = MultiLabel(("0", "1", "2"), " ")
        options = {"names": self.NAMES, "submit_names": True}
        assert refusal_of(lambda: format_of(labels, separator=" ", **options)) == (
            "competition.submission: 'musk ox' cannot stand in a cell with labels separated by ' '; hand in "
            "labels without it, or set competition.separator"
        )
        format = format_of(MultiLabel(("0", "1", "2"), ";"), separator=";", **options)
        made = format.make(np.array([[1, 0, 1], [0, 0, 0], [0, 0, 1]], bool), CHANCES)
        assert made["label"].tolist() == ["tabby;musk ox", "", "musk ox"]
        assert format.read(made, "x").tolist() == [[True, False, True], [False] * 3, [False, False, True]]


class TestFaults:
    """What is wrong, how often, and the first five."""

    MANY = tuple(f"t{row}" for row in range(9))

    def test_missing_ids(self):
        format = format_of(ONE, sample(ids=self.MANY))
        assert faults(format, id=self.MANY[:2], label=["cat"] * 2) == [
            "7 of 9 ids are missing (t2, t3, t4, t5, t6 and 2 more)"
        ]

    def test_extra_ids(self):
        extra = [f"u{row}" for row in range(6)]
        assert faults(format_of(ONE), id=[*IDS, *extra], label=["cat"] * 9) == [
            "6 ids are not in the test set (u0, u1, u2, u3, u4 and 1 more)"
        ]

    def test_duplicate_ids(self):
        format = format_of(ONE, sample(ids=self.MANY))
        assert faults(format, id=self.MANY + self.MANY[:6], label=["cat"] * 15) == [
            "6 ids stand there twice (t0, t1, t2, t3, t4 and 1 more); ids must be unique"
        ]

    def test_all_at_once(self):
        given = ["b", "b", "8", ""]
        assert faults(format_of(ONE), id=given, label=["cat", "cow", "", "nan"]) == [
            "no id in 1 rows (row 4); every row needs one",
            "1 ids stand there twice (b); ids must be unique",
            "2 of 3 ids are missing (007, 7)",
            "1 ids are not in the test set (8)",
            "no label for 1 ids (8); pandas writes NaN so",
            "'cow', 'nan' are no class (in 2 rows); the classes are cat, dog, ox; NaN stands for a missing value",
        ]

    def test_order_where_it_matters(self):
        turned = {"id": ["b", "7", "007"], "label": ["cat"] * 3}
        format_of(ONE).validate(pd.DataFrame(turned), "mine.csv")
        assert faults(format_of(ONE, ordered=True), **turned) == [
            "the ids stand in another order than in the sample submission (first in row 2: 7 for 007)"
        ]

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            (["label", "id"], "the columns are label, id; expected id, label (the same in another order)"),
            (["id", "Label"], "the columns are id, Label; expected id, label"),
            (
                ["Unnamed: 0", "id", "label"],
                "the columns are Unnamed: 0, id, label; expected id, label (write it with index=False)",
            ),
            (["id"], "the columns are id; expected id, label"),
        ],
    )
    def test_columns(self, columns, said):
        assert faults(format_of(ONE), **{name: ["x"] for name in columns}) == [said]

    @pytest.mark.parametrize("labels", [ONE, NEVER_EMPTY])
    def test_a_row_without_a_label_where_each_has_one(self, labels):
        assert faults(format_of(labels, separator=" "), id=IDS, label=["cat", "", "  "]) == [
            "no label for 2 ids (007, 7); pandas writes NaN so"
        ]
        format_of(SEVERAL, separator=" ").validate(
            pd.DataFrame({"id": IDS, "label": ["cat", "", " "]}), "x"
        )  # where training rows have none

    def test_labels_that_are_none_or_stand_twice(self):
        cells = ["cat cow", "dog dog", "emu cat cow"]
        assert faults(format_of(SEVERAL, separator=" "), id=IDS, label=cells) == [
            "1 rows have a label twice (007)",
            "'cow', 'emu' are no class (in 2 rows); the classes are cat, dog, ox",
        ]

    def test_another_separator_than_the_competitions(self):
        (fault,) = faults(format_of(SEVERAL, separator=" "), id=IDS, label=["cat,dog", "cat", "dog"])
        assert fault.startswith("'cat,dog' is no class (in 1 rows)")

    @pytest.mark.parametrize(
        ("spelling", "valid"), [("3.0", True), ("03", True), ("3.5", False), ("three", False)]
    )
    def test_numbers_of_another_type_are_the_same_labels(self, spelling, valid):
        format = format_of(SingleLabel(("3", "4", "10")))
        table = pd.DataFrame({"id": IDS, "label": [spelling, "4", "10"]})
        if valid:
            assert format.read(table, "x").tolist() == [0, 1, 2]
        else:
            assert faults(format, **table) == [f"'{spelling}' is no class (in 1 rows); the classes are 3, 4, 10"]

    @pytest.mark.parametrize(
        ("kind", "cells", "said"),
        [
            ("columns", ["0", "2", "0.5"], "column ox: 2 values are not 0 or 1 (007: 2, 7: 0.5)"),
            ("columns", ["0", "", "nan"], "column ox: no value (NaN) for 2 ids (007, 7)"),
            ("columns", ["0", "true", "no"], "column ox: 2 cells are no numbers (007: 'true', 7: 'no')"),
            ("probabilities", ["1.5", "-0.1", "0"], "column ox: 2 values are not from 0 to 1 (b: 1.5, 007: -0.1)"),
            ("probabilities", ["inf", "0", "0"], "column ox: 1 values are not from 0 to 1 (b: inf)"),
            ("probabilities", ["NaN", "", "0"], "column ox: no value (NaN) for 2 ids (b, 007)"),
            ("probabilities", ["50%", "0", "0"], "column ox: 1 cells are no numbers (b: '50%')"),
        ],
    )
    def test_cells_of_a_column_a_class(self, kind, cells, said):
        format = format_of(SEVERAL, sample("id cat dog ox", "0"), submission=kind)
        assert faults(format, id=IDS, cat=["1"] * 3, dog=["0"] * 3, ox=cells) == [said]

    def test_a_row_with_none_or_two_of_the_classes_where_each_has_one(self):
        format = format_of(ONE, sample("id cat dog ox", "0"))
        assert faults(format, id=IDS, cat=["1", "0", "1"], dog=["0", "0", "1"], ox=["0", "0", "0"]) == [
            "2 rows have not exactly one 1 (007, 7)"
        ]
        format = format_of(NEVER_EMPTY, sample("id cat dog ox", "0"))
        assert faults(format, id=IDS, cat=["1", "0", "1"], dog=["0", "0", "1"], ox=["0", "0", "0"]) == [
            "1 rows have not at least one 1 (007)"
        ]


KINDS = st.sampled_from(["labels", "columns", "probabilities"])


@given(kind=KINDS, several=st.booleans(), seed=st.integers(0, 99), rows=st.integers(0, 6), data=st.data())
@settings(max_examples=80, deadline=None, database=None)
def test_what_is_made_is_valid_and_reads_back_as_it_was(tmp_path_factory, kind, several, seed, rows, data):
    generator = np.random.default_rng(seed)
    classes = tuple(data.draw(st.permutations(["a", "b", "c d", "10", "é", 'q"t'])))
    labels = MultiLabel(classes, ";") if several else SingleLabel(classes)
    ids = tuple(f"{row:02d}" for row in range(rows))
    columns = ["key", "answer"] if kind == "labels" else ["key", *data.draw(st.permutations(classes))]
    table = pd.DataFrame({name: ["0"] * rows if name != "key" else list(ids) for name in columns}, dtype=object)
    format = format_of(labels, table, submission=kind, **({"separator": ";"} if several else {}))
    chances = generator.random((rows, 6))
    predicted = chances >= 0.5 if several else chances.argmax(axis=1)
    file = tmp_path_factory.mktemp("made") / "submission.csv"
    write_submission(format.make(predicted, chances), file)
    again = read_table(file, "x")
    assert list(again.columns) == columns
    assert again["key"].tolist() == list(ids)
    format.validate(again, "x")
    np.testing.assert_array_equal(format.read(again, "x"), predicted)
    np.testing.assert_array_equal(format.read(again[::-1], "x"), predicted)  # by id, in whatever order


def read_one_by_one(cell: str) -> tuple[float, bool]:
    """What a cell says, and whether it is text that says no number."""
    if not cell.strip() or "_" in cell:
        return math.nan, False
    try:
        return float(cell), False
    except ValueError:
        return math.nan, True


ODD = "0|1|0.5|+1| 1|1 |1e-3|1_0||  |nan|NaN|-nan|nan(1)|inf|-inf|Infinity|1,5|١|1e|.5|5.|1e400|-0|true|1f|0x1|1\0"
CELLS = st.sampled_from([*ODD.split("|"), "0.1234567890123456789", "3e-324"])


@given(cells=st.lists(CELLS | st.floats(0, 1).map(str) | st.text(max_size=3), max_size=6), dtype=st.booleans())
@settings(max_examples=300, deadline=None, database=None)
def test_numbers_are_what_python_reads_one_by_one(cells, dtype):
    ids = tuple(f"r{row}" for row in range(len(cells)))
    format = format_of(BINARY, sample("id yes", "0.5", ids))
    table = pd.DataFrame({"id": list(ids), "yes": pd.Series(cells, dtype=object if dtype else str)})
    expected = {row: read_one_by_one(cell) for row, cell in zip(ids, cells, strict=True)}
    no_value = [row for row, (value, is_text) in expected.items() if math.isnan(value) and not is_text]
    text = [f"{row}: {cell!r}" for row, cell in zip(ids, cells, strict=True) if expected[row][1]]
    beyond = [
        f"{row}: {cell}"
        for row, cell in zip(ids, cells, strict=True)
        if not (math.isnan(expected[row][0]) or 0 <= expected[row][0] <= 1)
    ]
    wrong = [f"column yes: no value (NaN) for {len(no_value)} ids ({some(no_value, 5)})"] if no_value else []
    wrong += [f"column yes: {len(text)} cells are no numbers ({some(text, 5)})"] if text else []
    wrong += [f"column yes: {len(beyond)} values are not from 0 to 1 ({some(beyond, 5)})"] if beyond else []
    if wrong:
        assert faults(format, **table.to_dict("list")) == wrong
    else:
        assert format.read(table, "x").tolist() == [value >= 0.5 for value, _ in expected.values()]


@pytest.mark.parametrize("kind", ["columns", "probabilities"])
def test_a_submission_of_many_columns_is_one_frame_in_one_piece(kind):
    classes = tuple(f"c{place}" for place in range(150))
    format = format_of(MultiLabel(classes), sample(f"id {' '.join(classes)}", "0"), submission=kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pandas warns of frames that grew column by column
        made = format.make(np.eye(3, 150, dtype=bool), np.eye(3, 150))
        assert format.read(made, "x").nonzero()[1].tolist() == [0, 1, 2]
    assert set(made.dtypes) == {np.dtype(object)}


def test_of_many_odd_cells_of_a_column_five_are_named():
    ids = tuple(map(str, range(600)))
    format = format_of(SEVERAL, sample("id cat dog ox", "0", ids), submission="probabilities")
    odd = ["0.5", "", "x"] * 200
    first = faults(format, id=ids, cat=["0.25", "1"] * 300, dog=odd, ox=["0"] * 600)[0]
    assert first == "column dog: no value (NaN) for 200 ids (1, 4, 7, 10, 13 and 195 more)"


def test_thousands_of_classes_are_read_as_they_were_written():
    rows, classes = 400, 3474
    ids = tuple(map(str, range(rows)))
    format = format_of(MultiLabel(tuple(map(str, range(classes))), " "), sample(cell="0", ids=ids), separator=" ")
    chosen = np.random.default_rng(0).random((rows, classes)) < 0.01
    np.testing.assert_array_equal(format.read(format.make(chosen, np.zeros((1, 1))), "x"), chosen)


class TestHints:
    """What a message adds where it sees how the fault may have come about."""

    def refused(self, **cells) -> str:
        sample = pd.DataFrame({"id": ["a", "b"], "label": ["x", "y"]}, dtype=str)
        format = submission_format(CompetitionConfig(path="p"), sample, SingleLabel(("x", "y")))
        return refusal_of(format.validate, pd.DataFrame(cells, dtype=str), "f.csv")

    def test_an_index_that_pandas_wrote(self):
        assert self.refused(**{"Unnamed: 0": ["0", "1"], "id": ["a", "b"], "label": ["x", "y"]}) == (
            "f.csv: the columns are Unnamed: 0, id, label; expected id, label (write it with index=False)"
        )

    def test_semicolons(self):
        assert self.refused(**{"id;label": ["a;x", "b;y"]}) == (
            "f.csv: the columns are id;label; expected id, label; its cells are separated by semicolons, where "
            "commas are expected"
        )

    def test_spaces_around_a_label(self):
        assert self.refused(id=["a", "b"], label=["x ", "y"]) == (
            "f.csv: 'x ' is no class (in 1 rows); the classes are x, y; spaces around a label count"
        )


@pytest.mark.parametrize(
    ("cells", "classes", "kind"),
    [
        (["0.5", "0.5"], ("0", "1"), "probabilities"),
        (["0", "0.25"], ("cat", "dog"), "probabilities"),
        (["0", "1"], ("0", "1"), "labels"),
        (["0.0", "1.0"], ("0", "1"), "labels"),
        (["cat", "cat"], ("cat", "dog"), "labels"),
        (["", ""], ("cat", "dog"), "labels"),
        (["0.5", "0.5"], ("a", "b", "c"), "labels"),
        (["0.5", "0.7"], ("0.5", "0.7"), "labels"),
    ],
)
def test_numbers_between_0_and_1_ask_for_the_probability_of_the_second_of_two_classes(cells, classes, kind):
    sample = pd.DataFrame({"id": ["a", "b"], "label": cells}, dtype=str)
    assert submission_format(CompetitionConfig(path="p"), sample, SingleLabel(classes)).kind == kind
