"""Tables as nobody would write them: a plan that keeps its word, or one clear line; never a traceback."""

import csv
import io
import re
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kit.competition.config import CompetitionConfig
from kit.competition.folds import EARLIEST, check_folds, check_plan, group_texts, make_folds, rare_classes
from kit.competition.folds_config import FoldsConfig
from kit.competition.load import Competition, load_competition, load_labels, load_test
from kit.core.errors import KitError

EXAMPLES = 40
OWN = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
ODD = [
    *(
        "",
        " ",
        "0",
        "1",
        "2",
        "1.0",
        "01",
        "+1",
        "1e0",
        "-0",
        "0x1",
        "1_0",
        "nan",
        "NaN",
        "NA",
        "None",
        "null",
        "inf",
    ),
    *(
        "-inf",
        "true",
        "id",
        "label",
        "a",
        "a ",
        "A",
        "ä",
        "a\u0301",
        "日本",
        "😀",
        '"',
        "'",
        "a,b",
        "a b",
        "a  b",
        " a",
    ),
    *(
        "a;b",
        "a|b",
        "\t",
        "a\nb",
        "a\r\nb",
        "..",
        "../x",
        "/",
        "{id}",
        "{",
        "%s",
        "#",
        "\\",
        "2020-01-01",
        "13/13/13",
    ),
    *("1e400", "9" * 30, "\u200b", "\ufeff", "[", "(?P<x>", "-1", "3"),
]
CELLS = st.sampled_from(ODD) | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=4)
COLUMNS = ["id", "label", "site", "x", "pixel0", "when", "", "id", "é"]
PATTERNS = [
    r"(s)(\d).*\1?",
    "",
    ".",
    r"\w+",
    r"(\d)",
    r"(?P<whole>a)",
    r"(a)|(b)",
    "^$",
    r"(?:a|b)(.)?",
    "(?i)A",
    r"\b",
    "(a)(b)?",
]
PYTHON = re.compile(
    r"Traceback|<class|object at 0x|\w+Error\b|\w+Warning\b|dtype|numpy|pandas|\bNone\b(?!')|array\(", re.ASCII
)


@st.composite
def good_tables(draw) -> list[list[str]]:
    """A head and rows without a fault."""
    labels = draw(st.sampled_from([["a", "b"], ["1", "2", "10"], ["a b", "b", "b c", "c a"], ["a,b", "b", "c"]]))
    sites = [f"s{number % draw(st.integers(3, 8))}-{number % 3}" for number in range(14)]
    moments = draw(
        st.sampled_from([["3", "1", "2", "10", "20"], ["2020-01-01", "2021-05-06 07:08", "1 May 2019"]])
    )
    when = st.sampled_from(moments)
    rows = [
        [f"r{row}", labels[row % len(labels)], draw(st.sampled_from(sites)), draw(when), "7", str(row % 3)]
        for row in range(draw(st.integers(4, 14)))
    ]
    return [["id", "label", "site", "when", "pixel0", "x"], *draw(st.permutations(rows))]


