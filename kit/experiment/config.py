"""An experiment: the sections of all rooms composed, read from YAML, overridden, validated whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError, field_validator, model_validator

from kit.competition.config import CompetitionConfig, FoldsConfig
from kit.core.errors import KitError, some
from kit.core.faults import explain
from kit.core.settings import Name, Section
from kit.core.yaml import dump_yaml, parse_yaml, read_yaml
from kit.data.config import DataConfig
from kit.experiment.kernel_config import KernelConfig
from kit.lr import PolicyConfig
from kit.lr.registry import policy_content
from kit.model.config import ModelConfig
from kit.scoring.config import CompareConfig, ScoringConfig
from kit.training.config import PredictionConfig, TrainingConfig


class Experiment(Section):
    """Everything that decides a result, how policies are compared, and how it goes to Kaggle. Policies × seeds ×
    folds are its runs.

    name      of its folder in runs/ and its file in submissions/
    policies  by name; in YAML a name, a list of names (files in configs/policies/), or a mapping
    seeds     each trains every policy and fold once
    """

    incidental: ClassVar[frozenset[str]] = frozenset({"kernel", "compare"})

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
    compare: CompareConfig = CompareConfig()
    kernel: KernelConfig = KernelConfig()

    @model_validator(mode="after")
    def _a_file_a_channel(self):
        for side in ("train_images", "test_images"):
            images = getattr(self.competition, side)
            if isinstance(images, tuple) and len(images) != self.data.channels:
                raise ValueError(
                    f"competition.{side} names {len(images)} files an image, one a channel, but data.channels is "
                    f"{self.data.channels}"
                )
        return self

    @field_validator("policies", "seeds")
    @classmethod
    def _not_empty(cls, values):
        if not values:
            raise ValueError("at least one is needed")
        if len(set(values)) < len(values):
            raise ValueError("the same one stands there twice")
        return values

    def to_yaml(self, stated_only: bool = False) -> str:
        """The config with every default written out, or only with what differs from the defaults."""
        return dump_yaml(self.model_dump(mode="json", exclude_defaults=stated_only))


def load_experiment(
    path: str | Path, overrides: str | Sequence[str] = (), policies: str | Sequence[str] = ()
) -> Experiment:
    """Reads and validates a config.

    path       a YAML file
    overrides  like "training.epochs=3"; the value is read as YAML
    policies   names that replace the file's `policies`: those in the config itself, then files
               NAME.yaml in `policies/` beside the config and in `configs/policies/`

    Raises KitError with a line for every key that is unknown or has a bad value.
    """
    path = Path(path)
    overrides, policies = ([each] if isinstance(each, str) else each for each in (overrides, policies))
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise KitError(f"{path}: a config is a mapping of sections, like `name: digits`")
    whole = [override for override in overrides if override.partition("=")[0].strip() == "policies"]
    for override in whole:  # names, which have to be there before a key of a policy can be overridden
        _override(content, override)
    content["policies"] = _policies(content.get("policies"), policies, path)
    for override in overrides:
        if override not in whole:
            _check_policy_name(override, content["policies"])
            _override(content, override)
    return validate(content, str(path))


def of_size(experiment: Experiment, seeds: int | None = None, folds: int | None = None) -> Experiment:
    """The experiment with so many seeds (its own first, then the numbers after its last) and its first folds.

    Raises KitError for more folds than the plan has.
    """
    if seeds is not None:
        after = range(max(experiment.seeds) + 1, max(experiment.seeds) + 1 + seeds)
        experiment = experiment.model_copy(update={"seeds": (*experiment.seeds, *after)[:seeds]})
    if folds is not None:
        if folds > experiment.folds.k:
            raise KitError(
                f"--folds {folds}: the plan has {experiment.folds.k} folds; set folds.k for another plan"
            )
        run = "all" if folds == experiment.folds.k else tuple(range(folds))
        experiment = experiment.model_copy(update={"folds": experiment.folds.model_copy(update={"run": run})})
    return experiment


def validate(content: dict[str, Any], source: str) -> Experiment:
    """The experiment that `content` describes; KitError with a line for every fault."""
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        lines = explain(error, content, Experiment)
        raise KitError("\n".join(f"{source}: {line}" for line in lines)) from error


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
    return {name: policy_content(name, config) if inline.get(name) is None else inline[name] for name in names}


def _check_policy_name(override: str, policies: dict[str, Any]) -> None:
    """A name that is not there would be a policy more, not a change of one."""
    section, _, rest = override.partition("=")[0].strip().partition(".")
    name = rest.partition(".")[0]
    if section == "policies" and name not in policies and name != rest:
        raise KitError(
            f"--set {override}: there is no policy {name!r} in this experiment, but {some(policies)}; "
            "add one with --policy"
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
    section[last] = parse_yaml(text, f"--set {override}")
