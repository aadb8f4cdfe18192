"""What one trial of a self-check measured."""

from __future__ import annotations

from dataclasses import dataclass

from compress.gate.judge import both_runs
from compress.results import Measurement


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial.

    Attributes:
        slowdown: fraction by which the second model was slower.
        first: what was measured.
        second: what the second look measured, None if there was none.
        seconds: how long all of it took.
    """

    slowdown: float
    first: Measurement
    second: Measurement | None
    seconds: float

    @property
    def measured(self) -> Measurement:
        """All that was measured, which a baseline would keep."""
        return self.first if self.second is None else both_runs(self.first, self.second)
