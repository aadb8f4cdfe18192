import pytest
import torch
from torch import nn

from compress.pruning.structured import apply_plan, plan_pruning
from tests.nets import Net, conv, conv_bn, head, largest_difference, lively, masked_dense, pooled

X = torch.linspace(-1, 1, 192, dtype=torch.float64).reshape(1, 3, 8, 8)

LAYERS = {
    "a convolution": (lambda: conv(8, 16, 3), {"b.weight", "b.bias"}),
    "a convolution in groups": (lambda: conv(8, 16, 3, groups=2), {"b.weight", "b.bias"}),
    "a convolution without bias": (lambda: nn.Conv2d(8, 16, 1, bias=False), {"b.weight"}),
    "batch norm": (lambda: nn.Sequential(conv(8, 16), nn.BatchNorm2d(16)), {"b.1.weight", "b.1.bias"}),
    "a transposed convolution": (lambda: nn.ConvTranspose2d(8, 16, 1), set()),
    "an activation": (lambda: conv_bn(8, 16), set()),
}


@pytest.mark.parametrize("divided", [False, True], ids=["multiplied", "divided"])
@pytest.mark.parametrize(("layer", "scaled"), LAYERS.values(), ids=LAYERS)
def test_a_layer_makes_good_a_factor_that_its_width_sets(layer, scaled, divided):
    """Right after a layer the difference goes into weight and bias; where nothing can take it, the width stays."""

    def forward(n: Net, x: torch.Tensor) -> torch.Tensor:
        y = n.b(n.a(x))
        y = y / y.shape[1] ** 0.5 if divided else y * y.shape[1] ** -0.5
        return n.h(pooled(y))

    torch.manual_seed(0)
    net = lively(Net(forward, a=conv_bn(3, 8), b=layer(), h=head(16)))
    plan = plan_pruning(net, X, 0.25)
    assert {member.tensor for member in plan.scales} == scaled
    assert (("h.weight", 1) in plan.kept) == bool(scaled)
    assert largest_difference(apply_plan(net, plan), masked_dense(net, plan), X) < 1e-12
