"""Trainings that are made again: smaller micro-batches for want of memory, lower rates where they diverge."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from support.colours import experiment_content, write_competition
from support.refusals import refusal_of
from timm.models.resnet import ResNet

from kit import run
from kit.core.runs import RunDir
from kit.experiment.config import validate
from kit.training.checkpoint import Checkpoints, read_checkpoint
from kit.training.records import RateRecord
from kit.training.trainer import Trainer

ADVICE = (
    "uniform seed 0 fold 0: the GPU's memory is too small; halve training.batch_size and double "
    "training.accumulate"
)


def experiment(competition, **sections):
    stated = {"folds": {"run": [0]}} | sections
    return validate(experiment_content(competition, **stated), "test")


def run_dir(output: Path) -> RunDir:
    return RunDir(output / "runs/tiny/uniform/seed0/fold0")


@pytest.fixture
def small_memory(monkeypatch):
    """A device on which no more images than this can be trained at a time, from some forward pass on."""

    def limit(images: int, first: int = 0) -> list[int]:
        sizes: list[int] = []
        forward, update, within = ResNet.forward, Trainer._update, []

        def noted(trainer, step, batches):  # nothing else is limited: a model is tried out before it trains
            within.append(step)
            try:
                update(trainer, step, batches)
            finally:
                within.clear()

        def limited(model, inputs):
            if within:
                sizes.append(len(inputs))
                if len(inputs) > images and len(sizes) > first:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has")
            return forward(model, inputs)

        monkeypatch.setattr(Trainer, "_update", noted)
        monkeypatch.setattr(ResNet, "forward", limited)
        return sizes

    return limit


FILES = ("weights.safetensors", "oof.parquet", "test.parquet", "rates.npz", "history.jsonl")
HALVES = (
    "uniform seed 0 fold 0: the device's memory is too small for {} images at a time; trains with {} and {} "
    "forward passes an update, which has the same images, but batch norms see {} of them at a time"
)


@pytest.mark.parametrize("limit", [4, 2])
def test_what_fails_at_the_first_update_ends_as_one_that_was_configured_so(
    competition, tmp_path, small_memory, limit
):
    mixed = {"ema": 0.9, "mixup": 0.2, "clip_grad": 1.0, "epochs": 2}
    halved = mixed | {"batch_size": limit, "accumulate": 8 // limit}
    run(experiment(competition, training=halved), tmp_path / "configured")
    sizes, said = small_memory(limit), []
    run(experiment(competition, training=mixed), tmp_path / "halved", say=said.append)
    folders = [run_dir(tmp_path / name) for name in ("halved", "configured")]
    for name in FILES:
        assert (folders[0].path / name).read_bytes() == (folders[1].path / name).read_bytes(), name
    assert sizes[: 2 if limit == 4 else 3] == [8, 4, 2][: 2 if limit == 4 else 3]
    assert set(sizes[3:]) == {limit}
    lines = [line for line in said if "memory" in line]
    assert lines == [HALVES.format(8, 4, 2, 4), HALVES.format(4, 2, 4, 2)][: 1 if limit == 4 else 2]
    records = [folder.record for folder in folders]
    assert [record.micro_batch for record in records] == [limit, None]
    assert records[0].initial_weights == records[1].initial_weights
    assert records[0].steps == records[1].steps


def test_it_goes_on_from_the_checkpoint_and_a_resumed_run_remembers(
    competition, tmp_path, small_memory, monkeypatch
):
    config = experiment(
        competition, training={"checkpoint_minutes": 0, "log_every": 1, "epochs": 3, "evaluate_every": 0}
    )
    small_memory(4, first=4)  # the fifth update of nine
    firsts, said = [], []
    train = Trainer._train

    def noted(trainer, first, *rest):
        firsts.append((first, trainer.config.batch_size, trainer.config.accumulate))
        return train(trainer, first, *rest)

    monkeypatch.setattr(Trainer, "_train", noted)
    update = Trainer._update

    def killed(trainer, step, batches):
        if step == 7 and len(firsts) == 2:
            raise KeyboardInterrupt
        update(trainer, step, batches)

    monkeypatch.setattr(Trainer, "_update", killed)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, say=said.append)
    assert HALVES.format(8, 4, 2, 4) + "; goes on from its last checkpoint" in said
    assert run_dir(tmp_path).record.micro_batch == 4
    run(config, tmp_path)
    assert firsts == [(0, 8, 1), (4, 4, 2), (7, 4, 2)]
    assert run_dir(tmp_path).record.micro_batch == 4
    assert not np.isnan(RateRecord.load(run_dir(tmp_path).rates).lr).any()


@pytest.mark.parametrize(
    ("training", "limit"),
    [({"batch_size": 5}, 4), ({"batch_size": 6, "mixup": 0.2}, 4), ({"batch_size": 8}, 1)],
)
def test_what_cannot_be_halved_is_told_with_advice(competition, tmp_path, small_memory, training, limit):
    sizes = small_memory(limit)
    assert refusal_of(run, experiment(competition, training=training), tmp_path) == ADVICE
    record = run_dir(tmp_path).record
    assert record.status == "failed"
    assert sizes == ([training["batch_size"]] if limit > 1 else [8, 4, 2])  # a batch norm of one image is none


@pytest.mark.gpu
def test_a_gpu_whose_memory_is_small(competition, tmp_path):
    """Held down to what half a batch takes; updates stay those of the whole one."""
    training = {"device": "auto", "batch_size": 16, "epochs": 1, "evaluate_every": 0, "precision": "fp32"}
    big = {"data": {"size": 512, "augment": "none", "workers": 0}}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run(experiment(competition, training=training | {"batch_size": 8, "accumulate": 2}, **big), tmp_path / "half")
    most = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1.15 * most / total)
    try:
        run(experiment(competition, training=training, **big), tmp_path / "whole")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert run_dir(tmp_path / "whole").record.micro_batch in (8, 4)


WILD = {"uniform": {"lr": 1e30, "groups": "stage", "schedule": "constant"}}


def test_a_loss_that_is_not_finite_is_told_with_what_broke_it(competition, tmp_path):
    config = experiment(competition, policies=WILD, training={"checkpoint_minutes": 0, "log_every": 1})
    said: list[str] = []
    message = refusal_of(lambda: run(config, tmp_path, say=said.append))
    assert message.startswith("uniform seed 0 fold 0: the loss is nan at step ")
    advice = "; lower the policy's lr (try a tenth), or set training.clip_grad to 1.0 "
    assert advice + "(the update before moved the weights of depth group " in message
    assert any("makes the updates before it again" in line for line in said)
    folder = run_dir(tmp_path)
    assert folder.record.status == "diverged"
    assert f"uniform seed 0 fold 0: {folder.record.error}" == message
    history = [json.loads(line) for line in folder.history.read_text().splitlines()]
    assert [line["step"] for line in history] == [1]  # the loss of the first update is of the initial weights
    assert not folder.checkpoint.exists()  # the one after it could not go on


def test_the_last_checkpoint_before_the_bad_update_is_kept(competition, tmp_path, monkeypatch):
    """At update 4 weights become so large that the next loss is not finite, while they are finite themselves."""
    config = experiment(competition, training={"checkpoint_minutes": 0, "log_every": 1, "epochs": 3})
    run(config, tmp_path / "whole")
    broken = Trainer._update

    def update(trainer, step, batches):
        broken(trainer, step, batches)
        if step == 4:
            with torch.no_grad():
                for value in list(trainer.groups[1].parameters.values()):
                    value.mul_(1e30)

    saved = []
    take = Checkpoints.take

    def keep(checkpoints, done, logged):
        if done in (3, 5):
            take(checkpoints, done, logged)
            saved.append(done)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_update", update)
        patched.setattr(Checkpoints, "take", keep)
        message = refusal_of(run, config, tmp_path / "broken")
    assert "the loss is nan at step 5 of 9" in message
    names = list(run_dir(tmp_path / "whole").record.groups)
    found = rf"the update before moved the weights of depth group {names[1]} most, by 1e\+30 times their norm\)"
    assert re.search(found, message)
    assert saved == [3, 5]
    left = run_dir(tmp_path / "broken")
    assert not left.checkpoint.exists()  # of the two the one after update 4 was the last
    assert read_checkpoint(left.checkpoint_before)["step"] == 3


@pytest.fixture
def breaks_above(monkeypatch):
    """The loss of an update is not finite where its rate is above this one, from update 2 on."""

    def at(rate: float) -> None:
        update = Trainer._update

        def broken(trainer, step, batches):
            update(trainer, step, batches)
            if step >= 2 and trainer.rates.lr[step].max() > rate:
                trainer.losses[step] = torch.nan

        monkeypatch.setattr(Trainer, "_update", broken)

    return at


CALM = {"uniform": {"lr": 9e-3, "groups": "stage", "schedule": "constant"}}


def test_rates_are_lowered_and_the_run_begun_anew(competition, tmp_path, breaks_above):
    restarting = {"on_nonfinite": "restart_lower", "checkpoint_minutes": 0, "log_every": 1}
    config = experiment(competition, policies=CALM, training=restarting)
    third = {"uniform": CALM["uniform"] | {"lr": 1e-3}}
    run(experiment(competition, policies=third, training={"log_every": 1}), tmp_path / "lower")
    breaks_above(2e-3)
    said: list[str] = []
    run(config, tmp_path, say=said.append)
    folder, lower = run_dir(tmp_path), run_dir(tmp_path / "lower")
    rates = RateRecord.load(folder.rates).lr
    np.testing.assert_allclose(rates, RateRecord.load(lower.rates).lr, rtol=1e-12)
    assert len(rates) == folder.record.steps
    record = folder.record
    assert (record.status, [round(each["factor"], 3) for each in record.nonfinite]) == ("finished", [0.333, 0.111])
    assert record.factor == pytest.approx(1 / 9)
    assert all(each["step"] == 2 and "the loss is nan at step 2" in each["error"] for each in record.nonfinite)
    assert [line.rpartition("; ")[2] for line in said if "begins anew" in line] == [
        "begins anew with all rates × 0.333 (restart 1 of 3)",
        "begins anew with all rates × 0.111 (restart 2 of 3)",
    ]


def test_three_times_at_most(competition, tmp_path):
    config = experiment(competition, policies=WILD, training={"on_nonfinite": "restart_lower", "log_every": 1})
    assert "the loss is" in refusal_of(run, config, tmp_path)
    record = run_dir(tmp_path).record
    assert (record.status, len(record.nonfinite)) == ("diverged", 3)
    assert record.factor == pytest.approx(1 / 27)


def test_a_restarted_run_that_is_killed_goes_on_with_its_lower_rates(
    competition, tmp_path, breaks_above, monkeypatch
):
    restarting = {"on_nonfinite": "restart_lower", "checkpoint_minutes": 0, "log_every": 1}
    config = experiment(competition, policies=CALM, training=restarting)
    breaks_above(5e-3)
    run(config, tmp_path / "whole")
    update = Trainer._update

    def killed(trainer, step, batches):
        if step == 3 and trainer.rates.policy.peak < 5e-3:
            raise KeyboardInterrupt
        update(trainer, step, batches)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_update", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "killed")
    run(config, tmp_path / "killed")
    for name in FILES:
        one, other = (run_dir(tmp_path / folder).path / name for folder in ("whole", "killed"))
        assert one.read_bytes() == other.read_bytes(), name
    assert run_dir(tmp_path / "killed").record.nonfinite == run_dir(tmp_path / "whole").record.nonfinite


def test_an_image_that_breaks_in_mid_training(tmp_path, monkeypatch):
    """It was whole when the run was prepared; there is no cache."""
    folder = write_competition(tmp_path / "data")
    stated = {
        "data": {"cache": False},
        "training": {"checkpoint_minutes": 0, "log_every": 1, "epochs": 3, "evaluate_every": 0},
    }
    config = experiment(folder, **stated)
    run(config, tmp_path / "whole")
    (victim, *_) = sorted((folder / "train").iterdir())
    content, update = victim.read_bytes(), Trainer._update
    rows = [0, 1, 2]

    def broken(trainer, step, batches):
        if step == 4:
            for name in rows:
                (folder / f"train/train{name:03d}.png").write_bytes(content[:60])
        update(trainer, step, batches)

    kept = {name: (folder / f"train/train{name:03d}.png").read_bytes() for name in rows}
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_update", broken)
        message = refusal_of(run, config, tmp_path / "broken")
    assert message.startswith(f"uniform seed 0 fold 0: {folder / 'train/train00'}")
    assert " cannot be read any more: " in message
    record = run_dir(tmp_path / "broken").record
    assert (record.status, f"uniform seed 0 fold 0: {record.error}") == ("failed", message)
    assert run_dir(tmp_path / "broken").checkpoint.is_file()
    for name, whole in kept.items():
        (folder / f"train/train{name:03d}.png").write_bytes(whole)
    said: list[str] = []
    run(config, tmp_path / "broken", say=said.append)
    assert "uniform seed 0 fold 0: goes on from its last checkpoint" in said
    for name in FILES:
        one, other = (run_dir(tmp_path / where).path / name for where in ("whole", "broken"))
        assert one.read_bytes() == other.read_bytes(), name
