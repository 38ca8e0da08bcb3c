"""What the kit refuses, and how it says so."""

import pytest

from kit.core.errors import KitError


def refusal_of(call, *arguments) -> str:
    """The message, one line, of the KitError that `call(*arguments)` has to raise."""
    with pytest.raises(KitError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message
