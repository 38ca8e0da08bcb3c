"""Which packages Kaggle's image has, and what it lacks of a list.

The table of the image is kernels/image.txt, which pip understands as well, as a file of constraints. It knows the
image before and after a move from one Python to the next: which of them a session gets is not told beforehand.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from kit.core.errors import KitError, some
from kit.core.files import write_text

ABSENT = ""  # in the place of a version, of a package that one of several images lacks


@dataclass(frozen=True)
class KaggleImage:
    """What is known of the image.

    Attributes
    ----------
    python : str
        Its Python, like "3.12".
    as_of : str
        The month of the lists it was read from, like "2026-08".
    versions : dict
        Canonical name of a package → version; None where it is there in an unknown version.
    """

    python: str
    as_of: str
    versions: dict[str, str | None]

    def lacks(self, requirement: Requirement) -> str | None:
        """Say why the image does not satisfy the requirement; None where it does.

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
        """Return whether the requirement's marker holds in the image, for a package asked for with `extras`."""
        marker = requirement.marker
        return marker is None or any(marker.evaluate(self._environment(extra)) for extra in {"", *extras})

    def _environment(self, extra: str) -> dict[str, str]:
        """Return all the variables that a marker can ask for, so that none is taken from this machine."""
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
class MissingRequirement:
    """A requirement, without its marker, that the image does not satisfy, and why it does not."""

    requirement: str
    reason: str


@dataclass(frozen=True)
class ImageTable:
    """What is known of the images that sessions may get: one for each Python while Kaggle moves to the next.

    Attributes
    ----------
    images : tuple of KaggleImage
        By Python, the earliest first.
    comments : tuple of str
        The table's other comments.
    """

    images: tuple[KaggleImage, ...]
    comments: tuple[str, ...] = ()

    @property
    def pythons(self) -> tuple[str, ...]:
        """Their Pythons, like ("3.12", "3.13")."""
        return tuple(image.python for image in self.images)

    def image(self, python: str | None = None) -> KaggleImage:
        """Return the image with a Python, the first where None; KitError where there is none with it."""
        found = [image for image in self.images if python in (None, image.python)]
        if not found:
            known = f"kernels/image.txt knows images with {some(self.pythons)}"
            raise KitError(f"Python {python}: {known}; give one of these, or bring the table up to date")
        return found[0]


def read_image(path: Path, python: str | None = None) -> KaggleImage:
    """Return what the table of the image says of the one with a Python, the first where None; see `read_table`."""
    return read_table(path).image(python)


def read_table(path: Path) -> ImageTable:
    """Read the table of the image; KitError with file and line where it is none.

    Its lines are `name==version`, `# present: name` for a package in an unknown version, `# python: 3.12 3.13` and
    `# as of: 2026-08`; other comments are free. What is not the same in all images ends with a marker, like
    `; python_version < "3.13"`.
    """
    facts: dict[str, str] = {}
    stated: list[tuple[str, Requirement]] = []
    comments = []
    for place, line in _numbered(path):
        key, _, value = line.removeprefix("#").partition(":")
        key, value = key.strip(), value.strip()
        if line.startswith("#") and key in ("python", "as of"):
            facts[key] = _fact(place, key, value)
        elif line.startswith("#") and key != "present":
            comments.append(line)
        elif line:
            stated.append((place, _present(value, place) if line.startswith("#") else _pin(line, place)))
    if absent := {"python", "as of"} - facts.keys():
        raise KitError(f"{path}: has no line `# {min(absent)}: ...`; it is no table of Kaggle's image")
    pythons = sorted(set(facts["python"].split()), key=Version)
    return ImageTable(tuple(_image(python, facts["as of"], stated) for python in pythons), tuple(comments))


def _image(python: str, as_of: str, stated: Sequence[tuple[str, Requirement]]) -> KaggleImage:
    """Return the image with a Python; KitError with the place where a package is stated twice for it."""
    versions: dict[str, str | None] = {}
    image = KaggleImage(python, as_of, versions)
    for place, requirement in stated:
        if image.needs(requirement):
            name = canonicalize_name(requirement.name)
            if name in versions:
                raise KitError(f"{place}: {name} is stated twice")
            versions[name] = _exact(requirement)
    return image


def _fact(place: str, key: str, value: str) -> str:
    pattern, example = {"python": (r"3\.\d+( +3\.\d+)*", "3.12 3.13"), "as of": (r"\d{4}-\d\d", "2026-08")}[key]
    if not re.fullmatch(pattern, value):
        raise KitError(f"{place}: `{key}: {value}` should look like `{key}: {example}`")
    return value


def _present(text: str, place: str) -> Requirement:
    try:
        requirement = Requirement(text)
        fine = text.partition(";")[0].strip() == requirement.name and _of_python_alone(requirement)
    except InvalidRequirement:
        fine = False
    if not fine:
        raise KitError(f"{place}: `{text}` is not the name of one package")
    return requirement


def _pin(text: str, place: str) -> Requirement:
    requirement = parse_requirement(_bare(text), place)
    if _exact(requirement) is None or requirement.extras or requirement.url or not _of_python_alone(requirement):
        raise KitError(
            f'{place}: `{text}` should look like `name==1.2.3`, or that and `; python_version < "3.13"`'
        )
    return requirement


def _of_python_alone(requirement: Requirement) -> bool:
    """Return whether a requirement's marker, if it has one, asks for the Python alone, which images differ in."""
    words = re.findall(r"[a-z_]+", re.sub(r'"[^"]*"', "", str(requirement.marker or "")))
    return {*words} <= {"python_version", "and", "or"}


