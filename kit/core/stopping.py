"""Work that is stopped where it can go on later."""

from typing import Any

from kit.core.errors import KitError

OUT_OF_TIME = 1  # the exit code of a command that its time limit stopped


class Stopped(KitError):
    """Work that was stopped where it can go on; the message says where, and how.

    Attributes
    ----------
    code : int
        Exit code of the command: 128 and the number of the signal, or `OUT_OF_TIME`.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return Stopped, (str(self), self.code)
