"""The probe: what it reports of this machine in a rehearsal, and the whole way through the real client."""

import ast
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import pytest
import torch
from support.commands import kit_here
from support.fake_kaggle import Dataset, answer, drop, instead
from support.interpreters import need_interpreter
from support.kaggle_setting import runs_kernels
from support.refusals import refusal_of
from support.session_facts import WROTE, outputs
from support.small_kernels import asked

import kit as package
from kit.core.jsonable import json_model
from kit.kaggle.facts import SessionFacts, read_facts
from kit.kaggle.kernel import probe as probing
from kit.kaggle.kernel.folder import KernelFolder
from kit.kaggle.kernel.probe import KERNELS, probe, write_probe
from kit.kaggle.rehearsal.sandbox import run_isolated

LISTING = "ListKernelSessionOutput"
URL = "https://www.kaggle.com/code/tester/kit-probe"


@pytest.fixture
def reports(server, impatient, monkeypatch):
    """Kaggle runs probes: the report is one by hand; kernels that are to fail run isolated, for two seconds."""
    monkeypatch.setattr(probing, "POLL", 0.05)

    def call(files=None, folder: Path | None = None):
        def run(version):
            if version.slug == "kit-probe":
                return "COMPLETE", "reported\n", outputs() if files is None else files, ""
            short = replace(version, request=version.request | {"sessionTimeoutSeconds": 2})
            status, log, working, failure = runs_kernels(server, folder, {})(short)
            if version.slug == "kit-probe-limit":
                return "CANCEL_ACKNOWLEDGED", log, working, ""
            return status, log, working, failure

        server.runner = run

    return call


# What a session reports, by a rehearsal


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """The facts of this machine; a variable that sandboxes pass on has a value that must not be told."""
    folder = tmp_path_factory.mktemp("rehearsed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", "/secret-value")
        said: list[str] = []
        found = probe(rehearse=True, attach=["titanic", "me/data"], output=folder, say=said.append)
    return found, said, folder


def test_a_rehearsal_tells_the_facts_of_this_machine(rehearsed):
    found, _, folder = rehearsed
    session = found.facts.session(gpu=False)
    assert session.python == platform.python_version() == found.facts.image["python"]
    assert found.facts.image["numpy"] == importlib.metadata.version("numpy")
    assert session.packages["torch"] == importlib.metadata.version("torch")
    assert session.cores.count == os.cpu_count()
    assert session.cores.usable == len(os.sched_getaffinity(0))
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < session.memory <= total
    assert session.disks["/kaggle/working"].total == os.statvfs(folder).f_blocks * os.statvfs(folder).f_frsize
    assert (session.spawn, session.loader) == ("works", "works")
    assert "reached" not in session.network.values()
    assert session.started.command[-1].endswith("script.py")
    assert session.started.notebook is False
    assert set(session.wrote) == set(WROTE)


def test_a_rehearsal_tells_names_of_variables_and_no_values(rehearsed):
    found, said, folder = rehearsed
    session = found.facts.session(gpu=False)
    assert {"PATH", "KAGGLE_KERNEL_RUN_TYPE", "LD_LIBRARY_PATH"} <= set(session.environment)
    written = (folder / "kernels/build/kit-probe/rehearsal/working/probe.json").read_text()
    assert "secret-value" not in written + "\n".join(said)


def test_a_rehearsal_tells_where_things_are_mounted(rehearsed):
    found, _, folder = rehearsed
    assert found.facts.facts.form == "nested"
    assert {"competitions/titanic/", "datasets/me/data/"} <= set(found.facts.session(False).tree)
    assert (found.kernels, found.file) == ([], None)
    assert not (folder / "kernels/facts.json").exists()
    assert found.notes == ["a rehearsal: these are facts of this machine, and nothing is kept"]


def test_the_command_shows_what_was_found(rehearsed, tmp_path, kit, monkeypatch):
    found, _, _ = rehearsed
    monkeypatch.setattr(probing, "probe", lambda **options: found)
    code, told = kit("kernel", "probe", "--rehearse", "--output", tmp_path)
    lines = dict(line.split(None, 1) for line in told.splitlines())
    assert code == 0
    assert lines["Python"].startswith(f"{platform.python_version()}, torch ")
    assert lines["processes"] == "spawned: works; a loader's: works"
    assert lines["mounted"] == "competitions/, datasets/, competitions/titanic/, datasets/me/"


