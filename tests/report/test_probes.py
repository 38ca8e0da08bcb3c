"""Probes' files as arrays, and the pictures of them: axes made later, scales that runs share, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from support.refusals import refusal_of

from kit.report import probes as pictures
from kit.report.measured import heat_map, top_magnitude
from kit.report.probes import probe
from kit.training.records import Activations, Learning

EDGES = (2.0 ** (np.arange(28 * 64 + 1) / 64 - 14)).astype(np.float32)
LAYERS = ["conv1", "layer1", "layer2"]
GROUPS = ["conv1", "layer1", "layer2", "fc"]


def activations_of(scale: float = 1.0, samples: int = 5, layers=LAYERS) -> dict[str, np.ndarray]:
    """Rectified Gaussian outputs, wider with time and `scale`, as a run saves them."""
    generator = np.random.default_rng(0)
    counts = np.zeros((samples, len(layers), len(EDGES) + 1), dtype=np.uint32)
    for sample in range(samples):
        for layer in range(len(layers)):
            values = np.maximum(generator.standard_normal(4000), 0) * scale * (1 + sample)
            places = np.searchsorted(EDGES, values, side="right")
            counts[sample, layer] = np.bincount(places, minlength=len(EDGES) + 1)
    summary = np.tile(np.arange(samples, dtype=np.float32)[:, None], len(layers)) * scale
    return {
        "steps": np.arange(samples) * 10, "layers": np.array(layers), "edges": EDGES, "counts": counts,
        "mean": summary, "std": summary + 1, "near_zero": np.full_like(summary, 0.5),
    }  # fmt: skip


def learning_of(scale: float = 1.0, samples: int = 5, groups=GROUPS, moments: int = 2) -> dict[str, np.ndarray]:
    measured = np.full((samples, len(groups)), scale, dtype=np.float32) * np.arange(1, len(groups) + 1)
    measured[0, 0] = 0  # stands still at first
    measured[1, 1] = np.inf  # as a gradient under fp16
    butterfly = np.full((moments, len(groups)), 1e-4 * scale, dtype=np.float32)
    butterfly[:1, 1] = 0
    return {
        "steps": np.arange(samples) * 10, "groups": np.array(groups), "n_params": np.arange(len(groups)),
        **dict.fromkeys(pictures.MEASURES, measured),
        "butterfly_steps": np.arange(moments) * 40, "butterfly": butterfly, "relative": np.array(0.01),
    }  # fmt: skip


def write_run(folder: Path, policy: str, scale: float = 1.0, layers=LAYERS, groups=GROUPS, **about) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"policy": policy, "seed": 0, "fold": 0} | about))
    np.savez_compressed(folder / "activations.npz", **activations_of(scale, layers=layers))
    np.savez_compressed(folder / "learning.npz", **learning_of(scale, groups=groups))
    return folder


@pytest.fixture
def drawn(monkeypatch):
    """The figures, by the end of their files' names; they are not rendered, which takes most of the time."""
    figures = {}

    def keep(figure, path):
        figures[path.stem.rpartition("-")[2]] = figure
        path.touch()

    monkeypatch.setattr(pictures, "save", keep)
    return figures


def by_hand(counts, edges=(0.5, 1.0, 2.0)) -> Activations:
    nothing = np.zeros((1, 1))
    edges, counts = np.array(edges, dtype=np.float64), np.array(counts).reshape(1, 1, -1)
    return Activations(np.array([0]), ["layer"], edges, counts, nothing, nothing, nothing)


def test_a_linear_axis_shares_out_logarithmic_bins():
    """4 below 0.5, 6 to 1, 10 to 2, 3 beyond; the axis ends within the bin of 10."""
    activations = by_hand([4, 6, 10, 3])
    np.testing.assert_allclose(heat_map(activations, 0, 1.5, 3)[:, 0], [4, 6, 5, 5 + 3])
    np.testing.assert_allclose(heat_map(activations, 0, 1.0, 4)[:, 0], [2, 2, 3, 3, 10 + 3])
    np.testing.assert_allclose(heat_map(activations, 0, 4.0, 2)[:, 0], [20, 0, 3])


def test_the_top_of_an_axis():
    activations = by_hand([4, 6, 10, 0])
    assert top_magnitude(activations, 0, 0.2) == 0.5
    assert top_magnitude(activations, 0, 0.5) == 1.0
    assert top_magnitude(activations, 0, 0.51) == 2.0
    assert top_magnitude(by_hand([0, 0, 0, 5]), 0) == 2.0  # all beyond the last edge
    assert top_magnitude(by_hand([5, 0, 0, 0]), 0) == 0.5  # all zero


def test_an_axis_of_a_gaussian_is_numpys(tmp_path):
    """Made of logarithmic bins, it is within a bin's width of a histogram of the values themselves."""
    values = np.abs(np.random.default_rng(1).standard_normal(100_000))
    counts = np.bincount(np.searchsorted(EDGES, values, side="right"), minlength=len(EDGES) + 1)
    activations = by_hand(counts, EDGES)
    expected, _ = np.histogram(values, np.linspace(0, 3, 41))
    np.testing.assert_allclose(heat_map(activations, 0, 3.0)[:-1, 0], expected, rtol=0.03, atol=30)
    assert top_magnitude(activations, 0, 0.999) == pytest.approx(np.quantile(values, 0.999), rel=0.02)


def test_files_are_read_as_they_were_written(tmp_path):
    run = write_run(tmp_path / "run", "uniform")
    activations, learning = Activations.load(run / "activations.npz"), Learning.load(run / "learning.npz")
    assert (activations.layers, learning.groups, learning.relative) == (LAYERS, GROUPS, 0.01)
    np.testing.assert_array_equal(activations.counts, activations_of()["counts"])
    np.testing.assert_array_equal(learning.update, learning_of()["update"])
    assert isinstance(learning, Learning)


