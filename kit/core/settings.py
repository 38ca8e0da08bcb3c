"""The base of every section of the configuration, and the fingerprint."""

import hashlib
import json
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, StringConstraints, field_validator

# Names become folders and file names, so they hold nothing a path could misread.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]


class Options(BaseModel):
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
            if isinstance(value, Options):
                values[name] = value.canonical()
            elif isinstance(value, dict) and all(isinstance(each, Options) for each in value.values()):
                values[name] = {key: each.canonical() for key, each in value.items()}
        return values


class Section(Options):
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
