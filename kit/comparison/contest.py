"""What is compared with each other: policies of one experiment, or a policy each of several."""

from dataclasses import dataclass

from kit.comparison.tuning import baseline_of
from kit.core.settings import fingerprint
from kit.experiment.config import ExperimentConfig
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.own_files import code_of


@dataclass(frozen=True)
class Entry:
    """One that is compared: a policy of an experiment."""

    policy: str
    loaded: LoadedExperiment

    @property
    def config(self) -> ExperimentConfig:
        """The config of the experiment."""
        return self.loaded.config

    @property
    def begins_with(self) -> str:
        """A digest of what the initial weights of a seed come from: model, weights, channels and size."""
        config = self.config
        weights = self.loaded.depends_on.get("weights")
        shape = [config.data.channels, config.data.size]
        return fingerprint(
            [config.model.canonical(), code_of(config, config.model), weights, *shape, self._untrained]
        )

    @property
    def length(self) -> str:
        """A digest of what decides how many updates a training of a fold makes."""
        config = self.config
        return fingerprint([config.training.canonical(), config.competition.canonical(), self._untrained])

    @property
    def _untrained(self) -> str | None:
        """What stands in the place of trainings: heads over features, or a mean of weights."""
        return "heads" if self.config.features else "soup" if self.config.soup else None


@dataclass(frozen=True)
class Contest:
    """All that are compared, and by whose settings.

    Attributes
    ----------
    name : str
        Of the comparison: the experiment's, or one of its own.
    settings : ExperimentConfig
        Whose scoring, folds, seeds and `compare` count: the experiment, or the first of several.
    entries : dict of str to Entry
        By what they are called: the policy, or the experiment.
    baseline : str
        The one that the others are compared with.
    several : bool
        Whether experiments are compared, not policies of one.
    """

    name: str
    settings: ExperimentConfig
    entries: dict[str, Entry]
    baseline: str
    several: bool = False

    @classmethod
    def of_policies(cls, experiment: ExperimentConfig, loaded: LoadedExperiment) -> "Contest":
        """Return the contest of an experiment's policies; `loaded` may know variants of them, too."""
        entries = {policy: Entry(policy, loaded) for policy in experiment.policies}
        return cls(experiment.name, experiment, entries, baseline_of(experiment))

    @property
    def loaded(self) -> LoadedExperiment:
        """The experiment that the settings are of."""
        return next(iter(self.entries.values())).loaded

    @property
    def kind(self) -> str:
        """What an entry is, in a word."""
        return "experiment" if self.several else "policy"

    @property
    def kinds(self) -> str:
        """The same for several of them."""
        return "experiments" if self.several else "policies"
