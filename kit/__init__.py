"""A competition kit for image classification under F1, built around learning-rate policies.

from kit import load_experiment, run

result = run(load_experiment("configs/digits.yaml", ["training.epochs=3"]))

Every command is a function here: `kit find-lr` is `kit.find_lr`, `kit kernel push` is `kit.kernel_push`. Two have
another name, as `kit.lr` and `kit.report` are packages: `kit lr` is `kit.preview`, `kit report` is
`kit.write_report`. Each is imported on first use (docs/programs.md).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kit.cli.doctor import doctor
    from kit.comparison.compare import compare
    from kit.comparison.compare_views import compare_views as views
    from kit.comparison.features import features
    from kit.core.errors import KitError
    from kit.experiment.blend import blend
    from kit.experiment.cluster.slurm import SlurmOptions
    from kit.experiment.cluster.slurm import slurm_script as cluster_slurm
    from kit.experiment.config import load_experiment
    from kit.experiment.find_lr import RangeSearch, find_lr
    from kit.experiment.grade import grade
    from kit.experiment.init import init
    from kit.experiment.options import RunOptions
    from kit.experiment.predict import predict_test as predict
    from kit.experiment.preview import preview
    from kit.experiment.run import run
    from kit.experiment.soup.make import soup
    from kit.kaggle.commands import collect_wheels as kernel_wheels
    from kit.kaggle.commands import fetch_data, submit
    from kit.kaggle.commands import kaggle_image as kernel_image
    from kit.kaggle.commands import list_submissions as submissions
    from kit.kaggle.commands import place_weights as kernel_weights
    from kit.kaggle.commands import upload_dataset as kernel_upload
    from kit.kaggle.kernel.build import build_all as kernel_build
    from kit.kaggle.kernel.commands import logs as kernel_logs
    from kit.kaggle.kernel.commands import push as kernel_push
    from kit.kaggle.kernel.commands import status as kernel_status
    from kit.kaggle.kernel.commands import wait as kernel_wait
    from kit.kaggle.kernel.pool import fetch_and_pool as kernel_fetch
    from kit.kaggle.kernel.probe import probe as kernel_probe
    from kit.kaggle.rehearsal.rehearse import RehearsalOptions
    from kit.kaggle.rehearsal.rehearse import rehearse as kernel_rehearse
    from kit.lr.registry import policies
    from kit.report.audit import audit
    from kit.report.gather import write_report
    from kit.report.probes import probe

__all__ = [
    "KitError",
    "RangeSearch",
    "RehearsalOptions",
    "RunOptions",
    "SlurmOptions",
    "audit",
    "blend",
    "cluster_slurm",
    "compare",
    "doctor",
    "features",
    "fetch_data",
    "find_lr",
    "grade",
    "init",
    "kernel_build",
    "kernel_fetch",
    "kernel_image",
    "kernel_logs",
    "kernel_probe",
    "kernel_push",
    "kernel_rehearse",
    "kernel_status",
    "kernel_upload",
    "kernel_wait",
    "kernel_weights",
    "kernel_wheels",
    "load_experiment",
    "policies",
    "predict",
    "preview",
    "probe",
    "run",
    "soup",
    "submissions",
    "submit",
    "views",
    "write_report",
]

_WHERE = {
    "KitError": "kit.core.errors:KitError",
    "RangeSearch": "kit.experiment.find_lr:RangeSearch",
    "RehearsalOptions": "kit.kaggle.rehearsal.rehearse:RehearsalOptions",
    "RunOptions": "kit.experiment.options:RunOptions",
    "SlurmOptions": "kit.experiment.cluster.slurm:SlurmOptions",
    "audit": "kit.report.audit:audit",
    "blend": "kit.experiment.blend:blend",
    "cluster_slurm": "kit.experiment.cluster.slurm:slurm_script",
    "compare": "kit.comparison.compare:compare",
    "doctor": "kit.cli.doctor:doctor",
    "features": "kit.comparison.features:features",
    "fetch_data": "kit.kaggle.commands:fetch_data",
    "find_lr": "kit.experiment.find_lr:find_lr",
    "grade": "kit.experiment.grade:grade",
    "init": "kit.experiment.init:init",
    "kernel_build": "kit.kaggle.kernel.build:build_all",
    "kernel_fetch": "kit.kaggle.kernel.pool:fetch_and_pool",
    "kernel_image": "kit.kaggle.commands:kaggle_image",
    "kernel_logs": "kit.kaggle.kernel.commands:logs",
    "kernel_probe": "kit.kaggle.kernel.probe:probe",
    "kernel_push": "kit.kaggle.kernel.commands:push",
    "kernel_rehearse": "kit.kaggle.rehearsal.rehearse:rehearse",
    "kernel_status": "kit.kaggle.kernel.commands:status",
    "kernel_upload": "kit.kaggle.commands:upload_dataset",
    "kernel_wait": "kit.kaggle.kernel.commands:wait",
    "kernel_weights": "kit.kaggle.commands:place_weights",
    "kernel_wheels": "kit.kaggle.commands:collect_wheels",
    "load_experiment": "kit.experiment.config:load_experiment",
    "policies": "kit.lr.registry:policies",
    "predict": "kit.experiment.predict:predict_test",
    "preview": "kit.experiment.preview:preview",
    "probe": "kit.report.probes:probe",
    "run": "kit.experiment.run:run",
    "soup": "kit.experiment.soup.make:soup",
    "submissions": "kit.kaggle.commands:list_submissions",
    "submit": "kit.kaggle.commands:submit",
    "views": "kit.comparison.compare_views:compare_views",
    "write_report": "kit.report.gather:write_report",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `python -m kit --help` does not wait for torch."""
    if name not in _WHERE:
        raise AttributeError(f"module 'kit' has no attribute {name!r}")
    from importlib import import_module

    module, _, attribute = _WHERE[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
