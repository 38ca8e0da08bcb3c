"""Miniatures of competitions without a sample, in COCO's JSON, or of several images a prediction.

Each writer makes the folder of one competition and returns what is right for its test rows: the label by the id
that is handed in. What an image looks like depends on its label.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from support.miniatures import Truth, noisy, spread_colour

BREEDS = ("Barbari", "Goat", "Harri", "Naeimi", "Najdi", "Roman", "Sawakni")
SPECIES = tuple(str(number) for number in (0, 1, 2, 5, 8, 13, 100, 1021))  # numbers with gaps, as taxa go extinct
SNAKES = ("3", "7", "12", "1504")


def write_sheep(folder: Path, rows: int = 28, test_rows: int = 7) -> Truth:
    """train_labels.csv (filename, label), photos in train/ and in test/; nothing else."""
    labels = [BREEDS[row % len(BREEDS)] for row in range(rows + test_rows)]
    names = [f"{0x9E3779B1 * (row + 1) % 2**32:08x}.jpg" for row in range(rows + test_rows)]
    for row, (name, label) in enumerate(zip(names, labels, strict=True)):
        save_photo(folder / ("train" if row < rows else "test") / name, BREEDS.index(label), len(BREEDS), row)
    write_table(folder / "train_labels.csv", filename=names[:rows], label=labels[:rows])
    return dict(sorted(zip(names[rows:], labels[rows:], strict=True)))


def write_herbarium(folder: Path, rows: int = 32, test_rows: int = 8) -> Truth:
    """train_metadata.json as COCO's, test_metadata.json a list of images, a sample (Id, Predicted)."""
    labels = [SPECIES[row % len(SPECIES)] for row in range(rows + test_rows)]
    images = []
    for row, label in enumerate(labels):
        part, number = ("train", row) if row < rows else ("test", row - rows)
        name = (
            f"{int(label) % 10:03d}/{number:02d}__{row:03d}.jpg"
            if part == "train"
            else f"000/test-{number:06d}.jpg"
        )
        save_photo(folder / f"{part}_images" / name, SPECIES.index(label), len(SPECIES), row)
        identity = f"{int(label):05d}__{row:03d}" if part == "train" else str(number)
        images.append({"image_id": identity, "file_name": name, "license": 0})
    annotations = [
        {
            "genus_id": int(label) % 3,
            "institution_id": row % 4,
            "category_id": int(label),
            "image_id": image["image_id"],
        }
        for row, (image, label) in enumerate(zip(images[:rows], labels, strict=False))
    ]
    categories = [
        {"category_id": int(label), "scientificName": f"Abies {label}", "genus_id": 1} for label in SPECIES
    ]
    content = {"annotations": annotations[::-1], "images": images[:rows], "categories": categories}
    content |= {"license": [{"id": 0, "name": "CC0"}], "institutions": [{"institution_id": 0}]}
    (folder / "train_metadata.json").write_text(json.dumps(content))
    (folder / "test_metadata.json").write_text(json.dumps(images[rows:]))
    ids = [str(row) for row in range(test_rows)]
    write_table(folder / "sample_submission.csv", Id=ids, Predicted=["42"] * test_rows)
    return dict(zip(ids, labels[rows:], strict=True))


def write_snakes(folder: Path, observations: int = 24, test_observations: int = 6) -> Truth:
    """Tables with a row a photo; observations of one to three photos, and no sample submission."""
    train, test, truth = [], [], {}
    for number in range(observations + test_observations):
        label, name = SNAKES[number % len(SNAKES)], str(7_000_000 + 37 * (number * 7 % 31))
        common = {"observation_id": name, "endemic": "True" if number % 3 else "False", "code": "unknown"}
        for photo in range(1 + number % 3):
            path = f"{1990 + number}/Vipera_{label}/{number:03d}_{photo}.jpeg"
            row = common | {"class_id": label, "file_path": path}
            if number < observations:
                train.append(row | {"binomial_name": f"Vipera {label}"})
                place = folder / "SnakeCLEF2022-large_size" / path
            else:
                row["file_path"] = path = f"{1990 + number}/{number:03d}_{photo}.jpeg"
                test.append({key: cell for key, cell in row.items() if key != "class_id"})
                place = folder / "SnakeCLEF2022-test_images/SnakeCLEF2022-large_size" / path
                truth[name] = label
            save_photo(place, SNAKES.index(label), len(SNAKES), 10 * number + photo)
    pd.DataFrame(train).to_csv(folder / "SnakeCLEF2022-TrainMetadata.csv", index=False)
    pd.DataFrame(test).to_csv(folder / "SnakeCLEF2022-TestMetadata.csv", index=False)
    return truth


def write_mammograms(folder: Path, patients: int = 16, test_patients: int = 4) -> Truth:
    """train.csv, test.csv and sample_submission.csv; DICOM files of 12 bits, some with inverted grey levels."""
    tables: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    truth: Truth = {}
    for number in range(patients + test_patients):
        part = "train" if number < patients else "test"
        patient = str(10_000 + 13 * number)
        for side in "LR":
            label = str(int((number + (side == "R")) % 3 == 0))
            for view in ("CC", "MLO"):
                image = str(1_000_000 + len(tables["train"]) * 17 + len(tables["test"]) * 31 + 5)
                row = {"site_id": "1", "patient_id": patient, "image_id": image, "laterality": side, "view": view}
                if part == "train":
                    row |= {"age": str(50 + number), "cancer": label, "density": "B" if number % 2 else ""}
                else:
                    row |= {"age": str(50 + number), "prediction_id": f"{patient}_{side}"}
                    truth[f"{patient}_{side}"] = label
                tables[part].append(row)
                seed = len(tables["train"]) + 1000 * len(tables["test"])
                place = folder / f"{part}_images" / patient / f"{image}.dcm"
                save_dicom(place, int(label), seed, inverted=number % 4 == 1)
    for part, rows in tables.items():
        pd.DataFrame(rows).to_csv(folder / f"{part}.csv", index=False)
    write_table(folder / "sample_submission.csv", prediction_id=list(truth), cancer=["0.021"] * len(truth))
    return truth


WRITERS: dict[str, Callable[[Path], Truth]] = {
    "sheep-classification-challenge-2025": write_sheep,
    "herbarium-2022-fgvc9": write_herbarium,
    "snakeclef2022": write_snakes,
    "rsna-breast-cancer-detection": write_mammograms,
}


def save_photo(path: Path, mark: int, of: int, seed: int) -> None:
    """A JPEG of 24 × 36 or 36 × 24 pixels in the colour of the mark."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (36, 24) if seed % 2 else (24, 36)
    Image.fromarray(noisy(spread_colour([mark], of), size, seed)).save(path, quality=90)


def save_dicom(path: Path, label: int, seed: int, inverted: bool) -> None:
    """A DICOM file of 40 × 32 grey levels of 12 bits: a bright square on the dark, larger where the label is 1."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    levels = np.random.default_rng(seed).integers(0, 400, (40, 32))
    reach = 14 if label else 5
    levels[20 - reach : 20 + reach, 16 - reach : 16 + reach] += 3000
    levels = (4095 - levels if inverted else levels).astype(np.uint16)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(seed)])
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.Rows, file.Columns = levels.shape
    file.SamplesPerPixel, file.BitsAllocated, file.BitsStored, file.HighBit = 1, 16, 12, 11
    file.PixelRepresentation = 0
    file.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    file.WindowCenter, file.WindowWidth = 2048, 4096
    file.PixelData = levels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)


def write_table(path: Path, **columns: list[str]) -> None:
    """A CSV file of these columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns, dtype=str).to_csv(path, index=False)
