from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import compress
from compress.artifacts import artifact
from compress.errors import ConfigError, DataError, ModelError
from compress.lowrank import LowRankConfig, factorize, plan_factorization
from compress.macs import macs_of
from compress.measure.size import count_macs, count_params
from compress.modules.substitute import Substitute
from compress.train import evaluate
from compress.workload.workload import dense_model, load_workload
from tests.nets import Net, conv_bn, head, largest_difference, lively, pooled

X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
HALF = LowRankConfig(by="macs", target=0.5)


def net() -> nn.Module:
    """Convolutions that can be factorized in each way, one that cannot, and a linear layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        *conv_bn(3, 24), *conv_bn(24, 32, 3), *conv_bn(32, 32, 3, groups=32), *conv_bn(32, 48, 1),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(192, 40),
    ).eval()  # fmt: skip


def twice() -> nn.Module:
    """A layer that runs at two sizes, and one that shares its weight."""
    model = Net(
        lambda n, x: n.h(pooled(n.b(n.a(nn.functional.avg_pool2d(n.a(n.s(x)), 2))))),
        s=conv_bn(3, 16), a=nn.Conv2d(16, 16, 3, padding=1), b=nn.Conv2d(16, 16, 3, stride=2), h=head(16),
    )  # fmt: skip
    model.b.weight = model.a.weight
    return model


@pytest.mark.parametrize(
    ("config", "cost"),
    [
        (HALF, "macs"),
        (LowRankConfig(by="params", target=0.5), "params"),
        (LowRankConfig(by="energy", target=0.6), None),
        (LowRankConfig(by="ratio", target=0.25), None),
        (LowRankConfig(by="rank", target=4, only=("3", "9")), None),
    ],
)
def test_the_plan_says_what_the_model_then_costs(config, cost):
    """MACs and parameters are those that are counted in the result, and within the target where there is one."""
    model = net()
    plan = plan_factorization(model, X, config)
    small = factorize(model, X, config)
    assert plan.macs_before == 2 * count_macs(model, X)
    assert plan.macs_after == 2 * count_macs(small, X) < plan.macs_before
    assert (plan.num_params_before, plan.num_params_after) == (count_params(model), count_params(small))
    if cost == "macs":
        assert 0.45 < plan.macs_after / plan.macs_before <= 0.5
    if cost == "params":
        assert 0.45 < plan.num_params_after / plan.num_params_before <= 0.5
    assert small(X).shape == model(X).shape
    for layer in plan.layers:
        place = small.get_submodule(layer.names[0])
        assert isinstance(place, Substitute) is (layer.reason is None)
        assert layer.macs_after < layer.macs_before or layer.reason is not None


def test_the_plan_reads_well():
    """A summary, and a line for each layer, in the model's order, with the reason where it stays whole."""
    lines = str(plan_factorization(net(), X, HALF)).splitlines()
    assert lines[0].startswith("2,717,952 -> 1,")
    assert lines[0].endswith("%)")
    assert len(lines) == 6
    assert lines[3].strip() == "whole  6: it is depthwise already"
    assert " MACs, " in lines[2]


def test_the_given_model_is_left_alone():
    """Not a bit, mode or hook of it changes; the new one is in its modes and owes it no tensor."""
    model = net()
    model[1].train()
    before, hooks = artifact.digest(model), [len(module._forward_hooks) for module in model.modules()]
    small = factorize(model, X, HALF, calibration=[X])
    assert artifact.digest(model) == before
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert small[1].training
    assert not small[0].training
    mine, other = ({tensor.data_ptr() for tensor in one.parameters()} for one in (model, small))
    assert not mine & other


