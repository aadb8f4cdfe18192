"""Structured pruning: whole channels are removed, and the layers become smaller.

The cut is planned from one trace of the network on channel labels, made, and traced again on the labels that survived:
only a network whose channels still meet as they met before is handed out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from compress.calling.inputs import Inputs
from compress.channels.groups import Group, is_channel_group, resolve
from compress.channels.labels import Ids
from compress.channels.trace import Trace, trace
from compress.errors import ConfigError, ModelError
from compress.pruning.budget import costs_of, savings
from compress.pruning.checks import check_example, check_ignore, check_model
from compress.pruning.choosing import Candidates, choose, growth_since, why_all_stay
from compress.pruning.importance import Importance, importance_of
from compress.pruning.options import Goal, PruneOptions, goal_of
from compress.pruning.plan import Member, PlannedGroup, PruningPlan, note_plans_, plans_of
from compress.pruning.readings import Evidence
from compress.pruning.reconstruct import reconstruct
from compress.pruning.scores import Scores, score
from compress.pruning.search import Cutter, Found, find_cut
from compress.pruning.surgery import cut
from compress.pruning.verified import Draft, Unbound, Verified, verified_cut

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

    The smaller network computes what the given one would with zeros in place of all that was removed. Two kinds of
    layers are apart: layer and group norms take their statistics over the channels that are kept, so that no zeros are
    equal to a cut. Attention's temperature stays what it was: where it is computed from the width of a head, the layer
    that puts out the queries (and keys) makes it good, and the plan says so. Weight and spectral norms too are those
    of the weights that are kept, as they are where zeros stand for the rest.

    All outputs keep their width, unless ``options.outputs`` names those that count. Heads that only training uses are
    cut along: the network is run in train mode too where parameters take no part in eval mode.

    Returns:
        The model, in the modes (train or eval) of the given one. Running statistics of norms are those of the kept
        channels: :func:`compress.recalibrate` them before judging the accuracy, or, which brings back far more, have
        the layers fitted again: :func:`compress.reconstruct`.

    Raises:
        ConfigError: if a setting breaks its rule, or a target cannot be reached.
        ModelError: if the model cannot be copied, traced or ranked.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017.
    """
    plan = plan_pruning(model, example_inputs, pruning_ratio, importance, ignore=ignore, options=options)
    small = apply_plan(model, plan)
    if options.reconstruct is None:
        return small
    return reconstruct(small, model, options.reconstruct, seed=options.seed, progress=options.progress)


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
    small = cut(model, plan.kept, plan.repairs, plan.scales)
    note_plans_(small, [*plans_of(model), plan])
    return small


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
    first = trace(model, example, options.heads, options.outputs)
    evidence = Evidence(batches=options.batches or (), loss=options.loss, outputs=options.outputs, seed=options.seed)

    costs = costs_of(model, example, options.threads) if options.scope == "budget" else None

    def candidates(draft: Draft) -> Candidates:
        scores = score(model, draft.channels, draft.frozen, criterion, evidence)
        saved = {} if costs is None else savings(model, draft.channels, scores, costs, goal.name)
        chosen = _candidates(draft, scores, goal, options)
        return replace(chosen, savings=saved, is_absolute=criterion.is_absolute)

    _ignore_(first, ignore)
    cutter = _cutter(model, example, _drafted(first), candidates)
    return _plan(model, find_cut(cutter, goal, options))


def _ignore_(first: Trace, ignore: Collection[str]) -> None:
    for slot in first.slots:
        name = next((name for name in ignore if not name or slot.tensor.startswith(f"{name}.")), None)
        if name is not None:
            first.ledger.freeze_ids(slot.ids, f"'{name}' is to be ignored")


def _drafted(first: Trace) -> Draft:
    channels = resolve(first)
    frozen = {index: group.reason for index, group in enumerate(channels.groups) if group.reason is not None}
    return Draft(first=first, channels=channels, frozen=frozen)


def _candidates(draft: Draft, scores: Scores, goal: Goal, options: PruneOptions) -> Candidates:
    return Candidates(
        channels=draft.channels,
        scores=scores,
        growth=growth_since(options.relative_to, draft.channels, scores),
        scope=options.scope,
        min_kept=0.0 if options.scope == "layer" and goal.name == "pruning_ratio" else options.min_kept,
    )


def _cutter(model: nn.Module, example: Inputs, draft: Draft, candidates: Callable[[Draft], Candidates]) -> Cutter:
    ranked = candidates(draft)

    def solve(own: Draft, some: Candidates, ratio: float, round_to: int) -> Verified:
        try:
            return verified_cut(model, own, lambda frozen: choose(some, frozen, ratio, round_to))
        except Unbound as found:
            ledger = replace(own.first.ledger, freezes=[*own.first.ledger.freezes, *found.freezes])
            again = _drafted(replace(own.first, ledger=ledger))
            return solve(again, candidates(again), ratio, round_to)

    def verified(ratio: float, round_to: int) -> Verified:
        # A draft of its own for each ratio: what must stay under one may go under another.
        return solve(replace(draft, frozen=dict(draft.frozen)), ranked, ratio, round_to)

    def build(found: Verified) -> nn.Module:
        return cut(model, found.kept, found.repairs, found.scales)

    return Cutter(model=model, example=example, verified=verified, build=build)


def _plan(model: nn.Module, found: Found) -> PruningPlan:
    draft, kept = found.cut.draft, found.cut.kept
    groups = [
        _planned(draft, index, group, found)
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
        notes=(*found.notes, *draft.first.notes, *_held_by_outputs(draft, groups)),
        repairs=found.cut.repairs,
        scales=found.cut.scales,
    )


def _held_by_outputs(draft: Draft, groups: Sequence[PlannedGroup]) -> Iterator[str]:
    """Which of several outputs keep channels, and how to let those go."""
    if draft.first.view.outputs is not None or len(draft.first.output_shapes) == 1:
        return
    reasons = [group.frozen.partition("model output ") for group in groups if group.frozen is not None]
    names = dict.fromkeys(name.split("[")[0] or name for _, found, name in reasons if found)
    if names:
        yield (
            f"kept whole by the outputs {', '.join(names)}: if only some of them count, name those, as in"
            " PruneOptions(outputs=lambda out: ...)"
        )


def _planned(draft: Draft, index: int, group: Group, found: Found) -> PlannedGroup:
    removed = found.cut.removed
    slots = [draft.channels.slots[slot] for slot in group.members]
    gone = sum(int(removed[cell.units].sum()) for cell in group.cells)
    return PlannedGroup(
        members=tuple(Member(slot.tensor, slot.dim) for slot in slots),
        channels=group.num_channels,
        kept=group.num_channels - gone,
        frozen=draft.frozen.get(index) or (why_all_stay(group, found.ratio) if found.ratio and not gone else None),
    )


def _size_after(name: str, parameter: Tensor, kept: Mapping[Member, Ids]) -> int:
    shape = [
        kept[Member(name, dim)].shape[-1] if Member(name, dim) in kept else size
        for dim, size in enumerate(parameter.shape)
    ]
    return math.prod(shape)
