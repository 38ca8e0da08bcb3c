"""Nodes of a cluster that lack something, that come late, that are lost."""

import pytest
from support import cluster_tasks as tasks
from support.clusters import add_node, joined, ray_nodes
from support.refusals import refusal_of

from kit.experiment.cluster import running
from kit.experiment.cluster.nodes import Node, lacking
from kit.experiment.cluster.site import Needs, NodeReport

pytest.importorskip("ray", reason="Ray has no wheel here")


@pytest.mark.slow
def test_nodes_are_left_out_looked_at_late_and_lost(tmp_path):
    lines, folder = [], tmp_path / "a"
    folder.mkdir()
    names = [f"{folder}/{name}" for name in "abcdef"]
    with (
        ray_nodes([{}, {"env_vars": {"LACKS": "it has no train.csv"}}]) as nodes,
        joined(nodes, tmp_path, lines.append) as mine,
    ):
        parcel = mine.parcel({})
        reports = mine.look(tasks.node_report, None, Needs(), parcel)
        assert [each.kind for each in reports.values()] == ["0"]
        assert "host 1 is left out: it has no train.csv" in lines
        assert set(mine.run(tasks.where, range(6), Needs(), parcel)) == {"0"}

        late = [add_node(nodes, "2")]

        def lose(standings):
            """Remove the late node once it carries out a task; when that is told, let the others end."""
            if late and any(path.read_text().split()[2:] == ["2"] for path in folder.glob("*.begun!")):
                nodes.remove_node(late.pop())
            if "host 2: the node is gone (1 left)" in lines:
                (folder / "go").touch()

        mine.show = lose
        assert sorted(mine.run(tasks.wait, names, Needs(), parcel)) == names
        assert any("is gone; it is begun again" in line for line in lines)
        again = list(folder.glob("*.again!"))
        assert [path.read_text().split()[2] for path in again] == ["0"]


@pytest.mark.slow
def test_where_the_last_node_is_lost_it_waits_for_another(tmp_path, monkeypatch):
    lines = []
    with (
        ray_nodes([{"num_cpus": 0}, {}]) as nodes,
        joined(nodes, tmp_path, lines.append) as mine,
    ):
        parcel = mine.parcel({})
        mine.look(tasks.node_report, None, Needs(), parcel)
        assert any(line.endswith(" is left out: it has 0 cores, a task takes 1") for line in lines)
        late = ["2"]
        workers = [node for node in nodes.list_all_nodes() if node is not nodes.head_node]

        def lose(standings):
            """Remove the node once a task has begun; when it is waited for another, add one."""
            if workers and standings and list(tmp_path.glob("*.begun!")):
                nodes.remove_node(workers.pop())
            if "a: no node is left for it; waiting 5 minutes for one to join the cluster" in lines and late:
                late.clear()
                (tmp_path / "go").touch()
                workers.append(add_node(nodes, "2"))

        mine.show = lose
        run = mine.run(tasks.wait, [f"{tmp_path}/a"], Needs(), parcel, name=lambda item: "a")
        assert list(run) == [f"{tmp_path}/a"]

        monkeypatch.setattr(running, "WAIT_SECONDS", 0.5)
        (tmp_path / "go").unlink()
        run = mine.run(tasks.wait, [f"{tmp_path}/b"], Needs(), parcel, name=lambda item: "b")
        message = refusal_of(lambda: list(run))
        assert message == "b: no node is left for it; add nodes to the cluster, and the same command goes on"


@pytest.mark.parametrize(
    ("has", "needs", "room"),
    [
        ({"CPU": 8.0}, Needs(cpus=3), 2),
        ({"CPU": 8.0, "GPU": 2.0}, Needs(cpus=1, gpus=0.25), 8),
        ({"CPU": 8.0, "GPU": 2.0}, Needs(cpus=1, gpus=0.4), 4),
        ({"CPU": 8.0, "GPU": 3.0}, Needs(cpus=1, gpus=2), 1),
        ({"CPU": 8.0}, Needs(cpus=1, gpus=1), 0),
        ({"CPU": 8.0, "memory": 5e9}, Needs(cpus=1, memory=2 * 10**9), 2),
    ],
)
def test_how_many_tasks_a_node_holds(has, needs, room):
    node = Node("n", has, NodeReport("host"))
    assert node.room(needs) == room
    assert (lacking(node, needs) == "") == (room > 0)


@pytest.mark.parametrize(
    ("needs", "told"),
    [
        (Needs(cpus=4), "it has 2 cores, a task takes 4"),
        (Needs(cpus=1, gpus=0.5), "it has 0 GPUs, a task takes 0.5"),
        (Needs(memory=3 * 10**9), "it has 1.0 GB of memory, a task takes 3.0 GB"),
    ],
)
def test_what_a_node_has_too_little_of(needs, told):
    assert lacking(Node("n", {"CPU": 2.0, "memory": 1e9}, NodeReport("host")), needs) == told
