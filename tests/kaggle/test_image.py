"""The table of Kaggle's image, and what it lacks."""

from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from support.refusals import refusal_of

from kit.kaggle.image import MissingRequirement, missing, read_image, read_table, refresh

ROOT = Path(__file__).parents[2]
TABLE = """\
# A small image.
# python: 3.12
# as of: 2026-08
numpy==2.0.2
timm==1.0.26
torch==2.10.0
# present: ray
# present: six
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "image.txt", TABLE)


@pytest.fixture
def image(table):
    return read_image(table)


# The table


def test_a_table_is_read_by_canonical_names(tmp_path):
    text = "# python: 3.12\n# as of: 2026-08\nPyYAML==6.0.3  # the loader\n# present: ImageHash\n\n# free: words\n"
    path = write(tmp_path / "image.txt", text)
    image = read_image(path)
    assert (image.python, image.as_of) == ("3.12", "2026-08")
    assert image.versions == {"pyyaml": "6.0.3", "imagehash": None}
    assert read_table(path).comments == ("# free: words",)


BOTH = """\
# python: 3.13 3.12
# as of: 2026-11
timm==1.0.26
torch==2.10.0; python_version < "3.13"
torch==2.11.0; python_version >= "3.13"
six==1.17.0; python_version >= "3.13"
old==1.0; python_version < "3.13"
# present: ray
# present: six; python_version < "3.13"
"""


def test_a_table_of_two_images_is_read_for_each_python(tmp_path):
    path = write(tmp_path / "image.txt", BOTH)
    assert read_table(path).pythons == ("3.12", "3.13")
    assert read_image(path) == read_image(path, "3.12")
    assert read_image(path, "3.12").versions == {
        "timm": "1.0.26",
        "torch": "2.10.0",
        "old": "1.0",
        "ray": None,
        "six": None,
    }
    assert read_image(path, "3.13").versions == {"timm": "1.0.26", "torch": "2.11.0", "six": "1.17.0", "ray": None}
    assert refusal_of(read_image, path, "3.14") == (
        "Python 3.14: kernels/image.txt knows images with 3.12, 3.13; give one of these, or bring the table up to "
        "date"
    )


@pytest.mark.parametrize("python", ["3.12", "3.13"])
def test_pip_takes_the_table_as_constraints_as_the_kit_reads_it(python):
    """By packaging's own markers, which are what pip goes by."""
    path = ROOT / "kernels" / "image.txt"
    lines = [line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    there = default_environment() | {"python_version": python, "python_full_version": f"{python}.4"}
    stated = [Requirement(line) for line in lines]
    pins = {one.name: str(one.specifier)[2:] for one in stated if one.marker is None or one.marker.evaluate(there)}
    assert pins == {name: version for name, version in read_image(path, python).versions.items() if version}


def test_the_images_before_and_after_the_move_to_another_python():
    path = ROOT / "kernels" / "image.txt"
    torch = {image.python: image.versions["torch"] for image in read_table(path).images}
    assert torch == {"3.12": "2.10.0", "3.13": "2.11.0"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("numpy>=2", "`numpy>=2` should look like `name==1.2.3`"),
        ("numpy==2.*", "`numpy==2.*` should look like `name==1.2.3`"),
        ("numpy", "`numpy` should look like `name==1.2.3`"),
        ("numpy==2.0 ; os_name == 'nt'", "should look like `name==1.2.3`"),
        ("what is this", "`what is this` is not a requirement that can be understood"),
        ("# present: ray, six", "`ray, six` is not the name of one package"),
        ("# python: three", "`python: three` should look like `python: 3.12 3.13`"),
        ("# as of: August", "`as of: August` should look like `as of: 2026-08`"),
        ("Torch==2.9", "torch is stated twice"),
        ('torch==2.9; python_version < "3.13"', "torch is stated twice"),
        ('rich==1.0; python_full_version < "3.13"', 'or that and `; python_version < "3.13"`'),
        ("# present: rich; sys_platform == 'linux'", "is not the name of one package"),
    ],
)
def test_nonsense_in_the_table_is_told_with_its_line(tmp_path, line, message):
    path = write(tmp_path / "image.txt", TABLE + line + "\n")
    assert refusal_of(read_image, path).startswith(f"{path}:9: ")
    assert message in refusal_of(read_image, path)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    assert "has no line `# as of: ...`" in refusal_of(read_image, write(tmp_path / "a", "# python: 3.12\n"))
    assert "cannot be read (No such file" in refusal_of(read_image, tmp_path / "absent")
    (tmp_path / "b").write_bytes("numpy==2.0".encode("utf-16"))
    assert "is no text in UTF-8" in refusal_of(read_image, tmp_path / "b")


