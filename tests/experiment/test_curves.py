"""The picture of an experiment, from a directory made by hand: what is drawn are the numbers in it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit.core.runs import ExperimentDir, RunKey, RunRecord
from kit.experiment.curves import draw_curves

pytestmark = pytest.mark.usefixtures("painted")


def add_run(folder: Path, policy: str, fold: int, scores: list[float], groups: int = 3, status="finished"):
    """A run of two steps an epoch, whose rates are step + 1 times 1e-3 times the group's number from 1."""
    run = ExperimentDir(folder).run(RunKey(policy, 0, fold))
    run.write(RunRecord(status=status, policy=policy, seed=0, fold=fold))
    steps = 2 * len(scores)
    lr = 1e-3 * np.outer(np.arange(1, steps + 1), np.arange(1, groups + 1))
    np.savez(run.rates, lr=lr, momentum=np.full(steps, np.nan), groups=[f"layer{i}" for i in range(groups)])
    lines = [{"step": 2 * epoch, "epoch": float(epoch), "loss": 1.0} for epoch in range(1, len(scores) + 1)]
    lines += [{"step": 0, "epoch": float(epoch), "valid_score": each} for epoch, each in enumerate(scores, 1)]
    run.history.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


@pytest.fixture
def figures(monkeypatch) -> list:
    """The figures that were saved."""
    from matplotlib.figure import Figure

    saved, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **named: saved.append(self) or save(self, *args, **named)
    )
    return saved


def drawn(folder: Path, panels: int, metric: str = "macro F1") -> Image.Image:
    """Draws and opens the picture of `panels` policies; it must not be blank."""
    path = draw_curves(ExperimentDir(folder), metric)
    assert path == folder / "curves.png"
    image = Image.open(path)
    assert image.format == "PNG"
    beside = min(panels, 4)  # rate panels in the row of the scores
    rows = -(-(panels + 1) // 5)
    assert image.size == (pytest.approx((3.6 * beside + 4.6) * 110, abs=1), pytest.approx(3.8 * rows * 110, abs=1))
    assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 20
    return image


def test_nothing_is_drawn_without_a_finished_run(tmp_path):
    assert draw_curves(ExperimentDir(tmp_path), "macro F1") is None
    for fold, status in enumerate(["running", "failed"]):
        add_run(tmp_path, "uniform", fold, [0.5], status=status)
    assert draw_curves(ExperimentDir(tmp_path), "macro F1") is None
    assert not (tmp_path / "curves.png").exists()


def test_two_policies_show_their_rates_and_mean_scores(tmp_path, figures):
    add_run(tmp_path, "uniform", 0, [0.5, 0.75])
    add_run(tmp_path, "uniform", 1, [0.25, 0.25])
    add_run(tmp_path, "discriminative", 0, [0.125, 0.5])
    add_run(tmp_path, "discriminative", 1, [0.9, 0.9], status="failed")
    drawn(tmp_path, panels=2)
    *rates, scores = figures[0].axes
    assert [axes.get_title() for axes in rates] == ["discriminative", "uniform"]
    assert [axes.get_yscale() for axes in rates] == ["log", "log"]
    lines = {line.get_label(): line for line in rates[1].get_lines()}
    assert list(lines) == ["layer2", "layer1", "layer0"]  # the head first
    for number in range(3):
        np.testing.assert_allclose(lines[f"layer{number}"].get_ydata(), 1e-3 * (number + 1) * np.arange(1, 5))
    assert [text.get_text() for text in rates[1].get_legend().get_texts()] == list(lines)
    means = {
        line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist()) for line in scores.get_lines()
    }
    assert means == {
        "discriminative (1 run)": ([1, 2], [0.125, 0.5]),
        "uniform (2 runs)": ([1, 2], [0.375, 0.5]),
    }
    bottom, top = scores.collections[1].get_datalim(scores.transData).intervaly
    assert (bottom, top) == (0.25, 0.75)  # the range over the runs
    assert scores.get_ylabel() == "macro F1"


def test_one_epoch_is_a_point(tmp_path, figures):
    add_run(tmp_path, "uniform", 0, [0.5])
    drawn(tmp_path, panels=1)
    (line,) = figures[0].axes[-1].get_lines()
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([1], [0.5])
    assert line.get_marker() == "o"


def test_of_more_than_twelve_groups_the_legend_names_six(tmp_path, figures):
    add_run(tmp_path, "uniform", 0, [0.5, 0.6], groups=13)
    drawn(tmp_path, panels=1)
    axes = figures[0].axes[0]
    assert len(axes.get_lines()) == 13
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(names) == 6


def test_single_group_and_a_rate_of_zero_are_drawn(tmp_path, figures):
    run = add_run(tmp_path, "uniform", 0, [0.5], groups=1)
    np.savez(run.rates, lr=np.array([[0.0], [1e-3]]), momentum=np.zeros(2), groups=["head"])
    drawn(tmp_path, panels=1)
    axes = figures[0].axes[0]
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), [np.nan, 1e-3])  # 0 is not on a log scale
    assert 0 < axes.get_ylim()[0] < 1e-3


@pytest.mark.filterwarnings("ignore:Data has no positive values")
def test_groups_that_never_learn_are_drawn(tmp_path, figures):
    run = add_run(tmp_path, "frozen", 0, [0.5], groups=2)
    np.savez(run.rates, lr=np.zeros((2, 2)), momentum=np.zeros(2), groups=["stem", "head"])
    drawn(tmp_path, panels=1)
    assert all(np.isnan(line.get_ydata()).all() for line in figures[0].axes[0].get_lines())


def test_runs_without_scores_by_epoch_are_drawn(tmp_path, figures):
    run = add_run(tmp_path, "uniform", 0, [0.5, 0.6])
    run.history.unlink()
    drawn(tmp_path, panels=1)
    assert figures[0].axes[-1].get_lines()[0].get_ydata().tolist() == []


def test_more_policies_than_colours(tmp_path, figures):
    for number in range(8):
        add_run(tmp_path, f"policy{number}", 0, [0.1 * number])
    drawn(tmp_path, panels=8)
    assert len(figures[0].axes[-1].get_lines()) == 8


def test_of_many_policies_the_last_scores_are_shown_the_best_on_top(tmp_path, figures):
    for number in range(9):
        add_run(tmp_path, f"policy{number}", 0, [0.9, 0.1 * ((4 * number) % 9)])
    drawn(tmp_path, panels=9)
    scores = figures[0].axes[9]
    names = [label.get_text() for label in scores.get_yticklabels()]
    assert names == sorted(names, key=lambda name: (4 * int(name[-1])) % 9)
    means = [line.get_xdata()[0] for line in scores.get_lines() if line.get_marker() == "|"]
    assert means == pytest.approx([0.1 * place for place in range(9)])


def test_picture_is_drawn_anew(tmp_path):
    add_run(tmp_path, "uniform", 0, [0.5, 0.6])
    before = drawn(tmp_path, panels=1).tobytes()
    add_run(tmp_path, "uniform", 1, [0.1, 0.9])
    assert drawn(tmp_path, panels=1).tobytes() != before
