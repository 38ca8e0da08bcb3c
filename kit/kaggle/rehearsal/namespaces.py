"""Linux namespaces for a rehearsal: what the script sees, who builds that, and what runs around it inside.

Two programs can build it: bubblewrap, and util-linux's `unshare` with `_build` below. Whichever did, process 1
inside is `_report`, which starts the script and tells its end. This file's text is what the interpreter is
given for that (`python -c`), since the kit is not to be seen inside: so only the standard library is imported.

The script runs as root, as Kaggle's do, but without a single capability: it can neither mount nor unmount.
It is kept from reaching your files and the network by accident; this is no jail for code that means harm.
"""

import glob
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

TYPE_CHECKING = False  # which type checkers take for true; `typing` would take process 1 time
if TYPE_CHECKING:
    import ctypes

KAGGLE_INPUT = "/kaggle/input"
KAGGLE_WORKING = "/kaggle/working"
KAGGLE_SCRIPT = "/kaggle/src/script.py"

SYSTEM = ("/usr", "/bin", "/sbin", *sorted(glob.glob("/lib*")), "/etc", "/opt", "/nix")
MACHINE = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus")  # here root, if real, changes all of it
GPU_DEVICES = ("nvidia*", "dri", "kfd", "dxg")  # NVIDIA's, AMD's, and those of Windows' Linux

# One thing to put into the empty root: what, its source on the host ("" where it has none), where.
Step = tuple[str, str, str]


def layout(
    executable: str,
    prefixes: Iterable[str],
    script: str,
    working: str,
    inputs: Mapping[str, str],
    hidden: Iterable[str] = (),
) -> list[Step]:
    """Return all that is seen inside, in the order in which it has to be put there.

    Parameters
    ----------
    executable : str
        The interpreter.
    prefixes : iterable of str
        The folders the interpreter lives on: `sys.prefix` and its like.
    script, working : str
        The script, and the folder that becomes `/kaggle/working`.
    inputs : mapping
        Target below `/kaggle/input` → source.
    hidden : iterable of str
        Folders to leave out where they are part of the system's, e.g. a project in /opt.

    Returns
    -------
    list of Step

    Notes
    -----
    All sources are absolute paths without links.
    """
    system = list(_system())
    hidden = [folder for folder in hidden if _is_below(folder, SYSTEM)]
    interpreter = list(_interpreter(executable, prefixes, hidden))
    devices = sorted(path for pattern in GPU_DEVICES for path in glob.glob(f"/dev/{pattern}"))
    return [
        *system,
        *[("empty", "", folder) for folder in hidden],
        ("empty", "", "/tmp"),
        ("empty", "", "/root"),
        *interpreter,
        ("read", "/sys", "/sys"),
        ("proc", "", "/proc"),
        *[("read", path, path) for path in MACHINE if os.path.exists(path)],
        ("dev", "", "/dev"),
        *[("device", path, path) for path in devices],
        ("empty", "", KAGGLE_INPUT),
        *[("read", source, f"{KAGGLE_INPUT}/{target}") for target, source in inputs.items()],
        ("seal", "", KAGGLE_INPUT),
        ("write", working, KAGGLE_WORKING),
        ("read", script, KAGGLE_SCRIPT),
    ]


def _system() -> Iterator[Step]:
    """Yield the system's folders, as folders or as the links they are (`/bin -> usr/bin`)."""
    for folder in SYSTEM:
        if os.path.islink(folder):
            yield "link", os.readlink(folder), folder
        elif os.path.isdir(folder):
            yield "read", folder, folder


