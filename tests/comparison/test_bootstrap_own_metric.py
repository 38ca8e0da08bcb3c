"""The bootstrap of a metric of the user's own is that of F where the metric is F."""

import numpy as np
import pytest

from kit.comparison.bootstrap import bootstrap
from kit.scoring.config import ScoringConfig

MINE = """
from sklearn.metrics import f1_score
def macro(truth, predicted): return f1_score(truth, predicted, average="macro", zero_division=0)
def spread(truth, predicted): return (truth == predicted).mean() - 10 * (truth == 0).mean()
"""


@pytest.fixture
def metric(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return lambda name: ScoringConfig.model_validate({"metric": f"mine.py:{name}"}, context={"folder": tmp_path})


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_own_f1_has_the_interval_of_f1(metric, several, grouped):
    generator = np.random.default_rng(0)
    shape = (40, 3) if several else (40,)
    draw = (lambda: generator.random(shape) < 0.5) if several else (lambda: generator.integers(0, 3, shape))
    truth = draw()
    predicted = {name: np.where(generator.random(shape) < 0.6, truth, draw()) for name in "abc"}
    groups = generator.integers(0, 12, 40) if grouped else None
    own = bootstrap(truth, predicted, "a", metric("macro"), groups=groups, resamples=60)
    ours = bootstrap(truth, predicted, "a", ScoringConfig(), groups=groups, resamples=60)
    assert own.keys() == {"b", "c"}
    for name in own:
        for value in ("difference", "low", "high"):
            assert getattr(own[name], value) == pytest.approx(getattr(ours[name], value), abs=1e-12)


def test_truth_and_predictions_are_of_the_same_drawn_rows(metric):
    """What depends on the drawn rows alone is the same for all policies, and leaves no difference."""
    truth = np.arange(30) % 3
    wrong = np.where(np.arange(30) < 6, (truth + 1) % 3, truth)
    made = bootstrap(truth, {"right": truth, "wrong": wrong}, "right", metric("spread"), resamples=400)["wrong"]
    assert made.difference == pytest.approx(-0.2)
    spread = 1.96 * np.sqrt(0.2 * 0.8 / 30)
    assert made.low == pytest.approx(-0.2 - spread, abs=0.05)
    assert made.high == pytest.approx(-0.2 + spread, abs=0.05)
