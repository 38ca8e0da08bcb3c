"""One table in every format: cells are the same text, and the competition is the same."""

import bz2
import csv
import datetime
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.refusals import refusal_of

from kit.competition.config import CompetitionConfig
from kit.competition.folds import make_folds
from kit.competition.folds_config import FoldsConfig
from kit.competition.load import Competition, load_competition
from kit.competition.tables import LabelLists, column_names, read_submission, read_table

ROWS = [{"id": "007", "label": "NA", "note": 'a;b,"c"'}, {"id": "7", "label": "Grün", "note": "x\ty|z\nnext"}]


def separated(rows: list[dict], delimiter: str, quoting=csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, quoting=quoting, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read(path: Path, content: bytes | str, **options) -> dict:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, "k", **options).to_dict("list")


AS_READ = {name: [row[name] for row in ROWS] for name in ROWS[0]}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_dialects_of_csv(tmp_path, delimiter, quoting, encoding):
    content = separated(ROWS, delimiter, quoting).encode(encoding)
    assert read(tmp_path / "train.csv", content) == AS_READ
    assert column_names(tmp_path / "train.csv", "k") == ["id", "label", "note"]


def test_the_line_with_which_excel_tells_the_delimiter(tmp_path):
    assert read(tmp_path / "a.csv", "sep=;\n" + separated(ROWS, ";")) == AS_READ
    assert read(tmp_path / "b.csv", "sep=,\n" + separated(ROWS, ",")) == AS_READ


@pytest.mark.parametrize("delimiter", ["\t", ","])
def test_the_ending_tells_tabs_and_the_names_of_columns_whether_it_is_right(tmp_path, delimiter):
    assert read(tmp_path / "train.tsv", separated(ROWS, delimiter)) == AS_READ


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("id\na,b\n", None),  # one column, and a line with a cell too many
        ("id\n1\n2\n", ["id"]),
        ("id,a;b\n1,2\n", ["id", "a;b"]),
        ('"a;b"\n1\n', ["a;b"]),
        (";id;label\n0;a;x\n", ["Unnamed: 0", "id", "label"]),
        ("id;\n1;\n", ["id;"]),  # no second name
    ],
)
def test_commas_are_taken_wherever_they_make_columns(tmp_path, content, columns):
    path = tmp_path / "train.csv"
    path.write_text(content)
    if columns:
        assert list(read_table(path, "k").columns) == columns
    else:
        assert "line 2" in refusal_of(read_table, path, "k")


@pytest.mark.parametrize(
    ("ending", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
)
def test_compressed_files(tmp_path, ending, compress):
    assert read(tmp_path / f"train.csv.{ending}", compress(separated(ROWS, ";").encode())) == AS_READ
    assert read(tmp_path / f"train.json.{ending}", compress(json.dumps(ROWS).encode())) == AS_READ
    (tmp_path / f"t.csv.{ending}").write_bytes(b"id,label\na,b\n")
    said = refusal_of(read_table, tmp_path / f"t.csv.{ending}", "k")
    assert said.startswith(f"k: {tmp_path}/t.csv.{ending} is a damaged archive: ")


def test_a_zip_archive_holds_one_table_beside_what_macos_puts_there(tmp_path):
    with zipfile.ZipFile(tmp_path / "train.csv.zip", "w") as archive:
        archive.writestr("train.csv", separated(ROWS, ","))
        archive.writestr("__MACOSX/._train.csv", b"\0\1")
    assert read_table(tmp_path / "train.csv.zip", "k").to_dict("list") == AS_READ
    with zipfile.ZipFile(tmp_path / "train.csv.zip", "a") as archive:
        archive.writestr("test.csv", "id\n")
    assert refusal_of(read_table, tmp_path / "train.csv.zip", "k") == (
        f"k: {tmp_path}/train.csv.zip holds 2 files (train.csv, test.csv); one table is needed: unpack it"
    )


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, ensure_ascii=False, indent=1),
        "\n".join(map(json.dumps, ROWS)),
        json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}),
        pd.DataFrame(ROWS).to_json(),
    ],
    ids=["records", "records, indented", "lines", "columns", "pandas"],
)
def test_shapes_of_json(tmp_path, content):
    assert read(tmp_path / "train.json", content) == AS_READ
    assert read(tmp_path / "t.json", content.encode("utf-8-sig")) == AS_READ


def test_an_object_a_line_may_be_one_alone_and_lack_keys(tmp_path):
    assert read(tmp_path / "a.jsonl", '{"id": 7}\n') == {"id": ["7"]}
    assert read(tmp_path / "b.ndjson", '{"id": 7}\n\n{"id": "007", "x": null, "y": 1}\n') == {
        "id": ["7", "007"],
        "x": ["", ""],
        "y": ["", "1"],
    }
    assert read(tmp_path / "c.jsonl", '{"id": "a\u2028b"}') == {"id": ["a\u2028b"]}


