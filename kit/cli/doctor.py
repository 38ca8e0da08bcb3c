"""Recognises broken set-ups and says what to do. Imports nothing that may itself be broken."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
INSTALL = f"{Path(sys.executable).name} -m pip install -r requirements.txt"
NEEDED_GB = 5  # of disk: pixel caches, checkpoints and weights of a small experiment

# What the imports of a broken set-up say → what it means and what to do.
KNOWN_FAULTS = {
    "operator torchvision::nms does not exist": (
        "torch and torchvision are of different builds (a CPU build of one beside a CUDA build of the other)",
        "pip uninstall -y torch torchvision, then install both in one command from one index: "
        "pip install torch torchvision",
    ),
    "libGL.so": (
        "OpenCV wants a display library that is not there",
        "pip uninstall -y opencv-python, then pip install --force-reinstall opencv-python-headless",
    ),
    "numpy.dtype size changed": (
        "a package was built for another numpy",
        f"{INSTALL} --upgrade --force-reinstall",
    ),
    "No module named": ("a package is missing", INSTALL),
}

_PROBE = """
import json
import torch, torchvision, timm, cv2
cuda = torch.cuda.is_available()
names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if cuda else []
compute = [torch.cuda.get_device_capability(index) for index in range(len(names))]
print(json.dumps({"gpus": names, "compute": compute, "built_for": torch.version.cuda or torch.version.hip,
                  "kernels": torch.cuda.get_arch_list() if cuda else [],
                  "mps": torch.backends.mps.is_available()}))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `advice` is what to do about it."""

    subject: str
    state: str
    broken: bool = False
    advice: str = ""

    def __str__(self) -> str:
        return f"{'BROKEN' if self.broken else 'ok':7}{self.subject}: {self.state}" + (
            f"\n       → {self.advice}" if self.advice else ""
        )


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Attributes
    ----------
    findings : list of Finding
        Of the set-up.
    folders : list of FolderState
        Of the runs that were named, as `kit.experiment.examine` tells them.
    """

    findings: list[Finding]
    folders: list[Any] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Whether something is."""
        return any(finding.broken for finding in self.findings) or any(each.broken for each in self.folders)


def doctor(output: str | Path = ".", runs: Sequence[str | Path] | str | Path = ()) -> Diagnosis:
    """Look at the set-up; or at runs on disk, every file of which is read.

    Parameters
    ----------
    output : path
        Holds runs/, submissions/ and cache/.
    runs : path, or sequence of paths
        A folder of experiments, experiments, or single runs. Left out: Python, the packages, their imports, the
        GPU, the disk and the folders below `output`, and how many runs are there.

    Raises
    ------
    KitError
        Where `runs` names what holds none.
    """
    paths = [runs] if isinstance(runs, str | Path) else list(runs)
    if not paths:
        return Diagnosis(examine(output))
    from kit.experiment.examine import examine_runs

    return Diagnosis([], examine_runs(paths))


def examine(output: str | Path = ".") -> list[Finding]:
    """Looks at Python, the packages, their imports, the GPU, the disk and the folders below `output`."""
    findings = [_python(), *_packages()]
    findings += _imports_and_gpu() if not any(finding.broken for finding in findings) else []
    fine = not any(finding.broken for finding in findings)
    more = [*_runs(Path(output)), *_kaggle(Path(output))] if fine else []
    return [*findings, _disk(Path(output)), *_folders(Path(output)), *more]


def _python() -> Finding:
    shown = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036  # this file runs on older ones to say so
        return Finding("Python", shown, True, "the kit needs 3.11 or newer; make the environment with a newer one")
    return Finding("Python", f"{shown} at {sys.executable}")


def _packages() -> list[Finding]:
    """One finding for each requirement that is missing or too old, or one for all of them."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return [Finding("packages", "not installed", True, INSTALL)]
    lines = [line.partition("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    faults, shown = [], []
    for requirement in map(Requirement, filter(None, lines)):
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            faults.append(Finding(requirement.name, "not installed", True, INSTALL))
            continue
        shown.append(f"{requirement.name} {installed}")
        if not requirement.specifier.contains(installed.partition("+")[0], prereleases=True):
            wanted = f"{installed}, but {requirement.specifier} is needed"
            faults.append(Finding(requirement.name, wanted, True, f"{INSTALL} --upgrade"))
    return faults or [Finding("packages", ", ".join(shown))]


def _imports_and_gpu() -> list[Finding]:
    """Imports the heavy packages in a process of their own: a broken one may take its process with it."""
    probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False)
    if probe.returncode:
        return [diagnose(probe.stderr)]
    seen = json.loads(probe.stdout.splitlines()[-1])
    return [Finding("imports", "torch, torchvision, timm, OpenCV"), gpu_finding(seen, shutil.which("nvidia-smi"))]


def diagnose(stderr: str) -> Finding:
    """What a failed import means, by the text it left."""
    last = next((line for line in reversed(stderr.strip().splitlines()) if line.strip()), "the process died")
    for sign, (meaning, advice) in KNOWN_FAULTS.items():
        if sign in stderr:
            return Finding("imports", f"{meaning} ({last.strip()})", True, advice)
    return Finding("imports", last.strip(), True, f"make a fresh environment, then {INSTALL}")


def gpu_finding(seen: dict, nvidia_smi: str | None) -> Finding:
    """Which GPU training would use.

    seen  gpus (names), compute (capability a GPU), built_for (torch's CUDA or ROCm version), kernels
          (architectures torch was compiled for), mps
    """
    if not seen["gpus"] and nvidia_smi:
        build = f"built for CUDA {seen['built_for']}" if seen["built_for"] else "a CPU build"
        return Finding(
            "GPU",
            f"this machine has an NVIDIA driver, but torch ({build}) does not see a GPU",
            True,
            "look at `nvidia-smi`; update the driver, or install the torch build for its CUDA version "
            "(pytorch.org, Get started)",
        )
    if not seen["gpus"] and seen["mps"]:
        return Finding("GPU", "Apple's, by Metal (MPS)")
    if not seen["gpus"]:
        return Finding("GPU", "none that the kit uses; training runs on the CPU")
    for name, (major, minor) in zip(seen["gpus"], seen["compute"], strict=True):
        if seen["kernels"] and not any(_runs_on(kernel, major, minor) for kernel in seen["kernels"]):
            return Finding(
                "GPU",
                f"torch has no code for {name} (sm_{major}{minor}; it has {', '.join(seen['kernels'])})",
                True,
                "choose a newer GPU (on Kaggle: T4 ×2), or an older torch",
            )
    return Finding("GPU", ", ".join(seen["gpus"]))


def _runs_on(kernel: str, major: int, minor: int) -> bool:
    """Whether code for `kernel` runs on a GPU of that compute capability: binaries (sm_75) on later minors
    of the same major, intermediate code (compute_90) on everything from there on. ROCm's names pass."""
    kind, _, number = kernel.partition("_")
    digits = number.rstrip("abcdef")
    if kind not in ("sm", "compute") or not digits.isdigit():
        return True
    code = divmod(int(digits), 10)
    return code <= (major, minor) and (kind == "compute" or code[0] == major)


def _disk(output: Path) -> Finding:
    there = next(folder for folder in [output.resolve(), *output.resolve().parents] if folder.exists())
    free = shutil.disk_usage(there).free / 1e9
    if free < NEEDED_GB:
        return Finding(
            "disk",
            f"{free:.1f} GB free at {there}",
            True,
            "delete cache/ and old runs/, or give --output DIR on another disk",
        )
    return Finding("disk", f"{free:.0f} GB free at {there}")


def _runs(output: Path) -> list[Finding]:
    """How many runs there are, where there are some."""
    folder = output / "runs"
    if not folder.is_dir() or not any(folder.iterdir()):
        return []
    from kit.experiment.examine import glance_at

    return [Finding("runs", f"{glance_at(folder)}; python -m kit doctor {folder} reads all of their files")]


def _kaggle(output: Path) -> list[Finding]:
    """What a probe found out about Kaggle's sessions, where one ran, or where kernels were built."""
    from kit.core.errors import KitError
    from kit.kaggle.facts import FACTS, FRESH, PROBE, read_facts

    try:
        facts = read_facts(output)
    except KitError as error:
        return [Finding("Kaggle", f"{output / FACTS} is damaged", True, str(error).rpartition("; ")[2])]
    if facts is None:
        built = output / "kernels/build"
        unknown = Finding("Kaggle", "no session was probed yet", advice=f"{PROBE} tells what yours are like")
        return [unknown] if built.is_dir() and any(built.iterdir()) else []
    shown = {"Python": facts.image["python"], **{name: facts.image.get(name) for name in ("torch", "timm")}}
    versions = ", ".join(f"{name} {version}" for name, version in shown.items() if version)
    return [Finding("Kaggle", f"{facts.source}: {versions}", advice=facts.remark() if facts.age() > FRESH else "")]


def _folders(output: Path) -> list[Finding]:
    """Whether runs/, submissions/ and cache/ can be written, where they are or would be made."""
    findings = []
    for name in ("runs", "submissions", "cache"):
        wanted = output.resolve() / name
        there = next(folder for folder in [wanted, *wanted.parents] if folder.exists())
        try:
            handle, path = tempfile.mkstemp(dir=there)
            os.close(handle)
            os.unlink(path)
        except OSError as error:
            findings.append(
                Finding(
                    "folder",
                    f"{wanted} cannot be written ({error.strerror})",
                    True,
                    f"change the owner of {there}, or give --output DIR that you may write to",
                )
            )
    return findings or [
        Finding("folders", f"runs/, submissions/ and cache/ below {output.resolve()} can be written")
    ]
