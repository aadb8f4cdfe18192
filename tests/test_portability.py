"""The matrix of classes of machine: which there are, what a cell reads, and that worse models are worse."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks import portability, worsened
from compress.errors import CompressError
from compress.models import googlenet
from compress.system import cpu
from tests.gate.samples import latency, top1


@pytest.fixture
def flags(monkeypatch):
    """Puts a processor's flags in the place of this one's."""
    return lambda text: monkeypatch.setattr(cpu, "_cpu_info", lambda: {"flags": text})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("avx2", ["default-SSE41", "default-AVX2", "avx2-SSE41", "avx2-AVX2"]),
        (
            "avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_int8",
            [
                *("default-SSE41", "default-AVX2", "avx2-SSE41", "avx2-AVX2"),
                *("avx512-AVX512_CORE", "avx512-AVX512_CORE_VNNI", "avx512-AVX512_CORE_BF16", "avx512-AVX512_CORE_AMX"),
            ],
        ),
    ],
)
def test_a_machine_stands_in_for_older_ones_only(flags, text, expected):
    """Bounds beyond what it has, or that it cannot tell apart, are left out."""
    flags(text)
    assert [machine.name for machine in portability.machines([])] == expected
    assert [machine.name for machine in portability.machines(["avx2-AVX2"])] == ["avx2-AVX2"]
    with pytest.raises(CompressError, match=r"a class must be one of default-SSE41, .*, got 'avx3'"):
        portability.machines(["avx3"])


def test_the_matrix_names_rows_columns_and_its_command():
    """Each cell in words; another exit status than held or regressed is said."""
    machine = portability.Machine(name="avx2-AVX2", environment={})
    cell = portability.Cell(red=1, undecided=0, held=5, status=4)
    cells = {("avx2-AVX2", "avx2-AVX2"): cell}
    text = portability.render([machine], {"": cells, "macs": cells}, "python x")
    table = (
        "| recorded under | compared under `avx2-AVX2` |\n"
        "| --- | --- |\n"
        "| `avx2-AVX2` | 1 red, 0 undecided, 5 held, exit status 4 |\n"
    )
    assert text == (
        "# The gate over classes of machine\n\n`python x`\n\n"
        f"## The models as they are\n\n{table}\n## Made worse on purpose: macs\n\n{table}"
    )


@pytest.mark.parametrize(
    ("worsened", "red", "status", "expected"),
    [("", 0, 0, True), ("", 1, 1, False), ("macs", 1, 1, True), ("macs", 0, 0, False), ("macs", 1, 4, False)],
)
def test_what_is_worse_must_be_red_and_nothing_else(worsened, red, status, expected):
    """A run that came to anything but held or regressed proves neither."""
    held = portability.Cell(red=red, undecided=0, held=5, status=status)
    worse = portability.Cell(red=1, undecided=0, held=5, status=1)
    cells = {("a", "a"): worse if worsened else held, ("a", "b"): held}
    assert portability.is_as_it_should_be(worsened, cells) is expected


def test_a_channel_more_runs_and_has_more_parameters():
    """The first pair of convolutions that can be widened, in a copy."""
    model = googlenet(num_classes=10, width=0.25).eval()
    before = sum(parameter.numel() for parameter in model.parameters())
    wider = worsened.one_channel_more(model)
    assert sum(parameter.numel() for parameter in wider.parameters()) > before
    assert sum(parameter.numel() for parameter in model.parameters()) == before
    with torch.no_grad():
        assert wider(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_a_point_more_error_is_five_of_five_hundred():
    """Examples that were right, and the error that they come to."""
    worse = worsened.more_errors(top1(range(10), range(10)))
    assert worse.compressed == pytest.approx(15 / 500)
    assert worse.correct[0] == top1(range(10), range(10)).correct[0]
    assert worsened.more_errors(without := dataclasses.replace(worse, correct=None)) is without


def test_a_sleeping_layer_takes_the_dense_models_time_more():
    """In every pair."""
    awake = latency(0.8)
    assert worsened.asleep(awake).ratio == pytest.approx(awake.ratio + 1, rel=0.05)


def test_the_worse_models_take_the_place_of_the_plugins(pytester):
    """Every test of the benchmarks can be set up with them: none outlives what it is made of."""
    tests = portability.project(pytester.path)
    result = pytester.runpytest(str(tests), "--setup-plan", "-q")
    assert "test_quality" in result.stdout.str()
    assert "ERROR at setup" not in result.stdout.str()
