from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.errors import ConfigError, ModelError
from compress.lowrank.config import LowRankConfig
from compress.lowrank.sites import Pass, Site, batched, find_sites, pass_of, watched
from compress.modules.substitute import Substitute
from compress.pruning.unstructured import prune_weights


class Derived(nn.Linear):
    """Might do anything."""


def hooked() -> nn.Module:
    """A layer whose output somebody changes."""
    layer = nn.Linear(4, 4)
    layer.register_forward_hook(lambda _module, _inputs, output: output * 2)
    return layer


def normed() -> nn.Module:
    """A layer whose weight is computed before each call."""
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(nn.Linear(4, 4))


def embedded() -> nn.Module:
    """A layer that shares its weight with an embedding."""
    model = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("model", "name", "reason"),
    [
        (lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4)), "0", "it is depthwise already"),
        (lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=2)), "0", "it is grouped, in 2 groups"),
        (lambda: nn.Sequential(Derived(4, 4)), "0", "a Derived may do more than its base class"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), "", "a ParametrizedLinear may do more"),
        (normed, "", "its weight is no real parameter"),
        (lambda: nn.Linear(4, 4, dtype=torch.complex64), "", "its weight is no real parameter"),
        (hooked, "", "its hooks would be lost"),
        (embedded, "1", "its weight is also '0.weight'"),
        (lambda: nn.MultiheadAttention(4, 2), "out_proj", "its weight is read by MultiheadAttention"),
        (lambda: Substitute(nn.Linear(4, 2), nn.Linear(2, 4)), "1", "it is a factor already"),
    ],
)
def test_what_must_stay_whole_has_a_reason(model, name, reason):
    """Whatever a chain could not do in the place of a layer is left alone, and said."""
    sites, whole = find_sites(model(), LowRankConfig())
    assert all(name not in site.layers for site in sites)
    assert whole[name].startswith(reason)


def test_only_and_ignore_name_modules_and_all_within():
    """A name stands for the module and its descendants, not for others that begin alike; ignore wins."""
    model = nn.ModuleDict({key: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for key in ("a", "ab", "b")})
    sites, whole = find_sites(model, LowRankConfig(only=("a", "b.1"), ignore=("a.1",)))
    assert [name for site in sites for name in site.layers] == ["a.0", "b.1"]
    assert whole["a.1"] == "it is to be ignored"
    assert whole["ab.0"] == whole["b.0"] == "it is not among the modules to factorize"
    assert find_sites(model, LowRankConfig(ignore=("",)))[0] == []
    for option in ("only", "ignore"):
        with pytest.raises(ConfigError, match=f"^{option} must name modules of the model, got 'c'$"):
            find_sites(model, LowRankConfig(**{option: ("c",)}))


def test_layers_of_one_weight_are_one_site():
    """Tied layers are found together, a module under two names once."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    sites, whole = find_sites(nn.Sequential(first, second, first), LowRankConfig())
    assert [list(site.layers) for site in sites] == [["0", "1"]]
    assert whole == {}


def test_models_that_cannot_be_factorized_are_refused():
    """Nothing to factorize, weights that are not numbers, and masks that would be lost: one sentence each."""
    with pytest.raises(ModelError, match=r"^Sequential has no linear or convolution layer that could be factorized$"):
        find_sites(nn.Sequential(nn.ReLU()), LowRankConfig())
    broken = nn.Sequential(nn.Linear(4, 4))
    broken[0].weight.data[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"^weights must be finite to be factorized, '0.weight' is not$"):
        find_sites(broken, LowRankConfig())
    with pytest.raises(ModelError, match=r"masks must be made permanent .*: make_permanent_\(model\) \('0'\)$"):
        find_sites(prune_weights(nn.Sequential(nn.Linear(4, 4))), LowRankConfig())


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Linear(4, 2), (3, 5, 4), Pass(15, (), ())),
        (nn.Linear(4, 2), (4,), Pass(1, (), ())),
        (nn.Conv2d(4, 2, 3, stride=2), (3, 4, 9, 7), Pass(3, (9, 7), (4, 3))),
        (nn.Conv2d(4, 2, 3), (4, 9, 7), Pass(1, (9, 7), (7, 5))),
        (nn.ConvTranspose1d(4, 2, 3, stride=2), (3, 4, 5), Pass(3, (5,), (11,))),
    ],
)
def test_a_pass_knows_its_sizes(layer, shape, expected):
    """Rows and spatial sizes, of inputs with and without a batch; the layer's MACs follow from them."""
    site = Site(layers={"": layer})
    with watched([site], lambda _site, layer, given, output: site.passes.append(pass_of(layer, given, output))):
        layer(torch.zeros(shape))
    assert site.passes == [expected]
    positions = 1
    for size in expected.before if site.is_transposed else expected.after:
        positions *= size
    assert site.macs == expected.rows * positions * layer.weight.numel()
    assert batched(layer, torch.zeros(shape)).shape[:2] == (expected.rows, 4)
    assert not layer._forward_hooks
