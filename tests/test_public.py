"""`import kit`: every command is a function, with a typed result; the page that lists them."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import kit
from kit.cli.cluster import cluster_app
from kit.cli.kernel import kernel_app
from kit.cli.main import app
from kit.core.jsonable import json_model

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/programs.md").read_text()
ROWS = re.findall(r"^\| `([\w -]+)` \| `(\w+)` \| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE)


def commands() -> set[str]:
    """As they are typed."""

    def names(group):
        return {each.name or each.callback.__name__.replace("_", "-") for each in group.registered_commands}

    groups = {"kernel": kernel_app, "cluster": cluster_app}
    return names(app) | {f"{group} {name}" for group, made in groups.items() for name in names(made)}


def test_every_command_is_on_the_page_once():
    assert sorted(command for command, *_ in ROWS) == sorted(commands())


@pytest.mark.parametrize(("command", "function", "result", "keys"), ROWS, ids=[row[0] for row in ROWS])
def test_a_command_is_a_function_with_a_typed_result(command, function, result, keys):
    called = getattr(kit, function)
    returned = get_type_hints(called)["return"]
    assert returned.__name__ == result
    assert list(json_model(returned).model_fields) == re.findall(r"`(\w+)`", keys)
    assert "error" not in json_model(returned).model_fields
    assert inspect.getdoc(called)
    renamed = {"lr": "preview", "report": "write_report"}
    assert function == renamed.get(command, re.sub(r"\W", "_", command))


def test_all_names_are_there_and_none_hides_a_room():
    rooms = {path.name for path in (ROOT / "kit").iterdir() if path.is_dir()}
    assert not set(kit.__all__) & rooms
    assert {row[1] for row in ROWS} < set(kit.__all__) == set(kit._WHERE) <= set(dir(kit))
    for name in kit.__all__:
        assert getattr(kit, name)
    with pytest.raises(AttributeError, match="has no attribute 'audits'"):
        _ = kit.audits


def test_import_kit_loads_nothing_heavy():
    code = (
        "import sys, kit; dir(kit); print(*({'torch', 'pandas', 'numpy', 'pydantic', 'typer'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert told.stdout == "\n"


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_the_examples_of_the_page_run(example, tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/programs.md", "exec"), {"__name__": "example"})
