"""The code file as it runs on Kaggle, around a kit that is a few lines: what it unpacks, installs and hands on."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.interpreters import need_interpreter

from kit.core.bundle import pack
from kit.core.durations import duration
from kit.experiment.config import validate
from kit.kaggle.kernel import code_file
from kit.kaggle.kernel.folder import METADATA_KEYS, BuildRecord, KernelFolder

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
PIP = pytest.mark.skipif(find_spec("pip") is None, reason="this Python has no pip")


class Kernel:
    """A code file and the folders it runs over."""

    def __init__(self, folder: Path):
        self.folder, self.input, self.working = folder, folder / "input", folder / "working"
        for path in (self.input, self.working, folder / "tmp"):
            path.mkdir()
        self.script, self.code_dataset, self.python = folder / "script.py", "", sys.executable

    def build(
        self,
        code: str,
        kind: str = "train",
        notebook: bool = False,
        more: dict | None = None,
        folds: Sequence[int] = (0,),
        attached: dict | None = None,
        **kernel,
    ) -> None:
        """The code file of a kernel whose kit is `code`, with other files beside it."""
        content = {"name": "tiny", "competition": {"slug": "squares"}, "policies": {"flat": {"lr": 0.1}}}
        experiment = validate(content | {"kernel": kernel}, "test")
        files = {"kit/__init__.py": b"", "kit/__main__.py": textwrap.dedent(code).encode()} | (more or {})
        self.archive = pack({"config.yaml": b"name: tiny\n", "folds.csv": b"id,fold\n", **files})
        record = BuildRecord(
            kind=kind,
            slug="tiny-kernel",
            experiment="tiny",
            policies=["flat"],
            seeds=[0],
            folds=list(folds),
            competition={},
            weights="",
            hours=experiment.kernel.hours,
            sha256=hashlib.sha256(self.archive).hexdigest(),
            family="",
        )
        text, self.code_dataset = code_file.code_of(
            experiment, record, "A tiny kernel.\n", self.archive, notebook, attached or {}
        )
        self.text = text
        if notebook:
            text = "".join(json.loads(text)["cells"][0]["source"])
        self.script.write_text(text, encoding="utf-8")

    def patch(self, before: str, after: str) -> None:
        text = self.script.read_text(encoding="utf-8")
        assert text.count(before) == 1
        self.script.write_text(text.replace(before, after), encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
        return kept | {
            "KIT_INPUT": str(self.input),
            "KIT_WORKING": str(self.working),
            "TMPDIR": str(self.folder / "tmp"),
            "HOME": str(self.folder),
        }

    def run(self, **environment: str) -> tuple[int, list[str]]:
        """Exit code and lines."""
        done = subprocess.run(
            [self.python, self.script],
            cwd=self.working,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=60,
        )
        return done.returncode, done.stdout.splitlines()

    def told(self, **environment: str):
        """The value that the kit tells."""
        code, lines = self.run(**environment)
        assert code == 0, lines
        return json.loads(lines[1])

    def attach(self, place: str, files: dict[str, bytes]) -> Path:
        (self.input / place).mkdir(parents=True)
        for name, content in files.items():
            (self.input / place / name).write_bytes(content)
        return self.input / place


@pytest.fixture
def kernel(tmp_path, monkeypatch) -> Kernel:
    """A kernel that is made for what runs the tests, so that it has nothing to say about that."""
    try:
        torch = version("torch").partition("+")[0]
    except PackageNotFoundError:
        torch = "none"
    monkeypatch.setattr(code_file, "made_for", lambda: {"python": [HERE], "torch": {HERE: torch}})
    return Kernel(tmp_path)


def tell(value: str) -> str:
    """A kit that tells a value."""
    return f"import json, os, sys\nprint(json.dumps({value}))"


# The run


def test_a_train_kernel_runs_the_kit_on_what_travelled(kernel):
    kernel.build(tell("[sys.argv[1:], os.getcwd(), sorted(os.listdir())]"))
    code, lines = kernel.run()
    arguments, folder, there = json.loads(lines[1])
    cache = str(Path(folder) / "cache")
    words = ["run", "config.yaml", "--folds", "folds.csv", "--jobs", "auto"]
    assert arguments[:-2] == [*words, "--output", str(kernel.working), "--cache", cache]
    assert lines[0] == f"$ python -m kit {' '.join(arguments)}"
    assert there == ["config.yaml", "folds.csv", "kit"]
    assert Path(folder).parent == kernel.folder / "tmp"
    assert lines[2] == "exit code 0 after 0 s, 1 files"
    assert (code, len(lines)) == (0, 3)


def test_an_infer_kernel_predicts_the_test_set(kernel):
    kernel.build(tell("[sys.argv[1:], os.getcwd()]"), kind="infer")
    arguments, folder = kernel.told()
    submission, cache = str(kernel.working / "submission.csv"), str(Path(folder) / "cache")
    words = ["predict", "config.yaml", "--submission", submission, "--output", folder, "--cache", cache]
    assert arguments[:-2] == words


@pytest.mark.parametrize("kind", ["train", "infer"])
@pytest.mark.parametrize(
    ("rehearsed", "seconds"), [({}, 6480), ({"KIT_SECONDS": "500.5"}, 450), ({"KIT_SECONDS": "60"}, 40)]
)
def test_the_kit_has_the_time_that_is_left_less_a_tenth_or_twenty_seconds(kernel, kind, rehearsed, seconds):
    kernel.build(tell("sys.argv[-2:]"), kind=kind, hours=2)
    option, left = kernel.told(**rehearsed)
    assert option == "--budget"
    assert seconds - 10 <= int(left) <= seconds
    kernel.script.write_text(
        kernel.script.read_text("utf-8").replace("BEGUN = time.monotonic()", "BEGUN = time.monotonic() - 2000"),
        encoding="utf-8",
    )
    left = int(kernel.told(**rehearsed)[1])  # at least 1, as no time at all is refused
    assert max(1, seconds - 2010) <= left <= max(1, seconds - 2000)


@pytest.mark.parametrize("code", [0, 1, 3])
@pytest.mark.parametrize("kind", ["train", "infer"])
def test_the_exit_code_is_the_kits(kernel, code, kind):
    kernel.build(f"print('done'); raise SystemExit({code})", kind=kind)
    ended, lines = kernel.run()
    assert ended == code
    assert lines[1:] == ["done", f"exit code {code} after 0 s, 1 files"]


@POSIX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kit_that_was_killed_ends_as_in_a_shell(kernel, number):
    kernel.build(f"import os; print('begun', flush=True); os.kill(os.getpid(), {int(number)})")
    ended, lines = kernel.run()
    assert ended == 128 + number
    assert lines[1:] == ["begun", f"exit code {-number} after 0 s, 1 files"]


def test_an_exception_of_the_kit_is_in_the_log_and_fails_the_kernel(kernel):
    kernel.build("raise ValueError('of the kit')")
    ended, lines = kernel.run()
    assert ended == 1
    assert "ValueError: of the kit" in lines
    assert "ValueError: of the kit\n" in (kernel.working / "kit.log").read_text()


def test_lines_are_told_and_logged_as_they_come(kernel):
    kernel.build("""
        import os, sys, time
        print("first, ö")
        while not os.path.exists(os.environ["KIT_INPUT"] + "/go on"):
            time.sleep(0.01)
        print("second", file=sys.stderr)
        """)
    with subprocess.Popen(
        [sys.executable, kernel.script],
        env=kernel.environment | {"PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout.readline().startswith("$ python -m kit run ")
        assert process.stdout.readline() == "first, ö\n"
        give_up = time.monotonic() + 10
        while (log := (kernel.working / "kit.log").read_text("utf-8")) != "first, ö\n":
            assert time.monotonic() < give_up, log
        (kernel.input / "go on").touch()
        assert process.stdout.readline() == "second\n"
        assert process.stdout.read() == "exit code 0 after 0 s, 1 files\n"
    assert process.returncode == 0
    assert (kernel.working / "kit.log").read_text("utf-8") == "first, ö\nsecond\n"


def test_output_that_is_no_text_does_not_stop_it(kernel):
    kernel.build("import sys; sys.stdout.buffer.write(b'caf\\xe9\\n')")
    ended, lines = kernel.run(PYTHONIOENCODING="utf-8")
    assert (ended, lines[1]) == (0, "caf\N{REPLACEMENT CHARACTER}")


def test_every_output_is_listed_with_its_hash(kernel):
    kernel.build("""
        import os, sys
        folder = sys.argv[sys.argv.index("--output") + 1]
        os.makedirs(folder + "/runs/tiny")
        open(folder + "/runs/tiny/weights.bin", "wb").write(bytes(range(256)) * 1000)
        print("done")
        open(folder + "/empty.txt", "w").close()
        os.makedirs(folder + "/.cache")
        open(folder + "/.cache/a", "w").write("hidden")
        """)
    (kernel.working / "__notebook__.ipynb").write_text("Kaggle's own")
    ended, lines = kernel.run()
    listed = json.loads((kernel.working / "outputs.json").read_text())
    assert listed["files"] == {
        "kit.log": hashlib.sha256(b"done\n").hexdigest(),
        "runs/tiny/weights.bin": hashlib.sha256(bytes(range(256)) * 1000).hexdigest(),
    }  # nothing that Kaggle may not keep: hidden and empty files
    assert (listed["missing"], listed["exit_code"]) == (["flat/seed0/fold0"], 0)
    assert (ended, lines[-1]) == (0, "exit code 0 after 0 s, 2 files")


# Runs that are finished

RUN = """
import hashlib, json, os, sys, time
home = sys.argv[sys.argv.index("--output") + 1] + "/runs/tiny"
def begin(fold):
    folder = f"{home}/flat/seed0/fold{fold}"
    os.makedirs(folder)
    open(folder + "/run.json", "w").write(json.dumps({"status": "running"}))
    open(folder + "/checkpoint.pt", "w").write("still changes")
    return folder
