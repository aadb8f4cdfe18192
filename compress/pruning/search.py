"""How much to remove: a ratio as it was asked, or the smallest one that reaches a target."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from compress.calling.inputs import Inputs, device_of
from compress.calling.pairs import Pairs, pinned_threads, ratio_of
from compress.calling.randomness import own_random_state
from compress.errors import ConfigError
from compress.macs import macs_of
from compress.modules.copying import copied
from compress.pruning.options import Goal, PruneOptions
from compress.pruning.verified import Verified
from compress.system.progress import track

_HALVINGS = 9  # of the range of ratios, each for the price of a verified cut: to within 0.2 % of the channels
_MILDER = (0.75, 0.5)
# A time so close to its limit, as a share of it, is measured again, this often at most.
_CLOSE, _LOOKS = 0.05, 3
_ALIGNMENTS = (8, 16)
# Below this share of the time a wider model is faster for its width, and not by chance.
_PAYS = 0.97


@dataclass(frozen=True, kw_only=True, eq=False)
class Cutter:
    """Makes cuts of one model.

    Attributes:
        model: as it is.
        example: what it runs on.
        verified: ``(ratio, round_to)`` to a verified cut.
        build: the model after it.
    """

    model: nn.Module
    example: Inputs
    verified: Callable[[float, int], Verified]
    build: Callable[[Verified], nn.Module]


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """A cut, the ratio that led to it, and what is to be said about how it was found."""

    cut: Verified
    ratio: float
    notes: tuple[str, ...] = ()


Size = Callable[[Verified | None], float]
"""What a target limits, of the model without some of its channels; of the model as it is for None."""


def find_cut(cutter: Cutter, goal: Goal, options: PruneOptions) -> Found:
    """The cut that reaches ``goal``.

    Raises:
        ConfigError: if no cut within ``options.min_kept`` does.
    """
    if options.round_to != "auto":
        return _reach(cutter, goal, options, options.round_to)
    found = _reach(cutter, goal, options, 1)
    round_to, note = _best_alignment(cutter, found, options)
    if round_to > 1:
        found = _reach(cutter, goal, options, round_to)
    return Found(cut=found.cut, ratio=found.ratio, notes=(*found.notes, note))


def _reach(cutter: Cutter, goal: Goal, options: PruneOptions, round_to: int) -> Found:
    if goal.name == "pruning_ratio":
        return Found(cut=cutter.verified(goal.limit, round_to), ratio=goal.limit)
    size = _size_of(goal, cutter, options)
    dense = size(None)
    if dense <= goal.limit:
        note = f"{goal.name} {goal.limit:g} holds without a cut: {dense:g}"
        return Found(cut=cutter.verified(0.0, round_to), ratio=0.0, notes=(note,))
    best, reached = _largest_cut(cutter, goal, size, 1 - options.min_kept, round_to)
    low, high = 0.0, best.ratio
    for _ in track(range(_HALVINGS), f"cutting to {goal.name}", shown=options.progress):
        middle = (low + high) / 2
        cut = cutter.verified(middle, round_to)
        value = size(cut)
        if value <= goal.limit:
            best, reached, high = Found(cut=cut, ratio=middle), value, middle
        else:
            low = middle
    note = f"{goal.name} {goal.limit:g}: reached {reached:g}, from {dense:g}"
    return Found(cut=best.cut, ratio=best.ratio, notes=(note,))


def _largest_cut(cutter: Cutter, goal: Goal, size: Size, highest: float, round_to: int) -> tuple[Found, float]:
    """A cut as large as may be that reaches the goal, and what the goal limits after it."""
    smallest = math.inf
    # A cut so large that a network does not survive it leaves more standing than a milder one.
    for ratio in (highest, *(highest * share for share in _MILDER)):
        found = Found(cut=cutter.verified(ratio, round_to), ratio=ratio)
        reached = size(found.cut)
        if reached <= goal.limit:
            return found, reached
        smallest = min(smallest, reached)
    raise ConfigError(
        f"{goal.name} must be reachable: while min_kept = {1 - highest:g} of the channels stay, the least is"
        f" {smallest:g}, got {goal.limit:g}"
    )


def _size_of(goal: Goal, cutter: Cutter, options: PruneOptions) -> Size:
    dense = copied(cutter.model).eval()
    dense_ms: list[float] = []

    def latency_ms(model: nn.Module) -> float:
        pairs: list[tuple[float, float]] = []
        for _ in range(_LOOKS):
            pairs += _paired(model, dense, cutter.example, options)
            dense_ms.extend(milliseconds for milliseconds, _ in pairs)
            # The ratio of two models called in turn holds where the clock drifts between candidates.
            value = ratio_of(pairs) * statistics.median(dense_ms)
            if abs(value - goal.limit) > _CLOSE * goal.limit:
                break
        return value

    def macs(model: nn.Module) -> float:
        with own_random_state([device_of(dense)]):
            return macs_of(lambda: cutter.example.call(model)).whole("max_macs")

    count = {"max_params": _count_params, "max_macs": macs, "max_latency_ms": latency_ms}[goal.name]
    return lambda cut: count(dense if cut is None else cutter.build(cut).eval())


def _count_params(model: nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters())


def _paired(compressed: nn.Module, dense: nn.Module, example: Inputs, options: PruneOptions) -> Pairs:
    with pinned_threads(options.threads), own_random_state([device_of(dense)]):
        return options.latency(compressed, dense, example)


def _best_alignment(cutter: Cutter, found: Found, options: PruneOptions) -> tuple[int, str]:
    """What to round to so that the model is fastest, 1 for not at all, and a sentence about it."""
    plain = cutter.build(found.cut).eval()
    # A rounded model is never narrower than the plain one: where it is faster, the width is what made it so.
    shares = {}
    for round_to in _ALIGNMENTS:
        cut = cutter.verified(found.ratio, round_to)
        shares[round_to] = ratio_of(_paired(cutter.build(cut).eval(), plain, cutter.example, options))
    fastest = min(shares, key=lambda round_to: shares[round_to])
    best = fastest if shares[fastest] < _PAYS else 1
    seen = ", ".join(f"{round_to} takes x{share:.2f} of the time" for round_to, share in shares.items())
    return best, f"round_to auto: {best}, as {seen} of no rounding"
