from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from compress.calling.inputs import Inputs
from compress.errors import ConfigError, ModelError
from compress.measure.size import count_macs
from compress.pruning.options import PruneOptions
from compress.pruning.structured import apply_plan, plan_pruning, prune_channels
from tests.nets import conv_bn, head, num_params

X = torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)


def net() -> nn.Sequential:
    """Three convolutions and a classifier, in train mode."""
    torch.manual_seed(0)
    return nn.Sequential(
        conv_bn(3, 40), conv_bn(40, 48), conv_bn(48, 40), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(40)
    )


def widths(model: nn.Module) -> list[int]:
    """Output channels of the convolutions."""
    return [layer[0].out_channels for layer in model[:3]]


class FakeClock:
    """Takes a microsecond for each output channel of a convolution, and a hundred for one of a width not wanted.

    The machine gets slower and slower, the same for both models.
    """

    def __init__(self, unwanted: int = 1) -> None:
        self.calls: list[list[int]] = []
        self.unwanted = unwanted
        self.drift = 1.0

    def __call__(self, compressed: nn.Module, dense: nn.Module, example: Inputs) -> list[tuple[float, float]]:
        assert not compressed.training
        assert not dense.training
        assert example.args[0] is X
        self.calls.append(widths(compressed))
        return [(self._ms(dense), self._ms(compressed)) for _ in range(3)]

    def _ms(self, model: nn.Module) -> float:
        self.drift *= 1.0001
        return self.drift * sum(width if width % self.unwanted == 0 else 100 for width in widths(model)) / 1e3


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
@pytest.mark.parametrize(("target", "count"), [("max_params", num_params), ("max_macs", lambda m: count_macs(m, X))])
def test_a_size_is_reached_from_below(scope, share, target, count):
    """The model is as small as asked and no smaller than the search's step makes it."""
    model = net()
    limit = int(share * count(model))
    plan = plan_pruning(model, X, options=PruneOptions(**{target: limit, "scope": scope}))
    small = apply_plan(model, plan)
    assert count(small) <= limit
    assert count(small) >= 0.9 * limit
    assert f"{target} {limit:g}: reached {count(small):g}, from {count(model):g}" in str(plan)
    assert model.training


class Encoder(nn.Module):
    """Patches, attention and a classifier: most of the work is in the encoder."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 32, 2, 2)
        self.layers = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(32, 4, 128, batch_first=True), 2, enable_nested_tensor=False
        )
        self.head = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


@pytest.mark.parametrize("share", [0.85, 0.6])
def test_the_macs_of_a_transformer_are_reached(share):
    """Attention counts, fast path or not, so that a target is not met with nothing cut."""
    model = Encoder().eval()
    dense = count_macs(model, X)
    tokens, width = 16, 32
    of_layer = 4 * tokens * width * width + 2 * tokens * tokens * width + 2 * tokens * width * 128
    assert dense == tokens * 3 * 4 * width + 2 * of_layer + width * 4
    small = prune_channels(model, X, options=PruneOptions(max_macs=int(share * dense)))
    assert 0.9 * share * dense <= count_macs(small, X) <= share * dense


def test_a_target_for_macs_needs_all_of_them():
    """What runs past PyTorch's dispatcher is named, rather than taken for free."""

    class Elsewhere(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.from_numpy(x.detach().numpy() @ self.weight.detach().numpy().T)

    model = nn.Sequential(nn.Linear(8, 8), Elsewhere(8, 8), nn.Linear(8, 4))
    with pytest.raises(ModelError, match=r"^max_macs needs a count of all .* Elsewhere, whose weights"):
        prune_channels(model, torch.zeros(1, 8), options=PruneOptions(max_macs=100))


def test_a_ratio_found_is_the_ratio_of_the_plan():
    """Pruned by it the model comes out the same."""
    plan = plan_pruning(net(), X, options=PruneOptions(max_params=20_000))
    assert widths(prune_channels(net(), X, plan.pruning_ratio)) == widths(apply_plan(net(), plan))


def test_a_latency_is_reached_in_turn_with_the_dense_model():
    """Eleven models are timed, the dense and the fastest first; those close to what was asked three times."""
    clock = FakeClock()
    plan = plan_pruning(net(), X, options=PruneOptions(max_latency_ms=0.064, latency=clock))
    assert 60 <= sum(widths(apply_plan(net(), plan))) <= 64
    looks = Counter(map(tuple, clock.calls))
    assert list(looks)[:2] == [(40, 48, 40), (4, 5, 4)]
    assert looks[40, 48, 40] == looks[4, 5, 4] == 1
    assert looks[tuple(widths(apply_plan(net(), plan)))] >= 3
    assert len(looks) <= 11
    assert "max_latency_ms 0.064: reached 0.06" in str(plan)


def test_a_target_that_holds_already_removes_nothing():
    """The plan says so."""
    for options in (PruneOptions(max_params=10**9), PruneOptions(max_latency_ms=1.0, latency=FakeClock())):
        plan = plan_pruning(net(), X, options=options)
        assert plan.num_params_after == plan.num_params_before
        assert plan.pruning_ratio == 0
        assert "holds without a cut" in str(plan)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_params": 100},
            r"max_params must be reachable: while min_kept = 0.1 of the channels stay, the least is \d{3}, got 100",
        ),
        (
            {"max_macs": 10},
            r"max_macs must be reachable: while min_kept = 0.1 of the channels stay, the least is .*, got 10",
        ),
        (
            {"max_latency_ms": 0.01, "latency": FakeClock()},
            r"max_latency_ms must be reachable: .* of the channels stay, the least is 0.013\d*, got 0.01",
        ),
    ],
)
def test_a_target_out_of_reach_is_refused_with_what_can_be_reached(options, message):
    """The smallest value that the floor allows is in the sentence."""
    with pytest.raises(ConfigError, match=f"^{message}$"):
        plan_pruning(net(), X, options=PruneOptions(**options))


