"""Signals: noted where work can be saved, an end at once elsewhere, and never lost."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from kit.core import stopping
from kit.core.progress import Progress
from kit.core.stopping import Interrupted, Stopped, telling, told

ROOT = Path(__file__).parents[2]
BOTH = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("number", "code"), BOTH)
def test_elsewhere_a_signal_ends_the_command_with_what_is_true(number, code):
    with pytest.raises(Stopped) as raised, stopping.handled(), told(), telling("outside"), telling("while x; y"):
        signal.raise_signal(number)
    assert (str(raised.value), raised.value.code) == ("interrupted while x; y", code)
    with pytest.raises(Stopped, match=r"^interrupted$"), stopping.handled(), told():
        signal.raise_signal(number)


@pytest.mark.parametrize(("number", "code"), BOTH)
def test_where_work_can_be_saved_a_signal_is_noted(number, code):
    with stopping.handled():
        assert stopping.asked() == 0
        with stopping.deferred():
            signal.raise_signal(number)
            assert stopping.asked() == code
            assert not stopping.at_once()
            stopping.look()
        with pytest.raises(Stopped, match=r"^stopped before that$"):
            stopping.need_go_on("before that")
        assert stopping.at_once()
    assert stopping.asked() == 0


def test_a_second_ctrl_c_ends_at_once_but_sigterm_after_it_does_not():
    with stopping.handled(), stopping.deferred():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted) as raised:
            signal.raise_signal(signal.SIGINT)
    assert raised.value.code == 130


def test_what_is_not_to_be_torn_apart_is_done_first():
    done = []

    def work():
        with stopping.whole():
            signal.raise_signal(signal.SIGTERM)
            done.append(1)
        done.append(2)

    with stopping.handled(), pytest.raises(Interrupted):
        work()
    assert done == [1]


def test_all_is_as_before_afterwards():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers], sys.unraisablehook
    with pytest.raises(Interrupted), stopping.handled():
        signal.raise_signal(signal.SIGTERM)
    assert ([signal.getsignal(number) for number in numbers], sys.unraisablehook) == before
    assert stopping.asked() == 0


def test_a_stop_travels_between_processes_with_its_code():
    again = pickle.loads(pickle.dumps(Stopped("stopped there", 143)))
    assert (type(again), str(again), again.code) == (Stopped, "stopped there", 143)


def test_listeners_hear_each_signal_while_they_listen():
    heard = []
    with stopping.handled(), stopping.deferred():
        with stopping.listening(heard.append):
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stopping.save_asked()
        assert not stopping.save_asked()
    assert heard == [signal.SIGUSR1, signal.SIGTERM]


class Dying:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_an_interruption_that_python_drops_is_repeated():
    """What `__del__` raises goes nowhere."""

    def work():
        Dying()
        gc.collect()
        until = time.monotonic() + 20
        while time.monotonic() < until:
            time.sleep(0.01)

    with pytest.raises(Stopped, match=r"^interrupted$"), stopping.handled(), told():
        work()


def test_one_that_a_library_drops_is_found_at_the_next_look():
    with stopping.handled(), Progress("x", 3, shown=False) as progress:
        with suppress(BaseException):  # as some libraries do
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            progress.update(1)


AROUND_A_FORK = """
import os, signal, sys
from kit.core import stopping
from kit.core.children import starting
os.register_at_fork(**{sys.argv[1]: lambda: signal.raise_signal(signal.SIGINT)})
with stopping.handled():
    try:
        with stopping.told(), starting():
            pid = os.fork()
            if pid == 0:
                os._exit(7)
            print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    except stopping.Stopped as stopped:
        print(stopped, stopped.code)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
@pytest.mark.parametrize("moment", ["before", "after_in_parent"])
def test_a_ctrl_c_around_a_fork_is_not_lost(moment):
    """Python drops what functions around a fork raise; loader workers are forked."""
    command = [sys.executable, "-c", AROUND_A_FORK, moment]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (ran.stdout, ran.stderr) == ("child 7\ninterrupted 130\n", "")
