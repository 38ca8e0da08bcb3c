"""Progress where the output is no terminal and no notebook (tests/test_notebook.py runs one)."""

import re

import pytest

from kit.core import progress as showing
from kit.core.progress import Progress


def test_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(showing, "QUIET_SECONDS", 0.0)
    with Progress("uniform", 4, done=1) as progress:
        progress.update(2, "loss 0.5")
        progress.update(4)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"uniform: step 2/4, \d+ s left, loss 0\.5", lines[0])
    assert re.fullmatch(r"uniform: step 4/4, \d+\.\d s, loss 0\.5", lines[1])


def test_the_time_left_is_by_the_pace_after_the_first_look(monkeypatch):
    """The first step compiles; others are asked for at once, and only a look, which has a note, waits for them."""
    now = [0.0]
    monkeypatch.setattr(showing.time, "monotonic", lambda: now[0])
    progress = Progress("uniform", 150, shown=False)
    lefts = {}
    for done, seconds, note in (
        (1, 30, ""),
        (2, 30, "a"),
        (49, 30, ""),
        (50, 50, "b"),
        (51, 50, ""),
        (100, 60, "c"),
    ):
        now[0] = float(seconds)
        progress.update(done, note)
        lefts[done] = progress.line.split(", ")[1]
    assert lefts == {
        1: f"{30 * 149} s left",
        2: f"{15 * 148} s left",
        49: "62 s left",
        50: "100 s left",
        51: "0 s left",
        100: "10 s left",
    }


@pytest.mark.parametrize(("total", "shown"), [(0, True), (4, False)])
def test_nothing_where_there_is_nothing_to_show(monkeypatch, capsys, total, shown):
    monkeypatch.setattr(showing, "QUIET_SECONDS", 0.0)
    with Progress("uniform", total, shown=shown) as progress:
        progress.update(1)
    assert progress.done == 1
    assert capsys.readouterr().out == ""


def test_lines_are_rare(capsys):
    with Progress("uniform", 100) as progress:
        for done in range(100):
            progress.update(done)
    assert capsys.readouterr().out == ""


class TestReporting:
    """What is reported to another process's table instead of being shown."""

    def test_each_update_and_the_speed(self, monkeypatch, capsys):
        monkeypatch.setattr(showing, "REPORT_SECONDS", 0.0)
        now = [10.0]
        monkeypatch.setattr(showing.time, "monotonic", lambda: now[0])
        reports = []
        with (
            showing.reporting_to(lambda *report: reports.append(report)),
            Progress("uniform", 6, done=2, images=32) as progress,
        ):
            now[0] = 12.0
            progress.update(4, "loss 0.5")
            progress.update(5)
        assert reports == [
            ("uniform", 2, 6, "", 0.0),
            ("uniform", 4, 6, "loss 0.5", 2 * 32 / 2),
            ("uniform", 5, 6, "loss 0.5", 3 * 32 / 2),
            ("uniform", 5, 6, "loss 0.5", 3 * 32 / 2),  # at the end
        ]
        assert capsys.readouterr().out == ""

    def test_steps_that_are_no_images_have_no_speed(self):
        reports = []
        with showing.reporting_to(lambda *report: reports.append(report)), Progress("files", 2) as progress:
            progress.update(2)
        assert {speed for *_, speed in reports} == {0.0}

    def test_reports_are_rare_but_begin_and_end(self):
        reports = []
        with showing.reporting_to(lambda *report: reports.append(report)), Progress("uniform", 100) as progress:
            for done in range(101):
                progress.update(done)
        assert [done for _, done, *_ in reports] == [0, 100]

    def test_what_is_not_shown_is_not_reported(self):
        hidden = Progress("uniform", 4, shown=False)
        with showing.reporting_to(lambda *report: pytest.fail("reported")), hidden:
            hidden.update(2)
        with Progress("uniform", 4) as progress:  # and afterwards nothing is
            progress.update(2)
