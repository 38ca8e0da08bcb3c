"""Finding images that are the same or nearly so, and the row groups that they join.

Near-identical are two images whose perceptual hashes differ in at most so many of 64 bits *and* whose grey
thumbnails correlate. A hash alone joins different subjects where images are small; docs/audit.md has figures.
"""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np

from kit.core.errors import KitError

NEAR = 6  # bits, where folds.duplicates states no number; docs/audit.md has the figures
CORRELATION = 0.95  # of the thumbnails of near-identical images, at least
MOST_PAIRS = 10_000_000  # 160 MB of them
BLOCK = 500_000  # comparisons at a time: 4 MB
NO_PAIRS = np.empty((0, 2), dtype=np.int64)

Setting = Literal["exact"] | int  # folds.duplicates: the same pixels, or a distance of two hashes in bits
Confirm = Callable[[np.ndarray, np.ndarray], np.ndarray]  # rows i and rows j → bool, whether each is a pair


class HashedImages(Protocol):
    """What is compared of n images."""

    @property
    def hashes(self) -> np.ndarray:
        """Perceptual hashes of 64 bits, uint64 [n]."""
        ...

    @property
    def digests(self) -> np.ndarray:
        """Digests of the pixels, text [n]; "" where an image cannot be read."""
        ...

    @property
    def thumbnails(self) -> np.ndarray:
        """Small grey images, uint8 [n, height, width]."""
        ...

    @property
    def comparable(self) -> np.ndarray:
        """Whether hash and thumbnail say something, bool [n]; of a flat or unreadable image they do not."""
        ...


def duplicate_groups(images: HashedImages, setting: Setting) -> np.ndarray:
    """Return the number of each image's row group, int64 [n].

    Images that are alike are in one row group, also those that are alike by way of others.
    """
    return components(len(images.hashes), duplicate_pairs(images, setting))


def duplicate_pairs(images: HashedImages, setting: Setting) -> np.ndarray:
    """Return the pairs of images that are alike.

    Images of the same pixels are a chain, each with the next; the first stands for all of them in further pairs.

    Returns
    -------
    ndarray
        int64 [pairs, 2]: rows i < j, ascending.
    """
    equal = equal_pairs(images.digests)
    if setting == "exact":
        return equal
    rows = _representatives(images)
    near = rows[near_pairs(images.hashes[rows], setting, _correlated(images, images, rows, rows))]
    pairs = np.concatenate([equal, near])
    return pairs[np.lexsort(pairs.T[::-1])]


def duplicates_between(first: HashedImages, second: HashedImages, setting: Setting) -> np.ndarray:
    """Return the pairs of an image of `first` and one of `second` that are alike, int64 [pairs, 2].

    An image of `second` whose pixels are in `first` is in one pair, with the first row that has them.
    """
    rows = {digest: row for row, digest in reversed(list(enumerate(first.digests))) if digest}
    equal = [(rows[digest], row) for row, digest in enumerate(second.digests) if digest in rows]
    pairs = np.array(equal, dtype=np.int64).reshape(-1, 2)
    if setting != "exact":
        left, right = _representatives(first), _representatives(second)
        right = right[~np.isin(right, pairs[:, 1])]
        confirm = _correlated(first, second, left, right)
        near = pairs_between(first.hashes[left], second.hashes[right], setting, confirm)
        pairs = np.concatenate([pairs, np.stack([left[near[:, 0]], right[near[:, 1]]], axis=1)])
    return pairs[np.lexsort(pairs.T[::-1])]


def near_pairs(hashes: np.ndarray, distance: int, confirm: Confirm | None = None) -> np.ndarray:
    """Return all pairs of hashes that differ in few bits.

    Compares all with all in blocks: 4 s for 100,000 hashes on one core, whatever the distance.

    Parameters
    ----------
    hashes : ndarray
        uint64 [n].
    distance : int
        Bits in which a pair may differ.
    confirm : callable, optional
        Drops a pair of which it says no.

    Returns
    -------
    ndarray
        int64 [pairs, 2]: places i < j in `hashes`, ascending.

    Raises
    ------
    KitError
        Where there are more than MOST_PAIRS.
    """
    return _compared(hashes, hashes, distance, confirm, within=True)


def pairs_between(
    first: np.ndarray, second: np.ndarray, distance: int, confirm: Confirm | None = None
) -> np.ndarray:
    """Return all pairs of a hash of `first` and one of `second` that differ in few bits, as `near_pairs` does."""
    return _compared(first, second, distance, confirm, within=False)


