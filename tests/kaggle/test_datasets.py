"""Folders for upload, and what Kaggle's own client makes of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.refusals import refusal_of

from kit.kaggle.datasets import FRAMEWORKS, READ, dataset_folder, read_ref, sendable, weights_folder

# The real client, its two doors to the outside shut: says what it would send for each folder, or why it refuses.
CLIENT = """
import contextlib, io, json, sys
from unittest.mock import MagicMock
from requests import HTTPError
with contextlib.redirect_stdout(io.StringIO()):
    from kaggle.api.kaggle_api_extended import KaggleApi
    from kagglesdk.models.types.model_enums import ModelFramework

def told(request):
    return json.loads(request.to_json(request))

def sent(folder):
    api, server, files = KaggleApi(), MagicMock(), []
    api.config_values = {"username": "someone"}
    api.dataset_status = MagicMock(side_effect=HTTPError)
    api.with_retry = lambda call: call
    api.build_kaggle_client = lambda: MagicMock(__enter__=lambda self: server)
    api._upload_file_or_folder = lambda parent, name, *rest: files.append(name)
    calls = server.datasets.dataset_api_client, server.models.model_api_client
    try:
        if "dataset" in folder:
            api.dataset_create_new(folder, quiet=True)
            request = calls[0].create_dataset.call_args.args[0]
            api.dataset_create_version(folder, "notes", quiet=True)
        else:
            api.model_create_new(folder)
            model = calls[1].create_model.call_args.args[0]
            api.model_instance_create(folder, quiet=True)
            request = calls[1].create_model_instance.call_args.args[0]
            return {"model": told(model), "variation": told(request), "files": files}
        return {"dataset": told(request), "files": files}
    except ValueError as error:
        return {"refused": str(error)}

