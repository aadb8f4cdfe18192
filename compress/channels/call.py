"""One ATen call as its rule sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from compress.channels.labels import NONE, Axis, Ids, Labels, Ledger
from compress.channels.notes import Note
from compress.channels.parts import flat


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """A finished call: what went in, by the names of the operation's schema, and what came out.

    Attributes:
        op: the operation's name, without overload and without the underscore of its in-place form.
        args: every argument, defaults included.
        outs: the tensors it returned.
        operands: every tensor among the arguments, those in lists too.
        is_random: whether chance has a hand in it.
        has_sizes_of_values: whether the operation finds something, and puts out as much as it finds.
        notes: what is known of each of those; nothing of the model's own.
        is_own: whether a tensor is a parameter or buffer, or a part of one.
        ledger: where ties, freezes and choices go.
        lookup: the labels of a tensor, in parts where it has some.
        inputs: the tensors that the module at work was called on.
        part_ids: the ids ``[parts, size]`` that a grouped convolution's weight keeps for its dimension 1; None if the
            weight is no tensor of the model's state, but was computed.
    """

    op: str
    args: Mapping[str, Any]
    outs: Sequence[Tensor]
    operands: Sequence[Tensor]
    is_random: bool
    has_sizes_of_values: bool
    notes: Sequence[Note | None]
    is_own: Callable[[Tensor], bool]
    ledger: Ledger
    lookup: Callable[[Tensor], Labels]
    inputs: Callable[[], Iterator[Tensor]]
    part_ids: Callable[[Tensor, int], Ids | None]

    @property
    def out(self) -> Tensor:
        """The first tensor returned."""
        return self.outs[0]

    def in_parts(self, name: str) -> Labels:
        """The labels of the argument ``name``, in parts where it has some; none if it is no tensor."""
        value = self.args.get(name)
        return self.lookup(value) if isinstance(value, Tensor) else NONE

    def labels(self, name: str) -> Labels:
        """The labels of the argument ``name``, for an operation that treats all parts of it alike."""
        return flat(self.ledger, self.in_parts(name))

    def axis(self, name: str, dim: int) -> Axis | None:
        """The labels of the argument ``name`` along ``dim``."""
        return self.labels(name).get(dim)

    def dim(self, name: str = "dim", of: str = "self") -> int:
        """The argument ``name``, a dimension of the argument ``of``, counted from the front."""
        dim, ndim = int(self.args[name]), int(self.args[of].ndim)
        return dim % max(1, ndim)

    def freeze(self, tensor: Tensor, why: str) -> None:
        """Keep every channel in ``tensor``."""
        for axis in self.lookup(tensor).values():
            self.ledger.freeze(axis, why)


Rule = Callable[[Call], Labels | Sequence[Labels] | None]
"""What an operation does to labels: those of its output, or of each of its outputs; None where it cannot tell."""
