"""In which keys the configs of compared experiments differ."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from kit.comparison.contest import Contest, Entry
from kit.core.settings import fingerprint

APART = (
    "name",
    "policies",
    "seeds",
    "compare",
    "kernel",
    "budget",
)  # the first's count, or they decide no training


class ComparedExperiment(BaseModel):
    """An experiment that is compared: its name in runs/, the policy that takes part, a digest of its config."""

    model_config = ConfigDict(extra="allow")

    name: str
    policy: str
    config: str


class DifferingKey(BaseModel):
    """A key of the config whose values differ, and the value by experiment; None where it has none."""

    model_config = ConfigDict(extra="allow")

    key: str
    values: dict[str, Any]


def experiments_of(contest: Contest) -> list[dict[str, Any]]:
    """Return each experiment that is compared, for comparison.json."""
    return [
        {"name": name, "policy": entry.policy, "config": fingerprint(_content(entry))}
        for name, entry in contest.entries.items()
    ]


def differing(contest: Contest) -> list[dict[str, Any]]:
    """Return the keys in which the configs differ, in their order, with the value of each experiment.

    A key that not all have, like an option of another schedule, is told where its value is no default, and where
    another has nothing in the place of its section.
    """
    stated = {key for entry in contest.entries.values() for key, _ in _flat(_content(entry, stated_only=True))}
    each = {name: dict(_flat(_content(entry))) for name, entry in contest.entries.items()}
    keys = list(dict.fromkeys(key for flat in each.values() for key in flat))
    rows = {key: {name: flat.get(key) for name, flat in each.items()} for key in keys}
    return [
        {"key": key, "values": values}
        for key, values in rows.items()
        if (key in stated or all(key in flat or _within(key, flat) for flat in each.values()))
        and len({fingerprint([value]) for value in values.values()}) > 1
    ]


def _content(entry: Entry, stated_only: bool = False) -> dict[str, Any]:
    """The config as it is compared: with the one policy that takes part; defaults written out, or left out."""
    config, policy = entry.config, entry.config.policies[entry.policy]
    dumped = config.model_dump(mode="json", exclude_defaults=stated_only)
    content = {key: value for key, value in dumped.items() if key not in APART}
    content.get("folds", {}).pop("run", None)
    chosen = policy.model_dump(mode="json", exclude_defaults=True) if stated_only else policy.canonical()
    if config.features:  # a head, which has no rates
        chosen = {}
    return content | {"policy": {"name": entry.policy, **chosen}}


def _within(key: str, flat: Mapping[str, Any]) -> bool:
    """Whether one of the sections that a key is in is a value here, like null."""
    parts = key.split(".")
    return any(".".join(parts[:depth]) in flat for depth in range(1, len(parts)))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """A mapping's values by dotted key, those of the mappings in it among them."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def in_short(value: Any, letters: int = 60) -> str:
    """Return a value of a config as a table shows it; a dash for none."""
    if value is None or value in ({}, []):
        return "—"
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, list):
        text = f"[{', '.join(in_short(each) for each in value)}]"
    elif isinstance(value, dict):
        text = f"{{{', '.join(f'{key}: {in_short(each)}' for key, each in value.items())}}}"
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def differing_in_words(experiments: Sequence[ComparedExperiment], differs: Sequence[DifferingKey]) -> str:
    """Return the line above what differs: the experiments, in the order of the values."""
    names = " | ".join(each.name for each in experiments)
    if not differs:
        return f"Nothing differs but the names: {names}"
    return f"What differs: {names}"


def in_a_line(key: DifferingKey) -> str:
    """Return it like `model.name: resnet18 | convnext_tiny`."""
    return f"{key.key}: {' | '.join(in_short(value) for value in key.values.values())}"
