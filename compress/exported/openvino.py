"""``.onnx`` files run by OpenVINO, which has kernels for AMX and bfloat16 that ONNX Runtime lacks."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from compress.errors import ArtifactError, ConfigError, first_line
from compress.exported.capture import quiet_torch
from compress.exported.file_model import FileModel, signature_in
from compress.exported.onnx import NESTING
from compress.exported.structure import Signature
from compress.system.cpu import has_bfloat16

_EXTRA = "pip install 'pytest-compress[openvino]'"


class OpenVinoModel(FileModel):
    """An ``.onnx`` file as a module, run by OpenVINO on the CPU, compiled once for each shape of inputs that comes.

    Attributes:
        in_bfloat16: whether it is to compute in bfloat16.

    Args:
        content: the bytes of the file.
        place: what a message calls it.
        bfloat16: whether to compute in bfloat16, where the processor does; else in float32, also where OpenVINO's own
            choice would be bfloat16.
    """

    kind = "an ONNX model"

    def __init__(self, content: bytes, place: str = "the model", *, bfloat16: bool = False) -> None:
        self.in_bfloat16 = bfloat16
        super().__init__(content, place)

    @property
    def precision(self) -> str:
        """What it computes in, as OpenVINO calls it: "f32" or "bf16"."""
        return "bf16" if self.in_bfloat16 and has_bfloat16() else "f32"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)(self.content, bfloat16=self.in_bfloat16)

    def _open(self, place: str) -> tuple[list[str], Signature | None]:
        try:
            import onnx  # noqa: PLC0415 - optional

            with quiet_torch():
                import openvino  # noqa: PLC0415 - optional
        except ImportError as cause:
            raise ConfigError(f"the runtime openvino is not installed: {_EXTRA} ({cause})") from cause
        self._core = openvino.Core()
        self._requests: dict[tuple[torch.Size, ...], Any] = {}
        try:
            self._graph = self._core.read_model(self.content)
            notes = onnx.load_from_string(self.content).metadata_props
        # Neither library's errors have a base of their own.
        except Exception as cause:
            raise ArtifactError(f"{place} is damaged, or cannot be run by OpenVINO: {first_line(cause)}") from cause
        nesting = next((one.value for one in notes if one.key == NESTING), None)
        return [one.get_any_name() for one in self._graph.inputs], signature_in(nesting, place)

    def _run(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        shapes = tuple(tensor.shape for tensor in tensors)
        if shapes not in self._requests:
            self._requests[shapes] = self._compiled(shapes)
        found = self._requests[shapes].infer([tensor.numpy() for tensor in tensors], share_inputs=True)
        return [torch.from_numpy(array) for array in found.values()]

    def _compiled(self, shapes: tuple[torch.Size, ...]) -> Any:
        """Ready for inputs of these shapes alone: of open ones OpenVINO plans less well."""
        self._graph.reshape(dict(zip(self._names, map(list, shapes), strict=True)))
        # One stream: a single request has all threads, as under every other runtime.
        settings = {
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": self.precision,
        }
        with _own_signal_stack():
            return self._core.compile_model(self._graph, "CPU", settings).create_infer_request()


class _Stack(ctypes.Structure):
    """``stack_t`` of Linux, see man 2 sigaltstack."""

    _fields_: ClassVar = [("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t)]


@contextlib.contextmanager
def _own_signal_stack() -> Iterator[None]:
    """Put the stack of signal handlers back.

    OpenVINO's compiler leaves this thread with one of its own, which it frees later: the next signal that Python
    handles, as the end of a data loader's worker, would then crash the process.
    """
    if sys.platform != "linux":
        yield
        return
    libc, before = ctypes.CDLL(None), _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)
