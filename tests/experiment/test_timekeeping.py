"""The clock of a command: simulated runs with known paces, whole experiments under a clock that a test moves."""

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.colours import experiment_content
from support.commands import ROOT
from support.faketime import LIBRARY, clock_of, set_clock
from support.refusals import refusal_of

from kit import run
from kit.comparison.compare import compare
from kit.core.runs import ExperimentDir, RunKey, RunRecord, read_predictions
from kit.core.stopping import Stopped
from kit.experiment.budget import MARGIN, Pace, Work, by_unit
from kit.experiment.budget_plan import Plan
from kit.experiment.config import validate
from kit.experiment.options import RunOptions, seconds_of
from kit.experiment.run_clock import RunClock
from kit.experiment.timekeeping import LEAST, SHARE, Budget, pace_of
from kit.training.predict import Predictor
from kit.training.trainer import Trainer


class Simulated:
    """A run's folder, as far as a plan looks at it."""

    def __init__(self, key: RunKey):
        self.key, self.finished, self.begun = key, False, False
        self.resumable = False
        self.record = RunRecord(policy=key.policy, seed=key.seed, fold=key.fold)


class Simulation:
    """Trains runs on paper: every update, image and start takes what `truth` says."""

    def __init__(self, seconds, work, truth, seeds=2, folds=3, policies=("flat", "steep")):
        self.now, self.truth, self.work = 0.0, truth, work
        keys = by_unit(
            [RunKey(p, s, f) for p in policies for s in range(seeds) for f in range(folds)],
            range(seeds),
            range(folds),
        )
        self.runs = {key: Simulated(key) for key in keys}
        self.budget = Budget(seconds, since=0.0)
        self.plan = Plan(self.budget, keys, keys, dict.fromkeys(keys, work), self.runs, asked={"turns": ["hflip"]})
        self.said: list[str] = []
        self.stopped: list[RunKey] = []
        self.views: dict[RunKey, bool] = {}

    def look(self, clock, images):
        """An evaluation before the end: of the plain view."""
        self.now += images * self.truth.image
        clock.predicted(images, images * self.truth.image)

    def predict(self, clock, images):
        number = images * (self.work.views if clock.all_views() else 1)
        self.now += number * self.truth.image
        clock.predicted(number, number * self.truth.image)

    def train(self, key):
        began, clock, work = self.now, RunClock(self.plan, key, self.said.append), self.work
        self.runs[key].begun = True
        self.runs[key].record = self.runs[key].record.with_fields(status="running")
        self.now += self.truth.other
        for step in range(work.updates):
            self.now += self.truth.update
            clock.stepped(step)
            done = step + 1
            if work.epoch and done % work.epoch == 0 and done < work.updates:
                self.look(clock, work.evaluation)
            if clock.expired():
                self.stopped.append(key)
                self.runs[key].record = self.runs[key].record.with_fields(status="stopped")
                return
        self.predict(clock, work.evaluation)
        clock.settle()
        self.predict(clock, work.test)
        self.runs[key].finished, self.views[key] = True, not clock.without_views
        self.runs[key].record = self.runs[key].record.with_fields(
            status="finished",
            seconds={"training": work.updates * self.truth.update, "whole": self.now - began} | clock.timings(),
            images_per_second=work.samples / self.truth.update,
            views="none" if clock.without_views else "",
        )

    def run(self):
        with pytest.MonkeyPatch.context() as patch:
            set_clock(patch, SimpleNamespace(monotonic=lambda: self.now))
            for key in self.begins():
                self.train(key)
        return self

    def begins(self):
        """Yields each run that is begun."""
        while key := self.plan.choose(self.waiting, self.said.append):
            self.plan.begin(key)
            yield key

    @property
    def waiting(self):
        return [key for key in self.plan.due if key not in self.plan.begun]

    @property
    def done(self):
        return [key for key in self.plan.due if self.runs[key].finished]


