"""The commands that speak to Kaggle as functions of `kit`: each signs in, does its work and gives one result."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.core.errors import KitError, Say, ignore, some
from kit.core.paths import OutputDirs
from kit.kaggle import datasets, download, submissions
from kit.kaggle.client import Kaggle
from kit.kaggle.facts import Facts, python_remark, read_facts, session_python
from kit.kaggle.image import ImageTable, KaggleImage, MissingRequirement, missing, read_table
from kit.kaggle.image import refresh as refresh_image
from kit.kaggle.submission_log import LogEntry
from kit.kaggle.submissions import SubmissionsOverview
from kit.kaggle.submit import submit_file, submit_kernel
from kit.kaggle.wheels import wheels_folder


@dataclass(frozen=True)
class FetchDataResult:
    """The folder of a competition that was downloaded."""

    folder: Path


@dataclass(frozen=True)
class KernelWheelsResult:
    """The Pythons of the images that are meant, what these lack, and the wheels that were collected for that."""

    pythons: list[str]
    lacking: list[MissingRequirement]
    wheels: list[Path]


@dataclass(frozen=True)
class KernelImageResult:
    """What is known of Kaggle's image.

    Attributes
    ----------
    as_of : str
        The month of the lists it was read from, like "2026-08".
    python : str
        Its Python, like "3.12".
    lacking : list of MissingRequirement
        What it lacks of requirements.txt.
    changes : list of str or None
        What newer lists have changed; None where none were given.
    """

    as_of: str
    python: str
    lacking: list[MissingRequirement]
    changes: list[str] | None


@dataclass(frozen=True)
class KernelWeightsResult:
    """The weight file, and the folder of the dataset or model that holds it."""

    file: Path
    folder: Path
    ref: str


@dataclass(frozen=True)
class KernelUploadResult:
    """The dataset that is READY, as owner/slug."""

    dataset: str


def fetch_data(slug: str, folder: str | Path | None = None, *, say: Say = ignore) -> FetchDataResult:
    """Download a competition from Kaggle and unpack it.

    Parameters, errors and what happens where it is interrupted are those of `kit.kaggle.download.fetch_data`.
    """
    return FetchDataResult(download.fetch_data(slug, Kaggle(say), folder, say))


def submit(
    file: str | Path | None = None,
    *,
    kernel: str | Path | None = None,
    config: str | Path | None = None,
    message: str = "",
    again: bool = False,
    output: str | Path = ".",
    say: Say = ignore,
) -> LogEntry:
    """Hand in a submission file, or what an infer kernel made, and wait for the score.

    Parameters
    ----------
    file : path, optional
        Of submissions/, see `kit.kaggle.submit.submit_file`.
    kernel : path, optional
        The folder of an infer kernel instead, see `kit.kaggle.submit.submit_kernel`.
    config, message, again, output, say
        As there.

    Returns
    -------
    LogEntry
        The row of submissions/log.csv, with the score.

    Raises
    ------
    KitError
        Where both are given or neither, and as there.
    """
    if file is not None and kernel is None:
        return submit_file(file, Kaggle(say), config=config, message=message, again=again, output=output, say=say)
    if kernel is not None and file is None:
        return submit_kernel(kernel, Kaggle(say), message=message, again=again, output=output, say=say)
    raise KitError("give a submission FILE, or --kernel DIR for a code competition")


def list_submissions(
    competition: str | None = None, *, refresh: bool = False, output: str | Path = ".", say: Say = ignore
) -> SubmissionsOverview:
    """Return what was handed in, and whether CV orders it as the public score does.

    Parameters
    ----------
    competition : str, optional
        Kaggle's name of it: those to this one alone.
    refresh : bool
        Ask Kaggle first for scores that came later.
    output : path
        Holds submissions/.
    say : callable
        Takes a line about what has changed.

    Raises
    ------
    KitError
        Where nothing was handed in to that competition.
    """
    dirs = OutputDirs.at(output)
    if refresh and submissions.overview(dirs, competition, say).rows:
        say(f"{len(submissions.refresh(dirs, Kaggle(say), competition, say))} rows have changed")
    return submissions.overview(dirs, competition, say)


def collect_wheels(
    folder: str | Path,
    dataset: str,
    requirements: str | Path = "requirements.txt",
    *,
    python: str | None = None,
    say: Say = ignore,
) -> KernelWheelsResult:
    """Collect the wheels of what Kaggle's image lacks into a dataset's folder; none where it lacks nothing.

    Parameters
    ----------
    folder : path
        Becomes the dataset's: kernels/datasets/NAME.
    dataset : str
        OWNER/SLUG.
    requirements : path
        What the kernels need.
    python : str, optional
        Of the image that they are for, like "3.13"; "both": of all that kernels/image.txt knows. Left out: as in
        the session that was probed last, else the first of these.
    say : callable
        Takes lines about what happens.
    """
    from kit.kaggle.kernel.code_file import TEMPLATES

    table = read_table(TEMPLATES / "image.txt")
    images = _images(table, python, read_facts(), say)
    lacking = [(image, missing(Path(requirements), image)) for image in images]
    for image, wanted in lacking:
        for each in wanted:
            say(f"Python {image.python}: {each.requirement}: {each.reason}")
    pythons, all_wanted = [image.python for image in images], [each for _, wanted in lacking for each in wanted]
    if not all_wanted:
        return KernelWheelsResult(pythons, [], [])
    title = dataset.rpartition("/")[2].replace("-", " ")
    wheels = wheels_folder(lacking, Path(folder), dataset, title, say)
    if others := [each for each in table.pythons if each not in pythons]:
        say(f"a session may have Python {some(others)} as well, which these are not for: --python both")
    return KernelWheelsResult(pythons, list(dict.fromkeys(all_wanted)), wheels)


def _images(table: ImageTable, python: str | None, facts: Facts | None, say: Say) -> Sequence[KaggleImage]:
    """Return the images that wheels are meant for, and say what of that a probe tells; `python` as stated."""
    if facts and python is None and session_python(facts) in table.pythons:
        python = session_python(facts)
        say(f"wheels for Python {python}, by the {facts.source}")
    images = table.images if python == "both" else (table.image(python),)
    if facts:
        remarks = (python_remark(facts, [image.python for image in images]), facts.remark())
        for line in filter(None, remarks):
            say(line)
    return images


def place_weights(file: str | Path, to: str, folder: str | Path | None = None) -> KernelWeightsResult:
    """Put a weight file into a dataset's or a model's folder, with its metadata.

    Parameters
    ----------
    file : path
        A .safetensors, .pth, .pt or .bin file.
    to : str
        OWNER/SLUG of a dataset, or OWNER/MODEL/FRAMEWORK/VARIATION.
    folder : path, optional
        Left out: kernels/datasets/SLUG.
    """
    name = to.split("/")[1] if "/" in to else to
    target = Path(folder) if folder else Path("kernels/datasets") / name
    placed = datasets.weights_folder(Path(file), target, to, name.replace("-", " "))
    return KernelWeightsResult(placed, target, to)


def upload_dataset(folder: str | Path, notes: str = "", *, say: Say = ignore) -> KernelUploadResult:
    """Make a folder a private dataset on Kaggle, or a new version of it, and wait until it is READY."""
    return KernelUploadResult(datasets.upload(folder, Kaggle(say), notes, say))


def kaggle_image(
    published: Sequence[str | Path] = (), as_of: str | None = None, python: str | None = None
) -> KernelImageResult:
    """Say what Kaggle's image lacks of requirements.txt; with lists of it, bring kernels/image.txt up to date.

    Parameters
    ----------
    published : sequence of path
        `pip freeze` of the image, Kaggle's kaggle_requirements.txt.
    as_of : str, optional
        YYYY-MM, when they were published.
    python : str, optional
        Of the image that is meant, like "3.13". Left out: the first that the table knows; lists need it where the
        table knows several.
    """
    from kit.kaggle.kernel.code_file import TEMPLATES

    table, requirements, changes = TEMPLATES / "image.txt", TEMPLATES.parent / "requirements.txt", None
    if published:
        if as_of is None:
            raise KitError("--as-of YYYY-MM: say when the lists were published")
        changes = refresh_image(table, [Path(file) for file in published], requirements, as_of, python)
    image = read_table(table).image(python)
    return KernelImageResult(image.as_of, image.python, missing(requirements, image), changes)
