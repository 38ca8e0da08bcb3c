"""What a training tells a tracker, read back from the tracker's own files."""

import json
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from support.refusals import refusal_of
from support.trainings import Killed, kill_at, outcome, trainer_of

from kit.core.errors import Diverged
from kit.training import tracker as tracking
from kit.training.config import TrainingConfig
from kit.training.records import RateRecord, read_history
from kit.training.tracker import need_tracker

SETTINGS = {
    "training": {"checkpoint_minutes": 0, "log_every": 2, "epochs": 2, "tracker": "tensorboard"},
    "policies": {"uniform": {"lr": "slice(1e-4, 1e-2)", "schedule": "one_cycle", "groups": "stage"}},
}


def in_tensorboard(folder: Path) -> dict[str, dict[int, float]]:
    """Name → step → value; a step that is there twice is a fault."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert len(list(folder.rglob("events.out.tfevents.*"))) == 1
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    told = {}
    for name in events.Tags()["scalars"]:
        points = events.Scalars(name)
        assert len({point.step for point in points}) == len(points)
        told[name] = {point.step: point.value for point in points}
    return told


def expected(trainer) -> dict[str, dict[int, float]]:
    """The same from history.jsonl and rates.npz, which are checked elsewhere."""
    told: dict[str, dict[int, float]] = {}
    record = RateRecord.load(trainer.dir.rates)
    for line in read_history(trainer.dir.history):
        step, epoch = line.pop("step"), line.pop("epoch")
        if "loss" in line:
            line["epoch"] = epoch
            line |= {f"rate/{name}": lr for name, lr in zip(record.groups, record.lr[step - 1], strict=True)}
        for name, value in line.items():
            told.setdefault(name, {})[step] = value
    return told


def as_stored(told: dict[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    """TensorBoard keeps float32."""
    return {name: {step: float(np.float32(value)) for step, value in each.items()} for name, each in told.items()}


def test_tensorboard_holds_losses_scores_and_rates(competition, tmp_path):
    trainer = trainer_of(competition, tmp_path, **SETTINGS)
    trainer.train()
    told = in_tensorboard(trainer.dir.tracker)
    assert told == as_stored(expected(trainer))
    assert set(told["loss"]) == {2, 3, 5, 6}
    assert {"valid_score", "valid_loss", "epoch"} < set(told)
    assert sum(name.startswith("rate/") for name in told) == len(trainer.groups) > 2


@pytest.mark.parametrize("last", [1, 2, 4])
def test_a_resumed_training_tells_every_step_once(competition, tmp_path, last):
    with pytest.raises(Killed):
        trainer_of(competition, tmp_path, **SETTINGS).train(on_step=kill_at(last))
    trainer = trainer_of(competition, tmp_path, **SETTINGS)
    trainer.train()
    assert in_tensorboard(trainer.dir.tracker) == as_stored(expected(trainer))


def test_a_tracker_changes_no_bit_and_no_fingerprint(competition, tmp_path):
    told = trainer_of(competition, tmp_path / "told", **SETTINGS)
    plain = {"training": SETTINGS["training"] | {"tracker": None}, "policies": SETTINGS["policies"]}
    quiet = trainer_of(competition, tmp_path / "quiet", **plain)
    assert outcome(told, told.train()) == outcome(quiet, quiet.train())
    assert not quiet.dir.tracker.exists()
    assert TrainingConfig(tracker="wandb").canonical() == TrainingConfig().canonical()


def in_leveldb_log(content: bytes, head: int = 7, block: int = 32768):
    """The records of a log in LevelDB's form, as W&B keeps it offline (google/leveldb, doc/log_format.md)."""
    at, record = head, b""
    while at < len(content):
        if (left := block - at % block) < 7:  # too little for a record's head: padding
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_wandb_offline_holds_the_same(competition, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    settings = {"training": SETTINGS["training"] | {"tracker": "wandb"}, "policies": SETTINGS["policies"]}
    with pytest.raises(Killed):
        trainer_of(competition, tmp_path, **settings).train(on_step=kill_at(2))
    trainer = trainer_of(competition, tmp_path, **settings)
    trainer.train()
    wandb.teardown()  # its service may write the last of a run after the run's end was reported
    (file,) = trainer.dir.tracker.rglob("*.wandb")
    told: dict[str, dict[int, float]] = {}
    for data in in_leveldb_log(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.WhichOneof("record_type") == "run":
            run = record.run
        if record.WhichOneof("record_type") == "history":
            step = record.history.step.num
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                if not name.startswith("_"):
                    assert step not in told.setdefault(name, {})
                    told[name][step] = json.loads(item.value_json)
    assert (run.project, run.display_name) == ("tiny", "uniform/seed0/fold0")
    assert told == expected(trainer)


class FakeMlflow(types.ModuleType):
    """What accelerate's tracker asks of MLflow, kept in lists."""

    def __init__(self):
        super().__init__("mlflow")
        self.uri, self.metrics, self.params, self.ended, self.names = "", [], {}, 0, []
        limits = types.SimpleNamespace(MAX_PARAM_VAL_LENGTH=6000, MAX_PARAMS_TAGS_PER_BATCH=100)
        self.utils = types.SimpleNamespace(validation=limits)

    def set_tracking_uri(self, uri):
        self.uri = uri

    def search_experiments(self, filter_string):
        return []

    def create_experiment(self, name, **_):
        self.names.append(name)
        return "1"

    def start_run(self, run_name, **_):
        self.names.append(run_name)

    def log_params(self, params):
        self.params |= params

    def log_metrics(self, metrics, step):
        self.metrics.append((step, metrics))

    def end_run(self):
        self.ended += 1


@pytest.fixture
def mlflow(monkeypatch):
    """MLflow is large; a stand-in shows what it is told."""
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return fake


def with_mlflow(**changes) -> dict:
    return {"training": SETTINGS["training"] | {"tracker": "mlflow"}, "policies": SETTINGS["policies"]} | changes


def test_mlflow_is_told_the_same(competition, tmp_path, mlflow):
    trainer = trainer_of(competition, tmp_path, **with_mlflow())
    trainer.train()
    told: dict[str, dict[int, float]] = {}
    for step, metrics in mlflow.metrics:
        for name, value in metrics.items():
            told.setdefault(name, {})[step] = value
    assert told == expected(trainer)
    assert mlflow.names == ["tiny", "uniform/seed0/fold0"]
    assert mlflow.params == {"policy": "uniform", "seed": "0", "fold": "0"}
    assert mlflow.uri == f"sqlite:///{trainer.dir.tracker}/mlflow.db"
    assert mlflow.ended == 1


def test_the_environment_names_mlflows_server(competition, tmp_path, mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere")
    trainer_of(competition, tmp_path, **with_mlflow()).train()
    assert mlflow.uri == ""


def test_a_tracker_that_fails_later_is_left_alone(competition, tmp_path, mlflow):
    def lost(metrics, step):
        raise ConnectionError("the server is gone\nand more")

    mlflow.log_metrics = lost
    trainer = trainer_of(competition, tmp_path, **with_mlflow())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer.train()
    lines = [str(each.message) for each in told if "training.tracker" in str(each.message)]
    assert lines == ["training.tracker: mlflow logs no more (the server is gone)"]
    assert trainer.dir.rates.is_file()


def test_a_tracker_that_cannot_be_started_is_told_before_training(competition, tmp_path, mlflow):
    def refuse(**_):
        raise RuntimeError("no key")

    mlflow.start_run = refuse
    trainer = trainer_of(competition, tmp_path, **with_mlflow())
    assert (
        refusal_of(trainer.train)
        == "training.tracker: mlflow cannot be started (no key); mend that, or leave the key out"
    )
    assert trainer.history.lines == []


def test_a_training_that_diverges_ends_the_trackers_run(competition, tmp_path, mlflow):
    trainer = trainer_of(competition, tmp_path, **with_mlflow(policies={"uniform": {"lr": 1e30}}))
    with pytest.raises(Diverged):
        trainer.train()
    assert mlflow.ended == 1


def test_a_tracker_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    need_tracker(None)
    assert refusal_of(need_tracker, "wandb") == (
        "training.tracker: wandb is not installed; run: python -m pip install wandb, or leave the key out"
    )
