"""Processes that work for another one: which signals they take, and that they end with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.signals import alive, of_session, until

ROOT = Path(__file__).parents[2]
METHODS = ["fork", "spawn", "forkserver"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SCRIPT = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
from kit.core import children, stopping

def helper(folder):
    children.help_parent()
    (folder / f"helper{os.getpid()}").touch()
    time.sleep(600)

def worker(folder):
    children.work_for_parent()
    with stopping.deferred():
        (folder / f"worker{os.getpid()}").touch()
        while not stopping.asked():
            time.sleep(.01)
    (folder / f"asked{stopping.asked()}").touch()
    time.sleep(600)

if __name__ == "__main__":
    folder, method, *kinds = sys.argv[1:]
    context = multiprocessing.get_context(method)
    multiprocessing.set_start_method(method)
    with stopping.handled(), stopping.deferred():
        with children.starting():
            begun = [context.Process(target=globals()[kind], args=(Path(folder),)) for kind in kinds]
            for process in begun:
                process.start()
        while not stopping.asked():
            time.sleep(.01)
        for process in begun:
            process.terminate()
        for process in begun:
            process.join()
            print(process.exitcode, flush=True)
"""


@pytest.fixture
def started(tmp_path):
    """Start a parent with children; afterwards none is left."""
    parents = []

    def start(method, *kinds):
        (tmp_path / "script.py").write_text(SCRIPT)
        command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), method, *kinds]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        parent = subprocess.Popen(
            command, start_new_session=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        parents.append(parent)
        until(lambda: len(named(tmp_path)) == len(kinds))
        return parent, {path.name[:6]: int(path.name[6:]) for path in named(tmp_path)}

    def named(folder):
        return [path for path in folder.iterdir() if path.name[:6] in ("helper", "worker")]

    yield start
    for parent in parents:
        for pid in of_session(parent.pid):
            os.kill(pid, signal.SIGKILL)
        parent.kill()
        parent.communicate()


@pytest.mark.parametrize("method", METHODS)
def test_none_outlives_a_parent_that_was_killed(started, method):
    parent, children = started(method, "helper", "worker")
    parent.kill()
    parent.wait()
    until(lambda: not any(alive(pid) for pid in children.values()), 120)


def test_without_the_kernels_help_neither(started, tmp_path, monkeypatch):
    """As on macOS: a thread sees to it."""
    monkeypatch.setitem(globals(), "SCRIPT", SCRIPT.replace("def helper", "sys.platform = 'x'\n\ndef helper"))
    parent, children = started("fork", "helper", "helper")
    parent.kill()
    parent.wait()
    until(lambda: not any(alive(pid) for pid in children.values()), 120)


@pytest.mark.parametrize("method", METHODS)
def test_signals_for_all_are_the_parents_matter(started, tmp_path, method):
    """Ctrl-C on a terminal, SIGTERM and SIGUSR1 for a whole job: the helper ends when its parent says so."""
    parent, children = started(method, "helper")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(children["helper"], number)
    time.sleep(0.3)
    assert alive(children["helper"])
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.communicate(timeout=120)[0] == b"0\n"
    assert not alive(children["helper"])


def test_a_worker_takes_the_request_of_its_parent_and_no_ctrl_c(started, tmp_path):
    _, children = started("spawn", "worker")
    os.kill(children["worker"], signal.SIGINT)
    time.sleep(0.3)
    assert not list(tmp_path.glob("asked*"))
    os.kill(children["worker"], signal.SIGTERM)
    until((tmp_path / "asked143").exists)
