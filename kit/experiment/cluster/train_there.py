"""A run of an experiment on a node of a cluster, and what comes back of it."""

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from kit.core import stopping
from kit.core.claims import Claim
from kit.core.devices import kind_in_words
from kit.core.errors import KitError, NotWritten, ignore
from kit.core.files import write_bytes
from kit.core.litter import remove_litter
from kit.core.owner import Owner
from kit.core.paths import inside
from kit.core.runs import TRAINED_ANEW, RunDir, RunKey, RunRecord
from kit.core.settings import fingerprint
from kit.core.whole import need_sealed
from kit.experiment.budget_plan import Plan
from kit.experiment.cluster.memory import memory_of
from kit.experiment.cluster.order import open_order
from kit.experiment.cluster.site import NodeReport, Site
from kit.experiment.fingerprint import as_now
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.prepare import TrainingData
from kit.experiment.run_clock import RunClock
from kit.experiment.runner import is_settled, train_within
from kit.experiment.shared_folder import claim_training, holder_of_run
from kit.experiment.train_run import nothing, trained_on
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
    site, host = told_once(site), Owner.mine().host
    loaded, _ = open_order(dataclasses.replace(site, say=lambda line: site.say(f"{host}: {line}")), whole=True)
    told = trained_on(loaded.config, make_accelerator(loaded.config.training))
    kind = kind_in_words(RunRecord(policy="", seed=0, fold=0, **told))
    return NodeReport(host, kind, told["device_name"], memory=memory_of(loaded))


def train_there(site: Site, errand: Errand) -> Outcome:
    """Train a run on this node, unless another process does or has done so.

    Raises
    ------
    Stopped
        Where that was asked for; it goes on from its checkpoint, on a node that sees it.
    KitError
        As `train_run`.
    """
    since, site = time.monotonic() - (site.now - errand.plan.budget.since), told_once(site)  # by this node's clock
    loaded, data = open_order(site)
    data = with_workers(data, errand.workers)
    key, run = errand.key, loaded.folder.run(errand.key)
    main = process_state(loaded.config.training).is_main_process
    mine = _claimed(run, key, partial(is_settled, loaded, errand.tolerant), site) if main else None
    if not agreed(mine is not None):
        return _there_already(run, key, loaded, errand.tolerant, site, main)
    if main and site.again:
        remove_litter(run.path)  # of the process that is gone
        if not run.resumable:
            lost = "" if site.shared else ", as its checkpoints were lost with the process's node"
            site.say(f"{key}: begins anew{lost}")
    clock = RunClock(_here(errand.plan, key, run, since), key, site.say)
    need = mine.need if mine else nothing
    with mine or nullcontext(), _naming_the_node():
        done = train_within(key, loaded, data, site.say, errand.tolerant, clock, need)
        return Outcome(key, done, {} if site.shared or not main else _handed_over(run))


@contextmanager
def _naming_the_node() -> Iterator[None]:
    """Say on which node a file could not be written."""
    try:
        yield
    except NotWritten as error:
        raise NotWritten(f"{Owner.mine().host}: {error}") from error


def told_once(site: Site) -> Site:
    """Return the site, lines of which the first alone of the processes that train together says."""
    return site if os.environ.get("RANK", "0") == "0" else dataclasses.replace(site, say=ignore)


def _claimed(run: RunDir, key: RunKey, settled: Callable[[RunKey], bool], site: Site) -> Claim | None:
    """Claim the run, if it is not settled. In a folder of this node's own another command is waited for: the
    driver sees none of its claims."""
    if not site.shared and run.finished and run.damaged():
        shutil.rmtree(run.path)
    told = False
    while (mine := claim_training(run, key, settled, site.say, surely=True)) is None:
        if site.shared or settled(key):
            return None
        if not told:
            site.say(f"{key}: waits for {holder_of_run(run) or 'another command'} on its node")
            told = True
        stopping.need_go_on(f"before {key}; the same command begins it")
        time.sleep(1.0)
    return mine


def _there_already(
    run: RunDir, key: RunKey, loaded: LoadedExperiment, tolerant: bool, site: Site, main: bool
) -> Outcome:
    """What is told of a run that this process did not get: another one has it, or has done it."""
    if not is_settled(loaded, tolerant, key):
        return Outcome(key, None, {})
    if site.shared or not main:
        return Outcome(key, False, {})
    site.say(f"{key}: was trained on its node before, and had not arrived")
    return Outcome(key, False, _handed_over(run))


def _handed_over(run: RunDir) -> dict[str, bytes]:
    """What a run has left in a folder of this node's own, from which it is removed: nobody else reads it."""
    if files := files_of(run):
        shutil.rmtree(run.path, ignore_errors=True)  # a claim may be made or beat there meanwhile
    return files


def with_workers(data: TrainingData, workers: int) -> TrainingData:
    """Return the data, batches of which are prepared by so many workers."""
    config = data.recipe.data.model_copy(update={"workers": workers})
    return dataclasses.replace(data, recipe=dataclasses.replace(data.recipe, data=config))


def _here(plan: Plan, key: RunKey, run: RunDir, since: float) -> Plan:
    """The plan by this node's clock, by which the command began at `since`."""
    budget = dataclasses.replace(plan.budget, since=since)
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
    then, due = (as_now(each, loaded.config) for each in (told.depends_on, loaded.dependencies(key)))
    if odd or told.key != key or then != due or told.fingerprint != fingerprint(told.depends_on):
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