def looks(tmp_path) -> dict:
    """The functions of the probe's script, which is not run."""
    script = write_probe(tmp_path, "report").code_file
    space = {"__name__": "probe", "__file__": str(script)}
    exec(compile(script.read_text(), script, "exec"), space)
    return space


def test_gpus_are_told_as_torch_tells_them(tmp_path, monkeypatch):
    t4 = SimpleNamespace(name="Tesla T4", total_memory=15_642_329_088, major=7, minor=5)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: t4)
    assert looks(tmp_path)["gpus"]() == [{"name": "Tesla T4", "memory": 15_642_329_088, "compute": "7.5"}] * 2
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    told = SimpleNamespace(returncode=0, stdout="580.82\n580.82\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: told)
    assert looks(tmp_path)["driver"]() == "580.82"


@pytest.mark.gpu
def test_the_gpus_of_this_machine(tmp_path):
    told = looks(tmp_path)
    assert [gpu["name"] for gpu in told["gpus"]()] == [
        torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
    ]
    assert re.fullmatch(r"[\d.]+", told["driver"]())


def test_the_tree_of_what_is_mounted_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_INPUT", str(tmp_path / "input"))
    deep = tmp_path / "input/a/b/c/d/e/f/g"
    deep.mkdir(parents=True)
    for number in range(30):
        (tmp_path / f"input/a/{number:02}.png").touch()
    told = looks(tmp_path)["tree"]()
    assert told[0] == "a/"
    assert "a/b/c/d/e/f/" in told
    assert "a/b/c/d/e/f/g/" not in told
    assert "a/…" in told
    assert [name for name in told if name.endswith(".png")] == [f"a/{number:02}.png" for number in range(11)]


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_under_the_pythons_of_kaggles_image_without_any_package(tmp_path, version):
    python = need_interpreter(version)
    script = write_probe(tmp_path, "report").code_file
    outcome = run_isolated(script, tmp_path / "working", [], python=python, time_limit=100, on_line=print)
    assert outcome.exit_code == 0
    session = SessionFacts.model_validate_json((tmp_path / "working/probe.json").read_text())
    assert session.python.startswith(f"{version}.")
    assert session.spawn == "works"
    if "torch" not in session.packages:
        assert session.gpus is None
        assert session.loader.endswith("No module named 'torch'")


# What is pushed


def test_a_probe_is_small_and_needs_nothing_but_torch(tmp_path):
    folder = write_probe(tmp_path, "report")
    source = folder.source
    assert len(source) < 20_000
    assert source == write_probe(tmp_path, "report").source
    tree = ast.parse(source)
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"torch"}


def test_it_is_private_and_has_no_network(server, reports):
    reports()
    server.known_sources |= {"titanic", "g/m/pyTorch/b/1"}
    server.datasets["me/data"] = Dataset("me", "data", {}, [{"a.csv": b"1"}])
    found = probe(gpu=True, attach=["titanic", "me/data", "g/m/pyTorch/b/1"])
    (request,) = asked(server, "SaveKernel")
    wanted = {
        "slug": "tester/kit-probe",
        "isPrivate": True,
        "enableGpu": True,
        "enableInternet": False,
        "machineShape": "NvidiaTeslaT4",
        "kernelType": "script",
        "sessionTimeoutSeconds": 900,
        "competitionDataSources": ["titanic"],
        "datasetDataSources": ["me/data"],
        "modelDataSources": ["g/m/pyTorch/b/1"],
    }
    assert {name: request.get(name, False) for name in wanted} == wanted
    assert found.facts.facts.cpu is None
    assert found.facts.session(gpu=True).cores.usable == 4
    assert found.facts.facts.form == "nested"


@pytest.mark.parametrize("reference", ["a/b/c", "", "../etc", "titanic/", "a b", "-/../x"])
def test_what_cannot_be_attached(tmp_path, reference):
    assert refusal_of(lambda: probe(attach=[reference], output=tmp_path)).startswith(
        f"--attach {reference}: expected the slug of a competition, OWNER/SLUG of a dataset"
    )


