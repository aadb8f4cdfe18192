from __future__ import annotations

import copy
import functools
import importlib
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from compress.errors import MeasureError
from compress.exported import ExportedModel, capture
from compress.exported.libraries import require_torchao
from compress.exported.model import dequantize_late_
from compress.measure import children, memory
from compress.measure.children import Conditions, RebuildError
from compress.measure.live_tensors import peak_live_bytes
from compress.pruning.structured import prune_channels
from compress.pruning.unstructured import prune_weights
from compress.system.cpu import cpu_class
from tests.workloads import tiny_net

HOG_BYTES = 64 * 2**20
ROWS = torch.zeros(1, 4)

# Lies where only this process's import path leads: a child finds it by that path alone.
NETS = """
import time

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, ending):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.hog_bytes = 0
        self.ending = ending

    def forward(self, x):
        if self.ending == "hangs":
            time.sleep(600)
        return self.layer(x) + torch.ones(self.hog_bytes // 4).sum()


def net(ending=""):
    return Net(ending)


class Home:
    net = staticmethod(lambda: Net(""))
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A module of networks that a fresh process can import."""
    (tmp_path / "measured_nets.py").write_text(NETS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "measured_nets", raising=False)
    return importlib.import_module("measured_nets")


def conditions(nets, ending=""):
    """The module's network."""
    return Conditions(model_factory=nets.net, model_args={"ending": ending}, example_input=ROWS)


def test_a_peak_shows_what_a_forward_pass_allocates(nets):
    """A model that fills 64 MiB while it runs peaks higher by that much than one that does not, in their order."""
    plain, hog = nets.net(), nets.net()
    hog.hog_bytes = HOG_BYTES
    measured = memory.cpu_memory(plain, hog, conditions(nets))
    assert measured.metric == "cpu_peak_bytes"
    assert measured.device == cpu_class(1)
    assert measured.compressed >= memory.model_bytes(plain)
    assert measured.dense - measured.compressed == pytest.approx(HOG_BYTES, rel=0.03)
    sampled = [measured.info[f"{model}_sampled_process_bytes"] for model in ("dense", "compressed")]
    assert min(sampled) > 2**20


def test_what_is_known_of_the_dense_model_is_not_measured_again(nets, monkeypatch):
    """One fresh process is started then, for the compressed model, and the dense one's figures are those given."""
    plain, hog = nets.net(), nets.net()
    hog.hog_bytes = HOG_BYTES
    known = memory.measure_in_child(hog, conditions(nets))
    measured_models = []

    def measure_in_child(model, _conditions):
        measured_models.append(model)
        return {**known, "peak_delta_bytes": 1}

    monkeypatch.setattr(memory, "measure_in_child", measure_in_child)
    measured = memory.cpu_memory(plain, hog, conditions(nets), known=known)
    assert measured_models == [plain]
    assert measured.dense == memory.model_bytes(hog) + known["peak_delta_bytes"]
    assert measured.compressed == memory.model_bytes(plain) + 1


def test_a_child_that_hangs_is_stopped(nets, monkeypatch):
    """After its time a child is killed and reaped, and the time is in the message."""
    started = []

    class Watched(subprocess.Popen):
        def __init__(self, *args, **settings) -> None:
            super().__init__(*args, **settings)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    monkeypatch.setattr(children, "TIMEOUT_S", 0.5)
    model = nets.net("hangs")
    with pytest.raises(MeasureError, match=r"^the child process that measures memory was stopped after 0\.5 s$"):
        memory.cpu_memory(model, model, conditions(nets, "hangs"))
    (child,) = started
    assert child.returncode == -9
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


@pytest.mark.parametrize(
    "make", [lambda _: lambda: nn.Linear(4, 4), lambda _: functools.partial(tiny_net), lambda n: n.Home.net]
)
def test_a_factory_that_no_fresh_process_finds_is_refused(nets, make):
    """A lambda, a partial or a member of a class has no name to import it by; no child is started for it."""
    unnamed = Conditions(model_factory=make(nets), example_input=ROWS)
    with pytest.raises(RebuildError, match=r"^model_factory must be a function that a fresh process can import by its"):
        memory.cpu_memory(tiny_net(), tiny_net(), unnamed)


def test_model_bytes_count_parameters_and_buffers_once():
    """Four bytes a float, eight a batch counter, nothing twice for what two layers share."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    model[1].weight = model[0].weight
    assert memory.model_bytes(model) == 4 * (9 + 3 + 3 + 3 + 3 + 3 + 3) + 8
    assert memory.model_bytes(nn.Linear(3, 3).half()) == 2 * 12


def test_a_cut_model_has_fewer_bytes():
    """Removed channels are bytes saved, in exact proportion to the elements left."""
    cut = prune_channels(tiny_net(), torch.zeros(1, 3, 8, 8), 0.4)
    tensors = [*cut.parameters(), *cut.buffers()]
    assert memory.model_bytes(cut) == sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert memory.model_bytes(cut) < memory.model_bytes(tiny_net())


def test_live_tensors_are_counted_the_same_everywhere():
    """Weights, the input, and the largest two activations that meet: to the byte, from one run to the next."""
    dense = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 8, bias=False))
    measured = memory.peak_tensor_bytes(dense[:2], dense, torch.zeros(2, 4))
    assert (measured.metric, measured.device) == ("peak_tensor_bytes", "")
    assert measured.dense == 4 * (16 + 32) + 4 * (8 + 8 + 16)
    assert measured.compressed == 4 * 16 + 4 * (8 + 8 + 8)


def test_masks_are_no_tensors_that_are_shipped():
    """A masked model takes what it takes once its zeros are plain, and keeps its masks."""
    model = nn.Sequential(nn.Linear(64, 64))
    masked = prune_weights(model, sparsity=0.5)
    measured = memory.peak_tensor_bytes(masked, model, torch.zeros(1, 64))
    assert measured.compressed == measured.dense
    assert len(list(masked.buffers())) == 1


class Integers(nn.Module):
    """Linear layers of integer weights, all made floats in front as in a captured int8 graph."""

    def __init__(self, layers) -> None:
        super().__init__()
        for number in range(layers):
            self.register_buffer(f"weight{number}", torch.full((64, 64), number + 1, dtype=torch.int8))

    def forward(self, x):
        dequantize = torch.ops.quantized_decomposed.dequantize_per_tensor
        for weight in [dequantize(stored, 0.01, 0, -128, 127, torch.int8) for stored in self.buffers()]:
            x = x @ weight
        return x


def test_integers_are_not_all_floats_at_once():
    """Of an int8 model those weights live as floats that a layer needs just then; it computes what it did before."""
    require_torchao()
    row = torch.ones(1, 64)
    int8 = ExportedModel(capture(Integers(6).eval(), row))
    measured = memory.peak_tensor_bytes(int8, int8, row)
    stored, weight, activations = 6 * 64 * 64, 4 * 64 * 64, 3 * 4 * 64
    assert stored + weight < measured.compressed <= stored + weight + activations
    assert peak_live_bytes(int8.graph, row) > stored + 6 * weight, "the model itself stays as it is"
    late = dequantize_late_(copy.deepcopy(int8))
    assert torch.equal(late.graph(row), int8.graph(row))


def test_live_tensors_of_a_training_model_leave_it_as_it_was():
    """Dropout and running statistics are neither measured nor moved."""
    model = tiny_net().train()
    before = model.features[1].num_batches_tracked.clone()
    memory.peak_tensor_bytes(model, model, torch.zeros(1, 3, 8, 8))
    assert model.training
    assert model.features[1].num_batches_tracked == before
