"""The live table of what runs where on a cluster; lines now and then where the output is no terminal."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from kit.core.durations import in_words
from kit.core.errors import some
from kit.core.progress import QUIET_SECONDS, on_terminal
from kit.experiment.cluster.site import Standing

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table as RichTable

COLUMNS = ("run", "node", "device", "steps", "images/s")
MOST_ROWS = 30  # of tasks under way; the rest is one row: a table longer than the terminal would flicker
MOST_TOLD = 4  # tasks of which a line tells


def rows_of(standings: Sequence[Standing], most: int = MOST_ROWS) -> list[tuple[str, str, str, str, str]]:
    """Return the rows of the table, one for each task that is under way.

    Parameters
    ----------
    standings : sequence of Standing
    most : int
        Rows; what is more is told by a further one.

    Returns
    -------
    list of tuple of str
        In the order of nodes and names: run, node, device, steps and images a second, "" where one is not known.
    """
    ordered = sorted(standings, key=lambda each: (each.node, each.device, each.name))
    rows = [
        (each.name, each.node, each.device, _steps(each), f"{each.speed:.0f}" if each.speed else "")
        for each in ordered[:most]
    ]
    more = len(ordered) - most
    return [*rows, (f"and {more} more", "", "", "", "")] if more > 0 else rows


def seconds_left(done: float, left: float, seconds: float) -> float | None:
    """Return about how many seconds tasks still take, at the pace that they had; None where none is known.

    Parameters
    ----------
    done : float
        Tasks done in `seconds`, with the shares of those under way.
    left : float
        Tasks still to do, less these shares.
    seconds : float
    """
    return seconds / done * left if done > 0 and seconds > 0 else None


def summary(standings: Sequence[Standing], finished: int, total: int, left: float | None) -> str:
    """Return in one line how far all is: runs, speed, and what is left (seconds; None where unknown)."""
    speed = sum(each.speed for each in standings)
    nodes = len({each.node for each in standings if each.node})
    parts = [f"{finished}/{total} runs"]
    if standings:
        parts.append(f"{len(standings)} under way on {nodes} node{'s' if nodes != 1 else ''}")
    if speed:
        parts.append(f"{speed:.0f} images/s")
    if left is not None and finished < total:
        parts.append(f"about {in_words(left)} left")
    return ", ".join(parts)


def line_of(standings: Sequence[Standing], finished: int, total: int, left: float | None) -> str:
    """Return `summary` and, in the same line, how far the tasks are that are under way."""
    tasks = [
        f"{each.name}{f' on {each.node}' if each.node else ''}{f' {_steps(each)}' if each.total else ''}"
        for each in sorted(standings, key=lambda each: each.name)
    ]
    told = f": {some(tasks, MOST_TOLD)}" if tasks else ""
    return summary(standings, finished, total, left) + told


class Table:
    """Shows how far the tasks of a cluster are, while the context manager is open.

    On a terminal a table that changes, above which the lines go on that are said; elsewhere a line every few
    seconds. What ends is told by others.

    Parameters
    ----------
    clock : callable
        Seconds, from any moment on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._live = clock, _live() if on_terminal() else None
        self._began: float | None = None
        self._before = 0.0  # what was done already when it was shown first, in tasks
        self._printed = 0.0

    def __enter__(self) -> "Table":
        self._printed = self._clock()
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, standings: Sequence[Standing], finished: int, total: int) -> None:
        """Show how far the tasks are.

        Parameters
        ----------
        standings : sequence of Standing
            Of the tasks that are under way.
        finished : int
            Tasks that have ended.
        total : int
            Tasks in all.
        """
        now, done = self._clock(), finished + sum(_share(each) for each in standings)
        if self._began is None:  # what was done by then says nothing of the pace
            self._began, self._before = now, done
        left = seconds_left(done - self._before, total - done, now - self._began)
        if self._live:
            self._live.update(_rich_table(standings, summary(standings, finished, total, left)))
        elif now - self._printed >= QUIET_SECONDS:
            self._printed = now
            print(line_of(standings, finished, total, left), flush=True)


def _share(standing: Standing) -> float:
    return min(1.0, standing.done / standing.total) if standing.total else 0.0


def _steps(standing: Standing) -> str:
    return f"{standing.done}/{standing.total}" if standing.total else "begins"


def _live() -> "Live":
    from rich.live import Live

    return Live(auto_refresh=True, refresh_per_second=2, transient=True)


def _rich_table(standings: Sequence[Standing], title: str) -> "RichTable":
    from rich.markup import escape
    from rich.table import Table as RichTable

    table = RichTable(title=escape(title), title_justify="left", title_style="", box=None)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in COLUMNS[3:] else "left")
    for row in rows_of(standings):
        table.add_row(*map(escape, row))
    return table
