"""What the same test examples say about two models by the numbers that each of them gave.

A figure is what a reduction makes of a row of numbers for each example: a mean, a ratio of sums, an area under a curve.
Whether it got worse by more than chance is tested by exchanging the two models' rows example by example, which is exact
whatever the figure and however its numbers are spread. How much worse it may be is found by drawing the examples anew.
Examples that belong together are exchanged and drawn together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from compress.errors import MeasureError
from compress.results import Reduction

Rows = NDArray[np.float64]

# Up to so many units all exchanges are gone through, one by one.
_EXHAUSTIVE = 12
_EXCHANGES = 4999
_DRAWS = 2000
# Numbers in one matrix of weights.
_CHUNK = 4_000_000
# So many examples show how far a single one can move a figure.
_INFLUENCES = 500
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True, eq=False)
class PairedScores:
    """How much worse a figure got from one side to another, on the same examples.

    A side is one model, or two of which the difference counts: ``(compressed, dense)``.

    Attributes:
        before, after: rows ``[n, width]`` of each model of either side; as many on both.
        reduce: the figure of such rows.
        sign: 1 where a larger figure is worse, -1 where it is better.
        groups: ``[n]``: which examples belong together; None where each is on its own.
    """

    before: tuple[Rows, ...]
    after: tuple[Rows, ...]
    reduce: Reduction
    sign: int = 1
    groups: NDArray[np.int64] | None = None

    @property
    def num_examples(self) -> int:
        """How many examples there are."""
        return len(self.before[0])

    @cached_property
    def change(self) -> float:
        """By how much the figure got worse; below 0 where it is better."""
        return float(self._side(self.after, self._ones)[0] - self._side(self.before, self._ones)[0])

    @cached_property
    def num_units(self) -> int:
        """How many examples, or groups of them, are independent of one another."""
        return int(self._units.max()) + 1 if len(self._units) else 0

    def p_value(self, *, improved: bool = False) -> float:
        """Chance of so large a change, for the worse or the better, if it made no difference which side is which.

        Exact up to 12 units, else of 4,999 exchanges drawn at random, with the one that was observed among them.

        Source: Fisher, "The Design of Experiments", 1935, section 21 (exchanges of paired values); Phipson and Smyth,
        "Permutation P-values Should Never Be Zero", 2010.
        """
        observed, changes = (-self.change, -self._exchanged) if improved else (self.change, self._exchanged)
        slack = _ROUNDING * max(1.0, abs(observed))
        as_large = int((changes >= observed - slack).sum())
        if self.num_units <= _EXHAUSTIVE:
            return as_large / len(changes)
        return (as_large + 1) / (len(changes) + 1)

    def upper_bound(self, confidence: float = 0.95) -> float:
        """How much worse the figure may be, one-sided: below a margin, it proves that the margin is held.

        The quantile of the change over examples drawn anew, corrected for bias and skewness, and widened as Student's t
        is for few of them. What no example showed may yet befall some: where nothing changed, it is what a score
        interval leaves possible.

        Source: Efron, "Better Bootstrap Confidence Intervals", JASA 82, 1987 (BCa); Hesterberg, "What Teachers Should
        Know About the Bootstrap", 2015, section 3.2 (widening).
        """
        return self._end(confidence)

    def lower_bound(self, confidence: float = 0.95) -> float:
        """How much worse the figure is at least, one-sided."""
        return -self._end(confidence, mirrored=True)

    @cached_property
    def deviation(self) -> float:
        """Standard error of the change."""
        units = self.num_units
        # Drawn anew, examples vary by n - 1 parts of n of what they do.
        return float(np.std(self._drawn)) * math.sqrt(units / (units - 1)) if units > 1 else math.inf

    def detectable(self, margin: float, *, significance: float, power: float = 0.98) -> float:
        """The smallest change for the worse that so many examples are sure to show, 95 times in 100.

        ``power`` is a little more than that, for the standard error is an estimate too.
        """
        freedom = self.num_units - 1
        if freedom < 1 or 2.0**-self.num_units > significance:
            return math.inf
        beyond, found = (float(stats.t.ppf(one, freedom)) for one in (1 - significance, power))
        return max(margin + found * self.deviation, (beyond + found) * self.deviation)

    @cached_property
    def _units(self) -> NDArray[np.int64]:
        """``[n]``: the number of each example's unit, from 0."""
        if self.groups is None:
            return np.arange(self.num_examples)
        return np.unique(self.groups, return_inverse=True)[1].astype(np.int64)

    @property
    def _ones(self) -> Rows:
        return np.ones((1, self.num_examples))

    def _side(self, models: tuple[Rows, ...], weights: Rows) -> Rows:
        """``[draws]``: the figure of a side under weights ``[draws, n]``, larger for worse."""
        figures = [self.reduce(rows, weights) for rows in models]
        return self.sign * (figures[0] if len(figures) == 1 else figures[0] - figures[1])

    @cached_property
    def _drawn(self) -> Rows:
        """``[draws]``: the change on examples drawn anew."""
        changes = [self._side(self.after, weights) - self._side(self.before, weights) for weights in self._weights()]
        drawn = np.concatenate(changes)
        # Where a draw leaves the figure undefined, as of one class alone, it says nothing.
        return drawn[np.isfinite(drawn)]

    def _weights(self) -> Iterator[Rows]:
        """How often each example is drawn, a chunk of draws at a time."""
        generator, units = np.random.default_rng(0), self.num_units
        chunk = max(1, _CHUNK // max(self.num_examples, 1))
        for start in range(0, _DRAWS, chunk):
            count = min(chunk, _DRAWS - start)
            drawn = generator.integers(0, units, (count, units)) + units * np.arange(count)[:, None]
            times = np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units)
            yield times.astype(np.float64)[:, self._units]

    @cached_property
    def _exchanged(self) -> Rows:
        """``[exchanges]``: the change once the rows of some units are exchanged between the sides."""
        both = tuple(np.concatenate(pair) for pair in zip(self.before, self.after, strict=True))
        changes = []
        for exchanged in self._exchanges():
            there = exchanged[:, self._units]
            here = 1.0 - there
            # Rows of before, then of after: what is exchanged counts on the other side.
            after, before = np.concatenate([there, here], axis=1), np.concatenate([here, there], axis=1)
            changes.append(self._side(both, after) - self._side(both, before))
        return np.concatenate(changes)

    def _exchanges(self) -> Iterator[Rows]:
        units = self.num_units
        if units <= _EXHAUSTIVE:
            yield (np.arange(2**units)[:, None] >> np.arange(units) & 1).astype(np.float64)
            return
        generator = np.random.default_rng(1)
        chunk = max(1, _CHUNK // (2 * self.num_examples))
        for start in range(0, _EXCHANGES, chunk):
            yield generator.integers(0, 2, (min(chunk, _EXCHANGES - start), units)).astype(np.float64)

    def _end(self, confidence: float, *, mirrored: bool = False) -> float:
        drawn, change, skew = (
            (-self._drawn, -self.change, -self._skew) if mirrored else (self._drawn, self.change, self._skew)
        )
        units, normal = self.num_units, NormalDist()
        if units < 2 or not len(drawn):  # noqa: PLR2004 - one alone says nothing of others
            return math.inf
        wide = math.sqrt(units / (units - 1)) * float(stats.t.ppf(confidence, units - 1))
        below = float((drawn < change).mean() + (drawn == change).mean() / 2)
        bias = normal.inv_cdf(min(max(below, 1 / len(drawn)), 1 - 1 / len(drawn)))
        shrunk = 1 - skew * (bias + wide)
        level = normal.cdf(bias + (bias + wide) / shrunk) if shrunk > 0 else 1.0
        z = normal.inv_cdf(confidence) ** 2
        return max(float(np.quantile(drawn, level)), change + self._reach * z / (units + z))

    @cached_property
    def _reach(self) -> float:
        """How far apart single examples lie in what they contribute to one model's figure."""
        return float(np.ptp(_contributions(lambda weights: self.reduce(self.before[-1], weights), self._some)))

    @cached_property
    def _skew(self) -> float:
        """The acceleration: by how much the change's spread grows with the change itself."""
        each = _contributions(
            lambda weights: self._side(self.after, weights) - self._side(self.before, weights), self._some
        )
        each = each - each.mean() if len(each) else each
        spread = float((each**2).mean()) if len(each) else 0.0
        return float((each**3).mean()) / (6 * spread**1.5 * math.sqrt(self.num_units)) if spread else 0.0

    @property
    def _some(self) -> Rows:
        """``[units, n]``: weights that leave one unit out each, some hundred of them where there are many."""
        chosen = np.random.default_rng(2).permutation(self.num_units)[:_INFLUENCES]
        weights: Rows = (self._units[None, :] != chosen[:, None]).astype(np.float64)
        return weights


def _contributions(figure: Callable[[Rows], Rows], without: Rows) -> Rows:
    """What each unit adds to a figure: the jackknife's pseudo-values, those that are numbers."""
    total = without.shape[1]
    units = total / max(1.0, float((total - without.sum(axis=1)).mean()))
    values: Rows = units * figure(np.ones((1, total))) - (units - 1) * figure(without)
    finite: Rows = values[np.isfinite(values)]
    return finite if len(finite) else np.zeros(1, dtype=np.float64)


def check_rows(rows: Rows, n: int) -> None:
    """Refuse rows that are none.

    Raises:
        MeasureError: if they are not ``[n, width]`` finite numbers.
    """
    if rows.ndim != 2 or len(rows) != n:  # noqa: PLR2004 - a row for each example
        raise MeasureError(
            f"the scores of {n:,} examples take a row for each, got an array of shape {list(rows.shape)}"
        )
    if not np.isfinite(rows).all():
        raise MeasureError("the scores of single examples must be finite numbers, got NaN or infinity")
