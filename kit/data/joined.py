"""Two sets of images behind each other as one."""

from dataclasses import dataclass, field

import numpy as np

from kit.data.images import ImageSet


@dataclass
class JoinedImages(ImageSet):
    """Images of two sets: all of one, and behind them images of the other, each as often as it is named.

    Nothing is decoded or stored anew: pixels are those of the two sets.

    Attributes
    ----------
    sets
        The two.
    rows
        Which image of the second set stands at each place behind the first, int64 [places].
    """

    sets: tuple[ImageSet, ...] = ()
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @classmethod
    def of(cls, first: ImageSet, second: ImageSet, rows: np.ndarray) -> "JoinedImages":
        """Return the images of `first`, then those of `second` in the order of `rows`, int64 [places]."""
        ids = [*first.ids, *(second.ids[row] for row in rows)]
        sources = [*first.sources, *(second.sources[row] for row in rows)]
        return cls(ids, sources, first.decoder, sets=(first, second), rows=rows)

    def __getitem__(self, row: int) -> np.ndarray:
        first, second = self.sets
        return first[row] if row < len(first) else second[int(self.rows[row - len(first)])]
