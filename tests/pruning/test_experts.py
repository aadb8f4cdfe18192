"""Mixtures of experts: tokens picked for each expert, and what the experts made of them put back."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.pruning.structured import apply_plan, plan_pruning
from tests.nets import head, largest_difference, lively, masked_dense

X = torch.linspace(-1, 1, 84, dtype=torch.float64).reshape(2, 7, 6).sin()


class Mixture(nn.Module):
    """``[n, tokens, 6] -> [n, tokens, 5]`` through a residual of four experts, two for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.router, self.head = nn.Linear(6, 32), nn.Linear(32, 4), head(32)
        self.up, self.down = nn.Parameter(torch.randn(4, 64, 32) / 6), nn.Parameter(torch.randn(4, 32, 64) / 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        tokens = x.flatten(0, 1)
        weights, chosen = self.router(tokens).softmax(-1).topk(2, -1)
        logits: Tensor = self.head(x + self.mixed(tokens, weights, chosen).view_as(x))
        return logits

    def mixed(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        raise NotImplementedError

    def expert(self, at: int, x: Tensor) -> Tensor:
        return functional.linear(functional.linear(x, self.up[at]).relu(), self.down[at])

    def every_expert(self, x: Tensor) -> Tensor:
        """``[tokens, width] -> [tokens, experts, width]``."""
        return torch.einsum("teh,ewh->tew", torch.einsum("tw,ehw->teh", x, self.up).relu(), self.down)


class Grouped(Mixture):
    """Tokens sorted by expert, in one product for all of them."""

    def mixed(self, x, weights, chosen):
        order = chosen.flatten().argsort(stable=True)
        ends = torch.bincount(chosen.flatten(), minlength=4).cumsum(0).to(torch.int32)
        y = torch._grouped_mm(x[order // 2], self.up.transpose(1, 2), offs=ends).relu()
        y = torch._grouped_mm(y, self.down.transpose(1, 2), offs=ends)
        return torch.zeros_like(x).index_add_(0, order // 2, y * weights.flatten()[order, None])


class Looped(Mixture):
    """One expert after the other; ``put`` is how its tokens come back."""

    def mixed(self, x, weights, chosen):
        out = torch.zeros_like(x)
        for at in range(4):
            tokens, place = torch.where(chosen == at)
            out = self.put(out, tokens, self.expert(at, x[tokens]) * weights[tokens, place, None])
        return out


class Added(Looped):
    def put(self, out, tokens, y):
        return out.index_add_(0, tokens, y)


class Put(Looped):
    def put(self, out, tokens, y):
        out[tokens] += y
        return out


class Scattered(Looped):
    def put(self, out, tokens, y):
        return out.scatter_add(0, tokens[:, None].expand(-1, y.shape[1]), y)


class Masked(Mixture):
    """All experts for all tokens, most of them weighted by zero."""

    def mixed(self, x, weights, chosen):
        share = torch.zeros(len(x), 4, dtype=x.dtype).scatter(1, chosen, weights)
        return (self.every_expert(x) * share[..., None]).sum(1)


class Gathered(Mixture):
    """All experts for all tokens, two of which are picked."""

    def mixed(self, x, weights, chosen):
        y = self.every_expert(x)
        return (y.gather(1, chosen[..., None].expand(-1, -1, y.shape[-1])) * weights[..., None]).sum(1)


class Fetched(Mixture):
    """The experts' weights are picked for each token."""

    def mixed(self, x, weights, chosen):
        y = torch.einsum("tw,tkhw->tkh", x, self.up[chosen]).relu()
        return (torch.einsum("tkh,tkwh->tkw", y, self.down[chosen]) * weights[..., None]).sum(1)


@pytest.mark.parametrize("kind", [Grouped, Added, Put, Scattered, Masked, Gathered, Fetched])
def test_experts_lose_width_and_units_and_the_router_its_inputs(kind):
    """As many experts stay, each as wide as the others."""
    torch.manual_seed(0)
    net, x = lively(kind()), X
    if kind is Grouped:
        # There is no such product in double precision.
        net, x = net.float(), x.float()
    plan = plan_pruning(net, x, 0.25)
    small, dense = apply_plan(net, plan), masked_dense(net, plan)
    assert largest_difference(small, dense, torch.cat([x, x.flip(1)])) < (1e-6 if kind is Grouped else 1e-12)
    assert (small.up.shape, small.down.shape, small.router.weight.shape) == ((4, 48, 24), (4, 24, 48), (4, 24))