@pytest.mark.parametrize("python", ["3.12", "3.13"])
def test_the_kit_runs_in_the_image_as_it_is(python):
    image = read_image(ROOT / "kernels" / "image.txt", python)
    lacking = missing(ROOT / "requirements.txt", image)
    without = [one.requirement for one in lacking if not one.reason.startswith("version unknown")]
    assert without == ["iterative-stratification>=0.1.9"]  # for fold plans, which are made before


# What is missing


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("numpy", None),
        ("NumPy[extra]>=2,<3  # arrays", None),
        ("numpy>=2.1", "the image has 2.0.2, wanted >=2.1"),
        ("hydra-core", "not in the image"),
        ("ray", None),
        ("ray>=2.9", "version unknown, wanted >=2.9"),
        ("numpy @ https://example.org/numpy-2.0.2-py3-none-any.whl#sha256=0", "wanted from https://example.org/"),
        ("hydra-core; python_version < '3.12'", None),
        ("hydra-core; python_full_version >= '3.12' and sys_platform == 'linux'", "not in the image"),
        ("hydra-core; sys_platform == 'win32' or platform_machine == 'arm64'", None),
        ("hydra-core; extra == 'all'", None),
        ("# hydra-core", None),
        ("--extra-index-url https://example.org/simple", None),
    ],
)
def test_what_the_image_lacks(tmp_path, image, line, reason):
    found = missing(write(tmp_path / "requirements.txt", line + "\n"), image)
    assert len(found) == (reason is not None)
    assert all(one.reason.startswith(reason) for one in found)


def test_included_files_and_repeated_packages_count_together(tmp_path, image):
    write(tmp_path / "more.txt", "timm<2\nhydra-core; python_version >= '3.12'\n")
    requirements = write(tmp_path / "requirements.txt", "-r more.txt\n--requirement=more.txt\nTimm>=1.0.31\n")
    assert missing(requirements, image) == [
        MissingRequirement("timm<2,>=1.0.31", "the image has 1.0.26, wanted <2,>=1.0.31"),
        MissingRequirement("hydra-core", "not in the image"),
    ]


def test_a_requirements_file_that_cannot_be_understood_is_told_with_its_line(tmp_path, image):
    path = write(tmp_path / "requirements.txt", "numpy\n-e .\n")
    assert refusal_of(missing, path, image) == f"{path}:2: `-e .` is not a requirement that can be understood"
    assert "includes itself" in refusal_of(missing, write(path, "-r requirements.txt\n"), image)
    assert "absent.txt: cannot be read" in refusal_of(missing, write(path, "-r absent.txt\n"), image)


def test_no_marker_is_answered_by_this_machine(image):
    assert image._environment("").keys() == default_environment().keys() | {"extra"}
    assert image.needs(Requirement("a; extra == 'all'"), {"all"})


# Refreshing the table


def test_refreshing_takes_what_the_lists_say_of_known_packages(tmp_path, table):
    freeze = """\
# generated
google-colab @ file:///colabtools/dist/google_colab-1.0.0.tar.gz
numpy==2.1.0
Jinja2==3.1.6
six @ file:///croot/six_1710/work
timm==v1.0.27
torch @ https://example.org/whl/cu128/torch-2.11.0%2Bcu128-cp312-cp312-linux_x86_64.whl#sha256=00
"""
    kaggle = "git+https://example.org/segment.git\nray\nnumpy<2.1\ntimm>=1.0.27\njinja2\nshapely<2\n-e .\n"
    lists = [write(tmp_path / "freeze.txt", freeze), write(tmp_path / "kaggle.txt", kaggle)]
    requirements = write(tmp_path / "requirements.txt", "jinja2>=3\nrich\n")
    assert refresh(table, lists, requirements, "2026-11") == [
        "jinja2: not in the table -> 3.1.6",
        "numpy: 2.0.2 -> version unknown",  # 2.1.0 in the image that Kaggle starts from, but it asks for less
        "timm: 1.0.26 -> 1.0.27",
        "torch: 2.10.0 -> 2.11.0",
    ]
    assert table.read_text() == (
        "# A small image.\n# python: 3.12\n# as of: 2026-11\njinja2==3.1.6\ntimm==1.0.27\ntorch==2.11.0\n"
        "# present: numpy\n# present: ray\n# present: six\n"
    )


