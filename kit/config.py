"""An experiment: the sections of all rooms composed, read from YAML, overridden, validated whole."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError, field_validator

from kit.competition.config import CompetitionConfig, FoldsConfig
from kit.data.config import DataConfig
from kit.errors import KitError, some
from kit.lr import PolicyConfig
from kit.model.config import ModelConfig
from kit.scoring.config import ScoringConfig
from kit.settings import Name, Section
from kit.training.config import PredictionConfig, TrainingConfig


class Experiment(Section):
    """Everything that decides a result. Policies × seeds × folds are its runs.

    name      of its folder in runs/ and its file in submissions/
    policies  by name; in YAML a name, a list of names (files in configs/policies/), or a mapping
    seeds     each trains every policy and fold once
    """

    name: Name
    competition: CompetitionConfig
    folds: FoldsConfig = FoldsConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    policies: dict[Name, PolicyConfig]
    training: TrainingConfig = TrainingConfig()
    prediction: PredictionConfig = PredictionConfig()
    scoring: ScoringConfig = ScoringConfig()
    seeds: tuple[int, ...] = (0,)

    @field_validator("policies", "seeds")
    @classmethod
    def _not_empty(cls, values):
        if not values:
            raise ValueError("at least one is needed")
        if len(set(values)) < len(values):
            raise ValueError("the same one stands there twice")
        return values

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_experiment(path: str | Path, overrides: Sequence[str] = (), policies: Sequence[str] = ()) -> Experiment:
    """Reads and validates a config.

    path       a YAML file
    overrides  like "training.epochs=3"; the value is read as YAML
    policies   names that replace the file's `policies`: those in the config itself, then files
               NAME.yaml in `policies/` beside the config and in `configs/policies/`

    Raises KitError with a line for every key that is unknown or has a bad value.
    """
    path = Path(path)
    content = _read_yaml(path)
    if not isinstance(content, dict):
        raise KitError(f"{path}: a config is a mapping of sections, like `name: digits`")
    content["policies"] = _policies(content.get("policies"), policies, path)
    for override in overrides:
        _override(content, override)
    return validate(content, str(path))


def validate(content: dict[str, Any], source: str) -> Experiment:
    """The experiment that `content` describes; KitError with a line for every fault."""
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        faults: dict[str, list[str]] = {}  # a value that may be of two types has a message for each
        for fault in error.errors():
            place, message = _explain(fault, content)
            faults.setdefault(place, []).append(message)
        lines = [f"{source}: {place}: {', or '.join(messages)}" for place, messages in faults.items()]
        raise KitError("\n".join(lines)) from error


class _Loader(yaml.SafeLoader):
    """YAML with 1e-2 as a number (as YAML 1.2 has it; PyYAML reads text) and repeated keys as errors."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _read_yaml(path: Path) -> Any:
    if not path.is_file():
        close = sorted(file.name for file in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise KitError(f"{path} does not exist" + (f"; in that folder: {some(close)}" if close else ""))
    return _parse(path.read_text(encoding="utf-8"), str(path))


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise KitError(f"{source}{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise KitError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error


def _policies(stated: Any, chosen: Sequence[str], config: Path) -> dict[str, Any]:
    """Policies by name with their content, from names or as the config spells them out."""
    if stated is None and not chosen:
        raise KitError(f"{config}: policies: missing; name one, like `policies: uniform`, or give --policy NAME")
    if isinstance(stated, dict):
        inline = stated
    else:
        names = [stated] if isinstance(stated, str) else stated or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise KitError(f"{config}: policies: {stated!r}: expected a name, a list of names, or a mapping")
        inline = dict.fromkeys(names)
    names = list(dict.fromkeys(chosen)) or list(inline)
    return {name: _policy_file(name, config) if inline.get(name) is None else inline[name] for name in names}


def _policy_file(name: str, config: Path) -> Any:
    folders = [config.parent / "policies", Path("configs/policies")]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return _read_yaml(folder / f"{name}.yaml")
    known = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    close = difflib.get_close_matches(name, known, n=1)
    raise KitError(
        f"policies: there is no policy {name!r}"
        + (f"; did you mean {close[0]}?" if close else f"; there are: {some(known) or 'none'}")
    )


def _override(content: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise KitError(f"--set {override}: expected a key and a value, like --set training.epochs=3")
    *parents, last = dotted.strip().split(".")
    section = content
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            raise KitError(f"--set {override}: {parent} is not a section")
    section[last] = _parse(text, f"--set {override}")


def _explain(fault: dict[str, Any], content: dict[str, Any]) -> tuple[str, str]:
    """The path of the key with its value, and what is wrong or allowed."""
    path, section = _place(fault["loc"], content)
    key = ".".join(path) or "config"
    if fault["type"] == "extra_forbidden":
        known = list(section.model_fields) if section else []
        close = difflib.get_close_matches(path[-1], known, n=1)
        return (
            key,
            f"unknown key; did you mean {close[0]}?" if close else f"unknown key; known are {some(known, 20)}",
        )
    if fault["type"] == "missing":
        return key, "missing; this key has no default"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if fault["type"] == "union_tag_invalid":
        message = f"expected one of {fault['ctx']['expected_tags']}"
    elif fault["type"] == "string_pattern_mismatch":
        message = "expected letters, digits, '.', '_' and '-', beginning with a letter or digit"
    message = re.sub(r"^Input should be (a valid )?", "expected ", message)
    value = fault["input"]
    shown = "" if isinstance(value, dict | BaseModel) or len(repr(value)) > 80 else f" = {value!r}"
    return key + shown, message


def _place(loc: tuple, content: Any) -> tuple[list[str], type[BaseModel] | None]:
    """The keys of a fault as the user wrote them (pydantic adds the names of union members), and
    the section in which the last key stands."""
    model: Any = Experiment
    path: list[str] = []
    for place, part in enumerate(loc):
        inside = isinstance(content, dict) and part in content
        listed = isinstance(content, list) and isinstance(part, int) and part < len(content)
        declared = isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields
        if not (inside or listed or declared):
            if isinstance(model, dict):
                model = model.get(part)
            continue
        path.append(str(part))
        content = content[part] if inside or listed else None
        if place < len(loc) - 1:
            model = _member(model, part)
    return path, model if isinstance(model, type) else None


def _member(model: Any, part: Any) -> Any:
    """The section type (or, for a union of sections, {tag: type}) that a key of `model` holds."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return model.get(part) if isinstance(model, dict) else model
    if part not in model.model_fields:  # the name of an entry, like a policy's
        return model
    annotation = model.model_fields[part].annotation
    sections = [
        kind
        for kind in (annotation, *get_args(annotation))
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    ]
    if len(sections) > 1:
        return {kind.model_fields["name"].default: kind for kind in sections}
    return sections[0] if sections else None
