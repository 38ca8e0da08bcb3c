"""The base of every section of the configuration, and the fingerprint."""

import difflib
import hashlib
import json
import re
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, field_validator

from kit.core.errors import some

# Names become folders and file names, so they hold nothing a path could misread.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]


class FrozenOptions(BaseModel):
    """Frozen options: unknown keys and non-finite numbers are errors.

    `incidental` names the fields that cannot change a result (where data lies, how many workers);
    they stay out of the fingerprint.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    incidental: ClassVar[frozenset[str]] = frozenset()

    def canonical(self) -> dict[str, Any]:
        """What decides the result, as plain JSON values with defaults written out."""
        values = self.model_dump(mode="json")
        for name in type(self).model_fields:
            if name in self.incidental:
                values.pop(name)
                continue
            value = getattr(self, name)
            if isinstance(value, FrozenOptions):
                values[name] = value.canonical()
            elif isinstance(value, dict) and all(isinstance(each, FrozenOptions) for each in value.values()):
                values[name] = {key: each.canonical() for key, each in value.items()}
        return values


class ConfigSection(FrozenOptions):
    """A section of the configuration, or all of it."""

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info) -> Any:
        """Else YAML's `yes` would be read as 1."""
        if isinstance(value, bool) and not _takes_bool(cls.model_fields[info.field_name].annotation):
            raise ValueError("true and false (and yes, no, on, off) are no value here")
        return value


def _takes_bool(annotation: Any) -> bool:
    return annotation is bool or any(map(_takes_bool, get_args(annotation)))


def fingerprint(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


KeyPath = tuple[str | int, ...]


# pydantic's kinds of fault whose own words are about Python → words about YAML.
_WORDS = {
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "model_attributes_type": "expected a mapping",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "string_type": "expected text",
    "string_pattern_mismatch": "expected letters, digits, '.', '_' and '-', beginning with a letter or digit",
}


def explain(error: ValidationError, content: Any, model: type[BaseModel], whole: str = "config") -> list[str]:
    """A line for every key of `content` that `model` refuses; `whole` is the place of what is about no key."""
    messages: dict[KeyPath, list[str]] = {}
    values: dict[KeyPath, str] = {}
    for fault in error.errors():
        path, section = _place(fault["loc"], content, model)
        if fault["type"] == "union_tag_not_found":  # a schedule without its name
            path = (*path, fault["ctx"]["discriminator"].strip("'"))
        message = _message(fault, path, section)
        if message not in messages.setdefault(path, []):
            messages[path].append(message)
        values[path] = _value(fault)
    # Where a value may be of two types, the fault inside the one that fits says more than the other's.
    deepest = [path for path in messages if not any(other[: len(path)] == path != other for other in messages)]
    return [f"{_dotted(path) or whole}{values[path]}: {', or '.join(messages[path])}" for path in deepest]


def _message(fault: dict[str, Any], path: KeyPath, section: type[BaseModel] | None) -> str:
    kind = fault["type"]
    if kind == "extra_forbidden":
        known = list(section.model_fields) if section else []
        close = difflib.get_close_matches(str(path[-1]), known, n=1)
        if close:
            return f"unknown key; did you mean {close[0]}?"
        return f"unknown key; known are {some(known, 20)}" if known else "unknown key"
    if kind in ("missing", "union_tag_not_found"):
        return "missing; this key has no default"
    if kind == "union_tag_invalid":
        known = fault["ctx"]["expected_tags"]
        close = difflib.get_close_matches(fault["ctx"]["tag"], re.findall(r"'([^']+)'", known), n=1)
        return f"did you mean {close[0]}?" if close else f"expected one of {known}"
    if kind == "string_too_long":
        return f"expected at most {fault['ctx']['max_length']} characters"
    if kind in _WORDS:
        return _WORDS[kind]
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return re.sub(r"^Input should be (a valid )?", "expected ", message)


def _value(fault: dict[str, Any]) -> str:
    """` = value`, where it is short and the message needs it."""
    if fault["type"] == "union_tag_invalid":
        return f" = {fault['ctx']['tag']!r}"
    value = fault["input"]
    if isinstance(value, dict | BaseModel) or len(repr(value)) > 80 or fault["type"] == "extra_forbidden":
        return ""
    return f" = {value!r}"


def _dotted(path: KeyPath) -> str:
    """`data.mean[1]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _place(loc: tuple, content: Any, model: Any) -> tuple[KeyPath, type[BaseModel] | None]:
    """The keys of a fault as the user wrote them (pydantic adds the names of union members), and
    the section in which the last key stands."""
    path: list[str | int] = []
    for place, part in enumerate(loc):
        inside = isinstance(content, dict) and part in content
        listed = isinstance(content, list | tuple) and isinstance(part, int) and part < len(content)
        declared = isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields
        if not (inside or listed or declared):
            if isinstance(model, dict):
                model = model.get(part)
            continue
        path.append(part)
        content = content[part] if inside or listed else None
        if place < len(loc) - 1:
            model = _member(model, part)
    return tuple(path), model if isinstance(model, type) else None


def _member(model: Any, part: Any) -> Any:
    """The section type (or, for a union of sections, {tag: type}) that a key of `model` holds."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return model.get(part) if isinstance(model, dict) else model
    if part not in model.model_fields:  # the name of an entry, like a policy's
        return model
    sections = _sections(model.model_fields[part].annotation)
    if len(sections) > 1:
        return {
            kind.model_fields["name"].default if "name" in kind.model_fields else "listed": kind
            for kind in sections
        }
    return sections[0] if sections else None


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections in an annotation, however deep: those of `tuple[A, ...] | Annotated[B | C, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]
