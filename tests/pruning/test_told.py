"""What Python makes of widths and sizes, in networks as they are found: told apart, or bound together."""

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax

from compress.pruning.plan import PruningPlan
from compress.pruning.structured import apply_plan, plan_pruning
from tests.nets import Net, conv, head, largest_difference, lively, masked_dense

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
WORDS = torch.randn(2, 5, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def check(model: nn.Module, x: Tensor, ratio: float = 0.2) -> PruningPlan:
    """The plan, after the cut network was held against the masked one."""
    plan = plan_pruning(model, x[:1], ratio)
    assert largest_difference(apply_plan(model, plan), masked_dense(model, plan), x) < 1e-9
    return plan


class Patches(nn.Module):
    """It compares the channels that it is given with a number of its own, and writes another width."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.num_channels = ins
        self.conv = nn.Conv2d(ins, outs, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.num_channels:
            raise ValueError("another number of channels")
        x = self.conv(x)
        return x.flatten(2).reshape(x.shape)


def test_a_check_of_one_of_several_modules_on_the_image_hinders_no_cut():
    """The first of a class sees an image, whose channels are none to be cut; what the others check is told anew."""
    model = lively(nn.Sequential(Patches(3, 20), nn.ReLU(), Patches(20, 30), nn.ReLU(), nn.Conv2d(30, 4, 1))).eval()
    plan = check(model, IMAGE)
    assert [group.kept for group in plan.groups if group.frozen is None] == [16, 24]


def mixed(net: Net, x: Tensor) -> object:
    """What holds positions and channels mixed is added to channels."""
    x = net.first(x)
    other = net.mixed(x).flatten(2).transpose(1, 2).reshape(x.shape)
    return net.head(torch.relu(net.last(x + other)).mean((2, 3)))


def test_mixed_positions_keep_only_the_channels_they_meet():
    """The layer behind them is cut all the same."""
    net = Net(mixed, first=conv(3, 16, 3), mixed=conv(16, 16), last=conv(16, 20), head=head(20))
    plan = check(lively(net).eval(), IMAGE)
    assert {group.channels: group.kept for group in plan.groups}[20] == 16


def from_zeros(net: Net, x: Tensor) -> object:
    """As a decoder's first layer, one reads zeros that are as wide as what is added to them."""
    queries = net.first(x)
    start = torch.zeros_like(queries)
    return net.head(torch.relu(net.of_zeros(start) + queries + start))


def test_a_fill_is_as_wide_as_the_tensor_it_is_like():
    """So what reads the zeros loses the channels that the tensor lost."""
    net = Net(from_zeros, first=nn.Linear(20, 30), of_zeros=nn.Linear(30, 30), head=nn.Linear(30, 4))
    plan = check(lively(net).eval(), WORDS)
    assert [group.kept for group in plan.groups if group.frozen is None] == [24]


class Reduced(nn.Module):
    """The width that it was called with says how to reshape what its own convolution puts out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        batch, width = x.shape[:2]
        return self.conv(x).reshape(batch, width, -1).transpose(1, 2)


def test_a_width_taken_for_another_of_the_same_size_keeps_in_step():
    """Three groups lose whole channels each, and what is reshaped as many as they do together."""
    net = nn.Sequential(nn.Conv2d(3, 45, 1), nn.GroupNorm(3, 45), Reduced(45), nn.ReLU(), nn.Linear(45, 4))
    plan = check(lively(net).eval(), IMAGE, 0.3)
    assert [group.kept for group in plan.groups if group.frozen is None] == [33 + 33]


class Fused(nn.Module):
    """Attention of 4 heads of 5, fused, whose queries and keys have a part that is turned and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.size = nn.Linear(20, 60), nn.Linear(20, 20), 5
        self.turn = nn.Buffer(torch.rand(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], -1, 3 * self.size).transpose(1, 2).chunk(3, -1)
        q, k = (torch.cat([one[..., :2] * self.turn, one[..., 2:]], -1) for one in (q, k))
        return self.out((softmax(q @ k.mT, -1) @ v).transpose(1, 2).reshape(*x.shape[:2], -1))


def test_what_cannot_be_thinned_keeps_nothing_else_whole():
    """The width of the network is no more bound to that of the heads if together they could lose nothing."""

    def forward(net: Net, x: Tensor) -> object:
        x = net.first(x)
        return net.head(x + net.attention(x))

    net = Net(forward, first=nn.Linear(20, 20), attention=Fused(), head=nn.Linear(20, 4))
    plan = check(lively(net).eval(), WORDS)
    assert any(group.kept == 16 for group in plan.groups)
