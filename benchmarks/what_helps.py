"""What each change gave on a competition whose test labels are at hand, and what it cost: a table.

    PYTHONPATH=. python benchmarks/what_helps.py CONFIG SOLUTION --work FOLDER [--set key=value ...] [--rows ...]

Each row is what a user types: its commands are printed and run, and can be gone on with (what is trained is kept
in FOLDER). Rows change one thing each of `plain`; at the end all that is there then is blended. Columns: the
out-of-fold score that the kit shows (cross-fitted) and the same metric of the submission on the test rows by
scikit-learn (which has to agree with `kit grade`), each with its difference to `plain`, that of the test rows with
its standard error (a paired bootstrap over them); CPU seconds of the commands; and how often a test image goes
through a network, in images of plain's size. SOLUTION chooses nothing.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from kit import grade, load_experiment
from kit.core.runs import ExperimentDir

Command = list[str]
DRAWS = 500  # of the bootstrap


@dataclass(frozen=True)
class Row:
    """A change: its commands, and the experiments that predict, of which the last one's submission is graded."""

    commands: list[Command]
    members: list[str]
    blend: str = ""

    def submission(self, folder: Path) -> Path:
        """The file in submissions/: an experiment's own is that of the policy that it began with."""
        named = folder / f"{self.blend or self.members[-1].replace('/', '+')}.csv"
        return named if named.is_file() else folder / f"{self.members[-1].partition('/')[0]}.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("solution", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="holds runs/, submissions/, cache/, seconds.json")
    parser.add_argument("--set", action="append", default=[], help="of the config: competition.path=FOLDER")
    parser.add_argument("--features", action="append", default=[], help="of the config, for features alone")
    parser.add_argument("--larger", type=int, help="the size for the row that predicts larger images")
    parser.add_argument("--loss", default="focal", help="for the row of another loss")
    parser.add_argument("--pseudo", default="--at-least .9", help="how `kit pseudo` takes rows")
    parser.add_argument("--rows", nargs="*", help="in this order; left out: all")
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    experiment = load_experiment(str(chosen.config), chosen.set)
    table = Table(experiment, chosen.solution, chosen.work)
    rows, members = rows_of(experiment.name, chosen), list[str]()
    for name in chosen.rows or rows:
        if table.add(name, rows[name]):
            members += [each for each in rows[name].members if each not in members]
    for what, method in (("blend", []), ("stack", ["--method", "stack"])):
        name = f"{experiment.name}-{what}"
        table.add(f"{what} of all", Row([["blend", *members, "--name", name, *method]], members, name))


def rows_of(name: str, chosen: argparse.Namespace) -> dict[str, Row]:
    """Return the rows of an experiment of this name; later ones go on from what earlier ones trained."""
    config = str(chosen.config.resolve())
    sets = [word for each in chosen.set for word in ("--set", each)]

    def run(*changes: str) -> Command:
        return ["run", config, *sets, *(word for each in changes for word in ("--set", each))]

    plain = run("seeds=[0]", "prediction.views=[]")
    features = ["features", config, *sets, *(word for each in chosen.features for word in ("--set", each))]
    heads = [*features, "--views", "hflip", "--head", "ridge", "--head", "logistic"]
    ridge, logistic = f"{name}-features/ridge", f"{name}-features/logistic"
    return {
        "plain": Row([plain], [name]),
        "views hflip": Row([run("seeds=[0]", "prediction.views=[hflip]")], [name]),
        "larger at prediction": Row([run("seeds=[0]", f"prediction.size={chosen.larger}")], [name]),
        "SWA": Row([run("seeds=[0]", f"name={name}-swa", "training.average=swa")], [f"{name}-swa"]),
        "sampler sqrt": Row(
            [run("seeds=[0]", f"name={name}-sampler", "training.sampler=sqrt")], [f"{name}-sampler"]
        ),
        f"loss {chosen.loss}": Row(
            [run("seeds=[0]", f"name={name}-loss", f"training.loss={chosen.loss}", "training.label_smoothing=0")],
            [f"{name}-loss"],
        ),
        "pseudo-labels": Row(
            [
                plain,
                ["pseudo", name, *chosen.pseudo.split(), "--replace"],
                ["run", f"{name}-pseudo.yaml"],
            ],
            [f"{name}-pseudo"],
        ),
        "features, ridge": Row([heads], [ridge]),
        "features, logistic": Row([heads], [logistic]),
        "two seeds": Row([run("seeds=[0, 1]")], [name]),
        "soup of two seeds": Row([["soup", name]], [f"{name}-soup"]),
    }


