"""Which column holds the labels, and what stands between several."""

import pandas as pd
import pytest

from kit.competition.guess_labels import guess_labels


def guessed(columns: dict, taken=("id",), test=None, sample=None):
    count = len(next(iter(columns.values())))
    table = pd.DataFrame({"id": [f"i{row}" for row in range(count)]} | columns, dtype=str)
    frames = [None if each is None else pd.DataFrame(each, dtype=str) for each in (test, sample)]
    return guess_labels(table, taken, *frames)


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["scab", "rust", "scab rust", "rust"], " "),
        (["1 2", "2 3", "3 1", "1 2"], " "),
        (["a,b", "b,c", "a", "b"], ","),
        (["x;y", "y", "x", "x"], ";"),
        (["u|v", "v", "u", "u"], "|"),
        (["['a', 'b']", "['a']", "['b']", "[]"], " "),
        (["Fat Hen", "Sugar beet", "Fat Hen", "Sugar beet"], None),
        (["Common wheat", "Common Chickweed", "Common wheat", "Common Chickweed"], None),
        (["cat", "dog", "cat", "dog"], None),
    ],
)
def test_what_stands_between_labels(cells, separator):
    assert guessed({"label": cells}).separator == separator


def test_the_samples_column_comes_before_a_telling_name():
    columns = {"species": list("aabb"), "stage": list("uvuv")}
    assert guessed(columns).label == "species"
    assert guessed(columns, sample={"id": ["x"], "stage": ["u"]}).label == "stage"
    assert guessed(columns, sample={"id": ["x"], "u": ["0.5"], "v": ["0.5"]}).label == "stage"


def test_what_the_test_table_has_is_no_label():
    columns = {"kind": list("aabb"), "stage": list("uvuv")}
    assert guessed(columns, test={"id": ["x"], "kind": ["a"]}).label == "stage"


def test_columns_of_0_and_1():
    columns = {"cat": list("1010"), "dog": list("0101"), "age": list("3344")}
    guess = guessed(columns, test={"id": ["x"], "age": ["3"]})
    assert (guess.label, guess.one_a_row) == (("cat", "dog"), True)
    columns["dog"] = list("1101")
    assert not guessed(columns, test={"id": ["x"], "age": ["3"]}).one_a_row
    guess = guessed(columns, sample={"id": ["x"], "dog": ["0"], "cat": ["0"]})
    assert guess.label == ("dog", "cat")


def test_two_that_are_equally_likely_are_both_told():
    guess = guessed({"species": list("aabb"), "breed": list("uvuv")})
    assert (guess.label, guess.others) == ("species", ("breed",))


def test_nothing_that_repeats():
    assert guessed({"comment": list("abcd"), "width": ["1.5", "1.5", "2.5", "2.5"]}) is None
