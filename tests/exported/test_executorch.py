from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn

from compress.artifacts import artifact
from compress.artifacts.runtimes import prepare
from compress.calling.inputs import inputs_of
from compress.errors import ArtifactError, ConfigError, ModelError
from compress.exported.executorch import PteModel, to_pte
from compress.quantization.static import quantize
from tests.nets import lively
from tests.workloads import featured_net


@pytest.fixture(scope="module", autouse=True)
def _installed():
    """What runs the file."""
    pytest.importorskip("executorch")


@pytest.fixture(scope="module")
def content(tiny_dense, tiny_images):
    """The tiny network for four images at once."""
    return to_pte(tiny_dense, inputs_of(tiny_images[:4]))


def test_a_file_runs_any_number_of_inputs_its_own_batch_at_a_time(content, tiny_dense, tiny_images):
    """The last ones are made up to a batch, and what comes of the rest is left out."""
    model = PteModel(content)
    assert model.batch == 4
    with torch.no_grad():
        for images in (tiny_images[:4], tiny_images[:6], tiny_images[:1], tiny_images):
            torch.testing.assert_close(model(images), tiny_dense(images), rtol=1e-4, atol=1e-5)


def test_xnnpack_computes_all_of_it_and_the_file_says_so(content):
    """What is left would run on slow kernels."""
    model = PteModel(content)
    assert model.portable == {}
    assert model.delegated >= 4
    assert model.delegation == f"{model.delegated} of {model.delegated} operations delegated to XNNPACK"


def test_what_xnnpack_does_not_compute_is_named():
    """With its number."""

    class Summing(nn.Module):
        def forward(self, x):
            return (x * 2).cumsum(dim=1) + 1

    model = PteModel(to_pte(Summing().eval(), inputs_of(torch.randn(1, 8))))
    assert model.portable == {"cumsum": 1}
    assert model.delegation.endswith("on slow portable kernels: 1 cumsum")


def test_what_nothing_there_computes_is_named():
    """ExecuTorch has no kernel for it."""

    class Sorting(nn.Module):
        def forward(self, x):
            return x.sort(dim=1)[0]

    with pytest.raises(
        ModelError, match=r"^ExecuTorch has no kernel for an operation that XNNPACK leaves to it: .*sort"
    ):
        to_pte(Sorting().eval(), inputs_of(torch.randn(1, 8)))


def test_an_int8_model_stays_one(tiny_int8, tiny_images):
    """Its layers are delegated, its weights are bytes, its answers those of the graph."""
    content = to_pte(tiny_int8.model, inputs_of(tiny_images))
    model = PteModel(content)
    assert "convolution" not in model.portable
    assert "linear" not in model.portable
    with torch.no_grad():
        expected = tiny_int8.model.graph(tiny_images)
        difference = float((model(tiny_images) - expected).abs().max() / expected.abs().max())
    assert difference < 0.05


def test_the_weights_of_an_int8_file_are_bytes(tiny_images):
    """A quarter of the float file, but for what every file has."""
    torch.manual_seed(0)
    wide = lively(
        nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 256, 3), nn.Flatten(), nn.Linear(4096, 9))
    )
    wide = wide.float().eval()
    in_float = to_pte(wide, inputs_of(tiny_images[:1]))
    in_int8 = to_pte(quantize(wide, tiny_images, max_accuracy_drop=1.0).model, inputs_of(tiny_images[:1]))
    assert len(in_int8) < 0.3 * len(in_float)


@pytest.mark.parametrize("padding", ["same", 1])
@pytest.mark.parametrize("channels_last", [False, True])
def test_one_channel_and_padding_by_name_come_out_right(padding, channels_last):
    """Whatever the strides of an input with one channel look like."""
    torch.manual_seed(0)
    network = lively(nn.Sequential(nn.Conv2d(1, 8, 3, padding=padding), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4)))
    network = network.float().eval()
    images = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    given = images.to(memory_format=torch.channels_last) if channels_last else images
    with torch.no_grad():
        torch.testing.assert_close(
            PteModel(to_pte(network, inputs_of(given)))(given), network(images), rtol=1e-4, atol=1e-5
        )
        int8 = quantize(network, images, max_accuracy_drop=1.0).model
        expected = int8.graph(images)
        found = PteModel(to_pte(int8, inputs_of(given)))(given)
    assert float((found - expected).abs().max() / expected.abs().max()) < 0.05


def test_a_file_comes_back_as_it_was_written(tiny_dense, tiny_images, tmp_path):
    """Saved, loaded, copied, prepared and saved again."""
    artifact.save(tiny_dense, tmp_path / "net.pte", tiny_images)
    model = copy.deepcopy(artifact.load(tmp_path / "net.pte"))
    assert prepare(model, tiny_images, runtime="executorch") is model
    artifact.save(model, tmp_path / "again.pte")
    assert (tmp_path / "again.pte").read_bytes() == (tmp_path / "net.pte").read_bytes()
    with pytest.raises(ConfigError, match=r"^an ExecuTorch model runs under executorch alone, got 'onnxruntime'$"):
        prepare(model, tiny_images, runtime="onnxruntime")


def test_outputs_are_nested_as_the_model_nests_them(tiny_images):
    """By name, as under every other runtime."""
    torch.manual_seed(0)
    network = featured_net().eval()
    found = PteModel(to_pte(network, inputs_of(tiny_images[:2])))(tiny_images[:3])
    assert found.keys() == {"logits", "features"}
    torch.testing.assert_close(found["features"], network(tiny_images[:3])["features"].detach(), rtol=1e-4, atol=1e-5)


def test_an_example_is_needed_to_write_a_file(tiny_dense, tmp_path):
    """It is for the example's shape."""
    with pytest.raises(
        ConfigError, match=r"^example_inputs are needed to write a TinyNet as \.pt2, \.onnx or \.pte, got none$"
    ):
        artifact.save(tiny_dense, tmp_path / "net.pte")


def test_a_damaged_file_is_said_to_be_one(content, tmp_path):
    """With its path."""
    path = tmp_path / "net.pte"
    path.write_bytes(content[:100])
    with pytest.raises(ArtifactError, match=rf"^{path} is damaged, or cannot be run by ExecuTorch: "):
        artifact.load(path)


def test_a_file_that_computes_something_else_is_not_written(tiny_dense, tiny_images, monkeypatch):
    """The file itself is tried."""
    run = PteModel._run
    monkeypatch.setattr(PteModel, "_run", lambda model, tensors: [-one for one in run(model, tensors)])
    with pytest.raises(ModelError, match=r"^the \.pte file does not compute what the model does: "):
        to_pte(tiny_dense, inputs_of(tiny_images))


def test_a_missing_package_is_said_with_the_extra_to_install(content, monkeypatch):
    """One sentence."""
    monkeypatch.setitem(sys.modules, "executorch.runtime", None)
    with pytest.raises(
        ConfigError, match=r"^the runtime executorch is not installed: pip install 'pytest-compress\[executorch\]'"
    ):
        PteModel(content)
