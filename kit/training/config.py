"""The `training` and `prediction` sections."""

from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from kit.core.named import RefersToCode
from kit.core.own_code import is_reference
from kit.core.settings import ConfigSection, Text
from kit.training.loss_config import CrossEntropy, LogitAdjusted, Loss
from kit.training.views import Average, Pool, Views, chosen_views

TrackerName = Literal["tensorboard", "wandb", "mlflow"]


class OptimizerConfig(RefersToCode, ConfigSection):
    """An optimizer of timm or of the user's own; the policy gives its rates and momentum.

    Attributes
    ----------
    name : str
        One of `timm.optim.list_optimizers()`, or own code: a class of torch.optim.Optimizer.
    weight_decay : float
        Of weight matrices and filters; biases, norms and other vectors get none.
    options : dict
        Further keyword arguments, e.g. {betas: [0.9, 0.99], eps: 1e-5}.
    """

    code_keys = ("name",)
    name: str = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    options: dict[str, Any] = {}


class ProbesConfig(ConfigSection):
    """What is looked at inside a training (docs/probes.md); it changes no bit of it.

    Attributes
    ----------
    every : int
        Updates between two samples; the first and the last update are sampled, too.
    butterfly : tuple of float
        Moments, as shares of the training, at which each depth group is perturbed to see how far the output moves:
        0 before the first update, 1 after the last.
    relative : float
        Size of that perturbation, as a share of each tensor's norm.
    images : int
        Held-out images that it is measured on.
    runs : str
        first: the first seed and fold of each policy alone; or all.
    """

    every: Annotated[int, Field(ge=1)] = 10
    butterfly: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    relative: Annotated[float, Field(gt=0)] = 0.01
    images: Annotated[int, Field(ge=1)] = 64
    runs: Literal["first", "all"] = "first"


class SamplerConfig(ConfigSection):
    """Which rows an epoch visits: as many as train, drawn with replacement, rows of rare classes more often.

    Attributes
    ----------
    power : float
        A row's chance is in proportion to (rows of its class) ^ −power: 1 is `balanced`, 0.5 is `sqrt`.
    """

    powers: ClassVar[dict[str, float]] = {"balanced": 1.0, "sqrt": 0.5}

    power: Annotated[float, Field(gt=0, le=4)]

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, content: Any) -> Any:
        if isinstance(content, dict | cls):
            return content
        if isinstance(content, str) and content in cls.powers:
            return {"power": cls.powers[content]}
        raise ValueError(f"expected {', '.join(cls.powers)}, or a power like {{power: 0.7}}")


