import json
import shutil
import subprocess
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from support.session_facts import keep_facts

from kit.cli import doctor
from kit.cli.doctor import Finding, diagnose, examine, gpu_finding

Usage = namedtuple("Usage", "total used free")
MACHINE = {"gpus": [], "compute": [], "built_for": None, "kernels": [], "mps": False}


def probed(monkeypatch, before: str = "", **seen) -> None:
    """The process that imports the packages prints what they print, and what it saw."""
    printed = subprocess.CompletedProcess([], 0, before + json.dumps(MACHINE | seen) + "\n", "")
    monkeypatch.setattr(doctor, "subprocess", SimpleNamespace(run=lambda *_, **__: printed))


@pytest.fixture
def healthy(monkeypatch):
    """Everything is in order, as the packages' versions and a process that imports them would say."""
    minimum = {
        requirement.name: next((bound.version for bound in requirement.specifier), "1.0")
        for line in doctor.REQUIREMENTS.read_text().splitlines()
        if (text := line.partition("#")[0].strip())
        for requirement in [Requirement(text)]
    }
    monkeypatch.setattr(doctor, "version", minimum.__getitem__)
    probed(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 10**11))
    return minimum


def _broken(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.broken]


def test_a_machine_in_order_has_nothing_broken(healthy, tmp_path):
    findings = examine(tmp_path)
    assert [finding.subject for finding in findings] == [
        *("Python", "packages", "imports", "GPU", "disk", "folders"),
    ]
    assert _broken(findings) == []
    assert findings[4].state == f"100 GB free at {tmp_path}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stderr", "meaning", "advice"),
    [
        (
            "Traceback …\nRuntimeError: operator torchvision::nms does not exist\n",
            "torch and torchvision are of different builds",
            "pip install torch torchvision",
        ),
        (
            "ImportError: libGL.so.1: cannot open shared object file: No such file or directory",
            "OpenCV wants a display library",
            "opencv-python-headless",
        ),
        (
            "ValueError: numpy.dtype size changed, may indicate binary incompatibility. Expected 96, got 88",
            "a package was built for another numpy",
            "--force-reinstall",
        ),
        (
            "Traceback …\nModuleNotFoundError: No module named 'timm'",
            "a package is missing",
            "pip install -r requirements.txt",
        ),
    ],
)
def test_known_faults_are_recognised(stderr, meaning, advice):
    finding = diagnose(stderr)
    assert (finding.subject, finding.broken) == ("imports", True)
    assert finding.state.startswith(meaning)
    assert finding.state.endswith(f"({stderr.strip().splitlines()[-1]})")
    assert advice in finding.advice


def test_every_known_fault_has_a_test():
    assert list(doctor.KNOWN_FAULTS) == [
        "operator torchvision::nms does not exist",
        "libGL.so",
        "numpy.dtype size changed",
        "No module named",
    ]


@pytest.mark.parametrize(
    ("stderr", "state"), [("x\n OSError: odd \n\n", "OSError: odd"), ("", "the process died")]
)
def test_an_unknown_fault_is_shown_with_general_advice(stderr, state):
    finding = diagnose(stderr)
    assert (finding.state, finding.broken) == (state, True)
    assert finding.advice.startswith("make a fresh environment, then ")


def test_a_failed_import_is_diagnosed_from_its_process(healthy, monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("import a_package_that_is_not_there")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "subprocess", subprocess)
    (finding,) = _broken(examine(tmp_path))
    assert (finding.subject, finding.state) == (
        "imports",
        "a package is missing (ModuleNotFoundError: No module named 'a_package_that_is_not_there')",
    )


def test_what_packages_print_on_import_does_no_harm(healthy, monkeypatch, tmp_path):
    probed(monkeypatch, "hello\n", mps=True)
    findings = examine(tmp_path)
    assert _broken(findings) == []
    assert findings[3].state == "Apple's, by Metal (MPS)"


def test_broken_packages_are_not_imported(healthy, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "version", {**healthy, "torch": "1.0"}.__getitem__)
    monkeypatch.setattr(doctor, "subprocess", SimpleNamespace(run=lambda *_, **__: pytest.fail("imported")))
    assert [finding.subject for finding in _broken(examine(tmp_path))] == ["torch"]


@pytest.mark.parametrize(("built_for", "build"), [(None, "a CPU build"), ("12.4", "built for CUDA 12.4")])
def test_a_driver_whose_gpu_torch_does_not_see_is_broken(built_for, build):
    finding = gpu_finding(MACHINE | {"built_for": built_for}, "/usr/bin/nvidia-smi")
    assert finding.broken
    assert finding.state == f"this machine has an NVIDIA driver, but torch ({build}) does not see a GPU"
    assert "nvidia-smi" in finding.advice


def test_no_gpu_is_in_order():
    assert gpu_finding(MACHINE, None) == Finding("GPU", "none that the kit uses; training runs on the CPU")


def test_apples_gpu_is_in_order():
    assert gpu_finding(MACHINE | {"mps": True}, None) == Finding("GPU", "Apple's, by Metal (MPS)")


def _nvidia(compute: list, kernels: list[str]) -> Finding:
    names = [f"GPU {index}" for index in range(len(compute))]
    return gpu_finding(
        MACHINE | {"gpus": names, "compute": compute, "built_for": "12.8", "kernels": kernels},
        "/usr/bin/nvidia-smi",
    )


