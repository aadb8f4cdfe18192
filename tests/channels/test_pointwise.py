import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.nets import Case, Net, conv, conv_bn, head, pooled


def on_features(forward: object, channels: int = 16, out: int | None = None) -> Net:
    """``forward`` between a convolution with batch norm and the classifier."""
    return Net(lambda n, x: n.h(pooled(forward(n.a(x)))), a=conv_bn(3, channels), h=head(out or channels))


def gated(statistic: object) -> Net:
    """One branch times a map that ``statistic`` makes of the channels of another."""
    return Net(lambda n, x: n.h(pooled(n.b(x) * statistic(n.a(x)))), a=conv_bn(3, 16), b=conv_bn(3, 8), h=head(8))


def squeezed(net: Net, x: Tensor) -> Tensor:
    """Squeeze and excitation."""
    x = net.a(x)
    return net.h(pooled(x * net.up(net.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()))


CASES = {
    "powers of a number": Case(
        net=lambda: on_features(lambda x: x * (2.0 ** torch.arange(-2.0, 2.0)).sum()), widths={"a.0": 12}
    ),
    "residual": Case(
        net=lambda: Net(
            lambda n, x: n.h(pooled(n.b(n.a(x)) + n.a(x))), a=conv_bn(3, 16), b=conv_bn(16, 16), h=head(16)
        ),
        widths={"a.0": 12, "b.0": 12},
    ),
    "squeeze and excitation": Case(
        net=lambda: Net(squeezed, a=conv_bn(3, 16), down=conv(16, 8), up=conv(8, 16), h=head(16)),
        widths={"a.0": 12, "down": 6, "up": 12},
    ),
    "a map of one channel spreads over all": Case(
        net=lambda: Net(
            lambda n, x: n.h(pooled(n.a(x) * n.s(x).expand(-1, n.a(x).shape[1], -1, -1))),
            a=conv_bn(3, 16),
            s=conv(3, 1),
            h=head(16),
        ),
        widths={"a.0": 12},
    ),
    "fills fit every width": Case(net=lambda: on_features(lambda x: x * torch.ones_like(x)), widths={"a.0": 12}),
    "constants along the channels freeze": Case(
        net=lambda: on_features(lambda x: x + torch.arange(16.0)[:, None, None]),
        widths={"a.0": 16},
        reason="meets values without channel labels (aten.add)",
    ),
    "PReLU": Case(
        net=lambda: Net(lambda n, x: n.h(pooled(n.p(n.a(x)))), a=conv(3, 16), p=nn.PReLU(16), h=head(16)),
        widths={"a": 12, "p": 12},
    ),
    "GLU": Case(net=lambda: on_features(lambda x: functional.glu(x, 1), out=8), widths={"a.0": 12}),
    "in-place activation": Case(net=lambda: on_features(functional.hardswish), widths={"a.0": 12}),
    "pooling": Case(
        net=lambda: on_features(lambda x: functional.adaptive_avg_pool2d(functional.max_pool2d(x, 2), 3)),
        widths={"a.0": 12},
    ),
    "resizing": Case(
        net=lambda: on_features(lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear")),
        widths={"a.0": 12},
    ),
    "sum over channels that are zero when removed": Case(
        net=lambda: gated(lambda x: x.sum(1, keepdim=True)), widths={"a.0": 12, "b.0": 6}
    ),
    "norm over channels that are zero when removed": Case(
        net=lambda: gated(lambda x: x.norm(dim=1, keepdim=True)), widths={"a.0": 12, "b.0": 6}
    ),
    "sum over channels that are not": Case(
        net=lambda: gated(lambda x: x.sigmoid().sum(1, keepdim=True)),
        widths={"a.0": 16, "b.0": 6},
        reason="a statistic over channels (aten.sum)",
    ),
    "sum over channels shifted through a view": Case(
        net=lambda: gated(shifted_sum),
        widths={"a.0": 16, "b.0": 6},
        reason="a statistic over channels (aten.sum)",
    ),
    "mean over channels": Case(
        net=lambda: gated(lambda x: x.mean(1, keepdim=True)),
        widths={"a.0": 16, "b.0": 6},
        reason="a statistic over channels (aten.mean)",
    ),
    "maximum over channels": Case(
        net=lambda: gated(lambda x: x.max(1, keepdim=True).values),
        widths={"a.0": 16, "b.0": 6},
        reason="a statistic over channels (aten.max)",
    ),
    "softmax over channels": Case(
        net=lambda: on_features(lambda x: x.softmax(1)), widths={"a.0": 16}, reason="a function of all channels"
    ),
    "softmax over space": Case(net=lambda: on_features(lambda x: x.softmax(3)), widths={"a.0": 12}),
}


def shifted_sum(x: Tensor) -> Tensor:
    """A sum over channels of which a part was moved away from zero in place."""
    x[:, :, :4].add_(1.0)
    return x.sum(1, keepdim=True)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_operations_on_each_position(case: Case):
    """Channels keep their places, and what runs over them is cut only where a removed one adds nothing."""
    case.check()
