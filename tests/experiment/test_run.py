"""The whole line: what a run leaves behind, what a second run does, what is refused before training."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score
from support.colours import COLOURS, experiment_content, write_competition
from support.commands import ROOT, config_file
from support.refusals import refusal_of

import kit.experiment.runner
from kit import run
from kit.core.errors import KitError
from kit.core.manifest import noting
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir, RunKey, read_predictions
from kit.experiment.config import validate
from kit.experiment.curves import draw_curves
from kit.experiment.grade import grade
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.options import RunOptions
from kit.experiment.prepare import prepare
from kit.experiment.run import pool
from kit.experiment.side_by_side import Sharing
from kit.training.trainer import Trainer


def experiment(folder, **sections):
    return validate(experiment_content(folder, **sections), "test")


@pytest.fixture(scope="module")
def finished(competition, tmp_path_factory):
    """A finished experiment of two policies and two seeds: (config, output folder, result)."""
    output = tmp_path_factory.mktemp("finished")
    policies = {"uniform": {"lr": 1e-2}, "sliced": {"lr": "slice(1e-4, 1e-2)", "groups": "coarse"}}
    config = experiment(competition, policies=policies, seeds=[0, 1], training={"epochs": 3})
    return config, output, run(config, output)


class Begun(Exception):
    """Training would begin now. `tasks` are those of the processes; where runs train one after the other, None."""

    def __init__(self, jobs: int, tasks=None):
        super().__init__(jobs)
        self.jobs, self.tasks = jobs, tasks


@pytest.fixture
def begun(competition, tmp_path, monkeypatch):
    """How training would begin on a machine with so many GPUs, in so many processes of torchrun."""

    def run_parallel(function, tasks, jobs, **_):
        raise Begun(jobs, tasks)

    def train(*_, **__):
        raise Begun(1)

    monkeypatch.setattr("kit.experiment.runner.run_parallel", run_parallel)
    monkeypatch.setattr(Trainer, "train", train)

    def of(jobs="auto", gpus: int = 0, processes: int = 1, **sections) -> Begun:
        device = SimpleNamespace(type="cuda" if gpus else "cpu")
        monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
        state = SimpleNamespace(
            is_main_process=True,
            num_processes=processes,
            process_index=0,
            device=device,
            main_process_first=nullcontext,
            wait_for_everyone=lambda: None,
        )
        monkeypatch.setattr("kit.experiment.runner.process_state", lambda training: state)
        with pytest.raises(Begun) as caught:
            run(experiment(competition, **sections), RunOptions(tmp_path, jobs=jobs))
        return caught.value

    return of


@pytest.fixture(scope="module")
def short(competition, tmp_path_factory):
    """The output folder of a finished experiment of three folds and one epoch; see `short_copy`."""
    output = tmp_path_factory.mktemp("short")
    run(experiment(competition, training={"epochs": 1}), output)
    return output


@pytest.fixture(scope="module")
def one_fold(competition, tmp_path_factory):
    """The same of the first fold alone."""
    output = tmp_path_factory.mktemp("one-fold")
    run(experiment(competition, folds={"run": [0]}, training={"epochs": 1}), output)
    return output


@pytest.fixture
def short_copy(short, tmp_path):
    """The folder of a test, with what `short` made, to be changed."""
    shutil.copytree(short, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*_):
        raise AssertionError("a training began")

    monkeypatch.setattr(Trainer, "train", refuse)


def test_the_run_directory_is_the_contract(finished):
    config, output, _ = finished
    top = output / "runs" / "tiny"
    assert {path.name for path in top.iterdir()} == {
        "experiment.yaml", "folds.csv", "manifest.json", "curves.png", "uniform", "sliced",
    }  # fmt: skip
    for policy in config.policies:
        assert {path.name for path in (top / policy).iterdir()} == {
            "seed0", "seed1", "oof.parquet", "test.parquet", "scores.json",
        }  # fmt: skip
        assert {path.name for path in (top / policy / "seed1" / "fold2").iterdir()} == {
            "run.json", "history.jsonl", "rates.npz", "weights.safetensors", "oof.parquet", "test.parquet",
        }  # fmt: skip


def test_each_training_row_is_predicted_once_by_a_model_that_did_not_see_it(finished, competition):
    _, output, _ = finished
    folds = pd.read_csv(output / "runs/tiny/folds.csv").set_index("id")["fold"]
    assert sorted(folds.index) == sorted(pd.read_csv(competition / "train.csv")["id"])
    for fold in range(3):
        oof = pd.read_parquet(output / f"runs/tiny/uniform/seed0/fold{fold}/oof.parquet")
        assert sorted(oof["id"]) == sorted(folds.index[folds == fold])


def test_the_pooled_predictions_are_means_by_id(finished):
    _, output, _ = finished
    top = output / "runs/tiny/sliced"
    classes = sorted(COLOURS)
    for name in ("oof", "test"):
        each = pd.concat([pd.read_parquet(path) for path in sorted(top.glob(f"seed*/fold*/{name}.parquet"))])
        expected = {key: rows[classes].to_numpy(np.float64).mean(0) for key, rows in each.groupby("id")}
        pooled = pd.read_parquet(top / f"{name}.parquet").set_index("id")
        assert len(pooled) == len(expected)
        for key, values in expected.items():
            np.testing.assert_allclose(pooled.loc[key, classes].to_numpy(np.float64), values, rtol=1e-6)


def test_the_scores_are_scikit_learns_on_the_saved_predictions(finished, competition):
    _, output, result = finished
    truth = pd.read_csv(competition / "train.csv").set_index("id")["label"]
    for policy, outcome in result.policies.items():
        pooled = pd.read_parquet(output / f"runs/tiny/{policy}/oof.parquet").set_index("id")
        expected = f1_score(truth.loc[pooled.index], pooled.idxmax(axis=1), average="macro")
        saved = json.loads((output / f"runs/tiny/{policy}/scores.json").read_text())
        assert outcome.scores.oof == saved["oof"] == pytest.approx(expected, abs=1e-12)
        for each in saved["runs"]:
            path = output / f"runs/tiny/{policy}/seed{each['seed']}/fold{each['fold']}/oof.parquet"
            oof = pd.read_parquet(path).set_index("id")
            expected = f1_score(truth.loc[oof.index], oof.idxmax(axis=1), average="macro")
            assert each["score"] == pytest.approx(expected, abs=1e-12)


def test_colours_are_learned_and_the_submission_is_graded(finished, competition):
    config, _, result = finished
    outcome = result.policies["uniform"]
    assert outcome.scores.oof >= 0.9
    assert outcome.submission.name == "tiny.csv"
    assert result.policies["sliced"].submission.name == "tiny+sliced.csv"
    submission = pd.read_csv(outcome.submission)
    sample = pd.read_csv(competition / "sample_submission.csv")
    assert list(submission.columns) == list(sample.columns)
    assert submission["id"].tolist() == sample["id"].tolist()
    solution = pd.read_csv(competition / "solution.csv")
    expected = f1_score(solution["label"], submission["label"], average="macro")
    graded = grade(outcome.submission, competition / "solution.csv", config)
    assert (graded.metric, graded.rows) == ("macro F1", 9)
    assert graded.value >= 0.9
    assert graded.value == pytest.approx(expected)


def test_realised_rates_are_kept_with_the_run(finished):
    _, output, _ = finished
    with np.load(output / "runs/tiny/sliced/seed0/fold1/rates.npz") as saved:
        assert saved["lr"].shape == (9, 3)
        np.testing.assert_allclose(saved["lr"][:, 0] / saved["lr"][:, 2], 1e-2, rtol=1e-9)
    record = json.loads((output / "runs/tiny/sliced/seed0/fold1/run.json").read_text())
    assert record["status"] == "finished"
    assert list(record["groups"])[-1] == "fc"
    assert record["precision"] == "fp32"


def test_runs_of_one_seed_start_from_the_same_weights(finished):
    _, output, _ = finished
    records = [json.loads(path.read_text()) for path in (output / "runs/tiny").glob("*/seed*/fold*/run.json")]
    by_seed = {seed: {r["initial_weights"] for r in records if r["seed"] == seed} for seed in (0, 1)}
    assert len(by_seed[0]) == len(by_seed[1]) == 1
    assert by_seed[0] != by_seed[1]


def test_the_second_run_trains_nothing(finished, no_training):
    config, output, first = finished
    said = []
    again = run(config, output, say=said.append)
    assert (again.trained, again.kept) == (0, 12)
    assert said == ["12 of 12 runs are finished already"]
    assert again.policies["uniform"].scores == first.policies["uniform"].scores


def test_the_same_config_in_a_fresh_folder_gives_the_same_bits(competition, tmp_path):
    for name in ("a", "b"):
        run(experiment(competition, folds={"run": [1]}), tmp_path / name)
    for file in (
        "uniform/oof.parquet",
        "uniform/test.parquet",
        "folds.csv",
        "uniform/seed0/fold1/weights.safetensors",
    ):
        first, second = ((tmp_path / name / "runs/tiny" / file).read_bytes() for name in ("a", "b"))
        assert first == second, file


def test_an_interrupted_experiment_trains_what_is_missing(competition, short_copy):
    config = experiment(competition, training={"epochs": 1})
    whole = (short_copy / "runs/tiny/uniform/oof.parquet").read_bytes()
    shutil.rmtree(short_copy / "runs/tiny/uniform/seed0/fold1")
    again = run(config, short_copy)
    assert (again.trained, again.kept) == (1, 2)
    assert (short_copy / "runs/tiny/uniform/oof.parquet").read_bytes() == whole


def test_some_folds_give_a_score_of_their_rows(competition, short_copy, no_training):
    shutil.rmtree(short_copy / "runs/tiny/uniform/seed0/fold1")
    some = experiment(competition, folds={"run": [0, 2]}, training={"epochs": 1})
    outcome = run(some, short_copy).policies["uniform"]
    assert (outcome.scores.oof_rows, outcome.scores.train_rows) == (24, 36)
    assert len(outcome.scores.runs) == 2


def test_a_policy_that_joins_later_has_its_own_submission(competition, tmp_path):
    short = {"folds": {"run": [0]}, "training": {"epochs": 1}}
    run(experiment(competition, **short), tmp_path)
    before = (tmp_path / "submissions/tiny.csv").read_bytes()
    other = experiment_content(competition, **short) | {"policies": {"late": {"lr": 1e-3}}}
    result = run(validate(other, "test"), tmp_path)
    assert result.policies["late"].submission == tmp_path / "submissions/tiny+late.csv"
    assert (tmp_path / "submissions/tiny.csv").read_bytes() == before
    assert "uniform:" in (tmp_path / "runs/tiny/experiment.yaml").read_text()


class TestChanged:
    """Under the same name: refused, unless told to replace."""

    @pytest.fixture
    def output(self, one_fold, tmp_path):
        shutil.copytree(one_fold, tmp_path, dirs_exist_ok=True)
        return tmp_path

    def again(self, competition, output, replace=False, **sections):
        sections["training"] = {"epochs": 1} | sections.get("training", {})
        return run(experiment(competition, folds={"run": [0]}, **sections), RunOptions(output, replace=replace))

    def test_config(self, competition, output, no_training):
        with pytest.raises(KitError, match=r"another config \(training.batch_size: 8 there, 6 here\).*--replace"):
            self.again(competition, output, training={"batch_size": 6})
        with pytest.raises(KitError, match=r"another config \(policies.uniform.lr: 0.01 there, 0.02 here\)"):
            self.again(competition, output, policies={"uniform": {"lr": 0.02, "groups": "stage"}})

    def test_what_cannot_change_a_result_is_no_change(self, competition, output, no_training):
        result = self.again(competition, output, training={"log_every": 7}, data={"cache": False})
        assert result.trained == 0

    def test_replace(self, competition, output):
        assert self.again(competition, output, replace=True, training={"batch_size": 6}).trained == 1
        assert self.again(competition, output, replace=True, training={"batch_size": 6}).trained == 0

    def test_images(self, competition, output, tmp_path, no_training):
        changed = tmp_path / "changed"
        shutil.copytree(competition, changed)
        Image.new("RGB", (24, 24)).save(changed / "train" / "train000.png")
        with pytest.raises(KitError, match=r"other images \(uniform/seed0/fold0\)"):
            self.again(changed, output)

    def test_labels(self, competition, output, tmp_path, no_training):
        changed = tmp_path / "changed"
        shutil.copytree(competition, changed)
        train = pd.read_csv(changed / "train.csv")
        train.loc[0, "label"] = "red"
        train.to_csv(changed / "train.csv", index=False)
        with pytest.raises(KitError, match=r"other labels \(uniform/seed0/fold0\)"):
            self.again(changed, output)

    def test_a_moved_folder_is_no_change(self, competition, output, tmp_path, no_training):
        shutil.copytree(competition, tmp_path / "moved")
        assert self.again(tmp_path / "moved", output).trained == 0

    def test_a_fold_plan_that_was_edited(self, competition, output, no_training):
        path = output / "runs/tiny/folds.csv"
        lines = path.read_text().splitlines()
        lines[1] = lines[1][:-1] + str((int(lines[1][-1]) + 1) % 3)
        path.write_text("\n".join(lines) + "\n")
        with noting(path.parent, path), pytest.raises(KitError, match=r"other folds \(uniform/seed0/fold0\)"):
            self.again(competition, output)

    def test_weights(self, competition, output, tmp_path, no_training):
        import timm
        from safetensors.torch import save_file

        save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.safetensors")
        with pytest.raises(KitError, match=r"other weights \(uniform/seed0/fold0\)"):
            self.again(competition, output, model={"weights": str(tmp_path / "weights.safetensors")})

    def test_another_policy_from_other_weights(self, competition, output, tmp_path, no_training):
        import timm
        from safetensors.torch import save_file

        save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.safetensors")
        content = experiment_content(
            competition,
            training={"epochs": 1},
            folds={"run": [1]},
            model={"weights": str(tmp_path / "weights.safetensors")},
        )
        with pytest.raises(KitError, match=r"other weights \(uniform/seed0/fold0\)"):
            run(validate(content | {"policies": {"late": {"lr": 1e-3}}}, "test"), output)

    def test_replace_deals_the_folds_of_the_new_labels(self, competition, output, tmp_path):
        changed = tmp_path / "changed"
        shutil.copytree(competition, changed)
        train = pd.read_csv(changed / "train.csv")
        folds = pd.read_csv(output / "runs/tiny/folds.csv").set_index("id")["fold"]
        train["label"] = train["id"].map(folds).map({0: "red", 1: "green", 2: "blue"})
        train.to_csv(changed / "train.csv", index=False)
        self.again(changed, output, replace=True)
        folds = pd.read_csv(output / "runs/tiny/folds.csv").set_index("id")["fold"]
        assert (pd.crosstab(train["label"], train["id"].map(folds)) == 4).all().all()

    def test_replace_keeps_what_is_there_until_nothing_can_go_wrong(self, competition, output, tmp_path):
        broken = tmp_path / "broken"
        shutil.copytree(competition, broken)
        (broken / "train" / "train000.png").write_text("no image")
        with pytest.raises(KitError, match=r"1 of 36 images cannot be read"):
            self.again(broken, output, replace=True, training={"batch_size": 6})
        assert (output / "runs/tiny/uniform/seed0/fold0/weights.safetensors").exists()

    def test_rows(self, competition, output, tmp_path, no_training):
        more = write_competition(tmp_path / "more", rows=39)
        with pytest.raises(
            KitError,
            match=r"other training rows .*folds.csv is of other rows than the train table \(36 against 39\)",
        ):
            self.again(more, output)


@pytest.fixture
def no_training_after(monkeypatch):
    """Called, it makes every further training fail the test."""

    def refuse(*_):
        raise AssertionError("a training began")

    return lambda: monkeypatch.setattr(Trainer, "train", refuse)


class TestPooled:
    """What is pooled is all that is finished, whatever was asked for last."""

    def test_fewer_folds_or_seeds_leave_the_pooled_files_whole(self, finished, tmp_path, no_training):
        config, output, _ = finished
        shutil.copytree(output, tmp_path, dirs_exist_ok=True)
        files = ["runs/tiny/uniform/oof.parquet", "runs/tiny/uniform/test.parquet", "submissions/tiny.csv"]
        before = [(tmp_path / name).read_bytes() for name in files]
        for less in ({"folds": config.folds.model_copy(update={"run": (0,)})}, {"seeds": (0,)}):
            outcome = run(config.model_copy(update=less), tmp_path).policies["uniform"]
            assert len(outcome.scores.runs) == 6
            assert [(tmp_path / name).read_bytes() for name in files] == before
        assert "run: all" in (tmp_path / "runs/tiny/experiment.yaml").read_text()

    def test_another_metric_scores_anew_without_training(self, competition, short_copy, no_training):
        outcome = run(experiment(competition, training={"epochs": 1}, scoring={"average": "micro"}), short_copy)
        scores = outcome.policies["uniform"].scores
        assert scores.metric == "micro F1"
        truth = pd.read_csv(competition / "train.csv").set_index("id")["label"]
        pooled = pd.read_parquet(short_copy / "runs/tiny/uniform/oof.parquet").set_index("id")
        expected = f1_score(truth.loc[pooled.index], pooled.idxmax(axis=1), average="micro")
        assert scores.oof == pytest.approx(expected)

    def test_another_test_set_is_predicted_with_the_saved_weights(self, competition, tmp_path, no_training_after):
        folder = tmp_path / "data"
        shutil.copytree(competition, folder)
        run(experiment(folder, training={"epochs": 1, "ema": 0.5}), tmp_path)
        before = pd.read_parquet(tmp_path / "runs/tiny/uniform/test.parquet").set_index("id")
        no_training_after()
        for name in ("test.csv", "sample_submission.csv"):
            lines = (folder / name).read_text().splitlines()
            (folder / name).write_text("\n".join([lines[0], *reversed(lines[4:])]) + "\n")
        said = []
        run(experiment(folder, training={"epochs": 1, "ema": 0.5}), tmp_path, say=said.append)
        after = pd.read_parquet(tmp_path / "runs/tiny/uniform/test.parquet").set_index("id")
        assert after.index.tolist() == [f"test{row:03d}" for row in range(8, 2, -1)]
        np.testing.assert_allclose(after, before.loc[after.index], atol=1e-5)
        assert sum("the test set has changed" in line for line in said) == 3
        assert (tmp_path / "submissions/tiny.csv").read_text().splitlines()[1].startswith("test008,")

    def test_a_run_whose_predictions_are_gone_predicts_them_anew(self, competition, short_copy, no_training):
        everything = lambda: {file: file.read_bytes() for file in short_copy.rglob("*") if file.is_file()}  # noqa: E731
        before, said = everything(), list[str]()
        gone = [short_copy / f"runs/tiny/uniform/seed0/fold1/{part}.parquet" for part in ("oof", "test")]
        for file in gone:
            file.unlink()
        assert run(experiment(competition, training={"epochs": 1}), short_copy, say=said.append).trained == 0
        told = "was damaged or missing; predicted anew with the saved weights, to the same bits"
        assert [line for line in said if "anew" in line] == [f"{file} {told}" for file in gone]
        assert everything() == before

    def test_a_run_of_an_earlier_version_without_predictions_is_trained_again(self, competition, short_copy):
        one = RunDir(short_copy / "runs/tiny/uniform/seed0/fold1")
        one.write(one.record.with_fields(files={}))
        one.oof.unlink()
        assert run(experiment(competition, training={"epochs": 1}), short_copy).trained == 1

    def test_the_picture_is_drawn_where_it_is_missing(self, competition, short_copy, no_training, painted):
        folder = ExperimentDir(short_copy / "runs/tiny")
        folder.curves.unlink()
        run(experiment(competition, training={"epochs": 1}), short_copy)
        with Image.open(folder.curves) as image:
            assert image.size == (902, 418)
            assert len(image.convert("RGB").getcolors(2**16)) > 20

    def test_a_picture_of_some_of_the_runs_is_drawn_anew(self, competition, short_copy, no_training):
        """It is there where a command was killed after it had pooled in between."""
        folder = ExperimentDir(short_copy / "runs/tiny")
        whole = folder.curves.read_bytes()
        one = folder.run(RunKey("uniform", 0, 1)).path
        one.rename(short_copy / "aside")
        draw_curves(folder, "macro F1")
        assert folder.curves.read_bytes() != whole
        (short_copy / "aside").rename(one)
        run(experiment(competition, training={"epochs": 1}), short_copy)
        assert folder.curves.read_bytes() == whole
        before = folder.curves.stat().st_mtime_ns
        run(experiment(competition, training={"epochs": 1}), short_copy)
        assert folder.curves.stat().st_mtime_ns == before


SCRIPT = """
import multiprocessing, sys
from kit import load_experiment, run
multiprocessing.set_start_method(sys.argv[1], force=True)
{guard}
    print(run(load_experiment(sys.argv[2]), sys.argv[3]).trained)