def test_what_saves_nothing_stays_whole():
    """Where every layer is too small for a chain to pay, the copy is the model, and each line says so."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    config = LowRankConfig(by="energy", target=1.0)
    plan = plan_factorization(model, torch.zeros(1, 4), config)
    assert [layer.reason for layer in plan.layers] == ["no rank saves MACs"] * 2
    assert artifact.digest(factorize(model, torch.zeros(1, 4), config)) == artifact.digest(model)


def test_rounding_leaves_layers_alone_that_have_no_such_rank():
    """All ranks are multiples of eight within the target; a layer of three channels has none, and it says so."""
    config = LowRankConfig(by="macs", target=0.7, round_to=8)
    plan = plan_factorization(net(), X, config)
    assert plan.macs_after <= 0.7 * plan.macs_before
    ranks = [rank for layer in plan.layers for rank in layer.ranks]
    assert ranks
    assert {rank % 8 for rank in ranks} == {0}
    narrow = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 32, 3))
    plan = plan_factorization(narrow, X, LowRankConfig(by="ratio", target=0.2, round_to=8))
    assert plan.layers[0].reason == "no rank that is a multiple of 8 saves MACs"


def test_full_energy_changes_nothing_that_is_seen():
    """Of a network of low rank all energy is kept by chains that cost less: equal outputs in float64."""
    model = lively(net())
    with torch.no_grad():
        for layer in (model[3], model[9], model[14]):
            flat = layer.weight.flatten(1)
            u, s, v = torch.linalg.svd(flat, full_matrices=False)
            layer.weight.copy_(((u[:, :5] * s[:5]) @ v[:5]).view_as(layer.weight))
    x = X.double()
    for calibration in (None, [x]):
        small = factorize(model, x, LowRankConfig(by="energy", target=1 - 1e-12), calibration=calibration)
        assert count_macs(small, x) < 0.6 * count_macs(model, x)
        assert largest_difference(small, model, x) < 1e-5


def test_a_tied_layer_is_factorized_once():
    """A module that runs twice and another of the same weight share one chain's weights, also after a round trip."""
    model = twice()
    plan = plan_factorization(model, X, LowRankConfig(by="ratio", target=0.25, only=("a", "b")))
    (row,) = [layer for layer in plan.layers if layer.reason is None]
    assert row.names == ("a", "b")
    assert row.macs_before == 2 * 16 * 16 * 9 * (12 * 12 + 6 * 6 + 2 * 2)
    small = factorize(model, X, LowRankConfig(by="ratio", target=0.25, only=("a", "b")))
    assert all(one.weight is other.weight for one, other in zip(small.a, small.b, strict=True))
    assert small.a[-1].bias is not small.b[-1].bias
    assert count_params(small) == plan.num_params_after


def test_a_factorized_model_comes_back_from_its_file(tmp_path):
    """Saved and loaded like every other: to the bit, by the factory of the dense one."""
    for make, config in ((net, HALF), (twice, LowRankConfig(by="ratio", target=0.25))):
        small = factorize(make(), X, config).eval()
        artifact.save(small, tmp_path / "small.safetensors")
        loaded = artifact.load(tmp_path / "small.safetensors", make)
        assert loaded(X).equal(small(X))
        assert artifact.digest(loaded) == artifact.digest(small)


def correlated(count: int, seed: int) -> Tensor:
    """Images as smooth as photographs, with channels that go together."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.nn.functional.interpolate(torch.randn(count, 1, 4, 4, generator=generator), (12, 12), mode="bicubic")
    return images * torch.tensor([1.0, 0.8, 0.6])[:, None, None] + 0.1 * torch.randn(
        count, 3, 12, 12, generator=generator
    )


def test_data_make_the_whole_model_more_alike():
    """At equal MACs and on other images, logits are nearer to the dense model's with calibration than without."""
    model, held_out = net(), correlated(64, 1)
    model.train()
    with torch.no_grad():
        model(correlated(64, 2))
    model.eval()
    plain, aware = (
        factorize(model, held_out[:1], LowRankConfig(by="macs", target=0.4), calibration=data)
        for data in (None, [correlated(64, 3)])
    )
    with torch.no_grad():
        wanted = model(held_out)
        errors = [float((small(held_out) - wanted).square().mean()) for small in (plain, aware)]
    assert errors[1] < 0.7 * errors[0]


