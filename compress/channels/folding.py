"""How a reshape takes dimensions apart and puts them together: the factors of their sizes."""

from __future__ import annotations

from collections.abc import Sequence
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
