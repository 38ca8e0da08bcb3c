"""Batches of uint8 pixels, in an order and with an augmentation that depend on counters alone."""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from kit.core.children import help_parent
from kit.core.errors import KitError, some
from kit.core.processes import need_guard
from kit.core.seeds import derive
from kit.data.ahead import one_ahead
from kit.data.augment import Augmentation, centre_crop
from kit.data.images import ImageSet
from kit.data.workers import ALONE, LOOK, Lives, Workers, handed_over, steadily

# A micro-batch as loaders take it: of each sample the epoch, its number, and how often the epoch had it before.
Visits = list[tuple[int, int, int]]


class Drawing:
    """Chances by which an epoch draws samples, with replacement.

    Parameters
    ----------
    chances : ndarray
        float64 [n]: of each sample, in any unit; one of 0 is never drawn.
    """

    def __init__(self, chances: np.ndarray):
        self._up_to = np.cumsum(chances, dtype=np.float64)
        self._up_to /= self._up_to[-1]

    def __call__(self, random: np.random.Generator) -> np.ndarray:
        """Return as many samples as there are, in the order in which they were drawn, int64 [n]."""
        return np.searchsorted(self._up_to, random.random(len(self._up_to)), side="right")


def epoch_order(seed: int, epoch: int, n: int, drawing: Drawing | None = None) -> np.ndarray:
    """Return the samples in the order in which `epoch` visits them, int64 [n].

    They are a permutation of 0 … n − 1, or, with a `drawing`, as many that it draws.
    """
    if drawing:
        return drawing(np.random.Generator(np.random.Philox(derive("draw", seed, epoch))))
    return np.random.Generator(np.random.Philox(derive("order", seed, epoch))).permutation(n)


_kept_order = lru_cache(maxsize=4)(epoch_order)  # an epoch's is asked for at each update


def times_before(order: np.ndarray) -> np.ndarray:
    """Return how often each sample of an order stands before its place there, int64 [n]."""
    places = np.argsort(order, kind="stable")
    in_order = order[places]
    firsts = np.searchsorted(in_order, in_order)
    times = np.empty(len(order), np.int64)
    times[places] = np.arange(len(order)) - firsts
    return times


@lru_cache(maxsize=4)
def _kept_times(seed: int, epoch: int, n: int, drawing: Drawing) -> np.ndarray:
    return times_before(_kept_order(seed, epoch, n, drawing))


