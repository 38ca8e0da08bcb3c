"""The command that makes a kernel, as the head of its code may tell it."""

import re
import shlex
from collections.abc import Sequence

# Where a path begins that leads out of the folder the command runs in, and how far it goes: as a whole value to
# its end, inside of one to what closes it.
OUTSIDE = r"(~[\w.-]*|[A-Za-z]:|\.\.)?[/\\]"
OUTSIDE_PATH = re.compile(
    rf"""(^|(?<==)){OUTSIDE}.*|(?<='){OUTSIDE}[^']*|(?<="){OUTSIDE}[^"]*|(?<=[\s,:;(\[{{]){OUTSIDE}[^,\]}}]*"""
)


def told(words: Sequence[str]) -> str:
    """`python -m kit` and its words; of paths that tell about this machine the last name only."""
    shown = [OUTSIDE_PATH.sub(lambda path: re.split(r"[/\\]+", path[0].rstrip("/\\"))[-1], word) for word in words]
    return shlex.join(["python", "-m", "kit", *shown])