def missing(requirements: Path, image: KaggleImage) -> list[MissingRequirement]:
    """Return what the image does not satisfy of a requirements file and of the files it includes with `-r`.

    Lines whose marker does not hold in the image are left out; several lines about one package count together.
    A package that the image has in an unknown version satisfies only a requirement that asks for no version.
    Raises KitError with file and line where a line cannot be understood.
    """
    wanted: dict[str, Requirement] = {}
    for requirement in _read_requirements(requirements):
        if image.needs(requirement):
            requirement.marker = None
            first = wanted.setdefault(canonicalize_name(requirement.name), requirement)
            first.specifier &= requirement.specifier
            first.extras |= requirement.extras
    reasons = ((requirement, image.lacks(requirement)) for requirement in wanted.values())
    return [MissingRequirement(str(requirement), reason) for requirement, reason in reasons if reason]


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
            yield parse_requirement(text, place)


def refresh(
    table: Path, published: Sequence[Path], requirements: Path, as_of: str, python: str | None = None
) -> list[str]:
    """Bring the table of the image up to date with published lists.

    Parameters
    ----------
    table : Path
        kernels/image.txt.
    published : sequence of Path
        What `pip freeze` prints (such as googlecolab/backend-info's pip-freeze.txt) or names with or without
        bounds (Kaggle/docker-python's kaggle_requirements.txt); a later list wins. A version that contradicts a
        later list's bound becomes unknown. What no list names stays as it is.
    requirements : Path
        Packages that neither the table nor this file name are left out.
    as_of : str
        The month of the lists, like "2026-08".
    python : str, optional
        The Python of the image they are of. One that the table does not know yet begins as the image before it.
        May be left out where the table knows one image only.

    Returns
    -------
    list of str
        The changes, a line each.

    Raises
    ------
    KitError
        Where a list cannot be read or names none of the packages, and where their Python is not told.
    """
    known, month = read_table(table), _fact("as_of", "as of", as_of)
    if python is None and len(known.images) > 1:
        raise KitError(f"--python: say which image the lists are of: {some(known.pythons)}, or a new one")
    python = python or known.pythons[0]
    if not re.fullmatch(r"3\.\d+", python):
        raise KitError(f"--python {python}: should look like 3.13")
    before = _before(known, python)
    names = {name for image in known.images for name in image.versions}
    names |= {canonicalize_name(one.name) for one in _read_requirements(requirements)}
    versions = dict(before.versions)
    for path in published:
        stated = {name: one for name, one in _published(path).items() if name in names}
        if not stated:
            raise KitError(f"{path}: names no package of {table}; is it a list of packages, one a line?")
        versions |= {name: _version_after(versions.get(name), one) for name, one in stated.items()}
    after = KaggleImage(python, month, versions)
    others = [replace(image, as_of=month) for image in known.images if image.python != python]
    images = sorted([*others, after], key=lambda image: Version(image.python))
    write_text(table, _text_of(ImageTable(tuple(images), known.comments)))
    return [_change(name, before, after) for name in sorted(versions) if _differs(name, before, after)]


def _before(known: ImageTable, python: str) -> KaggleImage:
    """Return the image with a Python, or where it is new, the last one before it (else the first)."""
    earlier = [image for image in known.images if Version(image.python) <= Version(python)]
    return (earlier or known.images)[-1 if earlier else 0]


def _published(path: Path) -> dict[str, Requirement]:
    """Return the packages of a published list; lines that name none (`-e ...`, `git+https://...`) are left out."""
    stated: dict[str, Requirement] = {}
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
    """Return the one version that is stated, without a local part: no package index has "+cu128"."""
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


def _text_of(table: ImageTable) -> str:
    pythons, as_of = " ".join(table.pythons), table.images[0].as_of
    names = sorted({name for image in table.images for name in image.versions})
    pins, present = [], []
    for name in names:
        for version, marker in _stated(name, table.images):
            if version:
                pins.append(f"{name}=={version}{marker}")
            else:
                present.append(f"# present: {name}{marker}")
    return "\n".join([*table.comments, f"# python: {pythons}", f"# as of: {as_of}", *pins, *present]) + "\n"


def _stated(name: str, images: Sequence[KaggleImage]) -> Iterator[tuple[str | None, str]]:
    """Yield the versions of a package, each with the marker of the images that have it."""
    runs = [list(run) for _, run in groupby(images, lambda image: image.versions.get(name, ABSENT))]
    for position, run in enumerate(runs):
        if name not in run[0].versions:
            continue
        bounds = [f'python_version >= "{run[0].python}"'] if position else []
        if position + 1 < len(runs):
            bounds.append(f'python_version < "{runs[position + 1][0].python}"')
        yield run[0].versions[name], f"; {' and '.join(bounds)}" if bounds else ""


def _differs(name: str, before: KaggleImage, after: KaggleImage) -> bool:
    return name not in before.versions or before.versions[name] != after.versions[name]


def _change(name: str, before: KaggleImage, after: KaggleImage) -> str:
    was = before.versions[name] or "version unknown" if name in before.versions else "not in the table"
    return f"{name}: {was} -> {after.versions[name] or 'version unknown'}"


def parse_requirement(text: str, place: str) -> Requirement:
    """Return a requirement; KitError that begins with its place where it cannot be understood."""
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise KitError(f"{place}: `{text}` is not a requirement that can be understood") from error


def _numbered(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of a text file, stripped, each with its place."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise KitError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise KitError(f"{path}: is no text in UTF-8") from error
    yield from ((f"{path}:{number}", line.strip()) for number, line in enumerate(lines, start=1))


def _bare(line: str) -> str:
    """Return the line without its comment; a `#` inside a word, as in a URL, begins none."""
    return re.sub(r"(^|\s)#.*", "", line).strip()
