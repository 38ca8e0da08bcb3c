"""In which precision a device computes."""

import pytest
import torch
from support.refusals import refusal_of

from kit.training.device import resolve_precision


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
