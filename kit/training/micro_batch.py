"""Micro-batches that device memory is too small for: half as many images, twice as many of them an update."""

from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import Accelerator
from torch import nn

from kit.core.errors import KitError
from kit.training.config import TrainingConfig
from kit.training.memory import lacks_memory_of


class TooLarge(KitError):
    """Memory is too small for the micro-batches of a training; half as many images may fit.

    Attributes
    ----------
    fits : int
        Images of a forward pass that may.
    """

    fits: int = 1


@contextmanager
def asking_for_less(training: TrainingConfig, accelerator: Accelerator, model: nn.Module) -> Iterator[None]:
    """Turn running out of the device's memory within into `TooLarge`, where smaller micro-batches can mend it.

    Other errors pass; and so does this one where several processes train together, whose others wait for gradients
    that do not come.
    """
    try:
        yield
    except Exception as error:
        norms = has_batch_norms(model)
        half = halved(training, norms)
        if half is None or accelerator.num_processes > 1 or not lacks_memory_of(accelerator.device, error):
            raise
        size, passes = training.batch_size, training.accumulate
        told = TooLarge(
            f"the device's memory is too small for {size} images at a time; trains with {half} and {2 * passes} "
            "forward passes an update, which has the same images"
            + (f", but batch norms see {half} of them at a time" if norms else "")
        )
        told.fits = half
        raise told from error


def halved(training: TrainingConfig, norms: bool) -> int | None:
    """Return half the micro-batch; None where that cannot be.

    Parameters
    ----------
    training : TrainingConfig
        mixup and cutmix mix the images of a micro-batch in pairs.
    norms : bool
        Whether the model has batch norms, to which one image alone says nothing of a batch.
    """
    half, odd = divmod(training.batch_size, 2)
    whole = odd or training.compile == "graphs"  # an update in parts is none
    return None if whole or (training.mixes and half % 2) or half < (2 if norms else 1) else half


def with_micro_batch(training: TrainingConfig, size: int | None) -> TrainingConfig:
    """Return the config with micro-batches of this size, its updates as large as before; None: as it is."""
    if size is None:
        return training
    accumulate = training.accumulate * training.batch_size // size
    return training.model_copy(update={"batch_size": size, "accumulate": accumulate})


def has_batch_norms(model: nn.Module) -> bool:
    """Tell whether a model takes statistics of a batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