@st.composite
def simulations(draw):
    epoch = draw(st.sampled_from([0, 5, 8]))
    updates = draw(st.integers(10, 60))
    work = Work(
        updates=updates,
        evaluation=draw(st.integers(0, 200)),
        evaluations=1 + (updates - 1) // epoch if epoch else 1,
        test=draw(st.integers(0, 400)),
        views=draw(st.sampled_from([1, 2])),
        epoch=epoch,
        samples=8,
    )
    update = draw(st.floats(0.1, 3))
    truth = Pace(update, image=update / 8 * draw(st.floats(0.05, 1)), other=draw(st.floats(0, 5)))
    whole = truth.of(work, views=True)
    return work, truth, draw(st.floats(1, 14)) * whole + 20 + truth.other


@settings(max_examples=150, deadline=None)
@given(simulations())
def test_simulated_commands(simulation):
    """None goes on beyond its time; what would have fitted was done; what is lacking is the end of the order."""
    work, truth, seconds = simulation
    made = Simulation(seconds, work, truth).run()
    limit = seconds - made.budget.reserve
    assert made.now <= limit + 1e-6
    done, due = made.done, made.plan.due
    assert done == due[: len(done)]
    left, unit = limit - made.now, len({key.policy for key in due})
    if len(done) < len(due) and not made.stopped and len(done) >= unit:
        assert left < unit * MARGIN * truth.of(work, views=False) + 1e-6  # no further fold would have fitted
    if MARGIN * len(due) * truth.of(work, views=True) <= limit and (work.epoch or not work.test):
        assert done == due  # all of it fits
        assert all(made.views.values())


def test_views_go_first():
    """Twelve runs of 20 + 1 + 1 + 3 (6 in two views) seconds: 336 with views, 300 without."""
    work, truth = Work(20, 10, 2, 20, views=2, epoch=10, samples=8), Pace(1.0, 0.1, 1.0)
    whole = [12 * truth.of(work, views) for views in (True, False)]
    assert whole == pytest.approx([336, 300])
    reserve = Budget(1000.0, since=0).reserve
    plenty = Simulation(MARGIN * 336 + 8, work, truth).run()
    assert (len(plenty.done), set(plenty.views.values())) == (12, {True})
    assert plenty.said == ["budget: what is due takes 5 m 56 s, 5 m 58 s are left for it; nothing is given up"]
    less = Simulation(MARGIN * 320 + reserve / 2, work, truth).run()
    assert (len(less.done), set(less.views.values())) == (12, {False})
    assert len(less.said) == 1
    assert "are left for it; given up: views (prediction.views) of 12 runs; the rest takes" in less.said[0]
    few = Simulation(178, work, truth).run()
    assert few.done == few.plan.due[: len(few.done)]
    assert len(few.done) == 6
    assert "seed 1" in few.said[-1]


def test_the_end_of_the_budget_in_the_middle_of_a_run():
    """The only run is begun, as nothing is known; it stops in time for its predictions."""
    work, truth = Work(100, 10, 2, 20, epoch=50, samples=8), Pace(1.0, 0.1, 1.0)
    made = Simulation(50, work, truth, seeds=1, folds=1, policies=("flat",)).run()
    assert (made.done, made.stopped) == ([], made.plan.due)
    assert 50 - LEAST - 2 <= made.now <= 50 - LEAST
    needed = (101 + 4 * MARGIN) / (1 - SHARE)  # before the last update, with an evaluation behind it
    enough = Simulation(needed + 0.1, work, truth, seeds=1, folds=1, policies=("flat",)).run()
    assert enough.done == enough.plan.due
    late = Simulation(needed - 0.1, work, truth, seeds=1, folds=1, policies=("flat",)).run()
    assert late.stopped == late.plan.due  # at its last update: what is left is to predict


def test_what_others_measured_stops_nothing_from_being_tried():
    """Runs that are there say that not even one fits; this machine is a hundred times as quick."""
    work = Work(20, 10, 1, 20, samples=8)
    made = Simulation(60, work, Pace(0.01, 0.001))
    made.budget.paces = {"flat": Pace(100.0, 10.0, 5.0)}
    assert made.run().done == made.plan.due


