"""What a run takes of a node, by what the nodes have and the runs that are there; without a cluster."""

from types import SimpleNamespace

import pytest
from support.studies import study

from kit.core.runs import ExperimentDir, RunRecord
from kit.experiment.cluster import runs as module
from kit.experiment.options import RunOptions


@pytest.mark.parametrize(("cores", "devices", "threads"), [(2, 1, 2), (4, 1, 4), (4, 2, 1), (8, 2, 4)])
def test_runs_go_on_with_the_threads_of_those_before_where_a_node_has_them(
    competition, tmp_path, monkeypatch, cores, devices, threads
):
    record = RunRecord(policy="uniform", seed=0, fold=0, status="finished", device="cpu", threads=4)
    ExperimentDir(tmp_path / "runs/study").run(record.key).write(record)
    monkeypatch.setattr(module.Cluster, "join", lambda *_: SimpleNamespace(__exit__=lambda: None))
    nodes = {"small": 2.0, "large": float(cores)}
    monkeypatch.setattr(
        module, "alive_nodes", lambda: {key: {"Resources": {"CPU": count}} for key, count in nodes.items()}
    )
    lines = []
    made = module.ClusterRuns(study(competition), RunOptions(tmp_path, on="auto", devices=devices), lines.append)
    assert made._needs.threads == threads
    told = (
        "the runs that are there were trained with 4 threads each, no node has cores for that: those trained here "
        "differ in the last bits"
    )
    assert lines == ([] if threads == 4 else [told])
