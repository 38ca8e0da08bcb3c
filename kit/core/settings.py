"""The base of every section of the configuration, its fingerprint, and what is wrong with one in words."""

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from kit.core.durations import EXPECTED, duration
from kit.core.errors import KitError, some
from kit.core.yaml import Written

# The name of an experiment or a policy. Names become folders and files, so they hold nothing a path could misread.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]


def _as_text(value: Any) -> Any:
    """Turn a number into text: a class 3 and a column 0 are text in a table."""
    if isinstance(value, bool) or value is None:
        word = {True: "true", False: "false", None: "null"}[value]
        raise ValueError(f"{word} is YAML's own word and no text; put it in quotes, as it stands in the table")
    return str(value) if isinstance(value, int | float) else value


# Text of a table, like a label or the name of a column. In YAML it is what is written, whatever YAML makes of it.
Text = Annotated[str, BeforeValidator(_as_text)]


def _as_seconds(text: Any) -> Any:
    try:
        return duration(text)
    except (KitError, TypeError) as error:
        raise ValueError(EXPECTED) from error


# A length of time in seconds, written like 8h30m. As written: YAML would make the number 510 of 8:30.
Duration = Annotated[float, BeforeValidator(_as_seconds), BeforeValidator(_as_text)]


class FrozenOptions(BaseModel):
    """A set of options that cannot be changed once made; unknown keys and non-finite numbers are errors.

    Attributes
    ----------
    incidental : frozenset of str
        Of the class: the fields that cannot change a result (where data lies, how many workers). They stay out of
        the fingerprint.
    later : frozenset of str
        Of the class: fields that came after the first version. They stay out of the fingerprint while they hold
        their default, which leaves the result as it was.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    incidental: ClassVar[frozenset[str]] = frozenset()
    later: ClassVar[frozenset[str]] = frozenset()

    def canonical(self) -> dict[str, Any]:
        """Return what decides the result, as plain JSON values with defaults written out."""
        values = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name in self.incidental or (name in self.later and value == field.get_default()):
                values.pop(name)
                continue
            if isinstance(value, FrozenOptions):
                values[name] = value.canonical()
            elif isinstance(value, dict) and all(isinstance(each, FrozenOptions) for each in value.values()):
                values[name] = {key: each.canonical() for key, each in value.items()}
        return values


class ConfigSection(FrozenOptions):
    """A section of the configuration, or all of it. It does not take true and false for numbers."""

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what YAML's `yes` becomes where it would be read as 1."""
        field = cls.model_fields[info.field_name or ""]
        takes_text = any(kind is Text for kind in _kinds(field.annotation, field.metadata))  # which says so itself
        if isinstance(value, bool) and not (takes_text or _takes_bool(field.annotation)):
            raise ValueError("true and false (and yes, no, on, off) are no value here")
        return value


def _takes_bool(annotation: Any) -> bool:
    return annotation is bool or any(map(_takes_bool, get_args(annotation)))


def settled(content: Any, *kinds: Any) -> Any:
    """Return what was read from YAML with plain values: as text where text of a table is expected.

    Parameters
    ----------
    content : object
        Holds values that are `Written`; each becomes its text where one of `kinds` takes Text, and as a key of
        sections and of mappings by text; anywhere else it becomes its value.
    *kinds : type
        What the content is to be, like a section of the config.

    Raises
    ------
    KitError
        Where two keys of a mapping become one.
    """
    known = [kind for each in kinds for kind in _kinds(each)]
    if isinstance(content, Written):
        return content.text if any(kind is Text for kind in known) else content.value
    if isinstance(content, list):
        items = [part for kind in known if get_origin(kind) in (list, tuple) for part in get_args(kind)]
        return [settled(item, *items) for item in content]
    if not isinstance(content, dict):
        return content
    sections = [kind for kind in known if isinstance(kind, type) and issubclass(kind, BaseModel)]
    mappings = [get_args(kind) for kind in known if get_origin(kind) is dict]
    by_text = bool(sections) or any(kind in (Text, str) for key, _ in mappings for kind in _kinds(key))
    made: dict[Any, Any] = {}
    for key, value in content.items():
        name = settled(key, *[Text] * by_text)
        if name in made:
            raise KitError(f"the key {name!r} stands there twice")
        fields = [section.model_fields[name] for section in sections if name in section.model_fields]
        inner = [kind for field in fields for kind in _kinds(field.annotation, field.metadata)]
        made[name] = settled(value, *(inner if fields else [kind for _, kind in mappings]))
    return made


