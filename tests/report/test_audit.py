"""The audit of miniature competitions in which faults are planted."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance
from support.colours import experiment_content, write_competition
from support.refusals import refusal_of

from kit.cli.show_audit import show_audit
from kit.experiment.config import validate
from kit.report.audit import Audit, audit


def scene(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC)


def audited(folder: Path, output: Path, picture: Path | None = None, **sections) -> Audit:
    return audit(validate(experiment_content(folder, **sections), "test"), output, picture)


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_competition(tmp_path / "data")


def change_table(folder: Path, change) -> None:
    change(pd.read_csv(folder / "train.csv", dtype=str)).to_csv(folder / "train.csv", index=False)


def shown(result: Audit, capsys) -> str:
    capsys.readouterr()
    show_audit(result)
    return capsys.readouterr().out


def test_data_without_a_fault(competition, tmp_path, capsys):
    result = audited(competition, tmp_path)
    assert (result.rows, result.test_rows, result.k, result.setting) == (36, 9, 3, 6)
    assert result.classes.columns.tolist() == ["class", "name", "rows", "fold 0", "fold 1", "fold 2"]
    assert result.classes[["class", "rows", "fold 0"]].to_numpy().tolist() == [
        ["blue", 12, 4],
        ["green", 12, 4],
        ["red", 12, 4],
    ]
    assert result.folds["rows"].tolist() == [12, 12, 12]
    assert result.folds[["fewest", "most", "without"]].iloc[0].tolist() == [4, 4, 0]
    assert result.sizes["images"].tolist() == [36, 9]
    assert result.sizes[["width", "height"]].to_numpy().tolist() == [["24", "24"], ["24", "24"]]
    assert result.kinds.to_numpy().tolist() == [["train", "PNG RGB", 36], ["test", "PNG RGB", 9]]
    assert all(frame.empty for frame in (result.pairs, result.rare, result.broken))
    assert (result.suspects, result.advice, result.picture) == ([], [], None)
    assert list(tmp_path.glob("*.png")) == []
    text = shown(result, capsys)
    assert "No images are alike" in text
    assert "nothing; no fault was found" in text


def plant_duplicates(folder: Path) -> None:
    """0 = 3 in pixels but of blue and green, 6 is near 9 (both blue), and 6 near test000."""
    for row in (0, 4):
        scene(1).save(folder / "train" / f"train{row:03d}.png")
    scene(2).save(folder / "train" / "train006.png")
    ImageEnhance.Brightness(scene(2)).enhance(0.8).save(folder / "train" / "train009.png")
    scene(2).resize((32, 24)).save(folder / "test" / "test000.png")


def test_duplicates(folder, tmp_path, capsys):
    plant_duplicates(folder)
    result = audited(folder, tmp_path)
    columns = ["first", "second", "first_label", "second_label", "same_pixels", "with_test", "labels_differ"]
    assert result.pairs[columns].to_numpy().tolist() == [
        ["train000", "train004", "blue", "green", True, False, True],
        ["train006", "train009", "blue", "blue", False, False, False],
        ["train006", "test000", "blue", "", False, True, False],
        ["train009", "test000", "blue", "", False, True, False],
    ]
    assert result.pairs["bits"].iloc[0] == 0 <= result.pairs["bits"].max() <= 6
    assert result.picture == tmp_path / "audit-tiny.png"
    assert Image.open(result.picture).format == "PNG"
    advice = "\n".join(result.advice)
    assert "pairs of the very same pixels but different labels: 1; one of the two labels is wrong" in advice
    assert "test images that are like train images: 1;" in advice
    assert ("set folds: {duplicates: 6}" in advice) == bool(result.pairs["spans_folds"].any())
    text = shown(result, capsys)
    assert "inside train 2 pairs, 1 of the same pixels; 1 with different labels" in text
    assert f"The pairs as a picture: {tmp_path / 'audit-tiny.png'}" in text


def test_frames_whose_neighbours_have_other_labels_are_no_errors(folder, tmp_path, capsys):
    """Six clips of six frames each, of which the middle changes the label; two frames of one clip are the same."""
    for row in range(36):
        frame = ImageEnhance.Brightness(scene(row // 6)).enhance(1 - 0.03 * (row % 6))
        frame.save(folder / "train" / f"train{row:03d}.png")
    shutil.copy(folder / "train/train000.png", folder / "train/train005.png")
    labels = ["red" if row % 6 < 3 else "green" if row // 6 % 2 else "blue" for row in range(36)]
    change_table(folder, lambda table: table.assign(label=labels, clip=[f"c{row // 6}" for row in range(36)]))
    result = audited(folder, tmp_path, folds={"k": 3, "group": "clip"})
    pairs = result.pairs[~result.pairs["with_test"]]
    same, near = pairs[pairs["same_pixels"]], pairs[~pairs["same_pixels"]]
    assert (len(same), int(same["labels_differ"].sum())) == (1, 1)
    assert pairs["one_group"].all()
    other = int(near["labels_differ"].sum())
    assert 0 < other < len(near)
    assert result.pair_kinds.to_numpy().tolist() == [
        ["train, one group", "near", len(near), other],
        ["train, one group", "same pixels", 1, 1],
    ]
    share = len(np.unique(near[["first_row", "second_row"]])) / 36
    assert share > 0.9
    assert result.advice[:2] == [
        "pairs of the very same pixels but different labels: 1; one of the two labels is wrong, or the image "
        "has both",
        f"pairs that are near (not the same pixels) but have different labels: {other} of {len(near)}; "
        f"{share:.0%} of the train images have a near one, as frames, scans and tiles do, of which neighbours "
        "often have other labels: look at a few of them",
    ]
    assert "Pairs of each kind" in shown(result, capsys)


def test_a_near_pair_among_photos_may_be_a_wrong_label(folder, tmp_path):
    scene(2).save(folder / "train" / "train006.png")
    ImageEnhance.Brightness(scene(2)).enhance(0.8).save(folder / "train" / "train010.png")
    scene(2).resize((32, 24)).save(folder / "test" / "test000.png")
    result = audited(folder, tmp_path)
    assert result.pair_kinds.to_numpy().tolist() == [["train", "near", 1, 1], ["train with test", "near", 2, 0]]
    assert (
        "pairs that are near (not the same pixels) but have different labels: 1 of 1; look at them: one of the "
        "two labels may be wrong"
    ) in result.advice


def test_rows_that_are_predicted_as_one_are_no_suspects(folder, tmp_path):
    change_table(folder, lambda table: table.assign(patient=[f"p{row % 3}{row // 9}" for row in range(36)]))
    test = pd.read_csv(folder / "test.csv").assign(patient=[f"q{row // 3}" for row in range(9)])
    test.to_csv(folder / "test.csv", index=False)
    sample = pd.DataFrame({"patient": ["q0", "q1", "q2"], "label": "red"})
    sample.to_csv(folder / "sample_submission.csv", index=False)
    (folder / "test/test000.png").write_bytes(b"broken")
    result = audited(folder, tmp_path, competition={"predict_by": "patient"})
    assert result.suspects == []
    assert result.classes["groups"].tolist() == [4, 4, 4]
    assert result.advice == [
        "test images that cannot be read: 1; their observations are predicted by the other images, those without "
        "one get the prior"
    ]


def test_duplicates_that_the_folds_keep_together(folder, tmp_path):
    for row in range(12):
        scene(row // 2).save(folder / "train" / f"train{row * 3:03d}.png")
    apart = audited(folder, tmp_path)
    assert apart.pairs["spans_folds"].sum() > 0
    assert any("set folds: {duplicates: 6}" in line for line in apart.advice)
    joined = audited(folder, tmp_path, tmp_path / "sheet.svg", folds={"duplicates": 4})
    assert (joined.setting, len(joined.pairs), joined.pairs["spans_folds"].sum()) == (4, 6, 0)
    assert joined.folds["groups"].sum() == 30
    assert joined.picture.read_text().startswith("<?xml")


def test_a_group_of_duplicates_that_outgrows_a_fold(folder, tmp_path):
    for row in range(20):
        scene(1).save(folder / "train" / f"train{row:03d}.png")
    result = audited(folder, tmp_path, folds={"duplicates": "exact"})
    assert any(
        line.startswith("folds.duplicates: 20 of 36 rows, more than one fold of 3") for line in result.advice
    )


def test_groups_are_proposed_until_they_are_set(folder, tmp_path, capsys):
    tracks = [f"t{row // 9}{row % 3}" for row in range(36)]  # three rows of one class each
    change_table(folder, lambda table: table.assign(track=tracks))
    result = audited(folder, tmp_path)
    assert [suspect.setting for suspect in result.suspects] == ["folds: {group: track}"]
    assert result.advice == [
        "rows seem to come in groups; set folds: {group: track}, so that no group spans folds"
    ]
    assert "set folds: {group: track}" in shown(result, capsys)
    result = audited(folder, tmp_path, folds={"group": "track"})
    assert [(suspect.what, suspect.setting) for suspect in result.suspects] == [("column track", "")]
    assert result.classes["groups"].tolist() == [4, 4, 4]
    assert result.folds["groups"].sum() == 12
    assert result.advice == []
    assert "the config has set them" in shown(result, capsys)


def test_rare_classes(folder, tmp_path, capsys):
    change_table(folder, lambda table: table.assign(label=["rare", "rare", *table["label"][2:]]))
    result = audited(folder, tmp_path)
    assert result.rare[["class", "rows"]].to_numpy().tolist() == [["rare", 2]]
    assert result.folds["without"].sum() == 1
    assert result.advice == ["classes with fewer rows than folds: 1; their scores rest on very little"]
    assert "Rare, fewer rows than folds: rare" in shown(result, capsys)


def test_folds_that_cannot_be_made_are_told(folder, tmp_path, capsys):
    change_table(folder, lambda table: table.assign(label=["alone", *table["label"][1:]]))
    result = audited(folder, tmp_path)
    assert result.folds.empty
    assert result.rare["class"].tolist() == ["alone"]
    assert "class 'alone' has a single row" in result.advice[0]
    assert "class 'alone' has a single row" in shown(result, capsys)
    result = audited(folder, tmp_path, folds={"group": "nowhere"})
    assert sum("nowhere" in line for line in result.advice) == 1


def test_unreadable_images_are_listed(folder, tmp_path, capsys):
    (folder / "train" / "train005.png").write_text("no image")
    (folder / "test" / "test002.png").write_bytes((folder / "test" / "test001.png").read_bytes()[:300])
    result = audited(folder, tmp_path)
    assert result.broken[["part", "id", "reason"]].to_numpy().tolist() == [
        ["train", "train005", "no image"],
        ["test", "test002", "truncated"],
    ]
    assert result.sizes["unreadable"].tolist() == [1, 1]
    assert result.advice[:2] == [
        "train images that cannot be read: 1; mend or remove them and their rows",
        "test images that cannot be read: 1; their rows get the prior",
    ]
    assert "Images that cannot be read (2)" in shown(result, capsys)


def test_sizes_kinds_and_flat_images(folder, tmp_path):
    scene(1).convert("L").save(folder / "train" / "train000.png")
    scene(1).save(folder / "train" / "train001.png", format="JPEG")
    Image.new("RGBA", (24, 50)).save(folder / "train" / "train002.png")
    result = audited(folder, tmp_path)
    train = result.sizes.iloc[0]
    assert (train["width"], train["height"], train["sizes"], train["flat"]) == (
        "24 / 24 / 64",
        "24 / 24 / 50",
        3,
        1,
    )
    kinds = result.kinds[result.kinds["part"] == "train"].set_index("kind")["images"].to_dict()
    assert kinds == {"PNG RGB": 33, "PNG L": 1, "JPEG RGB": 1, "PNG RGBA": 1}


def test_many_classes_are_summed_up(tmp_path, capsys):
    folder = write_competition(tmp_path / "data", rows=96)
    change_table(folder, lambda table: table.assign(label=[f"class{row % 32:02d}" for row in range(96)]))
    result = audited(folder, tmp_path)
    assert len(result.classes) == 32
    text = shown(result, capsys)
    assert "96 rows of 32 classes, 3 to 3 rows each" in text
    assert "class09" in text
    assert "class10" not in text


def test_rows_with_several_labels(folder, tmp_path):
    plant_duplicates(folder)
    change_table(folder, lambda table: table.assign(label=[f"{name} all" for name in table["label"]]))
    sample = pd.read_csv(folder / "sample_submission.csv").assign(label="red all")
    sample.to_csv(folder / "sample_submission.csv", index=False)
    result = audited(
        folder, tmp_path, competition={"separator": " "}, scoring={"average": "samples", "rule": "auto"}
    )
    assert result.classes.set_index("class")["rows"].to_dict() == {"all": 36, "blue": 12, "green": 12, "red": 12}
    assert result.pairs[["labels_differ", "with_test"]].to_numpy().tolist()[:2] == [[True, False], [False, False]]


def test_groups_that_the_folds_of_the_table_cut_are_proposed_and_then_refused(folder, tmp_path):
    plant_duplicates(folder)
    tracks = [f"t{row // 9}{row % 3}" for row in range(36)]
    change_table(folder, lambda table: table.assign(track=tracks, part=[row % 3 for row in range(36)]))
    result = audited(folder, tmp_path, folds={"column": "part"})
    assert "rows seem to come in groups; set folds: {group: track}, so that no group spans folds" in result.advice
    cut = ["t00", "t01", "t02"]
    change_table(folder, lambda table: table.assign(part=[(row // 3) % 3 for row in range(36)]))
    (fault, *_) = audited(folder, tmp_path, folds={"column": "part", "group": "track"}).advice
    assert fault.startswith("nothing can be trained with these folds: folds: 12 of 12 groups span folds (")
    assert all(track in fault for track in cut)


def test_what_cannot_be_read_at_all_is_refused(folder, tmp_path):
    shutil.rmtree(folder / "test")
    experiment = validate(experiment_content(folder), "test")
    assert refusal_of(audit, experiment, tmp_path).startswith(
        "competition.test_images: 9 of 9 images do not exist"
    )


def test_more_near_pairs_than_can_be_listed(folder, tmp_path, monkeypatch):
    for row in range(12):
        scene(row).resize((60, 60)).save(folder / "train" / f"train{row:03d}.png")
        ImageEnhance.Brightness(scene(row)).enhance(0.8).save(folder / "train" / f"train{row + 12:03d}.png")
    scene(3).resize((60, 60)).save(folder / "train" / "train035.png")
    monkeypatch.setattr("kit.competition.duplicates.MOST_PAIRS", 10)
    for folds in ({}, {"duplicates": 8}):
        result = audited(folder, tmp_path, folds=folds)
        assert (result.setting, len(result.pairs)) == ("exact", 1)
        assert sum("more than 10 pairs of images are within" in line for line in result.advice) == 1
