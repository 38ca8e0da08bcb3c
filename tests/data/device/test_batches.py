"""Batches for a device: a function of counters whatever holds the images, and the same as one image at a time."""

import copy
import gc
import pickle
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.pixel_caches import pixel_cache
from torch.utils._python_dispatch import TorchDispatchMode

from kit.core.errors import KitError
from kit.core.seeds import derive
from kit.data.augment import Augmentation
from kit.data.config import DataConfig
from kit.data.decode import Decoder
from kit.data.device import resident as resident_module
from kit.data.device.augment import DeviceAugmentation, augments_on_device
from kit.data.device.batches import batches_for, plain_batches_there
from kit.data.device.resident import places_of, resident
from kit.data.device.uniforms import splitmix64
from kit.data.images import ImageSet
from kit.data.joined import JoinedImages
from kit.data.loading import BatchPlan, Drawing, plain_batches, training_batches
from kit.data.workers import ALONE, Workers

N, STORED, SIZE = 14, 12, 8
CPU = torch.device("cpu")
ROWS = np.array([13, 1, 2, 12, 4, 6, 8, 10, 0])  # which train
TARGETS = np.array([5, 1, 0, 2, 1, 0, 3, 4, 2])
PLAN = BatchPlan(seed=3, epochs=2, n=len(ROWS), batch=2)
PRESETS = ["none", "light", "medium", "heavy"]


def image_set(folder, channels: int = 3, count: int = N, seed: int = 0, first: str = "id") -> ImageSet:
    """Random images, cached at 12 × 12."""
    shape = (count, STORED, STORED, channels)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    stored = pixel_cache(folder / f"{first}{channels}.npy", pixels)
    return ImageSet(
        [f"{first}{row:02d}" for row in range(count)],
        [folder / f"{first}{row}.png" for row in range(count)],  # which are not there any more
        Decoder(STORED, channels, "squash", "bicubic"),
        cache=stored,
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageSet:
    return image_set(tmp_path_factory.mktemp("cache"))


def described(augment="heavy", **options) -> DataConfig:
    options = {"augment_on": "device", "size": SIZE, "crop_pct": SIZE / STORED} | options
    return DataConfig(augment=augment, **options)


def made(images, plan=PLAN, config=None, first=0, workers=ALONE, rows=ROWS, targets=TARGETS):
    each = batches_for(CPU, images, rows, targets, config or described(), plan, first, workers)
    return [(pixels.numpy().tobytes(), targets.tolist()) for pixels, targets in each]


def test_a_batch_is_each_of_its_images_alone(images):
    """The slow way: one image at a time, by a seed of its own."""
    augmentation, batches = DeviceAugmentation(described()), made(images)
    for (pixels, targets), visits in zip(batches, PLAN.micro_batches(), strict=True):
        alone = []
        for epoch, sample, _ in visits:
            row = ROWS[sample]
            total = (derive("image", f"id{row:02d}") + derive("augment", 3, epoch, 0)) % 2**64
            seeds = splitmix64(np.array([total], dtype=np.uint64), 1)[0]
            stored = torch.from_numpy(images[row].copy())[None]
            alone.append(augmentation(stored, torch.from_numpy(augmentation.draw(seeds))))
        assert pixels == torch.cat(alone).numpy().tobytes()
        assert targets == TARGETS[[sample for _, sample, _ in visits]].tolist()


def test_what_holds_the_images_changes_no_bit(images):
    streamed = described(device_memory=0)
    assert resident(images, CPU, 0.25) is not None
    assert resident_module._fits(1, CPU, 0.0) is False
    expected = made(images)
    apart = copy.copy(images)  # another set, of which nothing is resident yet
    assert made(apart, config=streamed) == expected
    assert made(apart, config=streamed, workers=Workers(1)) == expected
    assert made(copy.copy(images), config=described(augment_on="device")) == expected


@pytest.mark.parametrize("device_memory", [0.25, 0])
def test_later_start_and_ranks_give_their_part(images, device_memory):
    images = copy.copy(images)
    config = described(device_memory=device_memory)
    whole = made(images, config=config)
    assert made(images, config=config, first=5) == whole[5:]
    plan = replace(PLAN, batch=4)
    alone = list(batches_for(CPU, images, ROWS, TARGETS, config, plan))
    ranks = [made(images, replace(plan, batch=2, processes=2, rank=rank), config) for rank in (0, 1)]
    for (pixels, targets), *shares in zip(alone, *ranks, strict=True):
        assert pixels.numpy().tobytes() == b"".join(share[0] for share in shares)
        assert targets.tolist() == [target for share in shares for target in share[1]]


def test_an_image_that_an_epoch_draws_twice_is_augmented_anew(images):
    drawing = Drawing(np.array([1.0] + 8 * [0.0]))  # one image alone
    (first, _), (second, _) = made(images, replace(PLAN, epochs=1, batch=4, drawing=drawing))
    size = SIZE * SIZE * 3
    assert len({batch[at : at + size] for batch in (first, second) for at in range(0, len(first), size)}) >= 7


def test_without_steps_it_is_the_centre_as_on_the_cpu(images):
    config = described("none")
    there, here = (
        batches_for(CPU, images, ROWS, TARGETS, config, PLAN),
        training_batches(images, ROWS, TARGETS, Augmentation(config), PLAN),
    )
    for (pixels, targets), (expected, expected_targets) in zip(there, here, strict=True):
        torch.testing.assert_close(pixels, expected, rtol=0, atol=0)
        torch.testing.assert_close(targets, expected_targets, rtol=0, atol=0)


@cache
def augmentation(preset: str, channels: int = 3) -> DeviceAugmentation:
    return DeviceAugmentation(described(preset, channels=channels))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from(PRESETS),
    st.sampled_from([1, 3, 4, 7]),
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=9),
    st.data(),
)
def test_no_sample_knows_of_the_others(preset, channels, seeds, data):
    augment, seeds = augmentation(preset, channels), np.array(seeds, dtype=np.uint64)
    shape = (len(seeds), STORED, STORED, channels)
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8))
    before = pixels.clone()
    whole = augment(pixels, torch.from_numpy(augment.draw(seeds)))
    assert whole.shape == (len(seeds), SIZE, SIZE, channels)
    assert whole.dtype == torch.uint8
    assert whole.is_contiguous()
    torch.testing.assert_close(pixels, before, rtol=0, atol=0)
    some = data.draw(st.lists(st.integers(0, len(seeds) - 1), min_size=1, max_size=5))
    part = augment(pixels[some], torch.from_numpy(augment.draw(seeds[some])))
    torch.testing.assert_close(part, whole[some], rtol=0, atol=0)


