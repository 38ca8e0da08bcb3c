"""In which precision a device computes, and what is told of it."""

import pytest
import torch
from support.refusals import refusal_of

from kit.training import device
from kit.training.device import computing_with, device_facts, resolve_precision


@pytest.fixture
def t4(monkeypatch):
    """A T4: CUDA, and bf16 by emulation alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")


@pytest.mark.usefixtures("t4")
def test_bf16_that_would_be_emulated_is_refused():
    assert refusal_of(resolve_precision, "bf16") == (
        "training.precision: Tesla T4 does not compute in bf16, torch would emulate it, slowly; take fp16 or auto"
    )
    assert resolve_precision("bf16", cpu=True) == "bf16"  # as asked for
    assert [resolve_precision(setting) for setting in ("auto", "fp16", "fp32")] == ["fp16", "fp16", "fp32"]


def test_bf16_where_it_is_native(monkeypatch, t4):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert resolve_precision("bf16") == "bf16"


@pytest.mark.gpu
def test_a_gpu_takes_what_auto_means_on_it():
    assert resolve_precision(resolve_precision("auto")) == resolve_precision("auto") != "fp32"


CPUINFO = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC  7B12\nmodel name\t: other\n"
DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC 11"
OPEN_DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (root@x)\n"


def test_of_a_processor_its_name_and_threads_are_told(two_threads, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    monkeypatch.setattr(device, "PROCESSOR", tmp_path / "cpuinfo")
    with computing_with(3):
        told = device_facts(torch.device("cpu"))
    assert told == {"device_name": "AMD EPYC 7B12", "driver": "", "threads": 3}
    assert torch.get_num_threads() == 2  # as before
    monkeypatch.setattr(device, "PROCESSOR", tmp_path / "none")
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert device_facts(torch.device("cpu"))["device_name"] == "arm64"


@pytest.mark.parametrize(
    ("text", "version"), [(DRIVER, "535.104.05"), (OPEN_DRIVER, "570.86.15"), ("something else", "")]
)
def test_of_a_gpu_its_name_and_driver_are_told(tmp_path, monkeypatch, text, version):
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(device, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    told = device_facts(torch.device("cuda", 0))
    assert (told["device_name"], told["driver"]) == ("Tesla T4", version)
    monkeypatch.setattr(device, "rounds_to_tf32", lambda: True)
    assert told["tf32"] in (False, True)
    assert device_facts(torch.device("cuda", 0))["tf32"] is True


@pytest.mark.gpu
def test_of_this_gpu_its_name_is_told():
    assert device_facts(torch.device("cuda", 0))["device_name"] == torch.cuda.get_device_name(0)


def test_threads_that_are_not_stated_stay_as_they_are(two_threads):
    with computing_with(None):
        assert torch.get_num_threads() == 2
