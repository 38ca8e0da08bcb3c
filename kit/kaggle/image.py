"""Which packages Kaggle's image has, and what it lacks of a list.

The table of the image is kernels/image.txt, which pip understands as well, as a file of constraints.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidName, canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from kit.core.errors import KitError
from kit.core.files import write_text


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
    comments : tuple of str
        The table's other comments.
    """

    python: str
    as_of: str
    versions: dict[str, str | None]
    comments: tuple[str, ...] = ()

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


def read_image(path: Path) -> KaggleImage:
    """Read the table of the image; KitError with file and line where it is none.

    Its lines are `name==version`, `# present: name` for a package in an unknown version, `# python: 3.12` and
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
    return KaggleImage(facts["python"], facts["as of"], versions, tuple(comments))


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
    requirement = parse_requirement(_bare(text), place)
    version = _exact(requirement)
    if version is None or requirement.extras or requirement.marker:
        raise KitError(f"{place}: `{text}` should look like `name==1.2.3`")
    return canonicalize_name(requirement.name), version


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


def refresh(image: Path, published: Sequence[Path], requirements: Path, as_of: str) -> list[str]:
    """Bring the table of the image up to date with published lists.

    Parameters
    ----------
    image : Path
        The table.
    published : sequence of Path
        What `pip freeze` prints (such as googlecolab/backend-info's pip-freeze.txt) or names with or without
        bounds (Kaggle/docker-python's kaggle_requirements.txt); a later list wins. A version that contradicts a
        later list's bound becomes unknown. What no list names stays as it is.
    requirements : Path
        Packages that neither the table nor this file name are left out.
    as_of : str
        The month of the lists, like "2026-08".

    Returns
    -------
    list of str
        The changes, a line each.

    Raises
    ------
    KitError
        Where a list cannot be read or names none of the packages.
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
    after = KaggleImage(before.python, month, versions, before.comments)
    write_text(image, _text_of(after))
    return [_change(name, before, after) for name in sorted(versions) if _differs(name, before, after)]


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


def _text_of(image: KaggleImage) -> str:
    facts = [f"# python: {image.python}", f"# as of: {image.as_of}"]
    known = [f"{name}=={version}" for name, version in sorted(image.versions.items()) if version]
    unknown = [f"# present: {name}" for name, version in sorted(image.versions.items()) if not version]
    return "\n".join([*image.comments, *facts, *known, *unknown]) + "\n"


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
