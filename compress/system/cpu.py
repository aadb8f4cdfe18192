"""What this CPU is taken to be: what it has, less what the environment hides so that it stands in for an older one.

``ATEN_CPU_CAPABILITY`` bounds the kernels of PyTorch's own, ``ONEDNN_MAX_CPU_ISA`` those of oneDNN, which computes
convolutions and all of int8. Whoever chooses by the processor asks here, so that a run under these bounds does what it
would do on such a machine: its class, bfloat16 in training and the 7-bit activations of int8 all follow.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

from compress.errors import ConfigError

# What decides how fast a convolution can be; the first set that the processor has, has all that follow it.
# By the kernel's word for it, and what its class is called where that says too little.
_INSTRUCTION_SETS = {
    "amx_int8": "amx_int8",
    "avx512_vnni": "avx512_vnni",
    "avx512f": "avx512f",
    "avx2": "avx2",
    "sve": "sve",
    "i8mm": "armv8.6_i8mm",
    "asimddp": "armv8.2_dotprod",
    "asimd": "asimd",
}

_VENDORS: Mapping[str, str] = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}

_AVX2 = frozenset({"avx2"})
_AVX512 = _AVX2 | {"avx512f"}
_VNNI = _AVX512 | {"avx512_vnni"}
_BF16 = _VNNI | {"avx512_bf16"}
_AMX = _BF16 | {"amx_bf16", "amx_int8"}
# Of the flags that anything here asks for, those that a bound leaves.
_ONEDNN: Mapping[str, frozenset[str]] = {
    "SSE41": frozenset(),
    "AVX": frozenset(),
    "AVX2": _AVX2,
    "AVX2_VNNI": _AVX2,
    "AVX2_VNNI_2": _AVX2,
    "AVX512_CORE": _AVX512,
    "AVX512_CORE_VNNI": _VNNI,
    "AVX512_CORE_BF16": _BF16,
    "AVX512_CORE_FP16": _BF16,
    "AVX10_1_512": _BF16,
    "AVX512_CORE_AMX": _AMX,
    "AVX512_CORE_AMX_FP16": _AMX,
    "AVX10_1_512_AMX": _AMX,
    "AVX10_1_512_AMX_FP16": _AMX,
    "AVX10_2_512": _BF16,
    "AVX10_2_512_AMX_2": _AMX,
    "ALL": _AMX,
    "DEFAULT": _AMX,
}
_ATEN: Mapping[str, frozenset[str]] = {"default": frozenset(), "avx2": _AVX2, "avx512": _AMX}


def cpu_class(threads: int) -> str:
    """``cpu-avx512_vnni-amd26.2-2t``: the widest instruction set that matters here, the processor, the threads used.

    The processor is its vendor, family and model, or on Arm implementer and part: of two that have the same
    instructions, one may multiply in integers twice as fast. Where PyTorch's own kernels are bounded further than
    oneDNN's, both are named: ``cpu-avx2-aten_default-amd26.2-2t``.

    Raises:
        ConfigError: if a bound is unknown.
    """
    onednn = _flags() - _hidden_by("ONEDNN_MAX_CPU_ISA", _ONEDNN)
    both = onednn - _hidden_by("ATEN_CPU_CAPABILITY", _ATEN)
    aten = "" if _aten_level(both) == _aten_level(onednn) else f"-aten_{_aten_level(both)}"
    info = _cpu_info()
    return "-".join(["cpu", f"{_widest(onednn, platform.machine())}{aten}", *_processor(info), f"{threads}t"])


def class_of(info: Mapping[str, str], machine: str, threads: int) -> str:
    """The class of another machine, whose first processor's entries of /proc/cpuinfo these are.

    Args:
        info: as read there; nothing is hidden from it.
        machine: as ``uname -m`` calls it, which names it where no instruction set does.
        threads: used there.
    """
    return "-".join(["cpu", _widest(_flags_in(info), machine), *_processor(info), f"{threads}t"])


def cpu_name() -> str:
    """The processor's own name."""
    return _cpu_info().get("model name", platform.processor() or platform.machine())


def has_bfloat16(info: Mapping[str, str] | None = None) -> bool:
    """Whether a CPU computes in bfloat16; emulated it is many times slower than float32.

    Args:
        info: another machine's, as in :func:`class_of`; None for this one.

    Raises:
        ConfigError: if a bound is unknown.
    """
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_features() if info is None else _flags_in(info))


def has_vnni() -> bool:
    """Whether this CPU multiplies 8-bit integers without overflow.

    Without VNNI, pairs of products are added in 16 bits, which 8-bit activations overflow.

    Raises:
        ConfigError: if a bound is unknown.
    """
    return not {"avx512_vnni", "amx_int8"}.isdisjoint(_features())


def _features() -> frozenset[str]:
    """The processor's flags that no bound hides."""
    return _flags() - _hidden_by("ONEDNN_MAX_CPU_ISA", _ONEDNN) - _hidden_by("ATEN_CPU_CAPABILITY", _ATEN)


def _hidden_by(variable: str, bounds: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The flags that the bound in an environment variable hides; none without one."""
    value = os.environ.get(variable, "")
    if not value:
        return frozenset()
    left = {name.lower(): flags for name, flags in bounds.items()}.get(value.lower())
    # Both libraries would pass over a word they do not know, and the run would not be what its name says.
    if left is None:
        raise ConfigError(f"{variable} must be one of {', '.join(bounds)}, got {value!r}")
    return _AMX - left


def _processor(info: Mapping[str, str]) -> tuple[str, ...]:
    """Which processor it is, in one word; none where the system does not say."""
    if "vendor_id" in info and "model" in info:
        vendor = _VENDORS.get(info["vendor_id"], info["vendor_id"].lower())
        return (f"{vendor}{info.get('cpu family', '')}.{info['model']}",)
    if "CPU part" in info:
        return (f"arm{info.get('CPU implementer', '')}.{info['CPU part']}".replace("0x", ""),)
    return ()


def _widest(flags: frozenset[str], machine: str) -> str:
    return next((name for flag, name in _INSTRUCTION_SETS.items() if flag in flags), machine)


def _aten_level(flags: frozenset[str]) -> str:
    """Which of its own kernels PyTorch runs with these flags."""
    return next((name for name, flag in (("avx512", "avx512f"), ("avx2", "avx2")) if flag in flags), "default")


def _flags() -> frozenset[str]:
    return _flags_in(_cpu_info())


def _flags_in(info: Mapping[str, str]) -> frozenset[str]:
    return frozenset((info.get("flags") or info.get("Features") or "").split())


def _cpu_info() -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo; empty where there is no such file."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {}
    entries = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in entries}
