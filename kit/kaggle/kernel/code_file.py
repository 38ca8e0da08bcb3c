"""The one code file of a kernel: a head that tells what it is, the launcher, and the archive."""

import base64
import json
import pprint
import re
import shlex
import textwrap
from collections.abc import Sequence
from typing import Any

from kit.core.bundle import Files
from kit.core.errors import KitError
from kit.experiment.config import ExperimentConfig
from kit.kaggle.image import KaggleImage, read_table
from kit.kaggle.kernel.attached import AttachedRuns
from kit.kaggle.kernel.folder import BuildRecord
from kit.kaggle.kernel.names import code_slug
from kit.kaggle.kernel.travelling import PACKAGE, travelling_config

TEMPLATES, LAUNCHER = PACKAGE.parent / "kernels", "launcher.py"
SHOWN_VERSIONS = ("torch", "torchvision", "timm", "albumentations", "numpy", "pandas", "scikit-learn")
LINE = 100  # characters of the archive in a line


def templates_for(kind: str) -> dict[str, str]:
    """Return the templates that the code file of a kind of kernel is made of, by their names."""
    return {name: (TEMPLATES / name).read_text(encoding="utf-8") for name in (LAUNCHER, f"{kind}/kernel.py")}


def head_of(experiment: ExperimentConfig, record: BuildRecord, files: Files, command: str) -> str:
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
    config = travelling_config(experiment).to_yaml(stated_only=True)
    return "\n".join([*lines, "", "config", textwrap.indent(config.rstrip(), "    "), ""])


def _images() -> tuple[KaggleImage, ...]:
    """Return the images that a session may get."""
    return read_table(TEMPLATES / "image.txt").images


def _versions(image: KaggleImage) -> str:
    shown = [f"{name} {image.versions[name]}" for name in SHOWN_VERSIONS if image.versions.get(name)]
    return ", ".join([f"Python {image.python}", *shown])


def code_of(
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
        code = _fill(record.kind, about, facts, text)
        return _as_notebook(code) if notebook else code

    if len((code := render("")).encode()) <= 1000 * kernel.max_code_kb:
        return code, ""
    if kernel.owner is None:
        raise KitError(
            f"kernel.max_code_kb: the code file has {len(code.encode()) / 1000:.0f} kB, more than "
            f"{kernel.max_code_kb}, so the code has to travel as a dataset: name its owner in kernel.owner"
        )
    apart = f"{kernel.owner}/{code_slug(record.slug)}"
    return render(apart), apart


def made_for() -> dict[str, Any]:
    """Return what the launcher compares a session with: the Pythons of Kaggle's images, and the torch of each."""
    torch = {image.python: image.versions.get("torch") for image in _images()}
    return {"python": list(torch), "torch": torch}


def _lines(text: str) -> str:
    return "\n".join(text[start : start + LINE] for start in range(0, len(text), LINE))


def _fill(kind: str, about: str, facts: dict[str, Any], archive: str) -> str:
    launcher, template = templates_for(kind).values()
    about = about.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    values = {
        '"""{{about}}"""': f'"""{about}"""',
        "# {{launcher}}": launcher.partition('"""\n\n')[2].strip(),
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
