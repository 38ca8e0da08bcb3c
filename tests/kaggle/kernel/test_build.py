"""Builds: the same bytes wherever they are made, and nothing that would fail, or should not go, to Kaggle."""

import ast
import base64
import bz2
import hashlib
import io
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import yaml
from support.colours import experiment_content, write_competition
from support.small_kernels import train_outputs, write_push

import kit as package
from kit.core.runs import RunDir
from kit.experiment.config import validate
from kit.kaggle.kernel.build import build_kernels
from kit.kaggle.kernel.code_file import TEMPLATES, shareable_command
from kit.kaggle.kernel.folder import KernelFolder

PROJECT = Path(package.__file__).resolve().parents[1]
SLUG = "colour-squares"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with a competition; commands run there."""
    folder = tmp_path / "someone's project"
    write_competition(folder / f"data/{SLUG}", rows=18, test_rows=3, side=4)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def build(project, kit):
    """Builds by the command line from a config with some sections changed; gives exit code and output."""

    def call(*words, kind: str = "train", **sections) -> tuple[int, str]:
        competition = {"slug": SLUG, "path": f"data/{SLUG}"} | sections.pop("competition", {})
        content = experiment_content(Path("."), competition=competition, **sections)
        Path("squares.yaml").write_text(yaml.safe_dump(content))
        code, told = kit("kernel", "build", "squares.yaml", "--kind", kind, *words)
        if code:  # a test that takes it for made is told why it was not
            logging.getLogger(__name__).warning("%s", told)
        return code, told

    return call


def refusal(built: tuple[int, str]) -> str:
    code, told = built
    assert code == 1
    assert (told[:7], told.count("\n")) == ("error: ", 1), told
    return told.removeprefix("error: ").strip()


def built(name: str) -> tuple[dict, str]:
    """Metadata and code of a kernel that was built."""
    folder = KernelFolder.at(f"kernels/build/{name}")
    return folder.metadata, folder.code_file.read_text(encoding="utf-8")


def fact(code: str, name: str):
    """The value of a variable that the code file sets."""
    nodes = [node for node in ast.parse(code).body if isinstance(node, ast.Assign)]
    return next(ast.literal_eval(node.value) for node in nodes if node.targets[0].id == name)


def packed(code: str) -> dict[str, bytes]:
    archive = base64.b85decode("".join(fact(code, "ARCHIVE").split()))
    assert hashlib.sha256(archive).hexdigest() == fact(code, "KERNEL")["sha256"]
    with tarfile.open(fileobj=io.BytesIO(bz2.decompress(archive))) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar.getmembers()}


def config_of(code: str) -> dict:
    return yaml.safe_load(packed(code)["config.yaml"])


def pushed(name: str, owner: str = "tester") -> None:
    write_push(Path(f"kernels/build/{name}"), owner)


# The same bytes


@pytest.mark.slow
def test_two_copies_of_the_project_build_the_same(tmp_path):
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("KAGGLE", "PYTHON"))}
    found = {}
    for name, seed in ("here", "1"), ("somewhere else", "2"):
        copy = tmp_path / name
        for part in ("kit", "configs", "kernels"):
            shutil.copytree(PROJECT / part, copy / part, ignore=shutil.ignore_patterns("build"))
        shutil.copy(PROJECT / "requirements.txt", copy)
        if seed == "2":
            for cached in list(copy.rglob("__pycache__")):
                shutil.rmtree(cached)
            for file in (path for path in copy.rglob("*") if path.is_file()):
                file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
                os.utime(file, (1e9, 1e9))
        command = [sys.executable, "-m", "kit", "kernel", "build", "configs/digits.yaml", "--kind", "train"]
        subprocess.run(
            command, cwd=copy, env=environment | {"PYTHONHASHSEED": seed}, check=True, capture_output=True
        )
        folder = copy / "kernels/build/digits-train"
        found[name] = {path.name: path.read_bytes() for path in folder.iterdir()}
    here, there = found.values()
    assert set(here) == {"digits-train.py", "kernel-metadata.json", "build.json"}
    assert here == there
    assert len(here["digits-train.py"]) <= 700_000  # of kernel.max_code_kb: own code and labels need room, too


def test_a_kernel_joins_no_cluster_and_rehearses_none_and_says_so(build, tmp_path):
    assert build()[0] == 0
    files = packed(built("tiny-train")[1])
    cluster = {name.rpartition("/")[2] for name in files if name.startswith("kit/experiment/cluster/")}
    assert cluster == {"__init__.py", "joining.py", "slurm.py"}
    assert [name for name in files if "rehearsal" in name] == ["kit/kaggle/rehearsal/__init__.py"]
    for name, content in files.items():
        file = tmp_path / "there" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    ended = subprocess.run(
        [sys.executable, "-m", "kit", "kernel", "rehearse", "."],
        cwd=tmp_path / "there",
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[-1].endswith(
        "kernel rehearse: the kit of a kernel rehearses none; run it where the whole kit is"
    )
    code = "from kit.experiment.cluster.joining import need_ray; need_ray('ray')"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "there", capture_output=True, text=True)
    assert ended.stderr.strip().endswith(
        "KitError: --on ray: the kit of a kernel joins no cluster; run it where the whole kit is"
        if find_spec("ray")
        else "KitError: --on ray: Ray is not installed; pip install -r requirements-ray.txt"
    )


def test_the_same_build_again_changes_nothing_and_another_makes_the_rehearsal_stale(build):
    assert build()[0] == 0
    folder = KernelFolder.at("kernels/build/tiny-train")
    first, digest = folder.code_file.read_bytes(), folder.digest
    folder.write_rehearsal({"passed": True, "digest": digest})
    assert build()[0] == 0
    assert (folder.code_file.read_bytes(), folder.rehearsal["digest"]) == (first, folder.digest)
    assert build("--set", "training.epochs=3")[0] == 0
    assert folder.code_file.read_bytes() != first
    assert folder.rehearsal["digest"] == digest != folder.digest
    assert build("--notebook", "--name", "tiny-train")[0] == 0
    assert sorted(os.listdir(folder.path)) == [
        *("build.json", "kernel-metadata.json", "rehearsal.json", "tiny-train.ipynb")
    ]


def test_metadata_counts_for_the_digest(build):
    build()
    folder = KernelFolder.at("kernels/build/tiny-train")
    digest = folder.digest
    build("--set", "kernel.image=original")
    assert folder.digest != digest


# The code file


def test_the_head_says_what_it_is(build):
    code, told = build("--fold", "0,1", "--set", "training.epochs=3")
    assert code == 0, told
    _, text = built("tiny-train-folds-0-1")
    compile(text, "code", "exec")
    head, files = ast.get_docstring(ast.parse(text), clean=False), packed(text)
    assert text.startswith('"""' + head.splitlines()[0])
    lines = " ".join(head.split())
    assert lines.startswith("tiny train folds 0 1: a Kaggle kernel of the kit")
    assert "Trains folds 0, 1 of the experiment tiny (policies uniform; seeds 0)" in lines
    command = "python -m kit kernel build squares.yaml --kind train --fold 0,1 --set training.epochs=3"
    assert f"made by {command} made for Python 3." in lines
    assert re.search(r"made for Python 3\.\d+, torch \d\S+, torchvision \d\S+, timm \d", lines)
    assert (
        f"holds {len(files)} files, the kit's source among them; sha256 {fact(text, 'KERNEL')['sha256']}" in lines
    )
    _, _, stated = head.partition("\nconfig\n")
    stated = yaml.safe_load(stated)
    assert stated["training"]["epochs"] == 3
    assert stated["competition"]["path"] == f"data/{SLUG}"
    assert "optimizer" not in stated["training"]  # only what is not the default
    assert all(len(line) <= 115 for line in text.splitlines())


