from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.exported import capture
from compress.quantization.folding import fold_batch_norms_, foldable_norms
from compress.quantization.observed import operations_of
from tests.nets import Net, conv, head, pooled

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def norm(channels: int, **settings) -> nn.BatchNorm2d:
    """A batch norm that changes what it gets much."""
    made = nn.BatchNorm2d(channels, **settings)
    for tensor in (*made.parameters(), *made.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.3, 2.0)
    return made


def tied(ins: int) -> dict[str, nn.Module]:
    """Two convolutions with one weight."""
    first, second = conv(ins, ins, 3), conv(ins, ins, 3)
    second.weight = first.weight
    return {"a": first, "b": second}


def past_the_norm(net: Net, x: torch.Tensor) -> torch.Tensor:
    """A residual around a norm."""
    y = net.s(x)
    return y + net.n(y)


FOLDED = {
    "a convolution": Net(lambda n, x: n.n(n.s(x)), s=conv(3, 6, 3, bias=False), n=norm(6)),
    "a convolution in groups": Net(lambda n, x: n.n(n.s(x)), s=nn.Conv2d(3, 6, 3, groups=3), n=norm(6)),
    "a transposed convolution in groups": Net(
        lambda n, x: n.n(n.t(n.s(x))), s=conv(3, 4), t=nn.ConvTranspose2d(4, 6, 3, groups=2), n=norm(6)
    ),
    "padding by name": Net(lambda n, x: n.n(n.s(x)), s=nn.Conv2d(3, 6, 3, padding="same"), n=norm(6)),
    "a linear layer": Net(
        lambda n, x: n.n(n.h(pooled(x))), h=nn.Linear(3, 6), n=nn.BatchNorm1d(6).apply(lambda m: m.running_var.fill_(3))
    ),
    "a norm without parameters": Net(lambda n, x: n.n(n.s(x)), s=conv(3, 6), n=norm(6, affine=False)),
}
NOT_FOLDED = {
    "the output is read past the norm": Net(past_the_norm, s=conv(3, 6), n=norm(6)),
    "one convolution, two norms": Net(
        lambda n, x: n.n(n.s(x)) + n.m(n.s(x.flip(3))), s=conv(3, 6, 3), n=norm(6), m=norm(6)
    ),
    "one weight, two convolutions": Net(
        lambda n, x: n.n(n.b(n.m(n.a(n.s(x))))), s=conv(3, 4), n=norm(4), m=norm(4), **tied(4)
    ),
    "no layer before it": Net(lambda n, x: n.h(pooled(n.n(x).relu())), n=norm(3), h=head(3)),
}


def folded(model: nn.Module) -> tuple[torch.fx.GraphModule, int]:
    """The folded graph, and how many norms could be."""
    graph = operations_of(capture(model.eval(), IMAGES))
    count = len(foldable_norms(graph))
    fold_batch_norms_(graph)
    return graph, count


@pytest.mark.parametrize("kind", [*FOLDED, *NOT_FOLDED])
def test_a_folded_graph_computes_what_the_model_does(kind):
    """Whether a norm can be folded or not, and none is left."""
    model = {**FOLDED, **NOT_FOLDED}[kind]
    graph, count = folded(model)
    assert count == (1 if kind in FOLDED else 0)
    assert not any("batch_norm" in str(node.target) for node in graph.graph.nodes)
    with torch.no_grad():
        for images in (IMAGES, IMAGES[:1]):
            torch.testing.assert_close(graph(images), model(images), rtol=1e-4, atol=1e-4)


def test_a_norm_without_statistics_stays_one():
    """What it does depends on the batch."""
    model = Net(lambda n, x: n.n(n.s(x)), s=conv(3, 6), n=norm(6, track_running_stats=False))
    graph, count = folded(model)
    assert count == 0
    assert sum("batch_norm" in str(node.target) for node in graph.graph.nodes) == 1
    with torch.no_grad():
        torch.testing.assert_close(graph(IMAGES), model(IMAGES))


def test_the_given_weights_stay():
    """Folding makes tensors of its own."""
    model = FOLDED["a convolution"]
    before = model.s.weight.detach().clone()
    folded(model)
    assert model.s.weight.equal(before)
