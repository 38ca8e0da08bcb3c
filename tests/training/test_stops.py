"""A training that signals stop anywhere, and that goes on, ends with the bits of one that nothing stopped."""

import signal
from types import SimpleNamespace

import pytest
import torch
from support.trainings import outcome, trainer_of

from kit.core import stopping
from kit.core.errors import KitError
from kit.core.stopping import OUT_OF_TIME, Stopped
from kit.training.checkpoint import read_checkpoint
from kit.training.predict import Predictor
from kit.training.stops import Stops

EVERYTHING = {"mixup": 0.3, "ema": 0.9, "clip_grad": 1.0, "label_smoothing": 0.1, "class_weights": "balanced"}
CONSTANT = {"lr": 1e-2, "groups": "stage", "schedule": "constant"}
SETTINGS = {
    "sgd": {"training": {"optimizer": {"name": "sgd"}}},
    "everything": {"training": EVERYTHING, "data": {"augment": "heavy"}, "model": {"drop": 0.2}},
    "accumulating": {"training": {"accumulate": 2, "batch_size": 4, "probes": {"every": 2, "butterfly": [0.5]}}},
    "norms": {"training": {"norm_batches": 2, "ema": 0.5}},
    "schedule-free": {
        "training": {"optimizer": {"name": "schedulefree:AdamWScheduleFree"}},
        "policies": {"uniform": CONSTANT},
    },
    "adaptive": {"policies": {"uniform": CONSTANT | {"controller": "temp_balance"}}},
    "freezing": {"policies": {"thaw": {"lr": 1e-3, "profile": {"name": "gradual_unfreezing", "every": 0.25}}}},
}


def raises_signal(trainer, method, number=signal.SIGTERM):
    """Let a method of the trainer raise the signal each time before it ends."""
    original = getattr(trainer, method)

    def with_signal(*arguments):
        result = original(*arguments)
        signal.raise_signal(number)
        return result

    setattr(trainer, method, with_signal)


def stopped(trainer, method="_update", number=signal.SIGTERM):
    """Train until the signal stops it: (what is told, the exit code, the step of the checkpoint)."""
    raises_signal(trainer, method, number)
    with stopping.handled(), stopping.deferred(), pytest.raises(Stopped) as raised:
        trainer.train("it")
    trainer.close()
    step = read_checkpoint(trainer.dir.checkpoint)["step"] if trainer.dir.resumable else 0
    return str(raised.value), raised.value.code, step


@pytest.mark.parametrize("name", SETTINGS)
def test_stopped_at_every_update_it_ends_with_the_same_bits(competition, tmp_path, name):
    if name == "schedule-free":
        pytest.importorskip("schedulefree")
    whole = trainer_of(competition, tmp_path / "whole", **SETTINGS[name])
    expected = outcome(whole, whole.train())
    total = whole.plan.total_steps
    assert total == 6
    for step in range(1, total + 1):
        told = stopped(trainer_of(competition, tmp_path / "cut", **SETTINGS[name]))
        on = "the same command goes on from there"
        assert told == (f"stopped at update {step} of {total} of it; {on}", 143, step)
    last = trainer_of(competition, tmp_path / "cut", **SETTINGS[name])
    assert outcome(last, last.train()) == expected
    assert last.dir.rates.read_bytes() == whole.dir.rates.read_bytes()
    if last.probes:
        assert last.dir.learning.read_bytes() == whole.dir.learning.read_bytes()
        assert last.dir.activations.read_bytes() == whole.dir.activations.read_bytes()


@pytest.mark.parametrize("name", ["sgd", "norms", "schedule-free"])
def test_an_evaluation_that_is_given_up_is_made_later(competition, tmp_path, monkeypatch, name):
    if name == "schedule-free":
        pytest.importorskip("schedulefree")
    settings = SETTINGS[name] | {"prediction": {"batch_size": 4}}
    whole = trainer_of(competition, tmp_path / "whole", **settings)
    expected = outcome(whole, whole.train())
    original, batches = Predictor._probabilities, []

    def with_signal(predictor, inputs, *views):
        batches.append(len(inputs))
        signal.raise_signal(signal.SIGINT)
        return original(predictor, inputs, *views)

    monkeypatch.setattr(Predictor, "_probabilities", with_signal)
    for told in ("stopped at update 3 of 6 of it", "stopped after the last update of it"):
        trainer = trainer_of(competition, tmp_path / "cut", **settings)
        with stopping.handled(), stopping.deferred(), pytest.raises(Stopped, match=told) as raised:
            trainer.train("it")
        trainer.close()
        assert raised.value.code == 130
        monkeypatch.undo()
        if "3" in told:  # the first evaluation is made, and then the last one is given up
            made = []

            def from_the_second(predictor, inputs, *views, made=made):
                made.append(len(inputs))
                if len(made) > 3:
                    signal.raise_signal(signal.SIGINT)
                return original(predictor, inputs, *views)

            monkeypatch.setattr(Predictor, "_probabilities", from_the_second)
    assert batches == [4]  # of 12: the batch under way is the last one
    last = trainer_of(competition, tmp_path / "cut", **settings)
    assert last.checkpoints.restore()[0] == 6
    assert outcome(last, last.train()) == expected


