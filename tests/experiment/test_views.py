"""A change of views predicts both sides anew and trains nothing; runs of earlier versions; the table of views."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from support.colours import experiment_content, write_competition
from support.commands import kit_here
from support.refusals import refusal_of

from kit import run, views
from kit.core.errors import Damaged
from kit.core.manifest import noting
from kit.core.runs import ExperimentDir, RunDir, RunKey, read_predictions
from kit.core.settings import fingerprint
from kit.experiment import predict_anew, view_clock
from kit.experiment.budget import MARGIN
from kit.experiment.config import validate
from kit.experiment.fingerprint import config_digest
from kit.experiment.predict import predict_test
from kit.experiment.view_clock import ViewClock
from kit.training.trainer import Trainer
from kit.training.views import Views

EARLY = {"none": "a7297a8dbc80bdb4", "hflip": "89d46895ec493a4a"}  # of version 0.18, of a config in this place
SMALL = {"folds": {"k": 2}, "training": {"epochs": 1}, "data": {"crop_pct": 0.8}}
EVERYTHING = {
    "views": ["d4", "five_crops", {"scales": [0.8]}, {"tiles": 2, "pool": "max"}],
    "size": 40,
    "average": "logits",
}


def described(competition: Path, **sections):
    return validate(experiment_content(competition, **SMALL | sections), "test")


@pytest.fixture(scope="module")
def noisy(tmp_path_factory) -> Path:
    return write_competition(tmp_path_factory.mktemp("noisy") / "colours", rows=24, side=30)


@pytest.fixture(scope="module")
def trained(noisy, tmp_path_factory) -> Path:
    """Two folds, predicted in one view."""
    output = tmp_path_factory.mktemp("trained")
    run(described(noisy), output)
    return output


@pytest.fixture
def copied(trained, tmp_path, monkeypatch) -> Path:
    """A copy, in which nothing is trained."""
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.setattr(Trainer, "train", lambda *_, **__: pytest.fail("a training began"))
    return tmp_path / "copy"


def run_in(output: Path, fold: int = 0) -> RunDir:
    return ExperimentDir(output / "runs/tiny").run(RunKey("uniform", 0, fold))


def both(one: RunDir) -> tuple[bytes, bytes]:
    return one.oof.read_bytes(), one.test.read_bytes()


def test_a_change_predicts_both_sides_anew_and_trains_nothing(noisy, copied, tmp_path, monkeypatch):
    before, weights, said = both(run_in(copied)), run_in(copied).weights.read_bytes(), list[str]()
    made = run(described(noisy, prediction=EVERYTHING), copied, say=said.append)
    assert (made.trained, made.kept) == (0, 2)
    words = "plain + d4 + five_crops + scale 0.8 + 2 × 2 tiles (max) at 40 px, mean of logits"
    assert (
        f"uniform seed 0 fold 1: was predicted as one view, now {words}; predicted it with the saved weights"
        in said
    )
    one = run_in(copied)
    assert one.record.predicted["size"] == 40
    assert all(now != then for now, then in zip(both(one), before, strict=True))
    assert (one.weights.read_bytes(), one.damaged()) == (weights, [])
    monkeypatch.undo()
    run(described(noisy, prediction=EVERYTHING), tmp_path / "fresh")  # trained under that config
    fresh = run_in(tmp_path / "fresh")
    assert fresh.record.predicted == one.record.predicted
    assert fresh.record.fingerprint == one.record.fingerprint
    for path in ("oof", "test"):
        there, other = (read_predictions(getattr(each, path)).to_numpy() for each in (one, fresh))
        np.testing.assert_allclose(there, other, atol=1e-5)
    assert one.record.scores == pytest.approx(fresh.record.scores)
    said.clear()
    run(described(noisy, prediction=EVERYTHING), copied, say=said.append)
    assert not [line for line in said if "predicted" in line]
    run(described(noisy), copied)
    assert both(run_in(copied)) == before


def test_a_kill_between_the_two_sides_leaves_no_run_of_two_kinds(noisy, copied, monkeypatch):
    write, number = predict_anew.write_predictions, [0]

    def killed(frame, path):
        number[0] += 1
        if number[0] == 2:
            raise KeyboardInterrupt
        write(frame, path)

    monkeypatch.setattr(predict_anew, "write_predictions", killed)
    flipped = described(noisy, prediction={"views": "hflip"})
    with pytest.raises(BaseException):  # noqa: B017  # what a signal raises
        run(flipped, copied)
    monkeypatch.setattr(predict_anew, "write_predictions", write)
    one = run_in(copied)
    with pytest.raises(Damaged):
        one.read_oof()
    assert one.record.predicted == {}
    said: list[str] = []
    run(flipped, copied, say=said.append)
    changed = "was predicted as one view, now plain + hflip; predicted it with the saved weights"
    assert [line for line in said if "predicted" in line] == [
        f"uniform seed 0 fold {fold}: {changed}" for fold in (0, 1)
    ]
    assert [run_in(copied, fold).record.predicted for fold in (0, 1)] == [{"turns": ["hflip"]}] * 2
    assert [run_in(copied, fold).damaged() for fold in (0, 1)] == [[], []]


@pytest.mark.parametrize("files", [True, False])
def test_early_runs_are_neither_refused_nor_trained_again(noisy, copied, files):
    """Their config's digest held prediction.tta, and their record did not say how they were predicted."""
    plain = described(Path("here"), data={}, folds={"k": 3}, training={"epochs": 2})
    assert {tta: config_digest(plain, tta) for tta in EARLY} == EARLY
    flipped = described(noisy, prediction={"tta": "hflip"})
    run(flipped, copied)
    before = [both(run_in(copied, fold)) for fold in (0, 1)]
    for fold in (0, 1):
        one = run_in(copied, fold)
        then = one.record.depends_on | {"config": config_digest(flipped, "hflip")}
        record = one.record.model_dump(exclude_unset=True) | {"depends_on": then, "fingerprint": fingerprint(then)}
        gone = {"predicted"} if files else {"predicted", "files"}
        one.write(
            type(one.record).model_validate({name: value for name, value in record.items() if name not in gone})
        )
    folder, said = ExperimentDir(copied / "runs/tiny"), list[str]()
    with noting(folder.path, folder.config):
        text = folder.config.read_text()
        assert "  views:\n  - hflip\n" in text
        folder.config.write_text(text.replace("  views:\n  - hflip\n", "  tta: hflip\n"))
    made = run(flipped, copied, say=said.append)
    assert (made.trained, made.kept) == (0, 2)
    assert [both(run_in(copied, fold)) for fold in (0, 1)] == before
    assert predict_test(flipped, [copied / "runs"], copied / "made.csv", copied).views == "plain + hflip"
    run(described(noisy), copied, say=said.append)
    assert (
        "uniform seed 0 fold 0: was predicted as plain + hflip, now one view; predicted it with the saved weights"
        in (said)
    )
    assert [run_in(copied, fold).record.predicted for fold in (0, 1)] == [{}, {}]


