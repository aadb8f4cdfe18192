"""From a row of numbers for each example to one figure: what a quality comes to, under any weights of the examples.

Every reduction takes rows ``[n, width]`` and weights ``[draws, n]`` and gives ``[draws]``, so that a figure can be
found for thousands of draws of the examples at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from compress.results import Reduction

Rows = NDArray[np.float64]


def of_means(figure: Callable[[Rows], Rows]) -> Reduction:
    """A reduction by the weighted means of the columns: ``figure`` makes ``[draws]`` of means ``[draws, width]``."""

    def reduce(rows: Rows, weights: Rows) -> Rows:
        with np.errstate(divide="ignore", invalid="ignore"):
            return figure(weights @ rows / weights.sum(axis=1, keepdims=True))

    return reduce


mean: Reduction = of_means(lambda means: means[:, 0])
"""The mean of the only column."""

root_mean: Reduction = of_means(lambda means: np.sqrt(means[:, 0]))
"""The root of the mean of the only column."""

ratio: Reduction = of_means(lambda means: means[:, 0] / means[:, 1])
"""The sum of the first column over that of the second: errors over words."""

exp_ratio: Reduction = of_means(lambda means: np.exp(means[:, 0] / means[:, 1]))
"""The exponential of the same: perplexity of negative log-likelihoods over tokens."""


def determination(rows: Rows, weights: Rows) -> Rows:
    """R2 of columns squared error, target."""
    # From near their mean, targets that lie far from zero lose nothing to rounding.
    apart = rows[:, 1] - rows[:, 1].mean()
    columns = np.stack([rows[:, 0], apart, apart**2], axis=1)
    return of_means(lambda means: 1 - means[:, 0] / (means[:, 2] - means[:, 1] ** 2))(columns, weights)


def _of_classes(figure: Callable[[Rows, Rows, Rows], Rows]) -> Reduction:
    """The mean, over classes that occur, of a figure of their true positives, false positives and false negatives."""

    def mean_of(means: Rows) -> Rows:
        true, over, missed = np.moveaxis(means.reshape(len(means), -1, 3), 2, 0)
        each = figure(true, over, missed)
        each[(true + over + missed) == 0] = np.nan
        counted = np.isfinite(each)
        total: Rows = np.where(counted, each, 0).sum(axis=1) / counted.sum(axis=1)
        return total

    return of_means(mean_of)


intersection_over_union: Reduction = _of_classes(lambda true, over, missed: true / (true + over + missed))
"""Mean over classes of columns (true positives, false positives, false negatives) of each: IoU."""

dice: Reduction = _of_classes(lambda true, over, missed: 2 * true / (2 * true + over + missed))
"""The same: Dice, which is F1."""


def area_under_curve(rows: Rows, weights: Rows) -> Rows:
    """Area under the ROC curve of columns score, whether positive: ties count half.

    Source: Hanley and McNeil, "The Meaning and Use of the Area under a ROC Curve", Radiology 143, 1982.
    """
    order = np.argsort(rows[:, 0], kind="stable")
    scores, positive, weights = rows[order, 0], rows[order, 1], weights[:, order]
    starts = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]]))
    negatives = np.add.reduceat(weights * (1 - positive), starts, axis=1)
    positives = np.add.reduceat(weights * positive, starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        area: Rows = (positives * below).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))
    return area
