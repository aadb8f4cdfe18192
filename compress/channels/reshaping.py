"""Rules of operations that give the same elements another shape or another order of dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from compress.channels.call import Call, Rule
from compress.channels.labels import NONE, WILD, Axis, Ids, Labels, Ledger, moved


def view(call: Call) -> Labels:
    """``[...] -> [...]``, the same elements in the same order."""
    old, new = tuple(call.args["self"].shape), tuple(call.out.shape)
    if 0 in old:
        return NONE
    labels = call.labels("self")
    result: dict[int, Axis] = {}
    for old_dims, new_dims in _blocks(old, new):
        labelled = [dim for dim in old_dims if dim in labels]
        if not labelled:
            continue
        if len(labelled) > 1:
            for dim in labelled:
                call.ledger.freeze(labels[dim], "two channel dimensions merged")
            continue
        axis = labels[labelled[0]]
        at = old_dims.index(labelled[0])
        shape = [1] * len(old_dims)
        shape[at] = len(axis.ids)
        dense = np.broadcast_to(axis.ids.reshape(shape), [old[dim] for dim in old_dims])
        dense = dense.reshape([new[dim] for dim in new_dims])
        kept, ids = _one_dimension(call.ledger, dense)
        if new_dims:
            result[new_dims[kept]] = Axis(ids, axis.zero)
    return result


def _blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The finest runs of dimensions of ``old`` and ``new`` that hold the same elements."""
    blocks, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        old_dims, new_dims, old_size, new_size = [], [], 1, 1
        if i < len(old):
            old_dims, old_size, i = [i], old[i], i + 1
        if j < len(new):
            new_dims, new_size, j = [j], new[j], j + 1
        while old_size != new_size:
            if old_size < new_size:
                old_dims.append(i)
                old_size, i = old_size * old[i], i + 1
            else:
                new_dims.append(j)
                new_size, j = new_size * new[j], j + 1
        blocks.append((old_dims, new_dims))
    return blocks


def _one_dimension(ledger: Ledger, dense: Ids) -> tuple[int, Ids]:
    """The dimension whose indices the ids of ``dense`` shall follow, all others tied, and its ids.

    The one that leaves most channels apart: a cut that fits no rectangle cannot be made.
    """
    if dense.ndim < 2:  # noqa: PLR2004 - a vector, or a scalar for a dimension of size 1
        return 0, dense.reshape(-1)
    rows = [np.moveaxis(dense, dim, 0).reshape(dense.shape[dim], -1) for dim in range(dense.ndim)]
    exact = [bool((row == row[:, :1]).all()) for row in rows]
    left = [len(np.unique(row[:, 0])) for row in rows]
    best = max(range(dense.ndim), key=lambda dim: (exact[dim], left[dim], dim))
    kept = min(ledger.choose(best), dense.ndim - 1)
    row = rows[kept]
    if not exact[kept]:
        first = Axis(np.repeat(row[:, 0], row.shape[1] - 1), zero=True)
        ledger.tie(first, Axis(row[:, 1:].reshape(-1), zero=True))
    return kept, row.max(axis=1)


def permute(call: Call) -> Labels:
    """``[d0, d1, ...] -> [d_dims[0], d_dims[1], ...]``."""
    ndim = call.args["self"].ndim
    return moved(call.labels("self"), [dim % ndim for dim in call.args["dims"]])


def transpose(call: Call) -> Labels:
    """``[..., a, ..., b, ...] -> [..., b, ..., a, ...]``."""
    order = list(range(call.args["self"].ndim))
    if order:
        a, b = call.dim("dim0"), call.dim("dim1")
        order[a], order[b] = order[b], order[a]
    return moved(call.labels("self"), order)


def t(call: Call) -> Labels:
    """``[a, b] -> [b, a]``."""
    return moved(call.labels("self"), list(range(call.args["self"].ndim))[::-1])


def unsqueeze(call: Call) -> Labels:
    """``[...] -> [..., 1, ...]``."""
    ndim = call.args["self"].ndim
    at = call.args["dim"] % (ndim + 1)
    return moved(call.labels("self"), [*range(at), None, *range(at, ndim)])


def squeeze(call: Call) -> Labels:
    """``[..., 1, ...] -> [...]``."""
    source: Tensor = call.args["self"]
    asked = call.args.get("dim")
    some = range(source.ndim) if asked is None else (asked if isinstance(asked, Sequence) else [asked])
    gone = {dim % source.ndim for dim in some if source.shape[dim] == 1}
    for dim in gone:
        call.ledger.freeze(call.axis("self", dim), "a single channel picked")
    return moved(call.labels("self"), [dim for dim in range(source.ndim) if dim not in gone])


