"""Miniatures of real competitions' layouts: the same files, tables and kinds of images, a few rows of each.

Each writer makes the folder of one competition and returns the labels of its test rows by id, in the order of the
sample submission. What an image looks like depends on its labels, so that there is something to learn.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

Truth = dict[str, str]

DISEASES = ("complex", "frog_eye_leaf_spot", "healthy", "powdery_mildew", "rust", "scab")
LEAVES = (  # of one photo each, over and over
    *("healthy", "scab", "scab frog_eye_leaf_spot", "complex", "rust", "frog_eye_leaf_spot"),
    *("powdery_mildew", "powdery_mildew complex", "rust complex", "scab"),
)
SPECIES = (
    *("Black-grass", "Charlock", "Cleavers", "Common Chickweed", "Common wheat", "Fat Hen", "Loose Silky-bent"),
    *("Maize", "Scentless Mayweed", "Shepherds Purse", "Small-flowered Cranesbill", "Sugar beet"),
)
FILTERS = ("red", "green", "blue", "yellow")
ATTRIBUTES = {  # of iMet, a few of the thousands; a name may hold a comma
    2: "country::american",
    13: "culture::italian, venice",
    107: "medium::silk",
    784: "tags::men",
    999: "tags::women",
    1092: "dimension::pair",
    2210: "tags::portraits",
    3473: "tags::zodiac",
}


def write_plant_pathology(folder: Path, rows: int = 24, test_rows: int = 6) -> Truth:
    """train.csv (image, labels), photos as JPEG, some lying on their side; no test table."""
    numbers = _numbers(rows + test_rows, digits=16)
    names = [f"{number:016x}.jpg" for number in numbers]
    labels = [LEAVES[row % len(LEAVES)] for row in range(rows + test_rows)]
    for row, (name, label) in enumerate(zip(names, labels, strict=True)):
        place = _made(folder / ("train_images" if row < rows else "test_images"))
        colour = spread_colour([DISEASES.index(each) for each in label.split()], len(DISEASES))
        exif = Image.Exif()
        exif[0x0112] = 6 if row % 3 == 0 else 1
        size = (36, 24) if row % 2 else (24, 36)
        Image.fromarray(noisy(colour, size, row)).save(place / name, quality=90, exif=exif)
    _table(folder / "train.csv", image=names[:rows], labels=labels[:rows])
    _table(folder / "sample_submission.csv", image=names[rows:], labels=["healthy"] * test_rows)
    return dict(zip(names[rows:], labels[rows:], strict=True))


def write_plant_seedlings(folder: Path, rows: int = 36, test_rows: int = 6) -> Truth:
    """train/SPECIES/FILE.png of many sizes, some with an alpha channel or a palette; no tables but the sample."""
    names = [f"{number:09x}.png" for number in _numbers(rows + test_rows, digits=9)]
    labels = [SPECIES[row % len(SPECIES)] for row in range(rows + test_rows)]
    for row, (name, label) in enumerate(zip(names, labels, strict=True)):
        place = _made(folder / "train" / label if row < rows else folder / "test")
        pixels = noisy(spread_colour([SPECIES.index(label)], len(SPECIES)), (20 + row % 7, 20 + row % 5), row)
        image = Image.fromarray(pixels)
        image = image.convert({0: "RGBA", 1: "P"}.get(row % 9, "RGB"))
        image.save(place / name)
    _table(folder / "sample_submission.csv", file=names[rows:], species=["Sugar beet"] * test_rows)
    return dict(zip(names[rows:], labels[rows:], strict=True))


def write_imet(folder: Path, rows: int = 24, test_rows: int = 6) -> Truth:
    """train.csv (id, attribute_ids), labels.csv with more attributes than there are; one attribute in one row."""
    names = [f"{number:032x}" for number in _numbers(rows + test_rows, digits=32)]
    common, rare = list(ATTRIBUTES)[:-1], list(ATTRIBUTES)[-1]
    labels = []
    for row in range(rows + test_rows):
        some = {common[row % len(common)], common[(row * row + 1) % len(common)]} | ({rare} if row == 5 else set())
        labels.append(" ".join(map(str, sorted(some))))
    for row, (name, label) in enumerate(zip(names, labels, strict=True)):
        place = _made(folder / ("train" if row < rows else "test"))
        marks = [list(ATTRIBUTES).index(int(each)) for each in label.split()]
        size = (20, 44) if row % 2 else (40, 20)
        Image.fromarray(noisy(spread_colour(marks, len(ATTRIBUTES)), size, row)).save(place / f"{name}.png")
    _table(folder / "train.csv", id=names[:rows], attribute_ids=labels[:rows])
    known = ATTRIBUTES | {3: "country::never seen"}
    _table(folder / "labels.csv", attribute_id=sorted(known), attribute_name=[known[key] for key in sorted(known)])
    _table(folder / "sample_submission.csv", id=names[rows:], attribute_ids=["0 1 2"] * test_rows)
    return dict(zip(names[rows:], labels[rows:], strict=True))


def write_human_protein_atlas(folder: Path, rows: int = 56, test_rows: int = 6) -> Truth:
    """train.csv (Id, Target) and four grey PNG files an image; all 28 classes have two rows."""
    names = [_uuid(number) for number in _numbers(rows + test_rows, digits=32)]
    labels = [" ".join({str(row % 28): 0, str(row % 5): 0}) for row in range(rows + test_rows)]
    for row, (name, label) in enumerate(zip(names, labels, strict=True)):
        place = _made(folder / ("train" if row < rows else "test"))
        for channel, colour in enumerate(FILTERS):
            level = 40 + 50 * ((int(label.split()[0]) >> channel) & 1) + 30 * channel
            Image.fromarray(noisy((level,), (32, 32), row * 4 + channel)).save(place / f"{name}_{colour}.png")
    _table(folder / "train.csv", Id=names[:rows], Target=labels[:rows])
    _table(folder / "sample_submission.csv", Id=names[rows:], Predicted=["0"] * test_rows)
    return dict(zip(names[rows:], labels[rows:], strict=True))


def write_digit_recognizer(folder: Path, rows: int = 40, test_rows: int = 8) -> Truth:
    """train.csv (label, pixel0 … pixel783), test.csv (pixel0 … pixel783), sample (ImageId from 1, Label)."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = [row % 10 for row in range(rows + test_rows)]
    pixels = np.stack([digit_pixels(label, row) for row, label in enumerate(labels)]).reshape(len(labels), -1)
    columns = [f"pixel{place}" for place in range(784)]
    train = pd.DataFrame(pixels[:rows], columns=columns)
    train.insert(0, "label", labels[:rows])
    train.to_csv(folder / "train.csv", index=False)
    pd.DataFrame(pixels[rows:], columns=columns).to_csv(folder / "test.csv", index=False)
    ids = [str(row + 1) for row in range(test_rows)]
    _table(folder / "sample_submission.csv", ImageId=ids, Label=["0"] * test_rows)
    return dict(zip(ids, map(str, labels[rows:]), strict=True))


