"""How a reshape takes dimensions apart and puts them together: the factors of their sizes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple


class Fold(NamedTuple):
    """A run of elements that stays together: a factor of the size of one old and of one new dimension.

    Attributes:
        size: the factor, greater than 1.
        old: the dimension it comes from.
        new: the dimension it goes to.
    """

    size: int
    old: int
    new: int


def folds(old: Sequence[int], new: Sequence[int]) -> list[Fold] | None:
    """The factors of a reshape from sizes ``old`` to ``new``, the innermost first.

    None where the sizes have no such factors: there, elements that were neighbours along one dimension are spread over
    two, others than before at each place.
    """
    found: list[Fold] = []
    i, j = len(old), len(new)
    before = after = 1  # of a dimension, what is left to be placed
    while True:
        while before == 1 and i:
            i -= 1
            before = old[i]
        while after == 1 and j:
            j -= 1
            after = new[j]
        if before == 1 or after == 1:
            return found
        size = min(before, after)
        if max(before, after) % size:
            return None
        found.append(Fold(size, i, j))
        before, after = before // size, after // size


def same_for(labelled: Collection[int], first: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> bool:
    """Whether two reshapes, each ``(old, new)``, do the same to the dimensions ``labelled`` of their inputs.

    Dimensions that grew, as those do that a batch was merged into, did so by what lies outside of the channels.
    """
    if not labelled or first == other:
        return True
    # A dimension that a batch was merged into is that one and the batch's, which is the outer.
    grown, old = [], []
    for dim, (size, now) in enumerate(zip(first[0], other[0], strict=True)):
        if dim in labelled and now != size:
            if now % size:
                return False
            old += [now // size, size]
            grown += [-1, dim]
        else:
            old.append(now)
            grown.append(dim)
    before, after = folds(*first), folds(old, other[1])
    if before is None or after is None:
        return False
    return _of(labelled, before) == _of(labelled, [fold._replace(old=grown[fold.old]) for fold in after])


def _of(labelled: Collection[int], some: Sequence[Fold]) -> list[Fold]:
    """The factors of dimensions ``labelled``, and those within them in the same new dimension."""
    return [
        fold
        for at, fold in enumerate(some)
        if fold.old in labelled or any(outer.new == fold.new and outer.old in labelled for outer in some[at + 1 :])
    ]
