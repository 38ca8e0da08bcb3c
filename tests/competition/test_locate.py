from pathlib import Path

import pytest

from kit.competition.locate import Places, competition_folder, inside
from kit.errors import KitError


def test_output_goes_to_three_folders_below_the_root(tmp_path):
    places = Places(tmp_path)
    assert (places.runs, places.cache, places.submissions) == (
        tmp_path / "runs",
        tmp_path / "cache",
        tmp_path / "submissions",
    )
    assert Places().runs == Path("runs")


def test_a_relative_folder_counts_from_where_the_command_runs(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert competition_folder("data").resolve() == tmp_path / "data"
    assert competition_folder(str(tmp_path / "data")) == tmp_path / "data"


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert competition_folder("~/data") == tmp_path / "data"


@pytest.mark.parametrize("name", ["nowhere", "file.csv"])
def test_what_is_no_folder_is_named(tmp_path, name):
    (tmp_path / "file.csv").touch()
    with pytest.raises(KitError) as caught:
        competition_folder(str(tmp_path / name))
    assert str(caught.value) == (
        f"competition.path: {tmp_path / name} is no folder; give the competition's with "
        "--set competition.path=FOLDER"
    )


@pytest.mark.parametrize("relative", ["a.csv", "a/b.csv", "./a.csv", "a/../b.csv", "a/..", "...", "..a/b", "~/a"])
def test_a_path_in_the_folder_is_given(tmp_path, relative):
    assert inside(tmp_path, relative, "k") == tmp_path / relative


@pytest.mark.parametrize("relative", ["..", "../a", "a/../../b", "a/../../folder/b", "/a", "/", "./../a"])
def test_a_path_that_leads_outside_is_refused(tmp_path, relative):
    with pytest.raises(KitError) as caught:
        inside(tmp_path, relative, "competition.train")
    assert str(caught.value) == f"competition.train: {relative!r} leads outside the competition folder {tmp_path}"
