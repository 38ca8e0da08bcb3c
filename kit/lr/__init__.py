"""Learning-rate policies: peak rate × schedule (over time) × profile (over depth). No torch in here.

from kit.lr import Clock, Group, policy

groups = [Group(index=i, count=3, name=name) for i, name in enumerate(["stem", "body", "head"])]
policy(lr="slice(1e-6, 1e-2)", schedule="one_cycle").rates(Clock(step=0, total_steps=100), groups).lr
"""

from kit.lr.clock import Clock, PolicyGroup
from kit.lr.config import PolicyConfig, fine_tune, policy
from kit.lr.policy import Policy, RateMatrix, Rates

__all__ = ["Clock", "Policy", "PolicyConfig", "PolicyGroup", "RateMatrix", "Rates", "fine_tune", "policy"]
