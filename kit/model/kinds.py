"""Kinds of parameters: depth groups split by what their parameters are for."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import nn

from kit.core.errors import KitError, some
from kit.model.groups import DepthGroup

PATTERN = "re:"  # begins a regular expression of names of parameters
# Class, distillation, register and mask tokens, absolute positions, and what turns patches into vectors.
_EMBED = re.compile(
    r"(^|\.)((cls|dist|reg|mask|class)_token|class_embedding|(abs_)?pos(ition)?_embed\w*|patch_embed)(\.|$)"
)


def split_by_kind(groups: Sequence[DepthGroup], kinds: Iterable[str]) -> list[DepthGroup]:
    """Return the depth groups, each split in the kinds that are told apart, in the order of depth.

    A parameter is of the kind of the pattern that its name begins with, else `norm` (weights and biases of
    normalisation layers), `embed` (tokens, absolute positions, patch embedding), `bias`, `weight`. Of a depth
    group all that is of none of `kinds` comes first, without a kind.

    Parameters
    ----------
    groups : sequence of DepthGroup
        Stem first.
    kinds : iterable of str
        Those that are told apart: norm, embed, bias, weight, and patterns like `re:.*attn.qkv`; none: nothing is
        split.

    Raises
    ------
    KitError
        Where a pattern is of no parameter, or two are of the same one.
    """
    wanted = list(kinds)
    if not wanted:
        return list(groups)
    patterns = {kind: re.compile(kind.removeprefix(PATTERN)) for kind in wanted if kind.startswith(PATTERN)}
    names = [name for group in groups for name in group.parameters]
    for kind, pattern in patterns.items():
        if not any(pattern.match(name) for name in names):
            raise KitError(f"kinds: {kind!r} is of no parameter; they are {some(names, 8)}")
    split = []
    for group in groups:
        _need_whole_norms(group, patterns)
        members: dict[str, dict[str, nn.Parameter]] = {kind: {} for kind in ("", *wanted)}
        normed = {id(value) for norm in group.norms for value in norm.parameters(recurse=False)}
        for name, value in group.parameters.items():
            kind = _kind_of(name, id(value) in normed, patterns)
            members[kind if kind in members else ""][name] = value
        split += [_part(group, kind, parameters) for kind, parameters in members.items() if parameters]
    return split


def _kind_of(name: str, normed: bool, patterns: dict[str, re.Pattern[str]]) -> str:
    found = [kind for kind, pattern in patterns.items() if pattern.match(name)]
    if len(found) > 1:
        raise KitError(f"kinds: {' and '.join(map(repr, found))} are both of {name}; make them exclude each other")
    if found:
        return found[0]
    if normed:
        return "norm"
    if _EMBED.search(name):
        return "embed"
    return "bias" if name.rpartition(".")[2] == "bias" else "weight"


def _need_whole_norms(group: DepthGroup, patterns: dict[str, re.Pattern[str]]) -> None:
    """Refuse patterns that part the weight and the bias of a normalisation layer, which has statistics, too."""
    names = {id(value): name for name, value in group.parameters.items()}
    for norm in group.norms:
        inside = [names[id(value)] for value in norm.parameters(recurse=False) if id(value) in names]
        if len({_kind_of(name, True, patterns) for name in inside}) > 1:
            raise KitError(
                f"kinds: {' and '.join(inside)} are of one normalisation layer; let a pattern be of both"
            )


def _part(group: DepthGroup, kind: str, parameters: dict[str, nn.Parameter]) -> DepthGroup:
    held = {id(value) for value in parameters.values()}
    norms = tuple(
        norm for norm in group.norms if any(id(value) in held for value in norm.parameters(recurse=False))
    )
    return replace(group, kind=kind, parameters=parameters, norms=norms)
