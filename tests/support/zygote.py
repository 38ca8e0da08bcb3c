"""The command line in processes of their own that begin at once: one that has imported all is forked for each.

`python -m kit` takes seconds to import torch and timm; hundreds of processes that are to be killed cannot wait
so long. Each child leads a session, as a command in a terminal does, so that what it starts can be found and
signalled.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMPORTED = (
    *("torch", "timm", "accelerate", "albumentations", "sklearn.metrics", "iterstrat.ml_stratifiers"),
    *("matplotlib.pyplot", "pyarrow.parquet", "rich.table", "kit.cli.main", "kit.experiment.run"),
    *("kit.experiment.curves", "kit.comparison.compare", "kit.report.gather"),
)


@dataclass
class Child:
    """A command that runs.

    Attributes
    ----------
    pid : int
        Of its process, and the number of its session.
    log : Path
        What it prints, errors among it.
    code : int or None
        Its exit code once it was collected, negative for a signal.
    """

    pid: int
    log: Path
    code: int | None = None

    @property
    def told(self) -> str:
        """What it has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def send(self, number: signal.Signals, everyone: bool = False) -> None:
        """Send it a signal; `everyone`: to its whole process group, as a terminal does."""
        with suppress(ProcessLookupError):
            (os.killpg if everyone else os.kill)(self.pid, number)

    def left(self, seconds: float = 20.0) -> list[int]:
        """Return the processes of its session that still live, after waiting so long for them to end."""
        until = time.monotonic() + seconds
        while (there := _of_session(self.pid)) and time.monotonic() < until:
            time.sleep(0.02)
        return there


class Zygote:
    """A process that forks for each command; as a context manager it ends with all of its children."""

    def __init__(self, **environment: str):
        variables = {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | variables | environment,
        )
        self._children: list[Child] = []

    def start(self, *words: object, log: Path, environment: Mapping[str, str] | None = None) -> Child:
        """Begin `python -m kit WORDS`."""
        pid = self._ask({"words": [str(word) for word in words], "log": str(log), "env": dict(environment or {})})
        child = Child(int(pid), log)
        self._children.append(child)
        return child

    def wait(self, child: Child, seconds: float | None = None) -> int | None:
        """Return the exit code of a child; None where it has not ended after so many seconds (left out: ever)."""
        until = None if seconds is None else time.monotonic() + seconds
        while child.code is None:
            answer = self._ask({"ended": child.pid})
            if answer is not None:
                child.code = int(answer)
            elif until is not None and time.monotonic() >= until:
                return None
            else:
                time.sleep(0.01)
        return child.code

    def __enter__(self) -> "Zygote":
        return self

    def __exit__(self, *exception: object) -> None:
        for child in self._children:
            if child.code is None:
                child.send(signal.SIGKILL, everyone=True)
        self._process.kill()
        self._process.wait()

    def _ask(self, question: object) -> object:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _of_session(number: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[3]) == number and fields[0] not in (b"Z", b"X"):
                    found.append(int(entry))
    return found


def _carry_out(words: list[str], log: str, env: dict[str, str]) -> None:
    """Be `python -m kit`, in a fork."""
    os.setsid()
    os.environ.update(env)
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(number, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(stream, mode) for stream, mode in enumerate("rww"))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["kit", *words]
    code: object = 0
    try:
        from kit.cli.main import main

        main()
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    import multiprocessing.util

    multiprocessing.util._exit_function()  # what an interpreter does at its end
    os._exit(code if isinstance(code, int) else 1)


def _serve() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)  # a pool of threads that has begun cannot be forked
    gc.collect()
    gc.freeze()  # else every collection of a child looks at all modules anew
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        question = json.loads(line)
        if "ended" in question:
            pid, status = os.waitpid(question["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif not (answer := os.fork()):
            _carry_out(**question)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
