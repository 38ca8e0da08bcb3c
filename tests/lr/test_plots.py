"""Pictures of rates: what is drawn is what was given."""

import numpy as np
import pytest

from kit.lr import policy
from kit.lr.clock import policy_groups
from kit.lr.plots import draw_policies, draw_range_test, rate_limits


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, as they are drawn."""
    saved = []
    import kit.lr.plots as module

    save = module.save
    monkeypatch.setattr(module, "save", lambda figure, path: (saved.append(figure), save(figure, path)))
    return saved


def test_lines_and_heat_map_hold_the_matrix(tmp_path, figures):
    lr = np.geomspace(1e-5, 1e-2, 12).reshape(4, 3)
    lr[0, 0] = 0
    frozen = lr == 0
    draw_policies(
        {"mine": (lr, frozen, ["a", "b", "c"]), "other": (10 * lr, frozen & False, ["a", "b", "c"])},
        tmp_path / "x.png",
    )
    (figure,) = figures
    lines, heat = figure.axes[0], figure.axes[1]
    for line, depth in zip(lines.get_lines(), (2, 1, 0), strict=True):
        np.testing.assert_allclose(line.get_ydata(), np.where(lr[:, depth] > 0, lr[:, depth], np.nan))
    (image,) = heat.images
    np.testing.assert_allclose(image.get_array().filled(0), lr.T)
    assert (image.norm.vmin, image.norm.vmax) == (lr[lr > 0].min(), 10 * lr.max())  # one scale for both
    assert len(heat.collections) == 1  # the frozen stretch, hatched
    assert len(figure.axes[3].collections) == 0
    assert [text.get_text() for text in heat.get_yticklabels()] == ["a", "b", "c"]
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_other_formats_by_name(tmp_path):
    matrices = {"mine": (np.full((3, 2), 1e-3), np.zeros((3, 2), dtype=bool), ["a", "b"])}
    draw_policies(matrices, tmp_path / "x.svg")
    draw_policies(matrices, tmp_path / "x.pdf")
    assert b"<svg" in (tmp_path / "x.svg").read_bytes()
    assert (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")


def test_frozen_stretches_are_dotted(tmp_path, figures):
    lr, frozen = np.full((4, 2), 1e-3), np.array([[True, False]] * 2 + [[False, False]] * 2)
    draw_policies({"mine": (lr, frozen, ["a", "b"])}, tmp_path / "x.png")
    head, dotted, stem = figures[0].axes[0].get_lines()
    assert dotted.get_linestyle() == ":"
    np.testing.assert_array_equal(dotted.get_ydata(), [1e-3, 1e-3, np.nan, np.nan])
    np.testing.assert_array_equal(stem.get_ydata(), [np.nan, np.nan, 1e-3, 1e-3])
    assert not np.isnan(head.get_ydata()).any()


@pytest.mark.parametrize(
    ("on", "stretches"),
    [
        ([1, 1, 0, 0, 1, 0, 1, 1, 1], [(0, 2), (4, 5), (6, 9)]),
        ([0, 0, 1, 1, 0, 1, 0, 0, 0], [(2, 4), (5, 6)]),
    ],
)
def test_each_frozen_stretch_is_hatched(tmp_path, figures, on, stretches):
    frozen = np.array([on, [0] * len(on)], dtype=bool).T
    draw_policies({"mine": (np.full(frozen.shape, 1e-3), frozen, ["a", "b"])}, tmp_path / "x.png")
    (hatched,) = figures[0].axes[1].collections
    extents = [path.get_extents() for path in hatched.get_paths()]
    assert [(extent.x0, extent.x1) for extent in extents] == stretches
    assert {(extent.y0, extent.y1) for extent in extents} == {(-0.5, 0.5)}


def test_limits_pass_over_zero():
    assert rate_limits(np.array([[0, 1e-3], [1e-5, 0]])) == (1e-5, 1e-3)
    assert rate_limits(np.zeros((2, 2))) == (1e-12, 1.0)


def test_a_range_test_has_its_curve_and_its_suggestions(tmp_path, figures):
    rates = np.geomspace(1e-5, 1, 50)
    losses = 2 - np.sin(np.linspace(0, 3, 50))
    draw_range_test(
        {"all": (rates, losses)}, {"all": {"valley": 1e-3, "steep": 1e-2}}, "title", tmp_path / "one.png"
    )
    axes = figures[0].axes[0]
    curve, valley, steep = axes.get_lines()
    np.testing.assert_array_equal(curve.get_ydata(), losses)
    assert valley.get_xdata() == [1e-3]
    assert valley.get_ydata() == pytest.approx([np.interp(np.log(1e-3), np.log(rates), losses)])
    assert steep.get_label() == "steep 0.01"
    several = {name: (rates, losses + place) for place, name in enumerate("abc")}
    draw_range_test(several, {"b": {"minimum": 1e-2}}, "title", tmp_path / "many.png")
    assert [text.get_text() for text in figures[1].axes[0].get_legend().get_texts()] == ["a", "b", "c"]


def heat_of(picture) -> np.ndarray:
    return np.ma.getdata(picture.figure.axes[1].images[0].get_array()).T


@pytest.mark.parametrize("as_model", [False, True])
def test_a_policy_draws_its_matrix(as_model):
    groups = {"stem": 3, "body": 5, "head": 2}
    if as_model:
        import timm

        from kit.model.groups import depth_groups

        model = timm.create_model("test_resnet", num_classes=3)
        groups, given = depth_groups(model), model
    else:
        given = groups
    mine = policy(lr="slice(1e-5, 1e-2)", schedule="one_cycle")
    picture = mine.plot(given, 12, title="mine")
    expected = mine.matrix(policy_groups(groups), 12).lr
    assert expected.shape[1] > 2
    np.testing.assert_array_equal(heat_of(picture), expected)
    assert picture.figure.axes[0].get_title() == "mine"


def test_a_policy_that_cannot_be_followed_is_not_drawn():
    mine = policy(lr=1e-2, profile={"name": "explicit", "groups": {"steam": 0}})
    with pytest.raises(ValueError, match="'steam' matches no depth group"):
        mine.plot({"stem": 1, "head": 1}, 10)
