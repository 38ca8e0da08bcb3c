"""Several files of one kind, joined tables, and the long form."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.colours import experiment_content, write_competition
from support.refusals import refusal_of

from kit.competition.config import BETWEEN, CompetitionConfig
from kit.competition.folds import group_texts, make_folds
from kit.competition.folds_config import FoldsConfig
from kit.competition.load import load_competition, load_labels, load_test
from kit.core.yaml import dump_yaml, parse_yaml
from kit.experiment.config import validate

IMAGES = {"train_images": "train/{id}.png", "test_images": "test/{id}.png"}


@pytest.fixture
def folder(tmp_path):
    return write_competition(tmp_path / "colours", rows=12, test_rows=3, side=2)


def config_of(folder: Path, **keys) -> CompetitionConfig:
    return CompetitionConfig(path=str(folder), **IMAGES | keys)


def refusal(folder: Path, **keys) -> str:
    return refusal_of(load_competition, config_of(folder, **keys)).replace(f"{folder}/", "")


def train_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "train.csv", dtype=str, keep_default_na=False)


class TestSeveralFiles:
    def test_their_rows_follow_one_another_whatever_the_order_of_their_columns(self, folder):
        whole, train = load_competition(config_of(folder)), train_of(folder)
        train[:5].to_csv(folder / "a.csv", index=False)
        train[5:][["label", "id"]].to_json(folder / "b.json", orient="records")
        train[:2].to_csv(folder / "2024.csv", index=False)
        found = load_competition(config_of(folder, train=["a.csv", "b.json"]))
        assert (found.ids, found.classes) == (whole.ids, whole.classes)
        assert found.targets.tolist() == whole.targets.tolist()
        pd.testing.assert_frame_equal(found.train, whole.train)
        assert load_labels(config_of(folder, train=["a.csv", "b.json"]))[1] == whole.ids
        assert load_labels(config_of(folder, train=["a.csv", "c.csv"])) is None

    def test_the_test_table_may_be_several_too(self, folder):
        test = pd.read_csv(folder / "test.csv")
        test[:1].to_csv(folder / "x.csv", index=False)
        test[1:].to_csv(folder / "y.tsv", index=False, sep="\t")
        assert load_test(config_of(folder, test=["y.tsv", "x.csv"])).ids == load_test(config_of(folder)).ids

    def test_other_columns_and_repeated_rows_are_refused(self, folder):
        train_of(folder).rename(columns={"label": "class"}).to_csv(folder / "b.csv", index=False)
        assert refusal(folder, train=["train.csv", "b.csv"]) == (
            "competition.train: b.csv and train.csv have other columns (class only in b.csv; label only in "
            "train.csv); rows one after the other need the same ones"
        )
        assert refusal(folder, train=["train.csv", "train.csv"]).startswith(
            "competition.train: train.csv, train.csv: 12 ids stand there twice (train000, "
        )
        assert refusal(folder, train=["train.csv", "no.csv"]).startswith("competition.train[1]: no.csv does not")

    def test_pixels_are_those_of_each_file(self, tmp_path):
        for name, labels in (("a", "010"), ("b", "101")):
            rows = [f"{label},{place},1,2,3" for place, label in enumerate(labels)]
            (tmp_path / f"{name}.csv").write_text("\n".join(["label,p0,p1,p2,p3", *rows]))
        (tmp_path / "test.csv").write_text("p0,p1,p2,p3\n1,2,3,4\n")
        (tmp_path / "sample_submission.csv").write_text("id,label\n1,0\n")
        pixels = {"train_images": {"columns": "p*"}, "test_images": {"columns": "p*"}}
        found = load_competition(config_of(tmp_path, train=["a.csv", "b.csv"], id=None, **pixels))
        assert found.ids == ["1", "2", "3", "4", "5", "6"]
        places = [(image.table.path.name, image.row) for image in found.train_images]
        assert places == [(name, row) for name in ("a.csv", "b.csv") for row in range(3)]

    @pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
    def test_pixels_need_commas(self, tmp_path, name):
        (tmp_path / name).write_text("label\tp0\n1\t2\n")
        pixels = {"train_images": {"columns": "p*"}, "test_images": {"columns": "p*"}}
        assert refusal(tmp_path, train=name, id=None, **pixels) == (
            "competition.train_images: pixels can be read from CSV files with commas in UTF-8 only; "
            f"{name} is none"
        )

    def test_a_reader_of_the_users_own_reads_each(self, folder, tmp_path):
        (tmp_path / "mine.py").write_text(
            "import pandas as pd\ndef read(path): return pd.read_csv(path, comment='#', dtype=str)\n"
        )
        (folder / "a.csv").write_text("#\nid,label\ntrain000,blue\ntrain003,blue\n")
        (folder / "b.csv").write_text("#\nid,label\ntrain001,green\n")
        content = {"path": str(folder), "train": ["a.csv", "b.csv"], "tables": "mine.py:read", **IMAGES}
        config = CompetitionConfig.model_validate(content, context={"folder": tmp_path})
        assert load_competition(config).ids == ["train000", "train003", "train001"]


class TestJoin:
    @pytest.fixture
    def patients(self, folder):
        """Each colour is a patient; patients have a hospital and are in another order."""
        train = train_of(folder)
        train.assign(patient=train["label"].str[0]).to_csv(folder / "train.csv", index=False)
        (folder / "patients.csv").write_text("patient,hospital\nr,2\nb,1\ng,2\n")
        return folder

    def test_columns_are_those_of_the_key(self, patients):
        found = load_competition(config_of(patients, join={"table": "patients.csv", "on": "patient"}))
        assert list(found.train.columns) == ["id", "label", "patient", "hospital"]
        assert found.train["hospital"].tolist() == [
            {"blue": "1", "green": "2", "red": "2"}[name] for name in found.train["label"]
        ]
        assert found.ids == train_of(patients)["id"].tolist()
        groups = group_texts(FoldsConfig(k=2, group="hospital"), found.train)
        plan = make_folds(found.ids, found.targets, FoldsConfig(k=2, group="hospital"), found.train)
        assert len({(group, fold) for group, fold in zip(groups, plan.fold, strict=True)}) == 2

    def test_a_second_table_may_be_found_by_a_column_of_the_first(self, patients):
        (patients / "hospitals.jsonl").write_text(
            '{"hospital": 1, "city": "Ulm"}\n{"hospital": 2, "city": "Bonn"}\n'
        )
        joins = [{"table": "patients.csv", "on": "patient"}, {"table": "hospitals.jsonl", "on": "hospital"}]
        assert load_competition(config_of(patients, join=joins)).train["city"].tolist()[:3] == [
            *("Ulm", "Bonn", "Bonn")
        ]

    def test_labels_and_image_paths_may_come_from_it(self, folder):
        train = train_of(folder)
        train[["id"]].to_csv(folder / "train.csv", index=False)
        train.assign(place="train").to_csv(folder / "more.csv", index=False)
        pd.DataFrame({"id": train_of(folder)["id"]}).to_csv(folder / "ids.csv", index=False)
        found = load_competition(
            config_of(folder, join={"table": "more.csv", "on": "id"}, train_images="{place}/{id}.png")
        )
        assert found.train["label"].tolist() == train["label"].tolist()

    def test_test_rows_are_joined_where_they_have_the_column(self, folder):
        (folder / "where.csv").write_text(
            "id,place\n"
            + "".join(f"{name},test\n" for name in ("test002", "test000", "test001"))
            + "".join(f"{name},train\n" for name in train_of(folder)["id"])
        )
        keys = {"join": {"table": "where.csv", "on": "id"}, "test_images": "{place}/{id}.png"}
        found = load_test(config_of(folder, **keys))
        assert [path.parent.name for path in found.images] == ["test"] * 3
        assert load_test(config_of(folder, test=None, **keys)).images == found.images
        (folder / "where.csv").write_text("id,age\n" + "".join(f"{name},1\n" for name in train_of(folder)["id"]))
        test = load_test(config_of(folder, join={"table": "where.csv", "on": "id"}))
        assert test.table["age"].tolist() == ["", "", ""]

    def test_a_column_that_both_have_has_to_say_the_same(self, patients):
        both = "patient,label\nr,red\nb,blue\ng,green\n"
        (patients / "patients.csv").write_text(both)
        found = load_competition(config_of(patients, join={"table": "patients.csv", "on": "patient"}))
        assert list(found.train.columns) == ["id", "label", "patient"]
        (patients / "patients.csv").write_text(both.replace("green", "red"))
        assert refusal(patients, join={"table": "patients.csv", "on": "patient"}) == (
            "competition.join: patients.csv and the train table both have a column 'label', and they differ; take "
            "it out of one of them"
        )

    def test_keys_of_another_unicode_form_are_found(self, patients):
        train = train_of(patients)
        train.assign(patient=train["patient"].replace("g", "Jose\u0301")).to_csv(
            patients / "train.csv", index=False
        )
        (patients / "patients.csv").write_text("patient,hospital\nr,2\nb,1\nJos\u00e9,3\n")
        found = load_competition(config_of(patients, join={"table": "patients.csv", "on": "patient"}))
        assert found.train["hospital"].tolist()[:3] == ["1", "3", "2"]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (
                "patient,hospital\nb,1\ng,2\n",
                "competition.join: patients.csv has no row for 4 of 12 rows of the train table (patient 'r'); "
                "patients.csv has 'b', 'g'",
            ),
            (
                "patient,hospital\nb,1\ng,2\nr,1\nb,2\n",
                "competition.join.table: patients.csv, column 'patient': 1 ids stand there twice (b); ids must be "
                "unique",
            ),
            ("name,x\nb,1\n", "competition.join.on: patients.csv has no column 'patient'; it has name, x"),
        ],
    )
    def test_what_cannot_be_joined(self, patients, content, said):
        (patients / "patients.csv").write_text(content)
        assert refusal(patients, join={"table": "patients.csv", "on": "patient"}) == said

    def test_a_key_that_the_train_table_has_not(self, patients):
        (patients / "patients.csv").write_text("clinic,x\n1,2\n")
        assert refusal(patients, join={"table": "patients.csv", "on": "clinic"}) == (
            "competition.join.on: the train table has no column 'clinic'; it has id, label, patient"
        )

    def test_a_folder_a_class_may_be_joined_by_its_class(self, folder):
        for name, label in train_of(folder).itertuples(index=False, name=None):
            (folder / "by" / label).mkdir(parents=True, exist_ok=True)
            (folder / "by" / label / f"{name}.png").touch()
        (folder / "kinds.csv").write_text("label,warm\nred,1\nblue,0\ngreen,0\n")
        keys = {
            "train": None,
            "train_images": "by/{label}/{id}.png",
            "join": {"table": "kinds.csv", "on": "label"},
        }
        found = load_competition(config_of(folder, **keys))
        assert found.train["warm"].tolist() == [str(int(name == "red")) for name in found.train["label"]]

    @pytest.mark.parametrize("join", ["{table: patients.csv, on: patient}", "[{table: a, on: b}]"])
    def test_it_is_written_plainly_in_yaml_and_read_again(self, join):
        content = parse_yaml(f"path: x\njoin: {join}\n", "c.yaml")
        config = CompetitionConfig.model_validate(content)
        assert config.join[0].on in ("patient", "b")
        assert CompetitionConfig.model_validate(parse_yaml(dump_yaml(config.record()), "")) == config

    @pytest.mark.parametrize(
        ("join", "said"),
        [
            ({"table": "a.csv"}, "c.yaml: competition.join.on: missing; this key has no default"),
            ([{"table": "a.csv"}], "c.yaml: competition.join[0].on: missing; this key has no default"),
            (
                {"table": "a.csv", "on": "x", "how": "left"},
                "c.yaml: competition.join.how: unknown key; known are ",
            ),
            ("a.csv", "c.yaml: competition.join = 'a.csv': expected a list"),
        ],
    )
    def test_a_fault_is_told_with_its_key(self, folder, join, said):
        content = experiment_content(folder, competition={"join": join})
        assert refusal_of(validate, content, "c.yaml").startswith(said)


class TestLongForm:
    @pytest.fixture
    def long(self, folder):
        """Every third row has two labels; boxes differ between the rows of an id, sites do not."""
        rows = []
        for place, (name, label) in enumerate(train_of(folder).itertuples(index=False, name=None)):
            labels = [label, "dark, deep"] if place % 3 == 0 else [label, label] if place % 3 == 1 else [""]
            rows += [(name, each, f"s{place % 2}", str(box)) for box, each in enumerate(labels)]
        table = pd.DataFrame(rows, columns=["id", "label", "site", "box"])
        table = pd.concat([table[1:], table[:1]])  # the rows of an id need not stand together
        table.to_csv(folder / "train.csv", index=False)
        sample = pd.DataFrame({"id": ["test000", "test001", "test002"], "label": "red"})
        sample.to_csv(folder / "sample_submission.csv", index=False)
        return folder

    def test_rows_of_an_id_are_one_row_with_several_labels(self, long):
        found = load_competition(config_of(long, long_form=True, separator="; "))
        assert found.ids == [f"train{row:03d}" for row in range(12)]
        assert found.classes == ("blue", "dark, deep", "green")
        assert found.label_format.decode(found.targets) == ["blue; dark, deep", "green", ""] * 4
        assert found.train["site"].tolist() == ["s0", "s1"] * 6
        assert found.submission.labels.separator == "; "
        assert found.train["label"][0] == f"dark, deep{BETWEEN}blue"  # as they first appear

    def test_the_submission_is_joined_by_a_space_unless_a_label_has_one(self, long):
        assert refusal(long, long_form=True).startswith(
            "competition.submission: 'dark, deep' cannot stand in a cell with labels separated by ' '"
        )
        table = train_of(long)
        table.assign(label=table["label"].replace("dark, deep", "dark")).to_csv(long / "train.csv", index=False)
        found = load_competition(config_of(long, long_form=True))
        targets = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]], dtype=bool)
        assert found.submission.make(targets, targets)["label"].tolist() == ["blue dark", "", "green"]

    def test_a_sample_with_a_column_a_class_is_filled(self, long):
        sample = pd.DataFrame({"id": ["test000", "test001", "test002"], "dark, deep": 0, "green": 0, "blue": 0})
        sample.to_csv(long / "sample_submission.csv", index=False)
        found = load_competition(config_of(long, long_form=True))
        assert found.submission.kind == "columns"
        made = found.submission.make(np.eye(3, dtype=bool), np.eye(3))
        assert made["dark, deep"].tolist() == ["0", "1", "0"]

    def test_columns_that_differ_within_an_id_are_told_where_the_config_names_one(self, long):
        keys = {"long_form": True, "separator": ";"}
        found = load_competition(config_of(long, **keys))
        assert list(found.train.columns) == ["id", "label", "site"]
        said = refusal_of(group_texts, FoldsConfig(group="box"), found.train)
        assert said == (
            "folds.group: the train table has no column 'box'; it has id, label, site; 'box' differs between the "
            "rows of one id, which long_form makes one row"
        )
        assert refusal(long, **keys, train_images="train/{box}.png").endswith(
            "'box' differs between the rows of one id, which long_form makes one row"
        )

    def test_without_it_repeated_ids_say_what_to_set(self, long):
        table = train_of(long)
        table[table["label"] != ""].drop_duplicates(["id", "label"]).to_csv(long / "train.csv", index=False)
        assert refusal(long).endswith(
            "ids must be unique; if a row is one label, or one box, of several, set competition.long_form=true"
        )

    def test_rows_repeated_as_they_are_are_no_long_form(self, folder):
        pd.concat([train_of(folder)] * 2).to_csv(folder / "train.csv", index=False)
        assert refusal(folder).endswith("ids must be unique")

    def test_annotations_of_coco(self, folder):
        content = {
            "images": [{"id": row, "file_name": f"train{row:03d}.png"} for row in range(4)],
            "annotations": [
                {"id": at, "image_id": image, "category_id": category, "bbox": [at]}
                for at, (image, category) in enumerate([(0, 1), (0, 2), (2, 2), (2, 2), (3, 1)])
            ],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }
        (folder / "train.json").write_text(json.dumps(content))
        (folder / "sample_submission.csv").write_text("image_id,category_name\ntest000,cat\n")
        keys = {"train": "train.json", "id": "image_id", "label": "category_name", "long_form": True}
        found = load_competition(
            config_of(
                folder, **keys, test=None, train_images="train/{file_name}", test_images="test/{image_id}.png"
            )
        )
        assert found.label_format.decode(found.targets) == ["cat dog", "", "dog", "cat"]

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ({"label": ["a", "b"]}, "long_form has a label a row, in one column; label lists several"),
            ({"id": None}, "long_form puts the rows of one id together, so it needs a train table with ids"),
            ({"train": None, "train_images": "t/{label}/{id}"}, "so it needs a train table with ids"),
            ({"train_images": {"columns": "p*"}}, "long_form: pixels in the table are an image a row"),
        ],
    )
    def test_what_it_does_not_go_with(self, keys, said):
        with pytest.raises(ValueError, match=said):
            CompetitionConfig(path="x", long_form=True, **keys)


def test_test_rows_that_a_joined_table_lacks_are_told(folder):
    train = train_of(folder)
    train.assign(site="s").drop(columns="label").to_csv(folder / "sites.csv", index=False)
    found = load_competition(config_of(folder, join={"table": "sites.csv", "on": "id"}))
    (line,) = [line for line in found.remarks if line.startswith("competition.join")]
    assert line.replace(f"{folder}/", "") == (
        "competition.join: sites.csv has no row for 3 of 3 test rows (id 'test000', 'test001', 'test002'); their "
        "cells are empty"
    )


def test_two_boxes_of_one_label_name_the_long_form(folder):
    table = train_of(folder)
    pd.concat([table.assign(box="1"), table[:1].assign(box="2")]).to_csv(folder / "train.csv", index=False)
    assert "competition.long_form=true" in refusal(folder)
