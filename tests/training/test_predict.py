"""Predictions: those of the saved weights, in a precision that holds them, and memory that does not suffice."""

import dataclasses
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.refusals import refusal_of
from support.stale_biases import keep_as_timm_1_0_26
from support.trainings import trainer_of
from torch import nn

from kit.data.config import DataConfig
from kit.model.build import build_model
from kit.model.config import ModelConfig
from kit.training.config import PredictionConfig, TrainingConfig
from kit.training.predict import Normalise, Predictor

CPU = torch.device("cpu")
PIXELS = [np.full((8, 8, 3), 20 * row, np.uint8) for row in range(7)]


class Images:
    """Seven images of one colour each, as an ImageSet gives them."""

    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, row: int) -> np.ndarray:
        return PIXELS[row]


class Growing(nn.Module):
    """Logits of the mean of each channel times `scale`, by way of one matrix product."""

    num_classes = 3

    def __init__(self, scale: float, last: float = 1.0):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.dtypes: list[torch.dtype] = []
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(3) * scale)
            self.second.weight.copy_(torch.diag(torch.tensor([1.0, 2.0, 3.0])) / scale * last)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        within = self.first(inputs.mean(dim=(2, 3)))
        self.dtypes.append(within.dtype)
        return self.second(within)


def accelerator(precision: str):
    """What a Predictor asks of accelerate's; on a CPU that has no fp16, where torch's autocast has it."""
    dtypes = {"fp16": torch.float16, "bf16": torch.bfloat16}
    return SimpleNamespace(
        num_processes=1,
        process_index=0,
        device=CPU,
        mixed_precision=precision,
        autocast=lambda: torch.autocast("cpu", dtypes[precision]) if precision in dtypes else nullcontext(),
    )


def predictor(model: nn.Module, precision: str, said: list[str], **prediction) -> Predictor:
    return Predictor(
        model,
        Normalise.of([0.0] * 3, [1.0] * 3, CPU),
        accelerator(precision),
        DataConfig(size=8, workers=0),
        TrainingConfig(batch_size=1),
        PredictionConfig(**prediction),
        multilabel=False,
        say=said.append,
    )


def by_hand(rows: range) -> np.ndarray:
    """Softmax of 1, 2 and 3 times the brightness."""
    brightness = np.array([PIXELS[row][0, 0, 0] / 255 for row in rows])
    powers = np.exp(brightness[:, None] * [1, 2, 3])
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("tta", ["none", "hflip"])
@pytest.mark.parametrize("multilabel", [False, True])
def test_a_class_that_no_row_has_gets_no_probability(multilabel, tta):
    model = Growing(scale=1.0)
    plainly = dataclasses.replace(predictor(model, "no", [], tta=tta), multilabel=multilabel)
    all_three = plainly.predict(Images(), range(7))
    made = dataclasses.replace(plainly, never=[1]).predict(Images(), range(7))
    assert (made[:, 1] == 0).all()
    others = all_three[:, [0, 2]]
    expected = others if multilabel else others / others.sum(axis=1, keepdims=True)  # as if it were not there
    np.testing.assert_allclose(made[:, [0, 2]], expected, rtol=1e-5)


def test_what_overflows_in_fp16_is_predicted_again_in_fp32():
    model, said = Growing(scale=3e5), []  # the largest of fp16 is 65504
    made = predictor(model, "fp16", said).predict(Images(), range(7))
    np.testing.assert_allclose(made, by_hand(range(7)), rtol=1e-5)
    assert said == ["values overflow in fp16; predicted again in fp32"]
    assert model.dtypes == [torch.float16] * 4 + [torch.float32] * 4  # by twos
    assert model.training


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_what_does_not_is_predicted_once(precision, dtype):
    model, said = Growing(scale=2.0), []
    made = predictor(model, precision, said).predict(Images(), range(7))
    np.testing.assert_allclose(made, by_hand(range(7)), rtol=2e-2)
    assert (model.dtypes, said) == ([dtype] * 4, [])


def test_what_is_not_finite_in_fp32_either_is_handed_on_without_a_word():
    said = []
    assert np.isnan(predictor(Growing(3e5, last=torch.inf), "fp16", said).predict(Images(), range(7))).any()
    assert said == []


@pytest.mark.parametrize("batch_size", [4, 5])
def test_a_batch_that_is_too_large_is_halved_and_that_is_said_once(batch_size):
    sizes: list[int] = []

    class Hungry(Growing):
        def forward(self, inputs):
            sizes.append(len(inputs))
            if len(inputs) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return super().forward(inputs)

    said: list[str] = []
    hungry = predictor(Hungry(1.0), "no", said, batch_size=batch_size)
    expected = predictor(Growing(1.0), "no", [], batch_size=batch_size).predict(Images(), range(7))
    np.testing.assert_allclose(hungry.predict(Images(), range(7)), expected, rtol=1e-6)
    np.testing.assert_array_equal(hungry.predict(Images(), []), expected[:0])
    assert len(hungry.predict(Images(), [3])) == 1
    assert sizes == [batch_size, 2, 2, 2, 1, 1]
    assert said == [
        f"the device's memory is too small to predict {batch_size} images at a time; goes on with 2",
    ]


def test_too_little_memory_is_told_with_what_to_lower():
    class Hungry(Growing):
        def forward(self, inputs):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    model = Hungry(1.0)
    assert refusal_of(predictor(model, "no", [], batch_size=4).predict, Images(), range(7)) == (
        "the device's memory is too small to predict one image; lower data.size, or end what else uses it"
    )
    assert model.training


@pytest.mark.parametrize("ema", [None, 0.5])
def test_predictions_are_those_of_the_saved_weights(competition, tmp_path, monkeypatch, ema):
    """Scored after each epoch, as timm's attention biases were kept from one time to the next."""
    keep_as_timm_1_0_26(monkeypatch)
    trainer = trainer_of(
        competition,
        tmp_path,
        model={"name": "tiny_vit_5m_224"},
        training={"ema": ema, "epochs": 3},
        policies={"uniform": {"lr": 3e-2, "schedule": "constant"}},
    )
    trained = trainer.train()
    fresh = build_model(ModelConfig(name="tiny_vit_5m_224"), 3, 3, 32, seed=1)
    fresh.load_state_dict(trained.model.state_dict())
    inputs = trainer.normalise(
        torch.from_numpy(np.stack([trainer.fold.images[row] for row in trainer.fold.valid_rows]))
    )
    with torch.inference_mode():
        expected = fresh.eval()(inputs).softmax(dim=1).numpy()
    np.testing.assert_allclose(trained.probabilities, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
def test_what_overflows_on_a_gpu_is_predicted_again():
    from kit.training.device import make_accelerator

    device, said = torch.device("cuda"), []
    made = Predictor(
        Growing(scale=3e5).to(device),
        Normalise.of([0.0] * 3, [1.0] * 3, device),
        make_accelerator(TrainingConfig(precision="fp16")),
        DataConfig(size=8, workers=0),
        TrainingConfig(batch_size=1),
        PredictionConfig(),
        multilabel=False,
        say=said.append,
    ).predict(Images(), range(7))
    np.testing.assert_allclose(made, by_hand(range(7)), rtol=1e-5)
    assert len(said) == 1
