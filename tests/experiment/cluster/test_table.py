"""The table of what runs where: its rows, what it says of the time left, and how it is shown."""

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.experiment.cluster.site import Standing
from kit.experiment.cluster.table import Table, line_of, rows_of, seconds_left, summary

HALF = Standing("flat seed 0 fold 1", "boxb", "NVIDIA T4", 50, 100, 812.4)
NEW = Standing("flat seed 0 fold 0", "boxa", "CPU")


def test_a_row_for_each_task_by_node():
    assert rows_of([HALF, NEW]) == [
        ("flat seed 0 fold 0", "boxa", "CPU", "begins", ""),
        ("flat seed 0 fold 1", "boxb", "NVIDIA T4", "50/100", "812"),
    ]
    assert rows_of([]) == []


@given(count=st.integers(0, 9), most=st.integers(1, 5))
def test_long_tables_end_with_how_many_more(count, most):
    rows = rows_of([Standing(f"run {number}") for number in range(count)], most)
    assert len(rows) == min(count, most) + (count > most)
    assert (f"and {count - most} more" in [row[0] for row in rows]) == (count > most)


def test_time_left_by_the_pace():
    assert seconds_left(done=2.5, left=7.5, seconds=10) == 30
    assert seconds_left(done=0, left=7.5, seconds=10) is None
    assert seconds_left(done=-1, left=7.5, seconds=10) is None  # as a node was lost


def test_all_in_a_line():
    assert summary([HALF, NEW], 3, 20, 5400) == (
        "3/20 runs, 2 under way on 2 nodes, 812 images/s, about 1 h 30 m left"
    )
    assert summary([NEW], 0, 1, None) == "0/1 runs, 1 under way on 1 node"
    assert summary([], 20, 20, 0.0) == "20/20 runs"
    assert line_of([HALF, NEW], 3, 20, None) == (
        "3/20 runs, 2 under way on 2 nodes, 812 images/s: flat seed 0 fold 0 on boxa, "
        "flat seed 0 fold 1 on boxb 50/100"
    )


def test_a_line_now_and_then_where_there_is_no_terminal(capsys):
    now = [100.0]
    with Table(clock=lambda: now[0]) as table:
        table.show([NEW], 2, 10)  # too early
        for seconds, finished in ((4.0, 2), (6.0, 3), (7.0, 4), (20.0, 6)):
            now[0] = 100.0 + seconds
            table.show([HALF], finished, 10)
    lines = capsys.readouterr().out.splitlines()
    # After 6 s, 1.5 of 8 tasks are done, so that 6.5 are left; after 20 s 4.5, and 3.5 are left.
    assert lines == [
        "3/10 runs, 1 under way on 1 node, 812 images/s, about 26 s left: flat seed 0 fold 1 on boxb 50/100",
        "6/10 runs, 1 under way on 1 node, 812 images/s, about 16 s left: flat seed 0 fold 1 on boxb 50/100",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_on_a_terminal_beside_what_is_said(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Table() as table:
        table.show([HALF, Standing("[red]own", "boxa", "CPU", 1, 4)], 3, 20)
        print("boxc is gone")
    drawn = screen.getvalue()
    for text in ("3/20 runs", "flat seed 0 fold 1", "NVIDIA T4", "50/100", "812", "[red]own", "boxc is gone"):
        assert text in drawn


def test_an_error_within_is_not_swallowed():
    with pytest.raises(ValueError, match="mine"), Table():
        raise ValueError("mine")
