"""Processes side by side: results, devices, errors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.parallel_tasks import fail_or_go_on, fail_otherwise, kill_itself, see, shout, square
from support.refusals import refusal_of

from kit.experiment.parallel import run_parallel

ROOT = Path(__file__).parents[2]
WANT_OF_MEMORY = (
    "a process that trained was ended from outside, most likely for want of memory; "
    "run fewer at a time with --jobs 1"
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
        ("2,5", 0, ["2", "5"]),
        ("GPU-8f, ", 0, ["GPU-8f", "GPU-8f"]),
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


def test_a_killed_process_is_told_with_advice_after_the_results_before_it(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", object())  # as under python -m kit
    results = run_parallel(kill_itself, [0, 1, 2, 3], 1)
    assert [next(results), next(results)] == [0, 1]
    assert refusal_of(next, results) == WANT_OF_MEMORY


def test_a_script_that_works_as_it_is_imported_is_told_what_to_do(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from kit.core.errors import KitError\n"
        "from kit.experiment.parallel import run_parallel\n"
        "try:\n"
        "    print(list(run_parallel(abs, [-1], 1)))\n"
        "except KitError as error:\n"
        "    print(error)\n"
    )
    command, environment = [sys.executable, tmp_path / "mine.py"], {"PYTHONPATH": ROOT, "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert ran.stdout.splitlines()[-1] == (
        f'{WANT_OF_MEMORY}; what mine.py does has to stand below `if __name__ == "__main__":`'
    )
