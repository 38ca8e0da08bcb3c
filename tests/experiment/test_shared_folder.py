"""Several processes on one folder, as one of them sees it: the others are claims of machines that do not exist."""

import dataclasses
import json
import shutil
import threading

import pandas as pd
import pytest
from support.colours import experiment_content
from support.foreign_claims import beating, foreign
from support.refusals import refusal_of

from kit import run
from kit.core import claims
from kit.core.runs import ExperimentDir, RunKey
from kit.experiment import runner as kit_runner
from kit.experiment import turns
from kit.experiment.budget_plan import Plan
from kit.experiment.config import validate
from kit.experiment.fingerprint import stored_experiment
from kit.experiment.options import RunOptions
from kit.experiment.runner import Runner
from kit.experiment.shared_folder import MEMBER, RUN, claim_training, join, others_at_work, writing
from kit.experiment.timekeeping import Budget
from kit.experiment.turns import Turns
from kit.training import history

KEYS = [RunKey("uniform", 0, fold) for fold in range(3)]


def experiment(competition, **sections):
    return validate(experiment_content(competition, **{"training": {"epochs": 1}} | sections), "test")


@pytest.fixture(scope="module")
def alone(competition, tmp_path_factory):
    """The output folder of one process that had the folder for itself."""
    output = tmp_path_factory.mktemp("alone")
    run(experiment(competition), output)
    return output


@pytest.fixture
def folder(tmp_path) -> ExperimentDir:
    return ExperimentDir(tmp_path / "runs/tiny")


def files_of(output):
    pooled = [f"runs/tiny/uniform/{name}" for name in ("oof.parquet", "test.parquet", "scores.json")]
    return {name: (output / name).read_bytes() for name in [*pooled, "submissions/tiny.csv"]}


def test_a_run_of_a_machine_that_is_gone_is_taken_over(competition, tmp_path, folder, alone, monkeypatch):
    foreign(folder.run(KEYS[0]).path / RUN)
    monkeypatch.setattr(turns, "TICK", 0.02)
    said = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("waits for"):  # a minute goes by
            monkeypatch.setattr(claims, "PATIENCE", 0.0)

    result = run(experiment(competition), tmp_path, say=say)
    assert (result.trained, result.kept, result.left) == (3, 0, 0)
    scored = [line.split(":")[0] for line in said if "(12 rows)" in line]
    assert scored == [str(KEYS[1]), str(KEYS[2]), str(KEYS[0])]  # what is free comes first
    assert "under way elsewhere: uniform seed 0 fold 0 by process 7 on elsewhere" in said
    assert "waits for process 7 on elsewhere (works, since 2026-01-01)" in said
    assert f"{KEYS[0]}: process 7 on elsewhere, which worked on it, is gone; it is taken over" in said
    assert files_of(tmp_path) == files_of(alone)
    assert not list(folder.path.rglob("*.claim"))


def test_a_run_that_lives_elsewhere_is_waited_for(competition, tmp_path, folder, alone, monkeypatch):
    monkeypatch.setattr(claims, "PATIENCE", 20.0)
    monkeypatch.setattr(turns, "TICK", 0.02)
    said = []
    with beating(folder.run(KEYS[1]).path / RUN) as over:

        def say(line: str) -> None:
            said.append(line)
            if line.startswith("waits for"):  # the other one is done
                there = alone / "runs/tiny/uniform/seed0/fold1"
                shutil.copytree(there, folder.run(KEYS[1]).path, dirs_exist_ok=True)
                over.set()

        result = run(experiment(competition), tmp_path, say=say)
    assert (result.trained, result.kept, result.left) == (2, 1, 0)
    assert [line.split(":")[0] for line in said if "(12 rows)" in line] == [str(KEYS[0]), str(KEYS[2])]
    assert files_of(tmp_path) == files_of(alone)


