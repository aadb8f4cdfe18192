"""Structured pruning: whole channels are removed, and the layers become smaller.

The cut is planned from one trace of the network on channel labels, made, and traced again on the labels that survived:
only a network whose channels still meet as they met before is handed out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from compress.channels.groups import Channels, Group, is_channel_group, resolve
from compress.channels.labels import Ids, Slot
from compress.channels.trace import Example, Trace, retrace, trace
from compress.errors import ConfigError, ModelError
from compress.pruning.checks import check_example, check_ignore, check_model
from compress.pruning.choosing import Candidates, Removed, choose, growth_since
from compress.pruning.importance import Importance, importance_of
from compress.pruning.options import PruneOptions, goal_of
from compress.pruning.plan import Member, PlannedGroup, PruningPlan
from compress.pruning.readings import Evidence
from compress.pruning.scores import score
from compress.pruning.search import Cutter, Found, find_cut
from compress.pruning.surgery import cut

_DEFAULT = PruneOptions()


def prune_channels(
    model: nn.Module,
    example_inputs: Any,
    pruning_ratio: float | None = None,
    importance: str | Importance = "l1",
    *,
    ignore: Collection[str] = (),
    options: PruneOptions = _DEFAULT,
) -> nn.Module:
    """A new, smaller model, without the least important channels of every group; the given one is untouched.

    Args:
        model: any model that runs on ``example_inputs``.
        example_inputs: a tensor, a tuple of positional arguments, or a mapping of keyword arguments.
        pruning_ratio: the fraction of each group's channels to remove, in [0, 1). Of ``n`` channels
            ``floor(n * (1 - pruning_ratio))`` stay, and at least one. 0.2 if neither it nor a target in ``options`` is
            given.
        importance: a name out of :data:`~compress.pruning.importance.IMPORTANCES`, or a function.
        ignore: names of modules whose tensors all stay as they are.
        options: targets in place of a ratio, scope, rounding, and data for importances that need it.

    Returns:
        The model, in the modes (train or eval) of the given one. Running statistics of norms are those of the kept
        channels: :func:`compress.recalibrate` them before judging the accuracy.

    Raises:
        ConfigError: if a setting breaks its rule, or a target cannot be reached.
        ModelError: if the model cannot be copied, traced or ranked.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017.
    """
    plan = plan_pruning(model, example_inputs, pruning_ratio, importance, ignore=ignore, options=options)
    return apply_plan(model, plan)


def apply_plan(model: nn.Module, plan: PruningPlan) -> nn.Module:
    """A copy of ``model``, cut as ``plan`` says; ``plan`` must have been made for it.

    Raises:
        ModelError: if the plan speaks of tensors that the model lacks, or of indices that they do not have.
    """
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for member, kept in plan.kept.items():
        tensor = state.get(member.tensor)
        if tensor is None or member.dim >= tensor.ndim or int(kept.max()) >= tensor.shape[member.dim]:
            raise ModelError(f"the pruning plan was made for another model: this one has no such {member}")
    return cut(model, plan.kept)


def plan_pruning(
    model: nn.Module,
    example_inputs: Any,
    pruning_ratio: float | None = None,
    importance: str | Importance = "l1",
    *,
    ignore: Collection[str] = (),
    options: PruneOptions = _DEFAULT,
) -> PruningPlan:
    """Decide and verify what :func:`prune_channels` removes, and say why the rest stays. Same arguments and errors."""
    goal = goal_of(pruning_ratio, options)
    criterion = importance_of(importance)
    if criterion.needs_data and options.batches is None:
        raise ConfigError(f"importance {importance!r} needs data: give options=PruneOptions(batches=...)")
    check_model(model)
    check_ignore(model, ignore)
    example = check_example(model, example_inputs)
    first = trace(model, example)
    channels = resolve(first)
    draft = _Draft(first=first, channels=channels, frozen=_ignored(channels, ignore))
    evidence = Evidence(batches=options.batches or (), loss=options.loss, seed=options.seed)
    scores = score(model, channels, draft.frozen, criterion, evidence)
    candidates = Candidates(
        channels=channels,
        scores=scores,
        growth=growth_since(options.relative_to, channels, scores),
        scope=options.scope,
        min_kept=0.0 if options.scope == "layer" and goal.name == "pruning_ratio" else options.min_kept,
    )

    def verified(ratio: float, round_to: int) -> Removed:
        return _verified_cut(model, example, draft, lambda frozen: choose(candidates, frozen, ratio, round_to))

    def build(removed: Removed) -> nn.Module:
        return cut(model, _kept(channels, removed))

    cutter = Cutter(model=model, example=example, verified=verified, build=build)
    return _plan(model, draft, find_cut(cutter, goal, options))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Draft:
    """The uncut network's run, its channels, and the groups that stay whole for a reason found so far, by index."""

    first: Trace
    channels: Channels
    frozen: dict[int, str]


