"""The embedded competition: scikit-learn's handwritten digits in Kaggle's layout."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kit.core.files import whole_folder, write_text

SIDE = 32  # pixels; the originals are 8 × 8 with 17 grey levels


def solution_path(folder: Path) -> Path:
    """Return where the test labels stand: beside the competition folder, for `kit grade` and nothing else."""
    return folder.parent / f"{folder.name}-solution.csv"


def write_digits(folder: Path) -> None:
    """Write the competition to `folder` unless it is there: 1,797 PNG files, a stratified 20% as test."""
    if folder.exists():
        return
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    rows = np.arange(len(digits.target))
    train, test = train_test_split(rows, test_size=0.2, stratify=digits.target, random_state=0)
    with whole_folder(folder) as draft:
        for part, members in (("train", np.sort(train)), ("test", np.sort(test))):
            (draft / part).mkdir()
            for row in members:
                # Not compressed: files of the same size everywhere, whatever zlib is there.
                _image(digits.images[row]).save(draft / part / f"{_id(row)}.png", compress_level=0)
        _table(train, digits.target).to_csv(draft / "train.csv", index=False)
        _table(test, None).to_csv(draft / "test.csv", index=False)
        _table(test, np.zeros_like(digits.target)).to_csv(draft / "sample_submission.csv", index=False)
        write_text(solution_path(folder), _table(test, digits.target).to_csv(index=False))


def _id(row: int) -> str:
    return f"d{row:04d}"


def _image(levels: np.ndarray) -> Image.Image:
    grey = np.round(levels * (255 / 16)).astype(np.uint8)
    return Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _table(rows: np.ndarray, labels: np.ndarray | None) -> pd.DataFrame:
    rows = np.sort(rows)
    table = pd.DataFrame({"id": [_id(row) for row in rows]})
    return table if labels is None else table.assign(label=labels[rows])
