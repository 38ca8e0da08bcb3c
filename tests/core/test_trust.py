"""No file from elsewhere is executed: what reads files in kit/ does so in the ways that cannot."""

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

KIT = Path(__file__).parents[2] / "kit"
TREES = {
    path.relative_to(KIT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in KIT.rglob("*.py")
}


def calls(*names: str) -> Iterator[tuple[str, ast.Call]]:
    """The calls of functions that are written so, with their file."""
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
                yield file, node


def keywords(call: ast.Call) -> dict[str, str]:
    return {each.arg: ast.unparse(each.value) for each in call.keywords if each.arg}


def test_tensors_are_loaded_without_code():
    found = list(calls("torch.load"))
    assert found
    assert all(keywords(call).get("weights_only") == "True" for _, call in found)


def test_arrays_are_loaded_without_objects():
    found = list(calls("np.load", "numpy.load"))
    assert found
    assert all(keywords(call).get("allow_pickle", "False") == "False" for _, call in found)


def test_numpys_own_default_refuses_objects(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        np.load(tmp_path / "a.npy")


# The driver and the nodes of a cluster, as processes of one machine do: each runs the other's code anyway.
WITHIN_A_CLUSTER = {"experiment/cluster/answers.py", "experiment/cluster/server.py"}


def test_nothing_else_unpickles():
    loads = ("load", "loads", "Unpickler")
    modules = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
    forbidden = [f"{module}.{name}" for module in modules for name in loads]
    forbidden += ["pd.read_pickle", "pandas.read_pickle", "shelve.open", "torch.jit.load", "torch.package"]
    assert {file for file, _ in calls(*forbidden)} == WITHIN_A_CLUSTER


def test_yaml_is_read_by_the_safe_loader_alone():
    from kit.core import yaml as ours

    unsafe = [
        f"yaml.{name}" for name in ("unsafe_load", "full_load", "load_all", "unsafe_load_all", "full_load_all")
    ]
    assert list(calls(*unsafe)) == []
    assert {file for file, _ in calls("yaml.load")} == {"core/yaml.py"}
    assert issubclass(ours._Loader, ours.yaml.SafeLoader)
    assert issubclass(ours._WrittenLoader, ours._Loader)


def test_archives_are_not_unpacked_without_a_look():
    """`download.unpack` checks every name before; tar archives are read from nowhere."""
    assert [(file, ast.unparse(call)) for file, call in calls("packed.extract", "packed.extractall")] == [
        ("kaggle/download.py", "packed.extract(member, draft)")
    ]
    for file, tree in TREES.items():
        methods = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        assert "extractall" not in methods, file
        assert "unpack_archive" not in methods, file
