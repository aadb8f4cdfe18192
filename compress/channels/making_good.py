"""Which weights make good the products with a number that a cut changes, each of them once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from compress.channels.labels import Ids
from compress.channels.scaling import Factor, Path

_MOST_TURNS = 6  # for which all ways to serve them are tried


class MadeGood(NamedTuple):
    """Slices that are multiplied by ``ratio``, and the products which are then as they were."""

    turns: Path
    ids: Ids
    ratio: float


def made_good(
    factors: Mapping[int, Sequence[Factor]], ratios: Mapping[int, float], before: Sequence[MadeGood] = ()
) -> list[MadeGood]:
    """What to multiply so that products by the ``ratios``, by the number of the call, are as they were, if that can be.

    One layer may serve several products: keys that are multiplied with queries and with positions, say, if whatever is
    read of them has passed just one of those. ``before`` is what is multiplied already.
    """
    known = np.concatenate([np.empty(0, np.int64), *(one.ids for one in before)])
    ways: dict[int, list[MadeGood]] = {}
    for turn in sorted(ratios):
        some = [one for factor in factors.get(turn, ()) for one in _serving(factor, turn, ratios)]
        # What is multiplied anyway, and then what changes least.
        ways[turn] = sorted(some, key=lambda one: (not np.isin(one.ids, known).all(), len(one.turns)))
    return [one for turns in _bound(ways) for one in _covering(turns, ways)]


def _bound(ways: Mapping[int, Sequence[MadeGood]]) -> list[Path]:
    """The products in as many sets as can be, with no way to serve some of one set and some of another."""
    found: list[Path] = []
    for turn, some in ways.items():
        met = frozenset([turn]).union(*(one.turns for one in some))
        found = [*(own for own in found if not own & met), met.union(*(own for own in found if own & met))]
    return found


def _covering(turns: Path, ways: Mapping[int, Sequence[MadeGood]]) -> list[MadeGood]:
    """The ways that serve most of ``turns``, each of them once."""
    if not turns:
        return []
    turn, best = min(turns), None
    for one in [one for one in ways[turn] if one.turns <= turns]:
        found = [one, *_covering(turns - one.turns, ways)]
        if best is None or _served(found) > _served(best):
            best = found
        if _served(best) == len(turns) or len(turns) > _MOST_TURNS:
            return best
    without = _covering(turns - {turn}, ways)
    return without if best is None or _served(without) > _served(best) else best


def _served(ways: Iterable[MadeGood]) -> int:
    return sum(len(one.turns) for one in ways)


def _serving(factor: Factor, turn: int, ratios: Mapping[int, float]) -> Iterable[MadeGood]:
    """The ways in which ``factor`` can make good the product ``turn``: alone, or with others of the same ratio."""
    if all(turn in path for path in factor.paths):
        yield MadeGood(frozenset([turn]), factor.ids, ratios[turn])
    met = [path & ratios.keys() for path in factor.paths]
    turns = frozenset().union(*met)
    if all(len(one) == 1 for one in met) and all(math.isclose(ratios[one], ratios[turn]) for one in turns):
        yield MadeGood(turns, factor.ids, ratios[turn])
