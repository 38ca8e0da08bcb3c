"""Pairs of images that are alike, and the groups they make."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.refusals import refusal_of

from kit.competition import duplicates
from kit.competition.duplicates import (
    components,
    correlation,
    duplicate_groups,
    duplicate_pairs,
    duplicates_advice,
    duplicates_between,
    equal_pairs,
    labels_differ,
    near_pairs,
    pairs_between,
)

ONE_BIT = np.array([0, 1, 3, 2**63], dtype=np.uint64)
HASHES = arrays(np.uint64, st.integers(0, 12), elements=st.sampled_from([0, 1, 3, 7, 255, 2**63, 2**64 - 1]))


@dataclass(frozen=True)
class HashedImages:
    hashes: np.ndarray
    digests: np.ndarray
    thumbnails: np.ndarray
    comparable: np.ndarray


def prints(hashes, digests, thumbnails=None, comparable=None) -> HashedImages:
    """All of the same thumbnail, unless others are given, so that hashes decide."""
    n = len(hashes)
    same = np.tile(np.arange(256, dtype=np.uint8).reshape(16, 16), (n, 1, 1))
    return HashedImages(
        np.array(hashes, dtype=np.uint64),
        np.array(digests),
        same if thumbnails is None else np.array(thumbnails, dtype=np.uint8),
        np.ones(n, dtype=bool) if comparable is None else np.array(comparable),
    )


def test_pairs_of_hashes():
    assert near_pairs(ONE_BIT, 0).tolist() == []
    assert near_pairs(ONE_BIT, 1).tolist() == [[0, 1], [0, 3], [1, 2]]
    assert near_pairs(ONE_BIT, 2).tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3]]
    assert near_pairs(ONE_BIT[:0], 2).shape == (0, 2)
    assert pairs_between(ONE_BIT[:2], ONE_BIT[2:], 1).tolist() == [[0, 1], [1, 0]]
    assert pairs_between(ONE_BIT, ONE_BIT[:0], 1).shape == (0, 2)


@settings(deadline=None, max_examples=60)
@given(hashes=HASHES, others=HASHES, distance=st.integers(0, 16), block=st.sampled_from([1, 7, 500_000]))
def test_pairs_are_those_that_brute_force_finds(hashes, others, distance, block):
    def apart(first, second):
        return (int(first) ^ int(second)).bit_count()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BLOCK", block)
        found, between = near_pairs(hashes, distance), pairs_between(hashes, others, distance)
    n, m = range(len(hashes)), range(len(others))
    assert found.tolist() == [[i, j] for i in n for j in n if i < j and apart(hashes[i], hashes[j]) <= distance]
    assert between.tolist() == [[i, j] for i in n for j in m if apart(hashes[i], others[j]) <= distance]


def test_pairs_beyond_number_are_refused(monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 10)
    message = refusal_of(near_pairs, np.zeros(6, dtype=np.uint64), 4)
    assert message.startswith("folds.duplicates: more than 10 pairs of images are within 4 bits")


def test_equal_digests_are_a_chain():
    assert equal_pairs(["b", "a", "b", "", "b", "a", ""]).tolist() == [[0, 2], [1, 5], [2, 4]]
    assert equal_pairs([]).shape == (0, 2)
    assert len(equal_pairs(["x"] * 1000)) == 999


def test_the_same_pixels_stand_for_each_other():
    looks = prints([0, 1, 0, 2**64 - 1], ["a", "b", "a", "c"])
    assert duplicate_pairs(looks, "exact").tolist() == [[0, 2]]
    assert duplicate_pairs(looks, 1).tolist() == [[0, 1], [0, 2]]
    assert duplicate_groups(looks, 1).tolist() == [0, 0, 0, 1]


def test_a_thumbnail_that_does_not_correlate_refutes_a_hash():
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 200, (16, 16))
    darker, other = picture // 2 + 20, generator.integers(0, 200, (16, 16))
    looks = prints([0, 0, 0], ["a", "b", "c"], [picture, darker, other])
    assert duplicate_pairs(looks, 4).tolist() == [[0, 1]]
    flat, rows = np.full((1, 16, 16), 7, dtype=np.uint8), np.array([0])
    assert correlation(looks.thumbnails, looks.thumbnails, rows, rows) == pytest.approx(1)
    assert correlation(looks.thumbnails, 255 - looks.thumbnails, rows, rows) == pytest.approx(-1)
    assert correlation(flat, looks.thumbnails, rows, rows) == 0


def test_flat_images_are_like_those_of_the_same_pixels_alone():
    looks = prints([0, 0, 0, 0], ["black", "white", "black", ""], comparable=[False, False, False, False])
    assert duplicate_pairs(looks, 16).tolist() == [[0, 2]]
    assert duplicates_between(looks, looks, 16).tolist() == [[0, 0], [0, 2], [1, 1]]


def test_train_with_test():
    train = prints([0, 0, 2**64 - 1, 1], ["a", "a", "b", "c"])
    test = prints([2**64 - 2, 0, 2**32 - 1], ["d", "a", "e"])
    assert duplicates_between(train, test, "exact").tolist() == [[0, 1]]
    assert duplicates_between(train, test, 1).tolist() == [[0, 1], [2, 0]]
    assert duplicates_between(train, prints([], [], np.empty((0, 16, 16)), np.empty(0, bool)), 4).shape == (0, 2)


def test_components_are_numbered_by_their_first_row():
    assert components(6, np.array([[1, 4], [4, 5], [2, 3]])).tolist() == [0, 1, 2, 2, 1, 1]
    assert components(3, np.empty((0, 2))).tolist() == [0, 1, 2]
    assert components(0, np.empty((0, 2))).shape == (0,)


def test_pairs_with_different_labels():
    pairs = np.array([[0, 1], [1, 2]])
    assert labels_differ(pairs, np.array([3, 3, 4])).tolist() == [False, True]
    several = np.array([[True, False], [True, True], [True, True]])
    assert labels_differ(pairs, several).tolist() == [True, False]


def test_a_group_that_outgrows_a_fold_is_told():
    groups = np.array([0, 0, 0, 1, 2, 3])
    assert duplicates_advice(groups, 2, 6) is None
    assert "3 of 6 rows, more than one fold of 3 holds, are one group" in duplicates_advice(groups, 3, 6)
    assert "lower the number from 6" in duplicates_advice(groups, 3, 6)
    assert "the very same pixels" in duplicates_advice(groups, 3, "exact")
    assert duplicates_advice(np.empty(0, dtype=int), 3, 6) is None
