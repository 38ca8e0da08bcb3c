"""The built-in losses beside cross-entropy: focal, asymmetric, logit-adjusted.

Each gives the loss of each image, so that weights of rows and classes, and an update in parts, work as for
cross-entropy (see the head of `kit.training.loss`). In the formulas p is the model's probability, y the target,
and w_k the weight of class k.

timm's and torchvision's are the same formulas, as tests hold. They are not called: where an image is right for
certain and an exponent is below 1 their gradients are not a number, and not all of them weigh classes.
"""

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, one_hot

from kit.training.loss_config import Asymmetric, Focal, LogitAdjusted

SMALLEST = 1e-12  # of what a focal exponent is applied to: the gradient of 0 ** gamma may be infinite
CLIP = 0.05  # of asymmetric, where it is left out
LOWEST = 1e-8  # timm's: of a probability before its logarithm, after the clip


class LossOfEach(nn.Module):
    """The base of losses that are the mean over images of weight · loss.

    Parameters
    ----------
    weights : Tensor or None
        Of each class, float32 [classes].
    smoothing : float
        Label smoothing.
    """

    def __init__(self, weights: torch.Tensor | None, smoothing: float = 0.0):
        super().__init__()
        self.smoothing = smoothing
        self.register_buffer("weights", weights)
        self.weights: torch.Tensor | None

    def forward(
        self, logits: torch.Tensor, targets: torch.Tensor, of_rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss of logits [batch, classes] and targets: indices [batch], or [batch, classes].

        `of_rows`: what each image counts, [batch].
        """
        each = self.each(logits, targets)
        return (each if of_rows is None else each * of_rows).mean()

    def each(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of each image, class weights included, [batch]."""
        raise NotImplementedError

    def _as_shares(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return targets of one label a row as shares of classes, smoothed."""
        shares = one_hot(targets, logits.shape[1]) if targets.ndim == 1 else targets
        return shares.to(logits.dtype) * (1 - self.smoothing) + self.smoothing / logits.shape[1]

    def _as_labels(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return targets of several labels a row as numbers from 0 to 1, smoothed."""
        return targets.to(logits.dtype) * (1 - self.smoothing) + self.smoothing / 2


class FocalLoss(LossOfEach):
    """The focal loss of one label a row: −Σ_k w_k · y_k · (1 − p_k)^gamma · log p_k.

    Of a class index t that is −w_t · (1 − p_t)^gamma · log p_t, as Lin et al. (arXiv 1708.02002) have it for two
    classes.
    """

    def __init__(self, config: Focal, weights: torch.Tensor | None, smoothing: float):
        super().__init__(weights, smoothing)
        self.gamma = config.gamma

    def each(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        log = logits.log_softmax(1)
        losses = -_focus(-torch.expm1(log), self.gamma) * log * self._as_shares(logits, targets)
        return (losses if self.weights is None else losses * self.weights).sum(1)


class FocalLossOfLabels(LossOfEach):
    """The focal loss of several labels a row, torchvision's `sigmoid_focal_loss`: the mean over classes.

    Of a class: alpha_t · (1 − p_t)^gamma · binary cross-entropy, where p_t = p·y + (1 − p)·(1 − y), and alpha_t is
    between 1 − alpha and alpha likewise. A class's weight multiplies the losses of its positive targets.
    """

    def __init__(self, config: Focal, weights: torch.Tensor | None, smoothing: float):
        super().__init__(weights, smoothing)
        self.gamma, self.alpha = config.gamma, config.alpha

    def each(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        labels, likely = self._as_labels(logits, targets), torch.sigmoid(logits)
        missed = likely * (1 - labels) + torch.sigmoid(-logits) * labels  # 1 − p_t, to its last digit
        losses = binary_cross_entropy_with_logits(logits, labels, reduction="none") * _focus(missed, self.gamma)
        if self.alpha is not None:
            losses = losses * (self.alpha * labels + (1 - self.alpha) * (1 - labels))
        if self.weights is not None:
            losses = losses * (self.weights * labels + 1 - labels)
        return losses.mean(1)


class AsymmetricLoss(LossOfEach):
    """The asymmetric loss of one label a row, timm's AsymmetricLossSingleLabel.

    −Σ_k y_k · f_k · log p_k, where f_k is (1 − p_k)^gamma_pos for the row's class and p_k^gamma_neg for others,
    whose y_k is 0 but for label smoothing: without it this is the focal loss with gamma_pos.
    """

    def __init__(self, config: Asymmetric, weights: torch.Tensor | None, smoothing: float):
        super().__init__(weights, smoothing)
        self.gamma_pos, self.gamma_neg = config.gamma_pos, config.gamma_neg

    def each(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        log, there = logits.log_softmax(1), one_hot(targets, logits.shape[1]).bool()
        factors = torch.where(there, _focus(-torch.expm1(log), self.gamma_pos), _focus(log.exp(), self.gamma_neg))
        losses = -(self._as_shares(logits, targets) * factors * log).sum(1)
        return losses if self.weights is None else losses * self.weights[targets]


class AsymmetricLossOfLabels(LossOfEach):
    """The asymmetric loss of several labels a row, timm's AsymmetricLossMultiLabel: the sum over classes.

    Of a class: −y · (1 − p)^gamma_pos · log p − (1 − y) · q^gamma_neg · log(1 − q), where q = max(p − clip, 0). Of
    labels that are shares or smoothed, as timm has it: the exponent and what it is applied to lie between these. A
    class's weight multiplies the losses of its positive targets.
    """

    def __init__(self, config: Asymmetric, weights: torch.Tensor | None, smoothing: float):
        super().__init__(weights, smoothing)
        self.gamma_pos, self.gamma_neg = config.gamma_pos, config.gamma_neg
        self.clip = CLIP if config.clip is None else config.clip

    def each(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        labels, likely, unlikely = self._as_labels(logits, targets), logits.sigmoid(), (-logits).sigmoid()
        if self.clip:
            unlikely = (unlikely + self.clip).clamp(max=1)
            log_unlikely = unlikely.clamp(min=LOWEST).log()
        else:
            log_unlikely = logsigmoid(-logits)
        there, absent = labels * logsigmoid(logits), (1 - labels) * log_unlikely
        if self.weights is not None:
            there = there * self.weights
        missed = 1 - likely * labels - unlikely * (1 - labels)
        exponents = self.gamma_pos * labels + self.gamma_neg * (1 - labels)
        return -((there + absent) * _focus(missed, exponents)).sum(1)


class LogitAdjustedLoss(nn.Module):
    """A loss of logits + tau · log-odds of the classes.

    Parameters
    ----------
    config : LogitAdjusted
    loss : Module
        Cross-entropy, or binary cross-entropy for several labels a row.
    offsets : Tensor
        float32 [classes]: what `class_offsets` gives, log frequencies or, with several labels a row, log odds.
    """

    def __init__(self, config: LogitAdjusted, loss: nn.Module, offsets: torch.Tensor):
        super().__init__()
        self.loss = loss
        self.register_buffer("offsets", config.tau * offsets)
        self.offsets: torch.Tensor

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, *of_rows: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits [batch, classes] and targets: indices [batch], or [batch, classes]."""
        return self.loss(logits + self.offsets, targets, *of_rows)


def _focus(missed: torch.Tensor, exponent: float | torch.Tensor) -> torch.Tensor:
    """Return `missed` ** `exponent`, with a gradient that is finite."""
    return missed.clamp(min=SMALLEST) ** exponent
