"""The `data` section of the config: how images are read, kept and augmented."""

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from kit.core.named import OwnOptions, RefersToCode
from kit.core.own_code import is_reference
from kit.core.settings import ConfigSection

# Albumentations' compositions, whose `transforms` are a list of augmentations like the one that they stand in.
COMPOSITIONS = ("OneOf", "SomeOf", "Sequential", "OneOrOther", "RandomOrder")
Preset = Literal["none", "light", "medium", "heavy"]


class DecoderConfig(OwnOptions):
    """A decoder of the user's own: a function of an image's path and of the options beside its name.

    It gives a PIL image, or an array uint8 [height, width] or [height, width, channels]; or it is a class that is
    made with the options and whose objects are such a function.
    """

    @cached_property
    def function(self) -> Callable[[Path], Any]:
        """What is called; KitError where it cannot be loaded or does not take its options."""
        return self.code.bind(self.options, ("path",))


class DataConfig(RefersToCode, ConfigSection):
    """How an image file becomes the network's input.

    Attributes
    ----------
    size
        Side of the square that the network sees, in pixels.
    channels
        1 (grey), 3 (RGB) or 4 (RGBA), files of another mode are converted; where an image is several files, as
        many as they are.
    background
        The colour beneath transparent pixels, wherever there are not four channels: a name, #rrggbb, or `none`:
        transparency is left out, and colours are as they are stored.
    levels
        Of files with more than 8 bits, the values that become 0 and 255: [low, high], or `auto`: those of the
        training images (see `kit.data.levels`).
    resize
        `squash` ignores the aspect ratio, `crop` cuts the middle square out, `pad` adds black.
    crop_pct
        Images are kept at size/crop_pct; evaluation sees the centre, training a random crop.
    interpolation
        bicubic, bilinear or nearest, as PIL knows them.
    mean, std
        Per channel, for pixels from 0 to 1; left out: those of the timm model.
    augment
        none, light, medium, heavy, or a list of albumentations, its compositions and of the user's own:
        [{HorizontalFlip: {p: 0.5}}, {"mine.py:add_noise": {p: 0.5}}, {OneOf: {transforms: [...], p: 0.5}}].
    augment_on
        Where images are augmented: `cpu`, by albumentations; `device`, on the one that trains, where all steps
        have to be known; `auto`: on a GPU where they are, else by the CPU.
    device_memory
        The share of the device's memory in which decoded images may stay, so that batches are gathered there; 0:
        none stay.
    decoder
        The user's own, which reads image files, like "mine.py:read_dicom" or {name: "mine.py:read_dicom", window:
        lung}; left out: PIL does.
    decode
        `pillow`: Pillow decodes and resizes. `fast`: pixels differ by less than a grey level on average, in a half
        of the time (see `kit.data.resizing`).
    megapixels
        A larger image is not read; Pillow's limit.
    text_chunk_mb
        A PNG is not read where a text beside its pixels takes more, in 2²⁰ bytes; Pillow's limit.
    cache
        Whether images are decoded once into a file of raw pixels: `auto` where it fits, true or false.
    cache_gb
        What fits: at most this many GB (10⁹ bytes), and half of the free disk.
    workers
        Processes that prepare batches; `auto`: none on a CPU, up to 8 beside a GPU.
    """

    # What background and levels do to the pixels of these files is compared instead: with most it is nothing.
    incidental: ClassVar[frozenset[str]] = frozenset(
        {"background", "levels", "cache", "cache_gb", "workers", "megapixels", "text_chunk_mb", "device_memory"}
    )
    later: ClassVar[frozenset[str]] = frozenset({"decoder", "augment_on", "decode"})

    size: Annotated[int, Field(ge=8, le=4096)] = 224
    channels: Annotated[int, Field(ge=1, le=32)] = 3
    background: str = "white"
    levels: Literal["auto"] | tuple[float, float] = "auto"
    resize: Literal["squash", "crop", "pad"] = "squash"
    crop_pct: Annotated[float, Field(gt=0, le=1)] = 1.0
    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    augment: Preset | list[str | dict[str, dict[str, Any]]] = "light"
    augment_on: Literal["auto", "cpu", "device"] = "auto"
    device_memory: Annotated[float, Field(ge=0, le=1)] = 0.25
    decoder: DecoderConfig | None = None
    decode: Literal["pillow", "fast"] = "pillow"
    megapixels: Annotated[float, Field(gt=0)] = 178.95697
    text_chunk_mb: Annotated[float, Field(gt=0)] = 1.0
    cache: Literal["auto"] | bool = "auto"
    cache_gb: Annotated[float, Field(gt=0)] = 20.0
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = "auto"

    @field_validator("background", mode="before")
    @classmethod
    def _a_colour(cls, name: Any) -> str:
        from PIL import ImageColor  # a config alone needs no Pillow

        if name == "none":
            return "none"
        if name is None:
            raise ValueError("expected a colour; #rrggbb is a comment in YAML unless it stands in quotes")
        try:
            red, green, blue = ImageColor.getrgb(name)  # type: ignore[misc]  # four are refused
        except (ValueError, AttributeError, TypeError):
            raise ValueError("expected a colour: a name like white, #rrggbb in quotes, or none") from None
        # One colour is one fingerprint, however it is spelt.
        return "white" if (red, green, blue) == (255, 255, 255) else f"#{red:02x}{green:02x}{blue:02x}"

    @field_validator("levels", mode="before")
    @classmethod
    def _low_and_high(cls, levels: Any) -> Any:
        if levels == "auto":
            return levels
        numbers = [level for level in levels if _is_number(level)] if isinstance(levels, list | tuple) else []
        if len(numbers) != 2 or len(levels) != 2 or not numbers[0] < numbers[1]:
            raise ValueError("expected auto, or [low, high] with low below high")
        return tuple(levels)

    @field_validator("mean", "std")
    @classmethod
    def _one_a_channel(cls, values: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...] | None:
        channels = info.data.get("channels")
        if values is not None and channels is not None and len(values) != channels:
            raise ValueError(f"{len(values)} values for {channels} channels")
        return values

    @field_validator("crop_pct")
    @classmethod
    def _not_beyond_the_largest_size(cls, crop_pct: float, info: ValidationInfo) -> float:
        if info.data.get("size", 0) / crop_pct > 8192:
            raise ValueError("images would be kept at more than 8192 pixels (size / crop_pct)")
        return crop_pct

    def references(self) -> Iterator[tuple[str, str]]:
        """Yield each place in `augment` that names own code, in compositions too, with the name."""
        yield from _references_in(() if isinstance(self.augment, str) else self.augment, "augment")

    @property
    def background_colour(self) -> tuple[int, int, int] | None:
        """Red, green and blue of the background, 0 to 255; None for none."""
        from PIL import ImageColor

        if self.background == "none":
            return None
        red, green, blue, *_ = ImageColor.getrgb(self.background)
        return red, green, blue

    @property
    def stored_size(self) -> int:
        """The side in pixels at which images are kept: size / crop_pct, rounded."""
        return round(self.size / self.crop_pct)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _references_in(steps: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield each place in a list of augmentations that names own code; what is no list is told elsewhere."""
    for number, step in enumerate(steps if isinstance(steps, list | tuple) else ()):
        where = f"{place}[{number}]"
        for name in step if isinstance(step, dict) else [step]:
            if is_reference(name):
                yield where, name
            inside = step[name] if isinstance(step, dict) and name in COMPOSITIONS else None
            if isinstance(inside, dict):
                yield from _references_in(inside.get("transforms"), f"{where}.{name}.transforms")