def _interpreter(executable: str, prefixes: Iterable[str], hidden: Sequence[str]) -> Iterator[Step]:
    """Yield the folders the interpreter lives on, and the links that lead to it from elsewhere."""
    seen: list[str] = []
    for folder in sorted({path for prefix in prefixes for path in (prefix, os.path.realpath(prefix))}):
        if _is_below(folder, seen) or (_is_below(folder, SYSTEM) and not _is_below(folder, hidden)):
            continue
        seen.append(folder)
        yield "read", os.path.realpath(folder), folder
    while os.path.islink(executable):
        target = os.path.join(os.path.dirname(executable), os.readlink(executable))
        if not _is_below(executable, [*seen, *SYSTEM]):
            yield "link", target, executable
        executable = target


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


# The two commands that build it and then start `_report`.

BUBBLEWRAP_OPTIONS = {
    "empty": "--tmpfs",
    "read": "--ro-bind",
    "write": "--bind",
    "device": "--dev-bind",
    "link": "--symlink",
    "proc": "--proc",
    "dev": "--dev",
    "seal": "--remount-ro",
}


def program(isolation: str) -> str | None:
    """Return the path of the program that an isolation needs; None where it is missing.

    Parameters
    ----------
    isolation : str
        "bubblewrap" or "unshare".
    """
    return shutil.which({"bubblewrap": "bwrap"}.get(isolation, isolation))


def bubblewrap(steps: Iterable[Step], executable: str, status: int) -> list[str]:
    """Return the command that builds `steps` with bubblewrap and runs the script.

    Parameters
    ----------
    steps : iterable of Step
        As `layout` returns them.
    executable : str
        The interpreter.
    status : int
        The file descriptor to which the script's end is written, as in `reporting`.
    """
    options = ["--unshare-all", "--uid", "0", "--gid", "0", "--cap-drop", "ALL"]
    options += ["--die-with-parent", "--as-pid-1", "--chdir", KAGGLE_WORKING]
    for what, source, target in steps:
        options += [BUBBLEWRAP_OPTIONS[what], *([source] if source else []), target]
    return [program("bubblewrap") or "bwrap", *options, *reporting(executable, status)]


def unshare(steps: Iterable[Step], executable: str, status: int, root: str) -> list[str]:
    """Return the same command with `unshare`; `root` is an empty folder, on which the new root is built."""
    options = [
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--net",
        "--ipc",
        "--uts",
        "--fork",
        "--kill-child",
    ]
    build = ["build", str(status), root, *[part for step in steps for part in step]]
    return [program("unshare") or "unshare", *options, *_inside(executable), *build]


def reporting(executable: str, status: int, script: str = KAGGLE_SCRIPT) -> list[str]:
    """Return the command that runs a script and reports how it ended; it needs no namespaces, but POSIX.

    Parameters
    ----------
    executable : str
        The interpreter.
    status : int
        The file descriptor to which exit code and peak memory (bytes) are written, with a space between.
    script : str
        The Python file.
    """
    return [*_inside(executable), "report", str(status), script]


def _inside(executable: str) -> list[str]:
    with open(__file__, encoding="utf-8") as file:
        return [executable, "-I", "-S", "-c", file.read()]  # no `site`: it takes time, and runs others' code


# What runs around the script; in namespaces it is process 1.


def _report(status: int, script_file: str) -> None:
    """Run the script to its end, and write its exit code and its peak memory to the file descriptor `status`.

    The peak is the kernel's own figure, that of the largest process: the script, or one that it or its
    children waited for.

    In namespaces, process 1 may not be the script itself: the kernel spares it signals that would end any other
    process, and it has to reap the orphans. When it ends, the kernel ends all that is left inside. Elsewhere,
    the script may not be started by the kit itself: what is started counts the memory of who started it.
    """
    os.set_inheritable(status, False)
    script = os.fork()
    if script == 0:
        try:
            os.execv(sys.executable, [sys.executable, "-u", script_file])
        finally:
            os._exit(127)
    ended = None
    while ended != script:
        ended, wait_status, usage = os.wait4(-1, 0)
    code = os.waitstatus_to_exitcode(wait_status)
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts it in KiB
    os.write(status, f"{code} {usage.ru_maxrss * unit}\n".encode())


