"""The loop: the same bits again, resumed or not; against slow obvious versions; faults that end a run."""

import copy
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from support.colours import experiment_content
from support.commands import TORCHRUN, config_file, kit_run, kit_together
from support.refusals import refusal_of
from support.trainings import Killed, kill_at, outcome, trainer_of

from kit.core.errors import KitError
from kit.experiment.config import validate
from kit.model.build import weights_digest
from kit.training.device import make_accelerator, process_state, resolve_precision
from kit.training.records import RateRecord

EVERYTHING = {
    "mixup": 0.3,
    "cutmix": 1.0,
    "ema": 0.9,
    "clip_grad": 1.0,
    "label_smoothing": 0.1,
    "class_weights": "balanced",
    "accumulate": 1,
    "epochs": 3,
}


@pytest.mark.parametrize("killed_after", [0, 3, 6])
def test_a_killed_run_ends_with_the_same_bits(competition, tmp_path, killed_after):
    settings = {
        "training": EVERYTHING | {"checkpoint_minutes": 0, "log_every": 1},
        "model": {"drop": 0.2, "options": {"drop_path_rate": 0.2}},
        "data": {"augment": "heavy", "crop_pct": 0.8},
    }
    whole = trainer_of(competition, tmp_path / "whole", **settings)
    expected = outcome(whole, whole.train())
    first = trainer_of(competition, tmp_path / "killed", **settings)
    with pytest.raises(Killed):
        first.train(on_step=kill_at(killed_after))
    second = trainer_of(competition, tmp_path / "killed", **settings)
    steps = []
    result = outcome(second, second.train(on_step=steps.append))
    assert steps[0] == killed_after + 1
    assert result == expected


@pytest.mark.parametrize("optimizer", ["muon", "sgd", "adafactor"])
def test_a_killed_run_under_freezing_ends_with_the_same_bits(competition, tmp_path, optimizer):
    """With parameters that get their first gradient after the checkpoint."""
    settings = {
        "training": {"epochs": 3, "optimizer": {"name": optimizer}, "checkpoint_minutes": 0, "log_every": 1},
        "policies": {"uniform": {"lr": 1e-3, "profile": {"name": "gradual_unfreezing", "every": 0.4}}},
    }
    whole = trainer_of(competition, tmp_path / "whole", **settings)
    expected = outcome(whole, whole.train())
    first = trainer_of(competition, tmp_path / "killed", **settings)
    with pytest.raises(Killed):
        first.train(on_step=kill_at(1))
    second = trainer_of(competition, tmp_path / "killed", **settings)
    assert outcome(second, second.train()) == expected
    if optimizer == "muon":
        within = RateRecord.load(second.dir.rates).within
        assert (within[:, 0] <= within[:, 1]).all()
        assert (within > 0).all()


def test_workers_change_nothing(competition, tmp_path):
    results = []
    for workers in (0, 2):
        trainer = trainer_of(competition, tmp_path / str(workers), data={"augment": "heavy", "workers": workers})
        results.append(outcome(trainer, trainer.train()))
    assert results[0] == results[1]


def test_policies_of_one_seed_start_equal_and_other_seeds_do_not(competition, tmp_path):
    digests = {
        (lr, seed): trainer_of(
            competition, tmp_path / f"{lr}{seed}", policies={"uniform": {"lr": lr}}, seeds=[seed]
        ).initial_weights
        for lr in (1e-2, 1e-4)
        for seed in (0, 1)
    }
    assert digests[1e-2, 0] == digests[1e-4, 0] != digests[1e-2, 1]


def test_accumulating_two_half_batches_is_one_whole_batch(competition, tmp_path):
    """Of a network without batch norm, whose gradient is the weighted mean over the samples."""
    settings = {
        "model": {"name": "test_vit"},
        "data": {"augment": "none"},
        "policies": {"uniform": {"lr": 1e-3}},
    }
    weights = []
    for batch, accumulate in ((8, 1), (4, 2), (1, 8)):
        training = {"batch_size": batch, "accumulate": accumulate, "optimizer": {"name": "sgd"}}
        weighted = {"class_weights": {"red": 10.0, "green": 0.1}, "label_smoothing": 0.1}
        trainer = trainer_of(competition, tmp_path / str(batch), training=training | weighted, **settings)
        steps = []
        weights.append(trainer.train(on_step=steps.append).model.state_dict())
        assert len(steps) == trainer.plan.total_steps == 2 * 3
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(weights[2][name], value, rtol=1e-4, atol=1e-6)


