"""Post-training static int8 that keeps its accuracy, and says what it did to each layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from compress.calling.fidelity import snr_db
from compress.calling.inputs import Inputs, evaluating, infer
from compress.errors import CompressError, ModelError, first_line
from compress.exported.libraries import require_torchao
from compress.modules.copying import copied
from compress.modules.masks import make_permanent_
from compress.quantization import checks, search
from compress.quantization.contract import Accuracy, Contract, against, check_drop
from compress.quantization.ladder import climb
from compress.quantization.model import QuantizedModel, count_int8_kernels
from compress.quantization.observed import Observer, check_observer
from compress.quantization.report import QuantizationReport, no_kernel
from compress.system.progress import working

# The compiled model rounds a little differently than its simulation, so the contract is held again on it.
_ROUNDS = 4
_NO_LAYER = "a model must have a layer that runs as an int8 kernel to be quantized, this one has none"


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """How :func:`quantize` quantizes.

    Attributes:
        max_accuracy_drop: the contract: how much accuracy the int8 model may lose, in 0..1.
        observer: how the range of an activation is found: "histogram" cuts off rare extremes where that lessens the
            squared error, "minmax" keeps all.

    Raises:
        ConfigError: if a value breaks its rule.
    """

    max_accuracy_drop: float = 0.005
    observer: Observer = "histogram"

    def __post_init__(self) -> None:
        check_drop(self.max_accuracy_drop)
        check_observer(self.observer)


class Quantized(NamedTuple):
    """An int8 model and what became of each layer."""

    model: QuantizedModel
    report: QuantizationReport


def quantize(
    model: nn.Module,
    calibration_data: Tensor | Mapping[str, Any] | Iterable[Any],
    *,
    evaluate: Accuracy | None = None,
    max_accuracy_drop: float = 0.005,
    observer: Observer = "histogram",
    device: torch.device | str = "cpu",
) -> Quantized:
    """An int8 model of ``model`` for x86 CPUs: weights per channel, activations per tensor, batch norms folded.

    Where it loses more accuracy than ``max_accuracy_drop``, ranges of weights are chosen by squared error, biases
    corrected, channels equalized across layers, and weights rounded by what the outputs lose, one after the other and
    only as far as it takes. Where all of that is not enough, the layers are ranked by how much each one alone disturbs
    the outputs, and as few as possible of the worst stay in float. ``model`` is left as it is.

    Args:
        model: in float32 on the CPU.
        calibration_data: some hundred typical inputs, never those that it is judged on: a tensor ``[n, ...]`` or
            batches, e.g. a data loader, of tensors, tuples of arguments or mappings of named ones; of pairs (inputs,
            targets) the inputs are taken. What differs in size from batch to batch is left open.
        evaluate: accuracy of a model in 0..1 on examples of your choice, again not those that it is judged on. If left
            out, and the model is sure of its classes, the accuracy that its own probabilities expect of the classes
            given to the calibration inputs; where it is not sure, the share of them that get the float model's class,
            and the accuracy falls by no more; where it puts out no logits ``[n, num_classes]``, one less the relative
            squared error of its outputs.
        max_accuracy_drop: how much accuracy it may lose, in 0..1.
        observer: how ranges are found, see :class:`QuantizeConfig`.
        device: the CPU; PyTorch has no int8 convolution elsewhere.

    Raises:
        ConfigError: if a setting makes no sense, torchao is missing, or the device is CUDA.
        DataError: if the calibration data are empty, constant, or not finite.
        ModelError: if the model cannot be exported, is quantized already or not in float32, or the contract cannot
            be held by any layer in int8.
    """
    config = QuantizeConfig(max_accuracy_drop=max_accuracy_drop, observer=observer)
    checks.check_device(device, model)
    return quantize_by(config, model, checks.calibration_batches(calibration_data, model), evaluate)


def quantize_by(
    config: QuantizeConfig,
    model: nn.Module,
    batches: list[Inputs],
    evaluate: Accuracy | None = None,
    *,
    progress: bool = True,
) -> Quantized:
    """As :func:`quantize`, by settings, on batches that are known to be good."""
    require_torchao()
    checks.check_model(model)
    given, model = model, make_permanent_(copied(model))
    with evaluating(model), evaluating(given):
        found = search.prepare(model, given, batches, config.observer, progress=progress)
        accuracy, measure = against(given, batches) if evaluate is None else Contract(evaluate, "accuracy")
        accuracy_float = accuracy(given)
        wanted = accuracy_float - config.max_accuracy_drop
        found, all_int8, rungs = climb(found, accuracy, wanted, progress=progress)
        quantized, count, kernels, reached = _held(found, accuracy, wanted, all_int8, progress=progress)
        report = QuantizationReport(
            layers=search.layer_reports(found, count),
            int8_kernels=kernels,
            accuracy_float=accuracy_float,
            accuracy_int8=reached,
            accuracy_measure=measure,
            output_snr_db=snr_db(infer(given, found.inputs), infer(quantized, found.inputs)),
            reduce_range=found.reduce_range,
            rungs=rungs,
        )
    quantized.notes["report"] = report.to_json()
    return Quantized(quantized, report)


def _kernels(quantized: QuantizedModel, batch: Inputs) -> int:
    """How many int8 kernels run.

    Raises:
        ModelError: if Inductor cannot compile the model, or what it made does not run.
    """
    try:
        return count_int8_kernels(quantized, batch)
    except CompressError:
        raise
    except Exception as cause:
        reason = first_line(cause)
        raise ModelError(f"the int8 model does not run as Inductor compiles it: {reason}") from cause


class _Held(NamedTuple):
    """A model that holds the contract."""

    model: QuantizedModel
    in_float: int
    int8_kernels: int
    accuracy: float


def _held(found: search.Found, accuracy: Accuracy, wanted: float, all_int8: float, *, progress: bool) -> _Held:
    """The int8 model with as few layers in float as reach the accuracy wanted; that with none in float is known."""
    if not found.ranked:
        why = sorted({no_kernel(layer.operation) for layer in found.simulation.layers})
        raise ModelError("; ".join([_NO_LAYER, *why]))
    count, reached = 0, math.nan
    for _ in range(_ROUNDS):
        fewest = search.fewest_in_float(found, accuracy, wanted, at_least=count, all_int8=all_int8)
        if fewest is None:
            break
        quantized = search.built(found, fewest)
        with working("compiling the int8 model", shown=progress):
            kernels = _kernels(quantized, found.batches[0])
            if kernels < found.num_int8(fewest) and search.note_float_layers_(found, fewest, quantized):
                continue
        if kernels == 0:
            raise ModelError(_NO_LAYER)
        reached = accuracy(quantized)
        if reached >= wanted:
            return _Held(quantized, fewest, kernels, reached)
        count = fewest + 1
    got = "" if math.isnan(reached) else f", compiled it reached {reached:.2%}"
    raise ModelError(
        f"no set of int8 layers reaches the accuracy of {wanted:.2%} that max_accuracy_drop leaves{got}:"
        " allow a larger drop, or fine-tune with quantization in the loop"
    )
