"""Own code: what is loaded by `file.py:name`, when it is loaded anew, and what is said where it cannot be."""

import os
import pickle
import re
import sys

import pytest

from kit.core.errors import KitError
from kit.core.own_code import OwnCode, is_reference


@pytest.fixture
def code(tmp_path):
    """Writes files, and returns the own code of a reference beside them."""

    def of(reference="mine.py:f", **files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        return OwnCode(reference, tmp_path)

    return of


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("mine.py:f", True),
        ("folder/mine.py:Class_2", True),
        ("../mine.py:f", True),
        ("package.module:f", True),
        ("schedulefree:AdamWScheduleFree", True),
        ("hf-hub:timm/resnet18.a1_in1k", False),
        ("local-dir:/some/where", False),
        ("resnet18.a1_in1k", False),
        ("mine.py", False),
        ("mine.py:", False),
        ("mine.py:1f", False),
        (3, False),
    ],
)
def test_what_names_own_code(text, is_one):
    assert is_reference(text) is is_one


def test_a_function_is_called_with_what_is_given_and_its_options(code):
    own = code(mine="def f(a, b, c=3, *, d=4): return (a, b, c, d)")
    assert own.bind({}, ("a", "b"))(1, 2) == (1, 2, 3, 4)
    assert own.bind({"c": 5, "d": 6}, ("a", "b"))(1, 2) == (1, 2, 5, 6)


def test_a_class_is_made_with_the_options_and_its_object_is_called(code):
    own = code(mine="class f:\n def __init__(self, c=3): self.c = c\n def __call__(self, a): return a * self.c")
    assert own.bind({"c": 5}, ("a",))(2) == 10


def test_a_module_of_a_package_is_found_by_its_name(tmp_path):
    assert OwnCode("math:hypot", tmp_path).load()(3, 4) == 5
    assert OwnCode("math:hypot", tmp_path).files() == {}


def test_what_a_file_imports_beside_it_is_part_of_it_wherever_it_stands(code, tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/__init__.py").write_text("from parts.inner import three\n")
    (tmp_path / "parts/inner.py").write_text("three = 3\n")
    own = code(
        mine="import json\ndef f():\n from helper import two\n return two\n",
        helper="import parts\ntwo = parts.three - 1\n",
    )
    names = [path.relative_to(tmp_path).as_posix() for path in own.files()]
    assert names == ["mine.py", "helper.py", "parts/__init__.py", "parts/inner.py"]
    assert own.load()() == 2
    assert str(tmp_path) not in sys.path


def test_a_changed_file_or_helper_is_loaded_anew(code):
    own = code(mine="from helper import two\ndef f(): return two\n", helper="two = 2\n")
    assert own.load()() == 2
    assert own.load() is own.load()
    code(helper="two = 22\n")
    assert own.load()() == 22


def test_helpers_of_one_name_in_two_folders_are_not_mixed_up(tmp_path):
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "mine.py").write_text("import helper\ndef f(): return helper.number\n")
        (folder / "helper.py").write_text(f"number = {number}\n")
    first, second = (OwnCode("mine.py:f", tmp_path / str(number)).load() for number in (1, 2))
    assert (first(), second()) == (1, 2)


def test_it_travels_to_another_process_by_its_name(code):
    own = code(mine="def f(): return 7")
    assert own.load()() == 7
    assert pickle.loads(pickle.dumps(own)).load()() == 7


