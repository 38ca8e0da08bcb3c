"""What the C library does with memory that a training on the CPU has freed: it keeps it for the next layer."""

import ctypes
import os
from collections.abc import Mapping
from contextlib import suppress

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 2**31 - 1  # bytes: what mallopt takes is an int
LARGEST_OF_OLD = 2**25  # what glibc up to 2.34 takes for M_MMAP_THRESHOLD, on machines of 64 bits
SAID_BY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Let this process keep what it frees, for the rest of its life, in place of giving it back to the system.

    glibc gives large blocks back at once, as the activations of each layer are. The system then zeroes the pages
    of every block anew, which took a third of the CPU time of EfficientNet-Lite0 at 224 px (docs/throughput.md).
    No bit of a result depends on it. Where another library of C serves, nothing is done.

    Parameters
    ----------
    environment : mapping of str to str
        Who states there how glibc allocates has chosen, and nothing is done.

    Returns
    -------
    bool
        Whether it was done.
    """
    if any(name in environment for name in SAID_BY) or "glibc.malloc" in environment.get("GLIBC_TUNABLES", ""):
        return False
    with suppress(OSError, AttributeError, TypeError):  # not glibc, or Windows
        mallopt = ctypes.CDLL(None).mallopt
        kept = mallopt(M_MMAP_THRESHOLD, LARGEST) or mallopt(M_MMAP_THRESHOLD, LARGEST_OF_OLD)
        return bool(kept and mallopt(M_TRIM_THRESHOLD, LARGEST))
    return False


def give_back_freed_memory() -> None:
    """Give the system what is kept and free; where another library of C serves, nothing is done."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