def test_numbers_of_json_are_the_text_that_a_csv_file_has(tmp_path):
    cells = '[7, "007", 3.0, 0.5, true, null, 12345678901234567890, 1e-7, NaN]'
    assert read(tmp_path / "t.json", f'{{"a": {cells}, "b": {cells}}}')["a"] == [
        *("7", "007", "3", "0.5", "True", "", "12345678901234567890", "1e-07", "")
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is no JSON: Expecting value: line 1 column 1 (char 0)"),
        ('[{"id": 1}', "is no JSON: Expecting ',' delimiter"),
        ('{"id": 1}\n{"id"', "is no JSON: Expecting ':' delimiter"),
        ('[{"id": 1, "id": 2}]', "is no JSON: an object has the key 'id' twice"),
        ("[[1, 2]]", "every row has to be an object; there is a list at 1"),
        (
            '{"a.jpg": "cat", "b.jpg": "dog"}',
            "is an object with the keys a.jpg, b.jpg; expected a list of objects, ",
        ),
        ('{"id": [1, 2], "label": [1]}', "is an object with the keys id, label; expected a list of objects, "),
        ("7", "holds a number; expected a list of objects, "),
        (b'[{"id": "\xe9"}]', "is no JSON: 'utf-8' codec can't decode byte 0xe9"),
    ],
)
def test_json_that_is_no_table(tmp_path, content, said):
    path = tmp_path / "train.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refusal_of(read_table, path, "competition.train")
    assert message.startswith(f"competition.train: {path}")
    assert said in message


def test_columns_of_parquet_are_the_text_that_a_csv_file_has(tmp_path):
    frame = pd.DataFrame(
        {
            "id": ["007", None],
            "whole": pd.array([2**60, None], dtype="Int64"),
            "missing": [7.0, None],
            "small": np.array([0.1, 3], dtype=np.float32),
            "yes": [True, False],
            "kind": pd.Categorical(["b", None]),
            "day": pd.to_datetime(["2024-05-31", "2024-06-01"]),
            "date": [datetime.date(2024, 5, 31), None],
            "box": [[1, 2], []],
            "image": [b"\xff", b"\xd8"],
        },
        index=["x", "y"],
    )
    frame.to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", "k", without=["yes"]).to_dict("list") == {
        "id": ["007", ""],
        "whole": [str(2**60), ""],
        "missing": ["7", ""],
        "small": ["0.1", "3"],
        "kind": ["b", ""],
        "day": ["2024-05-31", "2024-06-01"],
        "date": ["2024-05-31", ""],
        "box": ["[1, 2]", "[]"],
    }
    (tmp_path / "t.pq").write_text("id,label\n")
    assert f"k: {tmp_path}/t.pq is no parquet file: " in refusal_of(read_table, tmp_path / "t.pq", "k")


def test_lists_of_labels_become_text_with_the_separator_or_say_what_to_set(tmp_path):
    path = tmp_path / "t.json"
    path.write_text('[{"id": 1, "tags": ["a b", 7]}, {"id": 2, "tags": []}, {"id": 3, "tags": "c"}]')
    told = read_table(path, "k", lists=LabelLists("tags", "|"))
    assert told["tags"].tolist() == ["a b|7", "", "c"]
    assert refusal_of(read_table, path, "k", (), None, LabelLists("tags", None)) == (
        f"k: {path}: column 'tags' holds lists (row 1: a b, 7); if a row may have several labels, set "
        "competition.separator, which then stands between them where labels are handed in as text"
    )
    assert refusal_of(read_table, path, "k", (), None, LabelLists("tags", " ")) == (
        f"k: {path}: column 'tags', row 1: 'a b' holds ' ', which is to stand between labels; set "
        "competition.separator to what is part of none"
    )
    frame = pd.DataFrame({"id": ["1", "2"], "tags": [["a", "b"], ["c"]]})
    frame.to_parquet(tmp_path / "t.parquet")
    told = read_table(tmp_path / "t.parquet", "k", lists=LabelLists("tags", " "))
    assert told["tags"].tolist() == ["a b", "c"]


def test_a_submission_is_read_as_kaggle_reads_it(tmp_path):
    (tmp_path / "s.csv").write_text("id;label\na;b\n")
    assert list(read_submission(tmp_path / "s.csv", "submission").columns) == ["id;label"]


def test_a_spreadsheet_names_the_reader_to_set(tmp_path):
    (tmp_path / "train.xlsx").write_bytes(b"PK\x03\x04\xff\xfe\x00\x81")
    assert refusal_of(read_table, tmp_path / "train.xlsx", "k") == (
        f"k: {tmp_path}/train.xlsx is a spreadsheet; set competition.tables=pandas:read_excel"
    )