def test_what_travels_is_listed_with_its_size(build):
    _, told = build("--set", "kernel.accelerator=none")
    files = packed(built("tiny-train")[1])
    *lines, last, hours = told.splitlines()
    listed = {line.split()[1]: int(line.split()[0].replace(",", "")) for line in lines}
    assert listed == {name: len(content) for name, content in files.items()}
    assert {"kit/__main__.py", "kit/kaggle/kernel/build.py", "config.yaml", "folds.csv"} <= set(files)
    size = Path("kernels/build/tiny-train/tiny-train.py").stat().st_size
    assert last == f"kernels/build/tiny-train: {len(files)} files in {size / 1000:.0f} kB of code"
    assert hours == (
        "  Kaggle may end it after 12 h (kernel.hours is 12, for training; kernel.infer_hours 9, for the rerun)"
    )


@pytest.mark.parametrize(("kind", "hours"), [("train", 7.5), ("infer", 2)])
def test_each_kind_of_kernel_has_its_own_hours(build, kind, hours):
    """Kaggle's limit of the session, and what the kernel keeps to; a training to a budget of its own as well."""
    stated = ["kernel.hours=7.5", "kernel.infer_hours=2", "kernel.kernels=[me/tiny-train]", "budget=90m"]
    build(*(word for each in stated for word in ("--set", each)), kind=kind)
    folder = Path(f"kernels/build/tiny-{kind}")
    assert json.loads((folder / "build.json").read_text())["hours"] == hours
    code = (folder / f"tiny-{kind}.py").read_text()
    assert f"'hours': {hours}" in code
    assert ("'budget': 5400.0" in code) == (kind == "train")


@pytest.mark.parametrize("notebook", [False, True])
def test_nothing_tells_about_this_machine(project, kit, tmp_path, notebook):
    """Absolute paths on the command line and in the config, in all forms."""
    (tmp_path / "hidden" / "weights").mkdir(parents=True)
    (tmp_path / "hidden/weights/net.pth").write_bytes(b"1")
    competition = {"slug": SLUG, "path": str(project / "data" / SLUG), "train_images": "train/{id}.png"}
    content = experiment_content(project, competition=competition, kernel={"datasets": ["me/net"]})
    config = tmp_path / "hidden" / "squares.yaml"
    config.write_text(yaml.safe_dump(content))
    weights = tmp_path / "hidden/weights/net.pth"
    words = ["--set", f"model.weights={weights}", "--set", f"competition.path={project}/data/{SLUG}/"]
    words += [
        "--set",
        f"competition={{slug: {SLUG}, path: {project}/data/{SLUG}, train_images: 'train/{{id}}.png',"
        " test_images: 'test/{id}.png'}",
    ]
    words += ["--output", f"{tmp_path}/hidden/out/", *(["--notebook"] if notebook else [])]
    code, told = kit("kernel", "build", config, "--kind", "train", *words)
    assert code == 0, told
    folder = tmp_path / f"hidden/out/kernels/build/tiny-train{'-notebook' * notebook}"
    sent = [path for path in folder.iterdir() if path.name != "build.json"]
    assert len(sent) == 2
    text = next(path for path in sent if path.name != "kernel-metadata.json").read_text("utf-8")
    code = "".join(json.loads(text)["cells"][0]["source"]) if notebook else text
    readable = code.replace(fact(code, "ARCHIVE"), "")
    everything = [readable, (folder / "kernel-metadata.json").read_text(), packed(code)["config.yaml"].decode()]
    for clue in (str(tmp_path), "hidden", "someone", f"{Path.home()}/"):
        assert not [text for text in everything if clue in text], clue
    command = " ".join(ast.get_docstring(ast.parse(code)).partition("made by")[2].partition("made for")[0].split())
    assert command.startswith("python -m kit kernel build squares.yaml --kind train --set model.weights=net.pth")
    assert f"--set competition.path={SLUG} --set" in command
    assert "path: colour-squares, train_images:" in command
    assert command.partition(" --output ")[2].split()[0] == "out"
    assert config_of(code)["model"]["weights"] == "net.pth"
    assert json.loads((folder / "build.json").read_text())["weights"] == str(weights)


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("/home/someone/configs/digits.yaml", "digits.yaml"),
        ("~/configs/digits.yaml", "digits.yaml"),
        ("~someone/configs/digits.yaml", "digits.yaml"),
        ("../someone/configs/digits.yaml", "digits.yaml"),
        (r"C:\Users\someone\digits.yaml", "digits.yaml"),
        ("/home/some'one, \"and] others}/digits.yaml", "digits.yaml"),
        ("competition={path: '/home/some, one/b', slug: c/d}", "competition={path: 'b', slug: c/d}"),
        ("C:/Users/some one/digits.yaml", "digits.yaml"),
        (r"\\host\share\digits.yaml", "digits.yaml"),
        ("/home/some one/digits.yaml", "digits.yaml"),
        ("--output=/home/someone/out/", "--output=out"),
        ("x=[/home/a/b,/home/c/d]", "x=[b,d]"),
        (
            "competition={path: /home/a/b, test_images: test/{id}.png}",
            "competition={path: b, test_images: test/{id}.png}",
        ),
        ('competition={path: "/home/a/b", slug: c/d}', 'competition={path: "b", slug: c/d}'),
        ("configs/digits.yaml", "configs/digits.yaml"),
        ("./configs/digits.yaml", "./configs/digits.yaml"),
        ("competition.test_images=test/{id}.png", "competition.test_images=test/{id}.png"),
        ("kernel.datasets=[me/a,me/b]", "kernel.datasets=[me/a,me/b]"),
        ("policies.flat.lr=slice(1e-6, 1e-2)", "policies.flat.lr=slice(1e-6, 1e-2)"),
    ],
)
def test_of_paths_on_the_command_line_the_last_name_is_told(word, shown):
    assert shlex.split(shareable_command(["kernel", word])) == ["python", "-m", "kit", "kernel", shown]


