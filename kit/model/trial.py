"""A forward pass on trial, before anything trains or predicts."""

from collections.abc import Iterator
from contextlib import contextmanager

from kit.core.errors import KitError


@contextmanager
def forward_on_trial(cannot: str, change: str) -> Iterator[None]:
    """Let what goes wrong within be one line: whatever a network makes of images that it is not made for.

    Parameters
    ----------
    cannot : str
        What cannot be, like "resnet18 cannot train on batches of 2 × 3 × 4 × 4".
    change : str
        What mends it, like "data.size or the model".

    Raises
    ------
    KitError
        One that is raised within stays as it is.
    """
    try:
        yield
    except KitError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise KitError(f"model: {cannot} ({reason}); change {change}") from error