# Inside, before that, where no bubblewrap does it. The numbers are those of the kernel's headers.

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_MOVE, MS_REC = 4096, 8192, 16384
MOUNT_ATTR_RDONLY = 1
AT_FDCWD, AT_RECURSIVE, SYS_MOUNT_SETATTR = -100, 0x8000, 442
PR_CAPBSET_DROP = 24
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def _build(status: int, root: str, steps: Iterable[Step]) -> None:
    """Lay out the new root, enter it, and become `_report`."""
    _start_loopback()
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    place = {
        "empty": lambda _, target: _empty(target),
        "read": lambda source, target: _bind(source, target, read_only=True),
        "write": _bind,
        "device": _bind,
        "link": _link,
        "proc": lambda _, target: _proc(target),
        "dev": lambda _, target: _dev(target),
        "seal": lambda _, target: _make_read_only(target),
    }
    for what, source, target in steps:
        place[what](source, root + target)
    _enter(root)
    _drop_capabilities()
    inside = [sys.executable, "-I", "-S", "-c", sys.orig_argv[sys.orig_argv.index("-c") + 1]]
    os.execv(sys.executable, [*inside, "report", str(status), KAGGLE_SCRIPT])


def _start_loopback() -> None:
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack_from("h", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))


def _enter(root: str) -> None:
    """Put the new root in the place of the old one; unlike with a bare chroot, nothing leads back."""
    os.chdir(root)
    _mount(root, "/", None, MS_MOVE)
    os.chroot(".")
    os.chdir(KAGGLE_WORKING)


def _drop_capabilities() -> None:
    """Make that being root gives no capability, from the next `exec` on."""
    capability = 0
    while _libc().prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:  # fails after the last one
        capability += 1


def _empty(target: str) -> None:
    os.makedirs(target, exist_ok=True)
    _mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")


def _bind(source: str, target: str, read_only: bool = False) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "x").close()
    _mount(source, target, None, MS_BIND | MS_REC)  # recursive: the kernel lets no one look below locked mounts
    if read_only:
        _make_read_only(target)


def _make_read_only(target: str) -> None:
    """Make a mount and all below it read-only.

    The kernel keeps the flags they had, which a remount would have to repeat.
    """
    import ctypes
    import struct

    attributes = struct.pack("=4Q", MOUNT_ATTR_RDONLY, 0, 0, 0)
    path, size = os.fsencode(target), ctypes.c_size_t(len(attributes))
    call = (ctypes.c_long(SYS_MOUNT_SETATTR), AT_FDCWD, path, AT_RECURSIVE, attributes, size)
    _checked(_libc().syscall(*call), f"making {target} read-only")


def _link(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.symlink(source, target)


def _proc(target: str) -> None:
    os.makedirs(target, exist_ok=True)
    try:
        _mount("proc", target, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError:  # a container hides parts of its own, and then gives no fresh one
        _bind("/proc", target)


def _dev(target: str) -> None:
    _empty(target)
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        _bind(f"/dev/{name}", f"{target}/{name}")
    for name, source in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{source}", f"{target}/{name}")
    os.mkdir(f"{target}/shm")
    os.mkdir(f"{target}/pts")
    _mount("devpts", f"{target}/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    os.symlink("pts/ptmx", f"{target}/ptmx")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    import ctypes

    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    result = _libc().mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3])
    _checked(result, f"mounting {source} on {target}")


def _checked(result: int, what: str) -> None:
    import ctypes

    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _libc() -> "ctypes.CDLL":
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _main(action: str, status: str, place: str, *parts: str) -> None:
    """Report the end of the script in `place`, or build a new root on the folder in `place` first."""
    if action == "report":
        _report(int(status), place)
        return
    try:
        _build(int(status), place, zip(parts[::3], parts[1::3], parts[2::3], strict=True))
    except OSError as error:
        sys.exit(error.args[-1])


if __name__ == "__main__":
    _main(*sys.argv[1:])
