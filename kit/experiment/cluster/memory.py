"""What a task takes of a node's memory, as Ray counts it."""

import resource
import sys

from kit.experiment.loaded import LoadedExperiment
from kit.model.build import build_model

COPIES = 4  # of the weights: themselves, gradients, and what an optimizer keeps


def memory_of(loaded: LoadedExperiment | None) -> int:
    """Return the bytes that a task takes: what this process took at most, and copies of the weights it trains.

    `loaded` is None where nothing is trained.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if loaded is None:
        return peak
    config = loaded.config
    scratch = config.model.model_copy(update={"weights": "none"})
    model = build_model(scratch, len(loaded.competition.classes), config.data.channels, config.data.size, seed=0)
    return peak + COPIES * sum(each.numel() * each.element_size() for each in model.parameters())
