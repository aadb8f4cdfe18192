import pytest
import torch
from torch import nn

from compress.errors import ConfigError, ModelError
from compress.modules.masks import make_permanent_
from compress.pruning.checks import check_example, check_model
from compress.pruning.unstructured import prune_weights

X = torch.zeros(1, 3, 8, 8)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.LazyConv2d(4, 1)), r"lazy layers must be initialized .* \(tensor '0.weight'\)"),
        (nn.Sequential(torch.ao.nn.quantized.ReLU6()), r"must not be quantized.* \(layer '0', ReLU6\)"),
        (lambda x: x, r"must be a torch.nn.Module, got function"),
    ],
    ids=["lazy", "quantized", "function"],
)
def test_models_without_channels_of_their_own_are_refused(model, message):
    """The message says what is wrong and where."""
    with pytest.raises(ModelError, match=message):
        check_model(model)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_a_quantized_buffer_is_refused():
    """Quantized tensors are found wherever they are."""
    model = nn.Module()
    model.register_buffer("table", torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8))
    with pytest.raises(ModelError, match=r"must not be quantized.* \(tensor 'table'\)"):
        check_model(model)


def test_inputs_on_another_device_are_refused():
    """The message holds both devices."""
    with pytest.raises(ModelError, match=r"^example_inputs must lie on the model's device, cpu, got meta$"):
        check_example(nn.Linear(3, 3), X.to("meta"))


@pytest.mark.parametrize("inputs", [None, 3, "text"])
def test_inputs_of_another_kind_are_refused(inputs):
    """A string is iterable, but no tuple of arguments."""
    with pytest.raises(ConfigError, match=r"^example_inputs must be a tensor, a tuple"):
        check_example(nn.Linear(3, 3), inputs)


def test_a_masked_model_is_refused():
    """Masks would keep every channel; made permanent they are weights like others."""
    masked = prune_weights(nn.Sequential(nn.Linear(4, 4)), 0.5)
    with pytest.raises(
        ModelError, match=r"^the model must not be masked: prune channels before weights, .*\(layer '0', Linear\)$"
    ):
        check_model(masked)
    check_model(make_permanent_(masked))
