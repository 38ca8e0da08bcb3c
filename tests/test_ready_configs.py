"""The shipped configs of real competitions, whole: each trains on a miniature of its layout, hands in, and
predicts whatever test set a rerun may bring."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from PIL import Image
from sklearn.metrics import f1_score
from support.miniatures import ATTRIBUTES, DISEASES, FILTERS, SPECIES, WRITERS, Truth, small
from support.refusals import refusal_of

from kit import run
from kit.competition.images_config import PixelsConfig
from kit.core.manifest import noting
from kit.core.runs import read_predictions
from kit.experiment.config import ExperimentConfig, load_experiment
from kit.experiment.predict import PredictResult, predict_test
from kit.kaggle.rehearsal.hidden_test import write_variant
from kit.scoring.decide import choose_rule, rule_from_json

CONFIGS = Path(__file__).parent.parent / "configs"
PATHOLOGY, SEEDLINGS, IMET, PROTEINS, DIGITS = WRITERS
CLASSES = {
    PATHOLOGY: DISEASES,
    SEEDLINGS: SPECIES,
    IMET: tuple(map(str, ATTRIBUTES)),
    PROTEINS: tuple(map(str, range(28))),
    DIGITS: tuple(map(str, range(10))),
}
COLUMNS = {  # of a submission
    PATHOLOGY: ("image", "labels"),
    SEEDLINGS: ("file", "species"),
    IMET: ("id", "attribute_ids"),
    PROTEINS: ("Id", "Predicted"),
    DIGITS: ("ImageId", "Label"),
}
METRICS = {PATHOLOGY: "samples", SEEDLINGS: "micro", IMET: "micro", PROTEINS: "macro", DIGITS: "micro"}
STATED = (
    "imet-2020-fgvc7",
    "scenes",
    "sheep-classification-challenge-2025",
    "signs",
    "snakeclef2022",
    "trashnet",
    "trashnet-224",
)
SEVERAL = (PATHOLOGY, IMET, PROTEINS)
EVERY = pytest.mark.parametrize("layout", WRITERS)
THREE_KINDS = pytest.mark.parametrize("layout", [PATHOLOGY, PROTEINS, DIGITS])


@dataclass(frozen=True)
class Trained:
    """root   holds data/, runs/, submissions/
    truth     labels of the test rows by id
    """

    layout: str
    root: Path
    truth: Truth

    @property
    def folder(self) -> Path:
        return self.root / "data"

    @property
    def policy(self) -> Path:
        return next(path for path in (self.root / "runs" / self.layout).iterdir() if path.is_dir())

    @property
    def scores(self) -> dict:
        return json.loads((self.policy / "scores.json").read_text())

    @property
    def submission(self) -> Path:
        return self.root / "submissions" / f"{self.layout}.csv"

    @property
    def submitted(self) -> dict[str, str]:
        return cells_of(self.submission)

    def experiment(self, folder: Path | None = None, *overrides: str) -> ExperimentConfig:
        return load_experiment(CONFIGS / f"{self.layout}.yaml", small(folder or self.folder, *overrides))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What training by the config of a layout made; once for all processes that share these tests."""
    shared = tmp_path_factory.getbasetemp()
    shared = (shared if shared.name.startswith("pytest-") else shared.parent) / "ready-configs"
    shared.mkdir(exist_ok=True)

    def of(layout: str) -> Trained:
        root, truth = shared / layout, shared / f"{layout}.json"
        with FileLock(shared / f"{layout}.lock"):
            if not truth.is_file():
                labels = WRITERS[layout](root / "data")
                run(Trained(layout, root, labels).experiment(), root)
                truth.write_text(json.dumps(labels))
        return Trained(layout, root, json.loads(truth.read_text()))

    return of


def cells_of(submission: Path) -> dict[str, str]:
    table = pd.read_csv(submission, dtype=str, keep_default_na=False)
    assert table.iloc[:, 0].is_unique
    return dict(zip(table.iloc[:, 0], table.iloc[:, 1], strict=True))


def predicted(trained: Trained, folder: Path, scratch: Path, *overrides: str) -> tuple[PredictResult, list[str]]:
    """With the runs, on the test set in another folder."""
    said = []
    made = predict_test(
        trained.experiment(folder, *overrides),
        [trained.root / "runs"],
        scratch / "submission.csv",
        trained.root,
        cache=scratch / "cache",
        say=said.append,
    )
    assert list(pd.read_csv(made.submission, nrows=0)) == list(COLUMNS[trained.layout])
    return made, said


def copied(trained: Trained, target: Path) -> Path:
    """The test side of the competition, to be changed."""
    shutil.copytree(trained.folder, target, ignore=shutil.ignore_patterns("train", "train_images", "train.csv"))
    return target


