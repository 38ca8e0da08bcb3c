"""Lists written as text in cells."""

import ast
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.competition.lists import ListStyle, items_of, style_of

ITEMS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=6), max_size=4
)
WORDS = st.lists(st.text("abcäz019", min_size=1, max_size=4), max_size=4)


@given(items=ITEMS)
@settings(max_examples=150, deadline=None, database=None)
def test_what_python_and_json_write_is_read(items):
    for text in (repr(items), repr(tuple(items)), json.dumps(items), json.dumps(items, ensure_ascii=False)):
        assert items_of(text) == items, text
    assert items_of(f" {items!r} ") == items


@given(items=WORDS.filter(bool))
@settings(max_examples=60, deadline=None, database=None)
def test_what_numpy_writes_is_read(items):
    assert items_of(str(np.array(items))) == items
    assert items_of(str(np.arange(len(items)))) == [str(number) for number in range(len(items))]


@given(items=ITEMS, other=ITEMS)
@settings(max_examples=100, deadline=None, database=None)
def test_what_is_written_in_a_style_is_read_by_whoever_wrote_it(items, other):
    assert ast.literal_eval(ListStyle("[", "'", ", ").write(items)) == items
    assert ast.literal_eval(ListStyle("(", "'", ", ").write(items)) == tuple(items)
    assert json.loads(ListStyle("[", '"', ", ").write(items)) == items
    assert items_of(ListStyle("[", "'", " ").write(items)) == items


@pytest.mark.parametrize(
    ("cells", "style"),
    [
        (["['a', 'b']", "", "[]"], ListStyle("[", "'", ", ")),
        (["['a']"], ListStyle("[", "'", ", ")),
        (['["a","b"]'], ListStyle("[", '"', ",")),
        (["['a' 'b']", "['a']"], ListStyle("[", "'", " ")),
        (["[1, 2]", "[3]"], ListStyle("[", "", ", ")),
        (["[1 2]"], ListStyle("[", "", " ")),
        (["(a, b)"], ListStyle("(", "", ", ")),
        (["{'a'}"], ListStyle("{", "'", ", ")),
        (["[\"it's\", 'b']"], ListStyle("[", "'", ", ")),
        (["['a, b']", "['c']"], ListStyle("[", "'", ", ")),
        (["['a']", "b"], None),
        (["(a)", "(b)"], None),
        (["", " "], None),
        ([], None),
        (["a", "b"], None),
        (["[1], [2]"], None),
        (["{'a': 1}"], None),
    ],
)
def test_how_lists_are_written(cells, style):
    assert style_of(cells) == style
    if style and style.opening != "{":
        assert items_of(style.write(["x", "y", "z"])) == ["x", "y", "z"]


@pytest.mark.parametrize("text", ["a", "[a", "a]", "(a] ", "['a'b]", "[[1, 2]]", "{'a': 1}", "['a", ""])
def test_what_is_no_list(text):
    assert items_of(text) is None


def test_an_item_that_could_not_be_read_again():
    assert not ListStyle("[", "", ", ").takes("a, b")
    assert not ListStyle("[", "", " ").takes("a b")
    assert ListStyle("[", "'", ", ").takes("a, b")