@dataclass(frozen=True)
class BatchPlan:
    """Which samples each micro-batch of this process holds; incomplete updates are dropped.

    Attributes
    ----------
    seed
        Of the order of samples.
    epochs
        Of the training.
    n
        Training samples.
    batch
        Samples in a micro-batch of one process.
    accumulate
        Micro-batches in an update.
    processes
        How many share an update.
    rank
        The number of this process.
    drawing
        By which chances an epoch draws its samples; None: it visits each once.
    """

    seed: int
    epochs: int
    n: int
    batch: int
    accumulate: int = 1
    processes: int = 1
    rank: int = 0
    drawing: Drawing | None = None

    @property
    def samples_per_update(self) -> int:
        """Samples in an update, over all processes."""
        return self.batch * self.accumulate * self.processes

    @property
    def steps_per_epoch(self) -> int:
        """Updates in an epoch."""
        return self.n // self.samples_per_update

    @property
    def total_steps(self) -> int:
        """Updates in the whole training."""
        return self.epochs * self.steps_per_epoch

    def micro_batches(self, first_step: int = 0) -> Iterator[Visits]:
        """Yield (epoch, sample, times before) of each micro-batch, from update `first_step` on to the last.

        Times before: how often the epoch has had the sample already, 0 but where samples are drawn.
        """
        for step in range(first_step, self.total_steps):
            epoch = step // self.steps_per_epoch
            for samples, times in zip(self.samples(step), self._times(step), strict=True):
                each = zip(samples[self.rank].tolist(), times[self.rank].tolist(), strict=True)
                yield [(epoch, sample, before) for sample, before in each]

    def samples(self, step: int) -> np.ndarray:
        """Return the samples of update `step`, over all processes, int64 [accumulate, processes, batch]."""
        order = _kept_order(self.seed, step // self.steps_per_epoch, self.n, self.drawing)
        return self._of_update(order, step)

    def _times(self, step: int) -> np.ndarray:
        """Return how often the epoch has had each sample of update `step` before, in the shape of `samples`."""
        if self.drawing is None:
            return np.zeros((self.accumulate, self.processes, self.batch), np.int64)
        return self._of_update(_kept_times(self.seed, step // self.steps_per_epoch, self.n, self.drawing), step)

    def _of_update(self, of_epoch: np.ndarray, step: int) -> np.ndarray:
        update = of_epoch[step % self.steps_per_epoch * self.samples_per_update :][: self.samples_per_update]
        return update.reshape(self.accumulate, self.processes, self.batch)


class _TrainingSamples(Dataset):
    """Augmented samples of the given rows: `__getitems__` takes visits and returns a batch.

    A fault of the user's code is returned, too: raised in a worker, its line would come as a traceback.
    """

    def __init__(
        self, images: ImageSet, rows: np.ndarray, targets: np.ndarray, augmentation: Augmentation, seed: int
    ):
        self.images, self.rows, self.targets = images, rows, targets
        self.augmentation, self.seed = augmentation, seed

    def __getitems__(self, visits: Visits) -> tuple[torch.Tensor, torch.Tensor] | KitError:
        try:
            pixels = np.stack([self._sample(epoch, self.rows[sample], before) for epoch, sample, before in visits])
        except KitError as error:
            return error
        targets = self.targets[[sample for _, sample, _ in visits]]
        return torch.from_numpy(pixels), torch.from_numpy(targets)

    def _sample(self, epoch: int, row: int, before: int) -> np.ndarray:
        name = self.images.ids[row]
        again = (before,) if before else ()  # drawn twice in an epoch, an image is augmented anew
        try:
            return self.augmentation(self.images[row], derive("augment", self.seed, epoch, name, *again))
        except KitError as error:
            raise KitError(f"{error} (image {name}, epoch {epoch + 1})") from error


class _PlainSamples(Dataset):
    """Centre crops: `__getitems__` takes rows of the images and returns a batch."""

    def __init__(self, images: ImageSet, size: int):
        self.images, self.size = images, size

    def __getitems__(self, rows: list[int]) -> torch.Tensor | KitError:
        try:
            return torch.from_numpy(np.stack([centre_crop(self.images[row], self.size) for row in rows]))
        except KitError as error:
            return error


def training_batches(
    images: ImageSet,
    rows: np.ndarray,
    targets: np.ndarray,
    augmentation: Augmentation,
    plan: BatchPlan,
    first_step: int = 0,
    workers: Workers = ALONE,
) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
    """Iterate over the micro-batches of a training, augmented.

    Parameters
    ----------
    images : ImageSet
        Of which some train.
    rows : ndarray
        int64 [n]: which.
    targets : ndarray
        Their labels, aligned with `rows`.
    augmentation : Augmentation
        From stored pixels to what training sees.
    plan : BatchPlan
        Which samples a micro-batch holds.
    first_step : int
        The update to begin with.
    workers : Workers
        The processes that prepare batches.

    Without workers, a thread makes the next batch while this one trains, unless code of the user's augments, which
    may draw from generators that the loop draws from.

    Yields
    ------
    tuple of Tensor
        Pixels, uint8 [batch, size, size, channels], and targets [batch, ...].

    Raises
    ------
    KitError
        For an image that cannot be read any more, and where workers die twice or hang.
    """
    samples = _TrainingSamples(images, rows, targets, augmentation, plan.seed)

    def batches(first: int) -> Iterator[Visits]:
        return islice(plan.micro_batches(first_step), first, None)

    def place(number: int) -> str:
        visits = next(batches(number), [])
        names = some([images.ids[rows[sample]] for _, sample, _ in visits], 5)
        return f"epoch {visits[0][0] + 1}, images {names}" if visits else "after the last batch"

    if workers.count:
        size = plan.batch * (augmentation.pixels_bytes + targets[:1].nbytes)
        workers = workers.fitting(size)
    made = steadily(lambda first, workers: _loader(samples, batches(first), workers), workers, place, Lives())
    return made if workers.count or augmentation.has_own_code else one_ahead(made)


def plain_batches(
    images: ImageSet, rows: Sequence[int], size: int, batch: int, workers: Workers = ALONE
) -> Generator[torch.Tensor, None, None]:
    """Iterate over batches as evaluation sees them, not augmented.

    Yields
    ------
    Tensor
        uint8 [≤ batch, size, size, channels] in the order of `rows`; the last one may be smaller.
    """
    batches = _in_batches(rows, batch)
    samples = _PlainSamples(images, size)
    if workers.count:
        workers = workers.fitting(_plain_bytes(images, size, batch))
    made = steadily(
        lambda first, workers: _loader(samples, batches[first:], workers),
        workers,
        _place_of(images, batches),
        Lives(),
    )
    return made if workers.count or len(batches) == 1 else one_ahead(made)


class EvaluationLoader:
    """Gives the batches of `plain_batches`, by workers that stay for the next evaluation of the same images.

    Where processes are not forked, to start them takes longer than a small evaluation.
    """

    def __init__(self) -> None:
        self._loader: DataLoader | None = None
        self._images: ImageSet | None = None
        self._batches: list[list[int]] = []  # what the loader goes through, filled anew for each evaluation
        self._made_for: tuple[int, int, bool] | None = None
        self._workers = Workers()  # those that fit
        self._lives = Lives()

    def batches(
        self, images: ImageSet, rows: Sequence[int], size: int, batch: int, workers: Workers = ALONE
    ) -> Generator[torch.Tensor, None, None]:
        """Iterate over batches as `plain_batches` does; what was left of the iteration before is dropped."""
        if not workers.count:
            return plain_batches(images, rows, size, batch, workers)
        wanted = (size, workers.count, workers.pin)
        if self._loader is None or self._images is not images or self._made_for != wanted:
            self.close()
            self._images, self._made_for = images, wanted
            self._workers = workers.fitting(_plain_bytes(images, size, batch))
        self._workers = replace(self._workers, say=workers.say)
        whole = _in_batches(rows, batch)

        def make(first: int, workers: Workers) -> DataLoader:
            if self._loader is None or first or workers is not self._workers:
                self._loader, self._workers = None, workers  # the end of a loader is that of its workers
                self._loader = _loader(_PlainSamples(images, size), self._batches, workers, stay=True)
            self._batches[:] = whole[first:]
            return self._loader

        return steadily(make, self._workers, _place_of(images, whole), self._lives)

    def close(self) -> None:
        """End the workers, when the iteration under way is given up, too."""
        self._loader = self._images = self._made_for = None  # the end of a loader is that of its workers


def _in_batches(rows: Sequence[int], batch: int) -> list[list[int]]:
    return [list(rows[start : start + batch]) for start in range(0, len(rows), batch)]


def _place_of(images: ImageSet, batches: Sequence[Sequence[int]]) -> Callable[[int], str]:
    """Says of an evaluation which images a batch holds."""

    def place(number: int) -> str:
        rows = batches[number] if number < len(batches) else ()
        return f"images to predict: {some([images.ids[row] for row in rows], 5)}"

    return place


def _plain_bytes(images: ImageSet, size: int, batch: int) -> int:
    return batch * size * size * images.decoder.channels


def _loader(samples: Dataset, batches: Iterable[list], workers: Workers, stay: bool = False) -> DataLoader:
    """Return a loader; `stay`: its workers wait for another iteration."""
    if workers.count:
        need_guard()
    return DataLoader(
        samples,
        batch_sampler=batches,
        collate_fn=handed_over,
        num_workers=workers.count,
        pin_memory=workers.pin,
        prefetch_factor=workers.ahead if workers.count else None,
        timeout=LOOK if workers.count else 0,
        worker_init_fn=help_parent,
        persistent_workers=stay and bool(workers.count),
        generator=torch.Generator(),  # else each iteration draws from that of dropout, perhaps amid an update
    )


def worker_count(setting: int | str, on_gpu: bool, processes: int = 1) -> int:
    """Return how many workers prepare batches for one process.

    `auto` is none on a CPU, where workers would take the loop's cores; beside a GPU it is this process' share of
    the cores, 1 to 8.
    """
    if setting != "auto":
        return int(setting)
    return max(1, min(8, (os.cpu_count() or 1) // processes)) if on_gpu else 0
