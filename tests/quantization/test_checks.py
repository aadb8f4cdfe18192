from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from compress.errors import ConfigError, DataError, ModelError
from compress.quantization.checks import calibration_batches, check_device, check_model

IMAGES = torch.arange(24.0).reshape(6, 4)


def test_a_tensor_is_cut_into_batches():
    """All inputs, in their order."""
    batches = calibration_batches(IMAGES, batch_size=4)
    assert [len(batch.args[0]) for batch in batches] == [4, 2]
    assert torch.cat([batch.args[0] for batch in batches]).equal(IMAGES)


def test_of_labelled_batches_the_inputs_are_taken():
    """A data loader will do; empty batches are passed over."""
    loader = [(IMAGES[:2], torch.zeros(2)), [IMAGES[2:], torch.zeros(4)], (IMAGES[:0], torch.zeros(0))]
    assert torch.cat([batch.args[0] for batch in calibration_batches(loader)]).equal(IMAGES)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "^calibration needs at least one input, got none$"),
        (IMAGES[:0], "^calibration needs at least one input, got none$"),
        (torch.full((4, 3), 0.5), "^calibration inputs must differ, or no range can be read off them: all are 0.5$"),
        ([torch.ones(2, 3), torch.ones(1, 3)], "all are 1$"),
        (torch.tensor([[1.0, math.nan]]), "^calibration inputs must be finite numbers, got NaN or infinity$"),
        (torch.tensor([[1.0, math.inf]]), "^calibration inputs must be finite numbers"),
        (IMAGES.double(), "^calibration inputs must be float32, got float64$"),
        (["image"], "^calibration data must be tensors, or batches of them, got str$"),
    ],
)
def test_calibration_data_that_say_nothing_are_refused(data, message):
    """None, constant, not finite, of another type: one sentence each."""
    with pytest.raises(DataError, match=message):
        calibration_batches(data)


def test_only_the_cpu_will_do():
    """Another device, by argument or by where the model lies."""
    with pytest.raises(ConfigError, match=r"^int8 runs on the CPU, got device 'meta'$"):
        check_device("meta", nn.Linear(2, 2))
    with pytest.raises(ModelError, match=r"^the model must have its weights to quantize it, 'weight' is on"):
        check_device("cpu", nn.Linear(2, 2, device="meta"))


def test_integer_weights_are_refused():
    """A model quantized by whatever means."""
    model = nn.Linear(2, 2)
    model.register_buffer("packed", torch.zeros(2, dtype=torch.int8))
    with pytest.raises(ModelError, match=r"^the model must not be quantized already, 'packed' is int8$"):
        check_model(model)


def test_index_buffers_are_no_quantized_weights():
    """64-bit counters and indices, as norms and Swin have them, are fine."""
    model = nn.BatchNorm1d(3)
    check_model(model)
