"""What a training tells TensorBoard, W&B or MLflow, through accelerate: `training.tracker` names the one."""

import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kit.core.errors import KitError
from kit.core.runs import RunDir
from kit.training.config import TrackerName

Rates = Callable[[int], Mapping[str, float]]  # number of an update → depth group → its rate


def need_tracker(name: TrackerName | None) -> None:
    """Raise KitError where the tracker's package is not installed."""
    if name and not find_spec(name):
        raise KitError(
            f"training.tracker: {name} is not installed; run: python -m pip install {name}, or leave the key out"
        )


class RunTracker:
    """Tells a tracker what is logged of one run; without a name it tells nobody.

    A tracker's run stands for one call of `following`. It begins with what was logged before the checkpoint that
    the training goes on from, so it holds every step once; the local files of an earlier attempt are removed.

    Parameters
    ----------
    name : str or None
        Which tracker.
    run : RunDir
        Its files go into tracker/ in there, where the tracker has no server.
    """

    def __init__(self, name: TrackerName | None, run: RunDir):
        self.name, self.run = name, run
        self._tracker: Any = None

    @contextmanager
    def following(self, history: Iterable[Mapping[str, float]], rates: Rates) -> Iterator[None]:
        """Tell what is logged from now on, after the lines of `history`.

        Parameters
        ----------
        history : iterable of mapping
            Lines as for `log`.
        rates : Rates
            As for `log`.

        Raises
        ------
        KitError
            Where the tracker cannot be started.
        """
        if self.name is None:
            yield
            return
        self._tracker = self._started()
        try:
            for line in history:
                self.log(line, rates)
            yield
        finally:
            self._finish()

    def log(self, line: Mapping[str, float], rates: Rates) -> None:
        """Tell a line of the history; with the loss, the rate of each depth group at its last update.

        A tracker that fails is told of once, and then left alone: no training ends for want of it.

        Parameters
        ----------
        line : mapping
            `step`, the number of updates that are done, `epoch`, and values by name.
        rates : Rates
            What the optimizer held.
        """
        if self._tracker is None:
            return
        step = int(line["step"])
        values = {key: float(value) for key, value in line.items() if key not in ("step", "epoch")}
        if "loss" in line:
            values["epoch"] = line["epoch"]  # here alone: a score may follow at the same step
            values |= {f"rate/{_plain(group)}": rate for group, rate in rates(step - 1).items()}
        try:
            self._tracker.log(values, step=step)
        except Exception as error:  # of another's code, and often of a network
            warnings.warn(f"training.tracker: {self.name} logs no more ({_told(error)})", stacklevel=2)
            self._tracker = None

    def _started(self) -> Any:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        need_tracker(self.name)
        folder, (experiment, policy, seed, fold) = self.run.tracker, self.run.path.resolve().parts[-4:]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        title = f"{policy}/{seed}/{fold}"
        settings: dict[str, Any] = {"run_name": ".", "logging_dir": folder}
        if self.name == "wandb":
            quiet = {"console": "off"}  # else it would read all that the process prints
            settings = {"run_name": experiment, "name": title, "dir": folder, "settings": quiet}
        elif self.name == "mlflow":
            settings = {"experiment_name": experiment, "run_name": title} | _mlflow_at_home(folder)
        try:
            tracker = LOGGER_TYPE_TO_CLASS[self.name](**settings)
            tracker.start()
            if self.name != "tensorboard":  # which would make a folder of its own for them
                tracker.store_init_configuration({"policy": policy, "seed": seed[4:], "fold": fold[4:]})
        except Exception as error:
            offline = (
                "WANDB_MODE=offline keeps all here" if self.name == "wandb" else "mend that, or leave the key out"
            )
            raise KitError(
                f"training.tracker: {self.name} cannot be started ({_told(error)}); {offline}"
            ) from error
        return tracker

    def _finish(self) -> None:
        if self._tracker is None:
            return
        try:
            self._tracker.finish()
        except Exception as error:
            warnings.warn(f"training.tracker: {self.name} did not end well ({_told(error)})", stacklevel=2)
        self._tracker = None


def _mlflow_at_home(folder: Path) -> dict[str, str]:
    """Let MLflow write into a folder, unless the environment names its server; return the settings for that."""
    import mlflow

    if "MLFLOW_TRACKING_URI" in os.environ:
        return {}
    mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
    return {"logging_dir": str((folder / "artifacts").resolve())}


def _plain(name: str) -> str:
    """Return a depth group's name in the characters that all trackers take."""
    return re.sub(r"[^-/\w.]", "_", name)


def _told(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
