from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compress.pruning import elimination
from compress.pruning.elimination import Consumer, consumer, eliminated


def layer(x: Tensor, weight: Tensor, owners: list[int], *, has_bias: bool = False) -> Consumer:
    """A layer of ``weight: [out, in]`` on the inputs ``x: [n, in]``, errors in units of its own summed square."""
    ones = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    return consumer(ones.T @ ones, weight, 1.0, torch.tensor(owners), has_bias=has_bias)


def refitted(x: Tensor, weight: Tensor, gone: list[int], *, has_bias: bool = False) -> float:
    """The squared error of the best weights without the inputs ``gone``, by least squares."""
    target = x @ weight.T
    left = x[:, [column for column in range(x.shape[1]) if column not in gone]]
    if has_bias:
        left = torch.cat([left, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    best = torch.linalg.lstsq(left, target, driver="gelsd").solution
    return float((target - left @ best).square().sum())


@pytest.fixture
def _without_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elimination, "_RIDGE", 0.0)


@pytest.mark.usefixtures("_without_ridge")
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), has_bias=st.booleans(), width=st.sampled_from([1, 2, 3]))
def test_errors_are_those_of_a_least_squares_fit(seed, has_bias, width):
    """Of every channel alone; and once one is gone, of every other together with it."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 4 * width, generator=generator, dtype=torch.float64) + 0.5
    weight = torch.randn(5, 4 * width, generator=generator, dtype=torch.float64)
    owners = [number % 4 for number in range(4 * width)]
    one = layer(x, weight, owners, has_bias=has_bias)
    one.look_(4)
    inputs = [[column for column, owner in enumerate(owners) if owner == channel] for channel in range(4)]
    alone = [refitted(x, weight, gone, has_bias=has_bias) for gone in inputs]
    assert one.errors.tolist() == pytest.approx(alone, rel=1e-6)
    one.remove_(2)
    one.look_(4)
    more = [refitted(x, weight, inputs[2] + inputs[other], has_bias=has_bias) for other in (0, 1, 3)]
    assert one.errors[[0, 1, 3]].tolist() == pytest.approx([error - alone[2] for error in more], rel=1e-5)
    assert one.errors[2] == 0


def test_of_two_copies_only_one_goes_for_nothing():
    """What one of them carries the other takes over; both at once could not be made up for."""
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 1] = x[:, 0]
    scores = eliminated([layer(x, torch.ones(2, 3, dtype=torch.float64), [0, 1, 2])], torch.zeros(3, dtype=torch.int64))
    assert scores[:2].min() < 1e-2 * scores[:2].max()
    assert scores[:2].max() > 1e-2


def test_cells_lose_the_same_fraction_at_any_time():
    """A channel of one cell is judged with as large a part of the other gone."""
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 2] = x[:, 0] + 0.1 * x[:, 2]
    weight = torch.ones(1, 4, dtype=torch.float64)
    apart = eliminated([layer(x, weight, [0, 1, -1, -1])], torch.tensor([0, 0]))
    together = eliminated([layer(x, weight, [0, 1, 2, 3])], torch.tensor([0, 0, 1, 1]))
    # The channel that would have stood in for it is gone by then.
    assert together[[0, 2]].max() > 10 * apart[0]


def test_a_later_channel_never_counts_for_less():
    """Scores rise within a cell in the order in which its channels go."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    scores = eliminated([layer(x, weight, list(range(8)))], torch.zeros(8, dtype=torch.int64))
    assert len(scores.unique()) > 1
    assert scores.min() > 0


def test_dead_inputs_go_for_nothing():
    """Whole layers of them, too."""
    scores = eliminated(
        [layer(torch.zeros(8, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64), [0, 1])],
        torch.zeros(2, dtype=torch.int64),
    )
    assert scores.tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
