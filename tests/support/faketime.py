"""Clocks that are set: of a process by libfaketime, where it is installed, and of budgets in this process."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

_PLACES = ("usr/lib/*/faketime", "usr/lib*/faketime", "usr/local/lib/faketime")


def _library() -> Path | None:
    """The library: what LIBFAKETIME names, or where packages put it."""
    stated = os.environ.get("LIBFAKETIME")
    folders = [folder for place in _PLACES for folder in Path("/").glob(place)]
    found = [Path(stated)] if stated else [folder / "libfaketime.so.1" for folder in folders]
    return next((path for path in found if path.is_file()), None)


LIBRARY = _library()


def clock_of(file: Path) -> dict[str, str]:
    """Variables under which a process has the time of day that `file` says, like -5y or +3d, as soon as it does.

    Its monotonic clock stays the machine's, as it does where a clock is set.
    """
    return {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def set_clock(patch: pytest.MonkeyPatch, clock: SimpleNamespace) -> None:
    """Let `clock` stand for `time` wherever the time of a budget is looked at."""
    for module in ("timekeeping", "budget_plan", "run_clock"):
        patch.setattr(f"kit.experiment.{module}.time", clock)
