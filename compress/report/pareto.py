"""What compressed models cost and what they give, and which of them no other one beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compress.results import METRICS, Metric


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One compressed model beside the dense one it came from.

    Attributes:
        recipe: name of the recipe that made it.
        quality: how good it is at its task, in the metric's unit.
        metric: what that is: top-1 error, or another workload's own.
        file_bytes: of the file that ``compress.save`` writes.
        num_params: parameters.
        latency_ratio: time of one forward pass, compressed / dense; None where no time was measured.
        latency_interval: ends of that ratio's interval, None where there is none.
        settings: what differs from the recipe as its file says it, by name; empty for the recipe itself.
    """

    recipe: str
    quality: float
    file_bytes: float
    num_params: float
    latency_ratio: float | None = None
    latency_interval: tuple[float, float] | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    metric: Metric = METRICS["top1_error"]

    @property
    def badness(self) -> float:
        """The quality, the larger the worse."""
        return self.metric.worse_by(0.0, self.quality)

    @property
    def is_seed(self) -> bool:
        """Whether it is a recipe as its file says it."""
        return not self.settings

    @property
    def label(self) -> str:
        """Recipe and settings in one line: ``structured: prune_channels.pruning_ratio=0.3``."""
        return _label(self.recipe, self.settings)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A set of settings that made no model, and why."""

    recipe: str
    settings: Mapping[str, object]
    reason: str

    @property
    def label(self) -> str:
        """Recipe and settings in one line."""
        return _label(self.recipe, self.settings)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All that came out of a sweep.

    Attributes:
        workload: name of the model and data.
        data_sha256: hash of the test data.
        device: class of device that the ratios of times hold for.
        num_examples: how many test examples the errors count.
        dense: the model that all of them came from; its ratio is 1.
        candidates: what was tried, the recipes as their files say them first.
        failures: what was tried in vain.
        running: who else was still trying something when these were collected.
    """

    workload: str
    data_sha256: str
    device: str
    num_examples: int
    dense: Candidate
    candidates: tuple[Candidate, ...]
    failures: tuple[Failure, ...] = ()
    running: tuple[str, ...] = ()


def dominated(points: Sequence[tuple[float, ...]]) -> list[bool]:
    """For each point whether another one is at least as good in every dimension and better in one; less is better.

    Points that are equal do not dominate one another.
    """
    return [any(_dominates(other, point) for other in points) for point in points]


def on_front(candidates: Sequence[Candidate]) -> list[bool]:
    """For each candidate whether none beats it in quality, bytes and time together; without a time none is."""
    timed = [index for index, candidate in enumerate(candidates) if candidate.latency_ratio is not None]
    points = [
        (candidates[index].badness, candidates[index].file_bytes, candidates[index].latency_ratio or 0.0)
        for index in timed
    ]
    front = {index for index, beaten in zip(timed, dominated(points), strict=True) if not beaten}
    return [index in front for index in range(len(candidates))]


def _label(recipe: str, settings: Mapping[str, object]) -> str:
    written = ", ".join(f"{name}={value}" for name, value in settings.items())
    return f"{recipe}: {written}" if written else recipe


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
