"""What the command line changes of a config, `--set KEY=VALUE`, before it is validated."""

from typing import Any

from kit.core.errors import KitError, some
from kit.core.yaml import Written, parse_yaml

Override = str | tuple[str, Any]  # "training.epochs=3", or ("training.epochs", 3)


def key_of(override: Override) -> str:
    """Return the key that is set, like training.epochs."""
    return (override.partition("=")[0] if isinstance(override, str) else override[0]).strip()


def _said(override: Override) -> str:
    """Return it as it is typed on the command line."""
    return override if isinstance(override, str) else f"{override[0]}={override[1]}"


def need_policy(override: Override, policies: dict[str, Any]) -> None:
    """Raise KitError for a policy that is not there: it would be one more, not a change of one."""
    section, _, rest = key_of(override).partition(".")
    name = rest.partition(".")[0]
    if section == "policies" and name not in policies and name != rest:
        raise KitError(
            f"--set {_said(override)}: there is no policy {name!r} in this experiment, but {some(policies)}; "
            "add one with --policy"
        )


def put_override(content: dict[str, Any], override: Override) -> None:
    """Put the value in its place in a config, making the sections above it; KitError where that is no section."""
    key = key_of(override)
    if isinstance(override, str) and not (override.partition("=")[1] and override.partition("=")[0]):
        raise KitError(f"--set {override}: expected a key and a value, like --set training.epochs=3")
    *parents, last = key.split(".")
    section = content
    for parent in parents:
        parent = _written_key(section, parent)
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            raise KitError(f"--set {_said(override)}: {parent} is not a section")
    place = _written_key(section, last)
    if isinstance(override, str):
        section[place] = parse_yaml(override.partition("=")[2], f"--set {override}", written=True)
    else:
        section[place] = override[1]


def _written_key(section: dict[Any, Any], name: str) -> Any:
    """Return the key of a section that is written so; the name itself where there is none."""
    return next((key for key in section if isinstance(key, Written) and key.text == name), name)
