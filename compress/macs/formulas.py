"""What each operation costs in multiply-accumulates, read off the shapes of its arguments and of its result.

Operations as a network asks for them, and fused ones that a graph, a script or a device's kernels call directly, have
the same cost: that of the products they are defined by. What adds, compares or moves is free, as is an element-wise
product. Attention costs its whole matrix of scores, whatever a mask or causality leaves out of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Formula = Callable[..., int]
"""``(result, *arguments)`` to multiply-accumulates; the result is the first one where there are several."""


def _product(_out: Tensor, a: Tensor, b: Tensor, *_: Any) -> int:
    """``a: [..., m, k]``, ``b: [..., k, n]`` or ``[k]``."""
    return a.numel() * (b.shape[-1] if b.ndim > 1 else 1)


def _added_product(out: Tensor, _self: Tensor, a: Tensor, b: Tensor, *_: Any) -> int:
    """The same, with what it is added to in front."""
    return _product(out, a, b)


def _grouped_product(out: Tensor, a: Tensor, b: Tensor, *_: Any) -> int:
    """Either or both with groups in front, ``[g, m, k]`` and ``[g, k, n]``; the others' rows are shared out."""
    # Of two matrices it is the inner dimension that is shared out, once over all groups.
    matrices = a.ndim == b.ndim == 2  # noqa: PLR2004
    return _product(out, a, b) if matrices else out.numel() * a.shape[-1]


def _linear(out: Tensor, x: Tensor, *_: Any) -> int:
    """``x: [..., in]``, ``out: [..., out]``; the weight may be packed in whatever way."""
    return out.numel() * x.shape[-1]


def _bilinear(out: Tensor, _x1: Tensor, _x2: Tensor, weight: Tensor, *_: Any) -> int:
    """``weight: [out, in1, in2]``, each element of it once for each row."""
    return out.numel() // len(weight) * weight.numel() if len(weight) else 0


