"""Pictures that Pillow does not write: PNG of any depth with a transparent colour, EXIF blocks by hand."""

import struct
import zlib
from pathlib import Path

import numpy as np

GREY, COLOUR, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 4, 6  # the colour types of PNG


def write_png(path: Path, values: np.ndarray, depth: int, transparent: tuple[int, ...] = (), chunks=()) -> Path:
    """Write values [height, width] or [height, width, bands], of so many bits each, by the PNG standard."""
    bands = 1 if values.ndim == 2 else values.shape[2]
    height, width = values.shape[:2]
    kind = {1: GREY, 2: GREY_ALPHA, 3: COLOUR, 4: COLOUR_ALPHA}[bands]
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks]
    if transparent:
        parts.append((b"tRNS", struct.pack(f">{len(transparent)}H", *map(int, transparent))))
    rows = b"".join(b"\0" + _packed(row.ravel(), depth) for row in values)
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    whole = b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + whole)
    return path


def _packed(values: np.ndarray, depth: int) -> bytes:
    if depth == 16:
        return values.astype(">u2").tobytes()
    bits = (values[:, None] >> np.arange(depth)[::-1]) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def exif_block(*entries: tuple[int, int, int, bytes], values: bytes = b"") -> bytes:
    """Return an EXIF block of entries (tag, type, count, four bytes); offsets in it count from `II*`."""
    table = struct.pack("<H", len(entries))
    table += b"".join(struct.pack("<HHI", tag, kind, count) + content for tag, kind, count, content in entries)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + table + struct.pack("<I", 0) + values
