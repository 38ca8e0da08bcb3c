"""Views of an image at prediction (test-time augmentation): what the model sees, and how its outputs become one.

Each view is cut out of the stored pixels on the device. Every view is one vote, and so are all tiles of a division
together; the plain view always votes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # a config alone needs no torch
    from torch import Tensor

Pool = Literal["mean", "max"]
Average = Literal["probabilities", "logits"]

# The symmetries of a square but the identity: whether rows and columns are swapped first, then which are reversed.
TURNS: dict[str, tuple[bool, tuple[int, ...]]] = {
    "hflip": (False, (3,)),
    "vflip": (False, (2,)),
    "rot90": (True, (2,)),  # counter-clockwise, like numpy's and PIL's
    "rot180": (False, (2, 3)),
    "rot270": (True, (3,)),
    "transpose": (True, ()),
    "transverse": (True, (2, 3)),
}
OF_NAME: dict[str, tuple[str, ...]] = {
    "hflip": ("hflip",),
    "vflip": ("vflip",),
    "rot90": ("rot90", "rot180", "rot270"),
    "d4": tuple(TURNS),
}


@dataclass(frozen=True)
class View:
    """One input of the network, made of the stored pixels.

    Attributes
    ----------
    side : int
        Of the input, in pixels.
    name : str
        plain, one of `TURNS`, `corner 0 1` (row, column), `scale 0.8`, or `tile 2 0 1` (of 2 × 2, row, column).
    """

    side: int
    name: str = "plain"

    def of(self, stored: "Tensor", side: int) -> "Tensor":
        """Return the network's input, channels last in memory.

        Parameters
        ----------
        stored : Tensor
            Normalised pixels, float32 [batch, channels, stored side, stored side].
        side : int
            Of the plain view.

        Returns
        -------
        Tensor
            [batch, channels, `self.side`, `self.side`].
        """
        import torch

        what, *numbers = self.name.split()
        whole = stored.shape[2]
        if what == "corner":
            top, left = (int(number) * (whole - side) for number in numbers)
            made = stored[:, :, top : top + side, left : left + side]
        elif what == "tile":
            count, row, column = map(int, numbers)
            rows, columns = (slice(*tile_edges(whole, count, number)) for number in (row, column))
            made = _resized(stored[:, :, rows, columns], self.side)
        else:
            start = (whole - side) // 2
            made = stored[:, :, start : start + side, start : start + side]
            if what == "scale":
                made = _resized(made, self.side)
            elif what != "plain":
                swapped, reversed_ = TURNS[what]
                made = made.transpose(2, 3) if swapped else made
                made = made.flip(reversed_) if reversed_ else made
        return made.contiguous(memory_format=torch.channels_last)


def tile_edges(whole: int, count: int, number: int) -> tuple[int, int]:
    """Return where a tile begins and ends, in pixels, of `count` a side that share all of them."""
    return number * whole // count, (number + 1) * whole // count


def _resized(inputs: "Tensor", side: int) -> "Tensor":
    """Return images of another size: bilinear, averaged where they shrink, as PIL does it."""
    from torch.nn.functional import interpolate

    if tuple(inputs.shape[2:]) == (side, side):
        return inputs
    return interpolate(inputs, (side, side), mode="bilinear", antialias=True, align_corners=False)


@dataclass(frozen=True)
class Vote:
    """Views whose outputs become one: most stand alone, tiles of one division together."""

    views: tuple[View, ...]
    pool: Pool = "mean"


@dataclass(frozen=True)
class Views:
    """In which views images are predicted, and how the outputs are averaged.

    Attributes
    ----------
    side : int
        Of the plain view, in pixels.
    trained : int
        Of the images that the model was trained on.
    turns : tuple of str
        Of `TURNS`, in that order.
    corners : bool
        Whether the four corners of the stored image are seen, too.
    scales : tuple of float
        Ascending.
    tiles : tuple of (int, str)
        Tiles a side, and how they are pooled; ascending.
    average : str
        What is averaged: probabilities, or logits.
    """

    side: int
    trained: int
    turns: tuple[str, ...] = ()
    corners: bool = False
    scales: tuple[float, ...] = ()
    tiles: tuple[tuple[int, Pool], ...] = ()
    average: Average = "probabilities"

    @classmethod
    def plain(cls, trained: int) -> "Views":
        """Return the plain view alone, of the size that was trained on."""
        return cls(trained, trained)

    @property
    def one(self) -> "Views":
        """The plain view alone, at the same size."""
        return Views(self.side, self.trained)

    @property
    def votes(self) -> tuple[Vote, ...]:
        """Each vote with its views, the plain one first."""
        names = [*self.turns, *(f"corner {row} {column}" for row in (0, 1) for column in (0, 1) if self.corners)]
        single = [View(self.side), *(View(self.side, name) for name in names)]
        single += [View(scaled(self.side, scale), f"scale {scale:g}") for scale in self.scales]
        votes = [Vote((view,)) for view in single]
        for count, pool in self.tiles:
            places = [(row, column) for row in range(count) for column in range(count)]
            tiles = tuple(View(self.side, f"tile {count} {row} {column}") for row, column in places)
            votes.append(Vote(tiles, pool))
        return tuple(votes)

    def __iter__(self) -> Iterator[View]:
        return (view for vote in self.votes for view in vote.views)

    @property
    def several(self) -> bool:
        """Whether there are more than the plain view."""
        return len(self.votes) > 1

    @property
    def passes(self) -> float:
        """What an image costs, in forward passes of an image of the size that was trained on: by their area."""
        return sum(view.side**2 for view in self) / self.trained**2

    @property
    def need_all(self) -> bool:
        """Whether the network sees pixels of the stored image beyond its middle."""
        return self.corners or bool(self.tiles)

    def combined(
        self, outputs: Callable[[View], "Tensor"], activate: Callable[["Tensor"], "Tensor"], multilabel: bool
    ) -> "Tensor":
        """Return the probabilities of a batch, float32 [batch, classes].

        Parameters
        ----------
        outputs : callable
            Gives the logits of a view, float32 [batch, classes]; asked once for each.
        activate : callable
            Turns logits into probabilities.
        multilabel : bool
            Whether a row may have several labels; else what was pooled by its highest is made to sum to 1 again.
        """
        as_logits, votes = self.average == "logits", self.votes
        if len(votes) == 1 and len(votes[0].views) == 1:
            return activate(outputs(votes[0].views[0]))
        total = None
        for vote in votes:
            pooled = None
            for view in vote.views:
                made = outputs(view) if as_logits else activate(outputs(view))
                if pooled is None:
                    pooled = made
                else:
                    pooled = pooled.maximum(made) if vote.pool == "max" else pooled + made
            assert pooled is not None
            if vote.pool == "max":
                pooled = pooled if as_logits or multilabel else pooled / pooled.sum(dim=1, keepdim=True)
            elif len(vote.views) > 1:
                pooled = pooled / len(vote.views)
            total = pooled if total is None else total + pooled
        assert total is not None
        mean = total / len(votes)
        return activate(mean) if as_logits else mean

    def form(self) -> dict[str, Any]:
        """Return what run.json says of it: plain values, without what is as in the plain case."""
        said: dict[str, Any] = {"size": self.side} if self.side != self.trained else {}
        said |= {"turns": list(self.turns)} if self.turns else {}
        said |= {"corners": True} if self.corners else {}
        said |= {"scales": list(self.scales)} if self.scales else {}
        said |= {"tiles": [list(each) for each in self.tiles]} if self.tiles else {}
        return said | ({"average": self.average} if self.average != "probabilities" else {})

    @classmethod
    def of_form(cls, form: Mapping[str, Any], trained: int) -> "Views":
        """Return what a form says."""
        return cls(
            side=form.get("size", trained),
            trained=trained,
            turns=tuple(form.get("turns", ())),
            corners=form.get("corners", False),
            scales=tuple(form.get("scales", ())),
            tiles=tuple((count, pool) for count, pool in form.get("tiles", ())),
            average=form.get("average", "probabilities"),
        )

    def __str__(self) -> str:
        if set(self.turns) == set(TURNS):
            names = ["d4"]
        else:
            names = list(self.turns)
        names += ["five_crops"] * self.corners + [f"scale {scale:g}" for scale in self.scales]
        names += [f"{count} × {count} tiles ({pool})" for count, pool in self.tiles]
        said = " + ".join(["one view" if not names else "plain", *names])
        said += f" at {self.side} px" if self.side != self.trained else ""
        return said + (", mean of logits" if self.average == "logits" else "")

    def at(self, side: int) -> "Views":
        """Return the same views of an image of another size."""
        return replace(self, side=side)


def scaled(side: int, scale: float) -> int:
    """Return the side of an image that is seen at a scale, in pixels."""
    return round(side * scale)


def chosen_views(names: Sequence[Any], side: int, trained: int, average: Average) -> Views:
    """Return the views that a config names: their union, each once.

    Parameters
    ----------
    names : sequence
        As in `prediction.views`.
    side, trained, average
        As in `Views`.
    """
    turns = {turn for name in names if isinstance(name, str) for turn in OF_NAME.get(name, ())}
    scales = {scale for each in names for scale in getattr(each, "scales", ())}
    tiles = {(each.tiles, each.pool) for each in names if hasattr(each, "tiles")}
    made = Views(
        side,
        trained,
        tuple(turn for turn in TURNS if turn in turns),
        "five_crops" in [name for name in names if isinstance(name, str)],
        tuple(sorted(scales)),
        tuple(sorted(tiles)),
    )
    return replace(made, average=average) if made.several else made
