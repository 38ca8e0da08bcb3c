"""Pooled runs, from files that the tests write: the rule, its honest score, the labels of the test rows."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from support.colours import experiment_content, write_competition
from support.refusals import refusal_of

from kit.competition.config import PredictByConfig
from kit.competition.folds import FoldPlan
from kit.competition.load import load_competition
from kit.core.errors import KitError
from kit.core.files import write_text
from kit.core.runs import ExperimentDir, RunKey, RunRecord, predictions, write_predictions
from kit.experiment.config import validate
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.policy_scores import stored_rule
from kit.experiment.pool import decided, hand_in, pool_policy
from kit.experiment.pooled_predictions import pooled
from kit.scoring.config import ScoringConfig
from kit.scoring.decide import decide_test, rule_from_json
from kit.scoring.f1 import score
from kit.scoring.rules import Half

TAGS = ("day", "rain", "snow")


@pytest.fixture
def several(tmp_path):
    """A competition with several labels a row, and an experiment on it."""
    folder = write_competition(tmp_path / "tags", rows=300, test_rows=120, side=2)
    generator = np.random.default_rng(0)
    truth = generator.random((300, 3)) < [0.6, 0.3, 0.1]
    truth[~truth.any(axis=1), 0] = True
    cells = [" ".join(tag for tag, has in zip(TAGS, row, strict=True) if has) for row in truth]
    pd.read_csv(folder / "train.csv").assign(label=cells).to_csv(folder / "train.csv", index=False)
    content = experiment_content(
        folder, competition={"separator": " "}, scoring={"average": "macro", "rule": "auto"}
    )
    return validate(content, "test"), truth


@pytest.fixture
def folder(tmp_path, several) -> ExperimentDir:
    """The runs of two seeds and three folds that know something of the truth."""
    experiment, truth = several
    folder, competition = ExperimentDir(tmp_path / "runs/tiny"), load_competition(experiment.competition)
    plan = plan_of(competition)
    generator = np.random.default_rng(1)
    for seed in (0, 1):
        for fold in range(3):
            rows = plan.validation_rows(fold)
            logits = 2.5 * truth[rows] - 2.2 + generator.normal(0, 1.2, (len(rows), 3))
            test = generator.random((120, 3))
            run = folder.run(RunKey("uniform", seed, fold))
            ids = [competition.ids[row] for row in rows]
            write_predictions(predictions(ids, 1 / (1 + np.exp(-logits)), TAGS), run.oof)
            write_predictions(predictions(competition.test_ids, test, TAGS), run.test)
            for file in (run.weights, run.rates):
                write_text(file, "")
            key = {"policy": "uniform", "seed": seed, "fold": fold, "fingerprint": f"{seed} {fold}"}
            run.write(RunRecord(status="finished", **key))
    return folder


def plan_of(competition) -> FoldPlan:
    return FoldPlan(competition.ids, np.arange(len(competition.ids)) % 3)


def pool(experiment, folder, tmp_path, write=True):
    competition = load_competition(experiment.competition)
    path = tmp_path / "submissions/tiny.csv"
    loaded = LoadedExperiment(experiment, folder, competition, plan_of(competition), {})
    return pool_policy("uniform", folder.finished("uniform"), experiment.scoring, loaded, path, write)


def test_predictions_are_joined_by_id_and_test_predictions_are_kept_by_fold(several, folder):
    experiment, truth = several
    competition = load_competition(experiment.competition)
    made = pooled(folder.runs("uniform"), competition, plan_of(competition))
    assert made.oof.index.tolist() == competition.ids
    np.testing.assert_array_equal(made.truth, truth)
    np.testing.assert_array_equal(made.folds, np.arange(300) % 3)
    assert sorted(made.test) == [0, 1, 2]
    each = [pd.read_parquet(folder.run(RunKey("uniform", seed, 2)).test).set_index("id") for seed in (0, 1)]
    np.testing.assert_allclose(made.test[2], (each[0] + each[1]) / 2, rtol=1e-6)


def test_the_score_is_that_of_rules_fitted_on_other_folds(several, folder, tmp_path):
    experiment, truth = several
    outcome = pool(experiment, folder, tmp_path)
    scores = json.loads((folder.policy("uniform") / "scores.json").read_text())
    assert scores == outcome.scores.model_dump(exclude_unset=True)
    competition = load_competition(experiment.competition)
    choice = pooled(folder.runs("uniform"), competition, plan_of(competition)).choose(experiment.scoring)
    honest = f1_score(truth, choice.predicted, average="macro", zero_division=0)
    assert scores["oof"] == pytest.approx(honest, abs=1e-12)
    assert [rule["name"] for rule in scores["rules"]] == ["half", "threshold", "prevalence", "thresholds"]
    (taken,) = [rule for rule in scores["rules"] if rule["chosen"]]
    assert (taken["cross_fitted"], taken["optimistic"]) == (scores["oof"], scores["optimistic"])
    assert taken["name"] != "half"  # the planted probabilities are too low for .5
    assert outcome.per_class["rows"].tolist() == truth.sum(axis=0).tolist()
    assert {(run["seed"], run["fold"]) for run in scores["runs"]} == {(s, f) for s in (0, 1) for f in range(3)}
    assert (scores["oof_rows"], scores["train_rows"]) == (300, 300)


def test_each_run_is_scored_by_a_rule_that_did_not_see_its_fold(several, folder, tmp_path):
    experiment, truth = several
    scores = pool(experiment, folder, tmp_path).scores
    competition = load_competition(experiment.competition)
    choice = pooled(folder.runs("uniform"), competition, plan_of(competition)).choose(experiment.scoring)
    for run in scores.runs:
        oof = pd.read_parquet(folder.run(RunKey("uniform", run.seed, run.fold)).oof).set_index("id")
        predicted = choice.by_fold[run.fold].decide(oof.to_numpy())
        rows = [competition.ids.index(name) for name in oof.index]
        assert run.score == pytest.approx(f1_score(truth[rows], predicted, average="macro", zero_division=0))


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_run_is_scored_by_its_own_predictions_whatever_number_of_seeds(several, folder, tmp_path, seeds):
    experiment, truth = several
    competition = load_competition(experiment.competition)
    runs = [run for run in folder.runs("uniform") if run.record.seed in seeds]
    plan, scoring = plan_of(competition), experiment.scoring
    made = decided(runs, competition, plan, scoring)
    pool = pooled(runs, competition, plan)
    choice = pool.choose(scoring)
    for run, scored in zip(runs, made.runs, strict=True):
        everything, own = pool.oof.copy(), run.read_oof()
        everything.loc[own.index] = own.astype(float)
        rows = plan.fold == run.record.fold
        predicted = choice.by_fold[run.record.fold].decide_among(everything.to_numpy(), rows)
        assert scored.score == score(truth[rows], predicted, scoring)


def test_the_submission_is_decided_by_the_stored_rule(several, folder, tmp_path):
    experiment, _ = several
    outcome = pool(experiment, folder, tmp_path)
    competition = load_competition(experiment.competition)
    made = pooled(folder.runs("uniform"), competition, plan_of(competition))
    rule = stored_rule(folder.policy("uniform") / "scores.json", experiment.scoring, experiment.competition).rule
    expected = decide_test(rule, [frame.to_numpy() for frame in made.test.values()], experiment.scoring.transfer)
    written = pd.read_csv(outcome.submission, dtype=str, keep_default_na=False).set_index("id")["label"]
    assert written.index.tolist() == competition.test_ids
    decoded = [" ".join(tag for tag, has in zip(TAGS, row, strict=True) if has) for row in expected]
    assert written.tolist() == decoded
    assert all(written != "")  # no training row is without a label


def test_another_fold_that_is_not_there_yet_leaves_rows_out(several, folder, tmp_path):
    experiment, _ = several
    for seed in (0, 1):
        run = folder.run(RunKey("uniform", seed, 2))
        run.write(run.record.with_fields(status="running"))
    scores = pool(experiment, folder, tmp_path).scores
    assert (scores.oof_rows, scores.train_rows, len(scores.runs)) == (200, 300, 4)


def test_a_single_fold_is_cross_fitted_in_parts(several, folder, tmp_path):
    experiment, _ = several
    for run in folder.runs("uniform"):
        if run.record.fold:
            run.write(run.record.with_fields(status="running"))
    scores = pool(experiment, folder, tmp_path).scores
    assert scores.oof_rows == 100
    assert scores.oof <= scores.optimistic
    assert 0 < scores.runs[0].score < 1


def test_scores_are_kept_though_the_submission_turns_out_invalid(several, folder, tmp_path):
    experiment, _ = several
    empty = experiment.model_copy(update={"scoring": ScoringConfig(at_least=0, rule="half")})
    with pytest.raises(KitError, match="no label for"):
        pool(empty, folder, tmp_path)
    assert (folder.policy("uniform") / "scores.json").is_file()
    assert not (tmp_path / "submissions/tiny.csv").exists()


def test_nothing_is_written_by_a_process_that_is_not_to(several, folder, tmp_path):
    experiment, _ = several
    outcome = pool(experiment, folder, tmp_path, write=False)
    assert not outcome.submission.exists()
    assert not (folder.policy("uniform") / "scores.json").exists()


class TestStoredRule:
    @pytest.fixture
    def file(self, several, folder, tmp_path):
        pool(several[0], folder, tmp_path)
        return folder.policy("uniform") / "scores.json"

    def test_is_the_one_that_was_chosen(self, file, several, folder):
        found = stored_rule(file, several[0].scoring, several[0].competition)
        stored = json.loads(file.read_text())["rule"]
        assert found.rule == rule_from_json({key: value for key, value in stored.items() if key != "said"})
        assert found.rule.sentence(list(TAGS)) == stored["said"]
        assert found.is_of(folder.runs("uniform"), TAGS)
        assert found.is_of(folder.runs("uniform")[:2], TAGS)

    def test_is_none_for_another_metric_and_where_there_is_no_file(self, file, several, tmp_path):
        competition = several[0].competition
        assert stored_rule(file, ScoringConfig(average="micro"), competition) is None
        assert stored_rule(tmp_path / "nothing.json", ScoringConfig(), competition) is None

    def test_is_none_for_rows_pooled_otherwise(self, file, several):
        by = several[0].competition.model_copy(update={"predict_by": PredictByConfig(rows="patient")})
        assert stored_rule(file, several[0].scoring, by) is None

    def test_does_not_depend_on_how_it_meets_the_test_rows(self, file, several):
        other = several[0].scoring.model_copy(update={"transfer": "vote"})
        assert stored_rule(file, other, several[0].competition) == stored_rule(
            file, several[0].scoring, several[0].competition
        )

    def test_is_not_of_other_classes_or_runs(self, file, several, folder):
        found = stored_rule(file, several[0].scoring, several[0].competition)
        assert not found.is_of(folder.runs("uniform"), ("day", "snow", "rain"))
        run = folder.run(RunKey("uniform", 1, 2))
        run.write(run.record.with_fields(fingerprint="other"))
        assert not found.is_of(folder.runs("uniform"), TAGS)

    def test_in_a_damaged_file_is_refused(self, file, several):
        file.write_text("{")
        assert refusal_of(stored_rule, file, several[0].scoring, several[0].competition).startswith(
            f"{file} is damaged ("
        )


class TestHandIn:
    """Predictions find their rows by id."""

    @pytest.fixture
    def parts(self, several):
        competition = load_competition(several[0].competition)
        generator = np.random.default_rng(3)
        frame = predictions(competition.test_ids, generator.random((len(competition.test_ids), 3)), TAGS)
        return competition.submission, Half(at_least=1, at_most=3, threshold=0.5, share=0.5), frame

    def test_in_another_order(self, parts, tmp_path):
        submission, rule, frame = parts
        plain = hand_in(submission, rule, {0: frame}, "none", tmp_path / "a.csv")
        hand_in(submission, rule, {0: frame.sample(frac=1, random_state=0)}, "none", tmp_path / "b.csv")
        assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
        assert plain["label"].nunique() > 3

    def test_of_fewer_rows_is_refused_or_filled_with_the_prior(self, parts, tmp_path):
        submission, rule, frame = parts
        message = refusal_of(hand_in, submission, rule, {0: frame.iloc[1:]}, "none", tmp_path / "a.csv")
        assert message.endswith(f"a.csv: predictions and submission are not of the same rows ({frame.index[0]})")
        prior = np.array([0.9, 0.1, 0.1])
        made = hand_in(submission, rule, {0: frame.iloc[1:]}, "none", tmp_path / "a.csv", prior=prior)
        whole = hand_in(submission, rule, {0: frame}, "none", tmp_path / "b.csv")
        assert made["label"].tolist() == [TAGS[0], *whole["label"].tolist()[1:]]

    def test_of_a_row_that_the_submission_lacks_is_refused(self, parts, tmp_path):
        submission, rule, frame = parts
        other = frame.rename(index={frame.index[0]: "nobody"})
        call = lambda: hand_in(submission, rule, {0: other}, "none", tmp_path / "a.csv", prior=np.full(3, 0.5))  # noqa: E731
        assert refusal_of(call).endswith("are not of the same rows (nobody)")
