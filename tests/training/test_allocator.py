"""Memory that a training on the CPU frees stays with its process, unless the user says how glibc allocates."""

import os
import platform
import subprocess
import sys

import pytest

from kit.training.config import TrainingConfig

BLOCK = 64  # MB, more than glibc's own threshold ever is
CODE = f"""
import numpy as np
from kit.training.allocator import give_back_freed_memory, keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

def left():
    np.ones({BLOCK} * 10**6, np.uint8)
    return resident()

began = resident()
print(keep_freed_memory())
print(left() - began)
give_back_freed_memory()
print(resident() - began)
"""
ON_GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another library of C")


def outcome(**stated: str) -> tuple[bool, float, float]:
    """Whether it was done; MB that a freed block leaves with the process; and once they are given back."""
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name.upper()}
    environment.pop("GLIBC_TUNABLES", None)
    told = subprocess.run(
        [sys.executable, "-c", CODE], env=environment | stated, capture_output=True, text=True, check=True
    ).stdout.split()
    return told[0] == "True", float(told[1]), float(told[2])


@ON_GLIBC
def test_a_freed_block_stays_until_it_is_given_back():
    done, kept, later = outcome()
    assert done
    assert kept > BLOCK - 8
    assert later < 8


@ON_GLIBC
@pytest.mark.parametrize(
    "stated",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"MALLOC_MMAP_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"},
    ],
)
def test_what_the_user_states_of_glibc_holds(stated):
    done, kept, _ = outcome(**stated)
    assert not done
    assert kept < 8


@ON_GLIBC
def test_other_tunables_say_nothing_of_memory():
    assert outcome(GLIBC_TUNABLES="glibc.pthread.mutex_spin_count=100")[0]


def test_another_library_of_c_is_left_alone(monkeypatch):
    from kit.training import allocator

    class Other:
        pass

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: Other())
    assert not allocator.keep_freed_memory({})
    allocator.give_back_freed_memory()


@pytest.mark.parametrize("refused", [2**31 - 1, None])
def test_an_older_glibc_takes_the_largest_threshold_it_knows(monkeypatch, refused):
    from kit.training import allocator

    asked = []

    class Old:
        @staticmethod
        def mallopt(parameter, value):
            asked.append((parameter, value))
            return int((parameter, value) != (allocator.M_MMAP_THRESHOLD, refused))

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: Old())
    assert allocator.keep_freed_memory({})
    tried = [(-3, 2**31 - 1), (-3, 2**25)] if refused else [(-3, 2**31 - 1)]
    assert asked == [*tried, (-1, 2**31 - 1)]


def test_a_training_on_the_cpu_asks_for_it(monkeypatch):
    from kit.training import device

    asked = []
    monkeypatch.setattr(device, "keep_freed_memory", lambda: asked.append(True))
    device.make_accelerator(TrainingConfig(device="cpu"))
    assert asked == [True]
