import ctypes
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from compress.pruning.structured import apply_plan, plan_pruning
from tests.nets import Net, between, conv_bn, head, largest_difference, lively, masked_dense, pooled


def negated_if_wide(x: Tensor) -> Tensor:
    """A branch of Python on the number of channels."""
    return x.neg() if x.shape[1] > 14 else x


def reversed_if_wide(x: Tensor) -> Tensor:
    """A branch on it that only moves channels."""
    return x.flip(1) if x.shape[1] > 14 else x


def half(x: Tensor) -> int:
    """Of the channels, rounded down."""
    return x.shape[1] // 2


def rest(x: Tensor) -> int:
    """The other half."""
    return x.shape[1] - half(x)


WIDTH_AS_NUMBER = {
    "a factor": lambda x: x * x.shape[1] ** -0.5,
    "a factor as a tensor": lambda x: x * torch.tensor(x.shape[1] ** -0.5),
    "a sum of ones": lambda x: x / x.new_ones(x.shape[1]).sum(),
    "constants in several steps": lambda x: x * (torch.full((1,), 2.0) * float(x.shape[1])).exp2().log2(),
    "a fill": lambda x: x + torch.full_like(x, 1.0 / x.shape[1]),
    "a branch": negated_if_wide,
    "a branch of movements": reversed_if_wide,
    "a value read back": lambda x: x * x.sum().item(),
    "ones beside minus ones": lambda x: x * torch.cat([x.new_ones(half(x)), -x.new_ones(rest(x))])[:, None, None],
    "zeros before ones, stacked": lambda x: (
        x * torch.stack([x.new_zeros(half(x)), x.new_ones(half(x))], 1).flatten()[:, None, None]
    ),
    "ones, padded": lambda x: x * functional.pad(x.new_ones(half(x)), (0, rest(x)))[:, None, None],
    "padding up to a fixed width": lambda x: functional.pad(x, (0, 0, 0, 0, 0, 16 - x.shape[1])),
}


@pytest.mark.parametrize("forward", WIDTH_AS_NUMBER.values(), ids=WIDTH_AS_NUMBER)
def test_a_width_that_becomes_a_number_is_never_cut(forward):
    """Where Python makes a value, a branch or a size of the number of channels, that number stays, with a reason."""
    net = lively(between(forward))
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    plan = plan_pruning(net, x, 0.25)
    group = next(group for group in plan.groups if ("a.0.weight", 0) in group.members)
    assert (group.channels, group.kept) == (16, 16)
    assert group.frozen
    assert largest_difference(apply_plan(net, plan), masked_dense(net, plan), torch.cat([x, x.flip(2)])) < 1e-9


@pytest.mark.parametrize(
    "joined",
    [
        lambda x: torch.cat([x, x.new_zeros(len(x), 4, *x.shape[2:])], 1),
        lambda x: x * torch.cat([x.new_full((half(x),), 3.0), x.new_full((rest(x),), 3.0)])[:, None, None],
        lambda x: x * torch.stack([x.new_ones(half(x)), x.new_ones(half(x))], 1).flatten()[:, None, None],
    ],
    ids=["zeros behind channels", "equal numbers", "equal numbers, stacked"],
)
def test_constants_that_are_the_same_everywhere_fit_what_is_left(joined):
    """However they were put together."""
    net = lively(between(joined, 20 if joined(torch.zeros(1, 16, 6, 6)).shape[1] == 20 else 16))
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    plan = plan_pruning(net, x, 0.25)
    assert plan.kept["a.0.weight", 0].shape == (12,)
    assert largest_difference(apply_plan(net, plan), masked_dense(net, plan), x) < 1e-9


def filled_in_halves(x: Tensor) -> Tensor:
    """A mask over space in memory as it was found, written in two parts."""
    mask = x.new_empty(x.shape[2:])
    mask[:3], mask[3:] = 0.0, 1.0
    return x * mask


def padded_round(x: Tensor) -> Tensor:
    """A mask over space, padded in a circle as torch does it: the corners are read before they are written."""
    mask = x.new_empty(x.shape[2:])
    mask[1:-1, 1:-1] = 2.0
    for at in (mask, mask.t()):
        at[:1] = at[-2:-1]
        at[-1:] = at[1:2]
    return x * mask


@pytest.mark.parametrize("forward", [filled_in_halves, padded_round])
def test_what_lay_in_memory_does_not_matter(forward, monkeypatch):
    """Memory that was not written yet may hold anything, and another thing in the next run."""
    garbage = itertools.cycle(range(1, 256))
    plain = torch.Tensor.new_empty

    def found(*args: Any, **kwargs: Any) -> Tensor:
        memory = plain(*args, **kwargs)
        ctypes.memset(memory.data_ptr(), next(garbage), memory.nbytes)
        return memory

    monkeypatch.setattr(torch.Tensor, "new_empty", found)
    net = lively(between(forward))
    plan = plan_pruning(net, torch.randn(1, 3, 8, 8, dtype=torch.float64), 0.25)
    assert plan.kept["a.0.weight", 0].shape == (12,)


def test_numbers_that_do_not_depend_on_widths_are_no_matter():
    """Constants, tensors made of them, and random numbers with the same seed compare as equal."""
    net = lively(between(lambda x: x * 0.5 * torch.tensor(3.0) * torch.rand(1, dtype=x.dtype)))
    plan = plan_pruning(net, torch.randn(1, 3, 8, 8, dtype=torch.float64), 0.25)
    assert plan.kept["a.0.weight", 0].shape == (12,)


def found_above_zero(x: Tensor) -> Tensor:
    """As many sums as there are values above zero, one call for each."""
    values = x[x > 0]
    for _ in range(len(values) % 7):
        values = values[values > values.mean()]
    return values


def test_what_is_found_in_values_may_be_more_or_less():
    """A cut changes values, and so how many are found, and how many calls handle them: no reason to take it back."""
    net = lively(
        Net(lambda n, x: (n.h(pooled(n.a(x))), found_above_zero(n.h(pooled(n.a(x))))), a=conv_bn(3, 16), h=head(16))
    )
    plan = plan_pruning(net, torch.randn(1, 3, 8, 8, dtype=torch.float64), 0.25)
    assert ("a.0.weight", 0) in plan.kept
