"""What the command line says about runs: where they go, which folds they follow, how many at a time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kit.core.errors import KitError
from kit.core.paths import OutputDirs


@dataclass(frozen=True)
class RunOptions:
    """How runs are executed; nothing here changes what a run gives.

    Attributes
    ----------
    output : path
        The folder that holds runs/, submissions/ and cache/.
    cache : path, optional
        The folder of decoded images, instead of `output`/cache.
    folds : path, optional
        A fold plan to follow (CSV with columns id and fold), instead of one made here.
    replace : bool
        Start anew where the experiment of this name was made from another config or other data.
    jobs : int or "auto"
        Runs side by side; auto: as many as there are GPUs, one a GPU.
    seconds : float, optional
        From the start, beyond which no run is to go: none is begun that would, judged by the slowest so far; the
        first always is. What is finished is pooled, and the same call trains the others.
    """

    output: str | Path = "."
    cache: str | Path | None = None
    folds: str | Path | None = None
    replace: bool = False
    jobs: int | Literal["auto"] = "auto"
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.jobs != "auto" and self.jobs < 1:
            raise KitError(f"--jobs {self.jobs}: expected auto or a number from 1")
        need_time(self.seconds)

    @classmethod
    def of(
        cls, options: "RunOptions | str | Path | None" = None, output: str | Path | None = None
    ) -> "RunOptions":
        """Return the options; a folder alone, in either place, stands for the output folder.

        Raises
        ------
        KitError
            Where both are given.
        """
        if options is not None and output is not None:
            raise KitError("output: the options say already where runs go; give one of the two")
        options = options if options is not None else output
        return options if isinstance(options, RunOptions) else cls("." if options is None else options)

    @property
    def dirs(self) -> OutputDirs:
        """The folders that the kit writes to."""
        return OutputDirs.at(self.output, self.cache)

    @property
    def fold_file(self) -> Path | None:
        """The fold plan to follow, if one is given."""
        return Path(self.folds).expanduser() if self.folds else None


def need_time(seconds: float | None, processes: int = 1) -> None:
    """Refuse a time limit that is none.

    Parameters
    ----------
    seconds : float, optional
        Left out: no limit.
    processes : int
        That work together, by torchrun.

    Raises
    ------
    KitError
        For one that is not above 0, and for one beside several processes.
    """
    if seconds is None:
        return
    if not seconds > 0:  # not a number, too
        raise KitError(f"--seconds {seconds:g}: expected a number above 0")
    if processes > 1:
        raise KitError("--seconds: each of torchrun's processes would go by its own clock; use one of the two")
