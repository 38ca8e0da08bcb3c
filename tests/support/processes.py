"""Which processes were started, and one that starts commands at once."""

import multiprocessing.process as processes
from collections.abc import Iterator

import pytest
from support.zygote import Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """The process that forks for each command; importing takes it longer than most commands take."""
    with Zygote() as zygote:
        yield zygote


@pytest.fixture
def started(monkeypatch) -> list[processes.BaseProcess]:
    """The processes that a test starts by multiprocessing, in order."""
    begun: list[processes.BaseProcess] = []
    start = processes.BaseProcess.start

    def noted(process):
        start(process)
        begun.append(process)

    monkeypatch.setattr(processes.BaseProcess, "start", noted)
    return begun
