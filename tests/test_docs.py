"""Docs against the code."""

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from kit.core.named import Named
from kit.experiment.config import ExperimentConfig, load_experiment
from kit.lr import PolicyConfig
from kit.lr.clock import policy_groups

ROOT = Path(__file__).parent.parent


def option_names(model: type[BaseModel]) -> set[str]:
    """Names of the options of a section and of the sections in it."""
    names = set()
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names |= option_names(kind)
        else:
            names.add(name)
    return names


def test_every_option_is_on_the_page():
    page = (ROOT / "docs/configuration.md").read_text()
    words = set(re.findall(r"\w+", page))
    options = option_names(ExperimentConfig) | option_names(PolicyConfig)
    for kind in kinds_of(PolicyConfig):
        options |= option_names(kind) | {
            kind.model_fields[name].default for name in kind.model_fields if name == "name"
        }
    assert len(kinds_of(PolicyConfig)) > 25
    assert options - words == set()


def kinds_of(annotation) -> set[type[BaseModel]]:
    """All sections that an option can be, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if issubclass(annotation, Named) and "name" not in annotation.model_fields:
            return set(annotation.members.values())
        inner = [kinds_of(field.annotation) for field in annotation.model_fields.values()]
        return {annotation}.union(*inner)
    return set().union(*map(kinds_of, get_args(annotation)))


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(examples("docs/own-loop.md"))))
def test_the_examples_for_other_loops_run(number, tmp_path, monkeypatch):
    code = examples("docs/own-loop.md")[number]
    if "import lightning" in code:
        pytest.importorskip("lightning", reason="Lightning is not installed")
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "example"}
    exec(compile(code, f"example {number}", "exec"), space)
    if "scheduler" in space and "loader" in space:  # the last rates are the policy's
        expected = space["one_cycle"].matrix(policy_groups(space["groups"]), 10, 5).lr[-1]
        assert [group["lr"] for group in space["optimizer"].param_groups] == expected.tolist()
    if "classifier" in space:
        scheduler = space["trainer"].lr_scheduler_configs[0].scheduler
        assert scheduler.last_epoch == 6
        assert scheduler.groups[0].name.startswith("conv1")


def test_the_shipped_configs_and_policies_are_valid():
    for path in (ROOT / "configs").glob("*.yaml"):
        load_experiment(path, ["competition.path=anywhere"])
    names = [path.stem for path in (ROOT / "configs/policies").glob("*.yaml")]
    assert set(load_experiment(ROOT / "configs/digits.yaml", policies=names).policies) == set(names)


def test_every_command_and_file_that_the_readme_names_is_there():
    readme = (ROOT / "README.md").read_text()
    commands = {command.replace("-", "_") for command in re.findall(r"python -m kit ((?:kernel )?[\w-]+)", readme)}
    assert {"run", "lr", "find_lr", "policies", "grade", "doctor"} <= commands
    from kit.cli.kernel import kernel_app
    from kit.cli.main import app

    known = {command.callback.__name__ for command in app.registered_commands}
    known |= {f"kernel {command.name or command.callback.__name__}" for command in kernel_app.registered_commands}
    assert commands <= known
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", readme) + re.findall(r"configs/[\w/.-]+\.yaml", readme):
        assert (ROOT / path).exists(), path


def test_benchmarks_that_pages_name_are_there():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile", *(ROOT / "docs").glob("*.md")]
    named = {
        name for page in pages for name in re.findall(r"benchmarks/(\w+\.py)", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 20
    assert {name for name in named if not (ROOT / "benchmarks" / name).is_file()} == set()
