from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.calling.inputs import inputs_of
from compress.quantization import rungs, search
from compress.quantization.rungs import adaptive_roundings, corrected_biases, squared_error_ranges
from compress.quantization.search import Found
from compress.quantization.tuning import Tuning, bias_of, weight_of
from tests.nets import conv_bn, head, lively

X = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def prepared(model: nn.Module, x: torch.Tensor = X) -> Found:
    """Calibrated on ``x``."""
    model = model.eval()
    return search.prepare(model, model, [inputs_of(x)], "histogram", progress=False)


def missed(found: Found, model: nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    """How far the simulated outputs are from the float model's."""
    with torch.no_grad():
        return found.simulation(x) - model(x)


def test_a_range_leaves_out_what_rounding_the_rest_finely_is_worth():
    """One far weight among many is cut off where that lessens the error, and no channel is rounded worse."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 4))
    with torch.no_grad():
        model[1].weight[1] = model[1].weight[1].sign() * 0.0501
        model[1].weight[1, 0] = 0.06
    found = prepared(model)
    (ranges,) = squared_error_ranges(found.simulation).values()
    observer = rungs._observer(found.simulation.graph, found.simulation.layers[0])
    shares = ranges[1] / observer.max_val
    weight = model[1].weight.detach()
    before = (rungs._rounded(weight, observer) - weight).square().sum(1)
    observer.min_val, observer.max_val = ranges
    after = (rungs._rounded(weight, observer) - weight).square().sum(1)
    assert (after <= before).all()
    assert after[1] < before[1]
    assert shares[1] < 1


def test_the_shift_of_each_channels_mean_is_taken_out():
    """Layer after layer, so that the outputs' means are the float model's on these inputs."""
    torch.manual_seed(0)
    model = lively(
        nn.Sequential(conv_bn(4, 8), conv_bn(8, 8, groups=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(8))
    ).float()
    found = prepared(model)
    biases = corrected_biases(found.simulation, found.simulation, inputs_of(X))
    better = search.retuned(found, Tuning(biases=biases))
    assert missed(better, model).mean(0).norm() < 0.5 * missed(found, model).mean(0).norm()
    again = corrected_biases(better.simulation, search.reference(better), inputs_of(X))
    assert all(torch.allclose(bias, biases[name], atol=1e-3) for name, bias in again.items())


def test_chance_is_no_shift():
    """Of layers whose means differ by no more than noise, nothing is changed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 3, bias=False))
    x = torch.randn(4, 256, generator=torch.Generator().manual_seed(1))
    found = prepared(model, x)
    biases = corrected_biases(found.simulation, found.simulation, inputs_of(x))
    assert sum(int(bias.count_nonzero()) for bias in biases.values()) <= 1


def test_a_layer_without_bias_gets_one():
    """The int8 model too, and the float weight of no layer changes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False)).eval()
    weight = model[0].weight.detach().clone()
    found = prepared(model)
    tuned = search.retuned(found, Tuning(biases={found.simulation.layers[0].node: torch.arange(4.0)}))
    assert bias_of(tuned.simulation.graph, tuned.simulation.layers[0]).tolist() == [0, 1, 2, 3]
    assert missed(tuned, model).mean((0, 2, 3)).tolist() == pytest.approx([0, 1, 2, 3], abs=0.02)
    with torch.no_grad():
        assert torch.allclose(search.built(tuned, 0).graph(X), tuned.simulation(X), atol=1e-4)
    assert model[0].weight.equal(weight)


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(4, 6, 3), nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(4, 8, 3, stride=2, padding=1, dilation=2, groups=2)],
    ids=["dense", "depthwise", "grouped"],
)
def test_weights_are_rounded_up_or_down_for_the_outputs(layer):
    """Each becomes one of two neighbours on the grid, for the outputs' sake where inputs have much in common."""
    torch.manual_seed(0)
    layer.reset_parameters()
    weight = layer.weight.detach().clone()
    x = X.cumsum(1)  # inputs that have much in common, which is what there is to gain by
    found = prepared(nn.Sequential(layer), x)
    (name,) = [one.node for one in found.simulation.layers]
    found_weights = adaptive_roundings(found.simulation, found.batches, found.simulation.layers)
    rounded = found_weights[name]
    scale, _ = rungs._observer(found.simulation.graph, found.simulation.layers[0]).calculate_qparams()
    steps = scale.reshape(-1, 1, 1, 1)
    assert torch.allclose(rounded / steps, (rounded / steps).round(), atol=1e-3)
    assert ((rounded - weight).abs() <= steps * 1.001).all()
    nearest = (weight / steps).round() * steps
    with torch.no_grad():
        bias = layer.bias.clone()
        ours, plain = (_varying(layer._conv_forward(x, one - weight, 0 * bias)) for one in (rounded, nearest))
    assert (ours <= plain * 1.15).all()
    assert ours.sum() < (0.8 if layer.groups == 1 else 1.05) * plain.sum()
    tuned = search.retuned(found, Tuning(weights=found_weights))
    assert weight_of(tuned.simulation.graph, tuned.simulation.layers[0]).equal(rounded)
    assert layer.weight.equal(weight)


def _varying(y: torch.Tensor) -> torch.Tensor:
    """The variance of each channel."""
    return y.transpose(0, 1).flatten(1).var(1)


def test_weights_that_are_read_twice_stay():
    """The other call would get them too."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x).relu())

    torch.manual_seed(0)
    found = prepared(Twice())
    assert [weight_of(found.simulation.graph, layer) for layer in found.simulation.layers] == [None, None]
    assert adaptive_roundings(found.simulation, found.batches, found.simulation.layers) == {}
    assert squared_error_ranges(found.simulation) == {}
