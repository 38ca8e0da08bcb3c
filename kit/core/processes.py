"""Processes that are not forked, and what a script has to look like that starts them."""

import ast
import linecache
import multiprocessing
import signal
import sys
from pathlib import Path
from types import FrameType, ModuleType

from kit.core.errors import KitError

GUARD = '`if __name__ == "__main__":`'


def ending(exit_code: int) -> str:
    """Return in words how a process ended; its exit code is as multiprocessing has it, −9 for signal 9."""
    number = -exit_code
    if number == 9:  # Windows knows no SIGKILL
        return "was killed by signal 9, as the system does when memory runs out"
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    known = number in {each.value for each in signal.Signals}
    return f"was killed by signal {number}" + (f" ({signal.Signals(number).name})" if known else "")


def need_guard(method: str | None = None) -> None:
    """Refuse to start processes from a script that would begin anew in each of them.

    A process that is not forked (on macOS, on Windows, on Linux from Python 3.14 on) imports the script that
    started it before anything else. If that does its work as it is imported, the process never gets to its own.

    Parameters
    ----------
    method : str, optional
        How they are started, as multiprocessing names it; left out: as usual here.

    Raises
    ------
    KitError
        Where no `if __name__ == "__main__":` is around what led here in the script, and in a process that is
        importing a script.
    """
    usual = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if (method or usual) == "fork":
        return
    why = f"data workers and --jobs are processes that import the script first, so this has to stand below {GUARD}"
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise KitError(f"{why}, where it does not begin anew in each of them")
    main = sys.modules["__main__"]
    if (frame := _imported_again(main)) is not None and not _is_guarded(frame):
        raise KitError(f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}: {why}")


def _imported_again(main: ModuleType) -> FrameType | None:
    """Return the frame of the script, where each process imports it and its top level led here."""
    name = getattr(main.__spec__, "name", None)
    if name is None and getattr(main, "__file__", None) is None:  # a notebook, an interpreter, python -c
        return None
    if name is not None and (name == "__main__" or name.endswith(".__main__")):  # python -m kit
        return None
    frame: FrameType | None = sys._getframe()
    script = None
    while frame:
        if frame.f_code.co_name == "<module>" and frame.f_globals is vars(main):
            script = frame
        frame = frame.f_back
    return script


def _is_guarded(frame: FrameType) -> bool:
    """Whether the script's statement that is executed asks for `__name__`, or one before; or cannot be read."""
    try:
        tree = ast.parse("".join(linecache.getlines(frame.f_code.co_filename)))
    except SyntaxError:
        return True
    reached = [each for each in tree.body if each.lineno <= frame.f_lineno]
    if not reached or frame.f_lineno > (reached[-1].end_lineno or reached[-1].lineno):
        return True
    *before, executed = reached
    return _asks(executed, ast.Eq) or any(isinstance(each, ast.If) and _asks(each, ast.NotEq) for each in before)


def _asks(statement: ast.stmt, how: type[ast.cmpop]) -> bool:
    """Whether a statement compares `__name__` with "__main__"."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], how):
            sides = {ast.unparse(side) for side in (node.left, node.comparators[0])}
            if sides == {"__name__", "'__main__'"}:
                return True
    return False
