from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compress.lowrank.decompositions import Stage, decompose, kinds_for


def weight_of(shape, seed: int = 0) -> Tensor:
    """``[out, in, *kernel]`` in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def multiplied_out(stages: Sequence[Stage]) -> Tensor:
    """The weight of the one layer that does what the chain does; no two of its kernels are wide in one dimension."""
    product = stages[0].weight
    for stage in stages[1:]:
        earlier, later = "xyz"[: product.ndim - 2], "XYZ"[: product.ndim - 2]
        pairs = "".join(map("".join, zip(later, earlier, strict=True)))
        joined = torch.einsum(f"or{later},ri{earlier}->oi{pairs}", stage.weight, product)
        kernel = [a * b for a, b in zip(stage.weight.shape[2:], product.shape[2:], strict=True)]
        product = joined.reshape(*joined.shape[:2], *kernel)
    return product


SHAPES = st.lists(st.integers(1, 3), max_size=2).flatmap(
    lambda kernel: st.tuples(st.integers(1, 6), st.integers(1, 6)).map(lambda sizes: (*sizes, *kernel))
)


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.integers(0, 1000), st.data())
def test_the_error_of_every_rank_is_what_is_left_out(shape, seed, data):
    """For any weight, way and rank, the predicted error is the squared distance over the weight's squared size."""
    weight = weight_of(shape, seed)
    kind = data.draw(st.sampled_from(kinds_for(shape, ("channel", "spatial", "tucker"))))
    found = decompose(weight, kind)
    index = data.draw(st.integers(0, len(found.errors) - 1))
    ranks = tuple(found.ranks[index].tolist())
    stages = found.stages(ranks)
    product = multiplied_out(stages)
    left_out = (weight - product).square().sum() / weight.square().sum()
    assert float(left_out) == pytest.approx(float(found.errors[index]), abs=1e-12)
    assert [stage.weight.numel() for stage in stages] == [int(size.numel[index]) for size in found.sizes]


@pytest.mark.parametrize("kind", ["channel", "spatial", "tucker"])
@pytest.mark.parametrize("shape", [(7, 5, 3, 3), (3, 9, 2, 5), (12, 2, 3, 3)])
def test_full_rank_is_the_weight_itself(kind, shape):
    """Nothing is lost beyond rounding in float64, whichever side is larger."""
    found = decompose(weight_of(shape), kind)
    product = multiplied_out(found.stages(found.full))
    torch.testing.assert_close(product, weight_of(shape), rtol=0, atol=1e-12)
    assert found.errors.min() == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20)])
def test_of_one_rank_no_better_exists(shape):
    """The error is the tail of the singular values' squares: Eckart and Young."""
    values = torch.linalg.svdvals(weight_of(shape)).square()
    expected = 1 - values.cumsum(0) / values.sum()
    found = decompose(weight_of(shape), "channel")
    torch.testing.assert_close(torch.from_numpy(found.errors), expected.clamp(min=0), rtol=0, atol=1e-12)


def test_each_way_finds_the_structure_it_is_for():
    """A weight made of few filters, of few columns and rows, or of few channels on both sides loses nothing so."""
    cases = {
        "channel": (torch.einsum("or,rikl->oikl", weight_of((8, 2)), weight_of((2, 6, 3, 3))), (2, 2)),
        "spatial": (torch.einsum("orl,rik->oikl", weight_of((8, 2, 3)), weight_of((2, 6, 3))), (2, 2)),
        "tucker": (
            torch.einsum("oa,abkl,bi->oikl", weight_of((8, 3)), weight_of((3, 2, 3, 3)), weight_of((2, 6))),
            (2, 3),
        ),
    }
    for kind, (weight, ranks) in cases.items():
        found = decompose(weight, kind)
        exact = (found.ranks == ranks).all(axis=1)
        assert found.errors[exact] == pytest.approx(0, abs=1e-12), kind
        assert found.errors[(found.ranks < ranks).any(axis=1)].min() > 1e-3, kind


def test_a_large_grid_of_ranks_is_thinned_out():
    """Of two ranks at most some 200 each are looked at, multiples of a power of two and the ends; of one rank all."""
    weight = weight_of((300, 250, 3, 1))
    assert len(decompose(weight, "channel").errors) == 300
    tucker = decompose(weight, "tucker")
    for column, full in enumerate([250, 300]):
        assert np.unique(tucker.ranks[:, column]).tolist() == [1, *range(2, full + 1, 2)]
    tucker = decompose(weight[:193, :192], "tucker")
    assert [len(np.unique(column)) for column in tucker.ranks.T] == [192, 98]
    assert tucker.ranks.max(axis=0).tolist() == [192, 193]


def test_a_weight_of_zeros_is_reproduced_by_any_rank():
    """There is nothing to lose, and nothing is divided by zero."""
    for kind in ("channel", "spatial", "tucker"):
        assert not decompose(torch.zeros(4, 3, 3, 3).double(), kind).errors.any()


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ((), ["channel"]),
        ((1, 1), ["channel"]),
        ((3,), ["channel", "tucker"]),
        ((3, 1), ["channel", "tucker"]),
        ((3, 3), ["channel", "spatial", "tucker"]),
        ((3, 3, 3), ["channel", "tucker"]),
    ],
)
def test_which_ways_a_kernel_has(kernel, expected):
    """A linear or 1 x 1 layer has one way; only a kernel of two wide dimensions splits along them."""
    assert kinds_for((4, 4, *kernel), ("channel", "spatial", "tucker")) == expected
    assert kinds_for((4, 4, *kernel), ("spatial",)) == (
        ["spatial"] if "spatial" in expected else [] if math.prod(kernel) > 1 else ["channel"]
    )