class Table:
    """Carries rows out, and prints each beside `plain`."""

    def __init__(self, experiment, solution: Path, work: Path):
        self.experiment, self.solution, self.work = experiment, solution, work
        self.seconds_file = work / "seconds.json"
        self.plain: tuple[float, pd.Series] | None = None

    def add(self, name: str, row: Row) -> bool:
        """Carry out a row and print it; whether it made what predicts (a soup that is worse is not kept)."""
        seconds = 0.0
        for command in row.commands:
            seconds += self._carry_out(command)
        if not (self.work / "runs" / (row.blend or row.members[-1].partition("/")[0])).is_dir():
            print(f"| {name} | not kept | | {seconds:.0f} | |", flush=True)
            return False
        oof = self._oof(row)
        submission = row.submission(self.work / "submissions")
        labels = self._labels(submission)
        value = self._metric(labels)
        told = grade(submission, self.solution, self.experiment).value
        assert abs(value - told) < 1e-9, f"scikit-learn says {value}, kit grade {told}"
        if self.plain is None:
            self.plain = oof, labels
            print("| change | OOF | test | CPU s | passes |\n|---|---|---|---|---|", flush=True)
            gains = "", ""
        else:
            oof_before, before = self.plain
            error = self._error(labels, before)
            gains = f" ({oof - oof_before:+.3f})", f" ({value - self._metric(before):+.3f} ± {error:.3f})"
        cells = f"{shown(oof)}{gains[0]} | {shown(value)}{gains[1]} | {seconds:.0f} | {self._passes(row):g}"
        print(f"| {name} | {cells} |", flush=True)
        return True

    def _carry_out(self, command: Command) -> float:
        """Run a command; return its CPU seconds, those of the time when it was run first."""
        known = json.loads(self.seconds_file.read_text()) if self.seconds_file.is_file() else {}
        line = " ".join(command)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"$ python -m kit {line}", file=sys.stderr, flush=True)
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        done = subprocess.run(
            [sys.executable, "-m", "kit", *command], cwd=self.work, stdout=sys.stderr, env=environment, check=False
        )
        if done.returncode:
            raise SystemExit(f"kit {line}: exit code {done.returncode}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        known[line] = max(used, known.get(line, 0.0))
        self.seconds_file.write_text(json.dumps(known, indent=1))
        return known[line]

    def _oof(self, row: Row) -> float:
        runs = self.work / "runs"
        if row.blend:
            return json.loads((runs / row.blend / "blend.json").read_text())["oof"]
        return json.loads((policy_folder(runs, row.members[-1]) / "scores.json").read_text())["oof"]

    def _passes(self, row: Row) -> float:
        """How often the test images go through a network, in images of the training's size."""
        passes = 0.0
        for member in row.members:
            folder = policy_folder(self.work / "runs", member)
            experiment = ExperimentDir(folder.parent)
            records = [run.record for run in experiment.runs(folder.name)]
            config = load_experiment(str(experiment.config))
            area = (config.data.size / self.experiment.data.size) ** 2
            if config.features:  # the heads of all folds share one body
                passes += area * (1 + len(config.features.views))
                continue
            passes += sum(area * passes_of(record.predicted, config.data.size) for record in records)
        return passes

    def _labels(self, submission: Path) -> pd.Series:
        table = pd.read_csv(submission, dtype=str, keep_default_na=False)
        labels = table.set_index(table.columns[0])[table.columns[1]].sort_index()
        return labels.map(lambda label: str(int(label)) if label.isdecimal() else label)  # "00007" is class 7

    def _metric(self, labels: pd.Series, taken: np.ndarray | slice = slice(None)) -> float:
        competition, average = self.experiment.competition, self.experiment.scoring.average
        truth = self._labels(self.solution)
        assert labels.index.equals(truth.index), "the submission has other rows"
        if not competition.separator:
            # The same classes whatever a draw of rows holds.
            return float(
                f1_score(
                    truth.iloc[taken],
                    labels.iloc[taken],
                    average=average,
                    labels=sorted(set(truth)),
                    zero_division=0,
                )
            )
        both = MultiLabelBinarizer().fit(truth.str.split(competition.separator))
        hot = [both.transform(each.iloc[taken].str.split(competition.separator)) for each in (truth, labels)]
        return float(f1_score(*hot, average=average, zero_division=0))

    def _error(self, labels: pd.Series, before: pd.Series) -> float:
        """The standard error of the difference on test rows, by a paired bootstrap over them."""
        random = np.random.default_rng(0)
        draws = [random.integers(len(labels), size=len(labels)) for _ in range(DRAWS)]
        return float(np.std([self._metric(labels, each) - self._metric(before, each) for each in draws], ddof=1))


def policy_folder(runs: Path, member: str) -> Path:
    """The folder of a member's policy; of an experiment alone, of the one that it has."""
    experiment, _, policy = member.partition("/")
    if policy:
        return runs / experiment / policy
    (file,) = (runs / experiment).glob("*/scores.json")
    return file.parent


def passes_of(predicted: Mapping | None, size: int) -> float:
    """Forward passes of one model a test image, those of larger images by their area."""
    predicted = predicted or {}
    views = 1 + sum(
        len(each) for each in predicted.values() if isinstance(each, Sequence) and not isinstance(each, str)
    )
    return views * (predicted.get("size", size) / size) ** 2


def shown(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


if __name__ == "__main__":
    main()
