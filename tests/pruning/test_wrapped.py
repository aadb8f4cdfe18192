from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import is_parametrized

from compress.pruning.structured import apply_plan, plan_pruning, prune_channels
from tests.nets import largest_difference, largest_gradient_difference, lively, masked_dense

X = torch.linspace(-1, 1, 160, dtype=torch.float64).reshape(1, 8, 20)

WRAPPERS = {
    "weight norm": parametrizations.weight_norm,
    "weight norm of the kernel": partial(parametrizations.weight_norm, dim=2),
    "weight norm of the whole": partial(parametrizations.weight_norm, dim=None),
    "older weight norm": nn.utils.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "older spectral norm": nn.utils.spectral_norm,
}
LAYERS = {
    "plain": lambda: nn.Conv1d(16, 16, 3),
    "without bias": lambda: nn.Conv1d(16, 16, 3, bias=False),
    "transposed": lambda: nn.ConvTranspose1d(16, 16, 3),
    "grouped": lambda: nn.Conv1d(16, 16, 3, groups=4),
    "depthwise": lambda: nn.Conv1d(16, 16, 3, groups=16),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_layers_whose_weight_is_computed_are_cut_with_their_neighbours(wrap, layer):
    """Lengths and spectral norms are those of what is left, as if zeros stood in its place."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(8, 16, 3), nn.ReLU(), wrap(layer()), nn.ReLU(), nn.Conv1d(16, 4, 1))
    plan = plan_pruning(lively(net), X, 0.25)
    small, dense = apply_plan(net, plan), masked_dense(net, plan)
    batch = torch.cat([X, X.flip(1)])
    assert largest_difference(small, dense, batch) < 1e-12
    assert largest_gradient_difference(small, dense, plan, batch) < 1e-12
    assert (small[0].out_channels, small[2].in_channels, small[2].out_channels, small[4].in_channels) == (12,) * 4
    assert small[2].weight.shape[0] == 12
    assert is_parametrized(small[2]) == is_parametrized(net[2])


def test_a_linear_layer_with_weight_norm_knows_its_new_widths():
    """What a module shows of itself is what its tensors have."""
    wrapped = parametrizations.weight_norm(nn.Linear(16, 16, bias=False))
    small = prune_channels(
        nn.Sequential(nn.Linear(8, 16), nn.ReLU(), wrapped, nn.ReLU(), nn.Linear(16, 4)), X[0].T.float(), 0.25
    )
    assert (small[2].in_features, small[2].out_features) == (12, 12)


class Profiled(nn.Module):
    """Names a range of its forward pass for a profiler."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(8, 16, 3), nn.Conv1d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.profiler.record_function("stem"):
            x = self.a(x).relu()
        y: Tensor = self.b(x)
        return y


@pytest.mark.parametrize("wrap", [lambda net: net, nn.DataParallel], ids=["a range", "data parallel"])
def test_what_a_profiler_or_parallel_wrapper_adds_hinders_no_cut(wrap):
    """Handles of ranges are no numbers that a cut could change."""
    torch.manual_seed(0)
    net = lively(wrap(Profiled()))
    plan = plan_pruning(net, X, 0.25)
    small = apply_plan(net, plan)
    assert (small.module if isinstance(small, nn.DataParallel) else small).a.out_channels == 12
    assert largest_difference(small, masked_dense(net, plan), X) < 1e-12
