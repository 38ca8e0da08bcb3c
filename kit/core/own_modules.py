"""Modules of own code: which files one is made of, and loading it from what these hold now."""

import ast
import hashlib
import importlib
import importlib.util
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from kit.core.errors import KitError, some

# Never taken for a file of the user's, whatever lies beside it: the kit's own modules are in every kernel.
_NEVER_BESIDE = frozenset({"kit", *sys.stdlib_module_names})

_loaded: dict[Path, tuple[str, ModuleType]] = {}  # file → digest of it and what it imports beside it, module
_helpers: dict[str, tuple[Path, str]] = {}  # what is imported beside such files, by name → its folder, its digest


def with_imports(file: Path, reference: str) -> Iterator[tuple[Path, bytes]]:
    """Yield a file and all that it imports beside it, each once, with their contents.

    Parameters
    ----------
    file : Path
        A file of Python.
    reference : str
        How the config names it, for messages.

    Raises
    ------
    KitError
        Where it is not there or is no Python, and for imports relative to a package that it is not in.
    """
    file = file.resolve()
    if not file.is_file():
        near = sorted(path.name for path in file.parent.glob("*.py")) if file.parent.is_dir() else []
        there = f"; there are {some(near, 8)}" if near else ""
        raise KitError(f"{reference}: there is no file {file.name} in {file.parent}{there}")
    due, seen = [file], set()
    while due:
        path = due.pop(0)
        if path in seen:
            continue
        seen.add(path)
        content = path.read_bytes()
        yield path, content
        try:
            tree = ast.parse(content, str(path))
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 1
            raise KitError(f"{reference}: {path.name}:{line}: no Python: {' '.join(str(error).split())}") from None
        for name, line in _imported(tree):
            if name:
                due += _beside(file.parent, name)
            elif path.parent == file.parent:  # within a package all files are there
                raise KitError(
                    f"{reference}: {path.name}:{line}: imports relative to a package, which a file named by "
                    "itself is not in; import the module beside it by its name"
                )


def _imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the top name of each module that a file imports, and the line; "" for a relative import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "" if node.level else (node.module or "").partition(".")[0], node.lineno


def _beside(folder: Path, name: str) -> list[Path]:
    """Return the files of a module or package of this name in a folder."""
    if name in _NEVER_BESIDE:
        return []
    if (folder / name / "__init__.py").is_file() or not (folder / f"{name}.py").is_file():
        return sorted((folder / name).rglob("*.py"))
    return [folder / f"{name}.py"]


def load_module(file: Path, files: Mapping[Path, bytes]) -> ModuleType:
    """Return the module of a file, made of `files`: loaded anew where one of them has changed.

    What it imports beside itself is one module for all files of own code in the folder.
    """
    file = file.resolve()
    digest = _digest(files.values())
    if file in _loaded and _loaded[file][0] == digest:
        return _loaded[file][1]
    name = f"own_code_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _importing_from(file.parent):
            _import_helpers(file, files)
            exec(compile(files[file], str(file), "exec"), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    _loaded[file] = digest, module
    return module


def _import_helpers(file: Path, files: Mapping[Path, bytes]) -> None:
    """Import what the file imports beside it: anew where something of it is another folder's, or has changed.

    Also what is imported within a function, which may run when the folder is no longer looked in.
    """
    parts: dict[str, list[bytes]] = {}
    for path, content in list(files.items())[1:]:
        parts.setdefault(path.relative_to(file.parent).parts[0].removesuffix(".py"), []).append(content)
    now = {top: (file.parent, _digest(contents)) for top, contents in parts.items()}
    if any(top not in sys.modules or _helpers.get(top) != state for top, state in now.items()):
        for other in [name for name in sys.modules if name.partition(".")[0] in now]:
            del sys.modules[other]
    for top, state in now.items():
        importlib.import_module(top)
        _helpers[top] = state


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Look for modules in this folder first, and read their sources: Python's cache goes by time stamps."""
    prefix, dont_write = sys.pycache_prefix, sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    with tempfile.TemporaryDirectory() as nowhere:
        sys.pycache_prefix, sys.dont_write_bytecode = nowhere, True
        try:
            yield
        finally:
            sys.pycache_prefix, sys.dont_write_bytecode = prefix, dont_write
            sys.path.remove(str(folder))


def _digest(contents: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in contents)).hexdigest()