def test_the_pace_in_a_record():
    work = Work(100, 10, 2, 30, views=2, epoch=50, samples=8)
    record = RunRecord(
        policy="flat", seed=0, fold=0, images_per_second=4.0, seconds={"training": 210.0, "whole": 240.0}
    )
    assert pace_of(record, work) == Pace(2.0, 0.25, pytest.approx(240 - 210 - 22.5 + 10))
    own = record.with_fields(seconds=record.seconds | {"update": 2.05, "image": 0.1})
    assert pace_of(own, work) == Pace(2.05, 0.1, pytest.approx(240 - 210 - 9 + 5))
    assert pace_of(own, work, without=True) == Pace(2.05, 0.1, pytest.approx(240 - 210 - 5 + 5))
    assert pace_of(RunRecord(policy="flat", seed=0, fold=0), work) is None


def test_jobs_at_a_time():
    """Two side by side: four runs of 21 seconds take two turns, and where two do not fit, one."""
    work, truth = Work(20, 5, 1, 5, samples=8), Pace(1.0, 0.1)
    for seconds, number in ((2 * 21 * MARGIN + 3, 4), (2 * 21 * MARGIN - 3, 2)):
        made = Simulation(seconds, work, truth, seeds=1, folds=4, policies=("flat",))
        made.plan.jobs = 2
        made.budget.take("flat", truth, looked=True)
        with pytest.MonkeyPatch.context() as patch:
            set_clock(patch, SimpleNamespace(monotonic=lambda made=made: made.now))
            begins = made.begins()
            first = [next(begins), next(begins)]
            assert first == made.plan.due[:2]
            made.now = 21.0
            for key in first:
                made.runs[key].finished = made.runs[key].begun = True
                made.runs[key].record = made.runs[key].record.with_fields(status="finished")
            assert len([*first, *begins]) == number


def test_time_for_the_end_is_measured_and_kept(monkeypatch):
    """Two runs are pooled in three seconds and drawn in five: ten runs take 15 and 5."""
    now = [0.0]
    set_clock(monkeypatch, SimpleNamespace(monotonic=lambda: now[0]))

    def takes(seconds):
        now[0] += seconds

    budget = Budget(1000.0, since=0.0)
    assert budget.left == 1000 - 1000 * SHARE

    def hand_in():
        takes(3)
        budget.draw(lambda: takes(5))

    budget.measure_handing_in(hand_in, pooled=2, runs=10)
    assert (budget.pooling, budget.drawing) == (1.5, 5)
    assert budget.reserve == pytest.approx(MARGIN * 20)
    assert budget.left == pytest.approx(1000 - 8 - MARGIN * 20)
    now[0] = 994.4  # the others were pooled, and it fits still
    budget.draw(lambda: takes(5.5))
    assert now[0] == 999.9
    budget.draw(lambda: takes(5.5))
    assert now[0] == 999.9
    unknown = Budget(10.0, since=995.0)
    now[0] = 1004.0
    unknown.draw(lambda: takes(1))
    assert now[0] == 1004.0  # nobody knows how long it takes, and only time that is kept is left


@pytest.mark.parametrize("budget", [0, -5.5, "nan", "8:30", ""])
def test_no_time_is_refused(budget):
    shown = f"{budget:g}" if isinstance(budget, int | float) else budget
    told = f"--budget {shown}: expected a time like 90s, 45m, 8h30m or 1d2h, or seconds, more than 0"
    assert refusal_of(lambda: RunOptions(budget=budget)) == told


def test_torchrun_has_several_clocks():
    assert refusal_of(lambda: seconds_of("8h", 2)) == (
        "--budget: each of torchrun's processes would go by its own clock; use one of the two"
    )
    assert refusal_of(lambda: RunOptions().limit(3600.0, 2)).startswith("--budget: each of torchrun's processes")
    assert RunOptions().limit(None, 2).limited is False


