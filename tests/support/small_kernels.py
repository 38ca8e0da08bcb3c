"""Built kernels and fake outputs of theirs, small enough to write by hand: nothing is trained."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from support.colours import experiment_content

from kit.competition.folds import make_folds, write_folds
from kit.competition.load import load_competition
from kit.core.files import write_text
from kit.core.runs import ExperimentDir, RunKey, RunRecord, predictions, write_predictions
from kit.experiment.config import ExperimentConfig, validate
from kit.experiment.fingerprint import digests
from kit.kaggle.datasets import dataset_folder
from kit.kaggle.kernel.folder import BUILT, BuildRecord, KernelFolder
from kit.kaggle.kernel.push import push

SLUG = "small-train-fold-0"
REF = f"tester/{SLUG}"


def write_kernel(
    slug: str = SLUG, *, rehearsed: bool = True, owner: str = "tester", record: dict | None = None, **metadata
) -> Path:
    """A kernel below kernels/build/, of one line of code; `record` is of build.json, `metadata` of Kaggle's."""
    folder = KernelFolder(BUILT / slug)
    folder.path.mkdir(parents=True)
    write_text(folder.path / f"{slug}.py", "print('hello')\n")
    content = {
        "id": f"{owner}/{slug}" if owner else slug,
        "title": slug.replace("-", " "),
        "code_file": f"{slug}.py",
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_gpu": False,
        "enable_tpu": False,
        "enable_internet": False,
        "dataset_sources": [],
        "competition_sources": [],
        "kernel_sources": [],
        "model_sources": [],
        "docker_image_pinning_type": "latest",
    }
    folder.metadata_file.write_text(json.dumps(content | metadata))
    made = BuildRecord(
        kind="train",
        slug=slug,
        experiment="tiny",
        policies=["uniform"],
        seeds=[0],
        folds=[0],
        competition={"path": "data/colours", "slug": "colours"},
        weights="",
        hours=0.5,
        sha256="0" * 64,
        family="family",
    )
    folder.write_record(replace(made, **(record or {})))
    if rehearsed:
        rehearse(folder.path)
    return folder.path


def rehearse(path: Path, passed: bool = True) -> None:
    """What a rehearsal leaves."""
    checks = [{"name": "exit code", "passed": passed}, {"name": "time", "passed": True}]
    KernelFolder(path).write_rehearsal({"digest": KernelFolder(path).digest, "passed": passed, "checks": checks})


def write_push(path: Path, owner: str) -> None:
    """What a push leaves."""
    folder = KernelFolder(path)
    record = {"owner": owner, "slug": folder.record.slug, "version": 1, "url": "", "digest": folder.digest}
    folder.write_push(record | {"build": asdict(folder.record)})


def pushed(server, kaggle, files: dict[str, bytes] | None = None, slug: str = SLUG, **kernel) -> Path:
    """A kernel that was pushed and, where `files` are given, has left them and ended well."""
    path = write_kernel(slug, **kernel) if not (BUILT / slug).is_dir() else BUILT / slug
    push(path, kaggle, unrehearsed=True, say=lambda line: None)
    if files is not None:
        server.finish(f"tester/{slug}", files=files)
    return path


def listed(
    files: dict[str, bytes], missing: Sequence[str] | None = None, exit_code: int | None = 0
) -> dict[str, bytes]:
    """With the list that a kernel leaves of its outputs; without `missing` as early versions wrote it."""
    content = {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != "outputs.json"
    }
    if missing is not None:
        content = {"files": content, "missing": list(missing), "exit_code": exit_code}
    return files | {"outputs.json": json.dumps(content).encode()}


def small_experiment(competition: Path, **sections) -> ExperimentConfig:
    return validate(experiment_content(competition, **sections), "tiny.yaml")


def train_outputs(
    folder: Path,
    experiment: ExperimentConfig,
    folds: tuple[int, ...] = (0,),
    fingerprint: str = "f",
    policy: str = "uniform",
) -> dict[str, bytes]:
    """What a train kernel would leave of these folds, made in `folder`; its weights say `fingerprint`."""
    competition = load_competition(experiment.competition)
    plan = make_folds(competition.ids, competition.targets, experiment.folds)
    travelling = experiment.competition.model_copy(update={"path": "data/colours"})
    part = experiment.folds.model_copy(update={"run": folds})
    here = ExperimentDir(folder / "runs" / experiment.name)
    write_text(here.config, experiment.model_copy(update={"competition": travelling, "folds": part}).to_yaml())
    write_folds(plan, here.folds)
    for fold in folds:
        run = here.run(RunKey(policy, 0, fold))
        depends_on = digests(experiment, competition, plan)
        key = {"policy": policy, "seed": 0, "fold": fold, "fingerprint": fingerprint}
        run.write(RunRecord(status="finished", **key, depends_on=depends_on))
        run.weights.write_bytes(fingerprint.encode())
        np.savez(run.rates, lr=np.zeros((2, 1)))
        frame = predictions(["a"], np.ones((1, 1)), ["red"])
        for file in (run.oof, run.test):
            write_predictions(frame, file)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return listed({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})


def asked(server, method: str) -> list[dict]:
    """The requests that the server had for a method."""
    return [request for name, request in server.requests if name == method]


def dataset(**files: bytes) -> Path:
    """A folder that is to be tester/small-data, or to become its next version."""
    folder = Path("kernels/datasets/small-data")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    dataset_folder(folder, "tester/small-data", "small data")
    return folder
