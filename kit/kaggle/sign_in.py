"""The client is signed in with the credentials of the user, and says in a sentence what is wrong with them."""

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.core.errors import KitError, Say
from kit.kaggle.credentials import read_key, token_place, warn_of_readers, what_is_missing
from kit.kaggle.retry import Retry


def sign_in(api: Any, find_token: Callable[[], tuple[str | None, str | None]], retry: Retry, say: Say) -> None:
    """Give the client the user's credentials.

    Parameters
    ----------
    api : KaggleApi
        The client, signed in by nobody.
    find_token : callable
        How the client finds an access token: returns it, and a word for its place.

    Raises
    ------
    KitError
        Where there are none, where those that are there are damaged or not valid, and where Kaggle cannot be
        reached.
    """
    path, key = Path(api.config), dict[str, str]()
    token = token_place(find_token)
    try:
        key = read_key(path)
    except KitError:
        if not token and not ("KAGGLE_USERNAME" in os.environ and "KAGGLE_KEY" in os.environ):
            raise  # else it does not matter
    api.read_config_file = lambda config_data=None, quiet=False: key | (config_data or {})
    if not retry.call("signing in to Kaggle", _authenticate, api):
        raise KitError(what_is_missing(token))
    if key and not token:
        warn_of_readers(path, say)


def _authenticate(api: Any) -> bool:
    """Let the client sign in, with an access token, a key or what its own log-in left; False where it cannot."""
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        try:
            api.authenticate()
        except SystemExit:
            return False
        except AttributeError as error:
            raise KitError("~/.kaggle/credentials.json is damaged; run: kaggle auth login --force") from error
    return True