def test_runs_side_by_side_have_the_same_scales(tmp_path, drawn):
    runs = [write_run(tmp_path / "a", "uniform", 1.0), write_run(tmp_path / "b", "discriminative", 4.0)]
    files = probe(runs, str(tmp_path / "both")).files
    assert [file.name for file in files] == [
        f"both-{each}.png" for each in ("activations", "learning", "butterfly")
    ]
    panels = [axes for axes in drawn["activations"].axes if any(isinstance(m, QuadMesh) for m in axes.collections)]
    maps = [axes for axes in panels if axes.get_title()]  # the others are scales of colours
    assert len(maps) == 2 * len(LAYERS)
    assert maps[0].get_title().startswith("uniform\nconv1")
    assert maps[1].get_title().startswith("discriminative\nconv1")
    for left, right in zip(maps[::2], maps[1::2], strict=True):
        assert left.get_ylim() == right.get_ylim()
        assert left.get_ylim()[0] == 0
        assert left.collections[0].norm is right.collections[0].norm
        assert left.get_xlim() == right.get_xlim()
    lines = drawn["learning"].axes
    assert len(lines) == 2 * len(pictures.MEASURES)
    for left, right in zip(lines[::2], lines[1::2], strict=True):
        assert (left.get_yscale(), left.get_ylim()) == ("log", right.get_ylim())
        assert np.isfinite(left.get_ylim()).all()


def test_a_heat_map_holds_the_shares_and_on_top_what_lies_beyond(tmp_path, drawn):
    run = write_run(tmp_path / "a", "uniform")
    probe([run], str(tmp_path / "one"))
    activations = Activations.load(run / "activations.npz")
    axes = drawn["activations"].axes[0]
    inside, beyond = (np.asarray(mesh.get_array()) for mesh in axes.collections)
    heat = heat_map(activations, 0, top_magnitude(activations, 0), pictures.BINS) / 4000
    np.testing.assert_allclose(np.concatenate([inside.reshape(-1, 5), beyond.reshape(1, 5)]), heat)
    np.testing.assert_allclose(inside.reshape(-1, 5).sum(axis=0) + beyond.ravel(), 1)


def test_a_group_that_stands_still_is_a_gap_and_a_butterfly_of_nothing_a_hollow_mark(tmp_path, drawn):
    probe([write_run(tmp_path / "a", "uniform")], str(tmp_path / "one"))
    update = drawn["learning"].axes[0]
    assert np.isnan(update.lines[0].get_ydata()).tolist() == [True, False, False, False, False]
    first, hollow, second, none = drawn["butterfly"].axes[0].lines
    assert np.isnan(first.get_ydata()).tolist() == [False, True, False, False]
    assert (hollow.get_fillstyle(), hollow.get_xdata().tolist()) == ("none", [1])
    assert hollow.get_ydata()[0] >= drawn["butterfly"].axes[0].get_ylim()[0]
    assert not np.isnan(second.get_ydata()).any()
    assert len(none.get_xdata()) == 0


def test_pictures_are_rendered(tmp_path):
    run = write_run(tmp_path / "run", "uniform", layers=LAYERS[:1])
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in probe([run]).files)


def test_pictures_of_one_run_lie_in_its_folder_and_of_several_here(tmp_path, monkeypatch, drawn):
    monkeypatch.chdir(tmp_path)
    runs = [write_run(tmp_path / name, "uniform", fold=fold) for fold, name in enumerate("ab")]
    assert {file.parent for file in probe([runs[0]]).files} == {runs[0]}
    assert [file.name for file in probe(runs).files] == [
        f"probes-{each}.png" for each in ("activations", "learning", "butterfly")
    ]
    assert Path("probes-learning.png").is_file()


def test_without_a_butterfly_there_is_no_picture_of_it(tmp_path, drawn):
    run = write_run(tmp_path / "run", "uniform")
    np.savez_compressed(run / "learning.npz", **learning_of(moments=0))
    assert [file.name for file in probe([run]).files] == ["probes-activations.png", "probes-learning.png"]


def test_of_very_many_layers_some_are_drawn(tmp_path, drawn):
    blocks = [f"blocks.{block}" for block in range(25)]
    probe([write_run(tmp_path / "a", "uniform", layers=blocks)], str(tmp_path / "deep"))
    titles = [axes.get_title() for axes in drawn["activations"].axes if axes.get_title()]
    assert len(titles) == pictures.MOST_LAYERS + len(pictures.SUMMARIES)
    assert "blocks.0" in titles[0]
    assert "blocks.24" in titles[pictures.MOST_LAYERS - 1]


def test_runs_that_cannot_be_drawn_are_refused_with_what_to_do(tmp_path):
    run = write_run(tmp_path / "run", "uniform")
    other = write_run(tmp_path / "other", "other", layers=["stem", "blocks.0"])
    deeper = write_run(tmp_path / "deeper", "deeper", groups=["stem", "head"])
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "is no run" in refusal_of(probe, [empty])
    (empty / "run.json").write_text('{"policy": "uniform", "seed": 0, "fold": 0}')
    message = refusal_of(probe, [run, empty])
    assert message.startswith(f"{empty}: was trained without probes; set training.probes={{every: 10}} (and")
    assert "stands there twice" in refusal_of(probe, [run, run])
    assert "other has other layers than uniform (stem, blocks.0 against conv1" in refusal_of(probe, [run, other])
    assert "deeper has other depth groups than uniform" in refusal_of(probe, [run, deeper])
