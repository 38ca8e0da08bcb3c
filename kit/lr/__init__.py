"""Learning-rate policies: peak rate × schedule (over time) × profile (over depth). No torch in here.

Examples
--------
The rates of the first of 100 updates, for a network of three depth groups:

>>> from kit.lr import Clock, PolicyGroup, policy
>>> groups = [PolicyGroup(index, 3, name) for index, name in enumerate(["stem", "body", "head"])]
>>> rates = policy(lr="slice(1e-6, 1e-2)", schedule="one_cycle").rates(Clock(step=0, total_steps=100), groups)
>>> rates.lr
array([4.e-08, 4.e-06, 4.e-04])
"""

from kit.lr.clock import Clock, PolicyGroup
from kit.lr.config import PolicyConfig, fine_tune, policy
from kit.lr.policy import Policy, RateMatrix, Rates

__all__ = ["Clock", "Policy", "PolicyConfig", "PolicyGroup", "RateMatrix", "Rates", "fine_tune", "policy"]
