"""Clusters are started and joined by a command: what is refused, signals, and what is left when it is killed."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.clusters import SMALL, ray_nodes, until
from support.refusals import refusal_of

from kit.core import stopping
from kit.experiment.cluster import joining
from kit.experiment.cluster.cluster import Cluster
from kit.experiment.cluster.joining import join_ray

pytest.importorskip("ray", reason="Ray has no wheel here")

ROOT = Path(__file__).resolve().parents[3]

DRIVER = """
import sys
from pathlib import Path
from support import cluster_tasks as tasks
from support.clusters import with_tasks
import kit.experiment.cluster.cluster as module
from kit.core import stopping
from kit.experiment.cluster.site import Needs

module.package_files = with_tasks
folder = Path(sys.argv[2])
say = lambda line: print(line, flush=True)
try:
    with stopping.handled(), stopping.told(), module.Cluster.join(sys.argv[1], say, folder / "cache") as cluster:
        cluster.show = lambda all: [say(f"{each.name[-1]} at {each.done}/{each.total}") for each in all]
        names = [f"{folder}/{name}" for name in "abcdefgh"]
        for name in cluster.run(tasks.wait, names, Needs(), cluster.parcel({})):
            say(f"made {name[-1]}")
except stopping.Stopped as error:
    say(f"stopped: {error}")
    sys.exit(error.code)
"""


@pytest.fixture
def driver(tmp_path):
    """Starts the driver; it is ended with the test."""
    begun = []

    def start(on: str, address: str = "") -> subprocess.Popen:
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        environment = os.environ | {"PYTHONPATH": path, "RAY_ADDRESS": address, "NODE": "here"}
        if not address:
            del environment["RAY_ADDRESS"]
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, on, str(tmp_path)],
            env=environment,
            stdout=open(tmp_path / "out", "w"),  # noqa: SIM115
            stderr=subprocess.STDOUT,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.wait()


def pids(folder: Path) -> list[int]:
    """Of the tasks that have begun, and of their workers."""
    return [int(pid) for path in folder.glob("*.begun!") for pid in path.read_text().split()[:2]]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def count(folder: Path, pattern: str) -> int:
    return len(list(folder.glob(pattern)))


@pytest.mark.slow
def test_ctrl_c_stops_what_is_under_way_where_it_can_go_on(tmp_path, driver):
    with ray_nodes([{}, {}]) as nodes:
        process = driver("auto", nodes.address)
        until(lambda: count(tmp_path, "*.begun!") == 2)
        until(lambda: " at 3/7" in (tmp_path / "out").read_text())
        process.send_signal(signal.SIGUSR1)
        until(lambda: count(tmp_path, "*.saved") == 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, (tmp_path / "out").read_text()
    told = (tmp_path / "out").read_text()
    assert told.count("stopped at step 3") == 2
    assert count(tmp_path, "*.begun!") == 2, "what waited at Ray did not begin"
    assert "Traceback" not in told


@pytest.mark.slow
def test_a_second_ctrl_c_ends_it_at_once(tmp_path, driver):
    (tmp_path / "deaf").touch()
    with ray_nodes([{}, {}]) as nodes:
        process = driver("auto", nodes.address)
        until(lambda: count(tmp_path, "*.begun!") == 2)
        process.send_signal(signal.SIGINT)
        until(lambda: count(tmp_path, "*.stopped") == 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        until(lambda: not any(map(lives, pids(tmp_path))))
    assert "Traceback" not in (tmp_path / "out").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("on", ["auto", "ray"])
def test_a_killed_driver_leaves_no_process(tmp_path, driver, on):
    with ray_nodes([{}, {}] if on == "auto" else []) as nodes:
        process = driver(on, nodes.address if on == "auto" else "")
        until(lambda: count(tmp_path, "*.begun!") == 2)
        process.kill()
        until(lambda: not any(map(lives, pids(tmp_path))))
    assert count(tmp_path, "*.begun!") == 2


@pytest.mark.slow
def test_it_is_joined_through_rays_client(tmp_path, driver):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    (tmp_path / "go").touch()
    with ray_nodes([{"ray_client_server_port": port} | SMALL, {}]):
        process = driver(f"ray://127.0.0.1:{port}")
        assert process.wait(90) == 0, (tmp_path / "out").read_text()
    told = (tmp_path / "out").read_text().splitlines()
    assert sorted(line for line in told if line.startswith("made")) == [f"made {name}" for name in "abcdefgh"]


@pytest.mark.parametrize(
    ("on", "told"),
    [
        ("rey", "--on rey: names no cluster; it takes ray (starts one here), auto "),
        ("127.0.0.1:6379", "--on 127.0.0.1:6379: names no cluster; "),
        ("", "--on : names no cluster; "),
        ("ray://box-a", "--on ray://box-a: names no cluster; "),
        ("ray://", "--on ray://: names no cluster; "),
        ("auto", "--on auto: no cluster of Ray answers at 127.0.0.1:1 ("),
        ("ray://127.0.0.1:1", "--on ray://127.0.0.1:1: no cluster of Ray answers there ("),
    ],
)
def test_what_is_no_cluster_is_refused(on, told, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert refusal_of(lambda: Cluster.join(on, print, tmp_path)).startswith(told)


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = refusal_of(lambda: join_ray("ray", print))
    assert message == "--on ray: Ray is not installed; pip install -r requirements-ray.txt"


@pytest.fixture
def left(monkeypatch):
    """How often Ray was left, which is never joined really."""
    import ray

    calls = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *_, **__: None)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("left"))
    monkeypatch.setattr(joining, "_told", lambda context: "cluster: 1 node")
    return calls


def test_a_cluster_is_left_where_something_fails_once_it_is_joined(left):
    def say(line):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        join_ray("ray", say)
    assert left == ["left"]


def test_ctrl_c_while_it_is_joined_says_what_was_interrupted(left, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "init", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    told = pytest.raises(stopping.Stopped, match=r"^interrupted while a cluster was joined; ")
    with told as stopped, stopping.handled(), stopping.told():
        join_ray("ray", print)
    assert (stopped.value.code, left) == (130, ["left"])


def test_leaving_a_cluster_does_not_raise(left, monkeypatch):
    import ray

    def fail():
        left.append("tried")
        raise RuntimeError("the raylet is gone")

    monkeypatch.setattr(ray, "shutdown", fail)
    joining.leave_ray(True)
    assert left == ["tried"]