folders, frameworks = json.loads(sys.argv[1])
known = [KaggleApi().lookup_enum(ModelFramework, None, name).name for name in frameworks]
print(json.dumps([[sent(folder) for folder in folders], known]))
"""


def ask_client(home: Path, folders: list[Path], frameworks: tuple[str, ...] = ()) -> list:
    """What the client would send for each folder, and what it takes the frameworks for."""
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("KAGGLE")}
    environment |= {"HOME": str(home), "KAGGLE_CONFIG_DIR": str(home), "https_proxy": "http://127.0.0.1:9"}
    environment |= {"KAGGLE_USERNAME": "someone", "KAGGLE_KEY": "0" * 32}
    argument = json.dumps([[str(folder) for folder in folders], frameworks])
    answer = subprocess.run(
        [sys.executable, "-c", CLIENT, argument], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(answer.stdout)


def write(path: Path, content: str = "content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_the_client_sends_what_is_meant(tmp_path):
    dataset, model = tmp_path / "dataset", tmp_path / "model"
    write(dataset / "wheels.json")
    write(dataset / "a.whl")
    dataset_folder(dataset, "ann/my-wheels", "Wheels of mine")
    weights_folder(write(tmp_path / "w.safetensors"), model, "ann/nets/pyTorch/fold-0", "Nets of mine")
    long, short = tmp_path / "dataset-long", tmp_path / "dataset-short"
    for folder, slug in (long, "a" * 51), (short, "abcde"):
        metadata = {"id": f"ann/{slug}", "title": "Title enough", "licenses": [{"name": "other"}]}
        write(folder / "dataset-metadata.json", json.dumps(metadata))
    folders = [dataset, model, long, short]
    (as_dataset, as_model, *refused), known = ask_client(tmp_path / "home", folders, FRAMEWORKS)

    request = as_dataset["dataset"]
    assert {key: request[key] for key in ("ownerSlug", "slug", "title", "licenseName", "isPrivate")} == {
        "ownerSlug": "ann",
        "slug": "my-wheels",
        "title": "Wheels of mine",
        "licenseName": "other",
        "isPrivate": True,
    }
    assert set(as_dataset["files"]) == {"wheels.json", "a.whl"}

    assert as_model["model"] | {"description": ""} == {
        "ownerSlug": "ann",
        "slug": "nets",
        "title": "Nets of mine",
        "isPrivate": True,
        "description": "",
    }
    assert (as_model["variation"]["ownerSlug"], as_model["variation"]["modelSlug"]) == ("ann", "nets")
    body = as_model["variation"]["body"]
    assert body["instanceSlug"] == "fold-0"
    assert body["framework"] == "MODEL_FRAMEWORK_PY_TORCH"
    assert body["licenseName"] == "Apache 2.0"
    assert as_model["files"] == ["w.safetensors"]

    assert all("slug must be between 6 and 50 characters" in answer["refused"] for answer in refused)
    assert len(set(known)) == len(FRAMEWORKS)


@pytest.mark.parametrize(
    ("ref", "title", "message"),
    [
        ("ann/short", "Long enough", "the slug 'short' has 5 characters; Kaggle takes 6 to 50"),
        (f"ann/{'a' * 51}", "Long enough", "has 51 characters; Kaggle takes 6 to 50"),
        ("ann/my-data", "Short", "the title 'Short' has 5 characters; Kaggle takes 6 to 50"),
        ("ann/my-data", "t" * 51, "has 51 characters"),
        ("my-data", "Long enough", "has to be owner/slug"),
        ("ann/my-data/3", "Long enough", "has to be owner/slug"),
        ("ann/My-data", "Long enough", "lower-case letters"),
        ("ann/my--data", "Long enough", "single hyphens"),
        ("/my-data", "Long enough", "has to be owner/slug"),
        ("ann/my-data\n", "Long enough", "has to be owner/slug"),
    ],
)
def test_names_that_kaggle_does_not_take(tmp_path, ref, title, message):
    write(tmp_path / "file.csv")
    assert message in refusal_of(dataset_folder, tmp_path, ref, title)
    assert not (tmp_path / "dataset-metadata.json").exists()


def test_slug_and_title_of_six_and_fifty_characters(tmp_path):
    write(tmp_path / "file.csv")
    for length in 6, 50:
        (tmp_path / "dataset-metadata.json").unlink(missing_ok=True)
        dataset_folder(tmp_path, f"ann_b/{'a' * length}", "t" * length)
        assert read_ref(tmp_path) == f"ann_b/{'a' * length}"


def test_folders_that_would_arrive_without_something(tmp_path):
    assert "holds no file" in refusal_of(dataset_folder, tmp_path, "ann/my-data", "My data")
    assert "is no folder" in refusal_of(dataset_folder, tmp_path / "absent", "ann/my-data", "My data")
    write(tmp_path / "file.csv")
    write(tmp_path / "sub" / "file.csv")
    assert "sub-folders are not uploaded; move or pack sub" in refusal_of(
        dataset_folder, tmp_path, "ann/my-data", "My data"
    )
    write(tmp_path / "b" / "kernel-metadata.json")
    assert "not uploaded: kernel-metadata.json" in refusal_of(
        dataset_folder, tmp_path / "b", "ann/my-data", "My data"
    )


def test_what_is_sent_is_listed(tmp_path):
    metadata = ("dataset-metadata.json", "model-metadata.json", "model-instance-metadata.json")
    for name in ("b.csv", "a.csv", *metadata):
        write(tmp_path / name)
    assert sendable(tmp_path) == [tmp_path / "a.csv", tmp_path / "b.csv"]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("kaggle.json", "{}", "by its name"),
        (".env", "", "by its name"),
        ("key.pem", "x" * (READ + 1), "by its name"),
        ("notes.txt", f"token: KGAT_{'a1' * 16}", "a Kaggle API token"),
        ("notes.txt", "x" * (READ - 40) + f" KGAT_{'a1' * 16}", "a Kaggle API token"),
    ],
)
def test_a_secret_is_not_sent(tmp_path, name, content, found):
    write(tmp_path / "file.csv")
    file = write(tmp_path / name, content)
    message = f"found in {file.as_posix()} ({found})"
    assert refusal_of(sendable, tmp_path).endswith(message)
    assert refusal_of(dataset_folder, tmp_path, "ann/my-data", "My data").endswith(message)
    assert not (tmp_path / "dataset-metadata.json").exists()


def test_large_files_are_not_read(tmp_path):
    """They are weights or archives, whose bytes say nothing, and may be larger than memory."""
    file = write(tmp_path / "large.bin", "x" * READ + f" KGAT_{'a1' * 16}")
    assert sendable(tmp_path) == [file]


def test_weights_of_several_folds_go_into_one_dataset(tmp_path):
    folder = tmp_path / "weights"
    for fold in range(2):
        file = write(tmp_path / f"fold{fold}.safetensors", f"weights {fold}")
        placed = weights_folder(file, folder, "ann/weights", "Weights")
        assert placed == folder / file.name
        assert placed.samefile(file)  # linked: weights are large
    write(tmp_path / "other" / "fold0.safetensors", "later")
    weights_folder(tmp_path / "other" / "fold0.safetensors", folder, "ann/weights", "Weights")
    assert (folder / "fold0.safetensors").read_text() == "later"
    assert (tmp_path / "fold0.safetensors").read_text() == "weights 0"
    assert weights_folder(folder / "fold0.safetensors", folder, "ann/weights", "Weights").read_text() == "later"
    assert json.loads((folder / "dataset-metadata.json").read_text()) == {
        "title": "Weights",
        "id": "ann/weights",
        "licenses": [{"name": "other"}],
    }


def test_a_link_to_weights_is_followed_and_other_disks_are_copied_to(tmp_path, monkeypatch):
    blob = write(tmp_path / "blobs" / "0f1e", "weights")
    link = tmp_path / "model.pth"
    link.symlink_to(blob)
    placed = weights_folder(link, tmp_path / "a", "ann/weights", "Weights")
    assert not placed.is_symlink()
    assert placed.samefile(blob)

    def other_disk(*arguments):
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    placed = weights_folder(link, tmp_path / "b", "ann/weights", "Weights")
    assert placed.read_text() == "weights"
    assert not placed.samefile(blob)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.csv", "a,b", "is no weight file; the name of one ends in .safetensors, .pth, .pt, .bin"),
        ("model.pt", "", "is empty"),
        ("model.pt", None, "is not there"),
        ("secrets.bin", "weights", "secrets.bin (by its name)"),
    ],
)
def test_files_that_are_no_weights(tmp_path, name, content, message):
    if content is not None:
        write(tmp_path / name, content)
    assert message in refusal_of(weights_folder, tmp_path / name, tmp_path / "out", "ann/weights", "Weights")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("ref", "title", "message"),
    [
        ("ann/nets/pyTorch", "Nets", "is neither owner/slug, a dataset, nor owner/model/framework/variation"),
        ("ann/nets/pyTorch/fold-0/1", "Nets", "is neither owner/slug"),
        ("ann/nets/theano/fold-0", "Nets", "Kaggle knows no framework 'theano'; it knows pytorch, transformers"),
        ("ann/Nets/pyTorch/fold-0", "Nets", "lower-case letters, digits and single hyphens"),
        ("ann/nets/pyTorch/", "Nets", "lower-case letters, digits and single hyphens"),
        ("ann/nets/pyTorch/fold-0", " ", "needs a title"),
    ],
)
def test_models_that_kaggle_does_not_take(tmp_path, ref, title, message):
    assert message in refusal_of(weights_folder, write(tmp_path / "w.bin"), tmp_path / "out", ref, title)


def test_a_folder_is_one_upload(tmp_path):
    file, folder = write(tmp_path / "w.bin"), tmp_path / "out"
    weights_folder(file, folder, "ann/nets/pytorch/fold-0", "Nets")
    assert read_ref(folder) == "ann/nets/pytorch/fold-0"
    assert "is ann/nets/pytorch/fold-0 already" in refusal_of(dataset_folder, folder, "ann/weights", "Weights")
    assert "give ann/weights a folder of its own" in refusal_of(
        weights_folder, file, folder, "ann/weights", "Weights"
    )
    assert "cannot be made" in refusal_of(weights_folder, file, file, "ann/weights", "Weights")


def test_a_ref_that_cannot_be_read(tmp_path):
    assert "has no dataset-metadata.json" in refusal_of(read_ref, tmp_path)
    metadata = tmp_path / "dataset-metadata.json"
    for content, message in (
        ("{", "cannot be read"),
        ("[]", "is no JSON object"),
        ("{}", "has to state id"),
        ('{"id": 3}', "has to state id"),
    ):
        write(metadata, content)
        assert message in refusal_of(read_ref, tmp_path)
    write(metadata, '{"id": "ann/my-data"}')
    assert read_ref(tmp_path) == "ann/my-data"
    variation = {"ownerSlug": "ann", "modelSlug": "nets", "framework": "pyTorch", "instanceSlug": "fold-0"}
    write(tmp_path / "model-instance-metadata.json", json.dumps(variation))
    assert "is both a dataset and a model" in refusal_of(read_ref, tmp_path)
