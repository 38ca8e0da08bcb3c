"""In which views the runs of an experiment were predicted, and in which the config asks for them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kit.core.runs import RunRecord
from kit.data.config import DataConfig

if TYPE_CHECKING:
    from kit.experiment.config import ExperimentConfig
    from kit.training.views import Views


def asked_views(config: "ExperimentConfig") -> "Views":
    """Return the views that the config asks for; heads over features have theirs in `features`."""
    from kit.training.views import Views

    if config.features:
        return Views.plain(config.data.size)
    return config.prediction.chosen(config.data.size)


def views_of(record: RunRecord, config: "ExperimentConfig") -> "Views":
    """Return the views in which a finished run, out of fold and test alike, was predicted.

    Earlier versions did not write it down: but for views that were given up, the digest of their config tells it.
    """
    from kit.experiment.fingerprint import early_views
    from kit.training.views import Views

    trained = config.data.size
    if config.features:
        return Views.plain(trained)
    if record.predicted is not None:
        return Views.of_form(record.predicted, trained)
    return Views(trained, trained, () if record.views == "none" else early_views(record.depends_on, config))


def gave_up(record: RunRecord, asked: Mapping[str, Any]) -> bool:
    """Whether a budget of time gave up views of a run that are `asked` for."""
    return record.views == "none" and bool(asked.keys() - {"size"})


def prediction_data(config: "ExperimentConfig", views: "Views | None" = None) -> DataConfig:
    """Return how images are read and kept to be predicted: those of the config, or of other views."""
    side = (views or asked_views(config)).side
    return config.data if side == config.data.size else config.data.model_copy(update={"size": side})
