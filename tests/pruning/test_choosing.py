from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from compress.errors import ConfigError
from compress.pruning.importance import IMPORTANCES
from compress.pruning.options import PruneOptions
from compress.pruning.plan import PlannedGroup, PruningPlan
from compress.pruning.structured import apply_plan, plan_pruning, prune_channels
from tests.nets import Net, conv, conv_bn, head, largest_difference, lively, masked_dense, num_params, pooled
from tests.strategies import networks, ratios

X = torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)
BATCHES = [torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def chain(*widths: int) -> nn.Sequential:
    """Convolutions of those widths, one after another, and a classifier."""
    torch.manual_seed(0)
    layers = [conv(ins, outs, 3) for ins, outs in zip((3, *widths), widths, strict=False)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(widths[-1]))


def free(plan: PruningPlan) -> list[PlannedGroup]:
    """The groups that may lose channels, those too that lose none for want of a step that is small enough."""
    return [group for group in plan.groups if group.frozen is None or " equal " in group.frozen]


def kept(plan: PruningPlan) -> list[int]:
    """How many channels stay of each group that may lose some."""
    return [group.kept for group in free(plan)]


def pruned(model: nn.Module, ratio: float | None = None, importance: str = "l1", **options: object) -> list[int]:
    """How many channels stay of each group."""
    return kept(plan_pruning(model, X, ratio, importance, options=PruneOptions(**options)))


def scaled(factors: dict[int, float], *widths: int) -> nn.Sequential:
    """A chain of equal weights of 1, some of whose filters, counted over the whole network, are scaled."""
    model = chain(*widths)
    flat = []
    for layer in model[: len(widths)]:
        nn.init.constant_(layer.weight, 1.0)
        flat += [(layer, row) for row in range(layer.out_channels)]
    with torch.no_grad():
        for index, factor in factors.items():
            layer, row = flat[index]
            layer.weight[row] *= factor
    return model


def test_the_global_scope_takes_the_least_important_channels_wherever_they_are():
    """A quarter of sixteen channels, all four in the layer that has the weak ones."""
    model = scaled({1: 0.1, 3: 0.2, 4: 0.1, 7: 0.3}, 8, 8)
    assert pruned(model, 0.25, scope="global") == [4, 8]
    assert pruned(model, 0.25, scope="layer") == [6, 6]
    small = prune_channels(model, X, 0.25, options=PruneOptions(scope="global"))
    assert small[0].weight.equal(model[0].weight[[0, 2, 5, 6]])


def test_scores_of_layers_compare_whatever_their_scale():
    """Sums of absolute weights grow with a filter's size; only what is small within its layer goes."""
    model = scaled({0: 0.1, 9: 0.1}, 4, 8)
    with torch.no_grad():
        model[0].weight *= 1e-3
    assert pruned(model, 1 / 6, scope="global") == [3, 7]


def test_no_layer_falls_below_its_floor():
    """Where everything weak lies in one layer the others have to give too."""
    weak = dict.fromkeys(range(9), 0.01)
    assert pruned(scaled(weak, 10, 10), 0.45, scope="global") == [1, 10]
    assert pruned(scaled(weak, 10, 10), 0.45, scope="global", min_kept=0.25) == [3, 8]
    assert pruned(scaled(weak, 10, 10), 0.5, scope="global", min_kept=0.5) == [5, 5]
    assert pruned(scaled(weak, 10, 10), 0.45, scope="global", min_kept=0) == [1, 10]


@pytest.mark.parametrize(
    ("ratio", "round_to", "expected"),
    [
        (0.2, 8, [24, 24, 12]),  # 19.2, 19.2 and 9.6 channels are asked for; twelve have one multiple of 8 below them
        (0.2, 4, [20, 20, 12]),
        (0.5, 8, [16, 16, 8]),
        (0.5, 16, [16, 16, 12]),
        (0.9, 8, [8, 8, 8]),
        (0.2, 1, [19, 19, 9]),
        (0.0, 8, [24, 24, 12]),
    ],
)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_what_stays_is_a_multiple_or_all(ratio, round_to, expected, scope):
    """Rounded up, so that never more goes than was asked; all where the next multiple is not reached."""
    found = pruned(chain(24, 24, 12), ratio, scope=scope, round_to=round_to, min_kept=0.0)
    if scope == "layer":
        assert found == expected
    assert all(count % round_to == 0 or count == whole for count, whole in zip(found, (24, 24, 12), strict=True))


def test_rounding_counts_the_channels_of_all_parts():
    """Four parts of a grouped convolution that keep two channels each keep eight."""
    torch.manual_seed(0)
    model = Net(lambda n, x: n.h(pooled(n.b(n.a(x)))), a=conv_bn(3, 16), b=conv_bn(16, 16, 3, groups=4), h=head(16))
    assert pruned(model, 0.3) == [8, 8]  # two of four in each part
    assert pruned(model, 0.3, round_to=8) == [8, 8]
    assert pruned(model, 0.3, round_to=16) == [16, 16]
    assert pruned(model, 0.3, round_to=12) == [12, 12]


@settings(deadline=None, max_examples=25)
@given(
    case=networks(), ratio=ratios(), importance=st.sampled_from(sorted(IMPORTANCES)), round_to=st.sampled_from([1, 4])
)
def test_every_choice_is_a_right_cut(case, ratio, importance, round_to):
    """Over all layers, by any importance and rounding: masked is pruned, and no more goes than was asked."""
    net, x = case
    batch = torch.cat([x, x.flip(-1), 0.5 * x])
    options = PruneOptions(scope="global", batches=[batch, (batch.flip(0), None)], round_to=round_to)
    plan = plan_pruning(net, x, min(ratio, 0.9), importance, options=options)
    assert largest_difference(apply_plan(net, plan), masked_dense(net, plan), batch) < 1e-9
    groups = free(plan)
    total = sum(group.channels for group in groups)
    assert sum(group.channels - group.kept for group in groups) <= min(ratio, 0.9) * total + 1e-6
    assert all(group.kept >= max(1, math.ceil(0.1 * group.channels - 1e-9)) for group in groups)


def test_the_global_scope_removes_as_many_as_were_asked():
    """With single channels to take, and no floor in the way, the count is exact."""
    for ratio in (0.125, 0.25, 0.5, 0.75):
        assert sum(pruned(chain(16, 24, 24), ratio, scope="global")) == 64 * (1 - ratio)


@pytest.mark.parametrize("rounds", [2, 3, 5])
def test_a_ratio_may_count_from_another_model(rounds):
    """Cut again and again by what is gone of the first model's channels, as many stay as after one cut."""
    model = chain(10, 17, 64)
    current: nn.Module = model
    for number in range(1, rounds + 1):
        ratio = 1 - 0.3 ** (number / rounds) if number < rounds else 0.7
        current = prune_channels(current, X, ratio, options=PruneOptions(relative_to=model))
    assert [layer.out_channels for layer in current[:3]] == kept(plan_pruning(model, X, 0.7)) == [3, 5, 19]


def test_counting_from_another_model_holds_for_the_global_scope_too():
    """Of 91 channels half stay, in two rounds."""
    model = chain(10, 17, 64)
    options = PruneOptions(relative_to=model, scope="global")
    once = prune_channels(model, X, 0.3, options=options)
    twice = prune_channels(once, X, 0.5, options=options)
    assert [sum(layer.out_channels for layer in one[:3]) for one in (once, twice)] == [64, 46]
    assert sum(layer.out_channels for layer in prune_channels(twice, X, 0.5, options=options)[:3]) == 46


def test_counting_from_a_model_that_is_no_ancestor_is_refused():
    """The message names the tensor that does not fit."""
    with pytest.raises(
        ConfigError, match=r"relative_to must be the model before it was cut, got one with 8 .*'0.weight'"
    ):
        plan_pruning(chain(10, 17), X, 0.5, options=PruneOptions(relative_to=chain(8, 17)))


@pytest.mark.parametrize("name", ["taylor", "activation"])
def test_importances_that_need_data_say_so(name):
    """One sentence, before anything is traced."""
    with pytest.raises(ConfigError, match=f"^importance '{name}' needs data: give options=PruneOptions"):
        plan_pruning(chain(8), X, 0.2, name)


@pytest.mark.parametrize("importance", ["taylor", "activation"])
def test_a_channel_that_does_nothing_goes_first(importance):
    """Dead channels are found by data, however large the weights around them."""
    torch.manual_seed(0)
    model = lively(nn.Sequential(conv_bn(3, 8), conv_bn(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(8)))
    with torch.no_grad():
        model[0][1].weight[[2, 5]], model[0][1].bias[[2, 5]] = 0.0, -1.0
        model[0][0].weight[[2, 5]] *= 100
    options = PruneOptions(batches=[batch.double() for batch in BATCHES])
    small = prune_channels(model, X.double(), 0.25, importance, options=options)
    assert small[0][0].weight.equal(model[0][0].weight[[0, 1, 3, 4, 6, 7]])


def test_the_random_importance_follows_its_seed():
    """Equal seeds prune alike, others otherwise."""
    model = chain(32)
    weights = [prune_channels(model, X, 0.5, "random", options=PruneOptions(seed=seed))[0].weight for seed in (0, 0, 1)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])
    assert num_params(model) > weights[0].numel()


def test_halves_keep_their_balance_beside_channels_that_stay():
    """Of two halves that must stay alike, what is put out stays, and both lose of the rest."""
    torch.manual_seed(0)

    def forward(n: Net, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = n.a(x).chunk(2, 1)
        return pooled(first)[:, :5], n.h(pooled(n.b(first * second.sigmoid())))

    net = lively(Net(forward, a=conv(3, 48, 3), b=conv(24, 10), h=head(10)))
    plan = plan_pruning(net, X.double(), 0.2)
    small = apply_plan(net, plan)
    for one, other in zip(small(X.double()), masked_dense(net, plan)(X.double()), strict=True):
        assert one.allclose(other, rtol=0, atol=1e-12)
    assert (small.a.out_channels, small.b.in_channels) == (42, 21)
