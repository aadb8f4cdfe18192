from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from compress.errors import ModelError
from compress.lowrank import factorize
from compress.measure.size import count_nonzero_params, count_params
from compress.modules.masks import make_permanent_
from compress.pruning.structured import prune_channels
from compress.pruning.unstructured import prune_weights


def net() -> nn.Sequential:
    """A convolution, a norm and a classifier."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))


X = torch.linspace(-1, 1, 2 * 3 * 36).reshape(2, 3, 6, 6)


@given(
    amounts=st.lists(st.floats(0, 0.9), min_size=1, max_size=3),
    tensors=st.sets(st.sampled_from([("0", "weight"), ("0", "bias"), ("1", "weight"), ("4", "weight")]), min_size=1),
)
def test_masks_of_torch_become_plain_zeros(amounts, tensors):
    """Of weights and biases, of one method after another; names and outputs are those of an unmasked model."""
    model = net().eval()
    for layer, tensor in sorted(tensors):
        for amount in amounts:
            prune.l1_unstructured(model.get_submodule(layer), tensor, amount)
    expected = model(X)
    zeros = {(layer, tensor): getattr(model.get_submodule(layer), tensor) == 0 for layer, tensor in tensors}
    assert make_permanent_(model) is model
    assert model.state_dict().keys() == net().state_dict().keys()
    assert not any(prune.is_pruned(module) for module in model.modules())
    torch.testing.assert_close(model(X), expected, rtol=0, atol=0)
    for (layer, tensor), zero in zeros.items():
        assert torch.equal(getattr(model.get_submodule(layer), tensor) == 0, zero)


@pytest.mark.parametrize("method", ["ln_structured", "custom_from_mask", "global_unstructured"])
def test_every_method_of_torch_is_known(method):
    """Whole channels, a mask of one's own, and a global ranking."""
    model = net().eval()
    if method == "ln_structured":
        prune.ln_structured(model[0], "weight", amount=2, n=2, dim=0)
    elif method == "custom_from_mask":
        prune.custom_from_mask(model[4], "weight", torch.ones(4, 128).tril())
    else:
        layers = [(model[0], "weight"), (model[4], "weight")]
        prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=0.3)
    expected = model(X)
    torch.testing.assert_close(make_permanent_(model)(X), expected, rtol=0, atol=0)
    assert isinstance(model[0].weight, nn.Parameter)


@pytest.mark.parametrize("tensor", ["weight", "bias"])
def test_what_cuts_layers_asks_for_permanent_masks(tensor):
    """Whatever tensor is masked; afterwards it goes on."""
    model = net().eval()
    prune.l1_unstructured(model[0], tensor, 0.25)
    for cut in (lambda: prune_channels(model, X[:1], 0.2), lambda: factorize(model, X, progress=False)):
        with pytest.raises(ModelError, match=r"permanent"):
            cut()
    assert prune_channels(make_permanent_(model), X[:1], 0.2)(X).shape == (2, 4)


def test_weights_under_masks_of_torch_count_as_zero():
    """Though the parameter beside the mask still holds numbers; the given model keeps its mask."""
    model = nn.Linear(16, 16, bias=False)
    nn.init.ones_(model.weight)
    prune.random_unstructured(model, "weight", 64)
    assert count_nonzero_params(model) == 256 - 64
    assert count_params(model) == 256
    assert prune.is_pruned(model)


def test_masks_of_both_kinds_in_one_model_become_permanent():
    """Ours on top of torch's: what either one took is zero."""
    model = net()
    prune.l1_unstructured(model[4], "weight", 0.25)
    both = prune_weights(model, 0.5)
    assert prune.is_pruned(model)
    model(X)
    make_permanent_(both)
    assert int((both[4].weight == 0).sum()) == 256
    assert bool((both[4].weight == 0)[model[4].weight == 0].all())
