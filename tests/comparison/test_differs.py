"""In which keys the configs of compared experiments differ."""

from types import SimpleNamespace
from typing import Any

from support.colours import experiment_content

from kit.comparison.contest import Contest, Entry
from kit.comparison.differs import differing
from kit.experiment.config import validate


def differences(*stated: dict[str, Any]) -> dict[str, list[Any]]:
    """Values by key, of experiments with these sections."""
    entries = {}
    for number, sections in enumerate(stated):
        content = experiment_content("here", **sections)
        if "features" in sections:
            content.pop("policies")
        config = validate(content, "test")
        entries[str(number)] = Entry(next(iter(config.policies)), SimpleNamespace(config=config))
    contest = Contest("all", entries["0"].config, entries, "0", several=True)
    return {each["key"]: list(each["values"].values()) for each in differing(contest)}


def test_which_head_it_is_differs():
    """A head's name is its kind's default, and tells all the same."""
    found = differences({"features": {"heads": "logistic"}}, {"features": {"heads": "knn"}})
    assert found["policy.name"] == ["logistic", "knn"]
    assert found["features.heads.logistic.name"] == ["logistic", None]
    assert found["features.heads.knn.name"] == [None, "knn"]
    of_one_name = [{"features": {"heads": {"mine": {"name": kind}}}} for kind in ("ridge", "svm")]
    found = differences(*of_one_name)
    assert found["features.heads.mine.name"] == ["ridge", "svm"]


def test_options_of_a_head_differ():
    found = differences(
        {"features": {"heads": "knn"}}, {"features": {"heads": {"knn": {"neighbours": [5]}}, "views": ["hflip"]}}
    )
    assert found == {
        "features.views": [[], ["hflip"]],
        "features.heads.knn.neighbours": [[1, 3, 5, 10, 20, 50], [5]],
    }
