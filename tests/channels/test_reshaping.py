import pytest
from torch import Tensor, nn
from torch.nn import functional

from tests.nets import Case, Net, between, conv_bn, head


def shuffled(x: Tensor) -> Tensor:
    """A shuffle of the channels of two halves, by views."""
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


CASES = {
    "flatten into a linear layer": Case(
        net=lambda: Net(
            lambda n, x: n.h(n.b(functional.avg_pool2d(n.a(x), 4).flatten(1))),
            a=conv_bn(3, 16),
            b=nn.Linear(64, 8),
            h=head(8),
        ),
        widths={"a.0": 12, "b": 6},
    ),
    "channel shuffle": Case(net=lambda: between(shuffled), widths={"a.0": 12, "b": 12}),
    "channel shuffle before a grouped convolution": Case(
        net=lambda: between(shuffled, groups=2), widths={"a.0": 12, "b": 12}
    ),
    "channel shuffle before a convolution of as many groups": Case(
        net=lambda: between(nn.ChannelShuffle(2), groups=4), widths={"a.0": 8, "b": 12}
    ),
    "pixel shuffle": Case(net=lambda: between(nn.PixelShuffle(2), 4), widths={"a.0": 12, "b": 12}),
    "pixel unshuffle": Case(net=lambda: between(nn.PixelUnshuffle(2), 64), widths={"a.0": 12, "b": 12}),
    "unfold": Case(
        net=lambda: Net(
            lambda n, x: n.h(n.b(functional.unfold(n.a(x), 2).transpose(1, 2)).mean(1)),
            a=conv_bn(3, 16),
            b=nn.Linear(64, 8),
            h=head(8),
        ),
        widths={"a.0": 12, "b": 6},
    ),
    "parts added up": Case(net=lambda: between(lambda x: x.unflatten(1, (4, -1)).sum(2), 4), widths={"a.0": 12}),
    "parts of a fixed width": Case(
        net=lambda: between(lambda x: x.reshape(-1, 2, 8, *x.shape[2:]).sum(1), 8),
        widths={"a.0": 16, "b": 12},
        reason="the cut breaks the forward pass: shape '[-1, 2, 8, 8, 8]' is invalid",
    ),
    "channels repeated": Case(net=lambda: between(lambda x: x.repeat(1, 2, 1, 1), 32), widths={"a.0": 12, "b": 12}),
    "channels last": Case(
        net=lambda: between(lambda x: x.permute(0, 2, 3, 1).roll(1, 1).permute(0, 3, 1, 2)), widths={"a.0": 12, "b": 12}
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_operations_that_reshape(case: Case):
    """Labels follow channels through views; where a view holds a fixed width, no cut is made."""
    case.check()
