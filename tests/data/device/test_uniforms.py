"""Random numbers of many samples at once: SplitMix64, each sample's by its own seed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kit.core.seeds import derive
from kit.data.device.uniforms import SampleSeeds, splitmix64, uniforms

WORD = 2**64


def slowly(seed: int, count: int) -> list[int]:
    """SplitMix64 as it is published: a state that grows by a constant, and a hash of it."""
    made, state = [], seed
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % WORD
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % WORD
        made.append(z ^ (z >> 31))
    return made


def test_published_numbers():
    """Those that implementations are checked by, of seed 1234567."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(np.array([1234567], dtype=np.uint64), 5).tolist() == [expected]


@given(st.lists(st.integers(0, WORD - 1), min_size=1, max_size=5), st.integers(1, 9))
def test_as_one_after_the_other(seeds, count):
    made = splitmix64(np.array(seeds, dtype=np.uint64), count)
    assert made.tolist() == [slowly(seed, count) for seed in seeds]


def test_uniforms_are_the_leading_bits():
    seeds = np.arange(1000, dtype=np.uint64)
    drawn = uniforms(seeds, 50)
    np.testing.assert_array_equal(drawn * 2.0**53, splitmix64(seeds, 50) >> np.uint64(11))
    assert 0 <= drawn.min() < drawn.max() < 1
    counts = np.histogram(drawn, bins=100, range=(0, 1))[0]
    assert abs(counts - 500).max() < 4.5 * 500**0.5  # 50,000 in 100 equal parts
    assert abs(np.corrcoef(drawn.T) - np.eye(50)).max() < 4.5 / 1000**0.5  # seeds in a row, places side by side


def test_seeds_of_samples():
    """Of seed, epoch, id and times before alone, by a slow way; never two alike."""
    ids = [f"image {number}" for number in range(20)]
    visits = [(epoch, sample, before) for epoch in range(5) for sample in range(20) for before in range(3)]
    made = {}
    for seed in (0, 1):
        seeds = SampleSeeds(seed, ids)(np.array(visits)).tolist()
        for (epoch, sample, before), got in zip(visits, seeds, strict=True):
            total = derive("image", ids[sample]) + derive("augment", seed, epoch, before)
            assert got == slowly(total % WORD, 1)[0]
            made[seed, epoch, sample, before] = got
    assert len(set(made.values())) == len(made) == 600
    reverse = SampleSeeds(0, ids[::-1])(np.array([(2, 19, 0)]))
    assert reverse.tolist() == [made[0, 2, 0, 0]]
