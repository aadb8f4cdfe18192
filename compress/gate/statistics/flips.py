"""What the same test examples say about two models: which were lost, which gained, and what that proves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy import special

from compress.errors import ConfigError, MeasureError
from compress.gate.statistics.times import check_confidence

# 2**-50 is below any increase that a data set can show.
_BISECTIONS = 50


@dataclass(frozen=True, kw_only=True)
class IncreaseInterval:
    """The increase of an error between two models on the same examples, in -1..1, and its interval."""

    increase: float
    low: float
    high: float


def flips(before: bytes, after: bytes, n: int) -> tuple[int, int]:
    """How many of ``n`` examples were classified right before and wrong after (lost), and the reverse (gained).

    Args:
        before, after: one bit for each example, packed as by ``numpy.packbits``; set where it was right.
        n: how many bits count; the rest of the last byte is padding.

    Raises:
        MeasureError: if either does not hold exactly ``n`` bits.
    """
    was, now = _unpack(before, n), _unpack(after, n)
    return int(np.count_nonzero(was > now)), int(np.count_nonzero(now > was))


def num_correct(correct: bytes, n: int) -> int:
    """How many of the first ``n`` packed bits are set.

    Raises:
        MeasureError: if there are not exactly ``n`` bits.
    """
    return int(np.count_nonzero(_unpack(correct, n)))


def mcnemar(lost: int, gained: int) -> float:
    """Chance that a model no worse than the other loses at least so many of the flipped examples.

    Exact and one-sided: under the null hypothesis each flip is a fair coin, so this is the upper tail of
    ``Binomial(lost + gained, 1/2)`` at ``lost``; 1 where nothing flipped.

    Raises:
        ConfigError: if a count is negative.

    Source: McNemar, "Note on the Sampling Error of the Difference Between Correlated Proportions", Psychometrika
    12, 1947, in its exact form.
    """
    if lost < 0 or gained < 0:
        raise ConfigError(f"flip counts must not be negative, got {lost} lost and {gained} gained")
    # bdtrc is the tail beyond its first argument, hence the one less.
    return float(special.bdtrc(lost - 1, lost + gained, 0.5)) if lost else 1.0


def increase_interval(lost: int, gained: int, n: int, confidence: float = 0.90) -> IncreaseInterval:
    """Interval for the increase of an error, ``(lost - gained) / n``, between two models on the same ``n`` examples.

    It is the score interval for a difference of paired proportions: right also where hardly anything flipped, where
    the textbook's standard error claims certainty. The error stays within a margin, proven at 5 % (non-inferiority),
    where the upper end of the 90 % interval lies within it.

    Raises:
        ConfigError: if the counts do not fit into ``n``, or ``confidence`` is outside (0, 1).

    Source: Tango, "Equivalence Test and Confidence Interval for the Difference in Proportions for the Paired-Sample
    Design", Statistics in Medicine 17, 1998.
    """
    check_confidence(confidence)
    if lost < 0 or gained < 0 or n < 1 or lost + gained > n:
        raise ConfigError(f"flips must fit into the examples, got {lost} lost and {gained} gained of {n}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    increase = (lost - gained) / n
    return IncreaseInterval(
        increase=increase,
        # The interval of the opposite change is the mirror image.
        low=min(increase, -_upper_bound(gained, lost, n, z)),
        high=max(increase, _upper_bound(lost, gained, n, z)),
    )


def detectable_increase(flip_share: float, n: int, *, significance: float = 0.05, power: float = 0.80) -> float:
    """The smallest increase of an error that ``n`` examples show, at that significance, in a share ``power`` of cases.

    With a share ``flip_share`` of examples flipping, ``(z_significance + z_power) * sqrt(flip_share / n)``: at 5 %
    flips 0.0124 with 2,000 examples, 0.0056 with 10,000.

    Raises:
        ConfigError: if an argument is out of range.

    Source: Connor, "Sample Size for Testing Differences in Proportions for the Paired-Sample Design", Biometrics 43,
    1987, without the square of the increase, which is small beside the share of flips.
    """
    if not 0 <= flip_share <= 1:
        raise ConfigError(f"flip_share must be in [0, 1], got {flip_share}")
    if n < 1:
        raise ConfigError(f"n must be at least 1, got {n}")
    if not (0 < significance < 1 and 0 < power < 1):
        raise ConfigError(f"significance and power must be in (0, 1), got {significance} and {power}")
    normal = NormalDist()
    return (normal.inv_cdf(1 - significance) + normal.inv_cdf(power)) * math.sqrt(flip_share / n)


def _unpack(correct: bytes, n: int) -> NDArray[np.uint8]:
    """``[n]`` of 0 and 1."""
    if n < 0 or len(correct) != math.ceil(n / 8):
        raise MeasureError(f"the results of {n} examples take {math.ceil(n / 8)} bytes, got {len(correct)}")
    return np.unpackbits(np.frombuffer(correct, dtype=np.uint8), count=n)


def _upper_bound(lost: int, gained: int, n: int, z: float) -> float:
    """The increase at which the score statistic has fallen to ``-z``, found by halving: it falls all the way."""
    low, high = (lost - gained) / n, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _score(lost, gained, n, middle) > -z:
            low = middle
        else:
            high = middle
    return high


def _score(lost: int, gained: int, n: int, increase: float) -> float:
    """Tango's statistic for the hypothesis that the true increase is ``increase``."""
    linear = (2 * n - lost + gained) * increase - lost - gained
    constant = -gained * increase * (1 - increase)
    # The likeliest share of gained examples if that hypothesis holds.
    gained_share = (math.sqrt(linear * linear - 8 * n * constant) - linear) / (4 * n)
    variance = n * (2 * gained_share + increase * (1 - increase))
    deviation = lost - gained - n * increase
    if variance <= 0:
        return math.copysign(math.inf, deviation) if deviation else 0.0
    return deviation / math.sqrt(variance)
