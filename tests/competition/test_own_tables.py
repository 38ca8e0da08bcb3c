"""Readers of tables of the user's own: every cell is the text that a CSV file has."""

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.colours import write_competition
from support.refusals import refusal_of

from kit.competition.config import CompetitionConfig, TablesConfig
from kit.competition.load import load_competition, load_labels, load_test
from kit.competition.tables import _as_text, column_names, read_table
from kit.core.errors import KitError

MINE = """
import pandas as pd
def parquet(path): return pd.read_parquet(path)
def table(path, sep=","): return pd.read_csv(path, sep=sep)
def text(path): return path.read_text()
def twice(path): return pd.DataFrame([[1, 2]], columns=["id", "id"])
def levels(path): return pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("id", "a")]))
def lists(path): return pd.DataFrame({"id": ["a"], "boxes": [[1, 2]]})
def fails(path): return pd.DataFrame({"id": [1]}).loc[:, "label"]
"""
IMAGES = {"train_images": "train/{id}.png", "test_images": "test/{id}.png"}


@pytest.fixture
def reader(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)

    def of(tables) -> TablesConfig:
        config = CompetitionConfig.model_validate({"path": "x", "tables": tables}, context={"folder": tmp_path})
        assert config.tables
        return config.tables

    return of


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        (["007", "7", "", None], ["007", "7", "", ""]),
        (["NA", "null", " a "], ["NA", "null", " a "]),
        ([3, 14], ["3", "14"]),
        ([3.0, None, 14.0], ["3", "", "14"]),
        ([0.5, 2.0], ["0.5", "2"]),
        (np.array([0.1, 3], dtype=np.float32), ["0.1", "3"]),
        (pd.array([1, None, 2**60], dtype="Int64"), ["1", "", str(2**60)]),
        (pd.array(["a", None], dtype="string"), ["a", ""]),
        (pd.Categorical(["b", None, "a"]), ["b", "", "a"]),
        ([True, False], ["True", "False"]),
        (pd.to_datetime(["2024-05-31", None]), ["2024-05-31", ""]),
        (pd.to_datetime(["2024-05-31 10:00", "2024-06-01 00:00"]), ["2024-05-31 10:00:00", "2024-06-01 00:00:00"]),
        ([datetime.date(2024, 5, 31), None], ["2024-05-31", ""]),
        ([1, "1", 1.5, None, np.int64(2)], ["1", "1", "1.5", "", "2"]),
    ],
)
def test_a_cell_is_the_text_that_a_csv_file_has(column, cells):
    assert _as_text(pd.Series(column), "") == cells


PLAIN = st.one_of(
    st.lists(st.integers(-(2**40), 2**40), min_size=1),
    st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\n\0")), min_size=1),
    st.lists(st.booleans(), min_size=1),
    st.lists(st.floats(-1e6, 1e6).filter(lambda value: not value.is_integer()), min_size=1),
)


@given(PLAIN)
def test_what_pandas_writes_as_csv_reads_the_same(tmp_path_factory, column):
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    frame = pd.DataFrame({"cell": column, "beside": 1})
    frame.to_csv(path, index=False)
    assert _as_text(frame["cell"], "") == read_table(path, "key")["cell"].tolist()


def test_a_competition_of_parquet_files_is_that_of_its_csv_files(tmp_path, reader):
    folder = write_competition(tmp_path / "data", rows=9, test_rows=3, side=4)
    expected = load_competition(CompetitionConfig(path=str(folder), **IMAGES))
    names = {}
    for name in ("train", "test", "sample_submission"):
        pd.read_csv(folder / f"{name}.csv", dtype=str).to_parquet(folder / f"{name}.pq")
        (folder / f"{name}.csv").unlink()
        names[name] = f"{name}.pq"
    config = CompetitionConfig(path=str(folder), tables=reader("mine.py:parquet"), **IMAGES, **names)
    found = load_competition(config)
    pd.testing.assert_frame_equal(found.train, expected.train)
    assert (found.ids, found.test_ids, found.classes) == (expected.ids, expected.test_ids, expected.classes)
    assert found.targets.tolist() == expected.targets.tolist()
    assert load_test(config).sample.equals(load_test(config).sample)
    known = load_labels(config)
    assert known
    assert known[1] == expected.ids


