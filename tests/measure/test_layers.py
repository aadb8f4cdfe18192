from __future__ import annotations

import copy

import pytest
import torch
from torch import fx, nn

import compress
from compress.measure.layers import layer_changes
from tests.workloads import tiny_net


@pytest.fixture
def dense():
    """Two convolutions, two norms, a classifier."""
    return tiny_net(width=4).eval()


def by_name(compressed: nn.Module, dense: nn.Module) -> dict[str, compress.results.LayerChange]:
    """What became of each layer, by its name."""
    return {layer.name: layer for layer in layer_changes(compressed, dense)}


def test_nothing_done_is_nothing_changed(dense):
    """Every layer that holds parameters, in order, equal before and after; all bytes are accounted for."""
    layers = layer_changes(copy.deepcopy(dense), dense)
    assert [layer.name for layer in layers] == ["features.0", "features.1", "features.3", "features.4", "classifier"]
    assert [layer.kind for layer in layers] == ["Conv2d", "BatchNorm2d", "Conv2d", "BatchNorm2d", "Linear"]
    for layer in layers:
        assert (layer.elements, layer.num_bytes, layer.dtype) == (
            layer.dense_elements,
            layer.dense_bytes,
            layer.dense_dtype,
        )
        assert not layer.is_quantized
        assert not layer.is_factorized
    state = dense.state_dict().values()
    assert sum(layer.num_bytes for layer in layers) == sum(t.numel() * t.element_size() for t in state)


def test_removed_channels(dense):
    """Half of the channels gone: the weight's shape before and now."""
    pruned = compress.prune_channels(dense, torch.zeros(1, 3, 8, 8), pruning_ratio=0.5)
    layer = by_name(pruned, dense)["features.3"]
    assert (layer.dense_shape, layer.shapes) == ((8, 4, 3, 3), ((4, 2, 3, 3),))
    assert (layer.dense_elements, layer.elements) == (8 * 4 * 9 + 8, 4 * 2 * 9 + 4)


def test_zeros_count_with_masks_and_without(dense):
    """Masked weights are zeros, and the mask itself is no part of the layer."""
    masked = compress.prune_weights(dense, sparsity=0.25)
    layer = by_name(masked, dense)["features.3"]
    assert layer.zeros == 72
    assert (layer.elements, layer.num_bytes) == (layer.dense_elements, layer.dense_bytes)
    assert hasattr(masked.features[3], "weight_mask")


def test_a_factorized_layer_has_several_shapes(dense):
    """What stands at a layer's path is that layer's, whatever it is made of."""
    model = copy.deepcopy(dense)
    model.features[3] = nn.Sequential(nn.Conv2d(4, 2, 3, padding=1, bias=False), nn.Conv2d(2, 8, 1))
    layer = by_name(model, dense)["features.3"]
    assert layer.shapes == ((2, 4, 3, 3), (8, 2, 1, 1))
    assert layer.is_factorized


def test_narrower_numbers_are_quantized(dense):
    """An int8 weight with float scales: the layer's type is that of its largest tensor."""
    model = copy.deepcopy(dense)
    layer = nn.Module()
    layer.register_buffer("weight", torch.ones(3, 8, dtype=torch.int8))
    layer.register_buffer("scale", torch.ones(3))
    model.classifier = layer
    change = by_name(model, dense)["classifier"]
    assert (change.dense_dtype, change.dtype, change.num_bytes) == ("float32", "int8", 3 * 8 + 3 * 4)
    assert change.is_quantized


def test_a_graph_within_a_wrapper_keeps_the_names_of_its_layers(dense):
    """The wrapper's name for its graph is no part of a layer's path."""
    model = nn.Module()
    model.add_module("graph", fx.symbolic_trace(copy.deepcopy(dense)))
    assert [(layer.name, layer.elements) for layer in layer_changes(model, dense)] == [
        (layer.name, layer.dense_elements) for layer in layer_changes(dense, dense)
    ]


def test_weights_without_any_name_are_told_by_their_order(dense):
    """Each is taken for the layer at its place; what is left over stands under no name."""
    graph = nn.Module()
    for number, weight in enumerate((dense.features[0].weight, dense.features[3].weight, dense.classifier.weight)):
        graph.register_buffer(f"_frozen_param{number}", weight.detach().to(torch.int8))
        graph.register_buffer(f"_scale_{number}", torch.ones(len(weight)))
    layers = by_name(graph, dense)
    assert layers["features.3"].shapes == ((8, 4, 3, 3),)
    assert layers["classifier"].is_quantized
    assert (layers["features.1"].elements, layers["features.1"].dtype) == (0, "")
    assert layers[""].elements == 4 + 8 + 3


@pytest.mark.parametrize("shapes", [[(3, 8)], [(4, 3, 3, 3), (8, 4, 3, 3), (4, 8)], [(4, 3, 3, 3), (3, 8), (3, 8)]])
def test_weights_that_cannot_be_told_are_nobodys(dense, shapes):
    """Too few of them, a larger one, or one of another kind: they are counted, but laid to no layer."""
    graph = nn.Module()
    for number, shape in enumerate(shapes):
        graph.register_buffer(f"_frozen_param{number}", torch.ones(shape))
    layers = by_name(graph, dense)
    assert [name for name, layer in layers.items() if layer.elements] == [""]
    assert layers[""].shapes == tuple(shapes)


def test_the_models_stay_as_they_are(dense):
    """Neither model is changed by being looked at."""
    masked = compress.prune_weights(dense, sparsity=0.5)
    before = copy.deepcopy(masked.state_dict())
    layer_changes(masked, dense)
    assert all(torch.equal(before[name], tensor) for name, tensor in masked.state_dict().items())
