from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from compress.exported import capture
from compress.quantization.canonical import canonical_
from compress.quantization.folding import foldable_norms
from compress.quantization.observed import operations_of
from tests.nets import Net, conv, head, pooled

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Product(nn.Module):
    """A layer written as a product, its weight ``[in, out]`` as Hugging Face's Conv1D has it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.weight, self.bias = how, nn.Parameter(torch.randn(3, 6)), nn.Parameter(torch.randn(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "addmm":
            return torch.addmm(self.bias, x.reshape(-1, 3), self.weight).view(*x.shape[:-1], 6)
        if self.how == "mm":
            return torch.mm(x.flatten(0, -2), self.weight)
        return x @ self.weight + self.bias


def graph_of(model: nn.Module) -> torch.fx.GraphModule:
    """The model's graph, rewritten."""
    graph = operations_of(capture(model.eval(), IMAGES))
    canonical_(graph)
    return graph


def same(graph: torch.fx.GraphModule, model: nn.Module) -> None:
    """It computes what the model does, at other batch sizes too."""
    with torch.no_grad():
        for count in (1, 3, 4):
            torch.testing.assert_close(graph(IMAGES[:count]), model(IMAGES[:count]), rtol=1e-4, atol=1e-5)


def count(graph: torch.fx.GraphModule, operation: object) -> int:
    """How often the graph calls an operation."""
    return sum(node.target is operation for node in graph.graph.nodes)


@pytest.mark.parametrize("how", ["addmm", "mm", "matmul"])
def test_a_product_with_a_constant_matrix_is_a_linear_layer(how):
    """In whatever way it is written."""
    model = Net(lambda n, x: n.p(x.permute(0, 2, 3, 1)), p=Product(how))
    graph = graph_of(model)
    assert count(graph, torch.ops.aten.linear.default) == 1
    same(graph, model)


def test_a_product_of_two_activations_stays_one():
    """As attention has them."""
    model = Net(lambda n, x: n.a(x).flatten(2) @ n.a(x).flatten(2).transpose(1, 2), a=conv(3, 4))
    graph = graph_of(model)
    assert (count(graph, torch.ops.aten.linear.default), count(graph, torch.ops.aten.matmul.default)) == (0, 1)


@pytest.mark.parametrize("parametrize", [spectral_norm, weight_norm])
def test_a_weight_that_follows_from_parameters_is_computed_once(parametrize):
    """The layer reads a parameter."""
    model = Net(lambda n, x: n.h(pooled(n.a(x))), a=parametrize(conv(3, 4, 3)), h=head(4))
    graph = graph_of(model)
    layer = next(node for node in graph.graph.nodes if node.target is torch.ops.aten.conv2d.default)
    assert layer.args[1].op == "get_attr"
    same(graph, model)


@pytest.mark.parametrize("settings", [{"kernel_size": 3}, {"kernel_size": (4, 3), "dilation": (1, 2)}])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name_becomes_numbers(settings, padding):
    """Zeros on one side more than on the other are put in front of the layer."""
    model = Net(lambda n, x: n.a(x), a=nn.Conv2d(3, 4, padding=padding, **settings))
    graph = graph_of(model)
    assert count(graph, torch.ops.aten.conv2d.default) == 1
    same(graph, model)


def two_linear(net: Net, x: torch.Tensor) -> torch.Tensor:
    """Tokens, read twice."""
    tokens = x.flatten(2).transpose(1, 2)
    return net.q(tokens) + net.k(tokens)


def test_a_linear_layer_on_a_transposed_view_reads_a_contiguous_tensor():
    """And two of them the same one."""
    model = Net(two_linear, q=nn.Linear(3, 4), k=nn.Linear(3, 4))
    graph = graph_of(model)
    sources = {node.args[0] for node in graph.graph.nodes if node.target is torch.ops.aten.linear.default}
    assert [source.target for source in sources] == [torch.ops.aten.contiguous.default]
    same(graph, model)


class Strided(nn.Module):
    """A detector's code fills a tensor with a number that it reads from another."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.stride = nn.Conv2d(3, 4, 1), torch.tensor([8.0, 16.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return x * x.new_full((4, 1, 1), self.stride[1].item())


def test_a_number_read_from_a_constant_becomes_that_number():
    """The graph reads no tensor for it, as Inductor could not compile."""
    model = Strided()
    graph = graph_of(model)
    assert not count(graph, torch.ops.aten.item.default)
    same(graph, model)


class Sound(nn.Module):
    """Convolutions over the width of an image, each row for itself, some with a norm and an activation behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 4, 3, 2, padding=1), nn.Conv1d(4, 6, 3, padding="same", dilation=2, groups=2)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.a(x.mean(2))).relu()
        return y.mean(-1, keepdim=True) + self.b(y).flatten(1)[:, None]


@pytest.mark.parametrize("training", [False, True])
def test_a_convolution_over_time_becomes_one_over_images(training):
    """Of height 1, for what its kernel computes behind it too; one without a batch stays."""
    model = Sound().eval()
    graph = operations_of(capture(model, IMAGES))
    canonical_(graph, training=training)
    assert count(graph, torch.ops.aten.conv2d.default) == 2
    relu = next(node for node in graph.graph.nodes if node.target is torch.ops.aten.relu.default)
    assert relu.args[0].target is torch.ops.aten.batch_norm.default
    assert relu.meta["val"].shape[2:] == (1, 4)
    assert [norm.layer.target for norm in foldable_norms(graph)] == [torch.ops.aten.conv2d.default]
    assert any(parameter.ndim == 4 for parameter in graph.parameters() if parameter.requires_grad) == training
    same(graph, model)
    single = graph_of(Net(lambda n, x: n.c(x[0, 0]).sum() + x, c=nn.Conv1d(8, 4, 3)))
    assert count(single, torch.ops.aten.conv1d.default) == 1
