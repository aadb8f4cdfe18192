from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.artifacts import artifact
from compress.errors import ModelError
from compress.lowrank import LowRankConfig, factorize, plan_factorization
from compress.macs import macs_of
from compress.modules.substitute import Substitute

HALF = LowRankConfig(by="ratio", target=0.25)


class Reading(nn.Module):
    """Layers, and a forward pass that reads what it likes of the first."""

    def __init__(self, layer: nn.Module, read: object) -> None:
        super().__init__()
        self.a, self.read = layer, read

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) * self.read(self.a, x)


def linear() -> nn.Module:
    """A layer for rows of 64."""
    return nn.Linear(64, 48)


def conv() -> nn.Module:
    """A layer that changes size."""
    return nn.Conv2d(24, 32, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2), padding_mode="reflect")


def transposed() -> nn.Module:
    """The other way."""
    return nn.ConvTranspose2d(24, 32, 3, stride=2, padding=1, output_padding=1)


ROWS, IMAGES = torch.linspace(-1, 1, 256).reshape(4, 64), torch.linspace(-1, 1, 2 * 24 * 144).reshape(2, 24, 12, 12)

READS = {
    "type": (linear, ROWS, lambda a, x: x.to(a.weight.dtype).dtype.itemsize),
    "device": (linear, ROWS, lambda a, x: 2.0 if x.to(a.weight.device).device == a.weight.device else 3.0),
    "shape": (linear, ROWS, lambda a, _: a.weight.shape[0] + a.weight.size(1) / a.weight.ndim),
    "what it is": (linear, ROWS, lambda a, _: 2.0 if isinstance(a.weight, torch.Tensor) else 3.0),
    "linear widths": (linear, ROWS, lambda a, _: a.in_features / a.out_features),
    "bias": (linear, ROWS, lambda a, _: 1 + a.bias.mean()),
    "no bias": (lambda: nn.Linear(64, 48, bias=False), ROWS, lambda a, _: 2.0 if a.bias is None else 3.0),
    "widths": (conv, IMAGES, lambda a, _: a.in_channels / a.out_channels),
    "kernel": (conv, IMAGES, lambda a, _: a.kernel_size[0] / a.kernel_size[1]),
    "stride": (conv, IMAGES, lambda a, x: x.shape[-1] // a.stride[0] + a.stride[1]),
    "padding": (conv, IMAGES, lambda a, _: a.padding[0] / a.padding[1] + len(a.padding_mode)),
    "dilation and groups": (conv, IMAGES, lambda a, _: a.dilation[0] / a.dilation[1] / a.groups),
    "shape of a kernel": (conv, IMAGES, lambda a, _: a.weight.shape[2] / a.weight.shape[3] + a.weight.shape[1]),
    "words": (lambda: nn.Conv2d(24, 32, 3, padding="same"), IMAGES, lambda a, _: float(len(a.padding))),
    "transposed": (transposed, IMAGES, lambda a, _: a.output_padding[0] + a.stride[0] + a.weight.shape[1]),
}


@pytest.mark.parametrize("kind", READS)
@pytest.mark.parametrize("decomposition", ["channel", "spatial", "tucker"])
def test_what_is_read_of_a_layer_is_read_of_its_chain(kind, decomposition):
    """A chain of full rank gives the outputs of the layer, and reading costs no multiplication."""
    build, x, read = READS[kind]
    if decomposition == "spatial" and build is linear:
        pytest.skip("a linear layer has no kernel")
    torch.manual_seed(0)
    model = Reading(build(), read).eval()
    full = factorize(model, x, LowRankConfig(by="rank", target=20, kinds=(decomposition,), only=("a",)))
    assert isinstance(full.a, Substitute)
    torch.testing.assert_close(read(full.a, x), read(model.a, x), rtol=0, atol=1e-6)
    assert macs_of(lambda: full(x)).total == macs_of(lambda: full.a(x)).total


def test_the_weight_of_a_chain_is_its_product():
    """For whoever looks at its numbers, with gradients; in the order of the layer that it stands for."""
    torch.manual_seed(0)
    for build, x in ((linear, ROWS), (conv, IMAGES), (transposed, IMAGES)):
        layer = build()
        chain = factorize(nn.Sequential(layer), x, HALF)[0]
        twin = build()
        with torch.no_grad():
            twin.weight.copy_(chain.weight)
            twin.bias.copy_(chain.bias)
        assert chain.weight.shape == layer.weight.shape
        torch.testing.assert_close(chain(x), twin(x), rtol=1e-4, atol=1e-5)
        chain.weight.square().sum().backward()
        assert all(part.weight.grad is not None for part in chain)


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda a, _: a.weight.sum(), "weight"),
        (lambda a, x: nn.functional.linear(x, a.weight), "weight"),
        (lambda a, _: a.weight.data.mul_(1.0).sum(), "weight"),
        (lambda a, _: a.secret, "secret"),
        (lambda a, _: getattr(a, "secret", 0.0), "secret"),
    ],
)
def test_a_layer_whose_numbers_are_read_stays_whole(read, name):
    """A chain would have to multiply its weights for that; the plan says what is read. Other layers go."""
    layer = linear()
    layer.secret = 2.0
    model = nn.Sequential(Reading(layer, read), nn.Linear(48, 48)).eval()
    plan = plan_factorization(model, ROWS, HALF)
    reasons = {one.names[0]: one.reason for one in plan.layers}
    assert reasons["0.a"] == f"the forward pass reads its {name}"
    assert reasons["1"] is None
    small = factorize(model, ROWS, HALF)
    assert small(ROWS).shape == model(ROWS).shape
    assert macs_of(lambda: small(ROWS)).total <= macs_of(lambda: model(ROWS)).total


