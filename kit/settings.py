"""The base of every section of the configuration, and the fingerprint."""

import hashlib
import json
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, StringConstraints

# Names become folders and file names, so they hold nothing a path could misread.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]


class Section(BaseModel):
    """A frozen section of the configuration: unknown keys and non-finite numbers are errors.

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
            elif isinstance(getattr(self, name), Section):
                values[name] = getattr(self, name).canonical()
        return values


def fingerprint(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
