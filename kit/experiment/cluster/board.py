"""Where the workers of a cluster tell what they do, and are told what the user asks for.

Nodes get it by value: it needs the standard library alone.
"""

import time
from collections import deque
from typing import Any

KEPT = 10_000  # lines, where nobody fetches them


class Board:
    """An actor of Ray; the driver looks at it every second, each worker as often while it has a task."""

    def __init__(self) -> None:
        self._wishes: dict[str, Any] = {}  # nothing is known, also where it begins anew on another node
        self._heard = 0.0
        self._lines: deque[str] = deque(maxlen=KEPT)
        self._under_way: dict[int, dict[str, Any]] = {}

    def begin(self, number: int, node: str, host: str) -> dict[str, Any]:
        """Tell that a task begins on a node; where the answer is `closed`, or nothing, it must not.

        `now` in the answer is the driver's clock at this moment.
        """
        if not self._wishes:
            return {}
        if not self._wishes["closed"]:
            self._under_way[number] = {"node": node, "host": host}
        return self._wishes | {"now": self._wishes["now"] + time.monotonic() - self._heard}

    def report(self, number: int, lines: list[str], progress: dict[str, Any] | None) -> dict[str, Any]:
        """Tell of a task that is under way; returns what the user asks for."""
        self._lines.extend(lines)
        if progress is not None and number in self._under_way:
            self._under_way[number] |= progress
        return self._wishes

    def end(self, number: int, lines: list[str]) -> None:
        """Tell that a task has ended."""
        self._lines.extend(lines)
        self._under_way.pop(number, None)

    def exchange(self, wishes: dict[str, Any], gone: list[int]) -> tuple[list[str], dict[int, dict[str, Any]]]:
        """Take what the user asks for and the tasks that are gone; return new lines, and what is under way."""
        self._wishes, self._heard = wishes, time.monotonic()
        for number in gone:
            self._under_way.pop(number, None)
        lines = list(self._lines)
        self._lines.clear()
        return lines, self._under_way
