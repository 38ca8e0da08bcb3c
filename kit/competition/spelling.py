"""When two texts are one label, and how a label is spelt where it has several spellings."""

import re
import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from math import isfinite

from kit.core.errors import some

# Spaces of no width, which str.strip leaves: zero-width space and joiners, marks of direction, byte order mark.
_NO_WIDTH = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
_TRUTH = {"false": Decimal(0), "true": Decimal(1)}
_LEADING_ZERO = re.compile(r"[+-]?0\d")


def stripped(text: str) -> str:
    """Return a text without the spaces around it, those of no width among them."""
    while (inner := text.strip().strip(_NO_WIDTH)) != text:
        text = inner
    return text


def plain(text: str) -> str:
    """Return a text without the spaces around it, in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", stripped(text))


def number(text: str) -> Decimal | None:
    """Return the exact value of a text that is a finite number, else None."""
    text = plain(text)
    try:
        # Python reads 1_0 as 10; what a float cannot hold is taken to be no number.
        value = Decimal("nan" if "_" in text else text)
        return value if value.is_finite() and isfinite(float(value)) else None
    except (InvalidOperation, ValueError, OverflowError):
        return None


def truth(text: str) -> Decimal | None:
    """Return 1 for True and 0 for False in any case, and for the numbers 1 and 0; else None."""
    value = _TRUTH.get(plain(text).lower(), number(text))
    return value if value in (0, 1) else None


def truth_words(texts: Iterable[str]) -> tuple[str, str]:
    """Return the words for 0 and 1: False and True in the case of the first such word of texts, else 0 and 1."""
    for text in texts:
        word = plain(text)
        if word.lower() in _TRUTH:
            like = str.lower if word.islower() else str.upper if word.isupper() else str.capitalize
            return like("false"), like("true")
    return "0", "1"


class Spelling:
    """Says which texts are one label, among given labels.

    Two texts are one label if they differ in nothing but the spaces around them and their Unicode form; where all
    of the given labels are numbers, if their values are equal (01, 1 and 1.0); where all are 0, 1, True or False
    in any case, if they are equally true. Case counts.

    Parameters
    ----------
    labels : iterable of str
        All there are.
    apart : bool
        Whether the labels were stated one by one, so that each is one of its own: then values do not count where
        two of them have the same.
    """

    def __init__(self, labels: Iterable[str], apart: bool = False):
        self.labels = tuple(dict.fromkeys(labels))
        texts = tuple(dict.fromkeys(map(plain, self.labels)))
        self._value = None
        for value in (number, truth):
            values = [value(text) for text in texts]
            if texts and None not in values and not (apart and len(set(values)) < len(texts)):
                self._value = value
                break
        self.numeric = self._value is not None
        # 0 and 1 are numbers, and true and false as well.
        self._true = self.numeric and all(truth(text) is not None for text in texts)
        self._place: dict[Hashable, int] = {}
        for place, label in enumerate(self.labels):
            self._place.setdefault(self.key(label), place)
        self._exact = {label: place for place, label in enumerate(self.labels)}

    def key(self, text: str) -> Hashable:
        """Return what is the same for two texts if they are one label."""
        if self._value:
            value = truth(text) if self._true else None
            value = number(text) if value is None else value
            if value is not None:
                return value
        return plain(text)

    def same(self, one: str, other: str) -> bool:
        """Say whether two texts are one label."""
        return self.key(one) == self.key(other)

    def place(self, text: str) -> int | None:
        """Return the place of the label that a text is, among the given ones; None where it is none of them."""
        exact = self._exact.get(text)
        return self._place.get(self.key(text)) if exact is None else exact

    def groups(self, texts: Iterable[str] | None = None) -> list[list[str]]:
        """Return texts, those that are one label together; left out: the given labels."""
        groups: dict[Hashable, list[str]] = {}
        for label in self.labels if texts is None else texts:
            groups.setdefault(self.key(label), []).append(label)
        return list(groups.values())

    def order(self, text: str) -> tuple[bool, Decimal, str]:
        """Return the key by which labels sort: numbers by value, anything else as text."""
        key = self.key(text)
        return (False, key, text) if isinstance(key, Decimal) else (True, Decimal(0), text)


def need_apart(labels: Sequence[str]) -> None:
    """Raise ValueError where two of the labels that were stated one by one are one."""
    for group in Spelling(labels, apart=True).groups():
        if len(group) > 1:
            raise ValueError(
                f"{some(map(repr, group), 5)} are one label but for spaces around it; leave one of them"
            )


def classes_of(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Return the labels that texts make up, in order: numbers by value, anything else as text.

    Parameters
    ----------
    counts : mapping of str to int
        How often each text stands there. Of those that are one label the most frequent is taken, of equally
        frequent ones the first.
    """
    spelling = Spelling(counts)
    chosen = [max(group, key=counts.__getitem__) for group in spelling.groups()]
    return tuple(sorted(chosen, key=spelling.order))


