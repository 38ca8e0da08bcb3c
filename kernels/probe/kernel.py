"""{{about}}"""

import hashlib
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

KERNEL = "{{kernel}}"
BEGUN = time.monotonic()
INPUT = Path(os.environ.get("KIT_INPUT", "/kaggle/input"))  # a rehearsal may say otherwise
WORKING = Path(os.environ.get("KIT_WORKING", "/kaggle/working"))
ODD_FILES = {".dotfile": "dot", "empty.txt": "", "nested/deep/file.txt": "deep", "with space.txt": "space"}
HOSTS = ("pypi.org", "huggingface.co", "www.kaggle.com")
LOOKED_AT = 1000  # entries of a folder of what is mounted
TRIAL = 90  # seconds that a trial in a process of its own may take
BATCHES, BATCH = 12, (8, 3, 256, 256)  # float32: 6 MB a batch, some 50 MB on their way at once


def attempt(look, *arguments):
    """What a look gives; where it fails, None, and a line in the log that says why."""
    try:
        return look(*arguments)
    except Exception as error:
        print(f"{look.__name__}: {type(error).__name__}: {error}", flush=True)
        return None


def versions():
    """The versions of the packages that are there, of those that the kit asks for."""
    found = {}
    for name in KERNEL["packages"]:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def started():
    """How this file is run."""
    script = Path(globals().get("__file__", ""))
    return {
        "executable": sys.executable,
        "command": [str(word) for word in getattr(sys, "orig_argv", sys.argv)],
        "folder": os.getcwd(),
        "script_folder_writable": os.access(script.parent, os.W_OK),
        "notebook": "get_ipython" in globals() or "ipykernel" in sys.modules,
        "user": os.getuid() if hasattr(os, "getuid") else -1,
        "start_method": multiprocessing.get_start_method(),
    }


def cores():
    """How many cores there are, how many this process may use, and how many its group may at a time."""
    count = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
    quota = first_line("/sys/fs/cgroup/cpu.max").split()
    share = int(quota[0]) / int(quota[1]) if len(quota) == 2 and quota[0] != "max" else None
    return {"count": count, "usable": usable, "quota": share}


def memory():
    """Bytes of main memory, and of them what the group of this process may use."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    stated = first_line("/sys/fs/cgroup/memory.max") or first_line("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    return min(total, int(stated)) if stated.isdecimal() and int(stated) else total


def first_line(path):
    """The first line of a file; "" where it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().strip()
    except OSError:
        return ""


def disks():
    """Bytes of the file systems that a kernel writes to: total and free."""
    found = {}
    for name, folder in {"/": "/", "/tmp": "/tmp", "/dev/shm": "/dev/shm", "/kaggle/working": WORKING}.items():
        if os.path.isdir(folder):
            usage = shutil.disk_usage(folder)
            found[name] = {"total": usage.total, "free": usage.free}
    return found


def gpus():
    """The GPUs as torch sees them."""
    import torch

    seen = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [
        {"name": each.name, "memory": each.total_memory, "compute": f"{each.major}.{each.minor}"} for each in seen
    ]


def driver():
    """The driver's version, or ""."""
    if not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL)
    return told.stdout.split("\n")[0].strip() if told.returncode == 0 else ""


def tree(depth=6, shown=12, most=400):
    """What is below /kaggle/input: folders end in "/"; of each `shown` names, folders first, and "…" for more."""
    found, ahead = [], [INPUT]
    while ahead and len(found) < most:
        folder = ahead.pop(0)
        with os.scandir(folder) as entries:
            some = itertools.islice(entries, LOOKED_AT)
            names = sorted(some, key=lambda entry: (not entry.is_dir(), entry.name))
        for entry in names[:shown]:
            path = Path(entry.path)
            found.append(path.relative_to(INPUT).as_posix() + "/" * entry.is_dir())
            if entry.is_dir() and len(path.relative_to(INPUT).parts) < depth:
                ahead.append(path)
        if len(names) > shown:
            found.append((folder.relative_to(INPUT) / "…").as_posix())
    return found


def network():
    """What becomes of a connection to some hosts: "reached", or the error."""
    found = {}
    for host in HOSTS:
        try:
            socket.create_connection((host, 443), timeout=5).close()
            found[host] = "reached"
        except OSError as error:
            found[host] = f"{type(error).__name__}: {error}"
    return found


def trial(name):
    """What comes of a trial in a process of its own, which may hang or be killed: "works", or what was said."""
    command = [sys.executable, __file__, name]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL)
    except subprocess.TimeoutExpired:
        return f"no end within {TRIAL} s"
    if ended.returncode == 0:
        return "works"
    said = (ended.stderr or ended.stdout).strip().splitlines() or [""]
    return f"exit code {ended.returncode}: {said[-1][:300]}"


def square(number):
    return number * number


def try_spawn():
    """Processes that are spawned, as trainings side by side are."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(square, [1, 2, 3]) == [1, 4, 9]


class Squares:
    """A data set of large rows, which come through shared memory."""

    def __len__(self):
        return BATCHES * BATCH[0]

    def __getitem__(self, index):
        import torch

        return torch.full(BATCH[1:], float(index * index))


def try_loader():
    """A data loader with workers; where shared memory is too small, one of them dies."""
    from torch.utils.data import DataLoader

    total = sum(
        float(batch[:, 0, 0, 0].sum()) for batch in DataLoader(Squares(), batch_size=BATCH[0], num_workers=4)
    )
    assert total == sum(index * index for index in range(len(Squares())))


def write_odd_files():
    """Leave files of names and contents that may not come back; return their hashes."""
    for name, text in ODD_FILES.items():
        (WORKING / name).parent.mkdir(parents=True, exist_ok=True)
        (WORKING / name).write_text(text)
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in ODD_FILES.items()}


def report():
    """Look at this session, and write what was found to probe.json."""
    looks = (started, cores, memory, disks, gpus, driver, tree, network)
    found = {look.__name__: attempt(look) for look in looks}
    found["environment"] = sorted(os.environ)  # names alone
    found |= {name: attempt(trial, name) for name in ("spawn", "loader")}
    found |= {"python": platform.python_version(), "packages": versions(), "wrote": write_odd_files()}
    found["system"] = f"{platform.platform()}, {' '.join(platform.libc_ver())}"
    found["when"] = datetime.now(UTC).isoformat(timespec="seconds")
    found["seconds"] = round(time.monotonic() - BEGUN, 1)
    text = json.dumps(found, indent=1)
    (WORKING / "probe.json").write_text(text + "\n")
    print(text, flush=True)


def leave_and_fail():
    """Leave a file, and end with the exit code 3."""
    (WORKING / "before.txt").write_text("before the end\n")
    print("ends with exit code 3", flush=True)
    sys.exit(3)


def oversleep():
    """Leave a file, and go on past the limit, which is to end this; at five times the limit it ends by itself."""
    (WORKING / "before.txt").write_text("before the limit\n")
    while time.monotonic() - BEGUN < 5 * KERNEL["limit"]:
        print(f"{time.monotonic() - BEGUN:.0f} s", flush=True)
        time.sleep(5)
    (WORKING / "after.txt").write_text("the limit did not end it\n")


if __name__ == "__main__":  # what is spawned takes this file up under another name
    does = sys.argv[1] if sys.argv[1:] in (["spawn"], ["loader"]) else KERNEL["does"]
    {"report": report, "exit": leave_and_fail, "limit": oversleep, "spawn": try_spawn, "loader": try_loader}[
        does
    ]()