def test_a_latency_is_reached_by_measuring():
    """The ratio is taken from the given function alone; the slowest model that holds it is returned."""
    asked = []

    def measure(compressed: nn.Module, dense: nn.Module) -> float:
        ratio = count_macs(compressed, X) / count_macs(dense, X)
        asked.append(ratio)
        return 0.2 + 0.8 * ratio

    plan = plan_factorization(net(), X, LowRankConfig(by="latency", target=0.6), measure=measure)
    assert 0.45 < plan.macs_after / plan.macs_before <= 0.5
    assert len(asked) == 8
    with pytest.raises(ConfigError, match=r"^target must be at least 0\.\d+ for this model, got 0\.21 \(latency\)$"):
        factorize(net(), X, LowRankConfig(by="latency", target=0.21), measure=measure)
    with pytest.raises(ConfigError, match=r"^a target for latency needs a function that measures it: measure=$"):
        factorize(net(), X, LowRankConfig(by="latency", target=0.5))


@pytest.mark.parametrize("batch_first", [True, False])
def test_an_encoder_is_factorized_around_its_attention(batch_first):
    """The attention reads its layers' weights; the other layers go, fast path or not, and cost what was planned."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 32), nn.TransformerEncoderLayer(32, 4, 64, batch_first=batch_first), nn.Linear(32, 32)
    ).eval()
    x = torch.randn(2, 5, 16)
    config = LowRankConfig(by="ratio", target=0.25)
    small, plan = factorize(model, x, config), plan_factorization(model, x, config)
    replaced = (small[0], small[1].linear1, small[1].linear2, small[2])
    assert all(isinstance(layer, Substitute) for layer in replaced)
    assert isinstance(small[1].self_attn.out_proj, nn.Linear)
    assert macs_of(lambda: model(x)).total == plan.macs_before
    assert macs_of(lambda: small(x)).total == plan.macs_after < plan.macs_before
    full = factorize(model, x, LowRankConfig(by="ratio", target=1.0, only=("1",)))
    torch.testing.assert_close(full(x), model(x))
    with torch.inference_mode():
        torch.testing.assert_close(full(x), model(x))


def test_what_is_not_among_the_macs_is_said():
    """A plan by ranks says what its counts leave out; a target for MACs needs all of them."""

    class Elsewhere(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(x.numpy() @ self.weight.detach().numpy().T)

    model = nn.Sequential(nn.Linear(64, 64), Elsewhere(64, 64))
    x = torch.zeros(1, 64)
    plan = plan_factorization(model, x, LowRankConfig(by="ratio", target=0.25))
    assert "not among the MACs, for their cost is unknown: Elsewhere, whose weights" in str(plan)
    assert plan.macs_before == 64 * 64
    with pytest.raises(ModelError, match=r"^a target for macs needs a count of all"):
        factorize(model, x)


def test_a_target_is_refused_where_nothing_can_be_factorized():
    """With the reason of a layer that stays whole; and a target out of reach is not called the whole."""
    depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Flatten())
    message = r"^no layer of Sequential can .* target for macs be reached \('0': it is depthwise already\)$"
    with pytest.raises(ModelError, match=message):
        factorize(depthwise, torch.randn(1, 8, 5, 5))
    with pytest.raises(ModelError, match=r"target for latency be reached \('': no rank saves MACs\)"):
        factorize(nn.Linear(2, 2), torch.randn(1, 2), LowRankConfig(by="latency"), measure=lambda *_: 1.0)
    big = nn.Sequential(nn.Linear(6, 64), nn.Conv1d(64, 64, 1024, groups=64, padding=512))
    with pytest.raises(ConfigError, match=r"^target must be at least 0\.99\d+ for this model, got 0\.7"):
        factorize(big, torch.randn(64, 6))


def test_a_layer_that_never_runs_stays_whole():
    """What the example inputs do not reach is not known, and is named."""
    model = Net(lambda n, x: n.a(x.flatten(1)), a=nn.Linear(432, 64), unused=nn.Linear(64, 64))
    plan = plan_factorization(model, X, LowRankConfig(by="ratio", target=0.1))
    assert {layer.names[0]: layer.reason for layer in plan.layers}["unused"] == "the example inputs never reach it"
    only_spatial = plan_factorization(
        Net(lambda n, x: n.a(x), a=nn.Conv2d(3, 9, (3, 1))), X, LowRankConfig(by="ratio", kinds=("spatial",))
    )
    assert only_spatial.layers[0].reason == "its kernel cannot be decomposed as spatial"


def test_inputs_of_several_forms():
    """A tuple of arguments and a mapping of keyword arguments are passed on as such, calibration's too."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(16, 16)

        def forward(self, x, scale):
            return self.a(x) * scale

    x = torch.randn(4, 16)
    for inputs in ((x, 2.0), {"x": x, "scale": 2.0}):
        small = factorize(Two(), inputs, LowRankConfig(by="ratio", target=0.25), calibration=[inputs])
        assert isinstance(small.a, Substitute)


