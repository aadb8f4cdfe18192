from __future__ import annotations

import copy
import ctypes
import sys

import pytest
import torch
from torch import nn

from compress.artifacts.runtimes import prepare
from compress.errors import ArtifactError, ConfigError
from compress.exported import capture
from compress.exported.onnx import OnnxModel, to_onnx
from compress.exported.openvino import OpenVinoModel, _Stack
from compress.quantization.half import to_half
from tests.workloads import featured_net

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def content(tiny_dense, tiny_images):
    """The ONNX file of the tiny network."""
    return to_onnx(capture(tiny_dense, tiny_images))


def test_an_onnx_file_runs_on_any_batch(content, tiny_dense, tiny_images):
    """The float model's outputs, but for the order of additions; also of a copy."""
    model = OpenVinoModel(content)
    with torch.no_grad():
        for images in (tiny_images, tiny_images[:1], tiny_images):
            torch.testing.assert_close(model(images), tiny_dense(images), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(copy.deepcopy(model)(tiny_images), tiny_dense(tiny_images), rtol=1e-4, atol=1e-5)


def test_it_runs_on_as_many_threads_as_torch_has_in_float32(content, tiny_images):
    """Whatever OpenVINO itself would choose for this processor; compiled anew where the number changes."""
    model = OpenVinoModel(content)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        model(tiny_images)
        compiled = next(iter(model._requests.values())).get_compiled_model()
        assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
        assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


@pytest.mark.skipif(sys.platform != "linux", reason="there a signal's stack is another structure")
def test_the_stack_of_signal_handlers_stays_what_it_was(content, tiny_images):
    """OpenVINO's own would be freed with it, and the next signal that Python handles crash the process."""
    stacks = []
    for _ in range(2):
        now = _Stack()
        ctypes.CDLL(None).sigaltstack(None, ctypes.byref(now))
        stacks.append((now.ss_sp, now.ss_size))
        OpenVinoModel(content)(tiny_images)
    assert stacks[0] == stacks[1]


def test_a_file_that_was_loaded_runs_too(content, tiny_dense, tiny_images):
    """It is the same file for both runtimes of ONNX."""
    call = prepare(OnnxModel(content), tiny_images, runtime="openvino")
    with torch.no_grad():
        torch.testing.assert_close(call(tiny_images), tiny_dense(tiny_images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("available", [True, False])
def test_a_model_in_bfloat16_computes_in_it_where_the_processor_does(available, tiny_dense, tiny_images, monkeypatch):
    """Its file is in float32, and so is all that it computes elsewhere."""
    monkeypatch.setattr("compress.exported.openvino.has_bfloat16", lambda: available)
    call = prepare(to_half(tiny_dense), tiny_images, runtime="openvino")
    compiled = next(iter(call._requests.values())).get_compiled_model()
    wanted = "bf16" if available else "f32"
    supported = "BF16" in call._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if supported or not available:
        assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == wanted
    with torch.no_grad():
        expected = tiny_dense(tiny_images)
        assert float((call(tiny_images) - expected).abs().max() / expected.abs().max()) < 0.05


def test_outputs_are_nested_as_the_model_nests_them(tiny_images):
    """By name, as under every other runtime."""
    torch.manual_seed(0)
    network: nn.Module = featured_net().eval()
    found = OpenVinoModel(to_onnx(capture(network, tiny_images)))(tiny_images)
    assert found.keys() == {"logits", "features"}
    torch.testing.assert_close(found["features"], network(tiny_images)["features"].detach(), rtol=1e-4, atol=1e-5)


def test_a_damaged_file_is_said_to_be_one(content):
    """By its name."""
    with pytest.raises(ArtifactError, match=r"^net\.onnx is damaged, or cannot be run by OpenVINO: "):
        OpenVinoModel(content[: len(content) // 2], "net.onnx")


def test_a_missing_package_is_said_with_the_extra_to_install(content, monkeypatch):
    """One sentence."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        ConfigError, match=r"^the runtime openvino is not installed: pip install 'pytest-compress\[openvino\]'"
    ):
        OpenVinoModel(content)
