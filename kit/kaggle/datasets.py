"""Folders that Kaggle takes for upload: a dataset or a variation of a model, its metadata beside the files.

Kaggle's client checks little and late, and drops silently what it cannot take. What it would refuse or drop is
refused here, before anything is sent, and so is what looks like a secret.
"""

import os
import re
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kit.core.errors import KitError, Say, some
from kit.core.files import atomic, parse_json, write_json
from kit.kaggle.archive import need_no_secrets
from kit.kaggle.client import Kaggle
from kit.kaggle.retry import GRACE, NOT_YET, Refused, Unanswered

DATASET, MODEL, VARIATION = "dataset-metadata.json", "model-metadata.json", "model-instance-metadata.json"
NEVER_SENT = ("datapackage.json", "kernel-metadata.json", "dataset-cover-image")  # the client keeps them back
WEIGHTS = (".safetensors", ".pth", ".pt", ".bin")
LICENCE = "Apache 2.0"  # of a model's variation, as Kaggle names it; datasets say "other"
POLL = 5.0  # seconds between two looks at a dataset
PROCESSING = 3600.0  # seconds that a dataset may take to become READY
READ = 1_000_000  # bytes; of a larger file, which nobody writes by hand, only the name is searched for a secret

# What the client knows as ModelFramework, in lower case; it does not mind the case itself.
FRAMEWORKS = (
    *("pytorch", "transformers", "jax", "flax", "keras", "tensorflow1", "tensorflow2", "tflite", "tfjs", "onnx"),
    *("scikitlearn", "mxnet", "pax", "maxtext", "gemmacpp", "ggml", "gguf", "coral", "tensorrtllm", "triton"),
    *("vllm", "api", "other"),
)

OWNER = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*")
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def dataset_folder(folder: Path, ref: str, title: str) -> None:
    """Make a folder of files a dataset: write its dataset-metadata.json.

    Parameters
    ----------
    folder : Path
        Holds the files.
    ref : str
        "owner/slug"; the slug has 6 to 50 characters.
    title : str
        Of 6 to 50 characters.

    Raises
    ------
    KitError
        Where slug or title are not such, where the folder holds nothing, is described as something else already,
        or has something in it that `sendable` refuses.
    """
    _need_dataset(ref, title)
    _need_same(folder, ref)
    if not sendable(folder):
        raise KitError(f"{folder}: holds no file to upload")
    write_json(folder / DATASET, {"title": title, "id": ref, "licenses": [{"name": "other"}]})


def need_dataset_folder(folder: Path, ref: str, title: str) -> None:
    """Raise KitError where `dataset_folder` would, once the folder, which need not be there yet, is filled."""
    _need_dataset(ref, title)
    _need_same(folder, ref)
    if folder.exists():
        sendable(folder)


def weights_folder(file: Path, folder: Path, ref: str, title: str) -> Path:
    """Put a weight file into a folder, with the metadata that `ref` asks for.

    The file is linked where the disk allows it, copied where not.

    Parameters
    ----------
    file : Path
        A .safetensors, .pth, .pt or .bin file.
    folder : Path
        Is made where it is not there; several weight files may go into one.
    ref : str
        "owner/slug" makes the folder a dataset. "owner/model/framework/variation" makes it a variation of a
        private model, with the metadata of the model beside it.
    title : str
        Of the dataset or the model.

    Returns
    -------
    Path
        The file in the folder.

    Raises
    ------
    KitError
        Where the file is empty or no weight file, and where `dataset_folder` raises one.
    """
    _need_weights(file)
    is_dataset = ref.count("/") == 1
    (_need_dataset if is_dataset else _need_variation)(ref, title)
    _make(folder)
    _need_same(folder, ref)
    sendable(folder)
    placed = _place(file, folder / file.name)
    if is_dataset:
        dataset_folder(folder, ref, title)
    else:
        _write_variation(folder, ref, title)
    return placed


def read_ref(folder: Path) -> str:
    """Return what a folder is to be on Kaggle: "owner/slug" or "owner/model/framework/variation".

    Raises KitError where its metadata is not there, cannot be read, or says both.
    """
    refs = _refs(folder)
    if len(refs) != 1:
        what = "is both a dataset and a model" if refs else f"has no {DATASET} and no {VARIATION}"
        raise KitError(f"{folder}: {what}")
    return refs[0]


def sendable(folder: Path) -> list[Path]:
    """Return the files of a folder that an upload consists of, by name, beside the metadata.

    Raises KitError where the client would drop something that is there, such as a sub-folder, and where a file
    holds a secret or is called like one that does.
    """
    if not folder.is_dir():
        raise KitError(f"{folder}: is no folder")
    entries = sorted(entry for entry in folder.iterdir() if entry.name not in (DATASET, MODEL, VARIATION))
    if folders := [entry.name for entry in entries if not entry.is_file()]:
        raise KitError(f"{folder}: sub-folders are not uploaded; move or pack {some(folders)}")
    if dropped := [entry.name for entry in entries if entry.name.startswith(NEVER_SENT)]:
        raise KitError(f"{folder}: files of this name are not uploaded: {some(dropped)}")
    _need_no_secrets(entries)
    return entries


def _need_no_secrets(files: list[Path]) -> None:
    need_no_secrets({file.as_posix(): file.read_bytes() if file.stat().st_size <= READ else b"" for file in files})


def _refs(folder: Path) -> list[str]:
    refs = []
    for name, keys in (DATASET, ["id"]), (VARIATION, ["ownerSlug", "modelSlug", "framework", "instanceSlug"]):
        path = folder / name
        if path.exists():
            metadata = _read_metadata(path)
            if not all(isinstance(metadata.get(key), str) for key in keys):
                raise KitError(f"{path}: has to state {', '.join(keys)}")
            refs.append("/".join(metadata[key] for key in keys))
    return refs


