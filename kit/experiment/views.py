"""In which views the runs of an experiment were predicted, and in which the config asks for them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kit.core.errors import KitError, Say, some
from kit.core.runs import RunDir, RunRecord
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


def views_of_heads(config: "ExperimentConfig") -> "Views":
    """Return the views over which the features are the mean that heads were fitted to."""
    from kit.training.views import Views

    assert config.features, "only to be asked of an experiment of heads"
    return Views(config.data.size, config.data.size, config.features.views)


ANEW = "python -m kit run predicts both anew"


def views_of_runs(runs: Sequence[RunDir], config: "ExperimentConfig", say: Say, mend: str = ANEW) -> "Views":
    """Return the views of the first run; told where they are not those of the config, or not those of all.

    Of heads, those of their features.

    Parameters
    ----------
    runs : sequence of RunDir
        Finished ones, with which test rows are predicted.
    config : ExperimentConfig
    say : callable
    mend : str
        What to do where the views are not those of the config.

    Raises
    ------
    KitError
        Where runs were predicted at different sizes.
    """
    if config.features:
        return views_of_heads(config)
    each = [views_of(run.record, config) for run in runs]
    asked, first = asked_views(config), each[0]
    if sizes := {views.side for views in each} - {first.side}:
        raise KitError(
            f"prediction.size: {runs[0].path} was predicted at {first.side} px, others at {some(sorted(sizes))}; "
            "python -m kit run predicts all anew, alike"
        )
    counts = Counter(map(str, each))
    if len(counts) > 1:
        told = ", ".join(f"{count} in {name}" for name, count in counts.items())
        say(f"runs were predicted in different views ({told}); each model predicts in its own")
    elif first != asked:
        say(
            f"prediction: the config asks for {asked}, but out-of-fold predictions are in {first}, and so are "
            f"those of test rows: the decision rule is theirs; {mend}"
        )
    return first


def gave_up(record: RunRecord, asked: Mapping[str, Any]) -> bool:
    """Whether a budget of time gave up views of a run that are `asked` for."""
    return record.views == "none" and bool(asked.keys() - {"size"})


def prediction_data(config: "ExperimentConfig", views: "Views | None" = None) -> DataConfig:
    """Return how images are read and kept to be predicted: those of the config, or of other views."""
    side = (views or asked_views(config)).side
    return config.data if side == config.data.size else config.data.model_copy(update={"size": side})
