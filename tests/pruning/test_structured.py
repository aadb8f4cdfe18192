import contextlib
import copy
import math

import hypothesis.strategies as st
import pytest
import torch
import torchvision
from hypothesis import given, settings
from torch import Tensor, nn

from compress.channels.trace import Heads
from compress.errors import ConfigError, ModelError
from compress.models.googlenet import googlenet
from compress.pruning.options import PruneOptions
from compress.pruning.structured import apply_plan, plan_pruning, prune_channels
from tests.nets import (
    Net,
    between,
    conv,
    conv_bn,
    head,
    largest_difference,
    largest_gradient_difference,
    lively,
    masked_dense,
    num_params,
    pooled,
)
from tests.strategies import networks, ratios

X = torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)


def small_net() -> nn.Sequential:
    """Two convolutions with batch norm, and a classifier."""
    return nn.Sequential(conv_bn(3, 10), conv_bn(10, 20), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(20))


def check_equal_to_masked(net: nn.Module, x: Tensor, ratio: float, heads: Heads = "dims") -> nn.Module:
    """Prune, and hold the result against the masked network on a batch and at another size, and count what is left."""
    plan = plan_pruning(net, x, ratio, options=PruneOptions(heads=heads))
    small = apply_plan(net, plan)
    assert num_params(small) == plan.num_params_after
    assert num_params(net) == plan.num_params_before
    batch = torch.cat([x, x.flip(-1), 0.5 * x])
    dense = masked_dense(net, plan)
    assert largest_difference(small, dense, batch) < 1e-9
    assert largest_difference(small, dense, torch.cat([x, x.flip(-1)], dim=-1)) < 1e-9
    assert largest_gradient_difference(small, dense, plan, batch) < 1e-8
    larger = torch.cat([x, x], dim=2)
    with contextlib.suppress(RuntimeError):  # not every network runs at another size
        dense(larger)
        assert largest_difference(small, dense, larger) < 1e-9
    return small


@settings(deadline=None, max_examples=50)
@given(case=networks(), ratio=ratios(), heads=st.sampled_from(["dims", "whole"]))
def test_pruned_equals_masked(case, ratio, heads):
    """Whatever the couplings, removing channels is zeroing them wherever they live, and nothing else."""
    check_equal_to_masked(*case, ratio, heads)


@settings(deadline=None, max_examples=10)
@given(case=networks(with_features=True), ratio=st.sampled_from([0.2, 0.5]))
def test_outputs_that_do_not_count_keep_nothing_whole(case, ratio):
    """With the logits named, a network loses what it would without its features, and its logits are the masked ones."""
    net, x = case
    options = PruneOptions(outputs=lambda out: out["logits"])
    plan = plan_pruning(net, x, ratio, options=options)
    small, dense = apply_plan(net, plan), masked_dense(net, plan)
    net.with_features = False
    alone = plan_pruning(net, x, ratio)
    assert plan.num_params_after == alone.num_params_after
    with torch.no_grad():
        difference = (small(x)["logits"] - dense(x)["logits"]).abs().max()
    assert difference <= 1e-9 * dense(x)["logits"].abs().max().clamp(min=1.0)


@pytest.mark.nightly
@settings(deadline=None, max_examples=2000)
@given(case=networks(), ratio=ratios(), heads=st.sampled_from(["dims", "whole"]))
def test_pruned_equals_masked_on_many_networks(case, ratio, heads):
    """The same on many more networks."""
    check_equal_to_masked(*case, ratio, heads)


def test_googlenet_loses_the_parameters_of_the_reference_experiment():
    """20 % of every layer's channels are 36 % of the parameters: 6,402,564 become 4,089,523."""
    net = lively(googlenet())
    small = check_equal_to_masked(net, torch.linspace(-1, 1, 3072).reshape(1, 3, 32, 32).double(), 0.2)
    assert num_params(small) == 4_089_523


@pytest.mark.parametrize(
    ("name", "share"),
    [("resnet18", 0.6445), ("mobilenet_v2", 0.7019), ("densenet121", 0.6499)],
)
def test_torchvision_networks(name, share):
    """Residuals, depthwise convolutions and dense concatenations are pruned everywhere but at input and output."""
    check_torchvision(name, share)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("resnet50", 0.6511),
        ("vgg16_bn", 0.6437),
        ("squeezenet1_1", 0.7006),
        ("resnext50_32x4d", 0.6322),
        ("regnet_y_400mf", 0.6193),
        ("mobilenet_v3_small", 0.7072),
        ("efficientnet_b0", 0.6835),
        ("mnasnet0_5", 0.7380),
        ("shufflenet_v2_x0_5", 0.7747),
    ],
)
def test_more_torchvision_networks(name, share):
    """Grouped convolutions, squeeze and excitation, channel shuffles and big classifiers too."""
    check_torchvision(name, share)


