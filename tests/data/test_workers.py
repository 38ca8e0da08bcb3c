"""Data workers that die, hang, or have no room for their batches."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from support.refusals import refusal_of

from kit.data import workers as of_workers
from kit.data.augment import Augmentation
from kit.data.config import DataConfig
from kit.data.decode import Decoder
from kit.data.images import ImageSet
from kit.data.loading import BatchPlan, EvaluationLoader, plain_batches, training_batches
from kit.data.workers import Workers

N, SIZE = 12, 8
ROWS = np.arange(N)
PLAN = BatchPlan(seed=3, epochs=2, n=N, batch=2)


class Breaking(ImageSet):
    """Images of which one ends or stops the process that reads it, as often as there are files in `folder`."""

    folder: Path
    how: str = "SIGKILL"
    row: int = 5

    def __getitem__(self, row: int) -> np.ndarray:
        charges = sorted(self.folder.iterdir()) if row == self.row and os.getpid() != self.parent else []
        if charges:
            charges[0].unlink()
            if self.how == "hang":
                time.sleep(2)
            if self.how == "exit":
                os._exit(3)
            os.kill(os.getpid(), getattr(signal, self.how))
        return super().__getitem__(row)


class Pixels:
    """A cache, as far as a set of images looks at it."""

    def __init__(self, pixels: np.ndarray):
        self.pixels = pixels

    def read(self, row: int) -> np.ndarray:
        return self.pixels[row]


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.setattr(of_workers, "LOOK", 0.2)
    monkeypatch.setattr("kit.data.loading.LOOK", 0.2)
    pixels = Pixels(np.random.default_rng(0).integers(0, 256, (N, SIZE, SIZE, 3), dtype=np.uint8))
    made = Breaking([f"id{row}" for row in range(N)], [], Decoder(SIZE, 3, "squash", "bicubic"), pixels)
    made.folder, made.parent = tmp_path / "charges", os.getpid()
    made.folder.mkdir()
    return made


def charge(images, times: int, how: str = "SIGKILL") -> None:
    images.how = how
    for number in range(times):
        (images.folder / str(number)).touch()


def train(images, workers: Workers, first: int = 0) -> list[bytes]:
    augmentation = Augmentation(DataConfig(size=SIZE, augment="light"))
    batches = training_batches(images, ROWS, ROWS, augmentation, PLAN, first, workers)
    return [pixels.numpy().tobytes() + targets.numpy().tobytes() for pixels, targets in batches]


PLACE = (
    r"due: epoch [12], images id\d+, id\d+"  # the batch that is due, which may be one before the images at fault
)


@pytest.mark.parametrize("first", [0, 4])
def test_a_worker_that_is_killed_is_replaced_once_and_the_same_batches_come(images, first):
    alone = train(images, Workers(), first)
    said: list[str] = []
    charge(images, 1)
    assert train(images, Workers(2, say=said.append), first) == alone
    (line,) = said
    assert line.startswith(
        "a data worker was killed by signal 9, as the system does when memory runs out (due: epoch "
    )
    assert line.endswith("; they are started anew, once")


def test_the_second_time_it_is_an_error_with_the_place_and_what_to_do(images, started):
    charge(images, 2)
    said: list[str] = []
    message = refusal_of(train, images, Workers(1, say=said.append))
    assert re.fullmatch(
        rf"a data worker was killed by signal 9, as the system does when memory runs out \({PLACE}\), the second "
        r"one; lower data.workers \(there were 1\), 0 does without; set data.cache to true, or run fewer side "
        r"by side \(--jobs\)",
        message,
    )
    assert len(said) == 1
    assert [process.is_alive() for process in started] == [False, False]


@pytest.mark.parametrize(
    ("how", "told"),
    [("SIGSEGV", "was killed by signal 11 (SIGSEGV)"), ("exit", "ended with exit code 3")],
)
def test_other_ends_are_told_by_name(images, how, told):
    charge(images, 1, how)
    said: list[str] = []
    train(images, Workers(1, say=said.append))
    (line,) = said
    assert re.fullmatch(rf"a data worker {re.escape(told)} \({PLACE}\); they are started anew, once", line)


def test_where_shared_memory_was_full_it_goes_on_without_workers(images, started):
    alone = train(images, Workers())
    charge(images, 2, "SIGBUS")
    said: list[str] = []
    assert train(images, Workers(1, say=said.append)) == alone
    (line,) = said
    told = r"a data worker was killed by signal 7 \(SIGBUS\)"
    assert re.fullmatch(rf"{told} \({PLACE}\); goes on without data workers", line)
    assert len(started) == 1


def test_a_batch_that_finds_no_room_is_not_waited_for(images, monkeypatch):
    """torch would print the error of its thread in the worker, and wait for ever."""

    def full(_):
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"
        )

    alone = train(images, Workers())
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    said: list[str] = []
    assert train(images, Workers(2, say=said.append)) == alone
    (line,) = said
    assert line.startswith("a data worker found no room in /dev/shm (due: epoch 1, images id")
    assert line.endswith("; goes on without data workers")


@pytest.mark.parametrize("batches", [1, 2])
def test_evaluations_go_on_likewise(images, batches):
    loader, said = EvaluationLoader(), []
    rows = list(range(N))
    expected = torch.cat(list(plain_batches(images, rows, SIZE, 3)))
    for number in range(3):
        if number == batches:
            charge(images, 1)
        made = torch.cat(list(loader.batches(images, rows, SIZE, 3, Workers(2, say=said.append))))
        assert torch.equal(made, expected)
    (line,) = said
    assert line.startswith(
        "a data worker was killed by signal 9, as the system does when memory runs out (due: images"
    )
    assert line.endswith("; they are started anew, once")
    charge(images, 1)
    message = refusal_of(list, loader.batches(images, rows, SIZE, 3, Workers(2)))
    assert re.search(
        r"\(due: images to predict: id\d+, id\d+, id\d+\), the second one; lower data.workers", message
    )
    loader.close()


def test_a_worker_that_hangs_is_not_waited_for_without_end(images, monkeypatch):
    monkeypatch.setattr(of_workers, "PATIENCE", 0.6)
    charge(images, 1, "hang")
    began = time.monotonic()
    message = refusal_of(train, images, Workers(1))
    assert re.match(rf"no batch came from the data workers for 0 minutes \({PLACE}\); look whether", message)
    assert time.monotonic() - began < 30


def test_a_worker_that_dies_disturbs_nothing_else(images):
    """torch's handler of SIGCHLD would raise an error wherever this process is."""
    before = signal.getsignal(signal.SIGCHLD)
    augmentation = Augmentation(DataConfig(size=SIZE, augment="light"))
    said: list[str] = []
    batches = training_batches(images, ROWS, ROWS, augmentation, PLAN, 0, Workers(1, say=said.append))
    charge(images, 1)
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) is before
    assert len(list(batches)) == PLAN.total_steps - 1


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_draw_nothing_from_the_generator_of_dropout(images, workers):
    charge(images, 1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(images, Workers(workers))
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_serve_a_thread_as_well(images):
    alone, made = train(images, Workers()), []
    thread = threading.Thread(target=lambda: made.extend(train(images, Workers(1))))
    thread.start()
    thread.join(60)
    assert made == alone
