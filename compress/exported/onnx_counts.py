"""How large the graph in an ``.onnx`` file is: its parameters, and the multiply-accumulates of one forward pass.

Both are read off the file, whatever wrote it: the tensors that it holds, and the shapes that follow from those of its
inputs. What is counted, and what is free, is as in :mod:`compress.macs.formulas`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.errors import ConfigError, MeasureError, first_line

Shape = tuple[int, ...]
Formula = Callable[["_Call"], int]

_EXTRA = "pip install 'pytest-compress[onnx]'"
# Where a node's inputs are no parameters: statistics of norms, and zero points, which torch keeps among its constants.
_NOT_LEARNED: Mapping[str, tuple[int, ...]] = {
    "BatchNormalization": (3, 4),
    "QuantizeLinear": (2,),
    "DequantizeLinear": (2,),
    "QLinearConv": (2, 5, 7),
    "QLinearMatMul": (2, 5, 7),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
}
# A single number is a constant of the code, but for what these read.
_WITH_SINGLES = ("Conv", "ConvTranspose", "Gemm", "QLinearConv", "BatchNormalization", "LayerNormalization", "PRelu",
                 "DequantizeLinear")  # fmt: skip
_OF_SHAPES = (np.dtype(np.int64), np.dtype(np.bool_))
_BODIES = ("If", "Loop", "Scan")
# Operations of ONNX Runtime's own that multiply by no weights.
_FREE_ELSEWHERE = ("Gelu", "FastGelu", "QuickGelu", "BiasGelu", "QuantizeLinear", "DequantizeLinear", "QLinearAdd",
                   "QLinearConcat", "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearSigmoid",
                   "QLinearLeakyRelu", "QLinearMul", "SkipLayerNormalization")  # fmt: skip
_OWN_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True, kw_only=True)
class _Call:
    """One node: the shapes of its inputs and of its first output, and its attributes."""

    inputs: Sequence[Shape]
    output: Shape
    attributes: Mapping[str, Any]


def parameters_in(content: bytes) -> list[NDArray[Any]]:
    """The learned tensors of a file: floats and integers of weights, with their scales; no shapes, no single numbers.

    Raises:
        ConfigError: if onnx is missing.
        MeasureError: if the file cannot be read.
    """
    from onnx import numpy_helper  # noqa: PLC0415 - optional

    graph = _read(content).graph
    others = {
        name
        for node in _nodes(graph)
        for place, name in enumerate(node.input)
        if place in _NOT_LEARNED.get(node.op_type, ())
    }
    learned = {name for node in _nodes(graph) if node.op_type in _WITH_SINGLES for name in node.input}
    found = [(name, numpy_helper.to_array(tensor)) for name, tensor in _tensors(graph)]
    return [
        array
        for name, array in found
        if name not in others and array.ndim and array.dtype not in _OF_SHAPES and (array.size > 1 or name in learned)
    ]


def macs_in(content: bytes, inputs: Sequence[NDArray[Any]]) -> int:
    """Multiply-accumulates of one forward pass on these inputs, in the order of the file's own.

    Raises:
        ConfigError: if onnx is missing.
        MeasureError: if a shape does not follow from those of the inputs, or the cost of an operation is unknown.
    """
    graph = _read(content).graph
    _check_counted(graph)
    counted = [node for node in graph.node if node.op_type in _FORMULAS]
    known = _inferred(content, inputs)
    known |= _run(content, inputs, {name for node in counted for name in _needed(node) if name not in known})
    return sum(_cost(node, known) for node in counted)


def _read(content: bytes) -> Any:
    try:
        import onnx  # noqa: PLC0415 - optional
    except ImportError as cause:
        raise ConfigError(f"counting what is in an ONNX file needs onnx: {_EXTRA} ({cause})") from cause
    try:
        return onnx.load_from_string(content)
    except Exception as cause:
        raise MeasureError(f"the ONNX file cannot be read: {first_line(cause)}") from cause


def _inferred(content: bytes, inputs: Sequence[NDArray[Any]]) -> dict[str, Shape]:
    """The shape of every tensor of which it follows from those of the inputs."""
    model = _read(content)
    import onnx  # noqa: PLC0415 - optional

    # What a writer noted holds for open sizes, and would be kept.
    del model.graph.value_info[:]
    for one, array in zip(_taken(model.graph), inputs, strict=True):
        for dimension, size in zip(one.type.tensor_type.shape.dim, array.shape, strict=True):
            dimension.dim_value = size
    for one in model.graph.output:
        one.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as cause:
        raise MeasureError(f"the shapes in the ONNX file do not follow from its inputs: {first_line(cause)}") from cause
    known = {name: tuple(tensor.dims) for name, tensor in _tensors(model.graph)}
    for one in (*inferred.value_info, *inferred.input, *inferred.output):
        dimensions = one.type.tensor_type.shape.dim
        if one.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dimensions):
            known[one.name] = tuple(dim.dim_value for dim in dimensions)
    return known


def _run(content: bytes, inputs: Sequence[NDArray[Any]], names: set[str]) -> dict[str, Shape]:
    """The shapes of those tensors in a forward pass: what is computed from sizes is beyond inference."""
    if not names:
        return {}
    import onnx  # noqa: PLC0415 - optional

    try:
        import onnxruntime  # noqa: PLC0415 - optional
    except ImportError:
        return {}
    model = _read(content)
    given = dict(zip((one.name for one in _taken(model.graph)), inputs, strict=True))
    del model.graph.output[:]
    order = sorted(names)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in order)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        return {name: array.shape for name, array in zip(order, session.run(order, given), strict=True)}
    # onnxruntime's errors have no base of their own.
    except Exception as cause:
        raise MeasureError(f"the ONNX file does not run on the example inputs: {first_line(cause)}") from cause


def _taken(graph: Any) -> list[Any]:
    """The inputs of a graph that it does not bring itself."""
    held = {tensor.name for tensor in graph.initializer}
    return [one for one in graph.input if one.name not in held]


def _needed(node: Any) -> list[str]:
    """The tensors of which a formula may read the shape."""
    return [name for name in (*node.input[:_READ], node.output[0]) if name]


def _check_counted(graph: Any) -> None:
    """Refuse what costs something that is not known.

    Raises:
        MeasureError: with the names of the operations.
    """
    unknown = {
        node.op_type if node.domain in _OWN_DOMAINS else f"{node.domain}.{node.op_type}"
        for node in graph.node
        if (node.domain not in _OWN_DOMAINS and node.op_type not in (*_FREE_ELSEWHERE, "FusedConv"))
        or (node.op_type in _BODIES and any(inner.op_type in _FORMULAS for inner in _within(node)))
    }
    if unknown:
        raise MeasureError(f"the multiply-accumulates of {', '.join(sorted(unknown))} in an ONNX file are unknown")


def _cost(node: Any, shapes: Mapping[str, Shape]) -> int:
    import onnx  # noqa: PLC0415 - optional

    lost = next((name for name in _needed(node) if name not in shapes), None)
    if lost is not None:
        raise MeasureError(
            f"the shape of {lost!r} does not follow from the inputs of the ONNX file, so that the cost of"
            f" {node.op_type} {node.name!r} is unknown"
        )
    call = _Call(
        inputs=[shapes.get(name, ()) for name in node.input],
        output=shapes.get(node.output[0], ()),
        attributes={one.name: onnx.helper.get_attribute_value(one) for one in node.attribute},
    )
    return _FORMULAS[node.op_type](call)


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those of bodies too."""
    for node in graph.node:
        yield node
        yield from _within(node)


