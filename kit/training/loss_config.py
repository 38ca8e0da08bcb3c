"""What `training.loss` can be: built-in losses by name, and the user's own.

The formulas are in `kit.training.losses`.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from kit.core.named import ByName, Named, OwnOptions

Exponent = Annotated[float, Field(ge=0, le=20)]


class LossBase(Named):
    """The base of losses that a config names.

    Attributes
    ----------
    smooths : bool
        Of the class: whether `label_smoothing` works with it.
    """

    smooths: ClassVar[bool] = True

    if TYPE_CHECKING:
        name: str  # every loss declares its own

    def check(self, multilabel: bool, shares: bool) -> None:
        """Check that the loss is for such targets; ValueError where it is not, beginning with the key.

        Parameters
        ----------
        multilabel : bool
            Whether a row may have several labels.
        shares : bool
            Whether labels are shares of classes, or images are mixed.
        """


class CrossEntropy(LossBase):
    """Cross-entropy, or binary cross-entropy where a row may have several labels: what no `loss` means."""

    name: Literal["cross_entropy"] = "cross_entropy"


class Focal(LossBase):
    """The focal loss: cross-entropy in which images count less that the model is already sure of.

    Attributes
    ----------
    gamma : float
        How much less; 0: cross-entropy.
    alpha : float, optional
        What a label counts where it is there; where it is not, 1 − alpha. For several labels a row only; left out:
        both count 1.

    References
    ----------
    Lin et al., arXiv 1708.02002.
    """

    gamma: Exponent = 2.0
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    name: Literal["focal"] = "focal"

    def check(self, multilabel: bool, shares: bool) -> None:
        if self.alpha is not None and not multilabel:
            raise ValueError("loss.alpha: is for several labels a row; with one label class_weights weigh classes")


class Asymmetric(LossBase):
    """The asymmetric loss: a focal loss that focuses more on labels that are not there than on those that are.

    Attributes
    ----------
    gamma_neg, gamma_pos : float
        The exponents of labels that are not there, and of those that are.
    clip : float, optional
        By how much the probability of a label that is not there is lowered, so that easy ones count nothing. For
        several labels a row only; left out: 0.05 there.

    References
    ----------
    Ridnik et al., arXiv 2009.14119; timm's AsymmetricLossMultiLabel and AsymmetricLossSingleLabel.
    """

    gamma_neg: Exponent = 4.0
    gamma_pos: Exponent = 1.0
    clip: Annotated[float, Field(ge=0, lt=1)] | None = None
    name: Literal["asymmetric"] = "asymmetric"

    def check(self, multilabel: bool, shares: bool) -> None:
        if multilabel:
            return
        if self.clip is not None:
            raise ValueError("loss.clip: is for several labels a row; leave it out")
        if shares:
            raise ValueError(
                "loss: asymmetric is of labels that are there or not, and with one label a row it takes no mixed "
                "images (mixup, cutmix) and no shares of classes; take focal"
            )


class LogitAdjusted(LossBase):
    """Cross-entropy of logits to which the classes' log frequencies are added: prediction is without them.

    Attributes
    ----------
    tau : float
        What the log frequencies are multiplied by; 1 is what the theory of the balanced error asks for.

    References
    ----------
    Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, arXiv 2007.07314, equation 10.
    """

    tau: Annotated[float, Field(gt=0, le=10)] = 1.0
    name: Literal["logit_adjusted"] = "logit_adjusted"


class LossConfig(LossBase, OwnOptions):
    """A loss of the user's own: a function of logits, targets and the options beside its name.

    It gives the loss of each image, [batch], or their mean; or it is a class of nn.Module, made with the options.
    """

    smooths: ClassVar[bool] = False


Loss = Annotated[LossBase, ByName(LossConfig)]
