"""Pruned networks leave PyTorch's eager mode like any others: exported, compiled, and run by ONNX Runtime."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
import torchvision
from torch import Tensor, nn

from compress.models.googlenet import googlenet
from compress.pruning.structured import prune_channels
from tests.nets import lively
from tests.strategies import Block, RandomNet

SHAPE = (3, 8, 8)


def coupled() -> nn.Module:
    """Residuals, concatenation, chunks, squeeze and excitation, a channel shuffle, and flattening."""
    kinds = ("residual", "concat", "chunk", "squeeze", "shuffle")
    return RandomNet([Block(kind=kind, width=2, act="silu") for kind in kinds], space=2, flatten=True)


def grouped() -> nn.Module:
    """Depthwise and grouped convolutions, and a layer used twice."""
    kinds = ("depthwise", "grouped", "reuse", "pool")
    return RandomNet([Block(kind=kind, width=2, act="relu") for kind in kinds], space=2, flatten=False)


NETS = {"coupled": coupled, "grouped": grouped}


def pruned(name: str) -> nn.Module:
    """A tiny network without a quarter of its channels, in float32 and eval mode."""
    torch.manual_seed(0)
    return prune_channels(lively(NETS[name]()).float(), torch.randn(1, *SHAPE), 0.25).eval()


def batch(*shape: int) -> Tensor:
    """Three inputs."""
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))


def check_export(model: nn.Module, x: Tensor) -> None:
    """Exported with a batch of its own size, and run with another, it puts out the same."""
    dynamic = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(model, (x[:2],), dynamic_shapes=(dynamic,))
    with torch.inference_mode():
        assert torch.allclose(program.module()(x), model(x), rtol=1e-5, atol=1e-5)


def check_onnx(model: nn.Module, x: Tensor) -> None:
    """ONNX Runtime puts out the same, up to its own order of summing."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with warnings.catch_warnings():
        # The exporter's own, of what it will change.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    content = io.BytesIO()
    program.save(content)
    session = runtime.InferenceSession(content.getvalue(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.inference_mode():
        assert torch.allclose(torch.from_numpy(found), model(x), rtol=1e-3, atol=1e-4)


def check_compile(model: nn.Module, x: Tensor, backend: str) -> None:
    """Compiled it puts out the same."""
    torch._dynamo.reset()
    with torch.inference_mode():
        assert torch.allclose(torch.compile(model, backend=backend)(x), model(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_pruned_networks_export(name):
    """torch.export sees the new widths, in Python attributes too."""
    check_export(pruned(name), batch(*SHAPE))


@pytest.mark.parametrize("name", NETS)
def test_pruned_networks_run_in_onnx_runtime(name):
    """The ONNX graph agrees with the model."""
    check_onnx(pruned(name), batch(*SHAPE))


@pytest.mark.parametrize("name", NETS)
def test_pruned_networks_are_captured_by_the_compiler(name):
    """The captured graph agrees with the model; the code that is generated from it is looked at nightly."""
    check_compile(pruned(name), batch(*SHAPE), "aot_eager")


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["googlenet", "resnet18"])
def test_networks_of_full_size_go_elsewhere_too(name):
    """The same of two real networks, compiled to machine code."""
    torch.manual_seed(0)
    dense = googlenet() if name == "googlenet" else torchvision.models.resnet18(weights=None)
    shape = (3, 32, 32) if name == "googlenet" else (3, 64, 64)
    model = prune_channels(lively(dense).float(), torch.randn(1, *shape), 0.2).eval()
    check_export(model, batch(*shape))
    check_onnx(model, batch(*shape))
    check_compile(model, batch(*shape), "inductor")
