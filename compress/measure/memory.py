"""How much memory a forward pass needs while it runs.

On CUDA the allocator knows, to the byte. On a CPU nobody does: what is resident in the process that runs the tests
depends on all that ran before. So a fresh child process loads the model, warms it, runs one forward pass and asks the C
library how much it had handed out at most; where it cannot tell, the kernel's high-water mark is reset and read, which
comes close. memory-profiler samples the same child from outside as a cross-check. Which tensors live meanwhile is a
property of the model alone: those are counted one by one, and exactly.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

import memory_profiler
import torch
from torch import nn

from compress.calling.inputs import device_of, evaluating, inputs_of
from compress.errors import MeasureError
from compress.exported.file_model import FileModel, check_seen
from compress.exported.model import ExportedModel, dequantize_late_
from compress.measure import children
from compress.measure.children import Child, Conditions, saved
from compress.measure.environment import cuda_class
from compress.measure.live_tensors import peak_live_bytes
from compress.measure.malloc_peak import ENVIRONMENT
from compress.modules.copying import copied
from compress.modules.masks import make_permanent_
from compress.results import Measurement
from compress.system.cpu import cpu_class

_SAMPLING_INTERVAL_S = 0.01
_CLEAR_REFS = "/proc/self/clear_refs"

MemoryReport = Mapping[str, int]
"""What a fresh process told of one model, in bytes."""


def cpu_memory(
    compressed: nn.Module, dense: nn.Module, conditions: Conditions, *, known: MemoryReport | None = None
) -> Measurement:
    """Peak bytes of one forward pass on the CPU: the model's tensors and all that is allocated meanwhile.

    Args:
        compressed, dense: both built by ``conditions.model_factory`` before they were compressed.
        conditions: how a fresh process finds them, what they are called with, runtime and threads.
        known: what :func:`measure_in_child` said of ``dense`` under the same conditions; None to measure it here.

    Raises:
        MeasureError: if the child cannot rebuild a model, is killed, hangs or disagrees with the sampler.
    """
    first = known or measure_in_child(dense, conditions)
    second = measure_in_child(compressed, conditions)
    kind = compressed.kind if isinstance(compressed, FileModel) else None
    return Measurement(
        metric="cpu_peak_bytes",
        dense=model_bytes(dense) + first["peak_delta_bytes"],
        compressed=model_bytes(compressed) + second["peak_delta_bytes"],
        device=cpu_class(conditions.threads),
        info={
            "dense_resident_delta_bytes": first["resident_delta_bytes"],
            "compressed_resident_delta_bytes": second["resident_delta_bytes"],
            "dense_sampled_process_bytes": first["sampled_process_bytes"],
            "compressed_sampled_process_bytes": second["sampled_process_bytes"],
        },
        notes=(f"of {kind} the bytes of its file count as those of its tensors",) if kind else (),
    )


def why_no_cpu_memory() -> str | None:
    """Why the peak of a process cannot be measured on this system; None where it can.

    Elsewhere a process knows only its peak since it began (psutil's ``peak_wset``, ``ru_maxrss``), which torch and the
    loading of the model have set long before the forward pass.
    """
    if os.access(_CLEAR_REFS, os.W_OK):
        return None
    return (
        f"CPU memory needs {_CLEAR_REFS}, by which Linux sets a process's peak back; this system"
        f" ({platform.system() or 'unknown'}) has none"
    )


def measure_in_child(model: nn.Module, conditions: Conditions) -> MemoryReport:
    """Have a fresh process measure ``model``, and a sampler watch it from outside.

    Raises:
        MeasureError: as :func:`cpu_memory` does.
    """
    if (why := why_no_cpu_memory()) is not None:
        raise MeasureError(why)
    with (
        # It imports what it needs while the model is made ready.
        Child("memory", threads=conditions.threads, environment=ENVIRONMENT) as child,
        saved({"model": model}, conditions) as request,
    ):
        child.ask({"do": "measure_memory", **request})
        child.end_requests()
        mebibytes = memory_profiler.memory_usage(
            child.process, interval=_SAMPLING_INTERVAL_S, timeout=children.TIMEOUT_S, max_usage=True
        )
        if child.process.poll() is None:
            raise MeasureError(f"the child process that measures memory was stopped after {children.TIMEOUT_S:g} s")
        report: dict[str, int] = child.answer()
    sampled = int(float(mebibytes) * 2**20)
    # The sampler sees the whole process from outside, at moments of its own: it can miss the peak, never exceed it.
    if sampled > report["process_peak_bytes"] * 1.02:
        raise MeasureError(
            f"the child's own peak of {report['process_peak_bytes']} resident bytes is below the {sampled} that"
            " memory-profiler sampled"
        )
    return {**report, "sampled_process_bytes": sampled}


def peak_tensor_bytes(compressed: nn.Module, dense: nn.Module, example_inputs: Any) -> Measurement:
    """The most bytes of tensors, the model's own among them, that live at once in one forward pass, run eagerly.

    Masked weights count as the plain zeros that they are saved as. An eager int8 model imitates its integers in float:
    its stored integers count, and of the floats made of them those that one layer at a time needs.

    Raises:
        MeasureError: if a model is a file that another runtime runs.
    """
    peaks = []
    for model in (dense, compressed):
        check_seen(model, "live tensors")
        shipped = make_permanent_(copied(model))
        if isinstance(shipped, ExportedModel):
            shipped = dequantize_late_(shipped).graph
        with evaluating(shipped):
            peaks.append(peak_live_bytes(shipped, inputs_of(example_inputs).to(device_of(model))))
    return Measurement(metric="peak_tensor_bytes", dense=peaks[0], compressed=peaks[1])


def cuda_memory(compressed: nn.Module, dense: nn.Module, example_inputs: Any) -> Measurement:
    """Peak bytes of torch's CUDA allocator in one forward pass: the model's tensors and all that is live meanwhile."""
    peaks = [_cuda_peak(model, example_inputs) for model in (dense, compressed)]
    return Measurement(metric="cuda_peak_bytes", dense=peaks[0], compressed=peaks[1], device=cuda_class())


def model_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers; what several modules share counts once. Of a file, its own bytes."""
    if isinstance(model, FileModel):
        return len(model.content)
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def _cuda_peak(model: nn.Module, example_inputs: Any) -> int:
    home = device_of(model)
    # Only what is allocated from here on belongs to the model: other models of this run may be on the device too.
    model.to("cpu")
    others = torch.cuda.memory_allocated()
    model.to("cuda").eval()
    inputs = inputs_of(example_inputs).to(torch.device("cuda"))
    try:
        with torch.inference_mode():
            inputs.lend_to(model)
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            inputs.lend_to(model)
            torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - others
    finally:
        model.to(home)
