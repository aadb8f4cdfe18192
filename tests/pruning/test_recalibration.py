from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compress.errors import ConfigError, ModelError
from compress.pruning.recalibration import recalibrate
from compress.pruning.unstructured import prune_weights
from tests.nets import Net, conv_bn, head, pooled

BATCHES = [torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) + seed for seed in range(3)]


def net() -> nn.Module:
    """A norm behind a convolution, another behind a dropout, and a third that no forward pass reaches."""
    torch.manual_seed(0)
    model = Net(
        lambda n, x: n.head(pooled(n.second(n.drop(n.first(x))))),
        first=conv_bn(3, 4),
        drop=nn.Dropout(0.5),
        second=conv_bn(4, 6),
        aside=conv_bn(4, 4),
        head=head(6),
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(3.0)
            module.running_var.fill_(7.0)
            module.num_batches_tracked.fill_(5)
    return model.eval()


def test_statistics_are_the_mean_over_the_batches():
    """Mean and unbiased variance of what the norm sees in each batch, averaged, whatever was there before."""
    model = net()
    fresh = recalibrate(model, BATCHES)
    with torch.no_grad():
        seen = [model.first[0](batch).movedim(1, 0).flatten(1) for batch in BATCHES]
    norm = fresh.first[1]
    assert torch.allclose(norm.running_mean, torch.stack([one.mean(1) for one in seen]).mean(0), atol=1e-6)
    assert torch.allclose(norm.running_var, torch.stack([one.var(1) for one in seen]).mean(0), rtol=1e-5)
    assert int(norm.num_batches_tracked) == 3


def test_nothing_but_statistics_moves():
    """Weights, modes, momenta, gradients and the given model stay; so does a norm that the batches do not reach."""
    model = net()
    model.train()
    before = copy.deepcopy(model.state_dict())
    fresh = recalibrate(model, BATCHES)
    assert all(value.equal(model.state_dict()[name]) for name, value in before.items())
    moved = {name for name, value in before.items() if not value.equal(fresh.state_dict()[name])}
    assert moved == {
        f"{layer}.1.{name}"
        for layer in ("first", "second")
        for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert [module.training for module in fresh.modules()] == [module.training for module in model.modules()]
    assert {module.momentum for module in fresh.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}
    assert all(parameter.grad is None and parameter.requires_grad for parameter in fresh.parameters())


def test_it_is_the_same_every_time():
    """Dropout is off while statistics are taken, and recalibrating twice changes no more than once."""
    once = recalibrate(net(), BATCHES)
    twice = recalibrate(once, [(batch, None) for batch in BATCHES])
    assert all(value.equal(twice.state_dict()[name]) for name, value in once.state_dict().items())


def test_it_undoes_what_scaling_the_input_of_a_norm_did():
    """Statistics that no longer fit make a network guess; recalibrated it puts out what it did before."""
    model = recalibrate(net(), BATCHES)
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.first[0].weight.mul_(3.0)
        broken.first[0].bias.mul_(3.0)
        right, wrong, mended = (one(BATCHES[0]) for one in (model, broken, recalibrate(broken, BATCHES)))
    assert (wrong - right).abs().max() > 0.1
    assert torch.allclose(mended, right, atol=1e-3)


def test_masks_stay():
    """A masked model is masked still."""
    masked = prune_weights(net(), 0.5)
    fresh = recalibrate(masked, BATCHES)
    assert fresh.head.weight_mask.equal(masked.head.weight_mask)


def test_a_model_without_such_norms_comes_back():
    """No data is asked for where there is nothing to measure."""
    model = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.LayerNorm(3))
    fresh = recalibrate(model, [])
    assert fresh is not model
    assert fresh.state_dict().keys() == model.state_dict().keys()


def test_no_batches_are_refused():
    """An iterator that has been used up would leave statistics of nothing."""
    used = iter(BATCHES)
    list(used)
    with pytest.raises(ConfigError, match=r"^batches must hold at least one batch, got none"):
        recalibrate(net(), used)


def test_a_failing_forward_is_one_sentence():
    """What torch says of the batch is passed on."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with pytest.raises(
        ModelError, match=r"^the forward pass on a calibration batch failed: Expected more than 1 value"
    ):
        recalibrate(model, [torch.zeros(1, 3)])
