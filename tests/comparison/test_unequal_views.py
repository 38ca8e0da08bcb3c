"""Policies whose runs were predicted in different views of the images are compared, and that is said."""

from pathlib import Path
from types import SimpleNamespace

from support.colours import experiment_content

from kit.comparison.views import View, unequal_views
from kit.core.runs import RunRecord
from kit.experiment.config import validate
from kit.experiment.fingerprint import config_digest

CONFIG = validate(experiment_content(Path("here"), prediction={"views": "hflip"}), "test")
ENTRY = SimpleNamespace(loaded=SimpleNamespace(config=CONFIG))
POLICIES = SimpleNamespace(several=False, entries=dict.fromkeys("abc", ENTRY))
EXPERIMENTS = SimpleNamespace(several=True, entries=dict.fromkeys("abc", ENTRY))


def view(*records: dict) -> View:
    runs = {
        name: {(0, 0): SimpleNamespace(record=RunRecord(policy=name, seed=0, fold=0, **fields))}
        for name, fields in zip("abc", records, strict=False)
    }
    return View("raw", "As they are.", runs, {})


def test_runs_of_different_views_are_told():
    flipped, early = (
        {"predicted": {"turns": ["hflip"]}},
        {"depends_on": {"config": config_digest(CONFIG, "hflip")}},
    )
    assert unequal_views(view(flipped, flipped, early), POLICIES) is None
    assert (
        unequal_views(view({"predicted": {}}, {"depends_on": {"config": config_digest(CONFIG)}}), POLICIES) is None
    )
    assert unequal_views(view(flipped, early, {"predicted": {}, "views": "none"}), POLICIES) == (
        "Of 3 runs not all were predicted in the same views (2 in plain + hflip, 1 in one view), which may decide "
        "a difference; python -m kit run, with enough time, predicts them alike."
    )
    assert unequal_views(view(early, early | {"views": "none"}), POLICIES)


def test_experiments_may_have_views_of_their_own():
    one, other = {"predicted": {"turns": ["hflip"]}}, {"predicted": {}}
    assert unequal_views(view(one, other), EXPERIMENTS) is None
    assert unequal_views(view(one, other), POLICIES)
