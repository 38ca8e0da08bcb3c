"""`python -m kit init FOLDER`: the config that it writes, beside the ready config of the same layout."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from support import community_miniatures, miniatures
from support.commands import kit_here
from support.miniatures import noisy, spread_colour
from support.refusals import refusal_of

from kit import init, run
from kit.competition.load import load_competition
from kit.experiment.config import load_experiment

CONFIGS = Path(__file__).parents[2] / "configs"
WRITERS = miniatures.WRITERS | community_miniatures.WRITERS
LABELS = ("cat", "cow", "dog")


def save(path: Path, mark: int, seed: int = 0, size: tuple[int, int] = (24, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noisy(spread_colour([mark], 3), size, seed)).save(path)


def table(path: Path, **columns) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_csv(path, index=False)


def settings(path: Path) -> dict:
    return yaml.safe_load(path.read_text())["competition"]


@pytest.fixture
def folder(tmp_path):
    """12 photos in train/ and 3 in test/, without tables."""
    for row in range(15):
        save(tmp_path / "data" / ("train" if row < 12 else "test") / f"im{row:02d}.png", row % 3, row)
    return tmp_path / "data"


def rows(first: int, last: int, ending: str = "") -> list[str]:
    return [f"im{row:02d}{ending}" for row in range(first, last)]


def labels(count: int) -> list[str]:
    return [LABELS[row % 3] for row in range(count)]


@pytest.mark.parametrize("layout", WRITERS)
def test_a_first_config_reads_a_layout_as_its_ready_config_does(layout, tmp_path):
    if layout == "rsna-breast-cancer-detection":
        pytest.importorskip("pydicom")
    WRITERS[layout](tmp_path / "data")
    made = init(tmp_path / "data", tmp_path / "first.yaml")
    assert made.fault == ""
    first = load_experiment(made.config)
    ready = load_experiment(CONFIGS / f"{layout}.yaml", [f"competition.path={tmp_path / 'data'}"])
    mine, theirs = load_competition(first.competition), load_competition(ready.competition)
    assert mine.classes == theirs.classes
    assert mine.ids == theirs.ids
    np.testing.assert_array_equal(mine.targets, theirs.targets)
    assert mine.train_images == theirs.train_images
    assert mine.test_images == theirs.test_images
    assert first.data.channels == ready.data.channels
    if layout == "snakeclef2022":  # whose folder does not tell that observations are handed in
        assert (
            "is a prediction handed in for each observation_id? then predict_by: observation_id" in made.questions
        )
        return
    assert mine.test_ids == theirs.test_ids
    assert mine.submission.columns == theirs.submission.columns
    assert first.competition.predict_by == ready.competition.predict_by


def test_a_first_config_trains_and_hands_in(tmp_path):
    truth = community_miniatures.write_sheep(tmp_path / "data")
    made = init(tmp_path / "data", tmp_path / "first.yaml")
    overrides = ["training.epochs=1", "folds.run=[0]", "model.name=test_resnet", "data.workers=0"]
    result = run(load_experiment(made.config, [*overrides, "training.device=cpu"]), tmp_path)
    given = pd.read_csv(result.policies["uniform"].submission, dtype=str)
    assert list(given.columns) == ["filename", "label"]
    assert given["filename"].tolist() == list(truth)


def test_it_is_short_and_tells_what_guesses_rest_on(tmp_path):
    community_miniatures.write_sheep(tmp_path / "sheep 1")
    made = init(tmp_path / "sheep 1", tmp_path / "first.yaml")
    text = made.config.read_text()
    assert max(map(len, text.splitlines())) <= 115
    assert len(text.splitlines()) < 60
    assert yaml.safe_load(text)["name"] == "sheep-1"
    for line in (
        "  test: null  # guess: there is no test table; the rows are the files that fit test_images",
        "  id: filename  # guess: its texts name the images",
        "  train_images: train/{filename}  # guess: the texts of filename are file names",
        "  k: 4  # guess: the rarest class has no more rows",
    ):
        assert line in text.splitlines()
    for question in made.questions:
        assert " ".join(question.split()) in " ".join(text.replace("# ", "").split())
    assert f"competition.id: {'its texts name the images'}" in made.guesses


def test_a_padded_class_in_the_path(tmp_path):
    for row in range(12):
        save(tmp_path / "data/train" / f"{row % 3:05d}" / f"{row % 3:05d}_{row}.png", row % 3, row)
        save(tmp_path / "data/test" / f"t{row}.png", row % 3, row)
    ids = [f"{row % 3:05d}_{row}" for row in range(12)]
    table(tmp_path / "data/train.csv", id=ids, **{"class": [row % 3 for row in range(12)]})
    table(tmp_path / "data/test.csv", id=[f"t{row}" for row in range(12)])
    table(tmp_path / "data/sample_submission.csv", id=[f"t{row}" for row in range(12)], **{"class": [0] * 12})
    table(tmp_path / "data/solution.csv", id=[f"t{row}" for row in range(12)], **{"class": [0] * 12})
    made = init(tmp_path / "data", tmp_path / "first.yaml")
    assert made.fault == ""
    said = settings(made.config)
    assert (said["train"], said["label"]) == ("train.csv", "class")
    assert (said["train_images"], said["test_images"]) == ("train/{class:0>5}/{id}.png", "test/{id}.png")
    assert not any("solution" in question for question in made.questions)


def test_columns_of_0_and_1(folder):
    marks = {label: [int(each == label) for each in labels(12)] for label in LABELS}
    table(folder / "train.csv", image=rows(0, 12), **marks)
    table(folder / "sample_submission.csv", image=rows(12, 15), **dict.fromkeys(LABELS, [0.3] * 3))
    made = init(folder, folder.parent / "first.yaml")
    experiment = load_experiment(made.config)
    assert made.fault == ""
    assert experiment.competition.label == LABELS
    assert (experiment.scoring.at_least, experiment.scoring.at_most) == (1, 1)


def test_a_row_a_label(folder):
    table(folder / "train.csv", image=[row for row in rows(0, 12) for _ in "12"], tag=labels(24))
    made = init(folder, folder.parent / "first.yaml")
    assert made.fault == ""
    assert settings(made.config)["long_form"] is True
    competition = load_competition(load_experiment(made.config).competition)
    assert competition.targets.sum(axis=1).tolist() == [2] * 12


def test_a_class_of_a_single_row(folder):
    table(folder / "labels.csv", image=rows(0, 12), label=["one", *labels(11)])
    made = init(folder, folder.parent / "first.yaml")
    folds = load_experiment(made.config).folds
    assert (made.fault, folds.stratify, folds.k) == ("", False, 5)
    assert "folds.stratify: class 'one' has a single row, which cannot be dealt to several folds" in made.guesses


def test_groups_and_dates_are_asked_about(folder):
    patients, dates = [f"p{row // 2}" for row in range(12)], [f"2024-05-{row + 1:02d}" for row in range(12)]
    table(folder / "labels.csv", image=rows(0, 12), label=labels(12), patient=patients, taken=dates)
    made = init(folder, folder.parent / "first.yaml")
    (group,) = [question for question in made.questions if "may belong together" in question]
    assert group.endswith("folds: {group: patient}?")
    assert any(question.endswith("by taken: time: taken") for question in made.questions)
    for setting in ("folds.group=patient", "folds.time=taken"):
        load_experiment(made.config, [setting])


@pytest.mark.parametrize(("first_row", "more"), [(0, ""), (6, " or have both rows: train: [a_labels.csv")])
def test_two_tables_that_name_images(folder, first_row, more):
    table(folder / "a_labels.csv", image=rows(0, 6), label=labels(6))
    table(folder / "b_labels.csv", image=rows(first_row, first_row + 6), label=labels(6))
    made = init(folder, folder.parent / "first.yaml")
    (question,) = [question for question in made.questions if "b_labels.csv names" in question]
    assert question.startswith(f"b_labels.csv names images, too: is it the train table?{more}")
    assert settings(made.config)["train"] == "a_labels.csv"


def test_shapes_and_sizes_of_photos(tmp_path):
    for row in range(15):
        size = (200, 300) if row % 2 else (300, 200)
        save(tmp_path / "data" / ("train" if row < 12 else "test") / f"im{row:02d}.png", row % 3, row, size)
    table(tmp_path / "data/labels.csv", image=rows(0, 12), label=labels(12))
    data = load_experiment(init(tmp_path / "data", tmp_path / "first.yaml").config).data
    assert (data.size, data.channels, data.resize) == (224, 3, "pad")


def test_test_images_in_folders_a_class(tmp_path):
    for row in range(18):
        part = "train" if row < 12 else "test"
        save(tmp_path / "data" / part / LABELS[row % 3] / f"{row}.png", row % 3, row)
    made = init(tmp_path / "data", tmp_path / "first.yaml")
    assert made.fault == ""
    competition = load_competition(load_experiment(made.config).competition)
    assert (competition.classes, len(competition.ids), len(competition.test_ids)) == (LABELS, 12, 6)


def test_classes_beside_the_test_images_are_refused(tmp_path):
    """The template {label}/{file} would read test/ as a class."""
    for row in range(18):
        save(tmp_path / "data" / (LABELS[row % 3] if row < 12 else "test") / f"{row}.png", row % 3, row)
    assert refusal_of(init, tmp_path / "data", tmp_path / "first.yaml") == (
        f"{tmp_path / 'data'}: the folders of the classes lie beside test, which would be taken for a class, too; "
        "move those of the classes into a folder of their own, like train/"
    )
    assert not (tmp_path / "first.yaml").exists()
    (tmp_path / "data/train").mkdir()
    for name in LABELS:
        (tmp_path / "data" / name).rename(tmp_path / "data/train" / name)
    competition = load_competition(
        load_experiment(init(tmp_path / "data", tmp_path / "first.yaml").config).competition
    )
    assert (competition.classes, len(competition.ids), len(competition.test_ids)) == (LABELS, 12, 6)


def test_folders_of_classes_that_are_not_used_are_asked_about(tmp_path):
    for row in range(24):
        part = "train" if row < 12 else "val" if row < 18 else "test"
        save(tmp_path / "data" / part / LABELS[row % 3] / f"{row}.png", row % 3, row)
    made = init(tmp_path / "data", tmp_path / "first.yaml")
    assert made.questions[0] == "val holds folders of images, too, which are not used: what are they?"
    assert len(load_competition(load_experiment(made.config).competition).ids) == 12


def test_mixed_endings(folder):
    for row in range(0, 15, 2):
        part = folder / ("train" if row < 12 else "test")
        Image.open(part / f"im{row:02d}.png").save(part / f"im{row:02d}.jpg")
        (part / f"im{row:02d}.png").unlink()
    table(folder / "labels.csv", image=rows(0, 12), label=labels(12))
    made = init(folder, folder.parent / "first.yaml")
    assert (made.fault, settings(made.config)["train_images"]) == ("", "train/{image}.*")


def test_images_in_zips(folder):
    for part in ("train", "test"):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for file in sorted((folder / part).iterdir()):
                archive.write(file, file.name)
                file.unlink()
    table(folder / "train.csv", image=rows(0, 12), label=labels(12))
    table(folder / "sample_submission.csv", image=rows(12, 15), label=labels(3))
    made = init(folder, folder.parent / "first.yaml")
    said = settings(made.config)
    assert made.fault == ""
    assert (said["train_images"], said["test_images"]) == ("train.zip/{image}.png", "test.zip/{image}.png")


def test_images_in_several_folders(folder):
    for row in range(0, 12, 2):
        (folder / "more").mkdir(exist_ok=True)
        (folder / f"train/im{row:02d}.png").rename(folder / f"more/im{row:02d}.png")
    table(folder / "labels.csv", image=rows(0, 12), label=labels(12))
    made = init(folder, folder.parent / "first.yaml")
    assert made.fault == ""
    assert sorted(settings(made.config)["train_images"]["first"]) == ["more/{image}.png", "train/{image}.png"]


def test_what_does_not_load_is_written_and_told(monkeypatch, capsys, tmp_path):
    """A folder a class and nothing to predict: only the user knows."""
    for row in range(12):
        save(tmp_path / "data" / LABELS[row % 3] / f"{row}.png", row % 3, row)
    monkeypatch.chdir(tmp_path)
    code, output, errors = kit_here(monkeypatch, capsys, "init", "data")
    assert code == 1
    assert errors == (
        "error: data.yaml is written, but does not load yet; competition.test_images: no image file in data is "
        "like 'test/{file}'; data holds cat, cow, dog\n"
    )
    assert "question: there is no folder of test images: where are those to be predicted?" in output
    assert "next: " not in output
    assert settings(tmp_path / "data.yaml")["train_images"] == "{label}/{file}"
    assert yaml.safe_load((tmp_path / "data.yaml").read_text())["folds"]["k"] == 4


def test_as_it_is_typed(monkeypatch, capsys, tmp_path):
    community_miniatures.write_sheep(tmp_path / "data/sheep")
    monkeypatch.chdir(tmp_path)
    code, output, errors = kit_here(monkeypatch, capsys, "init", "data/sheep")
    assert (code, errors) == (0, "")
    assert settings(tmp_path / "sheep.yaml")["path"] == "data/sheep"
    assert output.splitlines()[:3] == [
        "data/sheep: 35 images; tables: train_labels.csv (28 rows)",
        "labels: label of train_labels.csv; images: train/{filename}",
        "28 training rows, 7 classes, one label a row; 7 test rows",
    ]
    assert output.splitlines()[-2:] == [
        "next: python -m kit audit sheep.yaml",
        "then: python -m kit run sheep.yaml",
    ]
    before = (tmp_path / "sheep.yaml").read_bytes()
    code, output, errors = kit_here(monkeypatch, capsys, "init", "data/sheep")
    assert (code, errors) == (1, "error: sheep.yaml is there already; give another with -o FILE, or remove it\n")
    assert (tmp_path / "sheep.yaml").read_bytes() == before
    code, output, errors = kit_here(monkeypatch, capsys, "init", "data/sheep", "-o", "new/a.yaml", "--json")
    made = json.loads(output)
    assert (code, made["config"], made["fault"]) == (0, "new/a.yaml", "")
    assert set(made) == {"config", "found", "guesses", "questions", "fault"}


def test_wrong_input(tmp_path):
    (tmp_path / "empty").mkdir()
    table(tmp_path / "tables/train.csv", id=["1"], label=["a"])
    save(tmp_path / "bare/a.png", 0)
    for row in range(3):
        save(tmp_path / f"no labels/train/im{row:02d}.png", row)
    table(tmp_path / "no labels/train.csv", image=rows(0, 3), comment=["x", "y", "z"])
    expected = {
        "nowhere": f"{tmp_path}/nowhere does not exist; folders there: bare, empty, no labels, tables",
        "tables/train.csv": f"{tmp_path}/tables/train.csv is a file; give the folder it is in",
        "empty": f"{tmp_path}/empty holds no images",
        "tables": f"{tmp_path}/tables holds no images; tables there: train.csv",
        "bare": f"{tmp_path}/bare: nothing tells the labels of the images in {tmp_path}/bare: there is no table, "
        "and they lie in no folder a class, as in train/CLASS/FILE",
        "no labels": f"{tmp_path}/no labels/train.csv: no column looks like labels, which repeat from row to row; "
        "it has image, comment",
    }
    for name, message in expected.items():
        assert refusal_of(init, tmp_path / name, tmp_path / "first.yaml") == message
    assert not (tmp_path / "first.yaml").exists()
    message = refusal_of(init, tmp_path / "bare", tmp_path / "first.txt")
    assert message == f"--output {tmp_path}/first.txt: the name has to end in .yaml or .yml"


def test_a_table_that_cannot_be_read_is_a_question(folder):
    table(folder / "labels.csv", image=rows(0, 12), label=labels(12))
    (folder / "notes.csv").write_text("a,b\n1,2,3,4\n")
    made = init(folder, folder.parent / "first.yaml")
    assert made.fault == ""
    assert any("notes.csv" in question for question in made.questions)
