"""What a task on a cluster is told, what it needs, and what a node says of itself."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.core.errors import Say, ignore


@dataclass(frozen=True)
class Needs:
    """What one task takes of a node, as Ray counts it.

    Attributes
    ----------
    cpus : int
        The process itself and its data workers, or its threads where these are more.
    gpus : float
        0 where it computes on the CPU; a share where several tasks use one GPU; a whole number above 1 where one
        run trains on several.
    memory : int
        Bytes.
    threads : int
        Threads that torch computes with on the CPU, in each process.
    processes : int
        That carry out one task together, with a GPU each where there are any.
    """

    cpus: int = 1
    gpus: float = 0.0
    memory: int = 0
    threads: int = 1
    processes: int = 1


@dataclass(frozen=True)
class Site:
    """Where a task finds things on the node that carries it out.

    Attributes
    ----------
    parcel : Path
        The folder of files that travelled with the task, by content; read only.
    output : Path
        Holds runs/: the driver's own where the nodes share it, else a folder of this node.
    shared : bool
        Whether it is the driver's.
    cache : Path
        Where this node keeps decoded images.
    data_root : str or None
        Where data and weights lie on the nodes, if not where the config says.
    threads : int
        As in `Needs`.
    again : bool
        Whether the task was begun before, by a process or a node that is gone.
    now : float
        `time.monotonic` of the driver, when the task began.
    say : callable
        Takes lines, which are printed where the command runs.
    """

    parcel: Path
    output: Path
    shared: bool
    cache: Path
    data_root: str | None = None
    threads: int = 1
    again: bool = False
    now: float = 0.0
    say: Say = field(default=ignore, compare=False)


@dataclass(frozen=True)
class NodeReport:
    """What a node says of itself before it is given work.

    Attributes
    ----------
    host : str
    kind : str
        The device, precision and versions, in words: trainings that are compared run on one kind.
    device : str
        The device's name.
    lacks : str
        Why it cannot work, in one line; "" where it can.
    memory : int
        Bytes that a task takes, as far as the node can tell; 0 where it cannot.
    """

    host: str
    kind: str = ""
    device: str = ""
    lacks: str = ""
    memory: int = 0


@dataclass(frozen=True)
class Standing:
    """How far a task that is under way has come.

    Attributes
    ----------
    name : str
        The item's, like a run's.
    node : str
        The host that carries it out.
    device : str
    done, total : int
        Steps; 0 of 0 where nothing is known yet.
    speed : float
        Images a second; 0 where that is not known.
    """

    name: str
    node: str = ""
    device: str = ""
    done: int = 0
    total: int = 0
    speed: float = 0.0


Task = Callable[[Site, Any], Any]  # at the top of a module of the kit; its item and its result are pickled
