"""How image files are read: by whom, within which limits, on which background, from which levels."""

import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image, PngImagePlugin

from kit.data.config import DataConfig, DecoderConfig

MEGAPIXELS = DataConfig.model_fields["megapixels"].default
TEXT_CHUNK_MB = DataConfig.model_fields["text_chunk_mb"].default
ORIENTATION = 0x0112  # the tag of EXIF 2.32
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LONGEST = 200  # characters of a reason

Note = Callable[[str], None]  # takes what is noticed of one image: "transparent", "beyond" …


def unnoticed(_: str) -> None:
    """Take what is noticed of an image, and do nothing with it."""


@dataclass(frozen=True)
class Reading:
    """What decides the pixels that are read of a file, before they are resized.

    Attributes
    ----------
    own
        The user's own decoder, which reads the files; None: PIL does.
    background
        The colour beneath transparent pixels; None: transparency is left out, and colours are as they are stored.
    keeps_alpha
        Whether transparency is a channel of what the model sees, so that nothing is to be composited.
    levels
        Of files with more than 8 bits, the values that become 0 and 255; None: nobody knows of such files, and 0
        and 65535 are taken.
    megapixels, text_chunk_mb
        Pillow's limits, as in `DataConfig`.
    fast
        Whether images are read and resized as `decode: fast` wants.
    """

    own: DecoderConfig | None = None
    background: tuple[int, int, int] | None = (255, 255, 255)
    keeps_alpha: bool = False
    levels: tuple[float, float] | None = None
    megapixels: float = MEGAPIXELS
    text_chunk_mb: float = TEXT_CHUNK_MB
    fast: bool = False

    @classmethod
    def of(cls, config: DataConfig) -> "Reading":
        """Return what the config asks for; levels that it leaves open are those that nobody knows of."""
        return cls(
            own=config.decoder,
            background=config.background_colour,
            keeps_alpha=config.channels == 4,
            levels=None if config.levels == "auto" else config.levels,
            megapixels=config.megapixels,
            text_chunk_mb=config.text_chunk_mb,
            fast=config.decode == "fast",
        )

    def flat(self, image: Image.Image, note: Note = unnoticed) -> Image.Image:
        """Return an image without transparency: on the background, where it has transparent pixels."""
        if image.mode != "RGBA" or self.background is None or image.getchannel("A").getextrema()[0] == 255:
            return image
        note("transparent")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*self.background, 255)), image)

    def set_limits(self) -> None:
        """Give Pillow these limits; they are of the whole process, as Pillow has no others.

        Source: `PIL.Image._decompression_bomb_check`, which refuses twice of what it warns of, and
        `PIL.PngImagePlugin`, where all texts together may take 64 times as much as one.
        """
        pixels, text = int(self.megapixels * 1e6 / 2), int(self.text_chunk_mb * 2**20)
        if pixels == Image.MAX_IMAGE_PIXELS and text == PngImagePlugin.MAX_TEXT_CHUNK:
            return
        with _setting:
            if self.megapixels != MEGAPIXELS:  # who states a limit knows that there are images below it
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            Image.MAX_IMAGE_PIXELS = pixels
            PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = text, 64 * text

    def reason(self, error: Exception) -> str:
        """Say in one line why a file cannot be read."""
        text = " ".join(str(error).split())
        if isinstance(error, OSError) and error.strerror:  # with the path in its text, whatever that is called
            return error.strerror
        if isinstance(error, Image.DecompressionBombError):
            found = re.search(r"\((\d+) pixels\)", text)
            size = f"{int(found[1]) / 1e6:.4g} megapixels" if found else "too many pixels"
            return f"{size}, more than data.megapixels = {self.megapixels:g}"
        if "MAX_TEXT_CHUNK" in text or "MAX_TEXT_MEMORY" in text:
            return f"a text beside the pixels is larger than data.text_chunk_mb = {self.text_chunk_mb:g} allows"
        if "cannot identify image file" in text:
            return "no image"
        if "truncated" in text or "broken" in text.lower():
            return "truncated"
        return shortened(text) or type(error).__name__


_setting = threading.Lock()
USUAL = Reading()


def shortened(text: str) -> str:
    """Return a text of at most 200 characters, cut between words."""
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - 1].rsplit(' ', 1)[0]} …"


def orientation_of(image: Image.Image) -> int:
    """Return how an image that is loaded lies, 1 to 8: 1, upright, where no EXIF block says so."""
    try:
        value: Any = image.getexif().get(ORIENTATION)
    except Exception:  # Pillow's readers raise what they like; of a sound picture only its turn is lost
        return 1
    return value if type(value) is int and value in TURNS else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return an image as it is to be looked at."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image
