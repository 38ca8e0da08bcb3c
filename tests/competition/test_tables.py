import csv

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.refusals import refusal_of

from kit.competition.tables import need_columns, need_unique, read_table


def _write(folder, content: bytes | str):
    path = folder / "train.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_cells_are_the_text_that_stands_there(tmp_path):
    path = _write(tmp_path, "id,label\n007,NA\n7,3.0\n1e3,null\n x,-0\nnan,None\n")
    assert read_table(path, "k").to_dict("list") == {
        "id": ["007", "7", "1e3", " x", "nan"],
        "label": ["NA", "3.0", "null", "-0", "None"],
    }


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbfid,label\na,x\n", b'\xef\xbb\xbf"id",label\r\na,x\r\n', b"id,label\ra,x\r", b"id,label\na,x"],
    ids=["bom", "bom, quotes, crlf", "cr", "no line break at the end"],
)
def test_byte_order_marks_and_line_ends_do_not_matter(tmp_path, content):
    assert read_table(_write(tmp_path, content), "k").to_dict("list") == {"id": ["a"], "label": ["x"]}


def test_cells_that_are_empty_or_lack_are_empty_text(tmp_path):
    table = read_table(_write(tmp_path, "id,label,more\na,,1\nb\n"), "k")
    assert table.to_dict("list") == {"id": ["a", "b"], "label": ["", ""], "more": ["1", ""]}


def test_a_table_of_column_names_only_has_no_rows(tmp_path):
    table = read_table(_write(tmp_path, "id,label\n"), "k")
    assert (list(table.columns), len(table)) == (["id", "label"], 0)


_CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff"), min_size=1)


@given(rows=st.lists(st.tuples(_CELL, _CELL), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None, database=None)
def test_any_text_survives_a_csv_file(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("table") / "train.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("id", "label"), *rows])
    table = read_table(path, "k")
    assert list(table.itertuples(index=False, name=None)) == rows


def test_a_missing_table_is_named_beside_those_that_are_there(tmp_path):
    for name in ("labels.csv", "a.csv", "notes.txt"):
        (tmp_path / name).touch()
    message = refusal_of(read_table, tmp_path / "train.csv", "competition.train")
    assert message == (
        f"competition.train: {tmp_path / 'train.csv'} does not exist; tables in that folder: a.csv, labels.csv"
    )


def test_a_missing_table_in_a_folder_without_tables(tmp_path):
    message = refusal_of(read_table, tmp_path / "train.csv", "k")
    assert message.endswith("train.csv does not exist; that folder holds no table")


def test_a_missing_table_in_a_missing_folder(tmp_path):
    message = refusal_of(read_table, tmp_path / "no" / "train.csv", "k")
    assert message.endswith(f"does not exist, nor does the folder {tmp_path / 'no'}")


def test_a_folder_is_no_table(tmp_path):
    assert f"k: {tmp_path} is a folder; give a CSV file" in refusal_of(read_table, tmp_path, "k")


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_no_table(tmp_path, content):
    path = _write(tmp_path, content)
    assert refusal_of(read_table, path, "k") == (
        f"k: {path} is empty; a table needs at least a line of column names"
    )


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        ("id,label\na,é\n".encode("latin-1"), "0xe9"),
        ('id,label\n"a,x\nb,y\n', "EOF inside string"),
        ("id,label\na,x\nb,cat,dog\n", "line 3"),
        ("id,label\na,cat,dog\nb,x\n", "line 2"),
    ],
    ids=["latin-1", "unclosed quote", "too many cells", "too many cells in the first row"],
)
def test_what_is_no_table_is_refused_with_the_place(tmp_path, content, detail):
    path = _write(tmp_path, content)
    message = refusal_of(read_table, path, "competition.train")
    assert message.startswith(f"competition.train: {path} ")
    assert detail in message


LINES = [
    ("3,0,10,20,30,99\n4,0,10,20,30,99\n", 2),  # as many in each line: pandas takes the first for an index
    ("3,0,10,20,30\n\n4,0,10,20,30,99\n", 4),
    ("3,0,10,20,30\n4,0,10,20,30,,\n", 3),
    ('"3",0,10,20,30\n"4\n",0,10,20,30\n"a,b",0,10,20,30,99\n', 5),
    ('3,0,10,20,"30",99\n', 2),
]


@pytest.mark.parametrize(("lines", "number"), LINES)
@pytest.mark.parametrize("left_out", ["pixel0", "pixel1 pixel2 pixel3", "label", "beyond"])
def test_too_many_cells_are_refused_where_columns_are_left_out(tmp_path, lines, number, left_out):
    path = _write(tmp_path, "label,pixel0,pixel1,pixel2,pixel3\n" + lines)
    assert refusal_of(read_table, path, "k", left_out.split()) == (
        f"k: {path} has more cells in line {number} than there are column names"
    )


@pytest.mark.parametrize("header", ["a,b,c", "\n\na,b,c", '"a",b,"c"', "\ufeffa,b,c"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_where_columns_are_left_out_the_others_are_as_they_stand(tmp_path, header, end):
    lines = [*header.split("\n"), "1,2,3", '"x,y",5,6', "", "7", '8,"9",10', ",,"]
    path = _write(tmp_path, end.join(lines) + end)
    assert read_table(path, "k", without=["b"]).to_dict("list") == {
        "a": ["1", "x,y", "7", "8", ""],
        "c": ["3", "6", "", "10", ""],
    }


def test_a_cell_longer_than_a_csv_reader_takes_is_refused_in_one_line(tmp_path):
    path = _write(tmp_path, f'a,b\n"{"x" * 200_000}",2\n')
    assert refusal_of(read_table, path, "k", ["b"]).startswith(f"k: {path} is not a CSV table in UTF-8: ")


def test_a_missing_column_is_named_beside_those_that_are_there(tmp_path):
    table = pd.DataFrame({"image": ["a"], "class": ["x"]})
    need_columns(table, {"competition.id": "image"}, tmp_path)
    message = refusal_of(need_columns, table, {"competition.id": "image", "competition.label": "label"}, tmp_path)
    assert message == f"competition.label: {tmp_path} has no column 'label'; it has image, class"


def test_repeated_values_are_named_once_each():
    need_unique(pd.Series(["007", "7", "7.0", "A", "a"]), "ids")
    assert refusal_of(need_unique, pd.Series(["a", "b", "a", "c", "b", "a"]), "train.csv") == (
        "train.csv: 2 ids stand there twice (a, b); ids must be unique"
    )


def test_of_many_repeated_values_five_are_named():
    message = refusal_of(need_unique, pd.Series([f"i{row}" for row in range(8)] * 2), "t")
    assert "8 ids" in message
    assert "(i0, i1, i2, i3, i4 and 3 more)" in message


def test_empty_values_are_named_by_their_line():
    message = refusal_of(need_unique, pd.Series(["a", "", "b", ""]), "train.csv")
    assert message == "train.csv: no id in 2 rows (row 2, 4); every row needs one"


def test_a_line_break_in_an_id_does_not_break_the_message():
    message = refusal_of(need_unique, pd.Series(["a\nb", "a\nb"]), "train.csv")
    assert "train.csv: 1 ids stand there twice" in message
