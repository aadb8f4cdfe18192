from __future__ import annotations

import torch
from torch import fx, nn

from compress.measure.layers import layer_changes
from compress.quantization.naming import name_constants_


def test_an_int8_models_constants_lie_where_its_layers_did(tiny_int8, tiny_dense):
    """Weights, scales and zero points are found under the layers' own paths, so each layer's change can be told."""
    names = {name.removeprefix("graph.").rpartition(".")[0] for name, _ in tiny_int8.model.named_buffers()}
    assert names == {"features.0", "features.3", "classifier"}
    layers = {layer.name: layer for layer in layer_changes(tiny_int8.model, tiny_dense)}
    assert [name for name, layer in layers.items() if layer.is_quantized] == ["features.0", "features.3", "classifier"]
    assert layers["features.3"].shapes == (layers["features.3"].dense_shape,)


def test_what_two_layers_share_stays_at_the_root():
    """It would be wrong under either; the graph computes what it did."""
    root = nn.Module()
    for name in ("shared", "own"):
        root.register_buffer(name, torch.ones(2, 2))
    graph = fx.Graph()
    images = graph.placeholder("images")
    outputs = images
    for path, constant in (("first", "shared"), ("second", "shared"), ("second", "own")):
        unpacked = graph.call_function(torch.neg, (graph.get_attr(constant),))
        outputs = graph.call_function(torch.matmul, (outputs, unpacked))
        outputs.meta["nn_module_stack"] = {path: (f"{path}@1", nn.Linear)}
    graph.output(outputs)
    model = fx.GraphModule(root, graph)
    before = model(torch.ones(1, 2))
    name_constants_(model)
    assert [name for name, _ in model.named_buffers()] == ["shared", "second.own"]
    assert model(torch.ones(1, 2)).equal(before)
