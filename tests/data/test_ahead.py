"""The next item is made by a thread while this one is used: the same items, the same errors, no thread left."""

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.data.ahead import one_ahead

LONG = 30.0  # seconds within which a thread does what it does


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("kit-next-batch")]


@given(st.lists(st.integers() | st.none()))
def test_items_come_in_their_order(items):
    assert list(one_ahead(items)) == items
    assert not threads()


def test_the_next_one_is_made_while_this_one_is_used_and_no_further_one():
    made, second = [], threading.Event()

    def making() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    items = one_ahead(making())
    assert made == []  # nothing before it is asked for
    assert next(items) == 0
    assert second.wait(LONG)
    assert next(items) == 1
    assert set(made) <= {0, 1, 2}
    items.close()


def test_it_is_a_thread_that_makes_them():
    assert set(one_ahead(threading.get_ident() for _ in range(3))).isdisjoint({threading.get_ident()})


def test_an_error_is_raised_at_its_place_and_ends_it():
    def making() -> Iterator[int]:
        yield 1
        raise ValueError("a broken image")

    items = one_ahead(making())
    assert next(items) == 1
    with pytest.raises(ValueError, match="a broken image"):
        next(items)
    assert list(items) == []
    assert not threads()


@pytest.mark.parametrize("end", ["close", "drop", "raise"])
def test_no_thread_is_left_where_the_iteration_is_given_up(end):
    def endless() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    items = one_ahead(endless())
    assert next(items) == 0
    assert threads()
    if end == "close":
        items.close()
    elif end == "drop":
        del items
    else:
        with pytest.raises(KeyboardInterrupt):
            items.throw(KeyboardInterrupt)
    assert not threads()


def test_what_is_being_made_is_made_to_the_end_before_it_is_closed():
    begun, ended = threading.Event(), []

    def making() -> Iterator[int]:
        yield 0
        begun.set()
        time.sleep(0.05)
        ended.append(True)
        yield 1

    items = one_ahead(making())
    next(items)
    assert begun.wait(LONG)
    items.close()
    assert ended == [True]


def test_its_own_thread_may_close_it_as_pythons_collector_does():
    suspended, closed, holder = threading.Event(), threading.Event(), []

    def making() -> Iterator[int]:
        yield 0
        assert suspended.wait(LONG)
        holder[0].close()
        closed.set()
        yield 1

    items = one_ahead(making())
    holder.append(items)
    assert next(items) == 0
    suspended.set()
    assert closed.wait(LONG)
    assert list(items) == []
