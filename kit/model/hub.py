"""Whether pretrained weights are within reach: without a network timm's clients try for a minute, or for ever."""

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import timm
import torch

PATIENCE = 4.0  # seconds


@contextmanager
def within_reach(name: str) -> Iterator[None]:
    """Let timm fetch the pretrained weights of a model, where they are in its cache or its server answers.

    Also the description of a model of the hub, `hf-hub:owner/name`; a folder (`local-dir:path`) is there.

    Raises
    ------
    ConnectionError
        Where they are not in the cache, and the server that has them does not answer within 4 seconds.
    """
    source, _, place = name.partition(":")
    published = None if place else timm.get_pretrained_cfg(name)
    repository = place if source == "hf-hub" else published and published.hf_hub_id
    if repository:
        if not _is_cached(repository):
            _need_answer(_hub_address(repository), _ask_hub)
    elif published is not None and published.url:
        address, file = published.url if isinstance(published.url, tuple) else (published.url, None)
        if not _is_downloaded(file or Path(urlparse(address).path).name):
            _need_answer(address, _ask_server)
    usual = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)  # torch's download of an address has none
    try:
        yield
    finally:
        socket.setdefaulttimeout(usual)


def _is_cached(repository: str) -> bool:
    """Whether the hub's cache holds the weights: then its client needs no answer."""
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = repository.partition("@")
    files = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(name, file, revision=revision or None), str) for file in files)


def _is_downloaded(file: str) -> bool:
    """Whether torch has kept what an address without a hub gave."""
    return (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file()


def _hub_address(repository: str) -> str:
    from huggingface_hub import hf_hub_url

    name, _, revision = repository.partition("@")
    return hf_hub_url(name, "model.safetensors", revision=revision or None)


def _ask_hub(address: str) -> int:
    """Return the status of the hub's answer, by its own client, which knows proxies and certificates."""
    from huggingface_hub import get_session

    return int(get_session().head(address, timeout=2 * PATIENCE).status_code)


def _ask_server(address: str) -> int:
    """Return the status of a server's answer."""
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=2 * PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _need_answer(address: str, ask: Callable[[str], int]) -> None:
    """ConnectionError where a server does not answer, or with a fault of its own (5xx)."""
    server = "/".join(address.split("/")[:3])
    failures: list[str] = []

    def try_it() -> None:
        try:
            if (status := ask(address)) >= 500:
                failures.append(f"{server} answers with {status}")
        except Exception as error:  # whatever the clients raise
            failures.append(f"asking {server}: {' '.join(str(error).split()) or type(error).__name__}")

    # In a thread, which is not waited for: no client limits the time in which a name is looked up.
    asking = threading.Thread(target=try_it, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    if asking.is_alive():
        raise ConnectionError(f"{server} does not answer within {PATIENCE:g} s")
    if failures:
        raise ConnectionError(failures[0])