def respelt(classes: Sequence[str], counts: Mapping[str, int]) -> tuple[str, ...]:
    """Return classes that were stated one by one as a table spells them; those that it lacks as they were stated.

    Parameters
    ----------
    classes : sequence of str
        In their order.
    counts : mapping of str to int
        How often each text of a label stands in the table.
    """
    spelling, found = Spelling(classes, apart=True), dict[int, str]()
    for text, count in counts.items():
        place = spelling.place(text)
        if place is not None and (place not in found or count > counts[found[place]]):
            found[place] = text
    return tuple(found.get(place, label) for place, label in enumerate(classes))


def remarks_on_spelling(counts: Mapping[str, int], classes: Sequence[str], what: str, stated: bool) -> list[str]:
    """Return lines about labels with several spellings, and about labels that differ in case alone.

    Parameters
    ----------
    counts : mapping of str to int
        How often each text of a label stands in a table.
    classes : sequence of str
        What the labels are taken for.
    what : str
        Where they stand, for the beginning of a line.
    stated : bool
        Whether the classes were listed, so that what is one is decided.
    """
    spelling = Spelling(classes, apart=True)
    groups = spelling.groups(counts)
    lines = []
    if several := [group for group in groups if len(group) > 1]:
        told = [f"{_counted(group, counts)} are {classes[spelling.place(group[0]) or 0]!r}" for group in several]
        hint = ""
        if spelling.numeric and not stated and any(len(set(map(plain, group))) > 1 for group in several):
            hint = "; list the classes in competition.classes if equal numbers are different labels"
        count = "a label is" if len(several) == 1 else f"{len(several)} labels are"
        lines.append(f"{what}: {count} spelt in several ways: {some(told, 5)}{hint}")
    by_case: dict[str, list[str]] = {}
    for label in classes:
        by_case.setdefault(plain(label).casefold(), []).append(label)
    if alike := [group for group in by_case.values() if len(group) > 1]:
        told = [_counted(group, counts) for group in alike]
        lines.append(f"{what}: classes differ in case alone: {some(told, 5)}; if they are one, spell them alike")
    return lines


def _counted(texts: Iterable[str], counts: Mapping[str, int]) -> str:
    return " and ".join(f"{_visible(text)} (in {counts.get(text, 0)})" for text in texts)


def _visible(text: str) -> str:
    """The text in quotes; in another Unicode form than usual, which looks the same, as its code points."""
    return repr(text) if unicodedata.is_normalized("NFC", text) else ascii(text)


def leading_zero(text: str) -> bool:
    """Say whether a text is a number with a zero in front, like 01: then zeros are part of the label."""
    return bool(_LEADING_ZERO.match(plain(text))) and number(text) is not None


def shown(texts: Iterable[str]) -> list[str]:
    """Return texts for a message, in quotes where they are empty or hold what is not seen, like spaces around."""
    return [repr(text) if _odd(text) else text for text in texts]


def _odd(text: str) -> bool:
    return not text or text != stripped(text) or "  " in text or not text.isprintable()