def _within(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield from _nodes(attribute.g)


def _tensors(graph: Any) -> Iterator[tuple[str, Any]]:
    """The tensors that a graph holds, by name."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield node.output[0], attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)


def _convolution(call: _Call) -> int:
    """``x: [n, in, ...]``, ``weight: [out, in / groups, ...]``: a product for each value that leaves."""
    return math.prod(call.output) // call.output[1] * math.prod(call.inputs[1])


def _quantized_convolution(call: _Call) -> int:
    """``x, scale, zero point, weight``."""
    return math.prod(call.output) // call.output[1] * math.prod(call.inputs[3])


def _transposed_convolution(call: _Call) -> int:
    """``weight: [in, out / groups, ...]``: a product for each value that enters."""
    return math.prod(call.inputs[0]) // call.inputs[0][1] * math.prod(call.inputs[1])


def _product(call: _Call) -> int:
    """``a: [..., m, k]`` with whatever it meets."""
    return math.prod(call.output) * call.inputs[0][-1]


def _gemm(call: _Call) -> int:
    """``a: [m, k]``, or ``[k, m]`` where it is turned."""
    return math.prod(call.output) * call.inputs[0][0 if call.attributes.get("transA") else 1]


def _recurrent(call: _Call) -> int:
    """``x: [length, n, in]``; ``[directions, gates * hidden, in]`` and ``[..., hidden]`` meet every row."""
    return math.prod(call.inputs[0][:2]) * (math.prod(call.inputs[1]) + math.prod(call.inputs[2]))


def _attention(call: _Call) -> int:
    """``query: [n, heads, l, e]``, or ``[n, l, heads * e]``; ``key`` alike, of length ``s``."""
    query, key = call.inputs[:2]
    return math.prod(query[:-1]) * key[-2] * (query[-1] + call.output[-1])


def _einsum(call: _Call) -> int:
    """A product for each combination of the indices."""
    equation = call.attributes["equation"].decode().replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if "." in equation:
        raise MeasureError(f"the multiply-accumulates of Einsum {equation!r} in an ONNX file are unknown")
    sizes = {
        letter: size
        for term, shape in zip(terms, call.inputs, strict=True)
        for letter, size in zip(term, shape, strict=True)
    }
    return math.prod(sizes.values()) if len(terms) > 1 else 0


# Of so many inputs a formula may read the shape.
_READ = 4
_FORMULAS: Mapping[str, Formula] = {
    "Conv": _convolution,
    "FusedConv": _convolution,
    "ConvInteger": _convolution,
    "DeformConv": _convolution,
    "QLinearConv": _quantized_convolution,
    "ConvTranspose": _transposed_convolution,
    "MatMul": _product,
    "MatMulInteger": _product,
    "QLinearMatMul": _product,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
    "Einsum": _einsum,
}