def coco(image: str, category: str) -> dict:
    return {
        "info": {"year": 2022},
        "images": [
            {image: 5, "file_name": "b/5.jpg", "license": 1},
            {image: 3, "file_name": "a/3.jpg", "license": 2},
            {image: 9, "file_name": "c/9.jpg", "license": 2},
        ],
        "annotations": [
            {"id": 10, "image_id": 3, "category_id": 1, "license": 7, "bbox": [0, 0, 2, 2]},
            {"id": 11, "image_id": 5, "category_id": 0, "license": 8, "bbox": [0, 0, 1, 1]},
            {"id": 12, "image_id": 3, "category_id": 0, "license": 9, "bbox": []},
        ],
        "categories": [{category: 0, "name": "Acer"}, {category: 1, "name": "Betula", "supercategory": "tree"}],
    }


@pytest.mark.parametrize(("image", "category"), [("id", "id"), ("image_id", "category_id")])
def test_cocos_lists_are_a_row_an_annotation(tmp_path, image, category):
    assert read(tmp_path / "train.json", json.dumps(coco(image, category))) == {
        "image_id": ["5", "3", "3", "9"],
        "file_name": ["b/5.jpg", "a/3.jpg", "a/3.jpg", "c/9.jpg"],
        "license": ["1", "2", "2", "2"],
        "category_id": ["0", "1", "0", ""],
        "annotation_license": ["8", "7", "9", ""],
        "bbox": ["[0, 0, 1, 1]", "[0, 0, 2, 2]", "[]", ""],
        "category_name": ["Acer", "Betula", "Acer", ""],
        "category_supercategory": ["", "tree", "", ""],
    }


def test_cocos_images_alone_are_a_test_set(tmp_path):
    content = coco("id", "id") | {"annotations": []}
    assert read(tmp_path / "test.json", json.dumps(content)) == {
        "image_id": ["5", "3", "9"],
        "file_name": ["b/5.jpg", "a/3.jpg", "c/9.jpg"],
        "license": ["1", "2", "2"],
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": [{"id": 3}, {"id": "3"}]}, "images: 1 ids stand there twice (3); ids must be unique"),
        ({"images": [{"id": 3}]}, "annotations name 1 images that are not there (5)"),
        ({"images": [{"name": 3}]}, "images have no id; they have name"),
        ({"categories": [{"id": 1}]}, "annotations name 1 categories that are not there (0)"),
        ({"annotations": [{"category_id": 1}]}, "annotations have no image_id; they have category_id"),
        ({"annotations": {"a": 1}}, "annotations is an object; a list of objects is needed"),
    ],
)
def test_lists_of_coco_that_do_not_belong_together(tmp_path, change, said):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(coco("id", "id") | change))
    assert refusal_of(read_table, path, "k") == f"k: {path}: {said}"


# One competition in every format.

CELL = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\ufeff"), max_size=6)
LABEL = CELL.map(str.strip).filter(lambda text: text not in ("", "id") and text[0] not in "[{(")  # lists


def as_number(label: str) -> str:
    """What labels are told apart by: 7 and 07 may be one."""
    try:
        return repr(float(label))
    except ValueError:
        return label.casefold()


@st.composite
def competitions(draw) -> list[dict[str, str]]:
    """Rows with ids, labels of two or three classes, two sites, and a note that may be anything."""
    count = draw(st.integers(6, 9))
    ids = draw(st.lists(CELL.filter(bool), min_size=count, max_size=count, unique=True))
    classes = draw(st.lists(LABEL, min_size=2, max_size=3, unique_by=as_number))
    notes = st.one_of(CELL, st.sampled_from(["007", "7", "1.0", "a\nb", 'say "x"', ";\t|,", " x "]))
    return [
        {
            "id": name,
            "label": classes[row % len(classes)],
            "site": ["north", "south", draw(CELL.filter(str.strip))][row % 3],
            "note": draw(notes),
            "file": "1.png",
        }
        for row, name in enumerate(ids)
    ]


