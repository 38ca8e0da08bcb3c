"""Fixtures that all tests share."""

import gc
import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from support.colours import write_competition

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach out
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # processes that share cores: do not spin for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a miniature network takes longer with more

pytest_plugins = ["support.kaggle_setting", "support.processes", "support.quick"]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests without garbage collection: syntax trees by the million are looked at again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """One process more than there are cores: a fifth of the tests' time they wait. None: xdist decides."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ or not hasattr(os, "sched_getaffinity"):
        return None
    return len(os.sched_getaffinity(0)) + 1


_imported = 0  # modules, when garbage was last collected for good


def pytest_runtest_setup(item: pytest.Item) -> None:
    global _imported
    if len(sys.modules) > _imported:  # a training makes two collections, which would look at every module anew
        _imported = len(sys.modules)
        gc.collect()
        gc.freeze()
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def competition(tmp_path_factory) -> Path:
    """The miniature competition, shared: tests that change files make their own with write_competition."""
    return write_competition(tmp_path_factory.mktemp("data") / "colours")


@pytest.fixture(scope="session", autouse=True)
def _threads():
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def two_threads():
    """Torch computes with two threads during a test of how many it uses."""
    import torch

    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)
