"""What the pixels of files become, over whole runs: transparency, levels, images of one value, runs of before."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.colours import experiment_content
from support.refusals import refusal_of

from kit import audit, run
from kit.core.runs import ExperimentDir, RunDir
from kit.data.decode import Decoder
from kit.experiment.config import ExperimentConfig, validate
from kit.experiment.options import RunOptions
from kit.experiment.predict import predict_test
from kit.report.thumbnails import thumbnail

Draw = Callable[[np.random.Generator, bool], Image.Image]


def write_set(folder: Path, train: Draw, test: Draw | None = None, ending: str = "png") -> Path:
    """A competition of 24 and 6 images, drawn from random numbers and whether their label is `much`."""
    generator = np.random.default_rng(0)
    for part, count, draw in (("train", 24, train), ("test", 6, test or train)):
        (folder / part).mkdir(parents=True)
        ids = [f"{part}{row}" for row in range(count)]
        for row, name in enumerate(ids):
            draw(generator, row % 2 == 0).save(folder / part / f"{name}.{ending}")
        table = pd.DataFrame({"id": ids, "label": ["much" if row % 2 == 0 else "less" for row in range(count)]})
        table.to_csv(folder / ("train.csv" if part == "train" else "solution.csv"), index=False)
    table[["id"]].to_csv(folder / "test.csv", index=False)
    table.assign(label="less").to_csv(folder / "sample_submission.csv", index=False)
    return folder


def covered(generator: np.random.Generator, much: bool) -> np.ndarray:
    """Which of 24 × 24 pixels are drawn on: four of five, or one of five."""
    return generator.random((24, 24)) < (0.8 if much else 0.2)


def transparent_drawing(generator: np.random.Generator, much: bool) -> Image.Image:
    """Black ink on nothing."""
    pixels = np.zeros((24, 24, 4), np.uint8)
    pixels[..., 3] = 255 * covered(generator, much)
    return Image.fromarray(pixels)


def opaque_drawing(generator: np.random.Generator, much: bool) -> Image.Image:
    return Image.fromarray(np.where(covered(generator, much), 0, 255).astype(np.uint8)).convert("RGB")


def of_levels(high: int, kind: type = np.uint16) -> Draw:
    def draw(generator: np.random.Generator, much: bool) -> Image.Image:
        return Image.fromarray((covered(generator, much) * high).astype(kind))

    return draw


def black(*_) -> Image.Image:
    return Image.new("RGB", (24, 24))


def described(folder: Path, **sections) -> ExperimentConfig:
    stated = {"folds": {"k": 2}, "training": {"epochs": 1}, "data": {"augment": "none"}}
    if ending := sections.pop("ending", None):
        stated["competition"] = {name: f"{name[:-7]}/{{id}}.{ending}" for name in ("train_images", "test_images")}
    return validate(experiment_content(folder, **stated | sections), "test")


def trained(folder: Path, say=None, replace: bool = False, **sections):
    said: list[str] = []
    made = run(described(folder / "data", **sections), RunOptions(output=folder, replace=replace), say=said.append)
    return made, said


def records(folder: Path) -> list:
    return [each.record for each in ExperimentDir(folder / "runs/tiny").runs()]


def as_of_before(folder: Path) -> None:
    """Make runs into those of the versions that left transparency out."""
    for file in (folder / "runs").rglob("run.json"):
        content = json.loads(file.read_text())
        content["depends_on"].pop("pixels", None)
        for name in ("reading", "test_pixels", "files", "digest"):
            content.pop(name)
        file.write_text(json.dumps(content))


# Transparency.


def test_drawings_on_a_transparent_ground_are_told_apart(tmp_path):
    write_set(tmp_path / "data", transparent_drawing)
    trained(tmp_path, training={"epochs": 6})
    scores = [score for record in records(tmp_path) for score in record.scores.values()]
    assert scores == [1.0, 1.0]
    pixels = np.load(next((tmp_path / "cache").glob("pixels-*.npy")))
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert [record.reading for record in records(tmp_path)] == [{"background": "#ffffff", "levels": "auto"}] * 2
    assert all(record.depends_on["pixels"] for record in records(tmp_path))


def test_runs_of_before_are_not_continued_where_the_set_has_transparency(tmp_path):
    write_set(tmp_path / "data", transparent_drawing)
    trained(tmp_path)
    as_of_before(tmp_path)
    said = refusal_of(lambda: trained(tmp_path))
    assert (
        "was made from other pixels of the same files (uniform/seed0/fold0; now background: #ffffff; "
        "data.background=none and data.levels='[0, 65535]' read them as then)"
    ) in said
    assert "--replace" in said
    made, _ = trained(tmp_path, replace=True)
    assert (made.trained, made.kept) == (2, 0)
    assert (trained(tmp_path)[0].trained, trained(tmp_path)[0].kept) == (0, 2)


def test_transparency_left_out_as_before_is_a_config_of_its_own(tmp_path):
    write_set(tmp_path / "data", transparent_drawing)
    said = refusal_of(lambda: trained(tmp_path, data={"background": "none", "augment": "none"}))
    assert said.startswith(
        "24 of 24 train images are one value once decoded (train0.png, train1.png, train2.png, "
    )


def test_runs_of_before_on_opaque_images_are_continued(tmp_path):
    write_set(tmp_path / "data", opaque_drawing)
    trained(tmp_path)
    before = [record.depends_on for record in records(tmp_path)]
    assert all("pixels" not in each for each in before)
    as_of_before(tmp_path)
    made, said = trained(tmp_path)
    assert (made.trained, made.kept) == (0, 2)
    assert not any("predicted it with the saved weights" in line for line in said)


def test_a_test_set_alone_with_transparency_is_predicted_anew(tmp_path):
    write_set(tmp_path / "data", opaque_drawing, transparent_drawing)
    trained(tmp_path, training={"epochs": 6})
    as_of_before(tmp_path)
    made, said = trained(tmp_path, training={"epochs": 6})
    assert made.trained == 0
    assert (
        sum("test images are read otherwise than when it was trained; predicted it" in line for line in said) == 2
    )
    handed_in = pd.read_csv(tmp_path / "submissions/tiny.csv")
    assert handed_in["label"].tolist() == ["much", "less"] * 3
    assert not any("saved weights" in line for line in trained(tmp_path, training={"epochs": 6})[1])


@pytest.fixture
def seen(monkeypatch) -> list:
    """How images are read from now on."""
    readings, decode = [], Decoder.__call__
    monkeypatch.setattr(
        Decoder, "__call__", lambda self, *given: readings.append(self.reading) or decode(self, *given)
    )
    return readings


def test_models_predict_with_the_reading_that_they_were_trained_with(tmp_path, seen):
    write_set(tmp_path / "data", opaque_drawing)
    trained(tmp_path)
    for before, background in ((False, (255, 255, 255)), (True, None)):
        if before:
            as_of_before(tmp_path)
        seen.clear()
        predict_test(described(tmp_path / "data"), [tmp_path / "runs"], tmp_path / "s.csv", tmp_path / f"{before}")
        assert {reading.background for reading in seen} == {background}


# Levels.


@pytest.mark.parametrize(
    ("draw", "ending", "levels"),
    [
        (of_levels(4000), "png", [0, 4095]),
        (of_levels(3, np.float32), "tif", [0, 3]),
        (of_levels(9), "tif", [0, 15]),
    ],
)
def test_deep_images_are_told_apart_by_run_and_kernel_alike(tmp_path, draw, ending, levels):
    write_set(tmp_path / "data", draw, ending=ending)
    sections = {"training": {"epochs": 6}, "ending": ending}
    _, said = trained(tmp_path, **sections)
    assert f"Images of more than 8 bits: 0 becomes 0, {levels[1]} becomes 255 (data.levels)" in said
    assert [score for record in records(tmp_path) for score in record.scores.values()] == [1.0, 1.0]
    assert {tuple(record.reading["levels"]) for record in records(tmp_path)} == {tuple(levels)}
    handed_in = (tmp_path / "submissions/tiny.csv").read_text()
    shutil.rmtree(tmp_path / "data/train")  # a kernel has neither the training images nor what is known of them
    made = predict_test(
        described(tmp_path / "data", **sections),
        [tmp_path / "runs"],
        tmp_path / "made.csv",
        tmp_path / "elsewhere",
    )
    assert made.submission.read_text() == handed_in


def test_the_training_images_decide_for_the_test_images(tmp_path):
    write_set(tmp_path / "data", of_levels(1023), of_levels(4095))
    _, said = trained(tmp_path)
    line = (
        "6 of 6 test images hold values beyond the levels 0 to 1023, which are clipped (data.levels) (test0.png, "
    )
    assert sum(each.startswith(line) for each in said) == 1
    assert records(tmp_path)[0].reading["levels"] == [0, 1023]


def test_an_earlier_run_of_16_bits_goes_on_and_one_of_12_does_not(tmp_path):
    for bits in (16, 12):
        folder = tmp_path / str(bits)
        write_set(folder / "data", of_levels(2**bits - 1))
        trained(folder)
        as_of_before(folder)
    assert trained(tmp_path / "16")[0].kept == 2
    said = refusal_of(lambda: trained(tmp_path / "12"))
    assert (
        "other pixels of the same files (uniform/seed0/fold0; now levels: [0, 4095]; data.background=none" in said
    )
    made, _ = trained(tmp_path / "12", data={"levels": [0, 65535], "augment": "none"})
    assert (made.trained, made.kept) == (0, 2)


def half_transparent_drawing(generator: np.random.Generator, much: bool) -> Image.Image:
    """Grey ink on a white that is not seen."""
    ink = covered(generator, much)
    pixels = np.where(ink, 90, 255).astype(np.uint8)[..., None].repeat(4, axis=2)
    pixels[..., 3] = np.where(ink, 255, 60)
    return Image.fromarray(pixels)


def test_another_background_is_another_run_and_none_goes_on_with_runs_of_before(tmp_path):
    write_set(tmp_path / "data", half_transparent_drawing)
    trained(tmp_path, data={"background": "none", "augment": "none"})
    as_of_before(tmp_path)
    assert "other pixels" in refusal_of(lambda: trained(tmp_path))
    assert "other pixels" in refusal_of(lambda: trained(tmp_path, data={"background": "red", "augment": "none"}))
    made, _ = trained(tmp_path, data={"background": "none", "augment": "none"})
    assert (made.trained, made.kept) == (0, 2)


def test_runs_of_two_readings_have_no_common_mean(tmp_path):
    write_set(tmp_path / "data", of_levels(4095))
    trained(tmp_path)
    file = tmp_path / "runs/tiny/uniform/seed0/fold1/run.json"
    content = json.loads(file.read_text())
    del content["depends_on"]["pixels"], content["files"], content["digest"]
    file.write_text(json.dumps(content))
    config = described(tmp_path / "data")
    said = refusal_of(predict_test, config, [tmp_path / "runs"], tmp_path / "s.csv", tmp_path)
    assert "were trained on different pixels, so their mean is of no one experiment" in said


# The net under all of it.


def half_black(generator: np.random.Generator, much: bool) -> Image.Image:
    return opaque_drawing(generator, much) if much else black()


@pytest.mark.parametrize("cache", [True, False])
def test_images_of_one_value_are_counted_by_every_run(tmp_path, cache):
    write_set(tmp_path / "data", half_black)
    data = {"cache": cache, "augment": "none"}
    names = "train1.png, train3.png, train5.png, train7.png, train9.png, …"
    for _ in range(2):
        _, said = trained(tmp_path, data=data)
        assert f"12 of 24 train images are one value once decoded ({names})" in said
        assert "3 of 6 test images are one value once decoded (test1.png, test3.png, test5.png)" in said


@pytest.mark.parametrize("cache", [True, False])
def test_nothing_but_images_of_one_value_is_refused(tmp_path, cache):
    write_set(tmp_path / "data", black)
    for _ in range(2):
        said = refusal_of(lambda: trained(tmp_path, data={"cache": cache}))
        assert said.startswith("24 of 24 train images are one value once decoded (train0.png, ")
        assert "nothing can be learnt from them; look at them, and at data.background, data.levels and " in said
    assert not list((tmp_path / "runs").rglob("run.json"))


def test_predict_tells_images_of_one_value(tmp_path):
    write_set(tmp_path / "data", opaque_drawing, half_black)
    trained(tmp_path)
    said: list[str] = []
    config = described(tmp_path / "data")
    predict_test(config, [tmp_path / "runs"], tmp_path / "s.csv", tmp_path / "elsewhere", say=said.append)
    assert "3 of 6 test images are one value once decoded (test1.png, test3.png, test5.png)" in said


@pytest.mark.parametrize(
    ("draw", "sections", "counts"),
    [
        (half_black, {}, [12, 3]),
        (black, {}, [24, 6]),
        (transparent_drawing, {}, []),
        (transparent_drawing, {"data": {"background": "black"}}, [24, 6]),
        (transparent_drawing, {"data": {"background": "black", "channels": 4}}, []),
        (of_levels(3), {}, []),
    ],
)
def test_audit_advises_on_images_of_one_value(tmp_path, draw, sections, counts):
    write_set(tmp_path / "data", draw)
    advice = audit(described(tmp_path / "data", **sections), tmp_path).advice
    said = [line for line in advice if "one value" in line]
    parts = zip(counts, (24, 6), ("train", "test"), strict=False)
    lines = [
        f"{count} of {of} {part} images are one value once decoded: look at them, " for count, of, part in parts
    ]
    assert len(said) == len(lines)
    assert all(line.startswith(start) for line, start in zip(said, lines, strict=True))


def test_a_raised_limit_predicts_what_was_not_read_before(tmp_path):
    write_set(tmp_path / "data", opaque_drawing)
    Image.new("RGB", (300, 300), "white").save(tmp_path / "data/test/test1.png")
    _, said = trained(tmp_path, data={"megapixels": 0.05, "augment": "none"})
    line = "1 of 6 test images cannot be read"
    assert any(line in each and "0.09 megapixels, more than data.megapixels = 0.05" in each for each in said)
    made, said = trained(tmp_path, data={"megapixels": 0.1, "augment": "none"})
    assert made.trained == 0
    assert sum("read otherwise than when it was trained; predicted it" in each for each in said) == 2


def test_thumbnails_are_on_the_background(tmp_path):
    transparent_drawing(np.random.default_rng(0), True).save(tmp_path / "a.png")
    opaque_drawing(np.random.default_rng(0), True).save(tmp_path / "b.png")
    assert thumbnail(tmp_path / "a.png") == thumbnail(tmp_path / "b.png")


def test_records_of_before_have_no_reading(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"policy": "a", "seed": 0, "fold": 0}))
    assert (RunDir(tmp_path).record.reading, RunDir(tmp_path).record.test_pixels) == ({}, "")
