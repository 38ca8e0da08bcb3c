"""The text of a first config: keys, values, and in comments why they are so and what is open."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kit.competition.load import Competition
from kit.competition.train_labels import TrainLabels
from kit.core.yaml import in_one_line
from kit.data.glance import Glance

WIDTH = 115
DEFAULT_SIDE = 224
MOST_TARGETS = 20_000_000  # rows × classes, from which on stratified folds of several labels take hours


Known = Competition | TrainLabels


@dataclass(frozen=True)
class Line:
    """A key of the config.

    Attributes
    ----------
    key, value
        As they are written.
    why
        Of a guess: what it rests on.
    questions
        What is open.
    remark
        A comment that is neither.
    """

    key: str
    value: Any
    why: str = ""
    questions: tuple[str, ...] = ()
    remark: str = ""


@dataclass
class Section:
    """A section of the config, its keys in order."""

    name: str
    lines: list[Line] = field(default_factory=list)

    def add(self, key: str, value: Any, why: str = "", questions: Sequence[str] = (), remark: str = "") -> None:
        """Add a key."""
        self.lines.append(Line(key, value, why, tuple(questions), remark))


def config_text(name: str, head: Sequence[str], sections: Sequence[Section]) -> str:
    """Return the config as YAML with its comments."""
    parts = ["\n".join([*_comment(" ".join(head), ""), f"name: {in_one_line(name)}"])]
    for section in sections:
        inner, indent = (section.lines, "  ")
        rows = [f"{section.name}:"]
        if [line.key for line in inner] == [""]:  # a value of its own, and no section
            rows, indent = [], ""
        for line in inner:
            rows += _written(line, indent, section.name)
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _written(line: Line, indent: str, section: str) -> list[str]:
    row = f"{indent}{line.key or section}: {in_one_line(line.value)}"
    note = f"guess: {line.why}" if line.why else line.remark
    above: list[str] = []
    if note and len(row) + 3 + len(note) <= WIDTH:
        row = f"{row}  # {note}"
    elif note:
        above = _comment(note, indent)
    below = [text for question in line.questions for text in _comment(f"question: {question}", indent)]
    return [*above, row, *below]


def _comment(text: str, indent: str) -> list[str]:
    lead = f"{indent}# "
    return textwrap.wrap(
        text, WIDTH, initial_indent=lead, subsequent_indent=lead, break_on_hyphens=False, break_long_words=False
    )


def folds_section(known: Known | None, asked: Sequence[str]) -> Section:
    """Return how the rows are dealt to folds: no more than a class has rows."""
    section = Section("folds")
    if known is None:
        section.add("k", 5, questions=asked)
    else:
        targets, classes = known.targets, known.label_format.classes
        single = targets.ndim == 1
        counts = [int((targets == at).sum()) for at in range(len(classes))] if single else [len(targets)]
        fewest = min(counts)
        alone = sum(count == 1 for count in counts) if single else 0
        k = min(5, len(targets)) if alone else max(2, min(5, fewest))
        section.add("k", k, "the rarest class has no more rows" if single and k < 5 else "", questions=asked)
        if alone:
            what = f"class {classes[counts.index(1)]!r} has" if alone == 1 else f"{alone} classes have"
            section.add("stratify", False, f"{what} a single row, which cannot be dealt to several folds")
        elif not single and targets.size > MOST_TARGETS:
            section.add("stratify", False, "dealing so many rows and classes evenly takes hours")
    section.add("seed", 0)
    return section


def data_section(
    seen: Glance | None, channels: tuple[int, str] | None, pixels_side: int | None
) -> tuple[Section, int]:
    """Return how images are read, and the side of the square that the network sees.

    Parameters
    ----------
    seen : Glance or None
        What the images look like; None where none could be looked at, or pixels stand in a table.
    channels : (int, str) or None
        How many, and why; None: the images tell.
    pixels_side : int or None
        Of images whose pixels stand in a table.
    """
    section = Section("data")
    if pixels_side is not None:
        side, why = max(8, pixels_side), ""
    elif seen is None:
        side, why = DEFAULT_SIDE, "none of the images could be looked at"
    else:
        side = next((each for most, each in ((48, 32), (80, 64), (160, 128)) if seen.side <= most), DEFAULT_SIDE)
        why = f"short sides have a median of {seen.side} pixels, in {seen.count} images; smaller is faster"
    section.add("size", side, why)
    if channels is not None:
        section.add("channels", *channels)
    elif pixels_side is not None or (seen is not None and seen.grey):
        section.add("channels", 1, "all are grey")
    if seen is not None and seen.widest > 1.3 * seen.narrowest:
        why = f"width by height goes from {seen.narrowest:.2g} to {seen.widest:.2g}; crop cuts the middle out"
        section.add("resize", "pad", why)
    questions = ["does a mirrored image keep its label? if not, name augmentations without a flip"]
    section.add("augment", "light", questions=questions)
    return section, side


def training_sections(side: int, known: Known | None) -> list[Section]:
    """Return model, policy and training that suit a laptop and need no network."""
    model = Section("model")
    name = "tf_efficientnet_lite0" if side >= 96 else "resnet18"
    pretrained = (
        "from scratch, which needs no network. Pretrained weights give more: weights: hub (or the path of a "
        "weight file), and policies: fine_tune"
    )
    model.add("", {"name": name, "weights": "none"}, remark=pretrained)
    policies = Section("policies")
    policies.add(
        "", "uniform", remark="one-cycle, the same rate for all layers; the others: python -m kit policies"
    )
    training = Section("training")
    training.add("epochs", 10, remark="more, where the score still rises at the end")
    rows = len(known.ids) if known else 1000
    batch = 32
    while batch > 2 and batch * 8 > rows:
        batch //= 2
    training.add("batch_size", batch)
    training.add("optimizer", {"name": "adamw", "weight_decay": 0.01})
    return [model, policies, training]


def scoring_section(known: Known | None, one_a_row: bool) -> Section:
    """Return the metric, which nothing in a folder tells."""
    section = Section("scoring")
    kinds = ["micro", "weighted"]
    if known is not None and known.targets.ndim == 2:
        kinds.append("samples")
    elif known is not None and len(known.label_format.classes) == 2:
        kinds.append("binary")
    section.add("average", "macro", questions=[f"which F1 does the competition score by? also {', '.join(kinds)}"])
    if one_a_row:
        section.add("at_least", 1, "each row has exactly one label")
        section.add("at_most", 1)
    return section
