"""Which machine this is, in the words by which figures of the same class of device are found again."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from compress.results import Environment

# What decides how fast a convolution can be; the first set that the processor has, has all that follow it.
_INSTRUCTION_SETS = ("amx_int8", "avx512_vnni", "avx512f", "avx2", "sve", "asimd")


def environment(threads: int) -> Environment:
    """This process's machine and versions, for CPU figures taken with ``threads`` threads."""
    has_cuda = torch.cuda.is_available()
    return Environment(
        python=platform.python_version(),
        torch=torch.__version__,
        cpu=_cpu_info().get("model name", platform.processor() or platform.machine()),
        cpu_class=cpu_class(threads),
        cuda_class=cuda_class() if has_cuda else None,
        gpu=torch.cuda.get_device_name() if has_cuda else None,
    )


def cpu_class(threads: int) -> str:
    """``cpu-avx512_vnni-2t``: the widest instruction set that matters here, and the threads used."""
    info = _cpu_info()
    flags = (info.get("flags") or info.get("Features") or "").split()
    isa = next((name for name in _INSTRUCTION_SETS if name in flags), platform.machine())
    return f"cpu-{isa}-{threads}t"


def cuda_class() -> str:
    """``cuda-sm90``: the compute capability of the current CUDA device."""
    major, minor = torch.cuda.get_device_capability()
    return f"cuda-sm{major}{minor}"


def _cpu_info() -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo; empty where there is no such file."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {}
    entries = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in entries}
