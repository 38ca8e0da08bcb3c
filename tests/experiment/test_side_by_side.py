"""How runs share a machine: the choice by what was measured, threads and memory, and what is measured."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.colours import experiment_content
from support.refusals import refusal_of

from kit import run
from kit.core.errors import KitError
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunKey, RunRecord
from kit.data.device import batches
from kit.data.device import resident as resident_module
from kit.data.device.resident import resident
from kit.experiment import side_by_side
from kit.experiment.config import validate
from kit.experiment.options import RunOptions
from kit.experiment.prepare import prepare
from kit.experiment.side_by_side import (
    Measured,
    Meter,
    Pace,
    Sharing,
    SideBySide,
    Trial,
    choose,
    measure,
    shares,
    stated_threads,
)
from kit.training.trainer import Trainer

CPU = SimpleNamespace(num_processes=1, process_index=0, device=torch.device("cpu"))
GPU = SimpleNamespace(num_processes=1, process_index=0, device=torch.device("cuda"))
KEYS = [RunKey("uniform", 0, fold) for fold in range(3)]


def experiment(folder, **sections):
    return validate(experiment_content(folder, **sections), "test")


@pytest.fixture(scope="module")
def prepared(competition, tmp_path_factory):
    """An experiment of three folds and 400 epochs that is ready to train, and its data."""
    output = tmp_path_factory.mktemp("prepared")
    config = experiment(competition, training={"epochs": 400, "device": "auto"}, data={"workers": "auto"})
    return prepare(config, ExperimentDir(output / "runs/tiny"), OutputDirs.at(output))


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many cores and GPUs, where trainings side by side have these paces in sum."""

    def of(cores, speeds, gpus=0, memory=1.0, free=100.0):
        monkeypatch.setattr(side_by_side, "cores", lambda: cores)
        monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(side_by_side, "_free", lambda gpus: free * max(1, gpus))
        monkeypatch.setattr(side_by_side, "_resident", lambda: memory)
        monkeypatch.setattr(side_by_side, "measure", lambda trial: Pace(1.0, memory, free))
        asked = []

        def together(task, trials, jobs, name, threads):
            assert len(trials) == jobs
            asked.append((jobs, threads))
            return [Pace(speeds[jobs] / jobs, memory, free - memory * -(-jobs // max(1, gpus)))] * jobs

        monkeypatch.setattr(side_by_side, "run_parallel", together)
        return asked

    return of


def test_cores_are_shared_out():
    assert shares(2, 20) == [Sharing(1, 2), Sharing(2, 1)]
    assert shares(6, 20) == [Sharing(1, 6), Sharing(2, 3), Sharing(4, 1), Sharing(6, 1)]
    assert shares(8, 3) == [Sharing(1, 8), Sharing(2, 4), Sharing(3, 2)]
    assert shares(1, 20) == [Sharing(1, 1)]


@given(st.integers(1, 256), st.integers(1, 300))
def test_no_more_threads_than_cores(cores, due):
    ways = shares(cores, due)
    assert ways[0] == Sharing(1, cores)
    assert ways[-1].jobs == min(cores, due)
    assert all(way.jobs * way.threads <= cores for way in ways)


@pytest.mark.parametrize(
    ("speeds", "due", "free", "jobs"),
    [
        ({1: 400, 2: 610}, 20, 10.0, 2),
        ({1: 400, 2: 415}, 20, 10.0, 1),  # hardly faster
        ({1: 400, 2: 500}, 3, 10.0, 1),  # the third alone takes a whole round: 4 / 500 against 3 / 400
        ({1: 400, 2: 600}, 3, 10.0, 2),
        ({1: 400, 2: 800, 4: 1600}, 20, 2.5, 2),  # four do not fit
        ({1: 400, 2: 390, 4: 900}, 20, 10.0, 4),
    ],
)
def test_what_ends_first_is_chosen(speeds, due, free, jobs):
    measured = [Measured(Sharing(number, 1), speed, 1.0) for number, speed in speeds.items()]
    assert choose(measured, due, free).sharing.jobs == jobs


def test_auto_measures_once_and_says_what_it_chose(prepared, machine):
    loaded, data = prepared
    asked, said, sharing = machine(2, {1: 400, 2: 610}), [], SideBySide()
    assert sharing.share(KEYS * 2, loaded, data, CPU, said.append) == Sharing(2, 1)
    assert asked == [(1, 2), (2, 1)]
    assert said[1] == (
        "images a second side by side: 1 × 2 threads 400, 2 × 1 thread 610; trains 2 × 1 thread "
        "(--jobs takes another number)"
    )
    assert sharing.share(KEYS[:1], loaded, data, CPU, said.append) == Sharing(1, 1)  # one number of threads
    assert len(asked) == 2


def test_auto_on_a_gpu_goes_on_while_the_sum_grows_and_memory_suffices(prepared, machine):
    loaded, data = prepared
    due = KEYS * 10
    asked = machine(8, {1: 100, 2: 190, 4: 300, 8: 310, 16: 0}, gpus=1)
    assert SideBySide().share(due, loaded, data, GPU, print) == Sharing(4, 2)
    assert [jobs for jobs, _ in asked] == [1, 2, 4, 8]
    asked = machine(8, {1: 100, 2: 190, 4: 300}, gpus=1, memory=30.0)
    assert SideBySide().share(due, loaded, data, GPU, print).jobs == 2
    assert [jobs for jobs, _ in asked] == [1, 2]


def test_auto_does_not_measure_where_that_does_not_pay(prepared, machine, monkeypatch):
    loaded, data = prepared
    asked = machine(4, {})
    monkeypatch.setattr(side_by_side, "measure", lambda trial: Pace(1e6, 1.0, 1.0))
    assert SideBySide().share(KEYS, loaded, data, CPU, print) == Sharing(1, None)
    monkeypatch.setattr(side_by_side, "UPDATES", 10**9)
    monkeypatch.setattr(side_by_side, "measure", None)
    assert SideBySide().share(KEYS, loaded, data, CPU, print) == Sharing(1, None)
    assert SideBySide(threads=3).share(KEYS, loaded, data, CPU, print) == Sharing(1, 3)
    assert asked == []


def test_where_measuring_fails_one_is_trained_at_a_time(prepared, machine, monkeypatch):
    loaded, data = prepared
    machine(2, {})

    def fails(*_, **__):
        raise KitError("a process was killed; take less")

    monkeypatch.setattr(side_by_side, "run_parallel", fails)
    said = []
    assert SideBySide().share(KEYS, loaded, data, CPU, said.append) == Sharing(1, None)
    assert said[-1] == "measured no further: a process was killed; take less"


def test_threads_that_are_stated_are_not_measured(prepared, machine):
    loaded, data = prepared
    asked = machine(8, {})
    assert SideBySide(threads=2).share(KEYS * 2, loaded, data, CPU, print) == Sharing(4, 2)
    assert SideBySide(jobs=3).share(KEYS, loaded, data, CPU, print) == Sharing(3, 2)
    assert SideBySide(jobs=3, threads=5).share(KEYS, loaded, data, CPU, print) == Sharing(3, 5)
    assert asked == []


def test_the_runs_that_are_there_state_the_threads(prepared, machine, tmp_path):
    folder = ExperimentDir(tmp_path / "runs/tiny")
    record = RunRecord(policy="uniform", seed=0, fold=0, status="finished", device="cpu", threads=4)
    folder.run(record.key).write(record)
    assert stated_threads(folder) == 4
    said = []
    loaded = SimpleNamespace(folder=folder, config=prepared[0].config)
    machine(8, {})
    assert SideBySide(jobs=2).share(KEYS, loaded, prepared[1], CPU, said.append) == Sharing(2, 4)
    assert said == ["trains with 4 threads each, as the runs that are there; --threads takes another number"]
    machine(2, {})
    assert SideBySide(jobs=2).share(KEYS, loaded, prepared[1], CPU, said.append) == Sharing(2, 1)
    assert "this machine has 2 cores" in said[-1]


def test_more_than_the_gpu_holds_are_refused(prepared, machine):
    loaded, data = prepared
    gib = 2.0**30
    machine(8, {1: 100}, gpus=2, memory=3 * gib, free=15 * gib)
    assert SideBySide(jobs=3).share(KEYS, loaded, data, GPU, print).jobs == 3
    assert refusal_of(lambda: SideBySide(jobs=9).share(KEYS * 4, loaded, data, GPU, print)) == (
        "--jobs 9: a training takes 3.0 GiB of a GPU, 15.0 GiB are free: take --jobs 8 at most, or a smaller "
        "training.batch_size"
    )


def test_a_measurement_makes_updates_and_leaves_nothing(two_threads, prepared, monkeypatch):
    loaded, data = prepared
    made, update = [], Trainer._update
    monkeypatch.setattr(Trainer, "_update", lambda self, *rest: (made.append(1), update(self, *rest))[1])
    pace = measure(Trial(KEYS[0], loaded, data, 1, None, 1, seconds=0.2))
    assert len(made) > side_by_side.WARM_UP
    assert pace.speed > 0
    assert pace.memory > 1e7
    assert not loaded.folder.run(KEYS[0]).path.exists()
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_processes_that_are_measured_have_their_threads(prepared, monkeypatch):
    """Two real ones."""
    monkeypatch.setattr(side_by_side, "SECONDS", 0.2)
    loaded, data = prepared
    measured = Meter(KEYS, loaded, data, CPU).of(Sharing(2, 1))
    assert measured.sharing == Sharing(2, 1)
    assert measured.speed > 0


def test_a_run_goes_on_with_the_threads_it_began_with(competition, tmp_path, monkeypatch):
    config = experiment(competition, folds={"run": [0]}, training={"epochs": 2, "checkpoint_minutes": 0})
    run(config, RunOptions(tmp_path / "whole", threads=1))
    update = Trainer._update

    def killed(trainer, step, batches):
        if step == 4:
            raise KeyboardInterrupt
        update(trainer, step, batches)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        patch.setattr(Trainer, "_update", killed)
        run(config, RunOptions(tmp_path / "killed", threads=1))
    said = []
    run(config, RunOptions(tmp_path / "killed", threads=2), say=said.append)
    assert (
        "uniform seed 0 fold 0: goes on with 1 thread, as it began, not with 2: others would give other bits"
        in said
    )
    place = "runs/tiny/uniform/seed0/fold0/weights.safetensors"
    assert (tmp_path / "whole" / place).read_bytes() == (tmp_path / "killed" / place).read_bytes()
    assert ExperimentDir(tmp_path / "killed/runs/tiny").run(KEYS[0]).record.threads == 1


@pytest.mark.parametrize("threads", [0, -2])
def test_a_number_of_threads_that_is_none_is_refused(threads):
    assert refusal_of(lambda: RunOptions(threads=threads)) == f"--threads {threads}: expected a number from 1"


def test_what_was_measured_leaves_no_images_on_the_device(prepared, monkeypatch):
    asked = []
    monkeypatch.setattr(batches, "resident", lambda *arguments: asked.append(1) or resident(*arguments))
    monkeypatch.setattr(batches, "augments_on_device", lambda config, device: True)
    measure(Trial(KEYS[0], *prepared, 1, None, 1, seconds=0.0))
    assert asked
    assert not resident_module._kept


@pytest.mark.gpu
def test_a_gpu_is_measured(prepared):
    loaded, data = prepared
    pace = measure(Trial(KEYS[0], loaded, data, 1, None, 1, seconds=0.2))
    assert 0 < pace.memory < pace.free
