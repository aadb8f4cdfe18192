"""A run without labels, on inputs of other sizes: whether the same would happen to labels there.

Labels hang on operations, on their numbers, and on the sizes of dimensions that hold channels. Where a run at another
size makes the same calls with the same of those, it need not carry labels itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch._ops import OpOverload

from compress.calling.inputs import tensors_in
from compress.channels import pointwise, reshaping, rules, selection
from compress.channels.folding import folds
from compress.channels.history import SILENT, Drift, Step, arguments, numbers_of, plain_value
from compress.channels.modes import FunctionWatch, LentWrittenError, Recorder, memory_of, plain_forward
from compress.channels.view import View
from compress.errors import ModelError, first_line

Sizes = tuple[int, ...]


class Line(NamedTuple):
    """One call.

    Attributes:
        op: its name.
        numbers: its arguments that are numbers, widths left out.
        operands: the sizes of every tensor among its arguments.
        out: the sizes of the first tensor that came out; None if there was none.
        moves: for operations that take indices along dimensions, all plain arguments.
        dim: the dimension of the first operand that such an operation works along; None if it is not just one.
    """

    op: str
    numbers: tuple[Any, ...]
    operands: tuple[Sizes, ...]
    out: Sizes | None
    moves: tuple[Any, ...] | None
    dim: int | None


class Seen(NamedTuple):
    """A call of a run on labels.

    Attributes:
        line: the call.
        labelled: of each operand, the dimensions that hold channels.
        out: those of what came out.
        meets: whether it brings operands together position by position.
    """

    line: Line
    labelled: tuple[Collection[int], ...]
    out: Collection[int]
    meets: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Sketch:
    """What a run without labels showed.

    Attributes:
        view: how the network was run.
        lines: its calls.
        shapes: those of its outputs.
    """

    view: View
    lines: Sequence[Line]
    shapes: Sequence[Sizes]


def line_of(op: OpOverload, args: Mapping[str, Any], result: Any) -> Line | None:
    """A finished call; None for one that may be made or left out without changing a value."""
    name = rules.base_name(op)
    if name in _COPIES:
        return None
    outs = list(tensors_in([result]))
    dim, source = args.get("dim"), args.get("self")
    # How large an image is to be follows from how large another one is; what comes out shows it too.
    others = {key: value for key, value in args.items() if key != "output_size"}
    return Line(
        op="view" if name in _VIEWS else name,
        numbers=numbers_of(name, others),
        operands=tuple(tuple(tensor.shape) for tensor in tensors_in(args.values())),
        out=tuple(outs[0].shape) if outs else None,
        moves=tuple(map(plain_value, args.values())) if name in _MOVES else None,
        dim=dim % max(1, source.ndim) if isinstance(dim, int) and isinstance(source, Tensor) else None,
    )


def sketch(model: nn.Module, view: View, *, writes: bool) -> Sketch:
    """Run ``model`` in the way ``view``.

    Raises:
        ModelError: if its forward pass fails.
    """
    lines: list[Line] = []

    def record(op: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        line = line_of(op, arguments(op, args, kwargs), result)
        if line is not None:
            lines.append(line)

    shapes = _shapes(model, view, record, writes=writes)
    return Sketch(view=view, lines=lines, shapes=shapes)


def warm_up(model: nn.Module, view: View, *, writes: bool) -> None:
    """Run ``model`` in the way ``view``, unrecorded. Raises as :func:`sketch`."""
    _shapes(model, view, lambda *_: None, writes=writes)


def _shapes(model: nn.Module, view: View, record: Callable[..., None], *, writes: bool) -> list[Sizes]:
    lent = () if writes else tuple(model.parameters())
    view.set_modes_(model)
    example = view.example.copy()
    recorder = Recorder(record, {memory_of(one) for one in lent})
    with plain_forward(model.parameters()), FunctionWatch(record), recorder:
        try:
            return [tuple(tensor.shape) for _, tensor in view.counted(example.lend_to(model))]
        except LentWrittenError:
            raise
        except Exception as error:
            raise ModelError(f"the forward pass at another size failed: {first_line(error)}") from error


def is_alike(seen: Sequence[Seen], lines: Sequence[Line]) -> bool:
    """Whether labels would go the way they went in ``seen`` if the calls were ``lines``."""
    return len(seen) == len(lines) and all(map(_goes_alike, seen, lines))


def _goes_alike(seen: Seen, now: Line) -> bool:
    before = seen.line
    if before.op != now.op or not (seen.out or any(seen.labelled)):
        return before.op == now.op
    some, others = ((line.out or (), *line.operands) for line in (before, now))
    if before.numbers != now.numbers or list(map(len, some)) != list(map(len, others)):
        return False
    kept = zip((seen.out, *seen.labelled), some, others, strict=True)
    if any(old[dim] != new[dim] for labelled, old, new in kept for dim in labelled):
        return False
    if seen.meets:
        return list(_met(seen, before)) == list(_met(seen, now))
    if before.op == "view":
        return all(_split(dim, before) == _split(dim, now) for dim in seen.labelled[0])
    return _picks_alike(seen, now)


def _picks_alike(seen: Seen, now: Line) -> bool:
    """Whether an operation that takes indices along dimensions takes the same channels."""
    before = seen.line
    if before.moves is None or (before.dim is not None and before.dim not in seen.labelled[0]):
        return True
    # Which ones a tensor picks is not seen here.
    return before.moves == now.moves and before.op != "index_select"


def _met(seen: Seen, line: Line) -> Iterator[int]:
    """The sizes of operands along the dimensions of what comes out that hold channels."""
    ndim = len(line.out or ())
    for sizes in line.operands:
        yield from (sizes[dim - ndim] for dim in seen.out if ndim - dim <= len(sizes))


def _split(dim: int, line: Line) -> object:
    """How a reshape takes the dimension ``dim`` apart: where it goes, and by which factors."""
    old, new = line.operands[0], line.out or ()
    if 0 in old:
        return None
    block = next(one for one in reshaping.blocks(old, new) if dim in one[0])
    found = folds([old[one] for one in block[0]], [new[one] for one in block[1]])
    # Where there are no such factors, every size is another case.
    own = (old, new) if found is None else [(fold.size, fold.new) for fold in found if block[0][fold.old] == dim]
    return block, own


def is_cut_alike(
    cut: Sequence[Step], seen: Sequence[Seen], dense: Sketch, now: Sketch, drifts: Collection[Drift]
) -> bool:
    """Whether a cut network differs from the uncut one at another size in the way it does at the first.

    Args:
        cut: the steps of the cut network at the first size, which were found to be right.
        seen: the calls of the uncut network there.
        dense: the uncut network at the other size.
        now: the cut network there.
        drifts: products whose number changes with the cut, by the number of the step.
    """
    if not len(seen) == len(dense.lines) == len(now.lines):
        return False
    turns = {drift.turn for drift in drifts}
    calls = [one for one in zip(seen, dense.lines, now.lines, strict=True) if one[0].line.op not in SILENT]
    return len(cut) == len(calls) and all(
        step.op == line.op == before.op
        and (line.numbers == before.numbers or turn in turns)
        and _has_sizes(line.out, before.out, step, one.out)
        for turn, (step, (one, before, line)) in enumerate(zip(cut, calls, strict=True))
    )


def _has_sizes(sizes: Sizes | None, dense: Sizes | None, cut: Step, channels: Collection[int]) -> bool:
    """Whether sizes are those of the uncut network, but for dimensions that hold channels."""
    if sizes is None or dense is None or cut.shape is None:
        return True
    return len(sizes) == len(dense) == len(cut.shape) and all(
        size == (cut.shape[dim] if dim in channels else dense[dim]) for dim, size in enumerate(sizes)
    )


_COPIES = frozenset({"alias", "clone", "contiguous", "detach"})
_VIEWS = frozenset({"_reshape_alias", "_unsafe_view", "reshape", "view"})
_MOVES = frozenset({*selection.TABLE, "repeat"})


def meets(op: OpOverload) -> bool:
    """Whether an operation brings its operands together position by position, or one after the other."""
    return rules.rule_of(op) in {pointwise.pointwise, selection.cat, selection.stack}
