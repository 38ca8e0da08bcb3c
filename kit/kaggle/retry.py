"""Requests that fail are sent again where that may help, and not where they may have arrived.

When to try again, how often and after what pause is the business of the library tenacity; which failures may pass,
and looking whether a request arrived before it is sent again, are decided here.
"""

import contextlib
import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from kit.core.errors import KitError, Say

if TYPE_CHECKING:
    from tenacity import RetryCallState

Answer = TypeVar("Answer")
Found = TypeVar("Found")

ATTEMPTS = 6
LONGEST_WAIT = 60.0  # seconds between two attempts, whatever Retry-After says
GRACE = 300.0  # seconds for which Kaggle may not know, or not show, what was just sent to it
GRACE_POLL = 10.0  # seconds between two looks meanwhile
NOT_YET = {403, 404, 500}  # how it answers then
LOOKS = (0.0, 10.0, 20.0)  # seconds before each look whether a request arrived: Kaggle may list it late

TAKEN = "already in use"  # Kaggle's words for a title that another kernel or dataset has
TURNED_AWAY = {409, 425, 429}  # the request was not looked at
TRANSIENT = TURNED_AWAY | {408, 500, 502, 503, 504}


class Refused(KitError):
    """Kaggle answered with an error that will not pass by itself.

    Attributes
    ----------
    status : int
        HTTP's status.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class Unanswered(KitError):
    """All attempts failed in ways that may pass by themselves.

    Attributes
    ----------
    status : int
        HTTP's status of the last; 0 where the connection broke.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class Lost(KitError):
    """No answer tells whether the request arrived: the connection broke, or Kaggle answered 408 or 5xx."""


class NotSent(OSError):
    """What the request was to be about could not be uploaded, so that there was no request."""


class _MayPass(Exception):
    """An attempt failed in a way that may pass; `after`: what Retry-After states, in seconds; `status`: HTTP's."""

    def __init__(self, reason: str, after: float | None = None, status: int = 0):
        super().__init__(reason)
        self.after, self.status = after, status


class Retry:
    """Sends requests, and sends them again where that may help.

    Parameters
    ----------
    say : callable
        Takes a line about every attempt that failed.
    wait : callable
        What to sleep with; takes seconds.
    """

    def __init__(self, say: Say, wait: Callable[[float], None] = time.sleep):
        self._say, self._wait = say, wait

    def call(self, what: str, call: Callable[..., Answer], *arguments: Any) -> Answer:
        """Call a function, and call it again after a failure that may pass.

        These may pass: 408, 409, 425, 429, 5xx, an answer that is not Kaggle's, a connection that broke.

        Parameters
        ----------
        what : str
            What is tried; messages begin with it.
        call : callable
            Called with `arguments`.

        Returns
        -------
        object
            What the function returned.

        Raises
        ------
        Refused
            Where Kaggle's answer will not pass by itself; with Kaggle's own words.
        Unanswered
            Where all attempts failed.
        KitError
            Where the client fails by itself.
        """
        from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

        def tell(state: RetryCallState) -> None:
            tried = f"{state.attempt_number} of {ATTEMPTS} attempts"
            self._say(f"{what}: {_failure_of(state)}; again in {state.upcoming_sleep:.0f} s ({tried})")

        def give_up(state: RetryCallState) -> NoReturn:
            failure = _failure_of(state)
            given_up = f"{what}: given up after {ATTEMPTS} attempts; {failure}"
            raise Unanswered(given_up, failure.status) from failure.__cause__

        retrying = Retrying(
            retry=retry_if_exception_type(_MayPass),
            stop=stop_after_attempt(ATTEMPTS),
            wait=_pause,
            sleep=self._wait,
            before_sleep=tell,
            retry_error_callback=give_up,
        )
        return retrying(_attempt, what, call, *arguments)

    def once(
        self, what: str, send: Callable[[], Answer], arrived: Callable[[], Found | None]
    ) -> tuple[Answer, None] | tuple[None, Found]:
        """Send, as `call` does, what must not arrive twice.

        Where the answer may have been lost, it looks whether the request arrived before it sends again.

        Parameters
        ----------
        what : str
            What is tried; messages begin with it.
        send : callable
            Sends the request and returns the answer.
        arrived : callable
            Returns what came of the request; None where it is not there.

        Returns
        -------
        (answer, None) or (None, found)
            The answer or, where that was lost, what was found.

        Raises
        ------
        Lost
            Where it is not known in the end whether the request arrived.
        KitError
            As in `call`.
        """
        import requests

        maybe = False  # whether a request whose answer was lost may have arrived

        def attempt() -> tuple[Answer, None] | tuple[None, Found]:
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

    def until(
        self, what: str, look: Callable[[], Found | None], seconds: float | None = None, pause: float | None = None
    ) -> Found | None:
        """Look again and again until something is there: what was just done on Kaggle may show late.

        Parameters
        ----------
        what : str
            What is not there yet; the one line about it begins so.
        look : callable
            Returns what is there; None where it is not. It is called at least once.
        seconds : float, optional
            How long to look, in seconds; left out: `GRACE`. Pauses and looks count.
        pause : float, optional
            Seconds between two looks; left out: `GRACE_POLL`.

        Returns
        -------
        object or None
            What `look` found; None where the time is over.
        """
        limit, pause = GRACE if seconds is None else seconds, GRACE_POLL if pause is None else pause
        begun, waited = time.monotonic(), 0.0
        while (found := look()) is None and max(waited, time.monotonic() - begun) < limit:
            if not waited:
                self._say(f"{what}; Kaggle may show it late: looking again for up to {limit / 60:.0f} min")
            self._wait(min(pause, LONGEST_WAIT))
            waited += pause
        return found

    def _look(self, arrived: Callable[[], Found | None]) -> Found | None:
        for pause in LOOKS:
            if pause:
                self._wait(pause)
            if (found := arrived()) is not None:
                return found
        return None


