"""What `throughput.py` lets take turns: each trains, and some predict, as its own documentation has it.

- kit: the kit's own loop, from its pixel cache.
- bare: forward, loss, backward, torch's fused AdamW over one group, on one resident batch of floats; it decodes,
  augments and moves nothing. It keeps freed memory as the kit does (kit/training/allocator.py).
- bare_glibc: the same, with glibc as it is found.
- timm: the loop of timm's train.py, which no wheel holds, written after it: timm's loader (its prefetcher, which
  normalises on the device), its transforms for training, create_optimizer_v2, a cosine schedule by the update.
- fastai: an ImageDataLoaders of the files, aug_transforms in batches, Learner.fit.
- lightning: Trainer.fit, torchvision's transforms with the ranges of the kit's `light`.

On a CPU none has data workers, on a GPU each has its default, timm and Lightning as many as the kit.
"""

import argparse
import importlib.util
import resource
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch

CLASSES = 10


@dataclass(frozen=True)
class Times:
    """Seconds a batch: by the clock, and of CPUs (user and system, of all threads)."""

    wall: float
    cpu: float


class Stopwatch:
    """The times of a turn, from the end of the warm-up to its last batch."""

    def __init__(self, options: argparse.Namespace):
        self.first, self.last, self.steps = options.warmup - 1, options.warmup + options.steps - 1, options.steps
        self.began, self.ended = (0.0, 0.0), (0.0, 0.0)

    def __call__(self, step: int) -> None:
        """To be called after batch number `step`."""
        if step == self.first:
            self.began = self._now()
        elif step == self.last:
            self.ended = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        used = resource.getrusage(resource.RUSAGE_SELF)
        return time.perf_counter(), used.ru_utime + used.ru_stime

    @property
    def times(self) -> Times:
        wall, cpu = (after - before for before, after in zip(self.began, self.ended, strict=True))
        return Times(wall / self.steps, cpu / self.steps)


class Base:
    """What contenders share."""

    def __init__(self, options: argparse.Namespace, scratch: Path):
        self.options, self.scratch = options, scratch
        self.batches = options.warmup + options.steps
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.workers = 0
        self.prepare()

    def prepare(self) -> None:
        pass

    def model(self) -> torch.nn.Module:
        sized = {"img_size": self.options.size} if self.options.model.startswith(("vit", "deit")) else {}
        model = timm.create_model(self.options.model, num_classes=CLASSES, **sized)
        return model.to(self.device, memory_format=torch.channels_last)

    def precision(self) -> Any:
        from kit.training.device import resolve_precision

        kinds = {"fp16": torch.float16, "bf16": torch.bfloat16}
        kind = kinds.get(resolve_precision(self.options.precision, self.device.type == "cpu"))
        return partial(torch.autocast, self.device.type, kind) if kind else nullcontext

    def table(self, rows: int) -> pd.DataFrame:
        """The first rows of the competition, with the paths of their images."""
        table = pd.read_csv(self.options.folder / "train.csv").head(rows)
        return table.assign(id=[f"train/{row}.png" for row in table["id"]])


