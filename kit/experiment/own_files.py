"""The files of the user's own code that an experiment names: their digests, and what has to travel with it."""

import os
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.core.errors import KitError
from kit.core.named import own_code_of
from kit.core.own_code import OwnCode, as_on_linux, is_reference

if TYPE_CHECKING:
    from kit.experiment.config import ExperimentConfig


def with_code(experiment: "ExperimentConfig") -> "ExperimentConfig":
    """Return the experiment with the digests of its own code.

    Raises
    ------
    KitError
        Where a file is not there, is no Python, or is not what the config says it was.
    """
    code: dict[str, str] = {}
    for place, own in own_code_of(experiment):
        if own.file:
            try:
                code[_key(own)] = own.digest()
            except KitError as error:
                raise KitError(f"{place}: {error}") from error
    for name, stated in experiment.code.items():
        if code.get(name, stated) != stated:
            raise KitError(
                f"code: {name} is not what it was when this config was stored; take `code` out of the config to "
                "go by the file as it is"
            )
    return experiment.model_copy(update={"code": dict(sorted(code.items()))})


def files_named(sections: Any) -> set[str]:
    """Return the files of own code that sections name, as the config spells them."""
    return {_key(own) for _, own in own_code_of(sections) if own.file}


def code_of(experiment: "ExperimentConfig", section: Any) -> dict[str, str]:
    """Return the digest of each file of own code that a section of the experiment names."""
    each = {_key(own): own for _, own in own_code_of(section) if own.file}
    return {key: experiment.code.get(key) or each[key].digest() for key in sorted(each)}


def files_of_code(experiment: "ExperimentConfig", tolerant: bool = False) -> dict[str, bytes]:
    """Return what has to lie beside the config where it is run: path relative to it → content.

    Parameters
    ----------
    experiment : ExperimentConfig
        Whose config is in a file.
    tolerant : bool
        Leave out files that lie outside the config's folder.

    Raises
    ------
    KitError
        For a file outside the config's folder, which does not travel.
    """
    files: dict[str, bytes] = {}
    for place, own in own_code_of(experiment):
        if own.file is None:
            continue
        for path, content in own.files().items():
            try:
                name = path.relative_to(own.folder.resolve()).as_posix()
            except ValueError:
                if tolerant:
                    continue
                raise KitError(
                    f"{place}: {path.name} lies outside the config's folder, so it does not travel; move it "
                    "beside the config"
                ) from None
            files[name] = as_on_linux(content)
    return files


def packages_of_code(experiment: "ExperimentConfig") -> dict[str, str]:
    """Return the version of each installed package whose code the experiment names."""
    named = [own.reference for _, own in own_code_of(experiment) if not own.file]
    modules = {reference.partition(":")[0].partition(".")[0] for reference in named}
    if not modules:
        return {}
    known = packages_distributions()
    return {name: version(name) for module in sorted(modules) for name in known.get(module, ())[:1]}


def rebased(content: Any, start: Path, folder: Path) -> Any:
    """Return the content of a policy's file, own code in it named relative to `folder` in place of `start`."""
    if isinstance(content, dict):
        return {key: rebased(value, start, folder) for key, value in content.items()}
    if isinstance(content, list):
        return [rebased(value, start, folder) for value in content]
    return OwnCode(content, start).seen_from(folder) if is_reference(content) else content


def _key(own: OwnCode) -> str:
    """Return the file as the config names it, in one spelling: the same wherever the config lies."""
    return Path(os.path.normpath(own.reference.rpartition(":")[0])).as_posix()
