"""The child process in which :func:`compress.measure.memory.cpu_memory` measures one model; no part of the API."""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARMUP_CALLS = 3
# The kernel's counters lag by up to some hundred kilobytes on each core; the median of several rounds does not.
ROUNDS = 9


def main(request_path: str) -> None:
    """Measure what the request file asks for, and write the report it names."""
    request: dict[str, Any] = json.loads(Path(request_path).read_text(encoding="utf-8"))
    # The parent's import path, so that a factory defined beside its tests is found here too.
    sys.path.extend(entry for entry in request["path"] if entry not in sys.path)

    import torch  # noqa: PLC0415 - only once the path is the parent's

    from compress import artifact  # noqa: PLC0415

    torch.set_num_threads(1)
    module, _, name = request["factory"].partition(":")
    factory = getattr(importlib.import_module(module), name)
    model = artifact.load(request["weights"], lambda: factory(**request["args"])).eval()
    inputs = torch.zeros(request["shape"], dtype=getattr(torch, request["dtype"]))
    with torch.inference_mode():
        for _ in range(WARMUP_CALLS):
            model(inputs)
        process_peak = _status_bytes("VmHWM")
        deltas = [_peak_delta_bytes(lambda: model(inputs)) for _ in range(ROUNDS)]
    process_peak = max(process_peak, _status_bytes("VmHWM"))
    report = {"peak_delta_bytes": int(statistics.median(deltas)), "process_peak_bytes": process_peak}
    Path(request["report"]).write_text(json.dumps(report), encoding="utf-8")
    # Taking the interpreter down touches pages of its own, which the sampler outside would take for the model's.
    os._exit(0)


def _peak_delta_bytes(call: Callable[[], object]) -> int:
    """How far the resident set rises above where it stands now, while ``call`` runs."""
    # Writing 5 resets the high-water mark to what is resident now (man 5 proc_pid_clear_refs).
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status_bytes("VmRSS")
    call()
    return max(0, _status_bytes("VmHWM") - before)


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}; CPU memory is measured on Linux only")


if __name__ == "__main__":
    main(sys.argv[1])
