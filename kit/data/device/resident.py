"""Images that stay in the memory of the device: read once, then gathered there by their rows."""

import weakref
from collections.abc import Generator, Sequence

import numpy as np
import psutil
import torch

from kit.data.augment import centre_crop
from kit.data.images import ImageSet, map_in_threads
from kit.data.joined import JoinedImages

AT_ONCE, PARTS = 1 << 24, 16  # bytes that a thread reads, and how many times that before all are copied
_kept: dict[tuple[object, ...], "ResidentImages"] = {}  # by device and the sets that they are of


class ResidentImages:
    """The stored pixels of images, in the memory of a device.

    Parameters
    ----------
    sets : sequence of ImageSet
        One behind the other.
    device : device
        Where their pixels go; images that are damaged or cannot be read are told as anywhere.
    """

    def __init__(self, sets: Sequence[ImageSet], device: torch.device):
        decoder = sets[0].decoder
        self.device, self.shape = device, (decoder.side, decoder.side, decoder.channels)
        self.bytes = _bytes_of(sets)
        self._pixels = torch.empty((sum(map(len, sets)), *self.shape), dtype=torch.uint8, device=device)
        first = 0
        for images in sets:
            self._fill(images, first)
            first += len(images)

    def _fill(self, images: ImageSet, first: int) -> None:
        """Copy the pixels of a set to the places from `first` on; threads read, this one copies."""
        step = max(1, AT_ONCE // int(np.prod(self.shape)))

        def stacked(start: int) -> np.ndarray:
            return np.stack([images[row] for row in range(start, min(start + step, len(images)))])

        starts = range(0, len(images), step)
        for part in range(0, len(starts), PARTS):
            some = starts[part : part + PARTS]
            for start, content in zip(some, map_in_threads(stacked, some, lambda *_: None), strict=True):
                place = first + start
                self._pixels[place : place + len(content)].copy_(torch.from_numpy(content))

    def of(self, places: np.ndarray) -> torch.Tensor:
        """Return the pixels at some places, uint8 [places, side, side, channels]."""
        return self._pixels.index_select(0, to_device(np.asarray(places, dtype=np.int64), self.device))

    def batches(self, places: np.ndarray, size: int, batch: int) -> Generator[torch.Tensor, None, None]:
        """Yield batches as evaluation sees them: centre crops, uint8 [≤ batch, size, size, channels]."""
        for start in range(0, len(places), batch):
            yield centre_crop(self.of(places[start : start + batch]), size).contiguous()


def resident(images: ImageSet, device: torch.device, share: float) -> ResidentImages | None:
    """Return the images as they stay on the device, the same for every call as long as the set is there.

    None where their pixels are in no cache, or do not fit: all that stays on a device takes at most this share of
    its memory, and half of what is free.
    """
    sets, key = _sets_and_key(images, device)
    if key not in _kept:
        if any(each.cache is None for each in sets if len(each)) or not _fits(_bytes_of(sets), device, share):
            return None
        with torch.inference_mode(False):  # a prediction may be the first to ask
            _kept[key] = ResidentImages(sets, device)
        for each in sets:  # the end of one of them is theirs
            weakref.finalize(each, _kept.pop, key, None)
    return _kept[key]


def resident_already(images: ImageSet, device: torch.device) -> ResidentImages | None:
    """Return the images as they stay on the device, None where `resident` has not put them there."""
    return _kept.get(_sets_and_key(images, device)[1])


def let_go() -> None:
    """Give the memory of all devices back that images of this process stay in, until they are asked for again."""
    _kept.clear()


def _sets_and_key(images: ImageSet, device: torch.device) -> tuple[tuple[ImageSet, ...], tuple[object, ...]]:
    sets = images.sets if isinstance(images, JoinedImages) else (images,)
    return sets, (str(device), *map(id, sets))


def places_of(images: ImageSet, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return where some rows of a set are among its resident images, int64 [rows]."""
    rows = np.asarray(rows, dtype=np.int64)
    if not isinstance(images, JoinedImages):
        return rows
    first = len(images.sets[0])
    return np.concatenate([np.arange(first), first + images.rows])[rows]


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return an array as a tensor on a device; nothing waits for the copy to a GPU, which is made in turn."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _bytes_of(sets: Sequence[ImageSet]) -> int:
    return sum(len(images) * images.decoder.side**2 * images.decoder.channels for images in sets)


def _fits(more: int, device: torch.device, share: float) -> bool:
    """Whether so many bytes more may stay on a device."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
    else:
        memory = psutil.virtual_memory()
        free, total = memory.available, memory.total
    there = sum(each.bytes for each in _kept.values() if each.device == device)
    return there + more <= share * total and more <= free / 2
