import pytest
import torch
from torch import Tensor, nn

from benchmarks.masked import masked_dense
from compress.pruning.structured import apply_plan, plan_pruning


class Rms(nn.Module):
    """A root mean square norm as language models write it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


NORMS = {
    "layer": lambda: nn.LayerNorm(24),
    "rms": lambda: nn.RMSNorm(24),
    "rms by hand": lambda: Rms(24),
    "batch": lambda: nn.BatchNorm1d(24),
    "group": lambda: nn.GroupNorm(4, 24),
}


@pytest.mark.parametrize("kind", NORMS)
def test_the_masked_network_is_what_a_cut_must_equal(kind):
    """With its norms over the kept channels it equals the cut one, and no longer once a kept weight is another."""
    torch.manual_seed(0)
    of_images = kind in ("batch", "group")
    first, last = (nn.Conv1d(6, 24, 1), nn.Conv1d(24, 5, 1)) if of_images else (nn.Linear(6, 24), nn.Linear(24, 5))
    model = nn.Sequential(first, NORMS[kind](), nn.ReLU(), last).eval().double()
    x = torch.randn(7, 6, 6, dtype=torch.float64)
    plan = plan_pruning(model, x, 0.25)
    assert plan.num_params_after < plan.num_params_before
    smaller = apply_plan(model, plan)
    with torch.no_grad():
        expected = masked_dense(model, plan)(x)
    torch.testing.assert_close(smaller(x), expected, rtol=0, atol=1e-12)
    with torch.no_grad():
        smaller[0].weight[3, 2] += 0.1
    assert (smaller(x) - expected).abs().max() > 1e-4
