"""Experiments that differ from one config in one key, to be compared with it: `--vary 'data.size=[64, 96]'`."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

from kit.comparison.experiments import LONGEST
from kit.core.errors import KitError
from kit.core.settings import ConfigSection, fingerprint
from kit.core.yaml import Written, parse_yaml
from kit.experiment.config import ExperimentConfig, load_experiment
from kit.experiment.overrides import Override

TRAINS = ("competition.extra", "competition.weight")  # of a section whose other keys say which rows there are
_LONGEST_VALUE = 30  # characters of a value in a name
_WHY_NOT = {
    "name": "it is where the runs are",
    "folds": "compared experiments follow one fold plan",
    "competition": "compared experiments are of the same rows and labels",
    "scoring": "nothing is trained by it: python -m kit run CONFIG --set scoring.…=… scores runs that are there",
    "prediction": (
        "nothing is trained by it, and each value would train the same weights again: after python -m kit run "
        "CONFIG, python -m kit views EXPERIMENT compares views, sizes and averages on the weights that are there"
    ),
    "seeds": "all are trained with the same seeds: --seeds N",
    "compare": "nothing is trained by it: set it with --set",
    "kernel": "nothing is trained by it",
    "budget": "nothing is trained by it: --budget TIME",
    "code": "the kit writes it",
}


def load_varied(
    path: str | Path,
    vary: Sequence[str],
    overrides: Sequence[Override] = (),
    policies: Sequence[str] = (),
) -> list[ExperimentConfig]:
    """Read a config, and make of it one experiment more for each value that differs from it.

    Parameters
    ----------
    path : path
    vary : sequence of str
        Like "data.augment=[light, medium]": a key and a YAML list. Each key varies alone, the others stay as they
        are in the config.
    overrides, policies
        As `load_experiment` takes them; they hold for all.

    Returns
    -------
    list of ExperimentConfig
        The config itself, then the others, named like <name>-augment-light. A value that the config has itself is
        the config.

    Raises
    ------
    KitError
        For a key that is unknown, has a bad value, or cannot vary, and where nothing differs.
    """
    base = load_experiment(path, overrides, policies)
    made = {_without_name(base): base}
    for text in vary:
        key, values = _parsed(text)
        for value in values:
            name = name_of(base.name, key, value)
            try:
                config = load_experiment(path, [*overrides, (key, value), ("name", name)], policies)
            except KitError as error:
                raise KitError("\n".join(f"--vary {text}: {line}" for line in str(error).splitlines())) from error
            made.setdefault(_without_name(config), config)
    if len(made) < 2:
        raise KitError(
            f"--vary {vary[0]}: {path} has this value itself, so there is nothing to compare; add another"
        )
    return list(made.values())


def _without_name(config: ExperimentConfig) -> str:
    return fingerprint(config.model_dump(mode="json", exclude={"name"}))


def _parsed(text: str) -> tuple[str, list[Any]]:
    """The key and the values; KitError where it is no key with a list, or one that cannot vary."""
    key, equals, stated = (part.strip() for part in text.partition("="))
    example = "like --vary 'data.augment=[light, medium]'"
    if not key or not equals:
        raise KitError(f"--vary {text}: expected a key and a list of values, {example}")
    values = parse_yaml(stated, f"--vary {text}", written=True)
    if not isinstance(values, list) or not values:
        raise KitError(f"--vary {text}: expected a list of values, {example}")
    allowed = any(key == each or key.startswith(f"{each}.") for each in TRAINS)
    if (why := _WHY_NOT.get(key.partition(".")[0])) and not allowed:
        raise KitError(f"--vary {key}: {why}")
    return key, values


def name_of(base: str, key: str, value: Any) -> str:
    """Return `<base>-augment-light`; with the section's name where several sections have such a key."""
    last = key.rpartition(".")[2]
    short = last if _ends()[last] <= 1 else ".".join(key.split(".")[-2:])
    name = f"{base}-{_safe(short)}-{_in_name(value)}"
    return (
        name
        if len(name) <= LONGEST
        else f"{name[: LONGEST - 9].rstrip('-.')}-{fingerprint([key, _plain(value)])[:8]}"
    )


def _in_name(value: Any) -> str:
    """A value as it stands in a name; with a few letters of a digest where it is not all of it."""
    value = _plain(value)
    text = (
        {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else value
    )
    text = f"{text:.12g}".replace("+", "") if isinstance(text, float) else str(text)
    safe = _safe(text)[:_LONGEST_VALUE].strip("-.")
    return safe if safe == text else "-".join(filter(None, (safe, fingerprint([value])[:6])))


def _safe(text: str) -> str:
    return re.sub(r"-+", "-", re.sub(r"[^A-Za-z0-9._-]", "-", text)).strip("-")


def _plain(value: Any) -> Any:
    """What YAML makes of a value, however deep."""
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.value if isinstance(value, Written) else value


@cache
def _ends() -> Counter[str]:
    """How many sections have a key of that name."""
    return Counter(key for section in dict.fromkeys(_sections(ExperimentConfig)) for key in section.model_fields)


def _sections(section: type[ConfigSection]) -> Iterator[type[ConfigSection]]:
    """A section and those within it."""
    yield section
    for field in section.model_fields.values():
        for kind in _kinds(field.annotation):
            yield from _sections(kind)


def _kinds(annotation: Any) -> Iterator[type[ConfigSection]]:
    if isinstance(annotation, type) and issubclass(annotation, ConfigSection):
        yield annotation
    for inner in get_args(annotation):
        yield from _kinds(inner)
