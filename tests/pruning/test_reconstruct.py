from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn import functional

from compress.artifacts import artifact
from compress.errors import ConfigError, ModelError
from compress.lowrank import LowRankConfig, factorize
from compress.modules.masks import MASK
from compress.pruning.options import PruneOptions
from compress.pruning.plan import plans_of
from compress.pruning.reconstruct import reconstruct, report_of
from compress.pruning.structured import apply_plan, plan_pruning, prune_channels
from compress.pruning.unstructured import prune_weights
from tests.nets import Net, conv_bn, head, lively, pooled
from tests.strategies import networks


def images(count: int = 16, seed: int = 1, **shape: int) -> Tensor:
    """Random ones that are smooth enough for a network to have something in common with itself."""
    generator = torch.Generator().manual_seed(seed)
    size = shape.get("size", 8)
    return functional.interpolate(torch.randn(count, 3, size // 2, size // 2, generator=generator), scale_factor=2)


def batches(count: int = 8, **shape: int) -> list[Tensor]:
    """Batches of 16 images."""
    return [images(seed=seed, **shape).double() for seed in range(count)]


def net() -> nn.Sequential:
    """Convolutions of several kinds, norms, and a linear layer."""
    torch.manual_seed(0)
    parts = {
        "first": conv_bn(3, 16),
        "second": conv_bn(16, 24),
        "deep": conv_bn(24, 24, groups=24),
        "last": conv_bn(24, 16, 1),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flat": nn.Flatten(),
        "head": head(16),
    }
    model = nn.Sequential()
    for name, part in parts.items():
        model.add_module(name, part)
    return lively(model)


def distance(model: nn.Module, dense: nn.Module, x: Tensor) -> float:
    """Mean squared difference of the outputs, in units of the variance of the dense model's."""
    with torch.no_grad():
        ours, theirs = model(x), dense(x)
    return float((ours - theirs).square().mean() / theirs.var(0).mean())


def same(model: nn.Module, other: nn.Module) -> bool:
    """Whether two models hold the same tensors, to the bit."""
    theirs = other.state_dict()
    return all(value.equal(theirs[name]) for name, value in model.state_dict().items())


def test_a_cut_network_comes_near_the_dense_one_again():
    """On images that it was not fitted on, too; the given models stay, and the report says what was done."""
    dense = net()
    small = prune_channels(dense, images(1).double(), 0.25)
    before = copy.deepcopy(small), copy.deepcopy(dense)
    mended = reconstruct(small, dense, batches())
    others = images(64, seed=99).double()
    assert distance(mended, dense, others) < 0.3 * distance(small, dense, others)
    assert same(small, before[0])
    assert same(dense, before[1])
    report = report_of(mended)
    assert [layer.name for layer in report.layers] == ["first.0", "second.0", "deep.0", "last.0", "head"]
    assert (report.examples, report.held_out) == (128, 32)
    assert report.layers[0].reason == "its outputs are the dense network's"
    assert all(layer.is_fitted and layer.error_after < layer.error_before for layer in report.layers[1:])
    assert "4 of 5 layers fitted on 128 examples, 32 held out" in str(report)


def test_one_call_cuts_and_mends():
    """The option of the cut does what both calls do."""
    dense, x = net(), images(1).double()
    at_once = prune_channels(dense, x, 0.25, options=PruneOptions(reconstruct=batches(2), seed=3))
    assert same(at_once, reconstruct(prune_channels(dense, x, 0.25), dense, batches(2), seed=3))


def test_what_was_not_pruned_stays_to_the_bit():
    """The same network, of the same shapes, has nothing to be mended."""
    dense = net()
    mended = reconstruct(copy.deepcopy(dense), dense, batches(2))
    assert same(mended, dense)
    assert {layer.reason for layer in report_of(mended).layers} == {"its outputs are the dense network's"}


def test_dead_channels_leave_nothing_to_mend():
    """A network whose pruned channels put out zeros computes what it did, before and after."""
    dense = net()
    plan = plan_pruning(dense, images(1).double(), 0.25)
    with torch.no_grad():
        for name in ("first", "second", "deep", "last"):
            norm = dense.get_submodule(name)[1]
            kept = next(ids for member, ids in plan.kept.items() if member.tensor == f"{name}.1.weight")
            dead = torch.ones(norm.num_features, dtype=torch.bool)
            dead[kept] = False
            norm.weight[dead] = norm.bias[dead] = 0.0
    small = apply_plan(dense, plan)
    mended = reconstruct(small, dense, batches(2))
    assert distance(mended, dense, images().double()) < 1e-20


def test_a_channel_that_another_one_equals_is_replaced_by_it():
    """What a linear layer reads twice it can read once, exactly, but for the ridge."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)).double()
    with torch.no_grad():
        dense[0].weight[4:] = 0.5 * dense[0].weight[:4]
        dense[0].bias[4:] = 0.5 * dense[0].bias[:4]
    data = [torch.randn(256, 6).double() for _ in range(4)]
    small = prune_channels(dense, data[0][:1], 0.5)
    mended = reconstruct(small, dense, data)
    assert distance(small, dense, data[0]) > 1e-2
    assert distance(mended, dense, data[0]) < 1e-8


@settings(max_examples=15, deadline=None)
@given(networks())
def test_the_held_out_error_of_no_layer_rises(drawn: tuple[nn.Module, Tensor]):
    """Whatever layers a network is made of, and however they are coupled."""
    dense, x = drawn
    data = [torch.randn(8, *x.shape[1:], generator=torch.Generator().manual_seed(seed)).to(x) for seed in range(2)]
    small = prune_channels(dense, x, 0.5)
    report = report_of(reconstruct(small, dense, data))
    for layer in report.layers:
        if layer.error_before is None or layer.error_after is None:
            assert re.fullmatch("only .* reads it", layer.reason), str(report)
        else:
            assert layer.error_after <= layer.error_before


def test_it_is_the_same_every_time():
    """The same seed gives the same bits, another one looks at other positions."""
    dense = net()
    small = prune_channels(dense, images(1).double(), 0.25)
    data = [images(128, size=16).double()] * 2
    first, second, other = (reconstruct(small, dense, data, seed=seed) for seed in (0, 0, 1))
    assert same(first, second)
    assert not same(first, other)


def test_norms_take_the_dense_statistics():
    """A network that was recalibrated after the cut is fitted as if it had not been."""
    dense = net()
    small = prune_channels(dense, images(1).double(), 0.25)
    wrong = copy.deepcopy(small)
    for module in wrong.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += 1.0
    assert same(reconstruct(wrong, dense, batches(2)), reconstruct(small, dense, batches(2)))


def test_modes_and_gradients_are_those_of_the_given_model():
    """A network that is being trained comes back ready to be trained."""
    dense = net()
    small = prune_channels(dense, images(1).double(), 0.25).train()
    small.head.eval()
    mended = reconstruct(small, dense, batches(1))
    assert [module.training for module in mended.modules()] == [module.training for module in small.modules()]
    mended(images().double()).sum().backward()
    assert all(parameter.grad is not None for parameter in mended.parameters())


def test_a_model_knows_how_it_was_cut_but_a_file_does_not(tmp_path):
    """Copies know it, too. A model read from a file is given the plan, and comes out the same."""
    dense = net()
    plan = plan_pruning(dense, images(1).double(), 0.25)
    small = apply_plan(dense, plan)
    assert plans_of(copy.deepcopy(small)) == (plan,)
    assert plans_of(dense) == ()
    artifact.save(small, tmp_path / "small.safetensors")
    loaded = artifact.load(tmp_path / "small.safetensors", net).eval()
    with pytest.raises(ConfigError, match=r"^plan must say how the model was cut where it did not come out of"):
        reconstruct(loaded, dense, batches(2))
    mended = reconstruct(loaded, dense, batches(2), plan=plan)
    assert same(mended, reconstruct(small, dense, batches(2)))
    artifact.save(mended, tmp_path / "mended.safetensors")
    assert same(artifact.load(tmp_path / "mended.safetensors", net), mended)


def test_a_network_cut_twice_is_mended_from_either_dense_one():
    """It knows both cuts, and takes those that lead from the dense model it is given."""
    dense = net()
    once = prune_channels(dense, images(1).double(), 0.25)
    twice = prune_channels(once, images(1).double(), 0.25)
    others = images(64, seed=99).double()
    for reference in (dense, once):
        mended = reconstruct(twice, reference, batches())
        assert distance(mended, reference, others) < distance(twice, reference, others)


def test_a_layer_called_twice_is_fitted_to_both_calls():
    """One set of weights for all that goes through it, and what follows sees what it puts out with them."""
    torch.manual_seed(0)
    model = Net(
        lambda n, x: n.head(pooled(n.shared(n.shared(n.first(x))))),
        first=conv_bn(3, 16),
        shared=conv_bn(16, 16),
        head=head(16),
    )
    dense = lively(model)
    small = prune_channels(dense, images(1).double(), 0.25)
    mended = reconstruct(small, dense, batches())
    others = images(64, seed=99).double()
    assert distance(mended, dense, others) < 0.5 * distance(small, dense, others)
    assert [layer.name for layer in report_of(mended).layers] == ["first.0", "shared.0", "head"]
    assert report_of(mended).layers[1].positions == 4096


class Block(nn.Module):
    """Attention of torch and a feed-forward part made of Hugging Face's kind of layers, behind layer norms."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 16)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.up, self.down = Conv1D(16, 32), Conv1D(32, 16)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        own = self.norm(x)
        x = x + self.attention(own, own, own, need_weights=False)[0]
        x = x + self.down(functional.gelu(self.up(x)))
        return functional.linear(x, self.embedding.weight)


class Conv1D(nn.Module):
    """A linear layer whose weight is ``[in, out]``."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(ins, outs) / ins**0.5)
        self.bias = nn.Parameter(torch.zeros(outs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)


def test_attention_and_transposed_weights_are_fitted_and_tied_embeddings_stay():
    """By the operations that run, whatever module holds the weights."""
    torch.manual_seed(0)
    dense = lively(Block())
    tokens = [torch.randint(0, 10, (32, 6)) for _ in range(4)]
    small = prune_channels(dense, tokens[0][:1], 0.25)
    mended = reconstruct(small, dense, tokens)
    layers = {layer.name: layer for layer in report_of(mended).layers}
    assert layers.keys() == {"attention.in_proj_weight", "attention.out_proj", "up", "down", "embedding"}
    assert layers["embedding"].reason == "its weight is also read by embedding"
    assert mended.embedding.weight.equal(small.embedding.weight)
    assert all(layers[name].is_fitted for name in ("attention.in_proj_weight", "attention.out_proj", "up", "down"))
    assert distance(mended, dense, tokens[0]) < distance(small, dense, tokens[0])


def test_attention_across_is_fitted_part_by_part():
    """Queries come from elsewhere than keys and values do, and each part of the one weight has its own inputs."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(16, 2, batch_first=True)
    model = Net(
        lambda n, x: n.out(n.attend(n.a(x), n.b(x), n.b(x))[0]),
        a=nn.Linear(8, 16),
        b=nn.Linear(8, 16),
        attend=attention,
        out=nn.Linear(16, 8),
    )
    dense = lively(model)
    data = [torch.randn(32, 5, 8).double() for _ in range(4)]
    small = prune_channels(dense, data[0][:1], 0.25)
    mended = reconstruct(small, dense, data)
    names = [layer.name for layer in report_of(mended).layers]
    assert names[2:] == [*(f"attend.in_proj_weight, part {part}" for part in (1, 2, 3)), "attend.out_proj", "out"]
    assert distance(mended, dense, data[0]) < distance(small, dense, data[0])


@pytest.mark.parametrize("settings_", [{"sparsity": 0.7}, {"sparsity": 0.7, "scope": "global"}, {"pattern": "2:4"}])
def test_masked_weights_stay_zero_and_the_others_make_up_for_them(settings_: dict[str, Any]):
    """In each layer, over all layers, and in a pattern; the masks hold on."""
    dense = net()
    masked = prune_weights(dense, **settings_)
    mended = reconstruct(masked, dense, batches())
    others = images(64, seed=99).double()
    assert distance(mended, dense, others) < 0.5 * distance(masked, dense, others)
    for name, module in mended.named_modules():
        if MASK in module._buffers:
            mask = module.get_buffer(MASK)
            assert mask.equal(masked.get_submodule(name).get_buffer(MASK))
            assert not module.weight[~mask].any()


@pytest.mark.parametrize("is_cut", [False, True])
def test_the_last_factors_of_factorized_layers_are_fitted(is_cut: bool):  # noqa: FBT001
    """To what the layer put out in whose place they stand, in the channels that were kept."""
    dense, x = net(), images(1).double()
    whole = prune_channels(dense, x, 0.25) if is_cut else dense
    thin = factorize(whole, x, LowRankConfig(by="ratio", target=0.4), progress=False)
    mended = reconstruct(thin, dense, batches())
    others = images(64, seed=99).double()
    assert distance(mended, dense, others) < 0.7 * distance(thin, dense, others)
    layers = {layer.name: layer for layer in report_of(mended).layers}
    assert layers["second.0.1"].is_fitted
    assert layers["second.0.0"].reason == "the last of the factors is fitted"


def test_a_cut_of_a_factorized_network_is_refused():
    """The cut speaks of the factors, and not of the layers that the dense network has."""
    dense, x = net(), images(1).double()
    thin = factorize(dense, x, LowRankConfig(by="ratio", target=0.4), progress=False)
    with pytest.raises(ModelError, match=r"^it must be known which outputs the smaller model kept: 'first.0.1.weight'"):
        reconstruct(prune_channels(thin, x, 0.25), dense, batches(2))


def test_too_few_images_are_said():
    """The ridge holds where there are fewer positions than unknowns."""
    dense = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 5)).double()
    data = [torch.randn(8, 6).double()]
    mended = reconstruct(prune_channels(dense, data[0][:1], 0.25), dense, data)
    layer = report_of(mended).layers[1]
    assert layer.is_short
    assert str(layer).endswith("; only 8 positions for 48 inputs, the ridge holds")
    assert mended[2].weight.isfinite().all()
    with pytest.raises(ConfigError, match=r"^batches must hold at least 4 examples, one of which is held out, got 3$"):
        reconstruct(prune_channels(dense, data[0][:1], 0.25), dense, [data[0][:3]])


