from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compress.calling.fidelity import snr_db
from compress.calling.inputs import inputs_of
from compress.exported import capture
from compress.quantization.kernels import pair_channels_
from compress.quantization.observed import calibrate_, converted, observed
from compress.quantization.static import quantize

SOUND = torch.randn(4, 16, 64, generator=torch.Generator().manual_seed(0))


def depthwise(channels: int = 16, kernel: int = 16, **settings: int) -> nn.Module:
    """A convolution over time, each channel for itself."""
    torch.manual_seed(0)
    conv = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels, **settings)
    return nn.Sequential(nn.Conv1d(16, channels, 1), conv, nn.ReLU()).eval()


def int8_graph(model: nn.Module) -> torch.fx.GraphModule:
    """Converted, not compiled."""
    graph = observed(capture(model, SOUND), observer="minmax", reduce_range=False)
    calibrate_(graph, [inputs_of(SOUND)], progress=False)
    return converted(graph)


def groups_of(graph: torch.fx.GraphModule) -> list[int]:
    """Of each convolution."""
    return [node.args[6] for node in graph.graph.nodes if node.target is torch.ops.aten.conv2d.default]


def test_sixteen_channels_of_a_wide_kernel_go_in_pairs(monkeypatch):
    """What comes out is the same: each channel's weight for its neighbour is zero."""
    model = depthwise()
    paired = int8_graph(model)
    assert groups_of(paired) == [1, 8]
    assert (2, 1, 16) in {tuple(tensor.shape[1:]) for tensor in paired.buffers() if tensor.dtype == torch.int8}
    monkeypatch.setattr("compress.quantization.observed.pair_channels_", lambda _: None)
    plain = int8_graph(model)
    assert groups_of(plain) == [1, 16]
    for count in (1, 3, 4):
        torch.testing.assert_close(paired(SOUND[:count]), plain(SOUND[:count]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [{"channels": 32}, {"channels": 8}, {"kernel": 13}])
def test_other_depthwise_convolutions_stay_as_they_are(settings):
    """Their kernels return."""
    assert groups_of(int8_graph(depthwise(**settings))) == [1, settings.get("channels", 16)]


def test_a_graph_in_float_stays_as_it_is():
    """There is no kernel of integers in it."""
    graph = observed(capture(depthwise(), SOUND), observer="minmax", reduce_range=False)
    before = copy.deepcopy(graph)
    pair_channels_(graph)
    assert groups_of(graph) == groups_of(before) == [1, 16]


@pytest.mark.nightly
def test_wide_depthwise_convolutions_run_in_int8():
    """Compiled they return, and put out what the float model does."""
    model = depthwise()
    quantized, report = quantize(model, SOUND, max_accuracy_drop=1.0)
    assert (report.int8_kernels, report.float_layers) == (2, ())
    with torch.no_grad():
        for count in (1, 3):
            assert snr_db(model(SOUND[:count]), quantized(SOUND[:count])) > 25
