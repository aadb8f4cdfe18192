"""Rules of operations that mix channels by weights: convolutions, matrix products, embeddings; and of norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum

import numpy as np
from torch import Tensor

from compress.channels.call import Call, Rule
from compress.channels.labels import NONE, NOT_A_CHANNEL, Alignment, Axis, Labels
from compress.channels.parts import apart_from

_ALIGNED_BYTES = 16  # between the rows of a grouped product's factors


class Grouping(IntEnum):
    """How a convolution's groups go on under a cut."""

    DENSE = 0  # there is one group
    DEPTHWISE = 1  # one input channel a group: groups go away with their channel
    PARTS = 2  # all groups stay, each keeps equally many channels of its own
    ALIKE = 3  # all groups stay, and keep the same channels, because they share one computed weight


def convolution(call: Call) -> Labels | None:
    """``[n, c, *space], [o, c / groups, *kernel], [o] -> [n, o, *space']``."""
    data, weight = call.labels("input"), call.labels("weight")
    for dim in [dim for dim in weight if dim > 1]:
        call.ledger.freeze_ids(weight[dim].ids, NOT_A_CHANNEL)
    for dim in [dim for dim in data if dim > 1]:
        call.ledger.freeze(data[dim], "channels taken for space")
    call.ledger.ask()
    grouping = Grouping(call.ledger.choose(_grouping(call)))
    out = (_TRANSPOSED if call.args["transposed"] else _PLAIN)[grouping](call)
    result = {0: data[0]} if 0 in data else {}
    if out is None:
        call.ledger.freeze(call.axis("bias", 0), "meets values without channel labels")
        return result
    call.ledger.outputs.append(out.ids)
    return {**result, 1: _with_bias(call, out, "bias")}


def _grouping(call: Call) -> Grouping:
    groups: int = call.args["groups"]
    if groups == 1:
        return Grouping.DENSE
    if call.args["input"].shape[1] == groups:
        return Grouping.DEPTHWISE
    return Grouping.ALIKE if call.part_ids(call.args["weight"], groups) is None else Grouping.PARTS


def contract(call: Call, data: Axis | None, weight: Axis | None) -> None:
    """Sum a product of ``data`` with ``weight`` along a dimension of both."""
    if data is None and weight is not None:
        call.ledger.freeze(weight, "fed by values without channel labels")
        return
    call.ledger.tie(data, weight)
    call.ledger.sum_over(data, weight)


def _dense(call: Call) -> Axis | None:
    contract(call, call.axis("input", 1), call.axis("weight", 1))
    return call.axis("weight", 0)


def _dense_transposed(call: Call) -> Axis | None:
    contract(call, call.axis("input", 1), call.axis("weight", 0))
    return call.axis("weight", 1)


