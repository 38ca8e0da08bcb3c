"""Predicting from runs alone, as an infer kernel does: whatever the test set, wherever the runs."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from support.colours import experiment_content, write_competition
from support.faults import as_left
from support.refusals import refusal_of

from kit import run
from kit.cli import main as cli
from kit.core.runs import RunDir, read_predictions
from kit.data import images
from kit.data.decode import Decoder
from kit.experiment import predict as prediction
from kit.experiment import view_clock
from kit.experiment.config import ExperimentConfig, validate
from kit.experiment.fingerprint import config_digest
from kit.experiment.options import RunOptions
from kit.experiment.predict import PredictResult, predict_test
from kit.training.predict import Normalise
from kit.training.saved_weights import load_weights

NO_RUN = "train one, or say what holds them: --runs DIR, for a kernel kernel.kernels or kernel.datasets"


def described(folder: Path, **sections) -> ExperimentConfig:
    stated = {"folds": {"k": 2}, "training": {"epochs": 3}}
    return validate(experiment_content(folder, **stated | sections), "test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder data/ of a competition, and what training two folds on it made: runs/, submissions/."""
    root = tmp_path_factory.mktemp("trained")
    run(described(write_competition(root / "data", rows=30)), root)
    return root


@pytest.fixture
def data(trained, tmp_path) -> Path:
    """The test side of the competition, to be changed."""
    shutil.copytree(trained / "data", tmp_path / "data", ignore=shutil.ignore_patterns("train*", "solution.csv"))
    return tmp_path / "data"


@pytest.fixture
def predicted(trained, data, tmp_path):
    """Predicts the test side with the runs; gives the labels by id, what was said and what came back."""

    def call(sources=(), seconds=None, **sections) -> tuple[dict[str, str], list[str], PredictResult]:
        said = []
        made = predict_test(
            described(data, **sections),
            sources or [trained / "runs"],
            tmp_path / "made" / "submission.csv",
            tmp_path,
            budget=seconds,
            say=said.append,
        )
        assert made.submission == tmp_path / "made" / "submission.csv"
        return labels_in(made.submission), said, made

    return call


def labels_in(file: Path) -> dict[str, str]:
    table = pd.read_csv(file, dtype=str)
    assert list(table.columns) == ["id", "label"]
    assert table["id"].is_unique
    return dict(zip(table["id"], table["label"], strict=True))


def by_the_run(trained: Path) -> dict[str, str]:
    return labels_in(trained / "submissions/tiny.csv")


def test_all_models_predict_with_the_same_workers(trained, predicted, started):
    labels, _, made = predicted(data={"workers": 2}, prediction={"batch_size": 2})
    assert labels == by_the_run(trained)
    assert (made.models, len(started)) == (2, 2)
    assert not any(process.is_alive() for process in started)


def edit(folder: Path, change) -> None:
    """Applies `change` to the test table and the sample submission alike."""
    for name in ("test.csv", "sample_submission.csv"):
        change(pd.read_csv(folder / name, dtype=str)).to_csv(folder / name, index=False)


def run_folder(trained: Path, fold: int) -> Path:
    return trained / f"runs/tiny/uniform/seed0/fold{fold}"


def prior_of(trained: Path) -> pd.Series:
    return pd.concat([read_predictions(run_folder(trained, fold) / "oof.parquet") for fold in (0, 1)]).mean()


def test_the_submission_is_the_one_that_training_wrote(trained, predicted, tmp_path):
    _, said, made = predicted()
    assert made.submission.read_bytes() == (trained / "submissions/tiny.csv").read_bytes()
    assert len(set(by_the_run(trained).values())) == 3  # else the comparison would say little
    assert (made.rows, made.models, made.of, made.unreadable) == (9, 2, 2, [])
    assert said[0] == (
        f"tiny: 9 test rows, 2 models of uniform; until they are done {made.submission} has the most common class "
        "everywhere"
    )
    assert [line.rpartition(":")[0] for line in said[1:]] == ["seed0 fold0", "seed0 fold1"]


