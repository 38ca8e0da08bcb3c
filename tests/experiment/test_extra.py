"""Extra rows in a whole experiment: planted leaks, what a training takes, fingerprints, kernels and clusters."""

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from support.colours import experiment_content, write_competition
from support.patterns import LINEAR, patterns_content, write_patterns

from kit.competition.ties import ExtraPlan
from kit.core.errors import KitError
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir
from kit.experiment.cluster.order import CONFIG, config_files, config_there
from kit.experiment.cluster.site import Site
from kit.experiment.config import load_experiment, validate
from kit.experiment.extra import fold_data
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.prepare import prepare, run_keys
from kit.experiment.preview import preview
from kit.experiment.run import run
from kit.experiment.train_run import trainer_of
from kit.training.device import make_accelerator


@pytest.fixture(scope="module")
def patterns(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("patterns")
    write_patterns(folder / "data", rows=40)
    (folder / "linear.py").write_text(LINEAR)
    return folder


def score_of(folder: Path, output: Path, kind: str, **folds) -> tuple[float, str]:
    """OOF with extra rows that have the labels of held-out rows, and what is told of them; one fold."""
    extra = {"table": "more/more.csv", "images": f"more/{kind}/{{id}}.png"}
    content = patterns_content(folder / "data", competition={"extra": extra}, folds={"run": [0]} | folds)
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    told: list[str] = []
    result = run(load_experiment(folder / "config.yaml"), output, say=told.append)
    return result.policies["uniform"].scores.oof, "\n".join(told)


def test_copies_of_held_out_rows_do_not_raise_their_score(patterns, tmp_path, monkeypatch):
    """Labels are random: what is above chance was seen. Without the guard all is."""
    score, told = score_of(patterns, tmp_path / "guarded", "copies")
    assert score < 0.8
    assert "40 extra rows of more/more.csv (weight 1); 14 left out in some folds (14 in fold 0)" in told
    near, _ = score_of(patterns, tmp_path / "near", "near", duplicates=8)
    assert near < 0.8
    monkeypatch.setattr(ExtraPlan, "left_out", lambda *_: {})
    assert score_of(patterns, tmp_path / "leaking", "near", duplicates=8)[0] == 1


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A competition with weights, more images with labels, and shares of the test rows, a row for each fold."""
    write_competition(tmp_path / "colours", rows=24, test_rows=3)
    train = pd.read_csv(tmp_path / "colours/train.csv")
    train.assign(w=[0.0] + [1.0, 2.0, 0.5] * 7 + [1.0, 1.0]).to_csv(tmp_path / "colours/train.csv", index=False)
    other = write_competition(tmp_path / "other", rows=9, test_rows=3, seed=1)
    pd.read_csv(other / "train.csv").to_csv(other / "more.csv", index=False)
    (tmp_path / "labels").mkdir()
    rows = [
        (f"test{row:03d}", fold, 0.5, 0.25 + fold / 8, 0.25 - fold / 8) for row in range(3) for fold in range(3)
    ]
    pd.DataFrame(rows, columns=["id", "fold", "blue", "green", "red"]).to_csv(
        tmp_path / "labels/labels.csv", index=False
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


MORE = {"table": "more.csv", "path": "other", "images": "train/{id}.png", "weight": 0.5}
LABELS = {
    "table": "labels.csv",
    "path": "labels",
    "images": "test",
    "shares": True,
    "fold": "fold",
    "source": "r1",
}


def described(*extra, **sections):
    competition = {"extra": list(extra)} | sections.pop("competition", {}) if extra else {}
    return validate(experiment_content(Path("colours"), competition=competition, **sections), "test")


def opened(*extra, **sections) -> LoadedExperiment:
    config = described(*extra, **sections)
    return LoadedExperiment.open(config, ExperimentDir(Path("runs/tiny")), OutputDirs(Path()))


def test_what_a_fold_trains_on(folder):
    config = described(MORE, LABELS, competition={"weight": "w"})
    loaded, data = prepare(config, ExperimentDir(folder / "runs/tiny"), OutputDirs(folder), shown=False)
    assert len(data.extra) == 9 + 3  # images are decoded once
    for fold in range(3):
        made = fold_data(loaded, data.train, data.extra, fold)
        own = [row for row in loaded.folds.training_rows(fold) if row != 0]  # whose weight is 0
        labels = [24 + 9 + 3 * row + fold for row in range(3)]
        assert made.train_rows.tolist() == [*own, *range(24, 33), *labels]
        assert made.train_rows.tolist() == loaded.training_rows(fold).tolist()
        assert made.valid_rows.tolist() == loaded.folds.validation_rows(fold).tolist()
        np.testing.assert_allclose(made.targets[labels], [[0.5, 0.25 + fold / 8, 0.25 - fold / 8]] * 3)
        assert made.weights[24:].tolist() == [0.5] * 9 + [1] * 9
        assert made.weights[1:4].tolist() == [1, 2, 0.5]
        assert (made.labels == loaded.competition.targets).all()
        assert (made.multilabel, made.has_shares, made.targets.dtype) == (False, True, np.float32)
        for row, label in enumerate(labels):
            assert made.images.ids[label] == f"labels.csv: test{row:03d}"
            np.testing.assert_array_equal(made.images[label], data.test[row])
        np.testing.assert_array_equal(made.images[24], data.extra[0])
        np.testing.assert_array_equal(made.images[5], data.train[5])


def test_an_update_is_that_of_a_slow_obvious_loss(folder):
    """The trainer's first loss against one written out over the rows of the update."""
    config = described(
        *(MORE, LABELS),
        competition={"weight": "w"},
        data={"augment": "none"},
        training={"batch_size": 6, "accumulate": 2, "epochs": 1, "label_smoothing": 0.1},
    )
    experiment = ExperimentDir(folder / "runs/tiny")
    loaded, data = prepare(config, experiment, OutputDirs(folder), shown=False)
    key = run_keys(config)[0]
    directory = experiment.run(key)
    directory.path.mkdir(parents=True)
    trainer = trainer_of(key, loaded, data, directory, make_accelerator(config.training))
    trainer.model.eval()  # norms of micro-batches are not those of the whole
    trainer.model.train = lambda mode=True: trainer.model
    fold, expected, weights = trainer.fold, 0.0, 0.0
    for sample in trainer.plan.samples(0).ravel():
        row = fold.train_rows[sample]
        pixels = torch.tensor(fold.images[row]).float() / 255
        mean, std = (torch.tensor(values) for values in vars(trainer.recipe.normalisation).values())
        with torch.no_grad():
            logits = trainer.model(((pixels - mean) / std).permute(2, 0, 1)[None])[0]
        shares = torch.tensor(fold.targets[row]) * 0.9 + 0.1 / 3
        expected += fold.weights[row] * -(shares * logits.log_softmax(0)).sum().item()
        weights += fold.weights[row]
    next(trainer.updates())
    assert trainer.losses[0].item() == pytest.approx(expected / weights, rel=1e-4)


def test_a_run_with_all_of_it_ends_and_is_known_again(folder):
    config = described(MORE, LABELS, folds={"run": [0, 1]}, training={"epochs": 1, "mixup": 0.2})
    told: list[str] = []
    result = run(config, folder, say=told.append)
    scores = result.policies["uniform"].scores
    assert (scores.oof_rows, scores.train_rows) == (16, 24)  # no extra row is scored
    lines = "\n".join(told)
    assert "9 extra rows of more.csv (weight 0.5)\n9 extra rows of 3 images of labels.csv (weight 1" in lines
    assert "(weight 1, labels from r1)" in lines
    assert "24 training, 18 extra and 3 test rows" in lines
    assert run(config, folder).trained == 0
    table = pd.read_csv("labels/labels.csv")
    table.iloc[::-1].to_csv("labels/labels.csv", index=False)  # order says nothing
    assert run(config, folder).trained == 0
    table.assign(blue=table["blue"] - 0.25, red=table["red"] + 0.25).to_csv("labels/labels.csv", index=False)
    with pytest.raises(KitError, match="was made from other extra"):
        run(config, folder)


def test_runs_with_extra_rows_are_not_those_without(folder):
    run(described(MORE, folds={"run": [0]}, training={"epochs": 1}), folder)
    with pytest.raises(KitError, match=r"another config \(competition.extra"):
        run(described(folds={"run": [0]}, training={"epochs": 1}), folder)


def test_other_weights_of_rows_are_another_training(folder):
    sections = {"folds": {"run": [0]}, "training": {"epochs": 1}}
    config = validate(experiment_content(Path("colours"), competition={"weight": "w"}, **sections), "test")
    run(config, folder)
    table = pd.read_csv("colours/train.csv")
    table.assign(w=table["w"] * 2).to_csv("colours/train.csv", index=False)
    with pytest.raises(KitError, match="was made from other row weights"):
        run(config, folder)


def test_the_digest_is_of_all_that_decides(folder):
    def digest(change=None, **extra):
        return opened(MORE | extra).depends_on["extra"]

    first = digest()
    assert digest() == first != digest(weight=1)
    assert "extra" not in opened().depends_on
    pd.read_csv("other/more.csv").assign(label="red").to_csv("other/more.csv", index=False)
    assert digest() != first
    assert "row weights" not in opened().depends_on
    weighed = opened(MORE, competition={"weight": "w"}).depends_on
    assert "row weights" in weighed
    assert weighed["labels"] == opened().depends_on["labels"]  # by which predictions are judged


def test_extra_rows_count_in_an_epoch_before_any_image_is_looked_at(folder):
    plain, more = (preview(described(*extra, training={"batch_size": 4})) for extra in ((), (MORE, LABELS)))
    assert (plain.policies[0].steps_per_epoch, more.policies[0].steps_per_epoch) == (16 // 4, (16 + 9 + 3) // 4)


def test_several_labels_with_shares(folder):
    for name in ("colours/train.csv", "other/more.csv"):
        table = pd.read_csv(name)
        table["label"] = np.where(np.arange(len(table)) % 2, table["label"], "blue red")
        table.to_csv(name, index=False)
    several = {"competition": {"separator": " "}, "scoring": {"rule": "half"}}
    config = described(MORE, LABELS, **several, training={"epochs": 1}, folds={"run": [0]})
    held = (pd.read_csv(run(config, folder).folder / "folds.csv")["fold"] == 0).sum()
    assert len(pd.read_parquet("runs/tiny/uniform/oof.parquet")) == held


def test_a_class_of_extra_rows_alone_is_never_predicted(folder):
    pd.read_csv("other/more.csv").assign(label="grey").to_csv("other/more.csv", index=False)
    with pytest.raises(KitError, match="'grey' is no class"):
        opened(MORE)
    classes = {"classes": ["blue", "green", "grey", "red"], "classes_without_rows": "allowed"}
    told: list[str] = []
    result = run(
        described(MORE, competition=classes, training={"epochs": 1}, folds={"run": [0]}), folder, say=told.append
    )
    assert "competition.extra: 'grey', which no training row has, is never predicted" in told
    oof = pd.read_parquet(result.folder / "uniform/oof.parquet")
    assert (oof["grey"] == 0).all()


def test_own_losses_that_give_a_mean_are_refused_before_training(folder):
    Path("mine.py").write_text(
        "import torch\ndef mean(logits, targets):\n    return torch.nn.functional.cross_entropy(logits, targets)\n"
    )
    config = described(MORE, training={"loss": "mine.py:mean"})
    with pytest.raises(KitError, match="gives a mean; for rows with weights"):
        run(config, folder)
    run(
        described(MORE | {"weight": 1}, training={"loss": "mine.py:mean", "epochs": 1}, folds={"run": [0]}), folder
    )


def test_on_a_node_tables_lie_where_data_does(folder, tmp_path_factory):
    files = config_files(described(MORE, LABELS | {"path": None, "table": "../labels/labels.csv"}))
    stated = yaml.safe_load(io.BytesIO(files[CONFIG]))["competition"]["extra"]
    assert [each["path"] for each in stated] == [str(folder / "other"), None]
    node = tmp_path_factory.mktemp("node")
    (node / "parcel").mkdir()
    (node / "parcel" / CONFIG).write_bytes(files[CONFIG])
    for name in ("colours", "other"):
        (node / "data" / name).mkdir(parents=True)
    site = Site(node / "parcel", node, False, node / "cache", str(node / "data"))
    assert config_there(site).competition.extra[0].path == str(node / "data/other")
    (node / "data/other").rmdir()
    (folder / "other").rename(folder / "gone")
    with pytest.raises(KitError, match=re.escape("it does not have the extra rows other in ")):
        config_there(site)


def test_rates_are_tuned_without_what_has_seen_the_compared_fold(folder):
    """In a nested plan the models that labelled a row saw the fold that is compared, or the one that scores."""
    loaded = opened(MORE, LABELS)
    nested = replace(loaded, folds=replace(loaded.folds, unused=0))
    assert set(nested.training_rows(1)) == {*nested.folds.training_rows(1), *range(24, 33)}
    told = nested.extra.told(nested.folds, [1])
    assert told[0] == "9 extra rows of more.csv (weight 0.5)"
    assert told[1].endswith(
        "3 left out in some folds (3 in fold 1): 3 labelled by models that saw what is left out"
    )


@pytest.mark.parametrize("key", ["extra", "weight"])
def test_heads_over_features_do_not_pass_over_them(folder, key):
    stated = {"extra": [MORE]} if key == "extra" else {"weight": "w"}
    content = experiment_content(Path("colours"), competition=stated, features={"heads": ["logistic"]})
    del content["policies"]
    with pytest.raises(KitError, match=rf"competition.{key}: heads over features are fitted on the rows"):
        run(validate(content, "test"), folder)
