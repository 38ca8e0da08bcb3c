"""The state of runs on disk, on the terminal."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for annotations alone
    from kit.experiment.examine import FolderState


def show_runs(folders: Sequence["FolderState"]) -> None:
    """Print each folder: a line a policy for runs that are complete, a line a run for others, then all else."""
    from kit.experiment.examine import counts

    for folder in folders:
        print(f"{folder.folder}: {counts([folder])}")
        complete: dict[str, list[str]] = defaultdict(list)
        for run in folder.runs:
            if run.state == "complete":
                policy, _, rest = run.run.rpartition("/seed")
                complete[policy].append(f"seed{rest}")
        for policy, places in complete.items():
            many = f"{policy}: {len(places)} runs, {places[0]} to {places[-1]}"
            _line("complete", f"{policy}/{places[0]}" if len(places) == 1 else many)
        if folder.unchecked:
            _line("", f"{folder.unchecked} of them are of an early version, whose files have no digests to check")
        for run in folder.runs:
            if run.state != "complete":
                _line(run.state, f"{run.run}: {run.about}" if run.about else run.run, run.advice)
        for fault in folder.faults:
            _line("damaged", f"{fault.file}: {fault.about}", fault.advice)
        for worker in folder.at_work:
            _line("at work", worker)
        for name in folder.litter:
            _line("litter", name)
        if folder.litter:
            _line("", "", "the next python -m kit run (or compare) removes what processes left that are gone")


def _line(state: str, text: str, advice: str = "") -> None:
    if text:
        print(f"  {state.upper() if state == 'damaged' else state:10} {text}")
    if advice:
        print(f"  {'':10} → {advice}")