def test_a_config_with_quotes_stays_a_text(build):
    columns = {"id": 'a """b\\n"""', "label": "\\"}
    table = Path(f"data/{SLUG}/train.csv")
    pd.read_csv(table).rename(columns={"id": columns["id"], "label": columns["label"]}).to_csv(table, index=False)
    for name in ("test.csv", "sample_submission.csv"):
        path = table.with_name(name)
        pd.read_csv(path).rename(columns={"id": columns["id"]}).to_csv(path, index=False)
    images = {f"{part}_images": f"{part}/{{{columns['id']}}}.png" for part in ("train", "test")}
    code, told = build(competition=columns | images)
    assert code == 0, told
    _, text = built("tiny-train")
    assert columns["id"] in config_of(text)["competition"]["train_images"]
    head = ast.get_docstring(ast.parse(text), clean=False)
    assert yaml.safe_load(head.partition("\nconfig\n")[2])["competition"]["label"] == "\\"


def test_a_notebook_is_one_that_jupyter_takes_and_does_the_same(build):
    nbformat = pytest.importorskip("nbformat")
    build()
    _, script = built("tiny-train")
    build("--notebook", "--name", "tiny-train")
    metadata, text = built("tiny-train")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert [cell["cell_type"] for cell in notebook["cells"]] == ["code"]
    code = "\n\n".join(cell["source"] for cell in notebook["cells"])
    assert (metadata["kernel_type"], metadata["code_file"]) == ("notebook", "tiny-train.ipynb")
    assert code.replace(" --notebook --name tiny-train", "") == script


# Metadata


def test_every_switch_is_written_out(build):
    owned = {"owner": "tester", "datasets": ["me/wheels"], "models": ["g/m/pyTorch/b/1"], "image": "original"}
    code, told = build(kernel=owned)
    assert code == 0, told
    metadata, text = built("tiny-train")
    assert metadata == {
        "id": "tester/tiny-train",
        "title": "tiny train",
        "code_file": "tiny-train.py",
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": False,
        "dataset_sources": ["me/wheels"],
        "competition_sources": [SLUG],
        "kernel_sources": [],
        "model_sources": ["g/m/pyTorch/b/1"],
        "keywords": [],
        "docker_image_pinning_type": "original",
        "machine_shape": "NvidiaTeslaT4",
    }
    facts = fact(text, "KERNEL")
    assert facts.pop("sha256")
    runs = [f"uniform/seed0/fold{fold}" for fold in range(3)]
    assert facts.pop("experiment") == "tiny"
    assert facts.pop("made_for") == {"python": ["3.12", "3.13"], "torch": {"3.12": "2.10.0", "3.13": "2.11.0"}}
    assert facts == {"internet": False, "hours": 12.0, "datasets": ["me/wheels"], "code": "", "runs": runs}


def test_without_an_owner_a_gpu_or_a_competition_of_kaggles(build):
    code, _ = build("--set", f"competition.slug=me/{SLUG}", "--set", "kernel.accelerator=none")
    assert code == 0
    metadata, text = built("tiny-train")
    assert metadata["id"] == "tiny-train"
    assert (metadata["enable_gpu"], "machine_shape" in metadata) == (False, False)
    assert (metadata["dataset_sources"], metadata["competition_sources"]) == ([f"me/{SLUG}"], [])
    assert config_of(text)["competition"]["path"] == f"data/{SLUG}"