def _ignored(channels: Channels, ignore: Collection[str]) -> dict[int, str]:
    frozen = {index: group.reason for index, group in enumerate(channels.groups) if group.reason is not None}
    for index, group in enumerate(channels.groups):
        for slot in group.members:
            tensor = channels.slots[slot].tensor
            name = next((name for name in ignore if not name or tensor.startswith(f"{name}.")), None)
            if name is not None:
                frozen.setdefault(index, f"'{name}' is to be ignored")
    return frozen


def _verified_cut(
    model: nn.Module, example: Example, draft: _Draft, choice: Callable[[Container[int]], Removed]
) -> Removed:
    """Which channels go, as ``choice`` says of groups not frozen. Each turn freezes a group more, so it ends."""
    while True:
        removed = choice(draft.frozen)
        if not removed.any():
            return removed
        kept = _kept(draft.channels, removed)
        second = retrace(cut(model, kept), example, _survivors(draft.channels, removed), draft.first)
        found = _violations(draft, second)
        if not found:
            return removed
        draft.frozen.update(found)


def _kept(channels: Channels, removed: Removed) -> dict[Member, Ids]:
    kept = {}
    for slot, start in zip(channels.slots, channels.starts.tolist(), strict=True):
        stays = ~removed[channels.units[start : start + slot.ids.size]]
        if not stays.all():
            indices = np.flatnonzero(stays)
            if slot.ids.ndim > 1:
                parts, size = slot.ids.shape
                indices = indices.reshape(parts, -1) % size
            kept[Member(slot.tensor, slot.dim)] = indices
    return kept


def _survivors(channels: Channels, removed: Removed) -> list[Slot]:
    """The slots of the cut model, their ids now the channels that they belong to."""
    survivors = []
    for slot, start in zip(channels.slots, channels.starts.tolist(), strict=True):
        units = channels.units[start : start + slot.ids.size]
        units = units[~removed[units]]
        ids = units.reshape(len(slot.ids), -1) if slot.ids.ndim > 1 else units
        survivors.append(Slot(tensor=slot.tensor, dim=slot.dim, ids=ids))
    return survivors


def _violations(draft: _Draft, second: Trace) -> dict[int, str]:
    """The groups, not frozen yet, whose cut made the network another one, and what was seen."""
    found: dict[int, str] = {}

    def blame(units: Ids, reason: str) -> None:
        for index in np.unique(draft.channels.group_of[units]).tolist():
            if index not in draft.frozen:
                found.setdefault(index, reason)

    for tie in second.ledger.ties:
        apart = tie.first != tie.second
        blame(tie.first[apart], f"a cut would mix up channels ({tie.place})")
        blame(tie.second[apart], f"a cut would mix up channels ({tie.place})")
    for freeze in second.ledger.freezes:
        blame(freeze.ids, freeze.reason)
    for fault in second.faults:
        known = len(found)
        for suspects in fault.suspects:
            blame(suspects, fault.reason)
            if len(found) > known:
                break
    if second.faults and not found:
        # Nobody knows which group it was, so none is trusted.
        blame(np.arange(len(draft.channels.group_of)), second.faults[0].reason)
    return found


def _plan(model: nn.Module, draft: _Draft, found: Found) -> PruningPlan:
    kept = _kept(draft.channels, found.removed)
    groups = [
        _planned(draft, index, group, found.removed)
        for index, group in enumerate(draft.channels.groups)
        if is_channel_group(group)
    ]
    parameters = dict(model.named_parameters())
    return PruningPlan(
        pruning_ratio=found.ratio,
        groups=groups,
        kept=kept,
        num_params_before=sum(parameter.numel() for parameter in parameters.values()),
        num_params_after=sum(_size_after(name, parameter, kept) for name, parameter in parameters.items()),
        notes=found.notes,
    )


def _planned(draft: _Draft, index: int, group: Group, removed: Removed) -> PlannedGroup:
    slots = [draft.channels.slots[slot] for slot in group.members]
    gone = sum(int(removed[cell.units].sum()) for cell in group.cells)
    return PlannedGroup(
        members=tuple(Member(slot.tensor, slot.dim) for slot in slots),
        channels=group.num_channels,
        kept=group.num_channels - gone,
        frozen=draft.frozen.get(index),
    )


def _size_after(name: str, parameter: Tensor, kept: Mapping[Member, Ids]) -> int:
    shape = [
        kept[Member(name, dim)].shape[-1] if Member(name, dim) in kept else size
        for dim, size in enumerate(parameter.shape)
    ]
    return math.prod(shape)
