"""What Kaggle's answers tell: kernels, sessions, outputs, quota, submissions; read from the client's objects."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kit.core.errors import KitError, some
from kit.kaggle.retry import Lost, one_line

FINAL = ("COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED")


@dataclass(frozen=True)
class PushedKernel:
    """A version of a kernel on Kaggle."""

    owner: str
    slug: str
    version: int
    url: str
    when: datetime | None = field(default=None, compare=False)  # it was pushed; None: not known
    folder: Path | None = field(default=None, compare=False)  # it was pushed from; None: not from here

    def __str__(self) -> str:
        return f"{self.owner}/{self.slug} version {self.version}"


@dataclass(frozen=True)
class Session:
    """How far a version of a kernel is.

    Attributes
    ----------
    status : str
        QUEUED, RUNNING, COMPLETE, ERROR, CANCEL_REQUESTED, CANCEL_ACKNOWLEDGED or NEW_SCRIPT.
    failure : str
        Kaggle's words about it, or "".
    """

    status: str
    failure: str

    @property
    def ended(self) -> bool:
        """Whether it does not run any more."""
        return self.status in FINAL


@dataclass(frozen=True)
class Outputs:
    """What a version of a kernel has left.

    Attributes
    ----------
    files : dict
        Name as Kaggle gives it → address.
    log : list of str
        Its lines.
    seconds : float, optional
        When the last of them was said, since the session began, where Kaggle tells.
    """

    files: dict[str, str]
    log: list[str]
    seconds: float | None = None


@dataclass(frozen=True)
class Quota:
    """The GPU hours of this week."""

    used: float
    total: float

    @property
    def left(self) -> float:
        """Hours that may still be used."""
        return max(0.0, self.total - self.used)


@dataclass(frozen=True)
class KaggleSubmission:
    """One submission as Kaggle lists it; scores are None until there are some."""

    ref: int
    file: str
    message: str
    date: datetime
    status: str
    public: float | None
    private: float | None
    error: str


def kernel_url(owner: str, slug: str) -> str:
    """Return the address of a kernel's page."""
    return f"https://www.kaggle.com/code/{owner}/{slug}"


def pushed_version(answer: Any, owner: str, slug: str, what: str) -> PushedKernel:
    """Return the version in the answer to a push, under the name that Kaggle gave it.

    Parameters
    ----------
    answer : ApiSaveKernelResponse
        The client's.
    owner, slug : str
        As it was pushed.
    what : str
        What was tried; messages begin with it.

    Raises
    ------
    KitError
        For an error in the answer, sources that Kaggle does not know, and a version that it does not name.
    """
    _need_saved_whole(answer, owner, slug, what)
    pushed = _named(answer, owner, slug)
    if not pushed.version:
        raise Lost(f"{what}: Kaggle names no version, and a session may be running: look at {pushed.url}")
    return pushed


def _need_saved_whole(answer: Any, owner: str, slug: str, what: str) -> None:
    if answer.error:
        raise KitError(f"{what}: Kaggle says: {one_line(answer.error)}")
    invalid = {
        kind: list(getattr(answer, f"invalid_{kind}_sources", None) or [])
        for kind in ("dataset", "competition", "kernel", "model")
    }
    if bad := [f"{kind} {some(names)}" for kind, names in invalid.items() if names]:
        raise KitError(
            f"{what}: Kaggle does not know, or does not let you use: {'; '.join(bad)}. The kernel was saved "
            f"and runs without; cancel it on its page ({answer.url or kernel_url(owner, slug)}), mend the "
            "sources and push again"
        )


def _named(answer: Any, owner: str, slug: str) -> PushedKernel:
    """Return the version under the name that Kaggle gave it, which may differ from ours."""
    url = answer.url or ""
    for text in (getattr(answer, "ref", None) or "", url):
        parts: list[str] = ["", "", "", *str(text).strip("/").split("/")]
        place, owner_there, slug_there = parts[-3:]
        if owner_there and slug_there and place in ("", "code"):
            owner, slug = owner_there, slug_there
            break
    return PushedKernel(owner, slug, int(answer.version_number or 0), url or kernel_url(owner, slug))


def submission(each: Any) -> KaggleSubmission:
    """Return a submission as Kaggle lists it; `each`: the client's ApiSubmission."""
    date = each.date or datetime.now(UTC)
    return KaggleSubmission(
        ref=int(each.ref),
        file=each.file_name or "",
        message=each.description or "",
        date=date if date.tzinfo else date.replace(tzinfo=UTC),
        status=each.status.name,
        public=_score(each.public_score),
        private=_score(each.private_score),
        error=one_line(each.error_description or ""),
    )


def _score(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
