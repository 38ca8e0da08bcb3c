"""Other Pythons than the one that runs the tests, where there are some."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest


@cache
def interpreter(version: str) -> str | None:
    """The interpreter of a version like "3.12", on the path or pyenv's; None where there is none that runs."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python{version}"))]
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    for place in filter(None, places):
        done = subprocess.run([place, "-I", "-c", code], capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return str(place)
    return None


def need_interpreter(version: str) -> str:
    """The interpreter of a version; the test is skipped where there is none."""
    found = interpreter(version)
    if found is None:
        pytest.skip(f"there is no Python {version} here")
    return found