def digit_pixels(label: int, row: int) -> np.ndarray:
    """uint8 [28, 28]: a bar whose height is the digit, with some noise."""
    pixels = np.zeros((28, 28), dtype=np.uint8)
    pixels[28 - 2 * (label + 2) :, 8:20] = 220
    return pixels + np.random.default_rng(row).integers(0, 30, (28, 28)).astype(np.uint8)


WRITERS: dict[str, Callable[[Path], Truth]] = {
    "plant-pathology-2021-fgvc8": write_plant_pathology,
    "plant-seedlings-classification": write_plant_seedlings,
    "imet-2020-fgvc7": write_imet,
    "human-protein-atlas-image-classification": write_human_protein_atlas,
    "digit-recognizer": write_digit_recognizer,
}


def small(folder: Path, *overrides: str) -> list[str]:
    """Overrides under which any of the shipped configs trains on its miniature in seconds, on the CPU."""
    return [
        f"competition.path={folder}",
        "folds.k=2",
        "folds.run=all",
        "data.size=32",
        "data.crop_pct=1.0",
        "data.workers=0",
        "model.name=test_resnet",
        "model.weights=none",
        "model.drop=0.0",
        "training.epochs=2",
        "training.batch_size=8",
        "training.device=cpu",
        *overrides,
    ]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _table(path: Path, **columns: Iterable) -> None:
    _made(path.parent)
    pd.DataFrame({name: list(cells) for name, cells in columns.items()}, dtype=str).to_csv(path, index=False)


def _numbers(count: int, digits: int) -> list[int]:
    """Different hexadecimal numbers in no order."""
    generator = np.random.default_rng(count)
    return [int("".join(f"{digit:x}" for digit in generator.integers(0, 16, digits)), 16) for _ in range(count)]


def _uuid(number: int) -> str:
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def spread_colour(marks: Sequence[int], of: int) -> tuple[int, int, int]:
    """The mean colour of the marks, spread over the wheel."""
    angles = [2 * np.pi * mark / of for mark in marks]
    return tuple(
        int(128 + 100 * np.mean([np.cos(angle - shift) for angle in angles])) for shift in (0.0, 2.09, 4.19)
    )


def noisy(colour: Sequence[int], size: tuple[int, int], seed: int) -> np.ndarray:
    """uint8 [height, width, channels], without the last axis where there is one channel."""
    noise = np.random.default_rng(seed).integers(-20, 21, (*size, len(colour)))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8).squeeze()
