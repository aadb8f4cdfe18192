"""Groups: which channels of which tensors are removed together, resolved from a trace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from compress.channels.labels import NOT_A_CHANNEL, Ids, Parts, Slot
from compress.channels.thinning import step_of
from compress.channels.trace import Trace

NOT_USED = "not used by the forward pass"
NO_LAYER = "put out by no layer"
_COARSE = 5  # steps that a group is thinned by, too few for a fifth of its channels
_FINE = 10  # steps that a group is thinned by, close to any ratio


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """Channels that live in the same places equally often, so that any of them can stand for another.

    Attributes:
        units: ``[channels]``, their numbers.
        ids: ``[channels, places]``, every place of each; a column lies in one slot.
    """

    units: Ids
    ids: Ids


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Channels pruned by one decision: one cell, or several which must lose the same fraction.

    Attributes:
        cells: its channels.
        members: indices of the slots that it lives in.
        reason: why it must stay whole, None if it need not.
        step: how many channels of each cell go together; None for the same fraction of all.
        alignments: of dimensions that may keep only multiples of some width: how many of the dimension's positions are
            the group's, and the multiple.
    """

    cells: Sequence[Cell]
    members: Sequence[int]
    reason: str | None
    step: Sequence[int] | None = None
    alignments: Sequence[tuple[int, int]] = ()

    @property
    def num_channels(self) -> int:
        """How many channels there are to keep or to remove."""
        return sum(len(cell.units) for cell in self.cells)

    @property
    def num_steps(self) -> int:
        """How many equal steps it can be thinned by, the last of which would leave nothing of some cell."""
        return min(len(cell.units) // width for cell, width in zip(self.cells, self.widths, strict=True) if width)

    @property
    def widths(self) -> Sequence[int]:
        """How many channels of each cell a step takes."""
        sizes = [len(cell.units) for cell in self.cells]
        return [size // math.gcd(*sizes) for size in sizes] if self.step is None else self.step


@dataclass(frozen=True, kw_only=True, eq=False)
class Channels:
    """A network's channels.

    Attributes:
        slots: the labelled dimensions of its tensors.
        starts: the first id of each slot; a slot's ids are consecutive.
        units: ``[ids]``, the channel that each id belongs to.
        is_output: ``[ids]``, whether the slice produces the channel.
        group_of: ``[channels]``, index of each channel's group.
        groups: all groups, in the order of the tensors they live in.
        bound: channels that stand in a group with others only because attention code may take one width for another.
        kept: ``[channels]``, whether the channel stays even if its group loses others.
    """

    slots: Sequence[Slot]
    starts: Ids
    units: Ids
    is_output: npt.NDArray[np.bool_]
    group_of: Ids
    groups: Sequence[Group]
    bound: Ids
    kept: npt.NDArray[np.bool_]

    def slot_of(self, ids: Ids) -> Ids:
        """The index of the slot of each id."""
        return np.searchsorted(self.starts, ids, side="right") - 1


def resolve(trace: Trace) -> Channels:
    """Join what the trace tied."""
    slots = trace.slots
    starts = np.cumsum([0, *(slot.ids.size for slot in slots)])
    num_ids = int(starts[-1])
    units, num_units = _units(trace, num_ids)
    is_output = np.zeros(num_ids, dtype=np.bool_)
    for ids in trace.ledger.outputs:
        is_output[ids[ids >= 0]] = True
    reasons, reason_of = _reasons(trace, units, num_units, is_output)
    bound = _bound(trace, units, reason_of)
    why = [None if r < 0 else reasons[r] for r in reason_of.tolist()]

    def grouped(bound: Sequence[_Bound]) -> tuple[list[Group], Ids]:
        parts = [*trace.ledger.parts, *(one.parts for one in bound)]
        classes = _classes(trace, parts, units, reason_of)
        return _groups(units, classes, _balanced(parts, units, classes), why, starts)

    groups, group_of = grouped(bound)
    # What keeps others from being thinned finely is better not bound to them: the second trace shows whether it goes.
    loose = [one for one in bound if groups[group_of[units[one.parts.ids[0]]]].num_steps >= one.min_steps]
    if len(loose) < len(bound):
        bound = loose
        groups, group_of = grouped(bound)
    parts = [*trace.ledger.parts, *(one.parts for one in bound)]
    groups = _finer(groups, parts, units, reason_of)
    for ids, multiple in trace.ledger.alignments:
        for index, count in zip(*np.unique(group_of[units[ids[ids >= 0]]], return_counts=True), strict=True):
            group = groups[index]
            groups[index] = replace(group, alignments=(*group.alignments, (int(count), multiple)))
    return Channels(
        slots=slots,
        starts=starts[:-1],
        units=units,
        is_output=is_output,
        group_of=group_of,
        groups=groups,
        bound=np.unique(np.concatenate([np.empty(0, np.int64), *(units[one.parts.ids] for one in bound)])),
        kept=_kept(groups, num_units),
    )


def _units(trace: Trace, num_ids: int) -> tuple[Ids, int]:
    empty = np.empty(0, dtype=np.int64)
    first = np.concatenate([empty, *(tie.first for tie in trace.ledger.ties)])
    second = np.concatenate([empty, *(tie.second for tie in trace.ledger.ties)])
    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(num_ids, num_ids))
    num_units, units = connected_components(graph, directed=False)
    return units.astype(np.int64), int(num_units)


def _reasons(trace: Trace, units: Ids, num_units: int, is_output: npt.NDArray[np.bool_]) -> tuple[list[str], Ids]:
    """All reasons, and for each unit the index of the first that holds for it, -1 for none."""
    reasons: dict[str, int] = {}
    reason_of = np.full(num_units, -1, dtype=np.int64)

    def freeze(frozen: Ids, reason: str) -> None:
        reason_of[frozen[reason_of[frozen] < 0]] = reasons.setdefault(reason, len(reasons))

    for one in trace.ledger.freezes:
        freeze(units[one.ids], one.reason)
    for slot in trace.slots:
        if slot.tensor not in trace.used:
            freeze(units[slot.ids.reshape(-1)], NOT_USED)
    put_out = np.zeros(num_units, dtype=np.bool_)
    put_out[units[is_output]] = True
    freeze(np.flatnonzero(~put_out), NO_LAYER)
    return list(reasons), reason_of


class _Bound(NamedTuple):
    """Widths that Python code may take one for the other.

    Attributes:
        parts: both.
        min_steps: how many equal steps their group must have for it to be worth while.
    """

    parts: Parts
    min_steps: int


def _bound(trace: Trace, units: Ids, reason_of: Ids) -> list[_Bound]:
    """Bindings of attention's inner width, or an equal one, to the width a module was called with: both may shrink.

    Where one of the two stays, there is nothing to keep in step, and the second trace shows whether the other may go.
    """
    found = []
    for binding in trace.ledger.bindings:
        attends = binding.module in trace.ledger.attending
        ids = np.concatenate([binding.ids, binding.to])
        if (
            (attends or len(binding.ids) == len(binding.to))
            and (ids >= 0).all()
            and (reason_of[units[ids]] < 0).all()
            and not np.array_equal(units[binding.ids], units[binding.to])
        ):
            found.append(_Bound(Parts(ids, len(ids) // len(binding.to)), 2 if attends else _FINE))
    return found


def _classes(trace: Trace, balanced: Sequence[Parts], units: Ids, reason_of: Ids) -> Ids:
    """For each unit a class: units of one class live in the same slots and parts, equally often, for one reason."""
    classes, count = np.unique(reason_of, return_inverse=True)[1].astype(np.int64), int(reason_of.max(initial=0)) + 2
    places = [slot.ids.reshape(-1) for slot in trace.slots]
    places += [part for parts in balanced for part in parts.ids.reshape(parts.num_parts, -1)]
    for ids in places:
        touched, often = np.unique(units[ids], return_counts=True)
        keys = classes[touched] * (int(often.max(initial=0)) + 1) + often
        found, inverse = np.unique(keys, return_inverse=True)
        classes[touched] = count + inverse
        count += len(found)
    return np.unique(classes, return_inverse=True)[1].astype(np.int64)


def _groups(
    units: Ids, classes: Ids, together: Ids, reason_of: Sequence[str | None], starts: Ids
) -> tuple[list[Group], Ids]:
    num_classes = int(classes.max(initial=-1)) + 1
    by_unit = np.argsort(units, kind="stable")
    unit_starts = np.searchsorted(units[by_unit], np.arange(len(classes) + 1))
    cells: dict[int, list[Cell]] = {}
    order = np.argsort(classes, kind="stable")
    for members in np.split(order, np.cumsum(np.bincount(classes, minlength=num_classes))[:-1]) if len(order) else []:
        places = unit_starts[members[0] + 1] - unit_starts[members[0]]
        ids = by_unit[unit_starts[members][:, None] + np.arange(places)]
        cells.setdefault(int(together[classes[members[0]]]), []).append(Cell(units=members, ids=ids))
    found = sorted((_group(some, reason_of, starts) for some in cells.values()), key=_first_id)
    group_of = np.empty(len(classes), dtype=np.int64)
    for index, group in enumerate(found):
        for cell in group.cells:
            group_of[cell.units] = index
    return found, group_of


def _first_id(group: Group) -> int:
    return int(min(cell.ids.min() for cell in group.cells))


def _balanced(balanced: Sequence[Parts], units: Ids, classes: Ids) -> Ids:
    """For each class the component of classes that parts bind together."""
    num_classes = int(classes.max(initial=-1)) + 1
    first: list[Ids] = [np.empty(0, dtype=np.int64)]
    second: list[Ids] = [np.empty(0, dtype=np.int64)]
    for parts in balanced:
        bound = np.unique(classes[units[parts.ids]])
        first.append(bound[:-1])
        second.append(bound[1:])
    a, b = np.concatenate(first), np.concatenate(second)
    graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(num_classes, num_classes))
    components: Ids = connected_components(graph, directed=False)[1].astype(np.int64)
    return components


def _group(cells: Sequence[Cell], reason_of: Sequence[str | None], starts: Ids) -> Group:
    reasons = [reason_of[cell.units[0]] for cell in cells]
    known = next((reason for reason in reasons if reason is not None), None)
    if known is not None and None in reasons:
        known = f"must keep its balance with channels that stay: {known}"
    slots = np.concatenate([np.searchsorted(starts, cell.ids[0], side="right") - 1 for cell in cells])
    return Group(cells=cells, members=np.unique(slots).tolist(), reason=known)


def _finer(groups: Sequence[Group], parts: Sequence[Parts], units: Ids, reason_of: Ids) -> list[Group]:
    """``groups``, of which those that can only be thinned coarsely, or not at all as some cells stay, lose of others.

    Their parts keep equally many positions even so.
    """
    coarse = [at for at, group in enumerate(groups) if len(group.cells) > 1 and _is_coarse(group, reason_of)]
    if not coarse:
        return list(groups)
    of_units = [units[one.ids.reshape(one.num_parts, -1)] for one in parts]
    found = list(groups)
    for at in coarse:
        group = groups[at]
        cell_of = np.full(len(reason_of), -1, dtype=np.int64)
        for index, cell in enumerate(group.cells):
            cell_of[cell.units] = index
        cells = [cell_of[own] for own in of_units if cell_of[own[0, 0]] >= 0]
        sizes = [len(cell.units) for cell in group.cells]
        counts = [np.stack([np.bincount(row, minlength=len(sizes)) for row in own]) // sizes for own in cells]
        free = [bool(reason_of[cell.units[0]] < 0) for cell in group.cells]
        step = step_of(sizes, free, counts)
        if step is not None:
            found[at] = replace(group, step=step, reason=None)
    return found


def _is_coarse(group: Group, reason_of: Ids) -> bool:
    free = [bool(reason_of[cell.units[0]] < 0) for cell in group.cells]
    return any(free) and (not all(free) or group.num_steps < _COARSE)


def _kept(groups: Sequence[Group], num_units: int) -> npt.NDArray[np.bool_]:
    kept = np.zeros(num_units, dtype=np.bool_)
    for group in groups:
        for cell, width in zip(group.cells, group.widths, strict=True):
            kept[cell.units] = width == 0
    return kept


def is_channel_group(group: Group) -> bool:
    """Whether a group is of channels at all, and not of a kernel's width or an embedding's entries."""
    return group.reason != NOT_A_CHANNEL
