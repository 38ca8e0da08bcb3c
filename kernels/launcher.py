"""What every kernel does, put into the code file by `python -m kit kernel build`: unpacks the kit that travels
with it, installs attached wheels, runs `python -m kit`, and hands on its exit code. Standard library only."""

import base64
import bz2
import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

BEGUN = time.monotonic()
RESERVE = 20  # seconds
LOOK = 5.0  # seconds between two looks at which runs are finished
LISTED = "outputs.json"
INPUT = Path(os.environ.get("KIT_INPUT", "/kaggle/input"))  # a rehearsal may say otherwise
WORKING = Path(os.environ.get("KIT_WORKING", "/kaggle/working"))
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def failure(message):
    """What to raise so that the kernel has failed: not every notebook fails by SystemExit."""
    return RuntimeError(message) if "get_ipython" in globals() else SystemExit(message)


def below(place):
    """The folder at a place below INPUT, its names in any case, as Kaggle may spell them; None where it is not."""
    folders = [INPUT]
    for name in place.split("/"):
        entries = [entry for folder in folders if folder.is_dir() for entry in sorted(folder.iterdir())]
        alike = [entry for entry in entries if entry.name.casefold() == name.casefold() and entry.is_dir()]
        folders = sorted(alike, key=lambda entry: entry.name != name)
    return folders[0] if folders else None


def attached(reference, kind="dataset"):
    """The folder at which Kaggle mounted the dataset, or the outputs of the kernel, owner/slug, in any form."""
    forms = ("notebooks", "datasets") if kind == "kernel" else ("datasets", "notebooks")
    for place in (*(f"{form}/{reference}" for form in forms), reference.split("/")[1]):
        if folder := below(place):
            return folder
    raise failure(f"The {kind} {reference} is not attached to this kernel; {mounts()}.")


def mounts():
    """What is mounted, in words."""
    levels = {"competitions": "*", "datasets": "*/*", "notebooks": "*/*", "models": "*/*/*/*/*"}
    tops = sorted(INPUT.iterdir()) if INPUT.is_dir() else []
    places = [sorted(top.glob(levels[top.name])) if top.name in levels else [top] for top in tops]
    names = [place.relative_to(INPUT).as_posix() for found in places for place in found]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{INPUT} holds {', '.join(names[:20]) or 'nothing'}{more}"


def tell_versions():
    """Says in one line where this session is not what the kernel was made for."""
    made_for = KERNEL["made_for"]["torch"]
    try:
        torch = importlib.metadata.version("torch").partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        torch = "none"
    if made_for.get(PYTHON) != torch:
        known = " or ".join(f"Python {python} with torch {made_for[python]}" for python in made_for)
        print(f"note: made for {known}; this is Python {PYTHON} with torch {torch}, and goes on.", flush=True)


def need_attached_runs():
    """Fails unless the kernels that are attached hold the runs that this kernel was built for. Kaggle mounts a
    kernel's latest version that is complete, whatever it was when this one was built."""
    for reference, runs in KERNEL["attached"].items():
        folder = attached(reference, "kernel")
        for run, digest in runs.items():
            file = folder / run / "run.json"
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                what = "is another training than" if file.is_file() else "is not there, but was"
                raise failure(
                    f"{run} of {reference} {what} when this kernel was built: Kaggle mounts its latest version. "
                    f"Fetch it (python -m kit kernel fetch), build this kernel again, and push it."
                )


def unpack():
    """The kit, its config, and the fold plan or scores in a fresh folder, if they are what was built."""
    if KERNEL["code"]:  # too large for a code file
        packed = (attached(KERNEL["code"]) / "bundle.bin").read_bytes()
    else:
        packed = base64.b85decode("".join(ARCHIVE.split()))
    if hashlib.sha256(packed).hexdigest() != KERNEL["sha256"]:
        raise failure("The archive is not the one that was built; build and push the kernel again.")
    folder = Path(tempfile.mkdtemp(prefix="kit-"))
    with tarfile.open(fileobj=io.BytesIO(bz2.decompress(packed))) as archive:
        archive.extractall(folder, filter="data")
    return folder


def wheels_for_this_python(listed, reference):
    """The entries of a wheels.json for this Python. Where there are none, those for another, if they are of no one
    Python; a list of an early version does not say, and pip judges."""
    content = json.loads(listed.read_text())
    if isinstance(content, list):
        return content
    pythons = content["python"]
    chosen = PYTHON if PYTHON in pythons else pythons[-1]
    entries = [entry for entry in content["wheels"] if chosen in entry["python"]]
    if chosen != PYTHON:
        made_for = f"The wheels of {reference} are for Python {' and '.join(pythons)}, and this is Python {PYTHON}"
        if not all(entry["file"].endswith("-none-any.whl") for entry in entries):
            mend = f"python -m kit kernel wheels ... --python {PYTHON} (or both)"
            raise failure(f"{made_for}; collect them anew with: {mend}, upload them, and push this kernel again.")
        print(f"note: {made_for}; they are of no one Python and are taken all the same.", flush=True)
    return entries


