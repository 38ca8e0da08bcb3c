"""Images a second that data workers prepare, scaled to the four CPU cores that Kaggle has beside two T4s.

Workers are started as beside a GPU, and a loop that does nothing else takes their batches. Their CPU seconds are
counted when they end, those of the loop apart: a busy machine changes them less than the clock. The speed on four
cores is not measured but scaled: (4 − the cores that training needs) / CPU seconds an image. Photos are those of
scikit-learn, cut; in turns within one run, medians and ranges over the rounds.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from kit.data.augment import Augmentation
from kit.data.config import DataConfig
from kit.data.images import ImageSet, open_images
from kit.data.loading import BatchPlan, training_batches
from kit.data.workers import Workers

BATCH = 64
OWN, WORKERS = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN


def photos(folder: Path, count: int, width: int, height: int) -> list[Path]:
    """Write photos of a size, different ones by cutting and mirroring."""
    generator = np.random.default_rng(0)
    originals = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    paths = []
    for number in range(count):
        photo = originals[number % 2]
        left, top = generator.integers(0, 60, 2)
        cut = photo.crop((int(left), int(top), photo.width - 60 + int(left), photo.height - 60 + int(top)))
        paths.append(folder / f"{number}.jpg")
        cut.resize((width, height), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def processors(whose: int) -> float:
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime


def measured(images: ImageSet, config: DataConfig, count: int, epochs: int) -> tuple[float, float, float]:
    """Return seconds by the clock, of the workers' and of this process' CPU, an image."""
    plan = BatchPlan(seed=0, epochs=epochs, n=len(images), batch=BATCH)
    rows, targets = np.arange(len(images)), np.zeros(len(images), np.int64)
    augmentation = Augmentation(config)
    clock, own, theirs = time.perf_counter(), processors(OWN), processors(WORKERS)
    seen = sum(
        len(batch) for batch, _ in training_batches(images, rows, targets, augmentation, plan, 0, Workers(count))
    )
    clock, own, theirs = time.perf_counter() - clock, processors(OWN) - own, processors(WORKERS) - theirs
    return clock / seen, theirs / seen, own / seen


def say(what: str, rounds: list[tuple[float, float, float]], training: float) -> None:
    clock, theirs, own = np.array(rounds).T
    four = (4 - training) / (theirs + own)
    print(
        f"{what}: {np.median(theirs) * 1e3:.2f} ms of CPU an image in workers, "
        f"{np.median(own) * 1e3:.2f} in the loop; "
        f"four cores less {training:g}: {np.median(four):.0f} images/s ({four.min():.0f} to {four.max():.0f}); "
        f"here by the clock {1 / np.median(clock):.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--augment", nargs="+", default=["none", "light", "medium"])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--training", type=float, default=1.0, help="cores that the processes that train need")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loader-") as folder:
        paths = photos(Path(folder), arguments.images, arguments.width, arguments.height)
        ids = [path.stem for path in paths]
        ways = {
            "cache": {"cache": True},
            "JPEG, pillow": {"cache": False},
            "JPEG, fast": {"cache": False, "decode": "fast"},
        }
        for augment in arguments.augment:
            taken: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
            for turn in range(arguments.rounds):
                for way in ways if turn % 2 == 0 else reversed(ways):
                    config = DataConfig(size=arguments.size, augment=augment, **ways[way])
                    images = open_images(ids, paths, config, Path(folder) / "cache")
                    taken[way].append(measured(images, config, arguments.workers, arguments.epochs))
            for way, rounds in taken.items():
                say(f"{augment:6} from {way:11}", rounds, arguments.training)


if __name__ == "__main__":
    main()