def test_the_table_of_names_is_read_by_it_too(tmp_path, reader):
    folder = write_competition(tmp_path / "data", rows=9, test_rows=3, side=4)
    for name in ("train", "test", "sample_submission"):
        text = (folder / f"{name}.csv").read_text().replace(",", ";")
        (folder / f"{name}.csv").write_text(text)
    (folder / "names.csv").write_text("class;said\nblue;Blau\ngreen;Grün\nred;Rot\n")
    tables = reader({"name": "mine.py:table", "sep": ";"})
    names = {"table": "names.csv", "label": "class", "name": "said"}
    config = CompetitionConfig(path=str(folder), tables=tables, names=names, **IMAGES)
    assert load_competition(config).names == {"blue": "Blau", "green": "Grün", "red": "Rot"}


def test_numbers_as_columns_are_named_by_their_text(tmp_path, reader):
    (tmp_path / "mine.py").write_text("import pandas as pd\ndef f(path): return pd.DataFrame([[1, 2]], index=[7])")
    (tmp_path / "any").touch()
    table = read_table(tmp_path / "any", "key", without=["1"], reader=TablesConfig(name=f"{tmp_path}/mine.py:f"))
    assert table.to_dict("list") == {"0": ["1"]}
    assert column_names(tmp_path / "any", "key", TablesConfig(name=f"{tmp_path}/mine.py:f")) == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("text", "mine.py:text gives str; a pandas DataFrame is needed"),
        ("twice", "mine.py:twice gives the column 'id' more than once"),
        ("levels", "mine.py:levels gives columns of several levels; one name a column is needed"),
        ("lists", "mine.py:lists gives in column 'boxes', row 1, list; text, numbers or dates are needed"),
        ("fails", "mine.py:fails: mine.py:9: KeyError: 'label'"),
    ],
)
def test_what_is_no_table_is_refused_with_the_file(tmp_path, reader, name, line):
    path = tmp_path / "train.csv"
    path.write_text("id,label\na,b\n")
    said = refusal_of(read_table, path, "competition.train", (), reader(f"mine.py:{name}"))
    assert said == f"competition.train: {path}: {line}"


def test_a_reader_that_is_not_there_is_named_by_its_key(tmp_path, reader):
    path = tmp_path / "train.csv"
    path.write_text("id,label\na,b\n")
    said = refusal_of(read_table, path, "competition.train", (), reader("mine.py:parket"))
    assert said.startswith("competition.tables: mine.py:parket: ")
    assert said.endswith("did you mean parquet?")
    said = refusal_of(read_table, tmp_path / "no.csv", "competition.train", (), reader("mine.py:table"))
    assert said.startswith(
        f"competition.train: {tmp_path / 'no.csv'} does not exist; tables in that folder: train.csv"
    )


def test_pixels_in_a_table_need_a_csv_file():
    with pytest.raises(ValueError, match="tables: images whose pixels stand in a table need CSV files"):
        CompetitionConfig(path="x", tables="pandas:read_parquet", train_images={"columns": "pixel*"})


def test_a_record_names_the_reader_from_where_the_command_runs(tmp_path, reader, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = CompetitionConfig.model_validate(
        {"path": "x", "tables": {"name": "mine.py:table", "sep": ";"}}, context={"folder": Path("configs")}
    )
    record = config.record()
    assert record["tables"] == {"name": "configs/mine.py:table", "sep": ";"}
    assert CompetitionConfig(**record).tables
    with pytest.raises(KitError, match=r"no file mine.py in .*configs"):
        _ = CompetitionConfig(**record).tables.function