def _trilinear(_out: Tensor, x1: Tensor, x2: Tensor, x3: Tensor, *expanded: Sequence[int]) -> int:
    """Three factors, each after it got the dimensions it is to be expanded along."""
    shapes = []
    for tensor, dims in zip((x1, x2, x3), expanded, strict=False):
        shape = list(tensor.shape)
        for dim in sorted(dims):
            shape.insert(dim, 1)
        shapes.append(shape)
    return math.prod(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def _distances(out: Tensor, x1: Tensor, _x2: Tensor, *_: Any) -> int:
    """``x1: [..., p, m]``, ``x2: [..., r, m]``, ``out: [..., p, r]``."""
    return out.numel() * x1.shape[-1]


def _convolution(out: Tensor, _x: Tensor, weight: Tensor, *_: Any) -> int:
    """``out: [n, out, *spatial]``, ``weight: [out, in / groups, *kernel]``: a product for each value that leaves."""
    return out.numel() // out.shape[1] * weight.numel()


def _transposed_convolution(_out: Tensor, x: Tensor, weight: Tensor, *_: Any) -> int:
    """``x: [n, in, *spatial]``, ``weight: [in, out / groups, *kernel]``: a product for each value that enters."""
    return x.numel() // x.shape[1] * weight.numel()


def _either_convolution(out: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> int:
    transposed = rest[4]  # after bias, stride, padding and dilation
    return (_transposed_convolution if transposed else _convolution)(out, x, weight)


def _channels_last_convolution(out: Tensor, _x: Tensor, weight: Tensor, *_: Any) -> int:
    """``out: [length, n, out]``, ``weight: [kernel, in, out]``."""
    return out.numel() // out.shape[2] * weight.numel()


def _quantized_convolution(out: Tensor, _x: Tensor, _scale: Any, _zero_point: Any, weight: Tensor, *_: Any) -> int:
    return _convolution(out, out, weight)


def _packed_convolution(out: Tensor, _x: Tensor, packed: Any, *_: Any) -> int:
    return _convolution(out, out, packed.unpack()[0])


def _recurrent(_out: Tensor, x: Tensor, *rest: Any) -> int:
    """``x: [..., in]``, a row for each step of each sequence, padding left out; every matrix meets every row."""
    lists = [part for part in rest if isinstance(part, (list, tuple))]
    matrices = [one for part in lists for one in part if isinstance(one, Tensor) and one.ndim == 2]  # noqa: PLR2004
    return _rows(x) * _elements(matrices)


def _recurrent_layer(_out: Tensor, x: Tensor, of_input: Tensor, of_state: Tensor, *_: Any) -> int:
    return _rows(x) * _elements((of_input, of_state))


def _attention(out: Tensor, query: Tensor, key: Tensor, *_: Any) -> int:
    """``query: [..., l, e]``, ``key: [..., s, e]``, ``out: [..., l, v]``, however many heads the keys have."""
    return _rows(out) * key.shape[-2] * (query.shape[-1] + out.shape[-1])


def _attention_heads_inside(out: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> int:
    """``query: [n, l, heads, e]``, or ``[rows, heads, e]`` of sequences whose ends follow."""
    ends = [part for part in rest if isinstance(part, Tensor) and not part.is_floating_point() and part.ndim == 1]
    if len(ends) < 2:  # noqa: PLR2004 - of queries and of keys
        return _rows(out) * key.shape[-3] * (query.shape[-1] + out.shape[-1])
    lengths = [torch.diff(one).tolist() for one in ends[:2]]
    scores = sum(of_query * of_key for of_query, of_key in zip(*lengths, strict=True))
    return int(scores) * query.shape[-2] * (query.shape[-1] + value.shape[-1])


def _multi_head_attention(_out: Tensor, query: Tensor, key: Tensor, _value: Tensor, width: int, *_: Any) -> int:
    """``query: [n, l, width]``, ``key: [n, s, width]``; a projection each for queries, keys, values and outputs."""
    projected = 2 * (_rows(query) + _rows(key)) * width * width
    return projected + 2 * _rows(query) * key.shape[-2] * width


def _encoder_layer(_out: Tensor, x: Tensor, width: int, _heads: int, *rest: Any) -> int:
    """``x: [n, l, width]``."""
    matrices = [one for one in rest[:-1] if isinstance(one, Tensor) and one.ndim == 2]  # noqa: PLR2004
    weights = [one for one in matrices if width in one.shape][:4]  # a mask comes after them
    return _rows(x) * (_elements(weights) + 2 * x.shape[-2] * width)


def _rows(tensor: Tensor) -> int:
    return math.prod(tensor.shape[:-1])


def _elements(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


# fmt: off
_NAMES: Mapping[Formula, Sequence[str]] = {
    _product: ("mm", "bmm", "mv", "dot", "vdot", "_int_mm", "_scaled_mm"),
    _added_product: ("addmm", "addmv", "baddbmm", "addbmm", "_addmm_activation", "_sparse_addmm"),
    _grouped_product: ("_grouped_mm", "_scaled_grouped_mm"),
    _linear: (
        "mkldnn_linear", "_weight_int4pack_mm", "_weight_int4pack_mm_for_cpu", "_weight_int8pack_mm",
        "mkldnn::_linear_pointwise", "mkl::_mkl_linear", "onednn::qlinear_pointwise", "quantized::linear",
        "quantized::linear_relu", "quantized::linear_dynamic", "quantized::linear_relu_dynamic",
        "quantized::linear_dynamic_fp16",
    ),
    _bilinear: ("bilinear",),
    _trilinear: ("_trilinear",),
    _distances: ("cdist", "_cdist_forward", "_euclidean_dist"),
    _either_convolution: ("convolution", "_convolution", "convolution_overrideable"),
    _convolution: (
        "cudnn_convolution", "cudnn_convolution_relu", "cudnn_convolution_add_relu", "miopen_convolution",
        "miopen_depthwise_convolution", "mkldnn_convolution", "thnn_conv2d", "_slow_conv2d_forward", "slow_conv3d",
        "slow_conv3d_forward", "slow_conv_dilated2d", "slow_conv_dilated3d", "_conv_depthwise2d", "conv_depthwise3d",
        "mkldnn::_convolution_pointwise", "torchvision::deform_conv2d",
    ),
    _transposed_convolution: (
        "cudnn_convolution_transpose", "miopen_convolution_transpose", "slow_conv_transpose2d",
        "slow_conv_transpose3d", "mkldnn::_convolution_transpose_pointwise",
    ),
    _channels_last_convolution: ("conv_tbc",),
    _quantized_convolution: ("onednn::qconv_pointwise", "onednn::qconv2d_pointwise"),
    _packed_convolution: (
        "quantized::conv1d", "quantized::conv1d_relu", "quantized::conv2d", "quantized::conv2d_relu",
        "quantized::conv3d", "quantized::conv3d_relu",
    ),
    _recurrent: ("lstm", "gru", "rnn_tanh", "rnn_relu", "_cudnn_rnn", "miopen_rnn"),
    _recurrent_layer: ("mkldnn_rnn_layer",),
    _attention: (
        "scaled_dot_product_attention", "_scaled_dot_product_attention_math",
        "_scaled_dot_product_attention_math_for_mps", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_fused_attention_overrideable", "flex_attention",
    ),
    _attention_heads_inside: (
        "_flash_attention_forward", "_efficient_attention_forward", "torch_attn::_varlen_attn",
    ),
    _multi_head_attention: ("_native_multi_head_attention",),
    _encoder_layer: ("_transformer_encoder_layer_fwd",),
}
# fmt: on


def _by_name() -> Iterator[tuple[str, Formula]]:
    for formula, names in _NAMES.items():
        for name in names:
            yield name, formula


FORMULAS: Mapping[str, Formula] = dict(_by_name())
"""By the name of the operation, without ``aten::`` in front and the underscore of an operation in place behind."""
