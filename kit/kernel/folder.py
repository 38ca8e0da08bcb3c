"""kernels/build/<slug>/: what is known of a kernel on this machine.

kernel-metadata.json   as Kaggle's client wants it
<slug>.py or .ipynb    the code file
code/                  the archive as a dataset, where it is too large for the code file
build.json             what it was built from
rehearsal.json         how its last rehearsal ended; rehearsal/ holds that one's outputs
push.json              owner, slug and version on Kaggle, and what that was built from
output/                what was fetched
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from kit.errors import KitError, some
from kit.files import sha256, write_json

Kind = Literal["train", "infer"]
BUILT = Path("kernels/build")  # below the folder that the command is told, or runs in


@dataclass(frozen=True)
class BuildRecord:
    """What a kernel was built from.

    config        the file, as it was named
    experiment, policies, seeds, folds   what it trains, or whose runs it predicts with
    competition   that section of the config, with the folder of the data on this machine
    weights       local file, as the config names it; "" where there is none
    sha256        of the archive
    family        the same for kernels that differ in their folds only: one rehearsal stands for all of them
    """

    kind: Kind
    slug: str
    config: str
    experiment: str
    policies: list[str]
    seeds: list[int]
    folds: list[int]
    competition: dict[str, Any]
    weights: str
    hours: float
    accelerator: str
    sha256: str
    family: str


@dataclass(frozen=True)
class KernelFolder:
    """One of the folders below kernels/build/."""

    path: Path

    @classmethod
    def at(cls, path: str | Path) -> "KernelFolder":
        """The kernel built in a folder, or KitError that says where there are some."""
        folder = cls(Path(path))
        if not (folder.path / "build.json").is_file() or not folder.metadata_file.is_file():
            there = sorted(str(file.parent) for file in BUILT.glob("*/build.json"))
            hint = f"; there are {some(there)}" if there else "; make one with: python -m kit kernel build CONFIG"
            raise KitError(f"{path} is no built kernel{hint}")
        return folder

    @property
    def metadata_file(self) -> Path:
        return self.path / "kernel-metadata.json"

    @property
    def metadata(self) -> dict[str, Any]:
        return self._read(self.metadata_file.name)

    @property
    def code_file(self) -> Path:
        return self.path / self.metadata["code_file"]

    @property
    def code_dataset(self) -> Path:
        return self.path / "code"

    @property
    def output(self) -> Path:
        return self.path / "output"

    @property
    def record(self) -> BuildRecord:
        return self._record(self._read("build.json"), "build.json")

    @property
    def pushed_record(self) -> BuildRecord:
        """What the pushed version was built from; the kernel may have been built anew since."""
        return self._record(self.push.get("build", {}), "push.json")

    def _record(self, content: dict[str, Any], name: str) -> BuildRecord:
        try:
            return BuildRecord(**content)
        except TypeError as error:  # of another version of the kit
            raise KitError(f"{self.path / name} is damaged ({error}); build the kernel again") from error

    def write_record(self, record: BuildRecord) -> None:
        write_json(self.path / "build.json", asdict(record))

    @property
    def digest(self) -> str:
        """Of what Kaggle would get: metadata and code."""
        return sha256(self.metadata_file)[:16] + sha256(self.code_file)[:16]

    @property
    def rehearsal(self) -> dict[str, Any]:
        """{} before the first."""
        return self._read("rehearsal.json")

    def write_rehearsal(self, record: dict[str, Any]) -> None:
        write_json(self.path / "rehearsal.json", record)

    def forget_rehearsal(self) -> None:
        (self.path / "rehearsal.json").unlink(missing_ok=True)

    @property
    def push(self) -> dict[str, Any]:
        """{} before the first."""
        return self._read("push.json")

    def write_push(self, record: dict[str, Any]) -> None:
        write_json(self.path / "push.json", record)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if not path.is_file():
            return {}
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise KitError(f"{path} is damaged ({error}); build the kernel again") from error


def built(root: Path) -> list[KernelFolder]:
    """The kernels built below `root`, by name."""
    return [KernelFolder(file.parent) for file in sorted((root / BUILT).glob("*/build.json"))]
