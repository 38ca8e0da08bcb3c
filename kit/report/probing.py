"""Pictures of what probes measured in one run, or in several side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kit.core.errors import KitError, some
from kit.core.files import need_output
from kit.core.runs import RunDir
from kit.report.measured import read_activations, read_learning


def probe(runs: Sequence[str | Path], prefix: str | None = None) -> list[Path]:
    """Draws activations, learning by depth and, where it was measured, the butterfly; returns the files.

    runs    folders like runs/thread/uniform/seed0/fold0
    prefix  of the files' names; None: `probes` in the run's folder, or where the command runs for several runs

    Raises KitError for a folder that is no run, one without probes, and runs of different networks.
    """
    from kit.report.probes import draw_activations, draw_butterfly, draw_learning

    members = {label: RunDir(Path(folder)) for label, folder in _labelled(runs).items()}
    activations = {label: read_activations(run.activations) for label, run in members.items()}
    learning = {label: read_learning(run.learning) for label, run in members.items()}
    for what, names in (
        ("layers", {label: each.layers for label, each in activations.items()}),
        ("depth groups", {label: each.groups for label, each in learning.items()}),
    ):
        _need_alike(what, names)
    start = Path(prefix) if prefix else (Path(runs[0]) if len(runs) == 1 else Path()) / "probes"
    files = [start.with_name(f"{start.name}-{what}.png") for what in ("activations", "learning", "butterfly")]
    need_output("--output", str(files[0]), (".png",))
    draw_activations(activations, files[0])
    draw_learning(learning, files[1])
    measured = {label: each for label, each in learning.items() if len(each.butterfly_steps)}
    if not measured:
        return files[:2]
    draw_butterfly(measured, files[2])
    return files


def _labelled(runs: Sequence[str | Path]) -> dict[str, str | Path]:
    """A label for each run: its policy, and its seed and fold where several runs of a policy are shown."""
    if len(set(map(str, runs))) < len(runs):
        raise KitError("probe: the same run stands there twice")
    labels = {}
    for folder in runs:
        record = RunDir(Path(folder)).read()
        if not record:
            raise KitError(
                f"{folder}: is no run (it holds no run.json); give a folder like runs/digits/uniform/seed0/fold0"
            )
        run = RunDir(Path(folder))
        if not (run.activations.is_file() and run.learning.is_file()):
            raise KitError(
                f"{folder}: was trained without probes; set training.probes={{every: 10}} (and runs: all there, "
                "for more than the first seed and fold) and train it anew under another name (--set name=...)"
            )
        labels[folder] = (record["policy"], f"{record['policy']} seed {record['seed']} fold {record['fold']}")
    short = [short for short, _ in labels.values()]
    named = {(pair[0] if short.count(pair[0]) == 1 else pair[1]): folder for folder, pair in labels.items()}
    if len(named) == len(runs):
        return named
    return {str(folder): folder for folder in runs}  # of several experiments


def _need_alike(what: str, names: Mapping[str, list[str]]) -> None:
    (first, expected), *others = names.items()
    for label, found in others:
        if found != expected:
            raise KitError(
                f"{label} has other {what} than {first} ({some(found, 5)} against {some(expected, 5)}): only runs "
                "of the same network are drawn side by side"
            )
