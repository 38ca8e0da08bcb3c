"""A script sees what a kernel sees, in every isolation that works on this machine."""

import functools
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from kit.core.errors import KitError
from kit.kaggle.rehearsal import namespaces, sandbox
from kit.kaggle.rehearsal.processes import Processes
from kit.kaggle.rehearsal.sandbox import Mount, available, run_isolated

ISOLATIONS = available()
NAMESPACES = [name for name in ISOLATIONS if name != "redirect"]
PROJECT = Path(sandbox.__file__).resolve().parents[3]

in_each = pytest.mark.parametrize("isolation", ISOLATIONS)
in_namespaces = pytest.mark.parametrize(
    "isolation", NAMESPACES or [pytest.param("", marks=pytest.mark.skip("no namespaces on this machine"))]
)
on_posix = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")

# Where a script finds its folders in any isolation.
FOLDERS = """
import os
INPUT = os.environ.get("KIT_INPUT", "/kaggle/input")
WORKING = os.environ.get("KIT_WORKING", "/kaggle/working")
"""


@pytest.fixture
def run(tmp_path):
    """Runs a script's text over one mount, `competitions/digits`, and returns its outcome and its lines."""
    source = tmp_path / "digits"
    source.mkdir()
    (source / "train.csv").write_text("id,label\n1,7\n")

    def run(text: str, isolation: str, **options):
        script, lines = tmp_path / "some name.py", []
        script.write_text(FOLDERS + textwrap.dedent(text), encoding="utf-8")
        arguments = {"mounts": [Mount(source, "competitions/digits")], "on_line": lines.append, **options}
        outcome = run_isolated(script, tmp_path / "working", isolation=isolation, **arguments)
        assert outcome.isolation == isolation
        return outcome, lines

    run.source = source
    run.working = tmp_path / "working"
    return run


def returned(run, text: str, isolation: str, **options):
    """The value of `value` at the end of the script."""
    outcome, lines = run(text + "\nimport json; print(json.dumps(value))", isolation, **options)
    assert outcome.exit_code == 0, lines
    return json.loads(lines[-1])


# What is there


@in_each
def test_the_mounts_are_all_there_is_to_read(run, isolation, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"\x00\x01")
    mounts = [Mount(run.source, "competitions/digits"), Mount(tmp_path / "weights.bin", "datasets/me/w.bin")]
    files = """
        value = {}
        for folder, _, names in os.walk(INPUT, followlinks=True):
            for name in names:
                path = os.path.join(folder, name)
                value[os.path.relpath(path, INPUT)] = open(path, encoding="latin-1").read()
        """
    assert returned(run, textwrap.dedent(files), isolation, mounts=mounts) == {
        "competitions/digits/train.csv": "id,label\n1,7\n",
        "datasets/me/w.bin": "\x00\x01",
    }


@in_namespaces  # "redirect" cannot promise it
def test_what_is_to_be_read_cannot_be_written(run, isolation):
    text = """
        def refused(path):
            try:
                open(path, "a").close()
            except OSError:
                return True
            return False
        digits = "/kaggle/input/competitions/digits"
        files = [f"{digits}/train.csv", f"{digits}/new", "/kaggle/input/competitions/new", "/kaggle/input/new"]
        value = [path for path in files if not refused(path)]
        others = [digits, "/kaggle/src/script.py", "/usr", "/etc", "/sys", "/proc/sys/vm/overcommit_ratio"]
        value += [path for path in others if os.access(path, os.W_OK)]
        mounts = ["/kaggle/input", digits, "/usr", "/sys"]
        value += [path for path in mounts if os.system(f"mount -o remount,bind,rw {path} 2>/dev/null") == 0]
        """
    assert returned(run, textwrap.dedent(text), isolation) == []
    assert [path.name for path in run.source.iterdir()] == ["train.csv"]


@in_each
def test_working_is_the_current_folder_is_empty_and_stays_afterwards(run, isolation):
    text = """
        assert os.path.samefile(os.getcwd(), WORKING)
        value = os.listdir()
        os.mkdir("sub")
        open("sub/submission.csv", "w").write("id,label")
        """
    assert returned(run, textwrap.dedent(text), isolation) == []
    assert (run.working / "sub" / "submission.csv").read_text() == "id,label"


