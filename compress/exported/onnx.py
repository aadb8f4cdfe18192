"""ONNX: graphs as ``.onnx`` files, and such files run by ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from compress.errors import ArtifactError, ConfigError, ModelError, first_line
from compress.exported.capture import quiet_torch

_EXTRA = "pip install 'pytest-compress[onnx]'"


def to_onnx(program: ExportedProgram) -> bytes:
    """The bytes of an ``.onnx`` file of the graph; its int8 operations as QuantizeLinear and DequantizeLinear.

    Raises:
        ConfigError: if onnx or onnxscript is missing.
        ModelError: if an operation has no counterpart in ONNX.
    """
    try:
        import onnxscript  # noqa: F401, PLC0415 - optional
        from torch.onnx.errors import OnnxExporterError  # noqa: PLC0415
    except ImportError as cause:
        raise ConfigError(f"writing ONNX needs onnx and onnxscript: {_EXTRA} ({cause})") from cause
    try:
        with quiet_torch(), contextlib.redirect_stdout(io.StringIO()):
            exported = torch.onnx.export(program, dynamo=True, verbose=False)
    except OnnxExporterError as cause:
        reason = first_line(cause.__cause__ or cause)
        raise ModelError(f"the model cannot be written as ONNX: {reason}") from cause
    assert exported is not None  # noqa: S101 - what dynamo=True promises
    proto = exported.model_proto
    # Where each node was in somebody's source tree.
    del proto.metadata_props[:]
    for part in (*proto.graph.node, *proto.graph.initializer, *proto.graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


class OnnxModel(nn.Module):
    """An ``.onnx`` file as a module, run by ONNX Runtime on the CPU with as many threads as torch has.

    Attributes:
        content: the bytes of the file.
    """

    def __init__(self, content: bytes, place: str = "the model") -> None:
        super().__init__()
        self.content = content
        self.training = False
        self._open(place)

    def forward(self, inputs: Tensor) -> Any:
        if self._threads != torch.get_num_threads():
            self._open("the model")
        outputs = self._session.run(None, {self._input: inputs.numpy()})
        tensors = tuple(map(torch.from_numpy, outputs))
        return tensors[0] if len(tensors) == 1 else tensors

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's own signature
        """Nothing for False.

        Raises:
            ModelError: for True.
        """
        if mode:
            raise ModelError("an ONNX model cannot be trained: train the network it was exported from")
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)(self.content)

    def _open(self, place: str) -> None:
        try:
            import onnxruntime  # noqa: PLC0415 - optional
        except ImportError as cause:
            raise ConfigError(f"running ONNX needs onnxruntime: {_EXTRA} ({cause})") from cause
        options = onnxruntime.SessionOptions()
        self._threads = options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(self.content, options, ["CPUExecutionProvider"])
        # onnxruntime's errors have no base of their own.
        except Exception as cause:
            raise ArtifactError(f"{place} is damaged, or cannot be run by ONNX Runtime: {first_line(cause)}") from cause
        self._input = self._session.get_inputs()[0].name