# Networks without layer norm; the smallest image that all of them take.
_CNNS = [
    name
    for name in torchvision.models.list_models(module=torchvision.models)
    if not name.startswith(("convnext", "swin", "vit", "maxvit")) and name not in {"regnet_y_128gf", "regnet_y_32gf"}
]


@pytest.mark.nightly
@pytest.mark.parametrize("name", _CNNS)
def test_every_convolutional_network_of_torchvision(name):
    """Pruned equals masked-dense, and between 0.55 and 0.8 of the parameters stay."""
    torch.manual_seed(0)
    settings = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    net = lively(torchvision.models.get_model(name, weights=None, **settings))
    x = torch.randn(1, 3, 96, 96, dtype=torch.float64)
    plan = plan_pruning(net, x, 0.2)
    assert largest_difference(apply_plan(net, plan), masked_dense(net, plan), x) < 1e-9
    # Auxiliary classifiers take no part in a forward pass in eval mode, and stay as they are.
    assert 0.55 < plan.num_params_after / plan.num_params_before < (0.95 if settings else 0.8)


def check_torchvision(name: str, share: float) -> None:
    """Prune a network of torchvision's by 20 %, and expect this share of its parameters to stay."""
    torch.manual_seed(0)
    net = lively(getattr(torchvision.models, name)(weights=None))
    small = check_equal_to_masked(net, torch.randn(1, 3, 64, 64, dtype=torch.float64), 0.2)
    assert num_params(small) / num_params(net) == pytest.approx(share, abs=5e-4)


def test_vgg_is_pruned_through_pooling_and_flattening():
    """A classifier over 7x7 positions loses all 49 columns of each channel."""
    vgg = torchvision.models.VGG(torchvision.models.vgg.make_layers([16, "M", 32, "M"], batch_norm=True), 10)
    vgg.classifier = nn.Sequential(nn.Linear(32 * 49, 40), nn.ReLU(), nn.Dropout(), head(40))
    small = check_equal_to_masked(lively(vgg), torch.randn(1, 3, 16, 16, dtype=torch.float64), 0.25)
    assert small.classifier[0].weight.shape == (30, 24 * 49)


@pytest.mark.parametrize(("ratio", "kept"), [(0.0, 10), (0.05, 9), (0.1, 9), (0.2, 8), (0.3, 7), (0.9, 1), (0.99, 1)])
def test_what_stays_is_rounded_down_but_never_to_nothing(ratio, kept):
    """Of ``n`` channels ``floor(n * (1 - ratio))`` stay, free of rounding noise, and at least one."""
    assert prune_channels(small_net(), X, ratio)[0][0].out_channels == kept


def test_the_least_important_channels_go():
    """The filters with the smallest L1 norm are removed, and the others keep their values and their order."""
    net = small_net()
    with torch.no_grad():
        net[0][0].weight.copy_(torch.tensor([5.0, 1, 9, 2, 8, 3, 7, 4, 6, 10])[:, None, None, None] + net[0][0].weight)
    small = prune_channels(net, X, 0.5)
    assert torch.equal(small[0][0].weight, net[0][0].weight[[2, 4, 6, 8, 9]])


def test_any_function_may_rank_channels():
    """A function gets a matrix for each layer that produces the channels, and its smallest scores go."""
    seen = []

    def last_first(weights):
        seen.append([tuple(weight.shape) for weight in weights])
        return -torch.arange(float(len(weights[0])))

    small = prune_channels(small_net(), X, 0.5, last_first)
    assert seen == [[(10, 27)], [(20, 90)]]
    assert small[0][0].out_channels == 5


@pytest.mark.parametrize("scores", [torch.zeros(3), None, torch.zeros(10, 1)], ids=["short", "none", "matrix"])
def test_scores_of_another_shape_are_refused(scores):
    """A function must give one number a channel; the message names the layer."""
    with pytest.raises(ConfigError, match=r"one number for each of 10 channels \(layer '0.0'\)"):
        plan_pruning(small_net(), X, 0.2, lambda _: scores)