class NeedsEight(nn.Module):
    """Cannot run with fewer than eight channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        if x.shape[1] < 8:
            raise ValueError("too narrow")
        return self.second(x)


def test_a_cut_that_is_too_large_for_the_network_does_not_stop_the_search():
    """A layer that breaks at a tenth of its width stays whole there, which must not freeze it for milder cuts."""
    torch.manual_seed(0)
    model, x = NeedsEight().eval(), torch.randn(1, 3, 8, 8)
    limit = num_params(model) // 2
    assert num_params(prune_channels(model, x, 0.9)) == num_params(model)
    assert 0.9 * limit < num_params(prune_channels(model, x, options=PruneOptions(max_params=limit))) <= limit


def test_auto_rounds_where_it_makes_the_model_faster():
    """On a machine that likes multiples of eight wider layers take less time, and the plan says what was seen."""
    clock = FakeClock(unwanted=8)
    plan = plan_pruning(net(), X, 0.3, options=PruneOptions(round_to="auto", latency=clock))
    assert widths(apply_plan(net(), plan)) == [32, 40, 32]
    assert "round_to auto: 8, as 8 takes x0.35 of the time, 16 takes x0." in str(plan)


def test_auto_does_not_round_where_it_does_not_pay():
    """On a machine that does not care for widths the narrowest model stays."""
    plan = plan_pruning(net(), X, 0.3, options=PruneOptions(round_to="auto", latency=FakeClock()))
    assert widths(apply_plan(net(), plan)) == [28, 33, 28]
    assert "round_to auto: 1, as 8 takes x1." in str(plan)


def test_auto_goes_with_a_target():
    """The rounded model holds the target too."""
    options = PruneOptions(round_to="auto", latency=FakeClock(unwanted=8), max_params=20_000)
    small = prune_channels(net(), X, options=options)
    assert num_params(small) <= 20_000
    assert all(width % 8 == 0 for width in widths(small))


def test_threads_are_pinned_while_time_is_measured_and_no_longer():
    """Latency is taken on as many threads as were asked for."""
    seen = []

    def latency(compressed: nn.Module, dense: nn.Module, _: Inputs) -> list[tuple[float, float]]:
        seen.append(torch.get_num_threads())
        return [(1.0, num_params(compressed) / num_params(dense))]

    before = torch.get_num_threads()
    plan_pruning(net(), X, options=PruneOptions(max_latency_ms=0.9, threads=2, latency=latency))
    assert set(seen) == {2}
    assert torch.get_num_threads() == before
