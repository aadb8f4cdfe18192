from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.artifacts import artifact
from compress.calling.fidelity import snr_db
from compress.errors import ArtifactError, ConfigError, ModelError
from compress.quantization.half import HalfModel, to_half
from tests.workloads import tiny_net

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    """The tiny network in eval mode."""
    torch.manual_seed(0)
    return tiny_net().eval()


@pytest.mark.parametrize(("precision", "decibels"), [("bfloat16", 35), ("float16", 50)])
def test_it_computes_in_half_and_speaks_float32(network, precision, decibels):
    """Weights of the type, channels last; outputs in float32, close to the float model's, which stays as it is."""
    half = to_half(network, precision)
    outputs = half(IMAGES)
    assert outputs.dtype == torch.float32
    assert {parameter.dtype for parameter in half.parameters()} == {getattr(torch, precision)}
    assert half.network.features[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert snr_db(network(IMAGES), outputs) > decibels
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert not half.training


def test_inputs_that_are_no_images_pass_too():
    """A vector has no channels to put last."""
    layer = nn.Linear(4, 2)
    torch.testing.assert_close(to_half(layer)(torch.ones(3, 4)), layer(torch.ones(3, 4)), rtol=0.05, atol=0.05)


def test_a_half_model_is_saved_at_half_the_size_and_loads_to_the_bit(tmp_path, network):
    """Its file is read by the float network's factory."""
    half = to_half(network)
    artifact.save(half, tmp_path / "half.safetensors")
    loaded = artifact.load(tmp_path / "half.safetensors", tiny_net)
    assert isinstance(loaded, HalfModel)
    assert loaded.precision == "bfloat16"
    assert loaded(IMAGES).equal(half(IMAGES))
    assert artifact.digest(loaded) == artifact.digest(half) != artifact.digest(network)


def test_a_precision_that_no_release_knows_is_a_damaged_file(tmp_path, network):
    """One sentence."""
    half = to_half(network)
    half.precision = "float8"
    artifact.save(half, tmp_path / "half.safetensors")
    with pytest.raises(ArtifactError, match="precision must be one of bfloat16, float16, got 'float8'"):
        artifact.load(tmp_path / "half.safetensors", tiny_net)


def test_an_unknown_precision_is_refused(network):
    """With those that there are."""
    with pytest.raises(ConfigError, match=r"^precision must be one of bfloat16, float16, got 'float8'$"):
        to_half(network, "float8")


def test_only_float32_is_halved(network):
    """With the tensor named."""
    with pytest.raises(
        ModelError, match=r"^the model must be in float32 to be halved, 'features.0.weight' is float64$"
    ):
        to_half(network.double())


def test_a_weight_that_would_overflow_is_named(network):
    """float16 ends at 65504; bfloat16 does not."""
    network.classifier.weight.data[0, 0] = 1e6
    with pytest.raises(ModelError, match=r"at most 65504 in float16, 'classifier.weight' has a larger one$"):
        to_half(network, "float16")
    to_half(network, "bfloat16")