def prior_of(trained: Trained) -> np.ndarray:
    return read_predictions(trained.policy / "oof.parquet").to_numpy(dtype=np.float64).mean(axis=0, keepdims=True)


def in_words(trained: Trained, decided: np.ndarray) -> str:
    classes = CLASSES[trained.layout]
    return classes[decided[0]] if decided.ndim == 1 else " ".join(np.array(classes)[decided[0]])


def training_truth(trained: Trained) -> dict[str, list[str]]:
    """Labels of the training rows by id, read as the competition's description says."""
    if trained.layout == SEEDLINGS:
        return {path.name: [path.parent.name] for path in (trained.folder / "train").glob("*/*.png")}
    table = pd.read_csv(trained.folder / "train.csv", dtype=str)
    if trained.layout == DIGITS:
        return {str(row + 1): [label] for row, label in enumerate(table["label"])}
    return {name: cell.split(" ") for name, cell in zip(table.iloc[:, 0], table.iloc[:, 1], strict=True)}


@EVERY
def test_each_training_row_is_predicted_once_and_the_score_is_scikit_learns(trained, layout):
    trained = trained(layout)
    oof = read_predictions(trained.policy / "oof.parquet")
    truth, classes = training_truth(trained), list(CLASSES[layout])
    assert tuple(oof.columns) == CLASSES[layout]
    assert sorted(oof.index) == sorted(truth)
    wanted = np.array([[name in truth[row] for name in classes] for row in oof.index])
    assert wanted.any(axis=0).all()
    if layout not in SEVERAL:
        np.testing.assert_allclose(oof.sum(axis=1), 1, atol=1e-5)
        wanted = wanted.argmax(axis=1)
    probabilities, scores = oof.to_numpy(dtype=np.float64), trained.scores
    rule = rule_from_json({key: value for key, value in scores["rule"].items() if key != "said"})

    def by_scikit_learn(decided: np.ndarray) -> float:
        return f1_score(wanted, decided, average=METRICS[layout], zero_division=0)

    assert scores["metric"] == f"{METRICS[layout]} F1"
    assert scores["optimistic"] == pytest.approx(by_scikit_learn(rule.decide(probabilities)), abs=1e-12)
    folds = pd.read_csv(trained.policy.parent / "folds.csv", dtype={"id": str}).set_index("id")["fold"]
    choice = choose_rule(probabilities, wanted, folds.loc[oof.index].to_numpy(), trained.experiment().scoring)
    assert choice.rule.to_json() == rule.to_json()
    assert scores["oof"] == pytest.approx(by_scikit_learn(choice.predicted), abs=1e-12)


@EVERY
def test_the_submission_has_the_samples_columns_ids_and_order_and_known_labels(trained, layout):
    trained = trained(layout)
    sample = pd.read_csv(trained.folder / "sample_submission.csv", dtype=str)
    given = pd.read_csv(trained.submission, dtype=str, keep_default_na=False)
    assert tuple(given.columns) == COLUMNS[layout] == tuple(sample.columns)
    assert given.iloc[:, 0].tolist() == sample.iloc[:, 0].tolist() == list(trained.truth)
    for cell in given.iloc[:, 1]:
        labels = cell.split(" ") if layout in SEVERAL else [cell]
        assert set(labels) <= set(CLASSES[layout]), cell  # none is "", so there is at least one
    test = read_predictions(trained.policy / "test.parquet")
    assert test.index.tolist() == list(trained.truth)
    assert tuple(test.columns) == CLASSES[layout]


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        (PROTEINS, {"0": "Nucleoplasm", "17": "Mitotic spindle", "27": "Rods & rings"}),
        (IMET, {str(number): name for number, name in ATTRIBUTES.items()}),
        (SEEDLINGS, {name: name for name in SPECIES}),
    ],
)
def test_scores_of_classes_stand_under_their_names(trained, layout, names):
    rows = {row["class"]: row for row in trained(layout).scores["per_class"]}
    assert tuple(rows) == CLASSES[layout]
    assert {name: rows[name]["name"] for name in names} == names


def test_an_attribute_of_a_single_row_is_trained_on_and_scored(trained):
    scores = trained(IMET).scores
    (rare,) = [row for row in scores["per_class"] if row["class"] == "3473"]
    assert 1 in rare.values()  # its number of rows


def test_a_colourful_miniature_is_learned_from(trained):
    """Else all of the above could hold of images that nobody looked at."""
    test = read_predictions(trained(PATHOLOGY).policy / "test.parquet")
    assert (test.std() > 1e-4).all()


