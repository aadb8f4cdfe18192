"""Which channels go: how many of each group, and then the least important ones of each."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import nn

from compress.channels.groups import Channels, Group
from compress.channels.labels import Ids
from compress.errors import ConfigError
from compress.pruning.places import State, state_of
from compress.pruning.scores import Scores

ChannelScope = Literal["layer", "global", "budget"]
Removed = npt.NDArray[np.bool_]  # [channels]
_EPSILON = 1e-9  # of rounding: 10 * (1 - 0.9) is to be 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """What there is to choose from.

    Attributes:
        channels: the network's.
        scores: of every channel that may go.
        growth: for each of those groups how many times as many channels it had in the model that a ratio counts from.
        scope: see :class:`~compress.pruning.options.PruneOptions`.
        min_kept: see there too; 0 where a fraction was asked of every layer outright.
        is_absolute: whether scores of several groups compare as they are.
        savings: for the scope "budget": for each group what each of its steps saves, the first to go first.
    """

    channels: Channels
    scores: Scores
    growth: Mapping[int, float]
    scope: ChannelScope
    min_kept: float
    is_absolute: bool = False
    savings: Mapping[int, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """A group, to be thinned step by step: each takes the same fraction of every cell, where that is fine enough.

    Parts that hold equally many channels of cells of several sizes still do if all lose the same fraction; nothing
    finer than one of ``count`` steps can be removed.

    Attributes:
        count: how many steps there are of the cell that has most.
        least: how many of them must stay, so that something is left of every cell.
        width: channels that go in a step.
        dense: how many steps there were in the model that a ratio counts from.
        alike: whether all cells are of one size.
    """

    count: int
    least: int
    width: int
    dense: float
    alike: bool


def choose(candidates: Candidates, frozen: Container[int], ratio: float, round_to: int) -> Removed:
    """The channels to remove so that ``ratio`` of them are gone, of the groups not ``frozen``."""
    groups = {index: candidates.channels.groups[index] for index in candidates.scores if index not in frozen}
    steps = {index: steps_of(group, candidates.growth[index]) for index, group in groups.items()}
    floors = {
        index: max(one.least, math.ceil(one.dense * candidates.min_kept - _EPSILON)) for index, one in steps.items()
    }
    if candidates.scope == "layer":
        wanted = {index: _share(one, ratio) for index, one in steps.items()}
    else:
        wanted = _most_important(candidates, groups, steps, floors, ratio)
    removed = np.zeros(len(candidates.channels.group_of), dtype=np.bool_)
    for index, group in groups.items():
        one = steps[index]
        kept = _aligned(group, one, min(one.count, max(wanted[index], floors[index])), round_to)
        for cell, width, scores in zip(group.cells, group.widths, candidates.scores[index], strict=True):
            least_first = np.argsort(scores, kind="stable")
            removed[cell.units[least_first[: width * (one.count - kept)]]] = True
    return removed


def why_all_stay(group: Group, ratio: float) -> str:
    """Why nothing of a group that may be cut was removed at ``ratio``."""
    count = group.num_steps
    if count == 1:
        return f"its {group.num_channels} channels cannot be thinned in equal parts: they would go all at once"
    return f"of the {count} equal steps that it can be thinned by, a ratio of {ratio:g} leaves all"


def growth_since(model: nn.Module | None, channels: Channels, scores: Scores) -> dict[int, float]:
    """How many times as many channels each group had in ``model``, which is as it was before any cut.

    Raises:
        ConfigError: if ``model`` is not that.
    """
    if model is None:
        return dict.fromkeys(scores, 1.0)
    state = state_of(model)
    return {index: _growth(state, channels, index) for index in scores}


def _growth(state: State, channels: Channels, index: int) -> float:
    members = [channels.slots[member] for member in channels.groups[index].members]
    # A dimension that several groups share was cut by other fractions too.
    own = next((slot for slot in members if slot.ids.ndim == 1 and _is_all_of(channels, index, slot.ids)), members[0])
    tensor = state.get(own.tensor)
    before = tensor.shape[own.dim] if tensor is not None and own.dim < tensor.ndim else 0
    if before < own.ids.shape[-1]:
        raise ConfigError(
            f"relative_to must be the model before it was cut, got one with {before} channels in dimension {own.dim}"
            f" of '{own.tensor}', where {own.ids.shape[-1]} are left"
        )
    return float(before / own.ids.shape[-1])


def _is_all_of(channels: Channels, index: int, ids: Ids) -> bool:
    return bool((channels.group_of[channels.units[ids]] == index).all())


def steps_of(group: Group, growth: float = 1.0) -> Steps:
    """How a group can be thinned; ``growth`` times as many channels as there are were there before any cut."""
    sizes = [len(cell.units) for cell in group.cells]
    count = max(size // width for size, width in zip(sizes, group.widths, strict=True) if width)
    return Steps(
        count=count,
        least=count - group.num_steps + 1,
        width=sum(group.widths),
        dense=count * growth,
        alike=len(set(sizes)) == 1,
    )


def _share(steps: Steps, ratio: float) -> int:
    """How many steps stay where every group loses the same fraction."""
    wanted = steps.dense * (1 - ratio)
    # Where the steps are coarse, rather too little than too much.
    return math.floor(wanted + _EPSILON) if steps.alike else math.ceil(wanted - _EPSILON)


def _most_important(
    candidates: Candidates,
    groups: Mapping[int, Group],
    steps: Mapping[int, Steps],
    floors: Mapping[int, int],
    ratio: float,
) -> dict[int, int]:
    """How many steps of each group stay where the fraction is of all channels, or of all savings, together."""
    portions: list[_Portion] = []
    for index, group in groups.items():
        one = steps[index]
        may_go = max(0, one.count - floors[index])
        scores = _step_scores(group, candidates, index, one)[:may_go]
        if candidates.scope == "budget":
            portions += _cheapest_first(index, [score * one.width for score in scores], candidates.savings[index])
        else:
            portions += [_Portion(index, 1, score, one.width) for score in scores]
    if candidates.scope == "budget":
        budget = ratio * sum(sum(candidates.savings[index]) for index in groups)
    else:
        total = sum(one.count * one.width for one in steps.values())
        budget = total - sum(one.dense * one.width for one in steps.values()) * (1 - ratio)
    portions.sort(key=lambda portion: portion.price)
    spent = np.cumsum([portion.saving for portion in portions])
    wanted = {index: one.count for index, one in steps.items()}
    for portion in portions[: int(np.searchsorted(spent, budget * (1 + _EPSILON) + _EPSILON, side="right"))]:
        wanted[portion.group] -= portion.steps
    return wanted


class _Portion(NamedTuple):
    """Steps of one group that go together: what they cost in importance for each unit that they save."""

    group: int
    steps: int
    price: float
    saving: float


def _cheapest_first(group: int, scores: Sequence[float], savings: Sequence[float]) -> list[_Portion]:
    """The steps of a group in portions whose prices rise: the lower convex hull of importance over what is saved.

    Taken in the order of their prices over all groups they solve the knapsack but for the last portion. Steps that
    save nothing by themselves, such as widths that a kernel pads, go with those behind them.
    """
    hull: list[tuple[int, float, float]] = []
    for score, saving in zip(scores, savings, strict=False):
        one = (1, score, max(saving, 0.0))
        while hull and one[1] * hull[-1][2] <= hull[-1][1] * one[2]:
            last = hull.pop()
            one = (last[0] + one[0], last[1] + one[1], last[2] + one[2])
        hull.append(one)
    return [_Portion(group, count, score / saving, saving) for count, score, saving in hull if saving > 0]


def _step_scores(group: Group, candidates: Candidates, index: int, steps: Steps) -> list[float]:
    """The mean score of each step's channels, the least important step first."""
    count = group.num_steps
    total = np.zeros(count)
    for width, vector in zip(group.widths, candidates.scores[index], strict=True):
        scale = 1.0 if candidates.is_absolute else float(np.sqrt(np.mean(np.square(vector))))
        ordered = np.sort(vector / scale if scale else vector)
        total += ordered[: count * width].reshape(count, width).sum(axis=1)
    return list((total / steps.width).tolist())


def _aligned(group: Group, steps: Steps, kept: int, round_to: int) -> int:
    """``kept`` rounded up, so that what stays of each number of channels is a multiple of the other, or all."""
    alignments = [(group.num_channels, steps.width, round_to)]
    alignments += [(channels, channels // steps.count, multiple) for channels, multiple in group.alignments]
    while kept < steps.count and any((size - (steps.count - kept) * width) % unit for size, width, unit in alignments):
        kept += 1
    return kept
