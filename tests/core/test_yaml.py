"""YAML: what is text stays as it is written, and what is written reads back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.refusals import refusal_of

from kit.core.errors import KitError
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


# What a file from elsewhere may do


def bomb(levels: int = 10) -> str:
    """Nine aliases of the line before a line: 9^levels values in half a kilobyte."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (bomb(), 7, "more than 1,000,000 values, each alias counted as what it names"),
        ("a: 1\nb: " + "[" * 3000 + "]" * 3000, 2, "more than 100 lists and mappings in each other"),
        ("a: 1\nb: " + "{a: " * 3000 + "}" * 3000, 2, "more than 100 lists and mappings in each other"),
        (
            "\n".join(" " * depth + "a:" for depth in range(300)),
            100,
            "more than 100 lists and mappings in each other",
        ),
        ("b: 1\na: &a [1, *a]\n", 2, "*a stands within what it names"),
        ("b: 1\na: &a {b: {c: *a}}\n", 2, "*a stands within what it names"),
        ("b: 1\na: " + "9" * 5000, 2, f"'{'9' * 40}' is no int"),
        ("b: 1\na: 0x" + "f" * 5000, 2, f"'0x{'f' * 38}' is no int"),
        ("b: 1\na: !!int foo\n", 2, "'foo' is no int"),
        ("b: 1\na: !!bool foo\n", 2, "'foo' is no bool"),
        ("b: 1\na: !!timestamp foo\n", 2, "'foo' is no timestamp"),
        ('b: 1\na: "\\ud800"\n', 2, r"'\ud800' is no str"),
        (
            "b: 1\na: !!python/object/apply:os.system [ls]\n",
            2,
            "could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system'",
        ),
    ],
)
def test_what_would_hang_or_break_is_refused_with_its_line(text, line, reason):
    assert refusal_of(parse_yaml, text, "a.yaml") == f"a.yaml:{line}: not valid YAML: {reason}"


@pytest.mark.parametrize("merged", [False, True])
def test_mappings_that_grow_by_aliases_are_refused(merged):
    lines = ["a0: &a0 {k: v, l: w}"]
    for level in range(1, 12):
        aliases = [f"*a{level - 1}"] * 9
        inner = (
            f"<<: [{', '.join(aliases)}]"
            if merged
            else ", ".join(f"k{i}: {name}" for i, name in enumerate(aliases))
        )
        lines.append(f"a{level}: &a{level} {{{inner}, z: 1}}")
    assert "more than 1,000,000 values" in refusal_of(parse_yaml, "\n".join(lines), "a.yaml")


def test_a_text_that_would_take_minutes_is_refused():
    assert refusal_of(parse_yaml, "a" * 4_000_001, "a.yaml") == (
        "a.yaml: 4,000,001 characters; YAML is read up to 4,000,000"
    )


def test_aliases_and_depth_within_bounds_are_read():
    text = "base: &base {lr: 1e-2}\nuniform: *base\nlist: [*base, *base]\nother: {<<: *base, groups: stage}\n"
    base = {"lr": 0.01}
    assert parse_yaml(text, "a") == {
        "base": base,
        "uniform": base,
        "list": [base, base],
        "other": {"lr": 0.01, "groups": "stage"},
    }
    deep = parse_yaml("[" * 99 + "]" * 99, "a")
    for _ in range(98):
        (deep,) = deep
    assert deep == []
    same = "&a x\n"
    assert parse_yaml("- " + same + "- *a\n" * 2000, "a") == ["x"] * 2001


@pytest.mark.parametrize("written", [False, True])
def test_bounds_hold_however_it_is_read(written):
    with pytest.raises(KitError, match="more than 100 lists"):
        parse_yaml("[" * 200 + "]" * 200, "a", written=written)


def test_what_is_done_to_a_content_does_not_reach_the_next_reader():
    text = "{a: [1, {b: 01}], c: &x [1], d: *x}"
    first = parse_yaml(text, "here", written=True)
    first["a"][1]["b"] = 2
    first["c"].append(3)
    again, plain = parse_yaml(text, "here", written=True), parse_yaml(text, "there")
    assert again == {
        "a": [Written(1, "1"), {"b": Written(1, "01")}],
        "c": [Written(1, "1")],
        "d": [Written(1, "1")],
    }
    assert plain == {"a": [1, {"b": 1}], "c": [1], "d": [1]}