def test_nothing_is_replaced_while_another_is_at_work(competition, tmp_path, folder, alone, monkeypatch):
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(claims, "PATIENCE", 20.0)
    other = experiment(competition, training={"epochs": 1, "batch_size": 6})
    with beating(folder.path / f"{MEMBER}-1"):
        assert refusal_of(run, other, RunOptions(tmp_path, replace=True)) == (
            f"{folder.path} was made from another config (training.batch_size: 8 there, 6 here), and process 7 on "
            "elsewhere (works, since 2026-01-01) is at work there, so it is not replaced; wait until that has "
            "ended, end it, or give the experiment another name (--set name=...)"
        )
    assert files_of(tmp_path) == files_of(alone)
    monkeypatch.setattr(claims, "PATIENCE", 0.3)
    foreign(folder.path / f"{MEMBER}-2")
    said = []
    assert run(other, RunOptions(tmp_path, replace=True), say=said.append).trained == 3
    assert "looks whether process 7 on elsewhere (works, since 2026-01-01) still lives" in said
    assert not list(folder.path.rglob("*.claim"))


def test_a_folder_without_runs_is_not_replaced_either(competition, tmp_path, folder):
    with Runner.set_up(experiment(competition), tmp_path):  # it is about to train
        other = experiment(competition, training={"epochs": 2})
        (claim,) = folder.path.glob("*.claim")
        content = json.loads(claim.read_text())
        with beating(claim.with_name("member-x")):
            assert "is at work there" in refusal_of(run, other, tmp_path)
        assert json.loads(claim.read_text())["pid"] == content["pid"]


