"""One training of the miniature competition: made, killed, and what it gave."""

from pathlib import Path

from support.colours import experiment_content

from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir
from kit.experiment.config import validate
from kit.experiment.prepare import prepare, run_keys
from kit.experiment.train_run import trainer_of as trainer_of_run
from kit.model.build import weights_digest
from kit.training.device import make_accelerator


def trainer_of(competition: Path, output: Path, /, **sections):
    """A Trainer of the first run of a small experiment."""
    experiment = validate(experiment_content(competition, **sections), "test")
    folder = ExperimentDir(output / "runs" / experiment.name)
    loaded, data = prepare(experiment, folder, OutputDirs(output), shown=False)
    key = run_keys(experiment)[0]
    run = folder.run(key)
    run.path.mkdir(parents=True, exist_ok=True)
    return trainer_of_run(key, loaded, data, run, make_accelerator(experiment.training))


class Killed(Exception):
    pass


def kill_at(last):
    def on_step(step):
        if step == last:
            raise Killed

    return on_step


def outcome(trainer, trained):
    history = trainer.dir.history.read_text()
    return weights_digest(trained.model), trained.probabilities.tobytes(), trainer.rates.lr.tobytes(), history
