"""An experiment as a folder that Kaggle takes: metadata and one code file that carries everything."""

import base64
import json
import pprint
import re
import shlex
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from kit.competition.folds import folds_text
from kit.core.bundle import Files, pack, package_files
from kit.core.errors import KitError
from kit.core.files import need_writable, write_bytes, write_json, write_text
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir
from kit.experiment.config import ExperimentConfig
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.own_files import files_of_code
from kit.experiment.pool import stored_rule, stored_scores
from kit.kaggle.archive import need_no_secrets
from kit.kaggle.datasets import dataset_folder
from kit.kaggle.image import KaggleImage, read_table
from kit.kaggle.kernel.attached import AttachedRuns, attached_notes, fetched_runs, reference_of, views_notes
from kit.kaggle.kernel.extra import FOLDER, extra_files, extra_sources, extra_there
from kit.kaggle.kernel.folder import BUILT, BuildRecord, KernelFolder, Kind, built

PACKAGE = Path(__file__).resolve().parents[2]  # kit/
TEMPLATES = PACKAGE.parent / "kernels"
SHOWN_VERSIONS = ("torch", "torchvision", "timm", "albumentations", "numpy", "pandas", "scikit-learn")
LINE = 100  # characters of the archive in a line
# A kernel joins no cluster: of that folder only what says so, and what needs no Ray, travels.
LEFT_OUT, STAYS = "kit/experiment/cluster/", ("__init__.py", "joining.py", "slurm.py")


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
    files = _files(experiment, kind, root)
    need_no_secrets(files | {"the command line": command.encode()})  # it stands in the code file's head
    archive = pack(files)
    need_writable(folder.path)
    family = _family(experiment, kind, files, notebook)
    record = _record(experiment, kind, slug, sha256(archive).hexdigest(), family)
    about = _about(experiment, record, files, command)
    code, apart = _code(experiment, record, about, archive, notebook, attached)
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


def default_name(experiment: ExperimentConfig, kind: Kind, notebook: bool = False) -> str:
    """Return <experiment>-<kind>, with the folds of a train kernel where not all are chosen.

    A name that would begin with a digit begins with "kit-", and that of a notebook ends with "-notebook".
    """
    chosen, name = experiment.folds.chosen, f"{experiment.name}-{kind}"
    if kind == "train" and len(chosen) < experiment.folds.k:
        name += f"-fold{'s' * (len(chosen) > 1)}-{'-'.join(map(str, chosen))}"
    return f"{'' if _begins_with_letter(name) else 'kit-'}{name}{'-notebook' * notebook}"


def slug_of(name: str) -> str:
    """Return the slug that Kaggle makes of a title; KitError where Kaggle takes none like it."""
    slug = _slug(name)
    if not 5 <= len(slug) <= 50:
        raise KitError(f"{slug!r}: a kernel's name has 5 to 50 characters, this has {len(slug)}; give --name NAME")
    if not slug[0].isalpha():  # reported: "not found" of every look at such a kernel
        raise KitError(f"{slug!r}: a kernel's name begins with a letter; give --name, like kit-{slug}")
    return slug


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _begins_with_letter(name: str) -> bool:
    return _slug(name)[:1].isalpha()


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


def _files(experiment: ExperimentConfig, kind: Kind, root: Path) -> dict[str, bytes]:
    """Return what travels: the kit's source, the config, and what the kind of kernel needs.

    For training that is the fold plan; for predicting the scores of the pooled runs, which hold the decision rule.
    """
    files = {name: content for name, content in package_files(PACKAGE).items() if not _left_out(name)}
    for name, content in files_of_code(experiment).items():
        if name.split("/")[0] in ("kit", "config.yaml", "folds.csv", "runs", FOLDER):
            raise KitError(
                f"{name}: the bundle has a file or folder of this name; call the file of your own otherwise"
            )
        files[name] = content
    files["config.yaml"] = _travelling(experiment).to_yaml().encode()
    if kind == "infer" and (scores := _scores(experiment, root)).is_file():
        stored_scores(scores, experiment.scoring, experiment.competition)  # refuses what is damaged
        files[scores.relative_to(root).as_posix()] = scores.read_bytes()
    if kind == "train":
        folder = ExperimentDir(OutputDirs(root).runs / experiment.name)
        loaded = LoadedExperiment.open(experiment, folder, OutputDirs(root))
        files["folds.csv"] = folds_text(loaded.folds).encode()
        files |= extra_files(experiment.competition)
    return files