def install_wheels(site):
    """Installs the wheels of attached datasets (those with a wheels.json) without a network."""
    for reference in KERNEL["datasets"]:
        listed = attached(reference) / "wheels.json"
        if not listed.is_file():
            continue
        wheels = []
        for entry in wheels_for_this_python(listed, reference):
            wheel = listed.with_name(entry["file"])
            if hashlib.sha256(wheel.read_bytes()).hexdigest() != entry["sha256"]:
                raise failure(f"{wheel} is damaged; make the dataset anew with: python -m kit kernel wheels")
            wheels.append(str(wheel))
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(site)]
        if wheels and subprocess.run([*pip, *wheels]).returncode:
            raise failure(f"pip could not install the wheels of {reference}; its words are above.")


def seconds_left():
    """What is left of the time limit, less a tenth of it, at least RESERVE, for the kit's start and the end; no
    more than the config's own budget; 1 s where nothing is left: then the kit hands in what it has."""
    limit = float(os.environ.get("KIT_SECONDS", 3600 * KERNEL["hours"]))  # a rehearsal may have a shorter one
    left = limit - max(0.1 * limit, RESERVE) - (time.monotonic() - BEGUN)
    return max(1, round(min(left, KERNEL.get("budget", left))))


def finished(runs):
    """The files (name: SHA-256, by their run.json) of those of the runs that are finished, and the other runs."""
    files, missing = {}, []
    for run in runs:
        name = f"runs/{KERNEL['experiment']}/{run}"
        record, content = {}, b""
        with contextlib.suppress(OSError, ValueError):  # not begun
            content = (WORKING / name / "run.json").read_bytes()
            record = json.loads(content)
        theirs = {f"{name}/{file}": digest for file, digest in record.get("files", {}).items()}
        if record.get("status") == "finished" and all((WORKING / file).is_file() for file in theirs):
            files |= {f"{name}/run.json": hashlib.sha256(content).hexdigest(), **theirs}
        else:
            missing.append(run)
    return files, missing


def write_list(files, missing, code):
    """Writes the list of outputs, at once; `code` is the exit code of `python -m kit`, None while it runs."""
    draft = WORKING / f"{LISTED}.tmp"
    draft.write_text(json.dumps({"files": files, "missing": missing, "exit_code": code}, indent=1) + "\n")
    draft.replace(WORKING / LISTED)


def keep_list(folder, runs, ended):
    """Lists what is finished after every run, until `ended`: that is what a session leaves which Kaggle ends."""
    before, home = {}, WORKING / "runs" / KERNEL["experiment"]
    while not ended.wait(LOOK):
        with contextlib.suppress(OSError):  # a full disk, of which the kit tells, or a file that has just gone
            files, missing = finished(runs)
            if files == before:
                continue
            shared = dict(files)
            for path in home.rglob("*"):  # what stays as it is: config, fold plan, own code
                name = path.relative_to(home)
                if path.is_file() and (name.name == "experiment.yaml" or (folder / name).is_file()):
                    shared[path.relative_to(WORKING).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
            write_list(shared, missing, None)
            before = files


def run_kit(folder, *arguments, runs=()):
    """Runs `python -m kit` in `folder`, prints what it says line by line, keeps the list of which of the runs are
    finished, and gives its exit code."""
    site = folder / "site-packages"
    install_wheels(site)
    arguments = [word() if callable(word) else word for word in arguments]  # the time that is left now
    paths = [str(site), str(folder), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    if not KERNEL["internet"]:
        environment["HF_HUB_OFFLINE"] = "1"  # else its client waits for a network that will not come
    changes = json.loads(os.environ.get("KIT_SET", "[]"))  # a short rehearsal's
    arguments = [*map(str, arguments), *(word for change in changes for word in ("--set", change))]
    command = [sys.executable, "-u", "-m", "kit", *arguments]
    print("$ python -m kit", *arguments, flush=True)
    ended = threading.Event()
    watch = threading.Thread(target=keep_list, args=(folder, runs, ended), daemon=True)
    if runs:
        watch.start()
    with (
        open(WORKING / "kit.log", "w", encoding="utf-8", buffering=1) as log,
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        for line in process.stdout:
            print(line, end="", flush=True)
            log.write(line)
    ended.set()
    if runs:
        watch.join()  # nothing is written over the list of the end
    return process.returncode


def finish(code, runs=()):
    """Lists the outputs with their hashes and which of the runs are missing, then ends as `python -m kit` did, or
    where a run is finished with 0: Kaggle attaches no kernel that failed, and may discard what it left."""
    outputs = {}
    for path in sorted(WORKING.rglob("*")):
        name = path.relative_to(WORKING).as_posix()
        unseen = any(part.startswith(".") for part in name.split("/")) or path.name.startswith("__")
        if unseen or name.startswith(LISTED) or not path.is_file() or not path.stat().st_size:
            continue  # Kaggle may leave out dotfiles and empty files
        outputs[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    missing = finished(runs)[1]
    write_list(outputs, missing, code)
    print(f"exit code {code} after {time.monotonic() - BEGUN:.0f} s, {len(outputs)} files", flush=True)
    if code and len(missing) < len(runs):
        print(f"{len(runs) - len(missing)} of {len(runs)} runs are finished; the kernel ends with 0 to keep them")
        return
    if code and "get_ipython" in globals():
        raise failure(f"python -m kit ended with exit code {code}")
    if code:
        sys.exit(code if code > 0 else 128 - code)
