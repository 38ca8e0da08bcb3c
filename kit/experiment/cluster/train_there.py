"""A run of an experiment on a node of a cluster, and what comes back of it."""

import dataclasses
import json
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from kit.core.devices import kind_in_words
from kit.core.errors import KitError
from kit.core.files import write_bytes
from kit.core.litter import remove_litter
from kit.core.owner import Owner
from kit.core.paths import inside
from kit.core.runs import TRAINED_ANEW, RunDir, RunKey, RunRecord
from kit.core.settings import fingerprint
from kit.core.whole import need_sealed
from kit.experiment.cluster.memory import memory_of
from kit.experiment.cluster.order import open_order
from kit.experiment.cluster.site import NodeReport, Site
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.prepare import TrainingData
from kit.experiment.runner import is_settled, train_within
from kit.experiment.shared_folder import claim_training
from kit.experiment.timekeeping import Plan, RunClock
from kit.experiment.train_run import trained_on
from kit.training.device import agreed, make_accelerator, process_state

PRELOAD = (__name__,)
RECORD = "run.json"


@dataclass(frozen=True)
class Errand:
    """A run that a node is to train.

    Attributes
    ----------
    key : RunKey
    tolerant : bool
        As in `Runner.train`.
    workers : int
        Data workers.
    plan : Plan
        Of this run alone; its budget begins by the driver's clock (`Site.now`).
    """

    key: RunKey
    tolerant: bool
    workers: int
    plan: Plan


@dataclass(frozen=True)
class Outcome:
    """What became of a run on a node.

    Attributes
    ----------
    key : RunKey
    done : bool or None
        Whether the node trained it to its end; None where another process has it.
    files : dict of str to bytes
        What the run left, by its path in the run's folder, where that is not shared.
    """

    key: RunKey
    done: bool | None
    files: dict[str, bytes]


def look_there(site: Site, item: object) -> NodeReport:
    """Say whether this node can train the experiment, and on what; KitError where it cannot."""
    loaded, _ = open_order(site, whole=True)
    told = trained_on(loaded.config, make_accelerator(loaded.config.training))
    kind = kind_in_words(RunRecord(policy="", seed=0, fold=0, **told))
    mine = Owner.mine()
    return NodeReport(mine.host, mine.place, kind, told["device_name"], memory=memory_of(loaded))


def train_there(site: Site, errand: Errand) -> Outcome:
    """Train a run on this node, unless another process does or has done so.

    Raises
    ------
    Stopped
        Where that was asked for; it goes on from its checkpoint, on a node that sees it.
    KitError
        As `train_run`.
    """
    loaded, data = open_order(site)
    data = with_workers(data, errand.workers)
    key, run = errand.key, loaded.folder.run(errand.key)
    settled = partial(is_settled, loaded, errand.tolerant)
    main = process_state(loaded.config.training).is_main_process
    mine = claim_training(run, key, settled, site.say, surely=True) if main else None
    if not agreed(mine is not None):
        done = False if settled(key) else None
        return Outcome(key, done, {} if site.shared or done is None or not main else files_of(run))
    if main and site.again:
        remove_litter(run.path)  # of the process that is gone
        if not run.resumable:
            lost = "" if site.shared else ", as its checkpoints were lost with the process's node"
            site.say(f"{key}: begins anew{lost}")
    plan = _here(errand.plan, key, run, site.now)
    with mine or nullcontext():
        done = train_within(
            key,
            loaded,
            data,
            site.say if main else lambda line: None,
            errand.tolerant,
            RunClock(plan, key, site.say),
            mine.need if mine else lambda: None,
        )
    return Outcome(key, done, {} if site.shared or not main else files_of(run))


def with_workers(data: TrainingData, workers: int) -> TrainingData:
    """Return the data, batches of which are prepared by so many workers."""
    config = data.recipe.data.model_copy(update={"workers": workers})
    return dataclasses.replace(data, recipe=dataclasses.replace(data.recipe, data=config))


def _here(plan: Plan, key: RunKey, run: RunDir, now: float) -> Plan:
    """The plan by this node's clock, which is not the driver's: what counts is how long ago it began there."""
    budget = dataclasses.replace(plan.budget, since=time.monotonic() - (now - plan.budget.since))
    return dataclasses.replace(plan, budget=budget, runs={key: run}, begun={key: time.monotonic()})


def files_of(run: RunDir) -> dict[str, bytes]:
    """Return what a run has left, by the path in its folder; nothing where it has not ended."""
    if not (run.finished or run.diverged):
        return {}
    kept = {run.path / RECORD, *run.artefacts}
    files = [path for path in run.path.rglob("*") if path in kept or run.tracker in path.parents]
    return {path.relative_to(run.path).as_posix(): path.read_bytes() for path in files if path.is_file()}


def receive(run: RunDir, files: dict[str, bytes], loaded: LoadedExperiment, key: RunKey) -> None:
    """Write down what a run has left on a node, its record last.

    Parameters
    ----------
    run : RunDir
        Claimed by this process.
    files : dict
        As `files_of` returns them.
    loaded : LoadedExperiment
    key : RunKey

    Raises
    ------
    KitError
        Where it is not what the node wrote, or of another run, and nothing is written.
    """
    content, place = json.loads(files[RECORD]), run.path / RECORD
    need_sealed(content, place, TRAINED_ANEW)
    told = RunRecord.model_validate({name: value for name, value in content.items() if name != "digest"})
    others = {name: each for name, each in files.items() if name != RECORD}
    odd = [name for name, digest in told.files.items() if sha256(others.get(name, b"")).hexdigest() != digest]
    if odd or told.key != key or told.fingerprint != fingerprint(loaded.dependencies(key)):
        what = f"its {odd[0]}" if odd else "it"
        raise KitError(f"{key}: {what} did not arrive as the node wrote it; the same command trains it again")
    for path in run.artefacts:
        if path.name not in others:
            path.unlink(missing_ok=True)
    for name, each in others.items():
        write_bytes(inside(run.path, name, str(key)), each)
    write_bytes(place, files[RECORD])
    for checkpoint in (run.checkpoint, run.checkpoint_before):
        checkpoint.unlink(missing_ok=True)
