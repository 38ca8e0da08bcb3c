"""Ready policies, and what policies can be made of.

A ready policy is a file NAME.yaml in `policies/` beside a config or in `configs/policies/`.
"""

import difflib
import inspect
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from kit.core.errors import KitError, some
from kit.core.named import Named, own_code_of
from kit.core.settings import explain
from kit.core.yaml import read_yaml
from kit.lr import PolicyConfig
from kit.lr.config import FineTune
from kit.lr.controllers import ControllerBase
from kit.lr.profiles import ProfileBase
from kit.lr.schedules import ScheduleBase

SHIPPED = Path(__file__).resolve().parents[2] / "configs" / "policies"


@dataclass(frozen=True)
class PolicyList:
    """What can be named in a config, with a sentence each.

    Attributes
    ----------
    ready : dict of str to str
        The ready policies.
    blocks : dict of str to dict
        What policies are made of: kind ("schedules", "profiles", "phases", "controllers") → name → sentence.
    """

    ready: dict[str, str]
    blocks: dict[str, dict[str, str]]


def policies(config: str | Path | None = None) -> PolicyList:
    """List the ready policies and what policies can be made of, those beside a config and own code among them."""
    beside = Path(config) if config else None
    return PolicyList(ready_policies(beside), building_blocks(beside))


def policy_content(name: str, config: Path) -> Any:
    """Return what the file of a policy says, as plain YAML values.

    Parameters
    ----------
    name : str
        The policy's name.
    config : Path
        The config that names it; policies beside it come first.

    Raises
    ------
    KitError
        Where there is no such policy, with the nearest name, and where its file has faults.
    """
    files = policy_files(config)
    if name in files:
        return _read(files[name])[1]
    close = difflib.get_close_matches(name, files, n=1)
    raise KitError(
        f"policies: there is no policy {name!r}"
        + (f"; did you mean {close[0]}?" if close else f"; there are: {some(sorted(files), 50) or 'none'}")
    )


def policy_files(config: Path | None = None) -> dict[str, Path]:
    """Return the file of each policy by its name.

    A policy beside the config comes before one in the folder that the command runs in, and that before the kit's
    own.

    Parameters
    ----------
    config : Path or None
        The config beside which to look as well.
    """
    folders = [SHIPPED, Path("configs/policies")] + ([config.parent / "policies"] if config else [])
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.yaml"))}


def ready_policies(config: Path | None = None) -> dict[str, str]:
    """Return the description of each ready policy by its name.

    Parameters
    ----------
    config : Path or None
        The config beside which to look as well.

    Raises
    ------
    KitError
        Where a file is no policy.
    """
    return {name: _read(file)[0].description for name, file in sorted(policy_files(config).items())}


def building_blocks(config: Path | None = None) -> dict[str, dict[str, str]]:
    """Return what a policy can be made of, with a sentence each.

    Parameters
    ----------
    config : Path or None
        The config beside which to look for policies as well: own code that they or it name is among what is
        returned. None of it is run.

    Returns
    -------
    dict
        Kind ("schedules", "profiles", "phases", "controllers") → name → sentence.
    """
    families: dict[str, type[Named]] = {
        "schedules": ScheduleBase,
        "profiles": ProfileBase,
        "controllers": ControllerBase,
    }
    blocks = {
        kind: {name: _sentence(member) for name, member in family.members.items()}
        for kind, family in families.items()
    }
    for policy in [*(_read(file)[0] for file in policy_files(config).values()), *_inline(config)]:
        for place, own in own_code_of(policy):
            blocks[f"{place.rpartition('.')[2]}s"][own.reference] = own.sentence()
    return blocks | {"phases": {"fine_tune": _sentence(FineTune)}}


def _inline(config: Path | None) -> list[PolicyConfig]:
    """Return the policies that a config spells out, those that are valid."""
    content = read_yaml(config) if config and config.is_file() else None
    stated = content.get("policies") if isinstance(content, dict) else None
    found = []
    for policy in stated.values() if isinstance(stated, dict) else ():
        with suppress(ValidationError):  # `run` says what is wrong with it
            found.append(PolicyConfig.model_validate(policy, context={"folder": config.parent if config else "."}))
    return found


def _read(file: Path) -> tuple[PolicyConfig, Any]:
    """Return the policy in a file, and the file's content."""
    content = read_yaml(file)
    if content is None:
        raise KitError(f"{file}: is empty; a policy has at least `lr`")
    try:
        return PolicyConfig.model_validate(content, context={"folder": file.parent}), content
    except ValidationError as error:
        raise KitError(
            "\n".join(f"{file}: {line}" for line in explain(error, content, PolicyConfig, whole="policy"))
        ) from error


def _sentence(model: type[BaseModel]) -> str:
    """Return the first sentence of the docstring, up to its formula or reference."""
    first = " ".join((inspect.getdoc(model) or "").split("\n\n")[0].split())
    return first.split(". ")[0].rstrip(".")