@pytest.mark.parametrize("write", [lambda w: w.zero_(), lambda w: w.requires_grad_(False), nn.init.zeros_])
def test_the_weight_of_a_chain_is_not_written_to(write):
    """The product would take it, and nobody would see it again."""
    chain = factorize(nn.Sequential(linear()), ROWS, HALF)[0]
    with pytest.raises(ModelError, match=r"^the weight of a factorized layer is a product: write to the weights of"):
        write(chain.weight)


@pytest.mark.parametrize("other", [0.0, None])
def test_a_layer_whose_kind_is_asked_for_stays_whole(other):
    """Without a read there is only what becomes of the outputs: others, or a failure."""

    def by_kind(layer, _):
        if isinstance(layer, nn.Linear):
            return 1.0
        assert other is not None
        return other

    model = nn.Sequential(nn.Linear(64, 64), Reading(linear(), by_kind), nn.Linear(48, 48)).eval()
    plan = plan_factorization(model, ROWS, HALF)
    reasons = {one.names[0]: one.reason for one in plan.layers}
    assert reasons == {"0": None, "1.a": "the forward pass is another without it", "2": None}


def test_a_model_that_is_never_twice_the_same_is_factorized():
    """Noise in the outputs is no reason to keep a layer."""
    model = Reading(linear(), lambda _, x: torch.rand(len(x), 1)).eval()
    assert isinstance(factorize(model, ROWS, HALF).a, Substitute)


def test_a_read_that_hides_another_hides_it_in_vain():
    """Each failure of the forward pass shows one more layer."""
    model = nn.Sequential(*(Reading(nn.Linear(64, 64), lambda a, _: a.secret) for _ in range(3)), nn.Linear(64, 64))
    for one in model[:3]:
        one.a.secret = 2.0
    plan = plan_factorization(model.eval(), ROWS, HALF)
    assert [one.reason is None for one in plan.layers] == [False, False, False, True]


class Conv1D(nn.Module):
    """A linear layer whose weight is ``[in, out]``, as GPT-2 has them."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf) / nx**0.5), nn.Parameter(torch.randn(nf))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return flat.view(*x.size()[:-1], self.nf)


class OtherConv1D(Conv1D):
    """Of that shape, but another function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).square()


OtherConv1D.__name__ = "Conv1D"


def test_a_linear_layer_that_stores_inputs_first_is_factorized(tmp_path):
    """It is known by what it computes; its chain costs less, is read like it, and comes back from a file."""
    torch.manual_seed(0)
    model = nn.Sequential(Conv1D(48, 64), nn.GELU(), Conv1D(64, 48), OtherConv1D(64, 64)).eval()
    x = torch.randn(2, 5, 64)
    full = factorize(model, x, LowRankConfig(by="ratio", target=1.0))
    torch.testing.assert_close(full(x), model(x))
    small = factorize(model, x, HALF, calibration=[x])
    assert [isinstance(layer, Substitute) for layer in small] == [True, False, True, False]
    assert macs_of(lambda: small(x)).total < macs_of(lambda: model(x)).total
    assert small[0].weight.shape == (64, 48)
    assert (small[0].nf, small[0].nx) == (48, 64)
    torch.testing.assert_close(x @ small[0].weight + small[0].bias, small[0](x))
    artifact.save(small, tmp_path / "m.safetensors")
    model_again = artifact.load(
        tmp_path / "m.safetensors",
        lambda: nn.Sequential(Conv1D(48, 64), nn.GELU(), Conv1D(64, 48), OtherConv1D(64, 64)),
    )
    torch.testing.assert_close(model_again(x), small(x), rtol=0, atol=0)
    assert model_again[0].weight.shape == (64, 48)
