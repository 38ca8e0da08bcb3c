"""Trainings whose images are augmented on the device: the same bits again, whatever holds the images."""

import numpy as np
import pytest
import torch
from support.colours import experiment_content
from support.commands import config_file, kit_run, kit_together
from support.refusals import refusal_of
from support.trainings import Killed, kill_at, outcome, trainer_of

from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir
from kit.data.images import ImageSet
from kit.data.loading import EvaluationLoader
from kit.experiment.config import validate
from kit.experiment.prepare import prepare
from kit.experiment.train_run import trained_on
from kit.training.device import make_accelerator

THERE = {
    "data": {"augment": "heavy", "crop_pct": 0.8, "augment_on": "device"},
    "training": {"mixup": 0.3, "sampler": "sqrt", "checkpoint_minutes": 0, "log_every": 1},
}


def there(**data) -> dict:
    return THERE | {"data": THERE["data"] | data}


@pytest.mark.parametrize("data", [{}, {"device_memory": 0, "cache": False}])
def test_a_killed_run_ends_with_the_same_bits_wherever_its_images_are(competition, tmp_path, data):
    whole = trainer_of(competition, tmp_path / "whole", **there())
    expected = outcome(whole, whole.train())
    first = trainer_of(competition, tmp_path / "killed", **there(**data))
    with pytest.raises(Killed):
        first.train(on_step=kill_at(3))
    second = trainer_of(competition, tmp_path / "killed", **there(**data))
    steps = []
    assert outcome(second, second.train(on_step=steps.append)) == expected
    assert steps[0] == 4


def test_images_that_stay_are_read_once_and_no_loader_is_asked(competition, tmp_path, monkeypatch):
    read, ordinary = [], ImageSet.__getitem__
    monkeypatch.setattr(ImageSet, "__getitem__", lambda images, row: read.append(row) or ordinary(images, row))
    monkeypatch.setattr(EvaluationLoader, "batches", lambda *_: pytest.fail("the loader is asked"))
    trainer = trainer_of(competition, tmp_path, **there())
    trainer.train()
    assert sorted(read) == list(range(len(trainer.fold.images)))


def test_another_side_is_another_run(competition, tmp_path):
    """Where nothing is drawn it is the same."""
    made = {}
    for augment in ("light", "none"):
        for where in ("auto", "cpu", "device"):
            trainer = trainer_of(
                competition,
                tmp_path / augment / where,
                data={"augment": augment, "augment_on": where},
                training={"epochs": 1},
            )
            made[augment, where] = outcome(trainer, trainer.train())
    assert made["light", "auto"] == made["light", "cpu"] != made["light", "device"]
    assert made["none", "auto"] == made["none", "cpu"] == made["none", "device"]


def test_a_checkpoint_of_the_other_side_is_refused(competition, tmp_path, monkeypatch):
    """As where `auto` means another side than in the version, or on the machine, that wrote it."""
    plain = {"training": THERE["training"], "data": THERE["data"] | {"augment_on": "auto"}}
    with pytest.raises(Killed):
        trainer_of(competition, tmp_path, **plain).train(on_step=kill_at(1))
    for module in ("kit.training.trainer", "kit.data.device.batches"):
        monkeypatch.setattr(f"{module}.augments_on_device", lambda config, device: True)
    line = refusal_of(lambda: trainer_of(competition, tmp_path, **plain).train())
    assert "checkpoint.pt was made on 1 × cpu in fp32, this is 1 × cpu in fp32, which augments, where" in line


def test_the_run_says_where_images_were_augmented(competition, tmp_path):
    for where, told in (("auto", None), ("cpu", None), ("device", "device")):
        config = validate(experiment_content(competition, data={"augment_on": where}), "test")
        assert trained_on(config, make_accelerator(config.training)).get("augmented_on") == told


def test_what_the_device_does_not_know_is_refused_before_the_training(competition, tmp_path):
    experiment = validate(
        experiment_content(competition, data={"augment": ["MotionBlur"], "augment_on": "device"}), "test"
    )
    folder = ExperimentDir(tmp_path / "runs" / "tiny")
    line = refusal_of(lambda: prepare(experiment, folder, OutputDirs(tmp_path), shown=False))
    assert line.startswith("data.augment_on: data.augment[0] (MotionBlur): not known on the device, or")


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(competition, tmp_path):
    """Each augments its part as one process augments the whole."""
    sections = {"data": THERE["data"], "model": {"name": "vit_tiny_patch16_224", "options": {"img_size": 32}}}
    sections |= {"data": THERE["data"] | {"size": 32}, "folds": {"run": [0]}}
    probabilities = []
    for name, batch in (("one", 8), ("two", 4)):
        config = config_file(
            competition, tmp_path / f"{name}.yaml", **sections, training={"batch_size": batch, "epochs": 1}
        )
        if name == "two":
            done = kit_together("run", config, "--output", tmp_path / name)
            assert done.returncode == 0, done.stderr
        else:
            process = kit_run(config, tmp_path / name)
            printed, _ = process.communicate()
            assert process.returncode == 0, printed
        run = ExperimentDir(tmp_path / name / "runs" / "tiny").runs()[0]
        probabilities.append(run.read_oof().to_numpy())
    np.testing.assert_allclose(*probabilities, atol=1e-4)


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_same_whatever_holds_the_images(competition, tmp_path):
    made = []
    for name, data in {
        "stays": {},
        "streams": {"device_memory": 0},
        "workers": {"device_memory": 0, "workers": 2},
    }.items():
        sections = there(augment_on="auto", **data)
        sections["training"] = THERE["training"] | {"device": "auto"}
        trainer = trainer_of(competition, tmp_path / name, **sections)
        assert trainer.checkpoints.augments
        made.append(outcome(trainer, trainer.train()))
        trainer.close()
    assert made[0] == made[1] == made[2]


@pytest.mark.gpu
def test_a_gpu_augments_as_a_cpu_does():
    from kit.data.config import DataConfig
    from kit.data.device.augment import DeviceAugmentation

    generator = np.random.default_rng(0)
    pixels = torch.from_numpy(generator.integers(0, 256, (64, 40, 40, 3), dtype=np.uint8))
    for preset in ("light", "medium", "heavy"):
        augment = DeviceAugmentation(DataConfig(size=32, crop_pct=0.8, augment=preset))
        drawn = torch.from_numpy(augment.draw(np.arange(64, dtype=np.uint64)))
        here, on_gpu = augment(pixels, drawn), augment(pixels.cuda(), drawn.cuda()).cpu()
        difference = (here.int() - on_gpu.int()).abs()
        assert difference.max() <= 1
        assert difference.float().mean() < 0.01
