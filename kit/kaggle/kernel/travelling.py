"""What travels in a kernel: the kit's source, the config, own code, and what its kind needs."""

from pathlib import Path
from typing import Any

from kit.competition.folds import folds_text
from kit.core.bundle import package_files
from kit.core.errors import KitError
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir
from kit.experiment.config import ExperimentConfig
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.own_files import files_of_code
from kit.experiment.policy_scores import stored_scores
from kit.kaggle.kernel.extra import FOLDER, extra_files, extra_there
from kit.kaggle.kernel.folder import Kind

PACKAGE = Path(__file__).resolve().parents[2]  # kit/
# A kernel joins no cluster and rehearses none: of these folders only what is named travels, which says so or needs
# no Ray.
LEFT_OUT = {
    "kit/experiment/cluster/": ("__init__.py", "joining.py", "slurm.py"),
    "kit/kaggle/rehearsal/": ("__init__.py",),
}


def travelling_files(experiment: ExperimentConfig, kind: Kind, root: Path) -> dict[str, bytes]:
    """Return what travels: the kit's source, the config, and what the kind of kernel needs.

    For training that is the fold plan; for predicting the scores of the pooled runs, which hold the decision rule.
    """
    files = {name: content for name, content in package_files(PACKAGE).items() if not _left_out(name)}
    for name, content in files_of_code(experiment).items():
        if name.split("/")[0] in ("kit", "config.yaml", "folds.csv", "runs", FOLDER):
            raise KitError(
                f"{name}: the bundle has a file or folder of this name; call the file of your own otherwise"
            )
        files[name] = content
    files["config.yaml"] = travelling_config(experiment).to_yaml().encode()
    if kind == "infer" and (scores := scores_file(experiment, root)).is_file():
        stored_scores(scores, experiment.scoring, experiment.competition)  # refuses what is damaged
        files[scores.relative_to(root).as_posix()] = scores.read_bytes()
    if kind == "train":
        folder = ExperimentDir(OutputDirs(root).runs / experiment.name)
        loaded = LoadedExperiment.open(experiment, folder, OutputDirs(root))
        files["folds.csv"] = folds_text(loaded.folds).encode()
        files |= extra_files(experiment.competition)
    return files


def _left_out(name: str) -> bool:
    return any(name.startswith(each) and name.removeprefix(each) not in stays for each, stays in LEFT_OUT.items())


def scores_file(experiment: ExperimentConfig, root: Path) -> Path:
    """Return the file of scores of the policy that an infer kernel predicts with."""
    folder = ExperimentDir(OutputDirs(root).runs / experiment.name)
    return folder.policy(next(iter(experiment.policies))) / "scores.json"


def travelling_config(experiment: ExperimentConfig) -> ExperimentConfig:
    """Return the config without the paths of this machine."""
    competition, model = experiment.competition, experiment.model
    last = (competition.slug or competition.embedded or experiment.name).rpartition("/")[2]
    there = {"path": f"data/{last}", **extra_there(competition)}
    changes: dict[str, Any] = {"competition": competition.model_copy(update=there)}
    if model.weights not in ("none", "hub"):
        changes["model"] = model.model_copy(update={"weights": Path(model.weights).name})
    return experiment.model_copy(update=changes)
