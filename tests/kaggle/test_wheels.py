"""Wheels to take along, from a small index on the disk, for a small table of the image."""

import json
import shutil
import sys
import venv
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.refusals import refusal_of
from support.session_facts import keep_facts

from kit.core.files import sha256
from kit.kaggle.image import KaggleImage, MissingRequirement
from kit.kaggle.wheels import PLATFORMS, collect_wheels, wheels_folder

VERSIONS = {"numpy": "2.0.2", "timm": "1.0.26", "torch": "2.10.0", "ray": None, "six": None}


@pytest.fixture
def image():
    return KaggleImage("3.12", "2026-08", VERSIONS)


NATIVE = [
    "numpy>=1.26",
    "torch",
    "ray",
    "helper[fast]>=1",
    "before; python_version < '3.12'",
    "since; python_version >= '3.12'",
    "elsewhere; sys_platform == 'win32'",
    "never; extra == 'all'",
]


def write_wheel(
    folder: Path, name: str, version: str, tag: str = "py3-none-any", requires: list[str] = ()
) -> None:
    stem = f"{name}-{version}"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    with zipfile.ZipFile(folder / f"{stem}-{tag}.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(
            f"{stem}.dist-info/METADATA", "\n".join(metadata + [f"Requires-Dist: {r}" for r in requires])
        )
        wheel.writestr(f"{stem}.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Wheels and a source archive. There is no torch, so that whoever asks for one is refused."""
    folder = tmp_path_factory.mktemp("index")
    write_wheel(folder, "native", "1.0", "cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64", NATIVE)
    for python in ("cp312", "cp313"):
        write_wheel(folder, "twofold", "1.0", f"{python}-{python}-manylinux_2_28_x86_64")
    write_wheel(folder, "native", "1.1", "cp311-cp311-manylinux_2_28_x86_64")
    write_wheel(folder, "native", "1.2", "cp312-cp312-macosx_11_0_arm64")
    write_wheel(folder, "helper", "1.2", requires=["six", "speed; extra == 'fast'", "never; extra == 'slow'"])
    for name in ("before", "since", "elsewhere", "never", "speed"):
        write_wheel(folder, name, "1.0")
    write_wheel(folder, "numpy", "2.3.0", "cp312-cp312-manylinux_2_28_x86_64")
    write_wheel(folder, "pushy", "1.0", requires=["numpy>=2.3"])
    write_wheel(folder, "capped", "1.0", requires=["six<2"])
    write_wheel(folder, "wrapper", "1.0", requires=["sourced"])
    write_wheel(folder, "wrapper", "1.1", requires=["sourced"])
    (folder / "sourced-1.0.tar.gz").write_bytes(b"source")
    return folder


@pytest.fixture
def offline(index, monkeypatch):
    """pip sees the small index and nothing else."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))


def collect(image, folder: Path, *requirements: str) -> list[str]:
    return [wheel.name for wheel in collect_wheels([(image, lacking(*requirements))], folder, lambda line: None)]


def lacking(*requirements: str) -> list[MissingRequirement]:
    return [MissingRequirement(requirement, "not in the image") for requirement in requirements]


def collected_before(folder: Path, *names: str) -> None:
    """Leaves in the folder what a collection of these wheels, of version 1.0, has left."""
    folder.mkdir(exist_ok=True)
    for name in names:
        write_wheel(folder, name, "1.0")
    (folder / "wheels.json").write_text(json.dumps([{"file": f"{name}-1.0-py3-none-any.whl"} for name in names]))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("offline")
def test_wheels_for_the_images_python_with_what_they_need_beside_it(tmp_path, image):
    native = "native-1.0-cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"
    expected = ["helper-1.2-py3-none-any.whl", native, "since-1.0-py3-none-any.whl", "speed-1.0-py3-none-any.whl"]
    assert collect(image, tmp_path / "wheels", "native") == expected
    table = json.loads((tmp_path / "wheels" / "wheels.json").read_text())
    assert table["python"] == ["3.12"]
    entries = table["wheels"]
    assert [entry["file"] for entry in entries] == expected
    assert [entry["sha256"] for entry in entries] == [sha256(tmp_path / "wheels" / name) for name in expected]
    assert entries[1] | {"file": "", "sha256": ""} == {
        "file": "",
        "sha256": "",
        "name": "native",
        "version": "1.0",
        "python": ["3.12"],
    }


@pytest.mark.usefixtures("offline")
@pytest.mark.slow
def test_wheels_for_two_images_say_which_they_are_for(tmp_path, image):
    """What differs comes twice, what is of no one Python once; a second collection takes the first one's place."""
    next_image = KaggleImage("3.13", "2026-11", VERSIONS | {"torch": "2.11.0"})
    both = [(image, lacking("twofold", "since")), (next_image, lacking("twofold", "since"))]
    said = []
    wheels = collect_wheels(both, tmp_path, said.append)
    table = json.loads((tmp_path / "wheels.json").read_text())
    assert table["python"] == ["3.12", "3.13"]
    assert {entry["file"]: entry["python"] for entry in table["wheels"]} == {
        "since-1.0-py3-none-any.whl": ["3.12", "3.13"],
        "twofold-1.0-cp312-cp312-manylinux_2_28_x86_64.whl": ["3.12"],
        "twofold-1.0-cp313-cp313-manylinux_2_28_x86_64.whl": ["3.13"],
    }
    assert [wheel.name for wheel in wheels] == [entry["file"] for entry in table["wheels"]]
    assert [entry["sha256"] for entry in table["wheels"]] == [sha256(wheel) for wheel in wheels]
    assert said == [
        "resolving twofold, since for Python 3.12",
        "to take along: since 1.0, twofold 1.0",
        "resolving twofold, since for Python 3.13",
        "to take along: since 1.0, twofold 1.0",
    ]
    assert collect(next_image, tmp_path, "before", "since") == [
        "before-1.0-py3-none-any.whl",
        "since-1.0-py3-none-any.whl",
    ]
    assert not list(tmp_path.glob("twofold*"))
    before = content(tmp_path)
    refused = "native: no wheel for Python 3.13 on x86_64 Linux; misspelt, or published as source only?"
    one_of_two = [(image, lacking("native")), (next_image, lacking("native"))]
    assert refusal_of(collect_wheels, one_of_two, tmp_path, lambda line: None) == refused
    assert content(tmp_path) == before


@pytest.mark.usefixtures("offline")
def test_a_newer_version_of_what_the_image_has_replaces_earlier_wheels(tmp_path, image):
    collected_before(tmp_path, "stale", "pushy")
    (tmp_path / "notes.txt").write_text("mine")
    said = []
    wanted = [
        MissingRequirement("numpy>=2.3", "the image has 2.0.2, wanted >=2.3"),
        MissingRequirement("pushy", "not in the image"),
    ]
    collect_wheels([(image, wanted)], tmp_path, said.append)
    table = json.loads((tmp_path / "wheels.json").read_text())
    assert [entry["name"] for entry in table["wheels"]] == ["numpy", "pushy"]
    assert sorted(content(tmp_path)) == [
        "notes.txt",
        "numpy-2.3.0-cp312-cp312-manylinux_2_28_x86_64.whl",
        "pushy-1.0-py3-none-any.whl",
        "wheels.json",
    ]
    assert said == ["resolving numpy>=2.3, pushy for Python 3.12", "to take along: numpy 2.3.0, pushy 1.0"]


def test_nothing_missing_takes_no_pip(tmp_path, image, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert collect(image, tmp_path) == []
    assert json.loads((tmp_path / "wheels.json").read_text()) == {"python": ["3.12"], "wheels": []}


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("requirement", "message"),
    [
        ("sourced", "sourced: no wheel for Python 3.12 on x86_64 Linux; misspelt, or published as source only?"),
        ("wrapper", "sourced (for wrapper 1.1): no wheel for Python 3.12 on x86_64 Linux; misspelt, or published"),
        ("capped", "six<2: no wheel for Python 3.12 on x86_64 Linux"),  # the image's six may be newer
        ("pushy", "these do not go together: pushy 1.0 depends on numpy>=2.3, the image has numpy 2.0.2"),
    ],
)
def test_what_cannot_be_taken_along_is_named(tmp_path, image, requirement, message):
    collected_before(tmp_path, "earlier")
    before = content(tmp_path)
    assert refusal_of(collect, image, tmp_path, requirement).startswith(message)
    assert content(tmp_path) == before


def test_wheels_of_others_stay(tmp_path, image, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    collected_before(tmp_path, "earlier")
    write_wheel(tmp_path, "private", "1.0")
    before = content(tmp_path)
    assert refusal_of(collect, image, tmp_path, "native") == (
        f"{tmp_path}: private-1.0-py3-none-any.whl was not put there by this command, which replaces a folder's "
        "wheels; move away, or name another folder"
    )
    for table in ("[1]", "{", '{"a": 1}', "null"):
        (tmp_path / "wheels.json").write_text(table)
        assert "wheels.json: is not the list that this command writes (" in refusal_of(
            collect, image, tmp_path, "native"
        )
    (tmp_path / "wheels.json").unlink()
    del before["wheels.json"]
    assert "earlier-1.0-py3-none-any.whl, private-1.0-py3-none-any.whl were not put there" in refusal_of(
        collect, image, tmp_path, "native"
    )
    assert content(tmp_path) == before


@pytest.mark.usefixtures("offline")
def test_a_collection_that_was_stopped_is_begun_again(tmp_path, image, monkeypatch):
    collected_before(tmp_path, "earlier")
    move = shutil.move

    def stopped_after_one(source, target):
        monkeypatch.setattr(shutil, "move", stopped)
        return move(source, target)

    def stopped(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "move", stopped_after_one)
    with pytest.raises(KeyboardInterrupt):
        collect(image, tmp_path, "before", "since")
    assert sorted(content(tmp_path)) == ["before-1.0-py3-none-any.whl", "wheels.json"]
    monkeypatch.setattr(shutil, "move", move)
    wheels = ["before-1.0-py3-none-any.whl", "since-1.0-py3-none-any.whl"]
    assert collect(image, tmp_path, "before", "since") == wheels
    assert sorted(content(tmp_path)) == [*wheels, "wheels.json"]


def test_without_a_network(tmp_path, image, offline, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "PIP_PROXY", "PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    assert "does not reach the package index" in refusal_of(collect, image, tmp_path, "native")


def test_without_pip(tmp_path, image, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    assert "python has no pip; `" in refusal_of(collect, image, tmp_path, "native")


def test_the_newest_builds_are_preferred():
    assert PLATFORMS[0] == "manylinux_2_28_x86_64"
    assert PLATFORMS.index("manylinux_2_17_x86_64") < PLATFORMS.index("manylinux_2_5_x86_64")


# The dataset


def as_dataset(image, folder: Path, ref: str, *requirements: str) -> list[Path]:
    return wheels_folder([(image, lacking(*requirements))], folder, ref, "my wheels", lambda line: None)


@pytest.mark.usefixtures("offline")
def test_a_folder_of_wheels_is_a_dataset(tmp_path, image):
    folder = tmp_path / "wheels"
    assert as_dataset(image, folder, "ann/my-wheels", "since") == [folder / "since-1.0-py3-none-any.whl"]
    assert json.loads((folder / "dataset-metadata.json").read_text()) == {
        "title": "my wheels",
        "id": "ann/my-wheels",
        "licenses": [{"name": "other"}],
    }
    assert as_dataset(image, folder, "ann/my-wheels", "before") == [folder / "before-1.0-py3-none-any.whl"]
    assert sorted(content(folder)) == ["before-1.0-py3-none-any.whl", "dataset-metadata.json", "wheels.json"]


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("NOT VALID", "dataset 'NOT VALID': has to be owner/slug"),
        ("ann/other-wheels", "is ann/my-wheels already; give ann/other-wheels a folder of its own"),
    ],
)
def test_a_folder_that_cannot_become_the_dataset_is_left_as_it_is(tmp_path, image, monkeypatch, ref, message):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    collected_before(tmp_path, "earlier")
    (tmp_path / "dataset-metadata.json").write_text('{"id": "ann/my-wheels"}')
    before = content(tmp_path)
    assert message in refusal_of(as_dataset, image, tmp_path, ref, "native")
    assert content(tmp_path) == before


def test_a_folder_with_what_is_not_sent_is_left_as_it_is(tmp_path, image, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    collected_before(tmp_path, "earlier")
    (tmp_path / "sub").mkdir()
    assert "sub-folders are not uploaded" in refusal_of(as_dataset, image, tmp_path, "ann/my-wheels", "native")
    assert (tmp_path / "earlier-1.0-py3-none-any.whl").is_file()
    assert "is no folder" in refusal_of(as_dataset, image, tmp_path / "wheels.json", "ann/my-wheels", "native")


@pytest.mark.usefixtures("offline")
def test_the_command(tmp_path, kit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    collected_before(Path("wheels"), "earlier")
    Path("needed.txt").write_text("since\nnumpy\n")
    command = ("kernel", "wheels", "wheels", "--requirements", "needed.txt", "--dataset")
    code, told = kit(*command, "NOT VALID")
    assert (code, told.splitlines()[0]) == (1, "Python 3.12: since: not in the image")
    assert "error: dataset 'NOT VALID': has to be owner/slug" in told
    assert Path("wheels/earlier-1.0-py3-none-any.whl").is_file()
    assert kit(*command, "ann/my-wheels") == (
        0,
        "Python 3.12: since: not in the image\n"
        "resolving since for Python 3.12\n"
        "to take along: since 1.0\n"
        "a session may have Python 3.13 as well, which these are not for: --python both\n"
        "wheels: 1 wheels\n"
        "next: python -m kit kernel upload wheels; then name ann/my-wheels in kernel.datasets\n",
    )
    assert json.loads(Path("wheels/dataset-metadata.json").read_text())["title"] == "my wheels"
    assert not Path("wheels/earlier-1.0-py3-none-any.whl").exists()
    Path("needed.txt").write_text("numpy\n")
    assert kit(*command, "ann/my-wheels") == (
        0,
        "Kaggle's image (Python 3.12) has all that needed.txt names; no wheels are needed\n",
    )


@pytest.mark.usefixtures("offline")
def test_wheels_for_another_python_than_the_one_that_was_probed(tmp_path, kit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("needed.txt").write_text("numpy\n")
    keep_facts(tmp_path, python="3.99.1", when=datetime(2026, 1, 1, tzinfo=UTC))
    code, told = kit("kernel", "wheels", "w", "--requirements", "needed.txt", "--dataset", "ann/my-wheels")
    assert code == 0
    first, second, *_ = told.splitlines()
    assert first.endswith(", but the probe of 2026-01-01 found Python 3.99")
    assert second.endswith(" days old; python -m kit kernel probe looks again")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("python", ["3.12", "3.13"])
def test_wheels_are_for_the_python_that_was_probed(tmp_path, kit, monkeypatch, python):
    monkeypatch.chdir(tmp_path)
    Path("needed.txt").write_text("numpy\n")
    keep_facts(tmp_path, python=f"{python}.5")
    command = ("kernel", "wheels", "w", "--requirements", "needed.txt", "--dataset", "ann/my-wheels")
    told = kit(*command)[1]
    assert told.startswith(f"wheels for Python {python}, by the probe of 2026-11-20\n")
    assert f"Kaggle's image (Python {python}) has all" in told
    assert "by the probe" not in kit(*command, "--python", "both")[1]


@pytest.mark.usefixtures("offline")
def test_the_command_for_a_stated_python_and_for_both(tmp_path, kit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("needed.txt").write_text("twofold\nbefore; python_version < '3.13'\n")
    command = (
        "kernel",
        "wheels",
        "wheels",
        "--requirements",
        "needed.txt",
        "--dataset",
        "ann/my-wheels",
        "--python",
    )
    unknown = "error: Python 3.14: kernels/image.txt knows images with 3.12, 3.13"
    assert kit(*command, "3.14") == (1, f"{unknown}; give one of these, or bring the table up to date\n")
    assert not Path("wheels").exists()
    assert kit(*command, "3.13")[0] == 0
    assert [path.name for path in Path("wheels").glob("*.whl")] == [
        "twofold-1.0-cp313-cp313-manylinux_2_28_x86_64.whl"
    ]
    code, told = kit(*command, "both")
    assert (code, told.splitlines()[:3]) == (
        0,
        [
            "Python 3.12: twofold: not in the image",
            "Python 3.12: before: not in the image",
            "Python 3.13: twofold: not in the image",
        ],
    )
    assert "a session may have" not in told
    table = json.loads(Path("wheels/wheels.json").read_text())
    assert [(entry["name"], entry["python"]) for entry in table["wheels"]] == [
        ("before", ["3.12"]),
        ("twofold", ["3.12"]),
        ("twofold", ["3.13"]),
    ]
