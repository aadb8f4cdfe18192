from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn

from compress.artifacts import artifact
from compress.errors import ArtifactError, ConfigError, ModelError
from compress.exported import capture
from compress.exported.onnx import OnnxModel, to_onnx
from tests.workloads import tiny_net

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    """The tiny network in eval mode."""
    torch.manual_seed(0)
    return tiny_net().eval()


@pytest.fixture(scope="module")
def content(network):
    """Its ONNX file."""
    return to_onnx(capture(network, IMAGES))


def test_an_onnx_file_runs_on_any_batch(content, network):
    """The float model's outputs, but for the order of additions."""
    model = OnnxModel(content)
    with torch.no_grad():
        for images in (IMAGES, IMAGES[:1]):
            torch.testing.assert_close(model(images), network(images), rtol=1e-4, atol=1e-5)


def test_a_file_for_one_size_of_batch_runs_on_others(network):
    """As most exporters write it unless they are told otherwise: 7 images in pieces of 3, the last one filled up."""
    model = OnnxModel(to_onnx(torch.export.export(network, (IMAGES,))))
    assert model.batch == 3
    images = torch.cat([IMAGES, 2 * IMAGES, IMAGES[:1]])
    with torch.no_grad():
        torch.testing.assert_close(model(images), network(images), rtol=1e-4, atol=1e-5)


def test_the_int8_file_holds_integers_between_quantize_and_dequantize(tiny_int8):
    """Weights as int8 with a scale for each channel; no convolution's weight in float."""
    import onnx  # noqa: PLC0415 - optional

    graph = onnx.load_from_string(to_onnx(tiny_int8.model.program)).graph
    integers = [list(tensor.dims) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert [10, 5, 3, 3] in integers
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= {node.op_type for node in graph.node}
    floats = [list(tensor.dims) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert max(map(len, floats)) <= 1


def test_a_file_comes_back_as_it_was_written(content, tmp_path):
    """Loaded, copied and saved: the same bytes."""
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    model = copy.deepcopy(artifact.load(path))
    artifact.save(model, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == content


def test_the_session_has_as_many_threads_as_torch(content):
    """Also when that number changes later."""
    model = OnnxModel(content)
    assert model._threads == 1
    torch.set_num_threads(2)
    model(IMAGES)
    assert model._threads == 2


def test_an_onnx_model_cannot_be_trained(content):
    """Eval mode is the one it has."""
    model = OnnxModel(content)
    assert model.eval() is model
    with pytest.raises(ModelError, match=r"^an ONNX model cannot be trained"):
        model.train()


def test_a_damaged_file_is_said_to_be_one(content, tmp_path):
    """With its path."""
    path = tmp_path / "net.onnx"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=rf"^{path} is damaged, or cannot be run by ONNX Runtime: "):
        artifact.load(path)


def test_an_operation_unknown_to_onnx_is_named():
    """One sentence."""

    class Unusual(nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x)

    with pytest.raises(ModelError, match=r"^the model cannot be written as ONNX: "):
        to_onnx(capture(Unusual(), torch.eye(3)[None]))


def test_missing_packages_are_said_with_the_extra_to_install(monkeypatch, content, network):
    """To write and to run."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"^running ONNX needs onnxruntime: pip install 'pytest-compress\[onnx\]'"):
        OnnxModel(content)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"^writing ONNX needs onnx and onnxscript: pip install"):
        to_onnx(capture(network, IMAGES))
