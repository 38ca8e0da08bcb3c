"""Decoding images from files and from one zip, in turns within one run: wall and CPU seconds."""

import argparse
import shutil
import statistics
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kit.competition.templates import image_sources
from kit.data.decode import Decoder
from kit.data.images import map_in_threads
from kit.data.sources import Source, missing_files

DIFFERENT = 500  # images; the files are copies of these


def write(folder: Path, count: int, size: int) -> list[str]:
    """Write JPEGs of smooth noise in folder/images, and a zip of them, as Kaggle packs it; return their ids."""
    generator = np.random.default_rng(0)
    images = folder / "images"
    images.mkdir()
    contents = []
    for _ in range(min(count, DIFFERENT)):
        coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3)).astype(np.uint8))
        path = folder / "one.jpg"
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(path, quality=95)
        contents.append(path.read_bytes())
    ids = [f"{row:07}" for row in range(count)]
    with zipfile.ZipFile(folder / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for row, name in enumerate(ids):
            (images / f"{name}.jpg").write_bytes(contents[row % len(contents)])
            archive.writestr(f"{name}.jpg", contents[row % len(contents)])
    return ids


def timed(call) -> tuple[float, float, object]:
    clock, processors = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - clock, time.process_time() - processors, result


def decoded(sources: list[Source], size: int) -> int:
    """Decode all in threads, as before training, and return the sum of the pixels."""
    decoder = Decoder(size, 3, "squash", "bilinear")
    return sum(map_in_threads(lambda source: int(decoder(source).sum()), sources, lambda done, total: None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=64, help="pixels a side, as stored and as decoded")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="zip-images-"))
    try:
        table = pd.DataFrame({"id": write(folder, arguments.images, arguments.size)}, dtype=object)
        sources = {}
        for name, template in {"files": "images/{id}.jpg", "zip": "images.zip/{id}.jpg"}.items():
            seconds, processors, found = timed(
                lambda at=template: image_sources(folder, table, at, "images", None)
            )
            assert not missing_files(found)
            print(f"{name:6} found in   {seconds:7.2f} s, {processors:7.2f} s of the processors")
            sources[name] = found
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sources}
        sums = set()
        for turn in range(arguments.rounds):
            for name in sources if turn % 2 == 0 else reversed(sources):
                seconds, processors, total = timed(lambda at=name: decoded(sources[at], arguments.size))
                taken[name].append((seconds, processors))
                sums.add(total)
        assert len(sums) == 1  # the same pixels
        for name, rounds in taken.items():
            clock, processors = (statistics.median(each) for each in zip(*rounds, strict=True))
            print(f"{name:6} decoded in {clock:7.2f} s, {processors:7.2f} s of the processors")
        pairs = list(zip(taken["files"], taken["zip"], strict=True))
        for place, what in enumerate(("by the clock", "of the processors")):
            ratios = sorted(files[place] / packed[place] for files, packed in pairs)
            middle = statistics.median(ratios)
            print(f"speed of zip / of files, {what}: {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
