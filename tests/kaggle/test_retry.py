"""When a request is sent again, and what is looked at before."""

import json

import pytest
import requests
from support.refusals import refusal_of

from kit.core.errors import KitError
from kit.kaggle.retry import ATTEMPTS, Lost, NotSent, Refused, Retry


def failure(status: int, content: dict | None = None) -> requests.HTTPError:
    response = requests.Response()
    response.status_code, response._content = status, json.dumps(content or {}).encode()
    return requests.HTTPError(response=response)


class Kaggle:
    """Answers with what it is told, and has what was sent, if it took it, from the `listed`th look on."""

    def __init__(self, *answers, takes: bool = False, listed: int = 1):
        self.answers, self.takes, self.listed = list(answers), takes, listed
        self.sent = self.looks = self.taken = 0

    def send(self):
        self.sent += 1
        answer = self.answers.pop(0) if self.answers else "done"
        self.taken += self.takes or answer == "done"
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def arrived(self):
        self.looks += 1
        return "found" if self.taken and self.looks >= self.listed else None


BROKEN = [
    requests.ConnectionError("reset"),
    requests.Timeout("slow"),
    requests.exceptions.ChunkedEncodingError("cut"),
    json.JSONDecodeError("a page", "<html>", 0),
    *[failure(status) for status in (408, 500, 502, 503, 504)],
    failure(200, {"code": 503, "message": "maintenance"}),
]


@pytest.mark.parametrize("error", BROKEN, ids=repr)
@pytest.mark.parametrize("listed", [1, 2, 3])
def test_what_was_taken_is_not_sent_again(error, listed):
    """Also where Kaggle lists late what it has taken."""
    kaggle, waits = Kaggle(error, takes=True, listed=listed), []
    assert Retry(print, waits.append).once("sending", kaggle.send, kaggle.arrived) == (None, "found")
    assert (kaggle.sent, kaggle.looks) == (1, listed)
    assert waits[1:] == [10.0, 20.0][: listed - 1]


@pytest.mark.parametrize("error", BROKEN, ids=repr)
def test_what_did_not_arrive_is_sent_again(error):
    kaggle = Kaggle(error)
    assert Retry(print, lambda seconds: None).once("sending", kaggle.send, kaggle.arrived) == ("done", None)
    assert (kaggle.sent, kaggle.looks) == (2, 3)


@pytest.mark.parametrize("error", [failure(409), failure(425), failure(429), NotSent("no upload")], ids=repr)
def test_what_was_turned_away_is_sent_again_without_a_look(error):
    kaggle = Kaggle(error)
    assert Retry(print, lambda seconds: None).once("sending", kaggle.send, kaggle.arrived) == ("done", None)
    assert (kaggle.sent, kaggle.looks) == (2, 0)


@pytest.mark.parametrize("second", [failure(409), failure(429), failure(403)], ids=repr)
def test_what_may_have_arrived_is_looked_for_until_the_end(second):
    """Also after an answer that says nothing of the request whose answer was lost."""
    kaggle = Kaggle(requests.ConnectionError("reset"), second, takes=True, listed=4)
    assert Retry(print, lambda seconds: None).once("sending", kaggle.send, kaggle.arrived) == (None, "found")
    assert (kaggle.sent, kaggle.looks) == (2, 4)


def test_what_was_not_found_in_the_end_may_still_have_arrived():
    kaggle = Kaggle(*[failure(503)] * ATTEMPTS)
    with pytest.raises(Lost, match=r"^sending: may have arrived, look on Kaggle .*given up after 6 attempts"):
        Retry(print, lambda seconds: None).once("sending", kaggle.send, kaggle.arrived)
    assert kaggle.sent == ATTEMPTS


def test_what_the_client_cannot_read_may_have_arrived():
    """A value that it has no name for: another attempt would come to the same."""
    kaggle = Kaggle(KeyError("A_NEW_STATUS"), takes=True)
    patience = Retry(print, lambda seconds: None)
    assert patience.once("sending", kaggle.send, kaggle.arrived) == (None, "found")
    assert refusal_of(patience.call, "asking", Kaggle(KeyError("A_NEW_STATUS")).send) == (
        "asking: Kaggle's client does not understand the answer (KeyError('A_NEW_STATUS')); "
        "pip install -U kaggle kagglesdk"
    )


def test_nothing_is_known_where_looking_fails_too():
    def arrived():
        raise KitError("no look either")

    kaggle = Kaggle(*[requests.ConnectionError("reset")] * ATTEMPTS)
    with pytest.raises(Lost, match=r"^sending: may have arrived, look on Kaggle .*\(no look either\)$"):
        Retry(print, lambda seconds: None).once("sending", kaggle.send, arrived)
    assert kaggle.sent == 1


def test_a_refusal_is_final():
    kaggle = Kaggle(failure(400, {"message": "No\n way"}))
    with pytest.raises(Refused, match=r"^sending: Kaggle answers 400: No way$") as caught:
        Retry(print, lambda seconds: None).once("sending", kaggle.send, kaggle.arrived)
    assert (caught.value.status, kaggle.sent, kaggle.looks) == (400, 1, 0)


def test_what_broke_is_said_in_its_own_words(monkeypatch):
    """Not in urllib3's, which nest addresses."""
    said = []
    broken = requests.ConnectionError(
        "HTTPConnectionPool(host='a', port=80): Max retries exceeded with url: /?key=1"
    )
    broken.__cause__ = OSError(101, "Network is unreachable")
    assert Retry(said.append, lambda seconds: None).call("asking", Kaggle(broken).send) == "done"
    assert said[0].startswith("asking: the connection broke ([Errno 101] Network is unreachable); again in")
