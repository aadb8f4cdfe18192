"""Comparing a run with the run before the cut: a cut may change widths, but nothing that Python made of them.

Labels follow data, and see nothing of numbers: ``x * x.shape[1] ** -0.5`` carries every label and yet is another
function after a cut. So every call's numbers, and every small tensor made from constants alone, must come back as
they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload

from compress.channels.call import Call
from compress.channels.labels import WILD, Ids, Labels
from compress.channels.notes import Notes
from compress.channels.pointwise import FILLS

# Arguments that say how wide a tensor is. They change with a cut, as they must; the labels verify them.
# fmt: off
_WIDTHS = frozenset({
    "C", "HxW", "N", "end", "groups", "indices", "memory_format", "normalized_shape", "pad", "repeats", "sections",
    "size", "split_size", "split_sizes", "start",
})
# fmt: on

# Made or left out depending on strides, without changing a value.
SILENT = frozenset({"_unsafe_view", "alias", "clone", "detach", "reshape", "view", "_reshape_alias", "contiguous"})

_PLAIN = (int, float, complex, str, torch.dtype, torch.layout, torch.device, torch.memory_format)

_SMALL = 64

# Write a tensor whole, whatever was there.
_OVERWRITES = frozenset({"copy", "fill", "zero"})


Shape = tuple[int, ...] | None


class Step(NamedTuple):
    """One call.

    Attributes:
        op: its name.
        numbers: its arguments that are numbers, widths left out.
        shape: the sizes of what came out, None where they depend on values.
        value: what came out, if it was made of constants alone and is small.
        widths: the dimensions of what came out that hold channels.
    """

    op: str
    numbers: tuple[Any, ...]
    shape: Shape = None
    value: bytes | None = None
    widths: frozenset[int] = frozenset()

    def is_like(self, other: Step) -> bool:
        """Whether the two differ at most in how many channels came out: a cut may not make heads of their width."""
        return self[:2] == other[:2] and self.value == other.value and self.has_sizes_like(other)

    def has_sizes_like(self, other: Step) -> bool:
        """Whether what came out is of the same sizes, but for the numbers of channels."""
        one, two = self.shape, other.shape
        if one is None or two is None or len(one) != len(two):
            return one is two
        # Where tied channels are told from positions in one of the two runs only, there must still be as many.
        free = self.widths & other.widths
        return all(a == b or dim in free for dim, (a, b) in enumerate(zip(one, two, strict=True)))


def arguments(op: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a call by name, defaults included."""
    bound = dict(_defaults(op))
    bound.update(zip(bound, args, strict=False))
    bound.update(kwargs)
    return bound


@cache
def _defaults(op: OpOverload) -> Mapping[str, Any]:
    schema = op._schema
    return {one.name: one.default_value if one.has_default_value() else None for one in schema.arguments}


def numbers_of(op: str, args: Mapping[str, Any]) -> tuple[Any, ...]:
    """The numbers among a call's arguments, widths left out."""
    if op in FILLS:
        return (plain_value(args.get("fill_value")),)
    return tuple(plain_value(value) for name, value in args.items() if name not in _WIDTHS)


def plain_value(value: Any) -> Any:
    """An argument that can be compared with that of another call; None in place of a tensor."""
    if isinstance(value, (list, tuple)):
        return tuple(plain_value(item) for item in value)
    # A NaN is unlike itself.
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    # A tensor is no number, and neither is the handle of a profiler's range.
    return value if isinstance(value, _PLAIN) else None


def ids_of(tensors: Iterable[Iterable[Tensor]], lookup: Callable[[Tensor], Labels]) -> list[Ids]:
    """The ids in each of several lists of tensors."""
    none = np.empty(0, np.int64)
    return [
        np.concatenate([none, *(axis.ids.reshape(-1) for tensor in some for axis in lookup(tensor).values())])
        for some in tensors
    ]


class Fault(NamedTuple):
    """A difference between two runs.

    Attributes:
        reason: what differed, and where.
        suspects: ids whose cut may be at the bottom of it: of the data at the spot, of all tensors there, of what the
            last products before were summed over, then of what went into the modules around, the innermost first.
    """

    reason: str
    suspects: Sequence[Ids]