@pytest.mark.parametrize(
    ("compute", "kernels"),
    [
        ([[7, 5], [7, 5]], ["sm_70", "sm_75", "sm_80"]),
        ([[8, 9]], ["sm_75", "sm_80", "sm_86", "sm_90"]),
        ([[9, 0]], ["sm_80", "sm_90a", "sm_90"]),
        ([[12, 0]], ["sm_90", "sm_120"]),
        ([[12, 0]], ["sm_80", "sm_90", "compute_90"]),
        ([[9, 4]], ["gfx90a", "gfx942"]),
        ([[8, 0]], []),
    ],
    ids=["t4 twice", "same major, older minor", "h100", "blackwell", "ptx of an older one", "rocm", "unknown"],
)
def test_a_gpu_that_torch_was_compiled_for_is_in_order(compute, kernels):
    finding = _nvidia(compute, kernels)
    assert (finding.broken, finding.state) == (False, ", ".join(f"GPU {index}" for index in range(len(compute))))


@pytest.mark.parametrize(
    ("compute", "kernels"),
    [
        ([6, 0], ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]),
        ([7, 0], ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]),
        ([12, 0], ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]),
    ],
    ids=["p100", "v100, same major but older minor", "newer than all kernels"],
)
def test_a_gpu_that_torch_has_no_code_for_is_broken(compute, kernels):
    finding = _nvidia([compute], kernels)
    assert finding.broken
    assert finding.state.startswith(
        "torch has no code for GPU 0 (sm_" + "".join(map(str, compute)) + "; it has sm_"
    )
    assert finding.advice


def test_one_unsupported_gpu_among_several_is_named():
    finding = _nvidia([[7, 5], [6, 0]], ["sm_75", "sm_80"])
    assert finding.broken
    assert finding.state == "torch has no code for GPU 1 (sm_60; it has sm_75, sm_80)"


def test_a_missing_requirement_is_named(healthy, monkeypatch, tmp_path):
    def version(name):
        if name == "timm":
            raise PackageNotFoundError(name)
        return healthy[name]

    monkeypatch.setattr(doctor, "version", version)
    (finding,) = _broken(examine(tmp_path))
    assert (finding.subject, finding.state, finding.advice) == ("timm", "not installed", doctor.INSTALL)


def test_requirements_that_are_too_old_are_named(healthy, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "version", {**healthy, "pandas": "1.5.3", "torch": "2.0.1+cu118"}.__getitem__)
    torch, pandas = _broken(examine(tmp_path))
    assert (torch.subject, torch.state) == ("torch", f"2.0.1+cu118, but >={healthy['torch']} is needed")
    assert (pandas.subject, pandas.state) == ("pandas", f"1.5.3, but >={healthy['pandas']} is needed")
    assert pandas.advice == f"{doctor.INSTALL} --upgrade"


def test_local_and_preliminary_versions_count_by_their_number(healthy, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "version", {**healthy, "torch": "99.0.0a0+git1234"}.__getitem__)
    assert _broken(examine(tmp_path)) == []


def test_an_old_python_is_named(healthy, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 4, "final", 0))
    (finding,) = _broken(examine(tmp_path))
    assert (finding.subject, finding.state) == ("Python", "3.10.4")


def test_too_little_disk_is_named(healthy, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or Usage(10**11, 0, 4.94e9))
    (finding,) = _broken(examine(tmp_path / "not" / "there"))
    assert (finding.subject, finding.state) == ("disk", f"4.9 GB free at {tmp_path}")
    assert asked == [tmp_path]
    assert "--output DIR" in finding.advice


def test_folders_below_a_file_cannot_be_written(healthy, tmp_path):
    (tmp_path / "file").touch()
    findings = _broken(examine(tmp_path / "file"))
    assert [finding.state for finding in findings] == [
        f"{tmp_path / 'file' / name} cannot be written (Not a directory)"
        for name in ("runs", "submissions", "cache")
    ]


def test_one_folder_that_cannot_be_written_is_named(healthy, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "cache").touch()
    (finding,) = _broken(examine(tmp_path))
    assert finding.state == f"{tmp_path / 'cache'} cannot be written (Not a directory)"
    assert str(tmp_path / "cache") in finding.advice


def test_a_read_only_folder_is_named(healthy, monkeypatch, tmp_path):
    def refuse(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(doctor.tempfile, "mkstemp", refuse)
    findings = _broken(examine(tmp_path))
    assert [finding.state for finding in findings] == [
        f"{tmp_path / name} cannot be written (Permission denied)" for name in ("runs", "submissions", "cache")
    ]
    assert f"change the owner of {tmp_path}," in findings[0].advice


def test_a_finding_reads_as_a_line_and_its_advice():
    assert str(Finding("disk", "9 GB free")) == "ok     disk: 9 GB free"
    assert str(Finding("disk", "1 GB free", True, "delete")) == "BROKEN disk: 1 GB free\n       → delete"


def of_kaggle(folder) -> Finding:
    (found,) = [finding for finding in examine(folder) if finding.subject == "Kaggle"]
    return found


def test_what_is_known_of_kaggles_sessions(healthy, tmp_path):
    (tmp_path / "kernels/build/some-train").mkdir(parents=True)
    unknown = of_kaggle(tmp_path)
    assert (unknown.state, unknown.broken) == ("no session was probed yet", False)
    assert unknown.advice == "python -m kit kernel probe tells what yours are like"
    now = datetime.now(UTC)
    keep_facts(tmp_path, now)
    fresh = of_kaggle(tmp_path)
    assert fresh == Finding("Kaggle", f"probe of {now:%Y-%m-%d}: Python 3.13.2, torch 2.11.0+cpu")
    keep_facts(tmp_path, now - timedelta(days=60))
    assert "days old; python -m kit kernel probe looks again" in of_kaggle(tmp_path).advice
    (tmp_path / "kernels/facts.json").write_text("[")
    broken = of_kaggle(tmp_path)
    assert (broken.state, broken.broken) == (f"{tmp_path}/kernels/facts.json is damaged", True)
    assert broken.advice == "remove it, and probe again: python -m kit kernel probe"