"""


def run_as_script(competition, folder, method, guard):
    (folder / "train.py").write_text(SCRIPT.format(guard=guard))
    sections = {"folds": {"run": [0]}, "data": {"workers": 1}, "training": {"epochs": 1}}
    words = [method, config_file(competition, folder / "config.yaml", **sections), folder]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(folder / "train.py"), *map(str, words)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_script_without_a_guard_is_refused_where_processes_are_not_forked(competition, tmp_path):
    ran = run_as_script(competition, tmp_path, "spawn", "if True:")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.splitlines()[-1] == (
        "kit.core.errors.KitError: train.py, line 6: data workers and --jobs are processes that import the script "
        'first, so this has to stand below `if __name__ == "__main__":`'
    )
    assert list((tmp_path / "cache").iterdir()) == []  # before images are decoded


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_with_a_guard_trains_where_processes_are_not_forked(competition, tmp_path, method):
    ran = run_as_script(competition, tmp_path, method, 'if __name__ == "__main__":')
    assert (ran.returncode, ran.stdout.splitlines()[-1:]) == (0, ["1"]), ran.stderr


def test_an_evaluation_starts_no_processes(competition, tmp_path, started):
    """Two data workers train, two evaluate, two predict the test set; none is left, and no bit is another."""
    counts, bits = [], []
    for every in (0, 1):
        settings = {"epochs": 4, "evaluate_every": every}
        config = experiment(
            competition,
            folds={"run": [0]},
            data={"workers": 2},
            training=settings,
            prediction={"batch_size": 4},
        )
        result = run(config, tmp_path / str(every))
        counts.append(len(started) - sum(counts))
        bits.append((result.folder / "uniform/seed0/fold0/oof.parquet").read_bytes())
    assert counts == [6, 6]
    assert bits[0] == bits[1]
    assert not any(process.is_alive() for process in started)


class TestSideBySide:
    """`jobs`: the same runs, in processes of their own."""

    def test_the_bits_are_those_of_one_after_the_other(self, two_threads, competition, tmp_path, capfd):
        """With as many threads each, which sums depend on."""
        config = experiment(competition, folds={"k": 2}, training={"epochs": 1})
        results = [
            run(config, RunOptions(tmp_path / name, jobs=jobs, threads=1))
            for name, jobs in (("one", 1), ("two", 2))
        ]
        assert torch.get_num_threads() == 2  # as before
        for name in ("one", "two"):
            records = [each.record for each in ExperimentDir(tmp_path / name / "runs/tiny").runs()]
            assert [record.threads for record in records] == [1, 1]
        assert "uniform seed 0 fold 1: macro F1 " in capfd.readouterr().out  # the processes speak for themselves
        assert [(result.trained, result.kept) for result in results] == [(2, 0), (2, 0)]
        files = [f"runs/tiny/uniform/seed0/fold{fold}/weights.safetensors" for fold in (0, 1)]
        files += ["runs/tiny/uniform/oof.parquet", "runs/tiny/uniform/test.parquet", "submissions/tiny.csv"]
        for file in files:
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file

    @pytest.mark.parametrize(
        ("wanted", "gpus", "device", "due", "jobs"),
        [
            ("auto", 2, "auto", 5, 2),
            ("auto", 2, "auto", 1, 1),
            ("auto", 2, "cpu", 5, 1),
            ("auto", 0, "auto", 5, 1),
            (3, 0, "cpu", 5, 3),
            (3, 0, "cpu", 2, 2),
            (1, 2, "auto", 5, 1),
        ],
    )
    def test_how_many(self, begun, wanted, gpus, device, due, jobs):
        sections = {"training": {"device": device}, "folds": {"k": 5, "run": list(range(due))}}
        assert begun(wanted, gpus, **sections).jobs == jobs

    @pytest.mark.parametrize(("workers", "gpus", "each"), [("auto", 2, 2), ("auto", 0, 0), (3, 2, 3)])
    def test_they_share_the_cores(self, begun, monkeypatch, workers, gpus, each):
        """Two T4s have four cores: no more processes that prepare batches than these."""
        monkeypatch.setattr("os.cpu_count", lambda: 4)
        sections = {"data": {"workers": workers}, "training": {"device": "auto"}}
        _, _, sharing, _, _ = next(begun(2, gpus, **sections).tasks)
        assert sharing.recipe.data.workers == each

    def test_torchrun_shares_out_every_run_already(self, begun):
        assert [begun(wanted, processes=2).jobs for wanted in ("auto", 1)] == [1, 1]
        assert refusal_of(lambda: begun(2, processes=2)) == (
            "--jobs: torchrun shares out every run already; use one of the two"
        )


class TestFoldPlan:
    """`folds`: a plan that was made elsewhere."""

    @pytest.fixture
    def plan(self, competition, tmp_path):
        """Folds 0 to 2 in the order of the rows, which no shuffle gives; in a file in another order."""
        ids = pd.read_csv(competition / "train.csv")["id"]
        plan = pd.DataFrame({"id": ids, "fold": np.arange(len(ids)) // 12})
        plan[::-1].to_csv(tmp_path / "plan.csv", index=False)
        return plan

    def run(self, competition, tmp_path, **sections):
        config = experiment(competition, **{"folds": {"run": [1]}, "training": {"epochs": 1}} | sections)
        return run(config, RunOptions(tmp_path, folds=tmp_path / "plan.csv"))

    def test_it_is_followed_kept_and_recorded(self, competition, tmp_path, plan, no_training_after):
        self.run(competition, tmp_path)
        oof = pd.read_parquet(tmp_path / "runs/tiny/uniform/seed0/fold1/oof.parquet")
        assert oof["id"].tolist() == plan["id"][12:24].tolist()
        kept = pd.read_csv(tmp_path / "runs/tiny/folds.csv")
        assert kept.set_index("id")["fold"].to_dict() == plan.set_index("id")["fold"].to_dict()
        record = json.loads((tmp_path / "runs/tiny/uniform/seed0/fold1/run.json").read_text())
        lines = sorted(f"{name}\t{fold}" for name, fold in zip(plan["id"], plan["fold"], strict=True))
        assert record["depends_on"]["folds"] == hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
        no_training_after()
        assert self.run(competition, tmp_path).kept == 1
        config = experiment(competition, folds={"run": [1]}, training={"epochs": 1})
        assert run(config, tmp_path).kept == 1  # without naming it again: the plan of the runs that are there

    def test_another_than_that_of_the_runs_is_refused(self, competition, tmp_path, plan, no_training_after):
        self.run(competition, tmp_path)
        plan.assign(fold=plan["fold"].to_numpy()[::-1]).to_csv(tmp_path / "plan.csv", index=False)
        no_training_after()
        assert refusal_of(self.run, competition, tmp_path) == (
            f"{tmp_path / 'runs/tiny'} was made from other folds (uniform/seed0/fold1); give the experiment "
            "another name (--set name=...), or start it anew with python -m kit run --replace"
        )

    def test_it_is_of_these_rows(self, competition, tmp_path, plan, no_training):
        place = tmp_path / "plan.csv"
        plan[:-1].to_csv(place, index=False)
        assert refusal_of(self.run, competition, tmp_path) == (
            f"--folds: {place} is of other rows than the train table (35 against 36), or has one twice; give "
            "a plan of the rows in train.csv"
        )
        plan.rename(columns={"fold": "part"}).to_csv(place, index=False)
        assert refusal_of(self.run, competition, tmp_path).startswith(f"--folds: {place} is no fold plan ")
        place.unlink()
        assert refusal_of(self.run, competition, tmp_path) == (
            f"--folds {place}: is no file; give a CSV with columns id and fold"
        )

    @pytest.mark.parametrize(("first", "there"), [(1, "1, 2, 3"), (-1, "-1, 0, 1")])
    def test_its_folds_are_numbered_from_0(self, competition, tmp_path, plan, no_training, first, there):
        plan.assign(fold=plan["fold"] + first).to_csv(tmp_path / "plan.csv", index=False)
        assert refusal_of(self.run, competition, tmp_path) == (
            f"--folds: {tmp_path / 'plan.csv'} has the folds {there}, but folds.k is 3, so they have to be 0 to "
            "2; set folds.k or renumber them"
        )

    def test_it_has_as_many_folds_as_the_config(self, competition, tmp_path, plan, no_training):
        message = refusal_of(lambda: self.run(competition, tmp_path, folds={"k": 4}))
        assert "has the folds 0, 1, 2, but folds.k is 4, so they have to be 0 to 3; " in message

    def test_too_few_rows_for_an_update_are_seen_before_training(self, competition, tmp_path, plan, no_training):
        """30 rows in fold 1 leave 6 to train on."""
        plan.assign(fold=[0, 2] * 3 + [1] * 30).to_csv(tmp_path / "plan.csv", index=False)
        message = refusal_of(self.run, competition, tmp_path)
        assert message.startswith("training.batch_size: one update takes 8 samples")
        assert "but only 6 rows train" in message


def test_pixels_go_where_they_are_told_to(competition, tmp_path):
    config = experiment(competition, folds={"run": [0]}, training={"epochs": 1}, data={"cache": True})
    run(config, RunOptions(tmp_path / "out", cache=tmp_path / "pixels"))
    assert len(list((tmp_path / "pixels").glob("pixels-*.npy"))) == 2
    assert not (tmp_path / "out/cache").exists()


class TestPool:
    """`pool`: scores and submission of the runs that are there, without training."""

    @pytest.fixture
    def copied(self, finished, tmp_path):
        """The finished experiment's runs alone, without what was pooled of them."""
        config, output, _ = finished
        unpooled = shutil.ignore_patterns("curves.png", "scores.json")
        shutil.copytree(output / "runs", tmp_path / "runs", ignore=unpooled)
        for policy in config.policies:
            for name in ("oof.parquet", "test.parquet"):
                (tmp_path / "runs/tiny" / policy / name).unlink()
        return tmp_path

    def test_gives_what_run_gave(self, finished, copied, no_training):
        config, output, first = finished
        result = pool(config, copied)
        assert (result.folder, result.trained, result.kept) == (copied / "runs/tiny", 0, 12)
        files = ["submissions/tiny.csv", "submissions/tiny+sliced.csv", "runs/tiny/curves.png"]
        for policy in config.policies:
            files += [f"runs/tiny/{policy}/{name}" for name in ("oof.parquet", "test.parquet", "scores.json")]
            assert result.policies[policy].scores == first.policies[policy].scores
        for file in files:
            assert (copied / file).read_bytes() == (output / file).read_bytes(), file

    def test_runs_from_a_weight_file_that_is_not_here(self, finished, copied):
        """They were trained where it is, and fetched."""
        config, _, first = finished
        for one in ExperimentDir(copied / "runs/tiny").runs():
            one.write(one.record.with_fields(depends_on=one.record.depends_on | {"weights": "0" * 64}))
        weights = copied / "b0.safetensors"
        elsewhere = config.model_copy(update={"model": config.model.model_copy(update={"weights": str(weights)})})
        assert pool(elsewhere, copied).policies["sliced"].scores == first.policies["sliced"].scores
        weights.write_bytes(b"other ones")
        assert refusal_of(pool, elsewhere, copied) == (
            f"{copied / 'runs/tiny'} was made from other weights (sliced/seed0/fold0); give the experiment "
            "another name (--set name=...), or start it anew with python -m kit run --replace"
        )

    def test_a_policy_without_runs_is_left_out(self, finished, copied):
        config, _, first = finished
        shutil.rmtree(copied / "runs/tiny/sliced")
        result = pool(config, copied)
        assert list(result.policies) == ["uniform"]
        assert result.policies["uniform"].scores == first.policies["uniform"].scores

    def test_some_runs(self, finished, copied):
        for run_folder in ("seed1", "seed0/fold2"):
            shutil.rmtree(copied / "runs/tiny/uniform" / run_folder)
        outcome = pool(finished[0], copied).policies["uniform"]
        assert [(each.seed, each.fold) for each in outcome.scores.runs] == [(0, 0), (0, 1)]
        assert outcome.scores.oof_rows == 24

    def test_no_runs(self, finished, tmp_path):
        message = refusal_of(pool, finished[0], tmp_path)
        assert message == f"{tmp_path / 'runs/tiny'} holds no finished run of uniform, sliced"
        assert not (tmp_path / "submissions").exists()

    def test_runs_that_came_without_their_config(self, finished, copied):
        (copied / "runs/tiny/experiment.yaml").unlink()
        assert refusal_of(pool, finished[0], copied) == (
            f"{copied / 'runs/tiny/experiment.yaml'} does not exist; bring it along with the runs it belongs to"
        )

    def test_another_config(self, finished, copied):
        config, _, _ = finished
        other = config.model_copy(update={"training": config.training.model_copy(update={"epochs": 9})})
        assert refusal_of(pool, other, copied) == (
            f"{copied / 'runs/tiny'} was made from another config (training.epochs: 3 there, 9 here); give the "
            "experiment another name (--set name=...), or start it anew with python -m kit run --replace"
        )

    def test_another_test_set(self, finished, copied):
        folder = copied / "data"
        shutil.copytree(finished[0].competition.path, folder)
        for name in ("test.csv", "sample_submission.csv"):
            lines = (folder / name).read_text().splitlines()
            (folder / name).write_text("\n".join(lines[:-1]) + "\n")
        config = finished[0]
        place = config.competition.model_copy(update={"path": str(folder)})
        assert refusal_of(pool, config.model_copy(update={"competition": place}), copied) == (
            f"12 runs predicted another test set than the one in {folder}; the command `python -m kit run` "
            "predicts it anew with their weights"
        )