def test_ratio_zero_changes_nothing():
    """The result is another model with the same state, bit for bit, and the same parameters' shapes."""
    net = lively(small_net())
    twin = prune_channels(net, X.double(), 0)
    assert twin is not net
    assert all(torch.equal(tensor, twin.state_dict()[name]) for name, tensor in net.state_dict().items())
    assert {p.data_ptr() for p in net.parameters()}.isdisjoint(p.data_ptr() for p in twin.parameters())


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, math.nan, math.inf, "0.2", True])
def test_a_ratio_outside_its_range_is_refused(ratio):
    """The message holds the rule and the value."""
    with pytest.raises(ConfigError, match=r"^pruning_ratio must be in \[0, 1\), got "):
        prune_channels(small_net(), X, ratio)


def test_the_given_model_is_untouched_and_modes_carry_over():
    """State, modes and gradients of the given model stay; the pruned one has its modes, and parameters that learn."""
    net = small_net().train()
    net[1].eval()
    net[0][0].weight.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    small = prune_channels(net, X, 0.5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert [module.training for module in small.modules()] == [module.training for module in net.modules()]
    assert [p.requires_grad for p in small.parameters()] == [p.requires_grad for p in net.parameters()]
    small(torch.randn(4, 3, 8, 8)).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in small.parameters())
    assert all(p.grad is None for p in net.parameters())


def test_modules_know_their_new_widths():
    """What a module shows of itself is what its tensors have."""
    small = prune_channels(small_net(), X, 0.5)
    assert (small[1][0].in_channels, small[1][0].out_channels) == (5, 10)
    assert small[1][1].num_features == 10
    assert (small[4].in_features, small[4].out_features) == (10, 5)


def test_ignored_modules_stay_whole():
    """Every tensor of an ignored module keeps its shape, input side too, and the plan says why."""
    plan = plan_pruning(small_net(), X, 0.5, ignore=["1.0"])
    small = apply_plan(small_net(), plan)
    assert small[1][0].weight.shape == (20, 10, 3, 3)
    assert "'1.0' is to be ignored" in str(plan)


@pytest.mark.parametrize("ignore", [["9"], ["0", "nothing"], "0"])
def test_ignoring_unknown_modules_is_refused(ignore):
    """A misspelt name would prune what should stay."""
    with pytest.raises(ConfigError, match=r"^ignore must "):
        prune_channels(small_net(), X, 0.2, ignore=ignore)


def test_weights_that_are_not_finite_are_refused():
    """NaN cannot be ranked; the message names the layer."""
    net = small_net()
    with torch.no_grad():
        net[1][0].weight[3, 0, 0, 0] = math.nan
    with pytest.raises(ModelError, match=r"importance must be finite, got NaN or infinity \(layer '1.0'\)"):
        prune_channels(net, X, 0.2)


def test_an_unknown_operation_keeps_its_channels():
    """Only what meets it stays whole, and the plan says why."""
    plan = plan_pruning(between(lambda x: x.sort(dim=1).values), X, 0.25)
    assert ("b.weight", 0) in plan.kept
    assert ("a.0.weight", 0) not in plan.kept
    assert "16 ->    16  a.0.weight[0]" in str(plan)
    assert "whole, unknown operation (aten.sort)" in str(plan)


