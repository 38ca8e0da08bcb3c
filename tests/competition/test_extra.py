"""Extra tables: what their rows say, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.colours import write_competition

from kit.competition.config import CompetitionConfig
from kit.competition.load import Competition, load_competition
from kit.core.errors import KitError

CLASSES = ["blue", "green", "red"]


@pytest.fixture
def folder(tmp_path) -> Path:
    """The colours, and beside them more images, two of which are called like train rows."""
    write_competition(tmp_path / "colours", rows=9, test_rows=3, side=4)
    (tmp_path / "more").mkdir()
    for number, name in enumerate(["train001", "b", "a", "train000"]):
        Image.new("RGB", (4, 4), (number * 10, 0, 0)).save(tmp_path / f"more/{name}.png")
    return tmp_path


def opened(folder: Path, table: dict | None, extra: dict | None = None, **competition) -> Competition:
    """The competition with `table` as more.csv."""
    if table is not None:
        pd.DataFrame(table).to_csv(folder / "more/more.csv", index=False)
    stated = {"table": "more.csv", "path": str(folder / "more"), "images": "{id}.png"} | (extra or {})
    images = {"train_images": "train/{id}.png", "test_images": "test/{id}.png"}
    content = {"path": str(folder / "colours"), "extra": stated} | images | competition
    return load_competition(CompetitionConfig(**content))


TABLE = {"id": ["train001", "b", "a"], "label": ["red", "green", "blue"]}


def test_rows_are_ordered_by_id_and_kept_apart_from_training_rows(folder):
    loaded = opened(folder, TABLE)
    extra = loaded.extra
    assert extra.ids == ["more.csv: a", "more.csv: b", "more.csv: train001"]
    assert [source.name for source in extra.sources] == ["a.png", "b.png", "train001.png"]
    assert extra.targets(3).tolist() == [0, 1, 2]
    assert (extra.weights.tolist(), extra.fold.tolist(), extra.image.tolist()) == ([1] * 3, [-1] * 3, [0, 1, 2])
    assert len(loaded.ids) == 9
    assert not loaded.weighs
    turned = opened(folder, {name: cells[::-1] for name, cells in TABLE.items()})
    assert (turned.extra.ids, turned.extra.targets(3).tolist()) == (extra.ids, [0, 1, 2])


def test_without_extra_rows_there_is_nothing(folder):
    images = {"train_images": "train/{id}.png", "test_images": "test/{id}.png"}
    loaded = load_competition(CompetitionConfig(path=str(folder / "colours"), **images))
    assert (loaded.extra, loaded.weights, loaded.weighs) == (None, None, False)


@pytest.mark.parametrize(
    ("weight", "expected"), [(0.25, [0.25] * 3), ("w", [0.5, 0, 2]), ("1", [3, 3, 3])], ids=["number", "w", "1"]
)
def test_weights(folder, weight, expected):
    loaded = opened(folder, TABLE | {"w": [2, 0, 0.5], "1": [3, 3, 3]}, {"weight": weight})
    assert loaded.extra.weights.tolist() == expected
    assert loaded.weighs
    assert loaded.extra.in_fold(0).tolist() == [each > 0 for each in expected]


def test_shares_and_folds(folder):
    shares = np.array([[0.2, 0.3, 0.5], [1, 0, 0], [0.1, 0.2, 0.7002]])
    table = {"name": ["a", "b", "a"], "f": [1, 0, 0]} | dict(zip(CLASSES, shares.T, strict=True))
    extra = opened(folder, table, {"id": "name", "images": "{name}.png", "fold": "f", "shares": True}).extra
    assert (len(extra), len(extra.ids), extra.image.tolist(), extra.fold.tolist()) == (3, 2, [0, 0, 1], [0, 1, 0])
    assert extra.targets(3).dtype == np.float32
    np.testing.assert_allclose(extra.targets(3), [shares[2] / shares[2].sum(), shares[0], shares[1]], rtol=1e-6)
    assert extra.in_fold(0).tolist() == [True, False, True]


def test_hard_labels_become_shares_beside_shares(folder):
    hard = pd.DataFrame(TABLE)
    hard.to_csv(folder / "more/hard.csv", index=False)
    soft = pd.DataFrame({"id": ["test001"], "blue": [0.5], "green": [0.25], "red": [0.25]})
    soft.to_csv(folder / "more/soft.csv", index=False)
    where = {"path": str(folder / "more")}
    tables = [
        {"table": "hard.csv", "images": "{id}.png"} | where,
        {"table": "soft.csv", "images": "test", "shares": True} | where,
    ]
    loaded = load_competition(
        CompetitionConfig(
            path=str(folder / "colours"),
            train_images="train/{id}.png",
            test_images="test/{id}.png",
            extra=tables,
        )
    )
    assert loaded.extra.targets(3).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.25, 0.25]]
    assert loaded.extra.sources[3] == loaded.test_images[1]
    assert loaded.extra.ids[3] == "soft.csv: test001"


@pytest.mark.parametrize("side", ["train", "test"])
def test_images_of_the_competition_and_what_its_tables_say_of_them(folder, side):
    path = folder / f"colours/{side}.csv"
    pd.read_csv(path).assign(patient=range(9 if side == "train" else 3)).to_csv(path, index=False)
    ids = [f"{side}002", f"{side}000"]
    loaded = opened(folder, {"id": ids, "label": ["red", "blue"]}, {"images": side})
    own = dict(zip(loaded.ids, loaded.train_images, strict=True)) if side == "train" else {}
    own |= dict(zip(loaded.test_ids, loaded.test_images, strict=True))
    assert loaded.extra.sources == [own[f"{side}000"], own[f"{side}002"]]
    assert loaded.extra.tables[0].cells["patient"].tolist() == ["0", "2"]


def test_several_labels_in_a_cell_and_in_columns(folder):
    train = pd.read_csv(folder / "colours/train.csv")
    train["label"] = ["red blue", "green", ""] * 3
    train.to_csv(folder / "colours/train.csv", index=False)
    pd.read_csv(folder / "colours/sample_submission.csv").assign(label="red").to_csv(
        folder / "colours/sample_submission.csv", index=False
    )
    cells = TABLE | {"label": ["blue red", "", "green"]}
    loaded = opened(folder, cells, separator=" ")
    assert loaded.extra.targets(3).tolist() == [[False, True, False], [False] * 3, [True, False, True]]
    columns = {"id": ["b", "a"], "red": [1, 0], "blue": [1, 1]}
    loaded = opened(folder, columns, {"label": ["red", "blue"]}, separator=" ")
    assert loaded.extra.targets(3).tolist() == [[True, False, False], [True, False, True]]
    shares = {"id": ["a"], "red": [0.75], "blue": [0.5], "green": [1]}  # each by itself
    loaded = opened(folder, shares, {"shares": True}, separator=" ")
    assert loaded.extra.targets(3).tolist() == [[0.5, 1, 0.75]]


def test_one_label_in_columns(folder):
    columns = {"id": ["b", "a"], "red": [1, 0], "blue": [0, 1]}
    assert opened(folder, columns, {"label": ["red", "blue"]}).extra.targets(3).tolist() == [0, 2]


def test_other_formats_and_a_reader_of_the_users_own(folder):
    pd.DataFrame(TABLE).to_parquet(folder / "more/more.parquet")
    assert opened(folder, None, {"table": "more.parquet"}).extra.targets(3).tolist() == [0, 1, 2]
    for name in ("train", "test", "sample_submission"):
        pd.read_csv(folder / f"colours/{name}.csv").to_pickle(folder / f"colours/{name}.pkl")
    pd.DataFrame(TABLE).to_pickle(folder / "more/more.pkl")
    tables = {"train": "train.pkl", "test": "test.pkl", "sample_submission": "sample_submission.pkl"}
    read = opened(folder, None, {"table": "more.pkl"}, tables="pandas:read_pickle", **tables)
    assert read.extra.targets(3).tolist() == [0, 1, 2]


def test_weights_of_training_rows(folder):
    path = folder / "colours/train.csv"
    pd.read_csv(path).assign(w=[0, 1, 2.5] * 3).to_csv(path, index=False)
    assert opened(folder, TABLE, weight="w").weights.tolist() == [0, 1, 2.5] * 3
    with pytest.raises(KitError, match=r"competition.weight: .* has no column 'v'"):
        opened(folder, TABLE, weight="v")
    for cells, message in ((["1"] * 8 + ["-1"], "'-1' in row 9"), ([0] * 9, "nothing but 0")):
        pd.read_csv(path).assign(w=cells).to_csv(path, index=False)
        with pytest.raises(KitError, match=re.escape(message)):
            opened(folder, TABLE, weight="w")


SHARES = {"id": ["a"], "blue": [0.5], "green": [0.5], "red": [0]}


@pytest.mark.parametrize(
    ("change", "extra", "message"),
    [
        ({"label": ["red", "pink", "blue"]}, {}, "'pink' is no class; the classes are blue, green, red"),
        ({"label": ["red", "pink", "blue"]}, {}, "leave such rows out"),
        ({"label": ["red", "", "blue"]}, {}, "'' is no class"),
        ({"id": ["a", "b", "c"]}, {}, "1 of 3 images do not exist"),
        ({"id": ["a", "b", "a"]}, {}, "1 ids stand there twice (a); once each, or once a fold"),
        ({"id": ["a", "", "b"]}, {}, "no id in 1 rows (row 2)"),
        ({"f": [0, 1, 1.5]}, {"fold": "f"}, "has to hold the number of a fold; it has '1.5' in row 3"),
        ({"f": [0, 1, -2]}, {"fold": "f"}, "it has '-2' in row 3"),
        ({"id": ["a", "b", "a"], "f": [0, 0, 0]}, {"fold": "f"}, "twice for one fold (a)"),
        ({"id": ["a", "b", "a"], "f": [0, 0, -1]}, {"fold": "f"}, "a stand there for all folds (-1)"),
        ({"w": [1, -1, 1]}, {"weight": "w"}, "has to hold a weight, 0 or more; it has '-1' in row 2"),
        ({"w": [1, "x", 1]}, {"weight": "w"}, "it has 'x' in row 2"),
        ({"w": [0, 0, 0]}, {"weight": "w"}, "nothing but 0"),
        ({}, {"weight": "w"}, "competition.extra.weight: "),
        ({}, {"fold": "w"}, "competition.extra.fold: "),
        ({}, {"id": "w"}, "competition.extra.id: "),
        ({}, {"label": "w"}, "competition.extra.label: "),
        ({}, {"label": ["red", "pink"]}, "'pink' is no class"),
        ({}, {"table": "none.csv"}, "none.csv does not exist"),
        ({}, {"path": "nowhere"}, "competition.extra.path: nowhere is no folder"),
        ({}, {"images": "test"}, "3 of 3 ids are of no test row"),
        ({}, {"images": "{file}.png"}, "competition.extra.images"),
        ({}, {"shares": True}, "competition.extra.shares: "),
    ],
)
def test_what_is_refused(folder, change, extra, message):
    with pytest.raises(KitError, match=re.escape(message)) as raised:
        opened(folder, TABLE | change, extra)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("competition.extra")


@pytest.mark.parametrize(
    ("change", "extra", "message"),
    [
        ({"red": [0.1]}, {}, "in row 1 they sum to 1.1"),
        ({"red": [-0.1]}, {}, "column 'red' has to hold a share from 0 to 1; it has -0.1 in row 1"),
        ({"red": ["nan"]}, {}, "has to hold a share from 0 to 1; it has 'nan' in row 1"),
        ({"red": ["1_0"]}, {}, "it has '1_0' in row 1"),
        ({}, {"weight": "red"}, "column 'red' is that of a class"),
    ],
)
def test_shares_that_are_none(folder, change, extra, message):
    with pytest.raises(KitError, match=re.escape(message)):
        opened(folder, SHARES | change, {"shares": True} | extra)


def test_rows_of_one_id_have_one_image(folder):
    table = {"id": ["a", "a"], "file": ["a", "b"], "f": [0, 1], "label": ["red", "red"]}
    with pytest.raises(KitError, match="rows of one id have different images"):
        opened(folder, table, {"images": "{file}.png", "fold": "f"})
