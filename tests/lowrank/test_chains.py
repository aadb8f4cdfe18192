from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from compress.lowrank.chains import chains
from compress.lowrank.config import LowRankConfig
from compress.lowrank.decompositions import decompose, kinds_for
from compress.lowrank.sites import Site

# Every setting that a layer can have, and sizes at which strides and padding leave something over.
LAYERS = {
    "linear": lambda: nn.Linear(6, 5),
    "linear without bias": lambda: nn.Linear(3, 7, bias=False),
    "pointwise": lambda: nn.Conv2d(6, 9, 1, stride=2, padding=1),
    "plain": lambda: nn.Conv2d(5, 7, 3),
    "strided": lambda: nn.Conv2d(5, 7, 3, stride=(2, 3), padding=(1, 2)),
    "dilated": lambda: nn.Conv2d(5, 7, (3, 2), dilation=(2, 3), padding=2, bias=False),
    "reflected": lambda: nn.Conv2d(5, 7, (3, 5), stride=(2, 1), padding=(1, 3), padding_mode="reflect"),
    "replicated": lambda: nn.Conv2d(2, 9, 3, padding=2, padding_mode="replicate"),
    "circular and same": lambda: nn.Conv2d(5, 7, (3, 4), padding="same", padding_mode="circular"),
    "same and dilated": lambda: nn.Conv2d(5, 7, (4, 3), padding="same", dilation=(1, 2)),
    "valid": lambda: nn.Conv2d(5, 3, 3, padding="valid", stride=2),
    "1d": lambda: nn.Conv1d(5, 7, 3, stride=2, padding=2),
    "1d circular": lambda: nn.Conv1d(5, 7, 4, padding="same", padding_mode="circular"),
    "3d": lambda: nn.Conv3d(3, 4, (1, 3, 2), padding=(0, 1, 1), stride=(1, 2, 1)),
    "transposed": lambda: nn.ConvTranspose2d(5, 7, (3, 4), (2, 3), 1, (1, 0), dilation=2),
    "transposed pointwise": lambda: nn.ConvTranspose2d(5, 7, 1, stride=2, bias=False),
    "transposed 1d": lambda: nn.ConvTranspose1d(5, 7, 4, stride=3, dilation=2, output_padding=1),
    "transposed 3d": lambda: nn.ConvTranspose3d(2, 3, 2, stride=2),
}
CASES = [
    (name, kind)
    for name, make in LAYERS.items()
    for kind in kinds_for(Site(layers={"": make()}).weight.shape, LowRankConfig().kinds)
]


def inputs_for(layer: nn.Module) -> torch.Tensor:
    """Three examples of odd sizes, in float64."""
    if isinstance(layer, nn.Linear):
        return torch.randn(3, 4, layer.in_features).double()
    return torch.randn(3, layer.in_channels, *(9, 10, 5)[: layer.weight.ndim - 2]).double()


def full_chain(site: Site, kind: str) -> dict[str, nn.Module]:
    """The site's layers at full rank."""
    found = decompose(site.weight, kind)
    return chains(site, found.stages(found.full))


@pytest.mark.parametrize(("name", "kind"), CASES, ids=lambda value: value)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_full_rank_reproduces_the_layer(name, kind):
    """In float64 to 1e-9, with every stride, padding, dilation and bias, and for inputs without a batch too."""
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    chain = full_chain(Site(layers={"": layer}), kind)[""]
    x = inputs_for(layer)
    assert {type(part) for part in chain} <= {type(layer), nn.Conv1d, nn.Conv2d, nn.Conv3d}
    with torch.no_grad():
        torch.testing.assert_close(chain(x), layer(x), rtol=0, atol=1e-9)
        torch.testing.assert_close(chain(x[0]), layer(x[0]), rtol=0, atol=1e-9)


def test_the_chain_is_as_the_layer_was():
    """Type, memory format, mode and what can learn are the layer's; only the last part has its bias, a copy."""
    layer = nn.Conv2d(5, 7, 3).to(torch.bfloat16, memory_format=torch.channels_last).eval()
    layer.weight.requires_grad = False
    chain = full_chain(Site(layers={"": layer}), "tucker")[""]
    assert {parameter.dtype for parameter in chain.parameters()} == {torch.bfloat16}
    assert not any(module.training for module in chain.modules())
    assert [part.weight.requires_grad for part in chain] == [False] * 3
    assert all(part.weight.is_contiguous(memory_format=torch.channels_last) for part in chain)
    assert [part.bias is None for part in chain] == [True, True, False]
    assert chain[-1].bias.equal(layer.bias)
    assert chain[-1].bias is not layer.bias
    assert chain[-1].bias.requires_grad


def test_both_sides_of_a_channel_weigh_the_same():
    """Between two layers of a chain every channel's weights in and out have one norm."""
    layer = nn.Conv2d(5, 7, 3).double()
    for kind in ("channel", "spatial", "tucker"):
        parts = full_chain(Site(layers={"": layer}), kind)[""]
        for before, after in itertools.pairwise(parts):
            norms = before.weight.flatten(1).norm(dim=1), after.weight.transpose(0, 1).flatten(1).norm(dim=1)
            if kind != "tucker":
                torch.testing.assert_close(*norms)
        assert max(part.weight.abs().max() for part in parts) < 3


def test_tied_layers_share_the_weights_of_their_chains():
    """Two layers of one weight with strides and biases of their own: one chain's weights, both layers' outputs."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(4, 4, 3, padding=1).double(), nn.Conv2d(4, 4, 3, stride=2).double()
    second.weight = first.weight
    made = full_chain(Site(layers={"a": first, "b": second}), "spatial")
    assert all(one.weight is other.weight for one, other in zip(made["a"], made["b"], strict=True))
    x = torch.randn(2, 4, 7, 7).double()
    for name, layer in (("a", first), ("b", second)):
        torch.testing.assert_close(made[name](x), layer(x), rtol=0, atol=1e-9)


def test_shared_biases_stay_shared():
    """A bias of both layers is one again, and two of their own stay two."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    apart = full_chain(Site(layers={"a": first, "b": second}), "channel")
    assert apart["a"][-1].bias is not apart["b"][-1].bias
    second.bias = first.bias
    tied = full_chain(Site(layers={"a": first, "b": second}), "channel")
    assert tied["a"][-1].bias is tied["b"][-1].bias