def test_a_slow_obvious_loop_gives_the_same_weights(competition, tmp_path):
    """SGD on float batches in the plan's order with the policy's rates, written out."""
    trainer = trainer_of(
        competition,
        tmp_path,
        data={"augment": "none"},
        training={"optimizer": {"name": "sgd", "weight_decay": 0.1}},
    )
    model = copy.deepcopy(trainer.model)
    trained = trainer.train().model

    names = {id(value): name for name, value in trainer.model.named_parameters()}
    depth_of = {
        names[id(v)]: depth for depth, group in enumerate(trainer.groups) for v in group.parameters.values()
    }
    buffers = {}
    model.train()
    for step, batch in enumerate(trainer.plan.micro_batches()):
        rows = [trainer.fold.train_rows[sample] for _, sample, _ in batch]
        pixels = torch.stack([torch.tensor(trainer.fold.images[row]) for row in rows]).float() / 255
        mean, std = (torch.tensor(values) for values in vars(trainer.recipe.normalisation).values())
        inputs = ((pixels - mean) / std).permute(0, 3, 1, 2)
        loss = torch.nn.functional.cross_entropy(model(inputs), torch.tensor(trainer.fold.targets[rows]))
        model.zero_grad()
        loss.backward()
        rates = trainer.rates.intended(step)
        with torch.no_grad():
            for name, value in model.named_parameters():
                gradient = value.grad + (0.1 * value if value.ndim > 1 else 0)
                buffer = buffers[name] = buffers[name] * rates.momentum + gradient if step else gradient.clone()
                value -= rates.lr[depth_of[name]] * (gradient + rates.momentum * buffer)  # Nesterov's
    assert step == trainer.plan.total_steps - 1
    for name, value in model.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_the_moving_average_is_the_one_that_predicts(competition, tmp_path):
    trainer = trainer_of(competition, tmp_path, training={"ema": 0.5})
    average = {name: value.clone() for name, value in trainer.model.state_dict().items()}

    def follow(step):
        decay = min(0.5, 1 - (1 + step - 1) ** (-2 / 3)) if step > 1 else 0.0  # timm's warm-up of the decay
        for name, value in trainer.model.state_dict().items():
            average[name] = average[name] * decay + value * (1 - decay) if value.is_floating_point() else value

    trained = trainer.train(on_step=follow)
    assert weights_digest(trained.model) != weights_digest(trainer.model)
    for name, value in trained.model.state_dict().items():
        torch.testing.assert_close(value, average[name].to(value.dtype), rtol=1e-4, atol=1e-5, msg=name)


def test_clipping_bounds_the_gradient(competition, tmp_path):
    trainer = trainer_of(competition, tmp_path, training={"clip_grad": 1e-3, "optimizer": {"name": "sgd"}})
    norms = []
    step = trainer.optimizer.step

    def watch():
        gradients = [value.grad for value in trainer.model.parameters()]
        norms.append(torch.norm(torch.stack([gradient.norm() for gradient in gradients])).item())
        step()

    trainer.optimizer.step = watch
    trainer.train()
    assert len(norms) == trainer.plan.total_steps
    assert max(norms) <= 1e-3 * 1.001


def test_a_loss_that_is_not_finite_ends_the_run_with_step_rate_and_advice(competition, tmp_path):
    trainer = trainer_of(competition, tmp_path, policies={"uniform": {"lr": 1e30, "schedule": "constant"}})
    with pytest.raises(
        KitError, match=r"the loss is (nan|inf) at step [1-5] of 6 .* rate was 1e\+30; lower the policy's lr"
    ):
        trainer.train()


def test_predictions_that_are_not_finite_end_the_run(competition, tmp_path):
    """The loss of a step is of the weights before it: the last update shows in the predictions alone."""
    wild = {"uniform": {"lr": 1e30, "schedule": "constant"}}
    trainer = trainer_of(competition, tmp_path, policies=wild, training={"epochs": 1, "batch_size": 24})
    with pytest.raises(
        KitError, match="the trained model predicts values that are not finite; lower the policy's lr"
    ):
        trainer.train()


def test_a_checkpoint_of_another_set_up_is_refused(competition, tmp_path, monkeypatch):
    settings = {"training": {"checkpoint_minutes": 0, "log_every": 1}}
    with pytest.raises(Killed):
        trainer_of(competition, tmp_path, **settings).train(on_step=kill_at(1))
    monkeypatch.setattr("kit.training.device.resolve_precision", lambda setting, cpu: "bf16")
    with pytest.raises(KitError, match=r"checkpoint.pt was made on 1 × cpu in fp32, this is 1 × cpu in bf16"):
        trainer_of(competition, tmp_path, **settings).train()


