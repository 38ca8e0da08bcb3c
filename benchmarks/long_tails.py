"""What samplers and losses give on a long tail, with argmax and with a decision rule: the table of a competition.

    PYTHONPATH=. python benchmarks/long_tails.py CONFIG [--ratio 20] [--solution FILE] [--set key=value ...]

CONFIG describes a competition with one label a row and a folder (as `python -m kit init` writes it). Of its train
table classes are cut to counts that fall exponentially, the rarest to 1/ratio of the most frequent; images are
linked. Each setting is trained on the same folds and seeds. Printed are macro F1 of the out-of-fold rows and, with
--solution (id and label of the test rows, which are not cut), of the test rows: means over seeds, and the
difference to plain training of the same seeds with its standard error. Rules are fitted out of fold, and scored
there cross-fitted; test labels choose nothing. Meant for 20 minutes on two cores with 43 classes at 32 px.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from side_by_side import machine

from kit import KitError, load_experiment, run
from kit.competition.load import load_competition
from kit.core.runs import ExperimentDir
from kit.experiment.config import ExperimentConfig
from kit.scoring.config import ScoringConfig
from kit.scoring.decide import choose_rule, decide_test
from kit.scoring.f1 import argmax, score

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sampler sqrt": {"sampler": "sqrt"},
    "sampler balanced": {"sampler": "balanced"},
    "logit_adjusted": {"loss": "logit_adjusted"},
    "focal": {"loss": "focal"},
    "class_weights balanced": {"class_weights": "balanced"},
}
COLUMNS = ("OOF argmax", "OOF rule", "test argmax", "test rule")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--ratio", type=float, default=20.0, help="rows of the most frequent class to the rarest")
    parser.add_argument("--least", type=int, default=4, help="rows that a class keeps")
    parser.add_argument("--solution", type=Path, help="labels of the test rows, for the test columns alone")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--model", default="resnet10t")
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--set", nargs="*", default=[], help="of the config, like data.augment=none")
    options = parser.parse_args()
    changes = [
        f"seeds={list(range(options.seeds))}",
        f"folds.k={options.folds}",
        f"training.epochs={options.epochs}",
        f"model.name={options.model}",
        *options.set,
    ]
    experiment = load_experiment(options.config, changes)
    with tempfile.TemporaryDirectory() as scratch:
        experiment, counts = long_tailed(experiment, Path(scratch) / "cut", options.ratio, options.least)
        print(
            f"{len(counts)} classes of {counts.max()} to {counts.min()} rows, {counts.sum()} in all; {machine()}"
        )
        scores = {}
        for name in options.settings:
            training = type(experiment.training).model_validate(
                experiment.training.model_dump() | SETTINGS[name], context={"folder": "."}
            )
            varied = experiment.model_copy(
                update={"name": name.replace(" ", "-").replace("_", "-"), "training": training}
            )
            folder = run(varied, scratch).folder
            scores[name] = scores_of(varied, folder, options.solution)
    table(scores)


def long_tailed(
    experiment: ExperimentConfig, folder: Path, ratio: float, least: int
) -> tuple[ExperimentConfig, np.ndarray]:
    """Write the competition with a long tail into a folder; return its experiment and the rows of its classes."""
    competition = experiment.competition
    there, train = Path(competition.path), competition.train or "train.csv"  # labels may be names of folders
    if not isinstance(competition.label, str) or competition.separator:
        raise KitError("competition.label: this benchmark is for one label a row, in one column")
    rows = load_competition(competition).train
    counts = rows[competition.label].value_counts(sort=True)
    steps = np.arange(len(counts)) / max(1, len(counts) - 1)
    wanted = np.round(counts.iloc[0] * ratio**-steps).astype(int)
    kept = dict(zip(counts.index, np.minimum(counts, np.maximum(wanted, least)), strict=True))
    shuffled = rows.iloc[np.random.default_rng(0).permutation(len(rows))]
    place = shuffled.groupby(competition.label).cumcount()
    cut = shuffled[place < shuffled[competition.label].map(kept)].sort_index()
    folder.mkdir(parents=True)
    for entry in there.iterdir():
        if entry.name not in (train, "solution.csv"):
            (folder / entry.name).symlink_to(entry.resolve())
    cut.to_csv(folder / train, index=False)
    name, policy = next(iter(experiment.policies.items()))
    update = {
        "competition": competition.model_copy(update={"path": str(folder), "train": train}),
        "policies": {name: policy},
    }
    return experiment.model_copy(update=update), np.array(list(kept.values()))


def scores_of(experiment: ExperimentConfig, folder: Path, solution: Path | None) -> np.ndarray:
    """Return the scores of each seed, float64 [seeds, columns]; of the test rows NaN without a solution."""
    competition, runs = experiment.competition, ExperimentDir(folder)
    train = pd.read_csv(Path(competition.path) / competition.train, dtype=str).set_index(competition.id)
    folds = pd.read_csv(runs.folds, dtype={"id": str}).set_index("id")["fold"]
    test = None if solution is None else pd.read_csv(solution, dtype=str).set_index(competition.id)
    by_seed: dict[int, dict[str, list[pd.DataFrame]]] = {}
    for each in runs.runs():
        frames = by_seed.setdefault(each.record.seed, {"oof": [], "test": []})
        frames["oof"].append(each.read_oof())
        frames["test"].append(each.read_test())
    scores = []
    for frames in by_seed.values():
        oof = pd.concat(frames["oof"])
        truth = indices(train.loc[oof.index, competition.label], oof.columns)
        config = ScoringConfig.model_validate(experiment.scoring.model_dump())
        choice = choose_rule(oof.to_numpy(), truth, folds.loc[oof.index].to_numpy(), config)
        row = [score(truth, argmax(oof.to_numpy()), config), choice.cross_fitted, np.nan, np.nan]
        if test is not None:
            by_fold = [frame.loc[test.index].to_numpy() for frame in frames["test"]]
            truth = indices(test[competition.label], oof.columns)
            row[2] = score(truth, argmax(np.mean(by_fold, axis=0)), config)
            row[3] = score(truth, decide_test(choice.rule, by_fold, config.transfer), config)
        scores.append(row)
    return np.array(scores)


def indices(labels: pd.Series, classes: pd.Index) -> np.ndarray:
    """Return the places of labels among the classes, int64 [rows]."""
    if all(str(name).isdecimal() for name in (*classes, *labels)):  # names of folders: "00007" is class 7
        classes, labels = classes.map(int), labels.map(int)
    found = classes.get_indexer(labels)
    if (found < 0).any():
        raise KitError(f"labels: {sorted(set(labels[found < 0]))[:5]} are no columns of the predictions")
    return found


def table(scores: dict[str, np.ndarray]) -> None:
    plain = next(iter(scores.values()))
    print(f"\n| setting | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for name, values in scores.items():
        cells = []
        for column, difference in zip(values.T, (values - plain).T, strict=True):
            cell = shown(column.mean())
            if values is not plain:
                error = difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else np.nan
                cell += f" ({difference.mean():+.3f} ± {error:.3f})"
            cells.append(cell)
        print(f"| {name} | {' | '.join(cells)} |")


def shown(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


if __name__ == "__main__":
    main()
