from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compress.calling.inputs import inputs_of
from compress.lowrank.chains import chains
from compress.lowrank.decompositions import decompose
from compress.lowrank.moments import lost_means, whitenings
from compress.lowrank.sites import Site


def correlated(shape: tuple[int, ...], seed: int, mean: float = 0.0) -> Tensor:
    """Inputs whose channels vary together and unequally, and whose neighbours are alike; around ``mean``."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    mix = torch.randn(shape[1], shape[1], generator=torch.Generator().manual_seed(99))
    x = torch.tensordot(x, mix * torch.linspace(0, 2, shape[1]).square(), dims=([1], [1])).movedim(-1, 1)
    for dim in range(2, x.ndim):
        x = (x + x.roll(1, dim) + x.roll(2, dim)) / 3
    return x + mean


def output_error(layer: nn.Module, chain: nn.Module, x: Tensor) -> float:
    """Share of the outputs' variance that the chain does not put out."""
    with torch.no_grad():
        wanted, got = layer(x), chain(x)
    dims = (0, *range(2, wanted.ndim))
    lost, all_of_it = wanted - got, wanted - wanted.mean(dims, keepdim=True)
    return float((lost - lost.mean(dims, keepdim=True)).square().sum() / all_of_it.square().sum())


def chain_of(layer: nn.Module, kind: str, ranks: tuple[int, int] | None, calibration: list[Tensor] | None) -> nn.Module:
    """The layer's chain, with or without data; at full rank if none is given."""
    site = Site(layers={"": layer})
    if calibration is None:
        return chains(site, decompose(site.weight, kind).stages(ranks))[""]
    whitening = whitenings(layer, map(inputs_of, calibration), [site])[site]
    found = decompose(whitening.applied(site.weight), kind)
    return chains(site, whitening.undone(found.stages(ranks or found.full)))[""]


LAYERS = {
    "channel": (lambda: nn.Conv2d(8, 12, 3, padding=1), (4, 4)),
    "spatial": (lambda: nn.Conv2d(8, 12, 3, padding=1), (6, 6)),
    "tucker": (lambda: nn.Conv2d(8, 12, 3, padding=1), (4, 6)),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_data_make_the_error_of_the_outputs_smaller(kind, mean):
    """On inputs that were not calibrated on, at equal rank, by a third or more; also where all channels have a mean."""
    torch.manual_seed(0)
    make, ranks = LAYERS[kind]
    layer = make()
    calibration = [correlated((16, 8, 12, 12), seed, mean) for seed in (1, 2)]
    held_out = correlated((16, 8, 12, 12), 3, mean)
    plain, aware = (output_error(layer, chain_of(layer, kind, ranks, data), held_out) for data in (None, calibration))
    assert aware < plain / 1.5


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_gets_the_best_chain_there_is(bias):
    """The error on the calibration data is that of the best projection of the outputs themselves."""
    torch.manual_seed(0)
    layer = nn.Linear(10, 6, bias=bias)
    x = correlated((4000, 10), 1, mean=1.0)
    chain = chain_of(layer, "channel", (3, 3), [x])
    with torch.no_grad():
        outputs, lost = layer(x).double(), (layer(x) - chain(x)).double()
    if bias:
        outputs, lost = outputs - outputs.mean(0), lost - lost.mean(0)
    tail = torch.linalg.svdvals(outputs)[3:].square().sum()
    assert float(lost.square().sum()) == pytest.approx(float(tail), rel=0.02)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Linear(6, 5), (20, 6)),
        (lambda: nn.Conv1d(6, 5, 4, dilation=2), (3, 6, 11)),
        (lambda: nn.Conv2d(6, 5, (3, 1), bias=False), (3, 6, 5, 5)),
        (lambda: nn.ConvTranspose2d(6, 5, 3, stride=2), (3, 6, 5, 5)),
        (lambda: nn.Conv2d(6, 5, 5, padding=6, dilation=3), (1, 6, 4, 4)),
    ],
)
def test_full_rank_is_the_layer_whatever_the_data(make, shape):
    """Whitening and its inverse cancel, also for channels that never vary and kernels larger than the image."""
    torch.manual_seed(0)
    layer = make().double()
    x = correlated(shape, 1).double()
    x[:, 0] = 0
    chain = chain_of(layer, "channel", None, [x])
    with torch.no_grad():
        torch.testing.assert_close(chain(x), layer(x), rtol=0, atol=1e-9)


def test_channels_that_carry_nothing_are_given_up():
    """A rank of one is enough for a layer of whose many inputs a single one ever varies."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 8, bias=False)
    x = torch.zeros(5000, 8)
    x[:, 3] = torch.randn(5000)
    assert output_error(layer, chain_of(layer, "channel", (1, 1), [x]), x) < 1e-3
    assert output_error(layer, chain_of(layer, "channel", (1, 1), None), x) > 0.04


def test_few_data_are_trusted_little():
    """Of eight examples for a hundred channels the chain is no worse on others than without any data."""
    torch.manual_seed(0)
    layer = nn.Linear(100, 80)
    calibration, held_out = torch.randn(8, 100), torch.randn(500, 100)
    plain, aware = (
        output_error(layer, chain_of(layer, "channel", (20, 20), data), held_out) for data in (None, [calibration])
    )
    assert aware < 1.05 * plain


def test_the_mean_that_a_chain_loses_is_known():
    """For each layer with a bias the mean of output minus chain's output, padding and stride included."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=2, stride=2), nn.Conv2d(6, 4, 3, bias=False))
    sites = [Site(layers={"0": model[0]}), Site(layers={"1": model[1]})]
    made = {site: chains(site, decompose(site.weight, "channel").stages((2, 2))) for site in sites}
    data = [correlated((4, 3, 9, 9), seed, mean=1.0) for seed in (1, 2)]
    lost = lost_means(model, map(inputs_of, data), made)
    assert list(lost) == ["0"]
    x = torch.cat(data)
    with torch.no_grad():
        expected = (model[0](x) - made[sites[0]]["0"](x)).mean((0, 2, 3))
    torch.testing.assert_close(lost["0"].float(), expected, rtol=1e-4, atol=1e-5)
