from __future__ import annotations

import platform
from pathlib import Path

import pytest

from compress.errors import ConfigError
from compress.system import cpu
from compress.system.cpu import cpu_class, cpu_name, has_bfloat16, has_vnni

ZEN5 = """processor\t: 0
model name\t: AMD EPYC 9B45
flags\t\t: fpu sse2 avx avx2 avx512f avx512_vnni avx512_bf16

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
XEON = "model name: Xeon\nflags: fpu sse2 avx avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8\n"


@pytest.fixture
def cpuinfo(monkeypatch, tmp_path):
    """Puts a text in the place of /proc/cpuinfo, on a machine whose environment hides nothing of it."""
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)

    def fake(text: str | None) -> None:
        path = tmp_path / "cpuinfo"
        if text is not None:
            path.write_text(text, encoding="utf-8")
        monkeypatch.setattr(cpu, "Path", lambda asked: path if asked == "/proc/cpuinfo" else Path(asked))

    return fake


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu sse2 avx avx2 avx512f avx512_vnni amx_tile amx_int8", "cpu-amx_int8-2t"),
        ("flags : avx512_vnni avx512f avx2", "cpu-avx512_vnni-2t"),
        ("flags : avx2 avx512f", "cpu-avx512f-2t"),
        ("flags : avx avx2 fma", "cpu-avx2-2t"),
        ("Features : fp asimd sve", "cpu-sve-2t"),
        ("Features : fp asimd asimddp i8mm", "cpu-armv8.6_i8mm-2t"),
        ("Features : fp asimd asimddp", "cpu-armv8.2_dotprod-2t"),
        ("Features : fp asimd", "cpu-asimd-2t"),
    ],
)
def test_the_widest_instruction_set_names_the_class(cpuinfo, flags, expected):
    """What matters for convolutions is found among the flags, whole words, whatever their order."""
    cpuinfo(f"processor : 0\n{flags}\n")
    assert cpu_class(2) == expected


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ("vendor_id : AuthenticAMD\ncpu family : 26\nmodel : 2\nmodel name : AMD EPYC", "cpu-avx2-amd26.2-1t"),
        ("vendor_id : GenuineIntel\ncpu family : 6\nmodel : 143", "cpu-avx2-intel6.143-1t"),
        ("vendor_id : HygonGenuine\ncpu family : 24\nmodel : 0", "cpu-avx2-hygongenuine24.0-1t"),
        ("CPU implementer : 0x41\nCPU architecture: 8\nCPU part : 0xd0c", "cpu-avx2-arm41.d0c-1t"),
        ("model name : unknown", "cpu-avx2-1t"),
    ],
)
def test_two_processors_of_the_same_instructions_are_two_classes(cpuinfo, entries, expected):
    """What a ratio of times is on one, it need not be on the other."""
    cpuinfo(f"{entries}\nflags : fpu avx2\n")
    assert cpu_class(1) == expected


@pytest.mark.parametrize("text", [None, "", "flags : fpu sse2 avx512fp16 avx2ish\n"])
def test_an_unknown_processor_is_named_by_its_architecture(cpuinfo, text):
    """No such file, an empty one, or flags that only look alike: the machine's architecture stands for the class."""
    cpuinfo(text)
    assert cpu_class(1) == f"cpu-{platform.machine()}-1t"
    assert not has_bfloat16()
    assert not has_vnni()


def test_the_first_processor_speaks_for_all(cpuinfo):
    """Name and class are those of the first processor's entry; without a name, the platform's."""
    cpuinfo(ZEN5)
    assert (cpu_name(), cpu_class(4)) == ("AMD EPYC 9B45", "cpu-avx512_vnni-4t")
    cpuinfo("")
    assert cpu_name() == (platform.processor() or platform.machine())


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx2 avx512f", False), ("fpu avx512_bf16 avx2", True), ("amx_bf16", True), ("xavx512_bf16x", False)],
)
def test_bfloat16_is_known_by_the_processors_flags(cpuinfo, flags, expected):
    """Only a processor that names a bfloat16 instruction set has it natively."""
    cpuinfo(f"flags\t\t: {flags}\n")
    assert has_bfloat16() is expected


BARE = platform.machine()


@pytest.mark.parametrize(
    ("isa", "expected"),
    [
        ("", ("amx_int8", True, True)),
        ("DEFAULT", ("amx_int8", True, True)),
        ("AVX512_CORE_AMX", ("amx_int8", True, True)),
        ("AVX512_CORE_BF16", ("avx512_vnni", True, True)),
        ("AVX512_CORE_VNNI", ("avx512_vnni", True, False)),
        ("avx512_core_vnni", ("avx512_vnni", True, False)),
        ("AVX512_CORE", ("avx512f", False, False)),
        ("AVX2", ("avx2", False, False)),
        ("SSE41", (BARE, False, False)),
    ],
)
@pytest.mark.parametrize("aten", ["", "avx512"])
def test_onednns_bound_hides_what_an_older_machine_lacks(cpuinfo, monkeypatch, aten, isa, expected):
    """Class, bfloat16 and the overflow of int8 are those of the older machine."""
    cpuinfo(XEON)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", aten)
    assert (cpu_class(2), has_vnni(), has_bfloat16()) == (f"cpu-{expected[0]}-2t", *expected[1:])


@pytest.mark.parametrize(
    ("aten", "isa", "expected"),
    [
        ("default", "", "amx_int8-aten_default"),
        ("avx2", "", "amx_int8-aten_avx2"),
        ("avx2", "AVX512_CORE", "avx512f-aten_avx2"),
        ("avx2", "AVX2", "avx2"),
        ("default", "AVX2", "avx2-aten_default"),
        ("default", "SSE41", BARE),
    ],
)
def test_a_bound_on_torchs_own_kernels_alone_is_named(cpuinfo, monkeypatch, aten, isa, expected):
    """Two machines whose kernels differ are two classes; both bounds of one age give the class of that age."""
    cpuinfo(XEON)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", aten)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    assert cpu_class(1) == f"cpu-{expected}-1t"
    assert not has_vnni()
    assert not has_bfloat16()


def test_a_bound_adds_nothing(cpuinfo, monkeypatch):
    """A machine does not become a newer one."""
    cpuinfo("flags: avx avx2\n")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx512")
    assert cpu_class(1) == "cpu-avx2-1t"
    assert not has_vnni()


@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"])
@pytest.mark.parametrize("ask", [lambda: cpu_class(1), has_vnni, has_bfloat16])
def test_an_unknown_bound_is_refused(cpuinfo, monkeypatch, variable, ask):
    """The library would pass over it without a word, and figures would stand under a wrong name."""
    cpuinfo(XEON)
    monkeypatch.setenv(variable, "AVX3")
    with pytest.raises(ConfigError, match=rf"^{variable} must be one of .*(SSE41|avx2).*, got 'AVX3'$"):
        ask()
