"""Order, plan and batches: all of it a function of counters, against slow loops."""

import copy
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.pixel_caches import pixel_cache

from kit.core.seeds import derive
from kit.data import loading
from kit.data.augment import Augmentation
from kit.data.config import DataConfig
from kit.data.decode import Decoder
from kit.data.images import ImageSet
from kit.data.loading import (
    BatchPlan,
    Drawing,
    EvaluationLoader,
    epoch_order,
    plain_batches,
    times_before,
    training_batches,
    worker_count,
)
from kit.data.workers import Workers

quick = settings(deadline=None, derandomize=True, max_examples=60)
seeds = st.integers(0, 2**32)
plans = st.builds(
    BatchPlan,
    seed=seeds,
    epochs=st.integers(1, 3),
    n=st.integers(0, 60),
    batch=st.integers(1, 6),
    accumulate=st.integers(1, 3),
)


@st.composite
def drawing_plans(draw) -> BatchPlan:
    """Plans that draw their samples, some of which have no chance."""
    plan = draw(plans.filter(lambda plan: plan.n))
    chances = draw(st.lists(st.sampled_from([0.0, 0.2, 1.0, 5.0]), min_size=plan.n, max_size=plan.n).filter(any))
    return replace(plan, drawing=Drawing(np.array(chances)))


@quick
@given(seeds, st.integers(0, 1000), st.integers(0, 300))
def test_epoch_order_is_a_permutation(seed, epoch, n):
    assert sorted(epoch_order(seed, epoch, n)) == list(range(n))


def test_epoch_order_never_changes():
    """A golden value: were it another one, no earlier experiment could be repeated."""
    assert epoch_order(7, 2, 10).tolist() == [3, 9, 4, 5, 1, 6, 8, 7, 0, 2]


