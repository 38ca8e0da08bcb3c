"""Tables of a comparison: names of experiments stay whole where there is room for them."""

from types import SimpleNamespace

import pytest
from rich.table import Table

from kit.cli.show_comparison import _leave_room_for_names
from kit.comparison.record import ExperimentComparison


@pytest.mark.parametrize(("letters", "figures", "kept"), [(20, 50, 20), (20, 70, None)])
def test_names_give_way_to_the_last_columns(monkeypatch, letters, figures, kept):
    monkeypatch.setenv("COLUMNS", "80")
    experiments = [SimpleNamespace(name=name) for name in ("a", "b" * letters)]
    content = ExperimentComparison.model_construct(experiments=experiments)
    table = Table("policy", "figures", box=None)
    table.add_row("b" * letters, "0" * figures)
    table.columns[0].overflow, table.columns[1].no_wrap = "fold", True
    _leave_room_for_names(table, content)
    assert table.columns[0].min_width == kept
