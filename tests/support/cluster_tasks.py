"""Tasks for tests of a cluster; they travel with the kit (see `support.clusters`)."""

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from kit.core import stopping
from kit.core.errors import KitError, ignore
from kit.core.progress import Progress
from kit.experiment.cluster.site import NodeReport, Site

PRELOAD = ()  # so that no test pays for torch


def double(site: Site, item: int) -> int:
    return 2 * item


def surroundings(site: Site, item: object) -> dict:
    """What a task finds around it."""
    import kit

    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return {
        "kit": kit.__file__,
        "pid": os.getpid(),
        "imported": "torch" in sys.modules,
        "parcel": {path.name: path.read_bytes() for path in site.parcel.iterdir()},
        "site": replace(site, say=ignore),
        "environment": {name: os.environ[name] for name in names if name in os.environ},
    }


def ranks(site: Site, item: str) -> str:
    """Each process writes down its rank; the first waits for the others, as a collective call does."""
    folder, rank, size = Path(item), os.environ["RANK"], int(os.environ["WORLD_SIZE"])
    (folder / f"{rank}-{os.environ['LOCAL_RANK']}-{os.environ['MASTER_PORT']}").touch()
    until = time.monotonic() + 20
    while len(list(folder.iterdir())) < size and time.monotonic() < until:
        time.sleep(0.02)
    return rank


def rank_one_dies(site: Site, item: object) -> str:
    """The second process is killed the first time; the first would wait for ever."""
    if not site.again:
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        while not stopping.asked():
            time.sleep(0.02)
    return os.environ["RANK"]


def refuse(site: Site, item: str) -> str:
    """Raise where the item says so, else wait a little; each attempt is written down."""
    folder, _, what = item.rpartition("/")
    with open(Path(folder) / what, "a") as file:
        file.write("x")
    if what.startswith("bad"):
        raise KitError(f"{what}: is refused")
    if what.startswith("fault"):
        raise ZeroDivisionError(what)
    time.sleep(1.0)
    return what


def die_once(site: Site, item: str) -> bool:
    """The first time, the process (`child`) or its worker (`worker`) is killed."""
    if not site.again:
        os.kill(os.getpid() if item == "child" else _parent(os.getppid()), signal.SIGKILL)
        time.sleep(60)
    return site.again


def die(site: Site, item: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait(site: Site, item: str) -> str:
    """Wait in a folder until `go` is there or a stop is asked for; write down who it is."""
    folder, name = Path(item).parent, Path(item).name
    begun = folder / f"{name}.{'again' if site.again else 'begun'}"
    begun.write_text(f"{os.getpid()} {_parent(os.getppid())} {os.environ.get('NODE', '')}")
    begun.rename(begun.with_suffix(begun.suffix + "!"))
    with stopping.deferred(), Progress(name, 7) as progress:
        while not (folder / "go").exists():
            progress.update(3)
            if stopping.asked():
                (folder / f"{name}.stopped").touch()
                if (folder / "deaf").exists():
                    time.sleep(60)
                raise stopping.Stopped(f"{name}: stopped at step 3", stopping.asked())
            if stopping.save_asked():
                (folder / f"{name}.saved").touch()
            time.sleep(0.02)
    return item


def talk(site: Site, item: int) -> int:
    site.say(f"said {item}")
    print(f"printed {item}")
    os.write(2, f"told {item}\n".encode())
    return item


def node_report(site: Site, item: object) -> NodeReport:
    """A node's kind and what it lacks are what its environment says."""
    node = os.environ.get("NODE", "")
    return NodeReport(f"host {node}", node, f"device {node}", os.environ.get("LACKS", ""))


def where(site: Site, item: object) -> str:
    return os.environ.get("NODE", "")


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def kind_here(site: Site, item: object) -> tuple:
    """Wait a little, so that each node gets some of the items."""
    time.sleep(0.3)
    return item, os.environ.get("NODE", "")


def clock(site: Site, item: object) -> float:
    return site.now


def look_that_dies_once(site: Site, item: str) -> NodeReport:
    """The process of the first look at each node is killed; of every look, where the item is ""."""
    seen = Path(item) / os.environ.get("NODE", "")
    if not item or not seen.exists():
        if item:
            seen.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return node_report(site, item)
