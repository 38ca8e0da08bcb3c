"""Predictions of rows pooled, against pandas row by row."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.refusals import refusal_of

from kit.scoring.pooling import pool_rows


def slowly(probabilities: np.ndarray, observation: np.ndarray, pool: str, exclusive: bool) -> np.ndarray:
    """The definition, a group at a time."""
    made = []
    for _, rows in pd.DataFrame(probabilities).groupby(observation):
        each = rows.to_numpy()
        one = {
            "mean": lambda p: sum(p) / len(p),
            "max": max,
            "noisy-or": lambda p: 1 - math.prod(1 - value for value in p),
        }[pool]
        values = [one(column.tolist()) for column in each.T]
        if exclusive and len(values) == 2:
            values = [1 - values[1], values[1]]
        elif exclusive:
            values = [value / sum(values) for value in values]
        made.append(values)
    return np.array(made)


@given(
    seed=st.integers(0, 1000), rows=st.integers(1, 40), classes=st.sampled_from([2, 3, 5, 40]),
    exclusive=st.booleans(), pool=st.sampled_from(["mean", "max", "noisy-or"]),
)  # fmt: skip
@settings(max_examples=150, deadline=None, database=None)
def test_is_what_each_observation_gives_alone(seed, rows, classes, exclusive, pool):
    generator = np.random.default_rng(seed)
    probabilities = generator.random((rows, classes)).astype(np.float32)
    if exclusive:
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    observation = pd.factorize(generator.integers(0, 1 + rows // 2, rows))[0]
    if exclusive and classes > 2 and pool == "noisy-or":
        message = refusal_of(pool_rows, probabilities, observation, pool, exclusive)
        assert message == (
            f"competition.predict_by: pool noisy-or is for an event, not for {classes} classes of which a row has "
            "one; take mean or max"
        )
        return
    pooled = pool_rows(probabilities, observation, pool, exclusive)
    np.testing.assert_allclose(pooled, slowly(probabilities, observation, pool, exclusive), rtol=1e-5, atol=1e-7)
    if exclusive:
        np.testing.assert_allclose(pooled.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("pool", "expected"), [("mean", [0.65, 0.35]), ("max", [0.5, 0.5]), ("noisy-or", [0.4, 0.6])]
)
def test_of_two_classes_the_second_is_the_event(pool, expected):
    np.testing.assert_allclose(
        pool_rows(np.array([[0.8, 0.2], [0.5, 0.5]]), np.zeros(2, int), pool, True), [expected]
    )


def test_a_row_alone_stays_as_it_is():
    probabilities = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    for pool in ("mean", "max"):
        np.testing.assert_allclose(pool_rows(probabilities, np.array([1, 0]), pool, True), probabilities[::-1])
    assert pool_rows(np.empty((0, 3)), np.empty(0, int), "mean", True).shape == (0, 3)
