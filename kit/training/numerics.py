"""How a GPU computes: the same bits each time or fast, and never in TF32."""

import warnings
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Numerics:
    """The settings by which torch chooses its kernels on a GPU; they hold for the whole process.

    Attributes
    ----------
    benchmark : bool
        Whether cuDNN takes the convolution that is fastest now.
    deterministic : bool
        Whether cuDNN takes kernels that give the same bits each time.
    algorithms : str
        Whether torch does: `default` (it need not), `warn` (where it has one), `error` (it refuses what has none).
    fused_attention : tuple of bool
        Whether attention may be computed by flash, by memory-efficient and by cuDNN's kernel.
    """

    benchmark: bool
    deterministic: bool
    algorithms: str
    fused_attention: tuple[bool, bool, bool]

    @classmethod
    def in_force(cls) -> "Numerics":
        """Return the settings as they are."""
        attention = torch.backends.cuda
        return cls(
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            ("default", "warn", "error")[torch.get_deterministic_debug_mode()],
            (attention.flash_sdp_enabled(), attention.mem_efficient_sdp_enabled(), attention.cudnn_sdp_enabled()),
        )

    def put_in_force(self) -> None:
        """Make the settings these."""
        torch.backends.cudnn.benchmark = self.benchmark
        torch.backends.cudnn.deterministic = self.deterministic
        torch.set_deterministic_debug_mode(self.algorithms)
        flash, memory_efficient, cudnn = self.fused_attention
        torch.backends.cuda.enable_flash_sdp(flash)
        torch.backends.cuda.enable_mem_efficient_sdp(memory_efficient)
        torch.backends.cuda.enable_cudnn_sdp(cudnn)


def rounds_to_tf32() -> bool:
    """Tell whether torch may round fp32 to TF32 on a GPU, in convolutions or matrix products."""
    with warnings.catch_warnings():  # as below
        warnings.simplefilter("ignore")
        return bool(torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)


_found: Numerics | None = None  # what was in force before a GPU was first trained on


def set_numerics(on_gpu: bool, deterministic: bool) -> None:
    """Set by which of torch's kernels this process trains and predicts; for a CPU they are as torch was found.

    Where the same bits are wanted, attention is computed in its plain form. The backward passes of its fused forms
    add up in no fixed order. torch orders them if `use_deterministic_algorithms` is strict (`warn_only=False`),
    but then it ends a training whose model does what has no such form, like pooling to more than one pixel or
    resizing position embeddings. Sources: `attention_backward.cu` and `check_cudnn_deterministic` in torch's.

    On a GPU nothing is rounded to TF32 (ten bits of 23): torch would round the convolutions of fp32, and not its
    matrix products, where the GPU can.

    Parameters
    ----------
    on_gpu : bool
        Whether it is a CUDA device that computes.
    deterministic : bool
        Whether it shall give the same bits each time.
    """
    global _found
    if on_gpu:
        _found = _found or Numerics.in_force()
        algorithms = "warn" if deterministic else "default"
        fused = (False, False, False) if deterministic else _found.fused_attention
        Numerics(not deterministic, deterministic, algorithms, fused).put_in_force()
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # by a hidden setter
        with warnings.catch_warnings():  # torch 2.10 has newer names, but who asks by these then gets an error
            warnings.simplefilter("ignore")
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
    elif _found:
        _found.put_in_force()
        _found = None
