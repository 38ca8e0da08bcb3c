"""What the user's Kaggle credentials hold, and what is wrong with them where they do not serve.

Kaggle's client passes over a file that it cannot read, and then says that there is none.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from kit.core.errors import KitError, Say
from kit.core.files import parse_json

NEW = "make a new API token on kaggle.com/settings"
NONE = (
    "no Kaggle credentials; make an API token on kaggle.com/settings and put it where it says, or set "
    "KAGGLE_USERNAME and KAGGLE_KEY"
)


def read_key(path: Path) -> dict[str, str]:
    """Return what kaggle.json holds, also with a byte order mark; {} where there is none.

    Raises
    ------
    KitError
        Where it cannot be read, is no JSON object, or has one of `username` and `key` alone.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise KitError(f"{path} cannot be read ({error.strerror}); mend that, or {NEW}") from error
    except ValueError as error:  # no text in UTF-8, or no JSON; never its content: it holds the key
        reason = "it is no JSON" if path.stat().st_size else "it is empty"
        raise KitError(f"{path} is damaged ({reason}); {NEW}, and put it there") from error
    if not isinstance(content, dict):
        raise KitError(f"{path} is damaged (it holds no object); {NEW}, and put it there")
    wanted = [name for name in ("username", "key") if name in content]
    lacking = [name for name in ("username", "key") if wanted and not content.get(name)]
    if lacking:
        raise KitError(f"{path} is damaged (it has no {lacking[0]}); {NEW}, and put it there")
    if odd := [name for name in wanted if not isinstance(content[name], str)]:
        raise KitError(f"{path} is damaged (its {odd[0]} is no text); {NEW}, and put it there")
    return content


def warn_of_readers(path: Path, say: Say) -> None:
    """Say that others on this machine can read the key, where they can."""
    if os.name != "nt" and path.is_file() and path.stat().st_mode & 0o044:
        say(f"{path} can be read by others on this machine; run: chmod 600 {path}")


def token_place(find: Callable[[], tuple[str | None, str | None]]) -> str | None:
    """Return where the access token stands that the client will take; None where there is none.

    Parameters
    ----------
    find : callable
        The client's own search: returns the token, and a word for its place.

    Raises
    ------
    KitError
        Where it cannot be read, or holds what no token has, which would break the connection.
    """
    try:
        token, place = find()
    except (OSError, ValueError) as error:
        name = getattr(error, "filename", None) or "the Kaggle access token"
        reason = getattr(error, "strerror", None) or error
        raise KitError(f"{name} cannot be read ({reason}); {NEW}") from error
    if token is None:
        return None
    where = "~/.kaggle/access_token" if place == "access_token" else str(place)
    if not re.fullmatch("[!-~]+", token):
        wrong = "it is empty" if not token.strip() else "it holds a character that no token has"
        raise KitError(f"the Kaggle access token in {where} is damaged ({wrong}); {NEW}, and put it there")
    return where


def what_is_missing(token: str | None) -> str:
    """Return why nobody is signed in, where no file is damaged; `token` is the place of the token, if any."""
    if token:
        return f"the Kaggle access token in {token} is not valid, or not any more; {NEW}, and put it there"
    places = (Path("~/.kaggle/access_token"), Path("~/.kaggle/access_token.txt"))
    empty = [str(place) for place in places if Path(os.path.expanduser(place)).is_file()]
    if "KAGGLE_API_TOKEN" in os.environ:
        empty.insert(0, "KAGGLE_API_TOKEN")
    return f"{NONE} ({empty[0]} is empty)" if empty else NONE
