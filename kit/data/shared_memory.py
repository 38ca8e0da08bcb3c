"""Shared memory, through which data workers hand their batches over: how many workers it has room for.

torch's other way of sharing, `file_system`, is none out: its files lie in the same memory, and stay there when a
process is killed.
"""

import os
import sys
from pathlib import Path

PLACE = Path("/dev/shm")
AHEAD = 4  # batches that a worker prepares before they are asked for
HELD = 2  # batches that the process holds which takes them
USABLE = 0.9  # of what is free: semaphores and ends of pages take some, too


def free_shared_memory() -> int | None:
    """Return the bytes free in /dev/shm; 0 where Linux has none, None where nothing but memory limits it."""
    if sys.platform != "linux":
        return None
    try:
        state = os.statvfs(PLACE)
    except OSError:
        return 0
    return state.f_bavail * state.f_frsize


def workers_that_fit(wanted: int, batch_bytes: int, free: int | None) -> tuple[int, int]:
    """Return how many workers, and how many batches ahead each, shared memory has room for.

    Batches in flight are workers × those ahead, and two that are in use.

    Parameters
    ----------
    wanted : int
        Workers.
    batch_bytes : int
        Of one batch.
    free : int or None
        Bytes; None: no limit.

    Returns
    -------
    tuple of int
        At most `wanted` workers with 2 to 4 batches ahead each; (0, 0) where there is room for none.
    """
    if free is None or not wanted:
        return wanted, AHEAD if wanted else 0
    room = int(USABLE * free) // max(batch_bytes, 1) - HELD
    workers = min(wanted, room // 2)
    return (workers, min(AHEAD, room // workers)) if workers > 0 else (0, 0)