@st.composite
def tables(draw) -> list[list[str]]:
    """A good table with up to three faults."""
    table = [list(row) for row in draw(good_tables())]
    for _ in range(draw(st.integers(0, 3))):
        row = draw(st.integers(0, len(table) - 1))
        place = draw(st.integers(0, max(0, len(table[row]) - 1)))
        match draw(st.sampled_from(["cell", "cell", "column", "short", "long", "twice", "drop", "head", "none"])):
            case "cell":
                table[row][place : place + 1] = [draw(CELLS)]
            case "column":
                table = [cells[:place] + cells[place + 1 :] for cells in table]
            case "short":
                table[row] = table[row][:place]
            case "long":
                table[row] = table[row] + [draw(CELLS)]
            case "twice":
                table.append(list(table[row]))
            case "drop":
                table = table[:1] + table[max(1, row) :]
            case "head":
                table[0] = [draw(st.sampled_from(COLUMNS)) for _ in table[0]]
            case "none":
                table = [cells[: len(cells) // 2] for cells in table]
    return table


def written(table: list[list[str]], quoting: int = csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=quoting, lineterminator="\n").writerows(table)
    return text.getvalue()


@st.composite
def competitions(draw) -> dict:
    """Options of a competition whose pixels stand in the table, so that no image file is needed."""
    options: dict = {"id": "id", "label": "label", "train_images": {"columns": "pixel*"}}
    options["separator"] = draw(st.sampled_from([None, None, " ", ","]))
    odd = {
        "id": [None, "x", "", "site"],
        "label": ["site", ("a", "b"), ("x", "label"), "é", ""],
        "separator": [";", "ab", "\t", "b"],
        "classes": [("a", "b"), ("1", "2", "10"), ("a", "b", "c", "z"), ("2.0", "1", "10")],
        "train_images": [{"columns": "*"}, {"columns": "[", "width": 1}, "train/{id}.png", ("{x}", "{id}"), "{"],
    }
    for name in draw(st.lists(st.sampled_from(list(odd)), max_size=2)) if draw(st.booleans()) else []:
        options[name] = draw(st.sampled_from(odd[name]))
    return {name: value for name, value in options.items() if value is not None or name == "id"}


@st.composite
def fold_settings(draw, kind: str = "stratified") -> dict:
    odd = st.sampled_from(["site", "when", "x", "id", "label", "nowhere", ""])
    options: dict = {"k": draw(st.sampled_from([3, 2, 3, 2, 4, 100])), "seed": draw(st.integers(0, 3))}
    options["run"] = draw(st.sampled_from(["all", "all", "all", (0,), (7,), ()]))
    if kind in ("plain", "group", "pattern"):
        options["stratify"] = kind != "plain" and draw(st.booleans())
    if kind in ("group", "pattern"):
        options["group"] = draw(st.sampled_from(["site", "site", "site"]) | odd)
    if kind == "pattern":
        options["group_pattern"] = draw(
            st.sampled_from(PATTERNS[:4]) | st.sampled_from(PATTERNS) | st.text(max_size=3)
        )
    if kind in ("time", "column"):
        options[kind] = draw(st.just({"time": "when", "column": "x"}[kind]) | odd)
    return options


def need_clear(error: KitError) -> None:
    """One line or more, each of which says something, in words that are not Python's."""
    lines = str(error).split("\n")
    assert all(line.strip() for line in lines), lines
    for line in lines:
        # What stands in quotes is the table's own; so are cells in brackets, and columns at the end.
        said = re.sub(r"'[^']*'|\"[^\"]*\"|\([^()]*\)|; it has .*|the columns? are .*", "", line)
        assert not PYTHON.search(said), line
        assert re.match(r"(competition|folds)\b", line), line


def need_legal(competition: Competition, config: FoldsConfig) -> None:
    """Makes the plan as `run` does, and looks at every promise of it."""
    check_folds(config, competition.classes, competition.targets)
    plan = make_folds(competition.ids, competition.targets, config, competition.train)
    check_plan(plan, config, competition.train)
    lines = rare_classes(plan, config.k, competition.classes, competition.targets)
    assert all(line and "\n" not in line for line in lines)
    assert plan.ids == competition.ids
    assert plan.fold.shape == (len(competition.ids),)
    assert set(plan.fold.tolist()) - {EARLIEST} == set(range(config.k))
    assert config.time or EARLIEST not in plan.fold
    for fold in config.chosen:
        held_out, training = plan.validation_rows(fold), plan.training_rows(fold)
        assert len(held_out) >= 1
        assert len(training) >= 1
        assert not set(held_out) & set(training)
    if config.group:
        texts = np.array(group_texts(config, competition.train), dtype=object)
        assert all(len(set(plan.fold[texts == text])) == 1 for text in set(texts))


def attempt(train: str, sample: str, competition: dict, folds: dict) -> str:
    """What came of it, for hypothesis to count."""
    try:
        folds_config = FoldsConfig(**folds)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "train.csv").write_text(train, encoding="utf-8", newline="")
            (folder / "sample_submission.csv").write_text(sample, encoding="utf-8", newline="")
            config = CompetitionConfig(path=name, test=None, **competition)
            try:
                loaded = load_competition(config)
            except KitError as error:
                need_clear(error)
                return "refused"
            assert loaded.classes
            assert len(set(loaded.classes)) == len(loaded.classes) >= 2
            assert len(loaded.ids) == len(set(loaded.ids)) == len(loaded.targets) == len(loaded.train_images)
            counts = loaded.targets.sum(axis=0) if loaded.label_format.multilabel else np.bincount(loaded.targets)
            assert (counts > 0).all()
            labels = load_labels(config)
            assert labels is not None
            assert (labels[0], labels[1]) == (loaded.label_format, loaded.ids)
            assert load_test(config).ids == loaded.test_ids
    except ValidationError:
        return "no config"
    try:
        need_legal(loaded, folds_config)
    except KitError as error:
        need_clear(error)
        return "folds refused"
    return "a plan"


SOUND = {
    "stratified": {},
    "plain": {"stratify": False},
    "group": {"group": "site"},
    "pattern": {"group": "site", "group_pattern": r"s(\d)"},
    "time": {"time": "when"},
    "column": {"column": "x", "k": 3},
}


@pytest.mark.parametrize("kind", SOUND)
def test_any_table_gives_a_legal_plan_or_a_clear_line(kind):
    seen = Counter()

    @given(table=tables(), competition=competitions(), folds=fold_settings(kind), quoting=st.sampled_from([0, 1]))
    @settings(OWN, max_examples=EXAMPLES)
    def explore(table, competition, folds, quoting):
        seen[attempt(written(table, quoting), "id,label\n", competition, folds)] += 1

    @given(table=good_tables(), k=st.integers(2, 3), several=st.booleans())
    @settings(OWN, max_examples=EXAMPLES // 3)
    def explore_sound_ones(table, k, several):
        competition = {"train_images": {"columns": "pixel*"}} | ({"separator": " "} if several else {})
        seen[attempt(written(table), "id,label\n", competition, {"k": k} | SOUND[kind])] += 1

    explore()
    explore_sound_ones()
    assert seen["a plan"] >= EXAMPLES // 10, seen  # else this would hold of refusals alone
    assert seen["folds refused"] >= EXAMPLES // 10, seen
    assert seen["refused"] >= EXAMPLES // 10, seen


@given(text=st.text(st.characters(codec="utf-8"), max_size=60), competition=competitions(), folds=fold_settings())
@OWN
def test_any_text_at_all_gives_a_legal_plan_or_a_clear_line(text, competition, folds):
    attempt(text, "id,label\n", competition, folds)


@given(content=st.binary(max_size=40))
@settings(OWN, max_examples=25)
def test_any_bytes_give_a_clear_line(content):
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "train.csv").write_bytes(b"id,label,pixel0\n1,a,0\n2,b,0\n3,a,0\n" + content)
        (Path(name) / "sample_submission.csv").write_bytes(b"id,label\n")
        try:
            load_competition(CompetitionConfig(path=name, test=None, train_images={"columns": "pixel*"}))
        except KitError as error:
            need_clear(error)


@given(table=tables(), kind=st.sampled_from(["auto", "labels", "columns", "probabilities"]), several=st.booleans())
@settings(OWN, max_examples=40)
def test_any_sample_submission_is_taken_or_refused_clearly(table, kind, several):
    """Without a test table and with no image there: what is taken says that the images do not exist."""
    train = "id,label,pixel0\n1,a,0\n2,b,0\n3,a,0\n4,b,0\n"
    options = {"train_images": {"columns": "pixel*"}, "submission": kind} | ({"separator": " "} if several else {})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.csv").write_text(train)
        (folder / "sample_submission.csv").write_text(written(table), encoding="utf-8", newline="")
        try:
            loaded = load_competition(CompetitionConfig(path=name, test=None, **options))
        except KitError as error:
            need_clear(error)
            return
        ones = np.tile([1.0, 0.0], (len(loaded.test_ids), 1))
        predicted = ones > 0 if several else np.zeros(len(ones), dtype=int)
        loaded.submission.validate(loaded.submission.make(predicted, ones), "mine.csv")
