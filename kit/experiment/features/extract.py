"""Features of images under a frozen body: computed once, and kept in the cache folder by content."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from kit.core.claims import holding
from kit.core.errors import KitError, Say, ignore, some
from kit.core.progress import Progress
from kit.core.stopping import OUT_OF_TIME, Stopped, need_go_on
from kit.data.images import ImageSet
from kit.data.kept import is_kept, keeping
from kit.data.loading import EvaluationLoader, worker_count
from kit.data.workers import Workers
from kit.experiment.config import ExperimentConfig
from kit.experiment.own_files import code_of, packages_of_code
from kit.model.build import Normalisation, build_model, normalisation
from kit.model.features import Taps, block_named, body_digest
from kit.model.modes import evaluating
from kit.training.predict import Normalise

DECIDING = ("torch", "torchvision", "timm")  # libraries whose versions decide bits


@dataclass(frozen=True)
class Body:
    """A frozen network, and how images are shown to it.

    Attributes
    ----------
    config : ExperimentConfig
        With `features`.
    model : Module
        On the accelerator's device.
    digest : str
        Of its weights, but for the classifier's.
    normalisation : Normalisation
    accelerator : Accelerator
    say : callable
        Takes lines about what happens.
    shown : bool
        Whether there is a progress bar.
    batch_done : callable
        Told after each batch of how many images there are features.
    """

    config: ExperimentConfig
    model: nn.Module
    digest: str
    normalisation: Normalisation
    accelerator: Accelerator
    say: Say = ignore
    shown: bool = True
    batch_done: Callable[[int], None] = lambda rows: None

    @classmethod
    def of(
        cls,
        config: ExperimentConfig,
        classes: int,
        accelerator: Accelerator,
        say: Say = ignore,
    ) -> "Body":
        """Build the body of an experiment with so many classes, its weights as `model.weights` says."""
        data = config.data
        model = build_model(config.model, classes, data.channels, data.size, config.seeds[0])
        digest, usual = body_digest(model), normalisation(config.model.name, data.channels, model)
        stated = Normalisation(data.mean or usual.mean, data.std or usual.std)
        model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # it takes it
        return cls(config, model, digest, stated, accelerator, say)

    @property
    def plainly(self) -> "Body":
        """The same body, to which each image is shown once, whatever views its features are the mean over."""
        features = self.config.features
        assert features, "only to be asked of an experiment of heads"
        once = features.model_copy(update={"views": ()})
        return replace(self, config=self.config.model_copy(update={"features": once}))

    def features(
        self,
        images: ImageSet,
        names: Sequence[str],
        rows: Sequence[int] | None = None,
        expired: Callable[[], bool] = lambda: False,
        title: str = "Features",
    ) -> dict[str, np.ndarray]:
        """Compute the features of images, of all blocks in one pass.

        Parameters
        ----------
        images : ImageSet
        names : sequence of str
            Blocks.
        rows : sequence of int, optional
            Which of the images; left out: all.
        expired : callable
            Asked before each batch; once it is true, the features end with the batch before.
        title : str
            Of the progress bar.

        Returns
        -------
        dict of str to ndarray
            float32 [rows, numbers] of each block, rows in the order of `rows`.

        Raises
        ------
        Stopped
            Where a signal asked for it.
        """
        asked = list(range(len(images)) if rows is None else rows)
        with self.accelerator.autocast():
            found = self._features(images, names, asked, expired, title)
        if self.accelerator.mixed_precision == "fp16" and not all(
            np.isfinite(each).all() for each in found.values()
        ):
            self.say("values overflow in fp16; features are computed again in fp32")
            return self._features(images, names, asked, expired, title)
        return found

    def _features(
        self, images: ImageSet, names: Sequence[str], rows: list[int], expired: Callable[[], bool], title: str
    ) -> dict[str, np.ndarray]:
        taps, parts = Taps(self.model, names), {name: list[np.ndarray]() for name in names}
        normalise = Normalise.of(self.normalisation.mean, self.normalisation.std, self.accelerator.device)
        with (
            closing(EvaluationLoader()) as loader,
            evaluating(self.model),
            torch.inference_mode(),
            Progress(title, len(rows), unit="image", images=1, shown=self.shown) as progress,
        ):
            for pixels in self._batches(loader, images, rows, expired):
                for name, values in self._of_views(taps, normalise(pixels)).items():
                    parts[name].append(values.cpu().numpy())
                progress.update(progress.done + len(pixels))
                self.batch_done(progress.done)
        empty = np.zeros((0, 0), np.float32)
        return {name: np.concatenate(each) if each else empty for name, each in parts.items()}

    def _batches(
        self, loader: EvaluationLoader, images: ImageSet, rows: list[int], expired: Callable[[], bool]
    ) -> Iterator[torch.Tensor]:
        """Yield pixels of `rows`, until it has expired."""
        config, on_gpu = self.config, self.accelerator.device.type == "cuda"
        size = config.prediction.batch_size or 2 * config.training.batch_size
        count = worker_count(config.data.workers, on_gpu, 1) if len(rows) > size else 0
        workers = Workers(count, on_gpu, 1, self.say)
        for pixels in loader.batches(images, rows, config.data.size, size, workers):
            need_go_on("while features were computed; the same command computes them again")
            if expired():
                return
            yield pixels

    def _of_views(self, taps: Taps, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the features of each block, the mean over views."""
        found = dict(taps(inputs))
        if self.config.features and "hflip" in self.config.features.views:
            mirrored = taps(inputs.flip(3))
            found = {name: (values + mirrored[name]) / 2 for name, values in found.items()}
        return found


