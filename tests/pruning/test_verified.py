from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.pruning.plan import PruningPlan
from compress.pruning.structured import apply_plan, plan_pruning
from tests.nets import conv, largest_difference, lively, masked_dense, pooled

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Pasting(nn.Module):
    """Draws a picture of each example at a size that Python reads from the outputs, as Mask R-CNN does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3, 16), conv(16, 12)
        self.picture, self.size = conv(12, 1), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        features = self.second(self.first(x).relu()).relu()
        pictures, sizes = self.picture(features), self.size(pooled(features)).sigmoid()
        canvas = x.new_zeros(len(x), 12, 12)
        for at, (height, width) in enumerate((sizes * 1e4 % 9 + 3).long().tolist()):
            # As many calls as Python found rows to draw in.
            drawn = functional.interpolate(pictures[at : at + 1], size=(height, width))[0, 0]
            for row in range(height):
                canvas[at, row, :width] = drawn[row]
        return canvas


class Counting(Pasting):
    """Reads values too, and scales what it draws by how many channels there are."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.second(self.first(x).relu()).relu()
        return super().forward(x) * features.shape[1]


class ByNumPy(nn.Module):
    """Leaves torch for a step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = conv(3, 16), conv(16, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        features = pooled(self.second(self.first(x).relu()))
        mean = torch.from_numpy(features.numpy().mean(1, keepdims=True))
        return self.head(features) + mean


def widths(plan: PruningPlan) -> dict[str, int]:
    """How many channels are left of the layers that lose some."""
    return {
        name.removesuffix(".weight"): len(ids)
        for (name, dim), ids in plan.kept.items()
        if (dim, name[-6:]) == (0, "weight")
    }


@pytest.mark.parametrize(("kind", "left"), [(Pasting, {"first": 12, "second": 9}), (Counting, {"first": 12})])
def test_what_python_makes_of_values_may_change_with_them(kind, left):
    """Sizes and calls that follow from the outputs are those of the network with zeros in place of what is removed.

    A number of channels is no such value: it stays as it was, and so do the channels that it counts.
    """
    torch.manual_seed(0)
    net = lively(kind())
    plan = plan_pruning(net, X, 0.25)
    assert widths(plan) == left
    assert largest_difference(apply_plan(net, plan), masked_dense(net, plan), X) < 1e-9


def test_channels_that_python_reads_stay():
    """What an array is made of, torch does not see."""
    torch.manual_seed(0)
    net = lively(ByNumPy())
    plan = plan_pruning(net, X, 0.25)
    assert widths(plan) == {"first": 12}
    assert [group.frozen for group in plan.groups if group.frozen and "Python" in group.frozen] == [
        "read by Python (aten._local_scalar_dense)"
    ]
