"""Ways to make a network int8 without training: this package's, and those that its users would take instead."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

import compress
from benchmarks.peers_subjects import Trial
from compress.artifacts.artifact import serialize
from compress.calling.inputs import inputs_of
from compress.exported import capture
from compress.exported.onnx import OnnxModel
from compress.exported.openvino import OpenVinoModel
from compress.quantization.model import QuantizedModel, quantized_model
from compress.quantization.naming import DEQUANTIZE

_WITH_WEIGHTS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, kw_only=True)
class Int8:
    """An int8 model, and how many of its layers have integer weights."""

    model: nn.Module
    num_int8: int

    @property
    def file_bytes(self) -> int:
        """Of the file that it is kept in."""
        return len(serialize(self.model))


Way = Callable[[Trial], Int8]


def by_compress(trial: Trial) -> Int8:
    """This package's, at its defaults: it looks at the calibration examples without their labels."""
    return _of_torch(compress.quantize(trial.dense, trial.plain).model)


def by_torchao(trial: Trial) -> Int8:
    """PT2E as its tutorial has it, with the default configuration for x86; compiled as this package's is."""
    from torchao.quantization.pt2e import quantize_pt2e  # noqa: PLC0415 - an extra
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86  # noqa: PLC0415 - an extra

    batches = [inputs_of(inputs) for inputs, _ in trial.plain]
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    graph = quantize_pt2e.prepare_pt2e(capture(trial.dense, batches[0], alike=batches).module(), quantizer)
    for batch in batches:
        batch.call(graph)
    return _of_torch(quantized_model(quantize_pt2e.convert_pt2e(graph), batches[0], batches))


def by_onnx_runtime(trial: Trial, method: str, *, per_channel: bool = True) -> Int8:
    """ONNX Runtime's static quantizer in its format QDQ, all else at its defaults, after its own preprocessing."""
    from onnxruntime import quantization  # noqa: PLC0415 - an extra
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415 - an extra

    with tempfile.TemporaryDirectory() as folder:
        dense, ready, small = (Path(folder) / f"{name}.onnx" for name in ("dense", "ready", "int8"))
        compress.save(trial.dense, dense, trial.example)
        # Sizes of batches are open, which its own inference of shapes takes sympy for.
        quant_pre_process(dense, ready, skip_symbolic_shape=True)
        quantization.quantize_static(
            ready,
            small,
            _Reader(_named(trial, dense.read_bytes())),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=per_channel,
            calibrate_method=quantization.CalibrationMethod[method],
        )
        return _of_onnx(OnnxModel(small.read_bytes()))


def by_nncf(trial: Trial) -> Int8:
    """NNCF's at its defaults on every calibration example, run by OpenVINO, which it is made for."""
    import nncf  # noqa: PLC0415 - an extra
    import onnx  # noqa: PLC0415 - an extra

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "dense.onnx"
        compress.save(trial.dense, file, trial.example)
        content = file.read_bytes()
    examples = [
        {name: array[place : place + 1] for name, array in batch.items()}
        for batch in _named(trial, content)
        for place in range(len(next(iter(batch.values()))))
    ]
    small = nncf.quantize(onnx.load_from_string(content), nncf.Dataset(examples), subset_size=len(examples))
    return _of_onnx(OpenVinoModel(small.SerializeToString()))


INT8: Mapping[str, Way] = {
    "this package, quantize": by_compress,
    "torchao, PT2E for x86": by_torchao,
    "ONNX Runtime, minmax": partial(by_onnx_runtime, method="MinMax"),
    "ONNX Runtime, entropy": partial(by_onnx_runtime, method="Entropy"),
    "ONNX Runtime, percentile": partial(by_onnx_runtime, method="Percentile"),
    "ONNX Runtime, minmax, weights per tensor (its default)": partial(
        by_onnx_runtime, method="MinMax", per_channel=False
    ),
    "NNCF, under OpenVINO": by_nncf,
}


class _Reader:
    """Whom ONNX Runtime asks for the next batch."""

    def __init__(self, batches: Iterable[Mapping[str, Any]]) -> None:
        self._rest = iter(batches)

    def get_next(self) -> Mapping[str, Any] | None:
        return next(self._rest, None)


def _named(trial: Trial, content: bytes) -> list[dict[str, Any]]:
    """The calibration batches as arrays, by the names of the file's inputs."""
    file = OnnxModel(content)
    batches = [inputs_of(inputs) for inputs, _ in trial.plain]
    return [
        {name: tensor.numpy() for name, tensor in zip(file._names, file.arguments(one.args), strict=True)}
        for one in batches
    ]


def _of_torch(model: QuantizedModel) -> Int8:
    return Int8(model=model, num_int8=sum(str(node.target) == DEQUANTIZE for node in model.graph.graph.nodes))


def _of_onnx(model: OnnxModel | OpenVinoModel) -> Int8:
    """Of the layers, those whose second input was an integer."""
    import onnx  # noqa: PLC0415 - an extra

    nodes = onnx.load_from_string(model.content).graph.node
    made = {name: node for node in nodes for name in node.output}
    read = [made.get(node.input[1]) for node in nodes if node.op_type in _WITH_WEIGHTS]
    return Int8(model=model, num_int8=sum(one is not None and one.op_type == "DequantizeLinear" for one in read))
