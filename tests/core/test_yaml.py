"""YAML: what is text stays as it is written, and what is written reads back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.refusals import refusal_of

from kit.core.settings import ConfigSection, Text, settled
from kit.core.yaml import Written, dump_yaml, parse_yaml

READ_OTHERWISE = [
    *("01", "010", "08", "0x1F", "0b11", "1_000", "+1", "-0", "1e3", "1E-3", ".5", "5.", "1.0", "-.inf", ".nan"),
    *(
        "yes",
        "No",
        "ON",
        "off",
        "12:30",
        "1:2:3.5",
        "2024-01-01",
        "2024-01-01 12:00:00",
        "2001-12-14t21:59:43.10-05:00",
    ),
    *("3", "-7", "0", "00", "1.50", "1.0e+10"),
]
WORDS = ["true", "True", "FALSE", "null", "~", "Null"]


class Inner(ConfigSection):
    column: Text = "x"
    flag: bool = False


class Section(ConfigSection):
    label: Text | tuple[Text, ...] | None = None
    weights: dict[Text, float] = {}
    options: dict[str, object] = {}
    inner: Inner | dict[Text, Text] = Inner()
    number: float = 0.0
    flag: bool = False


def read(text: str) -> Section:
    return Section(**settled(parse_yaml(text, "here", written=True), Section))


@pytest.mark.parametrize("text", READ_OTHERWISE)
def test_text_is_what_is_written_in_every_place_of_text(text):
    section = read(f"label: [{text}, a]\nweights: {{{text}: 2}}\ninner: {{column: {text}, flag: yes}}\n")
    assert section.label == (text, "a")
    assert section.weights == {text: 2.0}
    assert (section.inner.column, section.inner.flag) == (text, True)
    assert read(f"label: {text}").label == text
    assert read(f"inner: {{{text}: {text}, other: a}}").inner == {text: text, "other": "a"}


@pytest.mark.parametrize("text", READ_OTHERWISE)
def test_elsewhere_it_is_what_yaml_reads(text):
    plainly = parse_yaml(f"a: [{text}]", "here")
    written = read(f"options: {{a: [{text}], {text}: 1}}").options
    assert repr(written["a"]) == repr(plainly["a"])
    assert text in written  # keys are text
    assert not isinstance(written["a"][0], Written)


def test_yes_is_true_where_that_is_asked_for_and_on_is_a_key():
    assert read("flag: yes\noptions: {nesterov: no}") == Section(flag=True, options={"nesterov": False})
    assert read("options: {on: 1}").options == {"on": 1}
    assert read("number: 1e3").number == 1000.0


@pytest.mark.parametrize("word", WORDS)
def test_a_bare_word_of_yaml_is_no_text(word):
    with pytest.raises(ValueError, match="is YAML's own word and no text; put it in quotes"):
        read(f"label: [{word}, a]")
    assert read(f"label: ['{word}', a]").label == (word, "a")


def test_null_is_nothing_where_nothing_may_stand():
    assert read("label: null").label is None


@pytest.mark.parametrize("keys", ["01: 1, '01': 2", "yes: 1, 'yes': 2"])
def test_two_keys_that_are_one_text_are_refused(keys):
    assert refusal_of(read, f"weights: {{{keys}}}").endswith("stands there twice")


def test_two_spellings_of_a_number_are_one_key_where_keys_are_numbers():
    assert refusal_of(settled, parse_yaml("{1: a, 01: b}", "here", written=True)) == "the key 1 stands there twice"
    assert settled(parse_yaml("{1: a, 01: b}", "here", written=True), dict[Text, Text]) == {"1": "a", "01": "b"}


def test_dates_are_text_everywhere():
    assert parse_yaml("[2024-01-01]", "here") == ["2024-01-01"]


@given(text=st.sampled_from(READ_OTHERWISE + WORDS) | st.text(st.characters(codec="utf-8"), max_size=8))
@settings(max_examples=200, deadline=None, database=None)
def test_text_that_is_dumped_reads_back_as_it_was(text):
    content = {"label": [text, "a"], "weights": {text: 1.5}}
    dumped = dump_yaml(content)
    assert parse_yaml(dumped, "here") == content
    assert settled(parse_yaml(dumped, "here", written=True), Section) == content
