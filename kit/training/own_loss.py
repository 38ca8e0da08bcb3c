"""A loss of the user's own, and what is tried of it before any training."""

import torch

from kit.core.errors import KitError
from kit.training.loss_config import LossConfig
from kit.training.losses import LossOfEach


class OwnLoss(LossOfEach):
    """A loss of the user's own, the mean over images.

    Parameters
    ----------
    config : LossConfig
        Names it.
    weights : Tensor, optional
        Of each class, float32 [classes]: an image's loss counts by its class's.

    Raises
    ------
    KitError
        Where it cannot be loaded or does not take its options.
    """

    def __init__(self, config: LossConfig, weights: torch.Tensor | None = None):
        super().__init__(weights)
        self.code = config.code
        try:
            self.loss = self.code.bind(config.options, ("logits", "targets"))  # a module is registered as one
        except KitError as error:
            raise KitError(f"training.loss: {error}") from error

    def each(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of each image, class weights included, [batch]; or the mean, where it gives that."""
        each: torch.Tensor = self.loss(logits, targets)
        return each if self.weights is None or targets.ndim != 1 else each * self.weights[targets]

    def check(
        self, n_classes: int, multilabel: bool, mixed: bool, shares: bool = False, weighs: bool = False
    ) -> None:
        """Try the loss on made-up logits and targets; KitError where it gives no loss that can be learned from.

        Parameters
        ----------
        n_classes : int
        multilabel : bool
            Whether a row may have several labels.
        mixed, shares : bool
            Whether images are mixed, and whether labels of some rows are shares of classes: either way targets are
            shares.
        weighs : bool
            Whether rows have weights.
        """
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(6, n_classes, generator=generator).requires_grad_()
        targets: torch.Tensor = torch.arange(6) % n_classes
        if multilabel:
            targets = torch.rand(6, n_classes, generator=generator) < 0.5
        if mixed or shares:
            targets = torch.rand(6, n_classes, generator=generator).softmax(1)
        place = f"training.loss: {self.code.reference}"
        if self.weights is not None and (multilabel or mixed or shares):
            raise KitError(
                "training.class_weights: with mixed images or several labels a row a loss of your own has to "
                "weigh classes itself, and with shares of classes, too; leave class_weights out"
            )
        if any(value.requires_grad for value in self.parameters()):
            raise KitError(
                f"{place} has parameters of its own, which would not learn: the model's are optimized alone"
            )
        try:
            each = self.loss(logits, targets)
            again = self.loss(torch.cat([logits, logits]), torch.cat([targets, targets]))
        except Exception as error:
            raise KitError(f"{place}: {self.code.fault(error)}") from error
        if not isinstance(each, torch.Tensor) or each.shape not in ((), (6,)):
            given = f"shape {list(each.shape)}" if isinstance(each, torch.Tensor) else repr(each)
            raise KitError(f"{place} gives {given} for 6 images; the loss of each, [6], or their mean is needed")
        if self.weights is not None and each.shape == ():
            raise KitError(f"{place} gives a mean; for class_weights the loss of each image, [batch], is needed")
        if weighs and each.shape == ():
            raise KitError(
                f"{place} gives a mean; for rows with weights (competition.weight, competition.extra) the loss of "
                "each image, [batch], is needed"
            )
        if not each.isfinite().all():
            raise KitError(f"{place} is not finite: {each.tolist()}")
        if each.shape == () and each.abs() > 1e-6 and torch.allclose(again, 2 * each, rtol=1e-3):
            raise KitError(f"{place} doubles where each image is there twice, as a sum does; a mean is needed")
        if not each.requires_grad:
            raise KitError(f"{place} has no gradient; make it of torch operations on the logits")
