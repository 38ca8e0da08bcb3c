import pytest
from support.refusals import refusal_of

from kit.core.errors import KitError
from kit.model.trial import forward_on_trial


def told(error: Exception) -> str:
    def fail():
        with forward_on_trial("it cannot see", "data.size"):
            raise error

    return refusal_of(fail)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RuntimeError("a\n  b"), "a b"), (AssertionError(), "AssertionError"), (ValueError("x" * 300), "x" * 200)],
)
def test_what_goes_wrong_is_one_line_with_the_mend(error, reason):
    assert told(error) == f"model: it cannot see ({reason}); change data.size"


def test_what_is_told_already_stays():
    assert told(KitError("model.name: it gives no logits")) == "model.name: it gives no logits"