def _attempt(what: str, call: Callable[..., Answer], *arguments: Any) -> Answer:
    """Call once; raise _MayPass for a failure that may pass, and Refused or KitError for any other."""
    import requests

    try:
        return call(*arguments)
    except requests.HTTPError as error:
        status = _status(error)
        reason = f"Kaggle answers {status}: {_words(error)}"
        if status not in TRANSIENT or (status == 409 and TAKEN in reason.lower()):
            hint = "" if "kernelSessions" in reason else _hint(status)  # of which other things are said
            raise Refused(f"{what}: {reason}{hint}", status) from error
        raise _MayPass(reason, _retry_after(error), status) from error
    except json.JSONDecodeError as error:  # also that of requests
        raise _MayPass("the answer is not Kaggle's") from error
    except requests.RequestException as error:
        raise _MayPass(_broken(error)) from error
    except NotSent as error:
        raise _MayPass(f"the upload failed ({str(error)[:120]})") from error
    except ValueError as error:  # the client's own checks of its input
        raise KitError(f"{what}: {one_line(str(error))}") from error
    except (KeyError, TypeError) as error:  # how the client fails at a value that it has no name for
        raise KitError(
            f"{what}: Kaggle's client does not understand the answer ({one_line(repr(error))}); "
            "pip install -U kaggle kagglesdk"
        ) from error


def _failure_of(state: "RetryCallState") -> _MayPass:
    """Return how the attempt that has just ended failed."""
    failure = state.outcome.exception() if state.outcome else None
    assert isinstance(failure, _MayPass)  # nothing else is tried again
    return failure


def _pause(state: "RetryCallState") -> float:
    """Return the seconds before the next attempt: what Retry-After states, else 1, 2, 4 … spread by a quarter.

    They are spread so that many who were refused do not come back at once.
    """
    back_off = 2.0 ** (state.attempt_number - 1) * random.uniform(0.75, 1.25)
    return min(_failure_of(state).after or back_off, LONGEST_WAIT)


def one_line(text: str) -> str:
    """Return the text with every run of spaces and line ends as one space."""
    return " ".join(str(text).split())


def _status(error: Any) -> int:
    """Return HTTP's status, or the one in Kaggle's own words where HTTP says 200; 0 without either."""
    if error.response is None:
        return 0
    if error.response.status_code >= 400:
        return error.response.status_code
    with contextlib.suppress(Exception):
        return int(_stated(error)["code"])
    return error.response.status_code


def _stated(error: Any) -> Any:
    """Return code and message of an answer, which are there as they are, or nested in `error`."""
    content = error.response.json()
    nested = content.get("error")
    return nested if isinstance(nested, dict) else {"message": nested} | content


def _retry_after(error: Any) -> float | None:
    """Return the seconds that Retry-After states, in either of its forms; None without it."""
    text = error.response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _words(error: Any) -> str:
    """Return Kaggle's message, where its answer has one. Never an address: those of files hold a signature."""
    with contextlib.suppress(Exception):
        if stated := one_line(_stated(error)["message"]):
            return stated
    return one_line(error.response.reason or "no reason") if error.response is not None else _broken(error)


def _broken(error: Any) -> str:
    """Say what broke, by the innermost of the errors that urllib3 nests: the others' words hold addresses."""
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
