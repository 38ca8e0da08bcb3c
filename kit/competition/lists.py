"""Lists written as text in the cells of a table, as Python, NumPy, JSON and people write them."""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache

from kit.competition.spelling import stripped

_CLOSING = {"[": "]", "(": ")", "{": "}"}
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_ESCAPED = re.compile(r"\\(u[0-9a-fA-F]{4}|U000[0-9a-fA-F]{5}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_WORDS = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True)
class ListStyle:
    """How lists are written.

    Attributes
    ----------
    opening
        The bracket.
    quote
        Around each item, or nothing.
    between
        What stands between two items.
    """

    opening: str = "["
    quote: str = "'"
    between: str = ", "

    def write(self, items: Collection[str]) -> str:
        """Return a list as text."""
        quoted = map({"'": repr, '"': _as_json}.get(self.quote, str), items)
        # Python writes a tuple of one item with a comma.
        last = "," if self.opening == "(" and len(items) == 1 and self.between.startswith(",") else ""
        return f"{self.opening}{self.between.join(quoted)}{last}{_CLOSING[self.opening]}"

    def takes(self, item: str) -> bool:
        """Say whether an item can be read again once it is written."""
        return items_of(self.write([item, item])) == [item, item]


def _as_json(item: str) -> str:
    return json.dumps(item, ensure_ascii=False)


def items_of(cell: str) -> list[str] | None:
    """Return the items of a list written as text; None where the cell is no list.

    `['a', 'b']`, `["a", "b"]`, `('a',)`, `{'a'}`, NumPy's `['a' 'b']`, `[1, 2]`, `[1 2]` and `[a, b]` are lists.
    """
    items = _parsed(cell)
    return None if items is None else list(items)


@lru_cache(maxsize=100_000)  # different cells are few, and asked for over and over
def _parsed(cell: str) -> tuple[str, ...] | None:
    items = _parse(cell)
    return None if items is None else tuple(items)


def _parse(cell: str) -> list[str] | None:
    cell = stripped(cell)
    if len(cell) < 2 or _CLOSING.get(cell[0]) != cell[-1]:
        return None
    inner = cell[1:-1]
    if "'" in inner or '"' in inner:
        return _quoted_items(inner)
    if any(bracket in inner for bracket in "[](){}"):
        return None  # a list of lists, or several one after the other
    return [item for part in (inner.split(",") if "," in inner else inner.split()) if (item := stripped(part))]


def _quoted_items(inner: str) -> list[str] | None:
    """The items of a list of which some are in quotes; None where there is more than those and commas."""
    items, at, free = [], 0, True  # free: at the beginning of an item, or behind one
    while at < len(inner):
        if inner[at].isspace() or inner[at] == ",":
            at, free = at + 1, True
            continue
        if not free:
            return None
        if found := _QUOTED.match(inner, at):
            items.append(_unescaped(found[0][1:-1]))
        elif found := re.compile(r"[^\s,'\"\[\](){}:]+").match(inner, at):
            items.append(found[0])
        else:
            return None
        at, free = found.end(), False
    return items


def _unescaped(text: str) -> str:
    text = _ESCAPED.sub(lambda found: _character(found[1]), text)
    # JSON writes a character beyond 16 bits as two.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _character(code: str) -> str:
    return chr(int(code[1:], 16)) if len(code) > 1 else _WORDS.get(code, code)


def parted(cells: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the cells that are lists, and those that are neither lists nor empty.

    Where none is a list for sure, like (a), all are of the others.
    """
    lists: list[str] = []
    others: list[str] = []
    for cell in cells:
        if text := stripped(cell):
            (others if items_of(text) is None else lists).append(text)
    return (lists, others) if style_of(lists) else ([], [*lists, *others])


def style_of(cells: Collection[str]) -> ListStyle | None:
    """Return how lists are written in cells; None where there is none, or one that is not empty is no list."""
    texts = [text for cell in cells if (text := stripped(cell))]
    lists = [items_of(text) for text in texts]
    if not lists or None in lists:
        return None
    quotes = {found[0][0] for text in texts for found in _QUOTED.finditer(text)}
    # Only a list of several items shows what stands between two of them.
    several = [_QUOTED.sub("''", text) for text, items in zip(texts, lists, strict=True) if len(items or ()) > 1]
    if not quotes and texts[0][0] != "[" and not several:
        return None  # (a) is a label in brackets
    between = ", "
    if several and "," not in several[0]:
        between = " "
    elif several and not re.search(r",\s", several[0]):
        between = ","
    return ListStyle(texts[0][0], min(quotes, key="'\"".index) if quotes else "" if any(lists) else "'", between)
