"""YAML as the kit reads and writes it."""

import difflib
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from kit.core.errors import KitError, some

# 1e-2 is a number, as YAML 1.2 has it; PyYAML follows YAML 1.1 and reads text.
_FLOAT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")


class _Loader(yaml.SafeLoader):
    """A loader that reads 1e-2 as a number and refuses repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                reason = (
                    f"the key {key!r} stands there twice" if isinstance(key, Hashable) else f"{key!r} is no key"
                )
                raise yaml.constructor.ConstructorError(None, None, reason, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes the text 1e-2, which the loader would read as a number."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    """Quote text with one of three rare characters, which YAML 1.1 reads as breaks of lines."""
    style = '"' if any(character in text for character in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises
    ------
    KitError
        Where there is no such file, with the nearest name in its folder, or where it is not YAML, with the line.
    """
    if not path.is_file():
        there = sorted(file.name for file in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.stem, [Path(name).stem for name in there], n=1)
        hint = f"; did you mean {close[0]}.yaml?" if close else f"; in that folder: {some(there)}" if there else ""
        raise KitError(f"{path} does not exist{hint}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise KitError(f"{path}: not text in UTF-8: {error}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """Return the content of a text in YAML.

    Parameters
    ----------
    text : str
        The YAML.
    source : str
        Where it comes from, to stand at the beginning of an error's message.

    Raises
    ------
    KitError
        Where the text is not YAML, with the line.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark and "\n" in text else ""
        odd = "cannot start any token" in str(error.problem) or text.lstrip()[:1] == "%"
        hint = '; put text that begins so into quotes, like "%d/%m/%Y"' if odd else ""
        raise KitError(f"{source}{line}: not valid YAML: {error.problem}{hint}") from error
    except yaml.YAMLError as error:
        raise KitError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error


def dump_yaml(value: Any) -> str:
    """Return `value` as text in YAML, which `parse_yaml` reads back; keys keep their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