def test_an_infer_kernel_never_has_internet(build):
    build("--set", "kernel.internet=true")
    assert built("tiny-train")[0]["enable_internet"] is True
    assert fact(built("tiny-train")[1], "KERNEL")["internet"] is True
    pushed("tiny-train")
    code, told = build("--set", "kernel.internet=true", kind="infer")
    assert (code, told.splitlines()[-2:]) == (
        0,
        [
            "  attaches the outputs of tester/tiny-train: on Kaggle the latest complete version of each",
            "  tester/tiny-train: not fetched here, so the kernel cannot tell whether what Kaggle mounts is what "
            "you mean (python -m kit kernel fetch, then build again)",
        ],
    )
    metadata, text = built("tiny-infer")
    assert metadata["enable_internet"] is False
    assert fact(text, "KERNEL")["internet"] is False
    assert metadata["kernel_sources"] == config_of(text)["kernel"]["kernels"] == ["tester/tiny-train"]
    assert "folds.csv" not in packed(text)
    assert metadata["competition_sources"] == [SLUG]


def test_an_infer_kernel_attaches_the_train_kernels_of_its_experiment(build):
    build("--fold-each")
    build("--set", "name=other")
    for name in ("tiny-train-fold-0", "tiny-train-fold-2", "other-train"):
        pushed(name)
    build(kind="infer")
    assert built("tiny-infer")[0]["kernel_sources"] == ["tester/tiny-train-fold-0", "tester/tiny-train-fold-2"]
    build("--set", "kernel.kernels=[else/a-kernel]", kind="infer")
    assert built("tiny-infer")[0]["kernel_sources"] == ["else/a-kernel"]
    assert build("--set", "kernel.kernels=[]", "--set", "kernel.datasets=[me/runs]", kind="infer")[0] == 0
    metadata, _ = built("tiny-infer")
    assert (metadata["kernel_sources"], metadata["dataset_sources"]) == ([], ["me/runs"])


def test_the_real_client_makes_the_slug_of_the_title(build):
    slugify = pytest.importorskip("slugify").slugify  # what kaggle_api_extended.kernels_push compares with
    names = ["My Net_2.6", "a-b--c", "dots...and   spaces", "a42"]
    for name in names:
        assert build("--name", f"{name} train")[0] == 0
    kernels = [KernelFolder(path).metadata for path in sorted(Path("kernels/build").iterdir())]
    assert len(kernels) == len(names)
    for metadata in kernels:
        assert slugify(metadata["title"]) == metadata["id"]
        assert metadata["code_file"] == f"{metadata['id']}.py"


@pytest.mark.parametrize(("name", "slug"), [("42 train", "42-train"), ("_2021 plants", "2021-plants")])
def test_a_name_begins_with_a_letter(build, name, slug):
    assert refusal(build("--name", name)) == (
        f"'{slug}': a kernel's name begins with a letter; give --name, like kit-{slug}"
    )


def test_a_usual_name_begins_with_a_letter(build):
    build("--set", "name=2021-plants", "--fold", "0")
    metadata, _ = built("kit-2021-plants-train-fold-0")
    assert (metadata["id"], metadata["title"]) == ("kit-2021-plants-train-fold-0", "kit 2021 plants train fold 0")


def test_a_notebook_has_another_name_than_the_script(build):
    """Kaggle does not change the type of a kernel that is there."""
    build("--notebook", "--fold", "0")
    build("--fold", "0")
    types = {path.name: KernelFolder(path).metadata["kernel_type"] for path in Path("kernels/build").iterdir()}
    assert types == {"tiny-train-fold-0": "script", "tiny-train-fold-0-notebook": "notebook"}


@pytest.mark.parametrize("first", ["script", "notebook"])
def test_what_was_pushed_keeps_its_type(build, first):
    words = {"script": ["--name", "mine here"], "notebook": ["--name", "mine here", "--notebook"]}
    other = {"script": "notebook", "notebook": "script"}[first]
    build(*words[first])
    assert build(*words[other])[0] == 0  # not pushed yet
    build(*words[first])
    pushed("mine-here")
    before = {path.name: path.read_bytes() for path in Path("kernels/build/mine-here").iterdir()}
    assert refusal(build(*words[other])) == (
        f"kernels/build/mine-here was pushed as a {first}, and Kaggle does not change that of a kernel; give the "
        f"{other} another name: --name mine-here-{other}"
    )
    assert {path.name: path.read_bytes() for path in Path("kernels/build/mine-here").iterdir()} == before
    assert build(*words[first])[0] == 0


# What an infer kernel attaches


@pytest.fixture
def experiment(project):
    competition = {"slug": SLUG, "path": f"data/{SLUG}"}
    return validate(experiment_content(Path("."), competition=competition), "squares.yaml")


def fetched(experiment, name: str, folds: tuple[int, ...], tmp_path: Path, fingerprint: str = "f") -> Path:
    """What a fetch of the pushed kernel leaves in its output/; a copy of its runs is in runs/."""
    made = tmp_path / f"made-{name}"
    train_outputs(made, experiment, folds, fingerprint)
    output = Path("kernels/build") / name / "output"
    shutil.copytree(made, output, dirs_exist_ok=True)
    shutil.copytree(made / "runs", "runs", dirs_exist_ok=True)
    return output


def test_an_infer_kernel_records_the_runs_that_were_fetched(build, experiment, tmp_path):
    for fold in (0, 1):
        build("--fold", str(fold))
        pushed(f"tiny-train-fold-{fold}")
    output = fetched(experiment, "tiny-train-fold-0", (0,), tmp_path)
    code, told = build(kind="infer")
    run = "runs/tiny/uniform/seed0/fold0"
    digest = hashlib.sha256((output / run / "run.json").read_bytes()).hexdigest()
    assert fact(built("tiny-infer")[1], "KERNEL")["attached"] == {"tester/tiny-train-fold-0": {run: digest}}
    assert (code, told.splitlines()[-1]) == (
        0,
        "  tester/tiny-train-fold-1: not fetched here, so the kernel cannot tell whether what Kaggle mounts is "
        "what you mean (python -m kit kernel fetch, then build again)",
    )
    fetched(experiment, "tiny-train-fold-1", (1,), tmp_path)
    assert "not fetched here" not in build(kind="infer")[1]
    attached = fact(built("tiny-infer")[1], "KERNEL")["attached"]
    assert [list(runs) for runs in attached.values()] == [[run], ["runs/tiny/uniform/seed0/fold1"]]
    assert "attached" not in fact(built("tiny-train-fold-0")[1], "KERNEL")