@pytest.mark.parametrize(("p", "counts"), [(0.0, (0, 0)), (1.0, (4000, 4000)), (0.3, (1097, 1303))])
def test_steps_are_applied_as_often_as_they_say(p, counts):
    """0.3 of 4000, ± 3.5 sigma; and two steps independently of each other."""
    augment = DeviceAugmentation(described([{"HorizontalFlip": {"p": p}}, {"VerticalFlip": {"p": p}}]))
    drawn = augment.draw(np.arange(4000, dtype=np.uint64))
    across, down = drawn[:, 0] > 0, drawn[:, 4] > 0
    assert all(counts[0] <= each.sum() <= counts[1] for each in (across, down))
    if p == 0.3:
        assert 285 <= (across & down).sum() <= 435  # 0.09 of them, ± 4 sigma


def test_steps_come_in_their_order():
    """Upside down, then one corner's light is in the other; transposed first, it is elsewhere."""
    pixels = torch.zeros((1, STORED, STORED, 1), dtype=torch.uint8)
    pixels[0, 0, 3] = 9
    places = []
    for order in (["Transpose", "VerticalFlip"], ["VerticalFlip", "Transpose"]):
        augment = DeviceAugmentation(
            described([{name: {"p": 1}} for name in order], channels=1, crop_pct=1, size=12)
        )
        made = augment(pixels, torch.from_numpy(augment.draw(np.zeros(1, dtype=np.uint64))))
        places.append(tuple(int(each) for each in made[0, :, :, 0].nonzero()[0]))
    assert places == [(8, 0), (3, 11)]