def test_a_cut_that_fails_in_python_is_taken_back():
    """A check of a width in Python code freezes what came into that module, and the rest is pruned."""

    class Checked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[1] != 16:
                raise ValueError("16 channels expected")
            return x

    net = nn.Sequential(conv_bn(3, 16), Checked(), conv(16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(16))
    plan = plan_pruning(net, X, 0.25)
    assert ("0.0.weight", 0) not in plan.kept
    assert ("2.weight", 0) in plan.kept
    assert "the cut breaks the forward pass: 16 channels expected" in str(plan)


def test_a_shared_layer_stays_shared():
    """A layer registered under two names is one layer after the cut as well."""
    layer = conv(16, 16)
    net = Net(lambda n, x: n.h(pooled(n.c(n.b(n.a(x))))), a=conv_bn(3, 16), b=layer, c=layer, h=head(16))
    small = prune_channels(net, X, 0.25)
    assert small.b is small.c
    assert small.b.weight.shape == (12, 12, 1, 1)


def test_channels_last_weights_stay_so():
    """The memory format of a weight is kept."""
    small = prune_channels(small_net().to(memory_format=torch.channels_last), X, 0.5)
    assert small[1][0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("wrap", [lambda y: {"out": y, "more": [y]}, lambda y: (y, None)], ids=["mapping", "tuple"])
def test_outputs_may_be_of_any_form(wrap):
    """Mappings, lists and tuples of tensors are outputs like any other."""
    net = Net(lambda n, x: wrap(n.b(n.a(x))), a=conv_bn(3, 16), b=conv(16, 8))
    small = prune_channels(net, X, 0.25)
    assert (small.a[0].out_channels, small.b.out_channels) == (12, 8)


def test_every_group_of_a_convolution_keeps_a_channel():
    """A ratio that would empty a layer leaves one channel for each of its groups."""
    net = Net(lambda n, x: n.h(pooled(n.b(n.a(x)))), a=conv_bn(3, 16), b=conv(16, 8, groups=4), h=head(8))
    small = prune_channels(net, X, 0.99)
    assert (small.a[0].out_channels, small.b.out_channels, small.b.groups) == (4, 4, 4)


def test_a_network_that_must_stay_whole_comes_back_as_it_is():
    """A single layer is input and output at once: the plan says so, and nothing is cut."""
    net = nn.Sequential(conv(3, 8))
    plan = plan_pruning(net, X, 0.5)
    assert plan.num_params_after == plan.num_params_before
    assert not plan.kept
    assert all(group.frozen for group in plan.groups)
    assert torch.equal(apply_plan(net, plan)(X), net(X))


def test_a_forward_pass_that_writes_into_its_weights_is_traced_on_a_copy():
    """The given weights stay as they were, and the cut is made all the same."""

    def forward(n: Net, x: Tensor) -> Tensor:
        n.a[0].weight.mul_(0.5)
        return n.h(pooled(n.b(n.a(x))))

    net = Net(forward, a=conv_bn(3, 16), b=conv_bn(16, 8), h=head(8))
    before = copy.deepcopy(net.state_dict())
    small = prune_channels(net, X, 0.25)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert small.b[0].out_channels == 6
    assert small.a[0].out_channels == 16


@pytest.mark.parametrize(
    "inputs", [X, (X,), [X], {"input": X}, torch.cat([X, X])], ids=["tensor", "tuple", "list", "mapping", "batch"]
)
def test_example_inputs_may_come_in_any_form(inputs):
    """A tensor, positional or keyword arguments, in any batch size, give the same cut."""
    assert prune_channels(small_net(), inputs, 0.5)[0][0].out_channels == 5


def test_a_plan_for_another_model_is_refused():
    """Names and widths of the plan must be those of the model."""
    plan = plan_pruning(small_net(), X, 0.5)
    with pytest.raises(ModelError, match="made for another model"):
        apply_plan(between(torch.relu), plan)
    with pytest.raises(ModelError, match="made for another model"):
        apply_plan(nn.Sequential(conv_bn(3, 4), conv_bn(4, 4), nn.Identity(), nn.Identity(), head(4)), plan)


def test_the_same_call_gives_the_same_plan():
    """Nothing about a plan is left to chance."""
    net = lively(between(lambda x: x.chunk(2, 1)[0], 8))
    first, second = (plan_pruning(net, X.double(), 0.25) for _ in range(2))
    assert str(first) == str(second)
    assert first.kept.keys() == second.kept.keys()
    assert all((first.kept[member] == second.kept[member]).all() for member in first.kept)


def test_slices_whose_bounds_do_not_follow_the_cut_are_found_out():
    """The first channels at one place and the last at another: were the bounds the old ones, some would change places.

    What comes out has the right channels in the right order, and is of another place.
    """
    net = Net(
        lambda n, x: n.h(torch.cat([(y := torch.cat([n.a(x), n.b(x)], 1))[:, :16, 0, 0], y[:, 16:, 1, 1]], 1)),
        a=conv_bn(3, 16),
        b=conv_bn(3, 16),
        h=head(32),
    )
    torch.manual_seed(0)
    lively(net)
    plan = plan_pruning(net, X.double(), 0.25)
    assert "a slice takes other channels once some are gone" in str(plan)
    assert largest_difference(apply_plan(net, plan), masked_dense(net, plan), X.double()) < 1e-12
