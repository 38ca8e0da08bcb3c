"""Kaggle's image: which packages it has, what it lacks of a list, and the wheels to take along.

The table of the image is kernels/image.txt, which pip understands as well, as a file of constraints. Only the
parsing and the choice are made here; versions are resolved and downloaded by the user's own pip.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidName, canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from kit.errors import KitError, some
from kit.files import sha256, write_json, write_text

Say = Callable[[str], None]

WHEELS = "wheels.json"  # beside the wheels: what a kernel verifies and installs

# The image's glibc is newer than 2.28. pip takes each tag as it stands, so that the older ones are named too.
GLIBC = [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)]
PLATFORMS = (*GLIBC, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64")


@dataclass(frozen=True)
class Image:
    """What is known of the image: its Python ("3.12"), the month of the lists it was read from, its packages."""

    python: str
    as_of: str
    versions: dict[str, str | None]  # by canonical name; None where the package is there in an unknown version
    comments: tuple[str, ...] = ()

    def lacks(self, requirement: Requirement) -> str | None:
        """Why the image does not satisfy the requirement; None where it does.

        Its marker is not looked at, nor what its extras would need.
        """
        name, wanted = canonicalize_name(requirement.name), requirement.specifier
        if requirement.url:
            return f"wanted from {requirement.url}"
        if name not in self.versions:
            return "not in the image"
        if not wanted:
            return None
        version = self.versions[name]
        if version is None:
            return f"version unknown, wanted {wanted}"
        return None if wanted.contains(version, prereleases=True) else f"the image has {version}, wanted {wanted}"

    def needs(self, requirement: Requirement, extras: Iterable[str] = ()) -> bool:
        """Whether the requirement's marker holds in the image, for a package that was asked for with `extras`."""
        marker = requirement.marker
        return marker is None or any(marker.evaluate(self._environment(extra)) for extra in {"", *extras})

    def _environment(self, extra: str) -> dict[str, str]:
        """All the variables that a marker can ask for, so that none is taken from this machine."""
        return {
            "extra": extra,
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": "x86_64",
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


@dataclass(frozen=True)
class Missing:
    """A requirement, without its marker, that the image does not satisfy, and why."""

    requirement: str
    reason: str


def read_image(path: Path) -> Image:
    """The table of the image; KitError with file and line where it is none.

    Lines are `name==version`, `# present: name` for a package in an unknown version, `# python: 3.12` and
    `# as of: 2026-08`; other comments are free.
    """
    facts: dict[str, str] = {}
    versions: dict[str, str | None] = {}
    comments = []
    for place, line in _numbered(path):
        key, _, value = line.removeprefix("#").partition(":")
        key, value = key.strip(), value.strip()
        if line.startswith("#") and key in ("python", "as of"):
            facts[key] = _fact(place, key, value)
        elif line.startswith("#") and key != "present":
            comments.append(line)
        elif line:
            name, version = _present(value, place) if line.startswith("#") else _pin(line, place)
            if name in versions:
                raise KitError(f"{place}: {name} is stated twice")
            versions[name] = version
    if absent := {"python", "as of"} - facts.keys():
        raise KitError(f"{path}: has no line `# {min(absent)}: ...`; it is no table of Kaggle's image")
    return Image(facts["python"], facts["as of"], versions, tuple(comments))


def _fact(place: str, key: str, value: str) -> str:
    pattern, example = {"python": (r"3\.\d+", "3.12"), "as of": (r"\d{4}-\d\d", "2026-08")}[key]
    if not re.fullmatch(pattern, value):
        raise KitError(f"{place}: `{key}: {value}` should look like `{key}: {example}`")
    return value


def _present(text: str, place: str) -> tuple[str, None]:
    try:
        return canonicalize_name(text, validate=True), None
    except InvalidName as error:
        raise KitError(f"{place}: `{text}` is not the name of one package") from error


def _pin(text: str, place: str) -> tuple[str, str]:
    requirement = _requirement(_bare(text), place)
    version = _exact(requirement)
    if version is None or requirement.extras or requirement.marker:
        raise KitError(f"{place}: `{text}` should look like `name==1.2.3`")
    return canonicalize_name(requirement.name), version


def missing(requirements: Path, image: Image) -> list[Missing]:
    """What the image does not satisfy of a requirements file and of the files it includes with `-r`.

    Lines whose marker does not hold in the image are left out; several lines about one package count together.
    A package that the image has in an unknown version satisfies only a requirement that asks for no version.
    KitError with file and line where a line cannot be understood.
    """
    wanted: dict[str, Requirement] = {}
    for requirement in _read_requirements(requirements):
        if image.needs(requirement):
            requirement.marker = None
            first = wanted.setdefault(canonicalize_name(requirement.name), requirement)
            first.specifier &= requirement.specifier
            first.extras |= requirement.extras
    reasons = ((requirement, image.lacks(requirement)) for requirement in wanted.values())
    return [Missing(str(requirement), reason) for requirement, reason in reasons if reason]


INCLUDE = re.compile(r"(?:-r|--requirement)[ =]*(.+)")
SOURCES = re.compile(r"(-i|--(extra-)?index-url|-f|--find-links|--no-index|--trusted-host)\b")  # pip's concern


def _read_requirements(path: Path, above: tuple[Path, ...] = ()) -> Iterator[Requirement]:
    if path.resolve() in above:
        raise KitError(f"{path}: includes itself")
    for place, line in _numbered(path):
        text = _bare(line)
        if include := INCLUDE.match(text):
            yield from _read_requirements(path.parent / include[1].strip(), (*above, path.resolve()))
        elif text and not SOURCES.match(text):
            yield _requirement(text, place)


def refresh(image: Path, published: Sequence[Path], requirements: Path, as_of: str) -> list[str]:
    """Brings the table of the image up to date with published lists; returns the changes, a line each.

    The lists are what `pip freeze` prints (such as googlecolab/backend-info's pip-freeze.txt) or names with or
    without bounds (Kaggle/docker-python's kaggle_requirements.txt); a later list wins. A version that contradicts
    a later list's bound becomes unknown. Packages that neither the table nor `requirements` name are left out, and
    what no list names stays as it is. `as_of` is the month of the lists, "2026-08". KitError where a list cannot
    be read or names none of the packages.
    """
    before = read_image(image)
    month = _fact("as_of", "as of", as_of)
    known = before.versions.keys() | {canonicalize_name(one.name) for one in _read_requirements(requirements)}
    versions = dict(before.versions)
    for path in published:
        stated = {name: one for name, one in _published(path).items() if name in known}
        if not stated:
            raise KitError(f"{path}: names no package of {image}; is it a list of packages, one a line?")
        versions |= {name: _version_after(versions.get(name), one) for name, one in stated.items()}
    after = Image(before.python, month, versions, before.comments)
    write_text(image, _text_of(after))
    return [_change(name, before, after) for name in sorted(versions) if _differs(name, before, after)]


def _published(path: Path) -> dict[str, Requirement]:
    """The packages of a published list; lines that name none (`-e ...`, `git+https://...`) are passed over."""
    stated = {}
    for _, line in _numbered(path):
        try:
            requirement = Requirement(_bare(line))
        except InvalidRequirement:
            continue
        stated[canonicalize_name(requirement.name)] = requirement
    return stated


def _version_after(version: str | None, stated: Requirement) -> str | None:
    exact = _exact(stated)
    if exact or version is None:
        return exact
    return version if stated.specifier.contains(version, prereleases=True) else None


def _exact(requirement: Requirement) -> str | None:
    """The one version that is stated, without a local part: "+cu128" is not to be had from the package index."""
    try:
        if requirement.url:
            return _version_of_file(Path(unquote(urlsplit(requirement.url).path)).name)
        [specifier] = requirement.specifier
        return Version(specifier.version).public if specifier.operator in ("==", "===") else None
    except ValueError:  # no or several specifiers, `==1.2.*`, or a URL of something else
        return None


def _version_of_file(name: str) -> str:
    version = parse_wheel_filename(name)[1] if name.endswith(".whl") else parse_sdist_filename(name)[1]
    return version.public


def _text_of(image: Image) -> str:
    facts = [f"# python: {image.python}", f"# as of: {image.as_of}"]
    known = [f"{name}=={version}" for name, version in sorted(image.versions.items()) if version]
    unknown = [f"# present: {name}" for name, version in sorted(image.versions.items()) if not version]
    return "\n".join([*image.comments, *facts, *known, *unknown]) + "\n"


def _differs(name: str, before: Image, after: Image) -> bool:
    return name not in before.versions or before.versions[name] != after.versions[name]


def _change(name: str, before: Image, after: Image) -> str:
    was = before.versions[name] or "version unknown" if name in before.versions else "not in the table"
    return f"{name}: {was} -> {after.versions[name] or 'version unknown'}"


@dataclass(frozen=True)
class _Wheel:
    """A wheel that pip has chosen: canonical name, version, what it is fetched by, and its own requirements."""

    name: str
    version: str
    source: str
    requires: tuple[str, ...]


def collect_wheels(wanted: Sequence[Missing], image: Image, folder: Path, say: Say) -> list[Path]:
    """Puts the wheels of what is missing, and of what those need and the image lacks, into `folder`.

    The wheels fit the image's Python on x86_64 Linux, wherever this runs. `folder` is made where it is not there;
    wheels of an earlier time are removed from it. wheels.json beside them is a list of file, sha256, name and
    version, sorted by file, for `pip install --no-index --no-deps`. Nothing that the image has at a known version
    is replaced, other than what is wanted itself. Returns the wheels, sorted. KitError where pip or the network is
    not there, where a package has no such wheel, and where versions cannot go together with the image's; the
    folder is then left as it was.
    """
    with tempfile.TemporaryDirectory(prefix="wheels-") as temporary:
        scratch = Path(temporary).resolve()
        chosen = _choose([Requirement(one.requirement) for one in wanted], image, scratch, say)
        say(f"to take along: {some((f'{one.name} {one.version}' for one in chosen), 30) or 'nothing'}")
        fetched = scratch / "fetched"
        fetched.mkdir()
        if chosen:
            sources = [wheel.source for wheel in chosen]
            _pip("download", "--no-deps", f"--dest={fetched}", *_for_image(image), *sources, image=image)
        return _replace_wheels(fetched, folder)


def _choose(wanted: list[Requirement], image: Image, scratch: Path, say: Say) -> list[_Wheel]:
    """The wheels to take along, by name.

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
    wanted: list[Requirement], resolved: dict[str, _Wheel], image: Image
) -> tuple[set[_Wheel], list[Requirement]]:
    """The wheels that `wanted` leads to beside what the image has, and the requirements that pip has left out."""
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
        for needed in (_requirement(text, f"{wheel.name} {wheel.version}") for text in wheel.requires):
            if image.needs(needed, requirement.extras) and image.lacks(needed):
                needed.marker = None
                ahead.append(needed)
    return chosen, left_out


def _stand_ins(image: Image, wanted: set[str], folder: Path) -> Path:
    """Empty wheels in the place of the image's packages; returns the constraints that make pip take them.

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


def _resolve(asked: list[Requirement], image: Image, constraints: Path, scratch: Path) -> dict[str, _Wheel]:
    """What pip would install, by canonical name, less the stand-ins."""
    report, stand_ins = scratch / "report.json", constraints.parent
    places = [f"--report={report}", f"--target={scratch / 'target'}"]
    versions = [f"--constraint={constraints}", f"--find-links={stand_ins}"]
    options = ["--dry-run", "--ignore-installed", *places, *versions, *_for_image(image)]
    _pip("install", *options, *(str(one) for one in asked), image=image)
    items = json.loads(report.read_text(encoding="utf-8"))["install"]
    ours = [item for item in items if not item["download_info"]["url"].startswith(stand_ins.as_uri())]
    return {wheel.name: wheel for wheel in map(_wheel, ours)}


def _wheel(item: dict) -> _Wheel:
    """A wheel from an item of pip's report."""
    metadata = item["metadata"]
    name, version = canonicalize_name(metadata["name"]), metadata["version"]
    source = f"{name} @ {item['download_info']['url']}" if item["is_direct"] else f"{name}=={version}"
    return _Wheel(name, version, source, tuple(metadata.get("requires_dist", ())))


def _for_image(image: Image) -> list[str]:
    """pip's options that choose wheels for the image's Python and system."""
    target = ["--only-binary=:all:", f"--python-version={image.python}", "--implementation=cp"]
    return [*target, *(f"--platform={platform}" for platform in PLATFORMS)]


def _pip(*arguments: str, image: Image) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--no-input", "--disable-pip-version-check"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        raise KitError(_explained(done.stdout + done.stderr, image))


def _explained(output: str, image: Image) -> str:
    """pip's failure in one line."""
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


def _no_wheel(what: str, image: Image) -> str:
    return f"{what}: no wheel for Python {image.python} on x86_64 Linux; misspelt, or published as source only?"


def _conflict(lines: list[str], image: Image) -> str:
    """pip's account of a conflict: `foo 1.1 depends on bar>=2`, once for every version of foo it has tried."""
    tried: dict[tuple[str, str], str] = {}
    for line in lines:
        subject, _, needed = line.partition(" depends on ")
        tried.setdefault((subject.split()[0], needed) if needed else (line, ""), line)
    if len(tried) == 1 and (needed := next(iter(tried))[1]):  # nothing contradicts it, so it is not to be had
        return _no_wheel(f"{needed} (for {lines[0].partition(' depends on ')[0]})", image)
    return f"these do not go together: {some(_reworded(line, image) for line in tried.values())}"


def _reworded(line: str, image: Image) -> str:
    requested = re.match(r"The user requested (\(constraint\) )?(\S+)", line)
    if requested and requested[1]:
        return f"the image has {requested[2]} {image.versions[canonicalize_name(requested[2])]}"
    return f"{requested[2]} is wanted" if requested else line


def _replace_wheels(fetched: Path, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for old in [folder / WHEELS, *folder.glob("*.whl")]:
        old.unlink(missing_ok=True)
    wheels = [Path(shutil.move(wheel, folder / wheel.name)) for wheel in sorted(fetched.glob("*.whl"))]
    write_json(folder / WHEELS, [_entry(wheel) for wheel in wheels])
    return wheels


def _entry(wheel: Path) -> dict[str, str]:
    name, version, *_ = parse_wheel_filename(wheel.name)
    return {"file": wheel.name, "sha256": sha256(wheel), "name": name, "version": str(version)}


def _requirement(text: str, place: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise KitError(f"{place}: `{text}` is not a requirement that can be understood") from error


def _numbered(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file, stripped, each with its place."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise KitError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise KitError(f"{path}: is no text in UTF-8") from error
    yield from ((f"{path}:{number}", line.strip()) for number, line in enumerate(lines, start=1))


def _bare(line: str) -> str:
    """The line without its comment; a `#` inside a word, as in a URL, begins none."""
    return re.sub(r"(^|\s)#.*", "", line).strip()
