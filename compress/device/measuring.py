"""Latency and memory of two models on a device: their files go there, pairs of times come back."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from compress.calling.pairs import Pairs
from compress.device.connection import Device
from compress.errors import MeasureError
from compress.exported.file_model import FileModel
from compress.exported.openvino import OpenVinoModel
from compress.measure.children import Conditions, ready
from compress.measure.latency import Effort, take_runs, time_measurement
from compress.measure.memory import model_bytes
from compress.results import Measurement
from compress.system.cpu import has_bfloat16

DEVICE_RUNTIMES = ("onnxruntime", "openvino", "executorch")
"""Those that run a file without PyTorch, as the device does; ExecuTorch's Python package brings it along."""

# The clock that is this much slower after a measurement than before has been slowed down.
_SLOWER = 0.9
_NOW, _HAS_BEEN = 0xF, 0xF0000


def request_for(device: Device, models: dict[str, nn.Module], conditions: Conditions) -> dict[str, Any]:
    """The part of a request that names models, their inputs and how they are run; their files are on the device then.

    Raises:
        ConfigError: if the runtime is not installed here, where the files are made and tried.
        MeasureError: if it is none for devices, or a file cannot be sent.
        ModelError: if a model does not run under it.
    """
    runtime = conditions.runtime
    if runtime not in DEVICE_RUNTIMES:
        raise MeasureError(
            f"on a device models run under {', '.join(DEVICE_RUNTIMES)}, but the recipe's runtime is {runtime!r}"
        )
    device.require(runtime)
    files = {role: _file(model, conditions) for role, model in models.items()}
    ending = ".pte" if runtime == "executorch" else ".onnx"
    example = conditions.inputs
    inputs = next(iter(files.values())).arguments(example.args, example.kwargs)
    halves = has_bfloat16(device.machine["cpuinfo"])
    return {
        **{role: device.send(file.content, ending) for role, file in files.items()},
        "inputs": [device.send(_npy(tensor), ".npy") for tensor in inputs],
        "runtime": runtime,
        "threads": conditions.threads,
        "precision": {
            role: "bf16" if halves and isinstance(file, OpenVinoModel) and file.in_bfloat16 else "f32"
            for role, file in files.items()
        },
    }


def _file(model: nn.Module, conditions: Conditions) -> FileModel:
    file = ready(model, conditions)
    assert isinstance(file, FileModel)  # noqa: S101 - what these runtimes make
    return file


def remote_latency(
    compressed: nn.Module,
    dense: nn.Module,
    conditions: Conditions,
    *,
    device: Device,
    processes: int,
    effort: Effort,
) -> Measurement:
    """Milliseconds of one forward pass on the device, both models called in turn in several fresh processes there.

    Raises:
        CompressError: if it could not be measured: no connection, no runtime, no space, no answer.
    """
    deadline = effort.clock() + effort.seconds
    named = request_for(device, {"dense": dense, "compressed": compressed}, conditions)
    before = device.ask({"do": "health"})
    count = max(1, processes)
    once_ms = float(device.ask({"do": "load", "count": count, **named})["pair_ms"])

    def taker(index: int) -> Any:
        def take(number: int) -> Pairs:
            pairs = device.ask({"do": "take_pairs", "index": index, "count": number})["pairs"]
            return tuple((first, second) for first, second in pairs)

        return take

    runs = take_runs([taker(index) for index in range(count)], once_ms, deadline, effort)
    after = device.ask({"do": "rest"})
    measured = time_measurement("cpu_latency_ms", runs, device.cpu_class(conditions.threads), _notes(before, after))
    return replace(measured, info=_recorded(before, after))


def remote_memory(compressed: nn.Module, dense: nn.Module, conditions: Conditions, *, device: Device) -> Measurement:
    """Peak bytes on the device: each model's tensors, and how far the resident set rises during a forward pass.

    Raises:
        CompressError: as :func:`remote_latency`.
    """
    told = []
    for model in (dense, compressed):
        named = request_for(device, {"model": model}, conditions)
        told.append(device.ask({"do": "memory", **named}))
    first, second = told
    return Measurement(
        metric="cpu_peak_bytes",
        dense=model_bytes(dense) + first["peak_delta_bytes"],
        compressed=model_bytes(compressed) + second["peak_delta_bytes"],
        device=device.cpu_class(conditions.threads),
        info={
            "dense_resident_bytes": first["resident_bytes"],
            "compressed_resident_bytes": second["resident_bytes"],
        },
    )


def _recorded(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """Clock and temperature before and after, where the device tells them."""
    return {
        f"{name}_{when}": float(told[name])
        for when, told in (("before", before), ("after", after))
        for name in ("clock_mhz", "temperature_c")
        if told[name] is not None
    }


def _notes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Why the times may not be what the device does when it is cool."""
    notes = []
    bits = [told["throttled"] or 0 for told in (before, after)]
    if bits[1] & _NOW or (bits[1] & ~bits[0]) & _HAS_BEEN:
        notes.append(f"the device throttled while it was measured (get_throttled={bits[1]:#x})")
    clocks = before["clock_mhz"], after["clock_mhz"]
    if None not in clocks and clocks[1] < _SLOWER * clocks[0]:
        notes.append(f"the device's clock fell from {clocks[0]:.0f} to {clocks[1]:.0f} MHz while it was measured")
    if after["governor"] not in (None, "performance"):
        notes.append(f"the device's clock is governed by {after['governor']!r}, which changes it with the load")
    return notes


def _npy(tensor: Tensor) -> bytes:
    written = io.BytesIO()
    np.save(written, tensor.detach().cpu().numpy(), allow_pickle=False)
    return written.getvalue()
