"""The files of the user's own code that an experiment names: their digests, and what has to travel with it."""

import os
from dataclasses import replace
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.core.errors import KitError
from kit.core.named import own_code_of, sections_with_code
from kit.core.own_code import BEYOND, OwnCode, as_on_linux, is_reference

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
        try:
            if own.file:
                code[_key(own)] = replace(own, expected=None).digest()
            else:
                _need_installed(own)
        except KitError as error:
            raise KitError(f"{place}: {error}") from error
    for name, stated in experiment.code.items():
        if code.get(name, stated) != stated:
            raise KitError(
                f"code: {name} is not what it was when this config was stored; take `code` out of the config to "
                "go by the file as it is"
            )
    return pinned(experiment.model_copy(update={"code": dict(sorted(code.items()))}))


def pinned(experiment: "ExperimentConfig") -> "ExperimentConfig":
    """Let the experiment load no other code than that of its digests, and return it; nothing is read."""
    for _, section in sections_with_code(experiment):
        named = {own.reference: experiment.code.get(_key(own)) for _, own in own_code_of(section) if own.file}
        section.pin({reference: digest for reference, digest in named.items() if digest})
    return experiment


def _need_installed(own: OwnCode) -> None:
    """Refuse a module that is no package's: neither would its digest count, nor would it travel."""
    top = own.reference.partition(":")[0].partition(".")[0]
    spec = find_spec(top)
    place = Path((spec.origin if spec else None) or "").resolve()
    if spec and place.is_relative_to(Path.cwd()) and "site-packages" not in place.parts:
        raise KitError(
            f"{own.reference}: is of a file here and of no installed package; name it {place.name}:{own.name}"
        )


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
        Put files that lie outside the config's folder into a folder `beyond`, where a stored config finds them.

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
                    parts = Path(os.path.relpath(path, own.folder.resolve())).parts
                    files["/".join([BEYOND, *(part for part in parts if part != "..")])] = as_on_linux(content)
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
