"""timm's networks that keep attention biases in `eval` mode, as timm 1.0.26 has them, whichever is installed."""

import timm
import torch
from timm.models import efficientformer_v2, efficientvit_msra, levit, tiny_vit
from torch import nn

NAMES = {  # and the size of images that a small one takes
    "levit_128s": {"img_size": 32},
    "efficientformerv2_s0": {"img_size": 32},
    "tiny_vit_5m_224": {},
    "efficientvit_m0": {"img_size": 32},
}
KEEPING = (
    levit.Attention,
    levit.AttentionDownsample,
    efficientformer_v2.Attention2d,
    efficientformer_v2.Attention2dDownsample,
    tiny_vit.Attention,
    efficientvit_msra.CascadedGroupAttention,
)


def keep_as_timm_1_0_26(monkeypatch) -> None:
    """Attention biases are dropped at `train(True)` alone, as up to that version."""

    def train(self: nn.Module, mode: bool = True) -> None:
        nn.Module.train(self, mode)
        if mode and self.attention_bias_cache:
            self.attention_bias_cache = {}

    for kind in KEEPING:
        monkeypatch.setattr(kind, "train", train)


def keep_none(monkeypatch) -> None:
    """Attention biases are computed at each forward pass."""
    for kind in KEEPING:
        monkeypatch.setattr(
            kind, "get_attention_biases", lambda self, _: self.attention_biases[:, self.attention_bias_idxs]
        )


def built(name: str) -> nn.Module:
    """A network of three classes for images of 32 × 32, in which every branch counts as in a trained one."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **NAMES[name])
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.endswith("weight"):
                value.fill_(1) if value.ndim == 1 else nn.init.kaiming_normal_(value)
    return model


def biases(model: nn.Module) -> list[nn.Parameter]:
    """Its attention biases."""
    return [value for name, value in model.named_parameters() if "attention_biases" in name]
