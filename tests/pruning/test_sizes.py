"""A cut holds at every size of the inputs, or the plan says that it was verified at one."""

import functools

import pytest
import torch
from torch import Tensor, nn

from compress.pruning.structured import apply_plan, plan_pruning
from tests.nets import Net, conv, conv_bn, head, largest_difference, lively, masked_dense, pooled


def mixed(n: Net, x: Tensor) -> Tensor:
    """Rows of channels read as maps of positions."""
    x = n.a(x)
    return n.o(x + n.b(x).flatten(2).transpose(1, 2).reshape(x.shape))


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("width", [16, 64])
def test_a_reshape_that_mixes_positions_and_channels_is_not_cut(size, width):
    """Right at one image size only: those channels stay, whatever the size traced at."""
    torch.manual_seed(0)
    net = lively(Net(mixed, a=conv(3, width), b=conv(width, width), o=conv(width, 4)))
    plan = plan_pruning(net, torch.randn(1, 3, size, size).double(), 0.25)
    small, dense = apply_plan(net, plan), masked_dense(net, plan)
    for other in (4, 6, 8):
        assert largest_difference(small, dense, torch.randn(2, 3, other, other).double()) < 1e-9
    assert plan.num_params_after == plan.num_params_before


def test_the_plan_names_a_mixing_reshape():
    """It is found at the second size, where channels fall apart into other factors."""
    net = lively(Net(mixed, a=conv(3, 64), b=conv(64, 64), o=conv(64, 4)))
    plan = plan_pruning(net, torch.randn(1, 3, 4, 4).double(), 0.25)
    assert "positions and channels mixed by a reshape" in str(plan)


def test_heads_split_by_an_attribute_are_cut():
    """A number of heads is the same at every size, though positions are merged with it."""
    net = Net(
        lambda n, x: n.o(n.a(x).flatten(2).transpose(1, 2).reshape(-1, 8).relu().view(x.shape[0], -1, 32)),
        a=conv(3, 32),
        o=nn.Linear(32, 4),
    )
    plan = plan_pruning(lively(net), torch.randn(1, 3, 4, 4).double(), 0.25)
    assert "mixed" not in str(plan)


def test_the_plan_says_where_the_model_runs_at_one_size_only():
    """A classifier over all positions takes no other image; another batch it does."""
    net = lively(Net(lambda n, x: n.h(n.a(x).flatten(1)), a=conv_bn(3, 8), h=nn.Linear(8 * 64, 5)))
    plan = plan_pruning(net, torch.randn(1, 3, 8, 8).double(), 0.25)
    (note,) = plan.notes
    assert note == "verified at the example's image or sequence size alone: the model was found to run at no other"
    anywhere = lively(Net(lambda n, x: n.h(pooled(n.a(x))), a=conv_bn(3, 8), h=head(8)))
    assert not plan_pruning(anywhere, torch.randn(1, 3, 8, 8).double(), 0.25).notes


@functools.lru_cache
def ramp(count: int) -> Tensor:
    """A table that Python keeps."""
    return torch.arange(count).double().sqrt()


def test_what_a_first_call_caches_changes_no_plan():
    """Two identical calls give the same cut, the first one too."""
    ramp.cache_clear()
    net = Net(lambda n, x: n.b(n.a(x)) + ramp(x.shape[-1]), a=conv_bn(3, 16), b=conv(16, 4))
    x = torch.randn(1, 3, 8, 8).double()
    first, second = (str(plan_pruning(lively(net), x, 0.25)) for _ in range(2))
    assert first == second
    assert "16 ->    12" in first
