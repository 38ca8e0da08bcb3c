"""Processes side by side: results, devices, errors."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.parallel_tasks import (
    Slow,
    die_beside_another,
    fail_or_go_on,
    fail_otherwise,
    go_on_for_ever,
    kill_itself,
    nothing,
    see,
    shout,
    square,
    wait_for_a_stop,
    wait_or_end_at_once,
)
from support.refusals import refusal_of
from support.signals import of_session, until

from kit.core import stopping
from kit.experiment.parallel import run_parallel

ROOT = Path(__file__).parents[2]
ADVICE = (
    "run fewer at a time (--jobs 1), with fewer data.workers, or with data.cache true; the same command goes on"
)


@pytest.mark.parametrize("count", [0, 7])
def test_every_result_comes_once(count):
    assert sorted(run_parallel(square, range(count), 2)) == [number**2 for number in range(count)]


@pytest.mark.parametrize(
    ("visible", "there", "expected"),
    [
        (None, 2, ["0", "1"]),
        (None, 1, ["0", "0"]),  # two on one GPU, none of them on the CPU
        (None, 0, [None, None]),
        ("2,5", 2, ["2", "5"]),
        ("2,5,9", 2, ["2", "5"]),  # there is no 9
        ("GPU-8f, ", 1, ["GPU-8f", "GPU-8f"]),
        ("2,5", 0, ["2,5", "2,5"]),  # as stated
        ("", 0, ["", ""]),
    ],
)
def test_two_processes_see_a_gpu_each(tmp_path, monkeypatch, visible, there, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    seen = list(run_parallel(see, [tmp_path, tmp_path], 2))
    assert sorted((devices for _, devices, _ in seen), key=str) == expected
    assert len({os.getpid(), *(process for process, *_ in seen)}) == 3
    assert {waiting for _, _, waiting in seen} == {"ACTIVE"}  # as stated; else PASSIVE
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible  # this process still sees all


def test_lines_of_two_processes_stay_whole(tmp_path, monkeypatch, capfd):
    """Also unbuffered, as a kernel runs them, where print writes a line and its end one after the other."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    list(run_parallel(shout, [(tmp_path, 1), (tmp_path, 2)], 2))
    lines = capfd.readouterr().out.splitlines()
    assert sorted(lines) == 3000 * ["1 " + 60 * "x"] + 3000 * ["2 " + 60 * "x"]


def test_the_first_error_comes_when_those_under_way_have_ended(tmp_path):
    tasks = [(tmp_path, number) for number in range(8)]
    assert refusal_of(lambda: list(run_parallel(fail_or_go_on, tasks, 2))) == "the first: does not work; mend it"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["began0", "began1", "ended1"]


def test_another_error_stays_what_it_is():
    with pytest.raises(ZeroDivisionError, match="by zero"):
        list(run_parallel(fail_otherwise, [1], 1))


def test_a_killed_process_is_told_with_advice_after_the_results_before_it():
    results = run_parallel(kill_itself, [0, 1, 2, 3], 1, name="run {}".format)
    assert [next(results), next(results)] == [0, 1]
    how = "was killed by signal 9, as the system does when memory runs out"
    assert refusal_of(next, results) == f"run 2: its process {how}; {ADVICE}"


def test_of_two_processes_the_one_that_died_is_named(tmp_path):
    """The pool ends the other one, which is at fault for nothing."""
    tasks = [(tmp_path, name) for name in ("waits", "dies")]
    message = refusal_of(lambda: list(run_parallel(die_beside_another, tasks, 2, name=lambda task: task[1])))
    assert message == f"dies: its process was killed by signal 11 (SIGSEGV); {ADVICE}"


@pytest.fixture
def signals():
    """Send this process signals when so many tasks have begun in a folder."""
    threads = []

    def send(folder, count, *numbers):
        def wait():
            until(lambda: len(list(folder.glob("began*"))) == count)
            for position, number in enumerate(numbers):
                if position:
                    until(stopping.asked)  # two at once would be one
                os.kill(os.getpid(), number)

        threads.append(threading.Thread(target=wait))
        threads[-1].start()

    yield send
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_passed_on_and_each_task_is_told_once(tmp_path, signals, number, code):
    signals(tmp_path, 2, number)
    with stopping.handled(), pytest.raises(stopping.Stopped) as raised:
        list(run_parallel(wait_for_a_stop, [(tmp_path, each) for each in range(5)], 2))
    assert sorted(str(raised.value).splitlines()) == ["0 stopped", "1 stopped"]
    assert raised.value.code == code
    assert len(list(tmp_path.iterdir())) == 2  # no other was begun
    assert multiprocessing.active_children() == []


