"""Kernels' runs that were fetched are pooled, as far as their competition is here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kit.core.errors import KitError, Say, ignore
from kit.experiment.config import ExperimentConfig
from kit.experiment.run import ExperimentResult, pool
from kit.kaggle.client import Kaggle
from kit.kaggle.kernel.fetch import FetchedKernels, fetch_kernels
from kit.kaggle.kernel.push import select_kernels


@dataclass
class KernelFetchResult:
    """What was fetched.

    Attributes
    ----------
    experiments : dict of str to ExperimentResult
        By name, those whose runs could be pooled here.
    troubles : list of str
        What went wrong, a line each.
    """

    experiments: dict[str, ExperimentResult] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)


def fetch_and_pool(
    folders: Sequence[str | Path] = (), *, everything: bool = False, output: str | Path = ".", say: Say = ignore
) -> KernelFetchResult:
    """Bring the outputs of kernels home, and their runs into runs/, where they are pooled.

    `folders` and `everything` as for `kit.kernel_push`. What goes wrong with a kernel is in `troubles`.
    """
    kernels = select_kernels(list(map(str, folders)), everything, Path(output))
    fetched = fetch_kernels(kernels, Kaggle(say), output, skip_unpushed=everything, say=say)
    pooled = {experiment.name: result for experiment, result in pool_fetched(fetched, output, say)}
    return KernelFetchResult(pooled, fetched.troubles)


def pool_fetched(
    fetched: FetchedKernels, output: str | Path = ".", say: Say = print
) -> Iterator[tuple[ExperimentConfig, ExperimentResult]]:
    """Pool the runs of each experiment that was fetched, where its competition is here.

    What goes wrong is added to `fetched.troubles`.

    Yields
    ------
    (ExperimentConfig, ExperimentResult)
        Of each experiment, as soon as it is pooled.
    """
    for experiment in fetched.experiments.values():
        path = experiment.competition.path
        if not Path(path).expanduser().is_dir():
            say(f"{path} is not here, so the runs are not pooled; python -m kit run does it")
            continue
        try:
            result = pool(experiment, output)
        except KitError as error:
            fetched.troubles += str(error).splitlines()
            continue
        yield experiment, result
