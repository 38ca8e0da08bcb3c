"""The tasks of one call on a cluster: given to Ray as there is room, begun again where they were lost."""

import signal
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.core import stopping
from kit.core.errors import KitError
from kit.core.processes import ending
from kit.experiment.cluster.answers import Unreadable, content_of
from kit.experiment.cluster.site import Needs, Standing, Task

if TYPE_CHECKING:
    from kit.experiment.cluster.cluster import Cluster

TRIES = 4  # of a task whose process or node is lost
SPARE = 2  # tasks that wait at Ray beyond those that the nodes hold, so that none idles
TEND_SECONDS = 1.0
WAIT_SECONDS = 300.0  # for a node, where none is left
END_SECONDS = 30.0  # for what is under way, where nobody waits for it any more
ADVICE = "run fewer at a time, with fewer data.workers, or give each task more memory; the same command goes on"


@dataclass
class _Entry:
    """A task of one item."""

    item: Any
    name: str
    group: Hashable = None
    number: int = -1
    kind: str = ""
    keys: frozenset[str] = frozenset()
    losses: int = 0
    again: bool = False
    ended: bool = False


@dataclass
class _Wishes:
    """What the user asks of tasks."""

    closed: bool = False
    stop: int = 0
    saves: int = 0
    now: float = 0.0  # by the driver's clock


class _Lost(Exception):
    """A process that carried out a task, or its node, is gone; the message says how."""


