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
    """With 1e-2 as a number and repeated keys as errors."""

    def construct_mapping(self, node, deep=False):
        seen = set()
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
    """Quotes the text 1e-2, which the loader would read as a number."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    """YAML 1.1 reads three rare characters as line breaks, and would give back others for them."""
    style = '"' if any(character in text for character in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; KitError with file and line where it is none."""
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
    """What `text` says; `source` stands at the beginning of an error's message."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark and "\n" in text else ""
        raise KitError(f"{source}{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise KitError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error


def dump_yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
