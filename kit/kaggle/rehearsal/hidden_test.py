"""A competition with another test set: what Kaggle does when it reruns a kernel on the hidden one."""

import os
import re
import shutil
from pathlib import Path

import pandas as pd

from kit.competition.config import CompetitionConfig, PixelsConfig
from kit.competition.load import TestSet, load_test
from kit.competition.tables import read_table
from kit.competition.templates import image_sources
from kit.core.errors import KitError
from kit.core.files import write_text
from kit.data.sources import Member, files_of

SIZES = ("0", "1", "3", "x5")


def write_variant(config: CompetitionConfig, target: Path, size: str) -> Path:
    """Write a copy of the competition with another test set.

    Files are hard links where the disk allows it, so nothing may write into the copy.

    Parameters
    ----------
    config : CompetitionConfig
        The competition as it is.
    target : Path
        The folder of the copy, which must not be there yet.
    size : str
        `0`, `1` or `3`: the first rows of the test set; `x5`: all of them, and four times again with new ids.

    Returns
    -------
    Path
        `target`.
    """
    if size not in SIZES:
        raise KitError(f"a test set of {size!r} rows: expected one of {', '.join(SIZES)}")
    if config.tables:
        raise KitError(
            f"--test-rows: tables of another size are written as CSV files, which {config.tables.name} may not "
            "read; rehearse with the test set as it is"
        )
    test = load_test(config)
    inner = [image for image in test.images if isinstance(image, Member)]
    if inner and size == "x5":
        raise KitError(
            f"--test-rows: new ids have no images in {inner[0].container.name}; rehearse with fewer rows, or with "
            "the test set as it is"
        )
    files = {file for image in test.images if not isinstance(image, Member) for file in files_of(image)}
    apart = {path.resolve() for path in [*files, target]}  # the folder may hold the target
    shutil.copytree(
        test.folder,
        target,
        copy_function=_link,
        ignore=lambda folder, names: [name for name in names if (Path(folder) / name).resolve() in apart],
    )
    times = 5 if size == "x5" else 1
    rows = len(test.ids) if size == "x5" else min(int(size), len(test.ids))
    counted = config.id is None and config.test is not None
    ids = [str(row + 1) for row in range(rows * times)] if counted else _repeated(test.ids[:rows], times)
    _write(test.sample, test.sample_id, test.ids[:rows], ids, target / config.sample_submission)
    if config.test is None:
        table = pd.DataFrame({config.id_column: ids})
    else:
        table = _write_test(config, config.test, test, rows, ids, target)
    if isinstance(config.test_images, PixelsConfig):
        return target
    copies = image_sources(target, table, config.test_images, "competition.test_images", None)
    for copy, original in zip(copies, test.images[:rows] * times, strict=True):
        for new, old in zip(files_of(copy), files_of(original), strict=True):
            if old.is_file() and not new.exists():
                new.parent.mkdir(parents=True, exist_ok=True)
                _link(old, new)
    return target


def _write_test(
    config: CompetitionConfig, name: str, test: TestSet, rows: int, ids: list[str], target: Path
) -> pd.DataFrame:
    """Write the test table of the variant, the file `name`, and return it with a column of ids."""
    whole, path = read_table(test.folder / name, "competition.test"), target / name
    if config.id is not None:
        return _write(whole, config.id, test.ids[:rows], ids, path)
    # Rows are found by their number, which a column holds for as long as it takes.
    numbered = whole.assign(**{config.id_column: [str(row + 1) for row in range(len(whole))]})
    table = _write(numbered, config.id_column, test.ids[:rows], ids, path)
    write_text(path, table.drop(columns=config.id_column).to_csv(index=False, lineterminator="\n"))
    return table


def _repeated(ids: list[str], times: int) -> list[str]:
    """Return the ids, and again with other names, all different: numbers stay numbers, a.png becomes a_1.png."""
    if all(name.isascii() and name.isdigit() for name in ids):
        beyond = 10 ** max(map(len, ids), default=0)
        numbers = [str(int(name) + copy * beyond) for copy in range(1, times) for name in ids]
        if len({*ids, *numbers}) == times * len(ids):  # not so where 7 and 007 are two ids
            return ids + numbers
    mark = "_"
    while True:
        names = [
            re.sub(r"(\.\w+)?$", rf"{mark}{copy}\1", name, count=1) for copy in range(1, times) for name in ids
        ]
        if len({*ids, *names}) == times * len(ids):
            return ids + names
        mark += "_"


def _write(table: pd.DataFrame, id_name: str, rows: list[str], ids: list[str], path: Path) -> pd.DataFrame:
    """Write the table's `rows`, as often as needed, under other ids."""
    by_id = table.set_index(table[id_name])
    repeated = pd.concat([by_id.loc[rows]] * max(1, len(ids) // max(1, len(rows))))
    repeated[id_name] = ids
    path.unlink(missing_ok=True)  # a link: writing would change the original
    write_text(path, repeated.to_csv(index=False, lineterminator="\n"))
    return repeated


def _link(source: str | Path, target: str | Path) -> None:
    source = os.path.realpath(source)  # a link to a link could lead nowhere from there
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)