class AverageConfig(ConfigSection):
    """A plain mean of the weights after each of the last updates (stochastic weight averaging).

    Attributes
    ----------
    kind : str
        swa.
    last : float
        The share of the updates that are averaged, from the end.
    """

    kind: Literal["swa"] = "swa"
    last: Annotated[float, Field(gt=0, le=1)] = 0.25

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, content: Any) -> Any:
        if isinstance(content, dict | cls):
            return content
        if content == "swa":
            return {"kind": content}
        raise ValueError("expected swa, or a mapping like {kind: swa, last: 0.25}")

    @model_serializer(mode="wrap")
    def _with_its_kind(self, rest: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Name the kind even where defaults are left out: {} would read as no average."""
        return {"kind": self.kind, **rest(self)}


class TrainingConfig(ConfigSection):
    """How a fold model is trained.

    Attributes
    ----------
    epochs : int
        Passes over the training folds; incomplete batches are dropped.
    batch_size : int
        Samples a device and forward pass; an update sees batch_size × accumulate × devices.
    accumulate : int
        Forward passes an update.
    optimizer : OptimizerConfig
        Which optimizer, and its options.
    precision : str
        auto: bf16 where the device has it natively, fp16 with gradient scaling on other CUDA devices, fp32
        elsewhere. fp32 is without TF32.
    clip_grad : float, optional
        Largest norm of the gradient; left out: no clipping.
    sampler : SamplerConfig, optional
        balanced, sqrt, or {power: 0.7}: draw rows of rare classes more often; left out: an epoch visits each row
        once. An epoch stays as many rows as train.
    loss : LossBase, optional
        The name of a built-in one (focal, asymmetric, logit_adjusted), or the user's own, like {name:
        "mine.py:focal", gamma: 2}; left out, or cross_entropy: cross-entropy, or binary cross-entropy where a row
        may have several labels.
    label_smoothing : float
        Share of the target spread over all classes.
    class_weights : str or dict
        none, balanced (scikit-learn's formula on the training folds), or {class: weight}.
    mixup, cutmix : float
        Alpha of the beta distribution; 0 is off. Both on: one of the two, by chance, a batch.
    ema : float, optional
        Decay of an exponential moving average of the weights; the average is what predicts.
    average : AverageConfig, optional
        Like {kind: swa, last: 0.25}: the mean of the weights over the last quarter of the updates predicts.
    norm_batches : int, optional
        Batches of training images on which batch norms are estimated anew before anything is scored or saved; left
        out: 50 where weights are averaged by `average` or by the optimizer itself (schedule-free), else none.
    sync_batch_norm : bool
        Where several processes train together: batch norms take their statistics over the batches of all, as one
        process with their whole batch would, instead of each over its own.
    evaluate_every : int
        Epochs between scores on the held-out fold, a diagnostic; 0: only at the end.
    log_every : int
        Updates between two looks at the loss (a wait for the device each).
    checkpoint_minutes : float
        Between checkpoints, from which a stopped or killed run goes on; more are written at the ends of epochs
        where that costs next to nothing. 0: after each look at the loss.
    on_nonfinite : str
        Where a loss is not finite: stop; skip that update; or restart_lower, begin anew with all rates a third of
        what they were, three times at most.
    probes : ProbesConfig, optional
        What is looked at inside the training, like {every: 10}; left out: nothing.
    tracker : str, optional
        tensorboard, wandb or mlflow is told what is logged (docs/programs.md); left out: none.
    device : str
        auto, or cpu.
    deterministic : bool
        The same bits in every run on the same machine (torch warns of a GPU kernel that has no such form); false
        may be faster on a GPU, most of all for models with attention.
    compile : bool or str
        true: what the model computes while it learns is compiled (torch.compile), block by block where it repeats
        blocks; graphs: as a whole, and a GPU replays it as CUDA graphs, which helps small models most.
    """

    incidental: ClassVar[frozenset[str]] = frozenset(
        {"evaluate_every", "log_every", "checkpoint_minutes", "probes", "tracker", "device"}
    )
    later: ClassVar[frozenset[str]] = frozenset(
        {"sampler", "loss", "norm_batches", "on_nonfinite", "sync_batch_norm", "average", "compile"}
    )

    epochs: Annotated[int, Field(ge=1)] = 5
    batch_size: Annotated[int, Field(ge=1)] = 64
    accumulate: Annotated[int, Field(ge=1)] = 1
    optimizer: OptimizerConfig = OptimizerConfig()
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    clip_grad: Annotated[float, Field(gt=0)] | None = None
    sampler: SamplerConfig | None = None
    loss: Loss | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: Literal["none", "balanced"] | dict[Text, Annotated[float, Field(gt=0)]] = "none"
    mixup: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    average: AverageConfig | None = None
    norm_batches: Annotated[int, Field(ge=0)] | None = None
    sync_batch_norm: bool = False
    evaluate_every: Annotated[int, Field(ge=0)] = 1
    log_every: Annotated[int, Field(ge=1)] = 20
    checkpoint_minutes: Annotated[float, Field(ge=0)] = 5.0
    on_nonfinite: Literal["stop", "skip", "restart_lower"] = "stop"
    probes: ProbesConfig | None = None
    tracker: TrackerName | None = None
    device: Literal["auto", "cpu"] = "auto"
    deterministic: bool = True
    compile: bool | Literal["graphs"] = False

    @field_validator("optimizer", mode="before")
    @classmethod
    def _optimizer_alone(cls, section: Any) -> Any:
        return {"name": section} if is_reference(section) else section

    @field_validator("loss", mode="before")
    @classmethod
    def _loss_alone(cls, section: Any) -> Any:
        return {"name": section} if isinstance(section, str) else section

    @field_validator("loss")
    @classmethod
    def _without_a_loss(cls, loss: Loss | None) -> Loss | None:
        return None if isinstance(loss, CrossEntropy) else loss

    @model_validator(mode="after")
    def _own_loss_smooths_itself(self) -> Self:
        if self.loss and not self.loss.smooths and self.label_smoothing and not self.mixes:
            raise ValueError("label_smoothing is for the kit's losses; let the loss of your own do it")
        return self

    @model_validator(mode="after")
    def _one_average(self) -> Self:
        if self.ema and self.average:
            raise ValueError("ema and average are two averages of the weights; leave one of them out")
        return self

    @model_validator(mode="after")
    def _corrected_once(self) -> Self:
        if isinstance(self.loss, LogitAdjusted) and self.class_weights == "balanced":
            raise ValueError(
                "class_weights: balanced corrects the frequencies of classes, as the loss logit_adjusted does; "
                "take one of the two"
            )
        return self

    @model_validator(mode="after")
    def _compiled_without(self) -> Self:
        if self.compile and self.sync_batch_norm:
            raise ValueError("compile and sync_batch_norm do not go together; leave one of them out")
        if self.compile == "graphs" and (self.accumulate > 1 or self.probes):
            key = "probes" if self.probes else "accumulate"
            raise ValueError(f"compile: graphs runs an update as one pass; leave {key} out, or take compile: true")
        return self

    @property
    def mixes(self) -> bool:
        """Whether images and targets of a batch are mixed."""
        return bool(self.mixup or self.cutmix)

    @model_validator(mode="after")
    def _even_batches_for_mixing(self) -> Self:
        if self.mixes and self.batch_size % 2:
            raise ValueError(f"mixup and cutmix need an even batch_size, not {self.batch_size}")
        return self


class Scales(ConfigSection):
    """The plain view at other sizes, like {scales: [0.8, 1.25]}.

    Attributes
    ----------
    scales : tuple of float
        What the side of the plain view is multiplied by; the network sees that many pixels.
    """

    scales: tuple[Annotated[float, Field(ge=0.25, le=4)], ...]

    @field_validator("scales")
    @classmethod
    def _others(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if not scales or len(set(scales)) < len(scales) or 1 in scales:
            raise ValueError("expected one at least, none twice, and not 1, which is the plain view")
        return scales


class Tiles(ConfigSection):
    """Parts of the stored image, each enlarged to what the network sees, like {tiles: 2}; one vote together.

    Attributes
    ----------
    tiles : int
        A side: 2 cuts four.
    pool : str
        mean, or max: what any of them shows counts.
    """

    tiles: Annotated[int, Field(ge=2, le=8)]
    pool: Pool = "mean"


ViewName = Literal["hflip", "vflip", "rot90", "d4", "five_crops"]


class PredictionConfig(ConfigSection):
    """How the trained models predict; it decides no training.

    Attributes
    ----------
    views : tuple
        What is seen of each image beside the plain view: hflip, vflip, rot90 (all three turns), d4 (the eight
        symmetries of a square), five_crops (the corners of the stored image), {scales: [0.8, 1.25]}, {tiles: 2};
        of several the union.
    size : int, optional
        Side of the square that the network sees, in pixels, data.size or more; left out: data.size.
    average : str
        What is averaged over views: probabilities, or logits.
    batch_size : int, optional
        Images a forward pass; left out: twice the training's.

    Notes
    -----
    `tta: hflip` and `tta: none` of earlier versions mean `views: [hflip]` and no views.
    """

    incidental: ClassVar[frozenset[str]] = frozenset({"views", "size", "average", "batch_size"})

    views: tuple[ViewName | Scales | Tiles, ...] = ()
    size: Annotated[int, Field(ge=8, le=4096)] | None = None
    average: Average = "probabilities"
    batch_size: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_called(cls, content: Any) -> Any:
        if not isinstance(content, dict) or "tta" not in content:
            return content
        content = dict(content)
        tta = content.pop("tta")
        if tta not in ("none", "hflip", None):
            raise ValueError(f"tta = {tta!r}: expected none or hflip; other views are named in views")
        if content.get("views") and tta is not None:
            raise ValueError("tta is an earlier name for views, and both are stated; leave tta out")
        return content | ({"views": [tta]} if tta == "hflip" else {})

    @field_validator("views", mode="before")
    @classmethod
    def _a_list(cls, views: Any) -> Any:
        """Take a single view for a list of one."""
        views = [views] if isinstance(views, str | dict) else () if views is None else views
        for view in views if isinstance(views, list | tuple) else ():
            if isinstance(view, str) and view not in get_args(ViewName):
                raise ValueError(
                    f"{view!r} is no view; there are {', '.join(get_args(ViewName))}, {{scales: [0.8, 1.25]}} and "
                    "{tiles: 2}"
                )
        return views

    def chosen(self, trained: int) -> Views:
        """Return the views, for models that were trained on images of so many pixels a side."""
        return chosen_views(self.views, self.size or trained, trained, self.average)