@dataclass
class Running:
    """The tasks of one call of `Cluster.run`."""

    cluster: "Cluster"
    task: Task
    needs: Needs
    parcel: Any
    name: Callable[[Any], object]
    kind_of: Callable[[Any], Hashable] | None
    most: int | None = None
    error: BaseException | None = None
    stopped: list[stopping.Stopped] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._running: dict[Any, _Entry] = {}
        self._waiting: list[_Entry] = []  # taken, but without room on the nodes that they may use
        self._begun: dict[int, dict[str, Any]] = {}
        self._begun_kinds: dict[Hashable, str] = {}  # until something of theirs is done: `Cluster.kinds`
        self._wishes, self._tended, self._alone_since = _Wishes(), 0.0, 0.0
        self._more = True

    def results(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield results as they come; raise at the end what was raised first."""
        with stopping.deferred(), stopping.listening(self._hear):
            try:
                while True:
                    self._tend()
                    if not self._wishes.closed:
                        self._take(items)
                        self._need_nodes()
                    if not self._running and (self._wishes.closed or not (self._waiting or self._more)):
                        break
                    yield from self._ended()
            except BaseException as error:
                self._abandon(at_once=isinstance(error, KeyboardInterrupt))
                raise
        self._tend(now=True)
        if self.error:
            raise self.error
        if self.stopped:
            lines = dict.fromkeys(str(each) for each in self.stopped)
            raise stopping.Stopped("\n".join(lines), stopping.asked() or self.stopped[0].code)
        stopping.need_go_on("when the tasks that were under way had ended; the same command goes on from there")

    def _hear(self, number: int) -> None:
        """Note in the handler of a signal what is passed on."""
        if number == stopping.SAVE:
            self._wishes.saves += 1

    def _take(self, items: Iterator[Any]) -> None:
        """Give items to Ray while there is room; those without room on the nodes that they may use are kept."""
        self._waiting = [entry for entry in self._waiting if not self._place(entry)]
        while self._more and self._has_room() and not stopping.asked():
            try:
                item = next(items)
            except StopIteration:
                self._more = False
                return
            entry = _Entry(item, str(self.name(item)), self.kind_of(item) if self.kind_of else None)
            if not self._place(entry):
                self._waiting.append(entry)

    def _has_room(self) -> bool:
        total = sum(self._rooms().values())
        if self.most is not None and len(self._running) + len(self._waiting) >= self.most:
            return False
        return len(self._running) + len(self._waiting) < 2 * total + SPARE and any(
            self._free(kind) > 0 for kind in self._kinds()
        )

    def _kinds(self) -> dict[str, list[str]]:
        """Return the kinds of node → the keys of those that can work; one kind where that does not matter."""
        kinds: dict[str, list[str]] = {}
        for key, node in self.cluster.good.items():
            if node.room(self.needs) > 0:
                kinds.setdefault(node.report.kind if self.kind_of else "", []).append(key)
        return kinds

    def _rooms(self) -> dict[str, int]:
        """Return how many tasks each kind of node holds at a time."""
        nodes = self.cluster.nodes
        return {kind: sum(nodes[key].room(self.needs) for key in keys) for kind, keys in self._kinds().items()}

    def _free(self, kind: str) -> int:
        """Return how many more tasks are given to a kind of node now."""
        keys = set(self._kinds().get(kind, ()))
        used = sum(bool(entry.keys & keys) for entry in self._running.values())
        return self._rooms().get(kind, 0) + SPARE - used

    def _place(self, entry: _Entry) -> bool:
        """Give a task to Ray where its kind of node has room; returns whether it was given."""
        kind = self._kind_for(entry)
        if kind is None or self._free(kind) <= 0:
            return False
        if self.most is not None and len(self._running) >= self.most:
            return False
        entry.kind, entry.keys = kind, frozenset(self._kinds()[kind])
        entry.number, reference = self.cluster.submit(
            self.task,
            entry.item,
            self.needs,
            self.parcel,
            entry.keys,
            name=entry.name,
            shared=self.cluster.shared,
            again=entry.again,
        )
        self._running[reference] = entry
        return True

    def _kind_for(self, entry: _Entry) -> str | None:
        """Return the kind of node on which a task runs; None where none is there."""
        kinds = self._kinds()
        if self.kind_of is None:
            return next(iter(kinds), None)
        settled = self.cluster.kinds.get(entry.group)
        if settled is not None:
            return settled if settled in kinds else None
        begun = self._begun_kinds.get(entry.group)
        if begun in kinds:
            return begun
        best = max(kinds, key=self._free, default=None)
        if best is not None:
            self._begun_kinds[entry.group] = best
        return best

    def _ended(self) -> Iterator[Any]:
        """Yield the results of tasks that have ended; waits a moment for one."""
        import ray

        if not self._running:
            time.sleep(0.1)
            return
        ray.wait(list(self._running), num_returns=1, timeout=0.25)
        ready, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        for reference in ready:
            entry = self._running.pop(reference)
            try:
                how, made = self._made(reference, entry)
            except _Lost as lost:
                self._lose(entry, str(lost))
                continue
            if how == "made":
                if self.kind_of is not None:
                    self.cluster.kinds.setdefault(entry.group, entry.kind)
                yield made
            elif how == "raised":
                self._fail(made)
            # else it had not begun when that was not wanted any more

    def _made(self, reference: Any, entry: _Entry) -> tuple[str, Any]:
        """Return how a task has ended, with its result or its error."""
        import ray
        from ray import exceptions

        losses = (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.ObjectLostError)
        try:
            answer = ray.get(reference)
        except exceptions.TaskCancelledError:
            return "unbegun", None
        except exceptions.OutOfMemoryError as error:
            raise _Lost("its process was ended by Ray, as the node's memory ran out") from error
        except (*losses, exceptions.TaskUnschedulableError, exceptions.RaySystemError) as error:
            node = self._begun.get(entry.number, {}).get("host", "")
            raise _Lost(f"its process or its node{f' ({node})' if node else ''} is gone") from error
        if answer.how == "gone":
            raise _Lost(f"its process on {answer.host} {ending(int(answer.content))}")
        if answer.how == "failed":
            return "raised", KitError(
                f"{entry.name}, on {answer.host}: {answer.content.decode()}; mend that there"
            )
        if answer.how == "unheard":
            raise _Lost(f"its worker on {answer.host} did not hear whether it is to begin")
        if answer.how not in ("made", "raised"):
            return "unbegun", None
        try:
            made = content_of(answer)
        except Unreadable as error:
            return "raised", RuntimeError(f"{entry.name}, on {answer.host}: {error}")
        asked_there = isinstance(made, stopping.Stopped) and made.code == 128 + signal.SIGTERM
        if answer.how == "raised" and asked_there and not stopping.asked() and not self._wishes.closed:
            raise _Lost(f"its process was asked to stop by its node ({answer.host})")
        return answer.how, made

    def _fail(self, error: BaseException) -> None:
        """Note what a task raised; nothing more begins."""
        if isinstance(error, stopping.Stopped):
            self.stopped.append(error)
        elif self.error is None:
            self.error = error
        self._close()

    def _lose(self, entry: _Entry, how: str) -> None:
        """Begin a task again whose process is gone, unless that was so too often."""
        if self._wishes.closed or stopping.asked():
            self.stopped.append(
                stopping.Stopped(f"{entry.name}: {how}; the same command goes on", stopping.asked() or 1)
            )
            return
        entry.losses, entry.again = entry.losses + 1, True
        if entry.losses >= TRIES:
            self._fail(KitError(f"{entry.name}: {how}, the {entry.losses}th time; {ADVICE}"))
            return
        self.cluster.say(f"{entry.name}: {how}; it is begun again ({entry.losses} of {TRIES - 1})")
        self._waiting.insert(0, entry)

    def _close(self, stop: int = 0) -> None:
        """Begin nothing any more, and with `stop` let those under way stop; what waits at Ray is taken back."""
        self._wishes.closed, self._wishes.stop = True, stop or self._wishes.stop
        self._tend(now=True)
        self._waiting.clear()
        for reference, entry in self._running.items():
            if entry.number not in self._begun:  # nor will it, as the board says so to whoever asks
                self.cluster.take_back(reference)

    def _tend(self, now: bool = False) -> None:
        """Each second: pass on what the user asks, print and show what tasks say, and look at the nodes."""
        if stopping.asked() and not self._wishes.stop:
            self._wishes.stop = stopping.asked()  # before `_close`, which comes back here
            self._close(stopping.asked())
            return
        if not now and time.monotonic() - self._tended < TEND_SECONDS:
            return
        self._tended = time.monotonic()
        # A worker that was killed could not say that its task has ended.
        numbers = {entry.number for entry in self._running.values()}
        gone = [number for number in self._begun if number not in numbers]
        self._wishes.now = time.monotonic()
        self._begun = self.cluster.exchange(vars(self._wishes), gone)
        self.cluster.show(self._standings())
        if not self._wishes.closed:
            self.cluster.watch()
            self._take_back()

    def _standings(self) -> list[Standing]:
        nodes = self.cluster.nodes
        standings = []
        for entry in self._running.values():
            if (told := self._begun.get(entry.number)) is not None:
                node = nodes.get(told["node"])
                device = node.report.device if node else ""
                done, total = told.get("done", 0), told.get("total", 0)
                standings.append(Standing(entry.name, told["host"], device, done, total, told.get("speed", 0.0)))
        return standings

    def _take_back(self) -> None:
        """Take tasks back that wait for nodes of which none is there any more."""
        good = self.cluster.good.keys()
        for reference, entry in list(self._running.items()):
            if not entry.keys & good and entry.number not in self._begun:
                self.cluster.take_back(reference)
                del self._running[reference]
                self._waiting.insert(0, entry)

    def _need_nodes(self) -> None:
        """Raise KitError where tasks wait for nodes of which none has come for some minutes."""
        kinds = self._kinds()
        alone = [entry for entry in self._waiting if self._kind_for(entry) is None]
        if not alone and (kinds or not self._more):
            self._alone_since = 0.0
            return
        what = f"{alone[0].name}: no node is left for it" if alone else "no node is left"
        if not self._alone_since:
            self._alone_since = time.monotonic()
            self.cluster.say(f"{what}; waiting {WAIT_SECONDS / 60:.0f} minutes for one to join the cluster")
        if time.monotonic() - self._alone_since > WAIT_SECONDS:
            self._fail(KitError(f"{what}; add nodes to the cluster, and the same command goes on"))

    def _abandon(self, at_once: bool) -> None:
        """End what is under way, where nobody takes its results: by letting it stop, or at once."""
        import ray

        with suppress(Exception):
            if not at_once:
                self._close(128 + signal.SIGTERM)
                ray.wait(list(self._running), num_returns=len(self._running), timeout=END_SECONDS)
            for reference in self._running:
                self.cluster.take_back(reference, at_once=True)
