"""Shipped configs of competitions without a sample, in JSON, of several images a prediction: each whole."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from support.community_miniatures import BREEDS, SNAKES, SPECIES, WRITERS
from support.miniatures import small

from kit import run
from kit.competition.load import load_competition
from kit.core.runs import read_predictions
from kit.experiment.config import load_experiment
from kit.experiment.grade import grade
from kit.experiment.predict import predict_test

CONFIGS = Path(__file__).parent.parent / "configs"
SHEEP, HERBARIUM, SNAKE, MAMMOGRAMS = WRITERS
CLASSES = {SHEEP: BREEDS, HERBARIUM: SPECIES, SNAKE: SNAKES, MAMMOGRAMS: ("0", "1")}
COLUMNS = {
    SHEEP: ["filename", "label"],
    HERBARIUM: ["Id", "Predicted"],
    SNAKE: ["ObservationId", "class_id"],
    MAMMOGRAMS: ["prediction_id", "cancer"],
}


def unit_of(layout: str, table: pd.DataFrame) -> pd.Series:
    """What a prediction is handed in for, by the row of the train table."""
    if layout == SNAKE:
        return table["observation_id"]
    if layout == MAMMOGRAMS:
        return table["patient_id"] + "_" + table["laterality"]
    return table.iloc[:, 0]


def probabilistic_f1(truth: np.ndarray, p: np.ndarray) -> float:
    """Yacouby and Axman 2020, of the second class."""
    hits, recall = p[truth == 1].sum(), p[truth == 1].sum() / (truth == 1).sum()
    precision = hits / p.sum()
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("layout", WRITERS)
def test_each_config_trains_scores_and_hands_in_on_its_layout(layout, tmp_path):
    if layout == MAMMOGRAMS:
        pytest.importorskip("pydicom")
    truth = WRITERS[layout](tmp_path / "data")
    experiment = load_experiment(CONFIGS / f"{layout}.yaml", small(tmp_path / "data"))
    competition = load_competition(experiment.competition)
    result = run(experiment, tmp_path)
    (policy,) = result.policies
    scores = result.policies[policy].scores

    oof = pd.concat(
        [read_predictions(run / "oof.parquet") for run in (result.folder / policy / "seed0").iterdir()]
    )
    assert tuple(oof.columns) == CLASSES[layout] == competition.classes
    assert sorted(oof.index) == sorted(competition.ids)
    train = competition.train.set_axis(competition.ids)
    unit = unit_of(layout, train)
    folds = pd.read_csv(result.folder / "folds.csv", dtype={"id": str}).set_index("id")["fold"]
    assert folds.groupby(unit).nunique().eq(1).all()
    pooled = oof.groupby(unit).mean()
    targets = pd.Series(competition.targets, competition.ids).groupby(unit).first().loc[pooled.index].to_numpy()
    if layout == MAMMOGRAMS:
        assert scores.oof == pytest.approx(probabilistic_f1(targets, pooled["1"].to_numpy()), abs=1e-6)
    elif scores.rule["kind"] == "argmax":
        decided = pooled.to_numpy().argmax(axis=1)
        assert scores.oof == pytest.approx(f1_score(targets, decided, average="macro"), abs=1e-9)
    assert scores.oof_rows == len(pooled)
    stored = read_predictions(result.folder / policy / "oof.parquet")
    np.testing.assert_allclose(stored.loc[pooled.index], pooled, atol=1e-6)

    submission = result.policies[policy].submission
    given = pd.read_csv(submission, dtype=str)
    assert list(given.columns) == COLUMNS[layout]
    assert given.iloc[:, 0].tolist() == list(truth)
    if layout == MAMMOGRAMS:
        tests = [read_predictions(run / "test.parquet") for run in (result.folder / policy / "seed0").iterdir()]
        table = pd.read_csv(tmp_path / "data/test.csv", dtype=str).set_index("image_id")
        wanted = sum(tests).groupby(unit_of(layout, table))["1"].mean() / len(tests)
        np.testing.assert_allclose(given["cancer"].astype(float), wanted.loc[list(truth)], rtol=1e-5)
    else:
        assert set(given.iloc[:, 1]) <= set(CLASSES[layout])

    made = predict_test(
        experiment, [tmp_path / "runs"], tmp_path / "again.csv", tmp_path, cache=tmp_path / "cache"
    )
    assert made.submission.read_bytes() == submission.read_bytes()
    solution = tmp_path / "solution.csv"
    pd.DataFrame(truth.items(), columns=COLUMNS[layout], dtype=str).to_csv(solution, index=False)
    graded = grade(submission, solution, experiment)
    assert graded.rows == len(truth)
    assert 0 <= graded.value <= 1
    assert grade(solution, solution, experiment).value == 1