def test_another_training_is_another_infer_kernel(build, experiment, tmp_path):
    build()
    pushed("tiny-train")
    digests = []
    for fingerprint in ("one", "one", "two"):
        shutil.rmtree(tmp_path / "made-tiny-train", ignore_errors=True)
        fetched(experiment, "tiny-train", (0, 1, 2), tmp_path, fingerprint)
        build(kind="infer")
        digests.append(KernelFolder.at("kernels/build/tiny-infer").digest)
    assert digests[0] == digests[1] != digests[2]


def test_runs_that_are_here_but_not_attached_are_told(build, experiment, tmp_path):
    """As where the rest of a kernel's runs was pushed later, in a version of its own."""
    build()
    pushed("tiny-train")
    output = fetched(experiment, "tiny-train", (0, 1, 2), tmp_path)
    assert "WARNING" not in build(kind="infer")[1]
    shutil.rmtree(output / "runs/tiny/uniform/seed0/fold1")
    assert build(kind="infer")[1].splitlines()[-1] == (
        "  WARNING: it predicts without uniform seed 0 fold 1: finished here, but in no kernel that it attaches; "
        "pack runs/ into an archive in a dataset, which Kaggle unpacks, and name that in kernel.datasets"
    )


def predict_as(folder: Path, predicted: dict) -> None:
    """Let runs below a folder be such as were predicted in these views."""
    for file in folder.rglob("run.json"):
        run = RunDir(file.parent)
        run.write(run.record.with_fields(predicted=predicted))


OTHER_VIEWS = (
    "  prediction: the config asks for {}, but out-of-fold predictions are in {}, and so are those of test rows: "
    "the decision rule is theirs; "
)


def test_other_views_than_those_of_attached_runs_are_told(build, experiment, tmp_path):
    """They predict in the views of their out-of-fold predictions, whatever was done with the runs here since."""
    build()
    pushed("tiny-train")
    output = fetched(experiment, "tiny-train", (0, 1, 2), tmp_path)
    assert "prediction:" not in build(kind="infer")[1]
    told = build(kind="infer", prediction={"views": ["hflip"]})[1].splitlines()[-1]
    assert told.startswith(OTHER_VIEWS.format("plain + hflip", "one view") + "state these, or predict anew here")
    predict_as(output, {"turns": ["hflip"]})
    assert "prediction:" not in build(kind="infer", prediction={"views": ["hflip"]})[1]
    assert OTHER_VIEWS.format("one view", "plain + hflip") in build(kind="infer")[1]
    predict_as(output / "runs/tiny/uniform/seed0/fold1", {"size": 40})
    shutil.rmtree("kernels/build/tiny-infer")
    assert "was predicted at 32 px, others at 40" in refusal(build(kind="infer"))
    assert not Path("kernels/build/tiny-infer").exists()


def test_other_views_than_those_of_runs_in_a_dataset_are_told(build, experiment, tmp_path):
    train_outputs(tmp_path / "made", experiment, (0, 1, 2))
    shutil.copytree(tmp_path / "made/runs", "runs")
    kernel = {"datasets": ["tester/finished-runs"]}
    assert "prediction:" not in build(kind="infer", kernel=kernel)[1]
    told = build(kind="infer", kernel=kernel, prediction={"views": ["d4"]})[1].splitlines()[-1]
    assert told == OTHER_VIEWS.format("plain + d4", "one view") + "python -m kit run predicts both anew"


def test_an_older_version_that_was_fetched_is_told(build, experiment, tmp_path):
    build()
    pushed("tiny-train")
    fetched(experiment, "tiny-train", (0, 1, 2), tmp_path)
    folder = KernelFolder(Path("kernels/build/tiny-train"))
    folder.write_fetched({"version": 1, "missing": []})
    assert "was fetched here, and" not in build(kind="infer")[1]
    folder.write_push(folder.push | {"version": 2})
    told = build(kind="infer")[1]
    assert "not fetched here" not in told
    assert (
        "  tester/tiny-train: version 1 was fetched here, and version 2 was pushed since, which Kaggle mounts "
        "once it is complete: the kernel cannot tell whether its runs are what you mean (python -m kit kernel "
        "fetch kernels/build/tiny-train, then build again)\n"
    ) in told
    assert fact(built("tiny-infer")[1], "KERNEL")["attached"] == {}


def test_a_pushed_kernel_of_another_experiment_does_not_silence_the_warning(build, experiment, tmp_path):
    """What it holds of its own runs/ is nothing that this experiment predicts with."""
    build()
    pushed("tiny-train")
    fetched(experiment, "tiny-train", (0, 1, 2), tmp_path)
    folder = KernelFolder(Path("kernels/build/tiny-train"))
    shutil.rmtree(folder.output)
    kernels = ["--set", "kernel.kernels=[tester/tiny-train]"]
    assert "WARNING" not in build(*kernels, kind="infer")[1]  # may hold them, when it is fetched
    folder.write_push(folder.push | {"build": folder.push["build"] | {"experiment": "other"}})
    assert (
        "  WARNING: it predicts without uniform seed 0 fold 0, uniform seed 0 fold 1, uniform seed 0 fold 2: "
        in (build(*kernels, kind="infer")[1])
    )


