"""What the command line says about runs: where they go, which folds they follow, how many at a time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kit.core.durations import duration
from kit.core.errors import KitError, some
from kit.core.paths import OutputDirs
from kit.core.runs import RunKey
from kit.experiment.cluster.joining import need_ray
from kit.experiment.timekeeping import Budget

if TYPE_CHECKING:
    from kit.experiment.config import ExperimentConfig


@dataclass(frozen=True)
class RunOptions:
    """How runs are executed; nothing here changes what a run gives, but for the last bits by `threads`.

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
        Runs side by side; auto: one on each GPU, or one on a CPU; where that takes more than some minutes, as many
        as a measurement finds fastest (`kit.experiment.side_by_side`).
    budget : float or str, optional
        Seconds, or text like 8h30m, in which all has to be done; left out: what the config says. What does not fit
        is given up in a declared order (`kit.experiment.budget`); what is finished is pooled, and the same call
        trains the others.
    since : float, optional
        When it began, by `time.monotonic`; left out: when the command begins to prepare.
    only : sequence of str
        Of the runs that are due those that `run` trains, as policy/seed0/fold1; left out: all.
    threads : int, optional
        That torch computes with in each run, on the CPU; left out: the cores are shared out among the runs that
        train side by side. Results of other numbers differ in the last bits.
    on : str, optional
        The cluster of Ray that carries out the runs: "ray" starts one here, "auto" joins the one of this machine
        or of RAY_ADDRESS, "ray://HOST:10001" joins another. Left out: this machine alone.
    data_root : str, optional
        Where data and weights lie on the nodes of the cluster, if not at the same paths as here; $VARIABLES in it
        are the node's.
    devices : int
        Processes that train one run on the cluster together, with a GPU each where there are any.
    """

    output: str | Path = "."
    cache: str | Path | None = None
    folds: str | Path | None = None
    replace: bool = False
    jobs: int | Literal["auto"] = "auto"
    budget: float | str | None = None
    since: float | None = None
    only: Sequence[str] = ()
    threads: int | None = None
    on: str | None = None
    data_root: str | None = None
    devices: int = 1

    def __post_init__(self) -> None:
        if self.jobs != "auto" and self.jobs < 1:
            raise KitError(f"--jobs {self.jobs}: expected auto or a number from 1")
        if self.devices < 1:
            raise KitError(f"--devices {self.devices}: expected a number from 1")
        for name, stated in (("--data-root", self.data_root), ("--devices", self.devices > 1)):
            if stated and self.on is None:
                raise KitError(f"{name} is about the nodes of a cluster: give --on as well, like --on ray")
        if self.threads is not None and self.threads < 1:
            raise KitError(f"--threads {self.threads}: expected a number from 1")
        self.limit(None)

    def need_cluster(self, processes: int) -> None:
        """Raise KitError where a cluster is named that is none, without Ray, or beside processes of torchrun."""
        if self.on is None:
            return
        need_ray(self.on)
        if processes > 1:
            raise KitError("--on: torchrun shares out every run already; use one of the two, or --devices")

    def need_able(self, config: "ExperimentConfig", processes: int) -> None:
        """Raise KitError where what is no training would be made by a cluster, or by processes of torchrun."""
        if config.features and self.on is not None:
            raise KitError(f"--on: {config.name}: heads over features are fitted on this machine; leave it out")
        if config.soup and (self.on is not None or processes > 1):
            raise KitError(
                f"soup: {config.name}: weights are averaged by one process of this machine; leave --on and "
                "torchrun out"
            )

    def limit(self, otherwise: float | None, processes: int = 1) -> Budget:
        """Return the budget, that of the config where the options state none.

        Parameters
        ----------
        otherwise : float, optional
            Seconds that the config states.
        processes : int
            That work together, by torchrun.

        Raises
        ------
        KitError
            For a length of time that is none, and for one beside several processes.
        """
        seconds = seconds_of(self.budget, processes)
        if seconds is None and otherwise is not None:
            seconds = seconds_of(otherwise, processes)
        since = time.monotonic() if self.since is None else self.since
        return Budget(float("inf") if seconds is None else seconds, since)

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

    def chosen(self, keys: Sequence[RunKey]) -> list[RunKey]:
        """Return those of an experiment's runs that `only` names, all where it names none.

        Raises
        ------
        KitError
            Where it names what is no run of the experiment.
        """
        places = {key.place: key for key in keys}
        if strange := [place for place in self.only if place not in places]:
            raise KitError(f"--only {strange[0]}: no run of this experiment, which has {some(places, 5)}")
        return [key for place, key in places.items() if not self.only or place in self.only]

    @property
    def dirs(self) -> OutputDirs:
        """The folders that the kit writes to."""
        return OutputDirs.at(self.output, self.cache)

    @property
    def fold_file(self) -> Path | None:
        """The fold plan to follow, if one is given."""
        return Path(self.folds).expanduser() if self.folds else None


def seconds_of(budget: float | str | None, processes: int = 1) -> float | None:
    """Return the seconds of a budget; None where there is none.

    Parameters
    ----------
    budget : float or str, optional
        Seconds, or text like 8h30m.
    processes : int
        That work together, by torchrun.

    Raises
    ------
    KitError
        For what is no length of time, and for one beside several processes.
    """
    if budget is None:
        return None
    try:
        seconds = duration(budget)
    except KitError as error:
        raise KitError(f"--budget {error}") from error
    if processes > 1:
        raise KitError("--budget: each of torchrun's processes would go by its own clock; use one of the two")
    return seconds
