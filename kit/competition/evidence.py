"""What the tables say of each other's labels: lines about what is spelt otherwise, or is no class."""

from collections.abc import Mapping, Sequence

import pandas as pd

from kit.competition.config import CompetitionConfig
from kit.competition.labels import Labels, MultiLabel, label_counts, spelling_of
from kit.competition.lists import parted
from kit.competition.spelling import Spelling, plain, remarks_on_spelling, shown, stripped
from kit.competition.submission import SubmissionFormat
from kit.core.errors import KitError, some

SAMPLE = "competition.sample_submission"


def remarks_on_labels(cells: pd.Series, config: CompetitionConfig, labels: Labels) -> list[str]:
    """Return lines about the spelling of labels in the label column of the train table.

    Parameters
    ----------
    cells : Series
        Every cell as text.
    config : CompetitionConfig
        With the classes that were stated.
    labels : SingleLabel or MultiLabel
        What was made of the cells.
    """
    counts = label_counts(cells, labels)
    lines = remarks_on_spelling(counts, labels.classes, "competition.label", stated=bool(config.classes))
    if isinstance(labels, MultiLabel) and labels.style:
        example = next(cell for cell in cells if stripped(cell))
        lines.append(f"competition.label: cells are lists, like {example}; their items are the labels")
    stated = zip(config.classes or (), labels.classes, strict=False)
    if other := [f"{one!r} is {spelt!r}" for one, spelt in stated if one != spelt]:
        lines.append(f"competition.classes: the train table spells labels otherwise: {some(other, 5)}; it counts")
    return lines


def need_no_lists(cells: pd.Series, config: CompetitionConfig) -> None:
    """Fail where some cells are lists and others are not, and where all are and nothing is said of that.

    Where the classes are listed, the brackets may belong to the labels.
    """
    if config.classes:
        return
    lists, others = parted(cells.unique())
    if not lists:
        return
    if others:
        raise KitError(
            f"competition.label: cells of column {config.label!r} are lists, like {lists[0]}, but others are none "
            f"({some(map(repr, others), 5)}); write all as lists, with [] where there is no label"
        )
    if config.separator:
        return
    example = next(cell for cell in cells if stripped(cell))
    raise KitError(
        f"competition.label: the cells of column {config.label!r} are lists, like {example}; set "
        "competition.separator to what stands between the labels that are handed in, as in "
        "separator: ' ' (or list competition.classes, where the brackets belong to the labels)"
    )


def remarks_on_sample(
    config: CompetitionConfig,
    sample: pd.DataFrame,
    form: SubmissionFormat,
    labels: Labels,
    names: Mapping[str, str],
) -> list[str]:
    """Return lines about what the sample submission says and the classes do not.

    Parameters
    ----------
    config : CompetitionConfig
    sample : DataFrame
        Every cell as text.
    form : SubmissionFormat
        What is handed in.
    labels : SingleLabel or MultiLabel
        Those of the train table.
    names : mapping of str to str
        Class → name.
    """
    if config.sample_submission is None:
        return []
    if form.kind != "labels":
        odd = [
            f"column {column!r} is class {form.labels.classes[place]!r}"
            for column, place in form.class_of.items()
            if len(form.class_of) > 1 and column != form.labels.classes[place]
        ]
        return [f"{SAMPLE}: columns are spelt otherwise than the labels: {some(odd, 5)}"] if odd else []
    (column,) = [name for name in form.columns if name != form.id_column]
    cells = sample[column]
    if cells.empty:
        return []
    lines = _spelt_otherwise(cells, column, form)
    if form.labels.classes != (said := _unless_the_sample_says(labels, config, names)):
        lines.append(
            f"{SAMPLE}: column {column!r} has {some(cells.unique(), 2)} where the train table has "
            f"{some(said, 2)}; handed in are {some(form.labels.classes, 2)}, as in the sample"
        )
    unknown = [text for text in form.labels.unknown(label_counts(cells, form.labels)) if stripped(text)]
    if unknown:
        lines.append(_no_class(cells, column, unknown, form, names))
    may_be_empty = isinstance(form.labels, MultiLabel) and form.labels.may_be_empty
    if not may_be_empty and not any(map(stripped, cells.unique())):
        lines.append(
            f"{SAMPLE}: column {column!r} is empty, so it shows no label; handed in are labels as in the train "
            f"table: {some(shown(form.labels.classes), 5)}"
        )
    return lines


def _spelt_otherwise(cells: pd.Series, column: str, form: SubmissionFormat) -> list[str]:
    """The line about labels that are spelt otherwise than the classes, if there are any."""
    classes, spelling = form.labels.classes, spelling_of(form.labels.classes)
    places = {text: spelling.place(text) for text in label_counts(cells, form.labels)}
    told = [
        f"{text!r} for {classes[place]!r}"
        for text, place in places.items()
        if place is not None and text != classes[place]
    ]
    if not told:
        return []
    return [
        f"{SAMPLE}: column {column!r} spells labels otherwise than the train table: {some(told, 5)}; the train "
        "table's spelling is handed in"
    ]


def _unless_the_sample_says(
    labels: Labels, config: CompetitionConfig, names: Mapping[str, str]
) -> tuple[str, ...]:
    """What would be handed in if the sample said nothing of it."""
    return tuple(names[name] for name in labels.classes) if config.submit_names else labels.classes


def _no_class(
    cells: pd.Series, column: str, unknown: Sequence[str], form: SubmissionFormat, names: Mapping[str, str]
) -> str:
    """The line about what is no class."""
    classes = some(shown(form.labels.classes), 5)
    if cells.nunique() == 1 and set(form.labels.split(cells.iloc[0])) == set(unknown):
        what = f"{cells.iloc[0]!r}, in every row of column {column!r}, is no class; it may only keep the place"
    else:
        odd = set(unknown)
        rows = sum(not odd.isdisjoint(form.labels.split(cell)) for cell in cells)
        are = "is" if len(unknown) == 1 else "are"
        what = f"{some(map(repr, unknown), 5)} {are} no class (column {column!r}, in {rows} of {len(cells)} rows)"
    hint = "; if labels are to be handed in so, the train table has them in another form"
    folded = {plain(name).casefold() for name in form.labels.classes}
    if all(plain(text).casefold() in folded for text in unknown):
        hint = "; the case of letters differs, and Kaggle may tell it apart"
    elif all(Spelling(names.values(), apart=True).place(text) is not None for text in unknown):
        hint = "; they are names of classes: set competition.submit_names"
    return f"{SAMPLE}: {what}; handed in are {classes}{hint}"
