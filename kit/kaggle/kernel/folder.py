"""The folder kernels/build/<slug>/ holds what is known of a kernel on this machine.

====================  =========================================================================
kernel-metadata.json  as Kaggle's client wants it
<slug>.py or .ipynb   the code file
code/                 the archive as a dataset, where it is too large for the code file
code.json             which of these was uploaded last
build.json            what it was built from
rehearsal.json        how its last rehearsal ended; rehearsal/ holds that one's outputs
push.json             owner, slug and version on Kaggle, what that was built from, and which runs it was to train
pushing.json          a push that has begun, and whose end is not known
output/               what was fetched
fetched.json          of which version that was, and which of the kernel's runs were not finished after it
====================  =========================================================================
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from kit.core.errors import KitError, some
from kit.core.files import read_json, sha256, write_json
from kit.core.runs import RunKey

Kind = Literal["train", "infer"]
BUILT = Path("kernels/build")  # below the folder that the command is told, or runs in

BY_BUILDING = ("build.json", "kernel-metadata.json")
METADATA_KEYS = (
    *("id", "title", "code_file", "enable_gpu", "enable_internet"),
    *("dataset_sources", "competition_sources", "kernel_sources", "model_sources"),
)
PUSH_KEYS = ("owner", "slug", "version", "url", "digest", "build")


@dataclass(frozen=True)
class BuildRecord:
    """What a kernel was built from.

    Attributes
    ----------
    kind, slug : str
        What it does, and its name on Kaggle. A probe is of no experiment: the fields of one are empty.
    experiment, policies, seeds, folds
        What it trains, or whose runs it predicts with.
    competition : dict
        That section of the config, with the folder of the data on this machine.
    weights : str
        The local file, as the config names it; "" where there is none.
    hours : float
        The limit of its session, that of its kind.
    sha256 : str
        Of the archive.
    family : str
        The same for kernels that differ in their folds only: one rehearsal stands for all of them.
    """

    kind: Kind | Literal["probe"]
    slug: str
    experiment: str
    policies: list[str]
    seeds: list[int]
    folds: list[int]
    competition: dict[str, Any]
    weights: str
    hours: float
    sha256: str
    family: str

    @property
    def runs(self) -> list[str]:
        """The runs that a train kernel trains, as policy/seed0/fold1."""
        keys = (
            RunKey(policy, seed, fold) for policy in self.policies for seed in self.seeds for fold in self.folds
        )
        return [key.place for key in keys] if self.kind == "train" else []


@dataclass(frozen=True)
class KernelFolder:
    """The folder of a built kernel, one of those below kernels/build/."""

    path: Path

    @classmethod
    def at(cls, path: str | Path) -> "KernelFolder":
        """Return the kernel built in a folder, or raise KitError that says where there are some."""
        folder = cls(Path(path))
        if not folder.is_built:
            there = [str(kernel.path) for kernel in built(Path())]
            hint = f"; there are {some(there)}" if there else "; make one with: python -m kit kernel build CONFIG"
            raise KitError(f"{path} is no built kernel{hint}")
        return folder

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def is_built(self) -> bool:
        """Whether a kernel was built here."""
        return (self.path / "build.json").is_file() and self.metadata_file.is_file()

    @property
    def metadata_file(self) -> Path:
        """kernel-metadata.json."""
        return self.path / "kernel-metadata.json"

    @property
    def metadata(self) -> dict[str, Any]:
        """What kernel-metadata.json holds."""
        return self._read(self.metadata_file.name, METADATA_KEYS)

    @property
    def code_file(self) -> Path:
        """The script or the notebook; KitError where it is not there."""
        path = self.path / self.metadata["code_file"]
        if not path.is_file():
            raise KitError(f"{path} is not there; build the kernel again")
        return path

    @property
    def source(self) -> str:
        """The Python code of the script, or of the notebook's cells."""
        if self.code_file.suffix != ".ipynb":
            return self.code_file.read_text(encoding="utf-8")
        cells = read_json(self.code_file, "build the kernel again")["cells"]
        return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")

    @property
    def code_dataset(self) -> Path:
        """The folder of the archive as a dataset, which need not be there."""
        return self.path / "code"

    @property
    def output(self) -> Path:
        """The folder of what was fetched, which need not be there."""
        return self.path / "output"

    @property
    def record(self) -> BuildRecord:
        """What the kernel was built from; KitError where that cannot be read."""
        return self._record(self._read("build.json"), "build.json")

    @property
    def pushed_at(self) -> datetime | None:
        """When the version was pushed; None where push.json does not tell, of an early kit or edited."""
        try:
            return datetime.fromisoformat(self.push["when"]).astimezone(UTC)
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def pushed_record(self) -> BuildRecord:
        """What the pushed version was built from; the kernel may have been built anew since."""
        return self._record(self.push.get("build", {}), "push.json")

    @property
    def pushed_runs(self) -> list[str]:
        """The runs that the pushed version was to train, as policy/seed0/fold1."""
        return list(self.push.get("only") or self.pushed_record.runs)

    def source_for(self, runs: Sequence[str]) -> str:
        """Return the text of the code file that trains these of its runs only."""
        text = self.code_file.read_text(encoding="utf-8")
        if self.code_file.suffix != ".ipynb":
            return self._with_runs(text, runs)
        content = read_json(self.code_file, "build the kernel again")
        for cell in content["cells"]:
            cell["source"] = self._with_runs("".join(cell["source"]), runs)
        return json.dumps(content, indent=1) + "\n"

    def _with_runs(self, code: str, runs: Sequence[str]) -> str:
        code, found = re.subn(r"(?m)^ONLY = \[\]", lambda line: f"ONLY = {list(runs)!r}", code)
        if found != 1:
            raise KitError(f"{self.code_file} was built by another version of the kit; build the kernel again")
        return code

    def _record(self, content: dict[str, Any], name: str) -> BuildRecord:
        try:
            return BuildRecord(**content)
        except TypeError as error:  # of another version of the kit
            raise KitError(f"{self.path / name} is damaged ({error}); build the kernel again") from error

    def write_record(self, record: BuildRecord) -> None:
        """Write down what the kernel was built from."""
        write_json(self.path / "build.json", asdict(record))

    @property
    def digest(self) -> str:
        """A digest of what Kaggle would run: the metadata, and the code without its head.

        The head tells how the kernel was made.
        """
        code = self.source.split('"""', 2)[-1]
        return sha256(self.metadata_file)[:16] + hashlib.sha256(code.encode()).hexdigest()[:16]

    @property
    def rehearsal(self) -> dict[str, Any]:
        """How the last rehearsal ended; {} before the first."""
        return self._read("rehearsal.json")

    def write_rehearsal(self, record: dict[str, Any]) -> None:
        """Write down how a rehearsal ended."""
        write_json(self.path / "rehearsal.json", record)

    def forget_rehearsal(self) -> None:
        """Remove what is known of the last rehearsal."""
        (self.path / "rehearsal.json").unlink(missing_ok=True)

    @property
    def push(self) -> dict[str, Any]:
        """What was pushed last, with the keys PUSH_KEYS; {} before the first push."""
        return self._read("push.json", PUSH_KEYS)

    def write_push(self, record: dict[str, Any]) -> None:
        """Write down what was pushed; no push is under way any more."""
        write_json(self.path / "push.json", record)
        self.forget_begun_push()

    @property
    def begun_push(self) -> dict[str, Any]:
        """A push that was interrupted: digest, owner, and version of the kernel before it; {} without one."""
        return self._read("pushing.json", ("digest", "owner", "version"))

    def write_begun_push(self, record: dict[str, Any]) -> None:
        """Write down that a push begins."""
        write_json(self.path / "pushing.json", record)

    def forget_begun_push(self) -> None:
        """Remove what is known of a push that has begun."""
        (self.path / "pushing.json").unlink(missing_ok=True)

    @property
    def fetched(self) -> dict[str, Any]:
        """The version that was fetched last, and the runs that were missing then; {} before the first."""
        return self._read("fetched.json", ("version", "missing"))

    def write_fetched(self, record: dict[str, Any]) -> None:
        """Write down what was fetched."""
        write_json(self.path / "fetched.json", record)

    @property
    def sent_code(self) -> dict[str, Any]:
        """The reference and sha256 of the code dataset as it was uploaded last; {} before the first."""
        return self._read("code.json", ("reference", "sha256"))

    def write_sent_code(self, record: dict[str, Any]) -> None:
        """Write down which code dataset was uploaded."""
        write_json(self.path / "code.json", record)

    def _read(self, name: str, keys: Sequence[str] = ()) -> dict[str, Any]:
        path = self.path / name
        if not path.is_file():
            return {}
        mend = "build the kernel again" if name in BY_BUILDING else "remove it"
        content = read_json(path, mend)
        if not isinstance(content, dict):
            raise KitError(f"{path} is damaged (it is no JSON object); {mend}")
        if lacking := [key for key in keys if key not in content]:
            raise KitError(f"{path} is damaged (it has no {some(lacking)}); {mend}")
        return content


def built(root: Path) -> list[KernelFolder]:
    """Return the kernels built below `root`, by name."""
    return _kernels_in(root / BUILT)


def built_beside(folder: KernelFolder) -> list[KernelFolder]:
    """Return the kernels built beside one, itself among them."""
    return _kernels_in(folder.path.parent)


def _kernels_in(folder: Path) -> list[KernelFolder]:
    kernels = [KernelFolder(file.parent) for file in sorted(folder.glob("*/build.json"))]
    return [kernel for kernel in kernels if kernel.is_built]