def _depthwise(call: Call) -> Axis | None:
    # Output channel i * m + j reads input channel i.
    data, out = call.axis("input", 1), call.axis("weight", 0)
    spread = _repeated(data, call.args["weight"].shape[0] // call.args["input"].shape[1])
    call.ledger.tie(spread, out)
    return out


def _depthwise_transposed(call: Call) -> Axis | None:
    call.ledger.freeze(call.axis("weight", 1), "several outputs of a depthwise convolution")
    data, out = call.axis("input", 1), call.axis("weight", 0)
    call.ledger.tie(data, out)
    return _repeated(out, call.args["weight"].shape[1])


def _repeated(axis: Axis | None, times: int) -> Axis | None:
    return None if axis is None else Axis(np.repeat(axis.ids, times), axis.zero)


def _parts(call: Call) -> Axis | None:
    groups, data = call.args["groups"], call.axis("input", 1)
    contract(call, data, _part_axis(call))
    call.ledger.balance(data, groups)
    call.ledger.balance(call.axis("weight", 0), groups)
    return call.axis("weight", 0)


def _parts_transposed(call: Call) -> Axis | None:
    groups, data, out = call.args["groups"], call.axis("input", 1), _part_axis(call)
    contract(call, data, call.axis("weight", 0))
    call.ledger.balance(call.axis("weight", 0), groups)
    call.ledger.balance(out, groups)
    return out


def _part_axis(call: Call) -> Axis | None:
    ids = call.part_ids(call.args["weight"], call.args["groups"])
    return None if ids is None else Axis(ids.reshape(-1), zero=True)


def _alike(call: Call) -> Axis | None:
    groups, shared = call.args["groups"], call.axis("weight", 1)
    contract(call, call.axis("input", 1), None if shared is None else Axis(np.tile(shared.ids, groups), shared.zero))
    call.ledger.balance(call.axis("weight", 0), groups)
    return call.axis("weight", 0)


def _alike_transposed(call: Call) -> Axis | None:
    groups, shared = call.args["groups"], call.axis("weight", 1)
    contract(call, call.axis("input", 1), call.axis("weight", 0))
    call.ledger.balance(call.axis("weight", 0), groups)
    return None if shared is None else Axis(np.tile(shared.ids, groups), shared.zero)


_PLAIN = {
    Grouping.DENSE: _dense,
    Grouping.DEPTHWISE: _depthwise,
    Grouping.PARTS: _parts,
    Grouping.ALIKE: _alike,
}
_TRANSPOSED = {
    Grouping.DENSE: _dense_transposed,
    Grouping.DEPTHWISE: _depthwise_transposed,
    Grouping.PARTS: _parts_transposed,
    Grouping.ALIKE: _alike_transposed,
}


def _with_bias(call: Call, out: Axis, name: str) -> Axis:
    """``out`` tied to the vector ``name`` that is added to it, if there is one."""
    bias = call.args.get(name)
    if not isinstance(bias, Tensor):
        return out
    axis = call.axis(name, bias.ndim - 1)
    if axis is None and bias.shape[-1:] == (1,):
        return Axis(out.ids, zero=False)
    call.ledger.tie(out, axis)
    return Axis(out.ids, out.zero and axis is not None and axis.zero)


def matmul(left: str, right: str, *, bias: str | None = None) -> Rule:
    """``[batch, m, k], [batch, k, n] -> [batch, m, n]``, with or without the batch dimension and an added bias."""

    def rule(call: Call) -> Labels:
        rows = call.args[left].ndim - 2
        # Parts may be those of the batch, as heads are; along other dimensions a product treats them alike.
        a, b = (apart_from(call.ledger, call.in_parts(name), range(rows, rows + 2)) for name in (left, right))
        _sum_product(call, a.get(rows + 1), b.get(rows))
        result: dict[int, Axis] = {}
        if rows:
            call.ledger.attended.extend(axis.rows for axis in (*a.values(), *b.values()))
            call.ledger.attending.add(call.ledger.module)
            call.ledger.tie(a.get(0), b.get(0))
            if 0 in a and 0 in b:
                result[0] = a[0]
        if rows in a:
            result[rows] = a[rows]
        if rows + 1 in b:
            result[rows + 1] = b[rows + 1]
        # A batched product takes its factors from activations, or matrices of several experts; a matrix is a layer's.
        made = {rows: left, rows + 1: right}
        call.ledger.outputs.extend(
            axis.ids for dim, axis in result.items() if not rows or (dim and call.is_own(call.args[made[dim]]))
        )
        return result if bias is None else _plus(call, result, bias)

    return rule


def grouped_matmul(call: Call) -> Labels | None:
    """``[tokens, k], [experts, k, n], ends of groups [experts], [experts, n] -> [tokens, n]``: a matrix a group.

    Or ``[experts, tokens, k]``, a group each.
    """
    tokens, experts = call.args["self"], call.args["mat2"]
    if experts.ndim != 3:  # noqa: PLR2004 - experts side by side in one matrix
        return None
    last, data, weight = tokens.ndim - 1, call.labels("self"), call.labels("mat2")
    _sum_product(call, data.get(last), weight.get(1))
    for axis in (weight.get(1), weight.get(2)):
        if axis is not None:
            call.ledger.alignments.append(Alignment(axis.ids, _ALIGNED_BYTES // tokens.element_size()))
    for axis in [*(data.get(dim) for dim in range(last)), weight.get(0), call.axis("bias", 0)]:
        call.ledger.freeze_ids(_ids(axis), NOT_A_CHANNEL)
    out = weight.get(2)
    if out is None:
        call.ledger.freeze(call.axis("bias", 1), "meets values without channel labels")
        return NONE
    call.ledger.outputs.append(out.ids)
    return {last: _with_bias(call, out, "bias")}


def matrix_vector(call: Call) -> Labels:
    """``[m, k], [k] -> [m]``."""
    matrix = call.labels("self")
    _sum_product(call, matrix.get(1), call.axis("vec", 0))
    return {0: matrix[0]} if 0 in matrix else NONE


def dot(call: Call) -> Labels:
    """``[k], [k] -> []``."""
    _sum_product(call, call.axis("self", 0), call.axis("tensor" if "tensor" in call.args else "other", 0))
    return NONE


def _sum_product(call: Call, a: Axis | None, b: Axis | None) -> None:
    for one, other in ((a, b), (b, a)):
        if one is None and other is not None:
            call.ledger.freeze(other, "fed by values without channel labels")
            return
    call.ledger.tie(a, b)
    call.ledger.sum_over(a, b)


def _plus(call: Call, result: dict[int, Axis], bias: str) -> Labels:
    added: Tensor = call.args[bias]
    last = call.out.ndim - 1
    if added.ndim == 1 and last in result:
        return {
            **{dim: axis._replace(zero=False) for dim, axis in result.items()},
            last: _with_bias(call, result[last], bias),
        }
    call.freeze(added, "a bias of more than one dimension")
    for axis in result.values():
        call.ledger.freeze(axis, "a bias of more than one dimension")
    return {dim: axis._replace(zero=False) for dim, axis in result.items()}


def linear(call: Call) -> Labels:
    """``[..., c], [o, c], [o] -> [..., o]``."""
    data, last = call.labels("input"), call.args["input"].ndim - 1
    contract(call, data.get(last), call.axis("weight", 1))
    result = {dim: Axis(axis.ids, zero=False) for dim, axis in data.items() if dim != last}
    out = call.axis("weight", 0)
    if out is None:
        call.ledger.freeze(call.axis("bias", 0), "meets values without channel labels")
        return result
    call.ledger.outputs.append(out.ids)
    return {**result, last: _with_bias(call, out, "bias")}


def embedding(call: Call) -> Labels:
    """``[entries, c], index [...] -> [..., c]``."""
    call.ledger.freeze_ids(_ids(call.axis("weight", 0)), NOT_A_CHANNEL)
    call.freeze(call.args["indices"], "channels used as indices")
    axis = call.axis("weight", 1)
    if axis is None:
        return NONE
    call.ledger.outputs.append(axis.ids)
    return {call.out.ndim - 1: axis}


def _ids(axis: Axis | None) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.empty(0, dtype=np.int64) if axis is None else axis.ids


def batch_norm(call: Call) -> Sequence[Labels]:
    """``[n, c, *space], four times [c] -> [n, c, *space]``: each channel alone."""
    name = "input" if "input" in call.args else "self"
    return [_normed(call, name, 1, ("weight", "bias", "running_mean", "running_var")), *[NONE] * (len(call.outs) - 1)]


def layer_norm(call: Call) -> Sequence[Labels]:
    """``[..., *normalized], weight and bias [*normalized] -> [..., *normalized]``.

    The statistics run over the channels that are kept: the one layer, with group norm, whose output a cut changes.
    """
    ndim = call.args["input"].ndim
    count = len(call.args["normalized_shape"])
    if count > 1:
        for dim in range(ndim - count, ndim):
            for name, at in (("input", dim), ("weight", dim - ndim + count), ("bias", dim - ndim + count)):
                call.ledger.freeze(call.axis(name, at), "a norm over several dimensions")
        return [call.labels("input"), *[NONE] * (len(call.outs) - 1)]
    return [_normed(call, "input", ndim - 1, ("weight", "bias")), *[NONE] * (len(call.outs) - 1)]


def group_norm(call: Call) -> Sequence[Labels]:
    """``[n, c, *space], weight and bias [c] -> [n, c, *space]``, statistics over each of ``group`` equal parts."""
    call.ledger.balance(call.axis("input", 1), call.args["group"])
    return [_normed(call, "input", 1, ("weight", "bias")), *[NONE] * (len(call.outs) - 1)]


def _normed(call: Call, data: str, dim: int, vectors: Sequence[str]) -> Labels:
    labels = call.labels(data)
    axis = labels.get(dim)
    present = [name for name in vectors if isinstance(call.args.get(name), Tensor)]
    for name in present:
        if call.args[name].shape[0] > 1 or call.axis(name, 0) is not None:
            call.ledger.tie(axis, call.axis(name, 0))
    if axis is None:
        return NONE
    if "weight" not in present:
        # No tensor tells the norm how wide it is.
        call.ledger.width(axis)
    # With its own weight and bias cut, the output is zero whatever came in; without them zero stays zero.
    affine = {"weight", "bias"} <= set(present)
    return {
        **{other: Axis(one.ids, zero=False) for other, one in labels.items()},
        dim: Axis(axis.ids, affine or axis.zero),
    }


def weight_norm(call: Call) -> Sequence[Labels]:
    """``v: [...], g: [1, ..., n, ..., 1] -> [...]``: each slice of ``v`` along ``dim`` as long as ``g`` says.

    The lengths are those of what is left of the slices. Where zeros stand for a cut, they are the same.
    """
    dim, labels = call.dim(of="v"), call.labels("v")
    call.ledger.tie(labels.get(dim), call.axis("g", dim))
    return [labels, *[NONE] * (len(call.outs) - 1)]


TABLE: Mapping[str, Rule] = {
    "convolution": convolution,
    "_convolution": convolution,
    "linear": linear,
    "mm": matmul("self", "mat2"),
    "bmm": matmul("self", "mat2"),
    "addmm": matmul("mat1", "mat2", bias="self"),
    "baddbmm": matmul("batch1", "batch2", bias="self"),
    "_grouped_mm": grouped_matmul,
    "mv": matrix_vector,
    "dot": dot,
    "vdot": dot,
    "embedding": embedding,
    "_weight_norm_interface": weight_norm,
    "native_batch_norm": batch_norm,
    "_native_batch_norm_legit": batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm,
    "_batch_norm_no_update": batch_norm,
    "cudnn_batch_norm": batch_norm,
    "miopen_batch_norm": batch_norm,
    "native_layer_norm": layer_norm,
    "native_group_norm": group_norm,
}
