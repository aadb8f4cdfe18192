"""The settings of a factorization."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from compress.errors import ConfigError

By = Literal["energy", "ratio", "rank", "macs", "params", "latency"]
Kind = Literal["channel", "spatial", "tucker"]

_TARGETS: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    "energy": ("in (0, 1]", lambda value: 0 < value <= 1),
    "ratio": ("in (0, 1]", lambda value: 0 < value <= 1),
    "rank": ("a whole number at least 1", lambda value: value >= 1 and value == int(value)),
    "macs": ("in (0, 1)", lambda value: 0 < value < 1),
    "params": ("in (0, 1)", lambda value: 0 < value < 1),
    "latency": ("in (0, 1)", lambda value: 0 < value < 1),
}


@dataclass(frozen=True, kw_only=True)
class LowRankConfig:
    """How :func:`compress.factorize` chooses ranks.

    Attributes:
        by: what ``target`` speaks of. For each layer alone: "energy", the share of its squared weights (of its outputs'
            variance, with calibration data) that is kept; "ratio", its rank over the full one; "rank", its rank. For
            the whole model, compressed over dense: "macs", "params", "latency"; the ranks are then shared out so that
            as much energy as possible is kept in all layers together.
        target: the number.
        kinds: the decompositions to choose from for a convolution: "channel" (k x k to r channels, then 1 x 1),
            "spatial" (k x 1, then 1 x k), "tucker" (1 x 1, k x k, 1 x 1). A ratio or a rank is that of the first of
            these that a layer can have; another one takes its place where it needs fewer MACs at no greater error.
        round_to: every rank is a multiple of it, for kernels that like such widths: of the multiples whose error is
            within that of the rank, ratio or energy asked for, or that fit the target, the best. A layer whose full
            rank is below it stays whole.
        only: names of modules; layers outside of them stay whole. None at all means every layer.
        ignore: names of modules whose layers stay whole.

    Raises:
        ConfigError: if a value breaks its rule.
    """

    by: By = "macs"
    target: float = 0.7
    kinds: tuple[Kind, ...] = get_args(Kind)
    round_to: int = 1
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.by not in _TARGETS:
            raise ConfigError(f"by must be one of {', '.join(_TARGETS)}, got {self.by!r}")
        rule, holds = _TARGETS[self.by]
        number = isinstance(self.target, (int, float)) and not isinstance(self.target, bool)
        if not (number and abs(self.target) < float("inf") and holds(self.target)):
            raise ConfigError(f"target must be {rule} for {self.by}, got {self.target!r}")
        if not self.kinds or not set(self.kinds) <= set(get_args(Kind)):
            raise ConfigError(f"kinds must be some of {', '.join(get_args(Kind))}, got {self.kinds!r}")
        if not isinstance(self.round_to, int) or isinstance(self.round_to, bool) or self.round_to < 1:
            raise ConfigError(f"round_to must be a whole number at least 1, got {self.round_to!r}")
        for field in ("only", "ignore"):
            names = getattr(self, field)
            if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
                raise ConfigError(f"{field} must be a tuple of module names, got {names!r}")