def _read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata in a file, which users write as well; KitError where it is no JSON object."""
    try:
        metadata = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise KitError(f"{path}: cannot be read ({error})") from error
    if not isinstance(metadata, dict):
        raise KitError(f"{path}: is no JSON object")
    return metadata


def _need_dataset(ref: str, title: str) -> None:
    owner, _, slug = ref.partition("/")
    if not (OWNER.fullmatch(owner) and SLUG.fullmatch(slug)):
        raise KitError(f"dataset {ref!r}: has to be owner/slug, in lower-case letters, digits and single hyphens")
    for what, text in ("slug", slug), ("title", title):
        if not 6 <= len(text) <= 50:
            raise KitError(f"dataset {ref}: the {what} {text!r} has {len(text)} characters; Kaggle takes 6 to 50")


def _need_variation(ref: str, title: str) -> None:
    if ref.count("/") != 3:
        raise KitError(f"{ref!r}: is neither owner/slug, a dataset, nor owner/model/framework/variation, a model")
    owner, model, framework, variation = ref.split("/")
    if not (OWNER.fullmatch(owner) and SLUG.fullmatch(model) and SLUG.fullmatch(variation)):
        raise KitError(f"model {ref!r}: its names consist of lower-case letters, digits and single hyphens")
    if framework.lower() not in FRAMEWORKS:
        raise KitError(f"model {ref}: Kaggle knows no framework {framework!r}; it knows {some(FRAMEWORKS, 99)}")
    if not title.strip():
        raise KitError(f"model {ref}: needs a title")


def _need_same(folder: Path, ref: str) -> None:
    """Raise KitError where the folder is another upload's, whose metadata would be overwritten or sent along."""
    if others := [other for other in _refs(folder) if other != ref]:
        raise KitError(f"{folder}: is {others[0]} already; give {ref} a folder of its own")


def _need_weights(file: Path) -> None:
    if file.suffix.lower() not in WEIGHTS:
        raise KitError(f"{file}: is no weight file; the name of one ends in {', '.join(WEIGHTS)}")
    if not file.is_file():
        raise KitError(f"{file}: is not there")
    if file.stat().st_size == 0:
        raise KitError(f"{file}: is empty")
    _need_no_secrets([file])


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KitError(f"{folder}: cannot be made ({error.strerror})") from error


def _place(file: Path, target: Path) -> Path:
    if target.exists() and target.samefile(file):
        return target
    target.unlink(missing_ok=True)
    try:
        os.link(file.resolve(), target)  # resolved: caches of weights hold links, and Linux would link to the link
    except OSError:
        with atomic(target) as temporary:
            shutil.copyfile(file, temporary)
    return target


def _write_variation(folder: Path, ref: str, title: str) -> None:
    owner, model, framework, variation = ref.split("/")
    about_model = {"ownerSlug": owner, "title": title, "slug": model, "isPrivate": True, "description": ""}
    identity = {"ownerSlug": owner, "modelSlug": model, "instanceSlug": variation, "framework": framework}
    write_json(folder / MODEL, about_model)
    write_json(folder / VARIATION, identity | {"licenseName": LICENCE})


def upload(folder: str | Path, kaggle: Kaggle, notes: str = "", say: Say = print) -> str:
    """Make a folder with dataset-metadata.json a dataset, or a new version of it; wait until it is READY.

    Parameters
    ----------
    notes : str
        Of the version; left out: the time.

    Returns
    -------
    str
        The dataset's owner/slug.

    Raises
    ------
    KitError
        Before anything is sent, for what the client would leave out, and for secrets.
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
    return reference


def send_dataset(folder: Path, kaggle: Kaggle, notes: str, say: Say) -> int:
    """Upload a folder; return the number of the version that this makes."""
    reference = read_ref(folder)
    _processed(reference, kaggle, say)  # meanwhile Kaggle would refuse a new version
    say(f"uploading {reference}")
    return kaggle.upload_dataset(folder, notes)


def wait_for_dataset(
    reference: str, kaggle: Kaggle, say: Say, wait: Callable[[float], None] = time.sleep, version: int = 0
) -> None:
    """Wait until the dataset, and at least this version of it, is READY; KitError where it will not be.

    A kernel that starts before runs without it.
    """
    status = _processed(reference, kaggle, say, wait, version)
    if not status:
        raise KitError(f"there is no dataset {reference} on Kaggle that {kaggle.user} may see; upload it first")
    if status != "READY":
        raise KitError(f"the dataset {reference} is {status} on Kaggle; upload it again")


def _processed(
    reference: str, kaggle: Kaggle, say: Say, wait: Callable[[float], None] = time.sleep, version: int = 0
) -> str:
    """Return the dataset's status once Kaggle is not at work on it and has this version; "" for an unknown one."""
    begun, told = time.monotonic(), ""
    while True:
        grace = bool(version) and time.monotonic() - begun < GRACE  # only after an upload of our own
        try:
            status = kaggle.dataset_status(reference)
            earlier = status == "READY" and version and 0 < kaggle.dataset_version(reference) < version
        except (Refused, Unanswered) as error:
            if not grace or error.status not in NOT_YET:
                raise
            status, earlier = "", False
        if earlier:
            status = "READY in an earlier version"
        elif grace and not status:
            status = "Kaggle does not show it yet"
        elif status in ("", "READY", "FAILED", "DELETED"):
            return status
        if time.monotonic() - begun > PROCESSING:
            raise KitError(f"the dataset {reference} is still {status} after {PROCESSING / 60:.0f} minutes")
        if status != told:
            say(f"waiting for the dataset {reference}: {status}")
        told = status
        wait(POLL)
