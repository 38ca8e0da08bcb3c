"""Wheels of what Kaggle's image lacks are put into a dataset, from which a kernel installs without a network.

Versions are resolved and downloaded by the user's own pip; which of them to take along is chosen here.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from kit.core.errors import KitError, Say, some
from kit.core.files import parse_json, sha256, write_json, write_text
from kit.kaggle.datasets import dataset_folder, need_dataset_folder
from kit.kaggle.image import KaggleImage, MissingRequirement, parse_requirement

WHEELS = "wheels.json"  # beside the wheels: what a kernel verifies and installs

# The image's glibc is newer than 2.28. pip takes each tag as it stands, so that the older ones are named too.
GLIBC = [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)]
PLATFORMS = (*GLIBC, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64")

Lacking = Sequence[tuple[KaggleImage, Sequence[MissingRequirement]]]  # what is missing in an image, of each


def wheels_folder(lacking: Lacking, folder: Path, ref: str, title: str, say: Say) -> list[Path]:
    """Make a folder the dataset `ref`, "owner/slug", of the wheels that `collect_wheels` puts there.

    Files of other kinds that are there become part of it. Parameters and result are those of `collect_wheels`.

    Raises
    ------
    KitError
        Before anything in the folder is touched, where it cannot become that dataset, and where `collect_wheels`
        raises one.
    """
    need_dataset_folder(folder, ref, title)
    wheels = collect_wheels(lacking, folder, say)
    dataset_folder(folder, ref, title)
    return wheels


@dataclass(frozen=True)
class _Fetched:
    """A wheel that was downloaded, and the Pythons that it is for."""

    path: Path
    pythons: list[str]


@dataclass(frozen=True)
class _Wheel:
    """A wheel that pip has chosen: canonical name, version, what it is fetched by, and its own requirements."""

    name: str
    version: str
    source: str
    requires: tuple[str, ...]


def collect_wheels(lacking: Lacking, folder: Path, say: Say) -> list[Path]:
    """Put the wheels of what is missing, and of what those need and the image lacks, into a folder.

    The wheels fit each image's Python on x86_64 Linux, wherever this runs. wheels.json beside them is an object:
    `python`, for which they were collected, and `wheels`, a list of file, sha256, name, version and python (the
    Pythons that it is for), sorted by file, for `pip install --no-index --no-deps`. Nothing that an image has at a
    known version is replaced, other than what is wanted itself.

    Parameters
    ----------
    lacking : sequence of pairs of KaggleImage and sequence of MissingRequirement
        An image, and what is missing there.
    folder : Path
        Is made where it is not there; the wheels that were collected there before are removed from it.
    say : callable
        Takes a line about what is done.

    Returns
    -------
    list of Path
        The wheels, sorted.

    Raises
    ------
    KitError
        Where the folder holds other wheels, where pip or the network is not there, where a package has no such
        wheel, and where versions cannot go together with the image's; the folder is then left as it was.
    """
    earlier = _collected(folder)
    with tempfile.TemporaryDirectory(prefix="wheels-") as temporary:
        fetched: dict[str, _Fetched] = {}
        for image, wanted in lacking:
            scratch = Path(temporary).resolve() / image.python
            scratch.mkdir()
            for wheel in _fetch([Requirement(one.requirement) for one in wanted], image, scratch, say):
                fetched.setdefault(wheel.name, _Fetched(wheel, [])).pythons.append(image.python)
        pythons = [image.python for image, _ in lacking]
        return _replace_wheels(earlier, [fetched[name] for name in sorted(fetched)], pythons, folder)


def _fetch(wanted: list[Requirement], image: KaggleImage, scratch: Path, say: Say) -> list[Path]:
    """Download the wheels that `wanted` leads to in one image; return where they are."""
    chosen = _choose(wanted, image, scratch, say)
    say(f"to take along: {some((f'{one.name} {one.version}' for one in chosen), 30) or 'nothing'}")
    target = scratch / "fetched"
    target.mkdir()
    if chosen:
        sources = [wheel.source for wheel in chosen]
        _pip("download", "--no-deps", f"--dest={target}", *_for_image(image), *sources, image=image)
    return list(target.glob("*.whl"))


def _choose(wanted: list[Requirement], image: KaggleImage, scratch: Path, say: Say) -> list[_Wheel]:
    """Return the wheels to take along, by name.

    pip evaluates markers for the Python that it runs in, not for the one it resolves for. So the choice is walked
    through again with the image's markers, and pip is asked again where it has left something out.
    """
    asked = list(wanted)
    constraints = _stand_ins(image, {canonicalize_name(one.name) for one in wanted}, scratch / "image")
    while asked:
        say(f"resolving {some(asked)} for Python {image.python}")
        chosen, left_out = _walk(wanted, _resolve(asked, image, constraints, scratch), image)
        if not left_out:
            return sorted(chosen, key=lambda wheel: wheel.name)
        if in_vain := {str(one) for one in left_out} & {str(one) for one in asked}:  # pip took a stand-in
            raise KitError(_no_wheel(min(in_vain), image))
        asked += left_out
    return []


def _walk(
    wanted: list[Requirement], resolved: dict[str, _Wheel], image: KaggleImage
) -> tuple[set[_Wheel], list[Requirement]]:
    """Return the wheels that `wanted` leads to beside what the image has, and what pip has left out."""
    chosen: set[_Wheel] = set()
    left_out: list[Requirement] = []
    ahead, seen = list(wanted), set()
    while ahead:
        requirement = ahead.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        wheel = resolved.get(canonicalize_name(requirement.name))
        if wheel is None or not requirement.specifier.contains(wheel.version, prereleases=True):
            left_out.append(requirement)
            continue
        chosen.add(wheel)
        for needed in (parse_requirement(text, f"{wheel.name} {wheel.version}") for text in wheel.requires):
            if image.needs(needed, requirement.extras) and image.lacks(needed):
                needed.marker = None
                ahead.append(needed)
    return chosen, left_out


def _stand_ins(image: KaggleImage, wanted: set[str], folder: Path) -> Path:
    """Write empty wheels in the place of the image's packages; return the constraints that make pip take them.

    So pip knows the versions to respect, but neither downloads these packages (torch!) nor goes into what they
    need themselves, which need not be to be had as a wheel. A package of an unknown version gets version 0, which
    pip takes where nothing asks for a version and the index has no wheel.
    """
    folder.mkdir()
    lines = []
    for name, version in image.versions.items():
        if name not in wanted:
            wheel = _empty_wheel(folder, name, version or "0")
            lines += [f"{name} @ {wheel.as_uri()}"] if version else []
    constraints = folder / "constraints.txt"
    write_text(constraints, "\n".join(lines) + "\n")
    return constraints


def _empty_wheel(folder: Path, name: str, version: str) -> Path:
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    return path


def _resolve(asked: list[Requirement], image: KaggleImage, constraints: Path, scratch: Path) -> dict[str, _Wheel]:
    """Return what pip would install, by canonical name, less the stand-ins."""
    report, stand_ins = scratch / "report.json", constraints.parent
    places = [f"--report={report}", f"--target={scratch / 'target'}"]
    versions = [f"--constraint={constraints}", f"--find-links={stand_ins}"]
    options = ["--dry-run", "--ignore-installed", *places, *versions, *_for_image(image)]
    _pip("install", *options, *(str(one) for one in asked), image=image)
    items = json.loads(report.read_text(encoding="utf-8"))["install"]
    ours = [item for item in items if not item["download_info"]["url"].startswith(stand_ins.as_uri())]
    return {wheel.name: wheel for wheel in map(_wheel, ours)}


def _wheel(item: dict[str, Any]) -> _Wheel:
    """Return a wheel from an item of pip's report."""
    metadata = item["metadata"]
    name, version = canonicalize_name(metadata["name"]), metadata["version"]
    source = f"{name} @ {item['download_info']['url']}" if item["is_direct"] else f"{name}=={version}"
    return _Wheel(name, version, source, tuple(metadata.get("requires_dist", ())))


