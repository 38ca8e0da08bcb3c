"""Finding row groups that the train table seems to hold, such as frames of one video."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd

from kit.competition.folds import group_texts
from kit.competition.folds_config import FoldsConfig

SEPARATORS = r"[_\-./:\s]+"
# fmt: off
TELLING = frozenset({
    "animal", "artist", "author", "burst", "camera", "case", "clip", "episode", "group", "hospital",
    "individual", "lesion", "location", "participant", "patient", "person", "plate", "player", "plot",
    "scene", "sequence", "series", "session", "site", "slide", "specimen", "speaker", "station", "study",
    "subject", "track", "trap", "user", "vehicle", "video", "wafer", "writer",
})
# fmt: on
NOT_GROUPS = frozenset({"fold", "folds", "kfold", "split", "index", "weight"})
FEWEST_PAIRS = 5  # near-identical ones, from which on they say something


@dataclass(frozen=True)
class SuspectedGroups:
    """A way to tell row groups by a column of the train table, and what speaks for it.

    Attributes
    ----------
    what
        Like `column track`, `beginning of id`, `runs of id`.
    column
        Of the train table.
    pattern
        Searched in its text; None: the whole text tells the row group.
    groups
        How many row groups.
    typical, largest
        Rows of the median row group, and of the largest.
    evidence
        What speaks for it, in words.
    setting
        What to write into the config; "" where the config says so already.
    """

    what: str
    column: str
    pattern: str | None
    groups: int
    typical: float
    largest: int
    evidence: str
    setting: str


@dataclass(frozen=True)
class GroupEvidence:
    """What is known of the rows, by which candidates are judged.

    Attributes
    ----------
    labels
        int64 [rows], one number for each set of labels.
    pairs
        int64 [pairs, 2], of rows with near-identical images.
    k
        Number of folds.
    """

    labels: np.ndarray
    pairs: np.ndarray
    k: int


@dataclass(frozen=True)
class Candidate:
    """A way to tell row groups that is yet to be judged.

    Attributes
    ----------
    what, column, pattern
        As in `SuspectedGroups`.
    codes
        int64 [rows]: the row group of each row.
    """

    what: str
    column: str
    pattern: str | None
    codes: np.ndarray


def suspected_groups(
    ids: Sequence[str],
    table: pd.DataFrame,
    targets: np.ndarray,
    folds: FoldsConfig,
    id_column: str = "id",
    skip: Collection[str] = (),
    pairs: np.ndarray | None = None,
    joined: np.ndarray | None = None,
) -> list[SuspectedGroups]:
    """Find columns whose values repeat, beginnings of ids and runs of ids that look like row groups.

    Row groups that are the classes under another name, or unrelated to labels and pairs, are not reported; so
    that a patient's column is, a telling name suffices.

    Parameters
    ----------
    ids : sequence of str
        Of the training rows.
    table : DataFrame
        The train table as text, aligned with `ids`.
    targets : ndarray
        Class indices [rows], or bool [rows, classes].
    folds : FoldsConfig
        How many folds there are, and the row groups that are set already: of these and of what they hold together
        it is said that they are set, and nothing else.
    id_column : str
        The column of the table that holds the ids.
    skip : collection of str
        Columns that are no candidates: those of the labels.
    pairs : ndarray, optional
        int64 [pairs, 2], of rows with near-identical images.
    joined : ndarray, optional
        int64 [rows]: rows with the same number are in one fold anyway (see competition.predict_by).

    Returns
    -------
    list of SuspectedGroups
        Columns first, then beginnings of ids; runs of ids where there is nothing else.
    """
    rows = GroupEvidence(_numbered(targets), np.empty((0, 2), np.int64) if pairs is None else pairs, folds.k)
    skipped = {*skip, *(name for name in (folds.time, folds.column) if name)}
    columns = [name for name in table.columns if name != id_column and name not in skipped]
    current = _current(table, folds)
    found: list[SuspectedGroups] = []
    if current is not None:
        found.append(_suspect(current, _Evidence.of(current.codes, rows), rows, already=True))
    kept = [codes for codes in (current.codes if current else None, joined) if codes is not None]
    unique = [id_column, *(name for name in columns if table[name].is_unique)]
    texts = {id_column: pd.Series(ids, dtype=object)} | {name: table[name] for name in columns}
    for candidate in (*_columns(texts, columns), *_beginnings(texts, unique)):
        found += _judged(candidate, rows, kept)
    return found or list(islice((run for name in unique for run in _runs(texts[name], name, rows)), 1))


def _judged(candidate: Candidate, rows: GroupEvidence, kept: list[np.ndarray]) -> list[SuspectedGroups]:
    """The candidate as a suspect where it is one, and no earlier one holds its row groups together."""
    if any(_within(candidate.codes, codes) for codes in kept) or not _could_be_groups(candidate.codes, rows):
        return []
    evidence = _Evidence.of(candidate.codes, rows)
    name = candidate.column if candidate.pattern is None else ""
    if not (evidence.by_pairs or evidence.by_labels or (_is_telling(name) and not evidence.against)):
        return []
    kept.append(candidate.codes)
    return [_suspect(candidate, evidence, rows)]


def _numbered(targets: np.ndarray) -> np.ndarray:
    """Turn sets of labels into one number each."""
    return targets if targets.ndim == 1 else np.unique(targets, axis=0, return_inverse=True)[1].reshape(-1)


def _codes(texts: Sequence[str] | pd.Series) -> np.ndarray:
    """Number texts as they first appear, int64 [rows]."""
    return pd.factorize(np.array(texts, dtype=object))[0].astype(np.int64)


def _current(table: pd.DataFrame, folds: FoldsConfig) -> Candidate | None:
    """The row groups that the config names; None where it names none."""
    if not folds.group:
        return None
    codes = _codes(group_texts(folds, table))
    return Candidate(_named(folds.group, folds.group_pattern), folds.group, folds.group_pattern, codes)


def _named(column: str, pattern: str | None) -> str:
    return f"column {column}" if pattern is None else f"{pattern} in {column}"


# Candidates


def _columns(texts: dict[str, pd.Series], columns: Sequence[str]) -> Iterator[Candidate]:
    for name in columns:
        if _word(name) not in NOT_GROUPS:
            yield Candidate(_named(name, None), name, None, _codes(texts[name]))


def _beginnings(texts: dict[str, pd.Series], columns: Sequence[str]) -> Iterator[Candidate]:
    """The texts of columns without repeats, up to a separator or to their last number; the shortest first."""
    for name in columns:
        cells = texts[name].astype(object)
        for pattern in _prefix_patterns(cells.tolist()):
            found = cells.str.extract(pattern, expand=False)
            if found.notna().all():
                yield Candidate(f"beginning of {name}", name, pattern, _codes(found))


def _prefix_patterns(cells: Sequence[str]) -> Iterator[str]:
    """`^(\\d+)_`, `^(\\d+_\\d+)_` and so on for texts like 12_3_4; then up to the last number."""
    parts = [re.split(f"({SEPARATORS})", cell) for cell in cells]  # text, separator, text, …
    common = min(map(len, parts))
    columns = [{part[place] for part in parts} for place in range(common)]
    pattern = ""
    for place in range(0, common - 1, 2):
        if len(columns[place + 1]) > 1:
            break
        separator = re.escape(next(iter(columns[place + 1])))
        digits = all(text.isascii() and text.isdigit() for text in columns[place])
        pattern += r"\d+" if digits else r"[^_\-./:\s]+"
        yield f"^({pattern}){separator}"
        pattern += separator
    yield r"^(.*\D)\d+(?:\.\w+)?$"


def _runs(cells: pd.Series, column: str, rows: GroupEvidence) -> list[SuspectedGroups]:
    """Blocks of 10, 100 or 1,000 numbers in a row that seem to belong together.

    Neighbours are near-identical, or their labels come in runs.
    """
    found = cells.astype(object).str.extract(r"^(.*?)(\d{1,15})(?:\.\w+)?$")
    if found.isna().any(axis=None):
        return []
    prefix, number = _codes(found[0]), found[1].astype(np.int64).to_numpy()
    length = _run_length(rows.labels[np.lexsort((number, prefix))], rows.k) if not prefix.any() else None
    second_best: list[SuspectedGroups] = []
    for digits in (1, 2, 3):
        last = r"\d" if digits == 1 else rf"\d{{1,{digits}}}"
        pattern = rf"^(.*?){last}(?:\.\w+)?$"
        candidate = Candidate(f"runs of {column}", column, pattern, _codes(cells.str.extract(pattern)[0]))
        if not _could_be_groups(candidate.codes, rows):
            continue
        evidence = _Evidence.of(candidate.codes, rows)
        if evidence.by_pairs and evidence.inside >= 0.7:
            whole = evidence.inside
        elif length is None or 10**digits < length:
            continue
        else:
            whole = 1 - (length - 1) / 10**digits  # share of runs that are not cut
        suspect = _suspect(candidate, evidence, rows, run_length=length)
        if whole >= 0.8 and suspect.groups >= 4 * rows.k:
            return [suspect]
        second_best.append(suspect)
    return second_best[:1]


def _run_length(labels: np.ndarray, k: int) -> float | None:
    """The mean length of the runs of equal labels, where it is three times that of shuffled neighbours.

    None where it is not, as in rows sorted by class, and where there are hardly more runs than classes.
    """
    runs = _run_count(labels)
    length = len(labels) / runs
    place, window = np.arange(len(labels)), max(2, round(10 * length))
    generator = np.random.default_rng(0)
    nearby = labels[np.lexsort((generator.permutation(len(labels)), place // window))]
    many = runs >= max(3 * len(np.unique(labels)), 2 * k)
    return length if many and _run_count(nearby) >= 3 * runs else None


def _run_count(labels: np.ndarray) -> int:
    return 1 + int(np.count_nonzero(labels[1:] != labels[:-1]))


# Judgement


@dataclass(frozen=True)
class _Evidence:
    """What speaks for or against a candidate.

    Attributes
    ----------
    pairs
        Near-identical ones.
    inside
        Share of them within row groups.
    by_chance
        Share of the pairs of rows of one class that are within row groups.
    agreement
        Share of the pairs of rows within row groups that have the same label.
    expected
        Share of all pairs of rows that have.
    by_pairs, by_labels, against
        What that says.
    """

    pairs: int
    inside: float
    by_chance: float
    agreement: float
    expected: float
    by_pairs: bool
    by_labels: bool
    against: bool

    @classmethod
    def of(cls, codes: np.ndarray, rows: GroupEvidence) -> "_Evidence":
        labels, pairs = rows.labels, rows.pairs
        both = _pairs_within(_joint(codes, labels))
        in_groups, in_classes = _pairs_within(codes), _pairs_within(labels)
        inside = float((codes[pairs[:, 0]] == codes[pairs[:, 1]]).mean()) if len(pairs) else 0.0
        by_chance = both / max(1, in_classes)
        agreement = both / max(1, in_groups)
        expected = in_classes / max(1, len(codes) * (len(codes) - 1) // 2)
        by_pairs = len(pairs) >= FEWEST_PAIRS and inside >= max(0.5, 5 * by_chance)
        against = len(pairs) >= 4 * FEWEST_PAIRS and inside < 2 * by_chance
        by_labels = (
            agreement >= (1 + expected) / 2
            and not against
            and _is_fine(codes, rows)
            and _beyond_chance(codes, labels, both)
        )
        return cls(len(pairs), inside, by_chance, agreement, expected, by_pairs, by_labels, against)


def _could_be_groups(codes: np.ndarray, rows: GroupEvidence) -> bool:
    """Whether values repeat, are no fewer than folds, and are not the classes, or whole classes, themselves."""
    sizes = np.bincount(codes)
    shared = sizes[sizes > 1].sum()
    if len(sizes) < rows.k or shared < max(2, 0.05 * len(codes)):
        return False
    combined = pd.DataFrame({"label": rows.labels, "group": codes}).value_counts()
    in_main_group = combined.groupby(level="label").max().sum()
    return bool(in_main_group < 0.95 * len(codes))


def _is_fine(codes: np.ndarray, rows: GroupEvidence) -> bool:
    """Whether row groups are small beside folds and several a class.

    Few and large ones whose labels agree are finer classes, like diagnoses of what is benign or malignant.
    """
    sizes = np.bincount(codes)
    seen = (sizes**2).sum() / len(codes)  # the size of the group of a typical row
    of_class = pd.Series(codes).groupby(rows.labels).nunique().median()
    return bool(of_class >= 3 and len(sizes) >= 2 * rows.k and seen <= max(6, len(codes) / (10 * rows.k)))


def _beyond_chance(codes: np.ndarray, labels: np.ndarray, agreeing: int) -> bool:
    """Whether more pairs within row groups have the same label than shuffled labels ever give.

    They are beyond the mean of shuffled labels by five standard deviations.
    """
    generator = np.random.default_rng(0)
    shuffled = [_pairs_within(_joint(codes, generator.permutation(labels))) for _ in range(20)]
    return bool(agreeing > np.mean(shuffled) + 5 * max(float(np.std(shuffled)), 1.0))


def _pairs_within(codes: np.ndarray) -> int:
    """How many pairs of rows have the same code."""
    sizes = np.bincount(codes)
    return int((sizes * (sizes - 1) // 2).sum())


def _joint(codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One code for each pair of a code and a label."""
    return np.unique(codes * (labels.max() + 1) + labels, return_inverse=True)[1]


