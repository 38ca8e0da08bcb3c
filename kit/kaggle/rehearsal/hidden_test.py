"""A competition with another test set: what Kaggle does when it reruns a kernel on the hidden one."""

import itertools
import os
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kit.competition.assemble import named_as_in_config
from kit.competition.config import CompetitionConfig
from kit.competition.formats import write_like
from kit.competition.images_config import PixelsConfig
from kit.competition.load import load_test
from kit.competition.observations import Observations, observations_of
from kit.competition.sides import TestSet
from kit.competition.tables import read_table
from kit.competition.templates import fields_of, image_sources
from kit.core.errors import KitError
from kit.core.zips import ZipMember
from kit.data.sources import File, Member, Source, files_of, is_there

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
    # The folder may hold the target.
    apart = {path.resolve() for path in [*files, target] if isinstance(path, Path)}
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
    table = _repeat(test.table.set_index(config.id_column, drop=False), config.id_column, test.ids[:rows], ids)
    if config.predict_by and times > 1:
        table = _other_observations(config, table, rows)
    if config.sample_submission is not None:
        _write(_sample(config, test, table, rows, ids), target / config.sample_submission)
    if config.test is not None:
        _write_test(config, test, rows, ids, target)
    _write_joined(config, test, rows, ids, target)
    if isinstance(config.test_images, PixelsConfig):
        return target
    _empty_archives(test.folder, target, [file for file in files if isinstance(file, ZipMember)])
    copies = image_sources(target, table, config.test_images, "competition.test_images", None)
    _copy_files(copies, test.images[:rows] * times)
    return target


def _empty_archives(folder: Path, target: Path, members: Sequence[ZipMember]) -> None:
    """Write the archives that hold test images anew, without these."""
    for archive in {member.archive for member in members}:
        gone = {member.entry.offset for member in members if member.archive == archive and member.entry}
        copy = target / archive.relative_to(folder)
        copy.unlink()  # a link: writing would change the original
        with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(copy, "w") as made:
            for info in whole.infolist():
                if info.header_offset not in gone:
                    made.writestr(info, whole.read(info))


def _copy_files(copies: Sequence[Source], originals: Sequence[Source]) -> None:
    """Make each copy's files from the original's; where the template is {id}.*, with the original's ending."""
    pairs = [
        (new, old)
        for copy, original in zip(copies, originals, strict=True)
        for new, old in zip(files_of(copy), files_of(original), strict=True)
        if is_there(old) and not is_there(new)
    ]
    inside_zips: dict[Path, dict[str, File]] = {}
    for new, old in pairs:
        suffix = old.suffix if str(new).endswith(".*") else ""
        if isinstance(new, ZipMember):
            name = new.name.removesuffix(".*") + suffix if suffix else new.name
            inside_zips.setdefault(new.archive, {})[name] = old
            continue
        path = new.with_suffix(suffix) if suffix else new
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(old, ZipMember):
            path.write_bytes(old.read())
        elif not path.exists():
            _link(old, path)
    for archive, contents in inside_zips.items():
        with zipfile.ZipFile(archive, "a") as made:
            for name, old in contents.items():
                made.writestr(name, old.read() if isinstance(old, ZipMember) else old.read_bytes())


def _write_test(config: CompetitionConfig, test: TestSet, rows: int, ids: list[str], target: Path) -> None:
    """Write the test tables of the variant: all rows into the first of the files, none into the others."""
    names = config.files("test")
    tables = [_read(test.folder / name, config, "competition.test") for name in names]
    whole = pd.concat(tables, ignore_index=True)
    # Rows are found by their number where they have no ids.
    keys = whole[config.id] if config.id is not None else pd.Series(map(str, range(1, len(whole) + 1)))
    made = _repeat(whole.set_index(keys), config.id, test.ids[:rows], ids)
    if config.predict_by and len(ids) > rows:
        made = _other_observations(config, made, rows)
    for name, table in zip(names, [made, *(table.iloc[:0] for table in tables[1:])], strict=True):
        _write(table, target / name)


