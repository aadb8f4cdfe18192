"""Which decomposition of which rank each weight gets: what every choice costs and loses, and how to choose.

The same model factorized on another machine, whose kernels round otherwise, should get the same ranks. So what differs
by no more than the last bits of float32 weights is a tie, and goes to the cheaper choice. That covers what is equal by
construction: a weight of lower rank than its shape, two decompositions that lose the same, an error that is the bound.
It cannot be helped where an error lies by chance just that far from its bound, or where two layers would give up their
next rank at prices as close to one another; nor where the weights themselves are those of another training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from compress.errors import ConfigError
from compress.lowrank.config import Kind, LowRankConfig
from compress.lowrank.decompositions import Counts, Decomposition, Errors, Ranks, decompose, kinds_for
from compress.lowrank.sites import Site

# Energies of weights that differ in the last bit of float32 differ by twice its 2**-23 at most.
_SLACK = 1e-6
_SMALLEST_PRICE, _LARGEST_PRICE, _HALVINGS = 1e-12, 1e12, 80


class Choice(NamedTuple):
    """A decomposition of one weight.

    ``error`` is the share of the weight's energy that it leaves out, of the outputs' where the weight was whitened.
    """

    kind: Kind
    ranks: Ranks
    error: float
    macs: int
    params: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """All that can be chosen for one weight and saves multiply-accumulates.

    Attributes:
        site: where the weight is.
        bound: the error of the rank or energy that the settings name; no bound where they speak of the whole model.
        kinds, ranks, errors, macs, params: ``[choices]``, ``ranks: [choices, 2]``.
    """

    site: Site
    bound: float
    kinds: npt.NDArray[np.str_]
    ranks: Counts
    errors: Errors
    macs: Counts
    params: Counts

    def choice(self, index: int) -> Choice:
        """One of the rows."""
        first, second = self.ranks[index].tolist()
        kind: Kind = self.kinds[index].item()
        error, macs, params = float(self.errors[index]), int(self.macs[index]), int(self.params[index])
        return Choice(kind, (first, second), error, macs, params)


def table_of(site: Site, weight: Tensor, config: LowRankConfig) -> Table:
    """Decompose ``weight: [out, in, *kernel]``, whitened or not, in every allowed way, of which there must be one.

    Raises:
        ConfigError: if the rank that ``config`` names is larger than the weight's.
    """
    found = [decompose(weight, kind) for kind in kinds_for(weight.shape, config.kinds)]
    kinds = np.concatenate([np.full(len(one.errors), one.kind) for one in found])
    ranks = np.concatenate([one.ranks for one in found])
    errors = np.concatenate([one.errors for one in found])
    macs = np.concatenate([_macs(site, one) for one in found])
    params = np.concatenate([np.sum([size.numel for size in one.sizes], axis=0) for one in found])
    saves = (macs < site.macs) & (ranks % config.round_to == 0).all(axis=1)
    cost = macs
    if config.by == "params":
        saves &= params < weight.numel()
        cost = params
    keep = _front(cost, errors, saves)
    return Table(
        site=site,
        bound=_bound(site, found[0], config),
        kinds=kinds[keep],
        ranks=ranks[keep],
        errors=errors[keep],
        macs=macs[keep],
        params=params[keep],
    )


def _bound(site: Site, one: Decomposition, config: LowRankConfig) -> float:
    if config.by == "energy":
        return 1 - config.target
    if config.by == "ratio":
        wanted = [max(1, round(config.target * full)) for full in one.full]
    elif config.by == "rank":
        if config.target > min(one.full):
            raise ConfigError(f"rank must be at most {min(one.full)}, the full one, got {config.target:g} ({site})")
        wanted = [int(config.target)] * 2
    else:
        return math.inf
    # Of a large grid of ranks the nearest below is looked at.
    allowed = (one.ranks <= np.maximum(wanted, one.ranks.min(axis=0))).all(axis=1)
    return float(one.errors[allowed].min())


def _macs(site: Site, one: Decomposition) -> Counts:
    """``[choices]``: multiply-accumulates of the chain, over all passes."""
    total = np.zeros(len(one.errors), dtype=np.int64)
    for rows, before, after in site.passes:
        sizes = list(before)
        for numel, dims in one.sizes:
            entering = math.prod(sizes)
            for dim in dims:
                sizes[dim] = after[dim]
            # A transposed convolution multiplies for each value that enters, others for each that leaves.
            positions = entering if site.is_transposed and dims else math.prod(sizes)
            total = total + numel * (rows * positions)
    return total


def _front(cost: Counts, errors: Errors, allowed: npt.NDArray[np.bool_]) -> Counts:
    """The rows for which no cheaper one has as small an error, the cheapest first; of equal cost the first listed."""
    order: Counts = np.flatnonzero(allowed)
    order = order[np.argsort(cost[order], kind="stable")]
    best_before = np.minimum.accumulate(np.append(np.inf, errors[order]))[:-1]
    kept: list[int] = []
    for row in order[errors[order] < best_before].tolist():
        if kept and errors[row] >= errors[kept[-1]] - _SLACK:
            continue
        if kept and cost[row] == cost[kept[-1]]:
            kept.pop()
        kept.append(row)
    return np.array(kept, dtype=np.int64)


def cheapest_within(table: Table) -> Choice | None:
    """The cheapest choice whose error is within the table's bound, if there is one."""
    within = np.flatnonzero(table.errors <= table.bound + _SLACK)
    return table.choice(int(within[0])) if len(within) else None


