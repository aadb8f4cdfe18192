from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.calling.inputs import inputs_of
from compress.exported import capture
from compress.quantization.equalization import equalize_, equalizing_scales
from compress.quantization.observed import folded
from tests.nets import Net, conv, conv_bn, head, lively, pooled

X = torch.randn(8, 3, 10, 10, generator=torch.Generator().manual_seed(0))
BATCHES = [inputs_of(X)]


def ready(model: nn.Module) -> nn.Module:
    """In float32 and eval mode, as different from channel to channel as after training."""
    return lively(model).float().eval()


def graph_of(model: nn.Module):
    """Captured, batch norms folded."""
    return folded(capture(model, BATCHES[0], alike=BATCHES))


NETS = {
    "depthwise": lambda: nn.Sequential(conv_bn(3, 8), conv_bn(8, 8, groups=8), conv(8, 4)),
    "dense": lambda: nn.Sequential(conv_bn(3, 8), conv(8, 4, 3)),
    "linear": lambda: nn.Sequential(
        conv_bn(3, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)
    ),
    "no bias": lambda: nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False)),
}


@pytest.mark.parametrize("name", NETS)
def test_the_float_model_stays_what_it_is(name):
    """Outputs are the same, though weights are not."""
    torch.manual_seed(0)
    model = ready(NETS[name]())
    graph = graph_of(model)
    scales = equalizing_scales(graph, BATCHES)
    assert scales
    before = {name: tensor.clone() for name, tensor in graph.named_parameters()}
    equalize_(graph, scales)
    # Those of the program stay: graphs are built from it again.
    assert all(tensor.equal(before[name]) for name, tensor in graph.named_parameters() if name in before)
    assert graph.graph.find_nodes(op="get_attr", target=next(reversed(dict(graph.named_parameters()))))
    with torch.no_grad():
        assert torch.allclose(graph(X), model(X), rtol=1e-4, atol=1e-5)


def test_channels_into_a_depthwise_layer_come_to_one_range():
    """Whatever they were."""
    torch.manual_seed(0)
    model = ready(NETS["depthwise"]())
    graph = graph_of(model)
    equalize_(graph, equalizing_scales(graph, BATCHES))
    again = equalizing_scales(graph, BATCHES)
    first = next(iter(again))
    assert torch.allclose(again[first], torch.ones(8), rtol=1e-3)


def test_nothing_is_moved_across_what_is_not_homogeneous_or_read_elsewhere():
    """A bounded activation, a sum with something else, two readers: all stay."""
    bounded = ready(nn.Sequential(conv(3, 8), nn.ReLU6(), conv(8, 4)))
    added = ready(Net(lambda n, x: n.b(n.a(x) + 1.0), a=conv(3, 8), b=conv(8, 4)))
    twice = ready(Net(lambda n, x: n.h(pooled(n.b(n.a(x)) + n.c(n.a(x)))), a=conv(3, 8), b=conv(8, 4), c=conv(8, 4),
                      h=head(4)))  # fmt: skip
    branches = ready(Net(lambda n, x: _both(n, n.a(x)), a=conv(3, 8), b=conv(8, 4), c=conv(8, 4)))
    for model in (bounded, added, twice, branches):
        graph = graph_of(model)
        assert not [name for name in equalizing_scales(graph, BATCHES) if name == "conv2d"]


def _both(n: Net, y: torch.Tensor) -> torch.Tensor:
    return n.b(y) + n.c(y)


def test_dead_channels_are_left():
    """There is nothing to bring to a range; no division by zero."""
    torch.manual_seed(0)
    model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8, 3, groups=8)).eval()
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0.0, -1.0
    graph = graph_of(model)
    scales = equalizing_scales(graph, BATCHES)
    assert scales["conv2d"][2] == 1
    equalize_(graph, scales)
    with torch.no_grad():
        assert torch.allclose(graph(X), model(X), rtol=1e-4, atol=1e-5)
