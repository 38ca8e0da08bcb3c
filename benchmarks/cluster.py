"""What a task costs on a cluster of Ray: many that do nothing, over simulated nodes on this machine.

python benchmarks/cluster.py [--tasks 200] [--nodes 4]
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kit.experiment.cluster.cluster import Cluster
from kit.experiment.cluster.nodes import introduce
from kit.experiment.cluster.site import Needs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=4)
    chosen = parser.parse_args()
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes()
    for number in range(chosen.nodes):
        head = {"include_dashboard": False} if number == 0 else {}
        nodes.add_node(num_cpus=1, object_store_memory=80 * 2**20, **head)
    os.environ["RAY_ADDRESS"] = nodes.address
    try:
        with tempfile.TemporaryDirectory() as cache, Cluster.join("auto", print, Path(cache)) as cluster:
            parcel = cluster.parcel({"config.yaml": b"name: nothing\n"})
            begun = time.perf_counter()
            cluster.look(introduce, None, Needs(), parcel)
            print(f"looking at {chosen.nodes} nodes: {time.perf_counter() - begun:.1f} s")
            begun, before = time.perf_counter(), _memory()
            for _ in cluster.run(introduce, range(chosen.tasks), Needs(), parcel):
                pass
            each = (time.perf_counter() - begun) / chosen.tasks
            print(
                f"{chosen.tasks} tasks: {1000 * each:.0f} ms each; the driver grew by {_memory() - before:.1f} MB"
            )
            print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    finally:
        nodes.shutdown()


def _memory() -> float:
    """Resident memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


if __name__ == "__main__":
    main()