def test_a_failed_run_says_so_and_is_tried_again(competition, tmp_path):
    wild = {"uniform": {"lr": 1e30, "schedule": "constant"}}
    with pytest.raises(KitError, match=r"uniform seed 0 fold 0: the loss is (nan|inf) at step"):
        run(experiment(competition, policies=wild), tmp_path)
    record = json.loads((tmp_path / "runs/tiny/uniform/seed0/fold0/run.json").read_text())
    assert record["status"] == "diverged"
    assert "lower the policy's lr" in record["error"]
    with pytest.raises(KitError, match="the loss is"):
        run(experiment(competition, policies=wild), tmp_path)


TOO_SMALL = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (
            "kit.training.trainer.Trainer._update",
            "the GPU's memory is too small; halve training.batch_size and double training.accumulate",
        ),
        (
            "kit.training.predict.Predictor._probabilities",
            "the device's memory is too small to predict one image; lower data.size, or end what else uses it",
        ),
    ],
)
def test_a_gpu_that_is_too_small_is_told_with_what_to_lower(competition, tmp_path, monkeypatch, place, told):
    monkeypatch.setattr(place, raising(TOO_SMALL))
    message = refusal_of(run, experiment(competition), tmp_path)
    assert message == f"uniform seed 0 fold 0: {told}"
    record = json.loads((tmp_path / "runs/tiny/uniform/seed0/fold0/run.json").read_text())
    assert (record["status"], record["error"]) == ("failed", told)


