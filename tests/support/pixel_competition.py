"""A competition whose images are a pixel in the table, so that no image file is needed."""

from pathlib import Path

from kit.competition.config import CompetitionConfig


def pixel_competition(folder: Path, train: str, sample: str, **options) -> CompetitionConfig:
    """Write the tables, lines of cells with `|` between them, and return their config.

    A column `pixel0` is added to the train table; the test rows are those of the sample submission, with a pixel.
    """
    _write(folder / "train.csv", train, "pixel0")
    _write(folder / "sample_submission.csv", sample)
    ids = [line.split("|")[0] for line in sample.strip("\n").split("\n")][1:]
    _write(folder / "test.csv", "\n".join([options.get("id", "id"), *ids]), "pixel0")
    images = {"columns": "pixel*"}
    return CompetitionConfig(**{"path": str(folder), "train_images": images, "test_images": images} | options)


def _write(path: Path, lines: str, pixel: str = "") -> None:
    rows = [line.split("|") for line in lines.strip("\n").split("\n")]
    if pixel:
        rows = [[*cells, pixel if not row else "7"] for row, cells in enumerate(rows)]
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in cells) for cells in rows]
    path.write_text("\n".join(quoted) + "\n", encoding="utf-8")