def test_damaged_outputs_are_to_be_fetched_again(build, experiment, tmp_path):
    build()
    pushed("tiny-train")
    output = fetched(experiment, "tiny-train", (0,), tmp_path)
    (output / "runs/tiny/uniform/seed0/fold0/run.json").write_text("{")
    told = refusal(build(kind="infer"))
    assert told.startswith("kernels/build/tiny-train/output/runs/tiny/uniform/seed0/fold0/run.json is damaged")
    assert told.endswith("; python -m kit kernel fetch kernels/build/tiny-train")


# What a kernel is of


def test_folds_and_names(build):
    build("--fold", "2,0")
    assert config_of(built("tiny-train-folds-0-2")[1])["folds"]["run"] == [2, 0]
    assert KernelFolder.at("kernels/build/tiny-train-folds-0-2").record.folds == [0, 2]
    build("--fold", "0", "--fold", "1,2")
    assert KernelFolder.at("kernels/build/tiny-train").record.folds == [0, 1, 2]
    build("--fold", "1", "--name", "Some Name")
    assert KernelFolder.at("kernels/build/some-name").record.folds == [1]


def test_a_kernel_for_each_fold_differs_in_its_fold_only(build):
    _, told = build("--fold-each")
    assert re.findall(r"kernels/build/(\S+): \d+ files", told) == [f"tiny-train-fold-{fold}" for fold in range(3)]
    assert told.count("kit/__main__.py") == 1
    folders = [KernelFolder.at(f"kernels/build/tiny-train-fold-{fold}") for fold in range(3)]
    assert [folder.record.folds for folder in folders] == [[0], [1], [2]]
    assert len({folder.record.family for folder in folders}) == 1
    files = [packed(folder.code_file.read_text("utf-8")) for folder in folders]
    assert [yaml.safe_load(each.pop("config.yaml"))["folds"]["run"] for each in files] == [[0], [1], [2]]
    assert files[0] == files[1] == files[2]
    build("--fold-each", "--fold", "0,2", "--name", "mine here")
    assert sorted(os.listdir("kernels/build"))[:2] == ["mine-here-fold-0", "mine-here-fold-2"]
    build("--set", "training.epochs=3")
    assert KernelFolder.at("kernels/build/tiny-train").record.family != folders[0].record.family


def test_each_kernel_is_there_as_soon_as_it_is_built(project):
    content = experiment_content(Path("."), competition={"slug": SLUG, "path": f"data/{SLUG}"})
    kernels = build_kernels(validate(content, "squares.yaml"), "train", fold_each=True, name="mine here")
    first = next(kernels)
    assert os.listdir("kernels/build") == ["mine-here-fold-0"]
    assert (first.folder.record.folds, "kit/__main__.py" in first.files) == ([0], True)
    assert [each.folder.record.slug for each in kernels] == ["mine-here-fold-1", "mine-here-fold-2"]


@pytest.mark.parametrize("name", ["launcher.py", "train/kernel.py"])
def test_code_that_was_not_rehearsed_is_of_another_family(build, tmp_path, monkeypatch, name):
    """Also where only a template has changed."""
    build("--fold", "0")
    templates = shutil.copytree(TEMPLATES, tmp_path / "templates", ignore=shutil.ignore_patterns("build"))
    (templates / name).write_text((templates / name).read_text() + "\nprint('more')\n")
    monkeypatch.setattr("kit.kaggle.kernel.code_file.TEMPLATES", templates)
    build("--fold", "1")
    first, second = (KernelFolder.at(f"kernels/build/tiny-train-fold-{fold}").record for fold in (0, 1))
    assert first.family != second.family


def test_an_infer_kernel_carries_the_decision_rule_of_the_pooled_runs(build):
    attached, auto = ("--set", "kernel.datasets=[me/runs]"), {"rule": "auto"}
    note = "the runs are not pooled here, so the kernel fits its decision rule"
    assert note in build(*attached, kind="infer", scoring=auto)[1]
    assert not [name for name in packed(built("tiny-infer")[1]) if name.startswith("runs/")]
    chosen = {
        "average": "macro",
        "beta": 1.0,
        "zero_division": 0,
        "rule": "auto",
        "at_least": None,
        "at_most": None,
    }
    content = {"metric": "macro F1", "oof": 1.0, "optimistic": 1.0, "rule": {"kind": "argmax"}, "rules": []}
    content |= {"scoring": chosen, "classes": [], "submission": "labels", "oof_rows": 3, "train_rows": 3}
    content |= {"runs": [], "per_class": []}
    scores = Path("runs/tiny/uniform/scores.json")
    scores.parent.mkdir(parents=True)
    scores.write_text(json.dumps(content))
    assert "decision rule" not in build(*attached, kind="infer", scoring=auto)[1]
    assert json.loads(packed(built("tiny-infer")[1])["runs/tiny/uniform/scores.json"]) == content
    assert note in build(*attached, kind="infer", scoring=auto | {"beta": 2})[1]
    assert note not in build(*attached, kind="infer", scoring=auto | {"average": "micro"})[1]
    build()
    assert "runs/tiny/uniform/scores.json" not in packed(built("tiny-train")[1])


def test_an_infer_kernel_has_no_folds_of_its_own(build):
    for words in (["--fold", "0"], ["--fold-each"]):
        assert refusal(build(*words, kind="infer")) == (
            "--fold, --fold-each: an infer kernel predicts with all folds that are attached"
        )


def test_a_refused_build_leaves_nothing(build):
    assert build("--fold", "7")[0] == 1
    assert not Path("kernels").exists()


def test_a_single_run_on_two_gpus_is_pointed_out(build):
    note = "  NvidiaTeslaT4 is 2 GPUs, of which this kernel's single run uses one"
    assert build("--fold", "0")[1].splitlines()[-1] == note
    assert note not in build("--fold", "0,1")[1]
    assert note not in build("--fold", "0", "--set", "seeds=[0,1]")[1]
    assert note not in build("--fold", "0", "--set", "kernel.accelerator=none")[1]


