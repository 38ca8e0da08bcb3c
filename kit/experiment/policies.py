"""A policy of an experiment on its model, checked before anything is trained."""

from torch import nn

from kit.core.errors import KitError
from kit.data.loading import BatchPlan
from kit.experiment.config import ExperimentConfig
from kit.lr.clock import policy_groups
from kit.lr.config import PolicyConfig
from kit.lr.policy import Policy
from kit.model.groups import DepthGroup, depth_groups, has_order
from kit.model.kinds import split_by_kind


def groups_of(model: nn.Module, policy: PolicyConfig, name: str) -> list[DepthGroup]:
    """Return the depth groups of a model as a policy cuts it, split by kind where the policy tells kinds apart.

    Raises
    ------
    KitError
        Where the model cannot be cut so, or a kind is of no parameter.
    """
    groups = depth_groups(model, policy.groups)
    try:
        return split_by_kind(groups, policy.kinds or ())
    except KitError as error:
        raise KitError(f"policies.{name}.{error}") from error


def policy_on(
    model: nn.Module, experiment: ExperimentConfig, name: str, batches: BatchPlan
) -> tuple[Policy, list[DepthGroup]]:
    """Return a policy and the depth groups that it is over.

    Parameters
    ----------
    model : Module
    experiment : ExperimentConfig
        Has a policy of that name.
    name : str
    batches : BatchPlan
        How long the training is.

    Raises
    ------
    KitError
        Where the policy does not fit the model or the length of the training.
    """
    config = experiment.policies[name]
    policy, groups = config.build(), groups_of(model, config, name)
    if policy.differs_by_depth and not has_order(model):
        raise KitError(
            f"policies.{name}: differs by depth, but {type(model).__name__} offers no depth order: give it "
            "a depth_groups() that lists its modules, stem first, or patterns in model.depth; uniform needs none"
        )
    try:
        policy.check(policy_groups(groups), batches.total_steps, batches.steps_per_epoch)
    except ValueError as error:
        raise KitError(f"policies.{name}.{error}") from error
    return policy, groups
