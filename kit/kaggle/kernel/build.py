"""An experiment as a folder that Kaggle takes: metadata and one code file that carries everything."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from kit.core.bundle import pack
from kit.core.errors import KitError
from kit.core.files import need_writable, write_bytes, write_json, write_text
from kit.experiment.config import ExperimentConfig
from kit.experiment.policy_scores import stored_rule
from kit.kaggle.archive import need_no_secrets
from kit.kaggle.datasets import dataset_folder
from kit.kaggle.kernel.attached import AttachedRuns, attached_notes, fetched_runs, reference_of, views_notes
from kit.kaggle.kernel.code_file import code_of, head_of, templates_for
from kit.kaggle.kernel.extra import extra_sources
from kit.kaggle.kernel.folder import BUILT, BuildRecord, KernelFolder, Kind, built
from kit.kaggle.kernel.names import default_name, slug_of
from kit.kaggle.kernel.travelling import scores_file, travelling_config, travelling_files


@dataclass(frozen=True)
class BuildResult:
    """A kernel that was built.

    Attributes
    ----------
    folder : KernelFolder
        The kernel's.
    files : dict
        What travels: path → bytes.
    code_bytes : int
        Size of the code file.
    notes : list of str
        What the user should know.
    """

    folder: KernelFolder
    files: dict[str, int]
    code_bytes: int
    notes: list[str]


def build_kernels(
    experiment: ExperimentConfig,
    kind: Kind,
    *,
    fold_each: bool = False,
    command: str = "",
    name: str | None = None,
    notebook: bool = False,
    output: str | Path = ".",
) -> Iterator[BuildResult]:
    """Build an experiment's kernel, or one for each of its chosen folds, and yield each as soon as it is there.

    Parameters
    ----------
    experiment : ExperimentConfig
        What is trained or predicted with.
    kind, command, notebook, output
        As in `build`.
    fold_each : bool
        A kernel for each of the chosen folds.
    name : str, optional
        As in `build`; with `fold_each`, "-fold-" and the fold's number follow it.

    Yields
    ------
    BuildResult
    """
    parts = [experiment]
    if fold_each:
        parts = [
            experiment.model_copy(update={"folds": experiment.folds.model_copy(update={"run": (number,)})})
            for number in experiment.folds.chosen
        ]
    for part in parts:
        own = f"{name}-fold-{part.folds.chosen[0]}" if name and fold_each else name
        yield build(part, kind, command=command, name=own, notebook=notebook, output=output)


@dataclass(frozen=True)
class KernelBuildResult:
    """The kernels that were built."""

    kernels: list[BuildResult]


def build_all(
    experiment: ExperimentConfig,
    kind: Kind,
    *,
    fold_each: bool = False,
    name: str | None = None,
    notebook: bool = False,
    output: str | Path = ".",
    command: str = "",
) -> KernelBuildResult:
    """Write kernels/build/NAME/: metadata and one code file that carries kit, config and folds.

    Parameters are those of `build_kernels`.

    Raises
    ------
    KitError
        For what Kaggle would refuse, and where an infer kernel is asked for by folds.
    """
    if fold_each and kind == "infer":
        raise KitError("--fold, --fold-each: an infer kernel predicts with all folds that are attached")
    made = build_kernels(
        experiment, kind, fold_each=fold_each, command=command, name=name, notebook=notebook, output=output
    )
    return KernelBuildResult(list(made))


def build(
    experiment: ExperimentConfig,
    kind: Kind,
    *,
    command: str = "",
    name: str | None = None,
    notebook: bool = False,
    output: str | Path = ".",
) -> BuildResult:
    """Write kernels/build/<slug>/ below `output`; the same input gives the same bytes.

    Parameters
    ----------
    experiment : ExperimentConfig
        What is trained or predicted with.
    kind : str
        `train` trains the experiment's policies, seeds and chosen folds; `infer` predicts with the first policy's
        runs that are attached to it.
    command : str
        How it was made, for the head of the code file.
    name : str, optional
        Of the kernel, from which slug and title come; left out: `default_name`.
    notebook : bool
        An .ipynb with one cell, instead of a script.

    Raises
    ------
    KitError
        For what would fail on Kaggle: data, weights or runs that are not attached, and for a secret that would
        travel.
    """
    root = Path(output).expanduser()
    slug = slug_of(name or default_name(experiment, kind, notebook))
    _check(experiment, kind)
    if kind == "infer":
        experiment = _with_trained(experiment, root)
    folder = KernelFolder(root / BUILT / slug)
    _need_same_type(folder, notebook)
    attached = fetched_runs(experiment, root) if kind == "infer" else {}
    of_views = views_notes(experiment, attached, root) if kind == "infer" else []
    files = travelling_files(experiment, kind, root)
    need_no_secrets(files | {"the command line": command.encode()})  # it stands in the code file's head
    archive = pack(files)
    need_writable(folder.path)
    family = _family(experiment, kind, files, notebook)
    record = _record(experiment, kind, slug, sha256(archive).hexdigest(), family)
    about = head_of(experiment, record, files, command)
    code, apart = code_of(experiment, record, about, archive, notebook, attached)
    _clear(folder)
    if apart:
        _write_code_dataset(folder, apart, archive)
    code_file = f"{slug}.{'ipynb' if notebook else 'py'}"
    write_text(folder.path / code_file, code)
    write_json(folder.metadata_file, _metadata(experiment, record, code_file, notebook, apart))
    folder.write_record(record)
    sizes = {path: len(files[path]) for path in sorted(files)}
    notes = _notes(experiment, kind, apart, root, attached)
    return BuildResult(folder, sizes, len(code.encode()), notes + of_views)


def _record(experiment: ExperimentConfig, kind: Kind, slug: str, digest: str, family: str) -> BuildRecord:
    """Return what the kernel is built from; `digest` is that of the archive."""
    return BuildRecord(
        kind=kind,
        slug=slug,
        experiment=experiment.name,
        policies=list(experiment.policies),
        seeds=list(experiment.seeds),
        folds=list(experiment.folds.chosen),
        competition=experiment.competition.record(),
        weights=experiment.model.weights if experiment.model.weights not in ("none", "hub") else "",
        hours=experiment.kernel.limit(kind),
        sha256=digest,
        family=family,
    )


def _need_same_type(folder: KernelFolder, notebook: bool) -> None:
    """Raise KitError where a script would take the place of a notebook that was pushed, or the other way round."""
    if not folder.is_built or not (folder.push or folder.begun_push):
        return
    before, now = ("notebook" if each else "script" for each in (_is_notebook(folder), notebook))
    if before != now:
        raise KitError(
            f"{folder.path} was pushed as a {before}, and Kaggle does not change that of a kernel; give the {now} "
            f"another name: --name {folder.path.name}-{now}"
        )


def _is_notebook(folder: KernelFolder) -> bool:
    return str(folder.metadata["code_file"]).endswith(".ipynb")


def _check(experiment: ExperimentConfig, kind: Kind) -> None:
    """Raise KitError for what a kernel could not find on Kaggle."""
    competition, kernel, weights = experiment.competition, experiment.kernel, experiment.model.weights
    if not competition.slug and not competition.embedded:
        raise KitError(
            "competition.slug: missing; a kernel finds its data by Kaggle's name of the competition, or by "
            "owner/slug of a dataset of yours that holds it"
        )
    if kind == "train" and experiment.soup:
        raise KitError(
            "soup: weights are averaged where the runs are, and not in a kernel; put runs/ of the soup into a "
            "dataset, name it in kernel.datasets, and build --kind infer"
        )
    if kind == "infer" and not experiment.features:  # weights come with the runs
        return
    if weights == "hub" and kind == "infer":
        raise KitError(
            "model.weights: hub needs a network, which an infer kernel never has, and heads need the body that "
            "they were fitted on; put a weight file into a dataset (python -m kit kernel weights FILE), name it "
            "in kernel.datasets, and fit the heads with it"
        )
    if weights == "hub" and not kernel.internet:
        raise KitError(
            "model.weights: hub needs a network, and kernel.internet is false; put a weight file into a dataset "
            "(python -m kit kernel weights FILE) and name it in kernel.datasets, or set kernel.internet=true"
        )
    if weights not in ("none", "hub") and not (kernel.datasets or kernel.models):
        raise KitError(
            f"model.weights: {Path(weights).name} has to be attached to the kernel; put it into a dataset "
            "(python -m kit kernel weights FILE) and name that in kernel.datasets"
        )


def _with_trained(experiment: ExperimentConfig, root: Path) -> ExperimentConfig:
    """Return the experiment with the train kernels whose outputs the infer kernel attaches."""
    kernel = experiment.kernel
    kernels = _pushed(experiment, root) if kernel.kernels is None else kernel.kernels
    if not kernels and not kernel.datasets and not kernel.models:
        why = f"no train kernel of {experiment.name} was pushed from here" if kernel.kernels is None else "empty"
        raise KitError(
            f"kernel.kernels: {why}, and nothing else is attached, so there are no weights to predict with; "
            "push one, or name kernels or datasets"
        )
    return experiment.model_copy(update={"kernel": kernel.model_copy(update={"kernels": kernels})})


def _pushed(experiment: ExperimentConfig, root: Path) -> tuple[str, ...]:
    return tuple(
        reference_of(folder)
        for folder in built(root)
        if folder.push and folder.record.kind == "train" and folder.record.experiment == experiment.name
    )


def _family(experiment: ExperimentConfig, kind: Kind, files: dict[str, bytes], notebook: bool) -> str:
    """Return a digest that is the same for kernels that differ in their folds only."""
    whole = experiment.model_copy(update={"folds": experiment.folds.model_copy(update={"run": "all"})})
    common = files | {
        "config.yaml": travelling_config(whole).to_yaml().encode(),
        "kind": f"{kind} {notebook}".encode(),
    }
    common |= {name: text.encode() for name, text in templates_for(kind).items()}
    digest = sha256()
    for path, content in sorted(common.items()):
        digest.update(sha256(path.encode()).digest() + sha256(content).digest())
    return digest.hexdigest()[:16]


def _metadata(
    experiment: ExperimentConfig, record: BuildRecord, code_file: str, notebook: bool, apart: str
) -> dict[str, Any]:
    """Return what kernel-metadata.json holds.

    Every switch is written out: the client's own defaults are not Kaggle's.
    """
    kernel, slug = experiment.kernel, experiment.competition.slug
    data, trains = [slug] if slug and "/" in slug else [], record.kind == "train"
    extra = extra_sources(experiment.competition) if trains else []
    outputs = [each for each in extra if each in (kernel.kernels or ())]  # of kernels, and not datasets
    data += [each for each in extra if each not in outputs]
    return {
        "id": f"{kernel.owner}/{record.slug}" if kernel.owner else record.slug,
        "title": record.slug.replace("-", " "),
        "code_file": code_file,
        "language": "python",
        "kernel_type": "notebook" if notebook else "script",
        "is_private": True,
        "enable_gpu": kernel.gpus > 0,
        "enable_tpu": False,
        "enable_internet": kernel.internet and trains,
        "dataset_sources": list(dict.fromkeys([*data, *kernel.datasets, *filter(None, [apart])])),
        "competition_sources": [slug] if slug and "/" not in slug else [],
        "kernel_sources": outputs if trains else list(kernel.kernels or ()),
        "model_sources": list(kernel.models),
        "keywords": [],
        "docker_image_pinning_type": kernel.image,
        **({"machine_shape": kernel.accelerator} if kernel.gpus else {}),
    }


def _clear(folder: KernelFolder) -> None:
    """Remove an earlier build; what was pushed, rehearsed and fetched stays."""
    for file in (*folder.path.glob("*.py"), *folder.path.glob("*.ipynb")):
        file.unlink()
    shutil.rmtree(folder.code_dataset, ignore_errors=True)


def _write_code_dataset(folder: KernelFolder, reference: str, archive: bytes) -> None:
    # Not called .tar.bz2: Kaggle would unpack it.
    write_bytes(folder.code_dataset / "bundle.bin", archive)
    dataset_folder(folder.code_dataset, reference, reference.partition("/")[2].replace("-", " "))


def _notes(experiment: ExperimentConfig, kind: Kind, apart: str, root: Path, attached: AttachedRuns) -> list[str]:
    """Return what the user should know."""
    kernel, notes = experiment.kernel, []
    notes.append(
        f"Kaggle may end it after {kernel.limit(kind):g} h (kernel.hours is {kernel.hours:g}, for training; "
        f"kernel.infer_hours {kernel.infer_hours:g}, for the rerun)"
    )
    if apart:
        notes.append(
            f"the code is too large for one file: it travels as the dataset {apart}, pushed with the kernel"
        )
    runs = len(experiment.folds.chosen) * len(experiment.seeds) * len(experiment.policies)
    if kind == "train" and kernel.gpus > runs:
        notes.append(f"{kernel.accelerator} is {kernel.gpus} GPUs, of which this kernel's single run uses one")
    if kind == "infer":
        notes += attached_notes(experiment, attached, root)
    scoring, multilabel = experiment.scoring, experiment.competition.multilabel
    fitted = scoring.rule != "argmax" and scoring.rules(multilabel) != ("argmax",)
    if (
        kind == "infer"
        and fitted
        and stored_rule(scores_file(experiment, root), scoring, experiment.competition) is None
    ):
        notes.append(
            "the runs are not pooled here, so the kernel fits its decision rule on their out-of-fold predictions "
            "and the train table (python -m kit kernel fetch pools them)"
        )
    return notes