def _left_out(name: str) -> bool:
    return name.startswith(LEFT_OUT) and name.removeprefix(LEFT_OUT) not in STAYS


def _scores(experiment: ExperimentConfig, root: Path) -> Path:
    """Return the file of scores of the policy that an infer kernel predicts with."""
    folder = ExperimentDir(OutputDirs(root).runs / experiment.name)
    return folder.policy(next(iter(experiment.policies))) / "scores.json"


def _travelling(experiment: ExperimentConfig) -> ExperimentConfig:
    """Return the config without the paths of this machine."""
    competition, model = experiment.competition, experiment.model
    last = (competition.slug or competition.embedded or experiment.name).rpartition("/")[2]
    there = {"path": f"data/{last}", **extra_there(competition)}
    changes: dict[str, Any] = {"competition": competition.model_copy(update=there)}
    if model.weights not in ("none", "hub"):
        changes["model"] = model.model_copy(update={"weights": Path(model.weights).name})
    return experiment.model_copy(update=changes)


def _family(experiment: ExperimentConfig, kind: Kind, files: dict[str, bytes], notebook: bool) -> str:
    """Return a digest that is the same for kernels that differ in their folds only."""
    whole = experiment.model_copy(update={"folds": experiment.folds.model_copy(update={"run": "all"})})
    common = files | {"config.yaml": _travelling(whole).to_yaml().encode(), "kind": f"{kind} {notebook}".encode()}
    templates = ("launcher.py", f"{kind}/kernel.py")
    common |= {name: (TEMPLATES / name).read_text(encoding="utf-8").encode() for name in templates}
    digest = sha256()
    for path, content in sorted(common.items()):
        digest.update(sha256(path.encode()).digest() + sha256(content).digest())
    return digest.hexdigest()[:16]


def _about(experiment: ExperimentConfig, record: BuildRecord, files: Files, command: str) -> str:
    """Return the head of the code file."""
    policies, folds = ", ".join(record.policies), ", ".join(map(str, record.folds))
    if record.kind == "train":
        does = (
            f"Trains folds {folds} of the experiment {record.experiment} (policies {policies}; seeds "
            f"{', '.join(map(str, record.seeds))}); weights, predictions, rates and a log go to /kaggle/working."
        )
    else:
        does = (
            f"Predicts the test set that is there with the runs of {record.experiment} (policy "
            f"{record.policies[0]}) that are attached, and writes /kaggle/working/submission.csv."
        )
    facts = {
        "made by": command or "kit.kaggle.kernel.build",
        "made for": f"{'; or '.join(map(_versions, _images()))} (kernels/image.txt)",
        "holds": f"{len(files)} files, the kit's source among them; sha256 {record.sha256}",
    }
    lines = [f"{record.slug.replace('-', ' ')}: a Kaggle kernel of the kit for image classification under F1", ""]
    lines += textwrap.wrap(does, LINE)
    for fact, text in facts.items():
        lines += ["", *textwrap.wrap(f"{fact:9} {text}", LINE, subsequent_indent=" " * 10, break_on_hyphens=False)]
    config = _travelling(experiment).to_yaml(stated_only=True)
    return "\n".join([*lines, "", "config", textwrap.indent(config.rstrip(), "    "), ""])


def _images() -> tuple[KaggleImage, ...]:
    """Return the images that a session may get."""
    return read_table(TEMPLATES / "image.txt").images


def _versions(image: KaggleImage) -> str:
    shown = [f"{name} {image.versions[name]}" for name in SHOWN_VERSIONS if image.versions.get(name)]
    return ", ".join([f"Python {image.python}", *shown])


