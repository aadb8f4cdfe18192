"""The decision which channels to remove, apart from the removal: it can be read, tested, and applied later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from torch import nn

from compress.channels.labels import Ids
from compress.modules.copying import PLANS
from compress.pruning.repairs import Repair


class Member(NamedTuple):
    """One dimension of one parameter or buffer, by its name in the model's state."""

    tensor: str
    dim: int

    def __str__(self) -> str:
        return f"{self.tensor}[{self.dim}]"


@dataclass(frozen=True, kw_only=True)
class PlannedGroup:
    """What becomes of one group of channels.

    Attributes:
        members: where its channels live.
        channels: how many there are.
        kept: how many stay.
        frozen: why it stays whole, with the operation and the layer; None where it need not.
    """

    members: tuple[Member, ...]
    channels: int
    kept: int
    frozen: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class PruningPlan:
    """A verified decision, made for one model.

    Attributes:
        pruning_ratio: the fraction of channels asked to be removed, or found to reach the target that was asked.
        groups: every group, those that stay whole too.
        kept: for each dimension that loses something, the indices that stay: ``[kept]``, ascending. For dimension 1 of
            a grouped convolution's weight ``[parts, kept]``, since each part of dimension 0 has channels of its own.
        num_params_before: parameters of the model.
        num_params_after: parameters of the model once pruned.
        notes: what was measured to choose the cut, a sentence each.
        repairs: attributes of modules that said how wide something was, and change.
        scales: for dimensions whose kept slices are multiplied by something, because a number that the network computes
            of its width would else change: ``[kept]``.
    """

    pruning_ratio: float
    groups: Sequence[PlannedGroup]
    kept: Mapping[Member, Ids]
    num_params_before: int
    num_params_after: int
    notes: tuple[str, ...] = ()
    repairs: Sequence[Repair] = ()
    scales: Mapping[Member, npt.NDArray[np.float64]] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __deepcopy__(self, _memo: object) -> Self:
        # It never changes, and copies of a pruned model carry it along.
        return self

    def lines(self) -> Iterator[str]:
        """The plan for a reader: a summary, then a line for each group."""
        share = self.num_params_after / self.num_params_before if self.num_params_before else 1.0
        yield (
            f"pruning_ratio {self.pruning_ratio:g}: {self.num_params_before:,} -> {self.num_params_after:,} "
            f"parameters ({share:.1%})"
        )
        yield from self.notes
        for group in self.groups:
            where = ", ".join(str(member) for member in group.members[:3])
            more = f" and {len(group.members) - 3} more" if len(group.members) > 3 else ""  # noqa: PLR2004
            why = f": whole, {group.frozen}" if group.frozen else ""
            yield f"{group.channels:6} -> {group.kept:5}  {where}{more}{why}"
        for repair in self.repairs:
            yield f"repaired  {repair}"
        for member, factors in self.scales.items():
            yield f"scaled    {member} by {factors.min():.4g} to {factors.max():.4g}"


def plans_of(model: nn.Module) -> tuple[PruningPlan, ...]:
    """The cuts that ``model`` came out of in this process, the first one first; none of a model read from a file."""
    plans: tuple[PruningPlan, ...] = getattr(model, PLANS, ())
    return plans


def note_plans_(model: nn.Module, plans: Sequence[PruningPlan]) -> None:
    """Have ``model`` know the cuts that it came out of; copies know them too, files do not."""
    setattr(model, PLANS, tuple(plans))
