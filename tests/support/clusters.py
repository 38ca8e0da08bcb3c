"""Clusters of Ray on this machine, whose nodes find the tasks of tests beside the kit."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kit.experiment.cluster.cluster as module
from kit.core.bundle import package_files

SUPPORT = Path(__file__).parent
SMALL = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


def with_tasks(package: Path) -> dict[str, bytes]:
    """The kit's files, and the tasks of tests."""
    tasks = {f"support/{name}": (SUPPORT / name).read_bytes() for name in ("cluster_tasks.py", "torch_tasks.py")}
    return package_files(package) | tasks


@contextmanager
def ray_nodes(nodes: Sequence[dict[str, Any]]) -> Iterator[Any]:
    """A cluster of such nodes, the first of which is the head; each is called by its number in $NODE."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for number, node in enumerate(nodes):
            add_node(cluster, str(number), **node)
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Any, name: str, **options: Any) -> Any:
    small = dict(SMALL) if not cluster.list_all_nodes() else {"object_store_memory": SMALL["object_store_memory"]}
    variables = {"NODE": name} | options.pop("env_vars", {})
    node = cluster.add_node(**{"num_cpus": 1} | small | options, env_vars=variables)
    cluster.named = getattr(cluster, "named", {}) | {name: node}  # Ray keeps them in no order
    return node


@contextmanager
def joined(cluster: Any, cache: Path, say: Callable[[str], None] = print) -> Iterator[module.Cluster]:
    """The cluster as the kit joins it."""
    import pytest

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", cluster.address)
        patch.setattr(module, "package_files", with_tasks)
        with module.Cluster.join("auto", say, cache) as mine:
            yield mine


def until(there: Callable[[], object], seconds: float = 40.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
