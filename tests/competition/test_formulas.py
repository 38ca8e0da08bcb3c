"""Ids and labels that a spreadsheet would run stay as they are, and are told once."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.colours import experiment_content, write_competition

from kit import run
from kit.competition.formulas import formulas_in, line_on_formulas
from kit.experiment.config import validate


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        '=HYPERLINK("http://x")',
        "+A1",
        "-A1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "-1+1",
        "+-1",
        "=1",
        "--1",
        "-cat",
    ],
)
def test_what_a_spreadsheet_runs(cell):
    assert formulas_in([cell]) == [cell]


@pytest.mark.parametrize(
    "cell", ["", "a=1", "-1", "+1.5", "-1e-5", "+1E+5", "-.5", "-1,000.5", "-5%", "-", "a-b", " =1", "1"]
)
def test_what_it_does_not(cell):
    assert formulas_in([cell]) == []


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_number_is_a_formula(value):
    assert formulas_in([repr(value), f"{value:+}", str(int(value))]) == []


def test_files_without_formulas_are_not_told():
    assert line_on_formulas({Path("a.csv"): ["a", "-1"], Path("b.csv"): []}) is None
    assert line_on_formulas({Path("a.csv"): ["=a", "x", "@b"], Path("b.csv"): ["x"]}) == (
        "ids or labels that a spreadsheet would run as formulas stand in a.csv (2, like '=a'); they are left as "
        "they are, as Kaggle wants them: open these files as text"
    )


def test_a_run_tells_once_and_hands_them_in_as_they_are(tmp_path):
    folder = write_competition(tmp_path / "colours", rows=18, test_rows=3)
    table = pd.read_csv(folder / "train.csv")
    table["label"] = table["label"].replace({"red": "=red"})
    table.to_csv(folder / "train.csv", index=False)
    sample = pd.read_csv(folder / "sample_submission.csv")
    sample.assign(label="=red").to_csv(folder / "sample_submission.csv", index=False)
    said = []
    content = experiment_content(folder, folds={"k": 2}, training={"epochs": 1})
    run(
        validate(content | {"policies": {"uniform": {"lr": 1e-6, "groups": "stage"}}}, "test"),
        tmp_path,
        say=said.append,
    )
    told = [line for line in said if "formulas" in line]
    assert told == [
        "ids or labels that a spreadsheet would run as formulas stand in "
        f"{tmp_path / 'submissions' / 'tiny.csv'} (1, like '=red'); they are left as they are, as Kaggle "
        "wants them: open these files as text"
    ]
    submitted = pd.read_csv(tmp_path / "submissions" / "tiny.csv")["label"]
    assert set(submitted) <= {"=red", "green", "blue"}
