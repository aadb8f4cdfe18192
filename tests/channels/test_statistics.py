"""Norms that are written out in Python take their statistics over the channels that are kept."""

import pytest
import torch
from torch import Tensor, nn

from compress.pruning.structured import apply_plan, plan_pruning
from tests.nets import largest_difference, lively, masked_dense

X = torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class ByHand(nn.Module):
    """A layer norm over the channels of images, spelled in one of several ways."""

    def __init__(self, width: int, spelling: str) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.randn(width))
        self.spelling = spelling

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        if self.spelling == "squares":
            scale = 1 / ((x - mean).pow(2).mean(1, keepdim=True) + 1e-6).sqrt()
        elif self.spelling == "variance":
            scale = torch.rsqrt(x.var(1, keepdim=True, unbiased=False) + 1e-6)
        else:
            scale = torch.rsqrt(x.var(1, correction=0).unsqueeze(1) + 1e-6)
        weight, bias = self.weight[:, None, None], self.bias[:, None, None]
        if self.spelling == "weights first":
            return weight * (x - mean) * scale + bias
        return (x - mean) * scale * weight + bias


class ResponseNorm(nn.Module):
    """Global response norm: each channel's norm over the mean of all channels' norms."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.randn(1, width, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
        return x + self.weight * (x * (norm / (norm.mean(1, keepdim=True) + 1e-6))) + self.bias


class OverSpace(nn.Module):
    """Attention over space: what it makes of the channels' mean is no norm."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.mean(1, keepdim=True))


class ByEnergy(nn.Module):
    """Attention over space by a mean of squares, which is none of a root mean square norm."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.square().mean(1, keepdim=True))


class ByDistance(nn.Module):
    """Gated by how far two functions of the channels are apart, over space too."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid((x - x.tanh()).pow(2).mean((1, 2, 3), keepdim=True))


class PutSquares(nn.Module):
    """The mean of squares over channels, not handed to any of them."""

    def forward(self, x: Tensor) -> Tensor:
        return x.pow(2).mean(1, keepdim=True)


class Put(nn.Module):
    """The mean over channels, not handed to any of them."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)


def net(norm: nn.Module, width: int = 20) -> nn.Module:
    """A convolution of 20 channels, ``norm``, and one of what that puts out."""
    return lively(nn.Sequential(nn.Conv2d(6, 20, 3), norm, nn.GELU(), nn.Conv2d(width, 4, 1))).eval()


SPELLINGS = ("squares", "variance", "unsqueezed", "weights first")
NORMS = {
    **{spelling: lambda spelling=spelling: ByHand(20, spelling) for spelling in SPELLINGS},
    "response": lambda: ResponseNorm(20),
}


@pytest.mark.parametrize("kind", NORMS)
def test_a_norm_by_hand_is_cut(kind):
    """The channels go, and what is left is normalized by its own statistics."""
    model = net(NORMS[kind]())
    plan = plan_pruning(model, X[:1], 0.2)
    assert plan.groups[0].kept == 16
    assert largest_difference(apply_plan(model, plan), masked_dense(model, plan), X) < 1e-9


@pytest.mark.parametrize(
    ("reader", "width"), [(OverSpace, 20), (ByEnergy, 20), (ByDistance, 20), (Put, 1), (PutSquares, 1)]
)
def test_a_statistic_that_is_no_norms_keeps_its_channels(reader, width):
    """A mean of fewer channels is another number, and nothing makes that good."""
    plan = plan_pruning(net(reader(), width), X[:1], 0.2)
    assert plan.groups[0].kept == 20
    assert "a statistic over channels" in plan.groups[0].frozen


@pytest.mark.parametrize("put", [Put, PutSquares])
def test_a_statistic_that_is_put_out_keeps_its_channels(put):
    """What the network puts out must stay what it is."""
    model = lively(nn.Sequential(nn.Conv2d(6, 20, 3), put())).eval()
    assert "a statistic over channels" in plan_pruning(model, X[:1], 0.2).groups[0].frozen


class OwnWeights(nn.Module):
    """A linear layer whose weights are normalized, each row by its own root mean square or deviation."""

    def __init__(self, *, squares: bool) -> None:
        super().__init__()
        self.weight, self.squares = nn.Parameter(torch.randn(12, 20)), squares

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        scale = (
            (w.square().mean(1, keepdim=True) + 1e-6).rsqrt() if self.squares else 1 / (w.std(1, keepdim=True) + 1e-6)
        )
        return nn.functional.linear(x.mean((2, 3)), w * scale)


@pytest.mark.parametrize("squares", [True, False])
def test_a_statistic_of_weights_keeps_what_they_multiply(squares):
    """Fewer of them would be others."""
    model = lively(nn.Sequential(nn.Conv2d(6, 20, 3), OwnWeights(squares=squares), nn.Linear(12, 4))).eval()
    plan = plan_pruning(model, X[:1], 0.25)
    groups = {member: group for group in plan.groups for member in group.members}
    assert "a statistic over channels" in groups["0.weight", 0].frozen
    assert groups["1.weight", 0].kept == 9
    assert largest_difference(apply_plan(model, plan), masked_dense(model, plan), X) < 1e-9
