from __future__ import annotations

import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from compress.errors import MeasureError
from compress.exported import ExportedModel, capture
from compress.exported.model import parameters_of
from compress.exported.onnx import OnnxModel, to_onnx
from compress.exported.onnx_counts import macs_in, parameters_in
from compress.measure.size import count_macs, count_nonzero_params, count_params


class Read(nn.Module):
    """``[n, 7]`` tokens through every kind of recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 6)
        self.lstm = nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True)
        self.gru, self.rnn = nn.GRU(10, 4, batch_first=True), nn.RNN(4, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.embedding(x)
        for layer in (self.lstm, self.gru, self.rnn):
            x = layer(x)[0]
        return self.head(x)


def convolutions() -> nn.Module:
    """Plain, grouped and transposed, and a head of one number."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.PReLU(),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 1),
    )


def with_random_numbers(model: nn.Module) -> nn.Module:
    """The model, in eval mode; a writer keeps tensors of the same numbers, as fresh norms have, once."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return model.eval()


def as_file(model: nn.Module, example: torch.Tensor) -> OnnxModel:
    """The model as a file that ONNX Runtime runs."""
    program = model.program if isinstance(model, ExportedModel) else capture(model, example)
    return OnnxModel(to_onnx(program))


@pytest.mark.parametrize(
    ("model", "example"),
    [
        (convolutions(), torch.randn(2, 3, 8, 8)),
        (Read(), torch.randint(9, (2, 7), generator=torch.Generator().manual_seed(0))),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(2, 5, 8)),
    ],
    ids=["convolutions", "recurrent", "attention"],
)
def test_a_file_counts_as_the_model_it_was_exported_from(model, example):
    """Parameters, those that are not zero, and multiply-accumulates of one example."""
    model = with_random_numbers(model)
    next(model.parameters()).data.view(-1)[:3] = 0
    file = as_file(model, example)
    assert count_params(file) == count_params(model)
    assert count_nonzero_params(file) == count_nonzero_params(model) == count_params(model) - 3
    assert count_macs(file, example) == count_macs(model, example)


def test_norms_count_as_they_stand_in_the_file():
    """Their statistics are no parameters; one that the writer folded is gone."""
    model = with_random_numbers(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()))
    file = as_file(model, torch.randn(2, 3, 8, 8))
    assert count_params(file) == count_params(model[0]) + 8
    alone = with_random_numbers(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8)))
    assert count_params(as_file(alone, torch.randn(2, 8, 4, 4))) == 16


def test_an_int8_file_counts_as_the_int8_model(tiny_int8, tiny_images):
    """Weights as integers, and products of what quantize and dequantize stand around."""
    file = as_file(tiny_int8.model, tiny_images)
    integers = [one.numel() for one in parameters_of(tiny_int8.model) if one.dtype == torch.int8]
    assert sorted(one.size for one in parameters_in(file.content) if one.dtype == "int8") == sorted(integers)
    assert count_macs(file, tiny_images) == count_macs(tiny_int8.model, tiny_images)


def graph_of(node, *shapes, weights=()) -> bytes:
    """A file of one node, of inputs of these shapes and weights that it brings."""
    names = [f"x{place}" for place in range(len(shapes))]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in zip(names, shapes)]  # noqa: B905
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    held = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, [1.0] * torch.Size(shape).numel()) for name, shape in weights
    ]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(
        helper.make_graph([node], "one", inputs, [output], held), opset_imports=opsets
    ).SerializeToString()


def test_products_by_indices_cost_what_the_indices_span():
    """As torch's einsum does."""
    content = graph_of(helper.make_node("Einsum", ["x0", "x1"], ["y"], equation="bij,bjk->bik"), [2, 3, 4], [2, 4, 5])
    assert macs_in(content, [torch.zeros(2, 3, 4).numpy(), torch.zeros(2, 4, 5).numpy()]) == 2 * 3 * 4 * 5


def test_integer_kernels_are_counted():
    """As the quantizers of ONNX Runtime write them: scales count, zero points do not."""
    node = helper.make_node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])
    int8, single = TensorProto.INT8, TensorProto.FLOAT
    held = [
        helper.make_tensor("w", int8, [4, 3, 3, 3], [1] * 108),
        helper.make_tensor("wz", int8, [4], [0] * 4),
        helper.make_tensor("ws", single, [4], [0.5] * 4),
        *(helper.make_tensor(name, single, [], [0.5]) for name in ("xs", "ys")),
        *(helper.make_tensor(name, int8, [], [0]) for name in ("xz", "yz")),
    ]
    x, y = (helper.make_tensor_value_info(name, int8, shape) for name, shape in (("x", [1, 3, 8, 8]), ("y", None)))
    model = helper.make_model(helper.make_graph([node], "one", [x], [y], held))
    content = model.SerializeToString()
    assert sum(array.size for array in parameters_in(content)) == 108 + 4
    assert macs_in(content, [torch.zeros(1, 3, 8, 8, dtype=torch.int8).numpy()]) == 6 * 6 * 108


def test_an_operation_whose_cost_is_unknown_is_named():
    """Of another library's domain, and a body that is run nobody knows how often."""
    content = graph_of(
        helper.make_node("FusedMatMul", ["x0", "w"], ["y"], domain="com.microsoft"), [2, 3], weights=[("w", [3, 4])]
    )
    with pytest.raises(MeasureError, match=r"multiply-accumulates of com\.microsoft\.FusedMatMul in an ONNX file are"):
        macs_in(content, [torch.zeros(2, 3).numpy()])
    assert [array.shape for array in parameters_in(content)] == [(3, 4)]


def test_a_damaged_file_is_said():
    """Not in the words of protobuf alone."""
    with pytest.raises(MeasureError, match="the ONNX file cannot be read"):
        parameters_in(b"no graph")