class Drift(NamedTuple):
    """A product with a number that changed.

    Attributes:
        turn: the number of the call.
        ratio: by what its other factor must be multiplied for the product to be as before.
        fault: what to report if it cannot be.
    """

    turn: int
    ratio: float
    fault: Fault


class History:
    """The steps of a run, compared with those of the run before, if there was one.

    Attributes:
        notes: where is written which tensors depend on weights, and which constants changed.
        before: the steps of the run before; None if this is the first.
        steps: the calls of this run.
        faults: where this run differed.
        drifts: where it differed in a factor alone.
        reads_values: whether Python read a number that depends on weights: what it made of that, a cut may change.
    """

    def __init__(self, notes: Notes, before: Sequence[Step] | None) -> None:
        self.notes = notes
        self.before = before
        self.steps: list[Step] = []
        self.faults: list[Fault] = []
        self.drifts: list[Drift] = []
        self.reads_values = False
        self._lost = False
        self._found_otherwise = False

    def add(
        self,
        call: Call,
        found: Sequence[Labels],
        known: Callable[[Tensor], bool],
        enclosing: Callable[[], Sequence[Sequence[Tensor]]],
    ) -> None:
        """Take down one call, and compare it.

        Args:
            call: the call.
            found: the labels of what it put out.
            known: whether a tensor is a parameter or buffer.
            enclosing: the inputs of the modules around the call, the innermost first.
        """
        inputs = call.operands
        notes = [note for note in call.notes if note is not None]
        # A fill takes at most a shape and a type from its operand; what chance made is no constant either.
        of_weights = any(note.tainted for note in notes) or any(map(known, inputs))
        tainted = call.is_random or (of_weights and call.op not in FILLS)
        self.reads_values |= tainted and call.op == "_local_scalar_dense"
        if tainted:
            for out in call.outs:
                self.notes.of(out).tainted = True
        unset = self._unset(call)
        step = Step(
            op=call.op,
            numbers=numbers_of(call.op, call.args),
            shape=self._shape(call),
            widths=frozenset(found[0]) if found else frozenset(),
        )
        if not (tainted or unset):
            step = step._replace(value=_value(call, found))
        scalar = self._scalar(call, known)
        if scalar is not None:
            step = step._replace(numbers=(*step.numbers, call.operands[scalar].item()))
        differs = call.op not in SILENT and self._differs(step)
        # As many numbers as something was found, to pick those: no cut need be behind it that they are others.
        picks_found = call.op == "index" and step.shape is None
        changed = any(note.changed for at, note in enumerate(call.notes) if note is not None and at != scalar)
        changed &= not picks_found
        if tainted and (differs or changed):
            what = f"a {self._kind(step)} changes with the number of channels"
            data = [tensor for tensor in inputs if not known(tensor)]
            before = [*ids_of([data, inputs], call.lookup), *reversed(call.ledger.contracted)]
            self.fault([*before, *ids_of(enclosing(), call.lookup)], f"{what} ({call.ledger.place})")
            ratio = None if changed or self._lost else _drift(self.before, len(self.steps), step)
            if ratio is not None:
                self.drifts.append(Drift(len(self.steps), ratio, self.faults.pop()))
        elif differs or changed:
            # Still made of constants alone: whose width it was shows where it meets channels.
            for out in call.outs:
                self.notes.of(out).changed = True
        if call.op not in SILENT:
            self.steps.append(step)

    def fault(self, suspects: Iterable[Ids], reason: str) -> None:
        """Report that this run went wrong, at the first of ``suspects`` that may be cut, or else at the next."""
        self.faults.append(Fault(reason, [some[some >= 0] for some in suspects]))

    def finish(self, shapes: Sequence[Shape], before: Sequence[Shape]) -> None:
        """Compare what can be compared only at the end."""
        turn = len(self.steps)
        as_many = (
            self.before is None or turn == len(self.before) or (turn < len(self.before) and self._is_of_values(turn))
        )
        if not as_many and not self._found_otherwise:
            self.fault((), "the operations change with the number of channels")
        if list(shapes) != list(before):
            self.fault((), "the output's shape changes with the number of channels")

    def copy_taint(self, source: Tensor, target: Tensor) -> None:
        """``target`` shares its memory with ``source``, which was written."""
        written, other = self.notes.of(source), self.notes.of(target)
        other.tainted |= written.tainted
        other.changed |= written.changed

    def _unset(self, call: Call) -> bool:
        """Whether chance put into memory what came out: then it says nothing that it is another in another run."""
        # Of what is overwritten whole, it is what is written that counts.
        read = call.notes[1:] if call.op in _OVERWRITES else call.notes
        unset = "empty" in call.op or any(note is not None and note.unset for note in read)
        for out in call.outs:
            if unset or ((note := self.notes.get(out)) is not None and note.unset):
                self.notes.of(out).unset = unset
        return unset

    def _scalar(self, call: Call, known: Callable[[Tensor], bool]) -> int | None:
        """Which operand of a product is as good as a number: a tensor of one element that no weight has a part in."""
        if call.op not in {"mul", "div"} or len(call.operands) != 2:  # noqa: PLR2004 - two factors
            return None
        for at, (tensor, note) in enumerate(zip(call.operands, call.notes, strict=True)):
            if tensor.numel() == 1 and not known(tensor) and not (note is not None and note.tainted):
                return None if at == 0 and call.op == "div" else at
        return None

    def _shape(self, call: Call) -> Shape:
        if _is_ragged(call):
            for out in call.outs:
                self.notes.of(out).ragged = True
        return None if not call.outs or self.notes.is_ragged(call.out) else tuple(call.out.shape)

    def _kind(self, step: Step) -> str:
        before = self.before or ()
        alike = len(self.steps) < len(before) and before[len(self.steps)].numbers == step.numbers
        return "size" if alike and not before[len(self.steps)].has_sizes_like(step) else "number"

    def _is_of_values(self, turn: int) -> bool:
        """Whether the run before handled something found in values at that turn, or had ended."""
        before = self.before or ()
        return turn >= len(before) or before[turn].shape is None

    def _differs(self, step: Step) -> bool:
        turn = len(self.steps)
        if self.before is None or self._lost:
            return False
        if turn >= len(self.before) or self.before[turn].op != step.op:
            # From here on the two runs are not of the same operations, and further differences mean nothing.
            self._lost = True
            # Of what was found in values there may be more or less, and so of the calls that handle it.
            self._found_otherwise = step.shape is None and self._is_of_values(turn)
            return not self._found_otherwise
        return not self.before[turn].is_like(step)