class Kit(Base):
    def prepare(self) -> None:
        from kit.core.paths import OutputDirs
        from kit.core.runs import ExperimentDir
        from kit.experiment.config import validate
        from kit.experiment.prepare import prepare

        options = self.options
        experiment = validate(
            {
                "name": "bench",
                "competition": {"path": str(options.folder), "test": None, "train_images": "train/{id}.png"},
                "folds": {"k": 2},
                "data": {"size": options.size, "augment": options.augment},
                "model": {"name": options.model},
                "policies": {"uniform": {"lr": 1e-3}},
                "training": {"epochs": 1, "batch_size": options.batch, "precision": options.precision},
            },
            "benchmark",
        )
        dirs = OutputDirs(self.scratch)
        self.loaded, self.data = prepare(experiment, ExperimentDir(dirs.runs / "bench"), dirs, shown=False)
        self.trainer = None

    def trainer_in(self, folder: str) -> Any:
        from kit.core.runs import RunDir
        from kit.experiment.prepare import run_keys
        from kit.experiment.train_run import trainer_of
        from kit.training.device import make_accelerator

        config = self.loaded.config
        accelerator = make_accelerator(config.training)
        return trainer_of(run_keys(config)[0], self.loaded, self.data, RunDir(Path(folder)), accelerator)

    def train(self) -> Times:
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            trainer, watch = self.trainer_in(folder), Stopwatch(self.options)
            rows = len(trainer.fold.valid_rows)
            trainer.evaluate = lambda: np.full((rows, CLASSES), 1 / CLASSES, np.float32)
            trainer.train("kit", on_step=watch)
            return watch.times

    def predict(self) -> Times:
        """As it predicts the held-out rows; all batches are as large."""
        import dataclasses

        self.trainer = self.trainer or self.trainer_in(str(self.scratch))
        watch, size = Stopwatch(self.options), 2 * self.options.batch
        predictor = dataclasses.replace(self.trainer.predictor, batch_done=lambda rows: watch(rows // size - 1))
        predictor.predict(self.data.train, range(self.batches * size))
        return watch.times


class Bare(Base):
    def prepare(self) -> None:
        from kit.training.allocator import keep_freed_memory

        if self.device.type == "cpu":
            keep_freed_memory()

    def train(self) -> Times:
        options, model = self.options, self.model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        inputs, precision, watch = self.inputs(options.batch), self.precision(), Stopwatch(options)
        targets = torch.randint(0, CLASSES, (options.batch,), device=self.device)
        for step in range(self.batches):
            with precision():
                loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            watch(step)
        return watch.times

    def predict(self) -> Times:
        model, watch, precision = self.model().eval(), Stopwatch(self.options), self.precision()
        inputs = self.inputs(2 * self.options.batch)
        with torch.inference_mode(), precision():
            for step in range(self.batches):
                model(inputs).float().softmax(dim=1)
                watch(step)
        return watch.times

    def inputs(self, count: int) -> torch.Tensor:
        values = torch.randn(count, 3, self.options.size, self.options.size, device=self.device)
        return values.to(memory_format=torch.channels_last)


class BareGlibc(Bare):
    def prepare(self) -> None:
        pass


class Timm(Base):
    def loader(self, training: bool, batch: int) -> Any:
        from timm.data import create_dataset, create_loader

        parts = Path(tempfile.mkdtemp(dir=self.scratch))
        for name, label in self.table(self.batches * batch).itertuples(index=False):
            folder = parts / str(label)
            folder.mkdir(exist_ok=True)
            (folder / Path(name).name).symlink_to(self.options.folder / name)
        size = (3, self.options.size, self.options.size)
        plain = {"no_aug": True} if self.options.augment == "none" else {}
        return create_loader(
            create_dataset("", root=str(parts), is_training=training, batch_size=batch),
            input_size=size,
            batch_size=batch,
            is_training=training,
            num_workers=self.workers,
            persistent_workers=bool(self.workers),
            use_prefetcher=True,
            device=self.device,
            **plain,
        )

    def train(self) -> Times:
        from timm.loss import LabelSmoothingCrossEntropy
        from timm.optim import create_optimizer_v2
        from timm.scheduler import create_scheduler_v2

        model, watch, precision = self.model().train(), Stopwatch(self.options), self.precision()
        optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.01)
        loader, loss_of = self.loader(True, self.options.batch), LabelSmoothingCrossEntropy(0.1)
        scheduler, _ = create_scheduler_v2(
            optimizer, "cosine", num_epochs=1, step_on_epochs=False, updates_per_epoch=len(loader), warmup_epochs=0
        )
        optimizer.zero_grad()
        for step, (inputs, targets) in enumerate(loader):
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            with precision():
                loss = loss_of(model(inputs), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step_update(num_updates=step + 1, metric=float("nan"))
            watch(step)
        return watch.times

    def predict(self) -> Times:
        model, watch, precision = self.model().eval(), Stopwatch(self.options), self.precision()
        with torch.inference_mode(), precision():
            for step, (inputs, _) in enumerate(self.loader(False, 2 * self.options.batch)):
                model(inputs.contiguous(memory_format=torch.channels_last)).softmax(dim=-1)
                watch(step)
        return watch.times


class Fastai(Base):
    def train(self) -> Times:
        from fastai.vision.all import Adam, Callback, ImageDataLoaders, Learner, Resize, aug_transforms

        options, cuda, watch = self.options, self.device.type == "cuda", Stopwatch(self.options)
        loaders = ImageDataLoaders.from_df(
            self.table(self.batches * options.batch),
            options.folder,
            valid_pct=0,
            bs=options.batch,
            item_tfms=Resize(options.size),
            batch_tfms=None if options.augment == "none" else aug_transforms(size=options.size),
            num_workers=None if cuda else 0,
            device=self.device,
        )

        class Watch(Callback):
            def after_batch(self):
                watch(self.iter)

        loss = torch.nn.CrossEntropyLoss()
        learner = Learner(loaders, self.model(), loss, opt_func=Adam, cbs=Watch(), path=self.scratch)
        kind = getattr(self.precision(), "args", (None, None))[1]
        if kind:
            learner = learner.to_bf16() if kind is torch.bfloat16 else learner.to_fp16()
        with learner.no_bar(), learner.no_logging():
            learner.fit(1)
        return watch.times


class Lightning(Base):
    def train(self) -> Times:
        import pytorch_lightning
        from torch.utils.data import DataLoader
        from torchvision.transforms import v2

        model, watch, moving = self.model(), Stopwatch(self.options), []
        if self.options.augment != "none":
            moving = [v2.RandomHorizontalFlip(), v2.RandomAffine(10, (0.05, 0.05), (0.9, 1.1))]
        last = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
        samples = _Files(self.options.folder, self.table(self.batches * self.options.batch), [*moving, *last])

        class Module(pytorch_lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.model = model

            def training_step(self, batch, number):
                inputs, targets = batch
                inputs = inputs.contiguous(memory_format=torch.channels_last)
                return torch.nn.functional.cross_entropy(self.model(inputs), targets)

            def configure_optimizers(self):
                return torch.optim.AdamW(self.parameters(), lr=1e-3)

            def on_train_batch_end(self, outputs, batch, number):
                watch(number)

        kind = getattr(self.precision(), "args", (None, None))[1]
        pytorch_lightning.Trainer(
            max_epochs=1,
            accelerator="gpu" if self.device.type == "cuda" else "cpu",
            precision={torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}.get(kind, "32-true"),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=self.scratch,
        ).fit(Module(), DataLoader(samples, self.options.batch, shuffle=True, num_workers=self.workers))
        return watch.times


class _Files(torch.utils.data.Dataset):
    """Images decoded by Pillow and transformed one by one."""

    def __init__(self, folder: Path, table: pd.DataFrame, transforms: list[Any]):
        self.folder, self.rows, self.transforms = folder, list(table.itertuples(index=False)), transforms

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        name, label = self.rows[row]
        image: Any = Image.open(self.folder / name).convert("RGB")
        for transform in self.transforms:
            image = transform(image)
        return image, label


CONTENDERS = {
    "kit": Kit,
    "bare": Bare,
    "bare_glibc": BareGlibc,
    "timm": Timm,
    "fastai": Fastai,
    "lightning": Lightning,
}
_PACKAGES = {"fastai": "fastai", "lightning": "pytorch_lightning"}


def available(name: str, predict: bool) -> bool:
    """Whether a contender's package is installed, and whether it predicts where that is asked."""
    installed = name not in _PACKAGES or importlib.util.find_spec(_PACKAGES[name]) is not None
    return installed and (hasattr(CONTENDERS[name], "predict") or not predict)