def features_of(
    body: Body,
    images: ImageSet,
    name: str,
    every: Sequence[str],
    part: str,
    folder: Path,
    expired: Callable[[], bool],
) -> np.ndarray:
    """Return the features of all images, from the cache folder or computed now and put there.

    Of several processes that want the same, one computes, and the others wait for it.

    Parameters
    ----------
    body : Body
    images : ImageSet
    name : str
        The block.
    every : sequence of str
        Blocks that will be asked for, too: what is not there of them is computed in the same pass.
    part : str
        train or test, for the progress bar.
    folder : Path
    expired : callable
        Whether the time is over.

    Returns
    -------
    ndarray
        float32 [images, numbers]; not to be written to.

    Raises
    ------
    Stopped
        Where time was over before all were computed, or a signal asked for a stop.
    KitError
        Where features are not finite.
    """
    if not len(images):
        return np.zeros((0, 0), np.float32)
    files = {each: folder / f"features-{_key(body, images, each)}.npy" for each in every}
    if not _is_there(files[name], body.say):
        blocks = ", ".join(every) if len(every) < 4 else f"{len(every)} blocks"
        with _held(files[name], f"computes features of {part} images of {body.config.name}", body.say, expired):
            due = [each for each in every if not _is_there(files[each])]
            if due:
                title = f"Features of {part} images ({blocks})"
                found = body.features(images, due, expired=expired, title=title)
                _keep(found, files, len(images))
    values = _read(files[name])
    if len(values) != len(images):
        raise KitError(f"{files[name]} is of {len(values)} images instead of {len(images)}; remove it")
    return values


@contextmanager
def _held(file: Path, what: str, say: Say, expired: Callable[[], bool]) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with holding(file, what, say, expired=expired):
            yield
    except TimeoutError:
        raise _out_of_time() from None


def _out_of_time() -> Stopped:
    return Stopped("budget: it was over before all features were computed; give more time", OUT_OF_TIME)


def _keep(found: dict[str, np.ndarray], files: dict[str, Path], images: int) -> None:
    """Put features into their files, each whole or not at all."""
    if any(len(values) < images for values in found.values()):
        raise _out_of_time()
    if odd := [name for name, values in found.items() if not np.isfinite(values).all()]:
        raise KitError(
            f"features.block: {some(odd)} gives values that are not finite; set training.precision=fp32"
        )
    for name, values in found.items():
        with keeping(files[name]) as temporary, open(temporary, "wb") as file:
            np.save(file, values, allow_pickle=False)


_whole: set[Path] = set()  # files that this process has found whole


def _is_there(file: Path, say: Say = ignore) -> bool:
    if file in _whole and file.is_file():
        return True
    if is_kept(file, say):
        _whole.add(file)
        return True
    _whole.discard(file)
    return False


@lru_cache(maxsize=4)  # of the folds of one head, and the next one on the same block
def _read(file: Path) -> np.ndarray:
    values = np.load(file, allow_pickle=False)  # what stands behind the array is its seal
    values.flags.writeable = False
    return values


def forget_features() -> None:
    """Let go of features that were read."""
    _read.cache_clear()


def _key(body: Body, images: ImageSet, name: str) -> str:
    """Return what decides the bits of features, as hexadecimal digits."""
    config, features = body.config, body.config.features
    decides = {
        "images": images.key,
        "body": [config.model.name, config.model.options, body.digest, code_of(config, config.model)],
        "normalisation": [body.normalisation.mean, body.normalisation.std],
        "size": config.data.size,
        "block": block_named(body.model, name),
        "views": features.views if features else (),
        "precision": body.accelerator.mixed_precision,
        "device": body.accelerator.device.type,
        "versions": [version(library) for library in DECIDING] + sorted(packages_of_code(config).items()),
    }
    return sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
