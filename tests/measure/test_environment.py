from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from compress.measure import environment as module
from compress.measure.environment import cpu_class, environment

ZEN5 = """processor\t: 0
model name\t: AMD EPYC 9B45
flags\t\t: fpu sse2 avx avx2 avx512f avx512_vnni

processor\t: 1
model name\t: another
flags\t\t: fpu
"""


@pytest.fixture
def cpuinfo(monkeypatch, tmp_path):
    """Puts a text in the place of /proc/cpuinfo."""

    def fake(text: str | None) -> None:
        path = tmp_path / "cpuinfo"
        if text is not None:
            path.write_text(text, encoding="utf-8")
        monkeypatch.setattr(module, "Path", lambda asked: path if asked == "/proc/cpuinfo" else Path(asked))

    return fake


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu sse2 avx avx2 avx512f avx512_vnni amx_tile amx_int8", "cpu-amx_int8-2t"),
        ("flags : avx512_vnni avx512f avx2", "cpu-avx512_vnni-2t"),
        ("flags : avx2 avx512f", "cpu-avx512f-2t"),
        ("flags : avx avx2 fma", "cpu-avx2-2t"),
        ("Features : fp asimd sve", "cpu-sve-2t"),
        ("Features : fp asimd", "cpu-asimd-2t"),
    ],
)
def test_the_widest_instruction_set_names_the_class(cpuinfo, flags, expected):
    """What matters for convolutions is found among the flags, whole words, whatever their order."""
    cpuinfo(f"processor : 0\n{flags}\n")
    assert cpu_class(2) == expected


@pytest.mark.parametrize("text", [None, "", "flags : fpu sse2 avx512fp16 avx2ish\n"])
def test_an_unknown_processor_is_named_by_its_architecture(cpuinfo, text):
    """No such file, an empty one, or flags that only look alike: the machine's architecture stands for the class."""
    cpuinfo(text)
    assert cpu_class(1) == f"cpu-{platform.machine()}-1t"


def test_the_first_processor_speaks_for_all(cpuinfo):
    """Name and class are those of the first processor's entry."""
    cpuinfo(ZEN5)
    assert environment(4).cpu == "AMD EPYC 9B45"
    assert environment(4).cpu_class == "cpu-avx512_vnni-4t"


def test_versions_are_those_of_this_process(cpuinfo):
    """Python and torch are named as they run here; a processor without a name gets the platform's."""
    cpuinfo(None)
    here = environment(1)
    assert (here.python, here.torch) == (platform.python_version(), torch.__version__)
    assert here.cpu == (platform.processor() or platform.machine())


def test_a_cuda_device_is_named_by_its_compute_capability(monkeypatch):
    """``cuda-sm90`` and the device's own name, as torch tells them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    assert (environment(1).cuda_class, environment(1).gpu) == ("cuda-sm90", "NVIDIA H100")


def test_without_a_cuda_device_there_is_no_class_of_it(monkeypatch):
    """None, not an empty string or another device's name."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (environment(1).cuda_class, environment(1).gpu) == (None, None)