def test_epoch_order_differs_between_epochs_and_seeds():
    orders = {tuple(epoch_order(seed, epoch, 20)) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


@quick
@given(plans | drawing_plans(), st.integers(1, 3))
def test_micro_batches_are_those_of_a_slow_loop(plan, processes):
    expected: list[list] = [[] for _ in range(processes)]
    for epoch in range(plan.epochs):
        order = list(epoch_order(plan.seed, epoch, plan.n, plan.drawing))
        left = [(epoch, sample, order[:place].count(sample)) for place, sample in enumerate(order)]
        while len(left) >= plan.batch * plan.accumulate * processes:
            for _ in range(plan.accumulate):
                for rank in range(processes):
                    expected[rank].append([left.pop(0) for _ in range(plan.batch)])
    for rank in range(processes):
        mine = replace(plan, processes=processes, rank=rank)
        assert list(mine.micro_batches()) == expected[rank]


@quick
@given(plans)
def test_epoch_visits_a_sample_at_most_once_and_drops_less_than_an_update(plan):
    batches = list(plan.micro_batches())
    assert len(batches) == plan.total_steps * plan.accumulate
    for epoch in range(plan.epochs):
        visited = [sample for batch in batches for when, sample, _ in batch if when == epoch]
        assert len(visited) == len(set(visited))
        assert set(visited) <= set(range(plan.n))
        assert 0 <= plan.n - len(visited) < plan.samples_per_update


@quick
@given(drawing_plans())
def test_a_plan_that_draws_is_a_function_of_counters_and_takes_no_sample_without_a_chance(plan):
    again = replace(plan, drawing=copy.deepcopy(plan.drawing))
    batches = list(plan.micro_batches())
    assert batches == list(again.micro_batches())
    assert len(batches) == replace(plan, drawing=None).total_steps * plan.accumulate
    chances = np.diff(plan.drawing._up_to, prepend=0)
    assert all(chances[sample] > 0 for batch in batches for _, sample, _ in batch)


def test_draws_never_change_and_differ_between_epochs_and_seeds():
    drawing = Drawing(np.array([1.0, 0, 5, 1, 1]))
    assert epoch_order(7, 2, 5, drawing).tolist() == [3, 2, 4, 2, 2]
    orders = {tuple(epoch_order(seed, epoch, 5, drawing)) for seed in range(4) for epoch in range(4)}
    assert len(orders) > 12


def test_times_before_are_counted_from_0():
    assert times_before(np.array([3, 1, 3, 3, 0, 1])).tolist() == [0, 0, 1, 2, 0, 1]
    assert times_before(np.array([], np.int64)).tolist() == []


@quick
@given(plans | drawing_plans(), st.data())
def test_later_start_gives_the_tail(plan, data):
    first = data.draw(st.integers(0, plan.total_steps), label="first_step")
    assert list(plan.micro_batches(first)) == list(plan.micro_batches())[first * plan.accumulate :]


def updates(plan: BatchPlan) -> list[list[tuple[int, int, int]]]:
    """The visits of each update: its micro-batches joined."""
    pairs = list(chain.from_iterable(plan.micro_batches()))
    mine = plan.batch * plan.accumulate
    return [pairs[start : start + mine] for start in range(0, len(pairs), mine)]


@quick
@given(plans | drawing_plans(), st.integers(1, 4))
def test_processes_share_the_updates_of_one(plan, processes):
    alone = updates(replace(plan, batch=plan.batch * processes))
    ranks = [updates(replace(plan, processes=processes, rank=rank)) for rank in range(processes)]
    together = [list(chain(*shares)) for shares in zip(*ranks, strict=True)]
    assert [sorted(update) for update in together] == [sorted(update) for update in alone]


@quick
@given(seeds, st.integers(0, 60), st.integers(1, 5), st.integers(1, 4))
def test_accumulated_updates_are_those_of_a_larger_batch(seed, n, batch, accumulate):
    assert updates(BatchPlan(seed, 2, n, batch, accumulate)) == updates(BatchPlan(seed, 2, n, batch * accumulate))


def test_plan_counts():
    plan = BatchPlan(seed=0, epochs=3, n=100, batch=4, accumulate=3, processes=2)
    assert (plan.samples_per_update, plan.steps_per_epoch, plan.total_steps) == (24, 4, 12)


N, STORED, SIZE = 14, 12, 8


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageSet:
    """Fourteen random images, cached at 12 × 12."""
    path = tmp_path_factory.mktemp("cache") / "pixels.npy"
    pixels = np.random.default_rng(0).integers(0, 256, (N, STORED, STORED, 3), dtype=np.uint8)
    decoder = Decoder(STORED, 3, "squash", "bicubic")
    return ImageSet([f"id{row:02d}" for row in range(N)], [], decoder, cache=pixel_cache(path, pixels))


ROWS = np.array([13, 1, 2, 12, 4, 6, 8, 10, 0])  # which train
TARGETS = np.array([5, 1, 0, 2, 1, 0, 3, 4, 2])
PLAN = BatchPlan(seed=3, epochs=2, n=len(ROWS), batch=2)


def augmentation(augment="medium") -> Augmentation:
    return Augmentation(DataConfig(size=SIZE, crop_pct=SIZE / STORED, augment=augment))


def as_bytes(batches) -> list[tuple[bytes, list[int]]]:
    return [(pixels.numpy().tobytes(), targets.tolist()) for pixels, targets in batches]


def test_batches_hold_the_planned_rows_with_their_targets(images):
    batches = list(training_batches(images, ROWS, TARGETS, augmentation("none"), PLAN))
    pairs = list(PLAN.micro_batches())
    assert len(batches) == len(pairs) == 8
    for (pixels, targets), batch in zip(batches, pairs, strict=True):
        assert pixels.dtype == torch.uint8
        np.testing.assert_array_equal(pixels, [images[ROWS[sample]][2:10, 2:10] for _, sample, _ in batch])
        assert targets.tolist() == [TARGETS[sample] for _, sample, _ in batch]


def test_sample_is_augmented_by_seed_epoch_and_id(images):
    augment = augmentation()
    for (pixels, _), batch in zip(
        training_batches(images, ROWS, TARGETS, augmentation(), PLAN), PLAN.micro_batches(), strict=True
    ):
        expected = [
            augment(images[ROWS[sample]], derive("augment", PLAN.seed, epoch, images.ids[ROWS[sample]]))
            for epoch, sample, _ in batch
        ]
        np.testing.assert_array_equal(pixels, expected)


def test_a_sample_that_an_epoch_draws_again_is_augmented_anew(images):
    """The first time as in an epoch that visits each once."""
    plan, augment = replace(PLAN, drawing=Drawing(np.array([8.0, *[1] * 8]))), augmentation("heavy")
    seen = set()
    for (pixels, _), batch in zip(
        training_batches(images, ROWS, TARGETS, augment, plan), plan.micro_batches(), strict=True
    ):
        for image, (epoch, sample, before) in zip(pixels, batch, strict=True):
            name, again = images.ids[ROWS[sample]], (before,) if before else ()
            expected = augment(images[ROWS[sample]], derive("augment", PLAN.seed, epoch, name, *again))
            np.testing.assert_array_equal(image, expected)
            seen.add((epoch, sample, image.numpy().tobytes()))
    assert len(seen) == 16
    assert max(before for batch in plan.micro_batches() for _, _, before in batch) > 1


def test_augmentation_does_not_depend_on_where_an_image_stands(images, tmp_path):
    cache = pixel_cache(tmp_path / "reversed.npy", np.load(images.cache.file)[::-1])
    reverse = ImageSet(images.ids[::-1], [], images.decoder, cache=cache)
    there = training_batches(reverse, N - 1 - ROWS, TARGETS, augmentation(), PLAN)
    assert as_bytes(there) == as_bytes(training_batches(images, ROWS, TARGETS, augmentation(), PLAN))


def test_epochs_see_other_pixels_of_the_same_sample(images):
    seen: dict[int, list[bytes]] = {}
    plan = BatchPlan(seed=3, epochs=4, n=len(ROWS), batch=3)
    for (pixels, _), batch in zip(
        training_batches(images, ROWS, TARGETS, augmentation("heavy"), plan), plan.micro_batches(), strict=True
    ):
        for image, (_, sample, _) in zip(pixels, batch, strict=True):
            seen.setdefault(sample, []).append(image.numpy().tobytes())
    assert [len(set(each)) for each in seen.values()] == [4] * len(ROWS)


@pytest.mark.parametrize("plan", [PLAN, replace(PLAN, drawing=Drawing(np.arange(9.0)))])
def test_workers_do_not_change_a_byte(images, plan):
    alone = as_bytes(training_batches(images, ROWS, TARGETS, augmentation(), plan))
    shared = as_bytes(training_batches(images, ROWS, TARGETS, augmentation(), plan, workers=Workers(2)))
    resumed = as_bytes(
        training_batches(images, ROWS, TARGETS, augmentation(), plan, first_step=5, workers=Workers(2))
    )
    assert shared == alone
    assert resumed == alone[5:]


@pytest.mark.parametrize("workers", [0, 2])
def test_plain_batches_are_centres_in_order_with_a_smaller_last_one(images, workers):
    rows = [4, 3, 13, 0, 4, 7, 1]
    batches = list(plain_batches(images, rows, SIZE, batch=3, workers=Workers(workers)))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    np.testing.assert_array_equal(torch.cat(batches), [images[row][2:10, 2:10] for row in rows])


ROWS_TO_EVALUATE = [[4, 3, 13, 0, 4, 7, 1], [1, 2], [], list(range(N)), [4, 3, 13, 0, 4, 7, 1]]


def test_the_workers_of_an_evaluation_serve_the_next_one(images, started):
    loader = EvaluationLoader()
    for rows in ROWS_TO_EVALUATE:
        batches = list(loader.batches(images, rows, SIZE, 3, workers=Workers(2)))
        expected = list(plain_batches(images, rows, SIZE, 3))
        assert len(batches) == len(expected)
        assert all(map(torch.equal, batches, expected))
    assert len(started) == 2
    assert all(process.is_alive() for process in started)
    loader.close()
    assert not any(process.is_alive() for process in started)


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_an_evaluation_that_is_given_up_leaves_nothing_to_the_next(images, started, taken):
    loader = EvaluationLoader()
    given_up = loader.batches(images, list(range(N)) * 3, SIZE, 2, workers=Workers(2))
    for _ in range(taken):
        next(given_up)
    rows = [13, 12, 11, 10, 9]
    pixels = torch.cat(list(loader.batches(images, rows, SIZE, 2, workers=Workers(2))))
    np.testing.assert_array_equal(pixels, [images[row][2:10, 2:10] for row in rows])
    next(loader.batches(images, list(range(N)), SIZE, 2, workers=Workers(2)))
    del given_up
    loader.close()
    assert [process.is_alive() for process in started] == [False, False]


def test_other_images_get_workers_of_their_own_and_end_those_before(images, started, tmp_path):
    cache = pixel_cache(tmp_path / "reversed.npy", np.load(images.cache.file)[::-1])
    reverse = ImageSet(images.ids[::-1], [], images.decoder, cache=cache)
    loader = EvaluationLoader()
    here = torch.cat(list(loader.batches(images, [0, 5, 2], SIZE, 2, workers=Workers(1))))
    there = torch.cat(list(loader.batches(reverse, [N - 1, N - 6, N - 3], SIZE, 2, workers=Workers(1))))
    np.testing.assert_array_equal(here, there)
    assert [process.is_alive() for process in started] == [False, True]
    assert list(loader.batches(reverse, [1], SIZE, 2)) != []  # without workers, in this process
    assert len(started) == 2
    loader.close()


def test_plain_batches_of_no_rows_are_none(images):
    assert list(plain_batches(images, [], SIZE, batch=3)) == []


@pytest.mark.parametrize(
    ("setting", "on_gpu", "processes", "cores", "workers"),
    [
        ("auto", False, 1, 16, 0),
        ("auto", True, 1, 16, 8),
        ("auto", True, 1, 4, 4),
        ("auto", True, 2, 4, 2),
        ("auto", True, 8, 4, 1),
        ("auto", True, 1, None, 1),
        (3, False, 1, 2, 3),
        (0, True, 1, 16, 0),
    ],
)
def test_worker_count(monkeypatch, setting, on_gpu, processes, cores, workers):
    monkeypatch.setattr(loading.os, "cpu_count", lambda: cores)
    assert worker_count(setting, on_gpu, processes) == workers
