import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.nets import Case, Net, conv, conv_bn, head, pooled


def attention(net: Net, x: Tensor) -> Tensor:
    """One head, unscaled."""
    x = net.e(x)
    scores = net.gate(net.q(x)) @ net.gate(net.k(x)).transpose(1, 2)
    return net.h(net.o(scores.softmax(-1) @ net.v(x)).mean(1))


def attention_net(gate: nn.Module) -> Net:
    """Embedding, then one head of attention on 12 channels with values of 20."""
    linear = {"q": nn.Linear(16, 12), "k": nn.Linear(16, 12), "v": nn.Linear(16, 20), "o": nn.Linear(20, 16)}
    return Net(attention, e=nn.Embedding(10, 16), gate=gate, h=head(16), **linear)


def after(layer: nn.Module, outs: int, ins: int = 16) -> Net:
    """``layer`` between a convolution with batch norm and the classifier."""
    return Net(lambda n, x: n.h(pooled(n.b(n.a(x)))), a=conv_bn(3, ins), b=layer, h=head(outs))


CASES = {
    "convolution": Case(net=lambda: after(conv_bn(16, 8), 8), widths={"a.0": 12, "a.1": 12, "b.0": 6, "h": 5}),
    "one channel stays of one": Case(net=lambda: after(conv_bn(16, 1), 1), widths={"a.0": 12, "b.0": 1}),
    "convolution in 1-D": Case(
        net=lambda: Net(lambda n, x: n.h(n.b(n.a(x)).mean(2)), a=nn.Conv1d(3, 16, 3), b=nn.Conv1d(16, 8, 3), h=head(8)),
        widths={"a": 12, "b": 6},
        shape=(1, 3, 10),
    ),
    "convolution in 3-D": Case(
        net=lambda: Net(
            lambda n, x: n.h(n.b(n.a(x)).mean((2, 3, 4))), a=nn.Conv3d(3, 16, 3), b=nn.BatchNorm3d(16), h=head(16)
        ),
        widths={"a": 12, "b": 12},
        shape=(1, 3, 5, 5, 5),
    ),
    "transposed convolution": Case(net=lambda: after(nn.ConvTranspose2d(16, 8, 2, 2), 8), widths={"a.0": 12, "b": 6}),
    "depthwise convolution": Case(net=lambda: after(conv(16, 16, 3, groups=16), 16), widths={"a.0": 12, "b": 12}),
    "depthwise convolution, two outputs a channel": Case(
        net=lambda: after(conv(16, 32, 3, groups=16), 32), widths={"a.0": 12, "b": 24}
    ),
    "transposed depthwise convolution": Case(
        net=lambda: after(nn.ConvTranspose2d(16, 16, 2, groups=16), 16), widths={"a.0": 12, "b": 12}
    ),
    "transposed depthwise convolution, two outputs a channel": Case(
        net=lambda: after(nn.ConvTranspose2d(16, 32, 2, groups=16), 32),
        widths={"a.0": 12, "b": 24},
        reason="several outputs of a depthwise convolution",
    ),
    "grouped convolution keeps as many channels in each part": Case(
        net=lambda: after(conv(16, 8, 3, groups=4), 8), widths={"a.0": 12, "b": 4}
    ),
    "transposed grouped convolution": Case(
        net=lambda: after(nn.ConvTranspose2d(16, 8, 2, groups=2), 8), widths={"a.0": 12, "b": 6}
    ),
    "grouped convolution over two layers of unequal width": Case(
        net=lambda: Net(
            lambda n, x: n.h(pooled(n.b(torch.cat([n.a(x), n.c(x)], 1)))),
            a=conv_bn(3, 8),
            c=conv_bn(3, 24),
            b=conv(32, 16, groups=2),
            h=head(16),
        ),
        widths={"a.0": 6, "c.0": 18, "b": 12},
    ),
    "grouped convolution over layers that share no fraction": Case(
        net=lambda: Net(
            lambda n, x: n.h(pooled(n.b(torch.cat([n.a(x), n.c(x)], 1)))),
            a=conv_bn(3, 9),
            c=conv_bn(3, 23),
            b=conv(32, 16, groups=2),
            h=head(16),
        ),
        widths={"a.0": 7, "c.0": 17, "b": 12},
    ),
    "grouped convolution with a computed weight": Case(
        net=lambda: Net(
            lambda n, x: n.h(pooled(functional.conv2d(n.a(x), n.b.weight * 2.0, n.b.bias, groups=4))),
            a=conv_bn(3, 16),
            b=conv(16, 8, groups=4),
            h=head(8),
        ),
        widths={"a.0": 12, "b": 4},
    ),
    "weight standardization takes a mean over the input channels": Case(
        net=lambda: Net(
            lambda n, x: n.h(pooled(functional.conv2d(n.a(x), n.b.weight - n.b.weight.mean((1, 2, 3), keepdim=True)))),
            a=conv_bn(3, 16),
            b=conv(16, 8, 3, bias=False),
            h=head(8),
        ),
        widths={"a.0": 16, "b": 6},
        reason="a statistic over channels (aten.mean)",
    ),
    "shared layer": Case(
        net=lambda: Net(lambda n, x: n.h(pooled(n.b(n.b(n.a(x))))), a=conv_bn(3, 16), b=conv(16, 16, 3), h=head(16)),
        widths={"a.0": 12, "b": 12},
    ),
    "linear on each position": Case(
        net=lambda: Net(
            lambda n, x: n.h(n.b(n.a(x).flatten(2).transpose(1, 2)).mean(1)),
            a=conv_bn(3, 16),
            b=nn.Linear(16, 8),
            h=head(8),
        ),
        widths={"a.0": 12, "b": 6},
    ),
    "embedding": Case(
        net=lambda: Net(lambda n, x: n.h(n.e(x).mean(1)), e=nn.Embedding(10, 16), h=head(16)),
        widths={"e": 12},
        shape=(1, 7),
    ),
    "product of activations": Case(
        net=lambda: attention_net(nn.Identity()), widths={"e": 12, "q": 9, "k": 9, "v": 15, "o": 12}, shape=(1, 7)
    ),
    "product of activations that are not zero when removed": Case(
        net=lambda: attention_net(nn.Sigmoid()),
        widths={"e": 12, "q": 12, "k": 12, "v": 15, "o": 12},
        reason="a sum over channels that need not be zero when removed (aten.bmm)",
        shape=(1, 7),
    ),
    "einsum": Case(
        net=lambda: Net(
            lambda n, x: n.h(torch.einsum("nchw,ndhw->ncd", n.a(x), n.b(x)).sum(1)),
            a=conv_bn(3, 16),
            b=conv_bn(3, 8),
            h=head(8),
        ),
        widths={"a.0": 12, "b.0": 6},
    ),
    "batch norm without weight": Case(
        net=lambda: after(nn.BatchNorm2d(16, affine=False), 16), widths={"a.0": 12, "b": 12}
    ),
    "instance norm": Case(net=lambda: after(nn.InstanceNorm2d(16, affine=True), 16), widths={"a.0": 12, "b": 12}),
    "instance norm without tensors": Case(
        net=lambda: after(nn.InstanceNorm2d(16), 16),
        widths={"a.0": 12, "b": 12},
    ),
    "group norm": Case(net=lambda: after(nn.GroupNorm(4, 16), 16), widths={"a.0": 12, "b": 12}, exact=False),
    "layer norm": Case(
        net=lambda: Net(lambda n, x: n.h(n.b(pooled(n.a(x)))), a=conv_bn(3, 16), b=nn.LayerNorm(16), h=head(16)),
        widths={"a.0": 12, "b": 12},
        exact=False,
    ),
    "root mean square norm": Case(
        net=lambda: Net(lambda n, x: n.h(n.b(pooled(n.a(x)))), a=conv_bn(3, 16), b=nn.RMSNorm(16), h=head(16)),
        widths={"a.0": 12, "b": 12},
        exact=False,
    ),
    "layer norm over space too": Case(
        net=lambda: after(nn.LayerNorm([16, 8, 8]), 16), widths={"a.0": 16}, reason="a norm over several dimensions"
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_layers_that_mix_channels(case: Case):
    """Layers lose a quarter of their channels, and the network is the masked one."""
    case.check()


def test_depthwise_groups_leave_with_their_channels():
    """A depthwise convolution keeps one group a channel; a grouped one keeps its groups."""
    plan = Case(
        net=lambda: Net(
            lambda n, x: n.h(pooled(n.c(n.b(n.a(x))))),
            a=conv_bn(3, 16),
            b=conv(16, 16, 3, groups=16),
            c=conv(16, 8, groups=4),
            h=head(8),
        ),
        widths={"b": 12, "c": 4},
    ).check()
    shapes = {str(member): indices.shape for member, indices in plan.kept.items()}
    assert shapes["c.weight[1]"] == (4, 3)
    assert shapes["b.weight[0]"] == (12,)
