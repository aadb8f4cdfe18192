"""Packages of AOTInductor: compiled once, found again, run by whoever needs them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from compress.calling.inputs import inputs_of
from compress.errors import ModelError
from compress.exported import packages
from compress.exported.packages import Package, package_of


def net(scale=1.0):
    """Small, for compiling takes seconds."""
    torch.manual_seed(0)
    linear = nn.Linear(4, 3)
    with torch.no_grad():
        linear.weight.mul_(scale)
    return nn.Sequential(linear, nn.ReLU()).eval()


@pytest.fixture
def compiles(monkeypatch):
    """The files that are compiled from now on; what is compiled is a file, but no package."""
    made = []

    def compile_to(_program, *, package_path, inductor_configs):
        assert inductor_configs["freezing"]
        made.append(package_path)
        Path(package_path).write_bytes(b"PK\x05\x06" + bytes(18))

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compile_to)
    return made


@pytest.mark.nightly
def test_a_package_computes_what_the_model_does(tmp_path):
    """For one input and for several at once; unpacked where it is told to be, and nowhere else."""
    model, inputs = net(), torch.randn(2, 4)
    before = os.environ.get("TMPDIR")
    package = Package(package_of(model, inputs_of(inputs)), tmp_path)
    assert os.environ.get("TMPDIR") == before
    with torch.inference_mode():
        assert package(inputs).sub(model(inputs)).abs().max() < 1e-6
    assert list(tmp_path.iterdir())


def test_a_model_is_compiled_once(compiles):
    """The same weights in the same graph, built again, are found; nothing is left beside the package."""
    first, second = (package_of(net(), inputs_of(torch.ones(1, 4))) for _ in range(2))
    assert first == second
    assert len(compiles) == 1
    assert [path.name for path in first.parent.iterdir()] == [first.name]


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (net(scale=2.0), torch.ones(1, 4)),
        (nn.Sequential(net()[0], nn.GELU()).eval(), torch.ones(1, 4)),
        (net(), torch.ones(2, 4)),
        (net(), torch.ones(4, 1).T),
        (net().double(), torch.ones(1, 4, dtype=torch.float64)),
    ],
    ids=["weights", "graph", "batch", "strides", "type"],
)
def test_what_the_code_depends_on_makes_another_package(compiles, model, inputs):
    """Weights are constants of the code, and so are sizes and strides."""
    assert package_of(net(), inputs_of(torch.ones(1, 4))) != package_of(model, inputs_of(inputs))
    assert len(compiles) == 2


def test_another_number_of_threads_is_another_package(compiles):
    """Code for one thread has no parallel loops."""
    paths = set()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        paths.add(package_of(net(), inputs_of(torch.ones(1, 4))))
    assert len(paths) == len(compiles) == 2


def test_a_damaged_package_is_made_anew(compiles):
    """A cache may be cut off by a full disk."""
    path = package_of(net(), inputs_of(torch.ones(1, 4)))
    path.write_bytes(path.read_bytes()[:4])
    assert package_of(net(), inputs_of(torch.ones(1, 4))) == path
    assert len(compiles) == 2


def test_a_cache_that_cannot_be_written_is_told(compiles, tmp_path, monkeypatch):
    """Before minutes of compiling."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=rf"^cannot make the cache folder {re.escape(str(tmp_path))}.*: Not a"):
        package_of(net(), inputs_of(torch.ones(1, 4)))
    assert compiles == []


def test_the_package_that_was_not_used_for_longest_goes(compiles, monkeypatch):
    """A use counts as much as a compilation; models that were trained or compressed stay."""
    monkeypatch.setattr(packages, "KEPT_BYTES", 2 * 22)
    first, second = (package_of(net(scale=scale), inputs_of(torch.ones(1, 4))) for scale in (1.0, 2.0))
    for age, path in enumerate((second, first)):
        os.utime(path, (10_000 - age, 10_000 - age))
    trained = first.with_name("trained.safetensors")
    trained.write_bytes(bytes(1000))
    package_of(net(), inputs_of(torch.ones(1, 4)))
    third = package_of(net(scale=3.0), inputs_of(torch.ones(1, 4)))
    assert sorted(first.parent.iterdir()) == sorted([first, third, trained])
    assert len(compiles) == 3