def test_a_later_list_wins(tmp_path, table):
    lists = [write(tmp_path / "a.txt", "ray==2.9\n"), write(tmp_path / "b.txt", "ray==2.8\n")]
    requirements = write(tmp_path / "requirements.txt", "")
    assert refresh(table, lists, requirements, "2026-08") == ["ray: version unknown -> 2.8"]
    assert refresh(table, lists[::-1], requirements, "2026-08") == ["ray: 2.8 -> 2.9"]
    assert refresh(table, lists[::-1], requirements, "2026-08") == []


def test_refreshing_with_nothing_leaves_the_kits_table_as_it_is(tmp_path):
    text = (ROOT / "kernels" / "image.txt").read_text(encoding="utf-8")
    path = write(tmp_path / "image.txt", text)
    for python in ("3.12", "3.13"):
        assert refresh(path, [], ROOT / "requirements.txt", read_image(path).as_of, python) == []
        assert path.read_text(encoding="utf-8") == text


def test_lists_of_one_image_leave_the_other_as_it_is(tmp_path):
    table, requirements = write(tmp_path / "image.txt", BOTH), write(tmp_path / "requirements.txt", "")
    lists = [write(tmp_path / "freeze.txt", "torch==2.12.0\ntimm==1.0.26\nold==1.0\n")]
    before = table.read_text()
    assert refusal_of(refresh, table, lists, requirements, "2026-12") == (
        "--python: say which image the lists are of: 3.12, 3.13, or a new one"
    )
    assert refusal_of(refresh, table, lists, requirements, "2026-12", "13") == "--python 13: should look like 3.13"
    assert table.read_text() == before
    changes = ["old: not in the table -> 1.0", "torch: 2.11.0 -> 2.12.0"]
    assert refresh(table, lists, requirements, "2026-12", "3.13") == changes
    assert read_image(table, "3.12").versions == read_image(write(tmp_path / "b", before), "3.12").versions


def test_a_python_that_is_new_begins_as_the_one_before_it(tmp_path):
    table, requirements = write(tmp_path / "image.txt", BOTH), write(tmp_path / "requirements.txt", "")
    lists = [write(tmp_path / "freeze.txt", "torch==2.12.0\nsix==1.17.0\n")]
    assert refresh(table, lists, requirements, "2026-12", "3.14") == ["torch: 2.11.0 -> 2.12.0"]
    assert table.read_text() == (
        "# python: 3.12 3.13 3.14\n# as of: 2026-12\n"
        'old==1.0; python_version < "3.13"\n'
        'six==1.17.0; python_version >= "3.13"\n'
        "timm==1.0.26\n"
        'torch==2.10.0; python_version < "3.13"\n'
        'torch==2.11.0; python_version >= "3.13" and python_version < "3.14"\n'
        'torch==2.12.0; python_version >= "3.14"\n'
        '# present: ray\n# present: six; python_version < "3.13"\n'
    )
    assert [image.versions["torch"] for image in read_table(table).images] == ["2.10.0", "2.11.0", "2.12.0"]


def test_a_list_of_something_else_changes_nothing(tmp_path, table):
    page = write(tmp_path / "page.html", "<html>\n<body>numpy==3</body>\n")
    requirements = write(tmp_path / "requirements.txt", "")
    assert "names no package of" in refusal_of(refresh, table, [page], requirements, "2026-11")
    assert "should look like `as of: 2026-08`" in refusal_of(refresh, table, [], requirements, "11/2026")
    assert table.read_text() == TABLE