def test_a_gpu_that_is_too_small_for_another_test_set(tmp_path, monkeypatch):
    folder = write_competition(tmp_path / "data")
    stated = {"training": {"epochs": 1}, "folds": {"run": [0]}}
    run(experiment(folder, **stated), tmp_path)
    (folder / "test/test000.png").write_bytes((folder / "test/test001.png").read_bytes())
    monkeypatch.setattr("kit.training.predict.Predictor._probabilities", raising(TOO_SMALL))
    assert refusal_of(run, experiment(folder, **stated), tmp_path) == (
        "uniform seed 0 fold 0: the device's memory is too small to predict one image; lower data.size, or end "
        "what else uses it"
    )


def raising(error: Exception):
    def call(*_, **__):
        raise error

    return call


@pytest.mark.parametrize(("device", "how"), [("cuda", "1 × cuda, fp32 without TF32"), ("cpu", "1 × cpu, fp32")])
def test_what_fp32_means_is_announced(competition, tmp_path, device, how):
    runner = kit.experiment.runner.Runner.set_up(experiment(competition), tmp_path)
    state = SimpleNamespace(num_processes=1, device=SimpleNamespace(type=device))
    line = dataclasses.replace(runner, state=state)._announcement("3 runs", Sharing(1))
    assert line == f"tiny: 3 runs of test_resnet on {how}; 36 training and 9 test rows"


