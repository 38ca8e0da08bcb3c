"""Checkpoints: the same bits back, two kept, damage noticed, when they are due, and what they cost the loop."""

import hashlib
import os
import shutil
import threading

import pytest
import torch
from support.commands import config_file, kit_here
from support.refusals import refusal_of
from support.trainings import Killed, kill_at, outcome, trainer_of

from kit.core.errors import Damaged, KitError
from kit.core.runs import RunDir
from kit.training import checkpoint
from kit.training.checkpoint import Checkpoints, host_copy, read_checkpoint, size_of, write_checkpoint

EACH = {"training": {"checkpoint_minutes": 0, "log_every": 1}}


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path / "seed0/fold0")


def state_of(step):
    return {"step": step, "weights": {"a": torch.arange(6.0).reshape(2, 3).t() + step}, "betas": (0.9, 0.99)}


def test_a_checkpoint_comes_back_as_it_was(run):
    write_checkpoint(run, state_of(1))
    state = read_checkpoint(run.checkpoint)
    assert state["step"] == 1
    assert state["betas"] == (0.9, 0.99)
    assert torch.equal(state["weights"]["a"], state_of(1)["weights"]["a"])
    assert state["weights"]["a"].stride() == (1, 3)
    content = run.checkpoint.read_bytes()  # its end, by another reader
    assert content[-32:] == hashlib.sha256(content[:-40]).digest()
    assert content[-40:-32] == b"kit-ckp1"