def _compared(
    first: np.ndarray, second: np.ndarray, distance: int, confirm: Confirm | None, within: bool
) -> np.ndarray:
    """Compare in blocks; `within`: both are the same hashes, of which each pair is wanted once."""
    found, count = [NO_PAIRS], 0
    height = max(1, min(1024, BLOCK // max(1, len(second))))
    for top in range(0, len(first), height):
        left = top + 1 if within else 0  # the first column that any row of the block is compared with
        apart = np.bitwise_count(first[top : top + height, None] ^ second[None, left:])
        places = np.flatnonzero(apart <= distance)  # of the flat block: argwhere takes three times as long
        row, column = np.divmod(places, max(1, len(second) - left))
        pairs = np.stack([row + top, column + left], axis=1)
        if within:
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        if confirm is not None and len(pairs):
            pairs = pairs[confirm(pairs[:, 0], pairs[:, 1])]
        found.append(pairs)
        count += len(pairs)
        if count > MOST_PAIRS:
            raise KitError(
                f"folds.duplicates: more than {MOST_PAIRS:,} pairs of images are within {distance} bits of each "
                "other; lower the number, or join exact duplicates only"
            )
    return np.concatenate(found)


def equal_pairs(digests: Sequence[str] | np.ndarray) -> np.ndarray:
    """Return each row with the next one of the same digest, int64 [pairs, 2], ascending; "" equals nothing.

    A chain joins as well as all pairs do, and 1,000 equal images make 999 pairs, not half a million.
    """
    digests = np.asarray(digests)
    order = np.argsort(digests, kind="stable")
    ordered = digests[order]
    same = (ordered[1:] == ordered[:-1]) & (ordered[1:] != "")
    pairs = np.stack([order[:-1][same], order[1:][same]], axis=1).astype(np.int64)
    return pairs[np.argsort(pairs[:, 0], kind="stable")]


def _representatives(images: HashedImages) -> np.ndarray:
    """The first row of each digest, of those that can be compared, ascending."""
    _, rows = np.unique(images.digests, return_index=True)
    return np.sort(rows[images.comparable[rows]]).astype(np.int64)


def _correlated(first: HashedImages, second: HashedImages, rows: np.ndarray, others: np.ndarray) -> Confirm:
    """Confirms the pairs of places in `rows` and `others` whose thumbnails correlate."""
    return lambda i, j: correlation(first.thumbnails, second.thumbnails, rows[i], others[j]) >= CORRELATION


def correlation(first: np.ndarray, second: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of the thumbnails `first[rows]` and `second[others]`.

    Parameters
    ----------
    first, second : ndarray
        uint8 [n, height, width].
    rows, others : ndarray
        int64 [pairs].

    Returns
    -------
    ndarray
        float32 [pairs]: -1 to 1, whatever brightness and contrast; 0 where one is flat.
    """
    result = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), 10_000):  # bounds the memory
        part = slice(start, start + 10_000)
        left, right = _deviations(first[rows[part]]), _deviations(second[others[part]])
        norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        result[part] = np.einsum("ij,ij->i", left, right) / np.maximum(norms, 1e-9)
    return result


def _deviations(thumbnails: np.ndarray) -> np.ndarray:
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    return flat - flat.mean(axis=1, keepdims=True)


def components(n: int, pairs: np.ndarray) -> np.ndarray:
    """Return the connected component of each of n rows that `pairs` [pairs, 2] join.

    Returns
    -------
    ndarray
        int64 [n]: components are numbered in the order of their first rows.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    labels = connected_components(graph, directed=False)[1] if n else np.empty(0)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def labels_differ(pairs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Tell of each pair of rows whether they have different labels, bool [pairs].

    Parameters
    ----------
    pairs : ndarray
        int64 [pairs, 2].
    targets : ndarray
        Class indices [rows], or bool [rows, classes] where a row may have several labels.
    """
    differ = targets[pairs[:, 0]] != targets[pairs[:, 1]]
    return differ.any(axis=1) if differ.ndim == 2 else differ


def duplicates_advice(groups: np.ndarray, k: int, setting: Setting) -> str | None:
    """Return advice where the largest row group of duplicates is more than one fold of k holds, else None.

    Parameters
    ----------
    groups : ndarray
        int64 [n], as `duplicate_groups` gives them.
    k : int
        Number of folds.
    setting : "exact" or int
        With which they were found.
    """
    if not len(groups) or (most := np.bincount(groups).max()) * k <= len(groups):
        return None
    share = f"{most} of {len(groups)} rows, more than one fold of {k} holds"
    if setting == "exact":
        return f"folds.duplicates: {share}, have the very same pixels; remove such copies from the train table"
    return (
        f"folds.duplicates: {share}, are one group, alike by way of others; lower the number from {setting}, "
        "or join exact duplicates only"
    )
