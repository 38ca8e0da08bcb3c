"""Probabilities of images under a trained model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from kit.data.images import ImageSet
from kit.data.loading import plain_batches, worker_count


@dataclass(frozen=True)
class Normalise:
    """uint8 pixels [batch, side, side, channels] → the network's input, float32 in channels-last order.

    The pixels travel to the device as bytes, a quarter of the floats they become there.
    """

    mean: torch.Tensor  # [1, channels, 1, 1], in units of a pixel from 0 to 255
    std: torch.Tensor

    @classmethod
    def of(cls, mean: Sequence[float], std: Sequence[float], device: torch.device) -> "Normalise":
        shaped = (255 * torch.tensor([mean, std], device=device)).view(2, 1, -1, 1, 1)
        return cls(shaped[0], shaped[1])

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        images = pixels.to(self.mean.device, non_blocking=True).permute(0, 3, 1, 2)
        return images.float().sub_(self.mean).div_(self.std)


def predict(
    model: nn.Module,
    images: ImageSet,
    rows: Sequence[int],
    size: int,
    normalise: Normalise,
    accelerator: Accelerator,
    batch_size: int,
    workers: int | str = 0,
    tta: str = "none",
    multilabel: bool = False,
    expired: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Probabilities float32 [rows, classes], in the order of `rows`: by softmax, or, where a row may have several
    labels, of each class by itself (sigmoid).

    Several processes share the rows, and each gets all the probabilities.
    tta      `hflip` gives the mean of the probabilities of an image and of its mirror
    expired  asked before each batch; once it is true (in the only process) the probabilities end with the
             batch before
    """
    rank, processes = accelerator.process_index, accelerator.num_processes
    mine = np.array_split(np.asarray(rows, dtype=np.int64), processes)[rank]
    on_gpu = accelerator.device.type == "cuda"
    count = worker_count(workers, on_gpu, processes) if len(mine) > batch_size else 0
    training = [module for module in model.modules() if module.training]  # frozen norms may not be
    model.eval()
    outputs = []

    def probabilities_of(inputs: torch.Tensor) -> torch.Tensor:
        logits = model(inputs).float()
        return logits.sigmoid() if multilabel else logits.softmax(dim=1)

    with torch.inference_mode(), accelerator.autocast():
        for pixels in plain_batches(images, mine.tolist(), size, batch_size, count, pin=on_gpu):
            if expired():
                break
            inputs = normalise(pixels)
            probabilities = probabilities_of(inputs)
            if tta == "hflip":
                probabilities = (probabilities + probabilities_of(inputs.flip(3))) / 2
            outputs.append(probabilities)
    for module in training:
        module.training = True
    part = torch.cat(outputs).cpu().numpy() if outputs else np.zeros((0, model.num_classes), np.float32)
    return np.concatenate(gather_object([part])) if processes > 1 else part
