"""Depth groups: the parameters of a model in the order of depth.

The order is that of the model's own `depth_groups()`, else of timm's `group_matcher`. A model that has neither is
one group.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Literal

from timm.models import group_parameters
from torch import nn

from kit.core.errors import KitError, some
from kit.model.freezing import Freezer, norms_of
from kit.model.own import by_hook
from kit.model.weights import classifier_names

Cut = Literal["block", "stage", "coarse"]


@dataclass(frozen=True)
class DepthGroup:
    """Parameters at one depth of the network; normalisation layers belong to their block.

    Attributes
    ----------
    name
        The common part of the parameters' names, like `layer1.0`; never the beginning of another's, up to a dot.
    parameters
        By their name in the model.
    norms
        The normalisation layers among their owners.
    kind
        What the parameters are for, where a policy tells kinds apart (`kit.model.kinds`); else "".
    """

    name: str
    parameters: dict[str, nn.Parameter]
    norms: tuple[nn.Module, ...] = ()
    kind: str = ""

    @property
    def label(self) -> str:
        """The name, and the kind where there is one, like `layer1.0 norm`."""
        return f"{self.name} {self.kind}".rstrip()

    @property
    def n_params(self) -> int:
        """How many numbers the parameters hold."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    def freezer(self) -> Freezer:
        """Return what freezes this depth group and lets it learn again."""
        return Freezer(list(self.parameters.values()), self.norms)


def depth_groups(model: nn.Module, cut: Cut = "block") -> list[DepthGroup]:
    """Return the depth groups of a model, stem first, head last; each parameter is in exactly one.

    Parameters
    ----------
    model : Module
        With `depth_groups()`, which lists modules or parameters (or lists of them), each a depth of its own, or a
        `group_matcher`, as timm's models have; without either all its parameters are one group, `all`.
    cut : {"block", "stage", "coarse"}
        block: a depth group for each block, timm's fine grouping, the one of its layer decay.
        stage: one for each stage, timm's coarse grouping; where a model has no stages (ViT), one for each block.
        coarse: three, as fastai cuts a network: the front half of the stages with the stem, the back half, the
        head.

    Raises
    ------
    KitError
        Where the order that the model offers is of no use.
    """
    named = dict(model.named_parameters())
    if not has_order(model):
        return [DepthGroup("all", named, norms_of(model, named.values()))]
    blocks = _layers(model, coarse=False)
    layers = blocks if cut == "block" else _stages(blocks, _layers(model, coarse=True))
    groups = [_group(model, {name: named[name] for name in names}) for names in layers]
    groups = _with_unique_names(groups)
    _check(model, groups, set(named))
    return _addressable(_three(groups) if cut == "coarse" else groups)


def has_order(model: nn.Module) -> bool:
    """Tell whether the model says which of its parameters come first."""
    return callable(getattr(model, "depth_groups", None)) or hasattr(model, "group_matcher")


def parameter_groups(groups: list[DepthGroup]) -> list[dict]:
    """Return parameter groups for a torch optimizer: one for each depth group, with its `name`."""
    return [{"params": list(group.parameters.values()), "name": group.label} for group in groups]


def _group(model: nn.Module, parameters: dict[str, nn.Parameter]) -> DepthGroup:
    return DepthGroup(_common_name(list(parameters)), parameters, norms_of(model, parameters.values()))


def _layers(model: nn.Module, coarse: bool) -> list[list[str]]:
    """The names of the parameters at each depth, as the model or timm cuts it, in the order of depth."""
    if callable(getattr(model, "depth_groups", None)):
        return by_hook(model)
    kind = type(model).__name__
    timm_model: Any = model  # torch's types do not know what timm adds to a module
    try:
        layers = group_parameters(model, timm_model.group_matcher(coarse=coarse))
    except (AssertionError, NotImplementedError) as error:
        cut = "stage and coarse groups" if coarse else "block groups"
        raise KitError(f"model: {kind} offers no {cut} ({error}); choose another cut or timm model") from error
    return [layers[index] for index in sorted(layers)]


def _stages(blocks: list[list[str]], coarse: list[list[str]]) -> list[list[str]]:
    """Put whole blocks together, each in the stage of most of its parameters, so that the cuts nest.

    timm's coarse matchers leave a final norm to the head that its fine ones count to the last block.
    """
    stage_of = {name: index for index, names in enumerate(coarse) for name in names}
    stages = defaultdict(list)
    for names in blocks:
        (stage, _), *_ = Counter(stage_of[name] for name in names).most_common(1)
        stages[stage].extend(names)
    return [stages[index] for index in sorted(stages)]