def test_crops_are_anywhere_and_of_the_stored_pixels():
    config = described([{"HorizontalFlip": {"p": 0}}], channels=1)
    augment = DeviceAugmentation(config)
    pixels = torch.arange(STORED * STORED, dtype=torch.uint8).view(1, STORED, STORED, 1).expand(2000, -1, -1, -1)
    made = augment(pixels, torch.from_numpy(augment.draw(np.arange(2000, dtype=np.uint64))))
    corners, counts = made[:, 0, 0, 0].unique(return_counts=True)
    assert corners.tolist() == [STORED * row + column for row in range(5) for column in range(5)]
    assert counts.min() >= 45
    assert counts.max() <= 115  # 80 ± 4 sigma
    first = made[:, :1, :1, 0].int()
    expected = torch.arange(SIZE)[:, None] * STORED + torch.arange(SIZE)
    torch.testing.assert_close(made[..., 0].int() - first, expected.int().expand(2000, -1, -1), rtol=0, atol=0)


# Resident images.


def test_resident_images_are_the_stored_ones_and_are_read_once(images, monkeypatch):
    images = copy.copy(images)
    there = resident(images, CPU, 0.25)
    monkeypatch.setattr(ImageSet, "__getitem__", None)
    assert resident(images, CPU, 0.25) is there
    monkeypatch.undo()
    rows = [3, 0, 13, 3]
    np.testing.assert_array_equal(there.of(np.array(rows)).numpy(), np.stack([images[row] for row in rows]))


def test_evaluation_sees_the_same_batches(images):
    config, rows = described(), [5, 0, 13, 2, 2]
    assert resident(images, CPU, 0.25) is not None
    for size in (SIZE, STORED):
        there = list(plain_batches_there(CPU, images, rows, size, 2, config))
        for pixels, expected in zip(there, plain_batches(images, rows, size, 2), strict=True):
            torch.testing.assert_close(pixels, expected, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{"augment_on": "auto"}, {"augment_on": "cpu"}, {"device_memory": 0}])
def test_evaluation_goes_by_the_loader_where_nothing_stays(images, options):
    assert plain_batches_there(CPU, copy.copy(images), [0], SIZE, 2, described(**options)) is None


def test_evaluation_of_some_rows_reads_no_others(images, monkeypatch):
    """Those of a set with images that cannot be read, or its part of one that processes share."""
    images, read, ordinary = copy.copy(images), [], ImageSet.__getitem__
    monkeypatch.setattr(ImageSet, "__getitem__", lambda images, row: read.append(row) or ordinary(images, row))
    assert plain_batches_there(CPU, images, range(N - 1), SIZE, 2, described()) is None
    assert read == []
    whole = torch.cat(list(plain_batches_there(CPU, images, range(N), SIZE, 2, described())))
    assert sorted(read) == list(range(N))
    some = torch.cat(list(plain_batches_there(CPU, images, range(N - 1), SIZE, 2, described())))
    assert torch.equal(some, whole[:-1])
    assert len(read) == N


def test_joined_images(images, tmp_path):
    """Extra rows, each as often as it is named, behind the competition's own."""
    extra = image_set(tmp_path, count=5, seed=1, first="extra")
    joined = JoinedImages.of(images, extra, np.array([4, 0, 4, 1]))
    rows = np.array([17, 2, 15, 14, 16, 13, 0])
    targets = np.arange(7)
    plan = replace(PLAN, n=7, epochs=1, batch=1)
    there = resident(joined, CPU, 0.25)
    expected = np.stack([joined[int(row)] for row in rows])
    np.testing.assert_array_equal(there.of(places_of(joined, rows)).numpy(), expected)
    again = JoinedImages.of(images, extra, np.array([2]))  # of another fold: the same pixels
    assert resident(again, CPU, 0.25) is there
    streamed = made(joined, plan, rows=rows, targets=targets, config=described(device_memory=0))
    assert made(joined, plan, rows=rows, targets=targets) == streamed


def test_what_has_no_cache_or_no_room_does_not_stay(images, monkeypatch):
    uncached = copy.copy(images)
    uncached.cache = None
    assert resident(uncached, CPU, 1.0) is None
    size, memory = N * STORED * STORED * 3, resident_module.psutil.virtual_memory()
    monkeypatch.setattr(resident_module, "_kept", {})
    for total, available, fits in (
        (4 * size, 2 * size, True),
        (4 * size - 1, 2 * size, False),
        (4 * size, 2 * size - 1, False),
    ):
        told = memory._replace(total=total, available=available)
        monkeypatch.setattr(resident_module.psutil, "virtual_memory", lambda told=told: told)
        assert (resident(copy.copy(images), CPU, 0.25) is not None) is fits
        gc.collect()
        assert not resident_module._kept
    first, second = copy.copy(images), copy.copy(images)
    told = memory._replace(total=7 * size, available=9 * size)
    monkeypatch.setattr(resident_module.psutil, "virtual_memory", lambda: told)
    assert resident(first, CPU, 0.25) is not None
    assert resident(second, CPU, 0.25) is None  # together they take more than a quarter
    assert resident(first, CPU, 0.25) is not None
    del first
    gc.collect()
    assert resident(second, CPU, 0.25) is not None


