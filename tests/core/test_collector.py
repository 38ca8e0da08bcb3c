"""What the collector passes over, and what it collects all the same."""

import gc
import weakref

import pytest

from kit.core.collector import passing_over_what_is_there


@pytest.fixture(autouse=True)
def _nothing_is_frozen():
    """The tests themselves freeze what is imported."""
    gc.unfreeze()
    yield
    gc.collect()
    gc.freeze()


class Node:
    """Ties itself into a cycle, as accelerate does with models."""

    def __init__(self):
        self.itself = self


def test_garbage_made_within_is_collected_and_what_was_there_once_it_ends():
    there, gone = Node(), Node()
    seen, already = weakref.ref(there), weakref.ref(gone)
    del gone
    with passing_over_what_is_there():
        assert already() is None  # collected on the way in
        made = Node()
        within = weakref.ref(made)
        del made, there
        gc.collect()
        assert within() is None
        assert seen() is not None
    gc.collect()
    assert seen() is None


def test_it_looks_through_what_is_made_within_alone():
    with passing_over_what_is_there():
        assert len(gc.get_objects()) < 1000
    assert gc.get_freeze_count() == 0


def test_one_within_another_and_within_a_freeze_changes_nothing():
    with passing_over_what_is_there():
        frozen, made = gc.get_freeze_count(), [[] for _ in range(10_000)]
        with passing_over_what_is_there():
            assert abs(gc.get_freeze_count() - frozen) < len(made) / 2  # others may let go of a few meanwhile
        assert abs(gc.get_freeze_count() - frozen) < len(made) / 2
    assert gc.get_freeze_count() == 0


def test_an_error_ends_it():
    with pytest.raises(ValueError, match="within"), passing_over_what_is_there():
        raise ValueError("within")
    assert gc.get_freeze_count() == 0
