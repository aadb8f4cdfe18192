from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compress.calling.fidelity import snr_db
from compress.calling.inputs import inputs_of
from compress.data import from_loaders, from_tensors
from compress.errors import ModelError
from compress.exported import capture
from compress.exported.libraries import require_torchao
from compress.quantization.aware import (
    QuantizeAwareConfig,
    _folded,
    _Rounded,
    _rounded,
    _without_counters,
    quantize_aware_fit,
)
from compress.quantization.observed import operations_of
from compress.train import evaluate
from compress.workload.workload import dense_model
from tests.nets import Net, conv, conv_bn, pooled
from tests.workloads import tiny_data, tiny_net, tiny_workload

CONFIG = QuantizeAwareConfig(epochs=2, batch_size=16, learning_rate=0.01, validation_fraction=0.25)


def test_a_graph_goes_between_training_and_eval_as_a_network_does():
    """Norms take the batch's statistics and move their own in training, and neither in eval mode."""
    torch.manual_seed(0)
    network = tiny_net().train()
    network.dropout.p = 0.0
    images = torch.randn(4, 3, 8, 8)
    graph = _Rounded(_without_counters(operations_of(capture(network, images))))
    before = copy.deepcopy(dict(graph.named_buffers()))
    graph.eval()
    with torch.no_grad():
        torch.testing.assert_close(graph(images), copy.deepcopy(network).eval()(images))
    assert all(value.equal(before[name]) for name, value in graph.named_buffers())
    graph.train()
    with torch.no_grad():
        torch.testing.assert_close(graph(images), network(images))
    assert not graph.get_buffer("graph.features.1.running_mean").equal(before["graph.features.1.running_mean"])
    assert [module.training for module in (graph, graph.eval())] == [False, False]


def test_a_quantized_model_is_refused(tiny_int8):
    """Before any training."""
    with pytest.raises(ModelError, match=r"must not be quantized or exported already"):
        quantize_aware_fit(tiny_int8.model, tiny_data(), CONFIG)


def reused_and_read_twice(net: Net, x: torch.Tensor) -> torch.Tensor:
    """One convolution with a norm for each call, and a norm that a residual goes around."""
    stem = net.s(x)
    y = net.n(net.a(stem)) + net.k(net.a(stem.flip(3)))
    return net.h(pooled(y + net.b(net.m(y).relu())))


def test_norms_that_cannot_be_folded_learn_beside_their_layers():
    """The others are folded, and both graphs are the network in eval mode; a channel of weight zero divides nothing."""
    require_torchao()
    torch.manual_seed(0)
    model = Net(
        reused_and_read_twice,
        s=conv_bn(3, 4), a=conv(4, 4, 3), n=nn.BatchNorm2d(4), k=nn.BatchNorm2d(4), m=nn.BatchNorm2d(4),
        b=nn.Sequential(conv(4, 4, 3), nn.BatchNorm2d(4, eps=1e-2)), h=nn.Linear(4, 3),
    )  # fmt: skip
    model.b[1].weight.data[0] = 0.0
    images = torch.randn(16, 3, 8, 8)
    model(images)
    rounded = _rounded(copy.deepcopy(model), inputs_of(images), reduce_range=False)
    assert [one.layer for one in rounded.scaled] == ["conv2d", "conv2d_3"]
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(images)
        assert snr_db(expected, rounded.eval()(images)) > 20
        graph = _folded(rounded)
        assert snr_db(expected, graph(images)) > 20
    assert not any("batch_norm" in str(node.target) for node in graph.graph.nodes)


@pytest.mark.nightly
def test_a_grey_network_trained_with_its_rounding_runs_for_each_batch_size():
    """Its first layer, which sees one channel, is int8 too: the model is compiled for every size of its own."""
    data = tiny_data()
    train, test = ((split.images[:, :1].clone(), split.labels) for split in (data.train, data.test))
    model, report = quantize_aware_fit(
        nn.Sequential(*conv_bn(1, 4), *conv_bn(4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
        from_tensors("grey", train=train, test=test),
        QuantizeAwareConfig(epochs=1, batch_size=16, validation_fraction=0.0),
        progress=False,
    )
    assert report.float_layers == ()
    assert report.int8_kernels == 3
    images = torch.randn(9, 1, 8, 8)
    assert [len(model(images[:count])) for count in (1, 2, 9)] == [1, 2, 9]


def test_numbers_are_learned_with_their_rounding():
    """Batches of another task, by a loss of its own, of named inputs; the report tells how near outputs come."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 6, generator=generator)
    batches = [({"x": some}, some.sum(dim=1)) for some in inputs.split(16)]
    asked = []

    def loss(outputs, targets):
        asked.append(len(targets))
        return (outputs - targets).square().mean()

    torch.manual_seed(0)
    network = Sums()
    model, report = quantize_aware_fit(
        network,
        from_loaders("sums", train=batches, test=batches),
        QuantizeAwareConfig(epochs=2, learning_rate=0.01, validation_fraction=0.0),
        loss=loss,
        optimizer=lambda groups: torch.optim.Adam(groups, lr=0.01),
        outputs=lambda out: out["sum"],
        progress=False,
    )
    assert asked == [16] * 8
    assert report.float_layers == ()
    assert report.accuracy_measure == "1 - relative squared error of the outputs"
    with torch.no_grad():
        error, untrained = ((one(x=inputs)["sum"] - inputs.sum(dim=1)).abs().mean() for one in (model, network.eval()))
    assert error < untrained


class Sums(nn.Module):
    """``[n, 6] -> [n]``, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": self.layers(x)[:, 0]}


@pytest.mark.nightly
def test_a_model_trained_with_its_rounding_is_int8_and_as_good():
    """Every layer in int8, kernels that run, accuracy near the float model's, which is left as it is."""
    workload = tiny_workload()
    dense = dense_model(workload, progress=False)
    before = copy.deepcopy(dense.state_dict())
    model, report = quantize_aware_fit(dense, workload.dataset, CONFIG, progress=False)
    assert report.float_layers == ()
    assert report.int8_kernels == 3
    assert sum(buffer.dtype == torch.int8 for buffer in model.buffers()) == 3
    left = {str(node.target) for node in model.graph.graph.nodes}
    assert not any("batch_norm" in target or "add_" in target for target in left)
    error, dense_error = (evaluate(one, workload.dataset.test).top1_error for one in (model, dense))
    assert error <= dense_error + 0.1
    assert all(value.equal(before[name]) for name, value in dense.state_dict().items())