def test_policies_and_overrides_travel(build):
    code, told = build(
        "--policy", "uniform", "--set", "training.epochs=7", policies={"uniform": {"lr": 0.5}, "b": {"lr": 1}}
    )
    assert code == 0, told
    config = config_of(built("tiny-train")[1])
    assert (list(config["policies"]), config["training"]["epochs"]) == (["uniform"], 7)
    assert KernelFolder.at("kernels/build/tiny-train").record.policies == ["uniform"]


def test_folds_are_those_of_the_local_runs(build):
    """Where runs/<name> has some, theirs; here with a plan that no seed makes."""
    from kit.competition.folds import FoldPlan, write_folds
    from kit.competition.load import load_competition
    from kit.core.files import write_text
    from kit.core.paths import OutputDirs
    from kit.core.runs import ExperimentDir, RunKey, RunRecord
    from kit.experiment.config import load_experiment
    from kit.experiment.fingerprint import digests
    from kit.experiment.fold_plan import decide_folds

    build()
    made = pd.read_csv(io.BytesIO(packed(built("tiny-train")[1])["folds.csv"]))
    assert list(made.columns) == ["id", "fold"]
    assert made["fold"].value_counts().to_dict() == {0: 6, 1: 6, 2: 6}
    experiment = load_experiment("squares.yaml")
    competition, folder = load_competition(experiment.competition), ExperimentDir(Path("runs/tiny"))
    plan = decide_folds(experiment, folder, competition, OutputDirs())
    other = FoldPlan(plan.ids, (plan.fold + 1) % 3)
    write_folds(other, folder.folds)
    write_text(folder.config, experiment.to_yaml())
    depends_on = digests(experiment, competition, other)
    record = RunRecord(status="finished", policy="uniform", seed=0, fold=0, depends_on=depends_on)
    run = folder.run(RunKey("uniform", 0, 0))
    run.write(record)
    for file in (run.weights, run.oof, run.test, run.rates):
        file.touch()
    code, told = build("--fold", "1")
    assert code == 0, told
    assert packed(built("tiny-train-fold-1")[1])["folds.csv"] == folder.folds.read_bytes()
    assert folder.folds.read_bytes() != packed(built("tiny-train")[1])["folds.csv"]

    told = refusal(build("--set", "training.epochs=9"))
    assert told.startswith("runs/tiny was made from another config (training.epochs: 2 there, 9 here)")
    assert told.endswith(
        "give the experiment another name (--set name=...), or start it anew with python -m kit run --replace"
    )
    with open(f"data/{SLUG}/train/train000.png", "ab") as image:
        image.write(b"more")
    assert "was made from other images (uniform/seed0/fold0); give" in refusal(build())
    assert build("--set", "name=anew")[0] == 0


# What is refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--name", "abc"], "'abc': a kernel's name has 5 to 50 characters, this has 3; give --name NAME"),
        (
            ["--name", "x" * 51],
            f"'{'x' * 51}': a kernel's name has 5 to 50 characters, this has 51; give --name NAME",
        ),
        (["--name", "--- "], "'': a kernel's name has 5 to 50 characters, this has 0; give --name NAME"),
        (
            ["--set", "model.weights=hub"],
            "model.weights: hub needs a network, and kernel.internet is false; put a weight file into a dataset "
            "(python -m kit kernel weights FILE) and name it in kernel.datasets, or set kernel.internet=true",
        ),
        (
            ["--set", "model.weights=/some/where/net.pth"],
            "model.weights: net.pth has to be attached to the kernel; put it into a dataset (python -m kit kernel "
            "weights FILE) and name that in kernel.datasets",
        ),
        (
            ["--set", "kernel.max_code_kb=20"],
            "so the code has to travel as a dataset: name its owner in kernel.owner",
        ),
        (["--fold", "3"], "folds.run: there are folds 0 to 2; got 3"),
        (["--set", "kernel.datasets=[wheels]"], "kernel.datasets"),
    ],
)
def test_what_would_fail_on_kaggle_is_refused(build, words, message):
    assert message in refusal(build(*words))
    assert not list(Path("kernels/build").glob("*/build.json"))


def test_weights_that_something_may_hold_are_taken(build):
    assert build("--set", "model.weights=net.pth", "--set", "kernel.datasets=[me/net]")[0] == 0
    assert build("--set", "model.weights=net.pth", "--set", "kernel.models=[g/m/pyTorch/b/1]")[0] == 0
    assert build("--set", "model.weights=hub", "--set", "kernel.internet=true")[0] == 0


def test_an_infer_kernel_needs_something_to_predict_with(build):
    build()  # built, but never pushed
    assert refusal(build(kind="infer")) == (
        "kernel.kernels: no train kernel of tiny was pushed from here, and nothing else is attached, so there are "
        "no weights to predict with; push one, or name kernels or datasets"
    )
    assert refusal(build("--set", "kernel.kernels=[]", kind="infer")).startswith(
        "kernel.kernels: empty, and nothing"
    )
    assert not Path("kernels/build/tiny-infer").exists()


def test_a_competition_that_kaggle_does_not_know(build):
    told = refusal(build("--set", "competition.slug=null"))
    assert told.startswith("competition.slug: missing; a kernel finds its data by Kaggle's name")


def test_a_secret_in_the_config_is_not_built(build):
    key = "KGAT" + "_" + "0123456789abcdef" * 2
    told = refusal(
        build(
            competition={"id": "id", "train_images": "train/{id}.png", "label": "label"},
            policies={"uniform": {"lr": 0.1, "description": f"my token is {key}"}},
        )
    )
    assert told == "a secret must not travel with the code; found in config.yaml (a Kaggle API token)"
    assert not list(Path("kernels/build").glob("*/build.json"))