def test_test_rows_are_predicted_as_out_of_fold_rows_were(noisy, copied, tmp_path):
    run(described(noisy, prediction=EVERYTHING), copied)
    expected = [read_predictions(run_in(copied, fold).test) for fold in (0, 1)]
    said: list[str] = []
    made = predict_test(described(noisy), [copied / "runs"], tmp_path / "made.csv", tmp_path, say=said.append)
    assert (made.models, made.in_one_view) == (2, 0)
    assert (tmp_path / "made.csv").read_text() == (copied / "submissions/tiny.csv").read_text()
    assert [line for line in said if line.startswith("prediction: the config asks for one view, but")]
    assert len(expected[0]) == made.rows


def test_what_cannot_be_predicted_is_refused_before_any_training(noisy, tmp_path):
    assert "prediction.size = 16 is below data.size = 32" in refusal_of(
        lambda: described(noisy, prediction={"size": 16})
    )
    assert "five_crops are all the same" in refusal_of(
        lambda: described(noisy, data={"crop_pct": 1.0}, prediction={"views": ["five_crops"]})
    )
    mixer = described(noisy, model={"name": "mixer_s32_224"}, prediction={"size": 64})
    assert refusal_of(lambda: run(mixer, tmp_path)).startswith(
        "prediction: mixer_s32_224, built for 32 px, cannot"
    )
    assert not list(tmp_path.rglob("run.json"))


class Predicting:
    """Models on paper: a start, then a time a pass of an image, in batches of ten."""

    def __init__(self, seconds: float, models: int, rows: int, views: Views, start: float, image: float):
        self.now, self.said, self.in_views, self.models, self.reached = 0.0, list[str](), 0, 0, 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(view_clock, "time", SimpleNamespace(monotonic=lambda: self.now))
            self.clock = ViewClock(models, rows, seconds, self.said.append)
            for _ in range(models):
                now = self.clock.begin(views)
                if now is None:
                    break
                done = self.go(rows, now, start, image)
                if done < rows and self.clock.again:
                    now = self.clock.begin(views)
                    done = self.go(rows, now or views.one, start, image)
                self.reached = max(self.reached, done if not self.models else 0)
                if done < rows:
                    break
                self.models += 1
                self.in_views += not self.clock.reduced
                self.clock.end()

    def go(self, rows, views, start, image):
        self.now += start
        for first in range(0, rows, 10):
            if self.clock.expired():
                return first
            self.now += image * views.passes * min(10, rows - first)
            self.clock.batch_done(min(rows, first + 10))
        return rows


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.floats(10, 2000),
    st.integers(1, 6),
    st.integers(1, 120),
    st.sampled_from([2, 8]),
    st.floats(0, 5),
    st.floats(0.01, 1),
)
@example(125.0, 3, 18, 8, 4.5, 0.466)  # views are given up as the first model has just done all rows
@example(125.0, 1, 120, 8, 60.0, 0.1)  # to begin again takes longer than there is time
def test_views_go_before_models(seconds, models, rows, passes, start, image):
    views = Views(8, 8, tuple(Views.of_form({"turns": list(TURNS[: passes - 1])}, 8).turns))
    assert views.passes == passes
    made = Predicting(seconds, models, rows, views, start, image)
    in_views, plain = (models * (start + image * each * rows) for each in (passes, 1))
    if MARGIN * in_views <= seconds:
        assert (made.models, made.in_views, made.said) == (models, models, [])
    wasted = start + image * passes * rows  # a model at most, before it was known
    if wasted + MARGIN * plain <= seconds:
        assert made.models == models
    if made.models < models and made.models:
        assert made.clock.gave_up  # no model is given up before views are
    assert made.reached >= min(rows, (seconds - start) / (image * passes) - 10)  # as far as without giving up
    assert made.now <= seconds + start + image * passes * 10 + 1e-6
    assert len(made.said) == made.clock.gave_up