@EVERY
def test_predicting_from_the_runs_gives_the_trainings_submission(trained, layout, tmp_path):
    trained = trained(layout)
    made, _ = predicted(trained, copied(trained, tmp_path / "data"), tmp_path)
    assert made.submission.read_bytes() == trained.submission.read_bytes()
    assert (made.rows, made.models, made.of, made.unreadable) == (len(trained.truth), 2, 2, [])


def without_scores(trained: Trained, target: Path) -> Trained:
    """The same runs in another place, not pooled."""
    shutil.copytree(trained.root, target)
    moved = Trained(trained.layout, target, trained.truth)
    (moved.policy / "scores.json").unlink()
    return moved


@pytest.mark.parametrize("layout", [PATHOLOGY, PROTEINS])
def test_without_pooled_scores_the_rule_is_fitted_on_the_runs_and_the_train_table(trained, layout, tmp_path):
    rule = trained(layout).scores["rule"]["said"]
    moved = without_scores(trained(layout), tmp_path / "moved")
    made, said = predicted(moved, moved.folder, tmp_path)
    rows = len(training_truth(moved))
    assert said[0] == f"decision rule, fitted on {rows} out-of-fold rows: {rule}"
    assert cells_of(made.submission) == moved.submitted


@pytest.mark.parametrize("layout", [PATHOLOGY, PROTEINS])
def test_without_scores_and_train_table_the_rule_is_the_plain_one(trained, layout, tmp_path):
    moved = without_scores(trained(layout), tmp_path / "moved")
    made, said = predicted(moved, copied(moved, tmp_path / "data"), tmp_path, "scoring.transfer=none")
    assert said[0].startswith("no scores of these runs and no train table to fit a decision rule on: one thresh")
    test = read_predictions(moved.policy / "test.parquet")
    for name, cell in cells_of(made.submission).items():
        likely = [column for column in test if test.loc[name, column] >= 0.5] or [test.loc[name].idxmax()]
        assert cell == " ".join(likely), name


def test_scores_of_other_runs_lend_no_rule(trained, tmp_path):
    moved = Trained(PATHOLOGY, tmp_path / "moved", trained(PATHOLOGY).truth)
    shutil.copytree(trained(PATHOLOGY).root, moved.root)
    scores = moved.scores
    scores["runs"][0]["fingerprint"] = "other"
    with noting(moved.policy.parent, moved.policy / "scores.json"):
        (moved.policy / "scores.json").write_text(json.dumps(scores))
    made, said = predicted(moved, moved.folder, tmp_path)
    assert said[0].startswith("the pooled scores at hand are of other runs than these")
    assert said[1].startswith("decision rule, fitted on")
    assert cells_of(made.submission) == moved.submitted


@EVERY
def test_a_test_set_of_another_size(trained, layout, tmp_path):
    trained = trained(layout)
    usual, config = trained.submitted, trained.experiment().competition
    for size, rows in {"0": 0, "1": 1, "3": 3, "x5": 5 * len(usual)}.items():
        folder = write_variant(config, tmp_path / size, size)
        made, _ = predicted(trained, folder, tmp_path / f"made{size}")
        labels = cells_of(made.submission)
        assert (made.rows, len(labels), made.unreadable) == (rows, rows, []), size
        expected = (list(usual.values()) * 5)[:rows]  # the same images, so the same labels
        assert list(labels.values()) == expected, size
        assert list(labels)[: len(usual)] == list(usual)[:rows], size


@THREE_KINDS
def test_a_sample_in_another_order(trained, layout, tmp_path):
    trained, folder = trained(layout), tmp_path / "data"
    sample = copied(trained, folder) / "sample_submission.csv"
    pd.read_csv(sample, dtype=str)[::-1].to_csv(sample, index=False)
    labels = cells_of(predicted(trained, folder, tmp_path)[0].submission)
    assert list(labels.items()) == list(trained.submitted.items())[::-1]


@THREE_KINDS
def test_a_test_table_with_another_column(trained, layout, tmp_path):
    trained, folder = trained(layout), tmp_path / "data"
    copied(trained, folder)
    ids = {COLUMNS[layout][0]: list(trained.truth)}
    table = pd.read_csv(folder / "test.csv") if layout == DIGITS else pd.DataFrame(ids)
    site = pd.Series("N, 2", table.index, name="site")
    pd.concat([site, table], axis=1).to_csv(folder / "test.csv", index=False)
    made, _ = predicted(trained, folder, tmp_path, "competition.test=test.csv")
    assert made.submission.read_bytes() == trained.submission.read_bytes()


