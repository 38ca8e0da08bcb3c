"""JPEGs for `decode: fast`: at a part of their size where that is enough, else the whole by OpenCV."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from kit.core.zips import MemberError
from kit.data.reading import orientation_of
from kit.data.sources import File, opened_file

END = b"\xff\xd9"  # the last marker (ITU-T T.81, table B.1), which stands nowhere else among the pixels
PARTS = (8, 4, 2)  # of the size, in which libjpeg-turbo decodes with few multiplications


def exact_part(size: tuple[int, int], least: int) -> int:
    """Return the largest part, 8, 4 or 2, that divides width and height and leaves `least` pixels; 1 for none.

    Of other sizes the last pixels would stand for a larger part of the image than the others, and all would be
    moved by up to half of a pixel of what is kept.
    """
    width, height = size
    fit = (part for part in PARTS if width % part == height % part == 0 and min(size) // part >= least)
    return next(fit, 1)


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
        as_it_is = cv2.IMREAD_GRAYSCALE if mode == "L" else cv2.IMREAD_COLOR_RGB
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), as_it_is | cv2.IMREAD_IGNORE_ORIENTATION)
    except (OSError, ValueError, SyntaxError, MemberError, Image.DecompressionBombError, cv2.error):
        return None
    return pixels
