"""Own code: a function or class of the user's, named `file.py:name` or `package.module:name` in a config.

A file is named relative to the config's. It is loaded anew where it, or what it imports beside it, has changed.
"""

import ast
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.core.errors import KitError, some
from kit.core.own_modules import load_module, with_imports

BEYOND = "beyond"  # where a stored config keeps files from outside its folder
_REFERENCE = re.compile(r"^(.+\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)$")


def is_reference(text: Any) -> bool:
    """Tell whether a text of a config names own code: `file.py:name` or `package.module:name`."""
    return isinstance(text, str) and bool(_REFERENCE.match(text))


@dataclass(frozen=True)
class OwnCode:
    """A function or class of the user's.

    Attributes
    ----------
    reference : str
        `file.py:name` or `package.module:name`.
    folder : Path
        Of the config, which a file is relative to.
    expected : str or None
        The digest that it had when the config was read.
    """

    reference: str
    folder: Path
    expected: str | None = None

    @property
    def name(self) -> str:
        """The name within the file or module."""
        return self._parts[1]

    @property
    def file(self) -> Path | None:
        """The file; None for a module that Python finds by itself."""
        module = self._parts[0]
        if not module.endswith(".py"):
            return None
        path = self.folder / Path(module).expanduser()
        kept = self.folder / BEYOND / "/".join(part for part in Path(module).parts if part != "..")
        return kept if ".." in Path(module).parts and kept.is_file() else path

    @property
    def _parts(self) -> tuple[str, str]:
        match = _REFERENCE.match(self.reference)
        assert match
        return match[1], match[2]

    def files(self) -> dict[Path, bytes]:
        """Return what this code is made of: the file and what it imports beside it, each with its content.

        Raises
        ------
        KitError
            Where a file is not there or is no Python.
        """
        return {} if self.file is None else dict(with_imports(self.file, self.reference))

    def digest(self) -> str:
        """Return 16 digits of the SHA-256 of the file and of what it imports beside it.

        Of a module that Python finds by itself it is of the file that defines the function or class.

        Raises
        ------
        KitError
            Where it is not there.
        """
        whole = hashlib.sha256()
        if self.file is None:
            with suppress(OSError, TypeError):  # of C
                whole.update(Path(inspect.getsourcefile(self.load()) or "").read_bytes())
            return whole.hexdigest()[:16]
        files = self.files()
        first = next(iter(files))
        for path, content in sorted(files.items()):
            name = path.relative_to(first.parent).as_posix().encode()
            whole.update(hashlib.sha256(name).digest() + hashlib.sha256(as_on_linux(content)).digest())
        return whole.hexdigest()[:16]

    def seen_from(self, folder: Path) -> str:
        """Return the reference as a config in another folder has it."""
        if self.file is None:
            return self.reference
        path = os.path.relpath(self.file.resolve(), folder.resolve())
        return f"{Path(path).as_posix()}:{self.name}"

    def sentence(self) -> str:
        """Return the first sentence of its docstring without running anything; "" where there is none."""
        if self.file is None or not self.file.is_file():
            return ""
        try:
            tree = ast.parse(self.file.read_bytes())
        except (SyntaxError, ValueError):
            return ""
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == self.name:
                text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                return text.split(". ")[0].rstrip(".")
        return ""

    def load(self) -> Any:
        """Return the function or class.

        Raises
        ------
        KitError
            Where it is not there, or its module cannot be imported: with the file and the line.
        """
        module_name, name = self._parts
        if self.file and self.expected and self.digest() != self.expected:
            raise KitError(
                f"{self.reference}: {module_name}, or what it imports, has changed since the config was read, and "
                "runs of two states are not one experiment; read the config again"
            )
        try:
            module = load_module(self.file, self.files()) if self.file else importlib.import_module(module_name)
        except KitError:
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            if isinstance(error, ImportError) and error.name == module_name.partition(".")[0]:
                file = f"{module_name.replace('.', '/')}.py"
                mend = f"did you mean {file}:{name}?" if (self.folder / file).is_file() else "install it"
                raise KitError(f"{self.reference}: there is no module {error.name!r}; {mend}") from error
            raise KitError(f"{self.reference}: {self.fault(error)}") from error
        found = getattr(module, name, None)
        if not callable(found):
            own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            close = difflib.get_close_matches(name, own, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; it has {some(own, 8) or 'none'}"
            raise KitError(f"{self.reference}: {module_name} has no function or class {name!r}{hint}")
        return found

    def bind(self, options: Mapping[str, Any], given: Sequence[str]) -> Callable[..., Any]:
        """Return a function that calls this code with what the kit gives and the config's options.

        A class is made with the options first, and its object is called.

        Parameters
        ----------
        options : mapping
            Keyword arguments, as the config states them.
        given : sequence of str
            What the kit gives at each call, in this order.

        Raises
        ------
        KitError
            Where the signature does not take them.
        """
        target = self.load()
        if isinstance(target, type):
            self.check_signature(target, options, ())
            made = self.call(target, **options)
            if not callable(made):
                raise KitError(f"{self.reference}: {self.name} has no __call__({', '.join(given)})")
            self.check_signature(made, {}, given)
            return made
        self.check_signature(target, options, given)
        if not options:
            return target
        return lambda *values: target(*values, **options)

    def check_signature(
        self, target: Callable, options: Mapping[str, Any], given: Sequence[str], kits: Sequence[str] = ()
    ) -> None:
        """Check that a call with `given` values and these options is one that `target` takes.

        `kits` names those of the options that the kit gives, and not the config.

        Raises
        ------
        KitError
            Names what is missing or unknown, and where `target` is defined.
        """
        try:
            signature = inspect.signature(target)
        except (TypeError, ValueError):  # of C, which does not say
            return
        parameters = list(signature.parameters.values())
        loose = any(each.kind is each.VAR_KEYWORD for each in parameters)
        by_place = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        known = [each.name for each in by_place[len(given) :] if each.kind is each.POSITIONAL_OR_KEYWORD]
        known += [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
        where = f"{self.reference} ({_line_of(target, self.folder)})"
        unknown = [] if loose else [name for name in options if name not in known]
        if unknown and unknown[0] in kits:
            raise KitError(f"{where}: is called with {', '.join(kits)}, but takes no {unknown[0]}")
        if unknown:
            close = difflib.get_close_matches(unknown[0], known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"its options are {some(known, 12) or 'none'}"
            raise KitError(f"{where}: takes no option {unknown[0]!r}; {hint}")
        try:
            signature.bind(*given, **options)
        except TypeError as error:
            expected = ", ".join([*given, *options])
            raise KitError(f"{where}: is called with ({expected}): {error}") from None

    def call(self, target: Callable, *values: Any, **options: Any) -> Any:
        """Call it; what it raises becomes a KitError with the file and the line."""
        try:
            return target(*values, **options)
        except Exception as error:
            raise KitError(f"{self.reference}: {self.fault(error)}") from error

    def fault(self, error: BaseException) -> str:
        """Return what went wrong in the user's code in one line, with the file and the line."""
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        if isinstance(error, SyntaxError) and error.filename:
            return f"{_shown(Path(error.filename), self.folder)}:{error.lineno}: {text}"
        frames = self._frames(error)
        return f"{_shown(Path(frames[-1].filename), self.folder)}:{frames[-1].lineno}: {text}" if frames else text

    def raised(self, error: BaseException) -> bool:
        """Tell whether one of its files was running when this was raised."""
        return bool(self._frames(error))

    def _frames(self, error: BaseException) -> list[traceback.FrameSummary]:
        own = {str(path) for path in self._known_files()}
        return [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in own]

    def _known_files(self) -> list[Path]:
        try:
            return list(self.files())
        except KitError:
            return [self.file] if self.file else []


def as_on_linux(content: bytes) -> bytes:
    """Return a text's bytes with line ends as Linux has them."""
    return content.replace(b"\r\n", b"\n")


def _line_of(target: Callable, folder: Path) -> str:
    """Return where a function or class is defined, like `mine.py:3`."""
    plain = target if isinstance(target, type) or inspect.isroutine(target) else type(target)
    try:
        file, line = inspect.getsourcefile(plain), inspect.getsourcelines(plain)[1]
    except (OSError, TypeError):
        return getattr(plain, "__module__", "?")
    return f"{_shown(Path(file or '?'), folder)}:{line}"


def _shown(path: Path, folder: Path) -> str:
    """Return a path as the user knows it: relative to the config's folder where it is below it."""
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return path.name
