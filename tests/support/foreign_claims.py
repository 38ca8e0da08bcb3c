"""Claims of a machine that does not exist."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def foreign(path: Path, number: int = 1, beat: int = 0) -> Path:
    """Write the claim of a process of another machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_name(f"{path.name}.{number}.claim")
    owner = {"place": "0" * 16, "pid": 7, "started": 1, "host": "elsewhere"}
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps({**owner, "what": "works", "since": "2026-01-01", "beat": beat}))
    draft.replace(file)
    return file


@contextmanager
def beating(path: Path) -> Iterator[threading.Event]:
    """A claim of another machine whose heart beats; set the event, and it is given up."""
    file, over = foreign(path), threading.Event()

    def beat() -> None:
        number = 0
        while not over.wait(0.02):
            number += 1
            foreign(path, beat=number)
        file.unlink(missing_ok=True)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield over
    finally:
        over.set()
        thread.join()