def _kinds(annotation: Any, metadata: Sequence[Any] = ()) -> Iterator[Any]:
    """Yield the types that a union is made of, without what checks them; Text stays what it is."""
    if any(isinstance(each, BeforeValidator) and each.func is _as_text for each in metadata) or annotation is Text:
        yield Text
    elif get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0], annotation.__metadata__)
    elif get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _kinds(part)
    else:
        yield annotation


def fingerprint(value: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# The keys and places in lists that lead to a value: ("data", "mean", 1) is `data.mean[1]`.
KeyPath = tuple[str | int, ...]

# pydantic's kinds of fault whose own words are about Python → words about YAML.
_WORDS = {
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "model_attributes_type": "expected a mapping",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "string_type": "expected text",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "string_pattern_mismatch": "expected letters, digits, '.', '_' and '-', beginning with a letter or digit",
}


def explain(error: ValidationError, content: Any, model: type[BaseModel], whole: str = "config") -> list[str]:
    """Return what pydantic refused, a line for each key at fault.

    Parameters
    ----------
    error : ValidationError
        What pydantic raised.
    content : object
        What the user wrote, as plain YAML values.
    model : type
        The section of the config that `content` was to be.
    whole : str
        The place to name for a fault that is about no single key.

    Returns
    -------
    list of str
        The path of each key, its value where that is short, and what is allowed.
    """
    messages: dict[KeyPath, list[str]] = {}
    values: dict[KeyPath, str] = {}
    for fault in error.errors():
        path, section = _place(fault["loc"], content, model)
        if fault["type"] == "union_tag_not_found":  # a schedule without its name
            path = (*path, "name")
        message = _message(fault, path, section)
        if message not in messages.setdefault(path, []):
            messages[path].append(message)
        values[path] = _value(fault)
    # Where a value may be of two types, the fault inside the one that fits says more than the other's.
    deepest = [path for path in messages if not any(other[: len(path)] == path != other for other in messages)]
    return [f"{_dotted(path) or whole}{values[path]}: {_either(messages[path])}" for path in deepest]


def _either(messages: list[str]) -> str:
    first, *more = messages
    return ", or ".join([first, *(message.removeprefix("expected ") for message in more)])


def _message(fault: ErrorDetails, path: KeyPath, section: type[BaseModel] | None) -> str:
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
        known = fault["ctx"]["expected_tags"].replace("'file.py:name'", "file.py:name of your own")
        close = difflib.get_close_matches(fault["ctx"]["tag"], re.findall(r"'([^']+)'", known), n=1)
        return f"did you mean {close[0]}?" if close else f"expected one of {known}"
    if kind == "string_too_long":
        return f"expected at most {fault['ctx']['max_length']} characters"
    if kind in _WORDS:
        return _WORDS[kind]
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return re.sub(r"^Input should be (a valid )?", "expected ", message)


def _value(fault: ErrorDetails) -> str:
    """Return ` = value` where it is short and the message needs it, else nothing."""
    if fault["type"] == "union_tag_invalid":
        return f" = {fault['ctx']['tag']!r}"
    value = fault["input"]
    if isinstance(value, dict | BaseModel) or len(repr(value)) > 80 or fault["type"] == "extra_forbidden":
        return ""
    return f" = {value!r}"


def _dotted(path: KeyPath) -> str:
    """Return a path as the user would write it, like `data.mean[1]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _place(loc: KeyPath, content: Any, model: Any) -> tuple[KeyPath, type[BaseModel] | None]:
    """Return the keys of a fault as the user wrote them, and the section in which the last key stands.

    pydantic's `loc` holds the names of union members as well.
    """
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
    """Return the type of the section that a key of `model` holds; for a union of sections, {tag: type}."""
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
    """Return the sections in an annotation, however deep, as in `tuple[A, ...] | Annotated[B | C, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        family = getattr(annotation, "members", None)  # of `kit.core.named`
        return list(family.values()) if family and "name" not in annotation.model_fields else [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]