def test_a_test_set_of_no_rows_gives_an_empty_submission(tmp_path):
    folder = write_competition(tmp_path / "data", test_rows=1)
    for name in ("test.csv", "sample_submission.csv"):
        header = (folder / name).read_text().splitlines()[0]
        (folder / name).write_text(header + "\n")
    result = run(experiment(folder, folds={"run": [0]}, training={"epochs": 1}), tmp_path)
    assert result.policies["uniform"].submission.read_text() == "id,label\n"


def test_images_that_are_no_images_are_all_named_before_training(tmp_path, no_training):
    folder = write_competition(tmp_path / "data")
    for name in ("train003", "train030"):
        (folder / "train" / f"{name}.png").write_text("no image")
    for cache in (True, False):
        with pytest.raises(
            KitError, match=r"2 of 36 images cannot be read: .*train003.png.*train030.png"
        ) as caught:
            run(experiment(folder, data={"cache": cache}), tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"name": "resnet19"}}, "model.name: 'resnet19' is not a timm model"),
        (
            {"model": {"name": "pit_ti_224"}, "policies": {"u": {"lr": "slice(1e-4, 1e-2)"}}},
            "policies.u: differs by depth, but PoolingVisionTransformer offers no depth order",
        ),
        ({"model": {"weights": "missing.pth"}}, "model.weights: missing.pth is no file"),
        ({"training": {"optimizer": {"name": "adamm"}}}, "training.optimizer.name: timm has no 'adamm'"),
        ({"training": {"class_weights": {"pink": 2.0}}}, "training.class_weights: 'pink' is no class"),
        ({"training": {"batch_size": 64}}, "one update takes 64 samples"),
        ({"data": {"augment": [{"Flipp": {}}]}}, r"data.augment\[0\]: 'Flipp' is no transform"),
        ({"folds": {"k": 3, "run": [3]}}, "folds.run: there are folds 0 to 2; got 3"),
        ({"competition": {"label": "class"}}, "competition.label: .* has no column 'class'; it has id, label"),
        ({"competition": {"train_images": "train/{id}.jpg"}}, "36 of 36 images do not exist"),
        ({"competition": {"train_images": "train/{id:{id}}.png"}}, "is no template of text cells"),
        ({"model": {"name": "resnet18.nonsense"}}, "model.name: 'resnet18.nonsense': Invalid pretrained tag"),
        ({"model": {"name": "inception_v3"}}, r"inception_v3 cannot train on batches of 2 × 3 × 32 × 32 \("),
        (
            {"model": {"name": "resnet18"}, "training": {"batch_size": 1}},
            "cannot train on batches of 1 × 3 × 32 × 32",
        ),
        ({"training": {"precision": "fp16"}}, "training.precision: fp16 needs a GPU"),
        ({"training": {"optimizer": {"name": "fusedadam"}}}, "training.optimizer: fusedadam refuses"),
    ],
)
def test_what_cannot_work_is_one_line_before_training(competition, tmp_path, no_training, sections, message):
    with pytest.raises(KitError, match=message) as caught:
        run(experiment(competition, **sections), tmp_path)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.slow
