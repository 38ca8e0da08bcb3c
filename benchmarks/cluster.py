"""What a task costs on a cluster of Ray: tasks that do nothing, then cheap runs, over simulated nodes.

    python benchmarks/cluster.py [--tasks 200] [--runs 0] [--nodes 4]

A run's overhead is the time that nodes are in no run: nodes × wall seconds less what run.json says that the runs
took, a run. What the machine's cores are short of for so many nodes is within the runs.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kit.experiment.cluster.cluster import Cluster
from kit.experiment.cluster.nodes import introduce
from kit.experiment.cluster.site import Needs
from kit.experiment.config import load_experiment
from kit.experiment.options import RunOptions
from kit.experiment.run import run

_started: list = []  # of the process that simulates nodes
DIGITS = Path(__file__).resolve().parents[1] / "configs/digits.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--runs", type=int, default=0, help="of a tiny model on digits; a multiple of 5")
    parser.add_argument("--nodes", type=int, default=4)
    chosen = parser.parse_args()
    # In a process of its own, as it would be: what it does to memory is not the driver's.
    with ProcessPoolExecutor(1, get_context("spawn")) as other, tempfile.TemporaryDirectory() as place:
        os.environ["RAY_ADDRESS"] = other.submit(_start, chosen.nodes).result()
        try:
            _empty_tasks(Path(place), chosen.tasks, chosen.nodes)
            if chosen.runs:
                _real_runs(Path(place), chosen.runs, chosen.nodes)
        finally:
            other.submit(_stop).result()


def _start(nodes: int) -> str:
    """Start simulated nodes; return their address."""
    from ray.cluster_utils import Cluster as Nodes

    _started.append(Nodes())
    for number in range(nodes):
        head = {"include_dashboard": False} if number == 0 else {}
        _started[0].add_node(num_cpus=1, object_store_memory=80 * 2**20, **head)
    return _started[0].address


def _stop() -> None:
    _started.pop().shutdown()


def _empty_tasks(cache: Path, tasks: int, nodes: int) -> None:
    with Cluster.join("auto", print, cache) as cluster:
        parcel = cluster.parcel({"config.yaml": b"name: nothing\n"})
        begun = time.perf_counter()
        cluster.look(introduce, None, Needs(), parcel)
        print(f"looking at {nodes} nodes: {time.perf_counter() - begun:.1f} s")
        begun, before = time.perf_counter(), _memory()
        for _ in cluster.run(introduce, range(tasks), Needs(), parcel):
            pass
        each = (time.perf_counter() - begun) / tasks
        print(f"{tasks} tasks: {1000 * each:.0f} ms each; the driver grew by {_memory() - before:.1f} MB")
        _tell_load()


def _real_runs(place: Path, runs: int, nodes: int) -> None:
    """Train so many runs of a tiny model: five folds, and as many seeds as that takes."""
    settings = ["name=cheap", f"competition.path={place / 'digits'}", "model.name=test_resnet", "data.size=16"]
    settings += [f"seeds={list(range(runs // 5))}", "training.epochs=1", "policies={uniform: {lr: 0.01}}"]
    config, grown = load_experiment(DIGITS, settings), list[float]()

    def say(line: str) -> None:
        if line.startswith("uniform seed"):
            grown.append(_memory())

    begun = time.perf_counter()
    run(config, RunOptions(place, on="auto", threads=1), say=say)
    wall = time.perf_counter() - begun
    records = [json.loads(file.read_text()) for file in (place / "runs/cheap").rglob("fold*/run.json")]
    within = sum(record["seconds"]["whole"] for record in records)
    overhead = (nodes * wall - within) / len(records)
    print(
        f"{len(records)} runs: {wall:.0f} s, of {nodes} nodes {nodes * wall:.0f} s, in runs {within:.0f} s: "
        f"overhead {overhead:.2f} s a run; the driver grew by {grown[-1] - grown[0]:.1f} MB "
        f"from the first to the last, {grown[-1] - grown[len(grown) // 2]:.1f} MB in the second half"
    )
    _tell_load()


def _tell_load() -> None:
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def _memory() -> float:
    """Resident memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


if __name__ == "__main__":
    main()