def shared_out(tables: Sequence[Table], config: LowRankConfig, *, dense: int, budget: float) -> Mapping[Site, Choice]:
    """Choices for all weights together that cost at most ``budget`` in MACs, or in parameters, and lose the least.

    What is made small is the sum of the squares of each layer's ratio of lost to kept energy. The squares spread the
    loss: many layers that lose a little do less harm than a few that lose much. For a price of cost each weight takes
    its best choice, and the price rises until the budget holds.

    Args:
        tables: of the weights that can be decomposed.
        config: says what costs.
        dense: what the whole model costs before.
        budget: what it may cost.

    Raises:
        ConfigError: if even the cheapest choices cost more.
    """
    whole = [_dense_cost(table, config) for table in tables]
    fixed = dense - sum(whole)
    costs = [np.append(_cost(table, config), cost) for table, cost in zip(tables, whole, strict=True)]
    losses = [_loss(np.append(table.errors, 0.0)) for table in tables]

    def at(price: float) -> tuple[list[int], int]:
        picks = [_cheapest_best(loss + price * cost / dense) for loss, cost in zip(losses, costs, strict=True)]
        return picks, fixed + sum(int(cost[pick]) for cost, pick in zip(costs, picks, strict=True))

    low, high = _SMALLEST_PRICE, _LARGEST_PRICE
    if (least := at(high)[1]) > budget:
        # Not so few digits that it seems to be the whole.
        reachable = next((share for digits in (3, 6, 9) if (share := _rounded_up(least / dense, digits)) < 1), 1.0)
        raise ConfigError(f"target must be at least {reachable:g} for this model, got {budget / dense:g} ({config.by})")
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if at(middle)[1] <= budget else (middle, high)
    picks, _ = at(high)
    return {
        table.site: table.choice(pick) for table, pick in zip(tables, picks, strict=True) if pick < len(table.errors)
    }


def _rounded_up(share: float, digits: int) -> float:
    scale: int = 10**digits
    return math.ceil(share * scale) / scale


def _cheapest_best(totals: Errors) -> int:
    """The first of those that hardly differ from the smallest: choices stand in the order of their cost."""
    return int(np.argmax(totals <= totals.min() * (1 + _SLACK)))


def _loss(errors: Errors) -> Errors:
    kept: Errors = np.maximum(1 - errors, 1e-9)
    return (errors / kept) ** 2


def _cost(table: Table, config: LowRankConfig) -> Counts:
    return table.params if config.by == "params" else table.macs


def _dense_cost(table: Table, config: LowRankConfig) -> int:
    return table.site.layer.weight.numel() if config.by == "params" else table.site.macs
