from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compress.calling.inputs import Inputs
from compress.channels.groups import resolve
from compress.channels.trace import trace
from compress.errors import ModelError
from compress.pruning import readings
from compress.pruning.places import mixing, places_of
from compress.pruning.readings import Evidence
from tests.nets import Net, conv, conv_bn, head, lively, pooled

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def residual_net() -> nn.Module:
    """Eight channels added up by two convolutions, read by two others, and flattened into a linear layer."""
    torch.manual_seed(0)
    return lively(
        Net(
            lambda n, x: n.head((n.b(n.a(x)) + n.a(x)).relu().mean(3).flatten(1)),
            a=conv_bn(3, 8),
            b=nn.Sequential(conv_bn(8, 6), conv(6, 8), nn.BatchNorm2d(8)),
            head=head(64),
        )
    )


NOTHING = Evidence()


def read(model: nn.Module, reading: readings.Reading, evidence: Evidence = NOTHING) -> dict[str, list[Tensor]]:
    """What the reading gives for each group that may go, by the layer that puts its channels out first."""
    channels = resolve(trace(model, Inputs(args=(X[:1],))))
    weights = mixing(channels)
    groups = [group for group in channels.groups if group.reason is None]
    cells = [places_of(channels, cell, weights) for group in groups for cell in group.cells]
    found: dict[str, list[Tensor]] = {}
    for places, matrices in zip(cells, reading(model, cells, evidence), strict=True):
        name = next(place.slot.tensor for place in places if place.produces)
        # The parts of a group are cells of their own, one after the other.
        found[name] = (
            [torch.cat(parts) for parts in zip(found[name], matrices, strict=True)] if name in found else matrices
        )
    return found


def test_weights_are_the_filters_of_every_layer_that_puts_the_channels_out():
    """Two convolutions that are added give two matrices, without the norms and biases."""
    model = residual_net()
    found = read(model, readings.weights)
    assert [tuple(one.shape) for one in found["a.0.weight"]] == [(8, 27), (8, 6)]
    assert found["b.0.0.weight"][0].equal(model.b[0][0].weight.detach().flatten(1))


def test_norm_scales_are_those_of_the_norms_else_the_filters():
    """One scale a norm and channel; a group without any norm is read as filters."""
    model = residual_net()
    found = read(model, readings.norm_scales)
    assert [one[:, 0].tolist() for one in found["a.0.weight"]] == [
        model.a[1].weight.tolist(),
        model.b[2].weight.tolist(),
    ]
    plain = Net(lambda n, x: n.h(pooled(n.a(x))), a=conv(3, 4), h=head(4)).double()
    assert read(plain, readings.norm_scales)["a.weight"][0].equal(plain.a.weight.detach().flatten(1))


def test_draws_are_the_seeds_alone():
    """Equal seeds give equal numbers, others others; torch's own random state is not touched."""
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, again, other = (read(residual_net(), readings.draws, Evidence(seed=seed)) for seed in (1, 1, 2))
    torch.manual_seed(3)
    first = read(lively(residual_net()), readings.draws, Evidence(seed=1))
    assert all(first[name][0].equal(again[name][0]) and not first[name][0].equal(other[name][0]) for name in first)
    torch.manual_seed(3)
    assert torch.rand(1).equal(expected)


def gated(model: nn.Module, x: Tensor, labels: Tensor | None) -> Tensor:
    """The derivative of the loss by a factor on the first group's channels, taken by a gate in the network itself."""
    gate = torch.ones(8, dtype=torch.float64, requires_grad=True)
    first, second = model.a(x), model.b[0]
    stream = model.b[1:](second(first * gate[:, None, None])) + first
    logits = model.head((stream.relu() * gate[:, None, None]).mean(3).flatten(1))
    loss = nn.functional.cross_entropy(logits, logits.argmax(1) if labels is None else labels)
    return torch.autograd.grad(loss, gate)[0]


@pytest.mark.parametrize("labels", [LABELS, None], ids=["labels", "none"])
def test_gate_gradients_are_those_of_a_gate_where_the_channel_is_read(labels):
    """Weight times gradient, summed over all who read a channel, is the derivative by a factor on what they read."""
    model = residual_net()
    batches = [(X[:4], None if labels is None else labels[:4]), (X[4:], None if labels is None else labels[4:])]
    (terms,) = read(model, readings.gate_gradients, Evidence(batches=batches))["a.0.weight"]
    expected = torch.stack([gated(model, *batch) for batch in batches], dim=1)
    assert torch.allclose(terms, expected, rtol=1e-9, atol=1e-12)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_loss_of_ones_own_is_taken():
    """A model that is no classifier has a loss nobody else can know."""
    model = residual_net()
    twice = Evidence(batches=[(X, LABELS)], loss=lambda outputs, labels: 2 * readings.cross_entropy(outputs, labels))
    once = Evidence(batches=[(X, LABELS)])
    (a,), (b,) = (read(model, readings.gate_gradients, one)["a.0.weight"] for one in (twice, once))
    assert torch.allclose(a, 2 * b)