def _read(path: Path, config: CompetitionConfig, key: str) -> pd.DataFrame:
    """A table whose columns are called as the config calls them."""
    return named_as_in_config(read_table(path, key), config, path, [])


def _write_joined(config: CompetitionConfig, test: TestSet, rows: int, ids: list[str], target: Path) -> None:
    """Write what is joined by id with rows for the new ids, which are those of the old ones."""
    new = [(old, name) for old, name in zip(itertools.cycle(test.ids[:rows]), ids, strict=False) if old != name]
    for join in (config.join or ()) if new else ():
        whole = _read(test.folder / join.table, config, "competition.join.table")
        if join.on != config.id:
            continue
        by_id = whole.set_index(join.on, drop=False)
        added = [by_id.loc[[old]].assign(**{join.on: name}) for old, name in new if old in by_id.index]
        _write(pd.concat([whole, *added]), target / join.table)


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


def _repeat(table: pd.DataFrame, id_name: str | None, rows: list[str], ids: list[str]) -> pd.DataFrame:
    """Return the `rows` of a table whose index are ids, as often as needed, under other ids.

    Of a row that is there several times, as in a long form, all are.
    """
    parts = [table.loc[rows]] * max(1, len(ids) // max(1, len(rows)))
    repeated = pd.concat(parts)
    if id_name is None:
        return repeated
    new = iter(ids)
    named = [dict(zip(rows, new, strict=False)) for _ in parts]
    renamed = [names[key] for names, part in zip(named, parts, strict=True) for key in part.index]
    return repeated.assign(**{id_name: renamed})


def _other_observations(config: CompetitionConfig, table: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Return a table of copies of `rows` rows with other observations in each copy."""
    assert config.predict_by is not None, "only to be asked where rows make up observations"
    fields = [config.predict_by.column] if config.predict_by.column else fields_of(config.predict_by.rows)[0]
    column = next((name for name in fields if name != config.id_column), None)
    if column is None:  # the ids tell it, and they are others
        return table
    if column not in table:
        raise KitError(
            f"x5: what tells an observation, the column {column!r}, stands in a joined table, which is not copied"
        )
    cells = table[column].tolist()
    there = list(dict.fromkeys(cells[:rows]))
    times, names = len(table) // rows, _repeated(there, len(table) // rows)
    others = [dict(zip(there, names[copy * len(there) :], strict=False)) for copy in range(times)]
    return table.assign(**{column: [others[row // rows][cell] for row, cell in enumerate(cells)]})


def _sample(
    config: CompetitionConfig, test: TestSet, table: pd.DataFrame, rows: int, ids: list[str]
) -> pd.DataFrame:
    """Return the sample submission of the variant, whose test rows are in `table`."""
    if test.observations:
        return _sample_of_observations(config, test.observations, test, table)
    return _repeat(test.sample.set_index(test.sample_id, drop=False), test.sample_id, test.ids[:rows], ids)


def _sample_of_observations(
    config: CompetitionConfig, there: Observations, test: TestSet, table: pd.DataFrame
) -> pd.DataFrame:
    """Return the sample submission of the observations in the variant's test table."""
    found = observations_of(table, config, "competition.test")
    assert found is not None, "the config says what an observation is"
    origin: dict[str, str] = {}
    for row, name in enumerate(found.of):
        origin.setdefault(name, there.of[row % len(there.of)])
    sample = test.sample.set_index(test.sample_id, drop=False)
    return sample.loc[list(origin.values())].assign(**{test.sample_id: list(origin)})


def _write(table: pd.DataFrame, path: Path) -> None:
    path.unlink(missing_ok=True)  # a link: writing would change the original
    write_like(path, table)


def _link(source: str | Path, target: str | Path) -> None:
    source = os.path.realpath(source)  # a link to a link could lead nowhere from there
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)
