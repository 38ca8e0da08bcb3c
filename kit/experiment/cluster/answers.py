"""What comes back of a task on a cluster is read where the command runs."""

import pickle
from typing import Any


class Unreadable(Exception):
    """What a task made or raised cannot be read here; the message says why."""


def content_of(answer: Any) -> Any:
    """Return what a task made or raised.

    Parameters
    ----------
    answer : Answer
        Of `kit.experiment.cluster.agent`, with `how` "made" or "raised".

    Raises
    ------
    Unreadable
        Where it holds what is not known here, or is cut short.
    """
    try:
        return pickle.loads(answer.content)
    except Exception as error:  # of any kind, by what does not fit
        what = "what it made" if answer.how == "made" else "what it raised"
        raise Unreadable(f"{what} cannot be read here ({type(error).__name__}: {error})") from error
