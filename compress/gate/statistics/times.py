"""The ratio of two models' times, from pairs taken in turn in several processes, and the interval that it lies in.

Two things blur a ratio. Within a process the clock stutters; of that, a bootstrap over the process's own pairs tells.
Between processes the ratio itself differs, because code and memory lie elsewhere in each; of that no number of pairs in
one process tells anything. Three processes are too few to estimate the spread between them: a t interval from three
values is nearly four times as wide as one from many. So nothing is assumed about that spread. A claim holds if *every*
process supports it on its own, and because all of them would have to err in the same direction, each may be less sure
of itself: see :func:`process_confidence`. In simulations, bound halfway to a slow-down of 5 % and 30 pairs with 2 % of
noise on each call, that finds 94 % of slow-downs where asking each of three processes for 99 % finds 20 %, and raises
no false alarm in either case.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy import special

from compress.errors import ConfigError, MeasureError

# A burst on a shared machine outlasts a few calls, so a block may not get shorter than that however few the pairs.
_MIN_BLOCK = 5
# Entries of one matrix of resamples: 8 MB at a time, however many pairs there are.
_CHUNK_ENTRIES = 1_000_000
# Of one process among many; an interval of less would be hardly more than its median.
_LEAST_CONFIDENCE = 0.1


@dataclass(frozen=True, kw_only=True)
class RatioInterval:
    """The median of ``compressed / dense`` over pairs, and the interval that holds its true value.

    Attributes:
        median: the estimate, between ``low`` and ``high``.
        low, high: ends of the interval.
        num_pairs: how many pairs it rests on.
        confidence: how sure the interval is, in (0, 1).
    """

    median: float
    low: float
    high: float
    num_pairs: int
    confidence: float = 0.99


def min_pairs(confidence: float) -> int:
    """The fewest pairs from which an interval of their median can be had at that confidence.

    Between the smallest and the largest of n values lies the true median in all but ``2**(1 - n)`` of cases, and
    no method that looks at the values alone can do better: 8 pairs for 99 %.

    Raises:
        ConfigError: if ``confidence`` is outside (0, 1).
    """
    check_confidence(confidence)
    return max(2, math.ceil(1 - math.log2(1 - confidence)))


def paired_ratio(
    pairs: Sequence[tuple[float, float]], *, confidence: float = 0.99, resamples: int = 2000, seed: int = 0
) -> RatioInterval:
    """Median of ``compressed / dense`` over pairs of times taken in turn, with its interval.

    Times follow one another on a clock that drifts, stutters and changes its frequency, so pairs are not
    independent: whole blocks of neighbouring pairs are drawn, ``n**(1/3)`` long and at least 5, on a circle so that
    every pair is drawn equally often. From few blocks that interval comes out too narrow (measured: 96 % instead of
    99 % with 30 independent pairs), so it is stretched to the exact interval between order statistics where that one
    is wider. All is done on logarithms: swapping the models inverts the result.

    Args:
        pairs: (dense, compressed) in milliseconds, in the order in which they were taken.
        confidence: of the interval, in (0, 1).
        resamples: how many times the pairs are drawn again.
        seed: of those draws; the same pairs and seed give the same interval.

    Raises:
        MeasureError: if there is no pair, or a time is not a positive number.
        ConfigError: if ``confidence`` or ``resamples`` is out of range.

    Source: Kunsch, "The Jackknife and the Bootstrap for General Stationary Observations", Annals of Statistics 17,
    1989; Politis and Romano, "A Circular Block-Resampling Procedure for Stationary Data", in Exploring the Limits of
    Bootstrap, 1992; Thompson, "On Confidence Ranges for the Median and Other Expectation Distributions for
    Populations of Unknown Distribution Form", Annals of Mathematical Statistics 7, 1936.
    """
    check_confidence(confidence)
    if resamples < 1:
        raise ConfigError(f"resamples must be at least 1, got {resamples}")
    logs = _log_ratios(pairs)
    medians = _resampled_medians(logs, resamples=resamples, seed=seed)
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    lowest, highest = _order_interval(logs, confidence)
    return RatioInterval(
        median=math.exp(float(np.median(logs))),
        low=math.exp(min(float(low), lowest)),
        high=math.exp(max(float(high), highest)),
        num_pairs=len(logs),
        confidence=confidence,
    )


def process_confidence(num_processes: int, confidence: float = 0.99) -> float:
    """How sure each of several processes must be, for all of them together to be as sure as ``confidence``.

    All that many independent intervals lie on the wrong side of the true value by chance as often as the product of
    their single chances: of three it takes ``0.005 ** (1 / 3)``, 17 % on each side, to be wrong together in 0.5 %.

    Raises:
        ConfigError: if ``num_processes`` is less than 1 or ``confidence`` outside (0, 1).
    """
    check_confidence(confidence)
    if num_processes < 1:
        raise ConfigError(f"num_processes must be at least 1, got {num_processes}")
    one_sided: float = ((1 - confidence) / 2) ** (1 / num_processes)
    # Beyond a half the two ends would change places.
    return max(1 - 2 * one_sided, _LEAST_CONFIDENCE)


def pooled_ratio(intervals: Sequence[RatioInterval]) -> RatioInterval:
    """What several processes come to together, each with an interval of the same confidence: to be read and recorded.

    The estimate is the mean of their logarithms. Its interval is that of a mean of independent estimates, or that which
    the spread between the processes calls for where that is wider.

    Raises:
        MeasureError: if there is none.

    Source: Zou and Donner, "Construction of Confidence Limits about Effect Measures: A General Approach", Statistics in
    Medicine 27, 2008.
    """
    if not intervals:
        raise MeasureError("a ratio needs at least one process that measured it, got none")
    if len(intervals) == 1:
        return intervals[0]
    logs = np.log([(interval.median, interval.low, interval.high) for interval in intervals])
    median, low, high = logs.T
    confidence = intervals[0].confidence
    spread = _quantile(confidence) * float(np.std(median, ddof=1)) / math.sqrt(len(median))
    below = max(spread, float(np.linalg.norm(median - low)) / len(median))
    above = max(spread, float(np.linalg.norm(high - median)) / len(median))
    centre = float(np.mean(median))
    return RatioInterval(
        median=math.exp(centre),
        low=math.exp(centre - below),
        high=math.exp(centre + above),
        num_pairs=sum(interval.num_pairs for interval in intervals),
        confidence=confidence,
    )


def relative_ratio(now: RatioInterval, before: RatioInterval) -> RatioInterval:
    """By which factor a ratio changed since it was measured ``before``, as sure as ``now`` is.

    The interval of ``before`` counts as it was recorded. It must not shrink to the confidence of one of several
    processes: their errors are independent, so that all of them rarely err to one side, but what was recorded is the
    same for all, and where it is wrong every one of them is.

    Raises:
        ConfigError: if the confidence of ``now`` is outside (0, 1).

    Source: Zou and Donner, see :func:`pooled_ratio`.
    """
    check_confidence(now.confidence)
    below = math.hypot(math.log(now.median / now.low), math.log(before.high / before.median))
    above = math.hypot(math.log(now.high / now.median), math.log(before.median / before.low))
    median = now.median / before.median
    return RatioInterval(
        median=median,
        low=median * math.exp(-below),
        high=median * math.exp(above),
        num_pairs=now.num_pairs,
        confidence=now.confidence,
    )


def check_confidence(confidence: float) -> None:
    """Refuse a confidence outside (0, 1).

    Raises:
        ConfigError: if it is.
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must be in (0, 1), got {confidence}")


