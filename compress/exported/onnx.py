"""ONNX: graphs as ``.onnx`` files, and such files run by ONNX Runtime."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, OutputKind
from torch.utils._pytree import tree_structure

from compress.errors import ArtifactError, ConfigError, ModelError, first_line
from compress.exported.capture import quiet_torch
from compress.exported.file_model import FileModel, signature_in
from compress.exported.structure import Signature

NESTING = "compress.signature"
_EXTRA = "pip install 'pytest-compress[onnx]'"


def to_onnx(program: ExportedProgram) -> bytes:
    """The bytes of an ``.onnx`` file of the graph; its int8 operations as QuantizeLinear and DequantizeLinear.

    Raises:
        ConfigError: if onnx or onnxscript is missing.
        ModelError: if an operation has no counterpart in ONNX, or the graph is in bfloat16.
    """
    for name, tensor in [*program.state_dict.items(), *program.constants.items()]:
        if isinstance(tensor, Tensor) and tensor.dtype == torch.bfloat16:
            raise ModelError(
                f"ONNX Runtime runs no bfloat16 on the CPU, '{name}' is: save the model in float32, or as .pt2"
            )
    try:
        import onnxscript  # noqa: F401, PLC0415 - optional
        from torch.onnx.errors import OnnxExporterError  # noqa: PLC0415
    except ImportError as cause:
        raise ConfigError(f"writing ONNX needs onnx and onnxscript: {_EXTRA} ({cause})") from cause
    try:
        with quiet_torch(), contextlib.redirect_stdout(io.StringIO()), _tensors_alone(program):
            exported = torch.onnx.export(program, dynamo=True, verbose=False)
    except OnnxExporterError as cause:
        reason = first_line(cause.__cause__ or cause)
        raise ModelError(f"the model cannot be written as ONNX: {reason}") from cause
    assert exported is not None  # noqa: S101 - what dynamo=True promises
    proto = exported.model_proto
    # Where each node was in somebody's source tree.
    del proto.metadata_props[:]
    nesting = proto.metadata_props.add()
    nesting.key, nesting.value = NESTING, json.dumps(dataclasses.asdict(Signature.of(program)), sort_keys=True)
    for part in (*proto.graph.node, *proto.graph.initializer, *proto.graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


@contextlib.contextmanager
def _tensors_alone(program: ExportedProgram) -> Iterator[None]:
    """Meanwhile let the program put out its tensors and no constants, of which ONNX has none among its outputs."""
    signature, node, whole = (
        program.graph_signature,
        program.graph.output_node(),
        program.module_call_graph[0].signature,
    )
    assert whole is not None  # noqa: S101 - the whole model's own
    specs, args, nesting = signature.output_specs, node.args, whole.out_spec
    (outputs,) = args
    assert isinstance(outputs, (tuple, list))  # noqa: S101 - what a program's output is
    kept = [place for place, spec in enumerate(specs) if not isinstance(spec.arg, ConstantArgument)]
    signature.output_specs = [specs[place] for place in kept]
    node.args = (tuple(outputs[place] for place in kept),)
    if len(kept) < len(specs):
        taken = [spec for spec in signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
        whole.out_spec = tree_structure((0,) * len(taken))
    try:
        yield
    finally:
        signature.output_specs, node.args, whole.out_spec = specs, args, nesting


class OnnxModel(FileModel):
    """An ``.onnx`` file as a module, run by ONNX Runtime on the CPU with as many threads as torch has."""

    kind = "an ONNX model"

    def _open(self, place: str) -> tuple[list[str], Signature | None]:
        try:
            import onnxruntime  # noqa: PLC0415 - optional
        except ImportError as cause:
            raise ConfigError(f"running ONNX needs onnxruntime: {_EXTRA} ({cause})") from cause
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(self.content, options, ["CPUExecutionProvider"])
        # onnxruntime's errors have no base of their own.
        except Exception as cause:
            raise ArtifactError(f"{place} is damaged, or cannot be run by ONNX Runtime: {first_line(cause)}") from cause
        nesting = self._session.get_modelmeta().custom_metadata_map.get(NESTING)
        inputs = self._session.get_inputs()
        sizes = {one.shape[0] for one in inputs if one.shape}
        # Where the first dimension has a name, or none, any number will do.
        self.batch = next(iter(sizes)) if len(sizes) == 1 and all(isinstance(size, int) for size in sizes) else 0
        return [one.name for one in inputs], signature_in(nesting, place)

    def _run(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        arrays = {name: tensor.numpy() for name, tensor in zip(self._names, tensors, strict=True)}
        return list(map(torch.from_numpy, self._session.run(None, arrays)))