def written(folder: Path, rows: list[dict[str, str]], form: str) -> dict:
    """The table in one of the forms, and the keys that say so."""
    path, frame = folder / f"train.{form}", pd.DataFrame(rows, dtype=str)
    match form:
        case "csv" | "tsv" | "semicolons.csv" | "bars.csv" | "utf16.csv" | "csv.gz":
            delimiter = {"tsv": "\t", "semicolons.csv": ";", "bars.csv": "|"}.get(form, ",")
            content = separated(rows, delimiter, csv.QUOTE_ALL).encode(
                "utf-16" if form == "utf16.csv" else "utf-8"
            )
            path.write_bytes(gzip.compress(content) if form.endswith("gz") else content)
        case "parquet":
            frame.to_parquet(path)
        case "json":
            path.write_text(json.dumps(rows))
        case "columns.json":
            path.write_text(frame.to_json(), encoding="utf-8")
        case "jsonl":
            path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
        case "several":
            written(folder, rows[:2], "csv"), written(folder, rows[2:4], "tsv")
            pd.DataFrame(rows[4:])[["note", "id", "file", "site", "label"]].to_json(folder / "train.json")
            return {"train": ["train.csv", "train.tsv", "train.json"]}
        case "joined":
            frame[["id", "label", "file"]].to_parquet(folder / "train.parquet")
            written(folder, [{name: row[name] for name in ("id", "site", "note")} for row in rows[::-1]], "jsonl")
            return {"train": "train.parquet", "join": {"table": "train.jsonl", "on": "id"}}
        case "coco":
            images = [{"id": row["id"], "note": row["note"], "site": row["site"], "file": "1.png"} for row in rows]
            labels = list(dict.fromkeys(row["label"] for row in rows))
            annotations = [{"image_id": row["id"], "category_id": labels.index(row["label"])} for row in rows]
            categories = [{"id": at, "name": name} for at, name in enumerate(labels)]
            content = {"images": images, "annotations": annotations[::-1], "categories": categories}
            (folder / "train.json").write_text(json.dumps(content))
            return {"train": "train.json", "id": "image_id", "label": "category_name"}
    return {"train": path.name}


FORMS = [
    *("csv", "tsv", "semicolons.csv", "bars.csv", "utf16.csv", "csv.gz", "parquet", "json", "columns.json"),
    *("jsonl", "several", "joined", "coco"),
]


def opened(folder: Path, **keys) -> Competition:
    (folder / "1.png").touch()
    (folder / "sample.csv").write_text("id,label\nx,\n")
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images/x.png").touch()
    stated = {"path": str(folder), "test": None, "sample_submission": "sample.csv", "train_images": "{file}"}
    return load_competition(CompetitionConfig(**stated | {"test_images": "images/x{id:.0}.png"} | keys))


@pytest.mark.parametrize("form", FORMS)
@given(rows=competitions())
@settings(max_examples=15, deadline=None, database=None)
def test_a_table_in_any_format_is_the_same_competition(tmp_path_factory, form, rows):
    folder = tmp_path_factory.mktemp("any")
    keys = written(folder, rows, form)
    if "id" in keys:
        (folder / "sample.csv").write_text("image_id,category_name\nx,\n")
        keys["test_images"] = "images/x{image_id:.0}.png"
    found = opened(folder, **keys)
    assert found.ids == [row["id"] for row in rows]
    assert [found.classes[at] for at in found.targets] == [row["label"] for row in rows]
    assert found.train["note"].tolist() == [row["note"] for row in rows]
    plan = make_folds(found.ids, found.targets, FoldsConfig(k=2, group="site"), found.train)
    sites = pd.DataFrame(rows, dtype=str)
    expected = make_folds([row["id"] for row in rows], found.targets, FoldsConfig(k=2, group="site"), sites)
    assert plan.digest == expected.digest


@given(
    rows=st.lists(
        st.sets(LABEL | st.sampled_from(["a", "a b", "a, b", "a|b; c"]), max_size=3).map(sorted),
        min_size=3,
        max_size=6,
    ),
    form=st.sampled_from(["csv", "tsv", "parquet", "json"]),
    generator=st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None, database=None)
def test_the_long_form_of_any_labels_is_the_same_competition(tmp_path_factory, rows, form, generator):
    classes = sorted({name for labels in rows for name in labels})
    if len(classes) < 2:
        return
    folder = tmp_path_factory.mktemp("long")
    ids = [f"i{row}" for row in range(len(rows))]
    long = [
        {"id": name, "label": label, "file": "1.png", "who": str(generator.random())}
        for name, labels in zip(ids, rows, strict=True)
        for label in ([*labels, *labels[:1]] or [""])  # one of them twice; none is an empty cell
    ]
    generator.shuffle(long)
    handed_in = {"sample_submission": None, "submission": {"id": "id", "label": classes}}
    keys = written(folder, long, form) | handed_in | {"test_images": "images/{id}.png"}
    found = opened(folder, **keys, long_form=True, classes=classes)
    assert found.ids == list(dict.fromkeys(row["id"] for row in long))
    told = dict(zip(ids, rows, strict=True))
    for name, target in zip(found.ids, found.targets, strict=True):
        assert [found.classes[at] for at in np.flatnonzero(target)] == told[name]
