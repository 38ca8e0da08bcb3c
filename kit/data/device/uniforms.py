"""Random numbers of many samples at once, each sample's a function of its own seed alone."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from kit.core.seeds import derive

GOLDEN = 0x9E3779B97F4A7C15
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def splitmix64(seeds: np.ndarray, count: int) -> np.ndarray:
    """Return the first numbers of SplitMix64 for each seed, uint64 [seeds, count].

    A number is a hash of seed and place, so that all are made at once, and none depends on the other seeds.

    Parameters
    ----------
    seeds : ndarray
        uint64 [seeds].
    count : int
        Numbers of each.

    References
    ----------
    Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    places = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN)  # modulo 2⁶⁴, as below
    mixed = seeds[:, None] + places
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(FIRST)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(SECOND)
    return mixed ^ (mixed >> np.uint64(31))


def uniforms(seeds: np.ndarray, count: int) -> np.ndarray:
    """Return numbers from 0 to below 1 of each seed, float64 [seeds, count]; the same as `splitmix64` takes."""
    return (splitmix64(seeds, count) >> np.uint64(11)) * 2.0**-53


class SampleSeeds:
    """The seeds by which samples are augmented: a function of (seed, epoch, id, times before).

    Images are hashed once, and so is each epoch; a micro-batch takes the hash of the two sums.

    Parameters
    ----------
    seed : int
        Of the training.
    ids : sequence of str
        The name of each sample.
    """

    def __init__(self, seed: int, ids: Sequence[str]):
        self._images = np.array([derive("image", name) for name in ids], dtype=np.uint64)
        self._epoch = lru_cache(maxsize=256)(lambda epoch, before: derive("augment", seed, epoch, before))

    def __call__(self, visits: np.ndarray) -> np.ndarray:
        """Return the seed of each visit (epoch, sample, times before), int64 [batch, 3], as uint64 [batch]."""
        epochs = [self._epoch(epoch, before) for epoch, _, before in visits.tolist()]
        sums = self._images[visits[:, 1]] + np.array(epochs, dtype=np.uint64)
        return splitmix64(sums, 1)[:, 0]
