"""What a command gives: lines for people, and with --json one object for programs.

Every command of a `Commands` takes --json. It says what happens with `print` and `say`, and hands its result to
`give`; what --json changes is done here alone.
"""

import functools
import inspect
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from contextvars import ContextVar
from typing import Annotated, Any, NoReturn, TextIO, TypeVar

import typer

from kit.core.errors import KitError
from kit.core.stopping import need_go_on, told

Result = TypeVar("Result")
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; lines for people go to stderr.")]

_given: ContextVar[dict[str, Any] | None] = ContextVar("given", default=None)


class Commands(typer.Typer):
    """A group of commands, each of which takes --json."""

    def command(self, *arguments: Any, **keywords: Any) -> Callable[[Callable], Any]:
        """Make a function a command, as `typer.Typer.command` does."""
        register = super().command(*arguments, **keywords)
        return lambda function: register(_with_json(function))


def give(result: Result, show: Callable[[Result], object]) -> None:
    """Show a command's result: as lines, and with --json as the object that is printed when the command ends.

    Parameters
    ----------
    result : object
        A dataclass or a pydantic model.
    show : callable
        Prints the result for people.
    """
    if (given := _given.get()) is not None:
        given["result"] = result
    if prints():
        show(result)


def prints() -> bool:
    """Whether this is the process that prints and writes, of those that work together under torchrun."""
    return os.environ.get("RANK", "0") == "0"


def stop(line: str, code: int) -> NoReturn:
    """End the command with a line on stderr, which is no error of its own, and an exit code."""
    print(line, file=sys.stderr)
    if (given := _given.get()) is not None:
        given["error"] = line
    raise typer.Exit(code)


def say(line: str) -> None:
    """Print a line about what happens, at once."""
    print(line, flush=True)


@contextmanager
def all_printed() -> Iterator[None]:
    """Print what waits to be printed, and let an end of whoever reads it, like `head`, pass without a word.

    Raises
    ------
    OSError
        Where it cannot be printed: of a file, as its disk is full. Nothing tries again when Python ends.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _print_nowhere()
        sys.exit(1)
    except OSError:
        _print_nowhere()
        raise


def _print_nowhere() -> None:
    """Drop what waits to be printed, and what is printed from now on."""
    try:
        nowhere, number = os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        os.dup2(nowhere, number)
        os.close(nowhere)
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):  # no file, or none at all
        return


def print_errors(lines: Iterable[str]) -> None:
    """Print what is wrong to stderr, a line each."""
    print("\n".join(f"error: {line}" for line in lines), file=sys.stderr)


def lines_of(error: Exception) -> list[str]:
    """Return what the user is told of an error; nothing of one that is a fault of the kit's own."""
    if isinstance(error, KitError):
        return str(error).splitlines()
    from kit.core.disk import FULL, number_of, reason_of, remedy_of

    number = number_of(error)
    if isinstance(error, OSError):
        named = error.filename if error.filename2 is None else error.filename2  # of a copy: where it goes
        if number is None:
            what = error.strerror or " ".join(str(error).split()) or type(error).__name__
            return [what if named is None else f"{named}: {what}"]
        if named is None:
            mend = "make room, and give the command again" if number in FULL else remedy_of(number)
            return [f"what is printed, or a temporary file, could not be written: {reason_of(number)}; {mend}"]
        return [f"{named} could not be written: {reason_of(number)}; {remedy_of(number)}"]
    if number is None:
        lost = isinstance(error, RuntimeError) and "home directory" in str(error)  # pathlib's, of a path with ~
        return ["~ stands for your home, which this system does not tell: set HOME"] if lost else []
    said = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "")
    return [f"a file could not be written: {reason_of(number)} ({said[:200]}); {remedy_of(number)}"]


@contextmanager
def told_apart() -> Iterator[None]:
    """Let an end of file be told as what it is: typer takes it for Ctrl-D, and says "Aborted!".

    Raises
    ------
    KitError
        In place of an EOFError, with the line of the code that came to the end.
    """
    try:
        yield
    except EOFError as error:
        import traceback

        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/kit/" in frame.filename]
        where = f" (at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
        reason = " ".join(str(error).split()) or "end of file"
        raise KitError(
            f"a file that was read, or what another process sent, is cut short: {reason}{where}"
        ) from error


def _with_json(function: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the option --json."""

    @functools.wraps(function)
    def command(*arguments: Any, as_json: bool = False, **keywords: Any) -> None:
        with _object_on_stdout() if as_json else nullcontext(), told(), told_apart():
            function(*arguments, **keywords)
            need_go_on("when all was done")

    signature = inspect.signature(function)
    option = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]  # what typer reads
        parameters=[*signature.parameters.values(), option]
    )
    command.__annotations__ = {**function.__annotations__, "as_json": AsJson}
    return command


@contextmanager
def _object_on_stdout() -> Iterator[None]:
    """Send to stderr what is printed meanwhile; at the end print the object of what was given, or went wrong."""
    given: dict[str, Any] = {}
    token = _given.set(given)
    with _stdout_kept_free() as stdout:
        try:
            yield
        except (KitError, OSError) as error:
            given["error"] = "\n".join(lines_of(error))
            raise
        finally:
            _given.reset(token)
            _write(given, stdout)


def _write(given: dict[str, Any], stdout: TextIO) -> None:
    """Print the one object; none for a fault of the kit's own, of which there is a traceback on stderr."""
    from kit.core.jsonable import jsonable  # not at the top: it brings pydantic

    content = jsonable(given["result"]) if "result" in given else {}
    if given.get("error"):
        content["error"] = given["error"]
    if content and prints():
        import json

        print(json.dumps(content, allow_nan=False), file=stdout, flush=True)


@contextmanager
def _stdout_kept_free() -> Iterator[TextIO]:
    """Yield the real stdout; meanwhile what this process and those that it starts print there goes to stderr."""
    stdout = sys.stdout or io.StringIO()  # none, where the shell has closed it
    stdout.flush()
    try:
        number, errors = stdout.fileno(), sys.stderr.fileno()
        kept = os.dup(number)
    except (OSError, ValueError):  # no file: of a test, or a notebook
        with redirect_stdout(sys.stderr):
            yield stdout
        return
    sys.stderr.flush()
    os.dup2(errors, number)
    try:
        with redirect_stdout(sys.stderr), os.fdopen(os.dup(kept), "w", encoding="utf-8") as free:
            yield free
    finally:
        stdout.flush()  # what was written through an object taken before
        os.dup2(kept, number)
        os.close(kept)
