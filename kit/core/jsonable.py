"""Results as JSON: what a command prints with `--json`, and the schema of it."""

import dataclasses
import math
import os
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model


def jsonable(value: Any) -> Any:
    """Return a result as what JSON can hold.

    A record (dataclass or pydantic model) is an object of its fields and properties; a field that `repr` leaves
    out (`field(repr=False)`) is left out here, too. A table is a list of its rows, an array a list of lists, a
    path or a time its text. JSON has no NaN and no infinity: they are null.

    Parameters
    ----------
    value : object
        A result, or a part of one.

    Raises
    ------
    TypeError
        For what is none of these.
    """
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, os.PathLike):
        return {name: jsonable(getattr(value, name)) for name in _shown(type(value))}
    if isinstance(value, BaseModel):
        return {name: jsonable(each) for name, each in value}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): jsonable(each) for key, each in value.items()}
    if isinstance(value, Sequence | Set):
        return [jsonable(each) for each in value]
    if hasattr(value, "to_dict"):  # of pandas, which is not imported for this
        return [jsonable(row) for row in value.to_dict("records")]
    if hasattr(value, "tolist"):  # an array of numpy, or one of its numbers
        return jsonable(value.tolist())
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def json_schema(kind: type) -> dict[str, Any]:
    """Return the JSON schema of what `jsonable` makes of a result of this type.

    Parameters
    ----------
    kind : type
        A dataclass or a pydantic model, like what a function of `kit` returns.
    """
    return json_model(kind).model_json_schema()


@cache
def json_model(kind: type) -> type[BaseModel]:
    """Return a pydantic model of what `jsonable` makes of a result of this type; it reads it and refuses else."""
    if issubclass(kind, BaseModel):
        annotations = {name: field.annotation for name, field in kind.model_fields.items()}
        extra = kind.model_config.get("extra") or "forbid"
    else:
        hints = get_type_hints(kind)
        annotations = {name: _hint(kind, name, hints) for name in _shown(kind)}
        extra = "forbid"
    fields: dict[str, Any] = {name: (json_type(each), ...) for name, each in annotations.items()}
    config = ConfigDict(extra=extra, strict=True, protected_namespaces=())
    return create_model(kind.__name__, __config__=config, __doc__=_summary(kind), **fields)


def json_type(annotation: Any) -> Any:
    """Return the type that a value of a type has in JSON, as pydantic and type checkers write it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return json_type(inner[0])
    if origin is Literal or annotation in (Any, None, type(None), str, int, bool, object):
        return Any if annotation is object else annotation
    if annotation is float:
        return float | None
    if origin in (Union, types.UnionType):
        return Union[tuple(map(json_type, inner))]  # noqa: UP007  # of types that are known only now
    kind = origin or annotation
    if issubclass(kind, os.PathLike | datetime):
        return str
    if issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind):
        return json_model(kind)
    if issubclass(kind, Mapping):
        return dict[str, json_type(inner[1])] if inner else dict[str, Any]  # type: ignore[misc]
    if issubclass(kind, Sequence | Set):
        return list[json_type(inner[0])] if inner else list[Any]  # type: ignore[misc]
    return list[dict[str, Any]] if hasattr(kind, "to_dict") else list[Any]  # a table, an array


def _shown(kind: type) -> Iterator[str]:
    """Yield the names of a dataclass's fields and properties that JSON holds."""
    assert dataclasses.is_dataclass(kind)
    yield from (field.name for field in dataclasses.fields(kind) if field.repr)
    yield from (name for name in dir(kind) if isinstance(getattr(kind, name), property) and name[0] != "_")


def _hint(kind: type, name: str, hints: Mapping[str, Any]) -> Any:
    of_property = getattr(kind, name, None)
    return get_type_hints(of_property.fget)["return"] if isinstance(of_property, property) else hints[name]


def _summary(kind: type) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]
