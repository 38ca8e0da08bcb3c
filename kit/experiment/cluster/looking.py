"""Nodes of a cluster look at themselves before they are given work; a look that is lost is begun again."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kit.experiment.cluster.nodes import Node, alive_nodes, lacking, lost, report_of
from kit.experiment.cluster.running import TRIES
from kit.experiment.cluster.site import Needs, NodeReport, Task

if TYPE_CHECKING:
    from kit.experiment.cluster.cluster import Cluster


@dataclass
class Looks:
    """The looks of one call of `Cluster.look`, and of nodes that join later."""

    cluster: "Cluster"
    task: Task
    item: object
    needs: Needs
    parcel: Any
    _under_way: dict[Any, dict[str, Any]] = field(default_factory=dict)
    _losses: Counter[str] = field(default_factory=Counter)

    @property
    def hosts(self) -> list[str]:
        """The hosts that have not answered yet."""
        return sorted({node["NodeManagerHostname"] for node in self._under_way.values()})

    def begin(self, there: dict[str, dict[str, Any]] | None = None) -> None:
        """Have the nodes that are `there` look at themselves, of which nothing is known yet."""
        there = alive_nodes() if there is None else there
        self._forget(there)
        known = {node["NodeID"] for node in self._under_way.values()} | self.cluster.nodes.keys()
        for key, node in there.items():
            if key in known:
                continue
            one = Node(key, node["Resources"], NodeReport(node["NodeManagerHostname"]))
            if lacks := lacking(one, self.needs):
                self.cluster.add(replace(one, report=replace(one.report, lacks=lacks)))
                continue
            _, reference = self.cluster.submit(
                self.task, self.item, self.needs, self.parcel, [key], name="look", shared=None
            )
            self._under_way[reference] = node

    def end(self, seconds: float) -> None:
        """Take the answers that are there, or come in time."""
        import ray

        if not self._under_way:
            return
        ready, _ = ray.wait(list(self._under_way), num_returns=len(self._under_way), timeout=seconds)
        for reference in ready:
            node = self._under_way.pop(reference)
            try:
                answer = ray.get(reference)
            except ray.exceptions.RayError as error:
                self._lose(node, f"it did not say anything of itself ({str(error).strip().splitlines()[0]})")
                continue
            if words := lost(answer):
                self._lose(node, words, counts=answer.how != "unbegun")
                continue
            self._add(node, report_of(answer), answer.sees)

    def _lose(self, node: dict[str, Any], how: str, counts: bool = True) -> None:
        """Let `begin` begin a look again, unless it was lost too often."""
        key, host = node["NodeID"], node["NodeManagerHostname"]
        self._losses[key] += counts
        if key not in alive_nodes():
            self.cluster.say(f"{host}: the node is gone before it said what it is")
        elif self._losses[key] >= TRIES:
            self._add(node, NodeReport(host, lacks=f"{how}, the {TRIES}th time"))
        elif counts:
            self.cluster.say(f"{host}: {how}; it is looked at again ({self._losses[key]} of {TRIES - 1})")

    def _add(self, node: dict[str, Any], report: NodeReport, sees: bool = False) -> None:
        self.cluster.add(Node(node["NodeID"], node["Resources"], report, sees))

    def _forget(self, there: dict[str, dict[str, Any]]) -> None:
        """Take looks back that wait for a node which is gone."""
        for reference, node in list(self._under_way.items()):
            if node["NodeID"] not in there:
                del self._under_way[reference]
                self.cluster.take_back(reference)
                self.cluster.say(f"{node['NodeManagerHostname']}: the node is gone before it said what it is")
