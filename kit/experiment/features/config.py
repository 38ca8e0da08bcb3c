"""The `features` section of the config: heads over the features of a frozen body, in the place of policies."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from kit.core.settings import ConfigSection, Name, Text, fingerprint
from kit.scoring.heads import HEADS, HeadConfig


class FeaturesConfig(ConfigSection):
    """What features are taken of, and which heads are fitted to them.

    Attributes
    ----------
    block
        last: the body's pooled output, as the classifier would get it; or a depth group, by its name or its number
        from the stem (the stem is 0), whose output is averaged over places.
    views
        hflip: features are the mean of those of an image and of its mirror.
    heads
        By name; in YAML a name (logistic, ridge, svm, knn, prototypes), a list of names, or a mapping from your
        names to {name: logistic, C: [0.01, 0.1]}. Each stands where other experiments have a policy.
    """

    later: ClassVar[frozenset[str]] = frozenset()

    block: Text = "last"
    views: tuple[Literal["hflip"], ...] = ()
    heads: Annotated[dict[Name, HeadConfig], Field(min_length=1)]

    @field_validator("block")
    @classmethod
    def _one(cls, block: str) -> str:
        if block == "all":
            raise ValueError(
                "a head of each block is what python -m kit features CONFIG --block all makes; name one"
            )
        return block

    @field_validator("views")
    @classmethod
    def _once(cls, views: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(views)) < len(views):
            raise ValueError("the same one stands there twice")
        return views

    @field_validator("heads", mode="before")
    @classmethod
    def _by_name(cls, heads: Any) -> Any:
        return spelled(heads)

    def taken_of(self, head: str) -> str:
        """Return the block that a head's features are taken of."""
        return self.heads[head].block or self.block

    @property
    def by_block(self) -> dict[str, str]:
        """The block of each head where they differ in nothing else, as of `--block all`; else nothing."""
        kinds = {fingerprint({**head.canonical(), "block": None}) for head in self.heads.values()}
        blocks = {name: self.taken_of(name) for name in self.heads}
        return blocks if len(kinds) == 1 and 1 < len(blocks) == len(set(blocks.values())) else {}

    @property
    def shared(self) -> dict[str, Any]:
        """What decides the features of all heads, as plain values."""
        values = self.canonical()
        values.pop("heads")
        return values

    def digest(self, head: str) -> str:
        """Return a digest of what decides a head, beside what all heads share."""
        return fingerprint({"head": self.heads[head].canonical()})


def spelled(heads: Any) -> Any:
    """Return heads as a mapping from names to options, each with the `name` of its kind."""
    if isinstance(heads, str):
        heads = [heads]
    if isinstance(heads, list | tuple):
        if not all(isinstance(name, str) for name in heads):
            raise ValueError("expected names, or a mapping from names to options")
        if len(set(heads)) < len(heads):
            raise ValueError("the same one stands there twice")
        heads = dict.fromkeys(heads)
    if not isinstance(heads, dict):
        return heads
    return {name: _with_kind(name, options) for name, options in heads.items()}


def _with_kind(name: Any, options: Any) -> Any:
    if options is None:
        options = {}
    if isinstance(options, dict) and "name" not in options:
        if name not in HEADS:
            raise ValueError(
                f"{name}: there is no such head; take one of {', '.join(HEADS)}, or say which it is: "
                f"{{{name}: {{name: logistic}}}}"
            )
        return {"name": name, **options}
    return options