def test_neither_train_table_nor_train_images_nor_pretrained_weights_are_needed(trained, data, predicted):
    assert sorted(path.name for path in data.iterdir()) == ["sample_submission.csv", "test", "test.csv"]
    labels, _, _ = predicted(model={"weights": "attached/nowhere.safetensors"})
    assert labels == by_the_run(trained)


@pytest.mark.parametrize(("rows", "models"), [(0, 0), (1, 2), (3, 2)])
def test_fewer_rows(trained, data, predicted, rows, models):
    edit(data, lambda table: table.head(rows))
    labels, _, made = predicted()
    assert labels == dict(list(by_the_run(trained).items())[:rows])
    assert (made.rows, made.models, made.of) == (rows, models, 2)


def test_five_times_the_rows(trained, data, predicted):
    for copy in range(1, 5):
        for row in range(9):
            shutil.copy(data / f"test/test00{row}.png", data / f"test/again{copy}-test00{row}.png")
    copies = ["", *(f"again{copy}-" for copy in range(1, 5))]
    edit(data, lambda table: pd.concat([table.assign(id=copy + table["id"]) for copy in copies]))
    labels, _, made = predicted()
    assert made.rows == 45
    assert labels == {copy + name: label for copy in copies for name, label in by_the_run(trained).items()}


@pytest.mark.parametrize("rows", [9, 3, 1, 0])
def test_without_tables_the_rows_are_the_files_that_are_there(trained, data, predicted, rows):
    for table in ("test.csv", "sample_submission.csv"):
        (data / table).unlink()
    for image in sorted((data / "test").iterdir())[rows:]:
        image.unlink()
    columns = {"id": "id", "label": "label"}
    labels, _, made = predicted(competition={"test": None, "sample_submission": None, "submission": columns})
    assert (labels, made.rows) == (dict(list(by_the_run(trained).items())[:rows]), rows)


def test_another_order_of_rows_is_the_samples(trained, data, predicted):
    edit(data, lambda table: table.sample(frac=1, random_state=len(table.columns)))
    order = pd.read_csv(data / "sample_submission.csv")["id"].tolist()
    assert order != sorted(order) != pd.read_csv(data / "test.csv")["id"].tolist() != order
    labels, _, _ = predicted()
    assert list(labels) == order
    assert labels == by_the_run(trained)


def test_one_more_column_in_the_test_table(trained, data, predicted):
    table = pd.read_csv(data / "test.csv")
    table.insert(0, "camera", "K,1")
    table.to_csv(data / "test.csv", index=False)
    assert predicted()[0] == by_the_run(trained)


def test_a_stale_sample_submission_is_refused(data, predicted, tmp_path):
    table = pd.read_csv(data / "test.csv")
    pd.concat([table.iloc[2:], pd.DataFrame({"id": ["new"]})]).to_csv(data / "test.csv", index=False)
    assert refusal_of(predicted) == (
        f"competition.test: {data / 'test.csv'} and sample_submission.csv disagree: 1 ids are only in the test "
        "table (new), 2 only in the sample submission (test000, test001); use the files of one download"
    )
    assert not (tmp_path / "made/submission.csv").exists()


def test_images_that_cannot_be_read_get_the_prior(trained, data, predicted, tmp_path):
    (data / "test/test003.png").write_bytes((data / "test/test003.png").read_bytes()[:60])
    (data / "test/test007.png").unlink()
    labels, said, made = predicted()
    usual = by_the_run(trained)
    common = prior_of(trained).idxmax()
    assert made.unreadable == ["test003", "test007"]
    assert list((tmp_path / "cache").iterdir()) == []  # pixels with gaps are of no use to another
    assert (made.rows, made.models) == (9, 2)
    assert said[-1] == "2 of 9 images cannot be read (test003, test007): their rows get the prior"
    assert labels == usual | {"test003": common, "test007": common}
    assert usual["test003"] != usual["test007"]  # so that at least one of the two is another than without a fault