def _code(
    experiment: ExperimentConfig,
    record: BuildRecord,
    about: str,
    archive: bytes,
    notebook: bool,
    attached: AttachedRuns,
) -> tuple[str, str]:
    """Return the code file, and the dataset that holds the archive where the file would be too large, else ""."""
    kernel = experiment.kernel

    def render(apart: str) -> str:
        text = "" if apart else _lines(base64.b85encode(archive).decode())
        facts = {
            "internet": kernel.internet and record.kind == "train",
            "hours": record.hours,
            **({"budget": experiment.budget} if experiment.budget and record.kind == "train" else {}),
            "datasets": list(kernel.datasets),
            "code": apart,
            "sha256": record.sha256,
            **({"experiment": record.experiment, "runs": record.runs} if record.kind == "train" else {}),
            "made_for": made_for(),
            **({"attached": attached} if record.kind == "infer" else {}),
        }
        code = _fill((TEMPLATES / record.kind / "kernel.py").read_text(encoding="utf-8"), about, facts, text)
        return _as_notebook(code) if notebook else code

    if len((code := render("")).encode()) <= 1000 * kernel.max_code_kb:
        return code, ""
    if kernel.owner is None:
        raise KitError(
            f"kernel.max_code_kb: the code file has {len(code.encode()) / 1000:.0f} kB, more than "
            f"{kernel.max_code_kb}, so the code has to travel as a dataset: name its owner in kernel.owner"
        )
    apart = f"{kernel.owner}/{_code_slug(record.slug)}"
    return render(apart), apart


def made_for() -> dict[str, Any]:
    """Return what the launcher compares a session with: the Pythons of Kaggle's images, and the torch of each."""
    torch = {image.python: image.versions.get("torch") for image in _images()}
    return {"python": list(torch), "torch": torch}


def _code_slug(slug: str) -> str:
    """Return the slug of the dataset that holds the code; at most 50 characters, and another for every kernel."""
    if len(slug) <= 45:
        return f"{slug}-code"
    return f"{slug[:36].rstrip('-')}-{sha256(slug.encode()).hexdigest()[:8]}-code"


def _lines(text: str) -> str:
    return "\n".join(text[start : start + LINE] for start in range(0, len(text), LINE))


def _fill(template: str, about: str, facts: dict[str, Any], archive: str) -> str:
    launcher = (TEMPLATES / "launcher.py").read_text(encoding="utf-8").partition('"""\n\n')[2]
    about = about.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    values = {
        '"""{{about}}"""': f'"""{about}"""',
        "# {{launcher}}": launcher.strip(),
        '"{{kernel}}"': pprint.pformat(facts, sort_dicts=False),
        '"{{archive}}"': f'r"""\n{archive}\n"""',
    }
    for mark, value in values.items():
        template = template.replace(mark, value)
    return template


def _as_notebook(code: str) -> str:
    cell: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": code,
    }
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return json.dumps({"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}, indent=1) + "\n"


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
        and stored_rule(_scores(experiment, root), scoring, experiment.competition) is None
    ):
        notes.append(
            "the runs are not pooled here, so the kernel fits its decision rule on their out-of-fold predictions "
            "and the train table (python -m kit kernel fetch pools them)"
        )
    return notes


# Where a path begins that leads out of the folder the command runs in, and how far it goes: as a whole value to
# its end, inside of one to what closes it.
OUTSIDE = r"(~[\w.-]*|[A-Za-z]:|\.\.)?[/\\]"
OUTSIDE_PATH = re.compile(
    rf"""(^|(?<==)){OUTSIDE}.*|(?<='){OUTSIDE}[^']*|(?<="){OUTSIDE}[^"]*|(?<=[\s,:;(\[{{]){OUTSIDE}[^,\]}}]*"""
)


def shareable_command(words: Sequence[str]) -> str:
    """Return `python -m kit` and its words; of paths that tell about this machine the last name only."""
    shown = [OUTSIDE_PATH.sub(lambda path: re.split(r"[/\\]+", path[0].rstrip("/\\"))[-1], word) for word in words]
    return shlex.join(["python", "-m", "kit", *shown])
