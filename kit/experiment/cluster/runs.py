"""The runs of an experiment on a cluster: what each takes of a node, where it goes, what comes back."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.core.claims import Claim
from kit.core.devices import kind_in_words
from kit.core.errors import KitError, Say
from kit.core.runs import ExperimentDir, RunKey
from kit.core.stopping import telling
from kit.data.loading import worker_count
from kit.experiment.cluster.cluster import Cluster
from kit.experiment.cluster.nodes import alive_nodes
from kit.experiment.cluster.order import order_files
from kit.experiment.cluster.site import Needs, Task
from kit.experiment.cluster.table import Table
from kit.experiment.cluster.train_there import Errand, Outcome, look_there, receive, train_there
from kit.experiment.config import ExperimentConfig
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.options import RunOptions
from kit.experiment.prepare import TrainingData
from kit.experiment.side_by_side import stated_threads
from kit.experiment.train_run import counted
from kit.experiment.turns import Turns
from kit.training.batches import Together


@dataclass(frozen=True)
class _Devices:
    """The processes that train a run together, as the first of them sees it."""

    num_processes: int
    process_index: int = 0


MOST_WORKERS = 8
WORKER_MEMORY = 400e6  # bytes of a process that prepares batches


def needs_of(config: ExperimentConfig, options: RunOptions, nodes: Mapping[str, Mapping[str, float]]) -> Needs:
    """Return what a run takes of a node.

    With GPUs a run has one, or a share where `options.jobs` are more than there are, or as many as
    `options.devices`; and its share of the node's cores, for data workers. Without, it has as many cores as it
    computes with: `options.threads`, else so many that `options.jobs` runs fit, else all of the smallest node.

    Parameters
    ----------
    config : ExperimentConfig
    options : RunOptions
    nodes : mapping
        Of each node, Ray's resources → how much.

    Raises
    ------
    KitError
        Where there is no node.
    """
    if not nodes:
        raise KitError("the cluster has no node")
    jobs, devices = options.jobs, options.devices
    gpus = {key: has.get("GPU", 0.0) for key, has in nodes.items()}
    if config.training.device == "auto" and any(gpus.values()):
        at_a_time = 1 if jobs == "auto" else math.ceil(jobs * devices / sum(gpus.values()))
        share = 1 / at_a_time if devices == 1 else 1.0
        each = min(nodes[key].get("CPU", 1.0) / (count / share) for key, count in gpus.items() if count)
        auto = max(0, min(MOST_WORKERS, math.floor(each) - 1))
        workers = auto if config.data.workers == "auto" else int(config.data.workers)
        cpus = devices * max(workers + 1, 1)
        return Needs(cpus, devices * share, 0, options.threads or max(1, math.floor(each)), devices)
    workers = worker_count(config.data.workers, on_gpu=False)
    cores = [int(has.get("CPU", 1.0)) for has in nodes.values()]
    fewest = max(1, min(cores) // devices)
    threads = fewest if jobs == "auto" else max(1, min(fewest, sum(cores) // (jobs * devices)))
    threads = options.threads or threads
    return Needs(devices * max(threads, workers + 1), 0.0, 0, threads, devices)


def workers_of(config: ExperimentConfig, needs: Needs) -> int:
    """Return how many data workers each process of a run has."""
    if config.data.workers != "auto":
        return int(config.data.workers)
    return needs.cpus // needs.processes - 1 if needs.gpus else 0


class ClusterRuns:
    """The runs of experiments on the cluster that `options` name; a context manager, which leaves it.

    Attributes
    ----------
    cluster : Cluster
    """

    def __enter__(self) -> "ClusterRuns":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __init__(self, config: ExperimentConfig, options: RunOptions, say: Say):
        assert options.on is not None, "asked before"
        self.options, self.say, self.dirs = options, say, options.dirs
        self.cluster = Cluster.join(options.on, say, self.dirs.cache)
        try:
            nodes = {key: node["Resources"] for key, node in alive_nodes().items()}
            self._needs = needs_of(config, self._with_threads(config, nodes), nodes)
        except BaseException:
            self.close()
            raise
        self._looked: tuple[Any, Needs, Any] | None = None
        self._told: str = ""

    def _with_threads(self, config: ExperimentConfig, nodes: Mapping[str, Mapping[str, float]]) -> RunOptions:
        """The options; with the threads of runs that are there, where they state none and a node has as many."""
        if self.options.threads:
            return self.options
        threads = stated_threads(ExperimentDir(self.dirs.runs / config.name))
        cores = max((has.get("CPU", 1.0) for has in nodes.values()), default=0.0)
        if threads and threads * self.options.devices > cores:
            self.say(
                f"the runs that are there were trained with {counted(threads)} each, no node has cores for that: "
                "those trained here differ in the last bits"
            )
            threads = None
        return dataclasses.replace(self.options, threads=threads)

    def close(self) -> None:
        """Leave the cluster."""
        self.cluster.__exit__()

    def prepare(self, loaded: LoadedExperiment, data: TrainingData, runs: Path | None = None) -> None:
        """Have the nodes look whether they can train the experiment, unless they did.

        Parameters
        ----------
        loaded : LoadedExperiment
        data : TrainingData
        runs : Path, optional
            The folder of experiments, where that is another than the options say.

        Raises
        ------
        KitError
            Where none can.
        """
        files = order_files(loaded, data, runs or self.dirs.runs)
        if self.look(files, look_there, writes=runs is None):
            self._go_by_kinds(loaded)

    def look(self, files: dict[str, bytes], look: Task, item: object = None, writes: bool = False) -> bool:
        """Have the nodes look whether they can work with files that travel, unless they did; whether they did now.

        They do so by `look(site, item)`; `writes`: tasks will write runs.

        Raises
        ------
        KitError
            Where none can.
        """
        if self._looked and self._looked[0] == files:
            return False
        parcel = self.cluster.parcel(files)
        reports = self.cluster.look(
            look, item, self._needs, parcel, self.dirs.root, self.options.data_root
        ).values()
        needs = dataclasses.replace(self._needs, memory=self._memory(max(each.memory for each in reports)))
        self._looked = files, needs, parcel
        self._tell(needs, writes)
        return True

    def workers(self, config: ExperimentConfig) -> int:
        """Return how many data workers each process of a run has."""
        return workers_of(config, self._needs)

    def _memory(self, told: int) -> int:
        """What a run is said to take of a node's memory; what the smallest node has, where it has less."""
        wanted = self._needs.processes * told + int(WORKER_MEMORY * self._needs.cpus if self._needs.gpus else 0)
        return min(wanted, *(int(node.has.get("memory", wanted)) for node in self.cluster.good.values()))

    def _tell(self, needs: Needs, writes: bool) -> None:
        """Say how many tasks go side by side, on what, and where runs are written."""
        kinds = sorted(self.kinds)
        where = (
            f"they write into {self.dirs.runs}, which all nodes see"
            if self.cluster.shared
            else f"not all nodes see {self.dirs.runs}: finished runs are brought here, checkpoints stay on "
            "their node"
        )
        of = f"{needs.gpus:g} GPU" if needs.gpus else f"{needs.threads} thread{'s' * (needs.threads != 1)}"
        line = f"{self.room} at a time, each with {of}, on {' and on '.join(kinds)}"
        line += f"; {where}" if writes else ""
        if line != self._told:
            self.say(line)
            self._told = line

    @property
    def together(self) -> Together:
        """The processes that train each run."""
        return _Devices(self._needs.processes)

    @property
    def shared(self) -> Path | None:
        """The folder that all nodes see; None where there is none."""
        return self.dirs.root if self.cluster.shared else None

    @property
    def kinds(self) -> set[str]:
        """The kinds of device, in words, of the nodes that can work."""
        return {node.report.kind for node in self.cluster.good.values()}

    @property
    def room(self) -> int:
        """How many runs the nodes hold at a time."""
        needs = self._looked[1] if self._looked else self._needs
        room = sum(node.room(needs) for node in self.cluster.good.values())
        return room if self.options.jobs == "auto" else min(room, self.options.jobs)

    @property
    def _most(self) -> int | None:
        return None if self.options.jobs == "auto" else self.options.jobs

    def train(self, loaded: LoadedExperiment, total: int, turns: Turns, tolerant: bool) -> int:
        """Train what nobody else trains; how many runs.

        Parameters
        ----------
        loaded : LoadedExperiment
            Which the nodes were prepared for.
        total : int
            Runs that are due.
        turns : Turns
        tolerant : bool
            As in `Runner.train`.
        """
        mine: dict[RunKey, Claim] = {}
        errands, trained = self._errands(loaded, turns, tolerant, mine), 0
        try:
            for outcome in self.results(train_there, errands, lambda each: each.key, _seed_and_fold, total):
                trained += self._take(outcome, loaded, turns, mine)
        finally:
            for claim in mine.values():
                claim.release()
        return trained

    def _go_by_kinds(self, loaded: LoadedExperiment) -> None:
        """Let what is paired with runs that are there run on their kind of device; say where that cannot be."""
        there = self.kinds
        elsewhere = Counter[str]()
        for run in loaded.folder.runs():
            try:
                record = run.record
            except KitError:  # told where it is read for what it holds
                continue
            if (kind := kind_in_words(record)) in there:
                self.cluster.kinds.setdefault((record.seed, record.fold), kind)
            elif record.status == "finished":
                elsewhere[kind] += 1
        for kind, count in elsewhere.items():
            self.say(
                f"{count} run{'s' * (count != 1)} were trained before on {kind}, of which no node is: what "
                "is trained now is not paired with them, unless compare is told --mixed-devices"
            )

    def results(
        self,
        task: Task,
        items: Iterable[Any],
        name: Callable[[Any], object],
        kind_of: Callable[[Any], Hashable] | None,
        total: int,
    ) -> Iterator[Any]:
        """Yield what tasks make on the nodes that `prepare` found, as `Cluster.run`, showing how far they are."""
        assert self._looked is not None, "prepared before"
        _, needs, parcel = self._looked
        ended = 0
        try:
            with (
                Table() as table,
                telling("while nodes worked; what is finished is kept, the same command goes on"),
            ):
                self.cluster.show = lambda standings: table.show(standings, ended, total)
                for made in self.cluster.run(task, items, needs, parcel, name, kind_of, self._most):
                    ended += 1
                    yield made
        finally:
            self.cluster.show = lambda standings: None

    def _errands(
        self, loaded: LoadedExperiment, turns: Turns, tolerant: bool, mine: dict[RunKey, Claim]
    ) -> Iterator[Errand]:
        """What is to be trained, as there is room; claimed here where nodes do not see the folder."""
        workers = self.workers(loaded.config)
        while True:
            if self.cluster.shared:
                key = next(turns, None)
            else:
                key, claim = turns.take() or (None, None)
                if key and claim:
                    mine[key] = claim
                    if loaded.folder.run(key).resumable:
                        self.say(f"{key}: nodes do not see its checkpoint here, and begin it anew")
            if key is None:
                return
            plan = turns.plan
            alone = dataclasses.replace(
                plan,
                due=[key],
                keys=[key],
                work={each: work for each, work in plan.work.items() if each == key},
                runs={},
                jobs=max(2, self.room),  # each decides for itself alone
                begun={},
                free=[],
            )
            yield Errand(key, tolerant, workers, alone)

    def _take(self, outcome: Outcome, loaded: LoadedExperiment, turns: Turns, mine: dict[RunKey, Claim]) -> bool:
        """Write down what came back, and say whether a run was trained."""
        key, claim = outcome.key, mine.pop(outcome.key, None)
        try:
            if outcome.files and claim:
                claim.need()
                receive(loaded.folder.run(key), outcome.files, loaded, key)
        finally:
            if claim:
                claim.release()
        if outcome.done is None:
            turns.give_back(key)
        return bool(outcome.done)


def _seed_and_fold(errand: Errand) -> tuple[int, int]:
    """What is compared with each other: all policies of a seed and a fold run on one kind of device."""
    return errand.key.seed, errand.key.fold