def _within(codes: np.ndarray, others: np.ndarray) -> bool:
    """Whether (almost) every row group of `codes` lies in one of `others`."""
    main = pd.DataFrame({"group": codes, "other": others}).value_counts().groupby(level="group").max().sum()
    return bool(main >= 0.95 * len(codes))


def _word(name: str) -> str:
    """`PatientID`, `patient_id` → patient."""
    return re.sub(r"[_\s-]*(instance)?[_\s-]*(uid|id|no|nr|number|name|code)$", "", name.lower()).strip("_- ")


def _is_telling(name: str) -> bool:
    return _word(name) in TELLING


# Words


def _suspect(
    candidate: Candidate,
    evidence: _Evidence,
    rows: GroupEvidence,
    already: bool = False,
    run_length: float | None = None,
) -> SuspectedGroups:
    sizes = np.bincount(candidate.codes)
    said = []
    if evidence.pairs:
        said.append(
            f"{evidence.inside:.0%} of {evidence.pairs} near-identical pairs are inside groups "
            f"(by chance {evidence.by_chance:.1%})"
        )
    if run_length is not None:
        said.append(f"labels come in runs of {run_length:.0f}")
    else:
        said.append(
            f"{evidence.agreement:.0%} of the pairs inside have the same label (of all {evidence.expected:.0%})"
        )
    if not (evidence.by_pairs or evidence.by_labels or already or run_length):
        said.append("its name says so")
    if sizes.max() * rows.k > len(candidate.codes):
        said.append(f"the largest is more than one fold of {rows.k} holds")
    return SuspectedGroups(
        what=candidate.what,
        column=candidate.column,
        pattern=candidate.pattern,
        groups=len(sizes),
        typical=float(np.median(sizes)),
        largest=int(sizes.max()),
        evidence="; ".join(said),
        setting="" if already else _setting(candidate),
    )


def _setting(candidate: Candidate) -> str:
    pattern = "" if candidate.pattern is None else f", group_pattern: {_quoted(candidate.pattern)}"
    plain = re.fullmatch(r"[A-Za-z_]\w*", candidate.column, re.ASCII) and candidate.column.lower() not in (
        *("null", "true", "false", "yes", "no", "on", "off", "y", "n"),
    )
    return f"folds: {{group: {candidate.column if plain else _quoted(candidate.column)}{pattern}}}"


def _quoted(text: str) -> str:
    """The text in quotes for YAML, where single ones leave backslashes alone."""
    return "'" + text.replace("'", "''") + "'"
