"""Where a number that depends on a width may be made good in the weights before it.

The temperature of attention is one: ``q @ k.T / q.shape[-1] ** 0.5`` is another function once heads are narrower. What
a layer put out is followed as long as whatever comes of it grows with it: moved, multiplied, added to its like, or a
factor in a product of matrices. If nothing else reads it on the way to the number, the layer's weights can take the
difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import NamedTuple

import numpy as np
from torch import Tensor

from compress.channels import reshaping
from compress.channels.call import Call
from compress.channels.labels import Ids, Labels
from compress.channels.notes import Notes
from compress.channels.pointwise import is_number

# The products with a number, by the number of the call, on one way from a layer to where its output is read.
Path = frozenset[int]

_MOST_PATHS = 8


class Factor(NamedTuple):
    """What a product with a number grows with, and could be made good in.

    Attributes:
        ids: those of all slices that do.
        paths: to each place where what comes of them is read.
    """

    ids: Ids
    paths: frozenset[Path]


@dataclass(kw_only=True, eq=False)
class _Source:
    """What a layer put out.

    Attributes:
        channels: the ids of its output.
        slices: for weight and bias, the ids of the slices that make each of those channels.
        reads: what was read of it for more than to hand it on, growing.
    """

    channels: Ids
    slices: Sequence[Ids]
    reads: list[Growth] = field(default_factory=list)


class Growth(NamedTuple):
    """A tensor is multiplied by whatever some channels that a layer puts out are multiplied by.

    Attributes:
        source: the layer's output.
        ids: those channels.
        paths: from the layer to the tensor: a sum brings several together.
    """

    source: _Source
    ids: Ids
    paths: frozenset[Path] = frozenset([frozenset()])


class Sources:
    """Follows the outputs of layers through what grows with them.

    Attributes:
        notes: where it is written what each tensor grows with: with each of several things by itself.
        is_own: whether a tensor is one of the model's.
    """

    def __init__(self, notes: Notes, is_own: Callable[[Tensor], bool]) -> None:
        self.notes = notes
        self.is_own = is_own
        self._products: dict[int, Sequence[Growth]] = {}
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
        self._follow_own(call, in_place=in_place)
        if self._add_bias(call):
            return
        if any(note is not None and note.growth for note in call.notes):
            self._follow(call, found, turn, in_place=in_place)
        if call.op in _LAYERS and found and not in_place:
            self._begin(call, found[0])

    def put_out(self, tensor: Tensor) -> None:
        """Note that ``tensor`` is an output of the network, and has to stay what it is."""
        note = self.notes.get(tensor)
        _read(() if note is None else note.growth)

    def factors(self) -> Mapping[int, Sequence[Factor]]:
        """What each product with a number grows with, by the number of the call."""
        return {
            turn: [Factor(_slices(growth), _read_on(growth)) for growth in growths if self._is_used_once(growth)]
            for turn, growths in self._products.items()
        }

    def is_own_or_moved(self, tensor: Tensor) -> bool:
        """Whether a tensor is one of the model's, or a part of one."""
        note = self.notes.get(tensor)
        return self.is_own(tensor) or (note is not None and note.own)

    def _is_used_once(self, growth: Growth) -> bool:
        # A layer used twice would have to be scaled for both.
        return all(self._num_uses(int(slices[0])) == 1 for slices in growth.source.slices)

    def _num_uses(self, some_id: int) -> int:
        """How often the tensor that ``some_id`` belongs to was used: one of a tensor's ids comes first."""
        return self._uses[max(first for first in self._uses if first <= some_id)]

    def _follow_own(self, call: Call, *, in_place: bool) -> None:
        parts = {"cat": call.operands, "index": call.operands[:1]}.get(call.op, ())
        if call.op in _MOVES and not in_place:
            parts = call.operands[:1]
        if parts and all(map(self.is_own_or_moved, parts)):
            for out in call.outs:
                self.notes.of(out).own = True

    def _follow(self, call: Call, found: Sequence[Labels], turn: int, *, in_place: bool) -> None:
        growths = [() if note is None else note.growth for note in call.notes]
        kept: Sequence[Growth] = ()
        if call.op in _MOVES and not in_place:
            kept = growths[0]
        elif call.op in {"mul", "div"}:
            kept = self._multiplied(call, growths, turn)
        elif call.op in _PRODUCTS and not any(map(self.is_own_or_moved, call.operands)):
            kept = self._contracted(call, growths, turn)
        elif call.op in _SUMS and not in_place:
            kept = _common(growths)
        # What does not go on is read here.
        sources = {id(growth.source) for growth in kept}
        _read(
            growth
            for growth in {id(one): one for some in growths for one in some}.values()
            if id(growth.source) not in sources
        )
        if call.op == "baddbmm" and call.args["beta"]:
            _read(kept)
            kept = ()
        for out, labels in zip(call.outs, found or [{}] * len(call.outs), strict=False):
            own = kept if call.op not in _CHOICES else [_chosen(growth, labels) for growth in kept]
            self.notes.of(out).growth = tuple(own)

    def _multiplied(self, call: Call, growths: Sequence[Sequence[Growth]], turn: int) -> Sequence[Growth]:
        """A product grows with either of its factors, a quotient with what is divided."""
        if call.op == "div" and call.notes and call.operands[0] is not call.args["self"]:
            return ()
        kept = growths[0] if call.op == "div" else _either(growths)
        numbers = [
            is_number(one) or (isinstance(one, Tensor) and one.numel() == 1)
            for one in (call.args["self"], call.args["other"])
        ]
        return self._met_by_number(kept, turn) if any(numbers) else kept

    def _contracted(self, call: Call, growths: Sequence[Sequence[Growth]], turn: int) -> Sequence[Growth]:
        names = _PRODUCTS[call.op]
        factors = [
            own
            for tensor, own in zip(call.operands, growths, strict=True)
            if any(tensor is call.args[name] for name in names)
        ]
        kept = _either(factors)
        return self._met_by_number(kept, turn) if call.op == "baddbmm" else kept

    def _met_by_number(self, growths: Sequence[Growth], turn: int) -> Sequence[Growth]:
        self._products[turn] = growths
        return [growth._replace(paths=frozenset(path | {turn} for path in growth.paths)) for growth in growths]

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
            source = _Source(channels=made[0], slices=slices)
            self.notes.of(call.out).growth = (Growth(source, np.unique(made[0])),)

    def _add_bias(self, call: Call) -> bool:
        """Whether the call adds its bias to what a layer put out; it is then made by both."""
        note, other = call.notes[0] if call.notes else None, call.args.get("other")
        growth = () if note is None or call.op != "add" else note.growth
        if len(growth) != 1 or not isinstance(other, Tensor) or not self.is_own_or_moved(other):
            return False
        source, axis = growth[0].source, call.lookup(other).get(other.ndim - 1)
        if other.ndim != 1 or axis is None or len(axis.ids) != len(source.channels) or call.args["alpha"] != 1:
            return False
        if any(growth[0].paths):
            return False
        source.slices = [*source.slices, axis.ids]
        self.notes.of(call.out).growth = growth
        return True


