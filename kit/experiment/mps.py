"""NVIDIA's Multi-Process Service: processes that share a GPU compute at the same time, not in turns."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kit.core.errors import Say

CONTROL = "nvidia-cuda-mps-control"
PIPES = "CUDA_MPS_PIPE_DIRECTORY"  # where processes find the service
LOGS = "CUDA_MPS_LOG_DIRECTORY"
USUAL = Path("/tmp/nvidia-mps")
SECONDS = 20.0  # for it to begin, and to end


@contextmanager
def sharing_gpus(say: Say) -> Iterator[None]:
    """Have the processes that are started within share their GPUs through the service, where it is installed.

    One that runs already is used, and left running; else it is started with folders of its own, and ended
    afterwards. What became of it is said in one line; without it the processes compute in turns.
    """
    control = shutil.which(CONTROL)
    if control is None:
        say(f"{CONTROL} is not on PATH: processes that share a GPU compute in turns")
        yield
        return
    if (Path(os.environ.get(PIPES) or USUAL) / "control").exists():
        say("processes share a GPU through NVIDIA's MPS, which runs already")
        yield
        return
    with tempfile.TemporaryDirectory(prefix="kit-mps-") as folder, _variables(folder):
        if why := _told(control, ["-d"], ""):
            say(f"NVIDIA's MPS does not begin ({why}): processes that share a GPU compute in turns")
            with _variables(None):
                yield
            return
        say("processes share a GPU through NVIDIA's MPS, which is started for that and ended afterwards")
        try:
            yield
        finally:
            _told(control, [], "quit\n")


def _told(control: str, arguments: list[str], text: str) -> str:
    """Call the service's control; why that fails, or "" where it does not."""
    try:
        done = subprocess.run(
            [control, *arguments],
            input=text,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else " ".join(done.stderr.split())[:200] or f"exit code {done.returncode}"


@contextmanager
def _variables(folder: str | None) -> Iterator[None]:
    """With the folders of the service stated to processes that are started; None: with none stated."""
    before = {name: os.environ.pop(name, None) for name in (PIPES, LOGS)}
    if folder is not None:
        os.environ.update({PIPES: folder, LOGS: folder})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
