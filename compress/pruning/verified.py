"""A cut is made, run on labels again, and taken back in part until the network is the same one, narrower."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from compress.channels.groups import Channels
from compress.channels.history import Drift
from compress.channels.labels import Freeze, Ids, Slot
from compress.channels.making_good import MadeGood, made_good
from compress.channels.sketch import Sketch, is_cut_alike, sketch
from compress.channels.trace import Trace, labelled_at, retrace
from compress.errors import ModelError
from compress.pruning.choosing import Removed
from compress.pruning.plan import Member
from compress.pruning.repairs import Repair, repairs
from compress.pruning.surgery import cut, outline, zeroed

_DOUBTS = 8  # attributes to be left as they were, one after the other, where a cut went wrong

Scales = Mapping[Member, npt.NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Draft:
    """The uncut network's run, its channels, and the groups that stay whole for a reason found so far, by index."""

    first: Trace
    channels: Channels
    frozen: dict[int, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Verified:
    """A cut that left the network what it was.

    Attributes:
        draft: what was cut, with the groups that had to stay whole for it.
        removed: ``[channels]``, which of them go.
        kept: the indices that stay, as in :class:`~compress.pruning.plan.PruningPlan`.
        repairs: attributes that change.
        scales: what kept slices are multiplied by.
    """

    draft: Draft
    removed: Removed
    kept: Mapping[Member, Ids]
    repairs: Sequence[Repair] = ()
    scales: Scales = field(default_factory=dict)


class Unbound(Exception):  # noqa: N818 - no error, but a finding
    """Channels that were to be cut in step with others must stay: their groups are to be found anew.

    Attributes:
        freezes: what must stay.
    """

    def __init__(self, freezes: Sequence[Freeze]) -> None:
        super().__init__(freezes)
        self.freezes = freezes


def verified_cut(model: nn.Module, draft: Draft, choice: Callable[[Container[int]], Removed]) -> Verified:
    """The cut of what ``choice`` says of groups not frozen. Each turn freezes a group more, so it ends.

    Raises:
        Unbound: if what must stay was bound to other groups only because attention code might take one width for
            the other.
    """
    while True:
        removed = choice(draft.frozen)
        kept = kept_indices(draft.channels, removed)
        if not removed.any():
            return Verified(draft=draft, removed=removed, kept=kept)
        told, found = _best_told(model, draft, removed, kept)
        if not found.blamed:
            scales = _scales(draft, found.made_good, kept)
            return Verified(draft=draft, removed=removed, kept=kept, repairs=told, scales=scales)
        _freeze(draft, found.blamed)


def _best_told(
    model: nn.Module, draft: Draft, removed: Removed, kept: Mapping[Member, Ids]
) -> tuple[Sequence[Repair], _Checked]:
    """The repairs with which the cut network is most like the uncut one, and how like it is.

    A number may be that of a width by chance, or be compared with one and never handed to an operation. So where
    something went wrong, numbers that only a module's inputs speak for are changed too, and each is left as it was.
    """
    ledger = draft.first.ledger
    told = repairs(model, draft.channels, ledger.widths, removed)
    best = _checked(model, draft, removed, partial(_smaller, model, kept, told))
    if not best.blamed:
        return told, best
    # By themselves too: one of several modules of a class may be called on what has no channels, the image.
    known: dict[tuple[str, str], Repair] = {}
    for widths in (ledger.entered, [*ledger.widths, *ledger.entered], ledger.widths):
        known |= {(one.module, one.attribute): one for one in repairs(model, draft.channels, widths, removed)}
    more = list(known.values())
    doubtful = {_named(model, repair): None for repair in [*told, *more]}
    for name in [None, *list(doubtful)[:_DOUBTS]]:
        others = more if name is None else [repair for repair in told if _named(model, repair) != name]
        if sorted(others) == sorted(told):
            continue
        found = _checked(model, draft, removed, partial(_smaller, model, kept, others))
        if found.score > best.score:
            told, best = others, found
        if not best.blamed:
            break
    return told, best


def _named(model: nn.Module, repair: Repair) -> tuple[type[nn.Module], str]:
    return type(model.get_submodule(repair.module)), repair.attribute


def _smaller(model: nn.Module, kept: Mapping[Member, Ids], told: Sequence[Repair], view: Trace) -> nn.Module:
    return cut(model, kept, told) if view.writes or view.reads_values else outline(model, kept, told)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Blame:
    """Channels found where the cut network was another one, and what was seen."""

    units: Ids
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _Checked:
    """How like the uncut network a cut one is.

    Attributes:
        blamed: channels that make it another one.
        made_good: what is to be multiplied.
        num_steps: how far it ran.
    """

    blamed: Sequence[_Blame]
    made_good: Sequence[MadeGood]
    num_steps: int

    @property
    def score(self) -> tuple[bool, int, int]:
        """The greater, the more alike."""
        return not self.blamed, self.num_steps, -sum(len(blame.units) for blame in self.blamed)


def _checked(model: nn.Module, draft: Draft, removed: Removed, smaller: Callable[[Trace], nn.Module]) -> _Checked:
    """Run the cut network in every way in which the uncut one was run, up to the first that shows another network."""
    first, survivors = draft.first, _survivors(draft.channels, removed)

    def compared(before: Trace) -> tuple[Trace, Trace]:
        after = retrace(smaller(before), survivors, before)
        if after.faults and before.reads_values:
            # The cut changed values, and so what Python made of them: only with the same zeros must that be the same.
            with contextlib.suppress(ModelError):
                before = labelled_at(zeroed(model, kept_indices(draft.channels, removed)), before, before.view)
                after = retrace(smaller(before), survivors, before)
        return before, after

    before, second = compared(first)
    good = _made_good(before, second)
    blamed = _violations(draft, second, _lasting(second, good)) + _other_pieces(draft, removed, before, second)

    def again(other: Trace) -> list[_Blame]:
        other, found = compared(other)
        # What is multiplied is multiplied in every way of running the network, so here nothing new may come.
        known = np.concatenate([np.empty(0, np.int64), *(one.ids for one in good)])
        same = [one for one in _made_good(other, found, good) if np.isin(one.ids, known).all()]
        return _violations(draft, found, _lasting(found, same)) + _other_pieces(draft, removed, other, found)

    for other in first.others:
        blamed = blamed or again(other)
    if first.elsewhere is not None and not blamed:
        drifts = [drift for drift in second.drifts if drift not in _lasting(second, good)]
        blamed, is_like = _runs_elsewhere(draft, first.elsewhere, smaller(first), second, drifts)
        if first.ledger.takes_apart and not is_like:
            blamed = again(labelled_at(model, first, first.elsewhere.view))
    return _Checked(blamed=blamed, made_good=good, num_steps=len(second.steps))


def _made_good(first: Trace, second: Trace, before: Sequence[MadeGood] = ()) -> list[MadeGood]:
    return made_good(first.factors, {drift.turn: drift.ratio for drift in second.drifts}, before)


def _lasting(run: Trace, made_good: Sequence[MadeGood]) -> list[Drift]:
    return [drift for drift in run.drifts if not any(drift.turn in one.turns for one in made_good)]


def _runs_elsewhere(
    draft: Draft, dense: Sketch, smaller: nn.Module, here: Trace, drifts: Sequence[Drift]
) -> tuple[list[_Blame], bool]:
    """Whether the cut network runs on other inputs as the uncut one does, or else all of it; and is it alike in all."""
    shapes: Sequence[tuple[int, ...]] = ()
    is_like = False
    reason = "the output's shape changes with the number of channels at another size of the inputs"
    try:
        found = sketch(smaller, dense.view, writes=draft.first.writes)
        shapes = found.shapes
        is_like = is_cut_alike(here.steps, draft.first.seen, dense, found, drifts)
    except ModelError as error:
        reason = str(error)
    everything = np.arange(len(draft.channels.group_of))
    of_values = None in draft.first.output_shapes
    runs = bool(shapes) and (list(shapes) == list(dense.shapes) or of_values)
    return [] if runs else _blame(draft, everything, reason), is_like


def _freeze(draft: Draft, blamed: Sequence[_Blame]) -> None:
    bound = {int(draft.channels.group_of[unit]) for unit in draft.channels.bound.tolist()}
    found: dict[int, str] = {}
    for blame in blamed:
        for index in np.unique(draft.channels.group_of[blame.units]).tolist():
            found.setdefault(index, blame.reason)
    if bound & found.keys():
        raise Unbound([Freeze(np.flatnonzero(np.isin(draft.channels.units, one.units)), one.reason) for one in blamed])
    draft.frozen.update(found)


def kept_indices(channels: Channels, removed: Removed) -> dict[Member, Ids]:
    """For each dimension that loses something, the indices that stay."""
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


def _violations(draft: Draft, second: Trace, lasting: Sequence[Drift]) -> list[_Blame]:
    """What made the network another one: channels of groups that are not frozen yet."""
    found: list[_Blame] = []
    for tie in second.ledger.ties:
        apart = tie.first != tie.second
        if apart.any():
            units = np.concatenate([tie.first[apart], tie.second[apart]])
            found += _blame(draft, units, f"a cut would mix up channels ({tie.place})")
    for freeze in second.ledger.freezes:
        found += _blame(draft, freeze.ids[~draft.channels.kept[freeze.ids]], freeze.reason)
    faults = [*second.faults, *(drift.fault for drift in lasting)]
    for fault in faults:
        for suspects in fault.suspects:
            blamed = _blame(draft, suspects, fault.reason)
            found += blamed
            if blamed:
                break
    # Chance may have led a run in train mode another way.
    if faults and not found and not second.view.in_training:
        # Nobody knows which group it was, so none is trusted.
        found += _blame(draft, np.arange(len(draft.channels.group_of)), faults[0].reason)
    return found


def _other_pieces(draft: Draft, removed: Removed, before: Trace, after: Trace) -> list[_Blame]:
    """Where a slice took other channels than what is left of its own: its bounds are numbers, and did not follow."""
    found: list[_Blame] = []
    # As many as there are in both: where they are not alike in number, more than that was said.
    for old, new in zip(before.ledger.pieces, after.ledger.pieces, strict=False):
        units = np.where(old >= 0, draft.channels.units[old], old)
        stays = (old < 0) | ~removed[units]
        # Parts of the same channels may have become one, so each is looked for by itself.
        left = {row[own].tobytes() for row, own in zip(_rows(units), _rows(stays), strict=True)}
        if left != {row.tobytes() for row in _rows(new)}:
            some = np.concatenate([units[stays], new.reshape(-1)])
            found += _blame(draft, some[some >= 0], "a slice takes other channels once some are gone")
    return found


def _rows(ids: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return ids.reshape(math.prod(ids.shape[:-1]), ids.shape[-1])


def _blame(draft: Draft, units: Ids, reason: str) -> list[_Blame]:
    frozen = np.zeros(len(draft.channels.groups), dtype=np.bool_)
    frozen[list(draft.frozen)] = True
    free = units[~frozen[draft.channels.group_of[units]]]
    return [_Blame(units=np.unique(free), reason=reason)] if free.size else []


def _scales(draft: Draft, made_good: Sequence[MadeGood], kept: Mapping[Member, Ids]) -> Scales:
    """What each kept slice must be multiplied by for products with a width to be as they were."""
    channels = draft.channels
    scale = np.ones(len(channels.units))
    for one in made_good:
        scale[one.ids] *= one.ratio
    found = {}
    for slot, start in zip(channels.slots, channels.starts.tolist(), strict=True):
        own = scale[start : start + slot.ids.size]
        member = Member(slot.tensor, slot.dim)
        if (own != 1.0).any():
            found[member] = own[kept[member]] if member in kept else own
    return found
