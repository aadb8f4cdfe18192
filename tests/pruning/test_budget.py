from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress.calling.inputs import Inputs, inputs_of
from compress.channels.groups import resolve
from compress.channels.trace import trace
from compress.errors import ConfigError
from compress.macs import macs_of
from compress.pruning.budget import Costs, Product, costs_of, savings
from compress.pruning.choosing import _cheapest_first
from compress.pruning.options import PruneOptions, goal_of
from compress.pruning.structured import plan_pruning, prune_channels
from tests.nets import conv_bn, head, lively, num_params

X = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()


def net() -> nn.Sequential:
    """A wide layer at high resolution, and one with many weights at low."""
    torch.manual_seed(0)
    model = nn.Sequential(
        conv_bn(3, 16), conv_bn(16, 8), nn.AvgPool2d(8), conv_bn(8, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(64)
    )
    return lively(model)  # type: ignore[return-value]


def macs(model: nn.Module) -> float:
    """Of one forward pass on X."""
    return macs_of(lambda: model(X)).whole("max_macs")


def saved(model: nn.Module, target: str) -> dict[str, list[float]]:
    """What each step of each group saves, by the weight that puts its channels out."""
    channels = resolve(trace(model, inputs_of(X)))
    free = [index for index, group in enumerate(channels.groups) if group.reason is None]
    found = savings(model, channels, free, costs_of(model, inputs_of(X)), target)
    return {channels.slots[channels.groups[index].members[0]].tensor: steps for index, steps in found.items()}


@pytest.mark.parametrize(
    ("target", "each"),
    [
        # Its filter, bias, scale and shift, and what the next layer multiplies it with.
        ("max_params", [3 * 9 + 3 + 8 * 9, 16 * 9 + 3 + 64 * 9, 8 * 9 + 3 + 5]),
        ("max_macs", [(3 + 8) * 9 * 256, 16 * 9 * 256 + 64 * 9 * 4, 8 * 9 * 4 + 5]),
    ],
)
def test_a_step_saves_all_that_belongs_to_a_channel(target, each):
    """In the layer that puts it out and in those that take it in, at the resolution of each."""
    found = saved(net(), target)
    assert [found[name] for name in ("0.0.weight", "1.0.weight", "3.0.weight")] == [
        pytest.approx([number] * count) for number, count in zip(each, (16, 8, 64), strict=True)
    ]


@pytest.mark.parametrize("target", ["max_params", "max_macs"])
def test_widths_go_where_the_target_is(target):
    """Few parameters take channels from the layer that has most of them, few MACs from the one at high resolution."""
    model = net()
    limit = int((num_params(model) if target == "max_params" else macs(model)) * 0.6)
    options = PruneOptions(scope="budget", **{target: limit})
    plan = plan_pruning(model, X, importance=lambda rows: torch.ones(len(rows[0])), options=options)
    left = {group.members[0].tensor: group.kept / group.channels for group in plan.groups if group.frozen is None}
    thinnest = min(left, key=lambda name: left[name])
    assert thinnest == max(saved(model, target), key=lambda name: saved(model, target)[name][0])


def test_latency_comes_from_a_table_of_widths():
    """Steps that no entry of the table lies behind save nothing by themselves; nothing is saved twice."""
    model = net()
    costs = costs_of(model, inputs_of(X))
    channels = resolve(trace(model, inputs_of(X)))
    index = next(index for index, group in enumerate(channels.groups) if group.num_channels == 64)
    steps = savings(model, channels, [index], costs, "max_latency_ms")[index]
    assert len(steps) == 64
    assert [number for number, step in enumerate(steps) if step and (number + 1) % 8] == []
    assert min(steps) >= 0
    whole = sum(costs.milliseconds(one, *one.weight.shape[:2]) for name in ("3.0.weight", "6.weight")
                for one in costs.products[name])  # fmt: skip
    assert 0 < sum(steps) <= whole


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(8, 16, 3),
        nn.Conv2d(8, 16, 3, groups=4),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ConvTranspose2d(8, 16, 3),
        nn.ConvTranspose2d(8, 16, 2, groups=2),
        nn.Linear(8, 16),
    ],
    ids=str,
)
def test_layers_of_every_kind_run_at_half_their_widths(layer):
    """As the cut layer would."""
    x = torch.randn(2, 8, *[6] * (layer.weight.ndim - 2)) if layer.weight.ndim > 2 else torch.randn(2, 8)
    costs = costs_of(layer, Inputs(args=(x,)))
    (one,) = costs.products["weight"]
    rows, columns = layer.weight.shape[:2]
    assert costs.milliseconds(one, rows // 2, max(1, columns // 2)) > 0


def test_what_is_asked_for_a_budget_is_reached(monkeypatch):
    """By the same search as for any target, and with a latency too."""

    def milliseconds(_costs: Costs, _product: Product, rows: int, columns: int) -> float:
        # What this machine takes says nothing of a latency that is made up: a busy moment makes a width free to keep.
        return rows * columns / 1e4

    monkeypatch.setattr(Costs, "milliseconds", milliseconds)
    model = net()
    small = prune_channels(model, X, options=PruneOptions(scope="budget", max_params=num_params(model) // 2))
    assert num_params(model) // 3 < num_params(small) <= num_params(model) // 2
    options = PruneOptions(scope="budget", max_latency_ms=0.5, latency=lambda small, dense, _: _by_size(small, dense))
    assert num_params(prune_channels(model, X, options=options)) < num_params(model)


def _by_size(small: nn.Module, dense: nn.Module) -> list[tuple[float, float]]:
    return [(1.0, num_params(small) / num_params(dense))] * 3


def test_a_budget_needs_a_target():
    """A ratio of what it would be is not said."""
    with pytest.raises(
        ConfigError, match=r"^scope 'budget' goes with one of max_macs, max_params, max_latency_ms, got"
    ):
        goal_of(0.2, PruneOptions(scope="budget"))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(0.01, 1), st.sampled_from([0.0, 1.0, 2.0])), min_size=1, max_size=4), max_size=3
    )
)
def test_the_cheapest_portions_solve_the_knapsack(groups):
    """No other choice saves as much as one of their prefixes for less importance; what saves nothing is left."""
    portions = sorted(
        (portion for index, steps in enumerate(groups)
         for portion in _cheapest_first(index, [score for score, _ in steps], [saving for _, saving in steps])),
        key=lambda portion: portion.price,
    )  # fmt: skip
    prefixes = [[(0.0, 0.0), *_sums(steps)] for steps in groups]
    importance = saving = 0.0
    for portion in portions:
        importance, saving = importance + portion.price * portion.saving, saving + portion.saving
        least = min(
            sum(part[0] for part in choice) for choice in product(*prefixes)
             if sum(part[1] for part in choice) >= saving - 1e-9
        )  # fmt: skip
        assert importance == pytest.approx(least)


def _sums(steps: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(sum(s for s, _ in steps[: n + 1]), sum(c for _, c in steps[: n + 1])) for n in range(len(steps))]
