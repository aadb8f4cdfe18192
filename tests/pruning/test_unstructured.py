from __future__ import annotations

import copy
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from compress.errors import ConfigError, ModelError
from compress.modules.masks import make_permanent_
from compress.pruning.unstructured import prune_weights
from tests.workloads import tiny_net


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def num_zeros(*layers: nn.Module) -> int:
    """Zeros in the weights of ``layers``."""
    return sum(int((layer.weight == 0).sum()) for layer in layers)


def kept(layer: nn.Module) -> torch.Tensor:
    """Where the weight of ``layer`` is not zero."""
    return layer.weight.detach() != 0


def sparsities() -> st.SearchStrategy[float]:
    """All fractions, and those whose count lies half way between two whole numbers."""
    return st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.999]))


def values() -> st.SearchStrategy[list[float]]:
    """Weights other than zero, many of equal magnitude, for layers of 2 x 3 and 1 x 4."""
    return st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.5, 1.0, 3.0]), min_size=10, max_size=10)


def two_layers(weights: list[float]) -> nn.Sequential:
    """Linear layers of 6 and 4 weights."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(4, 1))
    model[0].weight.data = torch.tensor(weights[:6]).view(2, 3)
    model[1].weight.data = torch.tensor(weights[6:]).view(1, 4)
    return model


@settings(deadline=None, max_examples=60)
@given(values(), sparsities())
def test_each_layer_loses_exactly_its_share(weights, sparsity):
    """Of every layer ``round(sparsity * n)`` weights go, and none that is kept is smaller than one that went."""
    given_model = two_layers(weights)
    pruned = prune_weights(given_model, sparsity)
    for before, after in zip(given_model, pruned, strict=True):
        assert num_zeros(after) == math.floor(sparsity * before.weight.numel() + 0.5)
        assert_largest_kept(before.weight.detach().flatten(), kept(after).flatten())
        assert after.weight[kept(after)].equal(before.weight[kept(after)])
        assert after.bias.equal(before.bias)


@settings(deadline=None, max_examples=60)
@given(values(), sparsities())
def test_all_layers_together_lose_exactly_their_share(weights, sparsity):
    """With one threshold for all, ``round(sparsity * n)`` of the network's weights go, the smallest of them all."""
    pruned = prune_weights(two_layers(weights), sparsity, "global")
    assert num_zeros(*pruned) == math.floor(sparsity * 10 + 0.5)
    assert_largest_kept(torch.tensor(weights), torch.cat([kept(layer).flatten() for layer in pruned]))


def assert_largest_kept(weights: torch.Tensor, keep: torch.Tensor) -> None:
    """No weight that is gone is larger than one that stays."""
    gone, stay = weights[~keep].abs(), weights[keep].abs()
    assert not len(gone) or not len(stay) or gone.max() <= stay.min()


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_equal_weights_fall_from_the_first(scope):
    """Where all weights are equal the exact count goes still, and always the same ones: the first."""
    pruned = prune_weights(two_layers([1.0] * 10), 0.5, scope)
    masks = torch.cat([kept(layer).flatten() for layer in pruned]).tolist()
    assert masks == (
        [False] * 3 + [True] * 3 + [False] * 2 + [True] * 2 if scope == "layer" else [False] * 5 + [True] * 5
    )


def test_scopes_differ_where_layers_do():
    """A layer of small weights loses its share per layer, and everything under one threshold."""
    model = two_layers([0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 9.0, 8.0, 7.0, 6.0])
    assert [num_zeros(layer) for layer in prune_weights(model, 0.5, "layer")] == [3, 2]
    assert [num_zeros(layer) for layer in prune_weights(model, 0.5, "global")] == [5, 0]


