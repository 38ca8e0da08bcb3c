"""A first config from a folder: what `python -m kit init` does."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit.competition.find_groups import suspected_groups
from kit.competition.folds import check_folds
from kit.competition.folds_config import FoldsConfig
from kit.competition.guess import CompetitionGuess, guess_competition
from kit.competition.load import Competition, load_competition, load_labels
from kit.competition.survey import DICOM, Survey, survey, words_in
from kit.core.errors import KitError
from kit.core.files import need_output, write_text
from kit.data.glance import Glance, glance
from kit.experiment.config import load_experiment, validate
from kit.experiment.first_config import (
    Known,
    Section,
    config_text,
    data_section,
    folds_section,
    scoring_section,
    training_sections,
)

DATES = frozenset({"date", "datetime", "time", "timestamp", "year", "observed", "captured"})
DATE = r"\d{4}-\d{1,2}-\d{1,2}([ T].*)?|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}( .*)?"
MOST_ROWS = 300_000  # among which groups are looked for


@dataclass(frozen=True)
class InitResult:
    """A first config that was written.

    Attributes
    ----------
    config
        The file.
    found
        Lines about what is in the folder.
    guesses
        What was guessed, and what each guess rests on: `key: value (reason)`.
    questions
        What could not be decided.
    fault
        Why the config does not load yet, with the key to mend; "" where it loads.
    """

    config: Path
    found: list[str]
    guesses: list[str]
    questions: list[str]
    fault: str


def init(folder: str | Path, output: str | Path | None = None) -> InitResult:
    """Look at a competition's folder and write a config with what was found, guesses and questions in comments.

    Parameters
    ----------
    folder : path
        Holds tables and images; a relative path counts from where the command runs, in the config, too.
    output : path, optional
        The config, which is not there yet; left out: the folder's name and .yaml.

    Returns
    -------
    InitResult
        `fault` tells where the config was written but does not load yet.

    Raises
    ------
    KitError
        Where the folder holds no images, or nothing that tells their labels; where the config is there already.
    """
    folder = Path(folder).expanduser()
    found = survey(folder)
    name = _name_of(folder)
    config = Path(output) if output is not None else Path(f"{name}.yaml")
    need_output("--output", str(config), (".yaml", ".yml"))
    if config.exists():
        raise KitError(f"{config} is there already; give another with -o FILE, or remove it")
    guess = guess_competition(found)
    competition, labels, fault = _loaded(folder, name, guess)
    sections = _sections(found, guess, competition, labels)
    head = [
        f"{name}: a first config, by `python -m kit init`. A guess tells what it rests on; a question is open:",
        "what the folder does not say, the competition's page does.",
    ]
    write_text(config, config_text(name, head, sections))
    lines = [(section.name, line) for section in sections for line in section.lines]
    return InitResult(
        config=config,
        found=_said(found, guess, competition),
        guesses=[f"{where}.{line.key}: {line.why}" for where, line in lines if line.why],
        questions=[question for _, line in lines for question in line.questions],
        fault=fault or _fault(config, competition),
    )


def _name_of(folder: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")[:80]
    return name or "my-competition"


def _loaded(folder: Path, name: str, guess: CompetitionGuess) -> tuple[Competition | None, Known | None, str]:
    """The competition by what was guessed, and what is known of the labels; where it does not load, why."""
    images = guess.settings["train_images"]
    content = {
        "name": name,
        "policies": {"uniform": {"lr": 1e-2}},
        "data": {"channels": len(images)} if isinstance(images, list) else {},
        "competition": {"path": str(folder)} | guess.settings,
    }
    labels = None
    try:
        experiment = validate(content, "as it was guessed")
        labels = load_labels(experiment.competition)
        competition = load_competition(experiment.competition)
    except KitError as error:
        return None, labels, str(error).splitlines()[0]
    return competition, competition, ""


def _fault(config: Path, competition: Competition | None) -> str:
    """Why the config that was written would not run; "" for no reason."""
    try:
        experiment = load_experiment(config)
        if competition is None:
            competition = load_competition(experiment.competition)
        check_folds(experiment.folds, competition.classes, competition.targets)
    except KitError as error:
        return str(error).splitlines()[0]
    return ""


def _sections(
    found: Survey,
    guess: CompetitionGuess,
    competition: Competition | None,
    labels: Known | None,
) -> list[Section]:
    first = Section("competition")
    first.add("path", found.folder.as_posix())
    for key, value in guess.settings.items():
        asked = [question for about, question in guess.questions if about == key]
        first.add(key, value, guess.reasons.get(key, ""), asked)
    images = guess.settings["train_images"]
    channels = None
    if isinstance(images, list):
        channels = len(images), "as many as an image has files"
    elif guess.files and all(Path(file).suffix.lower() in DICOM for file in guess.files):
        channels = 1, "DICOM is mostly grey"
    side = None
    if isinstance(images, dict) and "columns" in images:
        side = math.isqrt(found.pixels[guess.settings["train"]].count)
    seen: Glance | None = glance(found.folder, guess.files) if guess.files else None
    data, size = data_section(seen, channels, side)
    asked = _on_groups(guess, competition) if competition else []
    scoring = scoring_section(labels, guess.one_a_row)
    return [first, folds_section(labels, asked), data, *training_sections(size, labels), scoring]


def _on_groups(guess: CompetitionGuess, competition: Competition) -> list[str]:
    """Questions about rows that may belong together, and about dates."""
    table, label = competition.train, guess.settings["label"]
    labels = label if isinstance(label, list) else [label]
    asked = []
    if len(table) <= MOST_ROWS:
        together = competition.observations.codes if competition.observations else None
        groups = suspected_groups(
            competition.ids,
            table,
            competition.targets,
            FoldsConfig(),
            str(guess.settings["id"] or "id"),
            labels,
            joined=together,
        )
        for each in groups[:3]:
            asked.append(
                f"rows with the same {each.what.removeprefix('column ')} may belong together "
                f"({each.groups} groups; {each.evidence}): {each.setting}?"
            )
    for column in table.columns.drop([name for name in labels if name in table.columns]):
        if _is_date(table[column]):
            asked.append(
                f"are the test rows later than these? then folds are to be, too, by {column}: time: {column}"
            )
    return asked


def _is_date(cells: pd.Series) -> bool:
    name = str(cells.name)
    texts = cells.unique()[:1000]
    dated = len(texts) > 1 and all(re.fullmatch(DATE, text.strip()) for text in texts)
    return dated or bool(DATES & set(words_in(name)) and len(texts) > 1)


def _said(found: Survey, guess: CompetitionGuess, competition: Competition | None) -> list[str]:
    settings = guess.settings
    tables = ", ".join(f"{name} ({len(table)} rows)" for name, table in list(found.tables.items())[:10])
    images = f"{len(found.images)} images" if found.images else "no image files"
    lines = [f"{found.folder}: {images}; {f'tables: {tables}' if tables else 'no tables'}"]
    source = settings["train"] or "folders"
    label = settings["label"] if isinstance(settings["label"], str) else f"{len(settings['label'])} columns"
    lines.append(f"labels: {label} of {source}; images: {_template(settings['train_images'])}")
    if competition is not None:
        several = "several labels a row" if competition.targets.ndim == 2 else "one label a row"
        lines.append(
            f"{len(competition.ids)} training rows, {len(competition.classes)} classes, {several}; "
            f"{len(competition.test_ids)} test rows"
        )
        lines += competition.remarks
    return lines


def _template(images: object) -> str:
    if isinstance(images, dict):
        return _template(next(iter(images.values())))
    return (
        ", ".join(map(str, images))
        if isinstance(images, Sequence) and not isinstance(images, str)
        else str(images)
    )
