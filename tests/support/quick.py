"""Fixtures that spare tests what takes time and is shown elsewhere."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kit.core import plotting
from kit.core.files import atomic
from kit.experiment import curves


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk():
    """Files are handed to the system and not waited for: no test turns the machine off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _curves_are_not_painted():
    """Runs save their curves as an empty picture: matplotlib paints for as long as a small training takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "save", _save_empty)
        yield


@pytest.fixture
def painted():
    """Curves are painted, as outside of tests."""
    with painting():
        yield


@contextmanager
def painting() -> Iterator[None]:
    """Curves are painted meanwhile, as by the processes that a test starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "save", plotting.save)
        yield


def _save_empty(figure: object, path: Path, source: str = "") -> None:
    """Save one pixel, with what `plotting.source_of` reads."""
    stated = PngInfo()
    stated.add_text("Source", source)
    with atomic(path) as temporary:
        Image.new("RGB", (1, 1)).save(temporary, format="PNG", pnginfo=stated)