@pytest.mark.parametrize(
    ("reference", "text", "said"),
    [
        ("mien.py:f", "def f(): pass", r"mien.py:f: there is no file mien.py in .*; there are mine.py"),
        ("mine.py:g", "def gg(): pass", r"mine.py:g: mine.py has no function or class 'g'; did you mean gg\?"),
        ("mine.py:g", "x = 3\ndef f(): pass", r"mine.py:g: mine.py has no function or class 'g'; it has f"),
        ("mine.py:x", "x = 3", r"mine.py has no function or class 'x'; it has none"),
        ("mine.py:f", "def f(:", r"mine.py:f: mine.py:1: no Python: "),
        ("mine.py:f", "y = 1\nraise ValueError('no\\ngood')", r"mine.py:f: mine.py:2: ValueError: no good$"),
        ("mine.py:f", "\n\nimport nowhere_to_be_found", r"mine.py:f: mine.py:3: ModuleNotFoundError: .*nowhere"),
        ("nowhere_to_be_found:f", "", r"there is no module 'nowhere_to_be_found'; install it"),
        ("mine.py:f", "import sys\nsys.exit(3)", r"mine.py:2: SystemExit: 3"),
    ],
)
def test_what_cannot_be_loaded_is_one_line_with_its_place(code, reference, text, said):
    with pytest.raises(KitError) as caught:
        code(reference, mine=text).load()
    assert re.search(said, str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"teth": 3}, r"mine.py:f \(mine.py:2\): takes no option 'teth'; did you mean teeth\?"),
        ({"zzz": 3}, r"takes no option 'zzz'; its options are teeth, need"),
        ({}, r"is called with \(clock\): missing a required .*'need'"),
    ],
)
def test_a_signature_that_does_not_fit_is_said_with_file_and_line(code, options, said):
    own = code(mine="\ndef f(clock, teeth=1, *, need): pass")
    with pytest.raises(KitError, match=said):
        own.bind(options, ("clock",))


def test_a_fault_within_is_told_with_its_line(code):
    own = code(mine="from helper import g\ndef f():\n    g()\n", helper="def g():\n\n    1 / 0\n")
    with pytest.raises(KitError, match=r"^mine.py:f: helper.py:3: ZeroDivisionError: division by zero$"):
        own.call(own.load())


def test_folders_of_modules_without_an_init_are_part_of_it(code, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/helper.py").write_text("K = 1\n")
    own = code(mine="from lib.helper import K\ndef f(): return K\n")
    assert [path.name for path in own.files()] == ["mine.py", "helper.py"]
    first = own.digest()
    (tmp_path / "lib/helper.py").write_text("K = 2\n")
    assert own.digest() != first
    assert own.load()() == 2


def test_neither_the_kit_nor_the_standard_library_is_taken_for_a_file_beside_it(code, tmp_path):
    """A kernel has the kit's folder beside the config."""
    import random

    for name in ("kit", "kit/core"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ValueError('another kit')")
    own = code(
        mine="import random\nfrom kit.core.errors import KitError\ndef f(): return KitError, random\n",
        random="raise ValueError('not that one')",
    )
    assert [path.name for path in own.files()] == ["mine.py"]
    assert own.load()() == (KitError, random)


def test_two_files_share_what_they_import_beside_them(code, tmp_path):
    first = code("one.py:f", one="from helper import Out\ndef f(): return Out()\n", helper="class Out: pass\n")
    second = code("two.py:g", two="from helper import Out\ndef g(value): return isinstance(value, Out)\n")
    make, check = first.load(), second.load()
    assert check(make())


def test_a_helper_is_read_from_its_source_whatever_pythons_cache_says(code, tmp_path, monkeypatch):
    """Changed within a second and of the same size: time stamps do not tell."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    own = code(mine="from helper import two\ndef f(): return two\n", helper="two = 2\n")
    assert own.load()() == 2
    stamp = (tmp_path / "helper.py").stat()
    code(helper="two = 3\n")
    os.utime(tmp_path / "helper.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert own.load()() == 3
    assert not list(tmp_path.rglob("*.pyc"))


def test_code_that_has_changed_since_the_config_was_read_is_refused(code):
    own = code(mine="def f(): return 1\n")
    pinned = OwnCode(own.reference, own.folder, own.digest())
    assert pinned.load()() == 1
    code(mine="def f(): return 2\n")
    with pytest.raises(KitError, match=r"mine.py, or what it imports, has changed since the config was read"):
        pinned.load()


def test_imports_relative_to_a_package_are_refused_by_their_line(code):
    own = code(mine="\nfrom .helper import two\n", helper="two = 2\n")
    with pytest.raises(KitError, match=r"mine.py:2: imports relative to a package"):
        own.files()


def test_options_behind_arguments_of_any_number_are_known(code):
    own = code(mine="def f(*args, teeth=4): return args, teeth")
    assert own.bind({"teeth": 3}, ("a", "b"))(1, 2) == ((1, 2), 3)


def test_a_module_that_is_a_file_beside_is_hinted_at(code):
    with pytest.raises(KitError, match=r"there is no module 'mine'; did you mean mine.py:f\?"):
        code("mine:f", mine="def f(): pass").load()
