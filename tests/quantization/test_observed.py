from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.calling.inputs import inputs_of
from compress.errors import ConfigError
from compress.exported import capture
from compress.quantization.observed import calibrate_, check_observer, converted, layers_of, observed
from tests.nets import Net, conv, conv_bn, head, pooled

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def graph_of(model: nn.Module, **settings) -> torch.fx.GraphModule:
    """``model`` captured and observed, calibrated with the images."""
    graph = observed(capture(model.eval(), IMAGES), observer="minmax", reduce_range=False, **settings)
    calibrate_(graph, [inputs_of(IMAGES)], progress=False)
    return graph


def weights_in_int8(graph: torch.fx.GraphModule) -> int:
    """How many weights of a converted graph are integers."""
    return sum(buffer.dtype == torch.int8 for buffer in graph.buffers())


def test_layers_go_by_the_names_of_their_modules():
    """In the order they run in; a plain function goes by its node."""
    weight = nn.Parameter(torch.randn(4, 8, 1, 1))

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.weight, self.head = conv_bn(3, 8), weight, head(4)

        def forward(self, x):
            return self.head(pooled(torch.nn.functional.conv2d(self.stem(x), self.weight)))

    layers = layers_of(graph_of(Mixed()))
    assert [layer.name for layer in layers] == ["stem.0", "conv2d_1", "head"]
    assert all(len(layer.observers) == 2 for layer in layers)


def test_weights_that_int8_knows_nothing_of_are_layers_in_float():
    """Recurrent layers and an embedding; no scale of a norm, and no table of places that is only added."""

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.places = nn.Embedding(9, 8), nn.Parameter(torch.randn(5, 8))
            self.lstm, self.gru, self.rnn = (kind(8, 8, batch_first=True) for kind in (nn.LSTM, nn.GRU, nn.RNN))
            self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

        def forward(self, x):
            x = self.embedding(x) + self.places
            for layer in (self.lstm, self.gru, self.rnn):
                x = layer(x)[0]
            return self.head(self.norm(x))

    tokens = torch.randint(9, (2, 5), generator=torch.Generator().manual_seed(0))
    graph = observed(capture(Reader().eval(), tokens), observer="minmax", reduce_range=False)
    layers = layers_of(graph)
    assert [(layer.name, layer.operation) for layer in layers if not layer.observers] == [
        ("embedding", "embedding.default"),
        ("lstm", "lstm.input"),
        ("gru", "gru.input"),
        ("rnn", "rnn_tanh.input"),
    ]
    assert [layer.name for layer in layers if layer.observers] == ["head"]


def test_a_module_used_twice_is_two_layers():
    """Each call has ranges of its own."""
    net = Net(lambda n, x: n.h(pooled(n.a(n.a(n.s(x))))), s=conv(3, 4), a=conv(4, 4, 3), h=head(4))
    layers = layers_of(graph_of(net))
    assert [layer.name.partition(":")[0] for layer in layers] == ["s", "a", "a", "h"]
    assert len({layer.name for layer in layers}) == 4


def test_a_residual_block_that_uses_its_relu_twice_is_quantized():
    """As ResNet's blocks do: both convolutions are int8, and the sum behind them too."""
    block = Net(
        lambda n, x: n.h(pooled(n.r(n.b(n.r(n.a(n.s(x)))).add_(n.s(x))))),
        s=conv_bn(3, 4),
        a=conv(4, 4, 3),
        b=conv(4, 4, 3),
        r=nn.ReLU(inplace=True),
        h=head(4),
    )
    graph = graph_of(block)
    assert all(layer.observers for layer in layers_of(graph))
    # The first convolution runs twice, with one weight under two names.
    integers = [buffer for buffer in converted(graph).buffers() if buffer.dtype == torch.int8]
    assert [len(layers_of(graph)), len({buffer.data_ptr() for buffer in integers})] == [5, 4]


def test_layers_left_in_float_keep_their_weights():
    """Those named and no others."""
    net = Net(lambda n, x: n.h(pooled(n.b(n.a(x)))), a=conv(3, 4), b=conv(4, 4), h=head(4))
    chosen = layers_of(graph_of(net))[1]
    graph = graph_of(net, in_float={chosen.node})
    assert [bool(layer.observers) for layer in layers_of(graph)] == [True, False, True]
    assert weights_in_int8(converted(graph)) == 2


