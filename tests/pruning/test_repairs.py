import torch
from torch import Tensor, nn

from compress.pruning.structured import apply_plan, plan_pruning
from tests.nets import conv, conv_bn, head, largest_difference, lively, masked_dense

X = torch.linspace(-1, 1, 192, dtype=torch.float64).reshape(1, 3, 8, 8)


class Fixed(nn.Module):
    """Keeps widths and other numbers in attributes; the branch to take is chosen when it is made."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.width, self.kernel_size, self.unused = width, kernel_size, width
        self.sizes = [width // 4, width - width // 4]
        self.a = conv(width // 4, width // 4, 3)
        self.forward = self.cut_and_join

    def cut_and_join(self, x: Tensor) -> Tensor:
        first, second = torch.split(x, self.sizes, dim=1)
        x = torch.cat([self.a(first), second], 1)
        n = x.shape[0]
        assert self.kernel_size == 16
        return x.reshape(n, self.width, -1).reshape(x.shape)


def net() -> nn.Module:
    """Two of those, one behind the other."""
    torch.manual_seed(0)
    body = [conv_bn(3, 16), Fixed(16, 16), conv_bn(16, 32), Fixed(32, 16)]
    return lively(nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(32)))


def test_attributes_that_are_widths_in_every_module_of_a_class_change():
    """Numbers that forward reads and that are widths everywhere follow the cut, lists of them too; others do not."""
    model = net()
    plan = plan_pruning(model, X, 0.25)
    small = apply_plan(model, plan)
    assert {(repair.module, repair.attribute) for repair in plan.repairs} == {
        (module, attribute) for module in ("1", "3") for attribute in ("width", "sizes")
    }
    assert sum(small[3].sizes) == small[3].width == small[2][0].out_channels == 24
    assert small[3].unused == 32
    assert model[3].width == 32
    assert largest_difference(small, masked_dense(model, plan), X) < 1e-12


def test_a_width_that_stands_nowhere_is_not_repaired():
    """A literal in forward keeps its channels whole, with the reason, and the rest is cut."""

    class Literal(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(-1, 16, 64).reshape(x.shape)

    torch.manual_seed(0)
    model = lively(nn.Sequential(conv_bn(3, 16), Literal(), conv_bn(16, 8), nn.Flatten(), head(512)))
    plan = plan_pruning(model, X, 0.25)
    assert not plan.repairs
    assert ("0.0.weight", 0) not in plan.kept
    assert ("2.0.weight", 0) in plan.kept
    assert "the cut breaks the forward pass: shape '[-1, 16, 64]'" in str(plan)


def test_a_list_of_positions_and_a_width_follows_the_cut():
    """Tokens that become an image by a shape kept in a list: its last number changes, the others stay."""

    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shape, self.order = [4, 4, 16], (0, 3, 1, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(2).transpose(1, 2)
            return x.view([x.size(0), *self.shape]).permute(self.order).contiguous()

    torch.manual_seed(0)
    model = lively(nn.Sequential(conv_bn(3, 16, stride=2), Folded(), conv_bn(16, 8), nn.Flatten(), head(128)))
    plan = plan_pruning(model, X, 0.25)
    small = apply_plan(model, plan)
    assert [str(repair) for repair in plan.repairs] == ["1.shape: [4, 4, 16] -> [4, 4, 12]"]
    assert largest_difference(small, masked_dense(model, plan), X) < 1e-12
