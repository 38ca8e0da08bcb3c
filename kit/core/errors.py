"""What the user is told: errors that the user can mend, and lines about what happens."""

import re
import sys
from collections.abc import Callable, Iterable

Say = Callable[[str], None]  # takes lines about what happens


def ignore(line: str) -> None:
    """Take a line about what happens, and tell nobody."""


def tell(line: str) -> None:
    """Tell of a fault on standard error, from whatever process meets it: one that prepares batches, too."""
    print(line, file=sys.stderr, flush=True)


class KitError(Exception):
    """Something the user can mend. The message is one line: the place, what is wrong, what to do."""


class Damaged(KitError):
    """A file that does not hold what was written into it. Who can make it anew catches this."""


class NotWritten(KitError):
    """A file that could not be written: the disk is full, the folder read-only. What was there is as it was."""


class Diverged(KitError):
    """A training whose loss or predictions are no longer finite.

    Attributes
    ----------
    step : int or None
        The first update whose loss is not finite, or would be: the one before it broke the weights.
    """

    step: int | None = None


def some(items: Iterable[object], limit: int = 10) -> str:
    """Return the first `limit` of `items` in one line for an error message, like `a, b, c and 7 more`."""
    # Breaks of lines go; spaces, which may be what is wrong, stay.
    texts = [_short(re.sub(r"\s*[^\S ]\s*", " ", str(item))) for item in items]
    shown = ", ".join(texts[:limit])
    return shown if len(texts) <= limit else f"{shown} and {len(texts) - limit} more"


def _short(text: str, length: int = 300) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