def test_what_has_no_int8_kernel_is_listed_without_observers():
    """A transposed convolution is a layer, and stays in float."""
    net = Net(lambda n, x: n.h(pooled(n.t(n.a(x)))), a=conv(3, 4), t=nn.ConvTranspose2d(4, 4, 2), h=head(4))
    layers = layers_of(graph_of(net))
    assert [(layer.name, bool(layer.observers)) for layer in layers] == [("a", True), ("t", False), ("h", True)]
    assert layers[1].operation == "conv_transpose2d.input"


def test_what_only_has_another_shape_is_not_rounded_for_a_sum():
    """Inductor would have the kernel write into it, and fail: a sum with a shuffled tensor is computed by itself."""

    def forward(n, x):
        y = n.a(x)
        shuffled = y.relu().flatten(2).transpose(1, 2).transpose(1, 2).view(y.shape)
        return n.h(pooled((shuffled + n.b(y)) + n.c(y)))

    graph = graph_of(Net(forward, a=conv(3, 4), b=conv(4, 4), c=conv(4, 4), h=head(4)))
    first, second = (node for node in graph.graph.nodes if node.target is torch.ops.aten.add.Tensor)
    assert first.args[0].target is torch.ops.aten.view.default
    assert second.args[0].op == "call_module"


class Relative(nn.Module):
    """A sequence against learned positions, which the layer of its keys projects too, as DeBERTa's does."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.head = nn.Linear(8, 8), nn.Linear(8, 4)
        self.positions, self.queries = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(1, 6, 8))
        self.biases = nn.Parameter(torch.randn(5, 8))
        self.register_buffer("apart", torch.arange(6) % 5)
        self.dropout = nn.Dropout()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        keys = self.key(self.dropout(self.positions)).repeat(x.shape[0], 1, 1)
        scores = self.key(x) @ keys.transpose(1, 2) + self.biases[self.apart]
        return self.head(scores + self.queries.repeat(x.shape[0], 1, 1))


def test_a_layer_of_constants_is_not_said_to_run_in_int8():
    """It is computed once, when the model is compiled; and what only copies weights is no layer."""
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)).repeat(1, 2, 1)[:, :6]
    layers = layers_of(observed(capture(Relative().eval(), x), observer="minmax", reduce_range=False))
    assert [layer.name.partition(":")[0] for layer in layers if layer.observers] == ["key", "head"]
    others = [layer.operation for layer in layers if not layer.observers]
    assert others == ["linear.default of constants, which is computed once"]


class Queries(nn.Module):
    """Queries that begin at zero and are repeated for each example look at a sequence, as DETR's do."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.head = nn.Parameter(torch.randn(3, 8)), nn.Linear(8, 4)
        self.among, self.value, self.key = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = self.places.unsqueeze(0).repeat(x.shape[0], 1, 1)
        nothing = torch.zeros_like(places)
        queries = self.among(places + nothing) + self.value(nothing)
        return self.head(queries @ self.key(x).transpose(1, 2) @ x)


def test_a_layer_of_sizes_alone_is_not_said_to_run_in_int8():
    """What is repeated for each example, or has the shape of weights, is computed once for each size of a batch."""
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    layers = layers_of(observed(capture(Queries().eval(), x), observer="minmax", reduce_range=False))
    assert [layer.name for layer in layers if layer.observers] == ["key", "head"]
    others = {layer.name: layer.operation for layer in layers if not layer.observers}
    assert others == dict.fromkeys(("among", "value"), "linear.default of constants, which is computed once")


def test_a_converted_graph_holds_no_float_weight():
    """The integers stand for them."""
    graph = converted(graph_of(Net(lambda n, x: n.h(pooled(n.a(x))), a=conv_bn(3, 4), h=head(4))))
    assert max(tensor.ndim for tensor in [*graph.parameters(), *graph.buffers()] if tensor.is_floating_point()) == 1


def test_converting_draws_nothing_of_the_callers():
    """Torchao folds norms by random inputs; the caller's next random number stays what it was."""
    graph = graph_of(Net(lambda n, x: n.h(pooled(n.a(x))), a=conv_bn(3, 4), h=head(4)))
    before = torch.get_rng_state()
    converted(graph)
    assert torch.equal(torch.get_rng_state(), before)


def test_observers_have_names():
    """An unknown one is refused with those that there are."""
    check_observer("minmax")
    with pytest.raises(ConfigError, match=r"^observer must be one of histogram, minmax, got 'mean'$"):
        check_observer("mean")
