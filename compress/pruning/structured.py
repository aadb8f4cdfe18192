"""Structured pruning: whole channels are removed, and the layers become smaller.

The cut is planned from one trace of the network on channel labels, made, and traced again on the labels that survived:
only a network whose channels still meet as they met before is handed out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compress.channels.groups import Channels, Group, is_channel_group, resolve
from compress.channels.labels import Ids, Slot
from compress.channels.trace import Example, Trace, retrace, trace
from compress.errors import ConfigError, ModelError
from compress.pruning.checks import check_example, check_ignore, check_model, check_ratio
from compress.pruning.importance import Importance, importance_of
from compress.pruning.plan import Member, PlannedGroup, PruningPlan
from compress.pruning.surgery import cut


def prune_channels(
    model: nn.Module,
    example_inputs: Any,
    pruning_ratio: float = 0.2,
    importance: str | Importance = "l1",
    *,
    ignore: Collection[str] = (),
) -> nn.Module:
    """A new, smaller model, without the least important channels of every group; the given one is untouched.

    Args:
        model: any model that runs on ``example_inputs``.
        example_inputs: a tensor, a tuple of positional arguments, or a mapping of keyword arguments.
        pruning_ratio: the fraction of each group's channels to remove, in [0, 1). Of ``n`` channels
            ``floor(n * (1 - pruning_ratio))`` stay, and at least one.
        importance: a name out of :data:`~compress.pruning.importance.IMPORTANCES`, or a function.
        ignore: names of modules whose tensors all stay as they are.

    Returns:
        The model, in the modes (train or eval) of the given one. Running statistics of norms are those of the kept
        channels: recalibrate them before judging the accuracy.

    Raises:
        ConfigError: if a setting breaks its rule.
        ModelError: if the model cannot be copied, traced or ranked.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017.
    """
    plan = plan_pruning(model, example_inputs, pruning_ratio, importance, ignore=ignore)
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
    pruning_ratio: float = 0.2,
    importance: str | Importance = "l1",
    *,
    ignore: Collection[str] = (),
) -> PruningPlan:
    """Decide and verify what :func:`prune_channels` removes, and say why the rest stays. Same arguments and errors."""
    check_ratio(pruning_ratio)
    rank = importance_of(importance)
    check_model(model)
    check_ignore(model, ignore)
    example = check_example(model, example_inputs)
    first = trace(model, example)
    channels = resolve(first)
    draft = _Draft(first=first, channels=channels, frozen=_ignored(channels, ignore))
    orders = _orders(model, channels, draft.frozen, rank)
    removed = _verified_cut(model, example, draft, orders, pruning_ratio)
    return _plan(model, draft, removed, pruning_ratio)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Draft:
    """The uncut network's run, its channels, and the groups that stay whole for a reason found so far, by index."""

    first: Trace
    channels: Channels
    frozen: dict[int, str]


Removed = npt.NDArray[np.bool_]  # [channels]
Orders = Mapping[int, Sequence[Ids]]  # for each group, for each cell: its channels, least important first


def _ignored(channels: Channels, ignore: Collection[str]) -> dict[int, str]:
    frozen = {index: group.reason for index, group in enumerate(channels.groups) if group.reason is not None}
    for index, group in enumerate(channels.groups):
        for slot in group.members:
            tensor = channels.slots[slot].tensor
            name = next((name for name in ignore if not name or tensor.startswith(f"{name}.")), None)
            if name is not None:
                frozen.setdefault(index, f"'{name}' is to be ignored")
    return frozen


def _orders(model: nn.Module, channels: Channels, frozen: Mapping[int, str], rank: Importance) -> Orders:
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        index: [cell.units[_ranked(channels, state, cell.ids, rank)] for cell in group.cells]
        for index, group in enumerate(channels.groups)
        if index not in frozen
    }


