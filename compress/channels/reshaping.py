"""Rules of operations that give the same elements another shape or another order of dimensions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from torch import Tensor

from compress.channels.call import Call, Rule
from compress.channels.folding import folds
from compress.channels.labels import NONE, WILD, Axis, Binding, Ids, Labels, Split, Width, moved
from compress.channels.parts import joined, shifted, tied_rows

_Block = tuple[Sequence[int], Sequence[int]]

_SIDE = 4  # a factor of a pixel shuffle, rather than the width of a head


def view(call: Call) -> Labels:
    """``[...] -> [...]``, the same elements in the same order."""
    old, new = tuple(call.args["self"].shape), tuple(call.out.shape)
    labels = call.in_parts("self")
    if 0 in old or not labels:
        return NONE
    call.ledger.ask()
    runs = blocks(old, new)
    block_of = {dim: at for at, (dims, _) in enumerate(runs) for dim in dims}
    labels = _one_a_block(call, labels, block_of)
    owners = Counter(block_of[dim] for dim in labels)
    result: dict[int, Axis] = {}
    for dim, axis in labels.items():
        at = block_of[dim]
        # Parts cannot go on beside channels of another kind; and those behind their channels, once merged, leave no
        # order that holds for any choice of channels.
        lost = {part for part in axis.parts if (part > dim if block_of[part] == at else owners[block_of[part]])}
        touched = sorted({at, *(block_of[part] for part in axis.parts)})
        reshaped = _reshaped(call, joined(call.ledger, axis, lost), dim, [runs[one] for one in touched])
        if reshaped is not None:
            place, axis = reshaped  # noqa: PLW2901 - the same axis, seen from the new shape
            call.ledger.width(axis)
            if not axis.parts:
                bind(call, axis)
            result[place] = axis
    # The positions beside them may stand in the same list of sizes.
    for dim in range(len(new)):
        if dim not in result and new[dim] > 1:
            call.ledger.widths.append(Width(call.ledger.module, new[dim], np.empty(0, np.int64)))
    return result


def _one_a_block(call: Call, labels: Labels, block_of: Mapping[int, int]) -> Labels:
    """``labels`` where of several dimensions that are merged only the widest may shrink: experts stay, units go."""
    result = {}
    for at in dict.fromkeys(block_of[dim] for dim in labels):
        dims = [dim for dim in labels if block_of[dim] == at]
        best = max(dims, key=lambda dim: labels[dim].ids.shape[-1])
        kept = call.ledger.choose(best) if len(dims) > 1 else best
        result[kept] = labels[kept]
        for dim in dims:
            if dim != kept:
                call.ledger.freeze(labels[dim], "two channel dimensions merged")
    # What is frozen is none of the parts of what is left.
    return result


def blocks(old: Sequence[int], new: Sequence[int]) -> list[_Block]:
    """The finest runs of dimensions of ``old`` and ``new`` that hold the same elements."""
    blocks: list[_Block] = []
    i = j = 0
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
        # A dimension that a cut left a single position of stays with those it was split from, or is merged with.
        while i < len(old) and old[i] == 1 and (j == len(new) or new[j] != 1):
            old_dims.append(i)
            i += 1
        while j < len(new) and new[j] == 1 and (i == len(old) or old[i] != 1):
            new_dims.append(j)
            j += 1
        blocks.append((old_dims, new_dims))
    return blocks


def _reshaped(call: Call, axis: Axis, dim: int, blocks: Sequence[_Block]) -> tuple[int, Axis] | None:
    """The new dimension of ``axis``, which was ``dim``, and its labels there; ``blocks`` hold all its dimensions."""
    if all(len(old) == len(new) == 1 for old, new in blocks):
        places = {old[0]: new[0] for old, new in blocks}
        return places[dim], axis._replace(parts=tuple(places[part] for part in axis.parts))
    old, own = next((old, new) for old, new in blocks if dim in old)
    if not own:
        return None
    if not _folds_alike(call, axis, dim, (old, own)):
        call.ledger.freeze(axis, "positions and channels mixed by a reshape")
        return None
    dims = [one for _, new in blocks for one in new]
    dense = _dense(call, axis, dim, blocks)
    varying = {one for at, one in enumerate(dims) if _varies(dense, at)}
    kept = _shrinking(call, own, varying, {one: call.out.shape[one] for one in own})
    tied = [one for one in own if one in varying and one > kept]
    parts = [one for one in dims if one in varying and one != kept and one not in tied]
    order = [*tied, *parts, kept]
    # Along the other dimensions all ids are the same.
    dense = dense[tuple(slice(None) if one in order else 0 for one in dims)]
    dense = dense.transpose([[one for one in dims if one in order].index(one) for one in order])
    ids = tied_rows(call.ledger, dense.reshape(-1, *dense.shape[len(tied) :]))
    found = Axis(ids, axis.zero, tuple(parts))
    if any(one in own for one in parts):
        # Each must keep equally many, and there will be as many as before.
        for one in parts:
            call.ledger.widths.append(Width(call.ledger.module, call.out.shape[one], np.empty(0, np.int64)))
        call.ledger.balance(found, len(found.rows))
        heads = [one for one in parts if one in own][-1]
        call.ledger.splits.append(Split(call.ledger.calls, found, heads))
        bind(call, axis)
    return kept, found


def _folds_alike(call: Call, axis: Axis, dim: int, block: _Block) -> bool:
    """Whether ``axis``, of dimension ``dim``, is taken apart by numbers that have nothing to do with the input's size.

    Beside positions, each of its factors must go somewhere as a whole; and at another size of the input, they must be
    the same.
    """
    sizes, shape = call.args["self"].shape, call.out.shape
    found = folds([sizes[one] for one in block[0]], [shape[one] for one in block[1]])
    others = any(sizes[one] > 1 and one != dim and one not in axis.parts for one in block[0])
    if found is None:
        return not others
    call.ledger.takes_apart |= others or len(found) > 1
    own = [fold.size for fold in found if block[0][fold.old] == dim]
    ids = axis.ids.reshape(-1, *own[::-1])
    # Along some of them the ids are the same: there, positions were merged with channels.
    return call.ledger.folds(axis, [size for at, size in enumerate(own) if _varies(ids, ids.ndim - 1 - at)])


def _dense(call: Call, axis: Axis, dim: int, blocks: Sequence[_Block]) -> Ids:
    """The id at each place of the new dimensions of ``blocks``."""
    old, new = call.args["self"].shape, call.out.shape
    before, after = ([one for block in blocks for one in block[at]] for at in (0, 1))
    dims = [*axis.parts, dim]
    ids = axis.ids.transpose(sorted(range(len(dims)), key=dims.__getitem__))
    ids = ids.reshape([old[one] if one in dims else 1 for one in before])
    return np.broadcast_to(ids, [old[one] for one in before]).reshape([new[one] for one in after])


def _varies(dense: Ids, at: int) -> bool:
    return dense.shape[at] > 1 and not bool((dense == dense.take([0], axis=at)).all())


def _shrinking(call: Call, own: Sequence[int], varying: Collection[int], sizes: Mapping[int, int]) -> int:
    """The one of the new dimensions ``own`` that shrinks with the channels.

    Python code knows which one; here it is the last, as in heads and shuffles, unless that is as small as the sides of
    a pixel shuffle. The dimensions before it become parts, those behind it go with their channel.
    """
    if len(own) == 1:
        return own[0]
    among = [one for one in own if one in varying] or [one for one in own if sizes[one] > 1] or own
    wide = [one for one in among if sizes[one] > _SIDE]
    best = (wide or among)[-1]
    kept = call.ledger.choose(best)
    return kept if kept in own else best


def bind(call: Call, axis: Axis) -> None:
    """Note that the width may be the one that the module was called with: ``reshape(B, N, C)``, ``C // heads``."""
    size = axis.ids.size
    for tensor in call.inputs():
        for other in call.lookup(tensor).values():
            if not other.parts and 1 < len(other.ids) <= size and size % len(other.ids) == 0:
                call.ledger.bindings.append(Binding(axis.ids.reshape(-1), other.ids, call.ledger.module))
                return


