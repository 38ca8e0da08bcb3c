"""JPEGs for `decode: fast`: at a part of their size where that is enough, else the whole by OpenCV."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from kit.core.zips import MemberError
from kit.data.reading import orientation_of
from kit.data.sources import File, opened_file

END = b"\xff\xd9"  # the last marker (ITU-T T.81, table B.1), which stands nowhere else among the pixels
COVERED = "kit covered"  # in `info`: width and height in pixels, with parts of pixels
PARTS = (8, 4, 2)  # of the size, in which libjpeg-turbo decodes with few multiplications


def part_of(size: tuple[int, int], least: int) -> int:
    """Return the part, 8, 4 or 2, at which a JPEG of this size has `least` pixels a side at least; 1 for none."""
    return next((part for part in PARTS if min(size) // part >= least), 1)


def decode_part(image: Image.Image, least: int) -> None:
    """Have an image that is open decoded at a part of its size, where it is a JPEG and large enough.

    Where the part does not divide width and height, the last pixels stand for less than the others: what the image
    covers of them is written to its `info`. One that EXIF turns is then decoded whole.
    """
    width, height = image.size
    part = part_of(image.size, least)
    divides = width % part == height % part == 0
    if part == 1 or not (divides or orientation_of(image) == 1):
        return
    image.draft(None, (width // part, height // part))
    if image.size != (width, height) and not divides:
        image.info[COVERED] = (width / part, height / part)


def jpeg_pixels(file: File, mode: str, wanted: Callable[[tuple[int, int]], bool]) -> np.ndarray | None:
    """Return the pixels of a JPEG, the same that Pillow reads, in less time; None where Pillow has to read it.

    That is a file of another format or mode, one that EXIF turns, one of a size that is not wanted, and one that
    is seen to be damaged, of which Pillow tells what is wrong. Not all damage is seen: Pillow has to have read the
    file before.

    Parameters
    ----------
    file : File
    mode : str
        L or RGB.
    wanted : callable
        Takes width and height, and says whether the pixels are to be read here.

    Returns
    -------
    ndarray
        uint8 [height, width] or [height, width, 3].
    """
    import cv2

    try:
        with opened_file(file) as opened:
            content = opened.read()
        if not content.endswith(END):  # of a truncated file OpenCV gives what there is
            return None
        with Image.open(io.BytesIO(content)) as header:
            plain = (header.format, header.mode, orientation_of(header)) == ("JPEG", mode, 1)
            if not plain or not wanted(header.size):
                return None
        as_it_is = cv2.IMREAD_GRAYSCALE if mode == "L" else cv2.IMREAD_COLOR
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), as_it_is | cv2.IMREAD_IGNORE_ORIENTATION)
    except (OSError, ValueError, SyntaxError, MemberError, Image.DecompressionBombError, cv2.error):
        return None
    return pixels if pixels is None or mode == "L" else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