def test_what_is_predicted_after_the_training_is_given_up_with_all_that_was_learned(competition, tmp_path):
    whole = trainer_of(competition, tmp_path / "whole", training={"ema": 0.9, "norm_batches": 2})
    expected = outcome(whole, whole.train())
    cut = trainer_of(competition, tmp_path / "cut", training={"ema": 0.9, "norm_batches": 2})
    with stopping.handled(), stopping.deferred():
        cut.train("it")
        assert not cut.dir.resumable  # nothing was due
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(
            Stopped, match="stopped after the last update of it; the same command goes on from there"
        ):
            cut.predict(cut.fold.images, range(9))
    steps = []
    last = trainer_of(competition, tmp_path / "cut", training={"ema": 0.9, "norm_batches": 2})
    assert outcome(last, last.train(on_step=steps.append)) == expected
    assert steps == []


def test_before_the_first_update_nothing_is_written(competition, tmp_path):
    trainer = trainer_of(competition, tmp_path)
    with stopping.handled(), stopping.deferred():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Stopped) as raised:
            trainer.train("it")
    assert str(raised.value) == "stopped before the first update of it; the same command begins it"
    assert raised.value.code == 130
    assert not trainer.dir.resumable


def test_no_checkpoint_is_made_of_a_loss_that_is_not_finite(competition, tmp_path):
    """Not even where it had not been looked at."""
    wild = {"uniform": {"lr": 1e30, "schedule": "constant"}}
    trainer = trainer_of(competition, tmp_path, policies=wild, training={"log_every": 100, "epochs": 9})
    original = trainer._update

    def with_signal(step, batches):
        original(step, batches)
        if step == 2:
            signal.raise_signal(signal.SIGTERM)

    trainer._update = with_signal
    with stopping.handled(), stopping.deferred(), pytest.raises(KitError, match=r"the loss is (nan|inf) at step"):
        trainer.train()
    assert not trainer.dir.resumable


def test_once_the_time_is_over_it_stops(competition, tmp_path):
    trainer, asked = trainer_of(competition, tmp_path), []
    with pytest.raises(Stopped) as raised:
        trainer.train("it", expired=lambda: len(asked) > 2 or asked.append(1))
    assert str(raised.value) == (
        "the time is over: stopped at update 3 of 6 of it; the same command goes on from there"
    )
    assert raised.value.code == OUT_OF_TIME
    assert read_checkpoint(trainer.dir.checkpoint)["step"] == 3


@pytest.mark.skipif(stopping.SAVE is None, reason="there is no such signal")
def test_a_checkpoint_is_written_on_demand_and_the_training_goes_on(competition, tmp_path):
    whole = trainer_of(competition, tmp_path / "whole")
    expected = outcome(whole, whole.train())
    trainer, lines, steps = trainer_of(competition, tmp_path / "saved"), [], []
    trainer.checkpoints.say = lines.append
    raises_signal(trainer, "_log_losses", stopping.SAVE)  # after updates 2, 3, 5 and 6
    with stopping.handled(), stopping.deferred():
        result = trainer.train("it", on_step=steps.append)
    assert outcome(trainer, result) == expected
    assert steps == list(range(6))
    assert lines == [f"checkpoint written after update {step} of 6" for step in (2, 3, 5, 6)]
    saved = [read_checkpoint(path) for path in (trainer.dir.checkpoint, trainer.dir.checkpoint_before)]
    assert [(each["step"], each["logged"]) for each in saved] == [(6, 6), (5, 5)]


class Checkpointer:
    step = 0

    def __init__(self):
        self.calls, self.said = [], []
        self.say = self.said.append
        self.accelerator = SimpleNamespace(is_main_process=True)

    def take(self, done, logged):
        self.calls.append((done, logged))
        self.step = done

    def finish(self):
        self.calls.append("finish")


@pytest.mark.parametrize("others", [(143, 0), (0, 1), (1, 0), (0, 0)])
def test_several_processes_stop_where_one_of_them_is_asked(monkeypatch, others):
    """They ask each other where they wait for each other, and nowhere else."""
    shared = []

    def all_reduce(mine, operation):
        assert operation == torch.distributed.ReduceOp.MAX
        shared.append(mine.tolist())
        mine.copy_(torch.maximum(mine, torch.tensor(others)))

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    kept = Checkpointer()
    together = SimpleNamespace(num_processes=2, device=torch.device("cpu"), is_main_process=True)
    stops = Stops(kept, together, 10, lambda first, done: None)
    stops.look(3, 0, together=False)
    assert shared == []
    if others[0]:
        said = r"stopped at update 4 of 10 .*; the same command goes on from there"
        with pytest.raises(Stopped, match=said) as raised:
            stops.look(4, 4, together=True)
        assert raised.value.code == others[0]
    else:
        stops.look(4, 4, together=True)
    assert shared == [[0, 0]]
    assert kept.calls == ([(4, 4), "finish"] if any(others) else [])
    assert kept.said == (["checkpoint written after update 4 of 10"] if others == (0, 1) else [])
    assert not stops.predicting()


@pytest.mark.parametrize(
    ("before", "where"), [(0, "from the beginning"), (2, "from the checkpoint after update 2")]
)
def test_what_was_not_saved_is_not_said_to_be(before, where):
    """Weights that are not finite are no checkpoint."""
    kept = Checkpointer()
    kept.step, kept.take = before, lambda done, logged: None
    alone = SimpleNamespace(num_processes=1, device=torch.device("cpu"), is_main_process=True)
    with pytest.raises(Stopped, match=f"not finite and were not saved; the same command goes on {where}$"):
        Stops(kept, alone, 10, lambda first, done: None).stop(4, 4, 143)
