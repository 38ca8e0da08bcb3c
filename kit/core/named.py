"""What a config chooses by name: members of a family of classes, and code of the user's own.

A family is a class right below `Named`. Each class below that with a default for its `name` is a member by this
name.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import (
    ConfigDict,
    GetCoreSchemaHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from kit.core.own_code import OwnCode, is_reference
from kit.core.settings import FrozenOptions

OWN = "file.py:name"  # the tag of own code, as messages list it


class Named(FrozenOptions):
    """The base of families: sets of options that a config chooses by `name`."""

    members: ClassVar[dict[str, type["Named"]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        if Named in cls.__bases__:
            cls.members = {}
        elif "name" in cls.model_fields and not cls.model_fields["name"].is_required():
            cls.members[cls.model_fields["name"].default] = cls

    @model_serializer(mode="wrap")
    def _with_its_name(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keep the name where defaults are left out: it is each member's default, and tells which one it is."""
        content: dict[str, Any] = handler(self)
        return content if "name" in content else {"name": vars(self)["name"], **content}


class ByName:
    """Marks a field that holds a member of a family, like `Annotated[ScheduleBase, ByName(OwnSchedule)]`.

    Parameters
    ----------
    own : type
        The class that stands for own code, where the name is that of a file or module and what is in it.
    """

    def __init__(self, own: type[Named]):
        self.own = own

    def __get_pydantic_core_schema__(self, family: type[Named], handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {name: handler.generate_schema(member) for name, member in family.members.items()}
        choices[OWN] = handler.generate_schema(self.own)
        return core_schema.tagged_union_schema(choices, discriminator=_tag)


def _tag(value: Any) -> str | None:
    """Return which member of its family a value is meant to be."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return OWN if is_reference(name) else name


class RefersToCode(FrozenOptions):
    """The base of sections with keys that may name own code; it is relative to the folder of the config.

    Attributes
    ----------
    code_keys : tuple of str
        Of the class: these keys.
    """

    code_keys: ClassVar[tuple[str, ...]] = ()
    _folder: Path | None = PrivateAttr(default=None)  # None where nothing names own code
    _digests: dict[str, str] = PrivateAttr(default_factory=dict)  # of what is named, when the config was read

    @model_validator(mode="after")
    def _relative_to_the_config(self, info: ValidationInfo) -> Self:
        if self._folder is None and any(True for _ in self.references()):  # else made before, elsewhere
            self._folder = Path((info.context or {}).get("folder", "."))
        return self

    def references(self) -> Iterator[tuple[str, str]]:
        """Yield each key that names own code, with the name."""
        for key in self.code_keys:
            if is_reference(value := getattr(self, key)):
                yield key, value

    def own(self, reference: str | None) -> OwnCode | None:
        """Return the own code that a text names; None where it names none."""
        if not (reference and is_reference(reference)):
            return None
        return OwnCode(reference, self._folder or Path(), self._digests.get(reference))

    def pin(self, digests: Mapping[str, str]) -> None:
        """Take no other code from now on than that of these digests, each by the name of the code."""
        self._digests.update(digests)


class OwnOptions(RefersToCode):
    """The base of what stands for own code in a config: its name, and whatever options it takes beside it.

    Attributes
    ----------
    name : str
        `file.py:name` or `package.module:name`.
    """

    model_config = ConfigDict(extra="allow")

    code_keys = ("name",)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, content: Any) -> Any:
        return {"name": content} if isinstance(content, str) else content

    @field_validator("name")
    @classmethod
    def _of_own_code(cls, name: str) -> str:
        if not is_reference(name):
            raise ValueError("expected code of your own, file.py:name or package.module:name")
        return name

    @property
    def options(self) -> dict[str, Any]:
        """The options beside the name."""
        return dict(self.model_extra or {})

    @property
    def code(self) -> OwnCode:
        """The user's function or class."""
        return OwnCode(self.name, self._folder or Path(), self._digests.get(self.name))

    def __getstate__(self) -> dict[Any, Any]:
        """Leave out what was loaded: another process loads it by its name."""
        state = super().__getstate__()
        fields = type(self).model_fields
        return state | {"__dict__": {key: value for key, value in state["__dict__"].items() if key in fields}}


def own_code_of(section: Any, place: str = "") -> Iterator[tuple[str, OwnCode]]:
    """Yield all own code that a section and those in it name, each with its place in the config."""
    for where, each in sections_with_code(section, place):
        for key, reference in each.references():
            own = each.own(reference)
            assert own
            yield where if isinstance(each, OwnOptions) else f"{where}.{key}".strip("."), own


def sections_with_code(section: Any, place: str = "") -> Iterator[tuple[str, RefersToCode]]:
    """Yield the sections in a section, itself included, that name own code, each with its place in the config."""
    if isinstance(section, RefersToCode) and any(True for _ in section.references()):
        yield place, section
    if isinstance(section, FrozenOptions):
        inner: Iterable[tuple[Any, Any]] = section
    elif isinstance(section, dict):
        inner = section.items()
    elif isinstance(section, list | tuple):
        inner = enumerate(section)
    else:
        return
    for key, value in inner:
        where = f"{place}[{key}]" if isinstance(key, int) else f"{place}.{key}".strip(".")
        yield from sections_with_code(value, where)
