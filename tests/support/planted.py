"""Finished runs on disk whose truth is known: each policy is right with a chance that was planted."""

import numpy as np
from support.colours import COLOURS, experiment_content

from kit.competition.folds import make_folds, write_folds
from kit.competition.load import load_competition
from kit.core.runs import ExperimentDir, RunKey, RunRecord, predictions, write_predictions
from kit.core.settings import fingerprint
from kit.experiment.config import validate
from kit.experiment.fingerprint import digests
from kit.training.records import RateRecord

CLASSES = sorted(COLOURS)


def experiment(folder, policies, **sections):
    content = experiment_content(folder, **sections)
    return validate(content | {"policies": policies}, "test")


def store(config, output, accuracy, seeds=(0,), folds=None, shared=0.5, seed=0, **changes):
    """Writes finished runs of each policy, right with probability accuracy[policy] on each row.

    shared   share of rows on which all policies and seeds are right or wrong together: rows are hard or easy
    changes  of run.json, by policy
    """
    folder = ExperimentDir(output / "runs" / config.name)
    competition = load_competition(config.competition)
    plan = make_folds(competition.ids, competition.targets, config.folds, competition.train)
    write_folds(plan, folder.folds)
    folder.config.write_text(config.to_yaml())
    generator = np.random.default_rng(seed)
    hardness, together = generator.random(len(plan.ids)), generator.random(len(plan.ids)) < shared
    for policy, right in accuracy.items():
        for number in seeds:
            for fold in folds or range(config.folds.k):
                rows = plan.validation_rows(fold)
                luck = np.where(together, hardness, generator.random(len(plan.ids)))[rows]
                truth = competition.targets[rows]
                wrong = (truth + generator.integers(1, 3, len(rows))) % 3
                label = np.where(luck < right, truth, wrong)
                run = folder.run(RunKey(policy, number, fold))
                made = predictions([plan.ids[row] for row in rows], np.eye(3)[label] * 0.94 + 0.02, CLASSES)
                write_predictions(made, run.oof)
                write_predictions(predictions(competition.test_ids, np.full((3, 3), 1 / 3), CLASSES), run.test)
                run.weights.write_bytes(b"")
                RateRecord(["all"], np.full((51, 1), 1e-2)).save(run.rates)
                record = record_of(config, competition, plan, policy, number, fold)
                run.write(record.with_fields(**changes.get(policy, {})))
    return folder


def record_of(config, competition, plan, policy, seed, fold):
    depends_on = digests(config, competition, plan) | {
        "policy": fingerprint(config.policies[policy].canonical()),
        "seed": str(seed),
        "fold": str(fold),
    }
    return RunRecord(
        status="finished",
        policy=policy,
        seed=seed,
        fold=fold,
        fingerprint=fingerprint(depends_on),
        depends_on=depends_on,
        steps=51,
        initial_weights=f"seed{seed}",
        seconds={"training": 1.0},
    )
