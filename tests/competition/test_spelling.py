"""When two texts are one label: against a slow obvious version, and value by value."""

import unicodedata
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.competition.spelling import (
    Spelling,
    classes_of,
    leading_zero,
    need_apart,
    plain,
    remarks_on_spelling,
    respelt,
    shown,
    truth_words,
)

ODD_SPACES = [" ", "\t", "\n", "\xa0", "\u2003", "\u3000", "\u200b", "\ufeff", "\u200e"]
NUMBERS = [
    "0",
    "1",
    "01",
    "1.0",
    "+1",
    "1e0",
    "10",
    "1e1",
    "-0",
    "0.5",
    ".5",
    "2",
    "9007199254740993",
    "9007199254740992",
]
WORDS = ["a", "A", "é", "e\u0301", "1_0", "0x1", "nan", "inf", "1e400", "True", "false", "", "a b", "a  b"]
LABELS = st.sampled_from(NUMBERS) | st.sampled_from(WORDS) | st.text(max_size=3)
SPACED = st.builds(
    lambda before, text, after: before + text + after,
    *(st.sampled_from(["", *ODD_SPACES]), LABELS, st.sampled_from(["", *ODD_SPACES])),
)
SETS = st.lists(SPACED, min_size=1, max_size=6) | st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=6)


def obvious(one: str, other: str, labels: list[str]) -> bool:
    """Whether two of the labels are one, as one would say it."""

    def bare(text: str) -> str:
        while text and (text[0].isspace() or text[0] in "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"):
            text = text[1:]
        while text and (text[-1].isspace() or text[-1] in "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"):
            text = text[:-1]
        return unicodedata.normalize("NFC", text)

    def value(text: str) -> Fraction | None:
        try:
            return (
                None if "_" in text or "/" in text or abs(Fraction(bare(text))) > 10**308 else Fraction(bare(text))
            )
        except ValueError:
            return None

    def true(text: str) -> bool | None:
        known = {"true": True, "false": False}.get(bare(text).lower())
        return known if known is not None or value(text) not in (0, 1) else value(text) == 1

    if bare(one) == bare(other):
        return True
    for meaning in (value, true):
        if all(meaning(label) is not None for label in labels):
            return meaning(one) == meaning(other)
    return False


@given(labels=SETS)
@settings(max_examples=200, deadline=None, database=None)
def test_which_of_some_labels_are_one(labels):
    spelling = Spelling(labels)
    for one in labels:
        for other in labels:
            assert spelling.same(one, other) == obvious(one, other, labels), (one, other)


@given(labels=SETS, others=st.lists(SPACED, min_size=3, max_size=3))
@settings(max_examples=150, deadline=None, database=None)
def test_being_one_label_is_an_equivalence_among_whatever_labels(labels, others):
    spelling, (a, b, c) = Spelling(labels), others
    assert spelling.same(a, a)
    assert spelling.same(a, b) == spelling.same(b, a)
    assert not (spelling.same(a, b) and spelling.same(b, c)) or spelling.same(a, c)
    assert spelling.same(a, f" {a}\u200b")
    assert spelling.same(a, unicodedata.normalize("NFD", a))


@given(labels=SETS)
@settings(max_examples=100, deadline=None, database=None)
def test_the_classes_are_one_of_each_and_take_back_every_label(labels):
    counts = {label: labels.count(label) for label in labels}
    classes = classes_of(counts)
    assert len(classes) == sum(
        not any(obvious(label, earlier, labels) for earlier in list(counts)[:place])
        for place, label in enumerate(counts)
    )
    spelling = Spelling(classes, apart=True)
    for label in labels:
        assert obvious(classes[spelling.place(label)], label, labels)
        assert counts[classes[spelling.place(label)]] >= counts[label]


@pytest.mark.parametrize("space", ODD_SPACES)
def test_odd_spaces_around_a_text_do_not_count(space):
    assert plain(f"{space}a b{space} ") == "a b"
    assert shown([f"{space}a", "a b", ""]) == [repr(f"{space}a"), "a b", "''"]


def test_a_ligature_and_its_letters_are_two_texts():
    assert plain("ﬁ") == "ﬁ" != plain("fi")  # NFKC would make them one


@pytest.mark.parametrize(
    ("labels", "one", "other", "same"),
    [
        (["01", "2"], "1", "01", True),
        (["01", "2"], "1.0", " 1", True),
        (["01", "b"], "1", "01", False),
        (["9007199254740993", "1"], "9007199254740993", "9007199254740992", False),  # one float, two labels
        (["0", "1"], "True", "1", True),
        (["False", "TRUE"], "0", "false", True),
        (["0", "1", "2"], "True", "1", False),
        (["cat", "dog"], "Cat", "cat", False),
        (["yes", "no"], "yes", "1", False),
    ],
)
def test_values_count_where_all_labels_have_one(labels, one, other, same):
    assert Spelling(labels).same(one, other) is same


def test_labels_that_were_stated_one_by_one_are_of_their_own():
    stated = Spelling(["1.1", "1.10"], apart=True)
    assert (stated.place("1.10"), stated.place("1.100"), stated.place(" 1.1 ")) == (1, None, 0)
    need_apart(["1.1", "1.10"])
    with pytest.raises(
        ValueError, match="'cat', 'cat ' are one label but for spaces around it; leave one of them"
    ):
        need_apart(["cat", "dog", "cat "])


def test_classes_are_spelt_as_the_table_spells_them_most_often():
    counts = {"03": 1, "3": 2, "01": 5}
    assert respelt(["1", "2", "3"], counts) == ("01", "2", "3")
    assert classes_of({"b": 1, "a ": 2, "a": 1}) == ("a ", "b")
    assert classes_of({"true": 1, "False": 3}) == ("False", "true")  # by value, not by letters


def test_what_was_taken_for_one_is_told_and_so_is_case():
    counts = {"cat": 2, "cat ": 1, "Cat": 1, "dog": 4}
    assert remarks_on_spelling(counts, classes_of(counts), "here", stated=False) == [
        "here: a label is spelt in several ways: 'cat' (in 2) and 'cat ' (in 1) are 'cat'",
        "here: classes differ in case alone: 'Cat' (in 1) and 'cat' (in 2); if they are one, spell them alike",
    ]
    numbers = {"1": 2, "1.0": 1, "2": 1}
    assert remarks_on_spelling(numbers, classes_of(numbers), "here", stated=False) == [
        "here: a label is spelt in several ways: '1' (in 2) and '1.0' (in 1) are '1'; list the classes in "
        "competition.classes if equal numbers are different labels"
    ]
    assert remarks_on_spelling({"a": 1, "b": 1}, ("a", "b"), "here", stated=False) == []


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["0", "True"], ("False", "True")),
        (["false"], ("false", "true")),
        (["FALSE", "true"], ("FALSE", "TRUE")),
        (["0", "1"], ("0", "1")),
        ([], ("0", "1")),
    ],
)
def test_words_for_0_and_1(texts, words):
    assert truth_words(texts) == words


def test_a_zero_in_front():
    assert [text for text in ("01", "1", "0", "0.5", "00", "-01", "01a", " 01") if leading_zero(text)] == [
        "01",
        "00",
        "-01",
        " 01",
    ]
