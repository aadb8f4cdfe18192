"""Rules of operations that keep every position where it is: element by element, along space, or over a dimension."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from compress.channels.call import Call, Rule
from compress.channels.labels import NONE, WILD, Axis, Labels, moved
from compress.channels.parts import alike, apart_from, shifted

_BROADCAST = Axis(np.empty(0, dtype=np.int64), zero=False)


def pointwise(call: Call) -> Labels:
    """``[...], [...] -> [...]`` with broadcasting: position by position along each dimension."""
    ndim = call.out.ndim
    operands = [(ndim - tensor.ndim, tensor, call.lookup(tensor)) for tensor in call.operands]
    dims = {shift + dim for shift, _, labels in operands for dim in labels}
    result = {}
    for out_dim in sorted(dims):
        axes = [
            _spread(call, (labels, tensor, shift), out_dim) if out_dim >= shift else _BROADCAST
            for shift, tensor, labels in operands
        ]
        axis = _meet(call, [axis for axis in axes if axis is not _BROADCAST])
        if axis is not None:
            result[out_dim] = axis._replace(zero=_is_zero(call, axes))
    return result


def _spread(call: Call, operand: tuple[Labels, Tensor, int], out_dim: int) -> Axis | None:
    labels, tensor, shift = operand
    axis, size = labels.get(out_dim - shift), tensor.shape[out_dim - shift]
    if size == call.out.shape[out_dim] and not (size == 1 and axis is None):
        return None if axis is None else shifted(axis, shift)
    call.ledger.freeze(axis, "one channel spread over many")
    return _BROADCAST


def _meet(call: Call, axes: Sequence[Axis | None]) -> Axis | None:
    axes = alike(call.ledger, axes)
    met = axes[0] if axes else None
    for axis in axes[1:]:
        if met is None or axis is None:
            call.ledger.tie(met, axis)
            # What must stay like values without labels is as good as without.
            met = None
        else:
            met = Axis(call.ledger.merge(met, axis), met.zero, met.parts or axis.parts)
    return met


def _is_zero(call: Call, axes: Sequence[Axis | None]) -> bool:
    """Whether the result is zero in removed channels, given whether each operand is."""
    holds = _ZEROS.get(call.op)
    return holds is not None and holds(call.args, [axis is not None and axis.zero for axis in axes])


def _of_first(_: Mapping[str, Any], zeros: Sequence[bool]) -> bool:
    return zeros[0]


def _of_both(_: Mapping[str, Any], zeros: Sequence[bool]) -> bool:
    return len(zeros) > 1 and all(zeros)


def _of_source(_: Mapping[str, Any], zeros: Sequence[bool]) -> bool:
    return zeros[-1]


def _of_any(_: Mapping[str, Any], zeros: Sequence[bool]) -> bool:
    return any(zeros)


def _of_numerator(args: Mapping[str, Any], zeros: Sequence[bool]) -> bool:
    return zeros[0] and isinstance(args["self"], Tensor) and not any(zeros[1:])


def _of_positive_power(args: Mapping[str, Any], zeros: Sequence[bool]) -> bool:
    return zeros[0] and is_number(args["exponent"]) and args["exponent"] > 0


def _of_range_around_zero(args: Mapping[str, Any], zeros: Sequence[bool]) -> bool:
    low, high = args.get("min", args.get("min_val")), args.get("max", args.get("max_val"))
    return (
        zeros[0]
        and (low is None or (is_number(low) and low <= 0))
        and (high is None or (is_number(high) and high >= 0))
    )


def _of_value(args: Mapping[str, Any], _: Sequence[bool]) -> bool:
    return is_number(args["value"]) and args["value"] == 0


def is_number(value: Any) -> bool:
    """Whether an argument of an operation is a number, and no tensor."""
    return isinstance(value, (int, float))


# fmt: off
_ZERO_OF_ZERO = (
    "_prelu_kernel", "_to_copy", "abs", "alias", "asin", "asinh", "atan", "ceil", "celu", "clone", "detach", "dropout",
    "elu", "erf", "expm1", "floor", "gelu", "hardshrink", "hardswish", "leaky_relu", "lift_fresh", "log1p", "mish",
    "native_dropout", "neg", "relu", "relu6", "round", "selu", "sgn", "sign", "silu", "sin", "sinh", "softshrink",
    "sqrt", "square", "tan", "tanh", "trunc",
)
# fmt: on

# Operations that can give zero, and when they do. What is not here (a sigmoid, a cosine) need not.
_ZEROS: Mapping[str, Callable[[Mapping[str, Any], Sequence[bool]], bool]] = {
    **dict.fromkeys(_ZERO_OF_ZERO, _of_first),
    **dict.fromkeys(("add", "sub", "maximum", "minimum", "hypot", "lerp"), _of_both),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max", "hardtanh"), _of_range_around_zero),
    "copy": _of_source,
    "mul": _of_any,
    "div": _of_numerator,
    "pow": _of_positive_power,
    "fill": _of_value,
    "zero": lambda _, __: True,
}


def fill(call: Call) -> Labels:
    """``-> [...]``, the same everywhere: it fits every width, unless it is to be as wide as another tensor."""
    zero = "zeros" in call.op
    result = {dim: Axis(np.full(size, WILD), zero) for dim, size in enumerate(call.out.shape) if size > 1}
    if call.op.endswith("_like"):
        result |= {dim: axis._replace(zero=zero) for dim, axis in call.in_parts("self").items()}
    return result


def along_space(num_dims: int) -> Rule:
    """Pooling and resizing: ``[..., c, *space] -> [..., c, *space']``, ``num_dims`` of space, each channel alone."""

    def rule(call: Call) -> Sequence[Labels]:
        name = "self" if "self" in call.args else "input"
        first = call.args[name].ndim - num_dims
        labels = apart_from(call.ledger, call.in_parts(name), range(first, call.args[name].ndim))
        for dim, axis in labels.items():
            if dim >= first:
                call.ledger.freeze(axis, "channels taken for space")
        return [{dim: axis for dim, axis in labels.items() if dim < first}] * len(call.outs)

    return rule


def reduction(*, skips_zeros: bool = False, zero_of_zeros: bool = True) -> Rule:
    """``[...] -> [...]`` without (or with 1 for) the dimensions ``dim``.

    Args:
        skips_zeros: zeros add nothing to the result, so that it may run over channels which are zero when removed.
        zero_of_zeros: the result is zero where all it runs over is.
    """

    def rule(call: Call) -> Sequence[Labels]:
        ndim = call.args["self"].ndim
        over = _dims(call.args.get("dim"), ndim)
        order = call.args.get("ord", call.args.get("p"))
        may_run = skips_zeros and (order is None or (is_number(order) and order > 0))
        keep = call.args.get("keepdim", False)
        result: dict[int, Axis] = {}
        for dim, axis in apart_from(call.ledger, call.in_parts("self"), over).items():
            if dim not in over:
                result[dim] = axis._replace(zero=axis.zero and zero_of_zeros)
            elif not (may_run and axis.zero):
                call.ledger.freeze(axis, "a statistic over channels")
        left = [dim for dim in range(ndim) if keep or dim not in over]
        return [moved(result, left)] * len(call.outs)

    return rule


def statistic(call: Call) -> Labels | Sequence[Labels] | None:
    """``[...] -> [...]`` without (or with 1 for) the dimensions ``dim``: means and variances.

    Whether those over channels are of a norm, which takes them over the channels that are kept, is seen from what reads
    them (:mod:`compress.channels.statistics`).
    """
    note = call.notes[0]
    if call.is_own(call.args["self"]) or (note is not None and note.of_weights):
        for axis in reduced(call):
            # Another number would give the layer other weights.
            call.ledger.freeze(axis, "a statistic over channels")
    over = _dims(call.args.get("dim"), call.args["self"].ndim)
    labels = apart_from(call.ledger, call.in_parts("self"), over)
    left = [dim for dim in range(call.args["self"].ndim) if call.args.get("keepdim") or dim not in over]
    return [moved({dim: axis for dim, axis in labels.items() if dim not in over}, left)] * len(call.outs)


def reduced(call: Call) -> list[Axis]:
    """The channels that a statistic is one of: the code that reads it has yet to show itself a norm's."""
    over = _dims(call.args.get("dim"), call.args["self"].ndim)
    return [axis for dim, axis in call.in_parts("self").items() if dim in over]


def _dims(dim: Any, ndim: int) -> set[int]:
    if dim is None or dim == []:
        return set(range(ndim))
    return {one % max(1, ndim) for one in (dim if isinstance(dim, Sequence) else [dim])}


def across(*, zero_of_zeros: bool) -> Rule:
    """Softmax and scans: ``[...] -> [...]``, every position along ``dim`` a function of all of them."""

    def rule(call: Call) -> Labels:
        labels = apart_from(call.ledger, call.in_parts("self"), [call.dim()])
        call.ledger.freeze(labels.get(call.dim()), "a function of all channels")
        return {
            dim: axis._replace(zero=axis.zero and zero_of_zeros) for dim, axis in labels.items() if dim != call.dim()
        }

    return rule


def glu(call: Call) -> Labels:
    """``[..., 2 n, ...] -> [..., n, ...]``: the first half of ``dim``, gated by the second."""
    dim, labels = call.dim(), call.labels("self")
    result = {other: Axis(axis.ids, axis.zero) for other, axis in labels.items() if other != dim}
    if dim in labels:
        first, second = np.split(labels[dim].ids, 2)
        call.ledger.tie(Axis(first, zero=False), Axis(second, zero=False))
        result[dim] = Axis(first, labels[dim].zero)
    return result


def regions(call: Call) -> Labels:
    """``[n, c, h, w], regions [k, 5] -> [k, c, h', w']``: each channel alone."""
    for name, tensor in call.args.items():
        if isinstance(tensor, Tensor):
            for dim, axis in call.lookup(tensor).items():
                if (name, dim) != ("input", 1):
                    call.ledger.freeze(axis, "channels taken for space")
    channels = call.axis("input", 1)
    return NONE if channels is None else {1: channels}


def unlabelled(_: Call) -> Labels:
    """An output that carries no channels."""
    return NONE


# fmt: off
# Element by element, though torch does not say so.
UNTAGGED: Sequence[str] = (
    "_prelu_kernel", "_to_copy", "alias", "clone", "copy", "detach", "dropout", "fill", "hardswish", "lift_fresh",
    "log_sigmoid_forward", "native_dropout", "zero",
)

FILLS: Sequence[str] = (
    "empty", "empty_like", "empty_strided", "full", "full_like", "new_empty", "new_full", "new_ones", "new_zeros",
    "ones", "ones_like", "zeros", "zeros_like",
)
# fmt: on

# Values drawn by chance, each for itself.
_DRAWN_INTO: Sequence[str] = ("bernoulli", "exponential", "normal", "random", "uniform")
_DRAWN_LIKE: Sequence[str] = ("rand_like", "randn_like")

STATISTICS: Sequence[str] = ("mean", "std", "std_mean", "var", "var_mean")

TABLE: Mapping[str, Rule] = {
    **dict.fromkeys((*UNTAGGED, *_DRAWN_INTO), pointwise),
    **dict.fromkeys((*FILLS, *_DRAWN_LIKE), fill),
    "scalar_tensor": unlabelled,
    "glu": glu,
    "_adaptive_avg_pool2d": along_space(2),
    "_adaptive_avg_pool3d": along_space(3),
    "adaptive_avg_pool1d": along_space(1),
    "adaptive_max_pool2d": along_space(2),
    "adaptive_max_pool3d": along_space(3),
    "avg_pool1d": along_space(1),
    "avg_pool2d": along_space(2),
    "avg_pool3d": along_space(3),
    "max_pool2d_with_indices": along_space(2),
    "max_pool3d_with_indices": along_space(3),
    "mkldnn_max_pool2d": along_space(2),
    "upsample_nearest1d": along_space(1),
    "upsample_linear1d": along_space(1),
    "upsample_nearest2d": along_space(2),
    "upsample_bilinear2d": along_space(2),
    "upsample_bicubic2d": along_space(2),
    "upsample_nearest3d": along_space(3),
    "upsample_trilinear3d": along_space(3),
    "reflection_pad1d": along_space(1),
    "reflection_pad2d": along_space(2),
    "replication_pad1d": along_space(1),
    "replication_pad2d": along_space(2),
    "torchvision::roi_align": regions,
    "torchvision::roi_pool": regions,
    "sum": reduction(skips_zeros=True),
    "linalg_vector_norm": reduction(skips_zeros=True),
    "norm": reduction(skips_zeros=True),
    **dict.fromkeys(STATISTICS, statistic),
    "amax": reduction(),
    "amin": reduction(),
    "max": reduction(),
    "min": reduction(),
    "argmax": reduction(zero_of_zeros=False),
    "argmin": reduction(zero_of_zeros=False),
    "logsumexp": reduction(zero_of_zeros=False),
    "_softmax": across(zero_of_zeros=False),
    "_log_softmax": across(zero_of_zeros=False),
    "_safe_softmax": across(zero_of_zeros=False),
    "cumsum": across(zero_of_zeros=True),
}
