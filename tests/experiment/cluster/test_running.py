"""How the tasks of a call are given to kinds of nodes, and what is made of their answers; without a cluster."""

from types import SimpleNamespace

import pytest
from support import cluster_tasks as tasks

from kit.core.errors import KitError
from kit.experiment.cluster import running
from kit.experiment.cluster.nodes import Node, report_of
from kit.experiment.cluster.site import Needs, NodeReport

pytest.importorskip("ray", reason="Ray has no wheel here")


def fake_cluster(*kinds):
    nodes = {kind: Node(kind, {"CPU": 1.0}, NodeReport(kind, kind)) for kind in kinds}
    return SimpleNamespace(nodes=nodes, good=nodes, kinds={}, say=lambda line: None)


def calls(cluster):
    return running.Running(cluster, tasks.double, Needs(), None, str, lambda item: item)


def answered(mine, entry, monkeypatch, **answer):
    """What `mine` makes of an answer to a task."""
    answer = SimpleNamespace(**{"host": "n1", "content": b""} | answer)
    monkeypatch.setattr("ray.get", lambda reference: answer)
    monkeypatch.setattr("ray.wait", lambda references, **_: (references, []))
    monkeypatch.setattr(mine, "_close", lambda *_: None)
    mine._running["r"] = entry
    return list(mine._ended())


def test_what_has_finished_runs_stays_on_its_kind_in_later_calls(monkeypatch):
    import pickle

    cluster = fake_cluster("A", "B")
    first, entry = calls(cluster), running._Entry(1, "1", group="seed0")
    entry.kind = first._kind_for(entry)
    assert entry.kind == "A"
    assert answered(first, entry, monkeypatch, how="made", content=pickle.dumps(2)) == [2]
    del cluster.nodes["A"]
    assert calls(cluster)._kind_for(running._Entry(1, "2", group="seed0")) is None, "it waits for such a node"
    assert calls(cluster)._kind_for(running._Entry(1, "3", group="seed1")) == "B"


def test_what_was_said_before_of_a_kind_stays_so():
    cluster = fake_cluster("B")
    cluster.kinds["seed0"] = "A"
    assert calls(cluster)._kind_for(running._Entry(1, "1", group="seed0")) is None


def test_where_nothing_is_done_yet_another_kind_takes_it():
    cluster = fake_cluster("A", "B")
    mine, entry = calls(cluster), running._Entry(1, "1", group="seed0")
    assert mine._kind_for(entry) == "A"
    del cluster.nodes["A"]
    assert mine._kind_for(entry) == "B"


def test_a_task_that_did_not_hear_whether_to_begin_is_given_again(monkeypatch):
    mine, entry = calls(fake_cluster("A")), running._Entry(1, "1", group="seed0")
    assert answered(mine, entry, monkeypatch, how="unheard") == []
    assert mine._waiting == [entry]


def test_what_cannot_be_read_here_is_told_so(monkeypatch):
    mine, entry = calls(fake_cluster("A")), running._Entry(1, "run 1")
    odd = b"cown_code_0123_mine\nOdd\n."
    assert answered(mine, entry, monkeypatch, how="raised", content=odd) == []
    assert isinstance(mine.error, RuntimeError)
    assert str(mine.error).startswith("run 1, on n1: what it raised cannot be read here (ModuleNotFoundError: ")
    report = report_of(SimpleNamespace(how="raised", content=odd, host="n1"))
    assert report.lacks.startswith("what it raised cannot be read here")
    assert not isinstance(mine.error, KitError)