def test_an_experiment_on_the_cpu_after_one_on_another_device(monkeypatch):
    from accelerate import PartialState

    config = validate(experiment_content(Path(".")), "test").training
    monkeypatch.setattr(PartialState(cpu=True), "_cpu", False)  # as an experiment with `device: auto` leaves it
    assert process_state(config)._cpu is True
    assert make_accelerator(config).device.type == "cpu"


@pytest.mark.parametrize(("gpus", "device", "refused"), [(2, "auto", True), (4, "auto", False), (2, "cpu", False)])
def test_more_processes_than_gpus_are_refused(monkeypatch, gpus, device, refused):
    """As by `torchrun --nproc_per_node 4` on one of two machines."""
    config = validate(experiment_content(Path("."), training={"device": device}), "test").training
    for name, value in {"LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 4, "WORLD_SIZE": 8, "RANK": 0}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    together = SimpleNamespace(num_processes=8, _cpu=device == "cpu")
    monkeypatch.setattr("kit.training.device.PartialState", lambda cpu, timeout: together)
    if refused:
        assert refusal_of(process_state, config) == (
            "torchrun: 4 processes on this machine, but GPUs for 2; use --nproc_per_node 2, or --set "
            "training.device=cpu"
        )
    else:
        assert process_state(config) is together


def test_a_rate_that_something_else_writes_ends_the_run(competition, tmp_path):
    trainer = trainer_of(competition, tmp_path)

    def meddle(step):
        if step == 2:
            write = trainer.rates.write

            def flat(step, optimizer):
                write(step, optimizer)
                for group in optimizer.param_groups:
                    group["lr"] = 0.5

            trainer.rates.write = flat

    with pytest.raises(KitError, match=r"step 3: depth group .* learned at 0.5, but the policy says"):
        trainer.train(on_step=meddle)


def test_history_has_the_losses_and_a_score_an_epoch(competition, tmp_path):
    trainer = trainer_of(competition, tmp_path, training={"log_every": 2})
    trained = trainer.train()
    lines = [json.loads(line) for line in trainer.dir.history.read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 3, 5, 6]
    scores = [line for line in lines if "valid_score" in line]
    assert [line["epoch"] for line in scores] == [1.0, 2.0]
    truth = trainer.fold.targets[trainer.fold.valid_rows]
    chosen = trained.probabilities[np.arange(len(truth)), truth]
    assert scores[-1]["valid_loss"] == pytest.approx(-np.log(chosen).mean(), rel=1e-5)


def test_flip_tta_is_the_mean_of_both_sides(competition, tmp_path):
    trainer = trainer_of(competition, tmp_path, prediction={"tta": "hflip"})
    trained = trainer.train()
    model = trained.model.eval()
    images = np.stack([trainer.fold.images[row] for row in trainer.fold.valid_rows])
    with torch.inference_mode():
        sides = [
            model(trainer.normalise(torch.tensor(side.copy()))).softmax(1) for side in (images, images[:, :, ::-1])
        ]
    np.testing.assert_allclose(trained.probabilities, (sides[0] + sides[1]) / 2, rtol=1e-4, atol=1e-6)
    assert not np.allclose(sides[0], sides[1])


def test_predictions_do_not_depend_on_the_batch(competition, tmp_path):
    results = [
        trainer_of(competition, tmp_path / str(size), prediction={"batch_size": size}).train().probabilities
        for size in (1, 5, 100)
    ]
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=1e-4, atol=1e-6)


def test_more_samples_than_rows_in_an_update_is_told_before_training(competition, tmp_path):
    with pytest.raises(
        KitError, match=r"one update takes 64 samples \(batch_size 16 × accumulate 4 × 1 devices\)"
    ):
        trainer_of(competition, tmp_path, training={"batch_size": 16, "accumulate": 4})


def test_bfloat16_trains_on_a_cpu_when_asked(competition, tmp_path):
    trainer = trainer_of(competition, tmp_path, training={"precision": "bf16"})
    seen = []
    trainer.model.fc.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    trained = trainer.train()
    assert torch.bfloat16 in seen
    assert np.isfinite(trained.probabilities).all()
    np.testing.assert_allclose(trained.probabilities.sum(1), 1, rtol=1e-5)


def test_auto_precision_follows_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for native, expected in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert resolve_precision("auto") == expected
    assert resolve_precision("auto", cpu=True) == "fp32"
    assert resolve_precision("fp16") == "fp16"


