"""Small trainings in one process, or in several that share each batch."""

from pathlib import Path

import numpy as np
import timm
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d, GroupNorm, LayerNorm2d
from torch import nn

from kit.training.config import TrainingConfig
from kit.training.loss import build_loss, row_weights
from kit.training.norm_sync import synchronise, together

BATCH, STEPS, CLASSES = 12, 3, 3  # BATCH: of all processes
WEIGHTS = torch.tensor([4.0, 1.0, 0.25])

NORMS = {
    "batch": lambda: nn.BatchNorm2d(6),
    "batch, plain mean": lambda: nn.BatchNorm2d(6, momentum=None),
    "batch, no weights": lambda: nn.BatchNorm2d(6, affine=False),
    "batch, no statistics": lambda: nn.BatchNorm2d(6, track_running_stats=False),
    "batch and activation": lambda: BatchNormAct2d(6),
    "frozen": lambda: nn.BatchNorm2d(6).requires_grad_(False).eval(),
    "weights frozen": lambda: nn.BatchNorm2d(6).requires_grad_(False),
    "group": lambda: GroupNorm(6, 2),
    "layer": lambda: LayerNorm2d(6),
    "instance": lambda: nn.InstanceNorm2d(6, affine=True),
}
MODELS = ("test_resnet", "test_efficientnet", "test_vit")
LOSSES = {
    "cross-entropy": ({}, None),
    "smoothed": ({"label_smoothing": 0.1}, None),
    "class weights": ({}, WEIGHTS),
    "class weights, smoothed": ({"label_smoothing": 0.1}, WEIGHTS),
    "several labels": ({}, None),
    "several labels, weights": ({}, WEIGHTS),
    "mixed": ({"mixup": 0.2}, None),
    "mixed, class weights": ({"mixup": 0.2}, WEIGHTS),
    "row weights": ({}, None),
    "row weights, class weights, smoothed": ({"label_smoothing": 0.1}, WEIGHTS),
    "several labels, row weights": ({}, WEIGHTS),
    "mixed, row weights": ({"mixup": 0.2}, None),
    "focal, class weights": ({"loss": "focal"}, WEIGHTS),
    "several labels, asymmetric, row weights": ({"loss": "asymmetric"}, WEIGHTS),
    "logit-adjusted, row weights": ({"loss": "logit_adjusted"}, None),
}
OF_ROWS = torch.linspace(0.25, 3, BATCH, dtype=torch.float64)
CASES = [
    *((norm, "cross-entropy", torch.float64) for norm in (*NORMS, *MODELS)),
    *(("batch", loss, torch.float64) for loss in list(LOSSES)[1:]),
    ("batch and activation", "class weights", torch.float32),
]


def model_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name in MODELS:
        return timm.create_model(name, num_classes=CLASSES, img_size=32) if "vit" in name else timm.create_model(
            name, num_classes=CLASSES
        )  # fmt: skip
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, CLASSES)
    return nn.Sequential(nn.Conv2d(3, 6, 3), NORMS[name](), nn.ReLU(), *ends)


def batch_of(step: int, loss: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose means differ from one half of the batch to the other, and targets."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(BATCH, 3, 32, 32, generator=generator, dtype=torch.float64)
    inputs += torch.linspace(-2, 3, BATCH, dtype=torch.float64).reshape(-1, 1, 1, 1)
    if loss.startswith("several"):
        return inputs, torch.rand(BATCH, CLASSES, generator=generator) < 0.5
    if loss.startswith("mixed"):
        return inputs, torch.rand(BATCH, CLASSES, generator=generator).softmax(1)
    return inputs, torch.randint(CLASSES, (BATCH,), generator=generator)


def train(case: tuple[str, str, torch.dtype], rank: int = 0, world: int = 0, on="cpu") -> dict[str, torch.Tensor]:
    """Train as the trainer does; return the losses, the gradients of the last step, and the state afterwards.

    `world`: processes that share the batches; 0: this one alone, with plain norms.
    """
    name, loss_name, dtype = case
    options, weights = LOSSES[loss_name]
    config = TrainingConfig(**options)
    model = model_of(name).to(on, dtype).to(memory_format=torch.channels_last)
    several, of_images = loss_name.startswith("several"), OF_ROWS if "row weights" in loss_name else None
    offsets = torch.tensor([0.7, 0.2, 0.1]).log()  # of the loss that is logit-adjusted
    loss = build_loss(config, weights, several, of_images is not None, offsets).to(on, dtype)
    network: nn.Module = model
    if world:
        synchronise(model)
        network = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(
        [value for value in model.parameters() if value.requires_grad], lr=0.05, momentum=0.9
    )
    losses = []
    for step in range(STEPS):
        inputs, targets = batch_of(step, loss_name)
        of_rows = row_weights(config, weights, targets.numpy(), None if of_images is None else of_images.numpy())
        mean_weight = 1.0 if of_rows is None else float(np.mean(of_rows))
        if targets.is_floating_point():
            targets = targets.to(dtype)
        share = slice(rank * BATCH // max(1, world), (rank + 1) * BATCH // max(1, world))
        beside = () if of_images is None else (of_images[share].to(on, dtype),)
        optimizer.zero_grad()
        with together():
            value = loss(network(inputs[share].to(on, dtype)), targets[share].to(on), *beside) / mean_weight
        value.backward()
        optimizer.step()
        losses.append(value.detach())
    mean = torch.stack(losses)
    if world:
        dist.all_reduce(mean)
        mean /= world
    gradients = {
        f"gradient {name}": value.grad for name, value in model.named_parameters() if value.grad is not None
    }
    return {"losses": mean, **gradients, **{name: value.clone() for name, value in model.state_dict().items()}}


def main(rank: int, world: int, device: str, store: Path, out: Path) -> None:
    """Be one of the processes."""
    torch.set_num_threads(1)
    on = f"cuda:{rank}" if device == "cuda" else device
    if device == "cuda":
        torch.cuda.set_device(on)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=world)
    made = {case: train(case, rank, world, on) for case in CASES}
    torch.save({case: {name: value.cpu() for name, value in each.items()} for case, each in made.items()}, out)
    dist.barrier()
    dist.destroy_process_group()