def _read_on(growth: Growth) -> frozenset[Path]:
    """The paths to all that is read of the channels that something grows with."""
    return frozenset().union(*(read.paths for read in growth.source.reads if _overlap(read, growth)))


def _read(growths: Iterable[Growth]) -> None:
    for growth in growths:
        growth.source.reads.append(growth)


def _either(growths: Sequence[Sequence[Growth]]) -> Sequence[Growth]:
    """What a product grows with, whose factors grow with ``growths``: with nothing that several of them grow with."""
    some = [growth for own in growths for growth in own]
    twice = any(
        one.source is other.source and _overlap(one, other) for at, one in enumerate(some) for other in some[:at]
    )
    return () if twice else some


def _common(growths: Sequence[Sequence[Growth]]) -> Sequence[Growth]:
    """What a sum grows with, whose terms grow with ``growths``."""

    def joined(one: Sequence[Growth], other: Sequence[Growth]) -> Sequence[Growth]:
        return [
            Growth(a.source, a.ids if a.ids is b.ids else np.union1d(a.ids, b.ids), _both(a.paths, b.paths))
            for a in one
            for b in other
            if a.source is b.source
        ]

    return reduce(joined, growths)


def _both(some: frozenset[Path], others: frozenset[Path]) -> frozenset[Path]:
    paths = some | others
    # Where they are many, only what all of them pass is kept in mind.
    return paths if len(paths) <= _MOST_PATHS else frozenset([frozenset.intersection(*paths)])


def _chosen(growth: Growth, labels: Labels) -> Growth:
    """What a part of a tensor grows with, whose labels are ``labels``."""
    own = growth.ids[np.isin(growth.ids, _ids(labels))]
    return growth._replace(ids=own) if own.size else growth


def _overlap(one: Growth, other: Growth) -> bool:
    return bool(np.isin(one.ids, other.ids).any())


def _ids(labels: Labels) -> Ids:
    return np.concatenate([np.empty(0, np.int64), *(axis.ids.reshape(-1) for axis in labels.values())])


def _slices(growth: Growth) -> Ids:
    at = np.isin(growth.source.channels, growth.ids)
    return np.concatenate([slices[at] for slices in growth.source.slices])


# fmt: off
# Parts of a tensor, which may grow with fewer channels than the whole.
_CHOICES = frozenset({"index_select", "select", "slice", "split", "split_with_sizes", "unbind"})

_MOVES = frozenset({
    *reshaping.TABLE, *_CHOICES, "_to_copy", "alias", "clone", "detach", "flip", "gather", "mean", "neg", "roll", "sum",
})

_SUMS = frozenset({"add", "cat", "stack", "sub"})

# Products of matrices, and the names of their factors.
_PRODUCTS: Mapping[str, Sequence[str]] = {
    "bmm": ("self", "mat2"), "mm": ("self", "mat2"), "baddbmm": ("batch1", "batch2"),
}
# What scales with a layer's weight, and its bias with it.
_NORM = ("weight", "bias")
_LAYERS: Mapping[str, Sequence[str]] = {
    "linear": ("weight", "bias"), "addmm": ("mat2", "self"), "mm": ("mat2",), "convolution": ("weight", "bias"),
    "native_layer_norm": _NORM, "_native_batch_norm_legit_no_training": _NORM, "native_batch_norm": _NORM,
}
# fmt: on
