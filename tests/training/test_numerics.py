"""How a GPU computes: the same bits each time where they are wanted, never in TF32; a CPU is left as it was."""

from collections.abc import Iterator

import pytest
import timm
import torch
from accelerate import Accelerator
from torch.backends import cuda, cudnn

from kit.training import device
from kit.training.config import TrainingConfig
from kit.training.device import make_accelerator
from kit.training.numerics import Numerics, rounds_to_tf32, set_numerics


@pytest.fixture(autouse=True)
def _as_torch_was() -> Iterator[None]:
    before, tf32 = Numerics.in_force(), (cudnn.allow_tf32, cuda.matmul.allow_tf32)
    yield
    set_numerics(on_gpu=False, deterministic=True)
    before.put_in_force()
    cudnn.allow_tf32, cuda.matmul.allow_tf32 = tf32


def fused() -> list[bool]:
    return [cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()]


def test_the_same_bits_take_attention_in_its_plain_form():
    set_numerics(on_gpu=True, deterministic=True)
    assert fused() == [False, False, False]
    assert cuda.math_sdp_enabled()
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()  # as not all models have such forms throughout
    assert (cudnn.deterministic, cudnn.benchmark) == (True, False)


def test_a_training_that_need_not_repeat_its_bits_after_one_that_has_to():
    cuda.enable_cudnn_sdp(False)  # by a user
    set_numerics(on_gpu=True, deterministic=True)
    set_numerics(on_gpu=True, deterministic=False)
    assert fused() == [True, True, False]
    assert not torch.are_deterministic_algorithms_enabled()
    assert (cudnn.deterministic, cudnn.benchmark) == (False, True)
    set_numerics(on_gpu=True, deterministic=True)
    assert fused() == [False, False, False]


def test_a_training_on_the_cpu_afterwards_finds_torch_as_it_was():
    torch.use_deterministic_algorithms(True)  # strict, by a user
    cudnn.benchmark = True
    before = Numerics.in_force()
    set_numerics(on_gpu=True, deterministic=True)
    set_numerics(on_gpu=True, deterministic=False)
    assert Numerics.in_force() != before
    set_numerics(on_gpu=False, deterministic=True)
    assert Numerics.in_force() == before
    cuda.enable_flash_sdp(False)  # by a user, between two trainings on the CPU
    set_numerics(on_gpu=False, deterministic=True)
    assert fused() == [False, True, True]


@pytest.mark.parametrize("deterministic", [True, False])
def test_fp32_is_not_rounded_to_tf32(deterministic):
    cudnn.allow_tf32 = cuda.matmul.allow_tf32 = True
    set_numerics(on_gpu=True, deterministic=deterministic)
    assert not cudnn.allow_tf32  # torch refuses this question where its two ways to ask it disagree
    assert not cuda.matmul.allow_tf32
    assert cudnn.conv.fp32_precision in ("none", "ieee")
    assert not rounds_to_tf32()
    cudnn.allow_tf32 = True
    assert rounds_to_tf32()


@pytest.mark.parametrize(("kind", "expected"), [("cuda", [False] * 3), ("cpu", [True] * 3)])
def test_an_accelerator_brings_them_with_it(monkeypatch, kind, expected):
    class There(Accelerator):
        @property
        def device(self) -> torch.device:
            return torch.device(kind)

    monkeypatch.setattr(device, "Accelerator", There)
    make_accelerator(TrainingConfig(device="cpu"))
    assert fused() == expected


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_vision_transformer_repeats_its_gradients_on_a_gpu(precision):
    accelerator = make_accelerator(TrainingConfig(precision=precision))
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3).to(accelerator.device)
    inputs = torch.randn(32, 3, 224, 224, device=accelerator.device)
    digests = set()
    for _ in range(4):
        model.zero_grad()
        with accelerator.autocast():
            model(inputs).float().square().sum().backward()
        digests.add(sum(value.grad.double().sum().item() for value in model.parameters()))
        digests.add(tuple(value.grad.flatten()[0].item() for value in model.parameters()))
    assert len(digests) == 2


@pytest.mark.gpu
def test_a_convolution_in_fp32_has_the_bits_of_fp32_on_a_gpu():
    make_accelerator(TrainingConfig(precision="fp32"))
    inputs, filters = torch.randn(8, 64, 32, 32), torch.randn(64, 64, 3, 3)
    made = torch.nn.functional.conv2d(inputs.cuda(), filters.cuda()).cpu().double()
    exact = torch.nn.functional.conv2d(inputs.double(), filters.double())
    assert (made - exact).abs().max() / exact.abs().max() < 1e-5  # TF32: some 1e-3
