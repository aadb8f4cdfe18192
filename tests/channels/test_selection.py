import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.nets import Case, Net, between, conv_bn, head, pooled


def chunked(net: Net, x: Tensor) -> Tensor:
    """One half of the channels goes on as it is, one through a layer."""
    first, second = net.a(x).chunk(2, dim=1)
    return net.h(pooled(torch.cat([first, net.b(second)], dim=1)))


CASES = {
    "concatenation": Case(
        net=lambda: Net(
            lambda n, x: n.h(pooled(n.c(torch.cat([n.a(x), n.b(x)], 1)))),
            a=conv_bn(3, 16),
            b=conv_bn(3, 8),
            c=conv_bn(24, 8),
            h=head(8),
        ),
        widths={"a.0": 12, "b.0": 6, "c.0": 6},
    ),
    "concatenation with the input": Case(
        net=lambda: Net(
            lambda n, x: n.h(pooled(n.b(torch.cat([n.a(x), x], 1)))), a=conv_bn(3, 16), b=conv_bn(19, 8), h=head(8)
        ),
        widths={"a.0": 12, "b.0": 6},
        reason="meets values without channel labels",
    ),
    "equal chunks": Case(
        net=lambda: Net(chunked, a=conv_bn(3, 16), b=conv_bn(8, 8), h=head(16)), widths={"a.0": 12, "b.0": 6}
    ),
    "halves by slices": Case(
        net=lambda: between(lambda x: x[:, : x.shape[1] // 2] + x[:, x.shape[1] // 2 :], 8), widths={"a.0": 12}
    ),
    "the empty rest of a slice": Case(
        net=lambda: between(lambda x: torch.cat([x[:, :16].tanh(), x[:, 16:].unflatten(1, (2, -1)).flatten(1, 2)], 1)),
        widths={"a.0": 12},
    ),
    "a slice of a fixed number": Case(
        net=lambda: between(lambda x: x[:, :4], 4),
        widths={"a.0": 16, "b": 12},
        reason="the cut breaks the forward pass",
    ),
    "a slice of none": Case(net=lambda: between(lambda x: torch.cat([x[:, :0], x], 1)), widths={"a.0": 12, "b": 12}),
    "every second channel": Case(
        net=lambda: between(lambda x: x[:, ::2], 8), widths={"a.0": 16, "b": 12}, reason="a cut would mix up channels"
    ),
    "a picked channel": Case(
        net=lambda: between(lambda x: x * x[:, 2:3]), widths={"a.0": 16, "b": 12}, reason="one channel spread over many"
    ),
    "channels in reverse": Case(net=lambda: between(lambda x: x.flip(1)), widths={"a.0": 12, "b": 12}),
    "channels stacked": Case(
        net=lambda: between(lambda x: torch.stack([x, x.relu()], 1).amax(1)), widths={"a.0": 12, "b": 12}
    ),
    "channels in an order of fixed numbers": Case(
        net=lambda: between(lambda x: x[:, [3, 2, 1, 0]], 4), widths={"a.0": 16}, reason="channels picked by index"
    ),
    "zeros for missing channels of a shortcut": Case(
        net=lambda: Net(
            lambda n, x: n.h(pooled(n.b(n.a(x)) + functional.pad(n.a(x), (0, 0, 0, 0, 4, 4)))),
            a=conv_bn(3, 8),
            b=conv_bn(8, 16),
            h=head(16),
        ),
        widths={"a.0": 6, "b.0": 14},
        reason="meets values without channel labels (aten.add)",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_operations_that_select(case: Case):
    """Labels follow channels wherever they go; where the code picks them by fixed numbers, no cut is made."""
    case.check()