def test_a_stop_beside_an_idle_process_is_that_of_the_run(tmp_path, signals):
    signals(tmp_path, 1, signal.SIGTERM)
    with stopping.handled(), pytest.raises(stopping.Stopped) as raised:
        list(run_parallel(wait_or_end_at_once, [(tmp_path, 0), (tmp_path, 1)], 2))
    assert (str(raised.value), raised.value.code) == ("1 stopped", 143)
    assert multiprocessing.active_children() == []


def test_a_process_that_is_at_no_task_yet_ends_without_a_word(tmp_path, signals, capfd):
    signals(tmp_path, 2, signal.SIGINT)
    with stopping.handled(), pytest.raises(stopping.Stopped) as raised:
        list(run_parallel(nothing, [Slow(tmp_path), Slow(tmp_path)], 2))
    assert raised.value.code == 130
    assert multiprocessing.active_children() == []
    assert capfd.readouterr().err == ""


def test_a_second_ctrl_c_ends_processes_that_do_not_stop(tmp_path, signals):
    signals(tmp_path, 2, signal.SIGINT, signal.SIGINT)
    with stopping.handled(), pytest.raises(stopping.Interrupted):
        list(run_parallel(go_on_for_ever, [(tmp_path, each) for each in range(2)], 2))
    assert multiprocessing.active_children() == []


def test_no_process_outlives_a_parent_that_was_killed(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = (
        "from pathlib import Path; from support.parallel_tasks import go_on_for_ever; "
        "from kit.experiment.parallel import run_parallel; "
        f"list(run_parallel(go_on_for_ever, [(Path({str(tmp_path)!r}), n) for n in (0, 1)], 2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", command], env=environment, start_new_session=True)
    until(lambda: len(list(tmp_path.glob("began*"))) == 2)
    parent.kill()
    parent.wait()
    until(lambda: of_session(parent.pid) == [], 120)


SCRIPT = """
import os, sys
from types import SimpleNamespace
with open(sys.argv[1], "a") as file:
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), file=file)
{at_import}
from support.parallel_tasks import see
from kit.core.errors import KitError
from kit.experiment.parallel import run_parallel
from pathlib import Path

{guard}
    sys.modules["torch"] = SimpleNamespace(cuda=SimpleNamespace(device_count=lambda: 2))  # a machine with two GPUs
    try:
        print(sorted(device for _, device, _ in run_parallel(see, [Path(sys.argv[2])] * 2, 2)))
    except KitError as error:
        sys.exit(str(error))
"""


@pytest.fixture
def script(tmp_path):
    """A script with two tasks side by side: (what it printed, its errors, what was visible as it was imported)."""

    def run(at_import="", guard='if __name__ == "__main__":', folder=tmp_path):
        (folder / "mine.py").write_text(SCRIPT.format(at_import=at_import, guard=guard))
        (folder / "met").mkdir()
        words = [sys.executable, folder / "mine.py", folder / "seen", folder / "met"]
        environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        ran = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        return ran.stdout, ran.stderr, sorted((folder / "seen").read_text().split())

    return run


def test_a_script_that_asks_for_cuda_as_it_is_imported_sees_its_own_gpu_alone(script):
    assert script() == ("['0', '1']\n", "", ["0", "1", "None"])


TORCH = "sys.modules['torch'] = SimpleNamespace(cuda=SimpleNamespace({}))"
SETS_BOTH = "os.environ['CUDA_VISIBLE_DEVICES'] = '0,1'\n"


def test_a_script_that_says_which_gpus_are_visible_is_put_right_where_that_can_be(script):
    counts = "is_initialized=lambda: False, device_count=lambda: os.environ['CUDA_VISIBLE_DEVICES'].count(',') + 1"
    assert script(SETS_BOTH + TORCH.format(counts))[:2] == ("['0', '1']\n", "")


@pytest.mark.parametrize(
    "at_import",
    [
        SETS_BOTH + TORCH.format("is_initialized=lambda: True, device_count=lambda: 2"),
        # Of one GPU alone, but of another one:
        "if __name__ != '__main__': os.environ['CUDA_VISIBLE_DEVICES'] = '7'\n"
        + TORCH.format("is_initialized=lambda: True, device_count=lambda: 1"),
    ],
)
def test_a_process_that_sees_other_gpus_than_its_own_is_refused(script, at_import):
    printed, errors, _ = script(at_import)
    assert printed == ""
    (line,) = errors.splitlines()
    assert line.replace("GPU 1", "GPU 0") == (
        "the process that was given GPU 0 does not see that one alone; where the script sets CUDA_VISIBLE_DEVICES "
        'as it is imported, do that below `if __name__ == "__main__":`, or train with --jobs 1'
    )


def test_a_script_that_works_as_it_is_imported_is_refused_before_it_begins_anew(script):
    printed, errors, seen = script(guard="if True:")
    assert (printed, seen) == ("", ["None"])  # no process imported it
    assert errors == (
        "mine.py, line 15: data workers and --jobs are processes that import the script first, so this has to "
        'stand below `if __name__ == "__main__":`\n'
    )
