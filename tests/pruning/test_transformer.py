import pytest
import torch
from torch import Tensor, nn

from compress.pruning.structured import apply_plan, plan_pruning
from tests.nets import Net, head, largest_difference, lively, masked_dense

X = torch.linspace(-1, 1, 42, dtype=torch.float64).reshape(1, 14, 3)


@pytest.fixture(autouse=True)
def _no_fast_path():
    """The fast path of the dense model would pass by the norms that the oracle puts in."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


def causal(size: int) -> Tensor:
    """A position sees those before it."""
    return nn.Transformer.generate_square_subsequent_mask(size).double()


def translated(n: Net, x: Tensor) -> Tensor:
    """The first positions read by the encoder, the last by the decoder."""
    return n.t(n.e(x[:, :6]), n.e(x[:, 4:]))


def time_first(n: Net, x: Tensor) -> Tensor:
    """The same with batch and time exchanged, and a mask."""
    a, b = (n.e(part).transpose(0, 1) for part in (x[:, :6], x[:, 4:]))
    return n.t(a, b, tgt_mask=causal(len(b))).transpose(0, 1)


ENCODER = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
DECODER = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True)
NETS = {
    "transformer": (translated, lambda: nn.Transformer(32, 4, 1, 1, 64, batch_first=True)),
    "norms first": (time_first, lambda: nn.Transformer(32, 4, 2, 2, 64, norm_first=True, activation="gelu")),
    "decoder": (translated, lambda: nn.TransformerDecoder(DECODER, 2)),
    "encoder": (
        lambda n, x: n.t(n.e(x), src_key_padding_mask=x[:, :, 0] > 0.5),
        lambda: nn.TransformerEncoder(ENCODER, 2, enable_nested_tensor=False),
    ),
}


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize(("run", "build"), NETS.values(), ids=NETS)
def test_transformers_of_torch_are_cut(run, build):
    """Residual, heads and perceptrons lose a quarter, the widths that torch's modules check with them."""
    torch.manual_seed(0)
    net = lively(Net(lambda n, x: n.h(run(n, x)), e=nn.Linear(3, 32), t=build(), h=head(32)))
    plan = plan_pruning(net, X, 0.25)
    small = apply_plan(net, plan)
    assert largest_difference(small, masked_dense(net, plan), torch.cat([X, X.flip(1)])) < 1e-12
    assert small.e.out_features == 24
    assert plan.num_params_after / plan.num_params_before < 0.6


ATTENTIONS = {
    "of itself": (lambda n, x: n.t(n.e(x), n.e(x), n.e(x))[0], {}),
    "without bias": (lambda n, x: n.t(n.e(x), n.e(x), n.e(x))[0], {"bias": False}),
    "of another": (lambda n, x: n.t(n.e(x), n.f(x), n.f(x))[0], {}),
    "of another width": (lambda n, x: n.t(n.e(x), n.g(x), n.g(x))[0], {"kdim": 24, "vdim": 24}),
    "of the input": (lambda n, x: n.t(n.e(x), x, x)[0], {"kdim": 3, "vdim": 3}),
}


@pytest.mark.parametrize(("run", "more"), ATTENTIONS.values(), ids=ATTENTIONS)
def test_attention_inside_a_residual_is_cut_with_its_heads(run, more):
    """Queries, keys and values lie in one matrix or in three; each head keeps as many dimensions as the others."""
    torch.manual_seed(0)
    net = Net(
        lambda n, x: n.h(n.e(x) + run(n, x)),
        e=nn.Linear(3, 32),
        f=nn.Linear(3, 32),
        g=nn.Linear(3, 24),
        t=nn.MultiheadAttention(32, 4, batch_first=True, **more),
        h=head(32),
    )
    plan = plan_pruning(lively(net), X, 0.25)
    small = apply_plan(net, plan)
    assert largest_difference(small, masked_dense(net, plan), torch.cat([X, X.flip(1)])) < 1e-12
    assert (small.e.out_features, small.t.embed_dim, small.t.head_dim, small.t.num_heads) == (24, 24, 6, 4)
    assert small.t.out_proj.weight.shape == (24, 24)


class Rotary(nn.Module):
    """Halves of each head's dimensions are turned against each other, as by rotary position embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.h = nn.Linear(3, 32), head(32)
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.e(x)
        q, k, v = (layer(x).view(*x.shape[:2], 4, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = (0.3 * self.turned(q) @ self.turned(k).transpose(-2, -1)).softmax(-1) @ v
        logits: Tensor = self.h(x + self.o(y.transpose(1, 2).flatten(2)))
        return logits

    def turned(self, z: Tensor) -> Tensor:
        half = z.shape[-1] // 2
        return 0.8 * z + 0.6 * torch.cat([-z[..., half:], z[..., :half]], dim=-1)


def test_turned_halves_of_heads_are_cut_in_pairs():
    """Queries, keys and values of all heads: half of every head's slices goes with the other half."""
    torch.manual_seed(0)
    net = lively(Rotary())
    plan = plan_pruning(net, X, 0.25)
    small = apply_plan(net, plan)
    assert largest_difference(small, masked_dense(net, plan), torch.cat([X, X.flip(1)])) < 1e-12
    assert (small.e.out_features, small.q.out_features, small.v.out_features) == (24, 24, 24)


class PartlyRotary(nn.Module):
    """The first six of each head's twenty dimensions are turned, by angles that all layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.h = nn.Linear(3, 40), head(40)
        self.qkv, self.o = nn.Linear(40, 120), nn.Linear(40, 40)
        self.head_size = 20
        self.register_buffer("frequencies", torch.tensor([1.0, 0.5, 0.25]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.e(x)
        angles = (self.frequencies[:, None] @ torch.arange(x.shape[1], dtype=x.dtype)[None]).T
        table = torch.cat([angles, angles], -1)
        q, k, v = self.qkv(x).view(*x.shape[:2], -1, 3 * self.head_size).transpose(1, 2).chunk(3, -1)
        q, k = self.turned(q, table), self.turned(k, table)
        y = (q @ k.mT * self.head_size**-0.5).softmax(-1) @ v
        logits: Tensor = self.h(x + self.o(y.transpose(1, 2).flatten(2)))
        return logits

    def turned(self, z: Tensor, table: Tensor) -> Tensor:
        width = table.shape[-1]
        first, second = z[..., :width].chunk(2, -1)
        turned = z[..., :width] * table.cos() + torch.cat([-second, first], -1) * table.sin()
        return torch.cat([turned, z[..., width:]], -1)


def test_heads_of_which_a_few_dimensions_are_turned_lose_others():
    """Three pairs are too few to lose a fifth: of queries, keys and values four of twenty go, and all pairs stay."""
    torch.manual_seed(0)
    net = lively(PartlyRotary())
    plan = plan_pruning(net, X, 0.2)
    small = apply_plan(net, plan)
    assert largest_difference(small, masked_dense(net, plan), torch.cat([X, X.flip(1)])) < 1e-12
    assert (small.e.out_features, small.qkv.out_features, small.o.in_features) == (32, 96, 32)
    assert len(small.frequencies) == 3
