"""What NVIDIA's management library knows of a GPU: its clocks, its power cap, what slows it down, who else uses it.

Optional: ``pip install pytest-compress[cuda]``. Without it these remain unknown, and a note says so.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

# Bits of NVML's "clocks event reasons"; what holds the clocks below what the model could have.
_REASONS = {
    0x02: "application clocks are set",
    0x04: "power cap",
    0x08: "hardware slow-down",
    0x10: "sync boost",
    0x20: "software thermal slow-down",
    0x40: "hardware thermal slow-down",
    0x80: "power brake",
    0x100: "display clocks are set",
}


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """A GPU at one moment.

    Attributes:
        sm_clock_mhz, memory_clock_mhz: as they are now.
        power_limit_w: what the board may draw.
        slowed_by: what holds the clocks down, in words.
        num_others: how many other processes compute on it.
    """

    sm_clock_mhz: float
    memory_clock_mhz: float
    power_limit_w: float
    slowed_by: tuple[str, ...]
    num_others: int


def load_nvml() -> ModuleType | None:
    """The library's Python module, None where it is not installed."""
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None


def gpu_state(nvml: Any, uuid: str) -> GpuState | str:
    """The state of one GPU, or why it cannot be known.

    Args:
        nvml: NVIDIA's module ``pynvml``.
        uuid: of the GPU, as CUDA gives it, with or without ``GPU-``.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return f"NVML does not answer: {error}"
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
        bits = int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        return GpuState(
            sm_clock_mhz=float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            memory_clock_mhz=float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
            power_limit_w=nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3,
            slowed_by=tuple(text for bit, text in _REASONS.items() if bits & bit),
            num_others=_num_others([entry.pid for entry in nvml.nvmlDeviceGetComputeRunningProcesses(handle)]),
        )
    except nvml.NVMLError as error:
        return f"NVML does not answer: {error}"
    finally:
        nvml.nvmlShutdown()


def _num_others(pids: list[int]) -> int:
    """How many of the processes on a GPU are not this one.

    This process is on it by then, and is counted whether it is listed under its own number or, as from within a
    container, under one that it does not know. Some drivers list nobody to a container.
    """
    return max(0, len(set(pids)) - 1)
