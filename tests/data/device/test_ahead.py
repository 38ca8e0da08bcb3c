"""Copies ahead of use: what is asked of CUDA and in which order, on streams that only write down what happens."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from kit.data.device.ahead import ahead


class Tensor:
    """Writes down its copy, and in which stream it was made."""

    def __init__(self, name, happened):
        self.name, self.happened = name, happened

    def to(self, device, non_blocking):
        assert non_blocking
        self.happened.append(f"copy {self.name} on {self.happened.stream}")
        return Tensor(self.name, self.happened)

    def record_stream(self, stream):
        self.happened.append(f"keep {self.name} for {stream.name}")


class Happened(list):
    stream = "main"


@pytest.fixture
def happened(monkeypatch):
    happened = Happened()

    @contextmanager
    def within(stream):
        happened.stream = stream.name
        yield
        happened.stream = "main"

    main = SimpleNamespace(name="main", wait_stream=lambda other: happened.append(f"main waits for {other.name}"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: SimpleNamespace(name="side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "stream", within)
    return happened


def test_the_next_batch_is_copied_before_this_one_is_used(happened):
    batches = ((Tensor(f"pixels {number}", happened), Tensor(f"targets {number}", happened)) for number in (1, 2))
    for pixels, _ in ahead(batches, torch.device("cuda")):
        happened.append(f"compute {pixels.name}")
    assert happened == [
        "copy pixels 1 on side",
        "copy targets 1 on side",
        "main waits for side",  # for batch 1, and not for batch 2
        "keep pixels 1 for main",
        "keep targets 1 for main",
        "copy pixels 2 on side",
        "copy targets 2 on side",
        "compute pixels 1",
        "main waits for side",
        "keep pixels 2 for main",
        "keep targets 2 for main",
        "compute pixels 2",
    ]


def test_what_makes_batches_is_closed_with_them(happened):
    closed = []

    def made():
        try:
            while True:
                yield (Tensor("pixels", happened),)
        finally:
            closed.append(True)

    batches = ahead(made(), torch.device("cuda"))
    next(batches)
    batches.close()
    assert closed == [True]


def test_nothing_comes_of_nothing(happened):
    assert list(ahead((each for each in ()), torch.device("cuda"))) == []


def test_elsewhere_batches_are_what_they_were():
    batches = (each for each in [torch.zeros(1)])
    assert ahead(batches, torch.device("cpu")) is batches


@pytest.mark.gpu
def test_batches_arrive_whole():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    batches = [torch.full((1 << 22,), number, dtype=torch.uint8).pin_memory() for number in range(20)]
    for number, batch in enumerate(ahead((each for each in batches), torch.device("cuda"))):
        assert batch.is_cuda
        assert (batch.float().sum() == number * (1 << 22)).item()