def train(fold):
    folder, files = begin(fold), {"weights.safetensors": b"w%d" % fold, "rates.npz": b"r"}
    for name, content in files.items():
        open(f"{folder}/{name}", "wb").write(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    open(folder + "/run.json", "w").write(json.dumps({"status": "finished", "files": hashes}))
os.makedirs(home)
open(home + "/experiment.yaml", "w").write("name: tiny")
open(home + "/folds.csv", "w").write("id,fold")
open(home + "/manifest.json", "w").write("still changes")
"""


def run_files(*folds: int) -> dict[str, str]:
    """What of a run belongs into a list, beside its run.json."""
    return {
        f"runs/tiny/flat/seed0/fold{fold}/{name}": hashlib.sha256(content).hexdigest()
        for fold in folds
        for name, content in {"weights.safetensors": b"w%d" % fold, "rates.npz": b"r"}.items()
    }


def without_records(files: dict[str, str], working: Path) -> dict[str, str]:
    """Those of a list but run.json, whose hashes have to be those of the files that are there."""
    for name in [name for name in files if name.endswith("run.json")]:
        assert files.pop(name) == hashlib.sha256((working / name).read_bytes()).hexdigest()
    return files


def test_what_is_finished_is_listed_after_every_run(kernel):
    """A session that is killed at its limit leaves the list of the runs that were finished, and nothing else."""
    rest = """
open(home + "/own.py", "w").write("mine")
train(0); train(2); begin(1)
print('waits', flush=True)
kernel = os.getppid()
while os.getppid() == kernel:
    time.sleep(0.02)
"""
    kernel.build(RUN + rest, more={"own.py": b"mine"}, folds=range(4))
    kernel.patch("LOOK = 5.0", "LOOK = 0.01")
    with subprocess.Popen(
        [sys.executable, kernel.script], env=kernel.environment, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        kit = process.stdout.readline() and process.stdout.readline()
        assert kit == "waits\n"
        give_up, file = time.monotonic() + 10, kernel.working / "outputs.json"
        while not file.is_file() or "fold2/weights" not in file.read_text():
            assert time.monotonic() < give_up
            time.sleep(0.01)
        process.kill()
    listed = json.loads(file.read_text())
    shared = {
        "runs/tiny/experiment.yaml": hashlib.sha256(b"name: tiny").hexdigest(),
        "runs/tiny/folds.csv": hashlib.sha256(b"id,fold").hexdigest(),
        "runs/tiny/own.py": hashlib.sha256(b"mine").hexdigest(),
    }
    assert without_records(listed["files"], kernel.working) == run_files(0, 2) | shared
    assert listed["missing"] == ["flat/seed0/fold1", "flat/seed0/fold3"]
    assert listed["exit_code"] is None


@pytest.mark.parametrize("notebook", [False, True])
def test_a_kernel_with_something_finished_ends_with_0_and_says_what_is_missing(kernel, notebook):
    kernel.build(RUN + "train(0); begin(1); raise SystemExit(1)", folds=range(2), notebook=notebook)
    if notebook:
        kernel.script.write_text("get_ipython = print\n" + kernel.script.read_text("utf-8"), encoding="utf-8")
    ended, lines = kernel.run()
    assert (ended, lines[-1]) == (0, "1 of 2 runs are finished; the kernel ends with 0 to keep them")
    listed = json.loads((kernel.working / "outputs.json").read_text())
    assert run_files(0).items() <= listed["files"].items()
    assert (listed["missing"], listed["exit_code"]) == (["flat/seed0/fold1"], 1)


def test_a_run_whose_files_are_not_all_there_is_not_finished(kernel):
    kernel.build(RUN + "train(0); os.remove(home + '/flat/seed0/fold0/rates.npz'); raise SystemExit(1)")
    assert kernel.run()[0] == 1
    listed = json.loads((kernel.working / "outputs.json").read_text())
    assert (listed["missing"], listed["exit_code"]) == (["flat/seed0/fold0"], 1)


@pytest.mark.parametrize("notebook", [False, True])
def test_what_is_left_of_an_earlier_version_is_trained_alone(kernel, notebook):
    kernel.build(tell("sys.argv[-4:]"), folds=range(4), notebook=notebook)
    file = KernelFolder(kernel.folder)
    (kernel.folder / "kernel.ipynb").write_text(kernel.text) if notebook else None
    name = "kernel.ipynb" if notebook else "script.py"
    metadata = dict.fromkeys(METADATA_KEYS, "") | {"code_file": name}
    file.metadata_file.write_text(json.dumps(metadata))
    left = ["flat/seed0/fold1", "flat/seed0/fold3"]
    text = file.source_for(left)
    kernel.script.write_text(json.loads(text)["cells"][0]["source"] if notebook else text, encoding="utf-8")
    assert kernel.told() == ["--only", left[0], "--only", left[1]]
    assert json.loads((kernel.working / "outputs.json").read_text())["missing"] == left


# Settings that reach the kit


def test_settings_of_a_rehearsal_are_handed_on(kernel):
    kernel.build(tell("sys.argv[-4:]"))
    changes = ["training.epochs=1", 'policies={"a b": 1}']
    assert kernel.told(KIT_SET=json.dumps(changes)) == ["--set", changes[0], "--set", changes[1]]
    assert "--set" not in kernel.told(KIT_SET="[]")


@pytest.mark.parametrize(
    ("kind", "internet", "offline"), [("train", False, "1"), ("train", True, None), ("infer", True, "1")]
)
def test_without_internet_the_hub_is_not_asked(kernel, kind, internet, offline):
    kernel.build(tell("os.environ.get('HF_HUB_OFFLINE')"), kind=kind, internet=internet)
    assert kernel.told() == offline


def test_the_path_of_the_image_stays_behind_the_kits(kernel, tmp_path):
    kernel.build(tell("[os.environ['PYTHONPATH'].split(os.pathsep), os.getcwd()]"))
    paths, folder = kernel.told(PYTHONPATH=str(tmp_path / "image"))
    assert paths == [str(Path(folder) / "site-packages"), folder, str(tmp_path / "image")]


# A notebook


def test_as_a_notebook_it_fails_by_an_exception(kernel):
    kernel.build("raise SystemExit(3)", notebook=True)
    ended, lines = kernel.run()
    assert ended == 3  # nothing here says that it is a notebook
    text = kernel.script.read_text(encoding="utf-8")
    kernel.script.write_text(f"get_ipython = print\n{text}", encoding="utf-8")
    ended, lines = kernel.run()
    assert (ended, lines[-1]) == (1, "RuntimeError: python -m kit ended with exit code 3")
    assert (kernel.working / "outputs.json").is_file()


def test_as_a_notebook_it_ends_well_without_one(kernel):
    kernel.build("print('done')", notebook=True)
    kernel.script.write_text("get_ipython = print\n" + kernel.script.read_text("utf-8"), encoding="utf-8")
    ended, lines = kernel.run()
    assert (ended, lines[1:]) == (0, ["done", "exit code 0 after 0 s, 1 files"])


# The archive

REFUSED = "The archive is not the one that was built; build and push the kernel again."


def archive_lines(text: str) -> tuple[str, list[str], str]:
    before, _, rest = text.partition('r"""\n')
    inside, _, after = rest.partition('\n"""')
    return before + 'r"""\n', inside.split("\n"), '\n"""' + after


@pytest.mark.parametrize(
    "spoil",
    [lambda lines: [lines[1], lines[0], *lines[2:]], lambda lines: lines[:-1], lambda lines: []],
    ids=["swapped", "cut", "empty"],
)
@pytest.mark.parametrize("notebook", [False, True])
def test_another_archive_than_was_built_is_not_run(kernel, spoil, notebook):
    kernel.build("print('run all the same')", notebook=notebook)
    before, lines, after = archive_lines(kernel.script.read_text(encoding="utf-8"))
    assert len(lines) > 2
    text = before + "\n".join(spoil(lines)) + after
    kernel.script.write_text(f"get_ipython = print\n{text}" if notebook else text, encoding="utf-8")
    ended, told = kernel.run()
    assert (ended, told[-1]) == (1, f"RuntimeError: {REFUSED}" if notebook else REFUSED)
    assert "run all the same" not in told


def test_line_ends_of_another_system_do_not_count(kernel):
    kernel.build("print('done')")
    kernel.script.write_bytes(kernel.script.read_bytes().replace(b"\n", b"\r\n"))
    assert kernel.run()[0] == 0


BULK = {"kit/bulk.bin": b"".join(hashlib.sha256(bytes([row % 256, row // 256])).digest() for row in range(1024))}


@pytest.mark.parametrize(
    "place",
    [
        "datasets/me/tiny-kernel-code",
        "tiny-kernel-code",
        "datasets/Me/Tiny-Kernel-Code",
        "Datasets/ME/tiny-kernel-code",
    ],
)
def test_code_that_travels_as_a_dataset_is_found(kernel, place):
    kernel.build(tell("len(open('kit/bulk.bin', 'rb').read())"), more=BULK, owner="me", max_code_kb=20)
    assert kernel.code_dataset == "me/tiny-kernel-code"
    assert kernel.script.stat().st_size < 20_000
    missing = "The dataset me/tiny-kernel-code is not attached to this kernel"
    assert kernel.run() == (1, [f"{missing}; {kernel.input} holds nothing."])
    bundle = kernel.attach(place, {"bundle.bin": kernel.archive}) / "bundle.bin"
    assert kernel.told() == 32768
    bundle.write_bytes(kernel.archive[:-1])
    assert kernel.run() == (1, [REFUSED])


# Wheels


def wheel(value: int) -> bytes:
    """A package whose `VALUE` is that."""
    import io

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("tinywheel/__init__.py", f"VALUE = {value}\n")
        name = "tinywheel-1.0.dist-info"
        archive.writestr(f"{name}/METADATA", "Metadata-Version: 2.1\nName: tinywheel\nVersion: 1.0\n")
        archive.writestr(f"{name}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{name}/RECORD", "")
    return file.getvalue()


def dataset(content: bytes, name: str = "tinywheel-1.0-py3-none-any.whl") -> dict[str, bytes]:
    entry = {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "name": "tinywheel", "version": "1.0"}
    return {name: content, "wheels.json": json.dumps([entry]).encode()}


@PIP
@pytest.mark.parametrize("place", ["datasets/me/wheels", "wheels", "datasets/ME/Wheels"])
def test_attached_wheels_are_there_for_the_kit(kernel, place):
    kernel.build(f"import tinywheel\n{tell('tinywheel.VALUE')}", datasets=["me/weights", "me/wheels"])
    missing = "The dataset me/weights is not attached to this kernel"
    assert kernel.run() == (1, [f"{missing}; {kernel.input} holds nothing."])
    kernel.attach("datasets/me/weights", {"a.pth": b"no wheel"})
    kernel.attach(place, dataset(wheel(42)))
    assert kernel.told() == 42


def test_a_damaged_wheel_is_not_installed(kernel):
    kernel.build("print('run all the same')", datasets=["me/wheels"])
    folder = kernel.attach("wheels", dataset(wheel(42)))
    (path,) = folder.glob("*.whl")
    path.write_bytes(wheel(43))
    ended, lines = kernel.run()
    assert (ended, lines) == (
        1,
        [f"{path} is damaged; make the dataset anew with: python -m kit kernel wheels"],
    )


@PIP
def test_a_wheel_that_pip_refuses_fails_the_kernel(kernel):
    kernel.build("print('run all the same')", datasets=["me/wheels"])
    kernel.attach("wheels", dataset(wheel(42), "tinywheel-1.0-cp27-none-any.whl"))
    ended, lines = kernel.run()
    assert (ended, lines[-1]) == (1, "pip could not install the wheels of me/wheels; its words are above.")
    assert any("tinywheel-1.0-cp27-none-any.whl is not a supported wheel" in line for line in lines)
    assert "run all the same" not in lines


def test_a_dataset_without_wheels_needs_no_pip(kernel):
    kernel.build("print('done')", datasets=["me/weights", "me/none"])
    kernel.attach("weights", {"a.pth": b"1"})
    kernel.attach("none", {"wheels.json": b"[]"})
    assert kernel.run()[1][1:] == ["done", "exit code 0 after 0 s, 1 files"]


def wheels_dataset(content: bytes, made: dict[str, list[str]], python: list[str]) -> dict[str, bytes]:
    """A dataset with wheels.json as it is written now: name of a file → the Pythons that it is for."""
    entries = [
        {
            "file": name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "name": "a",
            "version": "1",
            "python": pythons,
        }
        for name, pythons in made.items()
    ]
    table = json.dumps({"python": python, "wheels": entries}).encode()
    return dict.fromkeys(made, content) | {"wheels.json": table}


OTHER = "3.99"  # no Python that runs these tests


@PIP
def test_of_wheels_for_several_pythons_those_for_this_one_are_taken(kernel):
    kernel.build(f"import tinywheel\n{tell('tinywheel.VALUE')}", datasets=["me/wheels"])
    made = {"tinywheel-1.0-py3-none-any.whl": [HERE, OTHER], "other-1.0-cp399-cp399-linux_x86_64.whl": [OTHER]}
    kernel.attach("datasets/me/wheels", wheels_dataset(wheel(42), made, [HERE, OTHER]))
    assert kernel.told() == 42


def test_where_nothing_is_lacking_under_this_python_no_wheel_is_needed(kernel):
    kernel.build("print('done')", datasets=["me/wheels"])
    made = {"other-1.0-cp399-cp399-linux_x86_64.whl": [OTHER]}
    kernel.attach("datasets/me/wheels", wheels_dataset(b"", made, [HERE, OTHER]))
    assert kernel.run()[1][1:] == ["done", "exit code 0 after 0 s, 1 files"]


def test_wheels_for_another_python_are_refused_in_a_sentence(kernel):
    kernel.build("print('run all the same')", datasets=["me/wheels"])
    made = {"other-1.0-cp399-cp399-linux_x86_64.whl": [OTHER], "tinywheel-1.0-py3-none-any.whl": [OTHER]}
    kernel.attach("datasets/me/wheels", wheels_dataset(wheel(42), made, [OTHER]))
    assert kernel.run() == (
        1,
        [
            f"The wheels of me/wheels are for Python 3.99, and this is Python {HERE}; collect them anew with: "
            f"python -m kit kernel wheels ... --python {HERE} (or both), upload them, and push this kernel again."
        ],
    )


@PIP
def test_wheels_of_no_one_python_are_taken_under_another(kernel):
    kernel.build("import tinywheel; print(tinywheel.VALUE)", datasets=["me/wheels"])
    made = {"tinywheel-1.0-py3-none-any.whl": [OTHER]}
    kernel.attach("datasets/me/wheels", wheels_dataset(wheel(42), made, [OTHER]))
    code, lines = kernel.run()
    note = f"note: The wheels of me/wheels are for Python 3.99, and this is Python {HERE}; "
    assert (code, lines[0]) == (0, f"{note}they are of no one Python and are taken all the same.")
    assert lines[2] == "42"


# What is mounted


def test_what_is_mounted_is_listed_where_a_source_is_not(kernel):
    kernel.build("print('run all the same')", datasets=["me/weights"])
    for place in ("competitions/squares", "datasets/me/other", "notebooks/me/a-kernel", "my-data"):
        kernel.attach(place, {"a.txt": b""})
    kernel.attach("models/google/net/pyTorch/b0/3", {})
    assert kernel.run() == (
        1,
        [
            f"The dataset me/weights is not attached to this kernel; {kernel.input} holds competitions/squares, "
            "datasets/me/other, models/google/net/pyTorch/b0/3, my-data, notebooks/me/a-kernel."
        ],
    )


def test_the_spelling_that_is_asked_for_comes_first(kernel):
    if (kernel.input / "A").mkdir() or (kernel.input / "a").exists():
        pytest.skip("this file system does not tell cases apart")
    kernel.build(tell("0"), datasets=["me/wheels"])
    kernel.attach("WHEELS", {"wheels.json": b"no JSON"})
    kernel.attach("wheels", {"wheels.json": b"[]"})
    assert kernel.told() == 0


# What an infer kernel was built for

PLACE = "runs/tiny/flat/seed0/fold0"


def attach_run(kernel: Kernel, place: str, content: bytes) -> None:
    folder = kernel.input / place / PLACE
    folder.mkdir(parents=True)
    (folder / "run.json").write_bytes(content)


@pytest.mark.parametrize("place", ["notebooks/me/tiny-train", "notebooks/Me/Tiny-Train", "tiny-train"])
def test_an_infer_kernel_predicts_with_the_runs_that_it_was_built_for(kernel, place):
    attached = {"me/tiny-train": {PLACE: hashlib.sha256(b"then").hexdigest()}}
    kernel.build("print('predicted')", kind="infer", attached=attached)
    attach_run(kernel, place, b"then")
    code, lines = kernel.run()
    assert (code, lines[1]) == (0, "predicted")


def test_an_infer_kernel_fails_where_another_version_is_attached(kernel):
    attached = {"me/tiny-train": {PLACE: hashlib.sha256(b"then").hexdigest()}}
    kernel.build("print('predicted')", kind="infer", attached=attached)
    missing = f"The kernel me/tiny-train is not attached to this kernel; {kernel.input} holds nothing."
    assert kernel.run() == (1, [missing])
    mend = "Fetch it (python -m kit kernel fetch), build this kernel again, and push it."
    (kernel.input / "notebooks/me/tiny-train").mkdir(parents=True)
    assert kernel.run() == (
        1,
        [
            f"{PLACE} of me/tiny-train is not there, but was when this kernel was built: Kaggle mounts its latest "
            f"version. {mend}"
        ],
    )
    attach_run(kernel, "notebooks/me/tiny-train", b"now")
    assert kernel.run() == (
        1,
        [
            f"{PLACE} of me/tiny-train is another training than when this kernel was built: Kaggle mounts its "
            f"latest version. {mend}"
        ],
    )


# Other images


def test_versions_that_it_was_not_made_for_are_told_in_a_line(kernel, monkeypatch):
    told = {"3.98": "2.98.0", OTHER: "2.99.0"}
    monkeypatch.setattr(code_file, "made_for", lambda: {"python": list(told), "torch": told})
    kernel.build("print('done')")
    code, lines = kernel.run()
    made_for = "made for Python 3.98 with torch 2.98.0 or Python 3.99 with torch 2.99.0"
    assert (code, lines[2]) == (0, "done")
    assert lines[0].startswith(f"note: {made_for}; this is Python {HERE} with torch ")
    assert lines[0].endswith(", and goes on.")
    assert lines[1].startswith("$ python -m kit run ")


@pytest.mark.parametrize("python", ["3.12", "3.13"])
@pytest.mark.parametrize("notebook", [False, True])
def test_it_runs_under_the_pythons_of_both_images(kernel, monkeypatch, python, notebook):
    """With the standard library alone: unpacks, runs, lists; says what it was not made for; fails as it should."""
    kernel.python = need_interpreter(python)
    monkeypatch.undo()
    kernel.build(f"{tell('sys.version_info[:2]')}\nraise SystemExit(3)", notebook=notebook)
    code, lines = kernel.run()
    assert code == 3
    assert lines[0] == (
        "note: made for Python 3.12 with torch 2.10.0 or Python 3.13 with torch 2.11.0; "
        f"this is Python {python} with torch none, and goes on."
    )
    assert json.loads(lines[2]) == [int(part) for part in python.split(".")]
    assert lines[3] == "exit code 3 after 0 s, 1 files"
    assert list(json.loads((kernel.working / "outputs.json").read_text())["files"]) == ["kit.log"]


@pytest.mark.parametrize("python", ["3.12", "3.13"])
def test_the_python_of_the_session_chooses_among_wheels_for_both(kernel, python):
    kernel.python = need_interpreter(python)
    if subprocess.run([kernel.python, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip(f"Python {python} has no pip here")
    kernel.build(f"import tinywheel\n{tell('tinywheel.VALUE')}", datasets=["me/wheels"])
    wheels = {f"tinywheel-1.0-cp3{minor}-none-any.whl": wheel(minor) for minor in (12, 13)}
    entries = [
        {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "python": [f"3.{name[17:19]}"]}
        for name, content in wheels.items()
    ]
    table = json.dumps({"python": ["3.12", "3.13"], "wheels": entries}).encode()
    kernel.attach("datasets/me/wheels", wheels | {"wheels.json": table})
    code, lines = kernel.run()
    assert (code, lines[-2]) == (0, python.partition(".")[2])
    damaged = kernel.input / "datasets/me/wheels" / "tinywheel-1.0-cp313-none-any.whl"
    damaged.write_bytes(b"")  # of the other Python's, nothing is looked at
    assert kernel.run()[0] == (1 if python == "3.13" else 0)


@pytest.mark.parametrize(("budget", "seconds"), [("20m", 1200), ("3h", 6480)])
def test_a_training_keeps_to_the_budget_of_the_config(kernel, budget, seconds):
    """Where that is less than the session leaves."""
    kernel.build(tell("sys.argv[-2:]"), hours=2)
    text = kernel.script.read_text("utf-8").replace(
        "KERNEL = {", f"KERNEL = {{'budget': {duration(budget)!r}, ", 1
    )
    kernel.script.write_text(text, encoding="utf-8")
    option, left = kernel.told()
    assert option == "--budget"
    assert seconds - 10 <= int(left) <= seconds
