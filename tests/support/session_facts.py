"""What a probe reports of a session, by hand: a machine with odd sizes, so that each is recognised."""

import hashlib
import json
from datetime import datetime
from pathlib import Path

from kit.kaggle.facts import Facts, Probed, SessionFacts, write_facts

WROTE = {".dotfile": b"dot", "empty.txt": b"", "nested/deep/file.txt": b"deep", "with space.txt": b"space"}


def report(**changes) -> dict:
    """What probe.json holds."""
    return {
        "when": "2026-11-20T10:00:00+00:00",
        "seconds": 21.5,
        "python": "3.13.2",
        "packages": {"torch": "2.11.0+cpu", "numpy": "2.0.2"},
        "system": "Linux-6.6, glibc 2.39",
        "started": {
            "executable": "/usr/bin/python3",
            "command": ["python3", "/kaggle/src/script.py"],
            "folder": "/kaggle/working",
            "script_folder_writable": False,
            "notebook": False,
            "user": 0,
            "start_method": "fork",
        },
        "environment": ["HOME", "KAGGLE_KERNEL_RUN_TYPE"],
        "cores": {"count": 5, "usable": 4, "quota": None},
        "memory": 33_600_000_000,
        "disks": {
            "/dev/shm": {"total": 67_000_000, "free": 67_000_000},
            "/kaggle/working": {"total": 19_500_000_000, "free": 19_000_000_000},
        },
        "gpus": [],
        "driver": "",
        "tree": ["competitions/", "competitions/titanic/", "competitions/titanic/train.csv"],
        "spawn": "works",
        "loader": "works",
        "network": {"pypi.org": "gaierror: no name"},
        "wrote": {name: hashlib.sha256(content).hexdigest() for name, content in WROTE.items()},
    } | changes


def outputs(**changes) -> dict[str, bytes]:
    """What a probe leaves, by name; a file is left out where a change of `report` is None in its place."""
    return WROTE | {"probe.json": json.dumps(report(**changes)).encode()}


def facts(gpu: bool = False, came: dict | None = None, form: str | None = None, **changes) -> Facts:
    session = SessionFacts.model_validate(report(**changes))
    probed = Probed(**{"gpu" if gpu else "cpu": session}, came=came or {}, form=form)
    return Facts(when=session.when, image={"python": session.python, **session.packages}, facts=probed)


def keep_facts(root: Path, when: datetime | None = None, **options) -> Facts:
    """Write kernels/facts.json below a folder, of a session at a time."""
    kept = facts(**options, **({"when": when.isoformat()} if when else {}))
    write_facts(root, kept)
    return kept