def expand(call: Call) -> Labels:
    """``[..., 1, ...] -> [..., n, ...]``, the same values ``n`` times."""
    source: Tensor = call.args["self"]
    shift = call.out.ndim - source.ndim
    result: dict[int, Axis] = {}
    for dim, size in enumerate(call.out.shape):
        old = dim - shift
        axis = call.axis("self", old)
        if old >= 0 and source.shape[old] == size:
            if axis is not None:
                result[dim] = axis
        else:
            call.ledger.freeze(axis, "one channel spread over many")
            result[dim] = Axis(np.full(size, WILD), zero=False)
    return result


def repeat(call: Call) -> Labels:
    """``[...] -> [...]``, each dimension ``repeats[dim]`` times over."""
    source: Tensor = call.args["self"]
    shift = call.out.ndim - source.ndim
    result: dict[int, Axis] = {}
    for dim, times in enumerate(call.args["repeats"]):
        axis = call.axis("self", dim - shift)
        if axis is not None:
            result[dim] = Axis(np.tile(axis.ids, times), axis.zero)
        elif dim < shift or source.shape[dim - shift] == 1:
            result[dim] = Axis(np.full(call.out.shape[dim], WILD), zero=False)
    return result


def pixel_shuffle(call: Call) -> Labels:
    """``[..., c r r, h, w] -> [..., c, h r, w r]``."""
    return _channel_blocks(call, call.args["upscale_factor"] ** 2)


def _channel_blocks(call: Call, size: int) -> Labels:
    """Each ``size`` neighbouring channels go into one."""
    ndim, labels = call.args["self"].ndim, call.labels("self")
    for dim in (ndim - 1, ndim - 2):
        call.ledger.freeze(labels.get(dim), "channels taken for space")
    result = {dim: axis for dim, axis in labels.items() if dim < ndim - 2}
    axis = result.get(ndim - 3)
    if axis is not None:
        rows = axis.ids.reshape(-1, size)
        call.ledger.tie(Axis(np.repeat(rows[:, 0], size - 1), zero=True), Axis(rows[:, 1:].reshape(-1), zero=True))
        result[ndim - 3] = Axis(rows.max(axis=1), axis.zero)
    return result


def pixel_unshuffle(call: Call) -> Labels:
    """``[..., c, h r, w r] -> [..., c r r, h, w]``."""
    return _repeated_channels(call, call.args["self"].ndim - 3, call.args["downscale_factor"] ** 2)


def unfold(call: Call) -> Labels:
    """``[n, c, h, w] -> [n, c kh kw, places]``."""
    height, width = call.args["kernel_size"]
    return _repeated_channels(call, call.args["self"].ndim - 3, height * width)


def _repeated_channels(call: Call, dim: int, times: int) -> Labels:
    """Each channel goes into ``times`` neighbouring ones, with a part of space."""
    labels = call.labels("self")
    for space in (dim + 1, dim + 2):
        call.ledger.freeze(labels.get(space), "channels taken for space")
    return {
        one: Axis(np.repeat(axis.ids, times), axis.zero) if one == dim else axis
        for one, axis in labels.items()
        if one <= dim
    }


def channel_shuffle(call: Call) -> Labels:
    """``[n, g c, ...] -> [n, c g, ...]``: channel ``k`` of group ``i`` goes to place ``i`` of ``k``."""
    groups, axis = call.args["groups"], call.axis("self", 1)
    if axis is None:
        return call.labels("self")
    rows = axis.ids.reshape(groups, -1)
    call.ledger.tie(Axis(np.tile(rows[0], groups - 1), zero=True), Axis(rows[1:].reshape(-1), zero=True))
    return {**call.labels("self"), 1: Axis(np.ascontiguousarray(rows.T).reshape(-1), axis.zero)}


TABLE: Mapping[str, Rule] = {
    "view": view,
    "_unsafe_view": view,
    "reshape": view,
    "_reshape_alias": view,
    "unflatten": view,
    "permute": permute,
    "transpose": transpose,
    "t": t,
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    "expand": expand,
    "repeat": repeat,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "im2col": unfold,
    "channel_shuffle": channel_shuffle,
    "native_channel_shuffle": channel_shuffle,
}