class TestWholeExperiments:
    """Under a clock that moves a second an update, a tenth a view of an image, and not by itself."""

    @pytest.fixture
    def clock(self, monkeypatch):
        now = [100.0]
        fake = SimpleNamespace(monotonic=lambda: now[0])
        set_clock(monkeypatch, fake)
        for module in ("kit.training.predict", "kit.experiment.options"):
            monkeypatch.setattr(f"{module}.time", fake)

        def taking(seconds, method):
            def timed(self, *arguments):
                made = method(self, *arguments)
                now[0] += seconds(self, *arguments)
                return made

            return timed

        monkeypatch.setattr(Trainer, "_update", taking(lambda *_: 1.0, Trainer._update))
        tenths = taking(
            lambda predictor, images, rows, *_: 0.1 * len(rows) * predictor.chosen.passes, Predictor._predicted
        )
        monkeypatch.setattr(Predictor, "_predicted", tenths)
        # The trainer's own figures are of the same clock.
        monkeypatch.setattr("kit.training.trainer.time", fake)
        return now

    def config(self, competition, **sections):
        """Runs of 12 updates, 4 evaluations of 12 images and 9 test images: 17.7 seconds, 19.8 in two views."""
        training = {"epochs": 4, "batch_size": 8, "evaluate_every": 1}
        return validate(experiment_content(competition, training=training, **sections), "test")

    def test_what_fits_is_trained_and_handed_in(self, competition, tmp_path, clock):
        said: list[str] = []
        made = run(self.config(competition), RunOptions(tmp_path, budget=38), say=said.append)
        assert (made.trained, made.kept, made.left, made.given_up) == (1, 0, 2, ("folds 1, 2",))
        assert clock[0] - 100 <= 38 - LEAST
        assert [each.fold for each in made.policies["uniform"].scores.runs] == [0]
        assert said[0] == (
            f"budget: until a run is finished, {tmp_path}/submissions/tiny.csv has the same for every row, what "
            "most training rows have"
        )
        told = json.loads((tmp_path / "runs/tiny/uniform/seed0/fold0/run.json").read_text())
        assert told["seconds"]["update"] == pytest.approx(1.0)
        assert told["seconds"]["image"] == pytest.approx(0.1)

    def test_a_submission_that_is_not_of_these_runs_gives_way_to_the_prior(self, competition, tmp_path, clock):
        """Of runs that are replaced, or damaged with no run left: when the time ends, the prior is there."""
        file = tmp_path / "submissions/tiny.csv"
        run(self.config(competition), tmp_path)
        whole = file.read_bytes()
        run(self.config(competition), RunOptions(tmp_path, budget=4))
        assert file.read_bytes() == whole  # of the runs that are there
        other = validate(experiment_content(competition, training={"epochs": 9, "batch_size": 8}), "test")
        made = run(other, RunOptions(tmp_path, budget=4, replace=True))
        assert (made.policies, made.left) == ({}, 3)
        prior = pd.read_csv(file)
        assert prior["label"].nunique() == 1
        file.write_bytes(whole[:30])
        run(other, RunOptions(tmp_path, budget=4))
        pd.testing.assert_frame_equal(pd.read_csv(file), prior)

    def test_what_is_lost_and_cannot_be_predicted_in_time_is_said(self, competition, tmp_path, clock):
        run(self.config(competition), tmp_path)
        lost = tmp_path / "runs/tiny/uniform/seed0/fold0/test.parquet"
        lost.unlink()
        said: list[str] = []
        refused = refusal_of(
            lambda: run(self.config(competition), RunOptions(tmp_path, budget=4), say=said.append)
        )
        assert refused.startswith(f"{lost} is missing; ")
        assert (
            "uniform seed 0 fold 0: predictions are damaged or missing; the time does not suffice to predict it "
            "anew, the next run does it"
        ) in said

    def test_the_same_call_trains_the_others_to_the_same_bits(self, competition, tmp_path, clock):
        """One of them is stopped in its middle, and goes on."""
        whole = run(self.config(competition), tmp_path / "whole")
        for _ in range(8):
            made = run(self.config(competition), RunOptions(tmp_path / "parts", budget=20))
            assert made.trained <= 1
        assert (made.kept, made.left) == (3, 0)
        frames = [
            read_predictions(tmp_path / part / "runs/tiny/uniform/oof.parquet") for part in ("whole", "parts")
        ]
        pd.testing.assert_frame_equal(*frames, check_exact=True)
        assert made.policies["uniform"].scores.oof == whole.policies["uniform"].scores.oof

    def test_no_run_is_finished_and_the_prior_is_handed_in(self, competition, tmp_path, clock):
        made = run(self.config(competition), RunOptions(tmp_path, budget="9s"))
        assert (made.trained, made.left, made.policies) == (0, 3, {})
        table = pd.read_csv(tmp_path / "submissions/tiny.csv")
        assert table["label"].tolist() == ["blue"] * 9  # all classes have as many rows: the first
        record = ExperimentDir(tmp_path / "runs/tiny").run(RunKey("uniform", 0, 0)).record
        assert record.status == "stopped"

    def test_a_submission_that_is_there_is_not_replaced_by_the_prior(self, competition, tmp_path, clock):
        run(self.config(competition), RunOptions(tmp_path, budget=38))
        before = (tmp_path / "submissions/tiny.csv").read_bytes()
        said: list[str] = []
        made = run(self.config(competition), RunOptions(tmp_path, budget=5), say=said.append)
        assert made.left == 2
        assert (tmp_path / "submissions/tiny.csv").read_bytes() == before
        assert not any("the same for every row" in line for line in said)

    def test_views_given_up_are_of_one_view_and_predicted_anew_with_time(self, competition, tmp_path, clock):
        """Three runs take 19.8 seconds each with views, 17.7 without."""
        sections = {"prediction": {"tta": "hflip"}}
        whole = run(self.config(competition, **sections), tmp_path / "whole")
        plain = run(self.config(competition), tmp_path / "plain")
        made = run(self.config(competition, **sections), RunOptions(tmp_path / "short", budget=64))
        assert (made.trained, made.left, made.given_up) == (3, 0, ("views (prediction.views) of 3 runs",))
        place = "runs/tiny/uniform/seed0/fold2"
        for name in ("oof", "test"):
            there, other = (
                read_predictions(tmp_path / part / place / f"{name}.parquet") for part in ("short", "plain")
            )
            pd.testing.assert_frame_equal(there, other, check_exact=True)
        assert made.policies["uniform"].scores.oof == plain.policies["uniform"].scores.oof
        said: list[str] = []
        again = run(self.config(competition, **sections), tmp_path / "short", say=said.append)
        assert (again.trained, again.kept, again.given_up) == (0, 3, ())
        assert (
            "uniform seed 0 fold 2: views had been given up for want of time; predicted it with the saved weights"
            in said
        )
        for name in ("oof", "test"):
            there, other = (
                read_predictions(tmp_path / part / place / f"{name}.parquet") for part in ("short", "whole")
            )
            np.testing.assert_allclose(there.to_numpy(), other.to_numpy(), atol=1e-6)
        records = [
            ExperimentDir(tmp_path / part / "runs/tiny").run(RunKey("uniform", 0, 2)).record
            for part in ("short", "whole")
        ]
        assert [record.predicted for record in records] == [{"turns": ["hflip"]}] * 2
        assert records[0].scores == pytest.approx(records[1].scores)
        assert again.policies["uniform"].scores.oof == pytest.approx(whole.policies["uniform"].scores.oof)

    def test_policies_take_turns_and_are_compared_on_what_is_there(self, competition, tmp_path, clock):
        policies = {"uniform": {"lr": 1e-2}, "late": {"lr": 1e-3}}
        config = self.config(competition, policies=policies)
        compared = compare(config, RunOptions(tmp_path, budget=80))
        folder = ExperimentDir(tmp_path / "runs/tiny")
        done = {(run.record.policy, run.record.fold) for name in policies for run in folder.finished(name)}
        assert done == {("uniform", 0), ("late", 0), ("uniform", 1), ("late", 1)}
        assert (compared.trained, compared.left) == (4, 2)
        assert [len(each.runs) for each in compared.content.views[0].policies] == [2, 2]

    def test_reading_images_ends_in_time(self, competition, tmp_path, clock, monkeypatch):
        from kit.data.decode import Decoder

        read = Decoder.__call__

        def slow(self, *arguments):
            clock[0] += 1
            return read(self, *arguments)

        monkeypatch.setattr(Decoder, "__call__", slow)
        with pytest.raises(Stopped) as stopped:
            run(self.config(competition), RunOptions(tmp_path, budget=20))
        assert str(stopped.value) == (
            "budget: it was over after 18 of 36 images were decoded, and nothing is trained; give more time"
        )
        assert stopped.value.code == 1
        assert clock[0] - 100 <= 20
        assert len(pd.read_csv(tmp_path / "submissions/tiny.csv")) == 9