def test_on_a_device_where_images_stay_those_that_cannot_be_read_are_not_asked_for(
    trained, data, predicted, monkeypatch
):
    monkeypatch.setattr("kit.data.device.batches.augments_on_device", lambda config, device: True)
    (data / "test/test003.png").unlink()
    labels, _, made = predicted()
    assert made.unreadable == ["test003"]
    assert labels == by_the_run(trained) | {"test003": prior_of(trained).idxmax()}


def test_where_no_image_can_be_read_all_get_the_prior(trained, data, predicted):
    for image in (data / "test").iterdir():
        image.write_bytes(b"no image")
    labels, said, made = predicted()
    assert set(labels.values()) == {prior_of(trained).idxmax()}
    assert (made.models, len(made.unreadable)) == (0, 9)
    assert said[-1].startswith(
        "9 of 9 images cannot be read (test000, test001, test002, test003, test004 and 4 more)"
    )


def test_where_no_image_is_there_the_template_is_wrong(trained, data, predicted):
    """A constant submission would only cost one of the day's few."""
    shutil.rmtree(data / "test")
    message = refusal_of(predicted)
    assert message.startswith("competition.test_images: 9 of 9 images do not exist (")
    assert message.endswith("; is 'test/{id}.png' the right template?")


@pytest.mark.parametrize("batch", [1, 4])
def test_a_last_batch_of_one(trained, predicted, batch):
    assert 9 % batch == (1 if batch > 1 else 0)
    assert predicted(prediction={"batch_size": batch})[0] == by_the_run(trained)


