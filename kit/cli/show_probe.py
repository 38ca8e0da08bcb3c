"""What a probe found out about a session on Kaggle, as lines on the terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for annotations alone
    from kit.kaggle.facts import EndFacts, SessionFacts
    from kit.kaggle.kernel.probe import KernelProbeResult

SHOWN_VERSIONS = ("torch", "torchvision", "timm", "numpy", "pandas")


def show_probe(found: "KernelProbeResult", gpu: bool) -> None:
    """Print a session's facts, one a line, how the kernels ended that were to fail, and the notes."""
    if session := found.facts.session(gpu):
        for name, text in session_lines(session).items():
            print(f"{name:17}{text}")
    ends = (("exit 3", found.facts.facts.exit), ("past limit", found.facts.facts.limit))
    for name, end in ends if found.kernels else ():
        if end:
            print(f"{name:17}{end_line(end)}")
    for note in found.notes:
        print(f"note: {note}")
    if found.file:
        print(found.file)


def session_lines(session: "SessionFacts") -> dict[str, str]:
    """Return what is known of a session in words, by subject; what it could not find out is left out."""
    versions = [f"{name} {session.packages[name]}" for name in SHOWN_VERSIONS if name in session.packages]
    lines = {"when": f"{session.when:%Y-%m-%d %H:%M} UTC", "Python": ", ".join([session.python, *versions])}
    if session.started:
        lines["started by"] = f"{' '.join(session.started.command)}, in {session.started.folder}"
    if session.cores:
        lines["cores"] = f"{session.cores.usable} of {session.cores.count}"
    if session.memory:
        lines["memory"] = f"{session.memory / 1e9:.1f} GB"
    for name, disk in (session.disks or {}).items():
        lines[name] = f"{disk.free / 1e9:.1f} of {disk.total / 1e9:.1f} GB free"
    if session.gpus is not None:
        each = [
            f"{gpu.name} ({gpu.memory / 1e9:.1f} GB, sm_{gpu.compute.replace('.', '')})" for gpu in session.gpus
        ]
        lines["GPUs"] = ", ".join(each) or "none"
    if session.tree is not None:
        lines["mounted"] = ", ".join(path for path in session.tree if path.count("/") <= 2)[:500] or "nothing"
    lines["processes"] = f"spawned: {session.spawn}; a loader's: {session.loader}"
    if session.network:
        reached = [host for host, said in session.network.items() if said == "reached"]
        lines["network"] = f"reached {', '.join(reached)}" if reached else "none"
    return lines


def end_line(end: "EndFacts") -> str:
    """Return how a kernel ended that was to fail, in words."""
    said = f" ({end.failure})" if end.failure else ""
    return f"{end.status}{said}, {end.when:%Y-%m-%d}; outputs: {', '.join(end.files) or 'none'}"
