"""Label formats: what stands in the tables → classes and targets."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.refusals import refusal_of

from kit.competition.config import CompetitionConfig, NamesConfig
from kit.competition.labels import MultiLabel, SingleLabel, encode_columns, split_labels
from kit.competition.load import Competition, load_competition


def competition(folder: Path, train: dict[str, list[str]], **options) -> Competition:
    """One whose images are a pixel in the table, so that no file is needed."""
    rows = len(next(iter(train.values())))
    pd.DataFrame({**train, "pixel0": ["7"] * rows}).to_csv(folder / "train.csv", index=False)
    if not (folder / "sample_submission.csv").exists():
        (folder / "sample_submission.csv").write_text("id,label\n")
    stated = {"test": None, "train_images": {"columns": "pixel*"}, "test_images": "test/{id}.png"}
    return load_competition(CompetitionConfig(path=str(folder), **stated | options))


def ids(count: int) -> list[str]:
    return [f"r{row}" for row in range(count)]


def test_one_column_of_labels(tmp_path):
    loaded = competition(tmp_path, {"id": ids(4), "label": ["b", "a", "b", "c"]})
    assert loaded.classes == ("a", "b", "c")
    assert loaded.targets.tolist() == [1, 0, 1, 2]
    assert not loaded.label_format.multilabel


def test_binary_is_two_classes_of_which_the_second_is_the_larger_number(tmp_path):
    loaded = competition(tmp_path, {"id": ids(3), "label": ["1", "0", "1"]})
    assert loaded.classes == ("0", "1")
    assert loaded.targets.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("separator", "cells"),
    [
        (" ", ["cat dog", "dog", "", "ox  cat "]),
        ("|", ["cat|dog", " dog", "", "ox | cat"]),
        (", ", ["cat, dog", "dog", "", "ox, cat, "]),
        ("::", ["cat::dog", "dog", "::", "ox::cat"]),
    ],
)
def test_several_labels_in_one_column(tmp_path, separator, cells):
    loaded = competition(tmp_path, {"id": ids(4), "label": cells}, separator=separator)
    assert loaded.classes == ("cat", "dog", "ox")
    assert loaded.targets.tolist() == [[True, True, False], [False, True, False], [False] * 3, [True, False, True]]
    assert loaded.label_format.decode(loaded.targets) == [f"cat{separator}dog", "dog", "", f"cat{separator}ox"]
    assert loaded.label_format.may_be_empty


def test_where_every_row_has_a_label_none_may_be_empty(tmp_path):
    loaded = competition(tmp_path, {"id": ids(3), "label": ["a b", "b", "a"]}, separator=" ")
    assert not loaded.label_format.may_be_empty


def test_labels_that_are_numbers_stand_in_the_order_of_their_values(tmp_path):
    loaded = competition(tmp_path, {"id": ids(3), "label": ["10 9", "2 10", "9"]}, separator=" ")
    assert loaded.classes == ("2", "9", "10")
    assert loaded.label_format.decode(loaded.targets) == ["9 10", "2 10", "9"]


def test_a_column_a_class(tmp_path):
    table = {"id": ids(3), "dog": ["1", "0", "1.0"], "cat": ["0", "1", "0"], "ox": ["0", "0.0", "1"]}
    loaded = competition(tmp_path, table, label=["dog", "cat", "ox"])
    assert loaded.classes == ("dog", "cat", "ox")  # as the config has them
    assert loaded.targets.tolist() == [[True, False, False], [False, True, False], [True, False, True]]
    assert loaded.targets.dtype == bool


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["1", "2", "0"], "'2' in row 2"),
        (["1", "", "yes"], "'' in row 2, 'yes' in row 3"),
        (["1", "NaN", "0"], "'NaN' in row 2"),
        (["0.5", "1", "0"], "'0.5' in row 1"),
    ],
)
def test_a_column_of_a_class_holds_nothing_but_0_and_1(tmp_path, cells, said):
    table = {"id": ids(3), "a": cells, "b": ["0", "1", "1"]}
    assert refusal_of(lambda: competition(tmp_path, table, label=["a", "b"])) == (
        f"competition.label: {tmp_path / 'train.csv'}: column 'a' has to hold 0 or 1; it has {said}"
    )


@pytest.mark.parametrize("missing", ["a", "b", "c"])
def test_a_column_of_a_class_that_is_not_there_is_named(tmp_path, missing):
    table = {"id": ids(2), **{name: ["0", "1"] for name in "abc" if name != missing}}
    message = refusal_of(lambda: competition(tmp_path, table, label=["a", "b", "c"]))
    assert f"has no column '{missing}'" in message


@pytest.mark.parametrize("separator", [None, " "])
def test_classes_of_the_config_are_taken_in_their_order(tmp_path, separator):
    options = {"classes": ["b", "c", "a"]} | ({"separator": separator} if separator else {})
    loaded = competition(tmp_path, {"id": ids(4), "label": ["a", "b", "c", "a"]}, **options)
    assert loaded.classes == ("b", "c", "a")
    targets = loaded.targets.argmax(axis=1) if separator else loaded.targets
    assert targets.tolist() == [2, 0, 1, 2]


@pytest.mark.parametrize("separator", [None, " "])
def test_a_class_of_the_config_without_a_training_row_is_named(tmp_path, separator):
    options = {"classes": ["a", "b", "dodo", "quagga"]} | ({"separator": separator} if separator else {})
    message = refusal_of(lambda: competition(tmp_path, {"id": ids(3), "label": ["a", "b", "a"]}, **options))
    assert message == (
        "competition.classes: no training row has 'dodo', 'quagga'; leave out what cannot be learned, or set "
        "competition.classes_without_rows=allowed: then it is never predicted"
    )


def test_a_column_without_a_1_is_named(tmp_path):
    table = {"id": ids(2), "a": ["1", "0"], "dodo": ["0", "0"], "b": ["0", "1"]}
    message = refusal_of(lambda: competition(tmp_path, table, label=["a", "dodo", "b"]))
    assert message.startswith("competition.label: no training row has 'dodo'; leave out what cannot be learned")


@pytest.mark.parametrize("separator", [None, " "])
def test_a_label_that_is_none_of_the_configs_classes_is_named(tmp_path, separator):
    options = {"classes": ["a", "b"]} | ({"separator": separator} if separator else {})
    message = refusal_of(lambda: competition(tmp_path, {"id": ids(3), "label": ["a", "b", "cow"]}, **options))
    assert message == "competition.label: 'cow' is no class; the classes are a, b"


def test_numbers_of_the_config_are_the_tables_however_spelt(tmp_path):
    loaded = competition(tmp_path, {"id": ids(4), "label": ["02", "1.0", "10", "2"]}, classes=[1, 2, 10])
    assert loaded.classes == ("1.0", "02", "10")  # as the table spells them, in the order of the config
    assert loaded.targets.tolist() == [1, 0, 2, 1]
    assert loaded.remarks[-2:] == (
        "competition.label: a label is spelt in several ways: '02' (in 1) and '2' (in 1) are '02'",
        "competition.classes: the train table spells labels otherwise: '1' is '1.0', '2' is '02'; it counts",
    )


def test_a_row_without_a_label_is_named_where_it_needs_one(tmp_path):
    table = {"id": ids(4), "label": ["a", "", "b", ""]}
    assert "no label in 2 of 4 rows (id r1, r3)" in refusal_of(lambda: competition(tmp_path, table))


def test_labels_with_the_separator_in_no_cell_are_single_labels_still_of_several(tmp_path):
    loaded = competition(tmp_path, {"id": ids(3), "label": ["a", "b", "a"]}, separator=" ")
    assert loaded.targets.tolist() == [[True, False], [False, True], [True, False]]


def test_names_from_the_config(tmp_path):
    loaded = competition(tmp_path, {"id": ids(3), "label": ["0", "1", "0"]}, names={0: "cat", 1: "dog", 2: "ox"})
    assert loaded.names == {"0": "cat", "1": "dog"}


def test_names_from_a_table(tmp_path):
    (tmp_path / "names.csv").write_text('key,title,other\n1,"dog, or wolf",x\n0,cat,y\n5,ox,z\n')
    names = NamesConfig(table="names.csv", label="key", name="title")
    loaded = competition(tmp_path, {"id": ids(4), "label": ["0", "1", "7", "0"]}, names=names)
    assert loaded.names == {"0": "cat", "1": "dog, or wolf", "7": "7"}  # what has no name is called as it is


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("key,other\n0,x\n", "competition.names.name: {path} has no column 'title'; it has key, other"),
        ("key,title\n0,a\n0,b\n", "competition.names: {path}: 1 ids stand there twice (0); ids must be unique"),
        ("key,title\n0,cat\n", "competition.names: no name for 1, and submit_names wants one for each"),
        ("key,title\n0,a\n1,a\n", "competition.names: two classes have the same name, and submit_names wants"),
    ],
)
def test_a_table_of_names_that_cannot_be_used_is_told(tmp_path, content, said):
    (tmp_path / "names.csv").write_text(content)
    options = {"names": NamesConfig(table="names.csv", label="key", name="title"), "submit_names": True}
    message = refusal_of(lambda: competition(tmp_path, {"id": ids(3), "label": ["0", "1", "0"]}, **options))
    assert message.startswith(said.format(path=tmp_path / "names.csv"))


def test_rows_without_ids_count_from_1(tmp_path):
    loaded = competition(tmp_path, {"label": ["a", "b", "a"]}, id=None)
    assert loaded.ids == ["1", "2", "3"]
    message = refusal_of(lambda: competition(tmp_path, {"id": ["x"] * 3, "label": ["a", "b", "a"]}, id=None))
    assert message == f"competition.id: is null, but {tmp_path / 'train.csv'} has a column 'id'; name it"


LABELS = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=3)
SEPARATORS = st.sampled_from([" ", ",", ";", "||", "\t"])


@given(rows=st.lists(st.sets(LABELS, max_size=4), min_size=1, max_size=8), separator=SEPARATORS)
@settings(max_examples=80, deadline=None, database=None)
def test_sets_of_labels_survive_encoding_and_decoding(rows, separator):
    rows = [{label for label in row if separator not in label and separator[0] not in label} for row in rows]
    cells = [separator.join(sorted(row)) for row in rows]
    format = MultiLabel.of(pd.Series(cells, dtype=object), separator)
    targets = format.encode(cells, "x")
    assert targets.shape == (len(rows), len(format.classes))
    assert [set(split_labels(cell, separator)) for cell in format.decode(targets)] == rows
    assert [{format.classes[place] for place in np.flatnonzero(row)} for row in targets] == rows
    assert set(format.classes) == set().union(*rows)
    assert format.may_be_empty == (set() in rows)


@given(targets=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), max_size=6))
@settings(max_examples=30, deadline=None, database=None)
def test_columns_of_0_and_1_are_read_as_they_are_written(targets):
    spelt = {True: ["1", "1.0", "01", "1e0"], False: ["0", "0.0", "-0", "00"]}
    cells = [
        [spelt[value][(row + place) % 4] for place, value in enumerate(each)] for row, each in enumerate(targets)
    ]
    table = pd.DataFrame(cells, columns=list("abc"), dtype=object)
    assert encode_columns(table, ["c", "a"], "x").tolist() == [[row[2], row[0]] for row in targets]


def test_of_many_odd_cells_five_are_named_with_their_rows():
    table = pd.DataFrame({"a": ["0", "x"] * 8}, dtype=object)
    assert refusal_of(encode_columns, table, ["a"], "t") == (
        "t: column 'a' has to hold 0 or 1; it has 'x' in row 2, 'x' in row 4, 'x' in row 6, 'x' in row 8, 'x' in "
        "row 10 and 3 more"
    )


def test_a_label_is_a_class_as_text_or_as_a_number():
    for format in (SingleLabel(("1", "2")), MultiLabel(("1", "2"))):
        assert [label for label in ("1", "2.0", "3", "x", "") if not format.unknown([label])] == ["1", "2.0"]
        assert format.unknown(["x", "2.0", "3", "x"]) == ["x", "3"]


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_no_rows_and_no_classes_are_decoded_to_empty_cells(shape):
    assert MultiLabel(("a", "b", "c")[: shape[1]]).decode(np.zeros(shape, dtype=bool)) == [""] * shape[0]


def test_single_labels_with_other_classes_keep_their_spelling():
    format = SingleLabel.of(pd.Series(["3", "1"])).with_classes(["2", "1", "3"])
    assert format.encode(["3.0", "1"], "x").tolist() == [2, 1]
    assert format.decode(np.array([0, 2])) == ["2", "3"]
