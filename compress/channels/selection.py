"""Rules of operations that take indices along a dimension, put them in another order, or join them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.channels.call import Call, Rule
from compress.channels.labels import FIXED, NONE, Axis, Labels, Ledger, moved
from compress.channels.parts import alike, apart_from, joined, picked
from compress.channels.reshaping import bind

_MASKS = (torch.bool, torch.uint8)


def slice_(call: Call) -> Labels:
    """``[..., n, ...] -> [..., (end - start) / step, ...]``."""
    dim, labels = call.dim(), call.in_parts("self")
    axis, total = labels.get(dim), call.args["self"].shape[dim]
    start, stop, step = slice(call.args["start"], call.args["end"], call.args["step"]).indices(total)
    if axis is None:
        return picked(labels, dim, slice(start, stop, step))
    size = stop - start
    # Slices of one size that tile the dimension are a chunk written by hand.
    whole = bool((axis.ids >= 0).all())
    if whole and step == 1 and 1 < size < total and total % size == 0 and start % size == 0:
        _balance(call.ledger, axis, [size] * (total // size))
    piece = axis._replace(ids=axis.ids[..., start:stop:step])
    if start == 0:
        call.ledger.width(piece)
    call.ledger.pieces.append(piece.ids)
    return {**labels, dim: piece}


def _balance(ledger: Ledger, axis: Axis, sizes: Sequence[int]) -> None:
    """Ask that pieces of one size keep equally many positions, and the parts of any piece too."""
    pieces = np.split(axis.ids, np.cumsum(sizes)[:-1], axis=-1)
    if len(set(sizes)) == 1:
        together = np.concatenate([piece.reshape(-1) for piece in pieces])
        ledger.balance(Axis(together, axis.zero), len(sizes) * len(axis.rows))
        return
    for piece in pieces:
        ledger.balance(Axis(piece.reshape(-1), axis.zero), len(axis.rows))


def select(call: Call) -> Labels:
    """``[..., n, ...] -> [..., ...]``: index ``index`` of ``dim``."""
    dim, labels = call.dim(), call.in_parts("self")
    if dim in labels:
        call.ledger.freeze(Axis(labels[dim].ids[..., call.args["index"]], zero=False), "a single channel picked")
    return _without(picked(labels, dim, call.args["index"]), dim)


def unbind(call: Call) -> Sequence[Labels]:
    """``[..., n, ...] -> n times [..., ...]``."""
    dim, labels = call.dim(), call.in_parts("self")
    call.ledger.freeze(labels.get(dim), "single channels picked")
    return [_without(picked(labels, dim, at), dim) for at in range(len(call.outs))]


def _without(labels: Labels, gone: int) -> dict[int, Axis]:
    return moved(labels, [dim for dim in range(1 + max([gone, *labels])) if dim != gone])


def split(call: Call) -> Sequence[Labels]:
    """``[..., n, ...] -> [..., n0, ...], [..., n1, ...], ...``."""
    dim, labels = call.dim(), call.in_parts("self")
    axis, sizes = labels.get(dim), [out.shape[dim] for out in call.outs]
    ends = np.cumsum(sizes)
    if axis is None:
        return [picked(labels, dim, slice(end - size, end)) for size, end in zip(sizes, ends.tolist(), strict=True)]
    _balance(call.ledger, axis, sizes)
    # The sizes may be written down, or be a fraction of the whole, or those that the module was called with.
    call.ledger.width(axis)
    if len(set(sizes)) > 1:
        bind(call, axis)
    pieces = [axis._replace(ids=piece) for piece in np.split(axis.ids, ends[:-1], axis=-1)]
    for piece in pieces:
        call.ledger.width(piece)
        call.ledger.pieces.append(piece.ids)
    return [{**labels, dim: piece} for piece in pieces]


def cat(call: Call) -> Labels:
    """``[..., n0, ...], [..., n1, ...], ... -> [..., n0 + n1 + ..., ...]``."""
    # What is empty adds nothing, and an empty vector may stand among tensors of any shape.
    tensors = [tensor for tensor in call.args["tensors"] if tensor.numel()]
    if not tensors:
        return NONE
    ndim = call.out.ndim
    at = call.args["dim"] % ndim
    labels = [apart_from(call.ledger, call.lookup(tensor), [at]) for tensor in tensors]
    result: dict[int, Axis] = {}
    for dim in sorted({dim for one in labels for dim in one}):
        axes = alike(call.ledger, [one.get(dim) for one in labels])
        if dim == at:
            axes = [None if axis is None else joined(call.ledger, axis) for axis in axes]
            sizes = [tensor.shape[at] for tensor in tensors]
            result[dim] = _joined(axes, sizes)
        else:
            axis = _aligned(call.ledger, axes)
            if axis is not None:
                result[dim] = axis
    return result


def _joined(axes: Sequence[Axis | None], sizes: Sequence[int]) -> Axis:
    ids = [np.full(size, FIXED) if axis is None else axis.ids for axis, size in zip(axes, sizes, strict=True)]
    return Axis(np.concatenate(ids), all(axis.zero for axis in axes if axis is not None))


def _aligned(ledger: Ledger, axes: Sequence[Axis | None]) -> Axis | None:
    first, zero = axes[0], all(axis is not None and axis.zero for axis in axes)
    for axis in axes[1:]:
        if first is None or axis is None:
            ledger.tie(first, axis)
            # What must stay like values without labels is as good as without.
            first = None
        else:
            first = Axis(ledger.merge(first, axis), zero, first.parts or axis.parts)
    return None if first is None else first._replace(zero=zero)


def stack(call: Call) -> Labels:
    """``n times [...] -> [..., n, ...]``."""
    labels = [call.lookup(tensor) for tensor in call.args["tensors"]]
    at = call.args["dim"] % call.out.ndim
    result: dict[int, Axis] = {}
    for dim in sorted({dim for one in labels for dim in one}):
        axis = _aligned(call.ledger, alike(call.ledger, [one.get(dim) for one in labels]))
        if axis is not None:
            result[dim] = axis
    return moved(result, [*range(at), None, *range(at, call.out.ndim - 1)])


def flip(call: Call) -> Labels:
    """``[...] -> [...]``, the indices of ``dims`` in reverse."""
    ndim = call.args["self"].ndim
    turned = {dim % ndim for dim in call.args["dims"]}
    return _reordered(call, {dim: slice(None, None, -1) for dim in turned})


def roll(call: Call) -> Labels | None:
    """``[...] -> [...]``, the indices of ``dims`` shifted round."""
    dims, shifts = call.args["dims"], call.args["shifts"]
    if not dims:
        return None
    order = {
        dim % call.out.ndim: (np.arange(call.out.shape[dim]) - shift) % call.out.shape[dim]
        for dim, shift in zip(dims, shifts, strict=True)
    }
    return _reordered(call, order)


def index_select(call: Call) -> Labels:
    """``[..., n, ...], index [m] -> [..., m, ...]``."""
    call.freeze(call.args["index"], "channels used as indices")
    order = call.args["index"].reshape(-1).cpu().numpy()
    return _reordered(call, {call.dim(): order})


def _reordered(call: Call, order: Mapping[int, Any]) -> dict[int, Axis]:
    return {
        dim: axis._replace(ids=np.ascontiguousarray(axis.ids[..., order[dim]])) if dim in order else axis
        for dim, axis in apart_from(call.ledger, call.in_parts("self"), order.keys()).items()
    }


def index(call: Call) -> Labels:
    """``[...], indices -> [...]``: integer tensors for some dimensions, the others kept."""
    indices = [*call.args["indices"]]
    indices += [None] * (call.args["self"].ndim - len(indices))
    for one in indices:
        if one is not None:
            call.freeze(one, "channels used as indices")
    at = [dim for dim, one in enumerate(indices) if one is not None]
    for dim in at:
        call.ledger.freeze(call.axis("self", dim), "channels picked by index")
    if any(indices[dim].dtype.is_floating_point or indices[dim].ndim != indices[at[0]].ndim for dim in at):
        return _all_frozen(call)
    if any(indices[dim].dtype in _MASKS for dim in at):
        return _all_frozen(call)
    together = at == list(range(at[0], at[0] + len(at)))
    first = at[0] if together else 0
    kept: list[int | None] = [dim for dim in range(len(indices)) if dim not in at]
    kept[first:first] = [None] * indices[at[0]].ndim
    return moved(apart_from(call.ledger, call.in_parts("self"), at), kept)


def _all_frozen(call: Call) -> Labels:
    call.freeze(call.args["self"], "channels picked by mask")
    return NONE


def index_put(call: Call) -> Labels | None:
    """``[*n, *c], indices of n, [..., *c] -> [*n, *c]``: whole slices written, chosen by index or by mask."""
    into, values, indices = call.args["self"], call.args["values"], call.args["indices"]
    if any(one is None for one in indices):
        return None
    for one in indices:
        call.freeze(one, "channels used as indices")
    chosen = sum(one.ndim if one.dtype in _MASKS else 1 for one in indices)
    shift = into.ndim - values.ndim
    for name, dims in (("self", range(chosen)), ("values", range(chosen - shift))):
        for dim in dims:
            call.ledger.freeze(call.axis(name, dim), "channels picked by index")
    result = {}
    for dim in range(chosen, into.ndim):
        axes = [call.axis("self", dim), call.axis("values", dim - shift)]
        if dim < shift or values.shape[dim - shift] != into.shape[dim]:
            call.ledger.freeze(axes[1], "one channel spread over many")
            axis = None if axes[0] is None else axes[0]._replace(zero=False)
        else:
            axis = _aligned(call.ledger, axes) if any(axes) else None
        if axis is not None:
            result[dim] = axis
    return result


def index_add(call: Call) -> Labels:
    """``[..., n, ...], index [k], [..., k, ...] -> [..., n, ...]``: slices of ``dim`` written or added one by one."""
    call.freeze(call.args["index"], "channels used as indices")
    return _written(call, call.dim(), "source")


def _written(call: Call, at: int, source: str) -> Labels:
    """The labels of ``self`` once ``source`` was written to some indices of its dimension ``at``."""
    for name in ("self", source):
        call.ledger.freeze(call.axis(name, at), "channels picked by index")
    result = {}
    for dim in [dim for dim in range(call.args["self"].ndim) if dim != at]:
        axes = [call.axis("self", dim), call.axis(source, dim)]
        axis = _aligned(call.ledger, axes) if any(axes) else None
        if axis is not None:
            result[dim] = axis
    return result


def gather(call: Call) -> Labels | None:
    """``[..., n, ...], index [..., m, ...] -> [..., m, ...]``: along ``dim`` an index for each position."""
    source, at = call.args["index"], call.dim()
    if any(source.shape[dim] != call.args["self"].shape[dim] for dim in range(source.ndim) if dim != at):
        return None
    call.ledger.freeze(call.axis("self", at), "channels picked by index")
    return _of_indices(call, at, {dim: axis for dim, axis in call.labels("self").items() if dim != at})


def scatter(call: Call) -> Labels | None:
    """``[..., n, ...], index and values [..., m, ...] -> [..., n, ...]``: along ``dim`` an index for each position."""
    index, at = call.args["index"], call.dim()
    others = [dim for dim in range(index.ndim) if dim != at]
    source = "src" if isinstance(call.args.get("src"), Tensor) else "self"
    if any(index.shape[dim] != call.args[name].shape[dim] for dim in others for name in ("self", source)):
        return None
    result = _of_indices(call, at, _written(call, at, source))
    keeps = source == "src" or call.args.get("value") == 0
    return {dim: axis._replace(zero=axis.zero and keeps) for dim, axis in result.items()}


def _of_indices(call: Call, at: int, labels: Labels) -> Labels:
    """``labels`` where indices of every position choose along ``at`` alone: they must be the same for all channels."""
    indices = call.labels("index")
    for dim, axis in labels.items():
        call.ledger.tie(axis, indices.get(dim))
    call.ledger.freeze(indices.get(at), "channels used as indices")
    return labels


def pad(call: Call) -> Labels:
    """``[...] -> [...]``, with fixed positions before and after the last dimensions."""
    ndim, amounts = call.args["self"].ndim, call.args["pad"]
    result: dict[int, Axis] = {}
    for dim, axis in call.labels("self").items():
        k = 2 * (ndim - 1 - dim)
        before, after = amounts[k : k + 2] if k < len(amounts) else (0, 0)
        if before < 0 or after < 0:
            call.ledger.freeze(axis, "channels cropped")
            continue
        # Padding of space puts its value into removed channels too.
        zero = axis.zero and not call.args["value"]
        result[dim] = Axis(np.pad(axis.ids, (before, after), constant_values=FIXED), zero)
    return result


def read(call: Call) -> Labels:
    """What Python reads, it may do anything with."""
    call.freeze(call.args["self"], "read by Python")
    return NONE


TABLE: Mapping[str, Rule] = {
    "_local_scalar_dense": read,
    "slice": slice_,
    "select": select,
    "unbind": unbind,
    "split": split,
    "split_with_sizes": split,
    "cat": cat,
    "stack": stack,
    "flip": flip,
    "roll": roll,
    "index_select": index_select,
    "index": index,
    "index_put": index_put,
    "index_add": index_add,
    "index_copy": index_add,
    "gather": gather,
    **dict.fromkeys(("scatter", "scatter_add", "scatter_reduce"), scatter),
    "constant_pad_nd": pad,
}
