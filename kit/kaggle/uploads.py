"""Folders to Kaggle as datasets, and waiting until they can be used."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from kit.core.errors import KitError, Say
from kit.kaggle.client import Kaggle
from kit.kaggle.datasets import DATASET, MODEL, read_ref, sendable

POLL = 5.0  # seconds between two looks at a dataset
PROCESSING = 3600.0  # seconds that a dataset may take to become READY


def upload(folder: str | Path, kaggle: Kaggle, notes: str = "", say: Say = print) -> None:
    """Makes a folder with dataset-metadata.json a dataset, or a new version of it; waits until it is READY.

    Raises KitError, before anything is sent, for what the client would leave out, and for secrets.
    """
    path = Path(folder)
    if (path / MODEL).is_file():
        raise KitError(
            f"{folder} is a model's; Kaggle's own command uploads it: kaggle models create -p {folder} && kaggle "
            f"models variations create -p {folder}"
        )
    if not (path / DATASET).is_file():
        raise KitError(
            f"{folder} has no dataset-metadata.json; `python -m kit kernel weights` and `wheels` make such folders"
        )
    reference = read_ref(path)
    sendable(path)
    version = send_dataset(path, kaggle, notes or datetime.now(UTC).isoformat(timespec="seconds"), say)
    wait_for_dataset(reference, kaggle, say, version=version)
    say(f"{reference} is READY")


def send_dataset(folder: Path, kaggle: Kaggle, notes: str, say: Say) -> int:
    """Uploads, and gives the number of the version that this makes."""
    reference = read_ref(folder)
    _processed(reference, kaggle, say)  # meanwhile Kaggle would refuse a new version
    say(f"uploading {reference}")
    return kaggle.upload_dataset(folder, notes)


def wait_for_dataset(
    reference: str, kaggle: Kaggle, say: Say, wait: Callable[[float], None] = time.sleep, version: int = 0
) -> None:
    """Until the dataset, and at least this version of it, is READY: a kernel that starts before runs without."""
    status = _processed(reference, kaggle, say, wait, version)
    if not status:
        raise KitError(f"there is no dataset {reference} on Kaggle that {kaggle.user} may see; upload it first")
    if status != "READY":
        raise KitError(f"the dataset {reference} is {status} on Kaggle; upload it again")


def _processed(
    reference: str, kaggle: Kaggle, say: Say, wait: Callable[[float], None] = time.sleep, version: int = 0
) -> str:
    """The dataset's status as soon as Kaggle is not at work on it and has this version; "" for an unknown one."""
    begun, told = time.monotonic(), ""
    while True:
        status = kaggle.dataset_status(reference)
        if status == "READY" and version and 0 < kaggle.dataset_version(reference) < version:
            status = "READY in an earlier version"
        elif status in ("", "READY", "FAILED", "DELETED"):
            return status
        if time.monotonic() - begun > PROCESSING:
            raise KitError(f"the dataset {reference} is still {status} after {PROCESSING / 60:.0f} minutes")
        if status != told:
            say(f"waiting for the dataset {reference}: {status}")
        told = status
        wait(POLL)