def test_without_logits_a_loss_is_asked_for():
    """The sentence says what is missing."""
    for outputs in ({"logits": X}, X[0, 0, 0], torch.zeros(2, 3, dtype=torch.int64)):
        with pytest.raises(ModelError, match="needs a loss of its own for taylor"):
            readings.cross_entropy(outputs, None)


@pytest.mark.parametrize(
    "loss", [lambda outputs, _: outputs, lambda *_: torch.zeros(())], ids=["no scalar", "constant"]
)
def test_a_loss_without_gradients_is_refused(loss):
    """One sentence, not autograd's own."""
    with pytest.raises(ModelError, match=r"^the loss for taylor must be a scalar that depends on the model's weights$"):
        read(residual_net(), readings.gate_gradients, Evidence(batches=[X], loss=loss))


def test_frozen_and_half_precision_models_have_gradients():
    """What does not learn can be ranked all the same, in any floating type."""
    model = residual_net().bfloat16().requires_grad_(requires_grad=False)
    evidence = Evidence(batches=[(X.bfloat16(), LABELS)])
    channels = resolve(trace(model, Inputs(args=(X[:1].bfloat16(),))))
    cells = [places_of(channels, group.cells[0], mixing(channels)) for group in channels.groups if not group.reason]
    for reading in (readings.gate_gradients, readings.activations):
        assert all(matrix.isfinite().all() for rows in reading(model, cells, evidence) for matrix in rows)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_activations_are_what_the_next_layers_see():
    """The mean absolute input of each layer that reads the channels; each of eight flattened positions by itself."""
    model = residual_net()
    found = read(model, readings.activations, Evidence(batches=[X[:4], X[4:]]))
    with torch.no_grad():
        first = model.a(X)
        last = (model.b(first) + first).relu().mean(3)
    matrices = found["a.0.weight"]
    assert len(matrices) == 1 + 8
    assert torch.allclose(matrices[0][:, 0], first.abs().mean((0, 2, 3)))
    assert torch.allclose(torch.cat(matrices[1:], dim=1), last.abs().mean(0))


def test_activations_of_grouped_and_transposed_convolutions_are_counted_by_their_inputs():
    """Whatever the layout of a weight, a channel is found among the layer's inputs."""
    torch.manual_seed(0)
    model = lively(
        Net(
            lambda n, x: n.h(pooled(n.t(n.g(n.a(x))))),
            a=conv_bn(3, 8),
            g=nn.Sequential(conv(8, 12, 3, groups=2), nn.ReLU()),
            t=nn.ConvTranspose2d(12, 6, 2, groups=1),
            h=head(6),
        )
    )
    found = read(model, readings.activations, Evidence(batches=[X]))
    with torch.no_grad():
        first = model.a(X).abs().mean((0, 2, 3))
        second = model.g(model.a(X)).abs().mean((0, 2, 3))
    assert torch.allclose(found["a.0.weight"][0][:, 0], first)
    assert torch.allclose(found["g.0.weight"][0][:, 0], second)


def test_channels_that_no_layer_reads_are_ranked_by_their_filters():
    """Queries and keys meet in a product of activations."""
    torch.manual_seed(0)
    attend = Net(
        lambda n, x: n.h((n.q(x.flatten(2)) @ n.k(x.flatten(2)).mT).softmax(-1).mean(1)),
        q=nn.Linear(64, 8),
        k=nn.Linear(64, 8),
        h=head(3),
    ).double()
    found = read(attend, readings.activations, Evidence(batches=[X]))
    assert [tuple(matrix.shape) for matrix in found.get("q.weight", [])] in ([], [(8, 64), (8, 64)])


class Unusual(nn.Module):
    """A layer called by keyword, and one whose weight is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8).double(), conv(8, 4).double()
        self.register_buffer("fixed", torch.randn(5, 4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(pooled(self.b(input=self.a(x).relu())), self.fixed)


def test_unusual_calls_and_weights_are_read_too():
    """However a layer is called and wherever its weight is kept."""
    torch.manual_seed(0)
    model = Unusual()
    evidence = Evidence(batches=[(X, LABELS)])
    seen, terms = read(model, readings.activations, evidence), read(model, readings.gate_gradients, evidence)
    with torch.no_grad():
        assert torch.allclose(seen["a.weight"][0][:, 0], model.a(X).relu().mean((0, 2, 3)))
    assert terms["b.weight"][0].abs().sum() > 0
    assert not model.fixed.requires_grad
