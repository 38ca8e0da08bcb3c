"""An experiment: the sections of all rooms composed, read from YAML, overridden, validated whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError, field_validator, model_validator

from kit.competition.config import CompetitionConfig
from kit.competition.folds_config import FoldsConfig
from kit.competition.images_config import PixelsConfig
from kit.core.errors import KitError, some
from kit.core.manifest import need_listed
from kit.core.settings import ConfigSection, Duration, Name, explain, settled
from kit.core.yaml import dump_yaml, read_yaml
from kit.data.config import DataConfig
from kit.experiment.compare_config import CompareConfig
from kit.experiment.features.config import FeaturesConfig, spelled
from kit.experiment.kernel_config import KernelConfig
from kit.experiment.overrides import Override, key_of, need_policy, put_override
from kit.experiment.own_files import rebased, with_code
from kit.experiment.soup.config import SoupConfig
from kit.lr import PolicyConfig
from kit.lr.registry import policy_content, policy_files
from kit.model.config import ModelConfig
from kit.scoring.config import ScoringConfig
from kit.training.config import PredictionConfig, TrainingConfig

# Of experiment.yaml in an experiment's folder.
STORED_REMEDY = (
    "remove it, and python -m kit run CONFIG writes it anew; where it was changed by hand, remove manifest.json "
    "beside it"
)


def _need_rows_alike(competition: CompetitionConfig) -> None:
    """Raise ValueError where rows of a competition count unlike each other, or some are no rows of its table."""
    for key in ("extra", "weight"):
        if getattr(competition, key):
            raise ValueError(
                f"competition.{key}: heads over features are fitted on the rows of the train table, each alike; "
                "leave it out, or train the network (leave features out)"
            )


HEAD = PolicyConfig(lr=1.0, description="a head over features, which has no rates")  # in the place of a policy


class ExperimentConfig(ConfigSection):
    """Everything that decides a result, how policies are compared, and how it goes to Kaggle.

    Policies × seeds × folds are its runs.

    Attributes
    ----------
    name
        Of its folder in runs/ and its file in submissions/.
    policies
        By name; in YAML a name, a list of names (files in configs/policies/), or a mapping.
    features
        Heads over the features of a frozen body, which stand where other experiments have policies; left out:
        networks are trained.
    soup
        Runs of another experiment whose weights are averaged, in the place of trainings (`python -m kit soup`).
    seeds
        Each trains every policy and fold once.
    budget
        Seconds that `run` and `compare` may take, written like 8h30m; what does not fit is given up in a declared
        order (`kit.experiment.budget`). Left out: no limit.
    code
        The digest of each file of own code, which the kit writes here.
    """

    incidental: ClassVar[frozenset[str]] = frozenset({"prediction", "kernel", "compare", "budget"})
    later: ClassVar[frozenset[str]] = frozenset({"code", "features", "soup"})

    name: Name
    competition: CompetitionConfig
    folds: FoldsConfig = FoldsConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    policies: dict[Name, PolicyConfig]
    training: TrainingConfig = TrainingConfig()
    prediction: PredictionConfig = PredictionConfig()
    features: FeaturesConfig | None = None
    soup: SoupConfig | None = None
    scoring: ScoringConfig = ScoringConfig()
    seeds: tuple[int, ...] = (0,)
    compare: CompareConfig = CompareConfig()
    kernel: KernelConfig = KernelConfig()
    budget: Duration | None = None
    code: dict[str, str] = {}

    @model_validator(mode="after")
    def _a_file_a_channel(self) -> "ExperimentConfig":
        competition = self.competition
        sides = {"train_images": competition.train_images, "test_images": competition.test_images}
        sides |= {f"extra[{place}].images": each.images for place, each in enumerate(competition.extra or ())}
        for side, images in sides.items():
            if isinstance(images, tuple) and len(images) != self.data.channels:
                raise ValueError(
                    f"competition.{side} names {len(images)} files an image, one a channel, but data.channels is "
                    f"{self.data.channels}"
                )
        return self

    @model_validator(mode="after")
    def _files_for_the_decoder(self) -> "ExperimentConfig":
        if self.data.decoder and isinstance(self.competition.train_images, PixelsConfig):
            raise ValueError("data.decoder reads image files, but competition.train_images are columns of a table")
        if self.data.decoder and any(
            isinstance(each.images, PixelsConfig) for each in self.competition.extra or ()
        ):
            raise ValueError(
                "data.decoder reads image files, but images of competition.extra are columns of a table"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _heads_for_policies(cls, content: Any) -> Any:
        """Let heads stand where other experiments have policies."""
        features = content.get("features") if isinstance(content, dict) else None
        if not isinstance(features, dict) or content.get("policies"):
            return content
        heads = spelled(features.get("heads"))
        return content | {"policies": dict.fromkeys(heads if isinstance(heads, dict) else ["none"], HEAD)}

    @model_validator(mode="after")
    def _heads_alone(self) -> "ExperimentConfig":
        if self.features is None:
            return self
        if strange := [name for name in self.policies if name not in self.features.heads]:
            raise ValueError(
                f"policies: heads over features stand in their place, so {some(strange)} cannot be trained here; "
                "leave policies out (python -m kit features CONFIG does that for a config that has some)"
            )
        _need_rows_alike(self.competition)
        if self.compare.tune or self.compare.equalise:
            raise ValueError("compare: tune and equalise are about rates, which heads over features have not")
        if len(self.seeds) > 1:
            raise ValueError("seeds: heads are the same for each seed; state one")
        if self.prediction != PredictionConfig(batch_size=self.prediction.batch_size):
            raise ValueError(
                "prediction: heads see the features of one image; state views as features.views, and leave views, "
                "size and average of prediction out"
            )
        return self

    @model_validator(mode="after")
    def _one_soup(self) -> "ExperimentConfig":
        if self.soup is None:
            return self
        if self.features:
            raise ValueError("soup: weights of networks are averaged, and not heads over features; leave one out")
        if len(self.policies) > 1 or len(self.seeds) > 1:
            raise ValueError("soup: it is of one policy, and stands under one seed; state one of each")
        if self.compare.tune or self.compare.equalise:
            raise ValueError("compare: tune and equalise are about rates, which a mean of weights has not")
        return self

    def with_features(self, features: FeaturesConfig) -> "ExperimentConfig":
        """Return the experiment with these heads in the place of its policies, and without what needs rates.

        Raises
        ------
        KitError
            Where its rows are not for heads.
        """
        try:
            _need_rows_alike(self.competition)
        except ValueError as error:
            raise KitError(str(error)) from error
        heads = dict.fromkeys(features.heads, HEAD)
        compare = self.compare.model_copy(update={"tune": None, "equalise": False, "baseline": None})
        prediction = PredictionConfig(batch_size=self.prediction.batch_size)
        changes = {"features": features, "policies": heads, "seeds": self.seeds[:1], "compare": compare}
        changes |= {"prediction": prediction, "soup": None}
        return self.model_copy(update=changes)

    @model_validator(mode="after")
    def _predictable(self) -> "ExperimentConfig":
        size, trained, crop = self.prediction.size or self.data.size, self.data.size, self.data.crop_pct
        if size < trained:
            raise ValueError(
                f"prediction.size = {size} is below data.size = {trained}; the same or more is allowed"
            )
        if size / crop > 8192:
            raise ValueError("images would be kept at more than 8192 pixels (prediction.size / data.crop_pct)")
        if "five_crops" in self.prediction.views and round(size / crop) == size:
            raise ValueError(
                "prediction.views: five_crops are all the same, as nothing is kept of images beyond what the "
                "model sees; lower data.crop_pct, or leave them out"
            )
        return self

    @field_validator("policies", "seeds")
    @classmethod
    def _not_empty(cls, values: Any) -> Any:
        if not values:
            raise ValueError("at least one is needed")
        if len(set(values)) < len(values):
            raise ValueError("the same one stands there twice")
        return values

    @property
    def trains(self) -> bool:
        """Whether networks are trained, rather than heads fitted, or weights averaged."""
        return self.features is None and self.soup is None

    def need_rates(self) -> None:
        """Raise KitError where nothing is trained: for what is about rates."""
        if self.features:
            raise KitError("features: heads over features have no rates to look at; give a config of trainings")
        if self.soup:
            raise KitError(f"soup: a mean of weights has no rates to look at; give the config of {self.soup.of}")

    def to_yaml(self, stated_only: bool = False) -> str:
        """The config with every default written out, or only with what differs from the defaults."""
        content = self.model_dump(mode="json", exclude_defaults=stated_only)
        if self.features:
            content.pop("policies")
        return dump_yaml(content)


def load_experiment(
    path: str | Path, overrides: str | Sequence[Override] = (), policies: str | Sequence[str] = ()
) -> ExperimentConfig:
    """Read and validate a config.

    Parameters
    ----------
    path : path
        A YAML file.
    overrides : str or sequence
        Like "training.epochs=3", where the value is read as YAML, or ("training.epochs", 3).
    policies : str or sequence of str
        Names that replace the file's `policies`: those in the config itself, then files NAME.yaml in `policies/`
        beside the config and in `configs/policies/`.

    Returns
    -------
    ExperimentConfig

    Raises
    ------
    Damaged
        Where it is the config of an experiment in runs/, and not what was written there.
    KitError
        With a line for every key that is unknown or has a bad value.
    """
    path = Path(path)
    stated: list[Override] = [overrides] if isinstance(overrides, str) else list(overrides)
    chosen = [policies] if isinstance(policies, str) else list(policies)
    need_listed(path.parent, path, STORED_REMEDY)  # where it is the one of an experiment that was run
    content = read_yaml(path, written=True)
    if not isinstance(content, dict):
        raise KitError(f"{path}: a config is a mapping of sections, like `name: digits`")
    whole = [override for override in stated if key_of(override) == "policies"]
    for override in whole:  # names, which have to be there before a key of a policy can be overridden
        put_override(content, override)
    if has_heads := _key_is_there(content, stated, "features"):
        content["policies"] = settled(content.get("policies"))
    else:
        content["policies"] = _policies(settled(content.get("policies")), chosen, path)
    for override in stated:
        if override not in whole:
            need_policy(override, content["policies"] or {})
            put_override(content, override)
    experiment = validate(content, str(path), path.parent)
    return with_code(_with_heads(experiment, chosen) if has_heads else experiment)


def of_size(experiment: ExperimentConfig, seeds: int | None = None, folds: int | None = None) -> ExperimentConfig:
    """Return the experiment with so many seeds and its first folds.

    Parameters
    ----------
    experiment : ExperimentConfig
    seeds : int, optional
        Its own come first, then the numbers after its last.
    folds : int, optional

    Raises
    ------
    KitError
        For more folds than the plan has, and for several seeds of what is the same for each.
    """
    if seeds is not None and seeds > 1 and not experiment.trains:
        what = "heads over features" if experiment.features else "means of weights"
        raise KitError(f"--seeds {seeds}: {experiment.name}: {what} are the same for each seed; leave it out")
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


def validate(
    content: dict[str, Any], source: str, folder: Path = Path(), stored: bool = False
) -> ExperimentConfig:
    """The experiment that `content` describes, own code being in `folder`; KitError with a line a fault.

    `stored`: it was run once, and is read although such a policy would be refused today.
    """
    try:
        content = settled(content, ExperimentConfig)
    except KitError as error:
        raise KitError(f"{source}: {error}") from error
    try:
        return ExperimentConfig.model_validate(content, context={"folder": folder, "stored": stored})
    except ValidationError as error:
        lines = explain(error, content, ExperimentConfig)
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
    return {name: _from_file(name, config) if inline.get(name) is None else inline[name] for name in names}


def _from_file(name: str, config: Path) -> Any:
    """Return a ready policy's content, own code in it named relative to the config."""
    content = policy_content(name, config)
    return rebased(content, policy_files(config)[name].parent, config.parent)


def _key_is_there(content: dict[str, Any], stated: Sequence[Override], key: str) -> bool:
    """Whether a section is in a config or made by what overrides it."""
    return content.get(key) is not None or any(key_of(each).partition(".")[0] == key for each in stated)


def _with_heads(experiment: ExperimentConfig, chosen: Sequence[str]) -> ExperimentConfig:
    """Return the experiment with those of its heads that --policy names; with all where it names none."""
    if not chosen or experiment.features is None:
        return experiment
    heads = experiment.features.heads
    if unknown := [name for name in chosen if name not in heads]:
        raise KitError(f"--policy: there is no head {some(unknown)} in features.heads, but {some(heads)}")
    kept = {name: heads[name] for name in dict.fromkeys(chosen)}
    features = experiment.features.model_copy(update={"heads": kept})
    return experiment.model_copy(update={"features": features, "policies": dict.fromkeys(kept, HEAD)})