def test_a_secret_on_the_command_line_is_not_told_in_the_head(build):
    key = "hf" + "_" + "abcdefghijABCDEFGHIJ0123456789"
    told = refusal(build("--set", f"name={key}", "--set", "name=tiny"))
    assert told == "a secret must not travel with the code; found in the command line (a Hugging Face token)"


# Code that is too large for one file


def test_above_the_cap_the_code_is_a_dataset(build):
    code, told = build("--set", "kernel.max_code_kb=20", "--set", "kernel.owner=tester")
    assert code == 0, told
    assert told.splitlines()[-1] == (
        "  the code is too large for one file: it travels as the dataset tester/tiny-train-code, pushed with the "
        "kernel"
    )
    metadata, text = built("tiny-train")
    folder = KernelFolder.at("kernels/build/tiny-train")
    bundle = (folder.code_dataset / "bundle.bin").read_bytes()
    assert len(text.encode()) <= 20_000
    assert fact(text, "KERNEL")["code"] == "tester/tiny-train-code"
    assert fact(text, "KERNEL")["sha256"] == folder.record.sha256 == hashlib.sha256(bundle).hexdigest()
    assert metadata["dataset_sources"] == ["tester/tiny-train-code"]
    about = json.loads((folder.code_dataset / "dataset-metadata.json").read_text())
    assert (about["id"], about["title"]) == ("tester/tiny-train-code", "tiny train code")
    assert build("--set", "kernel.owner=tester")[0] == 0
    assert not folder.code_dataset.exists()
    assert built("tiny-train")[0]["dataset_sources"] == []


def test_long_names_have_code_datasets_of_their_own(build):
    name = "a-very-long-name-of-a-kernel-that-is-cut"
    code, told = build(
        "--fold-each", "--name", name, "--set", "kernel.max_code_kb=20", "--set", "kernel.owner=tester"
    )
    assert code == 0, told
    sources = [built(f"{name}-fold-{fold}")[0]["dataset_sources"][0] for fold in range(3)]
    assert len(set(sources)) == 3
    for source in sources:
        assert re.fullmatch(r"tester/[a-z0-9]+(-[a-z0-9]+)*-code", source)
        assert len(source.partition("/")[2]) <= 50


# Extra rows


def extra_table(name: str, rows: int = 3, side: str = "test") -> dict:
    """A table of labels of the competition's own images in a folder of its own."""
    folder = Path("labels")
    folder.mkdir(exist_ok=True)
    ids = [f"{side}{row % 3:03d}" for row in range(rows)]
    lines = [f"{each},{row // 3 % 3},red" for row, each in enumerate(ids)]
    (folder / name).write_text("\n".join(["id,fold,label", *lines]) + "\n")
    return {"table": name, "path": "labels", "images": side, "fold": "fold"}


def test_a_small_table_of_the_competitions_own_images_travels(build):
    table = extra_table("labels.csv", 9)
    build("--name", "extra-train", competition={"extra": [table, table | {"source": "digits"}]})
    metadata, code = built("extra-train")
    files, extra = packed(code), config_of(code)["competition"]["extra"]
    for place, stated in enumerate(extra):
        assert stated["path"] == f"extra/{place}"
        assert files[f"extra/{place}/labels.csv"] == Path("labels/labels.csv").read_bytes()
    assert metadata["dataset_sources"] == []


def test_a_table_with_a_slug_is_attached(build):
    table = extra_table("labels.csv", 9) | {"slug": "jo/more-labels"}
    build("--name", "extra-train", competition={"extra": table})
    metadata, code = built("extra-train")
    assert config_of(code)["competition"]["extra"][0]["path"] == "data/more-labels"
    assert not any(name.startswith("extra/") for name in packed(code))
    assert (metadata["dataset_sources"], metadata["kernel_sources"]) == (["jo/more-labels"], [])
    kernels = {"kernels": ["jo/more-labels"], "datasets": ["jo/wheels"]}
    build("--name", "extra-train", competition={"extra": table}, kernel=kernels)
    metadata, _ = built("extra-train")
    assert (metadata["dataset_sources"], metadata["kernel_sources"]) == (["jo/wheels"], ["jo/more-labels"])
    build("--name", "extra-infer", kind="infer", competition={"extra": table}, kernel={"kernels": ["jo/runs"]})
    assert built("extra-infer")[0]["dataset_sources"] == []  # nothing of it is read there


def test_a_table_in_the_competitions_folder_needs_nothing(build):
    text = Path(f"data/{SLUG}/train.csv").read_text().replace("train00", "test00")
    Path(f"data/{SLUG}/labels.csv").write_text("\n".join(text.splitlines()[:4]) + "\n")
    for path in ({}, {"path": f"data/{SLUG}/"}):
        build("--name", "extra-train", competition={"extra": {"table": "labels.csv", "images": "test"} | path})
        assert config_of(built("extra-train")[1])["competition"]["extra"][0]["path"] is None


def test_a_kernel_that_would_not_find_extra_rows_is_refused(build):
    table = extra_table("labels.csv", 9)
    Path("labels/test000.png").write_bytes(Path(f"data/{SLUG}/test/test000.png").read_bytes())
    Path("labels/one.csv").write_text("id,label\ntest000,red\n")
    own_images = {"table": "one.csv", "path": "labels", "images": "{id}.png"}
    told = refusal(build(competition={"extra": own_images}))
    assert "competition.extra[0]: a kernel does not find the images of one.csv; put it into a dataset" in told
    lines = Path("labels/labels.csv").read_text().splitlines()
    noted = [f"{line},{'note' if not row else 'x' * 34_000}" for row, line in enumerate(lines)]
    Path("labels/labels.csv").write_text("\n".join(noted) + "\n")
    told = refusal(build(competition={"extra": table}))
    assert "labels.csv has 306 kB, more than the 300 kB that travel with the code; put it into a dataset" in told