def permute(call: Call) -> Labels:
    """``[d0, d1, ...] -> [d_dims[0], d_dims[1], ...]``."""
    ndim = call.args["self"].ndim
    return moved(call.in_parts("self"), [dim % ndim for dim in call.args["dims"]])


def transpose(call: Call) -> Labels:
    """``[..., a, ..., b, ...] -> [..., b, ..., a, ...]``."""
    order = list(range(call.args["self"].ndim))
    if order:
        a, b = call.dim("dim0"), call.dim("dim1")
        order[a], order[b] = order[b], order[a]
    return moved(call.in_parts("self"), order)


def t(call: Call) -> Labels:
    """``[a, b] -> [b, a]``."""
    return moved(call.in_parts("self"), list(range(call.args["self"].ndim))[::-1])


def unsqueeze(call: Call) -> Labels:
    """``[...] -> [..., 1, ...]``."""
    ndim = call.args["self"].ndim
    at = call.args["dim"] % (ndim + 1)
    return moved(call.in_parts("self"), [*range(at), None, *range(at, ndim)])


def squeeze(call: Call) -> Labels:
    """``[..., 1, ...] -> [...]``."""
    source: Tensor = call.args["self"]
    asked = call.args.get("dim")
    some = range(source.ndim) if asked is None else (asked if isinstance(asked, Sequence) else [asked])
    gone = {dim % source.ndim for dim in some if source.shape[dim] == 1}
    for dim in gone:
        call.ledger.freeze(call.axis("self", dim), "a single channel picked")
    return moved(call.in_parts("self"), [dim for dim in range(source.ndim) if dim not in gone])


def expand(call: Call) -> Labels:
    """``[..., 1, ...] -> [..., n, ...]``, the same values ``n`` times."""
    source: Tensor = call.args["self"]
    shift = call.out.ndim - source.ndim
    result: dict[int, Axis] = {}
    labels = call.in_parts("self")
    for dim, size in enumerate(call.out.shape):
        old = dim - shift
        axis = labels.get(old)
        if old >= 0 and source.shape[old] == size:
            if axis is not None:
                result[dim] = shifted(axis, shift)
                call.ledger.width(axis)
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