@THREE_KINDS
def test_a_sample_of_other_ids_than_the_test_tables_is_refused(trained, layout, tmp_path):
    trained, folder = trained(layout), tmp_path / "data"
    copied(trained, folder)
    ids = list(trained.truth)
    sample = pd.read_csv(folder / "sample_submission.csv", dtype=str)
    sample.iloc[:2, 0] = ["90001", "90002"]
    sample.to_csv(folder / "sample_submission.csv", index=False)
    if layout != DIGITS:
        pd.DataFrame({COLUMNS[layout][0]: ids}).to_csv(folder / "test.csv", index=False)
    assert refusal_of(lambda: predicted(trained, folder, tmp_path, "competition.test=test.csv")) == (
        f"competition.test: {folder / 'test.csv'} and sample_submission.csv disagree: 2 ids are only in the test "
        f"table ({ids[0]}, {ids[1]}), 2 only in the sample submission (90001, 90002); use the files of one "
        "download"
    )


def spoil(folder: Path, layout: str, part: str, row: int, name: str) -> None:
    """Makes one image of a part unreadable, in a way that its kind allows."""
    if layout == DIGITS:
        table = pd.read_csv(folder / f"{part}.csv", dtype=str)
        table.loc[row, "pixel77"] = "256"
        table.to_csv(folder / f"{part}.csv", index=False)
    elif layout == PROTEINS:
        file = folder / part / f"{name}_{FILTERS[2]}.png"
        Image.fromarray(np.zeros((16, 32), np.uint8)).save(file)
    else:
        file = folder / f"{part}_images" / name
        file.write_bytes(file.read_bytes()[:200])


@THREE_KINDS
def test_one_image_that_cannot_be_read_gets_the_prior_and_is_told(trained, layout, tmp_path):
    trained, folder = trained(layout), tmp_path / "data"
    copied(trained, folder)
    name = list(trained.truth)[2]
    spoil(folder, layout, "test", 2, name)
    made, said = predicted(trained, folder, tmp_path)
    assert made.unreadable == [name]
    assert said[-1] == f"1 of {len(trained.truth)} images cannot be read ({name}): their rows get the prior"
    scores = trained.scores
    rule = rule_from_json({key: value for key, value in scores["rule"].items() if key != "said"})
    expected = in_words(trained, rule.decide(prior_of(trained)))
    assert cells_of(made.submission) == trained.submitted | {name: expected}


@THREE_KINDS
def test_training_refuses_one_image_that_cannot_be_read(trained, layout, tmp_path):
    trained, folder = trained(layout), tmp_path / "data"
    shutil.copytree(trained.folder, folder)
    name = list(training_truth(trained))[4]
    spoil(folder, layout, "train", 4, name)
    message = refusal_of(run, trained.experiment(folder, "folds.duplicates=none"), tmp_path)
    count = len(training_truth(trained))
    reasons = {
        DIGITS: f"row 5 of {folder / 'train.csv'} (pixels are whole numbers from 0 to 255)",
        PROTEINS: f"{folder / 'train' / name}_red.png and 3 more (channels of different sizes: 32 × 32, 32 × 32, "
        "32 × 16, 32 × 32)",
        PATHOLOGY: f"{folder / 'train_images' / name} (",
    }
    assert message.startswith(f"1 of {count} images cannot be read: {reasons[layout]}")
    assert not list((tmp_path / "runs").rglob("run.json"))


def test_a_missing_channel_is_named(trained, tmp_path):
    trained, folder = trained(PROTEINS), tmp_path / "data"
    shutil.copytree(trained.folder, folder)
    name = next(iter(training_truth(trained)))
    (folder / "train" / f"{name}_yellow.png").unlink()
    assert refusal_of(run, trained.experiment(folder), tmp_path) == (
        f"competition.train_images: 1 of 56 images do not exist ({folder / 'train' / name}_yellow.png)"
    )


@EVERY
def test_a_config_finds_what_fetch_data_downloads_and_its_policies_are_there(layout):
    experiment = load_experiment(CONFIGS / f"{layout}.yaml")
    assert (experiment.name, experiment.competition.slug) == (layout, layout)
    assert experiment.competition.path == f"data/{layout}"
    assert isinstance(experiment.competition.train_images, PixelsConfig) == (layout == DIGITS)


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda config: config.stem)
def test_the_pixel_cache_holds_as_many_images_as_a_config_says_there_are(config):
    about = "".join(line for line in config.read_text().splitlines() if line.startswith("#"))
    counts = [int(count.replace(",", "")) for count in re.findall(r"(\d[\d,]*) (?:photos|images)", about)]
    assert bool(counts) == (config.stem in STATED)
    data = load_experiment(config, ["competition.path=data"]).data
    pixels = sum(counts) * data.stored_size**2 * data.channels
    assert pixels <= data.cache_gb * 1e9
    if config.stem == IMET:
        assert pixels == pytest.approx(21.4e9, rel=1e-3)
