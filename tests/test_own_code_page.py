"""docs/own-code.md: every example is written down, and trained with, as a reader would."""

import functools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from support.colours import experiment_content, write_competition
from support.dicom import write_dicom

from kit import load_experiment, run

PAGE = (Path(__file__).parents[1] / "docs/own-code.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
CODE = [text for kind, text in BLOCKS if kind == "python"]
CONFIGS = [yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml"]
IMPORTS = """
import functools
import io
import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet
import pydicom
import timm
import torch
from PIL import Image
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from sklearn.metrics import f1_score
from torch import nn
"""


def name_of(sections: dict) -> str:
    found = re.search(r"mine\.py:(\w+)", str(sections))
    return found[1] if found else next(iter(sections))


def pictures(folder: Path, part: str) -> dict[str, np.ndarray]:
    return {file.stem: np.asarray(Image.open(file)) for file in sorted((folder / part).glob("*.png"))}


def as_dicom(folder: Path) -> None:
    for part in ("train", "test"):
        for name, pixels in pictures(folder, part).items():
            write_dicom(folder / part / f"{name}.dcm", pixels[..., 0].astype(np.uint16) * 16)


def as_hdf5(folder: Path) -> None:
    import h5py

    for part in ("train", "test"):
        with h5py.File(folder / f"{part}.h5", "w") as file:
            for name, pixels in pictures(folder, part).items():
                file[name] = pixels


def as_parquet(folder: Path) -> None:
    for part in ("train", "test"):
        names = [file.stem for file in sorted((folder / part).glob("*.png"))]
        images = [{"bytes": (folder / part / f"{name}.png").read_bytes(), "path": name} for name in names]
        pq.write_table(pa.table({"id": names, "image": images}), folder / f"{part}.parquet")


def with_two_classes(folder: Path) -> None:
    train, sample = (pd.read_csv(folder / f"{name}.csv") for name in ("train", "sample_submission"))
    train.assign(label=(train["label"] == "red").astype(int)).to_csv(folder / "train.csv", index=False)
    sample.assign(label=0.5).to_csv(folder / "sample_submission.csv", index=False)


WRITERS = {
    "read_dicom": as_dicom,
    "read_hdf5": as_hdf5,
    "read_parquet": as_parquet,
    "probabilistic_f1": with_two_classes,
}


def mine(folder: Path) -> Path:
    (folder / "mine.py").write_text(IMPORTS + "\n\n".join(CODE))
    return folder / "mine.py"


@functools.cache
def loaded() -> dict:
    made: dict = {}
    exec(compile(IMPORTS + "\n\n".join(CODE), "mine.py", "exec"), made)
    return made


@pytest.mark.parametrize("sections", CONFIGS, ids=name_of)
def test_each_example_trains(competition, tmp_path, sections):
    mine(tmp_path)
    if write := WRITERS.get(name_of(sections)):
        competition = write_competition(tmp_path / "data")
        write(competition)
    content = experiment_content(competition, folds={"run": [0]}, training={"epochs": 1})
    for name, section in sections.items():
        content[name] = section if name == "policies" else content.get(name, {}) | section
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    lines = []
    experiment = load_experiment(tmp_path / "config.yaml")
    assert set(experiment.code) == {"mine.py"}
    run(experiment, tmp_path / "out", say=lines.append)
    assert "Own code: mine.py" in lines
    policy = next(iter(content["policies"]))
    oof = pd.read_parquet(tmp_path / f"out/runs/tiny/{policy}/seed0/fold0/oof.parquet")
    assert len(oof) == 12
    assert (tmp_path / "out/runs/tiny/mine.py").read_text() == (tmp_path / "mine.py").read_text()


def test_every_example_is_ten_lines_or_less():
    for text in CODE:
        code = [line for line in text.splitlines() if line.strip() and not line.strip().startswith('"""')]
        assert len(code) <= 13, text


@pytest.mark.parametrize("kind", ["h5", "parquet"])
def test_images_in_a_file_are_those_that_were_put_there(tmp_path, kind):
    folder = write_competition(tmp_path / "data", rows=6)
    (as_hdf5 if kind == "h5" else as_parquet)(folder)
    read = loaded()["read_hdf5" if kind == "h5" else "read_parquet"]
    for name, pixels in pictures(folder, "train").items():
        np.testing.assert_array_equal(np.asarray(read(folder / f"train.{kind}" / name)), pixels)


@pytest.mark.parametrize("inverted", [False, True])
def test_dicom_is_windowed_and_dark_is_dark(tmp_path, inverted):
    """Levels 0 to 4095 in Hounsfield units from −1024; a window of 400 around 40, beyond which all is cut."""
    levels = np.array([[0, 864, 1064], [1164, 1264, 4095]], dtype=np.uint16)
    write_dicom(
        tmp_path / "scan.dcm",
        levels,
        PhotometricInterpretation="MONOCHROME1" if inverted else "MONOCHROME2",
        RescaleIntercept=-1024,
        RescaleSlope=1,
        WindowCenter=40,
        WindowWidth=400,
    )
    made = loaded()["read_dicom"](tmp_path / "scan.dcm")
    hounsfield = levels.astype(float) - 1024
    # DICOM PS3.3 C.11.2.1.2.1: linear from centre − width / 2 to centre − 1 + width / 2
    share = np.clip((hounsfield - (40 - 0.5)) / (400 - 1) + 0.5, 0, 1)
    expected = 1 - share if inverted else share
    assert made.dtype == np.uint8
    np.testing.assert_allclose(made, 255 * expected, atol=0.51)


def test_dicom_without_a_window_is_stretched(tmp_path):
    levels = np.array([[100, 200], [300, 500]], dtype=np.uint16)
    write_dicom(tmp_path / "plain.dcm", levels)
    made = loaded()["read_dicom"](tmp_path / "plain.dcm")
    np.testing.assert_array_equal(made, np.round(255 * (levels.astype(float) - 100) / 400))
    write_dicom(tmp_path / "even.dcm", np.full((2, 2), 7, np.uint16))
    assert not loaded()["read_dicom"](tmp_path / "even.dcm").any()


def test_hierarchical_f1_is_that_of_sets_of_classes_and_what_stands_above():
    above = [[0], [1], [1, 2]]
    truth, predicted = np.random.default_rng(0).integers(0, 3, (2, 50))
    of = [{f"class {label}", *above[label]} for label in range(3)]
    pairs = [(of[one], of[other]) for one, other in zip(truth, predicted, strict=True)]
    precision = sum(len(a & b) for a, b in pairs) / sum(len(b) for _, b in pairs)
    recall = sum(len(a & b) for a, b in pairs) / sum(len(a) for a, _ in pairs)
    value = loaded()["hierarchical_f1"](truth, predicted, above)
    assert value == pytest.approx(2 * precision * recall / (precision + recall))
    assert loaded()["hierarchical_f1"](truth, truth, above) == 1


def test_probabilistic_f1_is_rsnas():
    truth, probabilities = np.random.default_rng(0).integers(0, 2, 40), np.random.default_rng(1).random(40)
    hits = sum(probabilities[row] for row in range(40) if truth[row])
    false = sum(probabilities[row] for row in range(40) if not truth[row])
    precision, recall = hits / (hits + false), hits / truth.sum()
    value = loaded()["probabilistic_f1"](truth, probabilities)
    assert value == pytest.approx(2 * precision * recall / (precision + recall))
