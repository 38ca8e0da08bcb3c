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
