import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.competition.labels import SingleLabel
from kit.competition.spelling import Spelling
from kit.core.errors import KitError


def _format(*labels: str) -> SingleLabel:
    return SingleLabel.of(pd.Series(labels, dtype=str))


def _refusal(format: SingleLabel, labels: list[str]) -> str:
    with pytest.raises(KitError) as caught:
        format.encode(labels, "solution.csv")
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message


def test_numbers_are_sorted_by_value():
    assert _format("10", "9", "-1", "2.5", "10", "1e2").classes == ("-1", "2.5", "9", "10", "1e2")


@pytest.mark.parametrize("text", ["a", "NA", "nan", "inf", "1,5"])
def test_all_labels_are_sorted_as_text_where_one_is_no_number(text):
    assert _format("9", "10", text).classes == tuple(sorted(["9", "10", text]))


def test_na_is_a_label():
    format = _format("b", "NA", "a")
    assert format.classes == ("NA", "a", "b")
    assert format.encode(["a", "NA"], "x").tolist() == [1, 0]


@pytest.mark.parametrize("spelling", ["3", "3.0", "03", "3e0", "+3"])
def test_a_number_may_be_spelt_in_another_way(spelling):
    format = _format("7", "3", "11")
    assert format.encode([spelling, "11.00"], "x").tolist() == [0, 2]


def test_decoding_gives_the_spelling_of_the_train_table():
    format = _format("1.0", "3.0", "02")
    assert format.decode(format.encode(["3", "2", "1"], "x")) == ["3.0", "02", "1.0"]


def test_two_spellings_in_the_train_table_are_one_class_spelt_as_most_rows_spell_it():
    format = _format("3", "3.0", "4", "3.0")
    assert format.classes == ("3.0", "4")
    assert format.encode(["3", "3.0", "4", "03"], "x").tolist() == [0, 0, 1, 0]
    assert _format("3", "3.0", "4").classes == ("3", "4")  # of equally frequent ones the first


def test_numbers_that_are_stated_one_by_one_stay_apart():
    format = SingleLabel(("1.1", "1.10", "2"))
    assert format.encode(["1.10", "1.1", "2"], "x").tolist() == [1, 0, 2]
    assert "'2.0' is no class" in _refusal(format, ["2.0"])


def test_spelling_counts_where_a_label_is_no_number():
    assert "'3.0' is no class" in _refusal(_format("3", "a"), ["3.0"])
    assert "'Cat' is no class" in _refusal(_format("cat", "dog"), ["Cat", "dog"])


def test_an_underscore_makes_no_number():
    assert "'10' is no class" in _refusal(_format("1_0", "2_0"), ["10"])


def test_an_unknown_label_is_named_with_its_place_and_the_classes():
    assert _refusal(_format("cat", "dog"), ["cat", "cow", "cow"]) == (
        "solution.csv: 'cow' is no class; the classes are cat, dog"
    )


def test_of_many_unknown_labels_and_classes_some_are_named():
    format = _format(*[f"c{number:02d}" for number in range(15)])
    assert _refusal(format, [f"u{number}" for number in range(7)] + ["c01"]) == (
        "solution.csv: 'u0', 'u1', 'u2', 'u3', 'u4' and 2 more are no class; the classes are "
        "c00, c01, c02, c03, c04, c05, c06, c07, c08, c09, c10, c11 and 3 more"
    )


def test_a_line_break_in_a_class_does_not_break_the_message():
    assert "'c' is no class" in _refusal(_format("a\nb", "x"), ["c"])


def test_no_labels_give_no_targets():
    targets = _format("a", "b").encode([], "x")
    assert (targets.shape, targets.dtype) == ((0,), np.int64)


_TEXTS = st.lists(st.text(min_size=1, max_size=4) | st.sampled_from(["3", "3.0", "03", "NA", "inf"]), min_size=1)
_NUMBERS = st.lists(st.integers(-200, 200).map(str) | st.floats(-9, 9).map(str), min_size=1)


@given(labels=_TEXTS | _NUMBERS)
@settings(max_examples=150, deadline=None, database=None)
def test_labels_survive_encoding_and_decoding(labels):
    format = _format(*labels)
    targets = format.encode(labels, "x")
    assert targets.dtype == np.int64
    spelling = Spelling(labels)
    assert all(map(spelling.same, format.decode(targets), labels))
    assert set(format.decode(targets)) == set(format.classes) <= set(labels)
    assert len(format.classes) == len({spelling.key(label) for label in labels})


@given(labels=_NUMBERS, data=st.data())
@settings(max_examples=60, deadline=None, database=None)
def test_classes_ascend_and_do_not_depend_on_the_order_of_rows(labels, data):
    classes = _format(*labels).classes
    assert np.all(np.diff([float(name) for name in classes]) >= 0)
    shuffled = _format(*data.draw(st.permutations(labels))).classes
    assert [float(name) for name in shuffled] == [float(name) for name in classes]


def test_labels_that_differ_in_spaces_only_are_one():
    assert SingleLabel.of(pd.Series(["cat", "dog", "cat  ", "cat", "\u200bcat\xa0"])).classes == ("cat", "dog")
    assert SingleLabel.of(pd.Series(["cat ", "dog"])).classes == ("cat ", "dog")