def _for_image(image: KaggleImage) -> list[str]:
    """Return pip's options that choose wheels for the image's Python and system."""
    target = ["--only-binary=:all:", f"--python-version={image.python}", "--implementation=cp"]
    return [*target, *(f"--platform={platform}" for platform in PLATFORMS)]


def _pip(*arguments: str, image: KaggleImage) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--no-input", "--disable-pip-version-check"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        raise KitError(_explained(done.stdout + done.stderr, image))


def _explained(output: str, image: KaggleImage) -> str:
    """Say why pip failed in one line."""
    if "No module named pip" in output:
        return f"{sys.executable} has no pip; `{sys.executable} -m ensurepip` brings it"
    if re.search(r"connection (broken|error)|NewConnectionError", output):
        return "pip does not reach the package index; wheels are collected where there is a network"
    if absent := re.search(r"satisfies the requirement (.+?)(?: \(from versions: .*\))?$", output, re.MULTILINE):
        return _no_wheel(absent[1], image)
    if conflict := re.search(r"The conflict is caused by:\n((?: +.+\n)+)", output):
        return _conflict([line.strip() for line in conflict[1].splitlines()], image)
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    return f"pip failed: {some((errors or lines)[-1:])}"


def _no_wheel(what: str, image: KaggleImage) -> str:
    return f"{what}: no wheel for Python {image.python} on x86_64 Linux; misspelt, or published as source only?"