def test_a_valid_submission_is_there_before_the_first_model(trained, data, predicted, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise MemoryError

    monkeypatch.setattr(prediction, "build_model", broken)
    with pytest.raises(MemoryError):
        predicted()
    labels = labels_in(tmp_path / "made/submission.csv")
    assert list(labels) == pd.read_csv(data / "sample_submission.csv")["id"].tolist()
    assert set(labels.values()) == {prior_of(trained).idxmax()}


def test_a_test_set_too_large_for_the_cache_that_was_asked_for(trained, predicted, tmp_path, monkeypatch):
    monkeypatch.setattr(images.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    assert predicted(data={"cache": True})[0] == by_the_run(trained)
    assert list((tmp_path / "cache").glob("*.npy")) == []


def test_weights_that_predict_no_numbers_are_refused(trained, predicted, tmp_path):
    shutil.copytree(run_folder(trained, 0), place := tmp_path / "a/tiny/uniform/seed0/fold0")
    weights = load_file(place / "weights.safetensors")
    save_file(weights | {"fc.bias": weights["fc.bias"] * np.nan}, place / "weights.safetensors")
    as_left(RunDir(place))
    assert refusal_of(predicted, [tmp_path / "a"]) == (
        f"{place} predicts values that are not finite in fp32; predict on the kind of device that trained "
        "it, or with --set training.device=cpu"
    )


class TestPrecision:
    """A GPU's fp16 (torch's autocast on the CPU stands for it) cannot hold all that fp32 can."""

    @pytest.fixture
    def fp16(self, monkeypatch):
        cpu = prediction.make_accelerator

        def make_accelerator(training):
            accelerator = cpu(training.model_copy(update={"precision": "fp32"}))
            monkeypatch.setattr(type(accelerator), "mixed_precision", property(lambda _: training.precision))
            if training.precision == "fp16":
                accelerator.autocast = lambda: torch.autocast("cpu", torch.float16)
            return accelerator

        monkeypatch.setattr(prediction, "make_accelerator", make_accelerator)
        monkeypatch.setattr(prediction, "resolve_precision", lambda setting, cpu: setting)

    @pytest.fixture
    def runs(self, trained, tmp_path) -> Path:
        """The two runs, as if they had been trained in fp16."""
        shutil.copytree(trained / "runs", tmp_path / "runs")
        stated = config_digest(described(trained / "data", training={"precision": "fp16"}))
        for fold in (0, 1):
            one = RunDir(run_folder(tmp_path, fold))
            one.write(one.record.with_fields(depends_on=one.record.depends_on | {"config": stated}))
        return tmp_path / "runs"

    @pytest.mark.usefixtures("fp16")
    def test_a_model_that_overflows_predicts_again_in_fp32(self, trained, runs, predicted, tmp_path):
        weights = load_file(file := run_folder(tmp_path, 1) / "weights.safetensors")
        changed = {name: weights[name] * 1e6 for name in ("fc.weight", "fc.bias")}
        save_file(weights | changed, file)  # the most likely class stays it
        as_left(RunDir(file.parent))
        labels, said, made = predicted([runs], training={"precision": "fp16"})
        assert made.models == 2
        assert "seed0 fold1: values overflow in fp16; predicted again in fp32" in said
        assert not any("seed0 fold0: values" in line for line in said)
        shutil.copytree(run_folder(trained, 1), tmp_path / "alone/tiny/uniform/seed0/fold1")
        assert labels == predicted([tmp_path / "alone"])[0]  # now sure of itself, it outvotes the other

    def test_a_device_without_the_precision_predicts_in_fp32(self, trained, runs, predicted):
        labels, said, _ = predicted([runs], training={"precision": "fp16"})
        assert labels == by_the_run(trained)
        assert "training.precision: fp16 needs a GPU; bf16 and fp32 run on a CPU; predicting in fp32" in said

    def test_a_gpu_that_is_too_small_is_told_with_what_to_lower(self, predicted, monkeypatch):
        def forward(*_):
            raise RuntimeError("CUDA error: out of memory")

        monkeypatch.setattr("kit.training.predict.Predictor._probabilities", forward)
        assert refusal_of(predicted) == (
            "the device's memory is too small to predict one image; lower data.size, or end what else uses it"
        )


class TestRuns:
    """Which runs are found, and which are refused."""

    def test_folds_lie_in_several_sources_at_any_depth(self, trained, predicted, tmp_path):
        shutil.copytree(run_folder(trained, 1), tmp_path / "a/tiny/uniform/seed0/fold1")
        shutil.copytree(run_folder(trained, 0), tmp_path / "b/deep/down/runs/tiny/uniform/seed0/fold0")
        labels, _, made = predicted([tmp_path / "a", tmp_path / "b"])
        assert labels == by_the_run(trained)
        assert (made.models, made.of) == (2, 2)

    @pytest.mark.parametrize("below", ["", "tiny", "tiny/uniform", "tiny/uniform/seed0"])
    def test_a_source_is_any_folder_above_the_runs(self, trained, predicted, monkeypatch, below):
        monkeypatch.chdir(trained / "runs" / below)
        assert predicted([Path(".")])[0] == by_the_run(trained)

    def test_one_source_of_one_fold(self, trained, predicted, tmp_path):
        shutil.copytree(run_folder(trained, 1), tmp_path / "a/tiny/uniform/seed0/fold1")
        labels, said, made = predicted([tmp_path / "a"])
        alone = read_predictions(run_folder(trained, 1) / "test.parquet").idxmax(axis=1)
        assert labels == alone.to_dict()
        assert (made.models, made.of) == (1, 1)
        assert said[0].startswith("tiny: 9 test rows, 1 model of uniform; ")

    def test_the_same_run_twice_counts_once(self, trained, predicted, tmp_path):
        shutil.copytree(trained / "runs", tmp_path / "a/runs")
        labels, _, made = predicted([trained / "runs", tmp_path / "a", tmp_path])
        assert made.of == 2
        assert labels == by_the_run(trained)

    def test_two_trainings_of_one_seed_and_fold_are_refused(self, trained, predicted, tmp_path):
        shutil.copytree(run_folder(trained, 1), place := tmp_path / "a/tiny/uniform/seed0/fold1")
        weights = load_file(place / "weights.safetensors")
        save_file(weights | {"fc.bias": weights["fc.bias"] + 1}, place / "weights.safetensors")
        message = refusal_of(predicted, [trained / "runs", place.parent])
        assert message == " and ".join(sorted([str(place), str(run_folder(trained, 1))])) + (
            " are different trainings of uniform seed 0 fold 1; attach one of them"
        )

    def test_another_config_is_refused(self, trained, predicted):
        def under(**sections):
            return refusal_of(lambda: predicted(**sections))

        advice = (
            "than this one; predict with the one that made it, the experiment.yaml above it (a rehearsal "
            "shortened by --set is of another, too)"
        )
        first = run_folder(trained, 0)
        assert under(training={"epochs": 4}) == f"{first} was trained under another config {advice}"
        assert under(policies={"uniform": {"lr": 0.5}}) == f"{first} was trained under another policy {advice}"

    @pytest.mark.parametrize("name", ["labels", "folds", "images", "weights"])
    def test_folds_of_different_data_are_refused(self, trained, predicted, tmp_path, name):
        shutil.copytree(trained / "runs", tmp_path / "runs")
        second = RunDir(run_folder(tmp_path, 1))
        second.write(second.record.with_fields(depends_on=second.record.depends_on | {name: "other"}))
        assert refusal_of(predicted, [tmp_path / "runs"]) == (
            f"{run_folder(tmp_path, 0)} and {second.path} were trained on different {name}, so their mean is of "
            "no one experiment; attach those that belong together"
        )

    def test_other_experiments_and_policies_beside_are_passed_over(self, trained, predicted, tmp_path):
        shutil.copytree(trained / "runs", tmp_path / "a/runs")
        for place in ("other/uniform", "tiny/late"):
            shutil.copytree(run_folder(trained, 0), broken := tmp_path / "a/runs" / place / "seed0/fold0")
            (broken / "weights.safetensors").write_bytes(b"not these")
        (tmp_path / "a/fold7").mkdir()
        (tmp_path / "a/fold7/run.json").write_text("of another tool: [")
        labels, _, made = predicted([tmp_path / "a"])
        assert labels == by_the_run(trained)
        assert made.of == 2

    def test_none_is_told_with_what_there_is(self, trained, predicted, tmp_path):
        def message(*sources, **sections):
            return refusal_of(lambda: predicted(sources, **sections))

        (tmp_path / "empty").mkdir()
        assert message(tmp_path / "empty") == (
            f"there is no finished run of tiny/uniform in {tmp_path / 'empty'}; {NO_RUN}"
        )
        assert message(trained, tmp_path / "nowhere", name="big") == (
            f"there is no finished run of big/uniform in {trained}, {tmp_path / 'nowhere'}, only of tiny/uniform; "
            f"{NO_RUN}"
        )

    def test_without_sources_and_without_runs(self, data, tmp_path, monkeypatch):
        monkeypatch.setenv("KIT_INPUT", str(tmp_path / "nothing"))
        config = described(data)
        message = refusal_of(lambda: predict_test(config, submission=tmp_path / "s.csv", output=tmp_path))
        assert message == f"there is no finished run of tiny/uniform here, and nothing is attached; {NO_RUN}"
        assert not (tmp_path / "s.csv").exists()
        (tmp_path / "nothing/notebooks/me/other-kernel").mkdir(parents=True)
        message = refusal_of(lambda: predict_test(config, submission=tmp_path / "s.csv", output=tmp_path))
        assert message.endswith(f"; mounted in {tmp_path / 'nothing'}: notebooks/me/other-kernel")

    def test_an_unfinished_run_is_none(self, trained, predicted, tmp_path):
        shutil.copytree(trained / "runs", tmp_path / "runs")
        unfinished = RunDir(run_folder(tmp_path, 1))
        unfinished.write(unfinished.record.with_fields(status="running"))
        assert predicted([tmp_path / "runs"])[2].of == 1

    def test_without_sources_those_of_the_output_folder_are_taken(self, trained, data, tmp_path):
        made = predict_test(described(data), submission=tmp_path / "s.csv", output=trained, cache=tmp_path / "c")
        assert (made.models, labels_in(made.submission)) == (2, by_the_run(trained))
        assert len(list((tmp_path / "c").glob("pixels-*"))) == 1


class TestMounted:
    """In a kernel: what is attached to it, in every form in which Kaggle mounts it."""

    @pytest.fixture
    def there(self, trained, tmp_path, monkeypatch):
        """Mounts fold 0 at one place and fold 1 at the other."""
        monkeypatch.setenv("KIT_INPUT", str(tmp_path / "input"))

        def mount(*places: str) -> None:
            for fold, place in enumerate(places):
                target = tmp_path / "input" / place / "runs/tiny/uniform/seed0" / f"fold{fold}"
                shutil.copytree(run_folder(trained, fold), target)

        return mount

    def predict(self, data: Path, tmp_path: Path, **kernel) -> PredictResult:
        return predict_test(
            described(data, kernel=kernel), submission=tmp_path / "s.csv", output=tmp_path / "working"
        )

    @pytest.mark.parametrize(
        ("places", "kernel"),
        [
            (["datasets/jo/f0", "datasets/jo/f1"], {"datasets": ["jo/f0", "jo/f1"]}),
            (["notebooks/jo/f0", "notebooks/jo/f1"], {"kernels": ["jo/f0", "jo/f1"]}),
            (["f0", "f1"], {"kernels": ["jo/f0"], "datasets": ["jo/f1"]}),
            (["models/jo/m/pyTorch/v/1", "m/pyTorch/v/2"], {"models": ["jo/m/pyTorch/v/1", "jo/m/pyTorch/v/2"]}),
            (["anywhere/at/all", "f1"], {}),
            (["in/a/new/form/f0", "notebooks/jo/f1"], {"kernels": ["jo/f0", "jo/f1"]}),
        ],
        ids=["datasets", "notebooks", "flat", "models", "unstated", "new"],
    )
    def test_every_form(self, trained, data, there, tmp_path, places, kernel):
        there(*places)
        made = self.predict(data, tmp_path, **kernel)
        assert (made.models, labels_in(made.submission)) == (2, by_the_run(trained))

    def test_what_is_stated_counts_alone_where_all_of_it_is_there(self, data, there, tmp_path):
        there("notebooks/jo/f0", "notebooks/jo/f1")
        assert self.predict(data, tmp_path, kernels=["jo/f0"]).of == 1

    def test_the_competition_is_found_by_its_slug(self, trained, data, there, tmp_path, monkeypatch):
        there("notebooks/jo/f0", "notebooks/jo/f1")
        monkeypatch.chdir(tmp_path / "input")  # where no data/ is
        shutil.move(data, tmp_path / "input/competitions/colours")
        config = described(Path("data/colours"), competition={"slug": "colours"})
        made = predict_test(config, submission=tmp_path / "s.csv", output=tmp_path / "working")
        assert labels_in(made.submission) == by_the_run(trained)


class TestTime:
    """`seconds`, where an image takes one to decode and two to predict: 9 for the cache, then 18 a model."""

    @pytest.fixture(autouse=True)
    def clock(self, monkeypatch) -> list[float]:
        now = [100.0]
        for module in (prediction, view_clock):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))

        def taking(seconds, method):
            def slow(*arguments):
                now[0] += seconds
                return method(*arguments)

            return slow

        monkeypatch.setattr(Decoder, "__call__", taking(1, Decoder.__call__))
        monkeypatch.setattr(Normalise, "__call__", taking(2, Normalise.__call__))
        monkeypatch.setattr(images.os, "cpu_count", lambda: 1)  # one image after the other
        return now

    @pytest.fixture
    def within(self, predicted):
        return lambda seconds, **data: predicted(seconds=seconds, prediction={"batch_size": 1}, data=data)

    @pytest.fixture
    def first(self, trained) -> dict[str, str]:
        """What the first model alone says."""
        labels = read_predictions(run_folder(trained, 0) / "test.parquet").idxmax(axis=1).to_dict()
        assert labels != by_the_run(trained)
        return labels

    @pytest.mark.parametrize("seconds", [45, None])
    def test_enough_of_it(self, trained, within, seconds):
        labels, said, made = within(seconds)
        assert labels == by_the_run(trained)
        assert (made.models, made.late) == (2, [])
        assert said[1:] == ["seed0 fold0: 18.0 s", "seed0 fold1: 18.0 s"]

    @pytest.mark.parametrize("seconds", [25, 27, 44.9])
    def test_a_second_model_that_would_end_too_late_is_not_begun(self, within, first, clock, seconds):
        labels, said, made = within(seconds)
        assert labels == first
        assert (made.models, made.of, made.late) == (1, 2, [])
        assert said[1:] == ["seed0 fold0: 18.0 s", "the time allows no more than 1 of 2 models"]
        assert clock == [127.0]

    def test_a_second_model_that_does_not_come_to_its_end_is_dropped(self, within, first, clock, monkeypatch):
        def load(run, model):
            clock[0] += 10 * ("fold1" in run.path.parts)
            load_weights(run, model)

        monkeypatch.setattr(prediction, "load_weights", load)
        labels, said, made = within(48)
        assert labels == first
        assert (made.models, made.of, made.late) == (1, 2, [])
        assert said[1:] == ["seed0 fold0: 18.0 s", "the time allows no more than 1 of 2 models"]
        assert clock == [149.0]

    @pytest.mark.parametrize(
        ("seconds", "cache", "rows"), [(24.9, True, 8), (14, True, 3), (9, True, 1), (20, False, 4)]
    )
    def test_the_rows_that_a_first_model_reached_are_handed_in(self, trained, within, first, seconds, cache, rows):
        labels, said, made = within(seconds, cache=cache)
        reached, late = list(first)[:rows], list(first)[rows:]
        common = prior_of(trained).idxmax()
        assert labels == {name: first[name] for name in reached} | dict.fromkeys(late, common)
        assert (made.models, made.late) == (1, late)
        named = ", ".join(late[:5]) + (f" and {len(late) - 5} more" if len(late) > 5 else "")
        assert said[1:] == [f"the time does not allow one model: {len(late)} of 9 rows ({named}) get the prior"]

    def test_rows_without_an_image_are_not_among_those_that_were_too_late(self, trained, data, within, first):
        (data / "test/test001.png").unlink()
        labels, said, made = within(14)
        common = prior_of(trained).idxmax()
        assert labels == dict.fromkeys(first, common) | {
            name: first[name] for name in ("test000", "test002", "test003")
        }
        assert (made.unreadable, made.late) == (["test001"], [f"test00{row}" for row in range(4, 9)])
        assert [line.partition(" (")[0] for line in said[1:]] == [
            "1 of 9 images cannot be read",
            "the time does not allow one model: 5 of 9 rows",
        ]

    @pytest.mark.parametrize(("seconds", "spent"), [(0.5, 1), (4, 5), (8.5, 9)])
    def test_decoding_ends_in_time_too_and_no_model_is_begun(self, trained, within, clock, seconds, spent):
        labels, said, made = within(seconds)
        assert set(labels.values()) == {prior_of(trained).idxmax()}
        assert (made.models, len(made.late)) == (0, 9)
        assert [line.partition(" (")[0] for line in said[1:]] == ["the time does not allow one model: 9 of 9 rows"]
        assert clock == [100.0 + spent]

    def test_where_decoding_took_all_of_it_no_cluster_is_asked(self, trained, data, tmp_path, monkeypatch):
        def asked(*arguments):
            raise AssertionError("the time is over")

        monkeypatch.setattr(RunOptions, "need_cluster", lambda options, processes: None)
        monkeypatch.setattr(prediction, "_on_cluster", asked)
        config, options = described(data, prediction={"batch_size": 1}), RunOptions(tmp_path, on="ray")
        made = predict_test(config, [trained / "runs"], tmp_path / "s.csv", options, budget=4)
        assert (made.models, len(made.late)) == (0, 9)

    @pytest.mark.parametrize("seconds", [0, -3, float("nan")])
    def test_no_time_at_all_is_refused(self, within, seconds):
        told = "expected a time like 90s, 45m, 8h30m or 1d2h, or seconds, more than 0"
        assert refusal_of(lambda: within(seconds)) == f"--budget {seconds:g}: {told}"


