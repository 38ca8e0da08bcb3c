"""Random numbers of many samples at once, each sample's a function of its own seed alone."""

import numpy as np

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
