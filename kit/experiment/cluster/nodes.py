"""The nodes of a cluster: what they have, what they say of themselves, and which are there."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kit.core.errors import KitError, some
from kit.core.processes import ending
from kit.experiment.cluster.answers import Unreadable, content_of
from kit.experiment.cluster.site import Needs, NodeReport, Site

PRELOAD = ()  # of the task in this module


@dataclass
class Node:
    """A node that was looked at.

    Attributes
    ----------
    key : str
        Ray's.
    has : dict
        Ray's resources → how much.
    report : NodeReport
    sees : bool
        Whether it sees the driver's folder.
    alive : bool
    """

    key: str
    has: dict[str, float]
    report: NodeReport
    sees: bool = False
    alive: bool = True

    @property
    def good(self) -> bool:
        return self.alive and not self.report.lacks

    def room(self, needs: Needs) -> int:
        """Return how many tasks it takes at a time."""
        wanted = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": needs.memory}
        rooms = [_fits(self.has.get(name, 0.0), amount) for name, amount in wanted.items() if amount > 0]
        return min(rooms, default=1)


def _fits(has: float, amount: float) -> int:
    if amount < 1:  # a share of a GPU, which lies on one
        return int(has) * math.floor(1 / amount + 1e-6)
    return math.floor(has / amount + 1e-6)


def alive_nodes() -> dict[str, dict[str, Any]]:
    """Return Ray's nodes that are there, by their keys."""
    import ray

    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}


def lacking(node: Node, needs: Needs) -> str:
    """Return what a node has too little of for a task; "" where it has enough."""
    if node.room(needs) > 0:
        return ""
    has = node.has
    for name, amount, words in (("CPU", needs.cpus, "cores"), ("GPU", needs.gpus, "GPUs")):
        if _fits(has.get(name, 0.0), amount or 1) < 1 and amount > 0:
            return f"it has {has.get(name, 0.0):g} {words}, a task takes {amount:g}"
    return f"it has {has.get('memory', 0) / 1e9:.1f} GB of memory, a task takes {needs.memory / 1e9:.1f} GB"


def lost(answer: Any) -> str:
    """Return in words how a look at a node ended without an answer of its own; "" where it has one."""
    if answer.how == "gone":
        return f"the process that looked at it {ending(int(answer.content))}"
    return {"unbegun": "it was not looked at", "unheard": "it did not hear whether to begin"}.get(answer.how, "")


def report_of(answer: Any) -> NodeReport:
    """Return what a node said of itself, or why it cannot work."""
    try:
        said: Any = content_of(answer) if answer.how in ("made", "raised") else None
    except Unreadable as error:
        return NodeReport(answer.host, lacks=str(error))
    if answer.how == "made":
        if isinstance(said, NodeReport):
            return said
        raise TypeError(f"a node answered {said!r}, not a NodeReport")
    lacks = lost(answer) or answer.content.decode(errors="replace")
    if isinstance(said, BaseException):
        if not isinstance(said, KitError | ImportError | OSError):
            raise said
        lacks = str(said)
        if isinstance(said, ImportError):
            lacks = f"{said}; there, pip install -r requirements.txt"
    return NodeReport(answer.host, lacks=lacks)


def none_left(nodes: Iterable[Node]) -> str:
    """Return the line of an error where no node can work."""
    reasons = [f"{node.report.host}: {node.report.lacks}" for node in nodes if node.report.lacks]
    return (
        f"no node of the cluster can work; {some(dict.fromkeys(reasons))}"
        if reasons
        else "the cluster has no node"
    )


def introduce(site: Site, item: object) -> NodeReport:
    """Say which machine this is; the task that looks at nodes where nothing else is asked of them."""
    import platform

    return NodeReport(platform.node())
