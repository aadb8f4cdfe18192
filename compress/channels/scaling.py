"""Where a number that depends on a width may be made good in the weights before it.

The temperature of attention is one: ``q * q.shape[-1] ** -0.5`` is another function once heads are narrower. Where the
product has one factor that comes straight from a layer, and nothing else reads that, the layer's weights can take
the difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import Tensor

from compress.channels import reshaping
from compress.channels.call import Call
from compress.channels.labels import Ids, Labels
from compress.channels.notes import Note, Notes


class Factor(NamedTuple):
    """A product with a number, and the ids of all slices that its other factor grows with."""

    ids: Ids


@dataclass(kw_only=True, eq=False)
class _Source:
    """What a layer put out.

    Attributes:
        channels: the ids of its output.
        slices: for weight and bias, the ids of the slices that make each of those channels.
        reads: which calls, by number, read which part of it for more than to move it.
    """

    channels: Ids
    slices: Sequence[Ids]
    reads: list[tuple[int, Labels]] = field(default_factory=list)


class Sources:
    """Follows the outputs of layers as far as they are only moved.

    Attributes:
        notes: where the source of each tensor is written.
        is_own: whether a tensor is one of the model's.
    """

    def __init__(self, notes: Notes, is_own: Callable[[Tensor], bool]) -> None:
        self.notes = notes
        self.is_own = is_own
        self._products: dict[int, tuple[_Source, Labels]] = {}
        self._uses: Counter[int] = Counter()  # of the model's tensors, by the first id of dimension 0

    def add(self, call: Call, found: Sequence[Labels], turn: int) -> None:
        """Take down a call, the ``turn``-th."""
        inputs = call.operands
        in_place = any(out is tensor for out in call.outs for tensor in inputs)
        self._uses.update(
            int(call.lookup(tensor)[0].ids[0])
            for tensor, note in zip(inputs, call.notes, strict=True)
            if note is None and self.is_own(tensor) and 0 in call.lookup(tensor)
        )
        if call.op in _MOVES and not in_place:
            self._move(call, inputs[0], call.notes[0])
            return
        if call.op == "add" and self._add_bias(call):
            return
        parts = {"cat": inputs, "index": inputs[:1]}.get(call.op, ())
        if parts and all(map(self.is_own_or_moved, parts)):
            self.notes.of(call.out).own = True
        for tensor, note in zip(inputs, call.notes, strict=True):
            if note is not None and note.source is not None:
                note.source.reads.append((turn, note.labels))
                if call.op in {"mul", "div"} and tensor is call.args["self"] and not in_place:
                    self._products[turn] = (note.source, note.labels)
        if in_place:
            for out in call.outs:
                self.notes.of(out).source = None
        elif call.op in _LAYERS and found:
            self._begin(call, found[0])

    def factors(self) -> Mapping[int, Factor]:
        """All products of a number with what a layer put out for nothing else, by the number of the call."""
        found = {}
        for turn, (source, labels) in self._products.items():
            ids = _ids(labels)
            # A layer used twice would have to be scaled for both.
            once = all(self._num_uses(int(slices[0])) == 1 for slices in source.slices)
            if once and not any(other != turn and np.isin(_ids(read), ids).any() for other, read in source.reads):
                found[turn] = Factor(_slices(source, ids))
        return found

    def _num_uses(self, some_id: int) -> int:
        """How often the tensor that ``some_id`` belongs to was used: one of a tensor's ids comes first."""
        return self._uses[max(first for first in self._uses if first <= some_id)]

    def _move(self, call: Call, tensor: Tensor, note: Note | None) -> None:
        own = self.is_own(tensor) or (note is not None and note.own)
        source = None if note is None else note.source
        for out in call.outs if own or source is not None else ():
            moved = self.notes.of(out)
            moved.source, moved.own = source, own

    def _begin(self, call: Call, out: Labels) -> None:
        names = [name for name in _LAYERS[call.op] if isinstance(call.args.get(name), Tensor)]
        # A transposed convolution's weight has its outputs in parts, of dimension 1.
        if not names or names[0] != _LAYERS[call.op][0] or call.args.get("transposed"):
            return
        if not all(self.is_own_or_moved(call.args[name]) for name in names):
            return
        # A matrix enters a product transposed: its output dimension is the last.
        dims = [1 if name == "mat2" else 0 for name in names]
        axes = [call.lookup(call.args[name]).get(dim) for name, dim in zip(names, dims, strict=True)]
        slices = [axis.ids for axis in axes if axis is not None and not axis.parts]
        made = [axis.ids for axis in out.values() if slices and len(axis.ids) == len(slices[0])]
        if len(slices) == len(names) and len(made) == 1:
            self.notes.of(call.out).source = _Source(channels=made[0], slices=slices)

    def _add_bias(self, call: Call) -> bool:
        """Whether the call adds its bias to what a layer put out; it is then made by both."""
        note, other = call.notes[0], call.args["other"]
        source = None if note is None else note.source
        if source is None or not isinstance(other, Tensor) or not self.is_own_or_moved(other):
            return False
        axis = call.lookup(other).get(other.ndim - 1)
        if other.ndim != 1 or axis is None or len(axis.ids) != len(source.channels) or call.args["alpha"] != 1:
            return False
        source.slices = [*source.slices, axis.ids]
        self.notes.of(call.out).source = source
        return True

    def is_own_or_moved(self, tensor: Tensor) -> bool:
        """Whether a tensor is one of the model's, or a part of one."""
        note = self.notes.get(tensor)
        return self.is_own(tensor) or (note is not None and note.own)


def _ids(labels: Labels) -> Ids:
    return np.concatenate([np.empty(0, np.int64), *(axis.ids.reshape(-1) for axis in labels.values())])


def _slices(source: _Source, ids: Ids) -> Ids:
    at = np.isin(source.channels, ids)
    return np.concatenate([slices[at] for slices in source.slices])


# fmt: off
_MOVES = frozenset({
    *reshaping.TABLE, "alias", "clone", "detach", "flip", "index_select", "roll", "select", "slice", "split",
    "split_with_sizes", "unbind",
})

# What scales with a layer's weight, and its bias with it.
_NORM = ("weight", "bias")
_LAYERS: Mapping[str, Sequence[str]] = {
    "linear": ("weight", "bias"), "addmm": ("mat2", "self"), "mm": ("mat2",), "convolution": ("weight", "bias"),
    "native_layer_norm": _NORM, "_native_batch_norm_legit_no_training": _NORM, "native_batch_norm": _NORM,
}
# fmt: on