def test_failures_are_kaggles_alone(tmp_path):
    assert "--failures: what becomes of a kernel that fails" in refusal_of(
        lambda: probe(rehearse=True, failures=True, output=tmp_path)
    )


# The whole way


def test_a_probe_with_failures_from_the_command_to_the_facts(server, reports, kit, tmp_path):
    left = outputs()
    del left[".dotfile"], left["empty.txt"]  # Kaggle keeps neither
    reports(left | {"with space.txt": b"other"}, tmp_path)
    code, told = kit("kernel", "probe", "--failures")
    assert code == 0, told
    facts = read_facts()
    assert facts.image == {"python": "3.13.2", "torch": "2.11.0+cpu", "numpy": "2.0.2"}
    assert facts.facts.came == {
        ".dotfile": "missing",
        "empty.txt": "missing",
        "nested/deep/file.txt": "whole",
        "with space.txt": "damaged",
    }
    failed, ended = facts.facts.exit, facts.facts.limit
    assert (failed.status, failed.failure) == ("ERROR", "Your notebook ended with exit code 3")
    assert failed.files == ["before.txt"]
    assert failed.log_end == ["ends with exit code 3"]
    assert (ended.status, ended.files, ended.log_end[0]) == ("CANCEL_ACKNOWLEDGED", ["before.txt"], "0 s")
    limits = {each["slug"]: each["sessionTimeoutSeconds"] for each in asked(server, "SaveKernel")}
    assert limits == {"tester/kit-probe": 900, "tester/kit-probe-exit": 300, "tester/kit-probe-limit": 60}
    for line in (
        "memory           33.6 GB",
        "cores            4 of 5",
        "note: of the files that it left, these did not come back as they were: '.dotfile' missing, 'empty.txt' "
        "missing, 'with space.txt' damaged",
        "note: nothing was attached, so how it is mounted is not known: python -m kit kernel probe --attach SLUG",
        "kernels/facts.json",
    ):
        assert line in told.splitlines()
    assert "exit 3           ERROR (Your notebook ended with exit code 3), " in told
    assert "note: kernels/image.txt is of another image: " in told


@pytest.mark.parametrize(
    ("left", "notes"),
    [
        ({"before.txt": b"x"}, []),
        (
            {},
            ["what a session leaves that ends with exit code 3 is not to be had", "is ended at its limit is not"],
        ),
        ({"before.txt": b"x", "after.txt": b"x"}, ["limit of a minute was not ended within five"]),
    ],
)
def test_what_failures_tell(server, reports, left, notes):
    server.known_sources |= {"titanic"}
    server.runner = lambda version: (
        ("COMPLETE", "", outputs(), "") if version.slug == "kit-probe" else ("ERROR", "", left, "")
    )
    told = [note for note in probe(failures=True, attach=["titanic"]).notes if "image.txt" not in note]
    assert len(told) == len(notes)
    assert all(part in note for part, note in zip(notes, told, strict=True))


def test_a_second_probe_keeps_what_the_first_found_of_the_other_kind(server, reports):
    reports(outputs(memory=29_000_000_000))
    server.known_sources |= {"titanic"}
    probe(attach=["titanic"])
    reports(outputs(memory=31_000_000_000, when="2026-11-21T10:00:00Z", tree=[]))
    facts = probe(gpu=True).facts
    assert (facts.session(False).memory, facts.session(True).memory) == (29_000_000_000, 31_000_000_000)
    assert (f"{facts.when:%m-%d}", facts.facts.form) == ("11-21", "nested")
    assert facts == read_facts()
    assert len(asked(server, "SaveKernel")) == 2


def test_outputs_that_are_listed_late_are_waited_for(server, reports):
    reports()
    early = instead({"files": [], "log": ""})
    server.misbehave(LISTING, early, early)
    assert set(probe().facts.facts.came.values()) == {"whole"}
    assert len(asked(server, LISTING)) > 2