def test_no_sparsity_changes_nothing():
    """Zero sparsity gives a copy without masks or hooks, equal in every tensor."""
    model = tiny_net()
    pruned = prune_weights(model, 0)
    assert pruned is not model
    assert_plain(pruned)
    assert all(value.equal(pruned.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_only_weights_of_linear_and_convolution_layers_are_masked(scope):
    """Norms and biases keep every value, however small."""
    model = tiny_net()
    for norm in (model.features[1], model.features[4]):
        nn.init.constant_(norm.weight, 1e-9)
    pruned = prune_weights(model, 0.6, scope)
    masked = {name for name, module in pruned.named_modules() if "weight_mask" in module._buffers}
    assert masked == {"features.0", "features.3", "classifier"}
    untouched = {"features.1.weight", "features.4.weight", "features.3.bias", "classifier.bias"}
    assert all(model.state_dict()[name].equal(pruned.state_dict()[name]) for name in untouched)


def test_the_given_model_is_untouched():
    """No tensor, hook or buffer of the original changes, and nothing is shared with the copy."""
    model = tiny_net()
    before = copy.deepcopy(model.state_dict())
    pruned = prune_weights(model, 0.5)
    with torch.no_grad():
        for parameter in pruned.parameters():
            parameter.add_(1)
    assert_plain(model)
    assert all(value.equal(model.state_dict()[name]) for name, value in before.items())


def assert_plain(model: nn.Module) -> None:
    """No mask and no hook is left anywhere in ``model``."""
    assert not [name for name, _ in model.named_buffers() if name.endswith("weight_mask")]
    for module in model.modules():
        assert not module._forward_pre_hooks
        assert not module._parameters.keys() & {"weight_orig"}


def train_steps_(model: nn.Module, shape: tuple[int, ...], steps: int = 4) -> None:
    """Some steps of SGD with momentum and weight decay on noise, and one more forward pass."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(shape)).square().sum().backward()
        optimizer.step()
    model(torch.randn(shape))


@pytest.mark.parametrize("copied", [False, True])
def test_masks_hold_through_training(copied):
    """Momentum moves a masked weight at every step; whenever the network runs it is zero again, in deep copies too."""
    pruned = prune_weights(tiny_net(), 0.5)
    mask = kept(pruned.classifier)
    before = pruned.classifier.weight.detach().clone()
    model = copy.deepcopy(pruned) if copied else pruned
    train_steps_(model, (4, 3, 8, 8))
    assert kept(model.classifier).equal(mask)
    assert not model.classifier.weight.equal(before)
    if copied:
        assert pruned.classifier.weight.equal(before)


def test_masks_hold_where_a_layers_forward_is_never_called():
    """Attention reads the weight of its output projection without running that layer; it stays pruned all the same."""
    pruned = prune_weights(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 0.5)
    mask = kept(pruned.self_attn.out_proj)
    train_steps_(pruned, (2, 3, 8))
    assert kept(pruned.self_attn.out_proj).equal(mask)


def test_masks_hold_where_the_optimizer_has_the_last_word():
    """A forward pass after the last step gives what the permanent model gives: validation saw what is shipped."""
    pruned = prune_weights(tiny_net(), 0.5)
    train_steps_(pruned, (4, 3, 8, 8))
    torch.optim.SGD(pruned.parameters(), lr=0.1).step()
    pruned.eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        seen = pruned(images)
        assert make_permanent_(pruned)(images).equal(seen)


def test_making_masks_permanent_leaves_a_plain_model():
    """No hook and no buffer is left; zeros stay, weights that just moved included; the model itself is returned."""
    pruned = prune_weights(tiny_net(), 0.5)
    mask = kept(pruned.classifier)
    pruned.classifier.weight.data += 1
    assert make_permanent_(pruned) is pruned
    assert_plain(pruned)
    assert kept(pruned.classifier).equal(mask)
    assert pruned.state_dict().keys() == tiny_net().state_dict().keys()


def test_hooks_of_others_stay():
    """Making masks permanent takes away this package's hooks alone."""
    pruned = prune_weights(tiny_net(), 0.5)
    calls = []
    pruned.classifier.register_forward_pre_hook(lambda *_: calls.append(1))
    make_permanent_(pruned)(torch.zeros(2, 3, 8, 8))
    assert calls == [1]


def test_pruning_again_counts_from_all_weights():
    """Sparsity is of all weights, so pruning a pruned model to a higher one keeps a subset of what was kept."""
    once = prune_weights(tiny_net(), 0.3)
    twice = prune_weights(once, 0.6)
    assert num_zeros(twice.classifier) == round(0.6 * 30)
    assert not (kept(twice.classifier) & ~kept(once.classifier)).any()
    assert num_zeros(prune_weights(twice, 0.3).classifier) == round(0.6 * 30)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_shared_weight_counts_once(scope):
    """Two layers with one weight lose its share once, stay tied, and both hold it at zero."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    pruned = prune_weights(model, 0.25, scope)
    assert pruned[2].weight is pruned[0].weight
    assert num_zeros(pruned[0]) == 4
    train_steps_(pruned, (2, 4))
    assert num_zeros(pruned[0]) == 4


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_memory_format_does_not_matter(scope):
    """Channels-last weights lose the same values as contiguous ones, and stay channels-last."""
    model = tiny_net()
    expected = prune_weights(model, 0.5, scope)
    pruned = prune_weights(copy.deepcopy(model).to(memory_format=torch.channels_last), 0.5, scope)
    assert pruned.features[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(value.equal(pruned.state_dict()[name]) for name, value in expected.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_type_is_pruned(dtype):
    """Half precision ties many magnitudes and hits the count still; the type stays."""
    pruned = prune_weights(tiny_net().to(dtype), 0.5, "global")
    layers = (pruned.features[0], pruned.features[3], pruned.classifier)
    assert num_zeros(*layers) == round(0.5 * (135 + 450 + 30))
    assert {layer.weight.dtype for layer in layers} == {dtype}


@pytest.mark.parametrize("sparsity", [1.0, 1.5, -0.1, math.nan, math.inf])
def test_a_sparsity_outside_its_range_is_refused(sparsity):
    """Rule and value are in the message; all weights gone, more than all, or NaN are no sparsity."""
    with pytest.raises(ConfigError) as caught:
        prune_weights(tiny_net(), sparsity)
    assert str(caught.value) == f"sparsity must be in [0, 1), got {sparsity}"


def test_an_unknown_scope_is_refused():
    """The scopes that exist are named."""
    with pytest.raises(ConfigError, match=r"^scope must be one of layer, global, got 'rows'$"):
        prune_weights(tiny_net(), 0.5, "rows")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(value):
    """What cannot be ranked is named, rather than ranked somewhere."""
    model = tiny_net()
    model.features[3].weight.data[0, 0, 0, 0] = value
    with pytest.raises(ModelError, match=r"'features\.3\.weight' is not$"):
        prune_weights(model, 0.5)


def test_a_model_without_such_layers_is_refused():
    """A model with nothing to prune is named by its type: nothing pruned is not a success."""
    with pytest.raises(ModelError, match=r"^Sequential has no linear or convolution layer whose weights"):
        prune_weights(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), 0.5)


def test_a_pattern_is_pruned_to():
    """Of every four neighbouring inputs two stay; a layer that has no whole fours keeps all."""
    model = tiny_net(width=4)
    pruned = prune_weights(model, pattern="2:4")
    assert num_zeros(pruned.features[0]) == 0
    assert num_zeros(pruned.features[3]) == 8 * 4 * 9 // 2
    assert num_zeros(pruned.classifier) == 3 * 8 // 2
    assert (kept(pruned.classifier).reshape(3, 2, 4).sum(2) == 2).all()


def test_a_pattern_holds_through_training():
    """It is masked like any other sparsity."""
    pruned = prune_weights(tiny_net(width=4), pattern="1:4")
    mask = kept(pruned.features[3])
    train_steps_(pruned, (4, 3, 8, 8))
    assert kept(pruned.features[3]).equal(mask)
    assert num_zeros(make_permanent_(pruned).features[3]) == 8 * 4 * 9 * 3 // 4


def test_a_shared_weight_follows_its_pattern_once():
    """Two layers with one weight stay tied."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    pruned = prune_weights(model, pattern="2:4")
    assert pruned[2].weight is pruned[0].weight
    assert num_zeros(pruned[0]) == 8


@pytest.mark.parametrize("settings", [{"sparsity": 0.5}, {"scope": "global"}])
def test_a_pattern_goes_with_no_other_setting(settings):
    """What would be ignored is refused."""
    with pytest.raises(ConfigError, match=r"^a pattern fixes sparsity and scope, give neither beside pattern = '2:4'$"):
        prune_weights(tiny_net(), pattern="2:4", **settings)


def test_a_pattern_that_fits_nowhere_is_refused():
    """Nothing pruned is not a success."""
    with pytest.raises(ModelError, match=r"^TinyNet has no layer whose inputs are a multiple of 7, as '3:7' needs$"):
        prune_weights(tiny_net(), pattern="3:7")


def test_a_fifth_goes_where_nothing_is_said():
    """The default is a sparsity of 0.2."""
    assert num_zeros(prune_weights(tiny_net()).classifier) == round(0.2 * 30)