def test_a_prediction_may_be_the_first_to_ask(images):
    images = copy.copy(images)
    with torch.inference_mode():
        there = resident(images, CPU, 0.25)
    assert not there.of(np.array([0])).is_inference()


def test_a_set_travels_without_what_stays(images):
    resident(images, CPU, 0.25)
    assert len(pickle.dumps(images)) < N * STORED * STORED * 3


def test_a_damaged_image_is_told_as_anywhere(tmp_path):
    broken = image_set(tmp_path, first="broken")
    with open(broken.cache.file, "r+b") as file:
        file.seek(-1000, 2)
        file.write(b"\0" * 8)
    with pytest.raises(KitError, match=r"the pixels of image broken\d\d are damaged .* cannot be read any more"):
        resident(broken, CPU, 0.25)
    with pytest.raises(KitError, match="damaged"):  # nor does it stay half read
        resident(broken, CPU, 0.25)


# Where it is done.


def test_auto_is_the_device_on_a_gpu_where_all_steps_are_known():
    gpu = torch.device("cuda", 0)
    for preset in PRESETS:
        assert augments_on_device(described(preset, augment_on="auto"), gpu)
        assert not augments_on_device(described(preset, augment_on="auto"), CPU)
        assert not augments_on_device(described(preset, augment_on="cpu"), gpu)
        assert augments_on_device(described(preset), CPU)
        for share in (0, 1):  # which never decides it
            assert augments_on_device(described(preset, augment_on="auto", device_memory=share), gpu)
    for unknown in ("MotionBlur", {"MotionBlur": {"p": 0.1}}, {"OneOf": {"transforms": ["HorizontalFlip"]}}):
        assert not augments_on_device(described(["HorizontalFlip", unknown], augment_on="auto"), gpu)


def test_own_code_is_not_looked_into():
    """It stays with the CPU; where it cannot be loaded, that is told there."""
    config = described(["HorizontalFlip", {"missing.py:nothing": {}}], augment_on="auto")
    assert not augments_on_device(config, torch.device("cuda"))


@pytest.mark.parametrize(
    ("augment", "named"),
    [
        (["HorizontalFlip", "MotionBlur"], r"data.augment\[1\] \(MotionBlur\)"),
        ([{"Affine": {"fit_output": True}}], r"data.augment\[0\] \(Affine\)"),
        (["mine.py:noise"], r"data.augment\[0\] \(mine.py:noise\)"),
    ],
)
def test_what_is_asked_of_the_device_and_not_known_there_is_refused(augment, named):
    with pytest.raises(
        KitError, match=rf"^data.augment_on: {named}: not known on the device, or not with these options"
    ):
        augments_on_device(described(augment), CPU)


# What a GPU would wait for, or miss, found without one.


class Seen(TorchDispatchMode):
    """Writes down each operation."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        self.names.add(operation.overloadpacket.__name__)
        return operation(*arguments, **(keywords or {}))


WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "item",
    "is_nonzero",
    "equal",
    "bincount",
    "unique_dim",
}


def test_nothing_reads_from_the_device(images):
    """Else each batch would wait for all that the device has to do."""
    with Seen() as seen:
        assert len(made(images)) == len(list(PLAN.micro_batches()))
    assert {"grid_sampler_2d", "index_select", "where"} <= seen.names
    assert not seen.names & WAITING


@pytest.mark.parametrize("preset", PRESETS)
def test_all_that_is_made_is_made_on_the_device_of_the_pixels(preset):
    """torch refuses to combine tensors of the CPU with others than numbers on another device."""
    augment = augmentation(preset)
    pixels = torch.empty((4, STORED, STORED, 3), dtype=torch.uint8, device="meta")
    drawn = torch.from_numpy(augment.draw(np.arange(4, dtype=np.uint64))).to("meta")
    made = augment(pixels, drawn)
    assert (made.device.type, made.shape, made.dtype) == ("meta", (4, SIZE, SIZE, 3), torch.uint8)
