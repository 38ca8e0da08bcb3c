"""A policy's rates over a whole training, without training: what `python -m kit lr` shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit.competition.folds import check_folds, make_folds
from kit.competition.load import load_competition
from kit.core.files import write_text
from kit.core.notebook import Picture
from kit.experiment.config import ExperimentConfig
from kit.experiment.policies import policy_on
from kit.lr import PolicyGroup, RateMatrix
from kit.lr.clock import policy_groups
from kit.lr.plots import Matrices, draw_policies, policies_figure
from kit.model.build import build_model
from kit.training.batches import batches_of
from kit.training.device import process_state


@dataclass(frozen=True)
class Preview:
    """The step × group matrix of one policy, as the first fold to be trained would see it.

    On one device; under torchrun on as many as it has processes.
    """

    policy: str
    groups: list[PolicyGroup]
    matrix: RateMatrix
    steps_per_epoch: int
    controller: str | None  # its name; what it makes of the rates is known only in training

    def table(self) -> list[dict[str, float | int | str]]:
        """A row a step: step, epoch, momentum, the names of the frozen groups, and the rate of each group."""
        names = [group.label for group in self.groups]
        return [
            {
                "step": step,
                "epoch": step / self.steps_per_epoch,
                "momentum": momentum,
                "frozen": " ".join(name for name, is_frozen in zip(names, frozen, strict=True) if is_frozen),
                **dict(zip(names, lr, strict=True)),
            }
            for step, (lr, frozen, momentum) in enumerate(
                zip(self.matrix.lr, self.matrix.frozen, self.matrix.momentum, strict=True)
            )
        ]


@dataclass(frozen=True)
class PreviewResult:
    """The rates of each of an experiment's policies; a notebook shows their picture."""

    policies: list[Preview]

    def plot(self) -> Picture:
        """Return a row a policy: rates by depth group over time, and the same as a heat map."""
        return Picture(policies_figure(_matrices(self.policies)))

    def _repr_png_(self) -> bytes:
        return self.plot()._repr_png_()


def preview(experiment: ExperimentConfig) -> PreviewResult:
    """Return the rates of each of the experiment's policies. Needs the competition's tables and no images.

    Raises
    ------
    KitError
        Where a policy does not fit the model or the length of the training.
    """
    experiment.need_rates()
    competition = load_competition(experiment.competition)
    fold = experiment.folds.chosen[0]
    check_folds(experiment.folds, competition.classes, competition.targets)
    together = competition.observations.codes if competition.observations else None
    plan = make_folds(competition.ids, competition.targets, experiment.folds, competition.train, together)
    own, extra = plan.training_rows(fold), competition.extra
    rows = len(own) if competition.weights is None else int((competition.weights[own] > 0).sum())
    rows += int(extra.in_fold(fold).sum()) if extra else 0  # images, which say what is left out, are not looked at
    classes = len(competition.classes)
    return PreviewResult([preview_of(experiment, name, classes, rows) for name in experiment.policies])


def preview_of(experiment: ExperimentConfig, name: str, n_classes: int, rows: int) -> Preview:
    """One policy on `n_classes` classes and `rows` rows that train."""
    data, seed, training = experiment.data, experiment.seeds[0], experiment.training
    batches = batches_of(training, rows, seed, process_state(training))
    blank = experiment.model.model_copy(update={"weights": "none"})  # groups depend on the architecture alone
    model = build_model(blank, n_classes, data.channels, data.size, seed)
    policy, depths = policy_on(model, experiment, name, batches)
    groups = policy_groups(depths)
    matrix = policy.matrix(groups, batches.total_steps, batches.steps_per_epoch)
    controller = policy.controller.name if policy.controller else None
    return Preview(name, groups, matrix, batches.steps_per_epoch, controller)


def write_table(previews: Sequence[Preview], path: str | Path) -> None:
    """A CSV with a row a policy and step, and a column a depth group."""
    frame = pd.concat([pd.DataFrame(each.table()).assign(policy=each.policy) for each in previews])
    frame.insert(0, "policy", frame.pop("policy"))
    write_text(Path(path), frame.to_csv(index=False, lineterminator="\n"))


def draw(previews: Sequence[Preview], path: str | Path) -> None:
    """A row a policy: rates by group over time, and the same as a heat map."""
    draw_policies(_matrices(previews), Path(path))


def _matrices(previews: Sequence[Preview]) -> Matrices:
    return {
        each.policy: (each.matrix.lr, each.matrix.frozen, [group.label for group in each.groups])
        for each in previews
    }
