"""The next batch is made by a thread while this one is used."""

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def one_ahead(items: Iterable[Item]) -> Generator[Item, None, None]:
    """Yield the items in their order, of which a thread makes the next one while this one is used.

    What decodes, augments and copies lets go of Python's lock, and so does torch, so that the two share the cores.
    The thread makes one item and waits. It ends with the iteration, and where that is closed or dropped before its
    end; what it is making then is made to the end.

    Parameters
    ----------
    items : iterable
        What makes them must not draw from random generators that others draw from, like `numpy.random`'s.

    Raises
    ------
    Exception
        What making an item raises, at the place of that item.
    """
    source = iter(items)
    pool = ThreadPoolExecutor(1, "kit-next-batch")
    try:
        coming = pool.submit(next, source, _END)
        while (item := coming.result()) is not _END:
            coming = pool.submit(next, source, _END)
            yield item  # type: ignore[misc] # _END is none of them
    finally:
        with suppress(RuntimeError):  # the thread itself collects what was dropped: it cannot wait for itself
            pool.shutdown(cancel_futures=True)