@in_namespaces
def test_the_script_lies_where_kaggle_puts_it(run, isolation):
    text = "import sys; value = [__file__, sys.argv, sys.path[0], os.getcwd()]"
    expected = ["/kaggle/src/script.py", ["/kaggle/src/script.py"], "/kaggle/src", "/kaggle/working"]
    assert returned(run, text, isolation) == expected


@in_namespaces
def test_neither_the_project_nor_the_home_folder_is_to_be_seen(run, isolation, tmp_path):
    text = f"""
        hidden = {[str(PROJECT / "kit"), str(Path.home() / ".kaggle"), str(tmp_path), str(Path(__file__))]}
        value = [path for path in hidden if os.path.exists(path)]
        value += [path for path in ("/kaggle/working", "/tmp") for name in os.listdir(path) if "kit-" in name]
        value += sorted(set(os.listdir("/")) & {{"home", "mnt", "srv", "var", "run", "boot"}})
        """
    assert returned(run, textwrap.dedent(text), isolation) == []


@in_each
def test_the_kit_cannot_be_imported(run, isolation, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    text = "import importlib.util; value = importlib.util.find_spec('kit') is None"
    assert returned(run, text, isolation) is True


def test_a_project_below_the_systems_folders_is_hidden_but_for_its_virtual_environment():
    project, venv = "/usr/src/app", "/usr/src/app/.venv"
    steps = namespaces.layout(
        f"{venv}/bin/python", [venv, "/usr"], "/s.py", "/w", {}, hidden=[project, "/home/me"]
    )
    targets = [(what, target) for what, _, target in steps]
    assert targets.index(("read", "/usr")) < targets.index(("empty", project)) < targets.index(("read", venv))
    assert targets.count(("read", "/usr")) == 1
    assert ("empty", "/home/me") not in targets  # it is not there in the first place


@in_each
def test_an_interpreter_behind_links_runs_with_its_own_packages(run, isolation, tmp_path):
    """A virtual environment whose interpreter is a link to a link, as tools for several Pythons leave them."""
    venv, shim = tmp_path / "env", tmp_path / "shims" / "python"
    site = venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for folder in (site, venv / "bin", shim.parent):
        folder.mkdir(parents=True)
    base = Path(getattr(sys, "_base_executable", sys.executable))
    (venv / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
    (site / "only_here.py").write_text("VALUE = 7")
    try:
        shim.symlink_to(base)
        (venv / "bin" / "python").symlink_to(shim)
    except OSError:
        pytest.skip("this system lets nobody make links")
    text = "import only_here, sys; value = [only_here.VALUE, sys.prefix]"
    assert returned(run, text, isolation, python=shim.parent / ".." / "env" / "bin" / "python") == [7, str(venv)]


# The environment


@in_each
def test_the_environment_is_bare(run, isolation, monkeypatch):
    names = ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "HTTPS_PROXY", "https_proxy", "PYTHONPATH", "X")
    for name in names:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    seen = returned(run, "value = dict(os.environ)", isolation, environment={"KAGGLE_IS_COMPETITION_RERUN": "1"})
    assert "secret" not in seen.values()
    expected = {
        "CUDA_VISIBLE_DEVICES": "1",
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "passive",
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        "KAGGLE_IS_COMPETITION_RERUN": "1",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "LANG": "C.UTF-8",
    }
    assert expected.items() <= seen.items()
    assert os.path.samefile(seen["PATH"].split(os.pathsep)[0], os.path.dirname(sys.executable))
    if isolation == "redirect":
        assert seen["PYTHONSAFEPATH"] == "1"
    else:
        assert (seen["HOME"], seen["TMPDIR"]) == ("/root", "/tmp")
        assert not [name for name in seen if name.startswith("KIT_")]


@in_each
def test_home_and_temporary_folder_are_empty_and_writable(run, isolation):
    text = """
        import sys, tempfile
        home, temporary = os.path.expanduser("~"), tempfile.gettempdir()
        python = os.path.relpath(sys.base_prefix, home).split(os.sep)[0]  # only if it lives there
        value = [sorted(set(os.listdir(home)) - {python}), home != temporary]
        for folder in (home, temporary):
            open(os.path.join(folder, "new"), "w").close()
        """
    assert returned(run, textwrap.dedent(text), isolation) == [[], True]


@in_each
def test_processes_share_memory(run, isolation):
    text = """
        import multiprocessing
        from multiprocessing.shared_memory import SharedMemory

        def double(name):
            memory = SharedMemory(name)
            memory.buf[1] = 2 * memory.buf[0]
            memory.close()

        if __name__ == "__main__":
            memory = SharedMemory(create=True, size=1000)
            memory.buf[0] = 21
            child = multiprocessing.get_context("spawn").Process(target=double, args=(memory.name,))
            child.start()
            child.join()
            print(child.exitcode, memory.buf[1])
            memory.close()
            memory.unlink()
        """
    assert run(text, isolation)[1] == ["0 42"]


# The network

CONNECT = """
import socket, time
def connect(address):
    started = time.monotonic()
    try:
        socket.create_connection(address, timeout=5).close()
        return "connected"
    except OSError as error:
        return str(error) if time.monotonic() - started < 1 else "slow"
"""


@in_namespaces
def test_servers_of_this_machine_are_out_of_reach(run, isolation):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        answers = returned(
            run, CONNECT + f"value = [connect(('127.0.0.1', {port})), connect(('192.0.2.1', 80))]", isolation
        )
    assert answers == ["[Errno 111] Connection refused", "[Errno 101] Network is unreachable"]


def test_redirected_sockets_are_held_to_this_machine(run):
    text = CONNECT + textwrap.dedent("""
        def refusal(call, *arguments):
            try:
                return call(*arguments)
            except OSError as error:
                return str(error)
        tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        udp.sendto(b"x", ("127.0.0.1", 9))
        value = [
            connect(("192.0.2.1", 80)),
            connect(("kaggle.com", 443)),
            refusal(tcp.connect, ("192.0.2.1", 80)),
            refusal(tcp.connect_ex, ("192.0.2.1", 80)),
            refusal(udp.sendto, b"x", ("192.0.2.1", 9)),
            refusal(socket.gethostbyname, "kaggle.com"),
        ]
        """)
    assert returned(run, text, "redirect") == ["network is off in a rehearsal"] * 6


@pytest.mark.parametrize("environment", ["None", "{**os.environ, 'PYTHONPATH': os.getcwd()}"])
def test_redirected_children_are_held_to_this_machine_too(run, environment):
    text = f"""
        import subprocess, sys
        code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
        child = subprocess.run([sys.executable, "-c", code], env={environment}, capture_output=True, text=True)
        value = child.stderr.splitlines()[-1]
        """
    assert returned(run, textwrap.dedent(text), "redirect") == "OSError: network is off in a rehearsal"


@in_each
def test_a_server_of_the_script_can_be_reached(run, isolation):
    text = CONNECT + "server = socket.create_server(('127.0.0.1', 0))\nvalue = connect(server.getsockname())"
    assert returned(run, text, isolation) == "connected"


# How it ends


@in_each
@pytest.mark.parametrize(
    ("text", "exit_code"),
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("1 / 0", 1),
        pytest.param("import signal; os.kill(os.getpid(), signal.SIGTERM)", 128 + 15, marks=on_posix),
        pytest.param("import signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + 9, marks=on_posix),
    ],
)
def test_the_exit_code_is_the_scripts(run, isolation, text, exit_code):
    outcome, _ = run(text, isolation)
    assert (outcome.exit_code, outcome.timed_out) == (exit_code, False)


@in_each
def test_lines_come_in_order_and_when_they_are_written(run, isolation):
    text = r"""
        import sys, time
        print("first")
        print("second", file=sys.stderr)
        os.write(1, b"\xff\xc3\xa9\r\nbar 1\rbar 2\n\n")
        time.sleep(0.3)
        os.write(1, b"no end")
        """
    came = []
    run(text, isolation, on_line=lambda line: came.append((line, time.monotonic())))
    assert [line for line, _ in came] == ["first", "second", "\ufffdé", "bar 1", "bar 2", "", "no end"]
    assert came[6][1] - came[5][1] > 0.2


@in_each
def test_a_script_may_close_its_output_and_go_on(run, isolation):
    outcome, _ = run(
        "import time; os.close(1); os.close(2); time.sleep(0.3); open('late', 'w').close()", isolation
    )
    assert outcome.exit_code == 0
    assert (run.working / "late").exists()


STUBBORN = """
import signal, subprocess, sys, time
grandchild = '''
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if hasattr(os, "setsid"):
    os.setsid()
print("lives", flush=True)
for i in range(1000):
    open("alive", "a").write(".")
    time.sleep(0.01)
'''
child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]])"
subprocess.run([sys.executable, "-c", child, grandchild])
while not os.path.exists("alive"):
    time.sleep(0.01)
"""


def lives(file: Path) -> bool:
    """Whether somebody still writes to it."""
    size = file.stat().st_size
    time.sleep(0.2)
    return file.stat().st_size > size


@in_each
@pytest.mark.parametrize("end", ["time limit", "its own", "exception"])
def test_nothing_is_left_running(run, isolation, end):
    """The grandchild's parent is gone, it is in a session of its own, and deaf to SIGTERM."""
    before = set(psutil.Process().children(recursive=True))  # of other tests, like multiprocessing's tracker
    if end == "its own":
        outcome, lines = run(STUBBORN, isolation)
        assert (lines, outcome.exit_code, outcome.timed_out) == (["lives"], 0, False)
    elif end == "time limit":
        outcome, lines = run(STUBBORN + "time.sleep(60)", isolation, time_limit=1.0)
        assert (lines, outcome.exit_code, outcome.timed_out) == (["lives"], None, True)
        assert 1.0 <= outcome.seconds < 2.0
    else:

        def interrupt(line):
            while not (run.working / "alive").exists():
                time.sleep(0.01)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(STUBBORN + "time.sleep(60)", isolation, on_line=interrupt)
    assert not lives(run.working / "alive")
    left = set(psutil.Process().children(recursive=True)) - before
    assert [child for child in left if child.status() != "zombie"] == []


@on_posix
@in_each
def test_no_parent_tells_that_its_children_were_killed(run, isolation):
    """Each of 20 children is watched; `unshare` too says something when its own child is killed before it."""
    text = """
        import subprocess, sys, threading, time
        def watch(child):
            child.wait()
            print("a child is gone", flush=True)
        for _ in range(20):
            child = subprocess.Popen(["sleep", "60"])
            threading.Thread(target=watch, args=[child], daemon=True).start()
        print("lives", flush=True)
        time.sleep(60)
        """
    outcome, lines = run(text, isolation, time_limit=1.0)
    assert outcome.timed_out
    assert set(lines) <= {"lives"}  # none where the machine is so busy that the second was not enough


@in_each
def test_peak_memory_is_that_of_all_processes_together(run, isolation, monkeypatch):
    """The child holds its memory until it was measured once."""
    child = """
        import os, time
        data = bytearray(100 << 20)
        print("holds", flush=True)
        while not os.path.exists("measured"):
            time.sleep(0.01)
        """
    text = f"""
        import subprocess, sys
        data = bytearray(100 << 20)
        subprocess.run([sys.executable, "-c", {textwrap.dedent(child)!r}])
        """
    lines, measure = [], Processes.memory

    def memory(processes: Processes) -> int:
        held = "holds" in lines
        taken = measure(processes)
        if held:
            (run.working / "measured").touch()
        return taken

    monkeypatch.setattr(Processes, "memory", memory)
    outcome, _ = run(text, isolation, on_line=lines.append, time_limit=60.0)
    assert outcome.exit_code == 0
    assert 200 << 20 <= outcome.peak_memory <= 400 << 20


@on_posix
@in_each
@pytest.mark.parametrize(
    "text", ["bytearray(200 << 20)", "import subprocess, sys; subprocess.run([sys.executable, '-c', '{}'])"]
)
def test_a_short_peak_of_one_process_is_not_missed(run, isolation, text, monkeypatch):
    """Neither of the script nor of a child, and although nothing is sampled."""
    monkeypatch.setattr(Processes, "memory", lambda processes: 0)
    outcome, _ = run(text.format("bytearray(200 << 20)"), isolation)
    assert 200 << 20 <= outcome.peak_memory <= 300 << 20


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="nothing is forked here")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what processes share")
@in_each
def test_memory_that_processes_share_counts_once(run, isolation):
    text = """
        import multiprocessing, time
        data = bytearray(100 << 20)
        workers = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(0.4,)) for _ in range(4)]
        [worker.start() for worker in workers]
        [worker.join() for worker in workers]
        """
    outcome, _ = run(text, isolation)
    assert 100 << 20 <= outcome.peak_memory <= 200 << 20


