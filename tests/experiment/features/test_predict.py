"""Heads that predict under a clock: views are given up before rows are, and it is said."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.colours import experiment_content, write_competition

from kit.core.runs import ExperimentDir
from kit.experiment import predict
from kit.experiment.config import ExperimentConfig, validate
from kit.experiment.features.head_run import read_head
from kit.experiment.run import run
from kit.model.features import Taps


def heads(competition: Path, name: str, views: list[str]) -> ExperimentConfig:
    content = experiment_content(
        competition, name=name, features={"heads": "logistic", "views": views}, prediction={"batch_size": 1}
    )
    content.pop("policies")
    return validate(content, "test")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Heads on an image and its mirror, fitted: the config, where, and features of the test images as such."""
    output = tmp_path_factory.mktemp("heads")
    competition = write_competition(output / "colours")
    config, plain = heads(competition, "mirrored", ["hflip"]), heads(competition, "plain", [])
    run(plain, output)
    (features,) = [each for file in (output / "cache").glob("features-*.npy") if len(each := np.load(file)) == 9]
    run(config, output)
    return config, output, features


@pytest.fixture
def slowly(done, tmp_path, monkeypatch):
    """Predicts with a clock of its own, on which the body takes ten seconds an image and view."""
    config, output, _ = done
    now, said, frames = [0.0], list[str](), []
    for module in ("kit.experiment.predict", "kit.experiment.view_clock"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: now[0]))
    looked, by_fold = Taps.__call__, predict.by_fold

    def slow(self, images):
        now[0] += 10
        return looked(self, images)

    def seen(made):
        frames.extend(frame for _, frame in made)
        return by_fold(made)

    monkeypatch.setattr(Taps, "__call__", slow)
    monkeypatch.setattr(predict, "by_fold", seen)

    def call(budget: float | None):
        made = predict.predict_test(
            config, submission=tmp_path / "made.csv", output=output, budget=budget, say=said.append
        )
        return made, frames, said, now

    return call


def probabilities(config: ExperimentConfig, output: Path, features: np.ndarray) -> list[np.ndarray]:
    """Those of each fold's head."""
    head = config.features.heads["logistic"]
    runs = ExperimentDir(output / "runs" / config.name).finished("logistic")
    return [head.predict(read_head(one), features) for one in runs]


def test_with_time_for_them_heads_see_all_views(slowly):
    made, frames, said, now = slowly(220)  # 180, and what may come on top
    assert (made.models, made.in_one_view, made.views, now[0]) == (3, 0, "plain + hflip", 180)
    assert [len(frame) for frame in frames] == [9, 9, 9]
    assert not [line for line in said if "given up" in line]


def test_without_time_for_them_heads_see_one_view_and_it_is_said(done, slowly):
    """All rows alike: those that had been seen in both views are seen again."""
    config, output, features = done
    made, frames, said, now = slowly(150)
    assert (made.models, made.in_one_view, made.late, now[0]) == (3, 3, [], 40 + 90)
    assert [line for line in said if "given up" in line] == [
        "the time does not suffice for 3 heads over features in plain + hflip: views are given up, and those left "
        "predict one view; the decision rule was chosen on out-of-fold predictions in plain + hflip"
    ]
    for frame, expected in zip(frames, probabilities(config, output, features), strict=True):
        np.testing.assert_allclose(frame.to_numpy(), expected, atol=1e-5)


def test_without_time_for_one_view_rows_are_late(done, slowly):
    config, output, features = done
    made, frames, said, _ = slowly(95)
    assert (made.models, made.in_one_view, len(made.late)) == (3, 3, 3)
    assert [len(frame) for frame in frames] == [6, 6, 6]
    np.testing.assert_allclose(frames[0], probabilities(config, output, features[:6])[0], atol=1e-5)
    assert any("the time does not allow one model: 3 of 9 rows" in line for line in said)


@pytest.mark.parametrize(("budget", "rows"), [(75, 4), (55, 3), (35, 2)])
def test_views_stay_where_one_would_reach_fewer_rows(slowly, budget, rows):
    """Two rows take 40 s. One view would reach four, two and none in the rest, as both do and fewer."""
    made, frames, said, _ = slowly(budget)
    assert (made.models, made.in_one_view, len(made.late)) == (3, 0, 9 - rows)
    assert [len(frame) for frame in frames] == [rows] * 3
    assert not [line for line in said if "given up" in line]


def test_time_may_be_over_before_anything_was_seen(slowly, monkeypatch):
    opened = predict.open_readable

    def late(*arguments, **options):
        made = opened(*arguments, **options)
        slowly_now[0] += 100
        return made

    slowly_now = slowly(None)[3]
    monkeypatch.setattr(predict, "open_readable", late)
    made = slowly(50)[0]
    assert (made.models, made.rows, len(made.late)) == (0, 9, 9)
