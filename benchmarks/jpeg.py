"""Decoding JPEGs: `decode: pillow` and `fast`, and what libraries take for decoding alone; in CPU milliseconds.

Photos are scikit-learn's two, at the sizes asked for; the difference is that to all pixels, resized by Pillow. In
turns within one run: medians over the rounds, and the range of the ratio.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from kit.data.decode import Decoder
from kit.data.reading import Reading
from kit.data.resizing import Resizing

Size = tuple[int, int]
REPEATS = 10  # calls that are timed as one


def photos(folder: Path, size: Size) -> list[Path]:
    """Write the two photos at a size, as cameras and websites store them (quality 90, colours halved)."""
    paths = []
    for number, pixels in enumerate(load_sample_images().images):
        paths.append(folder / f"{size[0]}x{size[1]}-{number}.jpg")
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def milliseconds(call: Callable[[], object]) -> float:
    """Return the CPU time of a call."""
    start = time.process_time()
    for _ in range(REPEATS):
        call()
    return (time.process_time() - start) / REPEATS * 1e3


def decoders(resize: str, interpolation: str, side: int) -> dict[str, Decoder]:
    return {
        name: Decoder(side, 3, resize, interpolation, Reading(fast=name == "fast")) for name in ("pillow", "fast")
    }


def differences(paths: list[Path], resize: str, interpolation: str, side: int) -> dict[str, float]:
    """Return the mean difference to full decoding in grey levels, of each decoder."""
    found = {}
    for name, decoder in decoders(resize, interpolation, side).items():
        each = []
        for path in paths:
            full = Resizing(side, resize, interpolation)(Image.open(path))
            each.append(abs(decoder(path).astype(int) - full.astype(int)).mean())
        found[name] = float(np.mean(each))
    return found


def compare(paths: list[Path], size: Size, side: int, resize: str, interpolation: str, rounds: int) -> None:
    both = decoders(resize, interpolation, side)
    grey = differences(paths, resize, interpolation, side)  # first: torch is there then
    taken: dict[str, list[float]] = {name: [] for name in both}
    for turn in range(rounds):
        for name in both if turn % 2 == 0 else reversed(both):
            decoder = both[name]
            taken[name].append(
                statistics.mean(milliseconds(lambda at=path, by=decoder: by.again(at)) for path in paths)
            )
    ratios = sorted(one / other for one, other in zip(taken["pillow"], taken["fast"], strict=True))
    middle = {name: statistics.median(each) for name, each in taken.items()}
    print(
        f"{size[0]:5} × {size[1]:<5} → {side:3} {resize:6} {interpolation:8} "
        f"pillow {middle['pillow']:6.2f} ms, {grey['pillow']:.2f} grey levels; "
        f"fast {middle['fast']:6.2f} ms, {grey['fast']:.2f}; "
        f"speed {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        flush=True,
    )


def libraries(path: Path, size: Size, rounds: int) -> None:
    """Print what each library takes to decode a file, whole and at a half, a quarter and an eighth."""
    content = path.read_bytes()
    array = np.frombuffer(content, np.uint8)

    def pillow(part: int) -> None:
        image = Image.open(io.BytesIO(content))
        image.draft(None, (size[0] // part, size[1] // part))
        image.load()

    calls: dict[str, Callable[[], object]] = {f"Pillow 1/{n}": lambda n=n: pillow(n) for n in (1, 2, 4, 8)}
    flags = {1: cv2.IMREAD_COLOR_RGB}
    flags |= {n: getattr(cv2, f"IMREAD_REDUCED_COLOR_{n}") for n in (2, 4, 8)}
    calls |= {f"OpenCV 1/{n}": lambda how=how: cv2.imdecode(array, how) for n, how in flags.items()}
    try:
        import simplejpeg

        calls["simplejpeg 1/1"] = lambda: simplejpeg.decode_jpeg(content)
    except ImportError:
        pass
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name in calls if turn % 2 == 0 else reversed(calls):
            taken[name].append(milliseconds(calls[name]))
    said = (
        f"{name} {statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"
        for name, each in taken.items()
    )
    print(f"{size[0]:5} × {size[1]:<5} decoding alone, ms: {'; '.join(said)}", flush=True)


def size_of(text: str) -> Size:
    width, height = text.split("x")
    return int(width), int(height)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["500x375", "640x427", "1000x750", "3000x2000"])
    parser.add_argument("--side", type=int, nargs="+", default=[224])
    parser.add_argument("--resize", nargs="+", default=["squash", "crop", "pad"])
    parser.add_argument("--interpolation", nargs="+", default=["bicubic"])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    wall, processors = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="jpeg-") as folder:
        for size in map(size_of, arguments.sizes):
            paths = photos(Path(folder), size)
            libraries(paths[0], size, arguments.rounds)
            for side in arguments.side:
                for resize in arguments.resize:
                    for interpolation in arguments.interpolation:
                        compare(paths, size, side, resize, interpolation, arguments.rounds)
    wall, processors = time.perf_counter() - wall, time.process_time() - processors
    print(f"{processors:.0f} s of one processor, {wall:.0f} s by the clock: for the rest others had it")


if __name__ == "__main__":
    main()
