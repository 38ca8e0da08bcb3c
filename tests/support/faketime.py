"""libfaketime, where it is installed: a process whose clock is wrong, jumps or runs backwards."""

import os
from pathlib import Path

_PLACES = (
    "/usr/lib/*/faketime/libfaketime.so.1",
    "/usr/lib*/faketime/libfaketime.so.1",
    "/usr/local/lib/faketime/libfaketime.so.1",
)


def _library() -> Path | None:
    stated = os.environ.get("LIBFAKETIME")
    found = [Path(stated)] if stated else [path for place in _PLACES for path in Path("/").glob(place[1:])]
    return next((path for path in found if path.is_file()), None)


LIBRARY = _library()


def environment_at(when: str) -> dict[str, str]:
    """Variables under which a process sees the time `when`, as libfaketime writes it; not its monotonic clock."""
    return {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME": when,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