def test_outputs_that_are_never_listed(server, reports):
    reports({"other.txt": b"x"})
    said = refusal_of(probe)
    assert "tester/kit-probe version 1 is complete, but probe.json is not listed among its outputs within" in said
    assert "python -m kit kernel logs kernels/build/kit-probe" in said
    assert read_facts() is None


def test_a_session_that_fails(server, reports):
    server.runner = lambda version: ("ERROR", "Traceback\n", {}, "No module named torch")
    assert refusal_of(probe) == (
        "tester/kit-probe version 1 reported nothing: failed, exception (No module named torch); its log: "
        "python -m kit kernel logs kernels/build/kit-probe"
    )
    reports()
    probe()  # is not the failed version once more
    assert [each.number for each in server.kernels["tester/kit-probe"]] == [1, 2]


def test_a_report_that_is_none(server, reports):
    reports({"probe.json": b'{"python": 3}'})
    said = refusal_of(probe)
    assert "kernels/build/kit-probe/output/probe.json is damaged (when: Field required); probe again" in said
    assert read_facts() is None


def test_an_error_meanwhile_says_what_may_be_running(server, reports):
    reports()
    server.misbehave("GetKernelSessionStatus", *[answer(401, "expired")] * 20)
    said = refusal_of(probe)
    assert said.endswith(f"; tester/kit-probe version 1 ({URL}) may be running; the same command goes on with it")
    server.behave("GetKernelSessionStatus")
    assert probe().kernels[0].version == 1
    assert len(asked(server, "SaveKernel")) == 1


def test_an_interrupted_probe_says_so_and_goes_on(server, reports, kit, monkeypatch):
    reports()
    from kit.core.stopping import Interrupted

    def interrupted(*_):
        raise Interrupted(130)

    with monkeypatch.context() as patch:
        patch.setattr(probing.RunningSession, "poll", interrupted)
        code, told = kit("kernel", "probe")
    assert code == 130
    assert told.splitlines()[-1] == (
        f"interrupted while a probe was under way; tester/kit-probe version 1 ({URL}) may be running; the same "
        "command goes on with it"
    )
    code, told = kit("kernel", "probe")
    assert code == 0
    assert f"tester/kit-probe version 1 was pushed before: {URL}" in told
    assert len(asked(server, "SaveKernel")) == 1
    assert kit("kernel", "probe")[0] == 0  # the next one is a new session
    assert len(asked(server, "SaveKernel")) == 2


def test_a_push_that_is_refused_leaves_nothing_running(server, reports):
    reports()
    server.misbehave("SaveKernel", answer(400, "Maximum batch CPU session count of 5 reached."))
    assert "may be running" not in refusal_of(probe)


def test_a_download_that_breaks_is_repeated(server, reports):
    reports()
    server.misbehave("GET", drop())
    assert set(probe().facts.facts.came.values()) == {"whole"}


def test_as_json(server, reports, monkeypatch, capsys):
    reports()
    code, output, _ = kit_here(monkeypatch, capsys, "kernel", "probe", "--json")
    assert code == 0
    json_model(get_type_hints(package.kernel_probe)["return"]).model_validate_json(output)
    told = json.loads(output)
    assert told["file"] == "kernels/facts.json"
    assert told["facts"]["facts"]["cpu"]["memory"] == 33_600_000_000


def test_the_folders_of_probes_are_kernels(tmp_path):
    for does, (end, seconds, _) in KERNELS.items():
        folder = write_probe(tmp_path, does)
        assert KernelFolder.at(folder.path).record.kind == "probe"
        assert folder.path.name == f"kit-probe{end}"
        assert int(3600 * folder.record.hours) == seconds


def test_a_probe_is_pushed_by_its_own_command_alone(server, tmp_path, kit):
    path = write_probe(Path(), "report").path
    assert kit("kernel", "push", path) == (
        1,
        f"error: {path} is a probe; python -m kit kernel probe pushes it, and reads what it reports\n",
    )
    assert server.requests == []


def test_a_probe_is_not_fetched_as_other_kernels_are(server, reports, kit):
    reports()
    probe()
    assert kit("kernel", "fetch", "kernels/build/kit-probe") == (
        1,
        "error: kernels/build/kit-probe is a probe; python -m kit kernel probe reads what it reports\n",
    )
