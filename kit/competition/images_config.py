"""Where the config says that images are: templates of files, or columns of a table."""

from typing import Annotated

from pydantic import Field

from kit.core.settings import ConfigSection


class PixelsConfig(ConfigSection):
    """Images whose pixels stand in the table, a column each: grey levels 0 to 255, row after row.

    Attributes
    ----------
    columns
        Their names, as a pattern: `pixel*` is every column that begins so, in the table's order.
    height, width
        In pixels; left out: the square of so many.
    """

    columns: str = "pixel*"
    height: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] | None = None


class FirstConfig(ConfigSection):
    """Several places where an image may be.

    Attributes
    ----------
    first
        Templates; an image is that of the first whose file is there.
    """

    first: Annotated[tuple[str, ...], Field(min_length=1)]

    def __str__(self) -> str:
        return " or ".join(self.first)


Template = str | FirstConfig
Images = Template | Annotated[tuple[Template, ...], Field(min_length=1)] | PixelsConfig


def templates_of(images: Images) -> list[str]:
    """Return the templates of image files; none where the pixels stand in a table."""
    if isinstance(images, PixelsConfig):
        return []
    places = images if isinstance(images, tuple) else (images,)
    return [text for place in places for text in ([place] if isinstance(place, str) else place.first)]
