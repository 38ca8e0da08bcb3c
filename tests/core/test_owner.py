"""Tests of kit/core/owner.py."""

import dataclasses
import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from kit.core.owner import Owner

TELLS = "from kit.core.owner import Owner; print(Owner.mine().tag, flush=True); import time; time.sleep(600)"


def begun() -> tuple[subprocess.Popen, Owner]:
    """A process that sleeps, and the owner that it says it is."""
    process = subprocess.Popen([sys.executable, "-c", TELLS], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    owner = Owner.of_tag(process.stdout.readline().strip())
    assert owner
    return process, owner


def test_this_process_lives_and_its_tag_is_read_back():
    mine = Owner.mine()
    assert mine.alive is True
    assert mine.pid == os.getpid()
    back = Owner.of_tag(mine.tag)
    assert dataclasses.replace(back, host=mine.host) == mine
    assert back.alive is True


def test_a_process_lives_until_it_is_killed_even_before_its_parent_has_noticed():
    process, owner = begun()
    try:
        assert owner.alive is True
        assert owner.place == Owner.mine().place
    finally:
        process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is over, but not collected: a zombie
    assert owner.alive is False
    process.wait()
    assert owner.alive is False


def test_a_number_that_is_used_again_is_another_process():
    mine = Owner.mine()
    assert dataclasses.replace(mine, started=mine.started - 1).alive is False


def test_of_another_machine_nothing_is_known():
    assert dataclasses.replace(Owner.mine(), place="0" * 16).alive is None


def test_a_fork_is_a_process_of_its_own():
    mine = Owner.mine()
    read, write = os.pipe()
    if not (child := os.fork()):
        os.write(write, Owner.mine().tag.encode())
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(read, 200).decode()
    assert told != mine.tag
    assert Owner.of_tag(told).pid == child


@given(st.text(max_size=60))
def test_other_text_is_no_tag(text: str):
    assert Owner.of_tag(text) is None or Owner.of_tag(text).tag == text