def _drift(before: Sequence[Step] | None, turn: int, now: Step) -> float | None:
    """The factor that makes a product as it was, if only a number in it changed."""
    if before is None or now.op not in {"mul", "div", "baddbmm"} or not before[turn].has_sizes_like(now):
        return None
    changed = [(a, b) for a, b in zip(before[turn].numbers, now.numbers, strict=True) if a != b]
    # Of the numbers of a product added to something, only the last multiplies the product alone.
    if now.op == "baddbmm" and before[turn].numbers[:-1] != now.numbers[:-1]:
        return None
    if len(changed) != 1 or not all(isinstance(one, (int, float)) and one and math.isfinite(one) for one in changed[0]):
        return None
    was, became = changed[0]
    return float(became / was if now.op == "div" else was / became)


def _is_ragged(call: Call) -> bool:
    """Whether the sizes of what comes out depend on values: of what was found, or of something of such a size."""
    if any(note is not None and note.ragged for note in call.notes):
        return True
    if call.op == "index":
        return any(one is not None and one.dtype in {torch.bool, torch.uint8} for one in call.args["indices"])
    return call.has_sizes_of_values


def _value(call: Call, found: Sequence[Labels]) -> bytes | None:
    """What a call on constants put out, if it is small, and the same whatever the widths should be."""
    out = call.outs[0] if call.outs else None
    if out is None or out.numel() > _SMALL:
        return None
    if any((axis.ids == WILD).any() for labels in found for axis in labels.values()):
        return None
    return bytes(str(tuple(out.shape)), "ascii") + out.detach().cpu().contiguous().numpy().tobytes()