def test_the_demo_reaches_its_scores(tmp_path):
    """`make demo`: five folds of a small ResNet on the digits."""
    from kit import load_experiment

    digits = load_experiment("configs/digits.yaml", [f"competition.path={tmp_path / 'digits'}"])
    outcome = run(digits, tmp_path).policies["uniform"]
    assert outcome.scores.oof >= 0.97
    assert grade(outcome.submission, tmp_path / "digits-solution.csv", digits).value >= 0.97


@pytest.mark.slow
def test_the_threads_pair_on_digits(tmp_path):
    """One fold, three epochs: uniform 1e-2 is clearly above slice(1e-6, 1e-2) under coarse groups."""
    from kit import load_experiment

    pair = load_experiment(
        "configs/digits.yaml",
        [f"competition.path={tmp_path / 'digits'}", "model.name=resnet18", "training.epochs=3", "folds.run=[0]"],
        ["uniform", "discriminative"],
    )
    scores = {name: outcome.scores.oof for name, outcome in run(pair, tmp_path).policies.items()}
    assert scores["uniform"] >= 0.85
    assert scores["discriminative"] <= scores["uniform"] - 0.05


class TestUnreadable:
    """One image of the test set that cannot be read stops nobody; nobody can mend it."""

    @pytest.fixture
    def folder(self, tmp_path):
        folder = write_competition(tmp_path / "colours", rows=18, test_rows=4, side=8)
        file = folder / "test/test002.png"
        file.write_bytes(file.read_bytes()[:60])
        return folder

    def test_its_row_gets_the_mean_of_the_held_out_predictions(self, folder, tmp_path):
        said = []
        content = experiment_content(folder, training={"epochs": 1}, folds={"k": 2})
        run(validate(content, "test"), tmp_path, say=said.append)
        (told,) = [line for line in said if "cannot be read" in line]
        assert told.startswith(f"1 of 4 test images cannot be read ({folder / 'test/test002.png'} (")
        assert told.endswith("their rows get the prior")
        for fold in (0, 1):
            where = tmp_path / f"runs/tiny/uniform/seed0/fold{fold}"
            oof, test = (read_predictions(where / f"{part}.parquet") for part in ("oof", "test"))
            assert test.index.tolist() == [f"test00{row}" for row in range(4)]
            np.testing.assert_allclose(test.loc["test002"], oof.mean(), rtol=1e-5)
            assert not np.allclose(test.loc["test001"], oof.mean(), rtol=1e-4)
        assert len(pd.read_csv(tmp_path / "submissions/tiny.csv")) == 4
        assert not list((tmp_path / "cache").glob("part-*"))

    def test_a_training_image_is_refused(self, folder, tmp_path):
        file = folder / "train/train003.png"
        file.write_bytes(file.read_bytes()[:60])
        message = refusal_of(run, validate(experiment_content(folder, folds={"k": 2}), "test"), tmp_path)
        assert message.startswith("1 of 18 images cannot be read: ")


