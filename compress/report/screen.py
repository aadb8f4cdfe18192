"""What a run shows on a terminal, before it is laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compress.gate.checks import Status
from compress.gate.demands import Excuse, Gap
from compress.gate.verdict import Verdict
from compress.results import Environment


@dataclass(frozen=True, kw_only=True)
class Screen:
    """All that a run came to.

    Attributes:
        verdicts: in the order in which they came.
        workload: name of the model and data.
        environment: where it was measured; None if nobody knows.
        identity: in a line, whether the models are those of the baseline; "" if nobody knows.
        title: what the run came to: "held", "regressed" or "could not measure".
        exit_status: that it ends with.
        compares: whether it compares with a baseline or records one.
        records: name of the baseline that it records; "" for none.
        hidden: what regressed though its test is not reported as failed, one line each.
        gaps: what was to be measured and was not; an excuse covers none of them.
        excused: what an excuse covers.
        notes: what else a reader should know, one line each.
    """

    verdicts: Sequence[Verdict]
    workload: str = ""
    environment: Environment | None = None
    identity: str = ""
    title: str = "held"
    exit_status: int = 0
    compares: bool = True
    records: str = ""
    hidden: Sequence[str] = ()
    gaps: Sequence[Gap] = ()
    excused: Sequence[tuple[Excuse, Gap]] = ()
    notes: Sequence[str] = ()

    @property
    def recipes(self) -> list[str]:
        """Of which something was judged."""
        return list(dict.fromkeys(verdict.recipe for verdict in self.verdicts))

    def of_status(self, status: Status) -> list[Verdict]:
        """The verdicts of one status."""
        return [verdict for verdict in self.verdicts if verdict.status is status]
