"""Attention stays what it was when its heads become narrower, however its temperature is written."""

import math

import pytest
import torch
from torch import Tensor, nn

from compress.pruning.structured import apply_plan, plan_pruning
from tests.nets import largest_difference, largest_gradient_difference, lively, masked_dense
from tests.pruning.test_attention import Encoder, X


class Spelled(nn.Module):
    """Attention whose scores are ``scores(q, k)``; q and k ``[n, heads, tokens, width]``."""

    def __init__(self, scores, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.scores, self.heads, self.head_dim = scores, heads, width // heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        y = self.scores(self, q, k).softmax(-1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


def rotated(x: Tensor) -> Tensor:
    """Each position turned by another angle, as rotary embeddings do."""
    angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None]
    first, second = x.chunk(2, -1)
    return x * angle.cos() + torch.cat([-second, first], -1) * angle.sin()


def added(_, q, k):
    """``baddbmm`` with a scale, onto a bias."""
    a, b = q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2)
    bias = torch.arange(a.shape[1] * b.shape[2], dtype=q.dtype).reshape(1, a.shape[1], -1) / 100
    scores = torch.baddbmm(bias, a, b, alpha=q.shape[-1] ** -0.5)
    return scores.unflatten(0, q.shape[:2])


SPELLINGS = {
    "divided by a root": lambda n, q, k: q @ k.mT / math.sqrt(n.head_dim),
    "multiplied by a power": lambda n, q, k: q @ k.mT * n.head_dim**-0.5,
    "root of a shape": lambda _, q, k: (q @ k.mT) * (1.0 / math.sqrt(k.size(-1))),
    "root of a tensor": lambda _, q, k: q @ k.mT / torch.sqrt(torch.tensor(float(q.shape[-1]))),
    "in place": lambda _, q, k: (q @ k.mT).div_(q.shape[-1] ** 0.5),
    "einsum": lambda _, q, k: torch.einsum("bhqd,bhkd->bhqk", q, k) / q.shape[-1] ** 0.5,
    "both transposes": lambda _, q, k: (q * q.shape[-1] ** -0.25) @ (k * k.shape[-1] ** -0.25).mT,
    "masked": lambda _, q, k: (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(
        torch.ones(q.shape[-2], k.shape[-2]).triu(1) > 0, -1e9
    ),
    "biased": lambda _, q, k: q @ k.mT / q.shape[-1] ** 0.5 + torch.arange(k.shape[-2]),
    "after rotation": lambda _, q, k: (rotated(q) * q.shape[-1] ** -0.5) @ rotated(k).mT,
    "scores after rotation": lambda _, q, k: rotated(q) @ rotated(k).mT / q.shape[-1] ** 0.5,
    "baddbmm": added,
}


@pytest.mark.parametrize("scores", SPELLINGS.values(), ids=SPELLINGS)
def test_a_temperature_is_made_good(scores):
    """Heads and residual lose a quarter, and queries (or keys) take the difference: at two sizes."""
    torch.manual_seed(0)
    net = lively(Encoder(Spelled(scores)))
    plan = plan_pruning(net, X, 0.25)
    small, dense = apply_plan(net, plan), masked_dense(net, plan)
    for x in (torch.cat([X, X.flip(1)]), X[:, :9]):
        assert largest_difference(small, dense, x) < 1e-9
    assert largest_gradient_difference(small, dense, plan, X) < 1e-9
    assert plan.scales
    assert plan.num_params_after / plan.num_params_before < 0.65, str(plan)


def test_queries_read_elsewhere_take_no_temperature():
    """Another reader of queries and keys alike leaves nothing to scale: heads stay, and the rest is cut."""
    torch.manual_seed(0)
    net = lively(
        Encoder(
            Spelled(
                lambda _, q, k: q @ k.mT / q.shape[-1] ** 0.5 + q.tanh().sum(-1, True) * k.tanh().sum(-1)[..., None, :]
            )
        )
    )
    plan = plan_pruning(net, X, 0.25)
    assert not plan.scales
    assert ("mlp.0.weight", 0) in plan.kept
    assert largest_difference(apply_plan(net, plan), masked_dense(net, plan), X) < 1e-9


def _own_pair(n, q, k):
    """Content with content, content with position, and position with content, each by the temperature."""
    width, at = q.shape[-1], torch.arange(q.shape[-2])
    a, b = (
        layer(n.places[: q.shape[-2]]).unflatten(-1, (n.heads, width)).transpose(0, 1) for layer in (n.at_q, n.at_k)
    )
    index = (at[:, None] - at[None]).abs().expand(*q.shape[:2], -1, -1)
    content = (q @ b.mT).gather(-1, index) / width**0.5
    position = (k @ a.mT).gather(-1, index).mT / width**0.5
    return q @ (k / width**0.5).mT + (content + position)


class Disentangled(Spelled):
    """Attention that takes positions for themselves, as DeBERTa's does."""

    def __init__(self, scores=_own_pair) -> None:
        super().__init__(scores)
        self.at_q, self.at_k = nn.Linear(32, 32), nn.Linear(32, 32)
        self.register_buffer("places", torch.randn(16, 32, generator=torch.Generator().manual_seed(0)))


def _directly(n, q, k):
    """The same queries in two products, whose sum is read."""
    at = n.at_k(n.places[: q.shape[-2]]).unflatten(-1, (n.heads, q.shape[-1])).transpose(0, 1)
    return q @ k.mT / q.shape[-1] ** 0.5 + q @ at.mT / q.shape[-1] ** 0.5


@pytest.mark.parametrize("scores", [_own_pair, _directly])
def test_layers_that_several_temperatures_meet_make_them_good_together(scores):
    """Of queries, keys and positions some are scaled, so that each product is scaled once."""
    torch.manual_seed(0)
    net = lively(Encoder(Disentangled(scores)))
    plan = plan_pruning(net, X, 0.25)
    small, dense = apply_plan(net, plan), masked_dense(net, plan)
    for x in (torch.cat([X, X.flip(1)]), X[:, :9]):
        assert largest_difference(small, dense, x) < 1e-9
    assert plan.scales
    assert small.attention.q.out_features == 24


def test_temperatures_that_differ_are_not_made_good_by_one_layer():
    """Queries that a root and the width itself divide would have to be scaled by both: heads stay as they are."""
    torch.manual_seed(0)
    net = lively(Encoder(Spelled(lambda _, q, k: q @ q.mT / q.shape[-1] ** 0.5 + k @ k.mT / q.shape[-1])))
    plan = plan_pruning(net, X, 0.25)
    assert largest_difference(apply_plan(net, plan), masked_dense(net, plan), X) < 1e-9
    assert ("attention.q.weight", 0) not in plan.kept