class TestCommand:
    """python -m kit predict"""

    @pytest.fixture
    def kit(self, data, tmp_path, monkeypatch, capsys):
        content = experiment_content(data, folds={"k": 2}, training={"epochs": 3})
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
        monkeypatch.chdir(tmp_path)

        def call(*words: str) -> tuple[int, list[str], str]:
            monkeypatch.setattr(sys, "argv", ["kit", "predict", "tiny.yaml", *words])
            try:
                cli.main()
                code = 0
            except SystemExit as stop:
                code = stop.code or 0
            captured = capsys.readouterr()
            return code, captured.out.splitlines(), captured.err

        return call

    def test_writes_the_submission(self, kit, trained, tmp_path):
        code, lines, errors = kit("--runs", str(trained / "runs"), "--cache", "pixels")
        assert (code, errors) == (0, "")
        assert lines[0].startswith(
            "tiny: 9 test rows, 2 models of uniform; until they are done submission.csv has"
        )
        assert lines[-1] == "submission.csv: 9 rows, the mean of 2 of 2 models"
        assert labels_in(tmp_path / "submission.csv") == by_the_run(trained)
        assert len(list((tmp_path / "pixels").glob("pixels-*"))) == 1

    def test_two_sources_another_file_and_no_time(self, kit, trained, tmp_path):
        for fold in (0, 1):
            shutil.copytree(run_folder(trained, fold), tmp_path / f"s{fold}/tiny/uniform/seed0/fold{fold}")
        code, lines, _ = kit(
            "--runs",
            "s0",
            "--runs",
            "s1",
            "--submission",
            "out/mine.csv",
            "--seconds",
            "1e-9",
            "--output",
            "there",
        )
        assert code == 0
        assert lines[-1] == "out/mine.csv: 9 rows, the mean of 0 of 2 models"
        assert len(labels_in(tmp_path / "out/mine.csv")) == 9
        assert (tmp_path / "there/cache").is_dir()

    def test_runs_below_the_output_folder(self, kit, trained, tmp_path):
        shutil.copytree(trained / "runs", tmp_path / "home/runs")
        code, lines, _ = kit("--output", "home")
        assert (code, lines[-1]) == (0, "submission.csv: 9 rows, the mean of 2 of 2 models")

    def test_refusals_are_a_line(self, kit, trained):
        code, lines, errors = kit("--runs", str(trained), "--policy", "cosine")
        assert (code, lines) == (1, [])
        assert errors == (
            f"error: there is no finished run of tiny/cosine in {trained}, only of tiny/uniform; {NO_RUN}\n"
        )
        assert kit("--submission", "submission.parquet")[2] == (
            "error: --submission submission.parquet: the name has to end in .csv\n"
        )


def test_the_runs_say_what_they_depend_on(trained):
    """What the refusals above compare."""
    record = json.loads((run_folder(trained, 0) / "run.json").read_text())
    assert set(record["depends_on"]) == {
        "config", "labels", "images", "folds", "weights", "policy", "seed", "fold",
    }  # fmt: skip

    def test_a_time_limit_beside_torchrun_is_refused_and_one_process_prints(self, kit, monkeypatch, trained):
        """Each process would stop by its own clock, and rows be joined that do not belong together."""
        state = SimpleNamespace(num_processes=2, process_index=0, is_main_process=True)
        monkeypatch.setattr(prediction, "process_state", lambda training: state)
        code, lines, errors = kit("--runs", str(trained / "runs"), "--seconds", "60")
        assert (code, lines) == (1, [])
        assert errors == (
            "error: --budget: each of torchrun's processes would go by its own clock; use one of the two\n"
        )