def test_a_layer_that_something_else_computes_is_named():
    """So are those that the batches never reach."""
    dense = Net(lambda n, x: n.a(x), a=nn.Linear(4, 4), aside=nn.Linear(4, 4)).double()
    report = report_of(reconstruct(copy.deepcopy(dense), dense, [torch.randn(8, 4).double()]))
    assert [(layer.name, layer.reason) for layer in report.layers][1:] == [("aside", "the batches never reach it")]


def test_half_precision_is_fitted():
    """In float64, as all else; the weights are rounded to what they were."""
    dense = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 5)).to(torch.bfloat16)
    data = [torch.randn(64, 6).to(torch.bfloat16) for _ in range(4)]
    small = prune_channels(dense, data[0][:1], 0.25)
    mended = reconstruct(small, dense, data)
    assert mended[2].weight.dtype == torch.bfloat16
    assert distance(mended, dense, data[0]) < distance(small, dense, data[0])


def test_what_cannot_be_done_is_one_sentence():
    """Activations that are no numbers, a dense model that is another one, batches that fit neither, none at all."""
    dense = net()
    small = prune_channels(dense, images(1).double(), 0.25)
    poisoned = [images().double(), torch.full((4, 3, 8, 8), torch.nan).double()]
    with pytest.raises(
        ModelError, match=r"^activations must be finite for layers to be fitted, those of 'first.0' are not$"
    ):
        reconstruct(small, dense, poisoned)
    narrow = net()
    narrow.first = conv_bn(3, 10)
    with pytest.raises(
        ModelError, match=r"^dense must be .* was cut from: the cut takes more of 'first.0.weight' than"
    ):
        reconstruct(small, narrow, batches(1))
    other = net()
    other.last = conv_bn(24, 16, 3).double()
    with pytest.raises(
        ModelError, match=r"cut from: 'last.0.weight' would be of shape \[12, 18, 3, 3\], and is of shape"
    ):
        reconstruct(small, other, batches(1))
    with pytest.raises(ModelError, match=r"^dense must be .* cut from: only one of them has a tensor '0.bias'$"):
        reconstruct(small, nn.Sequential(nn.Linear(3, 4)), batches(1))
    with pytest.raises(ModelError, match=r"^the forward pass on a calibration batch failed: Given groups=1, weight of"):
        reconstruct(small, dense, [torch.zeros(8, 5, 8, 8).double()])
    with pytest.raises(ConfigError, match=r"^batches must hold at least one batch, got none"):
        reconstruct(small, dense, [])
    with pytest.raises(ConfigError, match=r"^the model must come out of reconstruct, this Sequential does not$"):
        report_of(small)


def test_another_order_of_layers_is_refused():
    """The same tensors in another network."""
    parts = {"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}
    dense, other = Net(lambda n, x: n.a(n.b(x)), **parts), Net(lambda n, x: n.b(n.a(x)), **parts)
    with pytest.raises(
        ModelError,
        match=r"^dense must be the model that the smaller one was made of: product 1 of its forward pass is with"
        r" b.weight, of the smaller one's with a.weight$",
    ):
        reconstruct(other, dense, [torch.randn(8, 4)])