@pytest.mark.slow  # tests/faults/test_kills.py kills the command each time
def test_a_process_killed_for_good_goes_on_with_the_same_bits(competition, tmp_path):
    """SIGKILL in the middle of a training, then the same command again."""
    from kit import load_experiment, run

    settings = {
        "training": {"epochs": 12, "checkpoint_minutes": 0, "log_every": 1, "evaluate_every": 0},
        "folds": {"run": [0]},
    }
    config = config_file(competition, tmp_path / "config.yaml", **settings)
    process = kit_run(config, tmp_path / "killed")
    checkpoint = tmp_path / "killed/runs/tiny/uniform/seed0/fold0/checkpoint.pt"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = torch.load(checkpoint, weights_only=True)["step"]
    assert 0 < done < 36
    said = {"killed": [], "whole": []}
    for name, lines in said.items():
        run(load_experiment(config), tmp_path / name, say=lines.append)
    goes_on = "uniform seed 0 fold 0: goes on from its last checkpoint"
    assert [goes_on in lines for lines in said.values()] == [True, False]
    files = [tmp_path / name / "runs/tiny/uniform/seed0/fold0" for name in ("killed", "whole")]
    for name in ("weights.safetensors", "oof.parquet", "test.parquet", "rates.npz", "history.jsonl"):
        assert (files[0] / name).read_bytes() == (files[1] / name).read_bytes(), name
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    ("model", "norms"),
    [
        ("test_vit", {}),  # no batch norm, whose statistics are of half a batch
        pytest.param(
            "test_resnet", {"sync_batch_norm": True, "norm_batches": 2, "ema": 0.9}, marks=pytest.mark.slow
        ),
    ],
)
def test_two_processes_train_as_one_with_twice_the_batch(competition, tmp_path, model, norms):
    """Two processes by torchrun where there is no GPU: half a batch each, gradients averaged, predictions shared.

    The batches are small ones, so that the weights of classes are averaged over all parts of an update.
    """
    from kit import load_experiment, run

    settings = {
        "model": {"name": model},
        "data": {"augment": "medium"},
        "policies": {"uniform": {"lr": 1e-3}},
        "folds": {"run": [0, 1]},
    }
    weights = {"class_weights": {"red": 10.0, "green": 0.1}, "sampler": "balanced"} | norms
    quarter = weights | {"batch_size": 2, "accumulate": 2, "device": "auto"}
    whole = {"batch_size": 4, "accumulate": 2} if norms else {"batch_size": 8}  # a norm sees a forward pass
    two = config_file(competition, tmp_path / "two.yaml", training=quarter, **settings)
    one = config_file(competition, tmp_path / "one.yaml", training=weights | whole, **settings)
    process = kit_together("run", two, "--output", tmp_path / "two")
    printed = process.stdout
    assert process.returncode == 0, printed + process.stderr
    result = run(load_experiment(one), tmp_path / "one")
    pooled = [pd.read_parquet(tmp_path / name / "runs/tiny/uniform/oof.parquet") for name in ("one", "two")]
    assert pooled[0]["id"].tolist() == pooled[1]["id"].tolist()
    np.testing.assert_allclose(pooled[1].iloc[:, 1:], pooled[0].iloc[:, 1:], atol=1e-3 if norms else 1e-5)
    records, histories = [], []
    for folder in (tmp_path / "two/runs/tiny", result.folder):
        records.append(json.loads((folder / "uniform/seed0/fold0/run.json").read_text()))
        lines = (folder / "uniform/seed0/fold0/history.jsonl").read_text().splitlines()
        histories.append([json.loads(line).get("loss", 0) for line in lines])
    assert [record["processes"] for record in records] == [2, 1]
    assert [record["steps"] for record in records] == [6, 6]
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-3 if norms else 1e-4)
    assert printed.count("uniform seed 0 fold 0: macro F1") == 1


@pytest.mark.slow
def test_two_processes_predict_with_the_weights_that_are_saved(competition, tmp_path):
    """With batch norm, whose running statistics differ between the processes until they are shared."""
    import timm
    from safetensors.torch import load_file

    settings = {"folds": {"run": [0]}, "data": {"augment": "none"}, "training": {"batch_size": 4}}
    config = config_file(competition, tmp_path / "config.yaml", **settings)
    process = kit_run(config, tmp_path, *TORCHRUN)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    trainer = trainer_of(competition, tmp_path / "other", **settings)
    model = timm.create_model("test_resnet", num_classes=3).eval()
    model.load_state_dict(load_file(tmp_path / "runs/tiny/uniform/seed0/fold0/weights.safetensors"))
    saved = pd.read_parquet(tmp_path / "runs/tiny/uniform/seed0/fold0/oof.parquet").set_index("id")
    with torch.inference_mode():
        for row in trainer.fold.valid_rows:
            pixels = torch.tensor(trainer.fold.images[row])[None]
            expected = model(trainer.normalise(pixels)).softmax(1)[0]
            np.testing.assert_allclose(saved.loc[trainer.fold.images.ids[row]], expected, atol=1e-5)
