"""How much memory a forward pass needs while it runs.

On CUDA the allocator knows, to the byte. On a CPU nobody does: what is resident in the process that runs the tests
depends on all that ran before. So a fresh child process loads the model, warms it, resets the kernel's high-water mark,
runs one forward pass and reads the mark; memory-profiler samples the same child from outside as a cross-check.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import memory_profiler
import torch
from torch import Tensor, nn

from compress import artifact
from compress.errors import MeasureError
from compress.measure.environment import cpu_class, cuda_class
from compress.results import Measurement
from compress.train.evaluation import device_of

CHILD_TIMEOUT_S = 300
_SAMPLING_INTERVAL_S = 0.01

# glibc keeps freed memory for later; handing every block of 64 KiB or more back to the kernel makes the peak of live
# tensors visible in the resident set, and the same in every run.
_CHILD_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "0",
    "MALLOC_MMAP_MAX_": "1000000",
}


def cpu_memory(
    compressed: nn.Module,
    dense: nn.Module,
    example_input: Tensor,
    *,
    model_factory: Callable[..., nn.Module],
    model_args: Mapping[str, Any],
) -> Measurement:
    """Peak bytes of one forward pass on one CPU thread: the model's tensors and all that is allocated meanwhile.

    Args:
        compressed, dense: both built by ``model_factory`` before they were compressed.
        example_input: ``[n, ...]``; only its shape and type reach the child process.
        model_factory: a function that a fresh process can import by name.
        model_args: its keyword arguments, of types that JSON knows.

    Raises:
        MeasureError: if the child cannot rebuild a model, is killed, hangs or disagrees with the sampler.
    """
    request = {
        "factory": _importable_name(model_factory),
        "args": dict(model_args),
        "shape": list(example_input.shape),
        "dtype": str(example_input.dtype).removeprefix("torch."),
        "path": [entry for entry in sys.path if entry],
    }
    reports = {model: _measure_in_child(model, request) for model in (dense, compressed)}
    return Measurement(
        metric="cpu_peak_bytes",
        dense=model_bytes(dense) + reports[dense]["peak_delta_bytes"],
        compressed=model_bytes(compressed) + reports[compressed]["peak_delta_bytes"],
        device=cpu_class(1),
        info={
            "dense_sampled_process_bytes": reports[dense]["sampled_process_bytes"],
            "compressed_sampled_process_bytes": reports[compressed]["sampled_process_bytes"],
        },
    )


def cuda_memory(compressed: nn.Module, dense: nn.Module, example_input: Tensor) -> Measurement:
    """Peak bytes of torch's CUDA allocator in one forward pass: the model's tensors and all that is live meanwhile."""
    peaks = [_cuda_peak(model, example_input) for model in (dense, compressed)]
    return Measurement(metric="cuda_peak_bytes", dense=peaks[0], compressed=peaks[1], device=cuda_class())


def model_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers; what several modules share counts once."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def _cuda_peak(model: nn.Module, example_input: Tensor) -> int:
    home = device_of(model)
    # Only what is allocated from here on belongs to the model: other models of this run may be on the device too.
    model.to("cpu")
    others = torch.cuda.memory_allocated()
    model.to("cuda").eval()
    inputs = example_input.to("cuda")
    try:
        with torch.inference_mode():
            model(inputs)
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            model(inputs)
            torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - others
    finally:
        model.to(home)


def _importable_name(function: Callable[..., nn.Module]) -> str:
    """``module:name``, by which a fresh process finds the function again."""
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    try:
        found = getattr(importlib.import_module(module), name, None) if name.isidentifier() else None
    except (ImportError, ValueError):
        found = None
    if found is not function:
        raise MeasureError(
            f"model_factory must be a function that a fresh process can import by its name, got {function!r}"
        )
    return f"{module}:{name}"


def _measure_in_child(model: nn.Module, request: Mapping[str, Any]) -> dict[str, int]:
    """Run ``compress.measure.memory_child`` on ``model`` and read its report."""
    with tempfile.TemporaryDirectory(prefix="compress-memory-") as folder:
        saved, asked, answer = (Path(folder, name) for name in ("model.safetensors", "request.json", "report.json"))
        artifact.save(model, saved)
        asked.write_text(json.dumps({**request, "weights": str(saved), "report": str(answer)}), encoding="utf-8")
        sampled = _run_sampled([sys.executable, "-m", "compress.measure.memory_child", str(asked)], Path(folder))
        report: dict[str, int] = json.loads(answer.read_text(encoding="utf-8"))
    # The sampler sees the whole process from outside, at moments of its own: it can miss the peak, never exceed it.
    if sampled > report["process_peak_bytes"] * 1.02:
        raise MeasureError(
            f"the child's own peak of {report['process_peak_bytes']} resident bytes is below the {sampled} that"
            " memory-profiler sampled"
        )
    return {**report, "sampled_process_bytes": sampled}


def _run_sampled(command: list[str], folder: Path) -> int:
    """Run ``command`` to its end; the largest resident set that memory-profiler saw of it, in bytes."""
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    errors = folder / "stderr"
    with errors.open("wb") as stderr:
        child = subprocess.Popen(  # noqa: S603 - this interpreter, on this package's own module
            command,
            env={**os.environ, **_CHILD_ENVIRONMENT, "PYTHONPATH": paths},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        try:
            mebibytes = memory_profiler.memory_usage(
                child, interval=_SAMPLING_INTERVAL_S, timeout=CHILD_TIMEOUT_S, max_usage=True
            )
            hung = child.poll() is None
        finally:
            # Whatever happens, Ctrl-C included, the child does not outlive its measurement.
            if child.poll() is None:
                child.kill()
            child.wait()
    if hung:
        raise MeasureError(f"the child process that measures memory was stopped after {CHILD_TIMEOUT_S} s")
    if child.returncode != 0:
        raise MeasureError(f"the child process that measures memory {_epitaph(child.returncode, errors)}")
    return int(float(mebibytes) * 2**20)


def _epitaph(returncode: int, errors: Path) -> str:
    if returncode < 0:
        return f"was killed by signal {-returncode}" + (", as when memory runs out" if returncode == -9 else "")  # noqa: PLR2004 - SIGKILL
    lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"failed with status {returncode}: {lines[-1] if lines else 'no message'}"
