"""YAML as the kit reads and writes it."""

import difflib
import re
from collections.abc import Hashable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from kit.core.errors import KitError, some

# 1e-2 is a number, as YAML 1.2 has it; PyYAML follows YAML 1.1 and reads text.
_FLOAT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")


DEEPEST = 100  # levels of lists and mappings in each other
MOST_VALUES = 1_000_000  # with what aliases stand for; a config of 80,000 classes has 160,000
LONGEST = 4_000_000  # characters

_READ_BY_YAML = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:bool")


@dataclass(frozen=True)
class Written:
    """A value that YAML reads as something else than the text that stands there, like 01, 1e3, 12:30 and yes.

    Attributes
    ----------
    value : bool, int or float
        What YAML makes of it.
    text : str
        As it is written. `true` and `false` are never meant as text, and are no such values.
    """

    value: Any = field(compare=False)
    text: str

    def __repr__(self) -> str:
        return repr(self.value)


class _Loader(yaml.SafeLoader):
    """A loader that reads 1e-2 as a number and refuses repeated keys; dates stay text.

    What it takes is bounded: how deep lists and mappings lie in each other, and how many values there are once
    each alias stands for what it names. A file of one kilobyte can otherwise stand for 10^9 of them.
    """

    def __init__(self, stream: str):
        super().__init__(stream)
        self._depth = 0
        self._counts: dict[int, int] = {}  # by a node's identity: the values in it, itself included

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        named = self.anchors.get(event.anchor) if isinstance(event, yaml.AliasEvent) else None
        if named is not None and id(named) not in self._counts:
            raise _refusal(f"*{event.anchor} stands within what it names", event.start_mark)
        if self._depth >= DEEPEST:
            raise _refusal(f"more than {DEEPEST} lists and mappings in each other", event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None or id(node) in self._counts:
            return node
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        flat = [part for pair in parts for part in pair] if isinstance(node, yaml.MappingNode) else parts
        count = self._counts[id(node)] = 1 + sum(self._counts[id(part)] for part in flat)
        if count > MOST_VALUES:
            raise _refusal(
                f"more than {MOST_VALUES:,} values, each alias counted as what it names", event.start_mark
            )
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int):
                float(value)  # OverflowError: more than 300 digits
            elif isinstance(value, str):
                value.encode()  # UnicodeError: half of a character, which nothing can write
            return value
        except (ValueError, KeyError, AttributeError, TypeError, IndexError, OverflowError) as error:
            # How PyYAML fails at !!int of what is no number, or at one of 10,000 digits.
            shown = str(node.value)[:40]
            kind = node.tag.rpartition(":")[2]
            raise _refusal(f"{shown!r} is no {kind}", node.start_mark) from error

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


class _WrittenLoader(_Loader):
    """The same, but what YAML reads its own way comes with the text that stands there."""

    def construct_written(self, node: yaml.ScalarNode) -> Any:
        construct = yaml.SafeLoader.yaml_constructors[node.tag]
        value = construct(self, node)
        return value if node.value.lower() in ("true", "false") else Written(value, node.value)


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes the text 1e-2, which the loader would read as a number."""


def _refusal(reason: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.composer.ComposerError(None, None, reason, mark)


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    """Quote text with one of three rare characters, which YAML 1.1 reads as breaks of lines."""
    style = '"' if any(character in text for character in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_WrittenLoader.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers
for _tag in _READ_BY_YAML:
    _WrittenLoader.add_constructor(_tag, _WrittenLoader.construct_written)


def read_yaml(path: Path, written: bool = False) -> Any:
    """Return the content of a YAML file.

    Parameters
    ----------
    path : Path
        The file.
    written : bool
        As in `parse_yaml`.

    Raises
    ------
    KitError
        Where there is no such file, with the nearest name in its folder, or where it is not YAML, with the line.
    """
    if not path.is_file():
        there = sorted(file.name for file in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.stem, [Path(name).stem for name in there], n=1)
        hint = f"; did you mean {close[0]}.yaml?" if close else f"; in that folder: {some(there)}" if there else ""
        what = "is a folder, not a YAML file" if path.is_dir() else "does not exist"
        raise KitError(f"{path} {what}{hint}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise KitError(f"{path}: not text in UTF-8: {error}") from error
    return parse_yaml(text, str(path), written)


@lru_cache(maxsize=4)
def _parsed(text: str, written: bool) -> Any:
    return yaml.load(text, _WrittenLoader if written else _Loader)


def parse_yaml(text: str, source: str, written: bool = False) -> Any:
    """Return the content of a text in YAML.

    The last texts are known, as a command looks at the same config again and again.

    Parameters
    ----------
    text : str
        The YAML.
    source : str
        Where it comes from, to stand at the beginning of an error's message.
    written : bool
        Whether numbers, yes, no, on and off come as `Written`, with the text that stands there.

    Raises
    ------
    KitError
        Where the text is not YAML, with the line.
    """
    if len(text) > LONGEST:
        raise KitError(f"{source}: {len(text):,} characters; YAML is read up to {LONGEST:,}")
    try:
        return deepcopy(_parsed(text, written))
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


def in_one_line(value: Any) -> str:
    """Return `value` as YAML that can stand behind a key, like {a: 1, b: [x, y]}."""
    inner = isinstance(value, dict | list | tuple)
    text = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=inner, width=1_000_000
    )
    return text.removesuffix("\n").removesuffix("\n...")
