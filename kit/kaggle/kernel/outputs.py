"""The list that a kernel keeps of what it leaves: files with their hashes, and which of its runs are missing."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.core.errors import Damaged, KitError, some
from kit.core.files import parse_json
from kit.kaggle.answers import Outputs, PushedKernel
from kit.kaggle.client import Kaggle
from kit.kaggle.retry import NOT_YET, Refused, Unanswered

LISTED = "outputs.json"


@dataclass(frozen=True)
class OutputList:
    """What outputs.json holds.

    Attributes
    ----------
    files : dict
        Name → SHA-256.
    missing : list of str
        Runs that were not finished, as policy/seed0/fold1.
    exit_code : int or None
        Of `python -m kit` in the kernel; None where it still ran when this was written, so that the session was
        ended from outside.
    """

    files: dict[str, str]
    missing: list[str]
    exit_code: int | None

    @classmethod
    def read(cls, file: Path) -> "OutputList":
        """Return what a file holds; Damaged where it is no list of outputs."""
        try:
            content = parse_json(file.read_text(encoding="utf-8"))
            if not isinstance(
                content.get("files"), dict
            ):  # of an earlier version, which wrote it at its end alone
                content = {"files": content, "missing": [], "exit_code": 0}
            listed = cls(**content)
            fine = _is_fine(listed)
        except (ValueError, TypeError, AttributeError) as error:
            raise Damaged(f"{file} is no list of outputs: {error}") from error
        if not fine:
            raise Damaged(f"{file} is no list of outputs: a name or a hash in it is none")
        return listed


def _is_fine(listed: OutputList) -> bool:
    """Whether all in a list is of the type that it should be."""

    def is_text(value: Any) -> bool:
        return isinstance(value, str) and bool(value)

    return (
        all(is_text(name) and re.fullmatch("[0-9a-f]{64}", digest) for name, digest in listed.files.items())
        and isinstance(listed.missing, list)
        and all(map(is_text, listed.missing))
        and (listed.exit_code is None or type(listed.exit_code) is int)
    )


def outputs_with(
    kernel: PushedKernel, kaggle: Kaggle, names: Sequence[str], seconds: float | None = None
) -> Outputs:
    """Return what a version left, once these files are among it, or after some minutes in any case.

    Kaggle may list outputs later than it says COMPLETE, and refuse to list them before that.

    Parameters
    ----------
    seconds : float, optional
        How long to look, as in `Retry.until`.
    """
    last, refused = Outputs({}, []), list[KitError]()

    def look() -> Outputs | None:
        nonlocal last
        try:
            last = kaggle.outputs(kernel)
        except (Refused, Unanswered) as error:
            if error.status not in NOT_YET:
                raise
            refused.append(error)
            return None
        refused.clear()
        return None if lacking(last) else last

    def lacking(outputs: Outputs) -> list[str]:
        return [name for name in names if name not in outputs.files]

    kaggle.until(f"not yet among the outputs of {kernel}: {some(names, 5)}", look, seconds)
    if refused and last == Outputs({}, []):  # none was ever listed
        raise refused[-1]
    return last


def list_of(outputs: Outputs, kaggle: Kaggle) -> OutputList | None:
    """Return the kernel's own list of what it left; None where it left none, Damaged where it is no list."""
    if LISTED not in outputs.files:
        return None
    with tempfile.TemporaryDirectory(prefix="kit-") as folder:
        file = Path(folder) / LISTED
        kaggle.download(outputs.files[LISTED], file)
        try:
            return OutputList.read(file)
        except Damaged as error:
            raise Damaged(str(error).replace(str(file), f"its {LISTED}")) from error