def _check(model: nn.Module, groups: list[DepthGroup], named: set[str]) -> None:
    """Fail unless each parameter is in one depth group, there are two or more, and the last holds the head."""
    kind = type(model).__name__
    grouped = [name for group in groups for name in group.parameters]
    if sorted(grouped) != sorted(named):
        twice = [f"{name} twice" for name, times in Counter(grouped).items() if times > 1]
        lost = [*twice, *sorted(named.symmetric_difference(grouped))]
        raise KitError(f"model: {kind}'s depth order does not hold every parameter once: {some(lost)}")
    if len(groups) < 2:
        raise KitError(f"model: {kind}'s depth order has a single group, so there is no depth to speak of")
    misplaced = [
        name
        for head in classifier_names(model)
        for name in named
        if name.startswith(f"{head}.") and name not in groups[-1].parameters
    ]
    if misplaced:
        raise KitError(f"model: {kind}'s depth order does not end with its classifier: {some(misplaced)}")


def _three(stages: list[DepthGroup]) -> list[DepthGroup]:
    """Cut in three: front half of the body (the larger one where it is odd), back half, head."""
    body, head = stages[:-1], stages[-1]
    if len(body) < 2:
        raise KitError("model: too few stages to cut in three; use `groups: block` or `groups: stage`")
    middle = (len(body) + 1) // 2
    return [_merge(body[:middle]), _merge(body[middle:]), head]


def _merge(groups: list[DepthGroup]) -> DepthGroup:
    name = groups[0].name if len(groups) == 1 else f"{groups[0].name}…{groups[-1].name}"
    return DepthGroup(
        name,
        {key: value for group in groups for key, value in group.parameters.items()},
        tuple(norm for group in groups for norm in group.norms),
    )


def _with_unique_names(groups: list[DepthGroup]) -> list[DepthGroup]:
    """Name the first and last child too where groups have the same parent (DenseNet's `features`)."""
    named: list[DepthGroup] = []
    times = Counter(group.name for group in groups)
    for group in groups:
        name = group.name
        if times[name] > 1:
            own = [key for key in group.parameters if key.startswith(f"{name}.")] or list(group.parameters)
            children = list(dict.fromkeys(key.removeprefix(f"{name}.").split(".")[0] for key in own))
            name = f"{name}.{_first_to_last(children)}"
        same = sum(other.name == name or other.name.startswith(f"{name}#") for other in named)
        name = f"{name}#{same + 1}" if same else name
        named.append(replace(group, name=name))
    return named


def _addressable(groups: list[DepthGroup]) -> list[DepthGroup]:
    """Lengthen each name that would stand for another group too, as a name stands for all that begin with it.

    The first block of a later stage holds the downsampling as well, so that their common part is the whole stage.
    """
    while (longer := [_longer(place, groups) for place in range(len(groups))]) != groups:
        groups = longer
    return groups


def _longer(place: int, groups: list[DepthGroup]) -> DepthGroup:
    """Return the group with one part more in its name if that stands for another group too, else as it is.

    The part is the child in which the others go on (`blocks` of stages.1, beside stages.1.blocks.1); where they
    part, the first and the last child.
    """
    group = groups[place]
    others = groups[:place] + groups[place + 1 :]
    twins = [other for other in others if other.name == group.name]
    theirs = _children(group, [other.name for other in others])
    theirs += _children(group, [key for twin in twins for key in twin.parameters])
    # kit.lr takes these two words for the first and the last depth group
    elsewhere = (group.name == "stem" and place > 0) or (group.name == "head" and place < len(groups) - 1)
    own = _children(group, list(group.parameters))
    if not own or not (theirs or elsewhere):
        return group
    shared = sorted(own.keys() & theirs.keys(), key=lambda child: -own[child])
    return replace(group, name=f"{group.name}.{shared[0] if shared else _first_to_last(list(own))}")


def _children(group: DepthGroup, names: list[str]) -> Counter[str]:
    """Return how many of these names lie in each child of what the group's name names."""
    within = f"{group.name}."
    return Counter(name.removeprefix(within).split(".")[0] for name in names if name.startswith(within))


def _first_to_last(children: list[str]) -> str:
    return children[0] + (f"…{children[-1]}" if len(children) > 1 else "")


def _common_name(names: list[str]) -> str:
    """The common part of names: `layer1.0` for layer1.0.conv1.weight and layer1.0.bn1.bias.

    Strangers (a final norm) are passed over.
    """
    modules = [name.rpartition(".")[0] or name for name in names]
    kin = [module.split(".") for module in modules if module.split(".")[0] == modules[0].split(".")[0]]
    common = takewhile(lambda parts: len(set(parts)) == 1, zip(*kin, strict=False))
    return ".".join(parts[0] for parts in common)
