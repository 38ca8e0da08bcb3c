"""Requests that fail: sent again where that may help, and not where they may have arrived."""

import contextlib
import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from kit.core.errors import KitError, Say

Answer = TypeVar("Answer")
Found = TypeVar("Found")

ATTEMPTS = 6
LONGEST_WAIT = 60.0  # seconds between two attempts, whatever Retry-After says
LOOKS = (0.0, 10.0, 20.0)  # seconds before each look whether a request arrived: Kaggle may list it late

TURNED_AWAY = {409, 425, 429}  # the request was not looked at
TRANSIENT = TURNED_AWAY | {408, 500, 502, 503, 504}


class Refused(KitError):
    """Kaggle's answer was an error that will not pass by itself; `status` is HTTP's."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class Lost(KitError):
    """No answer tells whether the request arrived: the connection broke, or Kaggle answered 408 or 5xx."""


class NotSent(OSError):
    """What the request was to be about could not be uploaded, so that there was no request."""


class Retry:
    """say   takes a line about every attempt that failed
    wait  what to sleep with, in seconds
    """

    def __init__(self, say: Say, wait: Callable[[float], None] = time.sleep):
        self._say, self._wait = say, wait

    def call(self, what: str, call: Callable[..., Answer], *arguments: Any) -> Answer:
        """Calls, and calls again after what may pass: 408, 409, 425, 429, 5xx, an answer that is not Kaggle's, a
        connection that broke.

        Raises Refused or KitError that says what was tried (`what`), with Kaggle's own words.
        """
        import requests

        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call(*arguments)
            except requests.HTTPError as error:
                status = _status(error)
                reason = f"Kaggle answers {status}: {_words(error)}"
                if status not in TRANSIENT:
                    raise Refused(f"{what}: {reason}{_hint(status)}", status) from error
                pause, cause = _retry_after(error) or _back_off(attempt), error
            except json.JSONDecodeError as error:  # also that of requests
                reason, pause, cause = "the answer is not Kaggle's", _back_off(attempt), error
            except requests.RequestException as error:
                reason = _broken(error)
                pause, cause = _back_off(attempt), error
            except NotSent as error:
                reason, pause, cause = f"the upload failed ({str(error)[:120]})", _back_off(attempt), error
            except ValueError as error:  # the client's own checks of its input
                raise KitError(f"{what}: {one_line(str(error))}") from error
            except (KeyError, TypeError) as error:  # how the client fails at a value that it has no name for
                raise KitError(
                    f"{what}: Kaggle's client does not understand the answer ({one_line(repr(error))}); "
                    "pip install -U kaggle kagglesdk"
                ) from error
            if attempt < ATTEMPTS:
                pause = min(pause, LONGEST_WAIT)
                self._say(f"{what}: {reason}; again in {pause:.0f} s ({attempt} of {ATTEMPTS} attempts)")
                self._wait(pause)
        raise KitError(f"{what}: given up after {ATTEMPTS} attempts; {reason}") from cause

    def once(
        self, what: str, send: Callable[[], Answer], arrived: Callable[[], Found | None]
    ) -> tuple[Answer | None, Found | None]:
        """`call` for what must not arrive twice: where the answer may have been lost, it looks before it sends
        again. Gives the answer or, where that was lost, what was found.

        arrived  what came of the request; None where it is not there

        Raises Lost where it is not known in the end.
        """
        import requests

        maybe = False  # whether a request whose answer was lost may have arrived

        def attempt() -> tuple[Answer | None, Found | None]:
            nonlocal maybe
            if maybe and (found := self._look(arrived)) is not None:
                return None, found
            try:
                return send(), None
            except requests.HTTPError as error:
                maybe = maybe or _status(error) in TRANSIENT - TURNED_AWAY
                raise
            except (KeyError, TypeError, json.JSONDecodeError, requests.RequestException):
                maybe = True
                raise

        try:
            return self.call(what, attempt)
        except KitError as error:
            if not maybe:
                raise
            with contextlib.suppress(KitError):
                if (found := self._look(arrived)) is not None:
                    return None, found
            lost = f"{what}: may have arrived, look on Kaggle before you send it again ({error})"
            raise Lost(lost) from error

    def _look(self, arrived: Callable[[], Found | None]) -> Found | None:
        for pause in LOOKS:
            if pause:
                self._wait(pause)
            if (found := arrived()) is not None:
                return found
        return None


def one_line(text: str) -> str:
    return " ".join(str(text).split())


def _status(error: Any) -> int:
    """HTTP's, or the one in Kaggle's own words where HTTP says 200; 0 where there is neither."""
    if error.response is None:
        return 0
    if error.response.status_code >= 400:
        return error.response.status_code
    with contextlib.suppress(Exception):
        return int(error.response.json()["code"])
    return error.response.status_code


def _retry_after(error: Any) -> float | None:
    """Seconds, from either form of the header."""
    text = error.response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _back_off(attempt: int) -> float:
    """1, 2, 4 … seconds, spread by half, so that many who were refused do not come back at once."""
    return 2.0 ** (attempt - 1) * random.uniform(0.75, 1.25)


def _words(error: Any) -> str:
    """Kaggle's message, where its answer has one. Never an address: those of files hold a signature."""
    with contextlib.suppress(Exception):
        if stated := one_line(error.response.json()["message"]):
            return stated
    return one_line(error.response.reason or "no reason") if error.response is not None else _broken(error)


def _broken(error: Any) -> str:
    """What broke, by the innermost of the errors that urllib3 nests: the others' words hold addresses."""
    innermost = error
    while (cause := innermost.__cause__ or innermost.__context__) is not None:
        innermost = cause
    return f"the connection broke ({one_line(str(innermost))[:100] or type(innermost).__name__})"


def _hint(status: int) -> str:
    return {
        401: "; the credentials are not accepted: make a new API token on kaggle.com/settings",
        403: "; not allowed: is the name right, is it yours, and are the competition's rules accepted?",
        404: "; there is no such thing, or it is not yours to see",
    }.get(status, "")
