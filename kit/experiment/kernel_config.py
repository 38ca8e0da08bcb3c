"""The `kernel` section."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from kit.core.settings import Section


def _like(form: str, pattern: str):
    """A string that matches the whole of `pattern`; the message names its form."""
    pattern = pattern.replace("SLUG", r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {form}")
        return text

    return Annotated[str, AfterValidator(check)]


Owner = _like("a Kaggle user name", "SLUG")
Ref = _like("owner/slug, as in the address", "SLUG/SLUG")
ModelRef = _like("owner/model/framework/variation/version", r"SLUG/SLUG/SLUG/[A-Za-z0-9][\w.-]{0,79}/\d+")


class KernelConfig(Section):
    """How an experiment becomes Kaggle kernels. They are always private.

    owner        the Kaggle user whose kernels they are; left out: the one whose credentials push them
    accelerator  NvidiaTeslaT4 is two T4s: folds run side by side, one a GPU; none: four CPU cores. P100 is
                 not among them: the image's torch does not run on it; L4, A100, H100 are not for everyone
    internet     whether a train kernel may use the network; an infer kernel never does
    hours        after which Kaggle ends the session; it allows 12
    kernels      whose outputs an infer kernel attaches, owner/slug; left out: the pushed train kernels of
                 this experiment
    datasets     attached to every kernel, owner/slug: weights, wheels, runs
    models       attached to every kernel, owner/model/framework/variation/version
    image        `latest`, or `original`: the image of the first version of the kernel
    max_code_kb  largest code file, in thousands of bytes; what is larger travels as a dataset
    """

    owner: Owner | None = None
    accelerator: Literal["none", "NvidiaTeslaT4", "NvidiaL4", "NvidiaTeslaA100", "NvidiaH100"] = "NvidiaTeslaT4"
    internet: bool = False
    hours: Annotated[float, Field(gt=0, le=12)] = 12.0
    kernels: tuple[Ref, ...] | None = None
    datasets: tuple[Ref, ...] = ()
    models: tuple[ModelRef, ...] = ()
    image: Literal["latest", "original"] = "latest"
    max_code_kb: Annotated[int, Field(ge=10, le=100_000)] = 900

    @property
    def gpus(self) -> int:
        return {"none": 0, "NvidiaTeslaT4": 2}.get(self.accelerator, 1)