def test_it_is_read_by_the_cpu_and_its_weights_go_to_where_they_lie(competition, tmp_path, monkeypatch):
    settings = EACH | {"policies": {"uniform": {"lr": 1e-2, "controller": "constant_update"}}}
    first = trainer_of(competition, tmp_path, **settings)
    with pytest.raises(Killed):
        first.train(on_step=kill_at(3))
    places, load = [], torch.load

    def noting(file, map_location, **options):
        places.append(map_location)
        return load(file, map_location=map_location, **options)

    monkeypatch.setattr(torch, "load", noting)
    second = trainer_of(competition, tmp_path, **settings)
    kept = [*second.model.parameters(), *second.model.buffers(), second.losses]
    addresses = [value.data_ptr() for value in kept]
    assert second.checkpoints.restore()[0] == 4
    assert places == ["cpu"]
    assert [value.data_ptr() for value in kept] == addresses
    for mine, theirs in zip(second.model.state_dict().values(), first.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_whole_one_that_cannot_be_loaded_is_not_passed_over(run):
    write_checkpoint(run, {"step": 1, "odd": OnCuda()})
    line = refusal_of(read_checkpoint, run.checkpoint)
    assert line.startswith(f"{run.checkpoint} cannot be loaded (")
    assert line.endswith("; delete it to begin this run anew")


def test_the_last_two_are_kept(run):
    for step in (1, 2, 3):
        write_checkpoint(run, state_of(step))
    assert [read_checkpoint(path)["step"] for path in (run.checkpoint, run.checkpoint_before)] == [3, 2]
    write_checkpoint(run, state_of(4), keep=False)  # the newest was damaged: the one before stays
    assert [read_checkpoint(path)["step"] for path in (run.checkpoint, run.checkpoint_before)] == [4, 2]


@pytest.mark.parametrize("moment", range(8))
def test_an_end_at_any_moment_of_writing_leaves_a_whole_one(run, monkeypatch, moment):
    """Whatever call to the system is the last one."""
    for step in (1, 2):
        write_checkpoint(run, state_of(step))
    calls = []

    def last(original):
        def call(*arguments, **keywords):
            calls.append(1)
            if len(calls) > moment:
                raise SystemExit  # as a kill: nothing follows
            return original(*arguments, **keywords)

        return call

    for owner, name in ((os, "replace"), (os, "fsync"), (torch, "save"), (type(run.path), "replace")):
        monkeypatch.setattr(owner, name, last(getattr(owner, name)))
    try:
        write_checkpoint(run, state_of(3))
        ended = False
    except SystemExit:
        ended = True
    monkeypatch.undo()
    newest = next(path for path in (run.checkpoint, run.checkpoint_before) if path.is_file())
    assert read_checkpoint(newest)["step"] == (2 if ended else 3)
    assert ended or moment >= 4


def test_every_flipped_bit_cut_and_zeroed_block_is_noticed(run):
    write_checkpoint(run, state_of(1))
    whole = run.checkpoint.read_bytes()
    damaged = [whole[:length] for length in (0, 1, 39, 40, 41, len(whole) // 2, len(whole) - 1)]
    for place in range(0, len(whole), max(1, len(whole) // 97)):
        damaged.append(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    damaged += [whole + b"\0", bytes(len(whole)), whole[:100] + bytes(200) + whole[300:]]
    for content in damaged:
        run.checkpoint.write_bytes(content)
        with pytest.raises(Damaged, match=r"checkpoint.pt is damaged \("):
            read_checkpoint(run.checkpoint)


def killed(competition, output, last, **settings):
    first = trainer_of(competition, output, **(EACH | settings))
    with pytest.raises(Killed):
        first.train(on_step=kill_at(last))
    return first.dir


def resumed(competition, output, **settings):
    trainer, lines, steps = trainer_of(competition, output, **(EACH | settings)), [], []
    trainer.checkpoints.say = lines.append
    return outcome(trainer, trainer.train(on_step=steps.append)), lines, steps


def test_damage_is_said_and_never_changes_a_bit(competition, tmp_path):
    expected, said, _ = resumed(competition, tmp_path / "whole")
    assert said == []

    run = killed(competition, tmp_path / "newest", 3)
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:-9])
    result, said, steps = resumed(competition, tmp_path / "newest")
    assert said == [
        f"{run.checkpoint} is damaged (its end is missing); the checkpoint before, after update 3, is used",
        "goes on from the checkpoint before",
    ]
    assert steps[0] == 3
    assert result == expected

    run = killed(competition, tmp_path / "both", 3)
    run.checkpoint.write_bytes(b"")
    content = bytearray(run.checkpoint_before.read_bytes())
    content[len(content) // 2] ^= 1
    run.checkpoint_before.write_bytes(content)
    result, said, steps = resumed(competition, tmp_path / "both")
    assert said == [
        f"{run.checkpoint} is damaged (it is empty); it is not used",
        f"{run.checkpoint_before} is damaged (it does not hold what was written); the run begins anew",
    ]
    assert steps[0] == 0
    assert result == expected


def test_the_one_that_was_used_survives_the_next_write(competition, tmp_path):
    """The damaged one must not take the place of the one before."""
    run = killed(competition, tmp_path, 3)
    run.checkpoint.write_bytes(b"damaged")
    trainer = trainer_of(competition, tmp_path, **EACH)
    with pytest.raises(Killed):
        trainer.train(on_step=kill_at(3))
    assert [read_checkpoint(path)["step"] for path in (run.checkpoint, run.checkpoint_before)] == [4, 3]


def test_the_checkpoint_of_another_run_is_not_taken(competition, tmp_path):
    """Of another rate, which fits in every shape."""
    other = killed(competition, tmp_path / "other", 3, policies={"uniform": {"lr": 1e-4}})
    expected, _, _ = resumed(competition, tmp_path / "whole")
    run = killed(competition, tmp_path / "mine", 0)
    shutil.copy(other.checkpoint, run.checkpoint)
    result, said, steps = resumed(competition, tmp_path / "mine")
    assert said == [f"{run.checkpoint} is of another run, or of another config; the run begins anew"]
    assert steps[0] == 0
    assert result == expected


@pytest.mark.parametrize("damage", ["cut", "empty", "earlier version"])
def test_a_damaged_checkpoint_is_no_traceback_for_the_user(competition, tmp_path, monkeypatch, capsys, damage):
    config = config_file(competition, tmp_path / "config.yaml", folds={"run": [0]})
    run = RunDir(tmp_path / "runs/tiny/uniform/seed0/fold0")
    run.path.mkdir(parents=True)
    torch.save({"step": 1, "x": torch.zeros(9999)}, run.checkpoint)
    if damage != "earlier version":
        os.truncate(run.checkpoint, {"cut": 9000, "empty": 0}[damage])
    code, output, errors = kit_here(monkeypatch, capsys, "run", str(config), "--output", str(tmp_path))
    assert (code, errors) == (0, "")
    what = "it is empty" if damage == "empty" else "its end is missing"
    assert f"uniform seed 0 fold 0: {run.checkpoint} is damaged ({what}); the run begins anew" in output
    assert not run.resumable


def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    return now


class Standing:
    """An Accelerator as Checkpoints asks it."""

    is_main_process, num_processes, mixed_precision, device = True, 1, "no", torch.device("cpu")


def checkpoints_of(run, minutes=5.0, parts=None):
    return Checkpoints(run, minutes, Standing(), parts or {}, torch.zeros(3), [])


def test_at_the_end_of_an_epoch_one_is_written_where_it_costs_no_more_than_a_hundredth(run, monkeypatch):
    now = clock(monkeypatch)
    model = torch.nn.Linear(1000, 375)  # with its bias 1.5 MB: .01 s and .01 s
    kept = checkpoints_of(run, parts={"model": model})
    taken = []

    def takes(state, arrived, began):
        taken.append(began)
        kept._seconds = 0.5  # what it took

    monkeypatch.setattr(kept, "_write", takes)
    for second in range(1, 130):
        now[0] = second
        kept.offer(second, second, epoch_ends=True)
        kept.offer(second, second, epoch_ends=False)
        kept._wait()
    assert taken == [3, 53, 103]  # after 100 × .02 s, then every 100 × .5 s


def test_by_time_one_is_written_whatever_it_costs_but_never_two_at_a_time(run, monkeypatch):
    now, going_on, taken = clock(monkeypatch), threading.Event(), []
    kept = checkpoints_of(run, minutes=5)

    def takes(state, arrived, began):
        taken.append(began)
        kept._seconds = 1000.0
        going_on.wait(10)

    monkeypatch.setattr(kept, "_write", takes)
    for second in (299, 300, 600, 700):  # the first is still being written
        now[0] = second
        kept.offer(second, second, epoch_ends=False)
    assert taken == [300]
    going_on.set()
    kept._wait()
    now[0] = 701
    kept.offer(701, 701, epoch_ends=False)
    kept.close()
    assert taken == [300, 701]


def test_the_loop_is_not_held_up_and_what_follows_changes_nothing(run, monkeypatch):
    going_on, model = threading.Event(), torch.nn.Linear(2, 2)
    before = model.weight.detach().clone()
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda *arguments: (going_on.wait(10), save(*arguments)))
    kept = checkpoints_of(run, parts={"model": model})
    kept.history.append({"step": 1, "loss": 2.0})
    kept.take(1, 1)
    with torch.no_grad():
        model.weight.zero_()
    kept.losses.fill_(9)
    kept.history.append({"step": 2, "loss": 1.0})
    going_on.set()
    kept.finish()
    state = read_checkpoint(run.checkpoint)
    assert torch.equal(state["model"]["weight"], before)
    assert state["losses"].tolist() == [0, 0, 0]
    assert state["history"] == [{"step": 1, "loss": 2.0}]


def test_what_is_held_is_written_only_when_asked_for(run):
    model = torch.nn.Linear(2, 2)
    kept = checkpoints_of(run, parts={"model": model})
    kept.hold(7, 7)
    assert not run.resumable
    with torch.no_grad():
        model.weight.zero_()
    kept.finish()
    state = read_checkpoint(run.checkpoint)
    assert (state["step"], kept.step) == (7, 7)
    assert state["model"]["weight"].abs().min() > 0
    kept.hold(7, 7)
    kept.finish()  # it is on disk already
    assert not run.checkpoint_before.exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file data/1"),
    ],
)
def test_a_checkpoint_that_cannot_be_written_ends_the_training_in_one_line(run, monkeypatch, error):
    model = torch.nn.Linear(1000, 500)
    kept = checkpoints_of(run, parts={"model": model}, minutes=0)
    kept.take(3, 3)
    kept.finish()

    def fails(*_):
        raise error

    monkeypatch.setattr(torch, "save", fails)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 10))
    kept.take(4, 4)
    kept.close()
    line = (
        f"{run.checkpoint} could not be written: the disk is full; it needs 2.0 MB, and 10 bytes are free; "
        "make room, and the same command goes on from what is there"
    )
    assert refusal_of(kept.offer, 5, 5, False) == line
    assert read_checkpoint(run.checkpoint)["step"] == 3
    assert [path.name for path in run.path.iterdir()] == ["checkpoint.pt"]


