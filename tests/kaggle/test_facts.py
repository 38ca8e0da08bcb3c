"""What is known of real sessions: read and written, how old it is, and what follows from it."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.refusals import refusal_of
from support.session_facts import facts, keep_facts, report

from kit.core.paths import mount_points
from kit.kaggle.facts import (
    Facts,
    SessionLimits,
    image_differences,
    mount_form,
    python_remark,
    read_facts,
    session_limits,
    why_missing,
    write_facts,
)
from kit.kaggle.image import KaggleImage

DAY = date(2026, 11, 20)


def test_without_a_probe_nothing_is_known(tmp_path):
    assert read_facts(tmp_path) is None
    assert session_limits(None, True) == SessionLimits(30, 20, "reported", "reported")
    assert why_missing(None, ["a b"]) == ""


def test_what_is_written_is_read(tmp_path):
    known = facts(came={"empty.txt": "missing"}, form="flat")
    path = write_facts(tmp_path, known)
    assert path == tmp_path / "kernels/facts.json"
    assert read_facts(tmp_path) == known
    content = json.loads(path.read_text())
    assert list(content) == ["when", "image", "facts"]
    assert content["image"] == {"python": "3.13.2", "torch": "2.11.0+cpu", "numpy": "2.0.2"}
    assert content["facts"]["cpu"]["memory"] == 33_600_000_000


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content.pop("when"), "when: Field required"),
        (lambda content: content["image"].pop("python"), "image: Value error, python is missing"),
        (lambda content: content["facts"]["cpu"].update(memory=-1), "facts.cpu.memory: Input should be greater"),
        (lambda content: content["facts"].update(form="round"), "facts.form: Input should be 'nested' or 'flat'"),
    ],
)
def test_a_damaged_file_says_where_and_what_to_do(tmp_path, change, told):
    path = write_facts(tmp_path, facts())
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    said = refusal_of(read_facts, tmp_path)
    assert f"facts.json is damaged ({told}" in said
    assert said.endswith("; remove it, and probe again: python -m kit kernel probe")


def test_facts_are_old_after_thirty_days():
    known = facts()
    assert known.age(DAY) == 0
    assert known.remark(DAY + timedelta(30)) == ""
    assert known.remark(DAY + timedelta(31)) == (
        "what is known of Kaggle's sessions (kernels/facts.json) is 31 days old; python -m kit kernel probe looks "
        "again"
    )
    assert known.source == "probe of 2026-11-20"


def test_their_age_is_counted_from_today(tmp_path):
    known = keep_facts(tmp_path, datetime.now(UTC) - timedelta(days=40))
    assert "is 40 days old" in known.remark() or "is 41 days old" in known.remark()  # around midnight


def test_the_limits_are_those_of_a_session_of_the_kind():
    probed = "probe of 2026-11-20"
    assert session_limits(facts(), False) == SessionLimits(33.6, 19.5, probed, probed)
    assert session_limits(facts(), True) == SessionLimits()
    assert session_limits(facts(gpu=True, memory=31_000_000_000), True).memory_gb == 31.0
    assert session_limits(facts(memory=None, disks=None), False) == SessionLimits()
    # a file system that is larger than what Kaggle keeps of it
    large = {"/kaggle/working": {"total": 8_000_000_000_000, "free": 1}}
    assert session_limits(facts(disks=large), False) == SessionLimits(33.6, 20, probed, "reported")


@pytest.mark.parametrize(
    ("tree", "attached", "form"),
    [
        (["competitions/", "competitions/Titanic/"], ["titanic"], "nested"),
        (["titanic/", "titanic/train.csv"], ["titanic"], "flat"),
        (["datasets/", "datasets/me/", "datasets/me/data/"], ["me/data"], "nested"),
        (["data/"], ["me/data"], "flat"),
        (["models/g/", "models/g/m/pyTorch/b/1/"], ["g/m/pyTorch/b/1"], "nested"),
        (["elsewhere/", "titanic-2/"], ["titanic"], None),
        (["titanic/"], [], None),
        (None, ["titanic"], None),
    ],
)
def test_the_form_of_mounts(tree, attached, form):
    assert mount_form(tree, attached) == form


@given(
    reference=st.sampled_from(["digits", "me/data", "g/m/pyTorch/b/1"]),
    which=st.integers(0, 2),
    others=st.lists(st.sampled_from(["other/", "datasets/you/", "competitions/"]), max_size=3),
)
def test_a_mount_is_found_where_the_kit_would_look_for_it(reference, which, others):
    points = mount_points(reference)
    point = points[min(which, len(points) - 1)]
    assert mount_form([*others, f"{point}/"], [reference]) == ("flat" if point == points[-1] else "nested")


def test_what_the_table_of_the_image_has_otherwise():
    image = KaggleImage("3.12", "2026-08", {"torch": "2.10.0", "numpy": "2.0.2", "ray": None, "timm": "1.0.26"})
    found = {"python": "3.13.2", "torch": "2.11.0+cpu", "numpy": "2.0.2", "ray": "2.50"}
    assert image_differences(found, image) == ["Python 3.13 instead of 3.12", "torch 2.11.0+cpu instead of 2.10.0"]
    same = {"python": "3.12.13", "torch": "2.10.0+cu128"}
    assert image_differences(same, image) == []


def test_wheels_for_another_python():
    assert python_remark(facts(), ["3.12", "3.13"]) == ""
    assert python_remark(facts(), ["3.11", "3.12"]) == (
        "these wheels are for Python 3.11 and 3.12, but the probe of 2026-11-20 found Python 3.13"
    )


def test_why_files_may_be_missing():
    known = facts(came={".dotfile": "missing", "empty.txt": "damaged", "with space.txt": "whole"})
    assert why_missing(known, ["runs/.hidden"], DAY) == (
        " (the probe of 2026-11-20 left '.dotfile', 'empty.txt', which did not come back either)"
    )
    assert why_missing(known, ["x"], DAY + timedelta(31)).endswith(
        " either; what is known of Kaggle's sessions (kernels/facts.json) is 31 days old; python -m kit kernel "
        "probe looks again)"
    )
    assert why_missing(known, []) == ""
    assert why_missing(facts(came={"empty.txt": "whole"}), ["x"]) == ""


def test_a_later_template_may_report_more():
    content = report(colour="blue") | {"cores": {"count": 4, "usable": 4, "quota": None, "kind": "fast"}}
    assert Facts.model_validate(
        {"when": content["when"], "image": {"python": "3.12"}, "facts": {"cpu": content}}
    ).session(False)