# What is refused


@pytest.fixture
def fresh_trials(monkeypatch):
    """Isolations are tried again, and what is found is forgotten afterwards."""
    monkeypatch.setattr(sandbox, "_refusal", functools.cache(sandbox._refusal.__wrapped__))


@pytest.mark.parametrize(
    ("isolation", "command"),
    [
        ("bubblewrap", "bwrap --unshare-all --ro-bind / / --proc /proc true"),
        ("unshare", "unshare --user --map-root-user --mount --pid --net --ipc --fork mount -t tmpfs none /tmp"),
    ],
)
def test_an_isolation_that_works_is_available(isolation, command):
    """Else all that is tested above in each isolation would be tested in none."""
    if subprocess.run(command, shell=True, capture_output=True).returncode == 0:
        assert sandbox._refusal(isolation) is None


def test_an_isolation_without_its_program_is_not_available(monkeypatch, fresh_trials, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert available() == ["redirect"]
    with pytest.raises(KitError) as caught:
        run_isolated(tmp_path / "script.py", tmp_path / "working", [], isolation="bubblewrap")
    reason = "it is not installed" if sys.platform == "linux" else "it needs Linux"
    assert str(caught.value) == f"isolation 'bubblewrap' does not work here ({reason}); use 'redirect'"


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (
            "echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1",
            "bwrap: setting up uid map: Permission denied",
        ),
        ("exit 0", "the sandbox (bubblewrap) failed: it was killed"),
    ],
)
def test_an_isolation_that_is_refused_is_not_available(monkeypatch, fresh_trials, tmp_path, program, reason):
    """As where the kernel allows no namespaces: the program is there and fails, or ends without having run it."""
    (tmp_path / "bwrap").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert "bubblewrap" not in available()
    assert sandbox._refusal("bubblewrap") == reason