def _quantile(confidence: float) -> float:
    """How many standard deviations a normal interval of that confidence reaches to either side."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _log_ratios(pairs: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """``[n]`` logarithms of compressed over dense."""
    times = np.asarray(pairs, dtype=np.float64)
    if times.size == 0:
        raise MeasureError("a ratio of times needs at least one pair, got none")
    if times.ndim != 2 or times.shape[1] != 2:  # noqa: PLR2004 - a pair is two
        raise MeasureError(f"times must come as pairs of dense and compressed, got shape {times.shape}")
    usable = np.isfinite(times) & (times > 0)
    if not usable.all():
        place = int(np.argmin(usable.all(axis=1)))
        raise MeasureError(f"a time must be a positive number, got {tuple(times[place].tolist())} (pair {place})")
    logs: NDArray[np.float64] = np.log(times[:, 1]) - np.log(times[:, 0])
    return logs


def _resampled_medians(logs: NDArray[np.float64], *, resamples: int, seed: int) -> NDArray[np.float64]:
    """``[resamples]`` medians over blocks drawn on the circle of ``logs: [n]``."""
    n = len(logs)
    block = min(n, max(_MIN_BLOCK, math.ceil(n ** (1 / 3))))
    starts = np.random.default_rng(seed).integers(n, size=(resamples, math.ceil(n / block)))
    medians = np.empty(resamples)
    step = max(1, _CHUNK_ENTRIES // n)
    for first in range(0, resamples, step):
        chunk = starts[first : first + step]
        drawn = (chunk[:, :, None] + np.arange(block)).reshape(len(chunk), -1)[:, :n] % n
        medians[first : first + step] = np.median(logs[drawn], axis=1)
    return medians


def _order_interval(logs: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """The narrowest pair of order statistics, equally far from both ends, that holds the median at that confidence."""
    n = len(logs)
    ordered = np.sort(logs)
    # Below the rank-k value lies the true median as often as n fair coins show fewer than k heads.
    misses = special.bdtr(np.arange((n + 1) // 2), n, 0.5)
    rank = max(0, int(np.count_nonzero(misses <= (1 - confidence) / 2)) - 1)
    return float(ordered[rank]), float(ordered[n - 1 - rank])