def _conflict(lines: list[str], image: KaggleImage) -> str:
    """Sum up pip's account of a conflict: `foo 1.1 depends on bar>=2`, once for every version of foo it tried."""
    tried: dict[tuple[str, str], str] = {}
    for line in lines:
        subject, _, needed = line.partition(" depends on ")
        tried.setdefault((subject.split()[0], needed) if needed else (line, ""), line)
    if len(tried) == 1 and (needed := next(iter(tried))[1]):  # nothing contradicts it, so it is not to be had
        return _no_wheel(f"{needed} (for {lines[0].partition(' depends on ')[0]})", image)
    return f"these do not go together: {some(_reworded(line, image) for line in tried.values())}"


def _reworded(line: str, image: KaggleImage) -> str:
    requested = re.match(r"The user requested (\(constraint\) )?(\S+)", line)
    if requested and requested[1]:
        return f"the image has {requested[2]} {image.versions[canonicalize_name(requested[2])]}"
    return f"{requested[2]} is wanted" if requested else line


def _collected(folder: Path) -> list[Path]:
    """Return the wheels in a folder; KitError where one was not put there by `collect_wheels`."""
    there, table = sorted(folder.glob("*.whl")), folder / WHEELS
    try:
        content = parse_json(table.read_text(encoding="utf-8"))
        entries = content["wheels"] if isinstance(content, dict) else content  # a bare list in early versions
        listed = {entry["file"] for entry in entries}
    except FileNotFoundError:
        listed = set()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise KitError(f"{table}: is not the list that this command writes ({error}); move it away") from error
    if others := [wheel.name for wheel in there if wheel.name not in listed]:
        raise KitError(
            f"{folder}: {some(others)} {'was' if len(others) == 1 else 'were'} not put there by this command, "
            "which replaces a folder's wheels; move away, or name another folder"
        )
    return there


def _replace_wheels(earlier: list[Path], fetched: list[_Fetched], pythons: list[str], folder: Path) -> list[Path]:
    """Put new wheels in the place of earlier ones.

    The list is written between removing and moving: whenever this is stopped, it names all wheels there are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in earlier:
        wheel.unlink()
    write_json(folder / WHEELS, {"python": pythons, "wheels": [_entry(each) for each in fetched]})
    return [Path(shutil.move(each.path, folder / each.path.name)) for each in fetched]


def _entry(fetched: _Fetched) -> dict[str, Any]:
    name, version, *_ = parse_wheel_filename(fetched.path.name)
    about = {"name": name, "version": str(version), "python": fetched.pythons}
    return {"file": fetched.path.name, "sha256": sha256(fetched.path), **about}