class TestClocksThatAreSet:
    """The time of day jumps; nothing that is decided changes."""

    def test_in_this_process(self, competition, tmp_path, monkeypatch):
        """It goes back and forth by years at every question."""
        asked = iter(range(10**9))
        monkeypatch.setattr(time, "time", lambda: 1e9 * (-1.0) ** next(asked))
        config = validate(experiment_content(competition, training={"epochs": 1}), "test")
        said: list[str] = []
        made = run(config, RunOptions(tmp_path, budget="1h"), say=said.append)
        assert (made.trained, made.left, made.given_up) == (3, 0, ())
        record = ExperimentDir(tmp_path / "runs/tiny").run(RunKey("uniform", 0, 0)).record
        assert all(0 <= seconds < 600 for seconds in record.seconds.values())

    @pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed")
    def test_under_libfaketime(self, tmp_path):
        """A process that sets its own clock back by five years and forth by ten while a budget runs."""
        file = tmp_path / "now"
        file.write_text("+0")
        code = f"""
import os, time
from kit.experiment.timekeeping import Budget
budget, seen = Budget(60.0), []
for offset in ("+0", "-5y", "+5y", "-1d", "+0"):
    with open({str(file)!r} + ".new", "w") as file:
        file.write(offset + "\\n")
    os.replace(file.name, {str(file)!r})
    until = time.monotonic() + 0.02
    while time.monotonic() < until:  # libfaketime breaks sleep
        pass
    seen.append((time.time(), budget.left))
print(seen)
"""
        environment = {**os.environ, **clock_of(file), "PYTHONPATH": str(ROOT)}
        told = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        days, left = zip(*json.loads(told.stdout.replace("(", "[").replace(")", "]")), strict=True)
        assert days[1] < days[0] - 1e8 < days[2] - 2e8  # the clock was set
        assert left[-1] > 60 - LEAST - 30
        assert all(0.02 <= before - after < 30 for before, after in pairwise(left))

    @pytest.mark.slow
    @pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed")
    @pytest.mark.parametrize("offset", ["-5y", "+5y"])
    def test_a_command_under_libfaketime(self, competition, tmp_path, offset):
        file = tmp_path / "now"
        file.write_text("+0")
        config = tmp_path / "tiny.yaml"
        config.write_text(validate(experiment_content(competition), "test").to_yaml())
        words = ["run", str(config), "--output", str(tmp_path), "--budget", "10m"]
        environment = {**os.environ, **clock_of(file), "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            [sys.executable, "-m", "kit", *words], env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "runs of test_resnet" in line:
                    (tmp_path / "later").write_text(offset)
                    (tmp_path / "later").replace(file)
        assert process.returncode == 0
        assert "nothing is given up" in "".join(lines)
