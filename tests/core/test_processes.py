"""Scripts that start processes which are not forked: those that would begin anew in each are refused."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.refusals import refusal_of

from kit.core.processes import need_guard

ROOT = Path(__file__).parents[2]
ADVICE = (
    "data workers and --jobs are processes that import the script first, so this has to stand below "
    '`if __name__ == "__main__":`'
)
START = """import sys
from kit.core.errors import KitError
from kit.core.processes import need_guard

def start(method="spawn"):
    try:
        need_guard(method)
    except KitError as error:
        sys.exit(str(error))
    print("started")

"""
FIRST = START.count("\n") + 1  # the line on which a script goes on


def refused(folder: Path, script: str, *words: str, name: str = "mine") -> str:
    """What a script is told; nothing where it may start processes."""
    (folder / f"{name}.py").write_text(START + script)
    command = [sys.executable, *(words or (str(folder / f"{name}.py"),))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) in ((0, "started\n"), (1, "")), ran.stderr
    return ran.stderr.strip()


@pytest.mark.parametrize(
    "script",
    [
        'if __name__ == "__main__":\n    start()',
        "if '__main__' == __name__ and len(sys.argv) == 1:\n    print(end='')\n    start()",
        'x = start() if __name__ == "__main__" else None',
        'def main():\n    start()\n\nif __name__ == "__main__":\n    main()',
        'if __name__ != "__main__":\n    sys.exit()\nstart()',
        'start("fork")',
    ],
)
def test_scripts_whose_processes_do_not_begin_anew_may_start_them(tmp_path, script):
    assert refused(tmp_path, script) == ""


@pytest.mark.parametrize(
    ("script", "after"),
    [
        ("start()", 0),
        ("print(__name__, end='', file=sys.stderr) if 0 else start()", 0),
        ("if True:\n    pass\n    start()", 2),
        ("def main():\n    start()\n\nmain()", 3),
        ('exec(compile("start()", "nowhere.py", "exec"))', 0),
        ("for _ in range(2):\n    start(\n        'forkserver'\n    )", 1),
    ],
)
def test_a_script_that_starts_them_as_it_is_imported_is_told_its_line(tmp_path, script, after):
    assert refused(tmp_path, script) == f"mine.py, line {FIRST + after}: {ADVICE}"


def test_a_module_that_is_imported_by_the_script_counts_where_that_imports_it(tmp_path):
    (tmp_path / "helper.py").write_text(f"{START}start()")
    assert refused(tmp_path, "import helper") == f"mine.py, line {FIRST}: {ADVICE}"
    assert refused(tmp_path, 'if __name__ == "__main__":\n    import helper') == ""


def test_what_no_process_imports_may_do_as_it_likes(tmp_path):
    """`python -c` and `python -m package` are not imported anew; `python -m module` is."""
    assert refused(tmp_path, "", "-c", "import mine; mine.start()") == ""
    assert refused(tmp_path, "start()", "-m", "mine") == f"mine.py, line {FIRST}: {ADVICE}"
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__main__.py").write_text("import mine; mine.start()")
    assert refused(tmp_path, "", "-m", "package") == ""


def test_a_process_that_is_still_importing_is_told_so(monkeypatch):
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    assert refusal_of(need_guard, "spawn") == f"{ADVICE}, where it does not begin anew in each of them"
    need_guard("fork")
