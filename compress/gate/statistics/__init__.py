"""What may be concluded from paired measurements: ratios of times, flips and scores of single test examples."""

from __future__ import annotations

from compress.gate.statistics.flips import (
    IncreaseInterval,
    detectable_increase,
    flips,
    increase_interval,
    mcnemar,
    num_correct,
)
from compress.gate.statistics.scores import PairedScores, check_rows
from compress.gate.statistics.times import (
    RatioInterval,
    min_pairs,
    paired_ratio,
    pooled_ratio,
    process_confidence,
    relative_ratio,
)

__all__ = [
    "IncreaseInterval",
    "PairedScores",
    "RatioInterval",
    "check_rows",
    "detectable_increase",
    "flips",
    "increase_interval",
    "mcnemar",
    "min_pairs",
    "num_correct",
    "paired_ratio",
    "pooled_ratio",
    "process_confidence",
    "relative_ratio",
]
