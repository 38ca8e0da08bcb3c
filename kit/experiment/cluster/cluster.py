"""Tasks run on the nodes of a cluster of Ray, which places them; the kit keeps what it promises of runs.

Ray is used for one thing: which node has room for the next task. Fresh processes, retries from checkpoints, what
the user is told and what an error means are the kit's, as on one machine (`kit.experiment.parallel`).
"""

import itertools
import os
import pickle
import secrets
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from kit.core import stopping
from kit.core.bundle import pack, package_files
from kit.core.errors import KitError, Say
from kit.core.files import need_writable
from kit.core.owner import Owner
from kit.experiment.cluster.joining import join_ray, leave_ray
from kit.experiment.cluster.looking import Looks
from kit.experiment.cluster.nodes import Node, alive_nodes, introduce, none_left
from kit.experiment.cluster.site import Needs, NodeReport, Standing, Task

PACKAGE = Path(__file__).resolve().parents[2]  # kit/
WATCH_SECONDS = 2.0  # between two looks at which nodes are there
OPEN = {"closed": False, "stop": 0, "saves": 0}  # what the board is told where nothing is asked for
ANSWER_SECONDS = 30.0  # until it is told which nodes have not answered yet


class Cluster:
    """A cluster of Ray that this process has joined; a context manager, which leaves it.

    Attributes
    ----------
    nodes : dict
        Ray's key of a node → `Node`, of all that were looked at.
    shared : bool
        Whether all nodes that work see the driver's folder, which was given to `look`.
    kinds : dict
        What `kind_of` says of items → the kind of node on which they run, whatever becomes of its nodes: of those
        of which one was made here, in whichever call of `run`, and entries that others make.
    show : callable
        Takes the standings of what is under way, each second of `run`.
    """

    def __init__(self, say: Say, cache: Path, leave: bool = False):
        import ray

        from kit.experiment.cluster import agent, board

        for module in (agent, board):
            ray.cloudpickle.register_pickle_by_value(module)
        self._ray: Any = ray
        self._agent, self.say, self._leave = agent, say, leave
        self._driver = agent.Driver(agent.machine(), str(Path(cache).resolve()), os.getcwd())
        self._carry_out: Any = self._ray.remote(agent.carry_out)
        self._bundle = self.parcel(package_files(PACKAGE))
        self._numbers = itertools.count()
        self._looks: Looks | None = None
        self._data_root: str | None = None
        self._watched = 0.0
        self.nodes: dict[str, Node] = {}
        self.shared = False
        self.kinds: dict[Hashable, str] = {}
        self.show: Callable[[list[Standing]], None] = lambda standings: None
        self.board: Any = self._ray.remote(board.Board).options(num_cpus=0, max_restarts=-1).remote()

    @classmethod
    def join(cls, on: str, say: Say, cache: Path | None = None) -> "Cluster":
        """Start or join a cluster.

        Parameters
        ----------
        on : str
            "ray", "auto" or "ray://HOST:PORT", as in `join_ray`.
        say : callable
            Takes lines about what happens, and those of tasks.
        cache : Path, optional
            The cache of nodes on this machine; left out: $KIT_CACHE, or ~/.cache/kit.

        Raises
        ------
        KitError
            As in `join_ray`.
        """
        leave = join_ray(on, say)
        cache = cache or Path(os.environ.get("KIT_CACHE") or Path.home() / ".cache" / "kit")
        try:
            return cls(say, cache, leave)
        except BaseException:
            leave_ray(leave)
            raise

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *exception: object) -> None:
        self._remove_probe()
        with suppress(Exception):
            self._ray.kill(self.board)
        leave_ray(self._leave)

    def _remove_probe(self) -> None:
        with suppress(OSError):  # a disk that is away: what is left of it says nothing to anybody
            if self._driver.probe:
                Path(self._driver.probe).unlink(missing_ok=True)

    def parcel(self, files: Mapping[str, bytes]) -> Any:
        """Return files as something that travels to nodes by content, once a node.

        Parameters
        ----------
        files : mapping
            Path below `Site.parcel`, with "/" → content.
        """
        archive = pack(files)
        return self._agent.Parcel(sha256(archive).hexdigest(), self._ray.put(archive))

    def look(
        self,
        task: Task,
        item: object,
        needs: Needs,
        parcel: Any,
        output: Path | None = None,
        data_root: str | None = None,
    ) -> dict[str, NodeReport]:
        """Have each node look at itself, side by side, and leave out those that lack something.

        Nodes that join the cluster later are looked at as well, while `run` runs.

        Parameters
        ----------
        task : callable
            Called as `task(site, item)` on each node; returns its `NodeReport`.
        item : object
        needs : Needs
            What a task takes of a node.
        parcel : Parcel
            The files that `Site.parcel` holds.
        output : Path, optional
            The driver's folder that holds runs/; whether all nodes see it is found out by a file there.
        data_root : str, optional
            As in `Site`.

        Returns
        -------
        dict
            Ray's key of a node → its report, of the nodes that can work.

        Raises
        ------
        KitError
            Where no node is left.
        """
        self._remove_probe()
        self._driver = replace(self._driver, output="", probe="", secret="")
        if output is not None:
            self._driver = replace(self._driver, **_probe(Path(output).resolve()))
        self._looks, self._data_root = Looks(self, task, item, needs, parcel), data_root
        self.nodes, self.shared = {}, False
        with stopping.telling("while nodes were looked at; the same command begins again"):
            self._end_looks(self._looks)
        good = self.good
        if not good:
            raise KitError(none_left(self.nodes.values()))
        self.shared = output is not None and all(node.sees for node in good.values())
        return {key: node.report for key, node in good.items()}

    def run(
        self,
        task: Task,
        items: Iterable[Any],
        needs: Needs,
        parcel: Any,
        name: Callable[[Any], object] = str,
        kind_of: Callable[[Any], Hashable] | None = None,
        most: int | None = None,
    ) -> Iterator[Any]:
        """Yield `task(site, item)` of every item, as they end, each in a fresh process on a node that has room.

        Parameters
        ----------
        task : callable
            A function at the top of a module of the kit. What it is given and what it returns is pickled.
        items : iterable
            Taken as there is room: about as many as the nodes can hold, and a few.
        needs : Needs
        parcel : Parcel
            The files that `Site.parcel` holds.
        name : callable
            What an item is called in lines.
        kind_of : callable, optional
            Items of which it returns the same run on one kind of node (`NodeReport.kind`): the one with most room
            when the first of them begins.
        most : int, optional
            Tasks at a time; left out: as many as the nodes hold.

        Raises
        ------
        KitError
            Where a task's process was lost too often, and where no node is left for some minutes. The first error
            of a task is raised when those under way have ended and were yielded; what had not begun is not begun.
        Stopped
            Where that was asked for; a line of each task that was under way. They stop where they can go on; a
            second Ctrl-C ends them.
        """
        from kit.experiment.cluster.running import Running

        if self._looks is None:
            self.look(introduce, None, needs, parcel)
        return Running(self, task, needs, parcel, name, kind_of, most).results(iter(items))

    @property
    def good(self) -> dict[str, Node]:
        """The nodes that are there and can work."""
        return {key: node for key, node in self.nodes.items() if node.good}

    def submit(
        self,
        task: Task,
        item: object,
        needs: Needs,
        parcel: Any,
        keys: Iterable[str],
        *,
        name: str,
        shared: bool | None,
        again: bool = False,
    ) -> tuple[int, Any]:
        """Give a task to Ray, to run on one of some nodes; returns its number and the reference to its answer."""
        from ray.util.scheduling_strategies import In, NodeLabelSchedulingStrategy

        call = self._agent.Call(
            number=(number := next(self._numbers)),
            task=f"{task.__module__}:{task.__qualname__}",
            item=pickle.dumps(item),
            bundle=self._bundle,
            parcel=parcel,
            driver=self._driver,
            shared=shared,
            data_root=self._data_root,
            threads=needs.threads,
            processes=needs.processes,
            again=again,
        )
        carry_out = self._carry_out.options(
            name=name,
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            memory=needs.memory or None,
            max_retries=0,  # begun again by `Running`, which tells the task and the user
            scheduling_strategy=NodeLabelSchedulingStrategy({"ray.io/node-id": In(*keys)}),
        )
        return number, carry_out.remote(call, self.board)

    def take_back(self, reference: Any, at_once: bool = False) -> None:
        """Cancel a task, or kill its worker `at_once`; nothing where that cannot be done any more.

        Not what it called itself: a call to the board that Ray cancels before it was sent leaves a gap in the
        worker's numbers of calls, and the board waits for that number, whatever the worker asks later.
        """
        with suppress(Exception):
            self._ray.cancel(reference, force=at_once, recursive=False)

    def exchange(self, wishes: dict[str, Any], gone: list[int]) -> dict[int, dict[str, Any]]:
        """Tell the board what the user asks for, print the lines of tasks, and return what is under way."""
        try:
            lines, under_way = self._ray.get(self.board.exchange.remote(wishes, gone), timeout=30.0)
        except self._ray.exceptions.RayError:  # it begins anew elsewhere
            return {}
        for line in lines:
            self.say(line)
        known: dict[int, dict[str, Any]] = under_way
        return known

    def watch(self) -> None:
        """Look which nodes are there, every few seconds; new ones are looked at, lost ones are told."""
        assert self._looks is not None, "as `run` looks at nodes"
        self._looks.end(0.0)
        if time.monotonic() - self._watched < WATCH_SECONDS:
            return
        self._watched = time.monotonic()
        there = alive_nodes()
        for key, node in self.nodes.items():
            if node.alive and key not in there:
                node.alive = False
                self.say(f"{node.report.host}: the node is gone ({len(self.good)} left)")
        self._looks.begin(there)

    def _end_looks(self, looks: Looks) -> None:
        """Wait until all nodes that are there have said what they are."""
        told, begun = False, time.monotonic()
        while True:
            self.exchange(OPEN | {"now": time.monotonic()}, [])
            looks.begin()
            if not (hosts := looks.hosts):
                return
            if not told and time.monotonic() - begun > ANSWER_SECONDS:
                self.say(f"waiting for what nodes say of themselves: {', '.join(hosts)}")
                told = True
            looks.end(1.0)

    def add(self, node: Node) -> None:
        """Take a node that was looked at, and say why where it is left out."""
        if self.shared and not node.sees and not node.report.lacks:
            lacks = f"it does not see {self._driver.output}, into which the others write"
            node = replace(node, report=replace(node.report, lacks=lacks))
        self.nodes[node.key] = node
        if node.report.lacks:
            self.say(f"{node.report.host} is left out: {node.report.lacks}")


def _probe(output: Path) -> dict[str, str]:
    """Write a file of which nothing but its reader can know the content."""
    need_writable(output)
    secret = secrets.token_hex(16)
    probe = output / f".probe.{Owner.mine().tag}.{secrets.token_hex(4)}.tmp"
    probe.write_text(secret, encoding="ascii")
    return {"output": str(output), "probe": str(probe), "secret": secret}
