from __future__ import annotations

import re
import zipfile
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from compress.artifacts.runtimes import RUNTIMES, prepare
from compress.errors import ConfigError, ModelError
from compress.exported.onnx import OnnxModel, to_onnx


def where_installed(name: str):
    """A runtime, and a skip where what it needs is missing."""
    missing = name in ("openvino", "executorch") and find_spec(name) is None
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"{name} is not installed"))


# Eight bits: one step of the coarsest activation moves a logit by about as much.
INT8_STEP = 0.02


def agreement(model: nn.Module, images: torch.Tensor, runtime: str) -> float:
    """Largest difference between ``model`` under the runtime and in eager mode, relative to the largest output."""
    with torch.inference_mode():
        expected = prepare(model, images, runtime="eager")(images)
        outputs = prepare(model, images, runtime=runtime)(images)
    return float((outputs - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("runtime", ["inductor", "onnxruntime", where_installed("openvino")])
def test_a_float_model_is_the_same_under_every_runtime(runtime, tiny_dense, tiny_images):
    """But for the order of additions."""
    assert agreement(tiny_dense, tiny_images, runtime) < 1e-5


@pytest.mark.parametrize("runtime", ["onnxruntime", where_installed("openvino")])
def test_an_int8_model_is_the_same_under_runtimes_of_onnx(runtime, tiny_int8, tiny_images):
    """But for single values that lie between two integers."""
    assert agreement(tiny_int8.model, tiny_images, runtime) < INT8_STEP


@pytest.mark.nightly
@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("runtime", [where_installed(name) for name in RUNTIMES])
def test_both_models_are_the_same_under_all_runtimes_at_all_batch_sizes(
    runtime, batch, tiny_dense, tiny_int8, tiny_images
):
    """Float to the order of additions, int8 to one step of rounding."""
    assert agreement(tiny_dense, tiny_images[:batch], runtime) < 1e-5
    assert agreement(tiny_int8.model, tiny_images[:batch], runtime) < INT8_STEP


@pytest.mark.nightly
def test_an_int8_model_runs_in_int8_under_aotinductor(tiny_int8, tiny_images, monkeypatch):
    """As many int8 kernels are called in the package's code as the model has int8 layers."""
    load, calls = torch._inductor.aoti_load_package, []

    def looked_into(package):
        with zipfile.ZipFile(package) as archive:
            code = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".wrapper.cpp")]
        calls.extend(re.findall(r"\(aoti_torch_cpu__q(?:conv|linear)_pointwise\w*\(", "".join(code)))
        return load(package)

    monkeypatch.setattr(torch._inductor, "aoti_load_package", looked_into)
    prepare(tiny_int8.model, tiny_images, runtime="aotinductor")
    assert len(calls) == sum(layer.precision == "int8" for layer in tiny_int8.report.layers)


def test_eager_runs_an_int8_models_graph_as_it_is(tiny_int8, tiny_images):
    """Nothing is compiled for it."""
    call = prepare(tiny_int8.model, tiny_images)
    assert call is tiny_int8.model.graph


def test_a_prepared_model_is_in_eval_mode(tiny_images):
    """Dropout and norms of a model in training are not what is timed."""
    model = nn.Sequential(nn.Dropout(0.5)).train()
    assert prepare(model, tiny_images)(tiny_images).equal(tiny_images)


def test_an_unknown_runtime_is_refused(tiny_dense, tiny_images):
    """With those that there are."""
    with pytest.raises(
        ConfigError,
        match=r"^runtime must be one of eager, inductor, onnxruntime, aotinductor, openvino, executorch, got 'tvm'$",
    ):
        prepare(tiny_dense, tiny_images, runtime="tvm")


def test_an_onnx_model_runs_under_its_own_runtime_alone(tiny_int8, tiny_images):
    """There is no graph of torch's in it."""
    model = OnnxModel(to_onnx(tiny_int8.model.program))
    assert prepare(model, tiny_images, runtime="onnxruntime") is model
    with pytest.raises(ConfigError, match=r"^an ONNX model runs under onnxruntime or openvino alone, got 'eager'$"):
        prepare(model, tiny_images, runtime="eager")


def test_a_model_that_fails_is_said_to(tiny_images):
    """One sentence, with runtime and reason."""
    with pytest.raises(ModelError, match=r"^Linear does not run under eager: mat1 and mat2"):
        prepare(nn.Linear(5, 2), tiny_images)