class TestGivenPlans:
    """`--folds FILE`: groups are held to, told by the file or not."""

    def plan(self, tmp_path, text: str):
        (tmp_path / "mine.csv").write_text(text)
        return tmp_path / "mine.csv"

    @pytest.fixture
    def folder(self, tmp_path):
        folder = write_competition(tmp_path / "colours", rows=12, test_rows=3, side=8)
        train = pd.read_csv(folder / "train.csv")
        train.assign(site=[f"s{row // 4}" for row in range(12)]).to_csv(folder / "train.csv", index=False)
        shutil.copy(folder / "train/train000.png", folder / "train/train006.png")  # rows 0 and 6: the same pixels
        return folder

    def test_in_which_a_group_of_the_table_spans_folds(self, folder, tmp_path, no_training):
        lines = [f"train{row:03d},{row % 2}" for row in range(12)]
        plan = self.plan(tmp_path, "\n".join(["id,fold", *lines]))
        config = experiment(folder, folds={"k": 2, "group": "site"})
        assert "folds: 3 of 3 groups span folds (s0, s1, s2)" in refusal_of(
            lambda: run(config, RunOptions(tmp_path, folds=plan))
        )

    def test_in_which_images_that_are_alike_span_folds(self, folder, tmp_path, no_training):
        lines = [f"train{row:03d},{int(row > 5)}" for row in range(12)]
        plan = self.plan(tmp_path, "\n".join(["id,fold", *lines]))
        config = experiment(folder, folds={"k": 2, "duplicates": "exact"})
        assert "1 of 11 groups span folds" in refusal_of(lambda: run(config, RunOptions(tmp_path, folds=plan)))
        loaded, _ = prepare(
            experiment(folder, name="other", folds={"k": 2, "duplicates": "exact"}, training={"batch_size": 4}),
            ExperimentDir(tmp_path / "runs/other"),
            OutputDirs(tmp_path),
            folds=self.plan(
                tmp_path, "\n".join(["id,fold", *[f"train{row:03d},{int(0 < row < 6)}" for row in range(12)]])
            ),
        )
        assert loaded.folds.groups[0] == loaded.folds.groups[6]
        assert len(np.unique(loaded.folds.groups)) == 11

    def test_in_which_rows_only_train(self, folder, tmp_path):
        """−1 as in scikit-learn's PredefinedSplit, also where a table with gaps made it -1.0."""
        fold = np.array([-1, 0, 1] * 4)
        plan = self.plan(
            tmp_path, "\n".join(["id,fold", *[f"train{row:03d},{each}.0" for row, each in enumerate(fold)]])
        )
        config = experiment(folder, folds={"k": 2}, training={"epochs": 1, "batch_size": 4})
        result = run(config, RunOptions(tmp_path, folds=plan))
        scores = result.policies["uniform"].scores
        assert (scores.oof_rows, scores.train_rows) == (8, 8)
        for number in (0, 1):
            oof = read_predictions(tmp_path / f"runs/tiny/uniform/seed0/fold{number}/oof.parquet")
            assert sorted(oof.index) == [f"train{row:03d}" for row in np.flatnonzero(fold == number)]
        loaded = LoadedExperiment.open(config, ExperimentDir(tmp_path / "runs/tiny"), OutputDirs(tmp_path))
        assert loaded.folds.training_rows(0).tolist() == np.flatnonzero(fold != 0).tolist()

    def test_in_which_a_group_partly_only_trains(self, folder, tmp_path, no_training):
        lines = [f"train{row:03d},{-1 if row == 0 else row // 4 % 2}" for row in range(12)]
        plan = self.plan(tmp_path, "\n".join(["id,fold", *lines]))
        config = experiment(folder, folds={"k": 2, "group": "site"})
        assert "folds: 1 of 3 groups span folds (s0)" in refusal_of(run, config, RunOptions(tmp_path, folds=plan))

    @pytest.mark.parametrize(
        ("fold", "said"), [("0.5", "0.5 is no whole number"), ("-2", "has the folds -2, 0, 1")]
    )
    def test_in_which_a_fold_is_none(self, folder, tmp_path, no_training, fold, said):
        lines = [f"train{row:03d},{fold if row == 0 else row % 2}" for row in range(12)]
        plan = self.plan(tmp_path, "\n".join(["id,fold", *lines]))
        assert said in refusal_of(run, experiment(folder, folds={"k": 2}), RunOptions(tmp_path, folds=plan))

    def test_that_is_not_later_in_time(self, folder, tmp_path, no_training):
        """Also where the plan is given: it is held to the moments of its rows."""
        train = pd.read_csv(folder / "train.csv")
        train.assign(day=[f"{row + 10}/01/2024" for row in range(12)]).to_csv(folder / "train.csv", index=False)
        config = experiment(folder, folds={"k": 2, "time": "day"})
        fold = [-1, -1, -1, 0, 0, 1, 0, 1, 1, 1, 1, 1]
        plan = self.plan(tmp_path, "\n".join(["id,fold", *[f"train{row:03d},{f}" for row, f in enumerate(fold)]]))
        assert refusal_of(run, config, RunOptions(tmp_path, folds=plan)) == (
            "folds: 1 of the 6 rows that fold 1 holds out are not later than all that it trains on (row train005 "
            "of '15/01/2024', row train006 of '16/01/2024' trains); make the plan anew"
        )
