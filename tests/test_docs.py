"""Docs against the code."""

import re
from pathlib import Path

from pydantic import BaseModel

from kit.config import Experiment, load_experiment
from kit.lr import PolicyConfig
from kit.lr.schedules import Cosine, OneCycle

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
    options = option_names(Experiment) | option_names(PolicyConfig) | option_names(OneCycle) | option_names(Cosine)
    assert options - words == set()


def test_the_shipped_configs_and_policies_are_valid():
    for path in (ROOT / "configs").glob("*.yaml"):
        load_experiment(path, ["competition.path=anywhere"])
    names = [path.stem for path in (ROOT / "configs/policies").glob("*.yaml")]
    assert set(load_experiment(ROOT / "configs/digits.yaml", policies=names).policies) == set(names)


def test_every_command_and_file_that_the_readme_names_is_there():
    readme = (ROOT / "README.md").read_text()
    commands = set(re.findall(r"python -m kit (\w+)", readme))
    assert {"run", "grade", "doctor"} <= commands
    from kit.cli import app

    assert commands <= {command.callback.__name__ for command in app.registered_commands}
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", readme) + re.findall(r"configs/[\w/.-]+\.yaml", readme):
        assert (ROOT / path).exists(), path
