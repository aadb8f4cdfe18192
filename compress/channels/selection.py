"""Rules of operations that take indices along a dimension, put them in another order, or join them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compress.channels.call import Call, Rule
from compress.channels.labels import FIXED, NONE, WILD, Axis, Labels, Ledger, moved


def slice_(call: Call) -> Labels:
    """``[..., n, ...] -> [..., (end - start) / step, ...]``."""
    dim, axis = call.dim(), call.axis("self", call.dim())
    if axis is None:
        return call.labels("self")
    start, stop, step = slice(call.args["start"], call.args["end"], call.args["step"]).indices(len(axis.ids))
    size = stop - start
    # Slices of one size that tile the dimension are a chunk written by hand.
    whole = bool((axis.ids >= 0).all())
    if whole and step == 1 and 1 < size < len(axis.ids) and len(axis.ids) % size == 0 and start % size == 0:
        call.ledger.balance(axis, len(axis.ids) // size)
    return {**call.labels("self"), dim: Axis(axis.ids[start:stop:step], axis.zero)}


def select(call: Call) -> Labels:
    """``[..., n, ...] -> [..., ...]``: index ``index`` of ``dim``."""
    dim, axis = call.dim(), call.axis("self", call.dim())
    if axis is not None:
        call.ledger.freeze(Axis(axis.ids[[call.args["index"]]], axis.zero), "a single channel picked")
    return _without(call.labels("self"), dim)


def unbind(call: Call) -> Sequence[Labels]:
    """``[..., n, ...] -> n times [..., ...]``."""
    call.ledger.freeze(call.axis("self", call.dim()), "single channels picked")
    return [_without(call.labels("self"), call.dim())] * len(call.outs)


def _without(labels: Labels, gone: int) -> dict[int, Axis]:
    return {dim - (dim > gone): axis for dim, axis in labels.items() if dim != gone}


def split(call: Call) -> Sequence[Labels]:
    """``[..., n, ...] -> [..., n0, ...], [..., n1, ...], ...``."""
    dim, axis = call.dim(), call.axis("self", call.dim())
    if axis is None:
        return [call.labels("self")] * len(call.outs)
    sizes = [out.shape[dim] for out in call.outs]
    if len(set(sizes)) == 1:
        call.ledger.balance(axis, len(sizes))
    pieces = np.split(axis.ids, np.cumsum(sizes)[:-1])
    return [{**call.labels("self"), dim: Axis(piece, axis.zero)} for piece in pieces]


def cat(call: Call) -> Labels:
    """``[..., n0, ...], [..., n1, ...], ... -> [..., n0 + n1 + ..., ...]``."""
    # An empty vector may stand among tensors of any shape; it adds nothing.
    tensors = [tensor for tensor in call.args["tensors"] if tensor.shape != (0,)]
    if not tensors:
        return NONE
    ndim = call.out.ndim
    at = call.args["dim"] % ndim
    labels = [call.lookup(tensor) for tensor in tensors]
    result: dict[int, Axis] = {}
    for dim in sorted({dim for one in labels for dim in one}):
        axes = [one.get(dim) for one in labels]
        if dim == at:
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
            first = None if first is None or (first.ids == WILD).any() else first
        else:
            first = Axis(ledger.merge(first, axis), zero)
    return None if first is None else Axis(first.ids, zero)


def stack(call: Call) -> Labels:
    """``n times [...] -> [..., n, ...]``."""
    labels = [call.lookup(tensor) for tensor in call.args["tensors"]]
    at = call.args["dim"] % call.out.ndim
    result: dict[int, Axis] = {}
    for dim in sorted({dim for one in labels for dim in one}):
        axis = _aligned(call.ledger, [one.get(dim) for one in labels])
        if axis is not None:
            result[dim + (dim >= at)] = axis
    return result


def flip(call: Call) -> Labels:
    """``[...] -> [...]``, the indices of ``dims`` in reverse."""
    ndim = call.args["self"].ndim
    turned = {dim % ndim for dim in call.args["dims"]}
    return _reordered(call.labels("self"), {dim: slice(None, None, -1) for dim in turned})


def roll(call: Call) -> Labels | None:
    """``[...] -> [...]``, the indices of ``dims`` shifted round."""
    dims, shifts = call.args["dims"], call.args["shifts"]
    labels = call.labels("self")
    if not dims:
        return None
    order = {
        dim % call.out.ndim: (np.arange(call.out.shape[dim]) - shift) % call.out.shape[dim]
        for dim, shift in zip(dims, shifts, strict=True)
    }
    return _reordered(labels, order)


def index_select(call: Call) -> Labels:
    """``[..., n, ...], index [m] -> [..., m, ...]``."""
    call.freeze(call.args["index"], "channels used as indices")
    order = call.args["index"].reshape(-1).cpu().numpy()
    return _reordered(call.labels("self"), {call.dim(): order})


def _reordered(labels: Labels, order: Mapping[int, Any]) -> dict[int, Axis]:
    return {
        dim: Axis(np.ascontiguousarray(axis.ids[order[dim]]), axis.zero) if dim in order else axis
        for dim, axis in labels.items()
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
    if any(str(indices[dim].dtype) in {"torch.bool", "torch.uint8"} for dim in at):
        return _all_frozen(call)
    together = at == list(range(at[0], at[0] + len(at)))
    first = at[0] if together else 0
    kept: list[int | None] = [dim for dim in range(len(indices)) if dim not in at]
    kept[first:first] = [None] * indices[at[0]].ndim
    return moved(call.labels("self"), kept)


def _all_frozen(call: Call) -> Labels:
    call.freeze(call.args["self"], "channels picked by mask")
    return NONE


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


TABLE: Mapping[str, Rule] = {
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
    "constant_pad_nd": pad,
}
