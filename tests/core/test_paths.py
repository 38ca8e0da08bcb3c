from pathlib import Path

import pytest
from support.refusals import refusal_of

from kit.core.errors import KitError
from kit.core.paths import (
    OutputDirs,
    competition_folder,
    input_root,
    inside,
    mount_points,
    mounted,
    mounts,
    weight_file,
)

MODEL = "google/efficientnet/pyTorch/b0/3"


@pytest.fixture
def attached(tmp_path, monkeypatch):
    """The folder that stands for Kaggle's /kaggle/input; the current folder is an empty one."""
    (tmp_path / "input").mkdir()
    (tmp_path / "working").mkdir()
    monkeypatch.setenv("KIT_INPUT", str(tmp_path / "input"))
    monkeypatch.chdir(tmp_path / "working")
    return tmp_path / "input"


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """Nothing is mounted."""
    monkeypatch.setenv("KIT_INPUT", str(tmp_path / "no-input"))
    monkeypatch.chdir(tmp_path)


def write(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def test_output_goes_to_three_folders_below_the_root(tmp_path):
    dirs = OutputDirs(tmp_path)
    assert (dirs.runs, dirs.cache, dirs.submissions) == (
        tmp_path / "runs",
        tmp_path / "cache",
        tmp_path / "submissions",
    )
    assert OutputDirs().runs == Path("runs")


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


def test_kaggle_mounts_below_its_own_folder_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("KIT_INPUT", raising=False)
    assert input_root() == Path("/kaggle/input")
    monkeypatch.setenv("KIT_INPUT", "/elsewhere")
    assert input_root() == Path("/elsewhere")


@pytest.mark.parametrize(
    ("ref", "points"),
    [
        ("titanic", ["competitions/titanic", "titanic"]),
        ("jo/photos", ["datasets/jo/photos", "notebooks/jo/photos", "photos"]),
        (MODEL, [f"models/{MODEL}", "efficientnet/pyTorch/b0/3"]),
        ("google/efficientnet/pyTorch/b0", ["models/google/efficientnet/pyTorch/b0", "efficientnet/pyTorch/b0"]),
    ],
)
def test_where_kaggle_may_mount(attached, ref, points):
    assert mount_points(ref) == points
    assert mounted(ref) is None
    for point in reversed(points):  # the likeliest counts, where there are several
        (attached / point).mkdir(parents=True)
        assert mounted(ref) == attached / point


@pytest.mark.parametrize(
    ("ref", "point"),
    [
        ("titanic", "competitions/Titanic"),
        ("Titanic", "titanic"),
        ("jo/photos", "Datasets/Jo/PHOTOS"),
        ("jo/photos", "notebooks/jo/Photos"),
        (MODEL, "models/Google/EfficientNet/PyTorch/b0/3"),
    ],
)
def test_the_case_of_names_does_not_count(attached, ref, point):
    (attached / point).mkdir(parents=True)
    assert mounted(ref) == attached / point


def test_the_spelling_that_is_asked_for_comes_first(attached):
    for name in ("TITANIC", "titanic", "Titanic"):
        (attached / name).mkdir(exist_ok=True)
    if len(list(attached.iterdir())) < 3:
        pytest.skip("this file system does not tell cases apart")
    assert mounted("titanic") == attached / "titanic"
    assert mounted("Titanic") == attached / "Titanic"


def test_what_is_mounted_is_listed_in_each_form(attached, monkeypatch):
    assert mounts() == f"; nothing is mounted in {attached}"
    for point in (
        "competitions/titanic",
        "datasets/jo/photos",
        f"models/{MODEL}",
        "notebooks/jo/net",
        "flat",
        "Datasets",
    ):
        (attached / point).mkdir(parents=True, exist_ok=True)
    shown = f"Datasets, competitions/titanic, datasets/jo/photos, flat, models/{MODEL}, notebooks/jo/net"
    assert mounts() == f"; mounted in {attached}: {shown}"
    monkeypatch.setenv("KIT_INPUT", str(attached / "not-there"))
    assert mounts() == ""


def test_what_has_the_name_but_is_a_file_is_no_mount(attached):
    write(attached / "titanic")
    assert mounted("titanic") is None


@pytest.mark.parametrize(
    ("slug", "point"),
    [
        ("titanic", "competitions/titanic"),
        ("titanic", "titanic"),
        ("jo/photos", "datasets/jo/photos"),
        ("jo/photos", "photos"),
    ],
)
def test_a_competition_is_where_it_is_mounted(attached, slug, point):
    (attached / point).mkdir(parents=True)
    assert competition_folder("data/photos", slug) == attached / point


def test_a_competition_in_its_path_is_not_looked_for_among_the_mounts(attached):
    (attached / "competitions/titanic").mkdir(parents=True)
    Path("data/titanic").mkdir(parents=True)
    assert competition_folder("data/titanic", "titanic") == Path("data/titanic")


def test_a_competition_that_is_nowhere(attached, monkeypatch):
    (attached / "competitions/titan").mkdir(parents=True)
    advice = "give the competition's with --set competition.path=FOLDER"
    missing = "competition.path: data/titanic is no folder"
    assert refusal_of(competition_folder, "data/titanic", "titanic") == (
        f"{missing}, and titanic is not mounted; {advice}; mounted in {attached}: competitions/titan"
    )
    assert refusal_of(competition_folder, "data/titanic") == f"{missing}; {advice}"
    monkeypatch.setenv("KIT_INPUT", str(attached / "not-there"))  # at home nothing is ever mounted
    assert refusal_of(competition_folder, "data/titanic", "titanic") == f"{missing}; {advice}"


@pytest.mark.parametrize(
    "place",
    [
        "my-weights",
        "datasets/jo/my-weights",
        "notebooks/jo/my-training",
        "efficientnet/pyTorch/b0/3",
        f"models/{MODEL}",
    ],
)
@pytest.mark.parametrize("name", ["b0.safetensors", "b0[1].pth"])
def test_a_weight_file_is_found_by_its_name(attached, place, name):
    write(attached / place / f"other-{name}")
    write(attached / "competitions/titanic/train.csv")
    assert weight_file(f"weights/{name}") == Path(f"weights/{name}")  # not there: its path is for the message
    file = write(attached / place / name)
    assert weight_file(f"weights/{name}") == weight_file(f"/home/jo/{name}") == file


def test_a_weight_file_in_its_path_is_not_looked_for_among_the_mounts(attached):
    write(attached / "my-weights/b0.pth")
    write(Path("weights/b0.pth"))
    assert weight_file("weights/b0.pth") == Path("weights/b0.pth")


def test_a_weight_file_that_is_attached_twice_is_refused(attached):
    files = [write(attached / place / "b0.pth") for place in ("datasets/jo/one", "two")]
    assert refusal_of(weight_file, "weights/b0.pth") == (
        f"model.weights: b0.pth is attached 2 times: {files[0]}, {files[1]}; attach one"
    )


def test_a_weight_file_at_home_is_its_path(at_home, tmp_path, monkeypatch):
    assert weight_file("weights/b0.pth") == Path("weights/b0.pth")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weight_file("~/b0.pth") == tmp_path / "b0.pth"
