"""An experiment as `run` and `compare` leave it, its runs made up."""

import json
from pathlib import Path

import numpy as np
from support.colours import experiment_content

from kit.competition.folds import FoldPlan, write_folds
from kit.competition.load import Competition, load_competition
from kit.core.files import write_json, write_text
from kit.core.runs import ExperimentDir, RunDir, RunKey, RunRecord, predictions, write_predictions
from kit.experiment.config import ExperimentConfig, validate
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.pool import pool_policy
from kit.lr import PolicyGroup, RateMatrix

GROUPS = {"stem": 300, "layer1": 900, "layer2": 2500, "layer3": 7000, "layer4": 20000, "fc": 130}


POLICIES = {
    "uniform": {"lr": 1e-2},
    "discriminative": {"lr": "slice(1e-6, 1e-2)"},
    "layer_decay": {"lr": 1e-2, "profile": {"name": "layer_decay", "decay": 0.65}},
}


SKILL = (2.2, 0.9, 1.8, 2.0, 1.6, 1.5, 1.9, 2.1, 1.4, 1.7, 2.05)


def write_experiment(
    root: Path,
    data: Path,
    policies: dict | None = None,
    seeds: int = 2,
    steps: int = 60,
    samples: int = 0,
    compared: bool = True,
    skill: float = 1.0,
    **sections,
) -> ExperimentDir:
    """Write an experiment as `run` and `compare` leave it, with runs that are made up.

    Parameters
    ----------
    root : Path
        The folder that is to hold runs/ and submissions/.
    data : Path
        The competition's folder.
    policies : dict, optional
        As in a config; left out: POLICIES.
    seeds, steps : int
        The number of seeds, and of the updates of a run.
    samples : int
        Of the probes in the first seed's first fold; 0: no probes.
    compared : bool
        Whether there is a comparison.
    skill : float
        The higher, the more the probabilities know of the truth; each policy's SKILL multiplies it.
    **sections
        More sections of the config.
    """
    policies = policies or POLICIES
    content = experiment_content(data, seeds=list(range(seeds)), **sections) | {"policies": policies}
    experiment = validate(content, "test")
    folder, loaded = ExperimentDir(root / "runs" / experiment.name), load_competition(experiment.competition)
    write_text(folder.config, experiment.to_yaml())
    plan = FoldPlan(loaded.ids, np.arange(len(loaded.ids)) // len(loaded.classes) % 3)
    write_folds(plan, folder.folds)
    groups = [PolicyGroup(i, len(GROUPS), name, size) for i, (name, size) in enumerate(GROUPS.items())]
    for place, (name, config) in enumerate(experiment.policies.items()):
        matrix = config.build().matrix(groups, steps, steps // 2)
        for seed in range(seeds):
            for fold in range(3):
                generator = np.random.default_rng([place, seed, fold])
                key = RunKey(name, seed, fold)
                run = folder.run(key)
                _write_run(run, key, loaded, plan, skill * SKILL[place % len(SKILL)], matrix, generator)
                if samples and (seed, fold) == (0, 0):
                    write_probes(run, samples, steps, generator, slow=name == "discriminative")
        whole = LoadedExperiment(experiment, folder, loaded, plan, {})
        file = root / f"submissions/{name}.csv"
        pool_policy(name, folder.finished(name), experiment.scoring, whole, file, write=True)
    if compared:
        write_json(folder.comparison, _comparison(experiment, folder))
    return folder


def _write_run(
    run: RunDir,
    key: RunKey,
    loaded: Competition,
    plan: FoldPlan,
    skill: float,
    matrix: RateMatrix,
    generator: np.random.Generator,
) -> None:
    rows, classes, steps = plan.validation_rows(key.fold), len(loaded.classes), len(matrix.lr)
    truth = loaded.targets[rows] if loaded.label_format.multilabel else np.eye(classes)[loaded.targets[rows]]
    logits = skill * (2 * truth - 1) + generator.normal(0, 1.5, truth.shape)
    probabilities = 1 / (1 + np.exp(-logits))
    if not loaded.label_format.multilabel:
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    write_predictions(predictions([loaded.ids[row] for row in rows], probabilities, loaded.classes), run.oof)
    test = np.full((len(loaded.test_ids), classes), 1 / classes)
    write_predictions(predictions(loaded.test_ids, test, loaded.classes), run.test)
    lines = []
    for step in range(steps // 10, steps + 1, steps // 10):
        lines.append(
            {"step": step, "epoch": step / (steps // 2), "loss": 2 / skill / step + generator.random() / 99}
        )
        lines.append({"step": step, "epoch": step / (steps // 2), "valid_score": 1 - 1 / (1 + step * skill / 9)})
    write_text(run.history, "".join(f"{json.dumps(line)}\n" for line in lines))
    np.savez(run.rates, lr=matrix.lr, frozen=matrix.frozen, momentum=matrix.momentum, groups=list(GROUPS))
    write_text(run.weights, "")
    run.write(
        RunRecord(
            status="finished",
            policy=key.policy,
            seed=key.seed,
            fold=key.fold,
            fingerprint=f"{key.policy}{key.seed}{key.fold}",
            depends_on={"config": "c0ffee", "folds": "f01d", "policy": key.policy},
            versions={"python": "3.13.1", "torch": "2.10.0"},
            device="cpu",
            processes=1,
            precision="fp32",
            groups=GROUPS,
            steps=steps,
            initial_weights=f"ab{key.seed}",
            seconds={"training": 1.5, "whole": 2.0},
            scores={"macro F1": 0.5},
        )
    )


def write_probes(run: RunDir, samples: int, steps: int, generator: np.random.Generator, slow: bool) -> None:
    """Write activations that spread with time, more where not `slow`, and depth groups that move alike."""
    at = np.unique(np.linspace(0, steps - 1, samples).round().astype(int))
    layers = [*list(GROUPS)[:5], "head"]
    edges = 2.0 ** np.linspace(-8, 6, 141)
    magnitudes = np.concatenate([[0], edges])
    counts = np.zeros((len(at), len(layers), len(edges) + 1), dtype=np.uint32)
    for i, progress in enumerate(at / steps):
        for layer in range(len(layers)):
            spread = (1 + layer / 2) * (1 + progress * (0.3 * layer if slow else 2))
            counts[i, layer] = 30000 * np.exp(-magnitudes / spread) * magnitudes / spread + generator.integers(
                0, 3
            )
    zeros = np.zeros((len(at), len(layers)))
    np.savez_compressed(
        run.activations,
        steps=at,
        layers=layers,
        edges=edges,
        counts=counts,
        mean=zeros,
        std=zeros,
        near_zero=zeros,
    )
    depth, time = np.linspace(0, 1, len(GROUPS)), (at[:, None] + 1) / steps
    pace = 10.0 ** (-4 * (1 - depth)) if slow else np.ones(len(GROUPS))
    noise = 1 + 0.1 * generator.random((len(at), len(GROUPS)))
    np.savez_compressed(
        run.learning,
        steps=at,
        groups=list(GROUPS),
        n_params=list(GROUPS.values()),
        update=0.01 * pace * noise,
        distance=0.84 * pace * np.sqrt(time),
        rotation=40 * pace * np.sqrt(time),
        gradient=(0.3 + depth) * noise,
        rate=1e-3 * pace * noise,
        butterfly_steps=[0, steps],
        butterfly=[0.1 + 0.4 * (1 - depth), 0.01 + 0.09 * (1 - depth)],
        relative=0.05,
    )


def _comparison(experiment: ExperimentConfig, folder: ExperimentDir) -> dict:
    """Return what comparison.json holds: three views, of which the last is of two policies."""
    names = list(experiment.policies)
    scores = {name: json.loads((folder.policy(name) / "scores.json").read_text()) for name in names}
    views = [
        _view("raw", names, scores, names[0]),
        _view("tuned", names, scores, names[0]),
        _view("equalised", names[:2], scores, names[0]),
    ]
    return {
        "experiment": experiment.name,
        "metric": experiment.scoring.title,
        "baseline": names[0],
        "level": 0.95,
        "power": 0.8,
        "margin": 0.01,
        "ratio": 0.5,
        "headline": f"No policy is shown to be better than {names[0]} & that is that.",
        "views": views,
        "ledger": [
            {
                "policy": name,
                "raw": 6,
                "tuning": 2,
                "tuned": 6,
                "equalised": 0,
                "total": 12,
                "rates": [0.003, 0.01],
                "chosen": {"1": 0.01, "2": 0.003},
            }
            for name in names
        ],
        "tuning": [{"policy": names[0], "rate": 0.003, "fold": 0, "seed": 0, "score": None}],
        "updates": 60,
        "seconds": 123.4,
    }


def _view(view: str, names: list[str], scores: dict, baseline: str) -> dict:
    verdicts = ("worse", "undecided", "equivalent", "better")
    comparisons = []
    for place, name in enumerate(names[1:]):
        gap = scores[name]["oof"] - scores[baseline]["oof"]
        interval = {
            "difference": gap,
            "low": gap - 0.05,
            "high": gap + 0.06,
            "p": 0.01,
            "standard_error": 0.02,
            "df": 4,
        }
        comparisons.append(
            {
                "policy": name,
                "baseline": baseline,
                "folds": [0, 1, 2],
                "seeds": [0, 1],
                "runs": 6,
                "score": scores[name]["oof"],
                "baseline_score": scores[baseline]["oof"],
                "difference": gap,
                "interval": None if view == "equalised" else interval,
                "p_holm": None if view == "equalised" else 0.02,
                "smallest_detectable": None if view == "equalised" else 0.06,
                "bootstrap": {
                    "difference": gap,
                    "low": gap - 0.08,
                    "high": gap + 0.07,
                    "resamples": 9,
                    "units": "rows",
                },
                "verdict": verdicts[place % 4],
                "sentence": f"{name} differs from {baseline} by {gap:+.3f} macro F1.",
                "seeds_to_decide": None,
                "by_run": [],
            }
        )
    return {
        "name": view,
        "about": f"What the view {view} is.",
        "note": None,
        "policies": [
            {
                "policy": name,
                "oof": scores[name]["oof"],
                "mean": float(np.mean([run["score"] for run in scores[name]["runs"]])),
                "runs": [run | {"variant": name} for run in scores[name]["runs"]],
            }
            for name in names
        ],
        "comparisons": comparisons,
    }
