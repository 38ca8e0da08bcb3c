"""Keeps Python's sockets on this machine, where there is no namespace to do it.

A rehearsal puts a copy of this file on the path of the script as `sitecustomize`, which Python imports when it
starts (instead of another one). What is refused raises `OSError: network is off in a rehearsal`, at once. It
holds in the script and in the Pythons it starts with `subprocess` or `multiprocessing`. It does not hold for
programs other than Python, for libraries with sockets of their own, for Pythons started with -I, -E or -S, nor
for those that `multiprocessing` spawns after the script has replaced its own PYTHONPATH.
"""

import os
import sys

TYPE_CHECKING = False  # which type checkers take for true; `typing` would be imported by every Python
if TYPE_CHECKING:
    import _socket
    from collections.abc import MutableMapping
    from typing import Any

MESSAGE = "network is off in a rehearsal"


def _watch(event: str, arguments: "tuple[Any, ...]") -> None:
    """Refuse what leads to the network.

    An audit hook, unlike a replaced function, can neither be imported around nor taken away again.
    """
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        _check_address(*arguments)
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        _check_host(arguments[0])
    elif event == "subprocess.Popen":
        _keep_path(arguments[3])


def _check_address(socket: "_socket.socket", address: "Any") -> None:
    from _socket import AF_INET, AF_INET6

    if socket.family in (AF_INET, AF_INET6) and address is not None:
        _check_host(address[0])


def _check_host(host: str | bytes | None) -> None:
    """Raise OSError unless it names this machine's loopback; no name but "localhost" is looked up."""
    import ipaddress

    name = host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else host
    if name in (None, "", "localhost"):
        return
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        raise OSError(MESSAGE) from None
    if not (address.is_loopback or address.is_unspecified):
        raise OSError(MESSAGE)


def _keep_path(environment: "MutableMapping[str, str] | None") -> None:
    """Put this file's folder in front of the PYTHONPATH that a child is given."""
    environment = os.environ if environment is None else environment
    folder, path = os.path.dirname(__file__), environment.get("PYTHONPATH", "")
    if folder not in path.split(os.pathsep):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, path]))


if __name__ == "sitecustomize":
    sys.addaudithook(_watch)
