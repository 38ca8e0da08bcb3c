"""A kernel's log is read as Kaggle keeps it and as it streams it."""

from collections.abc import Iterable, Iterator

from kit.core.files import parse_json


def log_lines(log: str) -> Iterator[str]:
    """Yield the lines of a log: a JSON list of {stream_name, time, data}, or plain text."""
    *whole, rest = _text(log).split("\n")
    yield from map(_as_shown, whole)
    if rest:
        yield _as_shown(rest)


def last_time(log: str) -> float | None:
    """Return when a log's last line was said, in seconds since the session began; None where it does not tell."""
    try:
        return float(parse_json(log)[-1]["time"])
    except (ValueError, TypeError, KeyError, IndexError):
        return None


def streamed_lines(stream: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines in a stream of server-sent events, as soon as each is whole.

    Parameters
    ----------
    stream : iterable of bytes
        Lines `data: {stream_name, time, data}`. Bytes, as requests would take text without a stated charset for
        Latin-1.
    """
    begun = ""  # of a line whose end is in an event to come
    for line in stream:
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip().decode("utf-8", "replace")
        if data == "END_OF_LOG":
            yield from log_lines(begun)
            return
        *whole, begun = (begun + _text(f"[{data}]")).split("\n")
        yield from map(_as_shown, whole)


def _text(log: str) -> str:
    try:
        return "".join(event["data"] for event in parse_json(log))
    except (ValueError, TypeError, KeyError):
        return log


def _as_shown(line: str) -> str:
    """Return what a terminal shows in the end of a line that was written over, as progress bars do."""
    return line.rstrip("\r").rpartition("\r")[2]
