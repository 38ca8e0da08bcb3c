"""Results as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from kit.core.jsonable import json_model, json_schema, jsonable


class Inner(BaseModel):
    model_config = ConfigDict(extra="allow")

    share: float


class Folder:
    def __init__(self, path: str):
        self.path = path

    def __fspath__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Outer:
    """What was found.

    More of it.
    """

    file: Path | None
    kind: Literal["a", "b"]
    rates: np.ndarray
    table: pd.DataFrame
    inner: dict[int, Inner]
    both: Sequence[Folder]
    when: datetime
    score: Annotated[float, "a share"]
    loose: Mapping[str, Any]
    pair: tuple[int, int]
    hidden: object = field(default=None, repr=False)

    @property
    def double(self) -> float:
        return 2 * self.score

    @property
    def _own(self) -> float:
        return 0.0


def an_outer(**changes) -> Outer:
    told = {
        "file": Path("a/b"),
        "kind": "a",
        "rates": np.array([[0.5, np.nan], [np.inf, 2]], dtype=np.float32),
        "table": pd.DataFrame({"id": ["x", "y"], "f1": [0.25, float("nan")], "on": [True, False]}),
        "inner": {3: Inner(share=float("nan"), more=[1])},
        "both": (Folder("f"),),
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "score": 0.25,
        "loose": {"n": np.int64(3), "yes": np.True_},
        "pair": (1, 2),
        "hidden": object(),
    }
    return Outer(**(told | changes))


EXPECTED = {
    "file": "a/b",
    "kind": "a",
    "rates": [[0.5, None], [None, 2.0]],
    "table": [{"id": "x", "f1": 0.25, "on": True}, {"id": "y", "f1": None, "on": False}],
    "inner": {"3": {"share": None, "more": [1]}},
    "both": ["f"],
    "when": "2026-01-02T00:00:00+00:00",
    "score": 0.25,
    "loose": {"n": 3, "yes": True},
    "pair": [1, 2],
    "double": 0.5,
}


def test_every_kind_of_value():
    made = jsonable(an_outer())
    assert json.loads(json.dumps(made, allow_nan=False)) == EXPECTED
    json_model(Outer).model_validate_json(json.dumps(made))


def test_the_schema():
    schema = json_schema(Outer)
    assert schema["required"] == list(EXPECTED)
    assert schema["additionalProperties"] is False
    assert schema["description"] == "What was found."
    parts = schema["properties"]
    assert parts["score"]["anyOf"] == [{"type": "number"}, {"type": "null"}]
    assert parts["kind"]["enum"] == ["a", "b"]
    assert parts["table"]["items"] == {"additionalProperties": True, "type": "object"}
    assert parts["inner"]["additionalProperties"] == {"$ref": "#/$defs/Inner"}
    assert schema["$defs"]["Inner"]["additionalProperties"] is True


@pytest.mark.parametrize(
    "wrong", [{"score": "0.25"}, {"more": 1}, {"kind": "c"}, {"pair": 3}, {"inner": {"3": {}}}, {"file": 1}]
)
def test_the_model_refuses_what_is_not_of_the_type(wrong):
    with pytest.raises(ValidationError):
        json_model(Outer).model_validate_json(json.dumps(EXPECTED | wrong))


def test_what_has_no_form_is_a_fault():
    with pytest.raises(TypeError, match="Unsayable has no form in JSON"):
        jsonable([type("Unsayable", (), {})()])


numbers = st.floats(allow_nan=True, allow_infinity=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text() | numbers.map(np.float64),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


def plainly(value):
    """The slow obvious version."""
    if isinstance(value, dict):
        return {key: plainly(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plainly(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@given(values)
def test_what_python_holds_comes_back(value):
    assert json.loads(json.dumps(jsonable(value), allow_nan=False)) == plainly(value)
