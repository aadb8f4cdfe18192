"""The conftest of ``portability.py``: models that are worse on purpose, as the variable WORSENED says.

"channel" builds another model; the others change what is measured of it, by what such a model would be worse.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from compress.exported import ExportedModel
from compress.pytest_plugin.meter import Meter
from compress.results import Measurement

_HARM = os.environ.get("WORSENED", "")


@pytest.fixture(scope="session")
def compressed(compressed: nn.Module) -> nn.Module:
    """The recipe's model, or a worse one."""
    if _HARM == "channel" and not isinstance(compressed, ExportedModel):
        return one_channel_more(compressed)
    return compressed


@pytest.fixture(scope="session")
def file_bytes(file_bytes: Meter) -> Meter:
    """Of an int8 model, with its largest weight in float: three bytes more for each element."""

    def measure(compressed: nn.Module, dense: nn.Module) -> Measurement:
        measured = file_bytes(compressed, dense)
        integers = [one.numel() for one in compressed.buffers() if one.dtype == torch.int8]
        if _HARM != "float" or not integers:
            return measured
        return replace(measured, compressed=(measured.compressed or 0) + 3 * max(integers))

    return Meter(metric="file_bytes", measure=measure)


@pytest.fixture
def quality(quality: Meter) -> Meter:
    """Of the top-1 error, with one test example of a hundred more wrong."""
    return _worse(quality, "error", more_errors) if quality.metric == "top1_error" else quality


@pytest.fixture(scope="session")
def macs(macs: Meter) -> Meter:
    """With 3 % more of them."""
    return _worse(macs, "macs", lambda one: replace(one, compressed=round(1.03 * (one.compressed or 0))))


@pytest.fixture
def cpu_latency(cpu_latency: Meter) -> Meter:
    """With a layer that sleeps for as long as the dense model works."""
    return _worse(cpu_latency, "sleep", asleep)


def one_channel_more(model: nn.Module) -> nn.Module:
    """A copy in which the first pair of convolutions has a channel more between them."""
    model = copy.deepcopy(model)
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))]
    for first, norm, second in zip(layers, layers[1:], layers[2:], strict=False):
        kinds = isinstance(first, nn.Conv2d), isinstance(norm, nn.BatchNorm2d), isinstance(second, nn.Conv2d)
        if all(kinds) and first.out_channels == norm.num_features == second.in_channels and second.groups == 1:
            _widen_(first, 0)
            _widen_(norm, 0)
            _widen_(second, 1)
            first.out_channels = norm.num_features = second.in_channels = first.out_channels + 1
            return model
    return model


def _widen_(layer: nn.Module, dim: int) -> None:
    """One slice more, of small numbers, along a dimension; of the input's, only the weight has one."""
    for tensors in (layer._parameters, layer._buffers):
        for name, tensor in tensors.items():
            if tensor is not None and tensor.ndim > dim:
                extra = torch.full_like(tensor.narrow(dim, 0, 1), 1e-3)
                wider = torch.cat([tensor.detach(), extra], dim)
                tensors[name] = nn.Parameter(wider) if isinstance(tensor, nn.Parameter) else wider


def more_errors(measured: Measurement) -> Measurement:
    """With one of a hundred test examples, at least one, wrong that were right."""
    if measured.correct is None or measured.compressed is None:
        return measured
    n = measured.num_examples
    right = np.unpackbits(np.frombuffer(measured.correct[1], np.uint8), count=n)
    right[np.flatnonzero(right)[: max(1, round(n / 100))]] = 0
    correct = (measured.correct[0], np.packbits(right).tobytes())
    return replace(measured, correct=correct, compressed=float(1 - right.mean()))


def asleep(measured: Measurement) -> Measurement:
    """With the dense model's time on top of the compressed one's."""
    pairs = tuple((dense, compressed + dense) for dense, compressed in measured.pairs)
    return replace(measured, pairs=pairs, compressed=(measured.compressed or 0) + (measured.dense or 0))


def _worse(meter: Meter, harm: str, change: Callable[[Measurement], Measurement]) -> Meter:
    if harm != _HARM:
        return meter
    return Meter(metric=meter.metric, measure=lambda *models: change(meter(*models)))
