"""How large a model is: parameters, multiply-accumulates, bytes on disk. Exact, and the same on every machine."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from compress.artifacts import artifact
from compress.calling.inputs import device_of, evaluating, inputs_of
from compress.exported.file_model import check_seen
from compress.exported.model import parameters_of, uncompiled
from compress.exported.onnx import OnnxModel
from compress.exported.onnx_counts import macs_in, parameters_in
from compress.exported.openvino import OpenVinoModel
from compress.macs import macs_of
from compress.modules.masks import without_masks
from compress.results import Measurement

# Whose graph can be read, whatever runs it.
_ONNX = (OnnxModel, OpenVinoModel)


def num_params(compressed: nn.Module, dense: nn.Module) -> Measurement:
    """Parameters; one that several layers share counts once."""
    return _pair("num_params", count_params, compressed, dense)


def num_nonzero_params(compressed: nn.Module, dense: nn.Module) -> Measurement:
    """Parameters that are not exactly zero."""
    return _pair("num_nonzero_params", count_nonzero_params, compressed, dense)


def file_bytes(compressed: nn.Module, dense: nn.Module) -> Measurement:
    """Bytes of the file that :func:`compress.save` writes."""
    return _pair("file_bytes", count_file_bytes, compressed, dense)


def macs(compressed: nn.Module, dense: nn.Module, example_inputs: Any) -> Measurement:
    """Multiply-accumulates of one forward pass, for one of the examples that ``example_inputs`` are."""

    def count(model: nn.Module) -> int:
        return count_macs(model, example_inputs)

    return _pair("macs", count, compressed, dense)


def count_params(model: nn.Module) -> int:
    """Elements of all parameters; of a graph of integers, all that it holds: weights, biases and scales.

    Raises:
        MeasureError: if the model is a file that another runtime runs, and no ``.onnx``.
    """
    if isinstance(model, _ONNX):
        return sum(array.size for array in parameters_in(model.content))
    check_seen(model, "parameters")
    return sum(parameter.numel() for parameter in parameters_of(model))


def count_nonzero_params(model: nn.Module) -> int:
    """Elements of all parameters that are not exactly zero.

    Raises:
        MeasureError: if the model is a file that another runtime runs, and no ``.onnx``.
    """
    if isinstance(model, _ONNX):
        return sum(int(np.count_nonzero(array)) for array in parameters_in(model.content))
    check_seen(model, "parameters")
    return sum(int(torch.count_nonzero(parameter)) for parameter in parameters_of(without_masks(model)))


def count_file_bytes(model: nn.Module) -> int:
    """Bytes of the saved model."""
    return len(artifact.serialize(model))


def count_compressed_file_bytes(model: nn.Module) -> int:
    """Bytes of the saved model after DEFLATE at zlib's default level, as zip, gzip and HTTP apply it."""
    return len(zlib.compress(artifact.serialize(model)))


def count_macs(model: nn.Module, example_inputs: Any) -> int:
    """Multiply-accumulates for one example, see :func:`compress.macs.macs_of`.

    Raises:
        MeasureError: if the model is a file that another runtime runs, and no ``.onnx``, or one of operations whose
            cost is unknown.
        ModelError: if the model holds operations with weights whose cost is unknown.
    """
    inputs = inputs_of(example_inputs).to(device_of(model))
    count = len(inputs.tensors[0])
    if isinstance(model, _ONNX):
        tensors = model.arguments(inputs.args, inputs.kwargs)
        return macs_in(model.content, [tensor.numpy() for tensor in tensors]) // count
    check_seen(model, "multiply-accumulates")
    # In train mode a mere forward pass would move running statistics.
    with evaluating(model):
        return macs_of(lambda: inputs.call(uncompiled(model))).whole("the metric macs") // count


def _pair(metric: str, count: Callable[[nn.Module], int], compressed: nn.Module, dense: nn.Module) -> Measurement:
    return Measurement(metric=metric, dense=count(dense), compressed=count(compressed))