def _ranked(channels: Channels, state: Mapping[str, Tensor], ids: Ids, rank: Importance) -> Ids:
    """The order of a cell's channels, least important first; ``ids: [channels, places]``."""
    slots = channels.slot_of(ids[0])
    produces = channels.is_output[ids].all(axis=0)
    # A bias or a norm's weight says little of a channel where the filter that produces it is known.
    layers = produces & np.array([state[channels.slots[slot].tensor].ndim > 1 for slot in slots])
    columns = np.flatnonzero(layers if layers.any() else produces)
    names = [channels.slots[slots[column]].tensor for column in columns]
    weights = [
        _rows(state[name], channels.slots[slots[column]], ids[:, column] - channels.starts[slots[column]])
        for name, column in zip(names, columns, strict=True)
    ]
    scores = rank(weights)
    place = f"layer '{names[0].rpartition('.')[0]}'"
    if not isinstance(scores, Tensor) or scores.shape != (len(ids),):
        raise ConfigError(f"importance must give one number for each of {len(ids)} channels ({place})")
    if not bool(scores.isfinite().all()):
        bad = next((name for name, weight in zip(names, weights, strict=True) if not weight.isfinite().all()), names[0])
        raise ModelError(f"importance must be finite, got NaN or infinity (layer '{bad.rpartition('.')[0]}')")
    return np.argsort(scores.detach().cpu().numpy(), kind="stable")


def _rows(weight: Tensor, slot: Slot, positions: Ids) -> Tensor:
    """``[positions, elements]``: what belongs to each position along ``slot``."""
    data = weight.detach()
    if slot.ids.ndim == 1:
        rows = data.movedim(slot.dim, 0).reshape(slot.ids.size, -1)
    else:
        parts, size = slot.ids.shape
        rows = data.reshape(parts, -1, size, data[0, 0].numel()).movedim(2, 1).reshape(parts * size, -1)
    if not np.array_equal(positions, np.arange(len(rows))):
        rows = rows[torch.from_numpy(positions).to(rows.device)]
    # A long sum in half precision would drop most of it.
    return rows.float() if rows.dtype in {torch.float16, torch.bfloat16} else rows


def _verified_cut(model: nn.Module, example: Example, draft: _Draft, orders: Orders, ratio: float) -> Removed:
    """Which channels go. Each turn of the loop freezes a group more, so it ends."""
    channels = draft.channels
    while True:
        removed = np.zeros(len(channels.group_of), dtype=np.bool_)
        for index, order in orders.items():
            if index not in draft.frozen:
                _remove(removed, order, ratio)
        if not removed.any():
            return removed
        kept = _kept(channels, removed)
        second = retrace(cut(model, kept), example, _survivors(channels, removed), draft.first)
        found = _violations(draft, second)
        if not found:
            return removed
        draft.frozen.update(found)


def _remove(removed: Removed, order: Sequence[Ids], ratio: float) -> None:
    """Mark the least important channels of each cell of a group, the same fraction of all."""
    sizes = [len(units) for units in order]
    # Parts that hold equally many channels of cells of several sizes still do if all lose the same fraction.
    unit = math.gcd(*sizes)
    wanted = unit * (1 - ratio)
    # Nothing finer than 1 / unit can be removed: where that is coarse, rather too little than too much.
    kept = math.floor(wanted + 1e-9) if len(set(sizes)) == 1 else math.ceil(wanted - 1e-9)
    for units in order:
        removed[units[: len(units) // unit * (unit - max(1, kept))]] = True


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


def _plan(model: nn.Module, draft: _Draft, removed: Removed, ratio: float) -> PruningPlan:
    kept = _kept(draft.channels, removed)
    groups = [
        _planned(draft, index, group, removed)
        for index, group in enumerate(draft.channels.groups)
        if is_channel_group(group)
    ]
    parameters = dict(model.named_parameters())
    return PruningPlan(
        pruning_ratio=float(ratio),
        groups=groups,
        kept=kept,
        num_params_before=sum(parameter.numel() for parameter in parameters.values()),
        num_params_after=sum(_size_after(name, parameter, kept) for name, parameter in parameters.items()),
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
