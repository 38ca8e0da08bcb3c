"""The process from which tasks are forked: how several processes of one end, errors, the clock."""

import os
import pickle
import time
import types

import pytest
from support import cluster_tasks as tasks

from kit.core.errors import Diverged, KitError
from kit.experiment.cluster import server


class Quiet:
    def next(self, seconds):
        time.sleep(seconds)
        return ""


def site(tmp_path):
    there = {"parcel": str(tmp_path), "output": str(tmp_path), "cache": str(tmp_path), "shared": True}
    return there | {"threads": 1, "again": False, "data_root": None, "ahead": 0.0}


def ended(tmp_path, monkeypatch, do):
    """How two processes end, each of which does `do(rank)`."""
    monkeypatch.setattr(server, "_do", lambda errand, rank, tell: do(rank))
    monkeypatch.setattr(server, "_set_threads", lambda threads: None)
    errand = {"folder": str(tmp_path), "site": site(tmp_path), "processes": 2, "visible": ""}
    return server._carry_out(errand, 1, Quiet())


def test_where_one_is_killed_that_is_told_whatever_the_others_raise(tmp_path, monkeypatch):
    def do(rank):
        (tmp_path / f"{rank}").write_text(str(os.getpid()))
        if rank == 1:
            os.kill(os.getpid(), 9)
        while not (tmp_path / "1").exists() or "Z" not in _state(tmp_path / "1"):
            time.sleep(0.01)
        return 1  # as it raised that the other one closed the connection

    assert ended(tmp_path, monkeypatch, do) == {"code": -9, "killed": True}


def _state(file):
    text = file.read_text()
    return open(f"/proc/{text}/stat").read().rpartition(")")[2].split()[0] if text else ""


def test_what_ends_as_another_one_raised_is_not_killed(tmp_path, monkeypatch):
    """The second is ended by this server, once it was patient."""
    monkeypatch.setattr(server, "PATIENCE_SECONDS", 0.1)
    assert ended(tmp_path, monkeypatch, lambda rank: 1 if rank == 0 else time.sleep(60)) == {
        "code": 1,
        "killed": False,
    }


def test_a_task_is_told_the_drivers_clock_of_the_moment_it_begins(tmp_path):
    (tmp_path / "item").write_bytes(pickle.dumps(None))
    errand = {"folder": str(tmp_path), "task": f"{tasks.__name__}:clock", "site": site(tmp_path)}
    errand["site"]["ahead"] = 1000.0
    before = time.monotonic()
    assert server._do(errand, 0, lambda event: None) == 0
    now = pickle.loads((tmp_path / "made").read_bytes())
    assert before <= now - 1000.0 <= time.monotonic()


def raised(error):
    try:
        raise error
    except Exception as one:
        return pickle.loads(server._pickled(one))


def test_errors_of_python_and_of_the_kit_travel_as_they_are():
    diverged = Diverged("a: loss is nan")
    diverged.step = 3
    back = raised(diverged)
    assert (type(back), str(back), back.step) == (Diverged, "a: loss is nan", 3)
    fault = raised(ZeroDivisionError("by what"))
    assert type(fault) is ZeroDivisionError
    assert "test_server.py" in fault.__notes__[0]


@pytest.mark.parametrize("base", [Exception, KitError])
def test_an_error_of_own_code_travels_in_words(base, monkeypatch):
    module = types.ModuleType("own_code_0123_mine")
    monkeypatch.setitem(server.sys.modules, module.__name__, module)
    module.Odd = type("Odd", (base,), {"__module__": module.__name__})
    content = server._pickled(module.Odd("no such leaf"))
    monkeypatch.delitem(server.sys.modules, module.__name__)
    back = pickle.loads(content)
    if base is KitError:
        assert (type(back), str(back)) == (KitError, "no such leaf")
    else:
        assert (type(back), str(back)) == (RuntimeError, "Odd: no such leaf")
        assert "no such leaf" in back.__notes__[0]


def test_an_error_that_holds_something_of_own_code_too(monkeypatch):
    module = types.ModuleType("own_code_0123_mine")
    monkeypatch.setitem(server.sys.modules, module.__name__, module)
    module.Leaf = type("Leaf", (), {"__module__": module.__name__, "__str__": lambda self: "leaf"})
    content = server._pickled(ValueError(module.Leaf()))
    monkeypatch.delitem(server.sys.modules, module.__name__)
    assert str(pickle.loads(content)) == "ValueError: leaf"