def compiled() -> nn.Module:
    """A model with the mark that torch.compile's wrapper bears; the compiler takes seconds to load."""
    model = net()
    model._orig_mod = model[0]
    return model


@pytest.mark.parametrize(
    ("model", "inputs", "settings", "error", "message"),
    [
        (net, X, {"calibration": []}, DataError, "calibration must hold at least one batch of inputs, got none"),
        (net, X, {"calibration": X}, ConfigError, "calibration must be batches of inputs, got a single Tensor"),
        (net, X[:, :2], {}, ModelError, "the forward pass on the given inputs failed: "),
        (
            net,
            "images",
            {},
            ConfigError,
            "example_inputs must be a tensor, a tuple of arguments or a mapping of them, got str",
        ),
        (lambda: 3, X, {}, ModelError, "the model must be a torch.nn.Module, got int"),
        (
            lambda: torch.jit.trace(net(), X),
            X,
            {},
            ModelError,
            "the model must not be scripted: factorize the original",
        ),
        (compiled, X, {}, ModelError, "the model must not be compiled: factorize the original"),
        (nn.ReLU, X, {}, ModelError, "ReLU has no linear or convolution layer that could be factorized"),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.jit.trace")
def test_what_cannot_be_factorized_is_one_sentence(model, inputs, settings, error, message):
    """The rule, the value and the place."""
    with pytest.raises(error) as caught:
        factorize(model(), inputs, LowRankConfig(by="ratio", target=0.25), **settings)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_rank_larger_than_the_layer_is_refused():
    """The layer is named."""
    with pytest.raises(ConfigError, match=r"^rank must be at most 24, the full one, got 30 \(layer '0'\)$"):
        compress.factorize(net(), X, compress.LowRankConfig(by="rank", target=30))


@pytest.mark.nightly
def test_data_beat_plain_singular_values_on_digits(monkeypatch, tmp_path_factory):
    """On the trained GoogLeNet, at equal MACs and without training, the outputs change less by half."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "digits"))
    workload = load_workload("digits")
    dense = dense_model(workload, progress=False)
    data = workload.dataset
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:256]
    batches = [images for images, _ in data.train.subset(order).batches(64)]
    images, _ = next(data.test.batches(500))
    config = LowRankConfig(by="macs", target=0.3)
    plain, aware = (
        factorize(dense, workload.example_input, config, calibration=calibration, progress=False)
        for calibration in (None, batches)
    )
    with torch.no_grad():
        wanted = copy.deepcopy(dense)(images)
        plain_error, aware_error = ((small(images) - wanted).square().mean() for small in (plain, aware))
    assert aware_error < plain_error / 2
    assert evaluate(aware, data.test).top1_error <= evaluate(plain, data.test).top1_error