class TestOnePlan:
    """Two processes that begin at once follow one fold plan."""

    @pytest.fixture
    def given(self, competition, tmp_path):
        ids = pd.read_csv(competition / "train.csv")["id"]
        pd.DataFrame({"id": ids, "fold": [row // 12 for row in range(36)]}).to_csv(
            tmp_path / "plan.csv", index=False
        )
        return tmp_path / "plan.csv"

    def test_that_of_the_first(self, competition, tmp_path, folder, given):
        with (
            Runner.set_up(experiment(competition), RunOptions(tmp_path, folds=given)) as first,
            beating(folder.path / f"{MEMBER}-other"),
            Runner.set_up(experiment(competition), tmp_path) as second,
        ):
            assert second.loaded.folds.digest == first.loaded.folds.digest

    def test_also_where_that_came_while_this_one_prepared(self, competition, tmp_path, folder, given, monkeypatch):
        """The other process is set up between this one's look at the folder and its turn to write."""
        decode, prepared = kit_runner.decode, []

        def slowly(*arguments):
            made = decode(*arguments)
            prepared.append(made[0].folds.digest)
            if len(prepared) == 1:
                with Runner.set_up(experiment(competition), RunOptions(tmp_path, folds=given)) as first:
                    prepared[1:] = [first.loaded.folds.digest]  # of the call within
                foreign(folder.path / f"{MEMBER}-other")
            return made

        monkeypatch.setattr(kit_runner, "decode", slowly)
        with Runner.set_up(experiment(competition), tmp_path) as runner:
            assert runner.loaded.folds.digest == prepared[1] != prepared[0]
        assert pd.read_csv(folder.folds)["fold"].tolist() == [row // 12 for row in range(36)]

    def test_one_that_is_given_is_refused(self, competition, tmp_path, folder, given):
        with Runner.set_up(experiment(competition), tmp_path), beating(folder.path / f"{MEMBER}-other"):
            assert refusal_of(Runner.set_up, experiment(competition), RunOptions(tmp_path, folds=given)) == (
                f"--folds {given}: process 7 on elsewhere (works, since 2026-01-01) works in {folder.path} and "
                "follows another plan; leave --folds out, or give the experiment another name (--set name=...)"
            )


def test_policies_that_two_processes_bring_are_all_kept(competition, tmp_path, folder):
    """The second reads the stored config only when the first has written it."""
    other = experiment_content(competition, training={"epochs": 1}) | {"policies": {"late": {"lr": 1e-3}}}
    done = threading.Event()

    def bring() -> None:
        with Runner.set_up(validate(other, "test"), tmp_path):
            done.set()

    with writing(folder, "sets up tiny"):
        thread = threading.Thread(target=bring)
        thread.start()
        assert not done.wait(0.5)
        folder.config.write_text(experiment(competition).to_yaml())
    thread.join(60)
    assert list(stored_experiment(folder).policies) == ["uniform", "late"]


def test_a_process_that_was_taken_for_dead_stops_and_writes_nothing(competition, tmp_path, folder, monkeypatch):
    """As a laptop that slept: another one works on its run when it wakes up."""
    path = folder.run(KEYS[0]).path
    append = history.append_history

    def sleeping(file, line):
        append(file, line)
        foreign(path / RUN, 2)

    monkeypatch.setattr(history, "append_history", sleeping)
    message = refusal_of(run, experiment(competition, training={"epochs": 2, "log_every": 1}), tmp_path)
    assert message.startswith(f"{path / RUN}: this process was not heard of for 60 s and was taken for dead")
    assert "by process 7 on elsewhere (works" in message
    assert json.loads((path / RUN).read_text())["status"] == "running"  # not "failed": that is the other's now
    assert len((path / "history.jsonl").read_text().splitlines()) == 1
    assert sorted(each.name for each in path.iterdir() if each.suffix not in (".pt", ".claim")) == [
        "history.jsonl", "run.json",
    ]  # fmt: skip


def test_what_was_finished_meanwhile_is_not_trained(tmp_path, folder):
    asked = []
    assert claim_training(folder.run(KEYS[0]), KEYS[0], lambda key: not asked.append(key)) is None
    assert asked == [KEYS[0]]
    assert not list(folder.path.rglob("*.claim"))


def test_members_that_are_gone_leave_no_claims(folder):
    first = join(folder, "runs tiny")
    stale = dataclasses.replace(claims.Owner.mine(), started=1)
    (folder.path / "member-dead.1.claim").write_text(
        json.dumps({**dataclasses.asdict(stale), "what": "runs", "since": "", "beat": 0})
    )
    assert others_at_work(folder) == []
    second = join(folder, "runs tiny")
    assert len(list(folder.path.glob("*.claim"))) == 2
    first.release()
    second.release()


def turns_of(keys, folder, say=lambda line: None, settled=(), **budget) -> Turns:
    plan = Plan(Budget(**budget), list(keys), list(keys), {}, {})
    return Turns(keys, folder, lambda key: key in settled, plan, say)


@pytest.mark.parametrize(
    ("elsewhere", "settled"), [((), ()), ((0,), ()), ((1,), (0,)), ((0, 1, 2), ()), ((), (2,))]
)
def test_the_runs_that_nobody_else_has_come_in_their_order(folder, elsewhere, settled):
    for fold in elsewhere:
        foreign(folder.run(KEYS[fold]).path / RUN)
    mine = turns_of(KEYS, folder, settled=[KEYS[fold] for fold in settled])
    taken = []
    while (each := mine.take()) is not None:
        taken.append(each[0])
        each[1].release()
    assert taken == [key for key in KEYS if key.fold not in (*elsewhere, *settled)]


class TestDeadline:
    """Nobody is waited for beyond it."""

    @pytest.fixture
    def clock(self, monkeypatch):
        now, sleep, mine = [100.0], turns.time.sleep, threading.get_ident()

        def passed(seconds):
            if threading.get_ident() != mine:  # a claim's thread, which beats
                sleep(seconds)
            else:
                now[0] += max(seconds, 0.01)

        monkeypatch.setattr(turns.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(turns.time, "sleep", passed)
        return now

    def test_waiting_ends_with_it(self, folder, clock):
        foreign(folder.run(KEYS[0]).path / RUN)
        said = []
        waiting = turns_of(KEYS[:1], folder, said.append, seconds=10.0, since=100.0, reserve=2.5)
        assert waiting.take() is None
        assert waiting.wait() is False
        assert clock[0] == pytest.approx(107.5)
        assert said == ["waits for process 7 on elsewhere (works, since 2026-01-01)"]

    def test_without_one_a_claim_that_does_not_beat_is_waited_for_a_minute(self, folder, clock):
        foreign(folder.run(KEYS[0]).path / RUN)
        waiting = turns_of(KEYS[:1], folder)
        assert waiting.take() is None
        while waiting.wait() and (taken := waiting.take()) is None:
            pass
        assert taken[0] == KEYS[0]
        assert 160 < clock[0] < 163
        taken[1].release()
