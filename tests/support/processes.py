"""Which processes were started."""

import multiprocessing.process as processes

import pytest


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