@in_namespaces
def test_a_sandbox_that_fails_is_no_exit_code_of_the_script(run, isolation, monkeypatch):
    monkeypatch.setattr(sandbox.namespaces, "GPU_DEVICES", ())
    steps = sandbox.namespaces.layout
    monkeypatch.setattr(
        sandbox.namespaces, "layout", lambda *a, **k: [*steps(*a, **k), ("read", "/none", "/none")]
    )
    with pytest.raises(
        KitError, match=rf"^the sandbox \({isolation}\) failed: .*/none.*No such file or directory$"
    ):
        run("pass", isolation)


@pytest.mark.parametrize(
    ("mounts", "says"),
    [
        ([Mount(Path(), "../x")], "'../x' has to be a path below /kaggle/input"),
        ([Mount(Path(), "/kaggle/input/x")], "'/kaggle/input/x' has to be a path below /kaggle/input"),
        ([Mount(Path(), "")], "'' has to be a path below /kaggle/input"),
        ([Mount(Path("nowhere"), "a")], "nowhere is not there"),
        ([Mount(Path(), "a"), Mount(Path(), "a/b")], "'a' is given twice, or holds another"),
        ([Mount(Path(), "a/b"), Mount(Path(), "a/b")], "'a/b' is given twice, or holds another"),
    ],
)
def test_mounts_that_cannot_be_are_refused(run, mounts, says):
    with pytest.raises(KitError) as caught:
        run("pass", "redirect", mounts=mounts)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_working_folder_with_something_in_it_is_refused(run):
    run.working.mkdir()
    (run.working / "old.csv").touch()
    with pytest.raises(KitError, match=r"working has to be empty and holds old\.csv; remove that"):
        run("pass", "redirect")


def test_other_mistakes_are_told(run, tmp_path):
    with pytest.raises(
        KitError, match="isolation 'docker' is not known; it is one of bubblewrap, unshare, redirect"
    ):
        run_isolated(tmp_path / "script.py", tmp_path / "working", [], isolation="docker")
    with pytest.raises(KitError, match=r"none\.py cannot be read .*; give the Python file to run"):
        run_isolated(tmp_path / "none.py", tmp_path / "working", [], isolation="redirect")
    with pytest.raises(KitError, match="no-python does not run as a Python interpreter"):
        run("pass", "redirect", python=tmp_path / "no-python")


def test_nothing_of_posix_is_imported():
    code = """if True:
        import sys, psutil
        sys.modules.update(dict.fromkeys(("fcntl", "resource", "pwd", "grp", "termios")))
        import kit.kaggle.rehearsal.sandbox"""
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)
