"""The `kernel` section of the config: how an experiment goes to Kaggle."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from kit.core.settings import ConfigSection


def _like(form: str, pattern: str) -> AfterValidator:
    """A check that a text matches the whole of `pattern`; the message names its form."""
    pattern = pattern.replace("SLUG", r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {form}")
        return text

    return AfterValidator(check)


Owner = Annotated[str, _like("a Kaggle user name", "SLUG")]
Ref = Annotated[str, _like("owner/slug, as in the address", "SLUG/SLUG")]
ModelRef = Annotated[
    str, _like("owner/model/framework/variation/version", r"SLUG/SLUG/SLUG/[A-Za-z0-9][\w.-]{0,79}/\d+")
]


def _runs_the_kit(name: Any) -> Any:
    """Refuse accelerators that Kaggle has, but on which a kernel of the kit would fail or crawl."""
    if isinstance(name, str) and "tpu" in name.lower():
        raise ValueError(
            "a TPU gets the image without a GPU's torch, and the kit would train on the CPU without a word; take "
            "NvidiaTeslaT4, or none for the CPU"
        )
    if isinstance(name, str) and "p100" in name.lower():
        raise ValueError(
            "the torch of Kaggle's image has no code for a P100 any more, so the first batch would fail; take "
            "NvidiaTeslaT4"
        )
    return name


GPUS = {
    "none": 0,
    "NvidiaTeslaT4": 2,
    "NvidiaL4": 1,
    "NvidiaL4X1": 1,
    "NvidiaTeslaA100": 1,
    "NvidiaH100": 1,
    "NvidiaRtxPro6000": 1,
}
Accelerator = Annotated[
    Literal[
        "none",
        "NvidiaTeslaT4",
        "NvidiaL4",
        "NvidiaL4X1",
        "NvidiaTeslaA100",
        "NvidiaH100",
        "NvidiaRtxPro6000",
    ],
    BeforeValidator(_runs_the_kit),
]


class KernelConfig(ConfigSection):
    """How an experiment becomes Kaggle kernels. They are always private.

    Attributes
    ----------
    owner
        The Kaggle user whose kernels they are; left out: the one whose credentials push them.
    accelerator
        As Kaggle names it. NvidiaTeslaT4 is two T4s: folds run side by side, one a GPU; none: four CPU cores; the
        others are one GPU and not for everyone. TPUs and the P100 are refused.
    internet
        Whether a train kernel may use the network; an infer kernel never does.
    hours
        After which Kaggle ends the session of a train kernel; it allows 12.
    infer_hours
        After which it ends that of an infer kernel: what the competition allows for its rerun, mostly 9.
    kernels
        Whose outputs an infer kernel attaches, owner/slug; left out: the pushed train kernels of this experiment.
    datasets
        Attached to every kernel, owner/slug: weights, wheels, runs.
    models
        Attached to every kernel, owner/model/framework/variation/version.
    image
        `latest`, or `original`: the image of the first version of the kernel.
    max_code_kb
        Largest code file, in thousands of bytes; what is larger travels as a dataset.
    """

    owner: Owner | None = None
    accelerator: Accelerator = "NvidiaTeslaT4"
    internet: bool = False
    hours: Annotated[float, Field(gt=0, le=12)] = 12.0
    infer_hours: Annotated[float, Field(gt=0, le=12)] = 9.0
    kernels: tuple[Ref, ...] | None = None
    datasets: tuple[Ref, ...] = ()
    models: tuple[ModelRef, ...] = ()
    image: Literal["latest", "original"] = "latest"
    max_code_kb: Annotated[int, Field(ge=20, le=100_000)] = 900

    @property
    def gpus(self) -> int:
        """How many GPUs the accelerator has."""
        return GPUS[self.accelerator]

    def limit(self, kind: str) -> float:
        """Return the hours after which Kaggle ends a kernel of a kind, train or infer."""
        return self.infer_hours if kind == "infer" else self.hours