TURNS = ["hflip", "vflip", "rot90", "rot180", "rot270", "transpose", "transverse"]


def test_given_up_in_an_infer_kernel_it_is_said(noisy, copied, tmp_path, monkeypatch):
    """A batch takes ten seconds a pass; in eight views two models of nine images take 160, in one 20."""
    run(described(noisy, prediction={"views": "d4"}), copied)
    one_view = predict_test(described(noisy), [copied / "runs"], tmp_path / "any.csv", tmp_path)
    assert one_view.views == "plain + d4"
    now, said = [0.0], list[str]()
    for module in ("kit.experiment.predict", "kit.experiment.view_clock"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: now[0]))
    combined = Views.combined

    def slow(self, *arguments):
        now[0] += 10 * self.passes
        return combined(self, *arguments)

    monkeypatch.setattr(Views, "combined", slow)
    config = described(noisy, prediction={"views": "d4", "batch_size": 3})
    made = predict_test(config, [copied / "runs"], tmp_path / "made.csv", tmp_path, budget=300, say=said.append)
    assert (made.models, made.in_one_view) == (2, 2)
    assert [line for line in said if "views are given up" in line] == [
        "the time does not suffice for 2 models in plain + d4: views are given up, and those left predict one "
        "view; the decision rule was chosen on out-of-fold predictions in plain + d4"
    ]


def test_the_table_of_views(noisy, trained, monkeypatch, capsys):
    """Against runs predicted under these configs, one after the other."""
    (code, output, errors) = kit_here(
        monkeypatch, capsys, "views", "tiny", "--output", str(trained), "--views", "hflip,d4+size=40", "--json"
    )
    assert code == 0, errors
    found = json.loads(output)
    assert [each["name"] for each in found["candidates"]] == ["plain", "hflip", "d4+size=40"]
    assert found["honest"]["by_fold"].keys() == {"0", "1"}
    assert [each["passes"] for each in found["candidates"]] == pytest.approx([1, 2, 8 * 40**2 / 32**2])
    scores = {each["name"]: each["score"] for each in found["candidates"]}
    configs = {"plain": {}, "hflip": {"views": "hflip"}, "d4+size=40": {"views": "d4", "size": 40}}
    choices = {}
    for name, prediction in configs.items():
        made = run(described(noisy, prediction=prediction), trained)
        assert scores[name] == pytest.approx(made.policies["uniform"].scores.oof)
        choices[name] = read_predictions(trained / "runs/tiny/uniform/oof.parquet")
    truth = np.array([int(name[5:]) % 3 for name in choices["plain"].index])  # by support.colours
    folds = np.isin(choices["plain"].index, read_predictions(run_in(trained, 1).oof).index).astype(int)
    decided = np.empty(len(truth), int)
    for fold in (0, 1):
        mine = folds == fold
        each = {name: oof.to_numpy().argmax(axis=1) for name, oof in choices.items()}
        best = max(each, key=lambda name: f1_score(truth[~mine], each[name][~mine], average="macro"))
        assert found["honest"]["by_fold"][str(fold)] == best  # tied: the one of fewest passes
        decided[mine] = each[best][mine]
    assert found["honest"]["score"] == pytest.approx(f1_score(truth, decided, average="macro"))


def test_what_is_no_choice_of_views(trained):
    for text, said in (
        ("hflop", "there are hflip, vflip, "),
        ("size=20", "below data.size"),
        ("tiles=1", "tiles=2:max"),
        ("x=1", ""),
    ):
        line = refusal_of(lambda text=text: views("tiny", text, output=trained))
        assert line.startswith(f"--views {text}: ")
        assert said in line
    assert "nowhere holds no experiment; " in (line := refusal_of(lambda: views("nowhere", output=trained)))
    assert line.endswith("runs holds tiny")
    assert refusal_of(lambda: views("tiny", policy="other", output=trained)) == "--policy other: tiny has uniform"