def test_the_checkpoint_of_a_failing_thread_ends_the_training(competition, tmp_path, monkeypatch):
    trainer = trainer_of(competition, tmp_path, **EACH)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        KitError, match=r"checkpoint.pt could not be written: the disk is full.* the same command goes on"
    ):
        trainer.train()


class OnCuda:
    """CUDA's part of `host_copy`, on a machine without: copies arrive when the event is waited for."""

    def __init__(self):
        self.waited, self.recorded = 0, 0

    def record(self):
        self.recorded += 1

    def synchronize(self):
        self.waited += 1


def test_from_a_gpu_the_copy_is_pinned_and_waited_for_by_who_reads_it(monkeypatch):
    event, asked = OnCuda(), []

    class Tensor(torch.Tensor):
        device = torch.device("cuda", 0)

    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(torch.cuda, "device", lambda device: __import__("contextlib").nullcontext())

    def empty_like(value, **keywords):
        asked.append(keywords)
        return torch.zeros(value.shape)

    value = torch.arange(4.0).as_subclass(Tensor)
    monkeypatch.setattr(torch, "empty_like", empty_like)
    state, arrived = host_copy({"a": [value], "b": torch.ones(2), "c": (1, "x")})
    assert asked == [{"device": "cpu", "pin_memory": True, "requires_grad": False}]
    assert (event.recorded, event.waited) == (1, 0)
    arrived()
    assert event.waited == 1
    assert state["a"][0].tolist() == [0, 1, 2, 3]
    assert (state["b"].tolist(), state["c"]) == ([1, 1], (1, "x"))


@pytest.mark.gpu
def test_on_a_gpu_kernels_that_follow_do_not_change_the_copy():
    value = torch.zeros(50_000_000, device="cuda")
    for round in range(5):
        value.fill_(round)
        state, arrived = host_copy({"value": value})
        value.fill_(-1)
        arrived()
        assert state["value"].is_pinned()
        assert (state["value"] == round).all()


def test_the_size_of_a_state_is_that_of_its_tensors():
    assert size_of({"a": [torch.zeros(3, dtype=torch.float64)], "b": (torch.zeros(2), 5), "c": "x"}) == 24 + 8
